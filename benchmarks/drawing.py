"""Draws a plot: for each arm its name, its bar with whiskers at the quartiles, and the figures.

A plot is as wide as a phone, and text in it as large as there. On wider pages two find room beside
each other.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .stored import unit_of
from .svg import Drawing, width_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plots import Bar, Plot, Shown
    from .stored import Aim

_Scale: TypeAlias = Callable[[float], float]

WIDTH = 412.0
# Between columns, and between what is drawn and what comes beside it.
_GAP, _MARGIN = 6.0, 8.0
_LINE, _BAR = 16.0, 9.0
_SMALL_LINE, _SMALL_LETTERS = 12.5, 68
_TITLE, _HEADING, _BELOW_GROUP, _BELOW_PANEL = 17.0, 19.0, 3.0, 14.0
_CAP, _DOT = 3.0, 3.5
# How far a logarithmic scale goes beyond what is on it.
_ROOM = 1.3
# Ends a line of a command.
_GOES_ON = " \\"
# From the middle of a line to the foot of its letters.
_FOOT = 4.0


def draw(plot: Plot, panels: Sequence[Shown], theme: Mapping[str, str]) -> str:
    """Return the plot as SVG."""
    drawing = Drawing(WIDTH)
    columns = _Columns.of([bar for shown in panels for bar in shown.bars()])
    y = 0.0
    for shown in panels:
        y = _Frame(drawing, shown, columns).draw(y) + _BELOW_PANEL
    for line in _small_print(plot, panels):
        drawing.text(0, y, line, "small")
        y += _SMALL_LINE
    return drawing.render(y + _MARGIN, theme, described(panels))


def described(panels: Sequence[Shown]) -> str:
    """Return in words what a plot shows."""
    return " ".join(f"{shown.panel.title}: {_described(shown)}." for shown in panels)


def _described(shown: Shown) -> str:
    ours, others = ([bar for bar in shown.bars() if bar.is_ours is ours] for ours in (True, False))
    parts = [f"asend {_range([bar.median for bar in ours])}"] if ours else []
    parts += [f"others {_range([bar.median for bar in others])}"] if others else []
    text = f"{', '.join(parts)} ({shown.panel.scale})"
    aims = list(shown.aims())
    if aims:
        text += f"; aims met: {sum(aim['met'] for aim in aims)} of {len(aims)}"
    return text


def _range(values: Sequence[float]) -> str:
    low, high = short(min(values)), short(max(values))
    return low if low == high else f"{low} to {high}"


def short(value: float) -> str:
    """Return a number with three digits, and k for thousands."""
    unit, factor = ("k", 1000) if value >= 999.5 else ("", 1)
    # Rounded first: 9.996 is 10.0.
    rounded = float(f"{value / factor:.2e}")
    before = math.floor(math.log10(rounded)) if rounded else 0
    return f"{rounded:.{max(0, 2 - before)}f}{unit}"


@dataclass(frozen=True)
class _Columns:
    """Where bars begin and may end at most, and where medians end, in all panels of a plot."""

    left: float
    right: float
    medians: float

    @classmethod
    def of(cls, bars: Sequence[Bar]) -> _Columns:
        names, medians, results = (
            max(width_of(text(bar), _kind(bar)) for bar in bars)
            for text in (_name, _median, _results)
        )
        end = WIDTH - _MARGIN - (results + _GAP if results else 0)
        return cls(names + _GAP, end - medians - _GAP, end)


@dataclass(frozen=True)
class _Frame:
    """One panel in a drawing."""

    drawing: Drawing
    shown: Shown
    columns: _Columns

    def draw(self, y: float) -> float:
        """Draw from y on, and return where it ends."""
        panel = self.shown.panel
        self.drawing.text(0, y + _TITLE - _FOOT, panel.title, "title")
        self.drawing.text(0, y + 2 * _TITLE - _FOOT, panel.scale, "faint")
        y += 2 * _TITLE
        scale, marks = self._scale(), self._marks()
        for value, text in marks.items():
            self.drawing.text(scale(value), y + _LINE - _FOOT, text, "faint", "middle")
        y += _LINE if marks else 0
        for group in self.shown.groups:
            self.drawing.text(0, y + _HEADING - _FOOT, group.heading, "heading")
            y += _HEADING
            bottom = y + _LINE * len(group.bars)
            for value, text in marks.items():
                kind = "aim" if text.startswith("aim") else "grid"
                self.drawing.upright(scale(value), y, bottom, kind)
            for bar in group.bars:
                self._draw_bar(bar, y + _LINE / 2, scale)
                y += _LINE
            y += _BELOW_GROUP
        return y

    def _draw_bar(self, bar: Bar, y: float, scale: _Scale) -> None:
        kind, columns = _kind(bar), self.columns
        self.drawing.text(0, y + _FOOT, bar.name, kind)
        if not self.shown.panel.is_log:
            length = scale(bar.median) - columns.left
            self.drawing.box(columns.left, y - _BAR / 2, length, _BAR, kind)
        self.drawing.whisker(scale(bar.low), scale(bar.high), y, _CAP)
        if self.shown.panel.is_log:
            self.drawing.dot(scale(bar.median), y, _DOT, kind)
        self.drawing.text(columns.medians, y + _FOOT, _median(bar), kind, "end")
        if results := _results(bar):
            self.drawing.text(columns.medians + _GAP, y + _FOOT, results, kind)

    def _scale(self) -> _Scale:
        left, width = self.columns.left, self.columns.right - self.columns.left
        low, high = self._ends()
        if not self.shown.panel.is_log:
            return lambda value: left + width * value / high
        return lambda value: left + width * math.log(max(value, low) / low) / math.log(high / low)

    def _ends(self) -> tuple[float, float]:
        """Return the values at the ends of the scale; the lower one is for a logarithmic one."""
        values = [value for bar in self.shown.bars() for value in (bar.low, bar.high)]
        # Nothing is not on a logarithmic scale, and no end of another.
        values = [value for value in (*values, *self._aims()) if value] or [1.0]
        return min(values) / _ROOM, max(values) * (_ROOM if self.shown.panel.is_log else 1)

    def _marks(self) -> dict[float, str]:
        """Return what is written above the bars, and at which values."""
        marks: dict[float, str] = {}
        if self.shown.panel.is_log:
            first, last = map(math.log10, self._ends())
            powers = range(math.ceil(first), math.floor(last) + 1)
            marks = {10.0**power: f"{10.0**power:g}" for power in powers}
        return marks | {aim: f"aim {aim:g}" for aim in self._aims()}

    def _aims(self) -> set[float]:
        return {float(aim["bound"]) for aim in self.shown.aims() if not aim["against"]}


def _name(bar: Bar) -> str:
    return bar.name


def _median(bar: Bar) -> str:
    return short(bar.median)


def _results(bar: Bar) -> str:
    return " ".join(filter(None, map(_result, bar.aims)))


def _kind(bar: Bar) -> str:
    return "ours" if bar.is_ours else "others"


def _result(aim: Aim) -> str:
    ratio = ""
    if aim["against"]:
        ratio = f"{aim['result']['median']:.2f}{unit_of(aim)}"
    return ratio if aim["met"] else f"{ratio} missed".strip()


def _small_print(plot: Plot, panels: Sequence[Shown]) -> Iterator[str]:
    about = [*_about(panels), "Medians, whiskers at the quartiles."]
    for run in {id(shown.run): shown.run for shown in panels}.values():
        about.append(f"{run.describe(*plot.versions)}; {run.date}.")
        yield from textwrap.wrap(" ".join(about), _SMALL_LETTERS)
        rows = dict.fromkeys(shown.panel.row for shown in panels if shown.run is run)
        yield from _broken(run.command("--only", *rows, "--rounds", str(run.rounds)))
        about.clear()


def _broken(command: str) -> list[str]:
    """Return a command in lines of which all but the last end as a shell wants it."""
    lines = textwrap.wrap(command, _SMALL_LETTERS - len(_GOES_ON), break_on_hyphens=False)
    return [*(line + _GOES_ON for line in lines[:-1]), lines[-1]]


def _about(panels: Sequence[Shown]) -> Iterator[str]:
    against = [
        shown.panel.name(aim["against"])
        for shown in panels
        for aim in shown.aims()
        if aim["against"]
    ]
    if against:
        yield f"x: median of the ratios of each round, to {'; '.join(dict.fromkeys(against))}."
    skipped = dict.fromkeys(reason for shown in panels for reason in shown.skipped)
    if skipped:
        yield f"Skipped: {'; '.join(skipped)}."
