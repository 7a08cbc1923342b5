"""Puts the figures of a stored run into the README: `python -m benchmarks.figures`.

A test compares the two, so that no figure in the README is anything but a measured one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
README = _ROOT / "README.md"
# A later run replaces the rows that it has.
RESULTS = (
    _ROOT / "benchmarks" / "results" / "3.13.json",
    _ROOT / "benchmarks" / "results" / "handlers" / "3.13.json",
    _ROOT / "benchmarks" / "results" / "file_server" / "3.13.json",
)
_BEGIN, _END = "<!-- figures -->\n", "<!-- /figures -->\n"


def figures() -> str:
    """Return the machines and tables of what every target came to in the stored runs."""
    runs = [json.loads(path.read_text()) for path in RESULTS]
    later = [set().union(*(run["rows"] for run in runs[at + 1 :])) for at in range(len(runs))]
    return "\n".join(_figures(run, replaced) for run, replaced in zip(runs, later, strict=True))


def _figures(run: dict[str, Any], replaced: set[str]) -> str:
    machine = run["machine"]
    memory = int(machine["memory"].split()[0]) / 1024**2
    lines = [
        f"Measured on {machine['date']}: {machine['cores']} cores of an {machine['cpu']}, "
        f"{memory:.0f} GiB, {machine['kernel']}, {machine['file system']}; {machine['python']}, "
        f"uvloop {machine['uvloop']}, trio {machine['trio']}. Receivers are in another process, "
        "the arms of a row alternate in one run. Medians of the ratios of each round, quartiles in "
        "brackets; all samples are in [benchmarks/results](benchmarks/results), "
        "`python -m benchmarks` measures anew.",
        "",
        "| row | asend on | against | measure | result | aim |",
        "|---|---|---|---|---|---|",
    ]
    for row, cases in run["rows"].items():
        for case in cases if row not in replaced else ():
            lines += [_line(f"{row}: {case['title']}", target) for target in case["targets"]]
    return "\n".join(lines) + "\n"


def _line(title: str, target: dict[str, Any]) -> str:
    result = target["result"]
    unit = "x" if target["against"] and not target["is_difference"] else ""
    if result is None:
        shown = "skipped"
    else:
        low, high = f"{result['low']:.2f}", f"{result['high']:.2f}"
        shown = f"{result['median']:.2f}{unit} [{low}..{high}]"
    sign = ">=" if target["more_is_better"] else "<="
    missed = " **missed**" if target["met"] is False else ""
    cells = (
        title,
        target["arm"].removeprefix("asend, "),
        target["against"] or "-",
        target["measure"],
        shown + missed,
        f"{sign} {target['bound']:g}{unit}",
    )
    return f"| {' | '.join(cells)} |"


def shown_in(readme: str) -> tuple[str, str, str]:
    """Split the README into what is before, in, and after its figures."""
    before, rest = readme.split(_BEGIN)
    inside, after = rest.split(_END)
    return before + _BEGIN, inside, _END + after


def main() -> None:
    """Replace the figures in the README by those of the stored runs."""
    before, _, after = shown_in(README.read_text())
    README.write_text(before + figures() + after)


if __name__ == "__main__":
    main()
