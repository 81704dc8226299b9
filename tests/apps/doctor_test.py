"""`sluice doctor`: what it tells, and what it writes."""
import json
import os

import command


class Doctor(command.Case):
    def test_json_mirrors_the_report(self):
        done = self.call("doctor", "--dir", "/d", "--machine", "/m.json", "-t", 3, "--json")
        self.assertEqual((done.returncode, done.err), (0, ""))
        got = json.loads(done.out)
        self.assertEqual(set(got), {"cpu", "memory", "disk", "gpu", "kernels", "call_us", "findings", "machine_file"})
        self.assertEqual(got["gpu"], {"built": False, "available": False, "reason": "no GPU device", "devices": []})
        self.assertEqual((got["cpu"]["threads"], got["disk"]["path"], got["machine_file"]), (3, "/d", "/m.json"))
        self.assertEqual(got["memory"]["memlock"], 65536)
        self.assertEqual(got["disk"]["beside_compute_gb_s"], 1.25)
        self.assertEqual(got["kernels"], [{"type": "Q4_K", "fast_gb_s": 20, "fast_gflops": 200, "f32_gb_s": 5,
                                           "f32_gflops": 80}])
        self.assertEqual(got["findings"], [{"what": "slow", "remedy": "do\nthis"}])

    def test_text_says_what_is_wrong(self):
        done = self.call("doctor")
        self.assertEqual(done.returncode, 0)
        self.assertIn("! slow\n  remedy: do\\nthis\n", done.out)
        self.assertIn("may be locked: 64.0 KiB", done.out)
        self.assertIn("a cgroup grants 1.5 CPUs", done.out)
        self.assertIn("GPU: no GPU device", done.out)
        self.assertNotIn("\x1b", done.out)
        self.assertEqual(done.err, "measuring\n")
        self.assertIn("nothing is wrong", self.out("doctor", "-m", "plain"))

    def test_usage_and_failure(self):
        self.usage("doctor", "-m", "plain", "--dir", "/tmp")
        self.usage("doctor", "-t", 0)
        self.usage("doctor", "--ram", "1G")
        self.assertIn("missing", self.fails("doctor", "-m", "missing"))


class RealDoctor(command.Case):
    def setUp(self):
        super().setUp()
        if command.SLUICE is None:
            self.skipTest("the real command is not built")

    def test_its_machine_file_is_one_that_plan_takes(self):
        machine = self.directory / "machine.json"
        got = self.json("doctor", "--dir", self.directory, "--machine", machine, "-t", 1, "--json",
                        program=command.SLUICE)
        self.assertEqual(os.listdir(self.directory), ["machine.json"])  # the file that was read is gone
        self.assertEqual(got["machine_file"], str(machine))
        self.assertGreater(got["memory"]["gb_s"], 0)
        self.assertGreater(got["disk"]["read_gb_s"], 0)
        self.assertEqual({k["type"] for k in got["kernels"]} & {"F32", "Q4_K"}, {"F32", "Q4_K"})
        gpu = got["gpu"]
        self.assertEqual(gpu["available"], bool(gpu["devices"]))
        self.assertEqual(gpu["available"], gpu["reason"] == "")
        self.assertNotIn("\n", gpu["reason"])
        if gpu["available"]:
            self.assertTrue(gpu["built"])
        written = json.loads(machine.read_text())
        disk = next(t for t in written["tiers"] if t["id"] == "disk")
        self.assertEqual(disk["read_gb_s"], got["disk"]["read_gb_s"])
        self.assertLessEqual(disk["compute_beside"], 1)
        plan = self.json("plan", "-m", command.FIXTURES / "llama_mha.gguf", "--ram", "64M", "--machine", machine,
                         "--json", program=command.SLUICE)
        self.assertEqual(plan["machine"]["memory_gb_s"], got["memory"]["gb_s"])
        self.assertGreater(plan["decode_tok_s"], 0)

    def test_places_that_cannot_be_measured(self):
        fails = lambda *a: self.fails("doctor", "-t", 1, *a, program=command.SLUICE)
        self.assertIn("/absent", fails("--dir", "/absent"))
        self.assertIn("absent.gguf", fails("-m", "/absent.gguf"))
