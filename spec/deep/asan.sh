#!/bin/sh
# Runs specs with AddressSanitizer in the module and its allocator under all of the process; the child processes too:
# `spec/deep/asan.sh LUA [SPEC...]`. Leaks are for valgrind: they are told wrongly for interpreters, shells and so on.
set -eu
lua=$1
shift
reports=$PWD/build/checks/asan/$lua/reports
rm -rf "$reports"
mkdir -p "$reports"
library=$(gcc -print-file-name=libasan.so)
failed=0
for spec in "$@"; do
  start=$(date +%s)
  result=passed
  LUA_CPATH="$PWD/build/checks/asan/$lua/?.so;;" LD_PRELOAD=$library CHILD_PATIENCE=5 \
    ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:log_path=$reports/report" \
    timeout -k 5 "${ASAN_SECONDS:-900}" "$lua" spec/run.lua --output=TAP "$spec" >"$reports/output" 2>&1 || result=failed
  [ "$result" = passed ] || { failed=1; grep -a -A8 '^not ok' "$reports/output" || tail -n 20 "$reports/output"; }
  echo "$lua with AddressSanitizer: $spec $result in $(($(date +%s) - start)) s"
done
for report in "$reports"/report.*; do
  # What it refused to allocate is a warning.
  grep -qs ERROR "$report" || continue
  failed=1
  cat "$report"
done
exit $failed
