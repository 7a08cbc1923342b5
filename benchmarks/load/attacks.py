"""Slow attacks on the example file server by slowhttptest: headers, bodies and readers.

The server has to drop all of them in time, with what the kernel has for them, and a client beside
them has to get right answers all the time.
"""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .. import servers
from ..harness import Aim, Arm, Case, Measure, Sample, Skipped, Work
from . import probing
from .connections import connections
from .pattern import pattern
from .senders import LOOPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..servers import Server

_PROGRAM = "slowhttptest"
# The core that servers have not.
_CORE = "1"
_UNTIL_DROPPED = Measure("until all are dropped, s", digits=1)
_LEFT = Measure("attackers left", digits=0)
_WRONG = Measure("wrong answers", digits=0)
_SLOWEST = Measure("slowest answer, ms", digits=0)

_FEW_ATTACKERS = 60
# Seconds in which they begin: more than one, as slowhttptest tells what is so once a second.
_RAMP = 2
# Seconds of each limit of the server, and how much longer an attack goes on if it is not ended.
_LIMIT, _SHORT_LIMIT = 4.0, 1.0
# What an attack may last beyond its beginning and the limit: the server looks four times in it.
_SPARE = 6.0
_BETWEEN = 0.02
# States of sockets: what only listens, what waits for old segments, and what has ended.
_OVER = ("0A", "06", "07")
# Who asks whether the server is there is connected for some ms: what is left of attackers is what
# was seen each of so many times.
_LOOKS = 10
# Of the attackers at least so many have to have begun, here and where a machine tests.
_LEAST_BEGUN, _LEAST_BEGUN_QUICK = 0.75, 0.25
# Where the kernel is short of memory it may drop the first packet of a connection, which costs 1 s.
_SLOWEST_ANSWER = (2000, 5000)
_NBYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class _Attack:
    """What so many attackers do, by options of the program, with which file."""

    title: str
    options: str
    path: str
    number: int = 1000


_ATTACKS = (
    _Attack("send headers slowly", "-H -i 1 -x 10", "small"),
    _Attack("send bodies slowly", "-B -i 1 -x 10 -s 60000", "small"),
    # By loopback each of these has 3 MB on the way; of 1000 the kernel would run out of memory.
    _Attack("read slowly", "-X -w 512 -y 1024 -n 1 -z 32", "large", 300),
)


def cases(work: Work) -> Iterator[Case]:
    if shutil.which(_PROGRAM) is None:
        raise Skipped(f"{_PROGRAM} is not installed (Debian's package {_PROGRAM})")
    probing.check()
    (work.directory / "small").write_bytes(pattern(1000))
    (work.directory / "large").write_bytes(pattern(_NBYTES))
    limit = _SHORT_LIMIT if work.is_quick else _LIMIT
    # A machine that tests need not be quiet.
    in_time = _RAMP + limit + work.pick(1, 2) * _SPARE
    for attack in _ATTACKS:
        number = work.pick(attack.number, _FEW_ATTACKERS)
        arms = [
            Arm(f"asend, {loop}", partial(_measure, work, attack, loop, number, limit))
            # The loops differ little there, and a test has little time.
            for loop in (LOOPS if not work.is_quick else ["uvloop"])
        ]
        aims = {
            _UNTIL_DROPPED: in_time,
            _LEFT: 0.0,
            _WRONG: 0.0,
            _SLOWEST: work.pick(*_SLOWEST_ANSWER),
        }
        yield Case(
            f"{number:,} clients that {attack.title}",
            arms,
            [Aim(arm.name, measure, most) for arm in arms for measure, most in aims.items()],
            note=f"The file server's limits are {limit:g} s. Clients begin within {_RAMP} s.",
        )


def _measure(work: Work, attack: _Attack, loop: str, number: int, limit: float) -> Sample:
    names = ("--header-timeout", "--keep-alive", "--stall")
    options = [word for name in names for word in (name, f"{limit:g}s")]
    with (
        servers.file_server(work.directory, loop, *options) as server,
        probing.probing(server.port, "/small", work.directory / "small") as probe,
    ):
        seconds = _RAMP + limit + 2 * _SPARE
        least = number * (_LEAST_BEGUN_QUICK if work.is_quick else _LEAST_BEGUN)
        dropped, left = _attack(work.directory, attack, server, number, seconds, least)
        answers = probe.stop()
    return {
        _UNTIL_DROPPED: dropped,
        _LEFT: left,
        _WRONG: sum(not answer.is_right for answer in answers),
        _SLOWEST: max(answer.seconds for answer in answers) * 1000,
    }


def _attack(
    directory: Path, attack: _Attack, server: Server, number: int, seconds: float, least: float
) -> tuple[float, int]:
    """Attack until all are dropped, or for so long; return when, and how many are left then.

    Raises:
        RuntimeError: There was no attack.
    """
    report = directory / "report"
    command = ["taskset", "-c", _CORE, _PROGRAM, *attack.options.split(), "-g", "-o", str(report)]
    command += ["-c", str(number), "-r", str(number // _RAMP), "-l", f"{seconds:.0f}"]
    with subprocess.Popen(
        [*command, "-u", server.url(attack.path)], stdout=subprocess.DEVNULL, cwd=directory
    ) as process:
        began = now = time.monotonic()
        dropped: float | None = None
        left = 0
        looks: deque[int] = deque(maxlen=_LOOKS)
        while now < began + _RAMP + 1 or (left and now < began + seconds):
            time.sleep(_BETWEEN)  # the kernel: nothing tells
            looks.append(_connections(server.port))
            left = min(looks)
            now = time.monotonic()
            if left:
                dropped = now
        # It writes down what it has done, and ends.
        process.send_signal(signal.SIGINT)
    with report.with_suffix(".csv").open(newline="") as file:
        begun = max(int(row["Closed"]) + int(row["Connected"]) for row in csv.DictReader(file))
    if begun < least:
        raise RuntimeError(f"{begun} of {number} have begun: there was no attack")
    # Who is dropped at once may never be seen so often: gone by now, then.
    return (now if dropped is None else dropped) - began, left


def _connections(port: int) -> int:
    """Return how many connections to a port the kernel keeps, the server's own or not.

    It keeps those that the server has closed for as long as something is to be sent on them. What
    an attacker sees of the end does not tell: it comes after all that there is to be read.
    """
    return sum(each.port == port and each.state not in _OVER for each in connections())
