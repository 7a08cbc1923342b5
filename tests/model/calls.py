"""What the model knows of each call: the bytes that it sends, what happened to it, how it ended."""

from __future__ import annotations

import array
import asyncio
import re
from typing import TYPE_CHECKING, Any

import trio
from conftest import DATA

import asend

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtimes import Task
    from sources import Source

# Seconds of limits that are there to be broken, and of others.
SHORT, LONG = 0.01, 3600.0
# By what is in "hurry".
LIMITS: dict[str, dict[str, Any]] = {
    "none": {},
    "raises": {},
    "kept": {"timeout": LONG, "limits": asend.Limits(stall=LONG, min_rate=0.01, grace=LONG)},
    "zero": {"timeout": 0},
    "timeout": {"timeout": SHORT},
    "stall": {"limits": asend.Limits(stall=SHORT)},
    "rate": {"limits": asend.Limits(min_rate=1e12, grace=SHORT)},
}
# What the errors say of those that are broken.
WORDS = {"timeout": "within 0.01 s", "zero": "within 0 s", "stall": "stalled", "rate": "too slow"}
# Where the progress of a call raises.
RAISES_AFTER = 3000


class Raised(Exception):
    """What the progress of a call raises."""


class Piece:
    """A piece of what is sent: DATA from `start` on, and how much of it has gone and has come."""

    def __init__(self, start: int, size: int) -> None:
        self.start = start
        # What it may send in the end: one number, unless its file changed meanwhile.
        self.ends_at = {size}
        self.sent = size
        self.received = 0
        # Whether `sent` is known to be just what has left.
        self.is_exact = True
        self.has_ended = True
        # Bytes that may come as zeros, as their file was cut before they came.
        self.blurred = range(0)

    def __repr__(self) -> str:
        names = ("start", "ends_at", "sent", "received", "is_exact", "hurry", "met", "error")
        known = ", ".join(f"{name}={vars(self)[name]}" for name in names if name in vars(self))
        return f"<{type(self).__name__} {known}>"

    @property
    def may_come(self) -> int:
        return (self.sent if self.is_exact else max(self.ends_at)) - self.received

    def receive(self, data: bytes) -> None:
        at = self.start + self.received
        due = DATA[at : at + len(data)]
        if data != due:
            for n, (is_, should) in enumerate(zip(data, due, strict=True), self.received):
                assert is_ == should or (is_ == 0 and n in self.blurred), f"byte {n} of {self}"
        self.received += len(data)


class Call(Piece):
    """A call of asend."""

    task: Task

    def __init__(
        self, start: int, size: int, send: Callable[..., Any], hurry: str, *, is_watched: bool
    ) -> None:
        super().__init__(start, size)
        self.sent = 0
        self.has_ended = False
        self.send = send
        self.hurry = hurry
        # Else it has no `progress`, and says only at its end how far it came.
        self.is_watched = is_watched or hurry == "raises"
        self.source: Source | None = None
        # Whether it goes by `os.sendfile`, and whether it is to fail else.
        self.by_kernel = self.needs_kernel = False
        self.data: object = None
        # The call that was sending when it began.
        self.rival: Call | None = None
        # What was done to it.
        self.met: set[str] = set()
        # What had gone by then, where nothing more may go.
        self.sent_when_cancelled: int | None = None
        # How it ended.
        self.has_begun = self.has_returned = False
        self.result: object = None
        self.error: BaseException | None = None
        # Whether its buffer was still held then.
        self.is_held = False

    def progress(self, nbytes: int) -> None:
        assert not self.has_ended
        self.sent += nbytes
        if self.hurry == "raises" and self.sent > RAISES_AFTER:
            raise Raised

    async def run(self) -> None:
        self.has_begun = True
        options = {"progress": self.progress} if self.is_watched else {}
        try:
            self.result = await self.send(**options, **LIMITS[self.hurry])
            self.has_returned = True
        except Exception as error:  # to be judged
            self.error = error
        except BaseException as error:  # a cancellation, whatever its class; to be judged, too
            self.error = error
            raise
        finally:
            self.is_held = is_held(self.data)

    @property
    def is_cancelled(self) -> bool:
        return not self.has_begun or isinstance(
            self.error, (asyncio.CancelledError, trio.Cancelled)
        )

    @property
    def is_fine(self) -> bool:
        """Whether it has returned, or nothing has been done to it that would end it."""
        return self.has_returned or not (self.has_ended or self.met or self.hurry != "none")

    @property
    def is_complete(self) -> bool:
        # What is copied was read before it is sent: it may end at any size the file has had.
        if self.source is not None and not self.by_kernel:
            return min(self.ends_at) <= self.sent <= max(self.ends_at)
        return self.sent in self.ends_at

    def may_be_resized(self) -> bool:
        """Whether its file may change now, and we know what becomes of it."""
        source = self.source
        is_known = self.rival is None and self.is_watched and not self.task.done()
        return is_known and source is not None and source.is_plain and not source.is_closed

    def resize(self, size: int) -> None:
        """Change its file."""
        assert self.source is not None
        was_at_end = self.is_complete
        self.source.resize(size)
        ends_at = {max(self.sent, self.source.end())}
        if was_at_end:
            # Perhaps it has ended, and its task does not know yet.
            ends_at.add(self.sent)
        self.ends_at = ends_at if self.by_kernel else self.ends_at | ends_at

    def says(self) -> int:
        """How many bytes the call itself says to have sent, at its end."""
        if not self.has_returned:
            noted = re.findall(
                r"^(\d+) of (?:an unknown number of|\d+) bytes sent$",
                "\n".join(getattr(self.error, "__notes__", [])),
                re.MULTILINE,
            )
            assert len(noted) <= 1
            # Without a note it has not begun to send.
            return int(noted[0]) if noted else 0
        if self.source is None:
            assert self.result is None
            return max(self.ends_at)
        assert isinstance(self.result, int)
        return self.result


def is_held(data: object) -> bool:
    """Tell whether somebody holds the memory of a bytearray."""
    if isinstance(data, bytearray):
        try:
            data.append(0)
        except BufferError:
            return True
    return False


def matrix(data: bytes) -> bytes | memoryview:
    width = len(data) // 2
    return memoryview(data[: 2 * width]).cast("B", (2, width)) if width else data


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array": lambda data: array.array("i", data[: len(data) // 4 * 4]),
    "matrix": matrix,
}
