"""File objects that are no plain descriptors."""

from __future__ import annotations

import io
import threading


class Reader:
    """A file object with nothing but `read`."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


class Opaque:
    """A file object with nothing but what it needs: read, seek, tell."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.read = self._file.read
        self.seek = self._file.seek
        self.tell = self._file.tell


class Gated(Opaque):
    """An object whose reads after the first wait for a gate, as a slow disk does."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.gate = threading.Event()
        self.is_reading = threading.Event()
        self.was_restored = threading.Event()
        self.reads = 0
        self.read = self._read
        self.seek = self._seek

    def _read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > 1:
            self.is_reading.set()
            assert self.gate.wait(20)
        return self._file.read(size)

    def _seek(self, position: int) -> int:
        position = self._file.seek(position)
        if self.reads:
            self.was_restored.set()
        return position
