"""What is known of uvicorn's inside, and nowhere else: how to send past its messages.

An ASGI application is given a function to send by. uvicorn's is a method of the response, which
has the transport, and counts the bytes of the body; who sends some of them himself has to say so.
All that is used here is private, so whatever is not as it was known is not uvicorn's, and is sent
to by messages as any other server.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ._failures import end

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any, TypeAlias

    # uvicorn's, of which only what is asked for here is known.
    _Cycle: TypeAlias = Any

_ATTRIBUTES: Final = ("disconnected", "flow", "message_event", "transport")


class Connection:
    """One response of uvicorn, and the connection that it goes to."""

    __slots__ = ("_cycle", "_frame")

    def __init__(self, cycle: _Cycle, frame: Callable[[_Cycle, int], tuple[bytes, bytes]]) -> None:
        self._cycle = cycle
        self._frame = frame

    @property
    def transport(self) -> asyncio.Transport:
        """What the bytes go out by."""
        transport: asyncio.Transport = self._cycle.transport
        return transport

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return bool(self._cycle.disconnected or self._cycle.transport.is_closing())

    @property
    def is_full(self) -> bool:
        """Whether uvicorn would wait, for as long as it takes, before it sends."""
        return bool(self._cycle.flow.write_paused)

    def claim(self, nbytes: int) -> tuple[bytes, bytes]:
        """Count bytes of the body that will be sent past uvicorn, at least one.

        Returns:
            What is to be written to the transport before and after them.

        Raises:
            Exception: These are more than the response has announced.
        """
        return self._frame(self._cycle, nbytes)

    def abort(self) -> None:
        """End the connection at once, so that the peer cannot take what it has for the whole."""
        self._disconnect()
        # asyncio's has no event loop any more once it has told that the connection is lost; the
        # response is told of that only if no other was asked for meanwhile.
        with suppress(AttributeError):
            self.transport.abort()

    def end(self, error: BaseException) -> None:
        """End it at once because of what has ended the response."""
        self._disconnect()
        with suppress(AttributeError):
            end(self.transport, error)

    def _disconnect(self) -> None:
        # As it would be told in a moment, and would log till then that there is more to send.
        self._cycle.disconnected = True
        self._cycle.message_event.set()

    async def written(
        self,
        send: Callable[[MutableMapping[str, object]], Awaitable[None]],
        message: MutableMapping[str, object],
    ) -> bytes:
        """Give the server a message, and return what it would write instead of writing it."""
        transport = self._cycle.transport
        self._cycle.transport = kept = _Kept(transport)
        try:
            await send(message)
        finally:
            self._cycle.transport = transport
        return b"".join(kept.written)


class _Kept:
    """Stands for a transport, and keeps what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def __getattr__(self, name: str) -> Any:  # whatever the transport has
        return getattr(self._transport, name)


def connection_of(send: object) -> Connection | None:
    """Return the connection that a function to send by leads to, None if that is not known."""
    cycle = getattr(send, "__self__", None)
    kind = type(cycle)
    frame = _FRAMES.get(kind.__module__)
    if frame is None or kind.__name__ != "RequestResponseCycle":
        return None
    known, more = frame
    if not all(hasattr(cycle, name) for name in (*_ATTRIBUTES, *more)):
        return None
    return Connection(cycle, known)


def _frame_httptools(cycle: _Cycle, nbytes: int) -> tuple[bytes, bytes]:
    if cycle.chunked_encoding:
        return b"%x\r\n" % nbytes, b"\r\n"
    if nbytes > cycle.expected_content_length:
        # In uvicorn's words.
        raise RuntimeError("Response content longer than Content-Length")
    cycle.expected_content_length -= nbytes
    return b"", b""


def _frame_h11(cycle: _Cycle, nbytes: int) -> tuple[bytes, bytes]:
    event = sys.modules["h11"].Data(data=_Placeholder(nbytes))
    pieces = cycle.conn.send_with_data_passthrough(event)
    at = pieces.index(event.data)
    return b"".join(pieces[:at]), b"".join(pieces[at + 1 :])


class _Placeholder:
    """Stands for bytes that are sent elsewhere: h11 asks for their number only.

    Source: "sendfile" in the documentation of h11.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def __len__(self) -> int:
        return self._nbytes


# By the module of the response: what counts its bytes, and the attributes that this needs.
_FRAMES: Final = {
    "uvicorn.protocols.http.httptools_impl": (
        _frame_httptools,
        ("chunked_encoding", "expected_content_length"),
    ),
    "uvicorn.protocols.http.h11_impl": (_frame_h11, ("conn",)),
}
