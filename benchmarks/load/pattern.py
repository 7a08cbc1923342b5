"""Bytes of which a receiver knows what has to be at each place, and what it tells the sender.

Both ends make the same ones from a seed. Their period is a prime number, so that a block which is
sent twice, left out or at another place does not fit.
"""

from __future__ import annotations

import random
import struct
from enum import IntEnum
from typing import NamedTuple

PERIOD = 1_000_003
_SEED = 20
_PATTERN = random.Random(_SEED).randbytes(PERIOD)
# Twice, so that any piece up to a period is one slice.
_TWICE = memoryview(_PATTERN + _PATTERN)


class Manner(IntEnum):
    """What a receiver does."""

    DRAIN = 0  # reads as fast as it can
    SIP = 1  # reads little, and rests
    PAUSE = 2  # reads nothing for a time, and then all
    RESET = 3  # ends the connection hard after some bytes


class Order(NamedTuple):
    """What a sender says first.

    Args:
        start: Where in the pattern the bytes begin.
        nbytes: How many are to come; less may.
        manner: One of `Manner`.
        amount: Milliseconds of the pause, or bytes to read before the end.
    """

    start: int
    nbytes: int
    manner: int
    amount: int = 0

    def pack(self) -> bytes:
        return _ORDER.pack(*self)


class Verdict(NamedTuple):
    """What a receiver says in the end: how many bytes came, and whether all were right."""

    nbytes: int
    is_right: bool

    def pack(self) -> bytes:
        return _VERDICT.pack(*self)


_ORDER = struct.Struct("!QQBQ")
_VERDICT = struct.Struct("!Q?")
ORDER_NBYTES = _ORDER.size
VERDICT_NBYTES = _VERDICT.size


def order_of(data: bytes) -> Order:
    return Order(*_ORDER.unpack(data))


def verdict_of(data: bytes) -> Verdict:
    return Verdict(*_VERDICT.unpack(data))


def pattern(nbytes: int) -> bytes:
    """Return so many bytes from the beginning of the pattern."""
    whole, rest = divmod(nbytes, PERIOD)
    return _PATTERN * whole + _PATTERN[:rest]


def fits(data: memoryview, at: int) -> bool:
    """Tell whether a piece, of a period at most, is what has to be there."""
    begin = at % PERIOD
    return data == _TWICE[begin : begin + len(data)]
