# shellcheck shell=bash
# What the scripts share. To be sourced by a script that runs under `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "== $*" >&2; }

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# build_for_gpus AUTO|OFF: whether build/release gets the GPU device, from now on.
build_for_gpus() { cmake -S "$root" --preset release -DSLUICE_CUDA="$1" >&2; }

# build_preset PRESET [TARGET…]: configures and builds build/PRESET.
build_preset() {
  local preset=$1 targets=()
  shift
  if (($#)); then targets=(--target "$@"); fi
  say "building build/$preset"
  cmake -S "$root" --preset "$preset" >&2 && cmake --build "$root/build/$preset" "${targets[@]}" >&2
}

# run_tests PRESET JOBS: runs ctest in build/PRESET and leaves its results in build/PRESET/tests.xml.
run_tests() {
  local preset=$1 jobs=$2
  say "testing build/$preset"
  rm -f "$root/build/$preset/tests.xml"
  ctest --test-dir "$root/build/$preset" --no-tests=error --output-on-failure -j "$jobs" \
    --test-output-size-passed 1000000 --test-output-size-failed 1000000 \
    --output-junit "$root/build/$preset/tests.xml"
}
