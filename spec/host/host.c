/*
 * A host program for the specs, for what the stock interpreter cannot do.
 *
 *   host LIBRARY SCRIPT STATES THREADS
 *     THREADS threads each open STATES Lua states, one after the other, run the script in each and close it.
 *   host move LIBRARY SCRIPT THREADS
 *     One state: the script runs in it once on each of THREADS threads, one after the other; then it is closed on the
 *     main thread.
 *   host memory LIBRARY SCRIPT FAILURES STEP FIRST
 *     See memory.c.
 *
 * The script finds in the table `host`
 *
 *   fork()                      0 in the child
 *   wait(pid)                   the exit code of a child; 128 and the signal, if one ended it
 *   in_state(path)              runs a script in another state on this thread; whether it failed
 *   limit(what, n)              "files" or "threads": no more of them than n from now on
 *   shift_clock(name, seconds)  "wall" or "monotonic": that clock goes forward or back so far
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lua.h"

struct lua lua;

static const char *script;
static int states;

void load_library(const char *name) {
  void *library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    fprintf(stderr, "host: %s\n", dlerror());
    exit(2);
  }
  *(void **)&lua.newstate = dlsym(library, "lua_newstate");
  *(void **)&lua.auxiliary_newstate = dlsym(library, "luaL_newstate");
  *(void **)&lua.openlibs = dlsym(library, "luaL_openlibs");
  *(void **)&lua.openselectedlibs = dlsym(library, "luaL_openselectedlibs");
  *(void **)&lua.loadfile = dlsym(library, "luaL_loadfile");
  *(void **)&lua.loadfilex = dlsym(library, "luaL_loadfilex");
  *(void **)&lua.loadstring = dlsym(library, "luaL_loadstring");
  *(void **)&lua.pcall = dlsym(library, "lua_pcall");
  *(void **)&lua.pcallk = dlsym(library, "lua_pcallk");
  *(void **)&lua.pushcclosure = dlsym(library, "lua_pushcclosure");
  *(void **)&lua.pushinteger = dlsym(library, "lua_pushinteger");
  *(void **)&lua.tonumber = dlsym(library, "lua_tonumber");
  *(void **)&lua.tonumberx = dlsym(library, "lua_tonumberx");
  *(void **)&lua.tolstring = dlsym(library, "lua_tolstring");
  *(void **)&lua.pushvalue = dlsym(library, "lua_pushvalue");
  *(void **)&lua.settop = dlsym(library, "lua_settop");
  *(void **)&lua.close = dlsym(library, "lua_close");
}

int call(lua_State *L, int arguments, int results) {
  return lua.pcallk ? lua.pcallk(L, arguments, results, 0, 0, NULL) : lua.pcall(L, arguments, results, 0);
}

double number(lua_State *L, int index) {
  return lua.tonumberx ? lua.tonumberx(L, index, NULL) : lua.tonumber(L, index);
}

static int host_fork(lua_State *L) {
  fflush(NULL);
  lua.pushinteger(L, fork());
  return 1;
}

static int host_wait(lua_State *L) {
  int status = 0;
  waitpid((pid_t)number(L, 1), &status, 0);
  lua.pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  return 1;
}

static int host_in_state(lua_State *L) {
  lua.pushinteger(L, run_state(lua.tolstring(L, 1, NULL)));
  return 1;
}

void add_host(lua_State *L) {
  static const lua_CFunction functions[] = { host_fork, host_wait, host_in_state, host_limit, host_shift_clock };
  int count = sizeof functions / sizeof *functions;
  lua.loadstring(L, "host = {} host.fork, host.wait, host.in_state, host.limit, host.shift_clock = ...");
  for (int i = 0; i < count; i++) lua.pushcclosure(L, functions[i], 0);
  call(L, count, 0);
}

int load_file(lua_State *L, const char *path) {
  return lua.loadfilex ? lua.loadfilex(L, path, NULL) : lua.loadfile(L, path);
}

static int run_file(lua_State *L, const char *path) { return load_file(L, path) || call(L, 0, 0); }

static int print_error(lua_State *L, int failed) {
  if (failed) {
    const char *message = lua.tolstring(L, -1, NULL);
    fprintf(stderr, "host: %s\n", message ? message : "the error is not a string");
  }
  return failed;
}

void open_libraries(lua_State *L) {
  if (lua.openlibs) lua.openlibs(L);
  else lua.openselectedlibs(L, ~0, 0);
}

static lua_State *open_state(void) {
  lua_State *L = lua.auxiliary_newstate();
  open_libraries(L);
  add_host(L);
  return L;
}

int run_state(const char *path) {
  lua_State *L = open_state();
  int failed = print_error(L, run_file(L, path));
  lua.close(L);
  return failed;
}

static void *run_states(void *unused) {
  (void)unused;
  for (int i = 0; i < states; i++) {
    if (run_state(script)) return "failed";
  }
  return NULL;
}

static void *run_script(void *L) { return print_error(L, run_file(L, script)) ? "failed" : NULL; }

/* Runs it on a thread of its own. */
static int on_thread(void *(*start)(void *), void *argument) {
  pthread_t id;
  void *result = NULL;
  pthread_create(&id, NULL, start, argument);
  pthread_join(id, &result);
  return result != NULL;
}

static int move(int threads) {
  lua_State *L = open_state();
  int failed = 0;
  for (int i = 0; i < threads && !failed; i++) failed = on_thread(run_script, L);
  lua.close(L);
  return failed;
}

static int run_threads(int threads) {
  if (threads == 1) return run_states(NULL) != NULL;
  pthread_t *ids = calloc((size_t)threads, sizeof *ids);
  int failed = 0;
  for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, run_states, NULL);
  for (int i = 0; i < threads; i++) {
    void *result = NULL;
    pthread_join(ids[i], &result);
    failed |= result != NULL;
  }
  free(ids);
  return failed;
}

int main(int argc, char **argv) {
  int moves = argc == 5 && !strcmp(argv[1], "move");
  if (argc == 7 && !strcmp(argv[1], "memory")) return run_without_memory(argv + 2);
  if (argc != 5) {
    fprintf(stderr, "usage: host [move] LIBRARY SCRIPT [STATES] THREADS\n");
    return 2;
  }
  load_library(argv[1 + moves]);
  script = argv[2 + moves];
  states = atoi(argv[3]);
  return moves ? move(atoi(argv[4])) : run_threads(atoi(argv[4]));
}
