"""Loads an HTTP server with wrk (https://github.com/wg/wrk): `counted(start(url, ...))`."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .harness import Skipped

_SCRIPT = Path(__file__).with_suffix(".lua")
# Loaders run on this core, the server has the other to itself.
_CORE = 1


@dataclass(frozen=True)
class Load:
    """What one run of wrk counted."""

    requests: int
    seconds: float
    nbytes: int
    p99: float  # in ms

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def check() -> None:
    """Raise `Skipped` where servers cannot be loaded."""
    if shutil.which("wrk") is None:
        raise Skipped("wrk is not installed (Debian's package wrk)")
    if len(os.sched_getaffinity(0)) < 2:
        raise Skipped("a server and its load need two cores")


def start(
    url: str, connections: int, seconds: float, *, is_first: bool = False
) -> subprocess.Popen[str]:
    """Start a wrk; `counted` waits for it.

    Args:
        is_first: It gets the core before other loaders, so that it times the server and not them.
            Only root may ask for that.
    """
    command = ["taskset", "-c", str(_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
    if is_first and os.geteuid() == 0:
        command = ["chrt", "--fifo", "1", *command]
    return subprocess.Popen(
        [*command, "--timeout", "10s", "-s", str(_SCRIPT), url],
        stdout=subprocess.PIPE,
        text=True,
    )


def counted(process: subprocess.Popen[str]) -> Load:
    """Return what a wrk counted, once it has ended.

    Raises:
        RuntimeError: It failed, or a request did.
    """
    output, _ = process.communicate()
    _, found, numbers = output.partition("counted\n")
    if process.returncode or not found:
        raise RuntimeError(f"wrk failed: {output}")
    requests, duration, nbytes, errors, p99 = (float(line) for line in numbers.split())
    if errors:
        raise RuntimeError(f"{errors:.0f} requests failed: {output}")
    return Load(int(requests), duration / 1e6, int(nbytes), p99 / 1000)
