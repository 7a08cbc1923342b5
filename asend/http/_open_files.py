"""Files that are asked for again and again, kept open: the next answer waits for no disk.

A path is looked up in a worker thread, as that may take its time, and is good for a second then.
In between the open file itself is asked for its status, which never waits: one that was written
to, cut, replaced or removed meanwhile is looked up anew.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from email.utils import formatdate
from io import FileIO
from time import monotonic
from typing import TYPE_CHECKING, Final

from .._residency import PageCache

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

# A FIFO or a device that took the place of a file must not be waited for.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)


class IrregularFileError(OSError):
    """What is there is a directory, a device, a pipe or a socket."""


class OpenFile:
    """A regular file as it was when it was opened; closed with the last reference to it.

    To open it may wait: for a worker thread.

    Attributes:
        file: To send it by.
        size: In bytes.
        mtime: When it was modified, in whole seconds, as HTTP has them.
        last_modified: The same as a date of HTTP.
        tag: What an entity tag of this version is made of.

    Raises:
        IrregularFileError: What is at the path is no regular file.
        OSError: It cannot be opened.
        ValueError: No file can have this name, as one with NUL.
    """

    __slots__ = ("_lock", "_pages", "_status", "file", "last_modified", "mtime", "size", "tag")

    def __init__(self, path: str, *, follows: bool = True) -> None:
        flags = _FLAGS if follows else _FLAGS | _NO_FOLLOW
        # Before it is opened too: to open a device may do something.
        _check_regular(os.stat(path, follow_symlinks=follows))
        self.file: FileIO = _File(path, opener=lambda name, _: os.open(name, flags))
        self._pages = PageCache()
        self._lock = threading.Lock()
        self._status = os.fstat(self.file.fileno())
        _check_regular(self._status)
        self.size: int = self._status.st_size
        self.mtime: int = int(self._status.st_mtime)
        self.last_modified: str = formatdate(self.mtime, usegmt=True)
        self.tag: str = f"{self._status.st_mtime_ns:x}-{self.size:x}"

    def is_current(self) -> bool:
        """Tell whether the file is still what it was, and at a path. Never waits."""
        now, was = os.fstat(self.file.fileno()), self._status
        return (
            # That of the status too: who may read it, and what was written with the time set back.
            now.st_ctime_ns == was.st_ctime_ns
            and now.st_mtime_ns == was.st_mtime_ns
            and now.st_size == was.st_size
            and now.st_nlink > 0
        )

    def is_at(self, path: str, *, follows: bool) -> bool:
        """Tell whether this path leads to it. May wait."""
        try:
            return os.path.samestat(os.stat(path, follow_symlinks=follows), self._status)
        except OSError:
            return False

    def read_now(self, offset: int, nbytes: int) -> bytes | None:
        """Read a part if that needs no waiting and all of it is there; None if not."""
        with self._lock:
            return self._pages.read(self.file.fileno(), self.size, offset, nbytes)

    def __del__(self) -> None:
        # Not all is there where opening failed.
        if hasattr(self, "_pages"):
            self._pages.release()
        if hasattr(self, "file"):
            self.file.close()


class _File(FileIO):
    """Closes without a warning where a cycle ends and its turn comes before that of its owner."""

    def __del__(self) -> None:
        self.close()


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IrregularFileError(errno.EINVAL, "not a regular file")


class _Entry:
    __slots__ = ("found", "is_link", "made", "until", "was_used")

    def __init__(self, found: OpenFile | None, until: float, *, is_link: bool) -> None:
        self.found = found
        # Whether the path is of a link, which `find_beside` does not follow.
        self.is_link = is_link
        self.until = until
        self.was_used = False
        # By key: what was made of the file, and until when there is nothing beside it.
        self.made: dict[Hashable, tuple[object, float]] = {}


class FileCache:
    """The files that were asked for lately, open.

    Args:
        most: The most files to hold open. Four times as many paths are remembered, those at which
            there was nothing included.
        seconds: How long a path that was looked up is taken to lead to the same file. What happens
            to the file itself shows at once.
        largest: Larger files, in bytes, are opened for each answer; it costs little of theirs, and
            one that is removed is not kept on the disk.

    Raises:
        ValueError: One of these is negative.

    A file is held until it is pushed out by others, or was looked up anew. A cache may be used in
    several threads.
    """

    def __init__(self, most: int = 256, seconds: float = 1.0, largest: int = 1 << 20) -> None:
        if most < 0 or not seconds >= 0 or largest < 0:
            raise ValueError("most, seconds and largest must not be negative")
        self._most = most
        self._seconds = seconds
        self._largest = largest
        self._entries: dict[str, _Entry] = {}
        self._held = 0
        self._lock = threading.Lock()

    def find(self, path: str) -> OpenFile | None:
        """Return the file at a path without waiting, None if there was none.

        Raises:
            KeyError: It has to be looked up.
        """
        return self._current(path, monotonic()).found

    def find_beside(self, paths: Iterable[str]) -> list[OpenFile | None]:
        """Return the files at some paths themselves, no links, as `find` does.

        Raises:
            KeyError: One of them has to be looked up.
        """
        now = monotonic()
        entries = [self._current(path, now) for path in paths]
        return [None if entry.is_link else entry.found for entry in entries]

    def _current(self, path: str, now: float) -> _Entry:
        entry = self._entries[path]
        found = entry.found
        if now > entry.until or (found is not None and not found.is_current()):
            raise KeyError(path)
        entry.was_used = True
        return entry

    def remember(
        self, path: str, file: OpenFile, beside: Iterable[str], key: Hashable, made: object
    ) -> None:
        """Keep what was made of a file for an answer, for as long as it would be made again.

        Args:
            path: Of the file.
            file: As it was found there.
            beside: Paths at which there must be nothing, such as those of its encoded variants.
            key: Whose it is, and what else it depends on. There should be few.
            made: What `recall` returns.
        """
        entry = self._entries.get(path)
        others = [self._entries.get(other) for other in beside]
        if entry is None or entry.found is not file:
            # Large, pushed out, or another one by now.
            return
        if any(other is None or other.found is not None for other in others):
            return
        entry.made[key] = made, min(each.until for each in (entry, *others) if each is not None)

    def recall(self, path: str, key: Hashable) -> object | None:
        """Return what was remembered, None if there is nothing or the file has changed."""
        entry = self._entries.get(path)
        if entry is None or entry.found is None or (known := entry.made.get(key)) is None:
            return None
        made, until = known
        if monotonic() > until or not entry.found.is_current():
            return None
        entry.was_used = True
        return made

    def look_up(self, path: str) -> OpenFile:
        """Return the file at a path. May wait: for a worker thread.

        Raises:
            IrregularFileError: It is no regular file.
            OSError: It cannot be opened.
            ValueError: No file can have this name, as one with NUL.
        """
        try:
            found = self._reuse(path, follows=True) or OpenFile(path)
        except OSError:
            self._forget(path)
            raise
        self._keep(path, found, is_link=os.path.islink(path))
        return found

    def look_beside(self, paths: Iterable[str]) -> list[OpenFile | None]:
        """Return the files at some paths themselves, no links; None for what is no file.

        May wait: for a worker thread.

        Raises:
            ValueError: No file can have one of these names, as one with NUL.
        """
        return [self._look_beside(path) for path in paths]

    def _look_beside(self, path: str) -> OpenFile | None:
        try:
            found = self._reuse(path, follows=False) or OpenFile(path, follows=False)
        except OSError:
            found = None
        self._keep(path, found, is_link=False)
        return found

    def clear(self) -> None:
        """Forget all files; those that are being sent are closed after that."""
        with self._lock:
            self._entries.clear()
            self._held = 0

    def _reuse(self, path: str, *, follows: bool) -> OpenFile | None:
        entry = self._entries.get(path)
        if entry is None or entry.found is None:
            return None
        found = entry.found
        return found if found.is_current() and found.is_at(path, follows=follows) else None

    def _forget(self, path: str) -> None:
        with self._lock:
            self._take(path)

    def _keep(self, path: str, found: OpenFile | None, *, is_link: bool) -> None:
        if found is not None and found.size > self._largest:
            self._forget(path)
            return
        with self._lock:
            self._take(path)
            self._put(path, _Entry(found, monotonic() + self._seconds, is_link=is_link))
            while self._held > self._most or len(self._entries) > 4 * self._most:
                # The oldest; what was used since it was put there gets a second chance.
                path = next(iter(self._entries))
                entry = self._entries[path]
                self._take(path)
                if entry.was_used:
                    entry.was_used = False
                    self._put(path, entry)

    def _put(self, path: str, entry: _Entry) -> None:
        self._entries[path] = entry
        self._held += entry.found is not None

    def _take(self, path: str) -> None:
        entry = self._entries.pop(path, None)
        if entry is not None:
            self._held -= entry.found is not None


# Which files there are does not depend on who asks.
FILES: Final = FileCache()
"""The cache of all who have none of their own."""
