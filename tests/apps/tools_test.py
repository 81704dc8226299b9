"""sluice tokenize, perplexity, plan and inspect."""
import json
import math
import signal

import command


def logprob(before, token, first):
    """As fake_engine.cc scores."""
    return -((before + token) % 7 + 1) / 4 - (0.125 if first == 256 else 0)


def scores(ids, begin):
    return [logprob(ids[i - 1], ids[i], ids[0]) for i in range(begin, len(ids))]


def perplexity(logprobs):
    return math.exp(-sum(logprobs) / len(logprobs))


class Tokenize(command.Case):
    def test_special_tokens_are_recognized_and_none_added(self):
        self.assertEqual(self.out("tokenize", "-m", "bos", "-p", "ab<s>"), "97 98 256\n")
        self.assertEqual(self.json("tokenize", "-m", "bos", "-p", "ab<s>", "--json"), {"tokens": [97, 98, 256]})
        self.assertEqual(self.json("tokenize", "-m", "plain", "-p", "", "--json"), {"tokens": []})

    def test_texts_are_taken_as_they_are(self):
        raw = bytes(range(256)) + b"\n"
        expected = {"tokens": list(raw)}
        self.assertEqual(self.json("tokenize", "-m", "plain", "-f", self.file(raw), "--json"), expected)
        self.assertEqual(self.json("tokenize", "-m", "plain", "--json", stdin=raw), expected)
        self.assertEqual(self.out("tokenize", "-m", "plain", "-p", r"\n"), "10\n")


