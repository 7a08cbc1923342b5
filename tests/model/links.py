"""One connection of each kind: what sends on it, what reads from it, and what it promises."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import trio
from conftest import tcp_pair, unix_pair
from opened import opened
from stream_kinds import (
    PLAIN_TRANSPORTS,
    TLS_TRANSPORTS,
    TRIO_PLAIN,
    TRIO_TLS,
    Ends,
    Far,
    open_ends,
)

import asend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOCKETS = ["sock-unix", "sock-tcp", "sock-timed"]
# By what there is to send on, on asyncio and on trio.
GROUPS = {
    "sockets": (SOCKETS, [*SOCKETS, "triosock-unix", "triosock-tcp"]),
    "streams": ([*PLAIN_TRANSPORTS, "anyio-unix", "pipe"], TRIO_PLAIN),
    "tls": ([*TLS_TRANSPORTS, "anyio-tls"], TRIO_TLS),
}
# The most that TLS encrypts at a time.
RECORD = 16384


@dataclass
class Link:
    """A connection and what a call on it is to be judged by."""

    kind: str
    ends: Ends

    @property
    def is_socket(self) -> bool:
        return "sock" in self.kind

    @property
    def is_plain(self) -> bool:
        return not self.kind.endswith("tls")

    @property
    def is_fragile(self) -> bool:
        """Whether it is of no more use after a call that failed."""
        return self.kind in TRIO_TLS

    @property
    def may_be_lost(self) -> float:
        """How many bytes that count as sent may not come where a call fails."""
        # aiofastnet's transports that encrypt do not show all that is in their buffers.
        if self.is_fragile or self.kind == "fastnet-tls":
            return inf
        # Of a record of which the kernel has a part, the peer has nothing.
        return 0 if self.is_plain else RECORD

    @property
    def closes_late(self) -> bool:
        """Whether a call in flight goes on when we close our end."""
        return self.kind in SOCKETS

    @property
    def can_write(self) -> bool:
        """Whether it is written to without waiting, into a buffer of its own."""
        return self.ends.transport is not None and not self.kind.startswith("anyio")

    @property
    def is_closing(self) -> bool:
        return self.ends.transport is not None and self.ends.transport.is_closing()

    def has_its_protocol(self) -> bool:
        """Whether who hears of the connection is who heard of it at first."""
        ends = self.ends
        if ends.transport is None or self.is_closing:
            return True
        return bool(ends.transport.get_protocol() is ends.protocol)

    def pending(self) -> int:
        """How much of what was written before is still in its buffer."""
        if self.ends.transport is None or self.is_closing:
            return 0
        return self.ends.transport.get_write_buffer_size()

    def is_full(self) -> bool:
        return self.ends.is_full()

    def sendall(self, data: Any, **options: Any) -> Any:
        send = asend.sock_sendall if self.is_socket else asend.sendall
        return send(self.ends.stream, data, **options)

    def sendfile(self, file: Any, offset: int, count: int | None, **options: Any) -> Any:
        send = asend.sock_sendfile if self.is_socket else asend.sendfile
        return send(self.ends.stream, file, offset, count, **options)


@contextlib.asynccontextmanager
async def open_link(kind: str) -> AsyncIterator[Link]:
    opening = _open_socket(kind) if "sock" in kind else open_ends(kind)
    async with opening as ends:
        yield Link(kind, ends)


@contextlib.asynccontextmanager
async def _open_socket(kind: str) -> AsyncIterator[Ends]:
    sock, other = tcp_pair() if kind.endswith("tcp") else unix_pair()
    sock.settimeout(60 if kind == "sock-timed" else 0)
    number = sock.fileno()
    stream: Any = trio.socket.from_stdlib_socket(sock) if kind.startswith("trio") else sock

    async def write(data: bytes) -> None:
        raise NotImplementedError

    async def read(nbytes: int) -> bytes:
        await anyio.wait_readable(number)
        return os.read(number, nbytes)

    async def close() -> None:
        stream.close()

    async def abort() -> None:
        stream.shutdown(socket.SHUT_RDWR)

    ends = Ends(stream, Far(other), number, write, read, close, abort)
    try:
        yield ends
    finally:
        ends.far.close()
        stream.close()


def writers() -> set[str]:
    """What the event loops of this process are to be told of when it can be written to."""
    found = set()
    for number, target in opened().items():
        if target != "anon_inode:[eventpoll]":
            continue
        try:
            with open(f"/proc/self/fdinfo/{number}") as info:
                watched = re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", info.read())
        except FileNotFoundError:
            continue
        found |= {fd for fd, events in watched if int(events, 16) & select.EPOLLOUT}
    return found
