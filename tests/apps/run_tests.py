#!/usr/bin/env python3
"""Tests of the `sluice` command: run_tests.py --fake PROGRAM [--sluice PROGRAM] [--failing PROGRAM] [--filter PART-OF-A-NAME]
[--sanitized].

The last line has the form of doctest, which scripts/count_tests.py sums."""
import argparse
import pathlib
import sys
import unittest

import command


class Result(unittest.TextTestResult):
    """unittest counts a test that has failing subtests as many times as it has them; once is right."""

    def failed(self):
        whose = {(getattr(test, "test_case", test)).id() for test, _ in self.failures + self.errors}
        return len(whose) + len(self.unexpectedSuccesses)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fake", required=True)
    parser.add_argument("--sluice")
    parser.add_argument("--failing")
    parser.add_argument("--filter", default="*")
    parser.add_argument("--sanitized", action="store_true", help="the programs carry sanitizers")
    arguments = parser.parse_args()
    command.FAKE = str(pathlib.Path(arguments.fake).resolve())
    command.SLUICE = str(pathlib.Path(arguments.sluice).resolve()) if arguments.sluice else None
    command.SANITIZED = arguments.sanitized
    command.FAILING = str(pathlib.Path(arguments.failing).resolve()) if arguments.failing else None

    loader = unittest.TestLoader()
    loader.testNamePatterns = [arguments.filter if "*" in arguments.filter else f"*{arguments.filter}*"]
    suite = loader.discover(str(pathlib.Path(__file__).resolve().parent), pattern="*_test.py")
    result = unittest.TextTestRunner(resultclass=Result, verbosity=2, stream=sys.stdout).run(suite)
    failed, skipped = result.failed(), len(result.skipped)
    passed = result.testsRun - failed - skipped
    print(f"[doctest] test cases: {result.testsRun} | {passed} passed | {failed} failed | {skipped} skipped")
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
