"""The access log in combined format, written by a thread: who reads it late hinders no client.

The loop formats a line and appends it to a queue, which takes microseconds. To wake the thread for
each line would make loop and thread contend for the interpreter; it gathers lines for a moment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from activity import Line

# How long a line may wait for others.
GATHER_SECONDS = 0.05
# Lines that are not written yet; as many bytes as it takes a slow disk a moment to be behind.
MAX_WAITING = 4 * 1024 * 1024
# Writes to a pipe of no more than this are not mixed with those of other workers (PIPE_BUF).
WHOLE_NBYTES = 4096
# Seconds between two complaints about lines that were lost.
COMPLAINT_SECONDS = 10.0
# Seconds for the last lines to be written, where the process has nothing else to do.
CLOSE_SECONDS = 1.0

# What could be taken for another field, another line or an order to a terminal.
UNSAFE = re.compile(r'[^\x20-\x7e]|["\\]')

logger = logging.getLogger("file_server")


class AccessLog:
    """A log on a descriptor, which stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        # Each is counted by one thread only: their difference needs no lock.
        self._taken = self._written = 0
        # Dropped are those for which there was no room; those of them that were said so.
        self._dropped = self._said = 0
        self._silent_until = 0.0
        self._second, self._moment = 0, ""
        self._is_broken = False
        self._filled = threading.Event()
        self._closing = threading.Event()
        # A daemon: the process does not wait at its end for somebody to read.
        self._thread = threading.Thread(target=self._write_on, name="access log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines there was no room for."""
        return self._dropped

    def put(self, line: Line) -> None:
        """Take a line, or drop it if too much waits to be written. For `Activity.log`."""
        if self._is_broken:
            return
        if self._taken - self._written > MAX_WAITING:
            self._dropped += 1
            return
        self._append(self._formatted(line))

    def say(self, text: str) -> None:
        """Have a line written that is none of the access log."""
        self._append(f"{text}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Write what is left, as far as it is read soon."""
        self._closing.set()
        self._filled.set()
        self._thread.join(CLOSE_SECONDS)

    def _append(self, data: bytes) -> None:
        self._lines.append(data)
        self._taken += len(data)
        if not self._filled.is_set():
            self._filled.set()

    def _formatted(self, line: Line) -> bytes:
        second = int(line.moment)
        if second != self._second:
            self._second = second
            self._moment = time.strftime("[%d/%b/%Y:%H:%M:%S +0000]", time.gmtime(second))
        # A client of IPv4 at a socket of IPv6.
        client = line.client.removeprefix("::ffff:") or "unix:"
        request, referer, agent = map(escaped, (line.request, line.referer, line.agent))
        return (
            f'{client} - - {self._moment} "{request}" {line.status} {line.nbytes or "-"} '
            f'"{referer or "-"}" "{agent or "-"}"\n'
        ).encode()

    # The thread.

    def _write_on(self) -> None:
        try:
            while not (self._closing.is_set() and not self._lines):
                self._filled.wait()
                self._closing.wait(GATHER_SECONDS)
                self._filled.clear()
                while self._lines:
                    self._write(self._batch())
                self._tell_dropped()
        except OSError as error:
            self._is_broken = True
            self._lines.clear()
            logger.warning("the access log ends: %s", error.strerror)

    def _batch(self) -> bytes:
        """Return as many whole lines as one write keeps together, at least one."""
        lines = [self._lines.popleft()]
        nbytes = len(lines[0])
        while self._lines and (nbytes := nbytes + len(self._lines[0])) <= WHOLE_NBYTES:
            lines.append(self._lines.popleft())
        return b"".join(lines)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Another process has made the terminal or the pipe non-blocking for us too.
                select.select([], [self._descriptor], [])
        self._written += len(data)

    def _tell_dropped(self) -> None:
        count = self._dropped - self._said
        if count and time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + COMPLAINT_SECONDS
            self._said += count
            with contextlib.suppress(OSError):
                logger.warning("the access log lacks %d lines: it is read too late", count)


def escaped(text: str) -> str:
    r"""Return a text of a client in printable ASCII, as Apache does: `\"`, `\\`, `\x1b`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    # Header fields come as Latin-1: what is one byte there was one byte of the request.
    encoding = "latin-1" if character < "\u0100" else "utf-8"
    return "".join(f"\\x{byte:02x}" for byte in character.encode(encoding, "surrogateescape"))
