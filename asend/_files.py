"""What is to be sent from a file: by the kernel where it can be, else by copying it.

`FileTransfer` is what drivers see. It holds the descriptor, keeps clean-up and worker thread
apart, sets the file position at the end, and changes its way when the kernel refuses. The ways are
`_by_kernel.ByKernel` and `_by_copy.ByCopy`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from ._arguments import is_seekable
from ._by_copy import ByCopy, DescriptorReader, ObjectReader
from ._by_kernel import ByKernel, Descriptor, Refused
from ._errors import SendfileNotAvailableError
from ._tally import Tally
from ._wants import FILE, SOCKET, FilePart

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ._arguments import BinaryFile


class FileTransfer:
    """A file's bytes from `offset` to its end, or `count` of them."""

    __slots__ = (
        "_count",
        "_descriptor",
        "_failure",
        "_fallback",
        "_file",
        "_is_asked",
        "_is_reading",
        "_lock",
        "_may_go_whole",
        "_offset",
        "_reader",
        "_sock",
        "_way",
        "endless",
        "is_over",
        "tally",
    )

    def __init__(
        self,
        sock: socket.socket,
        file: BinaryFile,
        offset: int,
        count: int | None,
        fallback: bool,
        progress: Callable[[int], object] | None,
        *,
        by_kernel: bool = True,
    ) -> None:
        self._sock = sock
        self._file = file
        self._offset = offset
        self._count = count
        self._fallback = fallback
        # Whether a loop that sends files itself may be given a plain one.
        self._may_go_whole = by_kernel
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._is_reading = False
        # A driver was asked to have something read, and it has not been read yet.
        self._is_asked = False
        self.is_over = False
        self._reader: ObjectReader | None = None
        self._descriptor: Descriptor | None = None
        self._way: ByKernel | ByCopy

        fd, status = _descriptor_of(file)
        total = count
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if fd is not None and status is not None and stat.S_ISREG(status.st_mode):
            # What was written through this object must be in the file before the file is read.
            getattr(file, "flush", int)()
            self.endless = False
            self._descriptor = Descriptor(fd)
            size = self._descriptor.size()
            total = max(0, size - offset) if count is None and size else count
            self._way = (
                self._by_kernel() if by_kernel and self._kernel_can(fd, size) else self._by_copy(0)
            )
        elif not fallback:
            raise SendfileNotAvailableError("not a regular file")
        else:
            if type(file) is io.BytesIO:
                total = max(0, file.getbuffer().nbytes - offset) if count is None else count
            self.endless = status is not None or not is_seekable(file)
            self._reader = ObjectReader(file, offset, endless=self.endless)
            self._way = self._by_copy(0)
        self.tally = Tally(total, progress)

    def _kernel_can(self, fd: int, size: int) -> bool:
        can = _kernel_takes(size)
        if can or self._fallback:
            return can
        # Files of /proc say that they are empty, and are not.
        if not hasattr(os, "sendfile") or os.pread(fd, 1, self._offset):
            raise SendfileNotAvailableError("os.sendfile() is not available")
        return True

    def _by_kernel(self) -> ByKernel:
        assert self._descriptor is not None
        end = None if self._count is None else self._offset + self._count
        return ByKernel(self._sock, self._descriptor, self._offset, end, self._fallback)

    def _by_copy(self, sent: int) -> ByCopy:
        left = None if self._count is None else self._count - sent
        if self._reader is not None:
            return ByCopy(self._sock, self._reader, left)
        assert self._descriptor is not None
        return ByCopy(self._sock, DescriptorReader(self._descriptor, self._offset + sent), left)

    def step(self) -> int:
        """Send once from what is at hand; ask for the file where nothing is."""
        before, is_asked = self.tally.sent, self._is_asked
        try:
            want = self._way.step(self.tally)
        except Refused:
            if not self._fallback:
                raise
            self._way.close()
            self._way = self._by_copy(self.tally.sent)
            want = FILE
        if self._failure is not None:
            # What was read before the failure goes first.
            if want == FILE:
                self._raise_failure()
            return want & ~FILE
        if not want & FILE:
            return want
        # Not while a thread reads, or is about to: it would be the same block.
        if isinstance(self._way, ByCopy) and not is_asked:
            if want != FILE:
                want = SOCKET | self._way.reads_ahead()
            elif self._way.is_ready():
                self.load()
                # One block a step, so that the event loop gets its turn.
                return self.step() if self.tally.sent == before else SOCKET
        self._is_asked = bool(want & FILE)
        return want

    def _raise_failure(self) -> None:
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                # Its traceback refers to this transfer.
                self._failure = None

    def load(self) -> None:
        """Read what the next steps send, unless the call has ended meanwhile."""
        with self._lock:
            if self.is_over:
                return
            self._is_reading = True
        with nullcontext() if self._reader is None else self._reader.position.lock:
            try:
                # A call that ended before it got the lock moves nothing any more.
                if not self.is_over:
                    self._way.load(self)
            except BaseException as error:  # raised by the step that misses the data, in its thread
                self._failure = error
            is_released = self.is_over
            if is_released:
                self._release()
        # Only now: `close` in the thread of the event loop must not have to wait for that lock.
        with self._lock:
            self._is_reading = self._is_asked = False
            is_left = self.is_over and not is_released
        if is_left:
            self._release()

    def hold(self, sock: socket.socket) -> None:
        """Send by `sock` from now on; take a descriptor of our own, as the file may be closed."""
        self._sock = self._way.sock = sock
        if self._descriptor is not None:
            self._descriptor.hold()

    @property
    def closes_slowly(self) -> bool:
        """Whether `close` has to seek, which may take its time (gzip starts anew)."""
        reader = self._reader
        # A thread that reads does it itself.
        if reader is None or reader.is_memory or self._is_reading:
            return False
        return not reader.is_at(self.tally.sent)

    def leave(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        """Release the descriptor and set the file position, or leave it to a thread that reads."""
        with self._lock:
            self.is_over = True
            is_reading = self._is_reading
        if self._descriptor is not None and self.tally.sent:
            # seek, not os.lseek: a BufferedReader that was read before would not notice. The file
            # may be closed, or have no position: neither is an error of the sending.
            with suppress(OSError, ValueError, AttributeError):
                position = self._offset + self.tally.sent
                self._file.seek(position)  # type: ignore[attr-defined]  # if not: suppressed
        self._way.close()
        if not is_reading:
            self._release()

    def _release(self) -> None:
        # Where the call ended before it was raised; its traceback refers to this transfer.
        self._failure = None
        if self._descriptor is not None:
            self._descriptor.release()
        if self._reader is not None:
            # Whatever such an object raises: what was sent was sent.
            with suppress(Exception):
                self._reader.restore(self.tally.sent)

    def ahead(self) -> int:
        """Answer FILE if the next block can be read while the last one is sent elsewhere."""
        assert isinstance(self._way, ByCopy)
        want = self._way.reads_ahead()
        if want:
            self._is_asked = True
        return want

    def rest(self) -> memoryview | FilePart | int:
        """Hand over a plain file whole, others block by block; FILE: `load` first."""
        if self._reader is None and self._may_go_whole:
            sent = self.tally.sent
            left = None if self._count is None else self._count - sent
            return FilePart(self._file, self._offset + sent, left, self._fallback)
        assert isinstance(self._way, ByCopy)
        is_asked = self._is_asked
        rest = self._way.take()
        if rest == FILE and self._failure is None and not is_asked and self._way.is_ready():
            self.load()
            rest = self._way.take()
        if rest == FILE:
            self._raise_failure()
            self._is_asked = True
        return rest


def kernel_sends(file: BinaryFile) -> bool:
    """Tell whether `os.sendfile` sends this file, to a socket that bytes go to as they are."""
    _, status = _descriptor_of(file)
    return status is not None and stat.S_ISREG(status.st_mode) and _kernel_takes(status.st_size)


def _kernel_takes(size: int) -> bool:
    """Tell whether `os.sendfile` can send a file of this size: those of /proc say 0."""
    return hasattr(os, "sendfile") and size > 0


def _descriptor_of(file: BinaryFile) -> tuple[int | None, os.stat_result | None]:
    """Return the descriptor whose bytes are just what reading the file gives, and its status.

    gzip and its like have a `fileno` too: that of the compressed file.
    """
    if isinstance(file, io.IOBase) and not isinstance(getattr(file, "raw", file), io.FileIO):
        return None, None
    try:
        fd = int(file.fileno())  # type: ignore[attr-defined]  # where it has none, see below
        return fd, os.fstat(fd)
    except (AttributeError, OSError):
        # No descriptor, whatever its `fileno` says: an object to be read.
        return None, None
