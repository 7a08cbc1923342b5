"""Puts the stored results into plots and into the README: `python -m benchmarks report`.

What is measured stands in the README between markers, and nothing else does: tests compare both
with what this makes of the stored results.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from . import drawing
from .plots import PLOTS, Missing, Plot, Shown, pick
from .stored import ROOT, aim_text, load, load_under_load, unit_of
from .svg import THEMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .stored import Aim, Case, Run

_DIRECTORY = "benchmarks/results/plots"
_BEGIN, _END = "<!-- figures -->\n", "<!-- /figures -->\n"
_SERVER_BEGIN, _SERVER_END = "<!-- plots of the server -->\n", "<!-- /plots of the server -->\n"
_LOAD_BEGIN, _LOAD_END = "<!-- under load -->\n", "<!-- /under load -->\n"


@dataclass(frozen=True)
class Drawn:
    """A plot, as far as there are results for it."""

    plot: Plot
    panels: Sequence[Shown]

    def files(self) -> dict[str, str]:
        """Return the names of its files and what is in them."""
        return {
            f"{self.plot.name}-{name}.svg": drawing.draw(self.plot, self.panels, theme)
            for name, theme in THEMES.items()
        }

    def picture(self) -> str:
        path = f"{_DIRECTORY}/{self.plot.name}"
        alt = escape(drawing.described(self.panels))
        return (
            "<picture>"
            f'<source media="(prefers-color-scheme: dark)" srcset="{path}-dark.svg">'
            f'<img align="top" alt="{alt}" src="{path}-light.svg">'
            "</picture>\n"
        )


def plots(runs: Sequence[Run]) -> tuple[list[Drawn], list[str]]:
    """Return the plots of what is stored, and for each panel without results why."""
    drawn, missing = [], []
    for plot in PLOTS:
        panels = []
        for panel in plot.panels:
            try:
                panels.append(pick(panel, runs))
            except Missing as error:
                missing.append(f"{plot.name}: {error}: skipped")
        if panels:
            drawn.append(Drawn(plot, panels))
    return drawn, missing


def write(root: Path = ROOT) -> Iterator[str]:
    """Write the plots and the README anew, and yield what was done and what not.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: What is stored are no results, or the README lacks a marker.
    """
    runs, loaded = load(root), load_under_load(root)
    drawn, missing = plots([*runs, *loaded])
    yield from missing
    readme = root / "README.md"
    text = with_results(readme.read_text(encoding="utf-8"), runs, loaded)
    files = dict(itertools.chain.from_iterable(plot.files().items() for plot in drawn))
    directory = root / _DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    for stale in sorted(path for path in directory.glob("*.svg") if path.name not in files):
        stale.unlink()
        yield f"removed {stale.name}, which shows nothing that is stored"
    for name, content in files.items():
        (directory / name).write_text(content, encoding="utf-8")
    readme.write_text(text, encoding="utf-8")
    yield f"{len(files)} files in {directory}, and the figures in {readme}"


def with_results(readme: str, runs: Sequence[Run], loaded: Sequence[Run]) -> str:
    """Return the README with the results of these runs, and of those under load."""
    drawn, _ = plots(runs)
    before, _, after = shown_in(readme)
    readme = before + figures(runs) + after
    before, _, after = _split(readme, _SERVER_BEGIN, _SERVER_END)
    readme = before + _pictures(drawn, "server") + after
    before, _, after = shown_under_load(readme)
    return before + _under_load(loaded) + after


def shown_in(readme: str) -> tuple[str, str, str]:
    """Split the README into what is before, in, and after its figures."""
    return _split(readme, _BEGIN, _END)


def shown_under_load(readme: str) -> tuple[str, str, str]:
    """Split the README into what is before, in, and after what has held under load."""
    return _split(readme, _LOAD_BEGIN, _LOAD_END)


def _split(readme: str, begin: str, end: str) -> tuple[str, str, str]:
    for marker in (begin, end):
        if readme.count(marker) != 1:
            raise ValueError(f"README.md: the marker {marker.strip()} is not there, or not once")
    before, rest = readme.split(begin)
    inside, after = rest.split(end)
    return before + begin, inside, end + after


def figures(runs: Sequence[Run] | None = None) -> str:
    """Return what was aimed at and what was not reached, plots, and the tables of all aims."""
    runs = load() if runs is None else runs
    drawn, _ = plots(runs)
    parts = (
        _summary(runs),
        _pictures(drawn, "costs"),
        _folded(
            "More plots: files through streams, and in web frameworks", _pictures(drawn, "more")
        ),
        _folded("All aims, and what was measured", "\n".join(map(_table, runs))),
    )
    return "\n".join(filter(None, parts))


def _pictures(drawn: Sequence[Drawn], place: str) -> str:
    return "".join(plot.picture() for plot in drawn if plot.plot.place == place)


def _folded(title: str, text: str) -> str:
    return text and f"<details>\n<summary>{title}</summary>\n\n{text}\n</details>\n"


def _summary(runs: Sequence[Run]) -> str:
    """Return how many aims are met, and row by row which are not."""
    rows = {
        row: [aim for case in cases for aim in case["aims"]]
        for run in runs
        for row, cases in run.rows.items()
    }
    met, missed, skipped = (
        [aim for of_row in rows.values() for aim in of_row if aim["met"] is outcome]
        for outcome in (True, False, None)
    )
    text = f"{len(met)} of {len(met) + len(missed)} aims are met"
    text += f", and {len(skipped)} could not be measured." if skipped else "."
    if missed:
        text += (
            f" In {sum(map(_is_unsure, missed))} of the {len(missed)} that are missed, and in "
            f"{sum(map(_is_unsure, met))} of those that are met, the aim lies between the "
            "quartiles: another run may say otherwise. Missed are:\n\n"
        )
    lines = (_missed(row, of_row) for row, of_row in rows.items())
    return text + "\n".join(filter(None, lines)) + "\n"


def _is_unsure(aim: Aim) -> bool:
    result, bound = aim["result"], float(aim["bound"])
    return round(float(result["low"]), 2) <= bound <= round(float(result["high"]), 2)


def _missed(row: str, aims: Sequence[Aim]) -> str:
    """Return in a line what a row misses, by what is aimed at; nothing if it misses nothing."""
    aims = [aim for aim in aims if aim["result"]]
    parts = []
    for kind in dict.fromkeys((aim["measure"], aim_text(aim)) for aim in aims):
        alike = [aim for aim in aims if (aim["measure"], aim_text(aim)) == kind]
        missed = sorted((aim for aim in alike if not aim["met"]), key=_median)
        if missed:
            measure, aim = kind
            results = dict.fromkeys(_result(aim) for aim in (missed[0], missed[-1]))
            parts.append(
                f"{measure} {' to '.join(results)} instead of {aim} ({len(missed)} of {len(alike)})"
            )
    return f"* `{row}`: {'; '.join(parts)}" if parts else ""


def _median(aim: Aim) -> float:
    median: float = aim["result"]["median"]
    return median


def _result(aim: Aim) -> str:
    return f"{_median(aim):.2f}{unit_of(aim)}"


def _under_load(runs: Sequence[Run]) -> str:
    """Return the plots of runs under load, and of each arm what its aims ask for."""
    drawn, _ = plots(runs)
    table = _folded(
        "All that was asked for, and what was measured", "\n".join(map(_held_table, runs))
    )
    return "\n".join(filter(None, (_pictures(drawn, "load"), table)))


def _held_table(run: Run) -> str:
    aims = [aim for cases in run.rows.values() for case in cases for aim in case["aims"]]
    met, missed = (sum(aim["met"] is outcome for aim in aims) for outcome in (True, False))
    lines = [
        f"Measured on {run.date}: {run.describe('uvloop')}. {met} of {met + missed} aims are met.",
        "",
        "| under load | asend on | measured, aims in brackets |",
        "|---|---|---|",
    ]
    for case in itertools.chain.from_iterable(run.rows.values()):
        lines += _held(case)
    return "\n".join(lines) + "\n"


def _held(case: Case) -> Iterator[str]:
    """Yield a line for each arm that has aims."""
    if case["skipped"]:
        yield f"| {case['title']} | - | skipped: {case['skipped']} |"
    for arm in case["arms"]:
        aims = [aim for aim in case["aims"] if aim["arm"] == arm]
        if aims:
            text = "; ".join(map(_held_aim, aims))
            yield f"| {case['title']} | {arm.removeprefix('asend, ')} | {text} |"


def _held_aim(aim: Aim) -> str:
    if aim["result"] is None:
        return f"{aim['measure']}: skipped"
    missed = "" if aim["met"] else " **missed**"
    median = _median(aim)
    shown = f"{median:.3g}" if abs(median) < 1000 else f"{median:,.0f}"
    return f"{aim['measure']}: {shown} ({aim_text(aim)}){missed}"


def _table(run: Run) -> str:
    """Return the aims of a run, with what came of them."""
    lines = [
        f"Measured on {run.date}: {run.describe('uvloop', 'trio')}. Receivers are in another "
        "process, the arms of a row alternate in one run. Medians of the ratios of each round, "
        "quartiles in brackets; all samples are in [benchmarks/results](benchmarks/results), "
        f"`{run.command()}` measures anew, and `python -m benchmarks report` shows "
        "here what is stored.",
        "",
        "| row | asend on | against | measure | result | aim |",
        "|---|---|---|---|---|---|",
    ]
    for row, cases in run.rows.items():
        for case in cases:
            lines += [_line(f"{row}: {case['title']}", aim) for aim in case["aims"]]
    return "\n".join(lines) + "\n"


def _line(title: str, aim: Aim) -> str:
    result = aim["result"]
    shown = "skipped"
    if result is not None:
        shown = _result(aim)
        low, high = (f"{result[name]:.2f}" for name in ("low", "high"))
        if low != high:
            shown += f" [{low}..{high}]"
    missed = " **missed**" if aim["met"] is False else ""
    cells = (
        title,
        aim["arm"].removeprefix("asend, "),
        aim["against"] or "-",
        aim["measure"],
        shown + missed,
        aim_text(aim),
    )
    return f"| {' | '.join(cells)} |"
