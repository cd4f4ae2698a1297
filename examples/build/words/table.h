// A table of words, and how often each was seen.

struct word {
    char *text;
    unsigned long count;
    struct word *next;
};

void table_add(const char *text);

// All words in a list, the most frequent first; those that are equally frequent by their letters.
struct word *table_sorted(void);
