"""Runs the command under test. Set by run_tests.py: FAKE, the command with the Engine of fake_engine.cc, and
SLUICE, the real one or None, FAILING, that with an operator new which fails where it is told to, or None."""
import contextlib
import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import tempfile
import time
import unittest

FAKE = None
SLUICE = None
SANITIZED = False
FAILING = None
FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "engine" / "fixtures"
TIMEOUT = 120


def real_model():
    """SmolLM2, or None."""
    cached = pathlib.Path.home() / ".cache/sluice/SmolLM2-135M-Instruct.Q4_1.gguf"
    path = pathlib.Path(os.environ.get("SLUICE_MODEL") or cached)
    return path if path.is_file() else None


class Case(unittest.TestCase):
    """Each test has a directory of its own and a terminal-less standard input."""

    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def file(self, text, name="text"):
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def call(self, *arguments, stdin="", program=None, **kwargs):
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        done = subprocess.run([program or FAKE, *map(str, arguments)], input=data, capture_output=True,
                              timeout=TIMEOUT, **kwargs)
        done.out, done.err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return done

    def out(self, *arguments, **kwargs):
        """Standard output of a call that succeeds."""
        done = self.call(*arguments, **kwargs)
        self.assertEqual(done.returncode, 0, done.err)
        return done.out

    def json(self, *arguments, **kwargs):
        return json.loads(self.out(*arguments, **kwargs))

    def fails(self, *arguments, code=1, **kwargs):
        """The one line that a call which fails prints, without its beginning."""
        done = self.call(*arguments, **kwargs)
        self.assertEqual(done.returncode, code, done.err)
        lines = [line for line in done.err.splitlines() if line.startswith("sluice: ")]
        self.assertEqual(len(lines), 1, done.err)
        return lines[0].removeprefix("sluice: ")

    def usage(self, *arguments, **kwargs):
        done = self.call(*arguments, **kwargs)
        self.assertEqual(done.out, "")
        self.assertEqual(len(done.err.splitlines()), 1, done.err)
        return self.fails(*arguments, code=2, **kwargs)

    @contextlib.contextmanager
    def running(self, *arguments, program=None, **kwargs):
        """A process that is killed in the end; SIGINT is as a terminal's child has it."""
        process = subprocess.Popen([program or FAKE, *map(str, arguments)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kwargs)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def wait_for(self, stream, text):
        """Reads a pipe until `text` has come; all that has come by then."""
        seen, give_up = b"", time.monotonic() + TIMEOUT
        while text.encode() not in seen:
            left = max(0, give_up - time.monotonic())
            self.assertTrue(select.select([stream], [], [], left)[0], f"{text!r} did not come in time, only {seen!r}")
            piece = os.read(stream if isinstance(stream, int) else stream.fileno(), 4096)
            self.assertTrue(piece, f"{text!r} never came, only {seen!r}")
            seen += piece
        return seen.decode(errors="replace")

    def drain(self, stream):
        """Reads what a pipe holds now."""
        while select.select([stream], [], [], 0)[0] and os.read(stream.fileno(), 4096):
            pass

    def terminal(self):
        """A terminal's two ends: the user's and the program's."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        self.addCleanup(os.close, theirs)
        return ours, theirs

    def wait_for_handler(self, process):
        """Until the process catches SIGINT."""
        bit = 1 << (signal.SIGINT - 1)
        status = pathlib.Path(f"/proc/{process.pid}/status")
        give_up = time.monotonic() + TIMEOUT
        while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) & bit:
            self.assertLess(time.monotonic(), give_up)
            time.sleep(0.01)
        time.sleep(0.05)
