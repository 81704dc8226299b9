#!/usr/bin/env python3
"""Makes tiny random llama models and their logits by Hugging Face transformers, in tests/engine/fixtures.

For each model below:
  llama_NAME.gguf  the weights in llama.cpp's conventions: rows of Q and K permuted so that RoPE rotates
                   pairs, llama3 scaling precomputed in rope_freqs, a byte-level tokenizer of the first
                   bytes of GPT-2's alphabet
  llama_NAME.json  {"model", "logits", "vocab", "sequences": [[ids…]…]}
  llama_NAME.bin   float32, little endian, [tokens of all sequences in order][vocab]: the logits after each
                   token, each sequence on its own, from a model run in float64

Weights of the F16 and BF16 models are rounded before the reference run, so that the logits are those of
the weights in the file. Needs torch, transformers and gguf from PyPI (made with torch 2.15, transformers
5.23, gguf 0.19; CPU is enough); check_llama_fixtures.py checks what this writes. No arguments.
"""
import json
import math
import pathlib

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "engine" / "fixtures"

BASE = dict(num_hidden_layers=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False)
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}

# name: (type of the matrices, config, lengths of the sequences)
MODELS = {
    "mha": ("F32", dict(BASE, vocab_size=97, hidden_size=24, intermediate_size=40, num_attention_heads=4,
                        num_key_value_heads=4, rope_parameters=DEFAULT_ROPE), [5, 70]),
    "gqa_tied": ("F32", dict(BASE, vocab_size=101, hidden_size=40, intermediate_size=45, num_attention_heads=4,
                             num_key_value_heads=2, tie_word_embeddings=True,
                             rope_parameters=dict(DEFAULT_ROPE, rope_theta=500000.0)), [1, 33]),
    "mqa_f16": ("F16", dict(BASE, vocab_size=99, hidden_size=48, intermediate_size=36, num_attention_heads=6,
                            num_key_value_heads=1, num_hidden_layers=3, tie_word_embeddings=True,
                            rms_norm_eps=1e-6, rope_parameters=DEFAULT_ROPE), [5, 23]),
    "head_dim": ("F32", dict(BASE, vocab_size=97, hidden_size=24, intermediate_size=47, num_attention_heads=4,
                             num_key_value_heads=2, head_dim=10, rope_parameters=DEFAULT_ROPE), [7, 29]),
    "llama3_bf16": ("BF16", dict(BASE, vocab_size=97, hidden_size=32, intermediate_size=64, num_attention_heads=4,
                                 num_key_value_heads=2, head_dim=16, rope_parameters=LLAMA3_ROPE), [5, 70]),
    "bias": ("F32", dict(BASE, vocab_size=264, hidden_size=32, intermediate_size=33, num_attention_heads=2,
                         num_key_value_heads=1, num_hidden_layers=1, tie_word_embeddings=True, attention_bias=True,
                         rope_parameters=DEFAULT_ROPE), [6, 19]),
}

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def gguf_name(name):
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}
    if name in top:
        return top[name]
    _, _, layer, rest = name.split(".", 3)
    stem, suffix = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[stem]}.{suffix}"


def randomize(model, generator):
    """Weights that make every part matter: peaked attention, norms away from one, biases of size one."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                p.copy_(0.5 * noise)
            elif "embed" in name:
                p.copy_(noise)
            else:
                gain = 1.5 if ("q_proj" in name or "k_proj" in name) else 1.0
                p.copy_(noise * gain / math.sqrt(p.shape[-1]))


def round_matrices(model, dtype):
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.copy_(p.to(dtype).to(torch.float32))


def permute(rows, n_heads):
    """From transformers' halves (i, i + n/2) to llama.cpp's pairs (2i, 2i + 1), along the first axis."""
    n = rows.shape[0] // n_heads
    return rows.reshape(n_heads, 2, n // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(rope, head_dim):
    """What rope_freqs holds: each pair's angle is divided by its factor."""
    factors = []
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    context, scale = rope["original_max_position_embeddings"], rope["factor"]
    for i in range(head_dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * i / head_dim)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(scale)
        else:
            t = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - t) / scale + t))
    return np.array(factors, dtype=np.float32)


def byte_alphabet():
    """GPT-2's printable stand-ins of the 256 bytes, in its order of tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def add_tokenizer(writer, vocab):
    """Token 0 is a control token, used as BOS and EOS; then bytes; what remains are pairs of letters."""
    pairs = ["th", "he", "in", "er", "an", "re", "on"]
    tokens = (["<|end|>"] + byte_alphabet() + pairs)[:vocab]
    merges = [f"{p[0]} {p[1]}" for p in pairs if p in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (vocab - 1))
    if merges:
        writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def add_config(writer, config):
    rope = config.rope_parameters
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def add_tensor(writer, name, values, kind):
    if values.ndim == 1 or kind == "F32":
        writer.add_tensor(name, values)
    elif kind == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        bits = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)
        writer.add_tensor(name, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)


def write_gguf(path, model, kind):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_file_type({"F32": 0, "F16": 1, "BF16": 32}[kind])
    add_config(writer, config)
    add_tokenizer(writer, config.vocab_size)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config.rope_parameters, config.head_dim))
    for name, p in model.named_parameters():
        values = p.detach().to(torch.float32).numpy()
        if "q_proj" in name:
            values = permute(values, config.num_attention_heads)
        elif "k_proj" in name:
            values = permute(values, config.num_key_value_heads)
        add_tensor(writer, gguf_name(name), np.ascontiguousarray(values), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].to(torch.float32).numpy()


def make(name, kind, settings, lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    settings.setdefault("head_dim", settings["hidden_size"] // settings["num_attention_heads"])
    model = LlamaForCausalLM(LlamaConfig(attn_implementation="eager", mlp_bias=False, **settings)).eval()
    randomize(model, generator)
    round_matrices(model, {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind])
    path = FIXTURES / f"llama_{name}.gguf"
    write_gguf(path, model, kind)
    model = model.double()
    vocab = settings["vocab_size"]
    sequences = [torch.randint(vocab, (n,), generator=generator).tolist() for n in lengths]
    logits = np.concatenate([logits_of(model, ids) for ids in sequences])
    logits.astype("<f4").tofile(path.with_suffix(".bin"))
    path.with_suffix(".json").write_text(json.dumps(
        {"model": path.name, "logits": path.with_suffix(".bin").name, "vocab": vocab, "sequences": sequences}) + "\n")
    print(f"{name}: {path.stat().st_size} bytes, logits within {np.abs(logits).max():.2f}")


def main():
    for seed, (name, (kind, settings, lengths)) in enumerate(MODELS.items()):
        make(name, kind, dict(settings), lengths, seed + 1)


if __name__ == "__main__":
    main()
