#!/bin/sh
# Runs specs under valgrind, their child processes too: `spec/deep/valgrind.sh LUA [SPEC...]`. It fails when a test does,
# and when valgrind finds an error, or memory that nobody refers to any more.
set -eu
lua=$1
shift
logs=build/checks/valgrind/$lua/logs
rm -rf "$logs"
mkdir -p "$logs"
# Without --fair-sched a thread that computes leaves none of the others its turn.
# The child of a fork leaves what belongs to its parent as it is, on purpose: that is no leak.
under="valgrind -q --fair-sched=yes --num-callers=30 --leak-check=full --show-leak-kinds=definite
  --errors-for-leak-kinds=definite --child-silent-after-fork=yes
  --suppressions=$PWD/spec/deep/valgrind.supp --log-file=$PWD/$logs/%p"
failed=0
for spec in "$@"; do
  start=$(date +%s)
  result=passed
  # Numbers of messages, tasks and jobs in the thousands show nothing that tens do not, and take an hour.
  # Times are about our speed, and strace cannot trace what valgrind runs.
  # shellcheck disable=SC2086 # a list of words
  CHILD_UNDER=$(echo $under) CHILD_PATIENCE=20 LUA_CPATH="$PWD/build/checks/valgrind/$lua/?.so;;" \
    timeout -k 5 "${VALGRIND_SECONDS:-900}" $under "$lua" spec/run.lua --output=TAP \
    --filter-out='thousand' --filter-out='million' --filter-out='%d,000' --filter-out='next to no time' \
    --filter-out='system call' "$spec" >"$logs/output" 2>&1 || result=failed
  [ "$result" = passed ] || { failed=1; grep -a -A8 '^not ok' "$logs/output" || tail -n 20 "$logs/output"; }
  echo "$lua under valgrind: $spec $result in $(($(date +%s) - start)) s"
done
for log in "$logs"/[0-9]*; do
  [ -s "$log" ] || continue
  failed=1
  cat "$log"
done
exit $failed
