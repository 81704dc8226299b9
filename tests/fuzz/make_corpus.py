#!/usr/bin/env python3
"""Writes tests/fuzz/corpus: small inputs from which the fuzzers start.

The chat seeds are made of tests/engine/fixtures/chat_templates.json.
"""

import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
FIXTURE = HERE.parent / "engine" / "fixtures" / "chat_templates.json"


def write(name, data):
    path = HERE / "corpus" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_chat():
    fixture = json.loads(FIXTURE.read_text())
    talk = fixture["conversations"]["system_turns"]
    parts = [m[k].encode() for m in talk for k in ("role", "content")]
    for name, template in fixture["templates"].items():
        write(f"chat/{name}", b"\0".join([template.encode(), *parts]))
    snippets = [c["template"] for c in fixture["cases"] if c["name"] in ("snippet", "layout")]
    for i in range(0, len(snippets), 6):
        write(f"chat/snippets-{i // 6}", "\n".join(snippets[i:i + 6]).encode() + b"\0user\0Hello")


def make_tokenizer():
    tokens = ["<|endoftext|>", "<user>", *"abcdefghilorw", "Ġ", "Ċ", "1", "2", "'", "s", "ll", "he", "hell", "hello",
              "Ġw", "or", "Ġwor", "Ã", "©", "Ã©"]
    merges = ["l l", "h e", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ã ©"]
    texts = ["hello world's 12\n  hello <|endoftext|> é", "a" * 24, "<user>hello\r\n\t 1212"]
    for i, text in enumerate(texts):
        for option in (0, 0xC2, 0x35):  # see tokenizer_fuzz.cc
            tables = "\n".join(tokens) + "\n\n" + "\n".join(merges) + "\n\n" + text
            write(f"tokenizer/{i}-{option:02x}", bytes([option | i]) + tables.encode())


U8, U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 0, 4, 5, 6, 7, 8, 9, 10, 12
FORMATS = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", F64: "<d"}
Q4_0, F32_TENSOR = 2, 0


def text(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    return text(v) if kind == STRING else struct.pack(FORMATS[kind], v)


def key(name, kind, v):
    if isinstance(v, list):
        return text(name) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return text(name) + struct.pack("<I", kind) + value(kind, v)


def gguf(keys, tensors, version=3):
    """tensors: (name, dims, type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys)
    data = b""
    for name, dims, kind, content in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % 32)
    return head + b"\0" * (-len(head) % 32) + data


def make_gguf():
    every = [key("a.u8", U8, 1), key("a.i32", I32, -5), key("a.f32", F32, 0.5), key("a.bool", BOOL, 1),
             key("a.text", STRING, "x"), key("a.u64", U64, 1 << 40), key("a.f64", F64, 2.5),
             key("a.numbers", U32, [1, 2, 3]), key("a.texts", STRING, ["a", "", "ü"]),
             key("general.alignment", U32, 32)]
    write("gguf/values", gguf(every, [("t", [4], F32_TENSOR, bytes(16))]))
    write("gguf/version2", gguf(every[:3], [], version=2))
    write("gguf/split", gguf([key("split.no", U32, 0), key("split.count", U32, 1), key("split.tensors.count", I32, 0)], []))

    n, vocab = 32, 8
    tokens = ["<|e|>", "a", "b", "ab", "Ġ", "c", "d", "e"]
    llama = [key("general.architecture", STRING, "llama"), key("llama.block_count", U32, 1),
             key("llama.context_length", U32, 64), key("llama.embedding_length", U32, n),
             key("llama.feed_forward_length", U32, n), key("llama.attention.head_count", U32, 2),
             key("llama.attention.head_count_kv", U32, 1), key("llama.rope.dimension_count", U32, 16),
             key("llama.rope.freq_base", F32, 10000.0), key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
             key("tokenizer.ggml.model", STRING, "gpt2"), key("tokenizer.ggml.pre", STRING, "smollm"),
             key("tokenizer.ggml.tokens", STRING, tokens), key("tokenizer.ggml.token_type", I32, [3] + [1] * 7),
             key("tokenizer.ggml.merges", STRING, ["a b"]), key("tokenizer.ggml.bos_token_id", U32, 0),
             key("tokenizer.chat_template", STRING, "{{ messages }}")]

    def matrix(name, rows):
        return name, [n, rows], Q4_0, bytes(rows * 18)

    def vector(name):
        return name, [n], F32_TENSOR, bytes(4 * n)

    tensors = [matrix("token_embd.weight", vocab), vector("output_norm.weight"), vector("blk.0.attn_norm.weight"),
               matrix("blk.0.attn_q.weight", n), matrix("blk.0.attn_k.weight", n // 2),
               matrix("blk.0.attn_v.weight", n // 2), matrix("blk.0.attn_output.weight", n),
               vector("blk.0.ffn_norm.weight"), matrix("blk.0.ffn_gate.weight", n), matrix("blk.0.ffn_up.weight", n),
               matrix("blk.0.ffn_down.weight", n)]
    write("gguf/llama", gguf(llama, tensors))


make_chat()
make_tokenizer()
make_gguf()
