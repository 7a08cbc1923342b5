"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .harness import Measure, Outcome, Result, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType


def of(row: str, result: Result) -> Iterator[RenderableType]:
    """Yield what to print of a case: the arms, then the aims; or why it was skipped."""
    title = f"{row}: {result.case.title}"
    if result.case.skipped:
        yield f"{title}\nskipped: {result.case.skipped}\n"
        return
    yield _arms(title, result)
    if result.case.aims:
        yield _aims(result)
    yield ""


def _arms(title: str, result: Result) -> Table:
    caption = f"{result.case.note} " if result.case.note else ""
    table = Table(
        title=title,
        title_justify="left",
        caption=f"{caption}{_said(_rounds(result))}",
        caption_justify="left",
    )
    table.add_column("arm")
    measures = _measures(result)
    for measure in measures:
        table.add_column(measure.name, justify="right")
    for arm in result.case.arms:
        if arm.name in result.skipped:
            table.add_row(arm.name, f"skipped: {result.skipped[arm.name]}")
        else:
            cells = (_cell(result.summary(arm.name, measure), measure) for measure in measures)
            table.add_row(arm.name, *cells)
    return table


def _said(rounds: int) -> str:
    return f"Medians \\[quartiles] of {rounds} rounds." if rounds > 1 else "One round."


def _aims(result: Result) -> Table:
    table = Table(caption=_said(_rounds(result)), caption_justify="left")
    for name in ("arm", "against", "measure"):
        table.add_column(name)
    for name in ("result", "aim", "met"):
        table.add_column(name, justify="right")
    for outcome in result.outcomes():
        aim = outcome.aim
        sign = ">=" if aim.measure.more_is_better else "<="
        unit = _unit(outcome)
        table.add_row(
            aim.arm,
            outcome.reference or "-",
            aim.measure.name,
            "skipped" if outcome.summary is None else _spread(outcome.summary, 2, unit),
            f"{sign} {aim.bound:g}{unit}",
            {True: "yes", False: "no", None: "-"}[outcome.is_met],
        )
    return table


def _unit(outcome: Outcome) -> str:
    return "x" if outcome.aim.against and not outcome.aim.is_difference else ""


def _cell(summary: Summary | None, measure: Measure) -> str:
    return "" if summary is None else _spread(summary, measure.digits)


def _spread(summary: Summary, digits: int, unit: str = "") -> str:
    median = f"{summary.median:,.{digits}f}{unit}"
    low, high = (f"{value:,.{digits}f}" for value in (summary.low, summary.high))
    return median if low == high else f"{median} \\[{low}..{high}]"


def _measures(result: Result) -> list[Measure]:
    return list(dict.fromkeys(measure for arm in result.samples.values() for measure in arm))


def _rounds(result: Result) -> int:
    return max(
        (len(values) for arm in result.samples.values() for values in arm.values()), default=0
    )


def as_json(result: Result) -> dict[str, Any]:
    """Return every sample, in the order of the rounds, and every summary of a case."""
    return {
        "title": result.case.title,
        "note": result.case.note,
        "skipped": result.case.skipped or None,
        "arms": {arm.name: _arm_json(result, arm.name) for arm in result.case.arms},
        "aims": [_aim_json(outcome) for outcome in result.outcomes()],
    }


def _arm_json(result: Result, name: str) -> dict[str, Any]:
    series = result.samples.get(name, {})
    return {
        "skipped": result.skipped.get(name),
        "samples": {measure.name: values for measure, values in series.items()},
        "summary": {measure.name: asdict(Summary.of(values)) for measure, values in series.items()},
    }


def _aim_json(outcome: Outcome) -> dict[str, Any]:
    aim = outcome.aim
    return {
        "arm": aim.arm,
        "measure": aim.measure.name,
        "more_is_better": aim.measure.more_is_better,
        "against": outcome.reference or None,
        "is_difference": aim.is_difference,
        "bound": aim.bound,
        "result": None if outcome.summary is None else asdict(outcome.summary),
        "met": outcome.is_met,
    }
