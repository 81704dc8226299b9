"""sluice run."""
import json
import signal

import command


class Run(command.Case):
    def test_streams_the_text_and_nothing_else(self):
        done = self.call("run", "-m", "plain", "-p", "Hello")
        self.assertEqual((done.returncode, done.out), (0, "[0+5 Hello]\n"))
        self.assertEqual(done.err, "4.0 MiB model: 3.0 MiB resident, 1.0 MiB streamed per token, context 0, "
                                   "predicted 21.0 tok/s, bound by disk\n")

    def test_where_the_prompt_comes_from(self):
        self.assertEqual(self.out("run", "-m", "plain", stdin="piped\n"), "[0+5 piped]\n")
        self.assertEqual(self.out("run", "-m", "plain", "-f", self.file("a\\nb\n\n")), "[0+5 a\\nb\n]\n")
        self.assertEqual(self.out("run", "-m", "plain", "-p", r"a\tb\n\x41\\\q\x4"), "[0+11 a\tb\nA\\\\q\\x4]\n")
        self.assertEqual(self.out("run", "-m", "plain", "-p", r"a\n", "--no-escape"), "[0+3 a\\n]\n")
        self.assertEqual(self.out("run", "-m", "plain", "-p", "--json"), "[0+6 --json]\n")
        self.assertEqual(self.out("run", "-m", "plain", "-p", "[a,b]"), "[0+5 [a,b]]\n")
        self.assertEqual(self.out("run", "-m", "plain", "-p", "<end>x"), "[0+2 <end>x]\n")

    def test_the_models_prefix_comes_first_and_once(self):
        self.assertEqual(self.out("run", "-m", "bos", "-p", "Hi"), "[0+3 <s>Hi]\n")
        self.assertEqual(self.out("run", "-m", "bos", "-p", "<s>Hi"), "[0+3 <s>Hi]\n")
        self.assertEqual(self.out("run", "-m", "bos", "-p", ""), "[0+1 <s>]\n")
        self.assertIn("empty", self.fails("run", "-m", "plain", "-p", ""))

    def test_prompts_that_cannot_be_had(self):
        self.assertIn("nowhere", self.fails("run", "-m", "plain", "-f", self.directory / "nowhere"))
        self.assertIn("directory", self.fails("run", "-m", "plain", "-f", self.directory))
        with open(self.directory / "large", "wb") as large:
            large.truncate((16 << 20) + 1)
        self.assertIn("16 MiB", self.fails("run", "-m", "plain", "-f", self.directory / "large"))

    def test_a_prompt_longer_than_the_context_is_an_error(self):
        why = self.fails("run", "-m", "plain", "-p", "123456", "-c", 5)
        self.assertIn("6 tokens", why)
        self.assertIn("-c", why)

    def test_json_has_the_fields_of_the_specification(self):
        done = self.call("run", "-m", "bos", "-p", "Hi", "--ram", "64M", "-n", 4, "--json")
        self.assertEqual((done.returncode, done.err), (0, ""))
        self.assertEqual(json.loads(done.out), {
            "prompt_tokens": 3, "tokens": [91, 48, 43, 51], "text": "[0+3", "stop_reason": "length",
            "timings": {"load_s": 0.125, "prefill_s": 0.5, "prefill_tok_s": 20, "decode_s": 0.25, "decode_tok_s": 40},
            "memory": {"ram_budget": 64 << 20, "ram_peak": 11, "rss_peak": 12},
            "tiers": [{"name": "ram", "bytes_resident": 1, "bytes_read": 2, "gb_s": 3, "roofline_gb_s": 4},
                      {"name": "disk", "bytes_resident": 5, "bytes_read": 6, "gb_s": 0, "roofline_gb_s": 8}]})

    def test_json_of_text_that_is_not_utf8(self):
        self.assertEqual(self.json("run", "-m", "bad-utf8", "-p", "x", "--json")["text"], "a\ufffd")
        self.assertEqual(self.call("run", "-m", "bad-utf8", "-p", "x").stdout, b"a\xff\n")

    def test_stop_reasons(self):
        reason = lambda *flags: self.json("run", "-m", "plain", "-p", "Hello", "--json", *flags)["stop_reason"]
        self.assertEqual(reason(), "end")
        self.assertEqual(reason("-n", 0), "length")
        self.assertEqual(reason("-c", 8), "context")
        done = self.call("run", "-m", "plain", "-p", "Hello", "-c", 8)
        self.assertEqual(done.out, "[0+\n")
        self.assertIn("sluice: warning: the context of 8 tokens is full", done.err)

    def test_statistics_go_to_stderr(self):
        done = self.call("run", "-m", "plain", "-p", "Hello", "--ram", "64M", "--stats")
        self.assertEqual(done.out, "[0+5 Hello]\n")
        lines = [line.split() for line in done.err.splitlines()]
        self.assertIn(["ram", "1", "B", "2", "B", "3.00", "4.00", "75", "%"], lines)
        self.assertIn(["disk", "5", "B", "6", "B", "-", "8.00", "-"], lines)
        self.assertIn(["decode", "11", "40.0", "21.0"], lines)
        self.assertIn("budget 64.0 MiB, its peak 11 B, peak RSS 12 B", done.err)

    def test_short_prompts_are_planned_as_the_shortest_that_the_plan_knows(self):
        done = self.call("run", "-m", "gpu", "-p", "Hello", "--stats")  # 64 tokens in a tenth of a second
        self.assertIn(["prefill", "5", "20.0", "50.0"], [line.split() for line in done.err.splitlines()])

    def test_where_the_time_of_a_traced_run_went(self):
        done = self.call("run", "-m", "plain", "-p", "Hello", "--stats", "--trace", "t.json")
        lines = [line.split() for line in done.err.splitlines()]
        self.assertIn(["decode", "3", "2.00", "50.0", "%", "25.0", "%", "12.5", "%", "7.5", "%", "5.0", "%"], lines)
        self.assertIn(["decode", "cpu", "1.00", "50.0", "%", "2.0", "KiB", "3.50"], lines)
        self.assertIn(["decode", "disk", "0.625", "31.2", "%", "1.0", "KiB", "1.25"], lines)
        self.assertNotIn("missing", done.err)
        done = self.call("run", "-m", "plain", "-p", "Hello", "--stats", "--trace", "full")
        self.assertIn("7 spans are missing", done.err)

    def test_json_of_a_traced_run(self):
        got = self.json("run", "-m", "plain", "-p", "Hello", "--json", "--trace", "t.json")
        self.assertEqual(got["stalls"], {"dropped_spans": 0, "periods": [
            {"name": "decode", "steps": 3, "seconds": 2, "computing_s": 1, "disk_s": 0.5, "link_s": 0.25,
             "host_s": 0.15, "between_s": 0.1,
             "lanes": [{"name": "cpu", "busy_s": 1, "bytes": 2048, "gb_s": 3.5},
                       {"name": "disk", "busy_s": 0.625, "bytes": 1024, "gb_s": 1.25}]}]})

    def test_a_failure_in_the_middle_is_one_line(self):
        done = self.call("run", "-m", "failing", "-p", "x")
        self.assertEqual((done.returncode, done.out), (1, "[0+\n"))
        self.assertEqual(self.fails("run", "-m", "failing", "-p", "x"), "fake: disk\\non fire")
        self.assertEqual(self.call("run", "-m", "failing", "-p", "x", "--json").out, "")

    def test_warnings_are_shown_and_harmless(self):
        done = self.call("run", "-m", "warning", "-p", "x", "--json")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.err, "sluice: warning: io_uring is not allowed here\\x1b[31m: reading with threads\n")

    def test_signals_end_it_with_what_there_is(self):
        for number, code, name in ((signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")):
            with self.subTest(name), self.running("run", "-m", "slow", "-p", "x") as process:
                begun = self.wait_for(process.stdout, "xxx")
                process.send_signal(number)
                out, err = process.communicate(timeout=command.TIMEOUT)
                text = begun + out.decode()
                self.assertEqual((process.returncode, text.strip("x")), (code, "\n"))
                self.assertIn(f"stopped by {name} after {len(text) - 1} tokens", err.decode())

    def test_a_signal_in_json(self):
        with self.running("run", "-m", "slow", "-p", "x", "--json") as process:
            self.wait_for_handler(process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=command.TIMEOUT)
        self.assertEqual((process.returncode, err), (130, b""))
        self.assertEqual(json.loads(out)["stop_reason"], "cancelled")

    def test_a_signal_while_in_the_prompt(self):
        with self.running("run", "-m", "slow-prompt", "-p", "four") as process:
            self.wait_for_handler(process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=command.TIMEOUT)
        self.assertEqual((process.returncode, out), (130, b""))
        self.assertIn("stopped by Ctrl-C after 0 tokens", err.decode())
