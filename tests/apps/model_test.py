"""The real command on real files: the small llama fixtures, and SmolLM2 where it is at hand (SLUICE_MODEL, or
the user's cache). What the numbers must be is tested in tests/engine; here, that the command tells them."""
import json
import math
import os
import signal

import command

MIB = 1 << 20


class Real(command.Case):
    def setUp(self):
        super().setUp()
        if command.SLUICE is None:
            self.skipTest("the real command is not built")

    def call(self, *arguments, **kwargs):
        return super().call(*arguments, program=command.SLUICE, **kwargs)


class Fixtures(Real):
    MODELS = sorted(command.FIXTURES.glob("llama_*.gguf"))

    def test_there_are_some(self):
        self.assertTrue(self.MODELS)

    def test_plan_and_inspect(self):
        for model in self.MODELS:
            with self.subTest(model.name):
                report = self.json("inspect", model, "--json")
                self.assertEqual(report["architecture"], "llama")
                self.assertEqual(report["tensor_bytes"], sum(t["bytes"] for t in report["tensors"]))
                self.assertEqual(report["files"], [{"path": str(model), "bytes": model.stat().st_size}])
                plan = self.json("plan", "-m", model, "--ram", "64M", "--json")
                self.assertEqual(plan["ram_budget"], 64 * MIB)
                self.assertEqual(plan["layers"][0]["name"], "embed")
                self.assertIn("predicted", self.out("plan", "-m", model, "--ram", "64M"))

    def test_ids_are_judged(self):
        for model in self.MODELS:
            with self.subTest(model.name):
                ids = self.file("1 2 3 4 5 6 7\n3 1\n")
                got = self.json("perplexity", "-m", model, "--ram", "64M", "--ids", ids, "--json")
                flat = [entry for sequence in got["sequences"] for entry in sequence]
                self.assertEqual([len(s) for s in got["sequences"]], [6, 1])
                self.assertEqual([entry["id"] for entry in flat], [2, 3, 4, 5, 6, 7, 1])
                self.assertTrue(all(e["logprob"] <= 0 and e["margin"] >= 0 for e in flat))
                mean = -sum(e["logprob"] for e in flat) / len(flat)
                self.assertAlmostEqual(got["ppl"], math.exp(mean), places=6)

    def test_files_that_are_no_models(self):
        broken = self.file(self.MODELS[0].read_bytes()[:1000], "broken.gguf")
        for name in ("inspect", "plan", "run", "tokenize"):
            text = ["-p", "x"] if name in ("run", "tokenize") else []
            with self.subTest(name):
                self.assertIn("broken.gguf", self.fails(name, "-m", broken, *text))
                self.assertIn("absent.gguf", self.fails(name, "-m", "/absent.gguf", *text))


class SmolLm2(Real):
    def setUp(self):
        super().setUp()
        self.model = command.real_model()
        if self.model is None:
            self.skipTest("SmolLM2 is not at hand: SLUICE_MODEL names it")

    def test_tokens(self):
        got = self.json("tokenize", "-m", self.model, "-p", "Hello, world!", "--json")
        self.assertEqual(got, {"tokens": [19556, 28, 905, 17]})
        got = self.json("tokenize", "-m", self.model, "-p", "<|im_start|>", "--json")
        self.assertEqual(got, {"tokens": [1]})

    def test_runs_in_less_memory_than_it_has_weights(self):
        got = self.json("run", "-m", self.model, "--ram", "64M", "-c", 512, "--temp", 0, "-n", 8, "--json", "-p",
                        "The capital of France is")
        self.assertIn("Paris", got["text"])
        self.assertEqual((len(got["tokens"]), got["prompt_tokens"], got["stop_reason"]), (8, 5, "length"))
        self.assertEqual(got["memory"]["ram_budget"], 64 * MIB)
        self.assertLessEqual(got["memory"]["ram_peak"], 64 * MIB)
        self.assertEqual([tier["name"] for tier in got["tiers"]], ["ram", "disk"])
        self.assertGreater(got["tiers"][1]["bytes_read"], 0)

    def test_a_traced_run_says_where_the_time_went(self):
        trace = self.directory / "t.json"
        got = self.json("run", "-m", self.model, "--ram", "64M", "-c", 512, "--load", "direct", "-n", 8, "--ignore-eos",
                        "--json", "--trace", trace, "-p", "The capital of France is")
        decode = next(p for p in got["stalls"]["periods"] if p["name"] == "decode")
        self.assertEqual(decode["steps"], 9)
        causes = [decode[c] for c in ("computing_s", "disk_s", "link_s", "host_s", "between_s")]
        self.assertAlmostEqual(sum(causes), decode["seconds"], 6)
        times = got["timings"]
        self.assertAlmostEqual(decode["seconds"], times["prefill_s"] + times["decode_s"], delta=0.02)
        self.assertGreater(decode["computing_s"], 0)
        self.assertGreater(decode["disk_s"], 0)
        disk = next(lane for lane in decode["lanes"] if lane["name"] == "disk")
        self.assertGreaterEqual(disk["busy_s"], decode["disk_s"])
        written = json.loads(trace.read_text())
        self.assertAlmostEqual(written["otherData"]["decode"]["seconds"], decode["seconds"], 5)

    def test_seeds_make_it_repeatable(self):
        text = lambda seed: self.json("run", "-m", self.model, "--ram", "200M", "-c", 128, "--temp", 1.5, "-s", seed,
                                      "-p", "Once", "-n", 12, "--json")["tokens"]
        self.assertEqual(text(7), text(7))
        self.assertNotEqual(text(7), text(8))

    def test_chat_remembers(self):
        out = self.out("chat", "-m", self.model, "--ram", "200M", "-c", 512, "--temp", 0, "-n", 60, stdin=(
            "Write one sentence about the moon.\nRepeat what you just wrote.\n"))
        first, second = out.splitlines()
        self.assertIn("moon", first)
        self.assertEqual(first, second)

    def test_the_least_budget_is_named(self):
        self.assertIn("MiB", self.fails("run", "-m", self.model, "--ram", "5M", "-c", 512, "-p", "x"))

    def test_a_prompt_longer_than_the_context(self):
        self.assertIn("context", self.fails("run", "-m", self.model, "--ram", "200M", "-c", 16, "-p", "one " * 40))

    def test_ctrl_c(self):
        with self.running("run", "-m", self.model, "--ram", "200M", "-c", 2048, "--ignore-eos", "-p", "Once upon",
                          program=command.SLUICE) as process:
            self.wait_for(process.stdout, " ")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 130)
            self.assertIn(b"stopped by Ctrl-C", err)

    def test_ctrl_c_leaves_the_next_turn_alone(self):
        ours, theirs = self.terminal()
        with self.running("chat", "-m", self.model, "--ram", "200M", "-c", 2048, "--ignore-eos", "--temp", 0,
                          stdin=theirs, program=command.SLUICE) as process:
            err = self.wait_for(process.stderr, "> ")
            for _ in range(2):
                self.drain(process.stdout)
                os.write(ours, b"Count to one hundred.\n")
                self.wait_for(process.stdout, " ")
                process.send_signal(signal.SIGINT)
                err += self.wait_for(process.stderr, "> ")
            os.write(ours, b"/exit\n")
            err += process.communicate(timeout=30)[1].decode()
            self.assertEqual(process.returncode, 0, err)
            self.assertNotIn("cancelled", err)
