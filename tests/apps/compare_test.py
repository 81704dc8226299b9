"""bench/compare, with the command under test on one side and a script in a peer's place on the other."""
import importlib.machinery
import importlib.util
import json
import pathlib
import stat
import statistics
import subprocess
import sys

import command

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "bench" / "compare"
sys.path.insert(0, str(SCRIPT.parent))  # where it finds what the scripts share

PEER = """#!{python}
import json, pathlib, sys
log = pathlib.Path({log!r})
n = len(log.read_text().splitlines()) if log.exists() else 0
log.open("a").write(" ".join(sys.argv[1:]) + "\\n")
if n == {fail_at}:
    print("cannot allocate", file=sys.stderr)
    sys.exit(3)
print(json.dumps([dict(n_prompt=p, n_gen=g, n_depth=0, avg_ts=100.0 + n, build_commit="abc", build_number=7)
                  for p, g in ((8, 0), (0, 4))]))
"""


def load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("compare", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
    loader.exec_module(module)
    return module


class Compare(command.Case):
    def peer(self, name="peer", fail_at=-1):
        path = pathlib.Path(self.file(PEER.format(python=sys.executable, log=str(self.directory / (name + ".log")),
                                                  fail_at=fail_at), name))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def compare(self, *arguments, code=0):
        done = subprocess.run([sys.executable, SCRIPT, "--sluice", command.FAKE, "-m", "plain", "-p", "8", "-n", "4",
                               "-t", "1", "--out", self.directory, "--name", "result", *map(str, arguments)],
                              capture_output=True, text=True, timeout=command.TIMEOUT)
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads((self.directory / "result.json").read_text()) if code == 0 else done

    def test_rounds_are_interleaved_and_medians_compared(self):
        peer = self.peer()
        got = self.compare("--peer", f"fast={peer}", "--peer", f"same={peer}", "--rounds", 3, "--peer-args", "--repack 0")
        self.assertEqual([t["test"] for t in got["tests"]], ["pp8", "tg4"])
        for test in got["tests"]:
            results = test["results"]
            # The counter of the script tells the turns: fast, same, fast, same, …
            self.assertEqual(results["fast"]["samples"], [100, 102, 104])
            self.assertEqual(results["same"]["samples"], [101, 103, 105])
            ours = results["sluice"]["samples"]
            self.assertEqual(len(ours), 3)
            self.assertEqual(results["sluice"]["median"], statistics.median(ours))
            self.assertAlmostEqual(test["ratio"], statistics.median(ours) / 103)
        self.assertEqual(got["versions"]["fast"], "build 7 (abc)")
        self.assertIn("sluice 0.1.0", got["versions"]["sluice"])
        self.assertEqual(got["commands"]["plain"]["fast"],
                         "peer -m plain -p 8 -n 4 -t 1 -r 1 -o json --repack 0")
        text = (self.directory / "result.md").read_text()
        self.assertIn("| plain | pp8 |", text)
        self.assertNotIn(str(self.directory), text)

    def test_a_peer_that_fails_is_told(self):
        got = self.compare("--peer", f"weak={self.peer(fail_at=1)}", "--rounds", 2)
        self.assertEqual(got["tests"][0]["results"]["weak"]["samples"], [100])
        self.assertEqual(got["failures"], [{"model": "plain", "name": "weak",
                                            "failures": ["exit code 3: cannot allocate"]}])
        self.assertIn("weak on plain failed 1 times", (self.directory / "result.md").read_text())

    def test_usage(self):
        self.compare(code=2)
        self.compare("--peer", "nameless", code=2)
        self.compare("--peer", "a=b", "--peer-memory", "2X", code=2)

    def test_memory_groups_of_both_versions(self):
        compare = load()
        for version, limit_file, where in ((2, "memory.max", ""), (1, "memory.limit_in_bytes", "memory")):
            root = self.directory / f"v{version}"
            (root / where).mkdir(parents=True)
            if version == 2:
                (root / "cgroup.controllers").write_text("memory")
            with compare.MemoryGroup(1 << 30, root) as group:
                self.assertEqual(group.path.parent, root / where if where else root)
                self.assertEqual((group.path / limit_file).read_text(), str(1 << 30))
                group.enter()
                self.assertTrue((group.path / "cgroup.procs").read_text().isdigit())
                for file in group.path.iterdir():  # a real one has no files to remove
                    file.unlink()
            self.assertFalse(group.path.exists())

    def test_a_system_without_memory_groups_is_told(self):
        with self.assertRaises(SystemExit) as caught:
            load().MemoryGroup(1 << 30, self.directory / "absent").__enter__()
        self.assertIn("no memory cgroup", str(caught.exception))
