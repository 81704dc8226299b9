#!/usr/bin/env python3
"""Sums the results of ctest runs: count_tests.py FILE… (JUnit files of ctest --output-junit).

Prints a line for each ctest test and, last, "N passed, N failed". A doctest program counts with its test
cases, anything else as one. A program that failed counts as one failure at least, also where it died before
its summary or its cases passed and something after them did not. A FILE that is absent or cannot be read
counts as one failure. The exit status is 1 if anything failed or nothing passed.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree

SUMMARY = re.compile(r"\[doctest\] test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed")


def count_test(case):
    """(passed, failed) of one ctest test."""
    passed = failed = 0
    output = case.findtext("system-out") or ""
    for match in SUMMARY.finditer(re.sub(r"\x1b\[[0-9;]*m", "", output)):
        passed += int(match.group(2))
        failed += int(match.group(3))
    ok = case.get("status") == "run"
    if not ok:
        return passed, max(failed, 1)
    return (passed, failed) if passed or failed else (1, 0)


def count_file(path):
    try:
        cases = ElementTree.parse(path).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError) as error:
        print(f"{path}: no results: {error}")
        return 0, 1
    passed = failed = 0
    for case in cases:
        if case.get("status") == "disabled":
            continue
        p, f = count_test(case)
        print(f"  {case.get('name')}: {p} passed, {f} failed")
        passed, failed = passed + p, failed + f
    return passed, failed


def main():
    totals = [count_file(path) for path in sys.argv[1:]]
    passed, failed = (sum(column) for column in zip(*totals)) if totals else (0, 0)
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if passed and not failed else 1)


if __name__ == "__main__":
    main()
