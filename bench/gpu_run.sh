#!/usr/bin/env bash
# All that wants a real GPU in one go: the tests, the table of whole models, the kernels, a trace. Needs a release build
# with CUDA (scripts/test makes one where a toolkit is) and about 50 GB of disk; without a GPU only the CPU's rows run.
#
#   bench/gpu_run.sh OUT [--build DIR] [--models DIR] [--small]
#
# OUT gets a file for each part, and summary.txt with the exit status of each. --small: the 8B shape alone, for a try.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out='' build=$root/build/release models=/tmp small=no

while (($#)); do
  case $1 in
    --build) build=$2 && shift ;;
    --models) models=$2 && shift ;;
    --small) small=yes ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
    -*) printf 'gpu_run.sh: what is %s?\n' "$1" >&2 && exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
[[ -n $out ]] || { printf 'gpu_run.sh: where to? (bench/gpu_run.sh OUT)\n' >&2 && exit 2; }
mkdir -p "$out" && : >"$out/summary.txt"

# part NAME COMMAND…: its output to OUT/NAME.txt, its end to the summary; goes on after a failure.
part() {
  local name=$1 status=0
  shift
  printf '%s\n' "$*" >"$out/$name.txt"
  if declare -F "$1" >/dev/null; then "$@" >>"$out/$name.txt" 2>&1 || status=$?
  else timeout 600 "$@" >>"$out/$name.txt" 2>&1 || status=$?; fi
  printf '%-24s %s\n' "$name" "$status" | tee -a "$out/summary.txt"
  ((status == 0)) || failed=1
}

# From a file that is not in the page cache to the first token, and what the disk gives to dd before and after.
cold_load() {
  local file=$models/70b.gguf
  sync && dd of="$file" oflag=nocache conv=notrunc,fdatasync count=0
  dd if="$file" of=/dev/null bs=16M iflag=direct count=256
  timeout 600 "$build/sluice" run -m "$file" -p 'Once upon a time' -n 1 --ignore-eos --stats --vram 24G
  dd of="$file" oflag=nocache conv=notrunc,fdatasync count=0
  dd if="$file" of=/dev/null bs=16M iflag=direct skip=256 count=256
}

failed=0
gpu=no
[[ -e /dev/nvidiactl ]] && gpu=yes
part doctor "$build/sluice" doctor --json
shapes=(8b)
[[ $small == yes || $gpu == no ]] || shapes+=(70b)
for shape in "${shapes[@]}"; do
  [[ -e $models/$shape.gguf ]] || part "make-$shape" "$build/bench/make_gguf" --shape "$shape" "$models/$shape.gguf"
done
part 8b-cpu "$build/sluice" bench -m "$models/8b.gguf" -o md -p 512 -n 32 -r 3 --vram 0
if [[ $gpu == yes ]]; then
  part test-kernels "$build/tests/test_gpu_device"
  part test-engine "$build/tests/test_gpu_device_engine"
  part 8b "$build/sluice" bench -m "$models/8b.gguf" -o md -p 512,2048 -n 128 -r 5
  part 8b-plan "$build/sluice" plan -m "$models/8b.gguf"
  part 8b-4G "$build/sluice" bench -m "$models/8b.gguf" -o md -p 512,2048 -n 64 -r 3 --vram 4G
  part 8b-4G-plan "$build/sluice" plan -m "$models/8b.gguf" --vram 4G
  part 8b-4G-trace "$build/sluice" run -m "$models/8b.gguf" -p 'Once upon a time' -n 32 --ignore-eos --stats --vram 4G \
    --trace "$out/8b-4G-trace.json"
  part kernels "$build/bench/gpu/sluice_bench_gpu" --json "$out/kernels.json"
fi
if [[ " ${shapes[*]} " == *' 70b '* ]]; then
  part 70b-24G "$build/sluice" bench -m "$models/70b.gguf" -o md -p 512,2048 -n 32 -r 2 --vram 24G
  part 70b-24G-prompts "$build/sluice" bench -m "$models/70b.gguf" -o md -p 2048 -n 0 -r 2 --vram 24G -b 2048
  part 70b-24G-load cold_load
  part 70b-24G-plan "$build/sluice" plan -m "$models/70b.gguf" -c 8192 --vram 24G
  part 70b-8G-16G "$build/sluice" run -m "$models/70b.gguf" -c 2048 --vram 8G --ram 16G --load direct \
    -p 'Once upon a time' -n 5 --ignore-eos --stats
fi
exit "$failed"
