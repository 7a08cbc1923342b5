"""What is to be sent from a file: by the kernel where it can be, else by copying it.

`FileTransfer` is what drivers see. It holds the descriptor, keeps clean-up and worker thread
apart, sets the file position at the end, and changes its way when the kernel refuses. The ways:

* `_ByKernel`: `os.sendfile`, never of a part that is not in the page cache: that is read first,
  by `load`, in a worker thread.
* `_ByCopy`: a block is read by `load` in a worker thread while the one before it is sent.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from ._arguments import as_octets, is_seekable
from ._errors import SendfileNotAvailableError
from ._residency import PageCache
from ._tally import Tally
from ._transfers import STEP_SIZE, WOULD_BLOCK
from ._wants import DONE, FILE, SOCKET, FilePart

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ._arguments import BinaryFile

# What a worker thread reads of a cold file at a time. Longer windows save hand-overs, of some
# 50 us each, shorter ones bring the first byte sooner.
WINDOW_SIZE = 1024 * 1024

# How much is asked about at a time, and for how many seconds the answer is believed. An answer
# takes 2 to 5 us, a step to a fast peer 40 us. Pages are not thrown away sooner than that.
_SEEN_SIZE = 1024 * 1024
_SEEN_SECONDS = 0.05

# How os.sendfile says that it cannot read this file or write to this socket (ENOTSOCK: macOS,
# AF_UNIX). EPIPE and its like are not among them: they must come out as themselves.
_UNAVAILABLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTSOCK}


class _Descriptor:
    """A file's descriptor; `hold` makes it ours, so that its number cannot become another file."""

    __slots__ = ("_is_ours", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._is_ours = False

    def hold(self) -> None:
        self.fd = os.dup(self.fd)
        self._is_ours = True

    def release(self) -> None:
        if self._is_ours:
            self._is_ours = False
            os.close(self.fd)

    def size(self) -> int:
        return os.fstat(self.fd).st_size


class _Refused(SendfileNotAvailableError):
    """The kernel will not send this. Its own class, as `progress` may raise the public one."""


class _ByKernel:
    """`os.sendfile` of what the page cache has."""

    __slots__ = (
        "_cache",
        "_end",
        "_file",
        "_loaded_at",
        "_loaded_to",
        "_must",
        "_seen_to",
        "_seen_until",
        "_size",
        "_sock",
        "_start",
    )

    def __init__(
        self, sock: socket.socket, file: _Descriptor, start: int, end: int | None, must: bool
    ) -> None:
        self._sock = sock
        self._file = file
        self._start = start
        self._end = end
        self._must = must
        self._size = file.size()
        # Where the last window began that a thread read, and where what was read ends.
        self._loaded_at = -1
        self._loaded_to = 0
        # How far the file was seen to be cached, and until when that is believed.
        self._seen_to = 0
        self._seen_until = 0.0
        self._cache = PageCache()

    def step(self, tally: Tally) -> int:
        position = self._start + tally.sent
        if self._is_end(position):
            return DONE
        nbytes = min(STEP_SIZE, self._stop() - position)
        if position < self._loaded_to:
            nbytes = min(nbytes, self._loaded_to - position)
        if self._is_cold(position, nbytes):
            size = self._file.size()
            if size >= self._size:
                return FILE
            # It was cut meanwhile, and what is not there will never be cached.
            self._size = size
            return self.step(tally)
        try:
            sent = os.sendfile(self._sock.fileno(), self._file.fd, position, nbytes)
        except WOULD_BLOCK:
            return SOCKET | self._ahead(position)
        except OSError as error:
            if tally.sent == 0 and error.errno in _UNAVAILABLE:
                raise _Refused("os.sendfile call failed") from error
            raise
        tally.add(sent)
        position += sent
        if sent == 0 or self._is_end(position):
            return DONE
        return SOCKET | self._ahead(position)

    def _stop(self) -> int:
        return self._size if self._end is None else min(self._end, self._size)

    def _is_end(self, position: int) -> bool:
        if position == self._end:
            return True
        if position >= self._size:
            # It may have grown. Asking costs less than waiting for a slow peer to find the end.
            self._size = self._file.size()
        return position >= self._size

    def _is_cold(self, position: int, nbytes: int) -> bool:
        # Read before the cache is asked, as a thread may be reading just this.
        loaded_to, now = self._loaded_to, monotonic()
        if position + nbytes <= self._seen_to and now < self._seen_until:
            return False
        # First for several steps; where those are not all there, for this one.
        for asked in (min(_SEEN_SIZE, self._size - position), nbytes):
            resident = self._cache.has(self._file.fd, self._size, position, asked)
            if resident is None:
                return position >= loaded_to
            if resident:
                self._seen_to, self._seen_until = position + asked, now + _SEEN_SECONDS
                return False
        if position == self._loaded_at < loaded_to:
            # Just read, and not there: a file system without page cache (FUSE with direct_io).
            if not self._must:
                raise _Refused("the file does not stay in the page cache")
            return False
        self._loaded_to = position
        return True

    def close(self) -> None:
        self._cache.release()

    def _ahead(self, position: int) -> int:
        # Only a file that was cold here is read ahead, and by one window at most.
        left = self._loaded_to - position
        return FILE if 0 < left <= WINDOW_SIZE // 2 and self._loaded_to < self._stop() else 0

    def load(self, transfer: FileTransfer) -> None:
        at = self._loaded_at = max(self._start + transfer.tally.sent, self._loaded_to)
        # The size is the loop thread's; a read beyond the end just reads nothing.
        stop = min(at + WINDOW_SIZE, self._stop())
        scratch = [bytearray(STEP_SIZE)]
        while at < stop and not transfer.is_over:
            os.preadv(self._file.fd, scratch, at)
            at = min(at + STEP_SIZE, stop)
            self._loaded_to = at


class _ByCopy:
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


class _ObjectReader:
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


class FileTransfer:
    """A file's bytes from `offset` to its end, or `count` of them."""

    __slots__ = (
        "_count",
        "_descriptor",
        "_failure",
        "_fallback",
        "_file",
        "_is_inline",
        "_is_reading",
        "_lock",
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
    ) -> None:
        self._sock = sock
        self._file = file
        self._offset = offset
        self._count = count
        self._fallback = fallback
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._is_reading = False
        self.is_over = False
        self._is_inline = False
        self._reader: _ObjectReader | None = None
        self._descriptor: _Descriptor | None = None
        self._way: _ByKernel | _ByCopy

        fd = _descriptor_of(file)
        try:
            status = None if fd is None else os.fstat(fd)
        except OSError:
            # No descriptor, whatever its `fileno` says: an object to be read.
            status = None
        total = count
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if fd is not None and status is not None and stat.S_ISREG(status.st_mode):
            # What was written through this object must be in the file before the file is read.
            getattr(file, "flush", int)()
            self.endless = False
            self._descriptor = _Descriptor(fd)
            size = self._descriptor.size()
            total = max(0, size - offset) if count is None and size else count
            self._way = self._by_kernel() if self._kernel_can(fd, size) else self._by_copy(0)
        elif not fallback:
            raise SendfileNotAvailableError("not a regular file")
        else:
            if type(file) is io.BytesIO:
                # Memory needs no thread.
                self._is_inline = True
                total = max(0, file.getbuffer().nbytes - offset) if count is None else count
            self.endless = status is not None or not is_seekable(file)
            self._reader = _ObjectReader(file, offset, endless=self.endless)
            self._way = self._by_copy(0)
        self.tally = Tally(total, progress)

    def _kernel_can(self, fd: int, size: int) -> bool:
        can = hasattr(os, "sendfile") and size > 0
        if can or self._fallback:
            return can
        # Files of /proc say that they are empty, and are not.
        if not hasattr(os, "sendfile") or os.pread(fd, 1, self._offset):
            raise SendfileNotAvailableError("os.sendfile() is not available")
        return True

    def _by_kernel(self) -> _ByKernel:
        assert self._descriptor is not None
        end = None if self._count is None else self._offset + self._count
        return _ByKernel(self._sock, self._descriptor, self._offset, end, not self._fallback)

    def _by_copy(self, sent: int) -> _ByCopy:
        left = None if self._count is None else self._count - sent
        if self._reader is not None:
            return _ByCopy(self._sock, self._reader.read, left)
        descriptor, at = self._descriptor, self._offset + sent
        assert descriptor is not None

        def read(nbytes: int) -> memoryview:
            nonlocal at
            block = os.pread(descriptor.fd, nbytes, at)
            at += len(block)
            return memoryview(block)

        return _ByCopy(self._sock, read, left)

    def step(self) -> int:
        """Send once from what is at hand; ask for the file where nothing is."""
        try:
            want = self._way.step(self.tally)
        except _Refused:
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
        if not self._is_inline:
            return want
        if want != FILE:
            return want & ~FILE
        self.load()
        return self.step()

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
        try:
            self._way.load(self)
        except BaseException as error:
            # Raised by the step that misses the data, in the thread of the call.
            self._failure = error
        with self._lock:
            self._is_reading = False
            is_over = self.is_over
        if is_over:
            self._release()

    def hold(self) -> None:
        """Take a descriptor of our own, as the file may be closed while the call waits."""
        if self._descriptor is not None:
            self._descriptor.hold()

    @property
    def closes_slowly(self) -> bool:
        """Whether `close` has to seek, which may take its time (gzip starts anew)."""
        reader = self._reader
        # A thread that reads does it itself.
        if self._is_inline or self._is_reading or reader is None:
            return False
        return not reader.is_at(self.tally.sent)

    def close(self) -> None:
        """Release the descriptor and set the file position, or leave it to a thread that reads."""
        with self._lock:
            self.is_over = True
            is_reading = self._is_reading
        if self._descriptor is not None and self.tally.sent:
            # seek, not os.lseek: a BufferedReader that was read before would not notice. The file
            # may be closed, or have no position: neither is an error of the sending.
            with suppress(OSError, ValueError, AttributeError):
                self._file.seek(self._offset + self.tally.sent)  # type: ignore[attr-defined]
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

    def rest(self) -> memoryview | FilePart | int:
        """Hand over a plain file whole, others block by block; FILE: `load` first."""
        if self._reader is None:
            sent = self.tally.sent
            left = None if self._count is None else self._count - sent
            return FilePart(self._file, self._offset + sent, left, self._fallback)
        assert isinstance(self._way, _ByCopy)
        rest = self._way.take()
        if rest == FILE:
            self._raise_failure()
        return rest


def _descriptor_of(file: BinaryFile) -> int | None:
    """Return the descriptor whose bytes are just what reading the file gives, or None.

    gzip and its like have a `fileno` too: that of the compressed file.
    """
    if isinstance(file, io.IOBase) and not isinstance(getattr(file, "raw", file), io.FileIO):
        return None
    try:
        fd = file.fileno()  # type: ignore[attr-defined]  # where it has none, see below
    except (AttributeError, io.UnsupportedOperation):
        return None
    return int(fd)
