"""Run one suite of CPython's own cases over asend: `python tests/cpython/run.py SUITE RUNTIME`.

Exit status 0 means that at least one case ran, none failed, each that passed called asend, and the
table of exclusions names only cases that exist.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import unittest

import doubles
from suites import SUITES


class CountingResult(unittest.TextTestResult):
    """Fails what passes without a call of asend."""

    passed = 0
    _calls_before = 0

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._calls_before = doubles.calls_made()

    def addSuccess(self, test: unittest.TestCase) -> None:
        if doubles.calls_made() == self._calls_before:
            error = AssertionError("passed without calling asend: exclude it, with the reason")
            self.addFailure(test, (AssertionError, error, None))
            return
        super().addSuccess(test)
        self.passed += 1


def select(
    tests: list[unittest.TestCase], reasons: dict[str, str], only: str | None
) -> unittest.TestSuite:
    """Return the cases to run, and print the others with their reasons.

    Raises:
        SystemExit: A case that does not exist is excluded.
    """
    chosen = unittest.TestSuite()
    unused = set(reasons)
    for test in tests:
        name = test.id().rpartition(".")[2]
        qualified = f"{type(test).__name__}.{name}"
        excluded = {name, qualified} & reasons.keys()
        unused -= excluded
        if excluded:
            print(f"excluded: {qualified}: {reasons[excluded.pop()]}")
        elif only is None or only in (name, qualified):
            chosen.addTest(test)
    if unused:
        raise SystemExit(f"excluded, but there is no such case: {', '.join(sorted(unused))}")
    return chosen


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("runtime")
    parser.add_argument("--only", metavar="CASE", help="run the cases of this name")
    parser.add_argument("--exclude", metavar="CASE", help="leave out one case more")
    parser.add_argument("--broken", choices=doubles.BROKEN, help="to see the suite fail")
    parser.add_argument("--no-shim", action="store_true", help="to see the suite fail")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    if options.runtime not in suite.runtimes:
        parser.error(f"{options.suite} runs on {', '.join(suite.runtimes)}")
    if options.runtime == "asyncio-eager" and not hasattr(asyncio, "eager_task_factory"):
        parser.error("eager tasks came with Python 3.12")

    reasons = suite.reasons(options.runtime)
    if options.exclude is not None:
        reasons |= {options.exclude: "said the command line"}
    chosen = select(list(suite.load(options.runtime)), reasons, options.only)
    if options.broken is not None:
        doubles.break_calls(options.broken)
    if not options.no_shim:
        importlib.import_module(suite.shim).install(options.runtime)

    runner = unittest.TextTestRunner(sys.stdout, resultclass=CountingResult, verbosity=2)
    result = runner.run(chosen)
    assert isinstance(result, CountingResult)
    print(f"{result.passed} cases passed over asend, {len(result.skipped)} skipped")
    return 0 if result.wasSuccessful() and result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
