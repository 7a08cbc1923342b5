"""The exceptions that asend adds to those of the operating system, and what to do about each.

And what it says in the operating system's own of what is closed under a call.
"""

import errno
import os
from asyncio import SendfileNotAvailableError

__all__ = ["BusyResourceError", "SendfileNotAvailableError"]


class BusyResourceError(RuntimeError):
    """Another call is sending on this socket; of this one no more was sent than its note says.

    Bytes of two calls on one stream would mix. Await the first call, or put the calls of one
    socket under one `asyncio.Lock` or `trio.Lock`.
    """

    def __init__(self) -> None:
        super().__init__("another call is sending on this socket")


def closed_error() -> OSError:
    """Return the error of a socket that was closed under a call."""
    return OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: the socket was closed while sending")


def aborted_error() -> ConnectionAbortedError:
    """Return the error of a stream that was closed under a call."""
    code = errno.ECONNABORTED
    return ConnectionAbortedError(code, f"{os.strerror(code)}: the stream was closed while sending")
