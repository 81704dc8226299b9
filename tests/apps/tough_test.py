"""The real command where the machine is unkind: no io_uring, little locked memory, strange file systems, full
disks, no memory, signals at any moment. The same output or one clean line; nothing left behind."""
import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import unittest

import command
from model_test import Real

MIB = 1 << 20
MODEL = command.FIXTURES / "llama_mha.gguf"
MACHINE = command.FIXTURES / "machine.json"
TOKENS = 2000


def rounds(name, default):
    """How often a test that repeats does so."""
    return int(os.environ.get(name, default))


class Tough(Real):
    """Scores a sequence of ids with so little memory that weights stream and most of the KV lies on disk."""

    def setUp(self):
        super().setUp()
        if command.SANITIZED:
            self.skipTest("sanitizers need address space without limits, and hundreds of runs take too long with them")
        numbers = random.Random(5)
        self.ids = self.file(" ".join(str(numbers.randrange(3, 97)) for _ in range(TOKENS)) + "\n", "ids")
        self.spill = self.directory / "spill"
        self.spill.mkdir()

    def arguments(self, model=MODEL, ram=None, spill=None):
        return ["perplexity", "-m", model, "--ids", self.ids, "-c", TOKENS, "--machine", MACHINE, "--json", "-t", 2,
                "--ram", ram or self.least(), "--spill-dir", spill or self.spill]

    least_known = None

    def least(self):
        """To 4 KiB, the least budget."""
        if Tough.least_known is None:
            low, high = 0, 16 * MIB
            while high - low > 4096:
                middle = (low + high) // 2
                done = self.call("plan", "-m", MODEL, "-c", TOKENS, "--machine", MACHINE, "--ram", middle)
                low, high = (low, middle) if done.returncode == 0 else (middle, high)
            Tough.least_known = high + 64 * 1024  # scoring needs more rows of logits than a plan
        return Tough.least_known

    def score(self, *more, **kwargs):
        """What the scoring says, without what is measured; and what it said on stderr."""
        done = self.call(*self.arguments(*more), **kwargs)
        self.assertEqual(done.returncode, 0, done.err)
        known = "was trained for"  # the fixture's context is short
        return self.result(done.out), "".join(line for line in done.err.splitlines(True) if known not in line)

    def result(self, out):
        return json.loads(out)["sequences"]

    printed_known = None

    def printed(self):
        """What is printed where nothing is scarce."""
        if Tough.printed_known is None:
            Tough.printed_known = self.out(*self.arguments(MODEL, 64 * MIB))
        return Tough.printed_known

    def expected(self):
        return self.result(self.printed())

    def assert_clean(self, done):
        """The right result; or one line and exit 1, after as much of the result as was printed by then."""
        self.assertIn(done.returncode, (0, 1), done.err)
        if done.returncode == 0:
            self.assertEqual(self.result(done.out), self.expected())
        else:
            lines = [line for line in done.err.splitlines()
                     if line.startswith("sluice: ") and not line.startswith("sluice: warning: ")]
            self.assertEqual(len(lines), 1, done.err)
            begun = self.printed().split('"ppl"')[0]
            self.assertTrue(begun.startswith(done.out), done.out[-200:])

    def test_spills_and_scores_the_same(self):
        got, err = self.score()
        self.assertEqual(got, self.expected())
        self.assertEqual(err, "")
        plan = self.json("plan", "-m", MODEL, "-c", TOKENS, "--machine", MACHINE, "--ram", self.least(), "--json")
        self.assertGreater(plan["kv_spill_bytes"], 0)
        self.assertGreater(plan["disk_bytes_per_token"], 0)
        self.assertEqual(list(self.spill.iterdir()), [])

    def test_without_io_uring(self):
        got, err = self.score(preexec_fn=deny_io_uring)
        self.assertEqual(got, self.expected())
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertIn("io_uring", err)

    def test_with_little_locked_memory(self):
        for limit in (64 * 1024, 0):
            with self.subTest(limit):
                got, err = self.score(preexec_fn=lambda limit=limit: lock_at_most(limit))
                self.assertEqual(got, self.expected())
                self.assertLessEqual(len(err.splitlines()), 1, err)

    @contextlib.contextmanager
    def mounted(self, kind, options=""):
        """A file system of the test's own."""
        where = self.directory / kind
        where.mkdir()
        if os.geteuid() != 0:
            self.skipTest("mounting a file system takes root")
        done = subprocess.run(["mount", "-t", kind, "-o", options or "rw", "none", where], capture_output=True)
        if done.returncode != 0:
            self.skipTest(f"{kind} cannot be mounted here: {done.stderr.decode().strip()}")
        try:
            yield where
        finally:
            subprocess.run(["umount", "-l", where], check=True)

    def test_file_systems_without_direct_io(self):
        for kind in ("tmpfs", "ramfs"):
            with self.subTest(kind), self.mounted(kind) as where:
                model = where / "model.gguf"
                shutil.copy(MODEL, model)
                got, err = self.score(model)
                self.assertEqual(got, self.expected())
                self.assertLessEqual(len(err.splitlines()), 1, err)
                got, err = self.score(MODEL, None, where)
                self.assertEqual(got, self.expected())
                self.assertLessEqual(len(err.splitlines()), 1, err)

    def test_a_full_disk_under_the_spill_file(self):
        with self.mounted("tmpfs", "size=256k") as where:
            (where / "filler").write_bytes(b"x" * 100_000)
            done = self.call(*self.arguments(spill=where))
            self.assert_clean(done)
            self.assertEqual(done.returncode, 1)
            self.assertIn("spill", done.err)
            self.assertEqual([p.name for p in where.iterdir()], ["filler"])

    def test_out_of_memory_anywhere(self):
        succeeded = 0
        limits = list(range(8, 400, max(1, 400 // rounds("SLUICE_TEST_OOM_ROUNDS", 10))))
        for limit in limits:
            with self.subTest(limit):
                done = self.call(*self.arguments(),
                                 preexec_fn=lambda n=limit: resource.setrlimit(resource.RLIMIT_AS, (n * MIB, n * MIB)))
                if done.returncode == 127 and "shared" in done.err or done.returncode in (127, -11) and limit < 24:
                    continue  # the loader had no memory; the command never began
                self.assert_clean(done)
                succeeded += done.returncode == 0
        self.assertGreater(succeeded, 0)

    def test_any_allocation_may_fail(self):
        if command.FAILING is None:
            self.skipTest("the command with a failing operator new is not built")
        run = [command.FAILING, *map(str, self.arguments())]

        def attempt(**variables):
            done = subprocess.run(run, capture_output=True, timeout=command.TIMEOUT, env={**os.environ, **variables})
            done.out, done.err = done.stdout.decode(), done.stderr.decode()
            return done

        counted = attempt(SLUICE_TEST_COUNT_NEW="1")
        all_of_them = int(counted.err.split("allocations: ")[1].split()[0])
        self.assertGreater(all_of_them, 1000)
        step = max(1, all_of_them // rounds("SLUICE_TEST_NEW_ROUNDS", 20))
        failed = 0
        for n in range(1 + random.Random(7).randrange(step), all_of_them, step):
            for on in ("0", "1"):
                with self.subTest(n=n, on=on):
                    done = attempt(SLUICE_TEST_FAIL_NEW=str(n), SLUICE_TEST_FAIL_NEW_ON=on)
                    self.assert_clean(done)
                    failed += done.returncode == 1
                    self.assertEqual(list(self.spill.iterdir()), [])
        self.assertGreater(failed, 0)

    def test_signals_at_any_moment(self):
        start = time.monotonic()
        self.score()
        whole = time.monotonic() - start
        numbers = random.Random(1)
        codes = set()
        for _ in range(rounds("SLUICE_TEST_SIGNAL_ROUNDS", 10)):
            which = numbers.choice((signal.SIGINT, signal.SIGTERM))
            with self.running(*self.arguments(), program=command.SLUICE) as process:
                time.sleep(numbers.random() * whole)
                process.send_signal(which)
                out, err = process.communicate(timeout=60)
                codes.add(process.returncode)
                # Before and after its handlers stand the signal itself ends the process.
                self.assertIn(process.returncode, (0, 128 + which, -which), err)
                if process.returncode == 0:
                    self.assertEqual(self.result(out.decode()), self.expected())
            self.assertEqual(list(self.spill.iterdir()), [])
        self.assertGreater(len(codes), 1)

    def test_killed_while_spilling(self):
        start = time.monotonic()
        self.score()
        whole = time.monotonic() - start
        numbers = random.Random(2)
        for _ in range(rounds("SLUICE_TEST_KILL_ROUNDS", 15)):
            with self.running(*self.arguments(), program=command.SLUICE):
                time.sleep(numbers.random() * whole)
            self.assertEqual(list(self.spill.iterdir()), [])
        self.assertEqual(self.score()[0], self.expected())

    def test_a_model_that_shrinks_or_is_replaced_while_it_runs(self):
        other = command.FIXTURES / "llama_bias.gguf"
        numbers = random.Random(3)
        for shrinks in (True, False):
            for _ in range(6):
                model = self.directory / "model.gguf"
                shutil.copy(MODEL, model)
                with self.running(*self.arguments(model), program=command.SLUICE) as process:
                    time.sleep(numbers.random() * 0.1)
                    if shrinks:
                        os.truncate(model, numbers.randrange(model.stat().st_size))
                    else:
                        shutil.copy(other, self.directory / "other")
                        os.replace(self.directory / "other", model)
                    out, err = process.communicate(timeout=60)
                    done = subprocess.CompletedProcess([], process.returncode)
                    done.out, done.err = out.decode(), err.decode()
                    if shrinks:
                        self.assert_clean(done)
                    else:  # by then it may not have been opened
                        self.assertIn(done.returncode, (0, 1), done.err)


def deny_io_uring():
    """A seccomp filter under which io_uring_setup() gives EPERM."""
    libc = ctypes.CDLL(None, use_errno=True)

    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]

    load_number, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    io_uring_setup, eperm, allow = 425, 0x00050001, 0x7FFF0000
    code = (Instruction * 4)((load_number, 0, 0, 0), (equal, 0, 1, io_uring_setup), (give, 0, 0, eperm),
                             (give, 0, 0, allow))
    program = Program(4, code)
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def lock_at_most(limit):
    """RLIMIT_MEMLOCK, and no CAP_IPC_LOCK to go beyond it."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc.capget(header, sets)
    ipc_lock = 1 << 14
    for i in range(3):
        sets[i] &= ~ipc_lock
    libc.prctl(24, 14, 0, 0, 0)  # out of the bounding set, from which execve() would take it again
    libc.capset(header, sets)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))


class LongPrompts(Real):
    def test_a_million_letters_take_linear_time(self):
        model = command.real_model()
        if model is None:
            self.skipTest("SmolLM2 is not at hand: SLUICE_MODEL names it")
        took = []
        for n in (100_000, 1_000_000):
            start = time.monotonic()
            self.out("tokenize", "-m", model, "-f", self.file("a" * n))
            took.append(time.monotonic() - start)
        self.assertLess(took[1], 10 * took[0] + 2)


if __name__ == "__main__":
    unittest.main()
