"""Which way the bytes of a stream take: an outlet for each kind of stream.

An outlet knows one kind of stream and no bytes. Whatever is not listed here can say itself what
carries it (`asend.streams.HasCarrier`).
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from .._arguments import is_trio_socket
from ._blocks import BlockOutlet
from ._plain import SocketOutlet
from ._traits import is_transport
from ._transports import TransportOutlet

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .._drivers import Driver
    from .._limits import Limits
    from .._wants import Build


class Outlet(Protocol):
    """How to send on one stream."""

    # Whether a file may go from the kernel to the peer as it is.
    is_plain: bool

    async def deliver(
        self, driver: Driver, build: Build, seconds: float | None, limits: Limits | None
    ) -> int:
        """Send the transfer that `build` makes on what it is given to call `send` of.

        Returns:
            The bytes that were taken.
        """


# Carriers of carriers; more than this is a circle.
_MOST_CARRIERS = 16


def outlet_of(stream: object) -> Outlet:
    """Return the outlet of a stream.

    Raises:
        TypeError: No bytes can be sent on it, or nobody knows how.
    """
    for _ in range(_MOST_CARRIERS):
        ask = getattr(stream, "__asend_carrier__", None)
        if ask is None:
            break
        stream = ask()
    outlet = _of_asyncio(stream) or _of_trio(stream) or _of_anyio(stream)
    if outlet is None:
        raise TypeError(f"a stream to send on is required, not {type(stream).__name__!r}")
    return outlet


def _of_asyncio(stream: object) -> Outlet | None:
    if isinstance(stream, socket.socket) or is_trio_socket(stream):
        return SocketOutlet(stream)
    # One that overrides `write` may send something else than what is written.
    if isinstance(stream, asyncio.StreamWriter) and type(stream).write is _WRITE:
        stream = stream.transport
    return TransportOutlet(stream) if is_transport(stream) else None


_WRITE = asyncio.StreamWriter.write


def _of_trio(stream: object) -> Outlet | None:
    trio = sys.modules.get("trio")
    if trio is None or not isinstance(stream, trio.abc.SendStream):
        return None
    if type(stream) is trio.SocketStream:
        return SocketOutlet(stream.socket, _guard(stream, "_send_conflict_detector"))
    return BlockOutlet(stream, stream.send_all)


def _of_anyio(stream: object) -> Outlet | None:
    anyio = sys.modules.get("anyio")
    if anyio is None or not isinstance(stream, anyio.abc.ByteSendStream):
        return None
    if type(stream).__module__.startswith("anyio._backends."):
        guard = _guard(stream, "_send_guard")
        transport = getattr(stream, "_transport", None)
        if is_transport(transport):
            return TransportOutlet(transport, guard)
        carrier = getattr(stream, "_trio_socket", None)
        if carrier is not None:
            return SocketOutlet(carrier, guard)
        if isinstance(stream, anyio.abc.UNIXSocketStream):
            carrier = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            return SocketOutlet(carrier, guard, stream if hasattr(stream, "_send_future") else None)
    # Bytes are all that they promise to take, and some keep them.
    return BlockOutlet(stream, lambda block: stream.send(bytes(block)))


def _guard(stream: object, name: str) -> AbstractContextManager[object]:
    """Return what a stream itself keeps two senders apart with."""
    guard: AbstractContextManager[object] | None = getattr(stream, name, None)
    return nullcontext() if guard is None else guard
