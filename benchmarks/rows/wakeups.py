"""One large send to a slow peer: the price of being woken up for the next 16 KiB."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import asend

from ..harness import Aim, Arm, Case, Measure, Sample, Work
from ..receivers import SIP, Address, receiver
from ..sending import KIB, MIB, SendBytes, Stopwatch, bytes_by_loop, connected, run_on

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIME = Measure("us per 16 KiB")
_CPU = Measure("CPU us per 16 KiB")

_ARMS: dict[str, tuple[str, SendBytes]] = {
    "asend, asyncio": ("asyncio", asend.sock_sendall),
    "loop.sock_sendall, asyncio": ("asyncio", bytes_by_loop),
    "asend, uvloop": ("uvloop", asend.sock_sendall),
    "loop.sock_sendall, uvloop": ("uvloop", bytes_by_loop),
    "asend, trio": ("trio", asend.sock_sendall),
}


def cases(work: Work) -> Iterator[Case]:
    data = bytes(work.pick(32, 1) * MIB)
    with receiver("sip") as address:
        yield Case(
            f"{len(data) // MIB} MiB to a peer that reads {SIP // KIB} KiB at a time",
            [
                Arm(name, functools.partial(_measure, *arm, address, data))
                for name, arm in _ARMS.items()
            ],
            [
                Aim(f"asend, {runtime}", _CPU, 1.0, [f"loop.sock_sendall, {runtime}"])
                for runtime in ("asyncio", "uvloop")
            ],
            note="The peer sets the time; what a wake-up costs is its CPU time.",
            repeat=3,
        )


def _measure(runtime: str, send: SendBytes, address: Address, data: bytes) -> Sample:
    with connected(address, SIP) as sock:
        watch = Stopwatch()

        async def main() -> None:
            with watch:
                await send(sock, data)

        run_on(runtime, main)
    sips = len(data) / SIP
    return {_TIME: watch.seconds * 1e6 / sips, _CPU: watch.cpu * 1e6 / sips}
