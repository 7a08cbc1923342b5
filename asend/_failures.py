"""A response that has failed: whose error it is, how its connection ends, and what is said of it.

A peer that was too slow loses its connection with all that is on the way to it, others just lose
it; and what the `progress` of who sends has raised is no news of the peer.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# On, for 0 seconds: closing resets the connection. Windows has shorter numbers there.
_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def is_too_slow(error: BaseException) -> bool:
    """Tell whether this says that a limit was broken. What files and sockets raise has a number."""
    return isinstance(error, TimeoutError) and error.errno is None


class Progress:
    """Calls a `progress`, and knows its errors from all others: they come out as they are."""

    __slots__ = ("_error", "_theirs")

    def __init__(self, theirs: Callable[[int], object]) -> None:
        self._theirs = theirs
        self._error: BaseException | None = None

    def __call__(self, nbytes: int) -> None:
        try:
            self._theirs(nbytes)
        except BaseException as error:  # whatever they raise
            self._error = error
            raise

    def has_raised(self, error: BaseException) -> bool:
        """Tell whether an error is of `progress`, and forget it, as it refers to this object."""
        theirs, self._error = self._error, None
        return error is theirs


def end(transport: asyncio.Transport, error: BaseException) -> None:
    """Abort a transport because of an error of the call that was sending on it.

    Of a peer that was too slow the kernel forgets what it has for it, too. It may have some MB, and
    would send them for as long as the peer reads a byte now and then, which is no concern of any
    limit any more.

    Source: SO_LINGER in socket(7); reset_timedout_connection of nginx does the same.
    """
    if is_too_slow(error):
        sock = transport.get_extra_info("socket")
        # The peer may have gone (ValueError: uvloop), and a transport have no socket to show.
        with suppress(OSError, ValueError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    transport.abort()


def in_short(error: BaseException) -> str:
    """Return what an error says, and its notes, in one line."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])
