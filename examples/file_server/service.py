"""What all connections of a process share: the folder, the clock, the limits, and the end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from time import monotonic, time
from typing import TYPE_CHECKING

import asend
from connection import Connection
from folder import Folder

if TYPE_CHECKING:
    from activity import Activity
    from options import Options
    from parser import Request

# How often is looked for broken limits, at most; shorter limits are looked at more often.
TICK_SECONDS = 0.5
LISTERS = 2


class Service:
    """Makes connections, and ends them.

    Attributes:
        options: As given.
        activity: As given, kept up to date.
        folder: What is served.
        limits: For a client while it is sent a response.
        connections: All that are open.
        waiting: Those that a deadline may end; the others are being sent something, with limits.
        date: For responses, as of this second.
        known: What parsers know again; see there.
        listings: How many folders are being listed.
        readers: The threads that look up and read files, asend's too.
        listers: The threads that list folders, so that large ones keep nobody from files.
        is_stopping: No request is waited for any more.
    """

    def __init__(self, options: Options, activity: Activity) -> None:
        self.options = options
        self.activity = activity
        self.folder = Folder(options)
        self.limits = asend.Limits(options.stall, options.min_rate or None)
        self.connections: set[Connection] = set()
        self.waiting: set[Connection] = set()
        self.date = b""
        self.known: dict[bytes, Request] = {}
        self.is_stopping = False
        self._now = monotonic()
        self.listings = 0
        self.readers = ThreadPoolExecutor(thread_name_prefix="reading")
        self.listers = ThreadPoolExecutor(LISTERS, "listing")
        self._idle: asyncio.Future[None] | None = None
        limits = options.header_timeout, options.keep_alive, options.stall
        self._tick_seconds = min(TICK_SECONDS, *(limit / 4 for limit in limits))

    def now(self) -> float:
        """Return the time of a monotonic clock, as of the last tick."""
        return self._now

    def start(self) -> None:
        """Begin to look at limits, and have threads read, in the running loop."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self.readers)
        self._tick(loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._now = now = monotonic()
        self.date = formatdate(time(), usegmt=True).encode()
        # First, so that nothing that goes wrong below ends all limits.
        loop.call_later(self._tick_seconds, self._tick, loop)
        # In one sweep: a timer for each would cost more than all of their requests.
        for connection in [*self.waiting]:
            if now > connection.deadline:
                connection.expire()
        self.folder.forget_old()

    def connect(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def opened(self, connection: Connection) -> bool:
        """Take a connection in; False if there are too many."""
        self.connections.add(connection)
        self.waiting.add(connection)
        self.activity.connections = len(self.connections)
        return len(self.connections) <= self.options.max_connections

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.connections.discard(connection)
        self.waiting.discard(connection)
        self.activity.connections = len(self.connections)
        if self._idle is not None and not self.connections and not self._idle.done():
            self._idle.set_result(None)

    async def stop(self, seconds: float) -> int:
        """Close what is idle, and let responses end.

        Args:
            seconds: After these the rest is aborted.

        Returns:
            How many had to be aborted.
        """
        self.is_stopping = True
        self._idle = asyncio.get_running_loop().create_future()
        for connection in [*self.connections]:
            connection.stop()
        left = 0
        if self.connections:
            await asyncio.wait([self._idle], timeout=seconds)
            left = sum(connection.is_busy for connection in self.connections)
            for connection in [*self.connections]:
                connection.abort()
            # Till it has been heard: a cancelled transfer closes its file.
            await asyncio.wait([self._idle], timeout=1)
        return left

    def close(self) -> None:
        """Let the threads end, after what they are just doing, which is not waited for."""
        for threads in (self.readers, self.listers):
            threads.shutdown(wait=False, cancel_futures=True)
