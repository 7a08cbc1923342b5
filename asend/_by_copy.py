"""A file's bytes by reading and sending them: a block is read while the one before it is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ._arguments import as_octets, is_seekable
from ._transfers import STEP_SIZE, WOULD_BLOCK
from ._wants import DONE, FILE, SOCKET

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ._arguments import BinaryFile
    from ._files import FileTransfer
    from ._tally import Tally


class ByCopy:
    """Blocks that a worker thread reads, sent by `socket.send`."""

    __slots__ = ("_at", "_block", "_is_last", "_left", "_next", "_read", "_sock")

    def __init__(
        self, sock: socket.socket, read: Callable[[int], memoryview], count: int | None
    ) -> None:
        self._sock = sock
        self._read = read
        self._left = count
        self._block = memoryview(b"")
        self._at = 0
        self._next: memoryview | None = None
        self._is_last = False

    def step(self, tally: Tally) -> int:
        if self._at == self._block.nbytes:
            if self._next is None:
                return DONE if self._is_last else FILE
            self._block, self._next, self._at = self._next, None, 0
            if not self._block.nbytes:
                return DONE
        try:
            sent = self._sock.send(self._block[self._at :])
        except WOULD_BLOCK:
            return SOCKET | self._ahead()
        self._at += sent
        tally.add(sent)
        if self._at < self._block.nbytes or self._next is not None:
            return SOCKET | self._ahead()
        return DONE if self._is_last else FILE

    def close(self) -> None:
        """Nothing but blocks to forget."""

    def take(self) -> memoryview | int:
        """Give a block away to be sent elsewhere."""
        if self._at == self._block.nbytes:
            if self._next is None:
                return DONE if self._is_last else FILE
            self._block, self._next, self._at = self._next, None, 0
        rest, self._at = self._block[self._at :], self._block.nbytes
        return rest

    def _ahead(self) -> int:
        return FILE if self._next is None and not self._is_last else 0

    def load(self, transfer: FileTransfer) -> None:
        nbytes = STEP_SIZE if self._left is None else min(STEP_SIZE, self._left)
        block = self._read(nbytes)
        if self._left is not None:
            self._left -= block.nbytes
        # In this order: a step in between must find the block before it hears that it is the last.
        self._next = block
        self._is_last = not block.nbytes or self._left == 0


class ObjectReader:
    """Reads a file object that is no plain descriptor; its position is what it moves."""

    __slots__ = ("_at", "_file", "_home", "_is_seekable", "_offset", "_read")

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

    def read(self, nbytes: int) -> memoryview:
        if self._is_seekable and self._home is None:
            self._home = self._file.tell()  # type: ignore[attr-defined]  # seekable files have it
            self._file.seek(self._offset)  # type: ignore[attr-defined]  # and this one
        block = self._read(nbytes)
        if block is None:
            raise ValueError("the file must be blocking")
        octets = as_octets(block)
        if octets.nbytes > nbytes:
            raise ValueError("read() returned more than it was asked for")
        self._at += octets.nbytes
        return octets

    def is_at(self, sent: int) -> bool:
        """Tell whether the position is already what it has to be after `sent` bytes."""
        return self._home is None or self._at == self._target(sent)

    def restore(self, sent: int) -> None:
        if not self.is_at(sent):
            self._file.seek(self._target(sent))  # type: ignore[attr-defined]  # it has a home

    def _target(self, sent: int) -> int:
        return self._offset + sent if sent or self._home is None else self._home
