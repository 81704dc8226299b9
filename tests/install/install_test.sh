#!/usr/bin/env bash
# install_test.sh BUILD_DIRECTORY MODEL: installs into a scratch prefix, builds a program against it with
# find_package(sluice), and runs both.
set -euo pipefail
build=$1 model=$2 here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$build" --prefix "$scratch/prefix" >/dev/null
cmake -S "$here" -B "$scratch/build" -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$scratch/build" >/dev/null
"$scratch/build/consumer" "$model" | grep -q linked
"$scratch/prefix/bin/sluice" --version | grep -q sluice
if grep -rlE 'Werror|Wall' "$scratch"/prefix/lib*/cmake; then
  echo "our warnings are imposed on programs that link us" >&2
  exit 1
fi
