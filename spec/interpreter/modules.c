/*
 * Stand-ins for the C modules that busted and what it uses call: of `lfs` the part that finds the specs, of `system`
 * the clocks, of `term` whether there is one. Busted's Lua code is Debian's.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lauxlib.h"
#include "lua.h"

static double seconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int system_gettime(lua_State *L) {
  lua_pushnumber(L, seconds(CLOCK_REALTIME));
  return 1;
}

static int system_monotime(lua_State *L) {
  lua_pushnumber(L, seconds(CLOCK_MONOTONIC));
  return 1;
}

static int system_sleep(lua_State *L) {
  double duration = luaL_checknumber(L, 1);
  struct timespec left = {(time_t)duration, (long)((duration - (double)(time_t)duration) * 1e9)};
  nanosleep(&left, NULL);
  return 0;
}

static int term_isatty(lua_State *L) {
  lua_pushboolean(L, 0); /* no colours, no cursor */
  return 1;
}

static int lfs_attributes(lua_State *L) {
  struct stat status;
  const char *mode = "other";
  if (stat(luaL_checkstring(L, 1), &status) != 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "no such file or directory");
    return 2;
  }
  if (S_ISREG(status.st_mode)) mode = "file";
  if (S_ISDIR(status.st_mode)) mode = "directory";
  if (lua_type(L, 2) == LUA_TSTRING) {
    const char *wanted = lua_tostring(L, 2);
    if (strcmp(wanted, "mode") == 0) lua_pushstring(L, mode);
    else if (strcmp(wanted, "size") == 0) lua_pushnumber(L, (lua_Number)status.st_size);
    else if (strcmp(wanted, "modification") == 0) lua_pushnumber(L, (lua_Number)status.st_mtime);
    else lua_pushnil(L);
    return 1;
  }
  lua_newtable(L);
  lua_pushstring(L, mode);
  lua_setfield(L, -2, "mode");
  return 1;
}

static int next_entry(lua_State *L) {
  DIR **folder = lua_touserdata(L, 1);
  struct dirent *entry = *folder ? readdir(*folder) : NULL;
  if (entry != NULL) {
    lua_pushstring(L, entry->d_name);
    return 1;
  }
  if (*folder) closedir(*folder);
  *folder = NULL;
  return 0;
}

static int lfs_dir(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  DIR **folder;
  lua_pushcfunction(L, next_entry);
  folder = lua_newuserdata(L, sizeof *folder);
  *folder = opendir(path);
  if (*folder == NULL) return luaL_error(L, "cannot open %s", path);
  return 2;
}

static int lfs_currentdir(lua_State *L) {
  char path[4096];
  if (getcwd(path, sizeof path) == NULL) return luaL_error(L, "there is no current folder");
  lua_pushstring(L, path);
  return 1;
}

static int lfs_chdir(lua_State *L) {
  if (chdir(luaL_checkstring(L, 1)) != 0) return luaL_error(L, "there is no folder %s", lua_tostring(L, 1));
  lua_pushboolean(L, 1);
  return 1;
}

/* What nobody calls in these specs, but takes into a local. */
static int missing(lua_State *L) { return luaL_error(L, "this stand-in lacks the function"); }

static const luaL_Reg SYSTEM[] = {
  {"gettime", system_gettime}, {"monotime", system_monotime}, {"sleep", system_sleep}, {NULL, NULL}};
static const luaL_Reg TERM[] = {{"isatty", term_isatty}, {NULL, NULL}};
static const luaL_Reg LFS[] = {{"attributes", lfs_attributes}, {"symlinkattributes", lfs_attributes}, {"dir", lfs_dir},
  {"currentdir", lfs_currentdir}, {"chdir", lfs_chdir}, {"mkdir", missing}, {"rmdir", missing}, {"link", missing},
  {NULL, NULL}};

static void set_module(lua_State *L, const char *name, const luaL_Reg *functions) {
  lua_newtable(L);
  for (; functions->name != NULL; functions++) {
    lua_pushcfunction(L, functions->func);
    lua_setfield(L, -2, functions->name);
  }
  lua_setfield(L, -2, name);
}

void open_modules(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "loaded");
  set_module(L, "system", SYSTEM);
  set_module(L, "system.core", SYSTEM);
  set_module(L, "term.core", TERM);
  set_module(L, "lfs", LFS);
  lua_pop(L, 2);
}
