/*
 * A host program for the specs: opens Lua states, runs a script in each and closes it with lua_close.
 *
 *   host LIBRARY SCRIPT STATES THREADS
 *
 * THREADS threads each open and close STATES states, one after the other. The Lua library is loaded when the host
 * runs, so that one host serves all versions; what differs between them is asked for by name. The script may call
 * `host.fork()` (0 in the child) and `host.wait(pid)` (the exit code), which stock Lua lacks.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct lua_State lua_State;
typedef int (*lua_CFunction)(lua_State *);

static lua_State *(*newstate)(void);
static void (*openlibs)(lua_State *);
static void (*openselectedlibs)(lua_State *, int, int); /* 5.5 */
static int (*loadfile)(lua_State *, const char *);               /* 5.1 */
static int (*loadfilex)(lua_State *, const char *, const char *); /* 5.2 and later */
static int (*loadstring)(lua_State *, const char *);
static int (*pcall)(lua_State *, int, int, int);                              /* 5.1 */
static int (*pcallk)(lua_State *, int, int, int, ptrdiff_t, void *);          /* 5.2 and later */
static void (*pushcclosure)(lua_State *, lua_CFunction, int);
static void (*pushinteger)(lua_State *, ptrdiff_t);
static double (*tonumber)(lua_State *, int);                 /* 5.1 */
static double (*tonumberx)(lua_State *, int, int *);         /* 5.2 and later */
static const char *(*tolstring)(lua_State *, int, size_t *);
static void (*close_state)(lua_State *);

static const char *script;
static int states;

static void *symbol(void *library, const char *name) { return dlsym(library, name); }

static void load_library(const char *name) {
  void *library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    fprintf(stderr, "host: %s\n", dlerror());
    exit(2);
  }
  *(void **)&newstate = symbol(library, "luaL_newstate");
  *(void **)&openlibs = symbol(library, "luaL_openlibs");
  *(void **)&openselectedlibs = symbol(library, "luaL_openselectedlibs");
  *(void **)&loadfile = symbol(library, "luaL_loadfile");
  *(void **)&loadfilex = symbol(library, "luaL_loadfilex");
  *(void **)&loadstring = symbol(library, "luaL_loadstring");
  *(void **)&pcall = symbol(library, "lua_pcall");
  *(void **)&pcallk = symbol(library, "lua_pcallk");
  *(void **)&pushcclosure = symbol(library, "lua_pushcclosure");
  *(void **)&pushinteger = symbol(library, "lua_pushinteger");
  *(void **)&tonumber = symbol(library, "lua_tonumber");
  *(void **)&tonumberx = symbol(library, "lua_tonumberx");
  *(void **)&tolstring = symbol(library, "lua_tolstring");
  *(void **)&close_state = symbol(library, "lua_close");
}

static int call(lua_State *L, int arguments) {
  return pcallk ? pcallk(L, arguments, 0, 0, 0, NULL) : pcall(L, arguments, 0, 0);
}

static int host_fork(lua_State *L) {
  fflush(NULL);
  pushinteger(L, fork());
  return 1;
}

static int host_wait(lua_State *L) {
  int status = 0;
  pid_t pid = (pid_t)(tonumberx ? tonumberx(L, 1, NULL) : tonumber(L, 1));
  waitpid(pid, &status, 0);
  pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  return 1;
}

static int run(lua_State *L) {
  loadstring(L, "host = {} host.fork, host.wait = ...");
  pushcclosure(L, host_fork, 0);
  pushcclosure(L, host_wait, 0);
  int failed = call(L, 2);
  if (!failed) failed = loadfilex ? loadfilex(L, script, NULL) : loadfile(L, script);
  if (!failed) failed = call(L, 0);
  if (failed) fprintf(stderr, "host: %s\n", tolstring(L, -1, NULL));
  return failed;
}

static void *work(void *unused) {
  (void)unused;
  for (int i = 0; i < states; i++) {
    lua_State *L = newstate();
    if (openlibs) openlibs(L);
    else openselectedlibs(L, ~0, 0);
    int failed = run(L);
    close_state(L);
    if (failed) return "failed";
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: host LIBRARY SCRIPT STATES THREADS\n");
    return 2;
  }
  load_library(argv[1]);
  script = argv[2];
  states = atoi(argv[3]);
  int threads = atoi(argv[4]), failed = 0;
  if (threads == 1) return work(NULL) != NULL;
  pthread_t *ids = calloc((size_t)threads, sizeof *ids);
  for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, work, NULL);
  for (int i = 0; i < threads; i++) {
    void *result = NULL;
    pthread_join(ids[i], &result);
    failed |= result != NULL;
  }
  free(ids);
  return failed;
}
