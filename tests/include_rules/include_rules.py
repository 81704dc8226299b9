#!/usr/bin/env python3
"""Fails on an #include that a folder may not have.

  include_rules.py ROOT          checks the sources under ROOT, one line for each forbidden include
  include_rules.py --self-test   checks that planted ones are caught

RULES is the table of docs/architecture.md: for each folder, the folders of this project that it may include
beside itself and include/sluice, and what else. An include of ours names the path from the root
("core/bytes.h", "sluice/status.h"); neighbours are no exception.
"""
import pathlib
import re
import sys
import tempfile

# What comes from outside, by the first match of the included name. What matches nothing is forbidden.
OUTSIDE = [
    ("std", r"[a-z_0-9]+"),
    ("std", r"(assert|ctype|errno|fenv|float|inttypes|limits|locale|math|setjmp|signal|stdarg|stddef|stdint|stdio|"
            r"stdlib|string|time|uchar|wchar|wctype)\.h"),
    ("os", r"(fcntl|poll|pthread|sched|termios|unistd|dirent|dlfcn|netdb)\.h|(sys|linux|net|netinet|arpa)/.*\.h"),
    ("isa", r"(immintrin|x86intrin|cpuid|arm_neon|arm_sve)\.h"),
    ("fmt", r"fmt/.*"),
    ("liburing", r"liburing\.h|liburing/.*"),
    ("hwloc", r"hwloc\.h|hwloc/.*"),
    ("tbb", r"tbb/.*|oneapi/tbb/.*|oneapi/tbb\.h"),
    ("onednn", r"dnnl\.hpp?|oneapi/dnnl/.*"),
    ("nlohmann", r"nlohmann/.*"),
    ("pcre2", r"pcre2\.h"),
    ("xxhash", r"xxhash\.h"),
    ("cli11", r"CLI/.*"),
    ("doctest", r"doctest/.*"),
    ("benchmark", r"benchmark/.*"),
    ("standin", r"sluice_standin/.*"),  # tests/standin/include: CUDA without a GPU
    ("cuda", r"(cuda|cublas|curand|cub/|nvtx|nv/|thrust/|cooperative_groups).*"),
]

OURS = ["core", "storage", "cpu", "gpu", "offload/tier", "offload/plan", "engine"]
ANY = {"std", "os", "isa", "fmt", "liburing", "hwloc", "tbb", "onednn", "nlohmann", "pcre2", "xxhash", "cli11",
       "doctest", "benchmark", "cuda", "standin"}

# folder: (our folders, what comes from outside).
RULES = {
    "include": ([], {"std"}),
    "core": ([], {"std", "fmt"}),
    "storage": (["core"], {"std", "os", "fmt", "liburing", "xxhash"}),
    "cpu": (["core"], {"std", "os", "isa", "fmt", "hwloc", "tbb", "onednn"}),
    "gpu": (["core"], {"std", "os", "fmt", "cuda", "standin"}),
    "offload/tier": (["core"], {"std", "fmt", "xxhash"}),
    "offload/plan": (["core", "offload/tier"], {"std", "fmt"}),
    "engine": (OURS, {"std", "os", "fmt", "nlohmann", "pcre2"}),
    "apps": ([], {"std", "os", "nlohmann", "cli11"}),
    "bench": (OURS + ["apps"], ANY),
    "tests": (OURS + ["apps", "bench"], ANY | {"cuda", "standin"}),
}

# Includes of a macro: cpu/CMakeLists.txt defines this one to a header of cpu/kernels, another for each ISA.
COMPUTED = {("cpu/kernels/simd.h", "SLUICE_SIMD")}

SUFFIXES = {".h", ".hh", ".hpp", ".inc", ".c", ".cc", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r"^[ \t]*#[ \t]*(?:include|include_next|import)\b[ \t]*(.*?)[ \t]*$", re.MULTILINE)
BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def folder_of(path):
    """The folder of RULES in which a path from the root lies, or None."""
    parts = path.split("/")
    for n in (2, 1):
        if len(parts) > n and "/".join(parts[:n]) in RULES:
            return "/".join(parts[:n])
    return None


def forbidden(folder, target):
    """Why `folder` may not have `#include target`, or None."""
    ours, outside = RULES[folder]
    if len(target) < 3 or target[0] + target[-1] not in ('""', "<>"):
        return "not a literal name"
    name = target[1:-1]
    if ".." in name.split("/") or name.startswith("/"):
        return "not a path from the root"
    if name.startswith("sluice/"):
        return None
    owner = folder_of(name)
    if owner:
        return None if owner == folder or owner in ours else f"{folder} may not include {owner}"
    if target[0] == '"':
        return "not a path from the root"
    kind = next((k for k, pattern in OUTSIDE if re.fullmatch(pattern, name)), None)
    if kind is None:
        return "no rule knows this header; if it is needed, give it one in include_rules.py"
    return None if kind in outside else f"{folder} may not include {kind}"


