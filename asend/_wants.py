"""What a transfer and a driver say to each other.

A transfer makes one bounded attempt per `step` and answers what it wants before the next one;
a driver waits for that and knows no bytes. This is all that the two know of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ._arguments import BinaryFile
    from ._tally import Tally

    # Makes a transfer on the socket to call `send` of, or on what stands for one.
    Build: TypeAlias = Callable[[socket.socket], "Transfer"]

# Bits, so that "send on, and read the next block meanwhile" is SOCKET | FILE.
DONE = 0
SOCKET = 1
FILE = 2


class FilePart(NamedTuple):
    """A range of a file that a loop of its own may send whole."""

    file: BinaryFile
    offset: int
    left: int | None
    fallback: bool


class Transfer(Protocol):
    """Something to be sent, and how far it is."""

    tally: Tally
    # A load may wait for ever (a pipe, a terminal): its thread must not keep the process alive.
    endless: bool

    @property
    def closes_slowly(self) -> bool:
        """Whether `close` may block, and should run in a worker thread."""

    def step(self) -> int:
        """Try once, without blocking; answer DONE, SOCKET, FILE or SOCKET | FILE."""

    def load(self) -> None:
        """Read what a step asked for. Blocks: for a worker thread. Never raises."""

    def hold(self, sock: socket.socket) -> None:
        """Send by `sock` from now on; make safe against a file that is closed meanwhile."""

    def leave(self) -> None:
        """Let go of what belongs to the event loop, in its thread, before `close`."""

    def close(self) -> None:
        """Release everything; the worker thread, if one reads, does it at its end."""

    def ahead(self) -> int:
        """Answer FILE if the next block can be read while the last one is sent elsewhere."""

    def rest(self) -> memoryview | FilePart | int:
        """Hand over what is left, or a part of it, to a loop that sends by itself.

        Asked again when that was sent, until it answers DONE; a FilePart is the last. FILE asks
        for `load` first.
        """
