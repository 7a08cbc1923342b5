"""A file's bytes by `os.sendfile`, and never of a part that is not in the page cache.

That part is read first, by `load`, in a worker thread. `Refused` says that it cannot be this way.
"""

from __future__ import annotations

import errno
import os
from time import monotonic
from typing import TYPE_CHECKING

from ._errors import SendfileNotAvailableError
from ._residency import PageCache
from ._tally import STEP_SIZE
from ._transfers import WOULD_BLOCK
from ._wants import DONE, FILE, SOCKET

if TYPE_CHECKING:
    import socket

    from ._files import FileTransfer
    from ._tally import Tally

# What a worker thread reads of a cold file at a time. Longer windows are no faster and cost more
# CPU time: 0.32 s/GB with this, 0.40 with 1 MiB, 0.42 with 4 MiB (row "steps" of
# benchmarks/results).
WINDOW_SIZE = 256 * 1024

# How much is asked about at a time, and for how many seconds the answer is believed. An answer
# takes 2 to 5 us, a step to a fast peer 40 us. Pages are not thrown away sooner than that.
_SEEN_SIZE = 1024 * 1024
_SEEN_SECONDS = 0.05

# How os.sendfile says that it cannot read this file or write to this socket (ENOTSOCK: macOS,
# AF_UNIX). EPIPE and its like are not among them: they must come out as themselves.
_UNAVAILABLE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTSOCK}


class Descriptor:
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


class Refused(SendfileNotAvailableError):
    """The kernel will not send this. Its own class, as `progress` may raise the public one."""


class ByKernel:
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
        "_start",
        "sock",
    )

    def __init__(
        self, sock: socket.socket, file: Descriptor, start: int, end: int | None, must: bool
    ) -> None:
        self.sock = sock
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
        nbytes = min(tally.most, self._stop() - position)
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
            sent = os.sendfile(self.sock.fileno(), self._file.fd, position, nbytes)
        except WOULD_BLOCK:
            return SOCKET | self._ahead(position)
        except OSError as error:
            if tally.sent == 0 and error.errno in _UNAVAILABLE:
                raise Refused("os.sendfile call failed") from error
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
                raise Refused("the file does not stay in the page cache")
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
