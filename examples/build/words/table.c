#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

static struct word *buckets[BUCKETS];
static size_t words;

static void *need(void *memory)
{
    if (memory) return memory;
    fputs("words: out of memory\n", stderr);
    exit(1);
}

static unsigned long hash(const char *text)
{
    unsigned long sum = 5381;
    while (*text) sum = sum * 33 + (unsigned char)*text++;
    return sum;
}

void table_add(const char *text)
{
    struct word **place = &buckets[hash(text) % BUCKETS];
    while (*place && strcmp((*place)->text, text) != 0) place = &(*place)->next;
    if (!*place) {
        *place = need(calloc(1, sizeof **place));
        (*place)->text = need(malloc(strlen(text) + 1));
        strcpy((*place)->text, text);
        words++;
    }
    (*place)->count++;
}

static int compare(const void *left, const void *right)
{
    const struct word *a = *(struct word *const *)left, *b = *(struct word *const *)right;
    if (a->count != b->count) return a->count < b->count ? 1 : -1;
    return strcmp(a->text, b->text);
}

struct word *table_sorted(void)
{
    struct word **all = need(malloc((words + 1) * sizeof *all)), *first;
    size_t count = 0;
    for (int i = 0; i < BUCKETS; i++)
        for (struct word *word = buckets[i]; word; word = word->next) all[count++] = word;
    qsort(all, count, sizeof *all, compare);
    all[count] = NULL;
    for (size_t i = 0; i < count; i++) all[i]->next = all[i + 1];
    first = all[0];
    free(all);
    return first;
}
