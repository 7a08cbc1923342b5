"""The limits of one call: its total time, the longest stall, the lowest rate.

A peer that reads nothing trips `stall`; one that reads a byte now and then trips `min_rate`.
Neither costs a timer per chunk: a check says itself when the next one can be due at the earliest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._tally import Tally

# A sender just above its min_rate would be looked at after every chunk; 50 looks a second of
# about 2 us each keep that below 0.01 % of a core, and let no call run on for longer than this.
# Without a grace it is the time that a call has for its first byte.
SHORTEST_LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Limits:
    """The pace that a peer has to keep.

    Args:
        stall: The most seconds without a byte accepted by the kernel. None: no limit.
        min_rate: The least bytes per second, averaged over the whole call. None: no limit.
        grace: Seconds from the start of the call in which `min_rate` is not asked for; never less
            than 0.02.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is not positive (`grace` may be 0), or not a number of its kind.

    A call that breaks a limit ends with `TimeoutError`, whose message names the limit; close the
    connection then, as its peer is too slow to be served.
    """

    stall: float | None = None
    min_rate: float | None = None
    grace: float = 5.0

    def __post_init__(self) -> None:
        for name, value in (("stall", self.stall), ("min_rate", self.min_rate)):
            if value is not None and not check_number(name, value) > 0:
                raise ValueError(f"{name} must be positive or None (got {value!r})")
        if not check_number("grace", self.grace) >= 0:
            raise ValueError(f"grace must not be negative (got {self.grace!r})")


def check_number(name: str, value: float) -> float:
    """Return a real number as it is; NaN passes, and every comparison then refuses it."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number (got {value!r})")
    return value


# What servers of files ask of clients who set nothing.
DEFAULT_LIMITS: Final = Limits(stall=60.0)


class Deadline:
    """The end of several calls that have one total time together."""

    __slots__ = ("_began", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        """Begin now. None: there is no end. 0: each call tries once."""
        self._seconds = seconds
        self._began = monotonic()

    def left(self) -> float | None:
        """Return the timeout of the next call.

        Raises:
            TimeoutError: The time has passed.
        """
        if not self._seconds:
            return self._seconds
        left = self._seconds - (monotonic() - self._began)
        if left <= 0:
            raise timed_out(self._seconds)
        return left


class Pace:
    """Watches one call: too slow already, or when to look again."""

    __slots__ = ("_limits", "_moved", "_started", "_tally")

    def __init__(self, limits: Limits, tally: Tally) -> None:
        self._limits = limits
        self._started = self._moved = monotonic()
        self._tally = tally
        tally.on_move = self._move

    def _move(self) -> None:
        self._moved = monotonic()

    def look(self) -> float:
        """Return the seconds until a limit can be broken at the earliest (inf: never).

        Raises:
            TimeoutError: A limit is broken; the message says which.
        """
        now = monotonic()
        left = math.inf
        stall, min_rate, tally = self._limits.stall, self._limits.min_rate, self._tally
        if stall is not None:
            left = self._moved + stall - now
            if left <= 0:
                raise TimeoutError(f"stalled: no byte accepted for {stall:g} s")
        if min_rate is not None:
            elapsed = now - self._started
            moved = tally.sent + tally.drained
            due = max(self._limits.grace, SHORTEST_LOOK, moved / min_rate)
            if elapsed > due:
                rate = moved / elapsed
                raise TimeoutError(f"too slow: {rate:.0f} bytes/s, min_rate is {min_rate:g}")
            left = min(left, due - elapsed)
        return max(left, SHORTEST_LOOK)


def timed_out(seconds: float) -> TimeoutError:
    """Return the error of a call whose total time has passed."""
    return TimeoutError(f"timed out: not all was sent within {seconds:g} s")
