"""What is to be sent from memory, and how far it is. No event loop here, and no waiting.

`Octets` sends one buffer by `send`, `Vectors` many by `sendmsg`. Files are in `_files`.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from ._arguments import as_octets
from ._tally import STEP_SIZE, Tally
from ._wants import DONE, SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import ReadableBuffer

# Up to here a send is tried before anything is built, and on loops that cannot tell cheaply
# whether a transport owns the socket, without asking (see `admit` of the driver of asyncio).
SMALL = 64 * 1024

# What a call that cannot go on without waiting raises; InterruptedError is retried at once by
# CPython (PEP 475), so that one which still comes out waits for its turn like the others.
WOULD_BLOCK = (BlockingIOError, InterruptedError)

# The most buffers that one sendmsg takes (1024 on Linux; POSIX promises 16).
_MOST_BUFFERS = os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") else 16


class Octets:
    """One buffer, sent by `socket.send`."""

    __slots__ = ("_flags", "_is_cut", "_sock", "_view", "tally")
    endless = False
    closes_slowly = False

    def __init__(self, sock: socket.socket, view: memoryview, flags: int, tally: Tally) -> None:
        self._sock = sock
        self._view = view
        self._flags = flags
        # A datagram is one message, whatever its size. (The type is slow to ask for.)
        self._is_cut = view.nbytes > STEP_SIZE and sock.type == socket.SOCK_STREAM
        self.tally = tally

    def step(self) -> int:
        """Send once; an empty buffer too, so that a dead peer shows."""
        tally = self.tally
        end = tally.sent + min(tally.most, STEP_SIZE) if self._is_cut else None
        try:
            sent = self._sock.send(self._view[tally.sent : end], self._flags)
        except WOULD_BLOCK:
            return SOCKET
        tally.add(sent)
        return SOCKET if tally.sent < self._view.nbytes else DONE

    def load(self) -> None:
        """Nothing is ever read."""

    def hold(self, sock: socket.socket) -> None:
        """Send by `sock` from now on; the view holds the buffer already."""
        self._sock = sock

    def leave(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        """Give the buffer back, so that a bytearray can be resized again."""
        self._view.release()

    def ahead(self) -> int:
        """Nothing is ever read."""
        return DONE

    def rest(self) -> memoryview | int:
        """Hand over what is left."""
        _refuse_flags(self._flags)
        return self._view[self.tally.sent :] if self.tally.sent < self._view.nbytes else DONE


def octets_of(
    data: ReadableBuffer,
    flags: int,
    progress: Callable[[int], object] | None,
    sent: int,
    sock: socket.socket,
) -> Octets:
    """Return the transfer of a buffer of which so many bytes were sent already."""
    view = as_octets(data)
    return Octets(sock, view, flags, Tally(view.nbytes, progress, sent))


class Vectors:
    """Many buffers and their ancillary data, sent by `socket.sendmsg`."""

    __slots__ = ("_ancdata", "_flags", "_is_whole", "_left", "_sock", "_views", "tally")
    endless = False
    closes_slowly = False

    def __init__(
        self,
        sock: socket.socket,
        views: list[memoryview],
        ancdata: Iterable[tuple[int, int, ReadableBuffer]],
        flags: int,
        tally: Tally,
    ) -> None:
        self._sock = sock
        self._views = views
        self._left = deque(views)
        self._ancdata = ancdata
        self._flags = flags
        is_large = len(views) > _MOST_BUFFERS or (tally.total or 0) > STEP_SIZE
        self._is_whole = is_large and sock.type != socket.SOCK_STREAM
        self.tally = tally

    def step(self) -> int:
        """Send once what fits in a step; the ancillary data goes with the first byte only."""
        try:
            sent = self._sock.sendmsg(self._batch(), self._ancdata, self._flags)
        except WOULD_BLOCK:
            return SOCKET
        self._ancdata = ()
        self._drop(sent)
        self.tally.add(sent)
        return SOCKET if self._left else DONE

    def _batch(self) -> list[memoryview]:
        if self._is_whole:
            # One message, that the kernel takes or refuses.
            return list(self._left)
        room, batch = min(self.tally.most, STEP_SIZE), []
        for view in self._left:
            batch.append(view[:room])
            room -= view.nbytes
            if room <= 0 or len(batch) == _MOST_BUFFERS:
                break
        return batch

    def _drop(self, sent: int) -> None:
        while self._left and sent >= self._left[0].nbytes:
            sent -= self._left.popleft().nbytes
        if sent:
            self._left[0] = self._left[0][sent:]

    def load(self) -> None:
        """Nothing is ever read."""

    def hold(self, sock: socket.socket) -> None:
        """Send by `sock` from now on; the views hold the buffers already."""
        self._sock = sock

    def leave(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        """Give the buffers back."""
        self._left.clear()
        for view in self._views:
            view.release()

    def ahead(self) -> int:
        """Nothing is ever read."""
        return DONE

    def rest(self) -> memoryview | int:
        """Hand over what is left, in one piece."""
        _refuse_flags(self._flags or self._ancdata)
        if not self._left:
            return DONE
        rest = memoryview(b"".join(self._left))
        self._left.clear()
        return rest


def _refuse_flags(extra: object) -> None:
    if extra:
        raise NotImplementedError("this event loop sends neither flags nor ancillary data")