class Perplexity(command.Case):
    TEXT = bytes(97 + i * i % 26 for i in range(1200))

    def windows(self, ids, size, count, bos):
        out = []
        for i in range(count):
            window = ids[i * size:(i + 1) * size]
            out += scores([256] + window[1:] if bos else window, size // 2 + 1)
        return out

    def test_windows_of_512(self):
        path = self.file(self.TEXT)
        expected = self.windows(list(self.TEXT), 512, 2, False)
        got = self.json("perplexity", "-m", "plain", "-f", path, "--json")
        self.assertEqual(set(got), {"ppl", "n"})
        self.assertEqual(got["n"], 2 * 255)
        self.assertAlmostEqual(got["ppl"], perplexity(expected), places=9)
        got = self.json("perplexity", "-m", "plain", "-f", path, "--ctx", 512, "--chunks", 1, "--json")
        self.assertEqual(got["n"], 255)
        self.assertAlmostEqual(got["ppl"], perplexity(expected[:255]), places=9)
        self.assertEqual(self.json("perplexity", "-m", "plain", "-f", path, "--chunks", 9, "--json")["n"], 510)

    def test_the_prefix_takes_the_place_of_each_first_token(self):
        got = self.json("perplexity", "-m", "bos", "-f", self.file(self.TEXT), "-c", 100, "--json")
        expected = self.windows([256] + list(self.TEXT), 100, 12, True)
        self.assertEqual(got["n"], len(expected))
        self.assertAlmostEqual(got["ppl"], perplexity(expected), places=9)

    def test_special_tokens_in_the_text_are_text_and_a_last_newline_is_not(self):
        got = lambda text: self.json("perplexity", "-m", "plain", "-f", self.file(text), "-c", 8, "--json")
        self.assertEqual(got("<end>abc")["n"], 3)
        self.assertIn("has 7 tokens", self.fails("perplexity", "-m", "plain", "-f", self.file("1234567\n"), "-c", 8))

    def test_progress_and_result(self):
        done = self.call("perplexity", "-m", "plain", "-f", self.file(self.TEXT), "-b", 16)
        self.assertEqual(done.returncode, 0, done.err)
        self.assertRegex(done.out, r"^perplexity \d+\.\d{4} \+/- \d+\.\d{4} over 510 tokens\n$")
        self.assertEqual(len(done.err.splitlines()), 2)
        self.assertIn("window 2 of 2: " + done.out, done.err)

    def test_texts_that_cannot_be_judged(self):
        self.assertIn("has 3 tokens and a window takes 512",
                      self.fails("perplexity", "-m", "plain", "-f", self.file("abc")))
        self.assertIn("nowhere", self.fails("perplexity", "-m", "plain", "-f", self.directory / "nowhere"))

    def test_sequences_of_ids(self):
        rows = [[1, 2, 3, 4], [256, 7], [9]]
        text = "1 2 3 4\n\n  256,\t7\r\n9"
        got = self.json("perplexity", "-m", "bos", "--ids", self.file(text), "--json")
        self.assertEqual(set(got), {"ppl", "n", "sequences"})
        self.assertEqual(got["sequences"],
                         [[{"id": row[i], "logprob": logprob(row[i - 1], row[i], row[0]),
                            "argmax": (row[i] + 1) % 258, "margin": 0.5} for i in range(1, len(row))] for row in rows])
        self.assertEqual(got["n"], 4)
        self.assertAlmostEqual(got["ppl"], perplexity(sum((scores(row, 1) for row in rows), [])), places=9)
        self.assertIn("over 4 tokens", self.out("perplexity", "-m", "bos", "--ids", self.file(text)))

    def test_ids_that_make_no_sense(self):
        fails = lambda text, *flags: self.fails("perplexity", "-m", "plain", "--ids", self.file(text), *flags)
        self.assertIn("line 2: 'x' is not a token id", fails("1 2\n3 x\n"))
        self.assertIn("line 1: '-1' is not", fails("-1"))
        self.assertIn("line 1: '99999999999' is not", fails("99999999999"))
        self.assertIn("line 3: token 258 is not in the model's vocabulary of 258", fails("1\n\n2 258"))
        self.assertIn("no token ids", fails(" \n\n"))
        self.assertIn("line 2: 4 tokens do not fit the context of 3", fails("1 2 3\n1 2 3 4", "-c", 3))

    def test_ctrl_c(self):
        with self.running("perplexity", "-m", "slow", "-f", self.file(self.TEXT)) as process:
            self.wait_for_handler(process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=command.TIMEOUT)
        self.assertEqual((process.returncode, out, err), (130, b"", b"sluice: fake: cancelled\n"))


class Plan(command.Case):
    def test_json_mirrors_the_report(self):
        done = self.call("plan", "-m", "plain", "--ram", "64M", "-c", 512, "--json")
        self.assertEqual((done.returncode, done.err), (0, ""))
        plan = json.loads(done.out)
        self.assertEqual(set(plan), {"model", "numerics_hash", "precision", "kv_type", "context", "batch",
                                     "short_prompt", "ram_budget", "memory", "layers", "resident_bytes",
                                     "disk_bytes_per_token", "kv_bytes", "kv_spill_bytes", "decode_tok_s", "prefill_tok_s",
                                     "prefill_tokens", "prefill", "bottleneck", "bottleneck_share",
                                     "hand_overs_per_token", "tiers", "helps", "machine"})
        self.assertEqual(plan["short_prompt"], 11)
        self.assertIsNone(plan["prefill_tok_s"])  # infinite
        self.assertEqual(plan["layers"][3], {"name": "3", "tensors": [
            {"tensor": "blk.3.attn_q.weight", "type": "Q4_1", "device": "cpu", "bytes_resident": 0,
             "bytes_streamed": 1 << 20, "tiles_resident": 1, "tiles_streamed": 0, "prompt_device": ""}],
            "kv_device": "", "held": [], "decode_ms": 0, "kv_near": 0})

    def test_a_plan_with_a_gpu(self):
        plan = self.json("plan", "-m", "gpu", "--json")
        self.assertEqual([(t["name"], t["memory"]) for t in plan["tiers"]],
                         [("cpu", "ram"), ("gpu 0", "vram"), ("disk", "disk")])
        self.assertEqual(plan["tiers"][1]["link_bytes_per_token"], 1 << 20)
        self.assertEqual((plan["tiers"][1]["lent_bytes"], plan["tiers"][1]["small_step"]), (300 << 20, 128))
        self.assertIn("for steps of more than 128 tokens the workspace has room for 300.0 MiB of weights",
                      self.call("plan", "-m", "gpu").out)
        self.assertEqual(plan["prefill"], [{"n": 64, "tok_s": 640.0}, {"n": 512, "tok_s": 5120.0}])
        self.assertEqual(plan["helps"], [{"what": "8 GiB more VRAM", "decode_tok_s": 42.5}])
        self.assertNotIn("split", plan["layers"][2]["tensors"][1])
        self.assertEqual(plan["layers"][3]["tensors"][1]["split"], {"from_row": 5120, "to_row": 14336, "device": "cpu"})
        self.assertNotIn("prompt_split", plan["layers"][3]["tensors"][1])
        out = self.out("plan", "-m", "gpu")
        lines = [line.split() for line in out.splitlines()]
        self.assertIn("0 to 1 gpu 0 gpu 0 gpu 0 gpu 0 0 B 4.0 MiB 0 B 1.00".split(), lines)
        self.assertIn("2 gpu 0 gpu 0 cpu gpu 0, cpu 1.0 MiB 1.0 MiB 0 B 0.50".split(), lines)
        self.assertIn("3 gpu 0 gpu 0 to 16384, then cpu rows 0-5120 gpu 0, 5120-14336 cpu gpu 0 0 B 0 B 0 B 0.25".split(), lines)
        self.assertIn("bottleneck: PCIe, busy for 78 % of the token", out)
        self.assertIn("with 8 GiB more VRAM: decode at 42.5 tok/s", out)

    def test_run_tells_where_the_weights_are(self):
        done = self.call("run", "-m", "gpu", "-p", "x", "-n", 1)
        self.assertIn("22.1 GB of 0.0 on GPU, 20.4 in RAM, context 0, predicted 21.0 tok/s, bound by PCIe", done.err)

    def test_layers_that_live_alike_share_a_row(self):
        lines = [line.split() for line in self.out("plan", "-m", "plain").splitlines()]
        self.assertIn("0 to 2, each attn_q.weight Q4_1 cpu 1 0 1.0 MiB 0 B".split(), lines)
        self.assertIn("3 attn_q.weight Q4_1 cpu 1 0 0 B 1.0 MiB".split(), lines)


class Inspect(command.Case):
    def test_both_spellings_and_json(self):
        model = self.json("inspect", "m.gguf", "--json")
        self.assertEqual(model, self.json("inspect", "-m", "m.gguf", "--json"))
        self.assertEqual(model, {
            "path": "m.gguf", "architecture": "llama", "name": "A \x1b[31mred\ufffd name",
            "files": [{"path": "m.gguf", "bytes": 4096}],
            "metadata": {"general.name": "two\nlines", "llama.block_count": "30"},
            "tensors": [{"name": "token_embd.weight", "type": "Q8_0", "shape": [64, 256], "bytes": 17408,
                         "offset": 32, "file": "m.gguf"}], "tensor_bytes": 17408, "parameters": 16384})

    def test_what_a_file_says_cannot_drive_the_terminal(self):
        out = self.call("inspect", "m.gguf").stdout
        self.assertNotIn(b"\x1b", out)
        self.assertIn(rb"A \x1b[31mred", out)
        self.assertIn(rb"two\nlines", out)
        self.assertIn(b"64 x 256", out)
