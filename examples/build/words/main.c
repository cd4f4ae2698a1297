// Prints how often each word occurs in stdin, the most frequent first.

#include "reader.h"
#include "table.h"

int main(void)
{
    char text[LONGEST_WORD + 1];
    while (reader_next(stdin, text)) table_add(text);
    for (struct word *word = table_sorted(); word; word = word->next) printf("%7lu %s\n", word->count, word->text);
    return 0;
}
