"""File responses in handlers of aiohttp and Starlette: asend's against those of the framework.

One server at a time is loaded, on one core; wrk is on the other. Small files are counted in
requests, large ones in bytes, and a small route is timed while eight clients download at full
speed. CPU seconds are those of the server.
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from .. import loads, wrk
from ..apps import serving
from ..harness import CPU, RATE, Aim, Arm, Case, Measure, Sample, Work
from ..sending import KIB, MIB, new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..servers import Server

_Load: TypeAlias = "Callable[[Server], Sample]"

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
    for framework, wanted in _FRAMEWORKS.items():
        if importlib.util.find_spec(wanted.needs) is None:
            yield Case(framework, skipped=f"{wanted.needs} is not installed")
            continue
        for loop in _LOOPS:
            with contextlib.ExitStack() as stack:
                yield from _on(work, stack, framework, loop, wanted)


def _on(
    work: Work, stack: contextlib.ExitStack, framework: str, loop: str, wanted: _Framework
) -> Iterator[Case]:
    sizes = (4 * KIB, 64 * KIB, MIB, work.pick(100 * MIB, 4 * MIB))
    files = {size: stack.enter_context(new_file(work.directory, size)) for size in sizes}
    names = {whose: f"{_name(whose)}, {framework}" for whose in ("stock", *wanted.whose)}
    servers = {
        whose: stack.enter_context(serving(framework, loop, whose, work.directory))
        for whose in names
    }
    seconds = work.pick(2, 1)

    def case(title: str, load: _Load, aims: Iterator[Aim]) -> Case:
        arms = [Arm(name, partial(load, servers[whose])) for whose, name in names.items()]
        return Case(f"{framework} on {loop}, {title}", arms, [*aims])

    def aim(measure: Measure, bound: float | None) -> Iterator[Aim]:
        if bound is not None:
            for whose in wanted.whose:
                yield Aim(names[whose], measure, bound, [names["stock"]])

    paths = {size: f"files/{file.name}" for size, file in files.items()}
    for size in sizes[:3]:
        load = partial(loads.requests, path=paths[size], connections=_CONNECTIONS, seconds=seconds)
        bound = wanted.requests if size == 4 * KIB else None
        yield case(_size(size), load, aim(loads.REQUESTS, bound))
    largest = sizes[-1]
    load = partial(loads.transfer, path=paths[largest], connections=1, seconds=seconds)
    aims = [*aim(RATE, wanted.rate), *aim(CPU, wanted.cpu if loop == "uvloop" else None)]
    yield case(_size(largest), load, iter(aims))
    load = partial(
        loads.latency, path="api", download=paths[largest], downloads=_DOWNLOADS, seconds=seconds
    )
    title = f"the small route during {_DOWNLOADS} downloads"
    yield case(title, load, aim(loads.P99, 0.5))


def _name(whose: str) -> str:
    return {"stock": "stock", "asend": "asend"}.get(whose, f"asend's {whose}")


def _size(nbytes: int) -> str:
    return f"{nbytes // KIB} KiB" if nbytes < MIB else f"{nbytes // MIB} MiB"
