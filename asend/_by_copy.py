"""A file's bytes by reading and sending them.

A block that may have to be waited for is read in a worker thread, while the one before it is sent;
one that is in memory already is read when it is wanted.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from ._arguments import as_octets, is_seekable
from ._residency import PageCache
from ._tally import STEP_SIZE
from ._transfers import WOULD_BLOCK
from ._wants import DONE, FILE, SOCKET

if TYPE_CHECKING:
    import socket

    from ._arguments import BinaryFile
    from ._by_kernel import Descriptor
    from ._files import FileTransfer
    from ._tally import Tally


class Reader(Protocol):
    """Reads a file, from one place on."""

    def read(self, nbytes: int) -> memoryview:
        """Read the next bytes, none at the end. May block."""

    def is_ready(self, nbytes: int) -> bool:
        """Tell whether the next bytes are in memory, so that `read` does not block."""

    def close(self) -> None:
        """Release what `is_ready` keeps."""


class ByCopy:
    """Blocks of a file, sent by `socket.send`."""

    __slots__ = (
        "_at",
        "_block",
        "_is_last",
        "_left",
        "_next",
        "_reader",
        "_was_ready",
        "sock",
    )

    def __init__(self, sock: socket.socket, reader: Reader, count: int | None) -> None:
        self.sock = sock
        self._reader = reader
        self._left = count
        self._block = memoryview(b"")
        self._at = 0
        self._next: memoryview | None = None
        self._is_last = False
        # What the reader said last; None: it was not asked yet.
        self._was_ready: bool | None = None

    def step(self, tally: Tally) -> int:
        if self._at == self._block.nbytes:
            if (want := self._begin_next()) != SOCKET:
                return want
            if tally.total is not None:
                # It may have grown. Who is to end the call early has to know that there is more.
                tally.total = max(tally.total, tally.sent + self._block.nbytes)
        try:
            sent = self.sock.send(self._block[self._at : self._at + min(tally.most, STEP_SIZE)])
        except WOULD_BLOCK:
            return SOCKET | self._ahead()
        self._at += sent
        tally.add(sent)
        is_last = self._is_last
        if self._at < self._block.nbytes or self._next is not None:
            return SOCKET | self._ahead()
        return DONE if is_last else FILE

    def _begin_next(self) -> int:
        """Go on to the next block; answer SOCKET if there is something to send of it."""
        # Asked before the next one is looked for: `load` says so when it is there, in a thread.
        is_last = self._is_last
        if self._next is None:
            return DONE if is_last else FILE
        self._block, self._next, self._at = self._next, None, 0
        return SOCKET if self._block.nbytes else DONE

    def close(self) -> None:
        self._reader.close()

    def take(self) -> memoryview | int:
        """Give a block away to be sent elsewhere."""
        if self._at == self._block.nbytes and (want := self._begin_next()) != SOCKET:
            return want
        rest, self._at = self._block[self._at :], self._block.nbytes
        return rest

    def _ahead(self) -> int:
        return FILE if self._next is None and not self._is_last else DONE

    def reads_ahead(self) -> int:
        """Answer FILE if the next block is to be read now, as it may take its time."""
        if self._ahead() == DONE:
            return DONE
        if self._was_ready is None:
            self.is_ready()
        return DONE if self._was_ready else FILE

    def is_ready(self) -> bool:
        """Tell whether the next block is in memory."""
        self._was_ready = self._reader.is_ready(self._size())
        return self._was_ready

    def _size(self) -> int:
        return STEP_SIZE if self._left is None else min(STEP_SIZE, self._left)

    def load(self, transfer: FileTransfer) -> None:
        block = self._reader.read(self._size())
        if self._left is not None:
            self._left -= block.nbytes
        # In this order, and asked in the other: who hears that it is the last one must find it.
        self._next = block
        self._is_last = not block.nbytes or self._left == 0


class DescriptorReader:
    """Reads a plain file by its descriptor, wherever its object is."""

    __slots__ = ("_at", "_cache", "_file")

    def __init__(self, file: Descriptor, at: int) -> None:
        self._file = file
        self._at = at
        self._cache = PageCache()

    def read(self, nbytes: int) -> memoryview:
        block = os.pread(self._file.fd, nbytes, self._at)
        self._at += len(block)
        return memoryview(block)

    def is_ready(self, nbytes: int) -> bool:
        size = self._file.size()
        left = min(nbytes, size - self._at)
        if left > 0:
            return self._cache.has(self._file.fd, size, self._at, left) is True
        # The end is there at once. Of files of /proc, which say that they are empty, nobody knows.
        return size > 0

    def close(self) -> None:
        self._cache.release()


class _Position:
    """Where a file object is, and the lock of who moves it."""

    __slots__ = ("__weakref__", "at", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.at: int | None = None


# By the id of the object, which lives as long as its readers.
_positions: WeakValueDictionary[int, _Position] = WeakValueDictionary()
_positions_lock = threading.Lock()


class ObjectReader:
    """Reads a file object that is no plain descriptor; its position is what it moves.

    Several calls may read the same object, also as one that was cancelled has a read to end. Each
    finds its place again when it has the lock of `position`.
    """

    __slots__ = (
        "_at",
        "_file",
        "_home",
        "_is_seekable",
        "_offset",
        "_read",
        "is_memory",
        "position",
    )

    def __init__(self, file: BinaryFile, offset: int, *, endless: bool) -> None:
        self._file = file
        self._offset = offset
        self._is_seekable = is_seekable(file)
        if offset and not self._is_seekable:
            raise io.UnsupportedOperation("File or stream is not seekable.")
        # read(n) of a pipe would wait for n bytes, read1(n) takes what has come.
        self._read = (getattr(file, "read1", None) if endless else None) or file.read
        self._home: int | None = None
        self._at = offset
        self.is_memory = type(file) is io.BytesIO
        with _positions_lock:
            self.position = _positions.setdefault(id(file), _Position())

    def read(self, nbytes: int) -> memoryview:
        """Read from where the last read of this reader ended. For who has the lock."""
        if self._is_seekable and (self._home is None or self.position.at != self._at):
            if self._home is None:
                self._home = self._file.tell()  # type: ignore[attr-defined]  # seekable files do
            # If it fails the position is unknown.
            self.position.at = None
            self._file.seek(self._at)  # type: ignore[attr-defined]  # and this one
        block = self._read(nbytes)
        if block is None:
            raise ValueError("the file must be blocking")
        octets = as_octets(block)
        if type(block) is not bytes:
            # Its buffer may be used for the next one, which is read before this one is sent.
            octets = memoryview(bytes(octets))
        if octets.nbytes > nbytes:
            raise ValueError("read() returned more than it was asked for")
        self._at += octets.nbytes
        self.position.at = self._at
        return octets

    def is_ready(self, nbytes: int) -> bool:
        return self.is_memory

    def close(self) -> None:
        """Nothing is kept but the position, which `restore` sets."""

    def is_at(self, sent: int) -> bool:
        """Tell whether the position is already what it has to be after `sent` bytes."""
        return self._home is None or self.position.at == self._target(sent)

    def restore(self, sent: int) -> None:
        """Set the position, unless another call is just reading, and will set its own."""
        if not self.is_at(sent) and self.position.lock.acquire(blocking=False):
            try:
                self._file.seek(self._target(sent))  # type: ignore[attr-defined]  # it has a home
            finally:
                self.position.at = None
                self.position.lock.release()

    def _target(self, sent: int) -> int:
        return self._offset + sent if sent or self._home is None else self._home
