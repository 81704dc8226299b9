"""sluice chat. The Engine's answers tell how many tokens the session held, how many were appended, and their
last twelve; its template is u:TEXT<end> a:TEXT<end> with <end> as one token."""
import os
import signal
import subprocess

import command


class Chat(command.Case):
    def chat(self, *lines, model="plain", flags=(), code=0):
        done = self.call("chat", "-m", model, *flags, stdin="".join(line + "\n" for line in lines))
        self.assertEqual(done.returncode, code, done.err)
        return done.out.splitlines(), done.err

    def test_a_line_is_a_turn_and_history_is_kept(self):
        out, err = self.chat("Hello", "Again", model="counts")
        # u:Hello<end>a: are 10 tokens, the answer 6; then only <end>u:Again<end>a: is new.
        self.assertEqual(out, ["[0+10]", "[16+11]"])
        self.assertEqual(err, "")

    def test_what_was_held_is_truncated_to_what_still_holds(self):
        # The answer's <end> is text when it was generated and one token when it is rendered.
        out, _ = self.chat("1", "2")
        held = 6 + out[0].index("<end>")
        self.assertEqual(out[1].split()[0], f"[{held}+{len(out[0]) - 4 + 6 + 7 - held}")

    def test_system_and_prefix(self):
        self.assertEqual(self.chat("x", flags=["--system", "be"])[0], ["[0+11 s:be<end>u:x<end>a:]"])
        self.assertEqual(self.chat("x", model="bos")[0], ["[0+7 <s>u:x<end>a:]"])

    def test_commands(self):
        out, _ = self.chat("Hello", "/reset", "Hello", "/exit", "never")
        self.assertEqual(out, ["[0+10 u:Hello<end>a:]"] * 2)
        self.assertEqual(self.chat("", "   ", "/quit", "x")[0], [])
        self.assertIn("/reset", self.chat("/help")[1])
        self.assertEqual(self.chat("/usr/bin is what?")[0], ["[0+22  is what?<end>a:]"])

    def test_a_last_line_needs_no_newline(self):
        self.assertEqual(self.call("chat", "-m", "plain", stdin="x").out, "[0+6 u:x<end>a:]\n")

    def test_a_message_that_does_not_fit_is_refused_and_forgotten(self):
        out, err = self.chat("y" * 60, "x", flags=["-c", 60], code=1)
        self.assertEqual(out, ["[0+6 u:x<end>a:]"])
        self.assertIn("sluice: with this message the conversation has 65 tokens and the context holds 60", err)
        self.assertIn("/reset", err)

    def test_an_answer_that_fills_the_context_says_so(self):
        out, err = self.chat("x", "y", "/reset", "x", flags=["-c", 10], code=1)
        self.assertEqual(out, ["[0+6", "[0+6"])
        self.assertEqual(err.count("sluice: warning: the context of 10 tokens is full"), 2)
        self.assertEqual(err.count("sluice: with this message"), 1)

    def test_length(self):
        out, err = self.chat("x", "y", flags=["-n", 3])
        self.assertEqual(out, ["[0+", "[9+"])
        self.assertIn("3 tokens", err)

    def test_errors_end_it(self):
        self.assertIn("sluice run", self.fails("chat", "-m", "no-template"))
        self.assertEqual(self.fails("chat", "-m", "failing", stdin="x\ny\n"), "fake: disk\\non fire")
        self.assertIn("1 MiB", self.fails("chat", "-m", "plain", stdin="y" * (2 << 20)))

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        ours, theirs = self.terminal()
        with self.running("chat", "-m", "slow", stdin=theirs) as process:
            for _ in range(2):
                os.write(ours, b"go\n")
                self.wait_for(process.stdout, "xxx")
                process.send_signal(signal.SIGINT)
                self.wait_for(process.stdout, "\n")
            os.write(ours, b"/exit\n")
            _, err = process.communicate(timeout=command.TIMEOUT)
            self.assertEqual(process.returncode, 0, err)

    def test_ctrl_c_at_the_prompt_twice_and_ctrl_d_leave(self):
        ours, theirs = self.terminal()
        with self.running("chat", "-m", "plain", stdin=theirs) as process:
            self.wait_for(process.stderr, "> ")
            process.send_signal(signal.SIGINT)
            self.wait_for(process.stderr, "Ctrl-C again")
            process.send_signal(signal.SIGINT)
            process.wait(timeout=command.TIMEOUT)
            self.assertEqual(process.returncode, 0)
        with self.running("chat", "-m", "plain", stdin=theirs) as process:
            self.wait_for(process.stderr, "> ")
            os.write(ours, b"\x04")
            process.wait(timeout=command.TIMEOUT)
            self.assertEqual(process.returncode, 0)

    def test_sigterm_leaves_from_anywhere(self):
        with self.running("chat", "-m", "slow", stdin=subprocess.PIPE) as process:
            process.stdin.write(b"go\nmore\n")
            process.stdin.flush()
            self.wait_for(process.stdout, "xxx")
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=command.TIMEOUT)
            self.assertEqual(process.returncode, 143)
