"""The calls that send, on what the running library has for them."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from conftest import ASYNCIO, TRIO
from waiting import ATTEMPTS, in_time

import asend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path
    from typing import Any

    from conftest import Peer

    Test = Callable[..., Awaitable[None]]
    Send = Callable[..., Coroutine[Any, Any, object]]

# Seconds after the moment when it has to end that a call may take.
TOLERANCE = 0.05
# By which it may seem early, as the moment when the last byte went is seen from outside.
ROUNDING = 0.005
# All that differ in how they wait.
each_runtime = pytest.mark.parametrize(
    "anyio_backend", [one for one in ASYNCIO + TRIO if one.id != "asyncio-eager"], indirect=True
)


def each_way(test: Test) -> Test:
    """Run a test with each call."""

    ways = ["sock_sendall", "sock_sendfile", "sendall", "sendfile"]
    return pytest.mark.parametrize("way", ways)(in_time(test))


@asynccontextmanager
async def opened(way: str, sock: socket.socket, path: Path) -> AsyncIterator[Send]:
    """Give a call that sends what is in a file."""
    async with AsyncExitStack() as stack:
        end: object = sock
        if not way.startswith("sock_"):
            end = await stack.enter_async_context(_stream_on(sock))
        file = stack.enter_context(path.open("rb"))
        yield partial(getattr(asend, way), end, file if way.endswith("file") else file.read())


@asynccontextmanager
async def _stream_on(sock: socket.socket) -> AsyncIterator[object]:
    """Give a transport on asyncio and uvloop, a stream on trio."""
    if trio.lowlevel.in_trio_task():
        async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
            yield stream
        return
    _, writer = await asyncio.open_connection(sock=sock)
    try:
        yield writer.transport
    finally:
        writer.transport.abort()
        await writer.wait_closed()


def attempts() -> Iterator[list[float]]:
    """Give a list to write down how many seconds late something was; again, if that was too late.

    Raises:
        AssertionError: It was too early, or too late each time.
    """
    for _ in range(ATTEMPTS):
        late: list[float] = []
        yield late
        assert late[0] >= -ROUNDING, f"{-late[0]:.3f} s early"
        if late[0] <= TOLERANCE:
            return
    raise AssertionError(f"{late[0]:.3f} s late, and too late each time before")


class Count:
    """What `progress` said."""

    def __init__(self) -> None:
        self.sent = 0
        self.moved = time.monotonic()

    def add(self, nbytes: int) -> None:
        self.sent += nbytes
        self.moved = time.monotonic()


async def send_all(peer: Peer, send: Send, count: Count) -> None:
    """Send, and say that this was all, so that who waits for more finds out."""
    await send(progress=count.add)
    peer.sock.shutdown(socket.SHUT_WR)
