"""Random sends of all kinds for minutes, on both loops at once: nothing may be wrong, or left.

Memory is compared where it has become what it will be: its median in the last third of the time
with that in the second one.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from functools import partial
from typing import TYPE_CHECKING

from ..harness import Aim, Arm, Case, Measure, Sample, Work
from . import soaking
from .checking import Receivers, checking
from .senders import LOOPS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_GB = Measure("GB", more_is_better=True)
_ENDS = {
    name: Measure(name, more_is_better=True, digits=0)
    for name in ("whole", "cancelled", "timed out", "reset")
}
_FAILURES = Measure("failures", digits=0)
_WRONG = Measure("wrong at the peer", digits=0)
_STUCK = Measure("stuck", digits=0)
_DESCRIPTORS = Measure("fds left", digits=0)
_RESIDENT = Measure("RSS, MiB", digits=1)
_GROWTH = Measure("RSS growth, %", digits=1)
# In seconds the memory has not become what it will be.
_MOST_GROWTH, _MOST_GROWTH_QUICK = 5.0, 50.0
_SEED = 20


def cases(work: Work) -> Iterator[Case]:
    growth = _MOST_GROWTH_QUICK if work.is_quick else _MOST_GROWTH
    limits = {_FAILURES: 0.0, _WRONG: 0.0, _STUCK: 0.0, _DESCRIPTORS: 0.0, _GROWTH: growth}
    if not work.is_quick:
        # Seconds need not have all of them.
        limits |= dict.fromkeys(_ENDS.values(), 1.0)
    with _running(work) as arms:
        yield Case(
            f"{work.minutes:g} minutes of random sends, {len(LOOPS)} loops at once",
            arms,
            [Aim(arm.name, measure, most) for arm in arms for measure, most in limits.items()],
            note="RSS: median of the last third of the time against that of the second one.",
        )


@contextlib.contextmanager
def _running(work: Work) -> Iterator[list[Arm]]:
    """Send on all loops while the context is open; each arm waits for one of them."""
    path = work.directory / "file"
    soaking.write_file(path)
    with contextlib.ExitStack() as stack:
        arms = []
        for loop in LOOPS:
            receivers = stack.enter_context(checking())
            process = soaking.start(loop, _SEED, work.minutes * 60, receivers.places, path)
            stack.enter_context(process)
            stack.callback(process.kill)
            arms.append(Arm(f"asend, {loop}", partial(_sample, process, receivers)))
        yield arms


def _sample(process: subprocess.Popen[str], receivers: Receivers) -> Sample:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the process that sends has failed")
    found = json.loads(output)
    for failure in found["failures"]:
        print(failure)
    counts, memory = found["counts"], found["memory"]
    first, last = found["descriptors"]
    third = len(memory) // 3
    before, after = (statistics.median(part) for part in (memory[third:-third], memory[-third:]))
    return {
        _GB: counts["bytes"] / 1e9,
        **{measure: counts.get(name, 0) for name, measure in _ENDS.items()},
        _FAILURES: counts.get("failures", 0),
        _WRONG: receivers.end()["wrong"],
        _STUCK: found["stuck"],
        _DESCRIPTORS: abs(last - first),
        _RESIDENT: after / 1024,
        _GROWTH: (after / before - 1) * 100,
    }
