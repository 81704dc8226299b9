#!/usr/bin/env python3
"""Makes tests/engine/fixtures/tokens_NAME.json for each model, and tokens_utf8.json.

    scripts/make_token_fixtures.py LLAMA_TOKENIZE NAME=MODEL...

LLAMA_TOKENIZE is the llama-tokenize program of a llama.cpp build; NAME is smollm2 or gemma3, MODEL the GGUF
file that scripts/fetch-model gets. A model's fixture holds texts with the token ids that llama.cpp gives
them, special tokens recognized and none added; tokens_utf8.json holds broken UTF-8 with what Python's
"replace" makes of it. The texts are fixed: the random ones come from a seeded generator.
"""

import concurrent.futures
import json
import pathlib
import random
import subprocess
import sys
import tempfile

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "engine" / "fixtures"

TEXTS = [
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    " leading space",
    "trailing space ",
    "trailing spaces    ",
    "   ",
    " ",
    "\n",
    "\n\n\n",
    "\t",
    "\t\t\tindented\twith\ttabs\t",
    "a  b   c    d     e",
    "line one\r\nline two\r\n\r\nline four\r",
    "mixed \n \r\n \t \n whitespace \n\n  x",
    "no\u00a0break\u00a0\u00a0space\u00a0",
    "\u2003em space\u2009thin\u202fnarrow\u3000ideographic \u2028line sep\u2029par\u1680ogham\u205f",
    "\u180emongolian vowel separator \u200b zero width \u2060 joiner \ufeff bom",
    "next\u0085line \x0b vertical \x0c form feed",
    "\x00\x01\x02 nul and \x07 bell \x1b[31mred\x1b[0m \x7f del",
    "\x04\x06\x13\x14\x16\x1d dropped by this vocabulary",
    "\x80\x9f\xad soft hyphen and C1",
    "don't can't I'll you've they're I'm he'd it's DON'T I'LL 's 't 're'",
    "it''s 'sa 'll' ' s '",
    "0 1 12 123 1234 12345 3.14159 1,000,000 1e-9 0xDEADBEEF 007",
    "x1y22z333 2024-02-30T23:59:60Z +49 (0)30 123456",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \u2160\u2161\u2162 \u00bd\u00be \u00b2\u00b3 \u2460\u2461 \U0001d7d8\U0001d7d9",
    "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n",
    "#include <vector>\ntemplate<class T> T f(T&& x) { return std::move(x) ? ++x : x--; }\n// end",
    "for (int i = 0; i < 10; ++i) { printf(\"%d\\n\", a[i] >> 3 & 0xff); }",
    "SELECT * FROM t WHERE a='b' AND c<>\"d\" -- comment;\n",
    "{\"key\": [1, 2.5, null, true], \"n\u00e9sted\": {\"a\\tb\": \"\\u00e9\"}}",
    "<html><body class=\"x\">&amp;&nbsp;</body></html>",
    "\\begin{equation} e^{i\\pi} + 1 = 0 \\end{equation}",
    "https://example.org/path?q=1&r=a%20b#frag user@example.org",
    "$100 \u20ac50 \u00a330 \u20bf2 50% \u00b11 \u2264 \u2265 \u2260 \u221e \u2211 \u222b \u2192 \u21d2 \u2200x\u2203y",
    "!!! ??? ... ;;; --- ___ === *** ~~~ ``` ''' \"\"\" ((( )))",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 em \u2013 en \u2026 \u00abguillemets\u00bb",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u8fd9\u662f\u4e00\u4e2a\u6d4b\u8bd5\u3002",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8\u3067\u3059\u3002\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a",
    "\ud55c\uad6d\uc5b4 \ud14c\uc2a4\ud2b8\uc785\ub2c8\ub2e4. \u1112\u1161\u11ab",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641 \u062d\u0627\u0644\u0643\u061f \u0628\u0650\u0633\u0652\u0645\u0650",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e01\u0e33\u0e25\u0e31\u0e07\u0e17\u0e14\u0e2a\u0e2d\u0e1a",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0401\u043b\u043a\u0430 \u0407\u0436\u0430\u043a",
    "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5",
    "\u0531\u0532\u0533 \u10d0\u10d1\u10d2 \u1200\u1208\u1210 \u0b85\u0b86\u0b87 \u0c05\u0c06 \u1780\u1781 \u1000\u1001 \u0f40\u0f41",
    "Caf\u00e9 d\u00e9j\u00e0 vu na\u00efve fa\u00e7ade \u00c5ngstr\u00f6m stra\u00dfe \u0141\u00f3d\u017a \u0130stanbul",
    "Cafe\u0301 de\u0301ja\u0300 vu Z\u0351\u036b\u0343a\u0322\u0321l\u0489g\u0321o",
    "\U0001f600\U0001f602\U0001f923 \U0001f44d\U0001f3fd \u2764\ufe0f \u2600 \u2714",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f469\U0001f3ff\u200d\U0001f680 \U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5 1\ufe0f\u20e3 #\ufe0f\u20e3 \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "text\U0001f680text \U0001f680 text\U0001f680\U0001f680\U0001f680",
    "\ufffd replacement \ufffe\uffff nonchar \ue000 private \U0010ffff",
    "\U00020000\U0002a6d6 CJK ext \U0001d504\U0001d505 fraktur \U00010348 gothic",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|endoftext|>",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
    "<|im_star|> <|im_end| <|endoftext|x <im_end> |im_end|> <|IM_END|>",
    "before<|endoftext|>after <|endoftext|> spaced",
    "<repo_name>x<file_sep>a.py\n<filename>b<gh_stars>10<issue_start><jupyter_code>1+1<empty_output>",
    "<<|im_end|>> <|im_end|><|im_end|>",
    "a" * 400,
    "ab" * 200,
    " " * 300,
    "\n" * 150,
    " \n" * 80,
    "9" * 120,
    "-" * 200 + ">",
    "=" * 77 + "\n" + "#" * 66,
    "\u4e2d" * 100,
    "\U0001f600" * 40,
    "supercalifragilisticexpialidocious antidisestablishmentarianism floccinaucinihilipilification",
    "camelCaseWords snake_case_words SCREAMING_CASE kebab-case-words PascalCase123Mixed",
    "aAbBcC \u0410\u0430\u0411\u0431 \u01c5 \u02b0 \u00aa\u00ba \u2071\u207f \u3007",
    "The answer is 42.\n\nQ: What?\nA:\tIt's\u00a042 \u2013 isn't it?",
]

