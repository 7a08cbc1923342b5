"""Downloads on their way: counted by `progress`, told to the pages that asked for them.

A page has an id that it made up. It gives it with each download, and listens to the events of that
id. Both apps share this module; it knows no web framework.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

# Seconds between two events for a page: the kernel takes bytes far more often.
PAUSE = 0.1
# Seconds without news after which a comment is sent, which shows whether the page is still there.
QUIET = 15.0
# Seconds that a page may take to read an event, before it is left.
EVENT_SECONDS = 30.0
# Pages that listen at the same time, as each holds a connection. Others can download all the same.
MOST_PAGES = 200
# What one that found no place is told: milliseconds until it may try again.
COME_BACK = b"retry: 60000\n\n"

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Download:
    """One response with a file, or a part of it, and how far it got.

    Args:
        number: Of this download; later ones have higher numbers.
        name: Of the file.
        page: The id of the page that asked for it.
        changed: Called with this object whenever there is something new to tell.
    """

    def __init__(
        self, number: int, name: str, page: str, changed: Callable[[Download], None]
    ) -> None:
        self.number = number
        self.name = name
        self.page = page
        self.state = "running"
        self._changed = changed
        self._began = monotonic()
        self._seconds = 0.0
        self._first = 0
        self._sent = 0
        self._length = 0
        self._size = 0

    def expect(self, headers: Mapping[str, str]) -> None:
        """Read in the head of the response which bytes of the file it promises."""
        self._length = self._size = int(headers.get("Content-Length", 0))
        # A browser that goes on with an interrupted download asks for the rest.
        part = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if part is not None:
            self._first, self._size = int(part[1]), int(part[2])

    def advance(self, nbytes: int) -> None:
        """Count bytes that the kernel took: the `progress` of a response."""
        self._sent += nbytes
        self._seconds = monotonic() - self._began
        self._changed(self)

    def end(self) -> None:
        """Note that no more will be sent. What sent nothing, such as a 304, is not told of."""
        self.state = "done" if self._sent == self._length else "stopped"
        if self._sent:
            self._changed(self)

    def as_json(self) -> dict[str, object]:
        """Return what a page is told: `at` and `size` count bytes of the file, `sent` of this."""
        return {
            "number": self.number,
            "name": self.name,
            "state": self.state,
            "at": self._first + self._sent,
            "size": self._size,
            "sent": self._sent,
            "seconds": round(self._seconds, 3),
        }


class _Listener:
    """One stream of events, and what it has not been told yet: the latest state, no queue."""

    def __init__(self) -> None:
        self.changed: set[Download] = set()
        self.wake = asyncio.Event()

    def tell(self, download: Download) -> None:
        self.changed.add(download)
        self.wake.set()

    async def wait_changed(self) -> list[Download]:
        """Wait for news, and return them in the order in which the downloads began."""
        try:
            async with asyncio.timeout(QUIET):
                await self.wake.wait()
        except TimeoutError:
            return []
        self.wake.clear()
        news = sorted(self.changed, key=lambda download: download.number)
        self.changed.clear()
        return news


class Downloads:
    """All downloads that are running, and the pages that listen."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._running: dict[Download, asyncio.Timeout] = {}
        self._listeners: dict[str, set[_Listener]] = {}
        self._is_closed = False

    @asynccontextmanager
    async def follow(self, name: str, page: str) -> AsyncIterator[Download]:
        """Follow what is sent of a file in this block, until `close` cuts it off."""
        download = Download(next(self._numbers), name, page, self._tell)
        try:
            async with asyncio.timeout(None) as cut:
                self._running[download] = cut
                yield download
        except TimeoutError:
            if not cut.expired():
                raise
        finally:
            del self._running[download]
            download.end()

    async def events(self, page: str) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events for a page, until `close`.

        The first one, `running`, is a list: all of this page that are running now.
        """
        if sum(map(len, self._listeners.values())) >= MOST_PAGES:
            yield COME_BACK
            return
        listener = _Listener()
        self._listeners.setdefault(page, set()).add(listener)
        try:
            running = [each.as_json() for each in self._running if each.page == page]
            yield b"event: running\n" + _data(running)
            while not self._is_closed:
                news = await listener.wait_changed()
                yield b"".join(_data(each.as_json()) for each in news) or b": nothing new\n\n"
                await asyncio.sleep(PAUSE)
        finally:
            self._listeners[page].remove(listener)
            if not self._listeners[page]:
                del self._listeners[page]

    def status(self) -> list[dict[str, object]]:
        """Return all that is running, of all pages."""
        return [download.as_json() for download in self._running]

    def close(self) -> None:
        """End all streams of events, and cut off all downloads."""
        self._is_closed = True
        for listener in itertools.chain.from_iterable(self._listeners.values()):
            listener.wake.set()
        for cut in self._running.values():
            cut.reschedule(asyncio.get_running_loop().time())

    def _tell(self, download: Download) -> None:
        for listener in self._listeners.get(download.page, ()):
            listener.tell(download)


def _data(value: object) -> bytes:
    # JSON has no line breaks, of which an event could not consist.
    return b"data: " + json.dumps(value).encode() + b"\n\n"
