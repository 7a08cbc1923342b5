"""A pytest plugin that ends what hangs, and is fair to what was stopped.

Time is counted in ticks of a thread, not read from a clock: a process that is stopped for minutes,
as machines under load do to what is niced, does not tick. It is not taken for one that hangs, and
a test that failed in such a pause has another try.
"""

from __future__ import annotations

import os
import threading
from time import monotonic, process_time
from typing import TYPE_CHECKING

from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    import pytest

TICK = 0.1
# Twice of what the longest test takes, beside another run.
MOST_TICKS = 150
# No test waits for a fourth of this with nothing to do: most mutants that hang are seen by it.
MOST_IDLE_TICKS = 30
# Seconds of CPU in a tick, of which the watchdog itself takes a tenth.
IDLE = 0.001
# What a busy process may be late by; one that was later was stopped.
LATE = 1.0
# What mutmut takes for "timeout".
HANGS = 36


class Watchdog:
    def __init__(self) -> None:
        self._ticks = 0
        self._idle_ticks = 0
        self._last = monotonic()
        self._was_stopped = False
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        used = process_time()
        while not self._over.wait(TICK):
            self._look()
            before, used = used, process_time()
            self._ticks += 1
            self._idle_ticks = self._idle_ticks + 1 if used - before < IDLE else 0
            is_over = self._ticks > MOST_TICKS or self._idle_ticks > MOST_IDLE_TICKS
            # Not in the runs before the first mutant, of which one that is late would end them all.
            if is_over and "__mutmut_" in os.environ.get("MUTANT_UNDER_TEST", ""):
                os._exit(HANGS)

    def _look(self) -> None:
        now = monotonic()
        self._was_stopped |= now - self._last > TICK + LATE
        self._last = now

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        tries = 1
        while tries:
            self._ticks = 0
            self._was_stopped = False
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            self._look()
            is_failed = any(report.failed for report in reports)
            # Two more, as what a failed one leaves open may be found, and fail it, in the next.
            tries = 0 if not is_failed else 2 if self._was_stopped else tries - 1
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(self) -> None:
        self._over.set()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watchdog())
