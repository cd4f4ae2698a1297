/*
 * An interpreter for the specs, where Debian has none: runs a script as the stock one does.
 *
 *   interpreter [-e CODE] [SCRIPT [ARGUMENTS]]
 *
 * It honours LUA_INIT, fills `arg`, turns SIGINT into an error, and exits with 1 after one, with a traceback on
 * standard error. Built in are stand-ins for the C modules that busted needs: see modules.c.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

void open_modules(lua_State *L);

static lua_State *interrupted;

static void raise_interrupt(lua_State *L, lua_Debug *activation) {
  (void)activation;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted!");
}

static void on_signal(int number) {
  signal(number, SIG_DFL); /* a second one ends the process */
  lua_sethook(interrupted, raise_interrupt, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static int message_handler(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (message == NULL) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, message, 1);
  return 1;
}

/* Calls the function below `count` arguments, and says what it raised. */
static int call(lua_State *L, int count) {
  int base = lua_gettop(L) - count;
  int status;
  lua_pushcfunction(L, message_handler);
  lua_insert(L, base);
  interrupted = L;
  signal(SIGINT, on_signal);
  status = lua_pcall(L, count, 0, base);
  signal(SIGINT, SIG_DFL);
  lua_remove(L, base);
  return status;
}

static int report(lua_State *L, int status) {
  if (status != 0) {
    const char *message = lua_tostring(L, -1);
    fprintf(stderr, "%s: %s\n", "lua", message ? message : "(error message not a string)");
    lua_pop(L, 1);
  }
  return status == 0;
}

static int run_code(lua_State *L, const char *code, const char *name) {
  int status = luaL_loadbuffer(L, code, strlen(code), name);
  return report(L, status ? status : call(L, 0));
}

static int run_init(lua_State *L) {
  const char *init = getenv("LUA_INIT");
  int status;
  if (init == NULL) return 1;
  if (init[0] != '@') return run_code(L, init, "=LUA_INIT");
  status = luaL_loadfile(L, init + 1);
  return report(L, status ? status : call(L, 0));
}

/* The table `arg`: the script is at 0. */
static void set_arguments(lua_State *L, int count, char **words, int script) {
  int i;
  lua_createtable(L, count, script + 1);
  for (i = 0; i < count; i++) {
    lua_pushstring(L, words[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

static int run_script(lua_State *L, int count, char **words, int script) {
  int i, status = luaL_loadfile(L, words[script]);
  if (status != 0) return report(L, status);
  luaL_checkstack(L, count, "too many arguments");
  for (i = script + 1; i < count; i++) lua_pushstring(L, words[i]);
  return report(L, call(L, count - script - 1));
}

struct program {
  int count;
  char **words;
};

static int run(lua_State *L) {
  struct program *program = lua_touserdata(L, 1);
  int count = program->count, script = 1, is_well = 1;
  char **words = program->words;
  lua_settop(L, 0);
  luaL_openlibs(L);
  open_modules(L);
  while (script + 1 < count && strcmp(words[script], "-e") == 0) script += 2;
  set_arguments(L, count, words, script < count ? script : 0);
  is_well = run_init(L);
  for (int i = 1; is_well && i < script; i += 2) is_well = run_code(L, words[i + 1], "=(command line)");
  if (is_well && script < count) is_well = run_script(L, count, words, script);
  lua_pushboolean(L, is_well);
  return 1;
}

int main(int count, char **words) {
  struct program program = {count, words};
  lua_State *L = luaL_newstate();
  int is_well;
  if (L == NULL) return EXIT_FAILURE;
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &program);
  is_well = lua_pcall(L, 1, 1, 0) == 0 ? lua_toboolean(L, -1) : report(L, 1);
  lua_close(L);
  return is_well ? EXIT_SUCCESS : EXIT_FAILURE;
}
