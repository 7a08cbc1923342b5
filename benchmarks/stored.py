"""The results that are kept in the repository: what `python -m benchmarks report` shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parent.parent
# A later file replaces the rows that it has.
RESULTS = (
    "benchmarks/results/3.13.json",
    "benchmarks/results/streams/3.13.json",
    "benchmarks/results/handlers/3.13.json",
    "benchmarks/results/file_server/3.13.json",
)

# Of `python -m benchmarks.load`.
UNDER_LOAD = "benchmarks/results/load/3.13.json"
# What has measured, where the results do not say it.
_PROGRAM = "python -m benchmarks"

# As `benchmarks.report.as_json` writes it.
Case: TypeAlias = dict[str, Any]
Target: TypeAlias = dict[str, Any]


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
    """Return the stored runs, each with the rows that no later one replaces.

    Raises:
        ValueError: Nothing is stored, or a file is not what a run writes.
    """
    runs = [_read(root / name) for name in RESULTS if (root / name).exists()]
    if not runs:
        raise ValueError(f"no results are stored in {root / RESULTS[0]}")
    replaced: set[str] = set()
    for run in reversed(runs):
        for row in replaced & run.rows.keys():
            del run.rows[row]
        replaced |= run.rows.keys()
    return runs


def load_under_load(root: Path = ROOT) -> Run | None:
    """Return the stored run under load; None: there is none.

    Raises:
        ValueError: The file is not what a run writes.
    """
    path = root / UNDER_LOAD
    return _read(path) if path.exists() else None


def _read(path: Path) -> Run:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        machine, rounds = document["machine"], document["arguments"]["rounds"]
        return Run(machine, rounds, document["rows"], document.get("program", _PROGRAM))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not what a run writes: {error!r}") from error


def unit_of(target: Target) -> str:
    """Return the unit of a result: x for ratios."""
    return "x" if target["against"] and not target["is_difference"] else ""


def aim_of(target: Target) -> str:
    sign = ">=" if target["more_is_better"] else "<="
    return f"{sign} {target['bound']:g}{unit_of(target)}"
