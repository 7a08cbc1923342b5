"""What wrk measures of a server: requests a second, bytes a second, requests beside downloads."""

from __future__ import annotations

import http.client
import math
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import wrk
from .harness import CPU, RATE, Measure, Sample

if TYPE_CHECKING:
    import subprocess

    from .servers import Server

REQUESTS = Measure("requests/s", more_is_better=True, digits=0)
CPU_EACH = Measure("CPU us/request", digits=1)
P99 = Measure("p99, ms")
# Seconds until downloads are at full speed; and how much longer they may take than what is timed
# beside them, which interrupts them.
_UNTIL_FULL_SPEED = 0.5
_SPARE = 2
_BETWEEN = 0.005


def check(server: Server, path: Path) -> None:
    """Get a file once: an answer that is fast and wrong is no measure.

    Raises:
        RuntimeError: What came is not the file.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", f"/{path.name}")
        response = connection.getresponse()
        if response.status != 200 or response.read() != path.read_bytes():
            raise RuntimeError(f"{path.name} came wrong, with status {response.status}")
    finally:
        connection.close()


def requests(server: Server, path: str, connections: int, seconds: float) -> Sample:
    """Measure requests a second, and the CPU time of each."""
    before = server.cpu()
    load = _load(server, path, connections, seconds)
    cpu = server.cpu() - before
    return {REQUESTS: load.rate, CPU_EACH: cpu / load.requests * 1e6}


def transfer(server: Server, path: str, connections: int, seconds: float) -> Sample:
    """Measure bytes a second, and the CPU time of them."""
    before = server.cpu()
    load = _load(server, path, connections, seconds)
    cpu = server.cpu() - before
    return {RATE: load.nbytes / load.seconds / 1e9, CPU: cpu / load.nbytes * 1e9}


def latency(server: Server, path: str, download: str, downloads: int, seconds: float) -> Sample:
    """Measure the slowest requests on one connection, while others download at full speed."""
    others = wrk.start(server.url(download), downloads, math.ceil(seconds) + _SPARE)
    _wait_until_begun(others)
    time.sleep(min(_UNTIL_FULL_SPEED, seconds))  # there is nothing that tells
    load = _load(server, path, 1, seconds, is_first=True)
    transferred = _interrupted(others)
    return {P99: load.p99, RATE: transferred.nbytes / transferred.seconds / 1e9}


def _load(
    server: Server, path: str, connections: int, seconds: float, *, is_first: bool = False
) -> wrk.Load:
    process = wrk.start(server.url(path), connections, math.ceil(seconds), is_first=is_first)
    if seconds >= 1:
        return wrk.counted(process)
    _wait_until_begun(process)
    time.sleep(seconds)  # for which it takes whole ones only
    return _interrupted(process)


def _interrupted(process: subprocess.Popen[str]) -> wrk.Load:
    """Return what a wrk has counted until now: it prints that on SIGINT too."""
    process.send_signal(signal.SIGINT)
    return wrk.counted(process)


def _wait_until_begun(process: subprocess.Popen[str]) -> None:
    """Wait until a wrk loads its server, which is when it catches SIGINT."""
    status = Path(f"/proc/{process.pid}/status")
    bit = 1 << (signal.SIGINT - 1)
    while process.poll() is None:
        lines = status.read_text().splitlines()
        if any(line.startswith("SigCgt") and int(line.split()[1], 16) & bit for line in lines):
            return
        time.sleep(_BETWEEN)  # another process: nothing tells
