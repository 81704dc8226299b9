#!/bin/sh
# run_planted.sh PROGRAM BUG TEXT: the wrong variant must fail and its output hold TEXT (a grep -E pattern); the right
# one must pass.
set -u
export TSAN_OPTIONS="${TSAN_OPTIONS:-} atexit_sleep_ms=0"  # else each run of it ends with a second of sleep
output=$("$1" "$2" wrong 2>&1)
status=$?
if [ "$status" -eq 0 ]; then
  echo "$2: nothing found the bug"
  echo "$output"
  exit 1
fi
if ! printf '%s\n' "$output" | grep -qE "$3"; then
  echo "$2: it failed with $status, but without saying '$3':"
  echo "$output"
  exit 1
fi
if ! output=$("$1" "$2" right 2>&1); then
  echo "$2: a false alarm:"
  echo "$output"
  exit 1
fi
