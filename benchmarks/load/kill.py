"""kill -9 of one of two workers of the example file server during 200 downloads.

Its own connections are lost, and no other one. Requests beside them are answered all the time, and
the worker is replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import servers
from ..harness import Aim, Arm, Case, Measure, Sample, Work
from . import probing
from .connections import connections
from .downloads import Download, Downloads
from .pattern import pattern
from .senders import LOOPS
from .stop import IN_FLIGHT, NBYTES, PART, STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..servers import Server

_OWN = Measure("its own, lost", more_is_better=True, digits=0)
_LOST = Measure("others lost", digits=0)
_WRONG = Measure("wrong answers", digits=0)
_SLOWEST = Measure("slowest answer, ms", digits=0)
_REPLACED = Measure("until replaced, s")

_DOWNLOADS, _FEW_DOWNLOADS = 200, 20
_WORKERS = 2
_LONGEST_END = 30.0
_BETWEEN = 0.05


def cases(work: Work) -> Iterator[Case]:
    probing.check()
    content = pattern(NBYTES)
    (work.directory / "file").write_bytes(content)
    (work.directory / "small").write_bytes(pattern(1000))
    number = work.pick(_DOWNLOADS, _FEW_DOWNLOADS)
    arms = [
        Arm(f"asend, {loop}", partial(_measure, work, content, loop, number))
        for loop in (LOOPS if not work.is_quick else ["uvloop"])
    ]
    # A worker that dies early is replaced after half a second.
    aims = {_OWN: 1.0, _LOST: 0.0, _WRONG: 0.0, STATUS: 0.0}
    # A machine that tests need not be quiet.
    aims |= {_SLOWEST: work.pick(1000, 5000), _REPLACED: work.pick(3, 20)}
    yield Case(
        f"kill -9 of 1 of {_WORKERS} workers during {number} downloads of {NBYTES >> 20} MiB",
        arms,
        [Aim(arm.name, measure, bound) for arm in arms for measure, bound in aims.items()],
        note="Answers are those to requests beside the downloads, each on a new connection.",
    )


def _measure(work: Work, content: bytes, loop: str, number: int) -> Sample:
    with (
        servers.file_server(work.directory, loop, "--workers", str(_WORKERS)) as server,
        probing.probing(server.port, "/small", work.directory / "small") as probe,
        Downloads(server.port, "file", content, number) as downloads,
    ):
        downloads.read(lambda: downloads.came >= PART)
        in_flight = downloads.unfinished()
        workers = _children(server.pid)
        victim = min(workers)
        own = _owned(victim, server.port, in_flight)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        _wait_until(lambda: victim not in _children(server.pid), "one that was killed lives on")
        gone = time.monotonic()
        # The others go on meanwhile.
        downloads.read(_now_and_then(lambda: _has_new(server, workers)))
        _wait_until(
            lambda: _has_new(server, workers), "no worker takes the place of one that was killed"
        )
        replaced = time.monotonic()
        downloads.read()
        answers = probe.stop()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(_LONGEST_END)
    return {
        IN_FLIGHT: len(in_flight),
        _OWN: sum(not downloads.is_whole(each) for each in own),
        _LOST: sum(not downloads.is_whole(each) for each in in_flight if each not in own),
        # One that was asked for before it had gone may have been one of its own.
        _WRONG: sum(
            not answer.is_right
            for answer in answers
            if answer.began > gone or answer.began + answer.seconds < killed
        ),
        _SLOWEST: max(answer.seconds for answer in answers) * 1000,
        _REPLACED: replaced - killed,
        STATUS: abs(status),
    }


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _owned(pid: int, port: int, downloads: Sequence[Download]) -> list[Download]:
    """Return those downloads whose other end a process has."""
    sockets = _sockets(pid)
    of_client = {each.peer: each.inode for each in connections() if each.port == port}
    return [each for each in downloads if of_client.get(each.port) in sockets]


def _has_new(server: Server, before: set[int]) -> bool:
    """Tell whether a worker that is new listens."""
    wanted = (server.port, 0)
    listening = {each.inode for each in connections() if (each.port, each.peer) == wanted}
    return any(_sockets(new) & listening for new in _children(server.pid) - before)


def _now_and_then(condition: Callable[[], bool]) -> Callable[[], bool]:
    """Return what asks for a condition only now and then, and says no in between."""
    due = 0.0

    def ask() -> bool:
        nonlocal due
        if time.monotonic() < due:
            return False
        found = condition()
        due = time.monotonic() + _BETWEEN
        return found

    return ask


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + _LONGEST_END
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(otherwise)
        time.sleep(_BETWEEN)  # other processes: nothing tells


def _sockets(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            kind, _, inode = os.readlink(descriptor).partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    return found
