#!/usr/bin/env python3
"""Checks tests/engine/fixtures/llama_* with a llama written out in numpy and float64.

It reads only what an engine reads (the GGUF file: rotated pairs, rope_freqs, tied output), shares nothing
with transformers, and fails when a logit differs by more than 1e-5 of the largest. Needs numpy and gguf.
"""
import json
import pathlib
import sys

import gguf
import numpy as np

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "engine" / "fixtures"


def read_model(path):
    reader = gguf.GGUFReader(path)
    keys = {k: f.contents() for k, f in reader.fields.items() if k.startswith("llama.")}
    tensors = {}
    for t in reader.tensors:
        values = gguf.quants.dequantize(t.data, t.tensor_type)
        tensors[t.name] = values.reshape(list(t.shape)[::-1]).astype(np.float64)
    return keys, tensors


def rms(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope(x, base, factors):
    """x: [tokens][heads][n]; rotates the pairs (2i, 2i + 1)."""
    n = x.shape[-1]
    angles = np.arange(x.shape[0])[:, None] * base ** (-np.arange(0, n, 2) / n) / factors
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def linear(t, name, x):
    return x @ t[name + ".weight"].T + t.get(name + ".bias", 0)


def attention(keys, t, blk, x):
    heads, kv = keys["llama.attention.head_count"], keys["llama.attention.head_count_kv"]
    n = keys.get("llama.attention.key_length", keys["llama.embedding_length"] // heads)
    factors = t.get("rope_freqs.weight", np.ones(n // 2))
    base = keys["llama.rope.freq_base"]
    q = rope(linear(t, blk + "attn_q", x).reshape(-1, heads, n), base, factors)
    k = rope(linear(t, blk + "attn_k", x).reshape(-1, kv, n), base, factors)
    v = linear(t, blk + "attn_v", x).reshape(-1, kv, n)
    out = np.zeros_like(q)
    for h in range(heads):
        group = h // (heads // kv)
        s = q[:, h] @ k[:, group].T / np.sqrt(n)
        s[np.triu_indices(len(x), 1)] = -np.inf
        p = np.exp(s - s.max(-1, keepdims=True))
        out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, group]
    return linear(t, blk + "attn_output", out.reshape(len(x), -1))


def logits(keys, t, ids):
    eps = keys["llama.attention.layer_norm_rms_epsilon"]
    x = t["token_embd.weight"][ids]
    for i in range(keys["llama.block_count"]):
        blk = f"blk.{i}."
        x = x + attention(keys, t, blk, rms(x, t[blk + "attn_norm.weight"], eps))
        y = rms(x, t[blk + "ffn_norm.weight"], eps)
        gate = linear(t, blk + "ffn_gate", y)
        x = x + linear(t, blk + "ffn_down", gate / (1 + np.exp(-gate)) * linear(t, blk + "ffn_up", y))
    return rms(x, t["output_norm.weight"], eps) @ t.get("output.weight", t["token_embd.weight"]).T


def main():
    worst = 0.0
    for path in sorted(FIXTURES.glob("llama_*.json")):
        about = json.loads(path.read_text())
        keys, tensors = read_model(FIXTURES / about["model"])
        want = np.fromfile(FIXTURES / about["logits"], dtype="<f4").reshape(-1, about["vocab"])
        got = np.concatenate([logits(keys, tensors, ids) for ids in about["sequences"]])
        error = np.abs(got - want).max() / np.abs(want).max()
        print(f"{path.stem}: {error:.2e}")
        worst = max(worst, error)
    sys.exit(0 if 0 < worst < 1e-5 else 1)


if __name__ == "__main__":
    main()
