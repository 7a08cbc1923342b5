"""Thousands of connections that each read 20 KB/s: `with reading(server, path, crowd, pace)`.

They are in one process, `python -m benchmarks.slow_readers`, and hang on a wheel that turns ten
times a second: at each tick those in one slot read once. So each waits for itself, as clients on
thin lines do, and all of them cost their process less than half of a core. Others can be there
that read the beginning, and nothing more.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import math
import os
import select
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
_LOST = "a slow reader was refused or lost"
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

_Slot: TypeAlias = list[socket.socket]
_Wheel: TypeAlias = list[_Slot]


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
class Crowd:
    """How many readers there are, how many that stall, and how much one reads at a time."""

    readers: int
    stalled: int = 0
    nbytes: int = _NBYTES

    @property
    def all(self) -> int:
        return self.readers + self.stalled


@dataclass(frozen=True)
class Reading:
    """What the readers cost their server.

    Args:
        cpu: CPU seconds per second.
        memory: KiB of resident memory per reader.
        rate: Bytes a second that each has read.
        began: When they had settled, by `time.monotonic`.
        ended: When this had been measured.
    """

    cpu: float
    memory: float
    rate: float
    began: float
    ended: float


@contextlib.contextmanager
def reading(server: Server, path: str, crowd: Crowd, pace: Pace) -> Iterator[Reading]:
    """Read a file on many connections, which must be the first that the server has.

    They are read on while the context is open.

    Raises:
        RuntimeError: A reader was refused, or lost.
    """
    # What the first one loads or caches is not the price of the five thousandth.
    _open(server.port, path).close()
    before = server.resident()
    with _running(server.port, path, crowd, pace) as output:
        _expect(output, _SETTLED)
        cpu, began = server.cpu(), time.monotonic()
        nbytes = _expect(output, _MEASURED)
        cpu, ended = server.cpu() - cpu, time.monotonic()
        memory = server.resident() - before
        seconds = ended - began
        yield Reading(
            cpu / seconds, memory / crowd.all, nbytes / seconds / crowd.readers, began, ended
        )


@contextlib.contextmanager
def _running(port: int, path: str, crowd: Crowd, pace: Pace) -> Iterator[Iterator[str]]:
    """Run the process of the readers while the context is open, and give the lines it prints."""
    numbers = map(str, (port, path, *dataclasses.astuple(crowd)))
    command = [sys.executable, "-m", __name__, *numbers]
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
        if process.wait():
            raise RuntimeError(_LOST)


def _expect(output: Iterator[str], word: str) -> int:
    """Return the number after a word that the process has to print next."""
    name, _, number = next(output, "").partition(" ")
    if name != word:
        raise RuntimeError(_LOST)
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


def _slots(wheel: _Wheel, seconds: float | None) -> Iterator[_Slot]:
    """Yield the slots in turn, each at its time, for some whole turns, or without end."""
    start = time.monotonic()
    ticks = itertools.count() if seconds is None else range(_nticks(seconds))
    for tick in ticks:
        time.sleep(max(0.0, start + tick * _TICK - time.monotonic()))  # it is the pace
        yield wheel[tick % _NSLOTS]


def _nticks(seconds: float) -> int:
    return math.ceil(seconds * _TURNS_PER_SECOND) * _NSLOTS


def _read(slot: _Slot, most: int) -> int:
    """Read once on each, and return how many bytes came.

    Raises:
        EOFError: The server has closed one, long before the end of the file.
    """
    nbytes = 0
    for sock in slot:
        # Where nothing has come, its server is late.
        with contextlib.suppress(BlockingIOError):
            received = len(sock.recv(most))
            if not received:
                raise EOFError(f"{sock.getsockname()} was closed")
            nbytes += received
    return nbytes


def _ramp(wheel: _Wheel, port: int, path: str, crowd: Crowd, seconds: float) -> _Slot:
    """Open all as evenly as the ticks allow, while those that read do so; return the stalled."""
    stalled: _Slot = []
    ticks = _nticks(seconds)
    for tick, slot in enumerate(_slots(wheel, seconds)):
        for opened, number in ((slot, crowd.readers), (stalled, crowd.stalled)):
            ncoming = (tick + 1) * number // ticks - tick * number // ticks
            opened += [_open(port, path) for _ in range(ncoming)]
        _read(slot, crowd.nbytes)
    return stalled


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    for name in ("readers", "stalled", "nbytes"):
        parser.add_argument(name, type=int)
    for name in ("ramp", "settle", "measured"):
        parser.add_argument(name, type=float)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {_CORE})
    crowd = Crowd(arguments.readers, arguments.stalled, arguments.nbytes)
    allow_files(crowd.all + _OTHERS)
    wheel: _Wheel = [[] for _ in range(_NSLOTS)]
    stalled = _ramp(wheel, arguments.port, arguments.path, crowd, arguments.ramp)
    for slot in _slots(wheel, arguments.settle):
        _read(slot, crowd.nbytes)
    print(_SETTLED, 0, flush=True)
    nbytes = sum(_read(slot, crowd.nbytes) for slot in _slots(wheel, arguments.measured))
    print(_MEASURED, nbytes, flush=True)
    for slot in _slots(wheel, None):
        _read(slot, crowd.nbytes)
        if select.select([sys.stdin], [], [], 0)[0]:
            break
    for sock in itertools.chain(stalled, *wheel):
        sock.close()


if __name__ == "__main__":
    _main()
