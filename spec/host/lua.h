/*
 * The little that the host needs of Lua's C API. The Lua library is loaded when the host runs, so that one host serves
 * all versions; what differs between them is asked for by name, and is NULL where it is missing.
 */
#ifndef HOST_LUA_H
#define HOST_LUA_H

#include <stddef.h>

typedef struct lua_State lua_State;
typedef int (*lua_CFunction)(lua_State *);
typedef void *(*lua_Alloc)(void *, void *, size_t, size_t);

struct lua {
  lua_State *(*newstate)(lua_Alloc, void *, unsigned);                 /* the seed: 5.5; ignored by the others */
  lua_State *(*auxiliary_newstate)(void);
  void (*openlibs)(lua_State *);
  void (*openselectedlibs)(lua_State *, int, int);                     /* 5.5 */
  int (*loadfile)(lua_State *, const char *);                          /* 5.1 */
  int (*loadfilex)(lua_State *, const char *, const char *);           /* 5.2 and later */
  int (*loadstring)(lua_State *, const char *);
  int (*pcall)(lua_State *, int, int, int);                            /* 5.1 */
  int (*pcallk)(lua_State *, int, int, int, ptrdiff_t, void *);        /* 5.2 and later */
  void (*pushcclosure)(lua_State *, lua_CFunction, int);
  void (*pushinteger)(lua_State *, ptrdiff_t);
  double (*tonumber)(lua_State *, int);                                /* 5.1 */
  double (*tonumberx)(lua_State *, int, int *);                        /* 5.2 and later */
  const char *(*tolstring)(lua_State *, int, size_t *);
  void (*pushvalue)(lua_State *, int);
  void (*settop)(lua_State *, int);
  void (*close)(lua_State *);
};

extern struct lua lua;

void load_library(const char *name);
void open_libraries(lua_State *L);
/* Calls what lies on the stack; returns whether that failed. */
int call(lua_State *L, int arguments, int results);
double number(lua_State *L, int index);
/* Gives a state the table `host`. */
void add_host(lua_State *L);
/* Pushes a script as a function; returns whether that failed. */
int load_file(lua_State *L, const char *path);
/* Runs a script in a new state that is closed then, and prints its error; returns whether there was one. */
int run_state(const char *path);

/* `host.limit(what, n)` and `host.shift_clock(name, seconds)`, see trouble.c. */
int host_limit(lua_State *L);
int host_shift_clock(lua_State *L);

/* `host memory LIBRARY SCRIPT FAILURES STEP FIRST`, see memory.c. */
int run_without_memory(char **arguments);

#endif
