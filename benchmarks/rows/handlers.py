"""File responses in handlers of aiohttp and Starlette: asend's against those of the framework.

One server at a time is loaded, on one core; wrk is on the other. Small files are counted in
requests, large ones in bytes, and a small route is timed while eight clients download at full
speed. CPU seconds are those of the server.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from .. import wrk
from ..apps import Server, serving
from ..harness import CPU, RATE, Arm, Case, Measure, Sample, Target, Work
from ..sending import KIB, MIB, new_file

if TYPE_CHECKING:
    from pathlib import Path

_Sampler: TypeAlias = Callable[[Server, str, int], Sample]

_REQUESTS = Measure("requests/s", more_is_better=True, digits=0)
_CPU_EACH = Measure("CPU us/request", digits=1)
_P99 = Measure("p99, ms")
_CONNECTIONS = 16
_DOWNLOADS = 8
_LOOPS = ("asyncio", "uvloop")


@dataclass(frozen=True)
class _Framework:
    """What is compared under a framework, and the aims for it.

    Args:
        needs: The package.
        whose: Whose responses are asend's, beside the stock ones.
        requests: The least ratio of requests a second, for 4 KiB.
        rate: The least ratio of GB/s, for 100 MiB.
        cpu: The most of CPU seconds per GB, for 100 MiB, on uvloop.
    """

    needs: str
    whose: tuple[str, ...]
    requests: float
    rate: float | None = None
    cpu: float | None = None


_FRAMEWORKS = {
    "aiohttp": _Framework("aiohttp", ("asend",), 3.0, cpu=0.5),
    "starlette": _Framework("uvicorn", ("asend", "middleware"), 1.8, rate=3.0),
}


def cases(work: Work) -> Iterator[Case]:
    wrk.check()
    for framework, aims in _FRAMEWORKS.items():
        if importlib.util.find_spec(aims.needs) is None:
            yield Case(framework, skipped=f"{aims.needs} is not installed")
            continue
        for loop in _LOOPS:
            with contextlib.ExitStack() as stack:
                yield from _on(work, stack, framework, loop, aims)


def _on(
    work: Work, stack: contextlib.ExitStack, framework: str, loop: str, aims: _Framework
) -> Iterator[Case]:
    sizes = (4 * KIB, 64 * KIB, MIB, work.pick(100 * MIB, 4 * MIB))
    files = {size: stack.enter_context(new_file(work.directory, size)) for size in sizes}
    names = {whose: f"{_name(whose)}, {framework}" for whose in ("stock", *aims.whose)}
    servers = {
        whose: stack.enter_context(serving(framework, loop, whose, work.directory))
        for whose in names
    }
    seconds = work.pick(2, 1)

    def case(title: str, sample: _Sampler, path: Path, targets: Iterator[Target]) -> Case:
        arms = [
            Arm(name, partial(sample, servers[whose], f"files/{path.name}", seconds))
            for whose, name in names.items()
        ]
        return Case(f"{framework} on {loop}, {title}", arms, [*targets])

    def aim(measure: Measure, bound: float | None) -> Iterator[Target]:
        if bound is not None:
            for whose in aims.whose:
                yield Target(names[whose], measure, bound, [names["stock"]])

    for size in sizes[:3]:
        bound = aims.requests if size == 4 * KIB else None
        yield case(_size(size), _requests, files[size], aim(_REQUESTS, bound))
    largest = sizes[-1]
    targets = [*aim(RATE, aims.rate), *aim(CPU, aims.cpu if loop == "uvloop" else None)]
    yield case(_size(largest), _bytes, files[largest], iter(targets))
    title = f"the small route during {_DOWNLOADS} downloads"
    yield case(title, _latency, files[largest], aim(_P99, 0.5))


def _name(whose: str) -> str:
    return {"stock": "stock", "asend": "asend"}.get(whose, f"asend's {whose}")


def _size(nbytes: int) -> str:
    return f"{nbytes // KIB} KiB" if nbytes < MIB else f"{nbytes // MIB} MiB"


def _requests(server: Server, path: str, seconds: int) -> Sample:
    before = server.cpu()
    load = wrk.load(server.url(path), _CONNECTIONS, seconds)
    cpu = server.cpu() - before
    return {_REQUESTS: load.rate, _CPU_EACH: cpu / load.requests * 1e6}


def _bytes(server: Server, path: str, seconds: int) -> Sample:
    before = server.cpu()
    load = wrk.load(server.url(path), 1, seconds)
    cpu = server.cpu() - before
    return {RATE: load.nbytes / load.seconds / 1e9, CPU: cpu / load.nbytes * 1e9}


def _latency(server: Server, path: str, seconds: int) -> Sample:
    downloads = wrk.start(server.url(path), _DOWNLOADS, seconds + 2)
    # Until they are at full speed.
    time.sleep(0.5)
    load = wrk.counted(wrk.start(server.url("api"), 1, seconds, is_first=True))
    transferred = wrk.counted(downloads)
    return {_P99: load.p99, RATE: transferred.nbytes / transferred.seconds / 1e9}
