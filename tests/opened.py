"""What this process has open."""

from __future__ import annotations

import os
from contextlib import suppress


def opened() -> dict[str, str]:
    """Return what each descriptor is of, by its number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        # That of the listing itself is closed by now.
        with suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def opened_by_tests() -> set[tuple[str, str]]:
    """Return the same of sockets and files: a loop may open devices and pipes for itself."""
    return {
        (number, target)
        for number, target in opened().items()
        if target.startswith("socket:") or "pytest-of" in target
    }
