"""What stands for the socket of a call on a transport: its descriptor, or what is written to it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, cast

from ._traits import traits_of

if TYPE_CHECKING:
    from ._traits import Transport


class End:
    """Our end of a stream socket or pipe, with what a call needs of a socket.

    What transports show of theirs is no socket, and a new one for each call takes 10 us.
    """

    type = socket.SOCK_STREAM

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def dup(self) -> End:
        return End(os.dup(self._fd))

    def setblocking(self, flag: bool) -> None:
        """The transport has done it."""

    def send(self, data: memoryview, flags: int = 0) -> int:
        try:
            return os.write(self._fd, data)
        finally:
            # A traceback refers to this frame, and nobody can resize the bytearray of a view.
            del data

    def close(self) -> None:
        os.close(self._fd)


class Written:
    """Looks like a socket to a transfer, and writes to a transport.

    Bytes count as sent when they have left the buffers of the transport and of those below it, and
    no more are written before: the kernel has them, and little is in the buffers when a call is
    cancelled.
    """

    type = socket.SOCK_STREAM

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._below = _below(transport)
        # How many of the bytes offered last are in the buffers, in the same order.
        self.left = 0

    def send(self, data: memoryview, flags: int = 0) -> int:
        if not self.left:
            # The transport may keep what it is given for longer than the caller's buffer is held.
            kept = data if type(data.obj) is bytes else bytes(data)
            nbytes = data.nbytes
            # Where that fails, asyncio keeps the error for a turn, and with it this frame.
            del data
            self._transport.write(kept)
            self.left = nbytes
        if self.is_lost():
            # An empty buffer was thrown away. Why, the call is told in a turn or two.
            raise BlockingIOError
        # Encrypted bytes are a few more: better too low than too high.
        pending = self._transport.get_write_buffer_size()
        pending += sum(each.get_write_buffer_size() for each in self._below)
        taken = self.left - min(self.left, pending)
        if self.left and not taken:
            raise BlockingIOError
        self.left -= taken
        return taken

    def is_lost(self) -> bool:
        """Tell whether the connection ends, of which the transport may not have heard yet."""
        return any(each.is_closing() for each in self._below)


def _below(transport: Transport) -> list[Transport]:
    """Return the transports that one of asyncio or uvloop writes to what it has encrypted.

    It does not count what is in their buffers. (One of aiofastnet has none below it.)
    """
    below: list[Transport] = []
    upper: Transport | None = transport
    while upper is not None:
        upper = _next_below(upper)
        if upper is not None:
            below.append(upper)
    return below


def _next_below(transport: Transport) -> Transport | None:
    layer = transport.get_extra_info("uvloop.sslproto")
    if layer is None:
        below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        return cast("Transport | None", below)
    # uvloop shows it to nobody but the garbage collector.
    import gc

    others = (each for each in gc.get_referents(layer) if each is not transport)
    return next((each for each in others if traits_of(type(each)).is_transport), None)