# Beside TEXTS: what a model's own tokens and its kind of tokenizer make special.
MODEL_TEXTS = {
    "smollm2": [],
    "gemma3": [
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<bos><eos><pad><unk><mask>[multimodal]<unused0><unused6241>",
        "<bo s> <start_of_turn|> <START_OF_TURN> <unused> <unused99999>",
        "<table><tr><td>1</td></tr></table> <h1>x</h1><h7> <code>a  b</code> <start_of_image><end_of_image>",
        "\u2581word\u2581\u2581two \u2581 mixed \u2581",
        "<0x41><0x0A> <0xFF> <0xe2>",
        "\u0378\ua7e0\U000e0000 unassigned, in bytes",
        " \n  \n\n   \t\t ",
        "\n" * 33 + "x" + "\t" * 34 + "y" + " " * 35 + "z",
        "aaaaaaaaab" * 30,
    ],
}

PARTS = [
    "the", " and", "Hello", " world", "ing", "\u00fcber", "'s", "'ll", "'RE", "'", "\"", " ", "  ", "\t", "\n", "\r\n",
    "\u00a0", "\u3000", "\u200d", "\u200b", "\ufe0f", "0", "42", "2024", "\u0663", "\u2167", ".", "...", ",", "!?", "(", ")",
    "{", "}", "==", "->", "//", "#", "_", "<|im_end|>", "<|im_start|>", "<|", "|>", "<", "\u4f60\u597d", "\u65e5\u672c", "\u30c6",
    "\ud55c\uad6d", "\u0645\u0631\u062d", "\u05e9\u05dc", "\u0e2a\u0e27\u0e31", "\u0928\u092e\u0938\u094d", "\u043c\u0438\u0440", "\u03ba\u03cc", "e\u0301", "\U0001f600",
    "\U0001f468\u200d\U0001f469", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\u20ac", "\u2264", "\x00", "\x01", "\x1b", "\x7f", "\u0085", "\ufffd", "A", "Z", "zq", "xX",
]


def random_mixes(n, seed):
    rng = random.Random(seed)
    mixes = []
    for _ in range(n):
        parts = rng.choices(PARTS, k=rng.randint(1, 24))
        parts = [p * rng.choice([1, 1, 1, 1, 2, 3, 7]) for p in parts]
        mixes.append("".join(parts)[:100])
    return mixes


def tokenize(program, model, text):
    with tempfile.NamedTemporaryFile() as f:
        f.write(text.encode("utf-8"))
        f.flush()
        command = [program, "-m", model, "-f", f.name, "--ids", "--no-bos", "--no-escape", "--log-disable"]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return json.loads(out.decode())


def broken_utf8(n, seed):
    rng = random.Random(seed)
    samples = [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x80\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xff\xfe",
               b"a\x80b", b"\xe2\x28\xa1", b"\xf0\x9f\x98\x80\x9f", b"\xc3\xc3\xa9", b"\xe0\x9f\xbf", b"\xf8\x88\x80\x80\x80"]
    leads = b"a\x00\x7f\x80\x9f\xa0\xbf\xc0\xc2\xc3\xdf\xe0\xe1\xed\xef\xf0\xf1\xf4\xf5\xff"
    for _ in range(n):
        samples.append(bytes(rng.choice(leads) for _ in range(rng.randint(1, 12))))
    return [{"bytes": s.hex(), "text": s.decode("utf-8", "replace")} for s in samples]


def write(name, value):
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in value)
    path.write_text("[\n" + rows + "\n]\n")
    print(path, path.stat().st_size)


def main():
    program, models = sys.argv[1], sys.argv[2:]
    texts = TEXTS + random_mixes(300, 7)
    write("tokens_utf8.json", broken_utf8(200, 5))
    for name, model in (m.split("=", 1) for m in models):
        all_texts = texts + MODEL_TEXTS[name]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            ids = pool.map(lambda text: tokenize(program, model, text), all_texts)
        write(f"tokens_{name}.json", [{"text": t, "ids": i} for t, i in zip(all_texts, ids)])


if __name__ == "__main__":
    main()
