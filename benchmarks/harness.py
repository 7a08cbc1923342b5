"""Runs the arms of a case in turn over fixed work, and sums up what they measured.

The speed of a machine drifts by more than the differences looked for. So each round runs every arm
once, in an order shuffled anew, and two arms are compared round by round: the figure is the median
of the ratios, not the ratio of the medians. One round warms up and is discarded.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

# Any number will do; a fixed one makes two runs use the same order.
_SEED = 20


class Skipped(Exception):
    """An arm, a case or a row cannot be run here; the message says why."""


@dataclass(frozen=True)
class Measure:
    """Something that an arm measures, with its unit in its name."""

    name: str
    more_is_better: bool = False
    digits: int = 2

    def best(self, names: Sequence[str], medians: Mapping[str, float]) -> str:
        return (max if self.more_is_better else min)(names, key=medians.__getitem__)


RATE = Measure("GB/s", more_is_better=True)
CPU = Measure("CPU s/GB", digits=3)
PAUSE = Measure("longest pause, ms")

Sample: TypeAlias = Mapping[Measure, float]


@dataclass(frozen=True)
class Arm:
    """One way to do the work of a case."""

    name: str
    run: Callable[[], Sample]


@dataclass(frozen=True)
class Aim:
    """What one arm has to reach.

    Args:
        arm: The arm asked about.
        measure: What of it.
        bound: The least, or for measures of which less is better the most.
        against: The best of these arms, by its median, is the reference. None: `bound` is absolute.
        is_difference: Compare by subtracting, not by dividing.
    """

    arm: str
    measure: Measure
    bound: float
    against: Sequence[str] = ()
    is_difference: bool = False

    def compare(self, value: float, reference: float) -> float:
        if self.is_difference:
            return value - reference
        return value / reference if reference else float("inf")

    def is_met(self, value: float) -> bool:
        # At the precision that is printed: 0.997x is as good as 1.00x, and as bad.
        shown = round(value, 2)
        return shown >= self.bound if self.measure.more_is_better else shown <= self.bound


@dataclass(frozen=True)
class Case:
    """Fixed work, the arms that do it, and what they have to reach.

    Args:
        repeat: How many rounds to run for each that was asked for: short samples need more.
        note: What a reader must know to understand the figures.
        skipped: Why the case cannot be run.
    """

    title: str
    arms: Sequence[Arm] = ()
    aims: Sequence[Aim] = ()
    repeat: int = 1
    note: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Work:
    """How much work to do, where, and for how long if it has no other end."""

    directory: Path
    is_quick: bool = False
    minutes: float = 0.0

    def pick(self, full: int, quick: int) -> int:
        return quick if self.is_quick else full


@dataclass(frozen=True)
class Summary:
    """The middle of some samples, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Outcome:
    """An aim, and what came of it."""

    aim: Aim
    reference: str = ""
    summary: Summary | None = None

    @property
    def is_met(self) -> bool | None:
        return None if self.summary is None else self.aim.is_met(self.summary.median)


@dataclass
class Result:
    """What a case measured: for each arm and measure one number per round."""

    case: Case
    samples: dict[str, dict[Measure, list[float]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, arm: str, sample: Sample) -> None:
        series = self.samples.setdefault(arm, {})
        for measure, value in sample.items():
            series.setdefault(measure, []).append(value)

    def summary(self, arm: str, measure: Measure) -> Summary | None:
        values = self.samples.get(arm, {}).get(measure)
        return None if values is None else Summary.of(values)

    def outcomes(self) -> Iterator[Outcome]:
        return map(self._outcome, self.case.aims)

    def _outcome(self, aim: Aim) -> Outcome:
        measure = aim.measure
        if aim.arm not in self.samples:
            return Outcome(aim)
        values = self.samples[aim.arm][measure]
        if not aim.against:
            return Outcome(aim, "", Summary.of(values))
        present = [name for name in aim.against if name in self.samples]
        if not present:
            return Outcome(aim)
        medians = {name: Summary.of(self.samples[name][measure]).median for name in present}
        best = measure.best(present, medians)
        compared = map(aim.compare, values, self.samples[best][measure])
        return Outcome(aim, best, Summary.of(list(compared)))


def run(case: Case, rounds: int, *, warms_up: bool = True) -> Result:
    """Run every arm of a case once per round, and once before to warm up if that is wanted."""
    result = Result(case)
    arms = list(case.arms)
    order = random.Random(_SEED)
    for turn in range(0 if warms_up else 1, 1 + rounds * case.repeat):
        order.shuffle(arms)
        for arm in list(arms):
            # What another arm left behind must not be collected at the cost of this one.
            gc.collect()
            try:
                sample = arm.run()
            except Skipped as reason:
                result.skipped[arm.name] = str(reason)
                result.samples.pop(arm.name, None)
                arms.remove(arm)
                continue
            if turn:
                result.add(arm.name, sample)
    return result
