#!/usr/bin/env python3
"""What the GPU's kernels take, as compiled, against the file that is kept.

  resources.py --objects DIR --kept FILE --toolkit 13.0 [--write]

DIR has a *.cu.o.resources for each source (cmake/Nvcc.cmake). FILE begins with comments, the first of which names the
toolkit; then it has a line for each kernel on sm_90: registers, bytes of static shared memory, bytes of spill stores
and loads, source and name. Another toolkit counts otherwise: nothing is compared then (exit status 77). --write writes
the file anew and keeps its comments.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ARCHITECTURE = "sm_90"


def compiled(objects):
    """{source and name: 'registers shared stores loads'} of all kernels."""
    found = {}
    for report in sorted(pathlib.Path(objects).glob("*.cu.o.resources")):
        lines = [line.split() for line in report.read_text().splitlines()]
        lines = [line for line in lines if line[1] == ARCHITECTURE]
        mangled = "\n".join(line[0] for line in lines)
        names = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout.split("\n")
        for line, name in zip(lines, names):
            name = re.sub(r"\(.*", "", name.replace("(anonymous namespace)::", "")).replace("sluice::gpu::", "")
            name = re.sub(r"^void ", "", name).replace("> >", ">>")
            found[report.name.split(".")[0] + " " + name] = " ".join(line[2:])
    return found


def kept(file):
    """Its comments and {source and name: numbers}."""
    comments, kernels = [], {}
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("#"):
            comments.append(line)
        elif line.strip():
            numbers = line.split(None, 4)
            kernels[numbers[4]] = " ".join(numbers[:4])
    return comments, kernels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", required=True)
    parser.add_argument("--kept", required=True, type=pathlib.Path)
    parser.add_argument("--toolkit", required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    now = compiled(options.objects)
    comments, before = kept(options.kept)
    if not now:
        sys.exit(f"{options.objects}: no reports of kernels for {ARCHITECTURE}")
    if options.write:
        head = [f"# CUDA {options.toolkit}, {ARCHITECTURE}: registers, static shared bytes, spill stores, spill loads, kernel"]
        lines = [f"{now[name].replace(' ', chr(9))}\t{name}" for name in sorted(now)]
        options.kept.write_text("\n".join(head + comments[1:] + lines) + "\n")
        return 0
    if not comments or f"CUDA {options.toolkit}," not in comments[0]:
        print(f"{options.kept} is of another toolkit than {options.toolkit}")
        return 77
    wrong = [f"{name}: {before.get(name, 'not kept')}, now {now.get(name, 'gone')}"
             for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    for line in wrong:
        print(line)
    if wrong:
        print(f"{len(wrong)} kernels differ from {options.kept}. If that is meant: {' '.join(sys.argv)} --write")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
