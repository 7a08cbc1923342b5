"""Waiting for what another thread or process does, of which nothing tells."""

from __future__ import annotations

import time
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import Any

T = TypeVar("T")

# A busy machine rests now and then, and is late.
ATTEMPTS = 6
# Seconds; more than anything here takes on a busy machine.
PATIENCE = 10.0


def until(condition: Callable[[], T], seconds: float = PATIENCE, what: str = "") -> T:
    """Wait until a condition is true, and return what it is then."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        time.sleep(0.005)  # asked again and again, as nothing tells
    return found


async def rests() -> bool:
    """Tell whether the loop leaves the processor alone; a writer left behind never does."""
    # A collection of garbage may fall into one of them.
    for _ in range(4):
        begun = time.process_time()
        await anyio.sleep(0.04)
        if time.process_time() - begun < 0.02:
            return True
    return False


def in_time(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Have a test that hangs fail, where pytest-timeout would end the whole run."""

    @wraps(test)
    async def run(**arguments: Any) -> None:
        with anyio.fail_after(2 * PATIENCE):
            await test(**arguments)

    return run


class Pace:
    """The longest time between two moments that were noted."""

    def __init__(self) -> None:
        self._noted = time.monotonic()
        self.longest = 0.0

    def note(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._noted)
        self._noted = now


def paces(seconds: float) -> Iterator[Pace]:
    """Give a pace to note what has to happen so often; again, if the machine rested for longer."""
    for _ in range(ATTEMPTS):
        pace = Pace()
        yield pace
        if pace.longest < seconds:
            return
    raise AssertionError(f"rests of {pace.longest:.3f} s and the like each time")
