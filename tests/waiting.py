"""Waiting for what another thread or process does, of which nothing tells."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Seconds; more than anything here takes on a busy machine.
PATIENCE = 10.0


def until(condition: Callable[[], T], seconds: float = PATIENCE, what: str = "") -> T:
    """Wait until a condition is true, and return what it is then."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        time.sleep(0.005)  # asked again and again, as nothing tells
    return found
