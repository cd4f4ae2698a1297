// Reads words: runs of ASCII letters, in lower case.

#include <stdio.h>

enum { LONGEST_WORD = 255 }; // longer ones are cut off

// Reads the next word into `text`, which has room for LONGEST_WORD + 1 characters. 0 at the end of the file.
int reader_next(FILE *file, char *text);
