/*
 * Lua states whose allocator fails.
 *
 *   host memory LIBRARY SCRIPT FAILURES STEP FIRST
 *
 * Runs the script in a new state in which the allocation number FIRST fails, and those after it, FAILURES in all; then
 * in one in which number FIRST + STEP is the first to fail, and so on until there are none so late. Lua 5.2 and later
 * collect garbage when one fails, and try again: they see one failure only as a collection, and two as an error.
 *
 * The script begins in a state that has the standard libraries, and may return an error in no other way than by
 * raising it. After it, all memory is there again: `after()` is called, if the script has set it, and has to succeed.
 * Then the state is closed. Prints how often the script succeeded and how often it failed; with each message that is
 * not about memory, where it was. So a process that dies says where by what it has not printed any more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua.h"

struct budget {
  int is_counting;
  long count, first, failures;
};

static void *allocate(void *data, void *block, size_t old, size_t new) {
  struct budget *budget = data;
  if (new == 0) {
    free(block);
    return NULL;
  }
  /* Lua relies on it that a block can shrink; without a block, `old` is something else. */
  if (budget->is_counting && (!block || new > old)) {
    long number = ++budget->count;
    if (number >= budget->first && number < budget->first + budget->failures) return NULL;
  }
  return realloc(block, new);
}

static int is_about_memory(const char *message) { return strstr(message, "not enough memory") != NULL; }

/* The error on top of the stack in words: it may be an object. */
static const char *words(lua_State *L) {
  lua.loadstring(L, "return tostring((...))");
  lua.pushvalue(L, -2);
  call(L, 1, 1);
  const char *message = lua.tolstring(L, -1, NULL);
  return message ? message : "an error without words";
}

/* Returns 0 if the script succeeded, 1 if it failed for lack of memory, 2 if something is wrong. */
static int run_once(const char *path, struct budget *budget) {
  lua_State *L = lua.newstate(allocate, budget, 1);
  open_libraries(L);
  add_host(L);
  if (load_file(L, path)) return 2;
  budget->is_counting = 1;
  int result = call(L, 0, 0) != 0;
  budget->is_counting = 0;
  if (result && !is_about_memory(words(L))) {
    printf("allocation %ld: %s\n", budget->first, words(L));
    result = 2;
  }
  lua.settop(L, 0);
  lua.loadstring(L, "if after then after() end");
  if (call(L, 0, 0)) {
    printf("after allocation %ld: %s\n", budget->first, words(L));
    result = 2;
  }
  lua.close(L);
  return result;
}

int run_without_memory(char **arguments) {
  load_library(arguments[0]);
  long counts[3] = { 0 }, failures = atol(arguments[2]), step = atol(arguments[3]), first = atol(arguments[4]);
  struct budget budget;
  setvbuf(stdout, NULL, _IOLBF, 0);
  do {
    budget = (struct budget){ .first = first, .failures = failures };
    if (getenv("MEMORY_TRACE")) fprintf(stderr, "%ld\n", first);
    counts[run_once(arguments[1], &budget)]++;
    first += step;
  } while (budget.count >= budget.first);
  printf("%ld succeeded, %ld failed, %ld went wrong\n", counts[0], counts[1], counts[2]);
  return counts[2] > 0;
}
