"""Calls in all circumstances, thousands of steps of them, against a model of what must come."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
import uvloop
from calls import WORDS
from conftest import eager_loop
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from links import GROUPS
from machine import STEPS, Machine
from runtimes import OnAsyncio, OnTrio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimes import Runtime

RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "asyncio": partial(OnAsyncio, asyncio.SelectorEventLoop),
    "uvloop": partial(OnAsyncio, uvloop.new_event_loop),
    "trio": OnTrio,
}
if sys.version_info >= (3, 12):
    RUNTIMES["asyncio-eager"] = partial(OnAsyncio, eager_loop)

# How many runs of up to 50 steps a test makes at least, for all kinds of connections together; more
# of them, where something has not happened that should.
RUNS = 48
STEPS_AT_LEAST = 1000
MOST_ROUNDS = 5
# How long each test takes other steps each time; without it, it takes the same in a few seconds.
MINUTES = float(os.environ.get("ASEND_MODEL_MINUTES", "0"))

# What has to happen: every step, and every way in which a call can end.
ANYWHERE = STEPS | {
    "aborted under a call",
    "closed under a call",
    "end BusyResourceError",
    "end Raised",
    "end SendfileNotAvailableError",
    "end cancelled",
    "end return",
    *(f"end too late: {limit}" for limit in WORDS),
    "gone under a call",
    "reset under a call",
}
ON_SOCKETS = {"step sendmsg"}
ON_PLAIN = {
    "end BrokenPipeError",
    "file closed",
    "file cut",
    "file grown",
    "step peer_ends",
    "step read_exactly",
}
ON_TRANSPORTS = {"end ConnectionAbortedError", "step write"}


def expected(runtime: str, group: str) -> set[str]:
    found = ANYWHERE - ON_SOCKETS - ON_PLAIN - ON_TRANSPORTS
    if group == "sockets":
        found |= ON_SOCKETS
    elif runtime != "trio":
        found |= ON_TRANSPORTS
    return found if group == "tls" else found | ON_PLAIN


def steps(seen: Counter[str]) -> int:
    return sum(seen[name] for name in STEPS)


@pytest.mark.timeout(900 + MINUTES * 60)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_peer_has_what_calls_say(runtime: str, group: str, tmp_path: Path) -> None:
    kinds = GROUPS[group][runtime == "trio"]
    seen: Counter[str] = Counter()
    wanted = expected(runtime, group)
    chosen = settings(
        max_examples=RUNS // len(kinds) + 1,
        stateful_step_count=50,
        derandomize=not MINUTES,
        # What takes its time here is the machine.
        suppress_health_check=list(HealthCheck),
    )
    fixed = {"new_runtime": staticmethod(RUNTIMES[runtime]), "folder": tmp_path, "seen": seen}
    end = time.monotonic() + MINUTES * 60
    for number in count():
        for kind in kinds:
            # Where steps are not random, they follow from this name.
            name = f"On_{runtime}_{kind}_{number}"
            machine = type(name, (Machine,), {"kind": kind, **fixed})
            run_state_machine_as_test(machine, settings=chosen)
        is_enough = steps(seen) >= STEPS_AT_LEAST and wanted <= seen.keys()
        if time.monotonic() >= end and (is_enough or number >= MOST_ROUNDS):
            break

    print(f"{runtime}, {group}: {steps(seen)} steps, {number + 1} rounds")
    print(*(f"{n:7} {what}" for what, n in sorted(seen.items())), sep="\n")
    assert not wanted - seen.keys()
    assert steps(seen) >= STEPS_AT_LEAST
