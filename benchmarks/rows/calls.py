"""Small sends that the kernel takes at once: the price of the call itself."""

from __future__ import annotations

import array
import fcntl
import functools
import socket
import termios
import time
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import asend

from ..harness import Aim, Arm, Case, Measure, Sample, Work
from ..receivers import Address, receiver
from ..sending import KIB, connected, run_on

_CALLS = Measure("calls/s", more_is_better=True, digits=0)
_SIZES = (64, KIB, 16 * KIB, 64 * KIB)
_BUFFER = 4 * KIB * KIB
# What the kernel counts for a small message beside its bytes, at most.
_OVERHEAD = KIB
_BATCHES = 64
_MOST_PER_BATCH = 64

_Send: TypeAlias = Callable[[socket.socket, bytes], Awaitable[object]]


async def _by_socket(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)


# None: the loop's own, which is looked up before the clock starts, as a coroutine around it would
# count for it.
_ARMS: dict[str, tuple[str, _Send | None]] = {
    "asend, asyncio": ("asyncio", asend.sock_sendall),
    "loop.sock_sendall, asyncio": ("asyncio", None),
    "asend, uvloop": ("uvloop", asend.sock_sendall),
    "loop.sock_sendall, uvloop": ("uvloop", None),
    "asend, trio": ("trio", asend.sock_sendall),
    "socket.sendall in a coroutine": ("asyncio", _by_socket),
}
_AIMS = [
    Aim(f"asend, {runtime}", _CALLS, 1.0, [f"loop.sock_sendall, {runtime}"])
    for runtime in ("asyncio", "uvloop")
]


def cases(work: Work) -> Iterator[Case]:
    for family, is_unix in (("TCP", False), ("UNIX", True)):
        with receiver("drain", is_unix=is_unix) as address:
            for size in _SIZES:
                batches = work.pick(_BATCHES, 2)
                arms = [
                    Arm(name, functools.partial(_measure, *arm, address, size, batches))
                    for name, arm in _ARMS.items()
                ]
                yield Case(f"{size:,} B, {family}", arms, _AIMS, repeat=5)


def _measure(runtime: str, send: _Send | None, address: Address, size: int, batches: int) -> Sample:
    data = bytes(size)
    with connected(address, _BUFFER) as sock:
        # A quarter of the buffer at a time, so that no call can find it full.
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4
        batch = max(1, min(_MOST_PER_BATCH, room // (size + _OVERHEAD)))
        seconds = run_on(runtime, functools.partial(_time, send, sock, data, batch, batches))
    return {_CALLS: batch * batches / seconds}


async def _time(
    send: _Send | None, sock: socket.socket, data: bytes, batch: int, batches: int
) -> float:
    send = send or get_running_loop().sock_sendall
    seconds = 0.0
    for _ in range(batches):
        _wait_until_taken(sock)
        start = time.perf_counter()
        for _ in range(batch):
            await send(sock, data)
        seconds += time.perf_counter() - start
    return seconds


def _wait_until_taken(sock: socket.socket) -> None:
    unsent = array.array("i", [1])
    while unsent[0]:
        fcntl.ioctl(sock, termios.TIOCOUTQ, unsent)
