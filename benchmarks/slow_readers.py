"""Thousands of connections that each read 20 KB/s: `read(server, path, nreaders, pace)`.

They are in one process, `python -m benchmarks.slow_readers`, and hang on a wheel that turns ten
times a second: at each tick those in one slot read once. So each waits for itself, as clients on
thin lines do, and all of them cost their process less than half of a core.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .receivers import allow_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .servers import Server

# What the process prints once all readers are at their pace, and when it has measured.
_SETTLED, _MEASURED = "settled", "measured"
# The core that servers have not.
_CORE = 1
_NBYTES = 2000
_TURNS_PER_SECOND = 10
_NSLOTS = 20
_TICK = 1 / _TURNS_PER_SECOND / _NSLOTS
# Small, so that what is sent stays with the server, which has to wait. Of half as much the window
# is closed so often that the kernel is late to open it, and no reader gets its 20 KB/s.
_RECEIVE_BUFFER = 32 * 1024
# That of Ethernet. The kernel measures the send buffer by it: by the one of loopback, 64 KiB, it
# would be 2.5 MiB from the start, and a server would write only once in 40 seconds.
_SEGMENT = 1460
_TIMEOUT = 10.0
# Descriptors that the process needs for itself.
_OTHERS = 20

_Wheel: TypeAlias = list[list[socket.socket]]


@dataclass(frozen=True)
class Pace:
    """Seconds in which the readers come, in which they settle, and for which they are measured.

    A server fills a send buffer, of half a MB or so, at once, and writes again when a third of it
    is free: some ten seconds later at 20 KB/s. In so many the readers have to come, so that at any
    time there are as many to write to.
    """

    ramp: float
    settle: float
    measured: float


@dataclass(frozen=True)
class Reading:
    """What the readers cost their server.

    Args:
        cpu: CPU seconds per second.
        memory: KiB of resident memory per reader.
        rate: Bytes a second that each has read.
    """

    cpu: float
    memory: float
    rate: float


def read(server: Server, path: str, nreaders: int, pace: Pace) -> Reading:
    """Read a file on many connections, which must be the first that the server has.

    Raises:
        RuntimeError: A reader was refused, or lost.
    """
    # What the first one loads or caches is not the price of the five thousandth.
    _open(server.port, path).close()
    before = server.resident()
    with _reading(server.port, path, nreaders, pace) as output:
        _expect(output, _SETTLED)
        cpu, seconds = server.cpu(), time.perf_counter()
        nbytes = _expect(output, _MEASURED)
        cpu, seconds = server.cpu() - cpu, time.perf_counter() - seconds
        memory = server.resident() - before
    return Reading(cpu / seconds, memory / nreaders, nbytes / seconds / nreaders)


@contextlib.contextmanager
def _reading(port: int, path: str, nreaders: int, pace: Pace) -> Iterator[Iterator[str]]:
    """Run the process of the readers while the context is open, and give the lines it prints."""
    command = [sys.executable, "-m", __name__, str(port), path, str(nreaders)]
    seconds = map(str, (pace.ramp, pace.settle, pace.measured))
    with subprocess.Popen(
        [*command, *seconds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.stdin.close()


def _expect(output: Iterator[str], word: str) -> int:
    """Return the number after a word that the process has to print next."""
    name, _, number = next(output, "").partition(" ")
    if name != word:
        raise RuntimeError("a slow reader was refused or lost")
    return int(number)


def _open(port: int, path: str) -> socket.socket:
    """Return a socket on which the file has begun to come."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
    sock.settimeout(_TIMEOUT)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    answer = sock.recv(_NBYTES)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"refused: {answer[:80]!r}")
    sock.setblocking(False)
    return sock


def _slots(wheel: _Wheel, seconds: float) -> Iterator[list[socket.socket]]:
    """Yield the slots in turn, each at its time, for some whole turns."""
    start = time.monotonic()
    for tick in range(math.ceil(seconds * _TURNS_PER_SECOND) * _NSLOTS):
        time.sleep(max(0.0, start + tick * _TICK - time.monotonic()))  # it is the pace
        yield wheel[tick % _NSLOTS]


def _read(slot: list[socket.socket]) -> int:
    """Read once on each, and return how many bytes came.

    Raises:
        EOFError: The server has closed one, long before the end of the file.
    """
    nbytes = 0
    for sock in slot:
        # Where nothing has come, its server is late.
        with contextlib.suppress(BlockingIOError):
            received = len(sock.recv(_NBYTES))
            if not received:
                raise EOFError(f"{sock.getsockname()} was closed")
            nbytes += received
    return nbytes


def _ramp(wheel: _Wheel, port: int, path: str, nreaders: int, seconds: float) -> None:
    """Open the readers as evenly as the ticks allow, while those that are open read."""
    ticks = math.ceil(seconds * _TURNS_PER_SECOND) * _NSLOTS
    for tick, slot in enumerate(_slots(wheel, seconds)):
        ncoming = (tick + 1) * nreaders // ticks - tick * nreaders // ticks
        slot += [_open(port, path) for _ in range(ncoming)]
        _read(slot)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("nreaders", type=int)
    for name in ("ramp", "settle", "measured"):
        parser.add_argument(name, type=float)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {_CORE})
    allow_files(arguments.nreaders + _OTHERS)
    wheel: _Wheel = [[] for _ in range(_NSLOTS)]
    _ramp(wheel, arguments.port, arguments.path, arguments.nreaders, arguments.ramp)
    for slot in _slots(wheel, arguments.settle):
        _read(slot)
    print(_SETTLED, 0, flush=True)
    nbytes = sum(_read(slot) for slot in _slots(wheel, arguments.measured))
    print(_MEASURED, nbytes, flush=True)
    # Its memory is measured meanwhile.
    sys.stdin.read()


if __name__ == "__main__":
    _main()
