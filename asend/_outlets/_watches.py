"""Who hears of the end of a connection while a call waits: what stands before its protocol."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._traits import Transport


def watch(
    transport: Transport, is_half_open: bool, lose: Callable[[Exception | None], None]
) -> Watch:
    kind = _BufferedWatch if _lends_buffer(transport.get_protocol()) else _StreamWatch
    watch = kind(transport, is_half_open, lose)
    transport.set_protocol(watch)
    return watch


def _lends_buffer(protocol: object) -> bool:
    """Tell whether a transport reads into the buffer of a protocol."""
    # Protocols of aiofastnet have both ways, and know which is theirs.
    ask = getattr(protocol, "is_buffered_protocol", None)
    if ask is not None:
        return bool(ask())
    # uvloop takes what has the methods, subclass or not.
    can_lend = hasattr(protocol, "get_buffer") and not hasattr(protocol, "data_received")
    return can_lend or isinstance(protocol, asyncio.BufferedProtocol)


class Watch(asyncio.BaseProtocol):
    """Stands before a transport's protocol, and tells the call of the end of the connection.

    All else is the protocol's, as before: reading goes on, and who waits in `drain` is released.
    """

    def __init__(
        self, transport: Transport, is_half_open: bool, lose: Callable[[Exception | None], None]
    ) -> None:
        self._transport = transport
        self._is_half_open = is_half_open
        self._lose = lose
        self._protocol: asyncio.BaseProtocol = transport.get_protocol()
        self.closes = False
        if isinstance(self._protocol, Watch):
            # Of a call that was cancelled and did not clean up yet: it cannot leave from behind us.
            self.closes = self._protocol.closes
            self._protocol = self._protocol._protocol
        for name in _FORWARDED:
            if hasattr(self._protocol, name):
                setattr(self, name, getattr(self._protocol, name))

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)

    def eof_received(self) -> bool | None:
        # That of a process's stdin does not have it; its transport closes then.
        ask: Callable[[], bool | None] = getattr(self._protocol, "eof_received", _closes)
        stays_open = ask()
        if stays_open or not self._is_half_open:
            return stays_open
        # The transport would close now, once its buffer is empty, which it is. Ours goes first.
        self.closes = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
        self._lose(error)

    def end(self) -> None:
        """Put the protocol back, unless someone has set another meanwhile."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._protocol)
        if self.closes:
            # In the next turn: a call that follows at once, as the body does a head, goes first.
            # (Where no loop runs any more, the transport is of no more use.)
            with suppress(RuntimeError):
                asyncio.get_running_loop().call_soon(_close_unless_watched, self._transport)


def _close_unless_watched(transport: Transport) -> None:
    watch = transport.get_protocol()
    if isinstance(watch, Watch):
        watch.closes = True
    else:
        transport.close()


def _closes() -> bool:
    return False


_FORWARDED = ("data_received", "get_buffer", "buffer_updated", "pause_writing", "resume_writing")


class _StreamWatch(Watch, asyncio.Protocol):
    pass


class _BufferedWatch(Watch, asyncio.BufferedProtocol):
    pass
