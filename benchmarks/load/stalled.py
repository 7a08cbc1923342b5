"""Ten thousand clients that read nothing and a thousand that trickle, in one process that sends.

Measured are the memory of a transfer, CPU time while nine of ten wait, and requests to the same
event loop, from another process. Then those that read nothing break the limit on stalls, all of
them within seconds: they have to be dropped in time, and nobody else.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from .. import slow_readers
from ..harness import Aim, Arm, Case, Measure, Sample, Work
from ..loads import P99
from ..receivers import fit_files
from ..slow_readers import Crowd, Pace
from . import probing, senders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..servers import Server

_MEMORY = Measure("KiB per transfer")
_CPU = Measure("CPU ms/s", digits=1)
_RATE_EACH = Measure("KB/s each", more_is_better=True, digits=1)
_DROPPING = Measure("p99 while dropping, ms")
_LATE = Measure("dropped late, s")
_EARLY = Measure("dropped early, s")
_KEPT = Measure("stalled, not dropped", digits=0)
_LOST = Measure("others lost", digits=0)

_CROWD = Crowd(readers=1000, stalled=10_000)
_FEW = Crowd(readers=10, stalled=100, nbytes=20_000)
_PACE = Pace(ramp=8.0, settle=2.0, measured=8.0)
_SHORT_PACE = Pace(ramp=0.1, settle=0.0, measured=0.3)
# Seconds of the limit: the first ones must not break it before all has been measured. For those
# that trickle the kernel takes no more at first than every three seconds.
_STALL, _SHORT_STALL = 22.0, 1.5
# More than the slow ones read meanwhile.
_NBYTES = 4 * 1024 * 1024
# Descriptors that the process and its loop need for themselves.
_OTHERS = 50
# How long to wait for calls that should have ended.
_PATIENCE = 20.0
_BETWEEN = 0.1


def cases(work: Work) -> Iterator[Case]:
    probing.check()
    data = work.directory / "data.bin"
    data.write_bytes(os.urandom(_NBYTES))
    echo = work.directory / "echo"
    echo.write_bytes(senders.ECHO)
    wanted = _FEW if work.is_quick else _CROWD
    for call, ways in senders.WAYS.items():
        crowd, note = _fitting(wanted, senders.DESCRIPTORS[call])
        # The least that uses each way to send.
        arms = [arm for arm in ways if not work.is_quick or "asyncio" in arm]
        ours = [arm for arm in arms if arm.startswith("asend")]
        yield Case(
            f"{crowd.stalled:,} stalled and {crowd.readers:,} slow clients, {call}",
            [Arm(arm, partial(_measure, call, arm, crowd, data, echo, work)) for arm in arms],
            [
                Aim(arm, measure, bound)
                for arm in ours
                for measure, bound in (
                    # Of few transfers it is mostly what a process grows by anyway. And a machine
                    # that tests need not be quiet.
                    (_MEMORY, work.pick(8, 1000)),
                    (P99, work.pick(20, 1000)),
                    (_LATE, work.pick(1, 10)),
                    (_EARLY, 0.1),
                    (_KEPT, 0.0),
                    (_LOST, 0.0),
                )
            ],
            note=note,
        )


def _fitting(wanted: Crowd, descriptors: int) -> tuple[Crowd, str]:
    """Return as much of a crowd as the limit of open files allows, and what is to be said of it."""
    most, note = fit_files(wanted.all, descriptors, _OTHERS)
    readers = most * wanted.readers // wanted.all
    return Crowd(readers, most - readers, wanted.nbytes), note


def _measure(call: str, arm: str, crowd: Crowd, data: Path, echo: Path, work: Work) -> Sample:
    stall, pace = (_SHORT_STALL, _SHORT_PACE) if work.is_quick else (_STALL, _PACE)
    with (
        senders.sending(call, arm, stall, data) as server,
        probing.probing(server.port, "/echo", echo, is_kept=True) as probe,
        slow_readers.reading(server, "data", crowd, pace) as reading,
    ):
        sample = {
            _MEMORY: reading.memory,
            _CPU: reading.cpu * 1000,
            _RATE_EACH: reading.rate / 1000,
        }
        began = time.monotonic()
        dropped = _dropped(server, crowd) if arm.startswith("asend") else {}
        ended = time.monotonic()
        answers = probe.stop()
        if not all(answer.is_right for answer in answers):
            raise RuntimeError("the echo was wrong")
        sample[P99] = probing.p99(answers, reading.began, reading.ended)
        if dropped:
            sample |= dropped
            sample[_DROPPING] = probing.p99(answers, began, ended)
        return sample


def _dropped(server: Server, crowd: Crowd) -> dict[Measure, float]:
    """Wait until those that stall have been dropped, and see who else has been."""
    status = senders.status(server)
    until = time.monotonic() + _STALL + _PATIENCE
    while status["pending"] > crowd.readers and time.monotonic() < until:
        time.sleep(_BETWEEN)  # another process: nothing tells
        status = senders.status(server)
    time.sleep(2 * _BETWEEN)  # for a turn of those that trickle, who say it if they are dropped
    status = senders.status(server)
    dropped = status["late"]
    return {
        _LATE: max(dropped, default=0.0),
        _EARLY: max(0.0, -min(dropped, default=0.0)),
        _KEPT: max(0, crowd.stalled - len(dropped)),
        _LOST: crowd.readers - min(crowd.readers, status["pending"]),
    }
