"""The measurements behind two constants: bytes per step, and bytes per read of a cold file."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING
from unittest import mock

from asend import _by_kernel, _tally
from asend._drivers import _asyncio, _turns

from ..harness import Arm, Case, Sample, Work
from ..receivers import receiver
from ..sending import KIB, MIB, by_asend, drop, new_file, send_and_measure

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEPS = [64 * KIB << power for power in range(7)]
_WHERE = {"KERNEL_STEP_SIZE": (_tally, _asyncio, _turns), "WINDOW_SIZE": (_by_kernel,)}
_WINDOWS = [128 * KIB << power for power in range(6)]


def cases(work: Work) -> Iterator[Case]:
    nbytes = work.pick(1024 * MIB, 4 * MIB)
    with receiver("drain") as address, new_file(work.directory, nbytes) as path:

        def measure(constant: str, value: int, is_cold: bool) -> Sample:
            if is_cold:
                drop(path)
            with contextlib.ExitStack() as stack:
                for module in _WHERE[constant]:
                    stack.enter_context(mock.patch.object(module, constant, value))
                return send_and_measure("asyncio", by_asend, address, path, watches_pauses=True)

        def arms(constant: str, values: list[int], is_cold: bool) -> list[Arm]:
            return [
                Arm(f"{value // KIB:,} KiB", functools.partial(measure, constant, value, is_cold))
                for value in values
            ]

        yield Case(
            f"step size, {nbytes // MIB} MiB, hot",
            arms("KERNEL_STEP_SIZE", _STEPS, False),
            repeat=3,
        )
        yield Case(f"window size, {nbytes // MIB} MiB, cold", arms("WINDOW_SIZE", _WINDOWS, True))
