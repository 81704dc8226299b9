#!/usr/bin/env python3
"""Makes tiny random Gemma 3 models and their logits by Hugging Face transformers, in tests/engine/fixtures.

For each model below gemma3_NAME.gguf, .json and .bin, of the forms that make_llama_fixtures.py describes. The
GGUF files follow llama.cpp's conventions: 1 added to the norms, rotation of halves, a SentencePiece tokenizer.
They state what Gemma's converter states; the period of six, the base of 10,000 of window layers and (in
"defaults") the window are left to the reader's defaults.

Needs torch, transformers and gguf from PyPI (made with torch 2.15, transformers 5.24, gguf 0.19; CPU is enough).
No arguments.
"""
import json
import math

import gguf
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from make_llama_fixtures import FIXTURES, add_tensor, logits_of, round_matrices

BASE = dict(vocab_size=270, hidden_size=16, intermediate_size=24, num_hidden_layers=7, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, sliding_window=24, max_position_embeddings=1024, rms_norm_eps=1e-6,
            query_pre_attn_scalar=8, hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True)


def ropes(scaling=None):
    full = {"rope_type": "default", "rope_theta": 1e6}
    if scaling:
        full = {"rope_type": "linear", "rope_theta": 1e6, "factor": scaling}
    return {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}


# name: (type of the matrices, config, lengths of the sequences, which rows of logits are kept of each)
MODELS = {
    "window": ("F32", dict(BASE, rope_parameters=ropes()), [3, 90], None),
    "scaled_bf16": ("BF16", dict(BASE, num_attention_heads=4, num_key_value_heads=2, sliding_window=5,
                                 final_logit_softcapping=15.0, rope_parameters=ropes(8.0)), [40], None),
    "defaults": ("F32", dict(BASE, sliding_window=512, rope_parameters=ropes()), [600], 40),
}

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
         "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name):
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in top:
        return top[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def randomize(model, generator):
    """Weights that make every part matter: peaked attention, norms away from one."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.copy_(0.3 * noise)
            elif "embed" in name:
                p.copy_(noise)
            else:
                p.copy_(noise / math.sqrt(p.shape[-1]))


def add_tokenizer(writer, vocab):
    """Three control tokens, 256 bytes, then letters and pairs of them with scores."""
    pieces = [*"\u2581abcde", "ab", "\u2581a", "bc", "\u2581ab", "de"]
    tokens = (["<pad>", "<eos>", "<bos>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces)[:vocab]
    kinds = [3] * 3 + [6] * 256 + [1] * len(pieces)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)])
    writer.add_token_types(kinds[:len(tokens)])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def add_config(writer, config):
    full = config.rope_parameters["full_attention"]
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(full["rope_theta"])
    if config.sliding_window != 512:
        writer.add_sliding_window(config.sliding_window)
    if full["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def write_gguf(path, model, kind):
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_name(path.stem)
    writer.add_file_type({"F32": 0, "BF16": 32}[kind])
    add_config(writer, model.config)
    add_tokenizer(writer, model.config.vocab_size)
    for name, p in model.named_parameters():
        values = p.detach().to(torch.float32).numpy()
        if "norm" in name:
            values = values + np.float32(1)
        add_tensor(writer, gguf_name(name), np.ascontiguousarray(values), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, kind, settings, lengths, kept, seed):
    generator = torch.Generator().manual_seed(seed)
    model = Gemma3ForCausalLM(Gemma3TextConfig(attn_implementation="eager", **settings)).eval()
    randomize(model, generator)
    round_matrices(model, {"F32": torch.float32, "BF16": torch.bfloat16}[kind])
    path = FIXTURES / f"gemma3_{name}.gguf"
    write_gguf(path, model, kind)
    model = model.double()
    vocab = settings["vocab_size"]
    sequences = [torch.randint(vocab, (n,), generator=generator).tolist() for n in lengths]
    logits = np.concatenate([logits_of(model, ids)[-kept if kept else 0:] for ids in sequences])
    logits.astype("<f4").tofile(path.with_suffix(".bin"))
    about = {"model": path.name, "logits": path.with_suffix(".bin").name, "vocab": vocab, "sequences": sequences}
    if kept:
        about["kept"] = kept  # rows at the end of each sequence
    path.with_suffix(".json").write_text(json.dumps(about) + "\n")
    print(f"{name}: {path.stat().st_size} bytes, logits within {np.abs(logits).max():.2f}")


def main():
    for seed, (name, (kind, settings, lengths, kept)) in enumerate(MODELS.items()):
        make(name, kind, dict(settings), lengths, kept, seed + 1)


if __name__ == "__main__":
    main()
