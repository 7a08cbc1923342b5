"""The files that are served: what a path leads to, and small ones with their answers made up.

A path is looked up in a worker thread, and what it leads to is believed for some seconds. A small
file that was asked for as a whole is one piece of bytes then, head and body, with a new date each
second; it is sent without a system call but for the sending.
"""

from __future__ import annotations

import mimetypes
import os
import threading
from contextlib import suppress
from resource import RLIMIT_NOFILE, getrlimit
from typing import TYPE_CHECKING, TypeAlias

from asend.http import OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from options import Options
    from paths import Confinement

# Their answers are kept: larger ones go by the kernel, which copies nothing. Up to here a copy is
# cheaper than a system call more, and a task.
MAX_READY = 64 * 1024
# Files of paths that are known, open; of all that may be open they take an eighth.
MAX_KEPT = 1000
SHARE_OF_OPEN = 8
# Seconds for which a file is kept, and open, for one who may ask again.
KEEP_SECONDS = 10.0
# Sidecars: the same file, encoded beforehand. The server's favourite first.
SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
CODINGS = tuple(SUFFIXES)
# The types that Python knows, whatever the machine's own tables say.
TYPES = mimetypes.MimeTypes()
DATE_NBYTES = len("Sun, 06 Nov 1994 08:49:37 GMT")


class Variant:
    """A file in one coding, or as it is.

    Attributes:
        file: Open.
        etag: Distinct for each coding.
        fields: What is said of it in each answer.
    """

    __slots__ = ("_date", "_date_at", "_ready", "etag", "fields", "file")

    def __init__(self, file: OpenFile, coding: str | None, fields: dict[str, str]) -> None:
        self.file = file
        self.etag = f'"{file.tag}-{coding}"' if coding else f'"{file.tag}"'
        self.fields = {
            "ETag": self.etag,
            "Last-Modified": file.last_modified,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
            **fields,
        }
        if coding:
            self.fields["Content-Encoding"] = coding
        self._ready: bytes | None = None
        self._date = b""
        self._date_at = 0

    def keep(self, head: bytes) -> None:
        """Have the whole answer at hand, if the file is small. Blocking.

        Args:
            head: With a date, which is replaced when it is due.
        """
        size = self.file.size
        if self._ready is None and size <= MAX_READY:
            body = os.pread(self.file.file.fileno(), size + 1, 0)
            if len(body) == size and self.file.is_current():
                self._date_at = head.index(b"\r\nDate: ") + len(b"\r\nDate: ")
                self._date = head[self._date_at : self._date_at + DATE_NBYTES]
                self._ready = head + body

    def ready(self, date: bytes) -> bytes | None:
        """Return the whole answer with this date, None if it is not at hand."""
        ready = self._ready
        if ready is not None and date != self._date:
            at = self._date_at
            self._ready = ready = b"".join([ready[:at], date, ready[at + DATE_NBYTES :]])
            self._date = date
        return ready


class Resource:
    """What a path leads to: a file as it is, and in other codings.

    Attributes:
        variants: By coding, None as it is.
        keys: By which others know it.
        until: When it has to be looked up again, by the monotonic clock.
    """

    __slots__ = ("content_type", "keys", "path", "until", "variants")

    def __init__(self, path: str, variants: dict[str | None, Variant], content_type: str) -> None:
        self.path = path
        self.variants = variants
        self.content_type = content_type
        self.keys: set[Key] = set()
        self.until = 0.0

    def best(self, codings: tuple[str, ...]) -> Variant:
        """Return the first variant of those that a client takes, or the file as it is."""
        variants = self.variants
        if len(variants) > 1:
            for coding in codings:
                if coding in variants:
                    return variants[coding]
        return variants[None]


# A target and Accept-Encoding, and what they lead to.
Key: TypeAlias = tuple[bytes, bytes | None]
Known: TypeAlias = dict[Key, tuple[Resource, Variant]]


class Files:
    """The files below the folder that is served.

    Args:
        options: What is served, and for how long it is believed.
        confinement: Which files may be.
        now: The clock by which what is known grows old.
        known: Of it goes what is not kept any more.
    """

    def __init__(
        self,
        options: Options,
        confinement: Confinement,
        now: Callable[[], float],
        known: Known,
    ) -> None:
        self._known = known
        self._now = now
        self._most = most_kept(getrlimit(RLIMIT_NOFILE)[0])
        self._confinement = confinement
        self._seconds = options.cache_seconds
        self._cache_control = options.cache_control
        self._resources: dict[str, Resource] = {}
        # Files of these.
        self._held = 0
        self._lock = threading.Lock()

    def find(self, path: str) -> Resource | None:
        """Return what a path leads to if that is known."""
        resource = self._resources.get(path)
        if resource is None or self._now() >= resource.until:
            return None
        return resource

    def look_up(self, path: str) -> Resource:
        """Return what a path leads to. Blocking.

        Raises:
            OSError: It is no regular file, cannot be opened, or must not be served.
        """
        began = self._now()
        files: dict[str | None, OpenFile] = {None: OpenFile(path)}
        for coding, suffix in SUFFIXES.items():
            with suppress(OSError):
                files[coding] = OpenFile(path + suffix, follows=False)
        for file in files.values():
            self._confinement.check(file.file.fileno(), path)
        resource = self._new(path, files)
        resource.until = began + self._seconds
        with self._lock:
            self._take(path)
            self._resources[path] = resource
            self._held += len(resource.variants)
            while self._held > self._most:
                # What was looked up the longest ago.
                self._take(next(iter(self._resources)))
        return resource

    def _take(self, path: str) -> None:
        resource = self._resources.pop(path, None)
        if resource is not None:
            self._held -= len(resource.variants)
            # A thread may add another one meanwhile.
            for key in [*resource.keys]:
                self._known.pop(key, None)

    def _new(self, path: str, files: dict[str | None, OpenFile]) -> Resource:
        content_type = _content_type(path)
        fields = {"Content-Type": content_type}
        if self._cache_control is not None:
            fields["Cache-Control"] = self._cache_control
        if len(files) > 1:
            fields["Vary"] = "Accept-Encoding"
        variants = {coding: Variant(file, coding, fields) for coding, file in files.items()}
        return Resource(path, variants, content_type)

    def has(self, resource: Resource) -> bool:
        """Tell whether this is still what its path leads to, as far as is known."""
        return self._resources.get(resource.path) is resource

    def forget_old(self) -> None:
        """Forget, and close, what nobody has asked for lately."""
        now = self._now()
        with self._lock:
            for path, resource in [*self._resources.items()]:
                if now > resource.until + KEEP_SECONDS:
                    self._take(path)


def most_kept(limit: int) -> int:
    """Return how many files are kept open at most where so many descriptors may be."""
    return min(MAX_KEPT, limit // SHARE_OF_OPEN)


def _content_type(path: str) -> str:
    kind, encoding = TYPES.guess_type(path, strict=False)
    if encoding is not None:
        # "x.tar.gz" is sent as the archive it is, not as a tar that a browser would unpack.
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if kind is None:
        return "application/octet-stream"
    is_text = kind.startswith("text/") or kind in ("application/javascript", "application/json")
    return f"{kind}; charset=utf-8" if is_text else kind
