"""How to end the connection of a peer that was too slow, with what is on the way to it."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

# On, for 0 seconds: closing resets the connection. Windows has shorter numbers there.
_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def is_too_slow(error: BaseException) -> bool:
    """Tell whether this says that a limit was broken. What files and sockets raise has a number."""
    return isinstance(error, TimeoutError) and error.errno is None


def reset(transport: asyncio.Transport) -> None:
    """Abort a transport, and forget what the kernel has for its peer.

    It may have some MB. If the connection was only closed, it would send them for as long as the
    peer reads a byte now and then, which is no concern of any limit any more.

    Source: SO_LINGER in socket(7); reset_timedout_connection of nginx does the same.
    """
    sock = transport.get_extra_info("socket")
    # The peer may have gone (ValueError: uvloop), and a transport have no socket to show.
    with suppress(OSError, ValueError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    transport.abort()
