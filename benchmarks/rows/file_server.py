"""The example file server and nginx, each with one process on one core; the load has the other.

wrk counts requests of small files, bytes of large ones, and times requests beside downloads. Slow
readers are the other end of it: thousands of connections that wait almost always. CPU seconds and
memory are those of the server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from .. import loads, servers, slow_readers, wrk
from ..harness import CPU, RATE, Aim, Arm, Case, Measure, Sample, Work
from ..receivers import fit_files
from ..sending import KIB, MIB, new_file
from ..servers import Server
from ..slow_readers import Crowd, Pace

_Start: TypeAlias = Callable[[Path], AbstractContextManager[Server]]
_Load: TypeAlias = Callable[[Server], Sample]

_CPU_PER_SECOND = Measure("CPU ms/s", digits=1)
_MEMORY = Measure("KiB per connection", digits=1)
_MEMORY_OF_ALL = Measure("MiB of all connections", digits=1)
_RATE_EACH = Measure("KB/s per connection", more_is_better=True, digits=1)

_OURS, _OURS_ON_ASYNCIO, _NGINX = "asend, uvloop", "asend, asyncio", "nginx"
_STARTS: dict[str, _Start] = {
    _OURS: partial(servers.file_server, loop="uvloop"),
    _OURS_ON_ASYNCIO: partial(servers.file_server, loop="asyncio"),
    _NGINX: servers.nginx,
}
_COMPARED = (_OURS, _NGINX)

_CONNECTIONS = 16
# Enough that no byte has to wait for one reader, and each gets long runs of them.
_FEW_CONNECTIONS = 4
# Title, bytes, connections, and the least ratio of requests a second.
_SMALL = (
    ("4 KiB", 4 * KIB, _CONNECTIONS, 1.0),
    ("64 KiB", 64 * KIB, _CONNECTIONS, 1.0),
    ("64 bytes", 64, 256, 0.8),
)
_SAME_FILE = "All connections ask for the same file."
_DOWNLOADS = 8
# Memory and CPU against connections: they should grow as these do, and no faster.
_READERS = (1000, 2500, 5000)
# The file server takes no more connections than could have four descriptors each, and keeps files.
_PER_READER = 4
_OTHERS = 1100


def cases(work: Work) -> Iterator[Case]:
    wrk.check()
    directory = work.directory / "served"
    directory.mkdir()
    largest = work.pick(100 * MIB, 4 * MIB)
    with contextlib.ExitStack() as files:
        paths = {
            size: files.enter_context(new_file(directory, size))
            for size in (64, 4 * KIB, 64 * KIB, MIB, largest)
        }
        with _running(paths) as running:
            bench = _Bench(running, seconds=0.05 if work.is_quick else 2.0)
            for title, size, connections, bound in _SMALL[: work.pick(3, 1)]:
                yield bench.small(title, paths[size], connections, bound)
            for size, connections in ((MIB, _CONNECTIONS), (largest, _FEW_CONNECTIONS)):
                yield bench.large(paths[size], connections)
            yield bench.beside_downloads(paths[4 * KIB], paths[largest])
        yield from _slow(work, paths[largest])


@contextlib.contextmanager
def _running(paths: dict[int, Path]) -> Iterator[dict[str, Server]]:
    """Run all servers while the context is open, each of which has given all files once."""
    with contextlib.ExitStack() as stack:
        directory = next(iter(paths.values())).parent
        running = {arm: stack.enter_context(start(directory)) for arm, start in _STARTS.items()}
        for server in running.values():
            for path in paths.values():
                loads.check(server, path)
        yield running


@dataclass(frozen=True)
class _Bench:
    """Cases for servers that run, whose samples take so many seconds."""

    running: dict[str, Server]
    seconds: float

    def small(self, title: str, path: Path, connections: int, bound: float) -> Case:
        load = partial(
            loads.requests, path=path.name, connections=connections, seconds=self.seconds
        )
        aims = [Aim(_OURS, loads.REQUESTS, bound, [_NGINX])]
        title = f"{title}, {connections} connections"
        return Case(title, self._arms(load, _STARTS), aims, note=_SAME_FILE)

    def large(self, path: Path, connections: int) -> Case:
        load = partial(
            loads.transfer, path=path.name, connections=connections, seconds=self.seconds
        )
        aims = [Aim(_OURS, RATE, 1.0, [_NGINX]), Aim(_OURS, CPU, 1.0, [_NGINX])]
        title = f"{path.stat().st_size // MIB} MiB, {connections} connections"
        return Case(title, self._arms(load, _COMPARED), aims, note=_SAME_FILE)

    def beside_downloads(self, path: Path, download: Path) -> Case:
        load = partial(
            loads.latency,
            path=path.name,
            download=download.name,
            downloads=_DOWNLOADS,
            seconds=self.seconds,
        )
        return Case(
            f"4 KiB beside {_DOWNLOADS} downloads",
            self._arms(load, _COMPARED),
            [Aim(_OURS, loads.P99, 1.0, [_NGINX])],
            note="One connection asks for it all the time; GB/s are those of the downloads.",
        )

    def _arms(self, load: _Load, names: Iterable[str]) -> list[Arm]:
        return [Arm(name, partial(load, self.running[name])) for name in names]


def _slow(work: Work, path: Path) -> Iterator[Case]:
    pace = Pace(0.1, 0.0, 0.1) if work.is_quick else Pace(ramp=10.0, settle=2.0, measured=8.0)
    for wanted in (40,) if work.is_quick else _READERS:
        nreaders, note = fit_files(wanted, _PER_READER, _OTHERS)
        yield Case(
            f"{nreaders:,} connections that read 20 KB/s each",
            [Arm(name, partial(_read_slowly, name, path, nreaders, pace)) for name in _COMPARED],
            [
                Aim(_OURS, _CPU_PER_SECOND, 2.0, [_NGINX]),
                Aim(_OURS, _MEMORY, 16.0),
            ],
            note=f"Each sample is of a server of its own. {note}".strip(),
        )


def _read_slowly(arm: str, path: Path, nreaders: int, pace: Pace) -> Sample:
    # One that had as many before would not show what they took.
    with (
        _STARTS[arm](path.parent) as server,
        slow_readers.reading(server, path.name, Crowd(nreaders), pace) as reading,
    ):
        return {
            _CPU_PER_SECOND: reading.cpu * 1000,
            _MEMORY: reading.memory,
            _MEMORY_OF_ALL: reading.memory * nreaders / 1024,
            _RATE_EACH: reading.rate / 1000,
        }
