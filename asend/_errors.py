"""The exceptions that asend adds to those of the operating system, and what to do about each."""

from asyncio import SendfileNotAvailableError

__all__ = ["BusyResourceError", "SendfileNotAvailableError"]


class BusyResourceError(RuntimeError):
    """Another call is sending on this socket; of this one no more was sent than its note says.

    Bytes of two calls on one stream would mix. Await the first call, or put the calls of one
    socket under one `asyncio.Lock` or `trio.Lock`.
    """

    def __init__(self) -> None:
        super().__init__("another call is sending on this socket")
