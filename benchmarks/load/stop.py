"""SIGTERM while 200 clients download from the example file server: no response may be lost.

What is in flight goes on to its end, byte by byte what it has to be, who comes is refused, and the
server ends with status 0.
"""

from __future__ import annotations

import signal
import socket
import time
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from .. import servers
from ..harness import Aim, Arm, Case, Measure, Sample, Work
from .downloads import Downloads
from .pattern import pattern
from .senders import LOOPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..servers import Server

IN_FLIGHT = Measure("in flight", more_is_better=True, digits=0)
_LOST = Measure("lost", digits=0)
_REFUSED = Measure("until refused, ms", digits=0)
_SECONDS = Measure("until ended, s")
STATUS = Measure("exit status", digits=0)

# As many as end within the server's --stop-timeout, which is 30 s by default.
_DOWNLOADS, _FEW_DOWNLOADS = 200, 20
# More than all buffers on the way have.
NBYTES = 16 * 1024 * 1024
# How much of it has come when the signal comes.
PART = 0.1
_WORKERS = (1, 2)
_LONGEST_END = 30.0


def cases(work: Work) -> Iterator[Case]:
    content = pattern(NBYTES)
    (work.directory / "file").write_bytes(content)
    number = work.pick(_DOWNLOADS, _FEW_DOWNLOADS)
    ways = list(product(LOOPS, _WORKERS))
    arms = [
        Arm(f"asend, {loop}, {_said(workers)}", partial(_measure, work, content, *way, number))
        for way in (ways if not work.is_quick else ways[-1:])
        for loop, workers in [way]
    ]
    aims = {_LOST: 0.0, _REFUSED: work.pick(1000, 5000), _SECONDS: _LONGEST_END, STATUS: 0.0}
    yield Case(
        f"SIGTERM during {number} downloads of {NBYTES >> 20} MiB",
        arms,
        [Aim(arm.name, measure, most) for arm in arms for measure, most in aims.items()]
        + [Aim(arm.name, IN_FLIGHT, 1.0) for arm in arms],
    )


def _said(workers: int) -> str:
    return "1 process" if workers == 1 else f"{workers} workers"


def _measure(work: Work, content: bytes, loop: str, workers: int, number: int) -> Sample:
    with (
        servers.file_server(work.directory, loop, "--workers", str(workers)) as server,
        Downloads(server.port, "file", content, number) as downloads,
    ):
        downloads.read(lambda: downloads.came >= PART)
        in_flight = downloads.unfinished()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        refused = _until_refused(server)
        downloads.read()
        status = server.process.wait(_LONGEST_END)
        ended = time.monotonic()
        return {
            IN_FLIGHT: len(in_flight),
            _LOST: sum(not downloads.is_whole(each) for each in in_flight),
            _REFUSED: (refused - began) * 1000,
            _SECONDS: ended - began,
            STATUS: abs(status),
        }


def _until_refused(server: Server) -> float:
    """Connect until that is refused, and return when it was."""
    until = time.monotonic() + _LONGEST_END
    while (now := time.monotonic()) < until:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1.0).close()
        except ConnectionRefusedError:
            break
        except OSError:
            pass  # it was about to be
    return now
