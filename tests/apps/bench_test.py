"""`sluice bench`: which tests it runs, and how it tells them."""
import csv
import io
import statistics

import command


def names(results):
    return [(r["n_prompt"], r["n_gen"], r["n_depth"], r["n_sequences"], r["n_threads"]) for r in results]


class Bench(command.Case):
    def bench(self, *arguments, runs=2):
        return self.json("bench", "-m", "plain", "-r", runs, "-o", "json", *arguments)

    def test_every_combination_is_a_test(self):
        got = self.bench("-p", "4,8", "-n", "2", "-d", "0,3", "-B", "1,2")
        shapes = [(r["n_prompt"], r["n_gen"], r["n_depth"], r["n_sequences"]) for r in got]
        one = lambda d: [(4, 0, d, 1), (8, 0, d, 1), (0, 2, d, 1), (0, 2, d, 2)]  # a prompt is of one sequence
        self.assertEqual(shapes, one(0) + one(3))

    def test_lists_may_be_given_in_parts(self):
        self.assertEqual([r["n_prompt"] for r in self.bench("-p", "1", "-p", "2,3", "-n", 0)], [1, 2, 3])

    def test_zero_leaves_a_kind_out(self):
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in self.bench("-p", 0, "-n", 3)], [(0, 3)])
        self.assertEqual(self.bench("-p", 0, "-n", 0), [])

    def test_several_models(self):
        got = self.json("bench", "-m", "plain", "-m", "bos", "-p", 1, "-n", 0, "-r", 1, "-o", "json")
        self.assertEqual([r["model_filename"] for r in got], ["plain", "bos"])

    def test_the_defaults_are_those_of_llama_bench(self):
        got = self.json("bench", "-m", "plain", "-r", 1, "-o", "json")
        self.assertEqual([(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in got], [(512, 0, 0), (0, 128, 0)])

    def test_rates_follow_from_the_samples(self):
        for r in self.bench("-p", 4, "-n", 3, "-B", "1,2", runs=3):
            tokens = r["n_prompt"] or r["n_gen"] * r["n_sequences"]
            self.assertEqual(len(r["samples_s"]), 3)
            rates = [tokens / s for s in r["samples_s"]]
            for value, expected in zip(r["samples_ts"], rates):
                self.assertAlmostEqual(value, expected, places=6)
            self.assertAlmostEqual(r["avg_ts"], statistics.mean(rates), places=6)
            self.assertAlmostEqual(r["stddev_ts"], statistics.stdev(rates), places=6)
            self.assertAlmostEqual(r["median_ts"], statistics.median(rates), places=6)
            self.assertEqual((r["min_ts"], r["max_ts"]), (min(r["samples_ts"]), max(r["samples_ts"])))

    def test_one_run_has_no_spread(self):
        self.assertEqual(self.bench("-p", 4, "-n", 0, runs=1)[0]["stddev_ts"], 0)

    def test_prompts_take_what_the_engine_says(self):
        self.assertEqual(self.bench("-p", 4, "-n", 0)[0]["samples_s"], [0.5, 0.5])

    def test_paths_have_their_rooflines(self):
        paths = self.bench("-p", 4, "-n", 0)[0]["paths"]
        self.assertEqual([(p["name"], p["bytes"], p["roofline_gb_s"]) for p in paths], [("ram", 0, 4), ("disk", 0, 8)])
        self.assertEqual(paths[0]["of_roofline"], 0)

    def test_markdown(self):
        lines = self.out("bench", "-m", "plain", "-p", 4, "-n", 2, "-B", 2, "-d", 3, "-r", 1).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertTrue(lines[0].startswith("| model | size | params | threads | ram | test | t/s |"))
        self.assertEqual({line.count("|") for line in lines}, {10})
        self.assertIn("| tg2 x 2 @ d3 |", lines[2])
        self.assertRegex(lines[2], r"\| \d+\.\d\d ± 0\.00 \|")
        self.assertNotIn("\x1b", lines[2])

    def test_csv(self):
        rows = list(csv.DictReader(io.StringIO(self.out("bench", "-m", "plain", "-p", 4, "-n", 2, "-r", 1, "-o", "csv"))))
        self.assertEqual([(r["n_prompt"], r["n_gen"]) for r in rows], [("4", "0"), ("0", "2")])
        self.assertEqual(rows[0]["ram_roofline_gb_s"], "4.0")
        self.assertEqual(rows[0]["model_filename"], "plain")

    def test_contexts_hold_what_a_test_needs_and_no_more(self):
        self.assertIn("does not fit", self.fails("bench", "-m", "plain", "-p", 8, "-n", 0, "-c", 7))
        self.bench("-p", 8, "-n", 0, "-d", 100)

    def test_engines_that_do_not_open(self):
        self.assertIn("missing", self.fails("bench", "-m", "missing"))

    def test_usage(self):
        self.assertIn("--model", self.usage("bench"))
        for flags in (["-p", "1,,2"], ["-p", "x"], ["-p", "-1"], ["-n", ""], ["-t", "0"], ["-B", "0"], ["-r", "0"],
                      ["-o", "xml"], ["--temp", "1"], ["--trace", "x"], ["-d", "1,"]):
            with self.subTest(flags):
                self.usage("bench", "-m", "plain", *flags)


class RealBench(command.Case):
    """The real engine on a small fixture: tokens and bytes are counted, batches are taken together."""

    def test_a_fixture(self):
        if command.SLUICE is None:
            self.skipTest("the real command is not built")
        model = command.FIXTURES / "llama_gqa_tied.gguf"
        got = self.json("bench", "-m", model, "--machine", command.FIXTURES / "machine.json", "--ram", "64M", "-t", 1,
                        "-p", 8, "-n", 4, "-B", "1,3", "-d", "0,2", "-r", 2, "-o", "json", program=command.SLUICE)
        self.assertEqual(names(got), [(8, 0, 0, 1, 1), (0, 4, 0, 1, 1), (0, 4, 0, 3, 1),
                                      (8, 0, 2, 1, 1), (0, 4, 2, 1, 1), (0, 4, 2, 3, 1)])
        for r in got:
            self.assertGreater(r["median_ts"], 0)
            self.assertLessEqual(r["ram_peak"], 64 << 20)
            ram = next(p for p in r["paths"] if p["name"] == "ram")
            self.assertGreater(ram["bytes"], 0)
            self.assertEqual(ram["roofline_gb_s"], 30)
        alone, together = (next(p["bytes"] for p in got[i]["paths"] if p["name"] == "ram") for i in (1, 2))
        self.assertLess(together, 3 * alone)  # weights are read once for all
