"""What goes on: transfers under way and counters, kept by the connections, shown by the display."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parser import Request

# How many transfers that have ended are remembered.
RECENT = 5


@dataclass(slots=True, eq=False)
class Transfer:
    """One response body under way.

    Args:
        client: The address, "" where the client came by a UNIX socket.
        target: What was asked for, as it is in the request line.
        nbytes: How many bytes the body has.
        sent: How many of them have gone.
        began: When, by `time.monotonic()`.
    """

    client: str
    target: str
    nbytes: int
    sent: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, nbytes: int) -> None:
        """Count bytes that have gone."""
        self.sent += nbytes


class Line(NamedTuple):
    """One answered request, for the access log.

    Args:
        client: The address, "" where the client came by a UNIX socket.
        moment: When, in seconds since the epoch.
        request: The request line as it was understood, "GET /x HTTP/1.1"; "-" where it was not. Of
            what was refused on the way the version is a guess.
        nbytes: How many bytes of the body went.
    """

    client: str
    moment: float
    request: str
    status: int
    nbytes: int
    referer: str
    agent: str


@dataclass(slots=True, eq=False)
class Activity:
    """What one process does and has done.

    Only the thread of the event loop changes it. Another one may read it, and copy `transfers` and
    `recent` by `list()`, which no other thread can come between.

    Args:
        transfers: Under way; large bodies only.
        recent: The last few of those that ended.
        requests: How many were answered.
        nbytes: How many bytes of bodies went.
        connections: How many are open.
        dropped: How often this side ended a connection, or gave up, by reason ("slow reader" ...).
        log: What takes a line of the access log. None: there is no log, and no line to be built.
    """

    transfers: set[Transfer] = field(default_factory=set)
    recent: deque[Transfer] = field(default_factory=lambda: deque(maxlen=RECENT))
    requests: int = 0
    nbytes: int = 0
    connections: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    log: Callable[[Line], None] | None = None

    def answered(self, client: str, request: Request, status: int, nbytes: int) -> None:
        """Count a response, of whose body so many bytes went, and have it logged."""
        self.requests += 1
        self.nbytes += nbytes
        if self.log is not None:
            target = request.target.decode("ascii", "replace")
            line = f"{request.method} {target} HTTP/{request.version}" if target else "-"
            referer, agent = request.get("Referer") or "-", request.get("User-Agent") or "-"
            self.log(Line(client, time.time(), line, status, nbytes, referer, agent))

    @contextmanager
    def under_way(self, transfer: Transfer) -> Iterator[None]:
        """Have a transfer among those under way while the context is open."""
        self.transfers.add(transfer)
        try:
            yield
        finally:
            self.transfers.discard(transfer)
            self.recent.append(transfer)
