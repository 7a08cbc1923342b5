"""Ten thousand calls that wait for peers that read nothing: memory and CPU time of each.

Each sample is a process of its own (`python -m benchmarks.rows.many ARM ADDRESS CALLS`), as memory
that an earlier one gave back would hide what a later one takes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import time
from asyncio import ensure_future
from typing import TYPE_CHECKING

import anyio
import trio

import asend

from ..harness import Aim, Arm, Case, Measure, Sample, Work
from ..receivers import allow_files, fit_files, receiver
from ..sending import RUNTIMES, SendBytes, bytes_by_loop, run_on
from ..servers import resident

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_MEMORY = Measure("KiB per call")
_IDLE = Measure("CPU ms in 2 s idle")
_SECONDS = 2.0
_CALLS = 10_000
# Descriptors that the process and its loop need for themselves.
_OTHERS = 50
# And each call: the socket, and one of its own to wait on.
_PER_CALL = 2
# Less than the smallest send buffer of a UNIX socket cannot wait.
_DATA = bytes(256 * 1024)


async def _by_nothing(sock: socket.socket, data: bytes) -> None:
    await anyio.sleep_forever()


async def _by_trio(sock: socket.socket, data: bytes) -> None:
    await trio.SocketStream(trio.socket.from_stdlib_socket(sock)).send_all(data)


_ARMS: dict[str, tuple[str, SendBytes]] = {
    **{f"asend, {runtime}": (runtime, asend.sock_sendall) for runtime in RUNTIMES},
    "loop.sock_sendall, asyncio": ("asyncio", bytes_by_loop),
    "loop.sock_sendall, uvloop": ("uvloop", bytes_by_loop),
    "SocketStream.send_all, trio": ("trio", _by_trio),
    **{f"a task that sleeps, {runtime}": (runtime, _by_nothing) for runtime in RUNTIMES},
}


def cases(work: Work) -> Iterator[Case]:
    ncalls, note = fit_files(work.pick(_CALLS, 100), _PER_CALL, _OTHERS)
    yield Case(
        f"{ncalls:,} pending calls",
        [Arm(name, functools.partial(_measure, name, ncalls)) for name in _ARMS],
        [
            Aim(f"asend, {runtime}", measure, bound)
            for runtime in RUNTIMES
            for measure, bound in ((_MEMORY, 4.0), (_IDLE, 10.0))
        ],
        note=note,
    )


def _measure(arm: str, ncalls: int) -> Sample:
    # A receiver for each, as it holds what it has accepted until it ends.
    with receiver("hold", is_unix=True) as address:
        command = [sys.executable, "-m", __name__, arm, str(address), str(ncalls)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    memory, idle = json.loads(output)
    return {_MEMORY: memory, _IDLE: idle}


def _fill(address: str) -> socket.socket:
    """Return a socket that takes no more bytes."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.connect(address)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1024))
    return sock


@contextlib.asynccontextmanager
async def _task_starter() -> AsyncIterator[Callable[..., object]]:
    """Start tasks as the runtime itself does: an anyio task group would count for more."""
    if trio.lowlevel.in_trio_task():
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
            nursery.cancel_scope.cancel()
    else:
        tasks = []
        yield lambda call, *arguments: tasks.append(ensure_future(call(*arguments)))
        for task in tasks:
            task.cancel()


async def _wait_for_all(send: SendBytes, sockets: list[socket.socket]) -> tuple[float, float]:
    async with _task_starter() as start_soon:
        # What the first call loads or caches is not the price of the ten thousandth.
        start_soon(send, sockets[0], _DATA)
        await anyio.sleep(0.1)
        before = resident(os.getpid())
        for sock in sockets[1:]:
            start_soon(send, sock, _DATA)
        await anyio.sleep(1)
        memory = (resident(os.getpid()) - before) / (len(sockets) - 1)
        start = time.process_time()
        await anyio.sleep(_SECONDS)
        idle = (time.process_time() - start) * 1000
    return memory, idle


def _main(arm: str, address: str, ncalls: str) -> None:
    allow_files(_PER_CALL * int(ncalls) + _OTHERS)
    runtime, send = _ARMS[arm]
    sockets = [_fill(address) for _ in range(int(ncalls))]
    print(json.dumps(run_on(runtime, functools.partial(_wait_for_all, send, sockets))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
