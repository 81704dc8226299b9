"""What may be given on the command line, and what becomes of it."""
import os
import subprocess

import command


class Usage(command.Case):
    def test_version_and_help_go_to_stdout(self):
        self.assertEqual(self.out("--version"), "sluice 0.1.0\n")
        for name in ("run", "chat", "plan", "tokenize", "perplexity", "inspect", "bench", "doctor"):
            with self.subTest(name):
                self.assertIn(name, self.out("--help"))
                self.assertIn("--model", self.out(name, "--help"))

    def test_what_is_missing_or_unknown(self):
        self.usage()
        self.usage("walk")
        self.usage("--json")
        for name in ("run", "chat", "plan", "tokenize", "perplexity"):
            with self.subTest(name):
                self.assertIn("--model", self.usage(name))
                self.assertIn("--wings", self.usage(name, "-m", "plain", "--wings"))
        self.assertIn("model", self.usage("inspect"))
        self.usage("run", "-m")
        self.usage("run", "-m", "")
        self.usage("run", "-m", "plain", "-p", "x", "stray")

    def test_flags_that_a_command_cannot_honour_are_not_its_flags(self):
        self.usage("plan", "-m", "plain", "--trace", "x")
        self.usage("plan", "-m", "plain", "--temp", "1")
        self.usage("chat", "-m", "plain", "--json")
        self.usage("tokenize", "-m", "plain", "-p", "x", "--ram", "1G")
        self.usage("perplexity", "-m", "plain", "-f", "x", "-n", "1")

    def test_texts_exclude_each_other(self):
        self.usage("run", "-m", "plain", "-p", "x", "-f", self.file("y"))
        self.usage("tokenize", "-m", "plain", "-p", "x", "-f", self.file("y"))
        self.usage("perplexity", "-m", "plain")
        self.usage("perplexity", "-m", "plain", "-f", "x", "--ids", "y")
        self.usage("perplexity", "-m", "plain", "--ids", "y", "--chunks", "1")

    def test_a_terminal_is_no_text(self):
        _, theirs = self.terminal()
        for name in ("run", "tokenize"):
            done = subprocess.run([command.FAKE, name, "-m", "plain"], stdin=theirs, capture_output=True,
                                  timeout=command.TIMEOUT)
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"-p TEXT", done.stderr)

    def test_numbers(self):
        bad = {"-c": ["-1", "x", "1.5", "", "4294967296", "0x10"], "-t": ["0", "-1", "5000"], "-b": ["0", "-4"],
               "-n": ["-2", "x", "1e3"], "--top-k": ["-1"], "--top-p": ["-0.1", "1.1", "nan", "x"],
               "--min-p": ["2"], "--temp": ["-1", "inf"], "--repeat-penalty": ["0", "-1"],
               "--repeat-last-n": ["-2"], "-s": ["-2", "9223372036854775808"],
               "--ram": ["0", "-64M", "64X", "64Mi", "M", "", "1e30", "nan", "9999999999T", "64 M", "64MM"],
               "--load": ["fast", ""], "--compute": ["f16", ""], "--prompts": ["f32", ""], "--spill-dir": [""], "--machine": [""],
               "--trace": [""]}
        for flag, values in bad.items():
            for value in values:
                with self.subTest(flag=flag, value=value):
                    self.usage("run", "-m", "plain", "-p", "x", flag, value)
        self.usage("perplexity", "-m", "plain", "-f", "x", "--chunks", "0")
        self.usage("perplexity", "-m", "plain", "-f", "x", "-c", "2")

    def test_sizes(self):
        for text, size in {"4096": 4096, "64M": 64 << 20, "1.5G": 3 << 29, "2g": 2 << 30, "64MiB": 64 << 20,
                           "64MB": 64 << 20, "10k": 10240, "1T": 1 << 40, "7B": 7, "0.5K": 512}.items():
            with self.subTest(text):
                self.assertEqual(self.json("plan", "-m", "plain", "--ram", text, "--json")["ram_budget"], size)

    def test_engine_flags_arrive(self):
        plan = self.json("plan", "--model", "m", "--ctx-size", 77, "--threads", 3, "--batch-size", 9, "--load",
                         "direct", "--compute", "f32", "--deterministic", "--spill-dir", "/s", "--machine", "/m",
                         "--json")
        memory = {item["name"]: item["bytes"] for item in plan["memory"]}
        self.assertEqual((plan["model"], plan["context"], plan["batch"], plan["precision"], plan["kv_type"]),
                         ("m", 77, 9, "f32", "direct"))
        self.assertEqual(memory, {"threads": 3, "deterministic": 1, "logit_rows": 1})
        self.assertEqual((plan["bottleneck"], plan["machine"]["cpu"]), ("/s", "/m"))
        plan = self.json("plan", "-m", "m", "-c", 5, "-t", 2, "-b", "010", "--load", "buffered", "--json")
        self.assertEqual((plan["context"], plan["batch"], plan["kv_type"]), (5, 10, "buffered"))
        self.assertEqual(plan["machine"]["prompts"], "")
        plan = self.json("plan", "-m", "m", "--prompts", "bf16", "--json")
        self.assertEqual(plan["machine"]["prompts"], "a library")
        self.assertIn("threads, prompts by a library\n", self.out("plan", "-m", "m", "--prompts", "bf16"))
        self.assertEqual(self.json("plan", "-m", "m", "--ctx", 6, "--json")["context"], 6)

    def test_places_arrive_in_the_spellings_of_others(self):
        def memory(*flags):
            plan = self.json("plan", "-m", "m", *flags, "--json")
            return {item["name"]: item["bytes"] for item in plan["memory"][3:]}

        self.assertEqual(memory(), {})
        self.assertEqual(memory("--vram", "6G"), {"vram": 6 << 30})
        self.assertEqual(memory("--vram", 0), {"vram": 0})
        for flag in ("-ngl", "--gpu-layers", "--n-gpu-layers"):
            self.assertEqual(memory(flag, 12), {"gpu_layers": 12})
        self.assertEqual(memory("-ngl", 0), {"gpu_layers": 0})
        self.assertEqual(memory("--n-cpu-ffn", 3, "--n-cpu-moe", 4), {"cpu_ffn_layers": 3, "cpu_expert_layers": 4})
        self.assertEqual(memory("-ncmoe", 4), {"cpu_expert_layers": 4})
        self.assertEqual(memory("-ot", "ffn=CPU,attn=GPU", "--override-tensor", "x=CPU"),
                         {"ffn=CPU": 1, "attn=GPU": 1, "x=CPU": 1})
        self.usage("plan", "-m", "m", "-ngl", "all")
        self.usage("plan", "-m", "m", "-ngl", "-1")
        self.assertIn("-ngl", self.out("run", "-m", "plain", "-p", "-ngl"))

    def test_sampling_flags_arrive(self):
        text = lambda *flags: self.out("run", "-m", "sampling", "-p", "x", *flags).strip()
        self.assertEqual(text(), "0.800 40 0.950 0.050 1.000 64 0 -1 0")
        self.assertEqual(text("--temp", 0, "--top-k", 1, "--top-p", 0.5, "--min-p", 0, "--repeat-penalty", 1.1,
                              "--repeat-last-n", -1, "--seed", 42, "--n-predict", 90),
                         "0.000 1 0.500 0.000 1.100 -1 42 90 0")
        self.assertNotEqual(text("-s", -1), text("-s", -1))
        self.assertTrue(text("-n", 99, "--ignore-eos").startswith("0.800 40 0.950 0.050 1.000 64 0 99 1"))

    def test_a_model_that_does_not_open(self):
        for name in ("run", "chat", "plan", "tokenize", "perplexity", "inspect"):
            with self.subTest(name):
                text = ["-f", self.file("x")] if name in ("run", "tokenize", "perplexity") else []
                self.assertEqual(self.fails(name, "-m", "missing", *text), "missing: No such file or directory")
        self.assertIn("least that works", self.fails("run", "-m", "small", "-p", "x"))

    def test_full_disk_and_closed_outputs(self):
        with open("/dev/full", "wb") as full:
            for arguments in (["--help"], ["run", "-m", "plain", "-p", "x"], ["plan", "-m", "plain"],
                              ["tokenize", "-m", "plain", "-p", "x"], ["inspect", "plain"]):
                done = subprocess.run([command.FAKE, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(done.returncode, 1, arguments)
                self.assertIn(b"sluice: standard output: No space left on device", done.stderr)
        done = subprocess.run(["sh", "-c", f"exec '{command.FAKE}' inspect plain >&- 2>&-"], timeout=60)
        self.assertEqual(done.returncode, 0)

    def test_a_reader_that_goes_away_is_no_error(self):
        for arguments in (["--help"], ["run", "-m", "slow", "-p", "x"], ["tokenize", "-m", "plain", "-p", "x"]):
            with self.subTest(arguments):
                reading, writing = os.pipe()
                os.close(reading)
                done = subprocess.run([command.FAKE, *arguments], stdout=writing, stderr=subprocess.PIPE,
                                      timeout=command.TIMEOUT)
                os.close(writing)
                self.assertEqual(done.returncode, 0)
                self.assertNotIn(b"sluice: ", done.stderr)
