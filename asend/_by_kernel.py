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

# What is seen to be cached is so for all calls that send of the same file, block by block, and for
# some time: pages are not thrown away sooner than that. An answer takes 2 us, or 18 us where the
# cache has single pages; a step of 256 KiB to a fast peer 50 us.
_BLOCK_SIZE = 1024 * 1024
_SEEN_SECONDS = 0.05
# Until when, by device, inode, time of the last change, and number of the block.
_seen: dict[tuple[int, int, int, int], float] = {}
# Some 100 bytes each.
_MOST_SEEN = 4096

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

    def status(self) -> os.stat_result:
        return os.fstat(self.fd)

    def size(self) -> int:
        return self.status().st_size


class Refused(SendfileNotAvailableError):
    """The kernel will not send this. Its own class, as `progress` may raise the public one."""


class ByKernel:
    """`os.sendfile` of what the page cache has."""

    __slots__ = (
        "_cache",
        "_end",
        "_fallback",
        "_file",
        "_identity",
        "_loaded_at",
        "_loaded_to",
        "_size",
        "_start",
        "sock",
    )

    def __init__(
        self, sock: socket.socket, file: Descriptor, start: int, end: int | None, fallback: bool
    ) -> None:
        self.sock = sock
        self._file = file
        self._start = start
        self._end = end
        # Whether what does not stay in the page cache may be copied instead.
        self._fallback = fallback
        status = file.status()
        self._size = status.st_size
        # A file that was changed or replaced does not share it with what it was.
        self._identity = status.st_dev, status.st_ino, status.st_ctime_ns
        # Where the last window began that a thread read, and where what was read ends.
        self._loaded_at = -1
        self._loaded_to = 0
        self._cache = PageCache()

    def step(self, tally: Tally) -> int:
        position = self._start + tally.sent
        if self._is_end(position, tally):
            return DONE
        nbytes = min(tally.most, self._stop() - position)
        # Asked once, as a thread may be reading on: what it ends now is for the next step.
        loaded_to = self._loaded_to
        if position < loaded_to:
            nbytes = min(nbytes, loaded_to - position)
        if self._is_cold(position, nbytes, loaded_to):
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
        if sent == 0 or self._is_end(position, tally):
            return DONE
        return SOCKET | self._ahead(position)

    def _stop(self) -> int:
        return self._size if self._end is None else min(self._end, self._size)

    def _is_end(self, position: int, tally: Tally) -> bool:
        if position == self._end:
            return True
        if position >= self._size:
            # It may have grown. Asking costs less than waiting for a slow peer to find the end.
            self._size = self._file.size()
            if self._end is None and position < self._size:
                # Whoever is to end the call early has to know that it is not complete.
                tally.total = self._size - self._start
        return position >= self._size

    def _is_cold(self, position: int, nbytes: int, loaded_to: int) -> bool:
        if self._are_seen(position // _BLOCK_SIZE, (position + nbytes - 1) // _BLOCK_SIZE):
            return False
        # Where the blocks are not all there, what is to be sent may be.
        resident = self._cache.has(self._file.fd, self._size, position, nbytes)
        if resident is None:
            return position >= loaded_to
        if resident:
            return False
        if position == self._loaded_at < loaded_to and self._file.size() >= self._size:
            # Just read, and not there, nor cut off: a file system without page cache (FUSE with
            # direct_io).
            if self._fallback:
                raise Refused("the file does not stay in the page cache")
            return False
        self._loaded_to = position
        return True

    def _are_seen(self, first: int, last: int) -> bool:
        """Tell whether blocks are cached, as was seen a moment ago or is now."""
        now = monotonic()
        for number in range(first, last + 1):
            key = (*self._identity, number)
            if now < _seen.get(key, 0.0):
                continue
            start = number * _BLOCK_SIZE
            nbytes = min(_BLOCK_SIZE, self._size - start)
            if not self._cache.has(self._file.fd, self._size, start, nbytes):
                return False
            if len(_seen) >= _MOST_SEEN:
                # What is sent just now is soon there again.
                _seen.clear()
            _seen[key] = now + _SEEN_SECONDS
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
