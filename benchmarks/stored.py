"""The results that are kept in the repository: what `python -m benchmarks report` shows.

Each run has files of its own, named after the moment at which it began. So a run of some rows, or
with other options, costs no figures of another one; of each row the newest is shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .rows import ROWS

ROOT = Path(__file__).parent.parent
RESULTS = "benchmarks/results"
# Of `python -m benchmarks.load`.
UNDER_LOAD = f"{RESULTS}/load"
# What has measured, where the results do not say it.
_PROGRAM = "python -m benchmarks"

# As `benchmarks.tables.as_json` writes it.
Case: TypeAlias = dict[str, Any]
Aim: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What was measured in one run, as far as no later one has replaced it."""

    machine: dict[str, str]
    rounds: int
    rows: dict[str, list[Case]]
    program: str = _PROGRAM

    @property
    def date(self) -> str:
        return self.machine["date"]

    @property
    def congestion(self) -> str | None:
        """TCP's congestion control. None: of a run of before it was looked at."""
        return self.machine.get("congestion control")

    def command(self, *options: str) -> str:
        """Return what measures anew, with these options."""
        words = [self.program, *options]
        # The load is that of the machine.
        if self.congestion is not None and self.program == _PROGRAM:
            words += ["--congestion", self.congestion]
        return " ".join(words)

    def describe(self, *versions: str) -> str:
        """Return the machine, and Python with the versions of these packages, in a line."""
        machine = self.machine
        memory = int(machine["memory"].split()[0]) / 1024**2
        network = "" if self.congestion is None else f", TCP {self.congestion}"
        packages = "".join(f", {name} {machine[name]}" for name in versions if name in machine)
        return (
            f"{machine['cores']} cores of an {machine['cpu']}, {memory:.0f} GiB, "
            f"{machine['kernel']}{network}, {machine['file system']}; {machine['python']}{packages}"
        )


def load(root: Path = ROOT) -> list[Run]:
    """Return the stored runs in the order of their rows, each with those that it has newest.

    Raises:
        ValueError: Nothing is stored, or a file is not what a run writes.
    """
    runs = _newest(root / RESULTS)
    if not runs:
        raise ValueError(f"no results are stored in {root / RESULTS}")
    return sorted(runs, key=lambda run: min(map(_place, run.rows)))


def load_under_load(root: Path = ROOT) -> list[Run]:
    """Return the stored runs under load, each with the rows that it has newest.

    Raises:
        ValueError: A file is not what a run writes.
    """
    return _newest(root / UNDER_LOAD)


def _place(row: str) -> int:
    return ROWS.index(row) if row in ROWS else len(ROWS)


def _newest(directory: Path) -> list[Run]:
    """Return the runs that have something to show, the newest first."""
    found: list[Run] = []
    seen: set[str] = set()
    # By the moments that are their names.
    for path in sorted(directory.glob("*.json"), reverse=True):
        run = _read(path)
        for row in run.rows.keys() & seen:
            del run.rows[row]
        seen |= run.rows.keys()
        if run.rows:
            found.append(run)
    return found


def _read(path: Path) -> Run:
    """Return a run without the rows of which it measured nothing."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        machine, arguments = document["machine"], document["arguments"]
        rows = {
            row: [_with_aims(case) for case in cases]
            for row, cases in document["rows"].items()
            # What tests the benchmarks is no result.
            if not (arguments["quick"] or all(case["skipped"] for case in cases))
        }
        return Run(machine, arguments["rounds"], rows, document.get("program", _PROGRAM))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not what a run writes: {error!r}") from error


def _with_aims(case: Case) -> Case:
    """Return a case with its aims by that name; older runs call them targets."""
    return {**case, "aims": case.get("aims", case.get("targets", []))}


def unit_of(aim: Aim) -> str:
    """Return the unit of a result: x for ratios."""
    return "x" if aim["against"] and not aim["is_difference"] else ""


def aim_text(aim: Aim) -> str:
    sign = ">=" if aim["more_is_better"] else "<="
    return f"{sign} {aim['bound']:g}{unit_of(aim)}"
