#include "reader.h"

static int is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

int reader_next(FILE *file, char *text)
{
    int c, length = 0;
    do c = getc(file);
    while (c != EOF && !is_letter(c));
    for (; c != EOF && is_letter(c); c = getc(file))
        if (length < LONGEST_WORD) text[length++] = (char)(c | 0x20);
    text[length] = '\0';
    return length;
}
