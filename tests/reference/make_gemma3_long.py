#!/usr/bin/env python3
"""Makes tests/engine/fixtures/gemma3_long.json: Gemma 3 270M far behind its window, by Hugging Face
transformers in float64.

    make_gemma3_long.py MODEL

MODEL is the GGUF file that `scripts/fetch-model gemma3-270m` gets; its weights are dequantized. The ids are those of
"long" in gemma3_exact.json; {"ids", "logprob", "argmax", "margin"} are of its form, but not of llama.cpp, whose
rotary angles are products in F32: at a thousand tokens and more they are off by what moves log probabilities by
0.005. Needs torch, transformers and gguf from PyPI, and 5 GB of memory.
"""
import json
import sys

import gguf
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from make_gemma3_fixtures import FIXTURES, gguf_name, ropes


def config(keys):
    get = {k.removeprefix("gemma3."): f.contents() for k, f in keys.items() if k.startswith("gemma3.")}
    return Gemma3TextConfig(
        vocab_size=len(keys["tokenizer.ggml.tokens"].data), hidden_size=get["embedding_length"],
        intermediate_size=get["feed_forward_length"], num_hidden_layers=get["block_count"],
        num_attention_heads=get["attention.head_count"], num_key_value_heads=get["attention.head_count_kv"],
        head_dim=get["attention.key_length"], query_pre_attn_scalar=get["attention.key_length"],
        sliding_window=get["attention.sliding_window"], max_position_embeddings=get["context_length"],
        rms_norm_eps=get["attention.layer_norm_rms_epsilon"], hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True, rope_parameters=ropes(), attn_implementation="eager")


def load(path):
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t for t in reader.tensors}
    model = Gemma3ForCausalLM(config(reader.fields)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            t = tensors[gguf_name(name)]
            values = np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32).reshape(p.shape)
            p.copy_(torch.from_numpy(values - 1 if "norm" in name else values.copy()))
    return model.double()


def score(model, ids, n):
    """Of the last n ids."""
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -n - 1:-1]
        logits = hidden @ model.lm_head.weight.T
        best = logits.topk(2, -1)
        logprob = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[-n:])[:, None])[:, 0]
    return {"ids": ids, "logprob": [round(x, 6) for x in logprob.tolist()], "argmax": best.indices[:, 0].tolist(),
            "margin": [round(x, 5) for x in (best.values[:, 0] - best.values[:, 1]).tolist()]}


def main():
    long = json.loads((FIXTURES / "gemma3_exact.json").read_text())["long"]
    made = score(load(sys.argv[1]), long["ids"], len(long["logprob"]))
    (FIXTURES / "gemma3_long.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")
    print("median distance to llama.cpp:", np.median(np.abs(np.subtract(made["logprob"], long["logprob"]))))


if __name__ == "__main__":
    main()
