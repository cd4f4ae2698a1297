/*
 * What a system may do to a process: no more descriptors, threads or memory, clocks that are set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "lua.h"

#define NOBODY 65534

/* How many threads, files or bytes of memory there may be. */
int host_limit(lua_State *L) {
  const char *what = lua.tolstring(L, 1, NULL);
  int of_threads = !strcmp(what, "threads");
  /* The superuser may have as many threads as the system has. */
  if (of_threads && getuid() == 0 && setresuid(NOBODY, NOBODY, NOBODY)) return 0;
  struct rlimit limit;
  int which = of_threads ? RLIMIT_NPROC : strcmp(what, "memory") ? RLIMIT_NOFILE : RLIMIT_AS;
  getrlimit(which, &limit);
  limit.rlim_cur = (rlim_t)number(L, 2);
  lua.pushinteger(L, setrlimit(which, &limit) == 0);
  return 1;
}

static volatile double wall_shift, monotonic_shift;

int host_shift_clock(lua_State *L) {
  if (strcmp(lua.tolstring(L, 1, NULL), "wall")) monotonic_shift += number(L, 2);
  else wall_shift += number(L, 2);
  return 0;
}

/* In front of the C library's, since the host exports its symbols. */
int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, time);
  if (clock == CLOCK_REALTIME) time->tv_sec += (time_t)wall_shift;
  if (clock == CLOCK_MONOTONIC) time->tv_sec += (time_t)monotonic_shift;
  return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *seconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (seconds) *seconds = now.tv_sec;
  return now.tv_sec;
}
