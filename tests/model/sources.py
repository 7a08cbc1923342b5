"""Files of each kind to send."""

from __future__ import annotations

import gzip
import io
import os
from typing import TYPE_CHECKING, Any

from conftest import DATA
from odd_files import Reader

if TYPE_CHECKING:
    from pathlib import Path

PLAIN_FILES = ["buffered", "raw", "begun", "cold"]
OTHER_FILES = ["memory", "gzip", "pipe", "opaque"]


class Source:
    """A file to be sent, which has the same byte at each offset for ever."""

    def __init__(
        self, kind: str, path: Path, start: int, size: int, offset: int, count: int | None
    ) -> None:
        self.kind = kind
        self.path = path
        self.start = start
        self.is_plain = kind in PLAIN_FILES
        self.is_seekable = kind not in ("pipe", "opaque")
        self.is_closed = False
        self.size = size
        self.offset = offset if self.is_seekable else 0
        self.count = count
        self.file: Any = self._open(DATA[start : start + size])
        if kind == "begun":
            self.file.read(10)
        self.position = self.file.tell() if self.is_seekable else 0

    def _open(self, data: bytes) -> Any:
        if self.kind == "memory":
            return io.BytesIO(data)
        if self.kind == "opaque":
            return Reader(data)
        if self.kind == "pipe":
            reading, writing = os.pipe()
            # As much as it holds.
            self.size = os.write(writing, data[:65536])
            os.close(writing)
            return os.fdopen(reading, "rb")
        if self.kind == "gzip":
            self.path.write_bytes(gzip.compress(data, 1))
            return gzip.open(self.path)
        self.path.write_bytes(data)
        file = self.path.open("rb", buffering=0 if self.kind == "raw" else -1)
        if self.kind == "cold":
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file

    def end(self) -> int:
        """How many bytes a call sends of it as it is now."""
        left = max(0, self.size - self.offset)
        return left if self.count is None else min(left, self.count)

    def resize(self, size: int) -> None:
        if size > self.size:
            with self.path.open("ab") as file:
                file.write(DATA[self.start + self.size : self.start + size])
        else:
            os.truncate(self.path, size)
        self.size = size

    def close(self) -> None:
        self.is_closed = True
        if self.kind != "opaque":
            self.file.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
