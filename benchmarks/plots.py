"""Draws the stored figures of the row "file_server" for the README: `python -m benchmarks.plots`.

Each plot comes in two variants, for light and for dark pages. Text stays text, and the same results
give the same bytes.
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib as mpl
from matplotlib.figure import Figure

from .figures import RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

_Run: TypeAlias = dict[str, Any]

_ROW = "file_server"
_DIRECTORY = Path(__file__).parent / "results" / "plots"


@dataclass(frozen=True)
class _Panel:
    """What is drawn of a measure: the cases that have an aim for it."""

    measure: str
    title: str
    digits: int


@dataclass(frozen=True)
class _Theme:
    """Colors on a page whose own color shows through."""

    text: str
    faint: str
    bars: Mapping[str, str]


_PLOTS = {
    "requests": [_Panel("requests/s", "Requests a second (more is better)", 0)],
    "bytes": [
        _Panel("GB/s", "GB/s (more is better)", 2),
        _Panel("CPU s/GB", "CPU seconds per GB (less is better)", 3),
    ],
}
_THEMES = {
    "light": _Theme(
        text="#1f2328",
        faint="#59636e",
        bars={"asend, uvloop": "#0969da", "asend, asyncio": "#80b6f4", "nginx": "#afb8c1"},
    ),
    "dark": _Theme(
        text="#f0f6fc",
        faint="#9198a1",
        bars={"asend, uvloop": "#388bfd", "asend, asyncio": "#1f4f91", "nginx": "#6e7681"},
    ),
}
# Its versions differ in how they type the keys.
_STYLE: dict[Any, Any] = {
    # The first is matplotlib's own, so that a plot is laid out alike everywhere.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "svg.fonttype": "none",
    # Else ids are random.
    "svg.hashsalt": "asend",
}
# In inches.
_WIDTH = 8.6
_BAR, _BETWEEN_CASES = 0.24, 0.16
_ABOVE, _BELOW, _LEFT, _RIGHT, _BETWEEN_PANELS = 0.65, 0.5, 1.3, 0.1, 0.3
# How much wider a panel is than its longest bar, for the figure at the end.
_ROOM = 1.55
# In characters.
_SMALL_PRINT_WIDTH = 165


def render(run: _Run, directory: Path) -> list[Path]:
    """Draw all plots of a stored run into a folder, and return their files."""
    directory.mkdir(parents=True, exist_ok=True)
    return [
        _save(_draw(run, panels, theme), directory / f"{_ROW}-{plot}-{variant}.svg")
        for plot, panels in _PLOTS.items()
        for variant, theme in _THEMES.items()
    ]


def _save(figure: Figure, path: Path) -> Path:
    with mpl.rc_context(_STYLE):
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    return path


def _draw(run: _Run, panels: Sequence[_Panel], theme: _Theme) -> Figure:
    cases = [case for case in run["rows"][_ROW] if _aims(case, panels[0].measure)]
    nbars = sum(len(_arms(case, panels[0].measure)) for case in cases)
    height = _ABOVE + _BELOW + nbars * _BAR + len(cases) * _BETWEEN_CASES
    with mpl.rc_context({**_STYLE, "text.color": theme.text, "ytick.color": theme.text}):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        figure.subplots_adjust(
            left=_LEFT / _WIDTH,
            right=1 - _RIGHT / _WIDTH,
            bottom=_BELOW / height,
            top=1 - _ABOVE / height,
            wspace=_BETWEEN_PANELS * len(panels) / (_WIDTH - _LEFT - _RIGHT),
        )
        for place, panel in zip(axes, panels, strict=True):
            _draw_panel(place, cases, panel, theme)
            place.tick_params(labelleft=place is axes[0])
        handles, labels = axes[0].get_legend_handles_labels()
        # Once per arm, not per case.
        legend = dict(zip(labels, handles, strict=True))
        figure.legend(
            legend.values(), legend.keys(), loc="upper left", ncols=len(legend), frameon=False
        )
        _print_small(figure, _small_print(run, cases), theme)
    return figure


def _draw_panel(axes: Axes, cases: Sequence[_Run], panel: _Panel, theme: _Theme) -> None:
    """Draw the bars of each case below each other, the first case on top."""
    axes.set_title(panel.title, loc="left", fontsize=9, fontweight="bold")
    y, middles, longest = 0.0, [], 0.0
    for case in cases:
        arms = _arms(case, panel.measure)
        middles.append(y + (len(arms) - 1) * _BAR / 2)
        for arm, summary in arms.items():
            _draw_bar(axes, y, arm, summary, theme)
            label = f"{summary['median']:,.{panel.digits}f}{_ratio(case, arm, panel.measure)}"
            axes.annotate(
                label,
                (summary["high"], y),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            longest = max(longest, summary["high"])
            y += _BAR
        y += _BETWEEN_CASES
    axes.set_yticks(middles, [case["title"].replace(", ", "\n") for case in cases])
    axes.set_ylim(y - (_BAR + _BETWEEN_CASES) / 2, -(_BAR + _BETWEEN_CASES) / 2)
    axes.set_xlim(0, longest * _ROOM)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(theme.faint)


def _draw_bar(axes: Axes, y: float, arm: str, summary: dict[str, float], theme: _Theme) -> None:
    low, median, high = summary["low"], summary["median"], summary["high"]
    axes.barh(
        y,
        median,
        height=_BAR * 0.86,
        color=theme.bars[arm],
        xerr=[[median - low], [high - median]],
        error_kw={"ecolor": theme.text, "elinewidth": 1, "capsize": 2.5},
        label=arm,
    )


def _aims(case: _Run, measure: str) -> dict[str, _Run]:
    """Return the targets of a case that are about a measure, by their arms."""
    return {target["arm"]: target for target in case["targets"] if target["measure"] == measure}


def _arms(case: _Run, measure: str) -> dict[str, dict[str, float]]:
    """Return the quartiles of a measure by the arms that were run."""
    return {
        name: arm["summary"][measure]
        for name, arm in case["arms"].items()
        if measure in arm["summary"]
    }


def _ratio(case: _Run, arm: str, measure: str) -> str:
    target = _aims(case, measure).get(arm)
    if target is None or target["result"] is None:
        return ""
    return f"  ({target['result']['median']:.2f}x)"


def _small_print(run: _Run, cases: Sequence[_Run]) -> str:
    machine = run["machine"]
    rounds = {len(arm) for case in cases for arm in _samples(case)}
    versions = (f"{name} {machine[name]}" for name in ("uvloop", "asend", "nginx"))
    return (
        f"Medians and quartiles of {max(rounds)} rounds; in brackets, the median of the ratios to "
        f"nginx of each round. One core for the server, one for the load: an {machine['cpu']}, "
        f"{machine['kernel']}, {machine['python']}, {', '.join(versions)}, {machine['date']}."
    )


def _samples(case: _Run) -> list[list[float]]:
    return [values for arm in case["arms"].values() for values in arm["samples"].values()]


def _print_small(figure: Figure, text: str, theme: _Theme) -> None:
    figure.text(
        0.01,
        0.02,
        textwrap.fill(text, _SMALL_PRINT_WIDTH),
        color=theme.faint,
        fontsize=7,
        va="bottom",
    )


def stored() -> _Run:
    """Return the last of the stored runs that has the row.

    Raises:
        LookupError: None has it.
    """
    for path in reversed(RESULTS):
        run: _Run = json.loads(path.read_text())
        if _ROW in run["rows"]:
            return run
    raise LookupError(f"no stored run has the row {_ROW}")


def main() -> None:
    try:
        paths = render(stored(), _DIRECTORY)
    except LookupError as error:
        sys.exit(str(error))
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
