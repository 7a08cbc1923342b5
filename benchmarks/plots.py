"""What is to be seen of the stored results in which plot: a table, and what it picks of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .stored import Aim, Case, Run

_CALLS, _REQUESTS, _RATE, _CPU = "calls/s", "requests/s", "GB/s", "CPU s/GB"
_PAUSE, _P99 = "longest pause, ms", "p99, ms"
# Of all else less is better.
_MORE_IS_BETTER = (_CALLS, _REQUESTS, _RATE)
# What differs by more than bars can show.
_LOGARITHMIC = (_PAUSE,)
# What names have for the sake of other rows.
_NEEDLESS = r"^loop\.|, blocking$| in a coroutine$| \+ (send|write)\b"


@dataclass(frozen=True)
class Panel:
    """Bars of one measure with their quartiles, below each other.

    Args:
        row: Of the benchmarks.
        measure: Its name there.
        title: What is measured.
        cases: Matches the whole titles of the cases that are shown; its group heads their bars.
        needless: Matches what the names of the arms need not say there.
    """

    row: str
    measure: str
    title: str
    cases: str = "(.*)"
    needless: str = "$"

    @property
    def scale(self) -> str:
        """What a reader must know of the numbers."""
        better = "more" if self.measure in _MORE_IS_BETTER else "less"
        return f"{self.measure}; {better} is better" + (", logarithmic" if self.is_log else "")

    @property
    def is_log(self) -> bool:
        return self.measure in _LOGARITHMIC

    def name(self, arm: str) -> str:
        return re.sub(self.needless, "", re.sub(_NEEDLESS, "", arm))


@dataclass(frozen=True)
class Plot:
    """Panels below each other, and the packages whose versions matter to them.

    Args:
        name: Of its files, one for light and one for dark pages.
        place: Where the README has it: `benchmarks.report` says where that is.
    """

    name: str
    place: str
    panels: Sequence[Panel]
    versions: Sequence[str] = ("asend", "uvloop", "trio")


_COSTS, _MORE, _SERVER, _LOAD = "costs", "more", "server", "load"
_STREAMS = ("asend", "uvloop", "trio", "anyio")
_FRAMEWORKS = ("asend", "uvloop", "aiohttp", "starlette", "uvicorn")
_SERVERS = ("asend", "uvloop", "nginx")

_HOT = r".*, hot, to one receiver, (against .*)"
_PLAIN, _TLS = (rf"(.*, {kind}, (?!pauses).*)" for kind in ("plain", "TLS"))
_SMALL, _LARGE = r"(.*), 4 KiB", r"(.*), 100 MiB"
_BESIDE = r"(.*), the small route during 8 downloads"
_SLOW = r"(.* connections that read .* each)"
_FILES = r"(.* MiB, \d+ connections)"
_STALLED = r"([\d,]+ stalled and [\d,]+ slow clients, \w+)"
# The cases are named after them.
_STREAM = r", (StreamWriter|trio's stream|anyio's stream)|, (asyncio|uvloop|trio)$"
_FRAMEWORK = r", (aiohttp|starlette)$"

PLOTS = (
    Plot("calls-tcp", _COSTS, [Panel("calls", _CALLS, "Small sends, TCP", r"(.*), TCP")]),
    Plot("calls-unix", _COSTS, [Panel("calls", _CALLS, "Small sends, UNIX", r"(.*), UNIX")]),
    Plot("files-rate", _COSTS, [Panel("files", _RATE, "A file in the page cache", _HOT)]),
    Plot("files-cpu", _COSTS, [Panel("files", _CPU, "A file in the page cache, CPU", _HOT)]),
    Plot(
        "pauses-files",
        _COSTS,
        [
            Panel("pauses", _PAUSE, "Pauses of the loop: sock_sendfile"),
            Panel("cold", _PAUSE, "Pauses of the loop: files not in memory"),
        ],
    ),
    Plot(
        "pauses-streams",
        _COSTS,
        [Panel("streams", _PAUSE, "Pauses of the loop: streams", r"(.*), pauses")],
        _STREAMS,
    ),
    Plot(
        "handlers-requests",
        _COSTS,
        [Panel("handlers", _REQUESTS, "Web frameworks: 4 KiB", _SMALL, _FRAMEWORK)],
        _FRAMEWORKS,
    ),
    Plot(
        "handlers-p99",
        _COSTS,
        [Panel("handlers", _P99, "Web frameworks beside downloads", _BESIDE, _FRAMEWORK)],
        _FRAMEWORKS,
    ),
    Plot("calls-memory", _COSTS, [Panel("many", "KiB per call", "Memory of calls that wait")]),
    Plot(
        "connections",
        _COSTS,
        [
            Panel("file_server", "MiB of all connections", "Memory against slow downloads", _SLOW),
            Panel("file_server", "KiB per connection", "Memory of each slow download", _SLOW),
            Panel("file_server", "CPU ms/s", "CPU of slow downloads", _SLOW),
        ],
        _SERVERS,
    ),
    Plot(
        "streams-plain-rate",
        _MORE,
        [Panel("streams", _RATE, "A file through streams", _PLAIN, _STREAM)],
        _STREAMS,
    ),
    Plot(
        "streams-plain-cpu",
        _MORE,
        [Panel("streams", _CPU, "A file through streams, CPU", _PLAIN, _STREAM)],
        _STREAMS,
    ),
    Plot(
        "streams-tls-rate",
        _MORE,
        [Panel("streams", _RATE, "A file through TLS", _TLS, _STREAM)],
        _STREAMS,
    ),
    Plot(
        "streams-tls-cpu",
        _MORE,
        [Panel("streams", _CPU, "A file through TLS, CPU", _TLS, _STREAM)],
        _STREAMS,
    ),
    Plot(
        "handlers-rate",
        _MORE,
        [Panel("handlers", _RATE, "Web frameworks: 100 MiB", _LARGE, _FRAMEWORK)],
        _FRAMEWORKS,
    ),
    Plot(
        "handlers-cpu",
        _MORE,
        [Panel("handlers", _CPU, "Web frameworks: 100 MiB, CPU", _LARGE, _FRAMEWORK)],
        _FRAMEWORKS,
    ),
    Plot(
        "file_server-requests",
        _SERVER,
        [
            Panel(
                "file_server",
                _REQUESTS,
                "The file server: small files",
                r"(.* (KiB|bytes), \d+ connections)",
            ),
            Panel(
                "file_server",
                _P99,
                "The file server beside downloads",
                r"(.* beside \d+ downloads)",
            ),
        ],
        _SERVERS,
    ),
    Plot(
        "file_server-bytes",
        _SERVER,
        [
            Panel("file_server", _RATE, "The file server: large files", _FILES),
            Panel("file_server", _CPU, "The file server: large files, CPU", _FILES),
        ],
        _SERVERS,
    ),
    Plot(
        "load",
        _LOAD,
        [
            Panel("stalled", "KiB per transfer", "Memory of sends to clients that stall", _STALLED),
            Panel("stalled", "CPU ms/s", "CPU of sends to clients that trickle", _STALLED),
            Panel("stalled", _P99, "Requests beside them", _STALLED),
        ],
        ("asend", "uvloop"),
    ),
)


@dataclass(frozen=True)
class Bar:
    """An arm of a case: its quartiles, and what it had to reach."""

    name: str
    is_ours: bool
    low: float
    median: float
    high: float
    aims: Sequence[Aim]


@dataclass(frozen=True)
class Group:
    """The bars of a case, ours first."""

    heading: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Shown:
    """A panel with what was measured, and in which run."""

    panel: Panel
    run: Run
    groups: Sequence[Group]
    skipped: Sequence[str]

    def bars(self) -> Iterator[Bar]:
        for group in self.groups:
            yield from group.bars

    def aims(self) -> Iterator[Aim]:
        for bar in self.bars():
            yield from bar.aims


class Missing(LookupError):
    """A panel has nothing to show; the message says what is not stored."""


def pick(panel: Panel, runs: Iterable[Run]) -> Shown:
    """Return what a panel shows of the stored runs.

    Raises:
        Missing: They have no such row, or in it nothing that was not skipped.
    """
    run = next((run for run in runs if panel.row in run.rows), None)
    if run is None:
        raise Missing(f"no stored run has the row {panel.row}")
    groups, skipped = [], []
    for case in run.rows[panel.row]:
        if match := re.fullmatch(panel.cases, case["title"]):
            bars = sorted(_bars(panel, case), key=lambda bar: not bar.is_ours)
            if bars:
                groups.append(Group(match[1], bars))
                skipped += _skipped(panel, case)
    if not groups:
        raise Missing(f'the stored row {panel.row} has no "{panel.measure}" of {panel.cases}')
    return Shown(panel, run, groups, list(dict.fromkeys(skipped)))


def _bars(panel: Panel, case: Case) -> Iterator[Bar]:
    for name, arm in case["arms"].items():
        summary = arm["summary"].get(panel.measure)
        if summary is not None:
            aims = [
                aim
                for aim in case["aims"]
                if (aim["arm"], aim["measure"]) == (name, panel.measure) and aim["result"]
            ]
            shown = panel.name(name)
            yield Bar(shown, name.startswith("asend"), **summary, aims=aims)


def _skipped(panel: Panel, case: Case) -> list[str]:
    return [
        f"{panel.name(name)}: {arm['skipped']}"
        for name, arm in case["arms"].items()
        if arm["skipped"]
    ]
