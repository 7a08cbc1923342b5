"""Runs rows, prints their tables as they come, and writes them and all samples to files."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import traceback
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console

from . import machine, tables
from .harness import Case, Result, Skipped, Work

if TYPE_CHECKING:
    from pathlib import Path

# Wide enough for the names of two arms and five figures.
_WIDTH = 130

_Run: TypeAlias = Callable[[Case], Result]


class Recorder:
    """Keeps the files of a run complete up to the last case.

    Args:
        output: The folder to write to.
        directory: Where files to send are put.
        program: What was called, with these arguments.

    Attributes:
        has_failed: Whether a row has broken.
        results: Of all cases so far.
    """

    def __init__(
        self, output: Path, directory: Path, program: str, arguments: Mapping[str, object]
    ) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.has_failed = False
        self.results: list[Result] = []
        # A moment, so that no run takes the place of another one: `benchmarks.stored` says why.
        self._base = output / f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
        self._console = Console(width=_WIDTH, record=True, highlight=False)
        self._document: dict[str, Any] = {
            "machine": machine.describe(directory),
            "program": program,
            "arguments": dict(arguments),
            "rows": {},
        }
        for name, value in self._document["machine"].items():
            self._console.print(f"{name}: {value}")
        self._console.print()

    def record(self, package: str, row: str, work: Work, run: _Run) -> None:
        """Run the cases of a row, which is a module of that package."""
        try:
            with contextlib.closing(_cases(f"{package}.{row}", work)) as cases:
                for case in cases:
                    self._add(row, run(case))
        except Exception:  # one row that breaks must not cost the figures of the others
            self.has_failed = True
            traceback.print_exc()

    def _add(self, row: str, result: Result) -> None:
        self.results.append(result)
        for table in tables.of(row, result):
            self._console.print(table)
        self._document["rows"].setdefault(row, []).append(tables.as_json(result))
        text = self._console.export_text(clear=False)
        document = json.dumps(self._document, indent=1) + "\n"
        self._base.with_suffix(".txt").write_text(text, encoding="utf-8")
        self._base.with_suffix(".json").write_text(document, encoding="utf-8")


def _cases(module: str, work: Work) -> Generator[Case]:
    """Yield the cases of a row; one that is skipped where the row cannot go on."""
    row = importlib.import_module(module)
    try:
        yield from row.cases(work)
    except Skipped as reason:
        yield Case("the whole row", skipped=str(reason))