def includes(text):
    """(line number, target) of each include; comments are left out, line numbers kept."""
    text = BLOCK_COMMENT.sub(lambda m: "\n" * m.group().count("\n"), text)
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group(1).split("//")[0].strip()


def sources(root):
    for top in sorted({f.split("/")[0] for f in RULES}):
        yield from sorted(p for p in (root / top).rglob("*") if p.suffix in SUFFIXES and p.is_file())


def check(root):
    """(number of files seen, list of complaints)."""
    complaints, seen = [], 0
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        folder = folder_of(name)
        seen += 1
        if folder is None:
            complaints.append(f"{name}: no rule knows this folder; give it one in include_rules.py")
            continue
        # References are programs of other engines: they are not built here.
        if name.startswith("tests/reference/"):
            continue
        for line, target in includes(path.read_text(encoding="utf-8", errors="replace")):
            why = forbidden(folder, target)
            if why and (name, target) not in COMPUTED:
                complaints.append(f"{name}:{line}: #include {target}: {why}")
    return seen, complaints


ALLOWED = [
    ("core/a.h", '#include "sluice/status.h"'),
    ("core/a.cc", "#include <fmt/format.h>"),
    ("include/sluice/a.h", "#include <vector>\n#include <stdint.h>"),
    ("storage/a.cc", '#include <liburing.h>\n#include "core/a.h"\n#include <sys/stat.h>'),
    ("offload/plan/a.cc", '#include "offload/tier/a.h"'),
    ("engine/a.cc", '#include "cpu/a.h"\n#include <pcre2.h>'),
    ("apps/a.cc", '#include <CLI/CLI.hpp>  // the command line\n#include "sluice/status.h"'),
    ("tests/core/a.cc", '#include "engine/a.h"\n#include <doctest/doctest.h>'),
    ("gpu/a.cc", "#include <cuda_runtime.h>"),
    ("tests/gpu/a.cc", "#include <cuda.h>\n#include <sluice_standin/control.h>"),
    ("core/b.h", '// #include "storage/a.h"\n/*\n#include "storage/a.h"\n*/'),
]
FORBIDDEN = [
    ("core/a.h", '#include "storage/gguf.h"'),
    ("core/a.h", "#include <unistd.h>"),
    ("core/a.h", "#include <nlohmann/json.hpp>"),
    ("include/sluice/a.h", '#include "core/bytes.h"'),
    ("include/sluice/a.h", "#include <fmt/format.h>"),
    ("storage/a.cc", '#include "cpu/team.h"'),
    ("storage/a.cc", "#include <hwloc.h>"),
    ("cpu/kernels/a.cc", '#include "storage/gguf.h"'),
    ("cpu/a.cc", "#include <liburing.h>"),
    ("offload/tier/a.cc", '#include "offload/plan/plan.h"'),
    ("offload/tier/a.cc", '#include <storage/gguf.h>'),
    ("offload/plan/a.cc", "  #  include <xxhash.h>"),
    ("offload/a.cc", "#include <vector>"),
    ("engine/a.cc", '#include "apps/cli.h"'),
    ("engine/a.cc", "#include <cuda_runtime.h>"),
    ("apps/a.cc", '#include "engine/runtime.h"'),
    ("apps/a.cc", '#include "core/bytes.h"'),
    ("apps/a.cc", '/* why */ #include "core/bytes.h"'),
    ("cpu/a.cc", '#include "team.h"'),
    ("cpu/a.cc", '#include "cpu/../storage/gguf.h"'),
    ("cpu/a.cc", "#include CHOSEN_HEADER"),
    ("cpu/a.cc", "#include <boost/asio.hpp>"),
    ("cpu/a.cc", "#include <cuda.h>"),
    ("engine/a.cc", "#include <sluice_standin/control.h>"),
    ("apps/a.cc", "#include <sluice_standin/control.h>"),
]


def planted(name, text):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / name
        path.parent.mkdir(parents=True)
        path.write_text("#pragma once\n" + text + "\n")
        return check(pathlib.Path(directory))[1]


def self_test():
    wrong = [f"refused: {name}: {text}" for name, text in ALLOWED if planted(name, text)]
    wrong += [f"not caught: {name}: {text}" for name, text in FORBIDDEN if len(planted(name, text)) != 1]
    return wrong


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--self-test":
        complaints = self_test()
        print(f"{len(ALLOWED) + len(FORBIDDEN)} planted includes")
    else:
        seen, complaints = check(pathlib.Path(sys.argv[1]))
        print(f"{seen} files")
        if not seen:
            complaints.append(f"{sys.argv[1]}: no sources here")
    print("\n".join(complaints))
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
