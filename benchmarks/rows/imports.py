"""What `import asend` takes beyond `import asyncio`, each in an interpreter of its own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from ..harness import Aim, Arm, Case, Measure, Sample, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIME = Measure("import, ms")
_PROGRAM = (
    "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
)


def cases(work: Work) -> Iterator[Case]:
    modules = ("asend", "asyncio")
    yield Case(
        "a fresh interpreter for each",
        [Arm(f"import {module}", functools.partial(_measure, module)) for module in modules],
        [Aim("import asend", _TIME, 10.0, ["import asyncio"], is_difference=True)],
        repeat=work.pick(10, 1),
    )


def _measure(module: str) -> Sample:
    command = [sys.executable, "-c", _PROGRAM.format(module=module)]
    # The warm-up round leaves compiled modules behind, as an installation does.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    return {_TIME: float(output) * 1000}
