"""Runs the benchmarks, prints their tables, and writes them and all samples to files.

`python -m benchmarks report` shows in the README what was stored: `benchmarks.figures` does that.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from . import figures, machine, network, report, stored
from .harness import Case, Result, Skipped, Work, run

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

ROWS = (
    "calls",
    "wakeups",
    "files",
    "streams",
    "handlers",
    "file_server",
    "pauses",
    "cold",
    "residency",
    "many",
    "imports",
    "steps",
)
# Wide enough for the names of two arms and five figures.
_WIDTH = 130


_PROGRAM = "python -m benchmarks"
_REPORT = f"{_PROGRAM} report"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage=f"%(prog)s [options]\n       {_REPORT} [--help]",
        description="Run the benchmarks, print their tables, and write them and all samples to "
        "files. With `report`, put into the README what was stored.",
    )
    parser.add_argument("--rounds", type=int, default=9, help="of each case (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, metavar="ROW", default=ROWS, help="run these rows"
    )
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument("--quick", action="store_true", help="little work: tests the benchmarks")
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()), help="where to put files to send"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", help="where to write"
    )
    parser.add_argument(
        "--congestion",
        metavar="NAME",
        help="TCP's congestion control, in a network of its own: cubic is Linux's default "
        "(default: the machine's)",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.congestion not in (None, *(names := network.known())):
        parser.error(f"--congestion: {arguments.congestion} is none of those here: {names}")
    if not arguments.dir.is_dir():
        parser.error(f"--dir: {arguments.dir} is no folder")
    return arguments


def _cases(row: str, work: Work) -> Generator[Case]:
    """Yield the cases of a row; one that is skipped where the row cannot go on."""
    module = importlib.import_module(f".rows.{row}", __package__)
    try:
        yield from module.cases(work)
    except Skipped as reason:
        yield Case("the whole row", skipped=str(reason))


class _Report:
    """Prints results as they come, and keeps both files complete up to the last of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        major, minor, _ = platform.python_version_tuple()
        self._base: Path = arguments.output / f"{major}.{minor}"
        self._console = Console(width=_WIDTH, record=True, highlight=False)
        self._document: dict[str, Any] = {
            "machine": machine.describe(arguments.dir),
            # Where the files were put is nobody else's business.
            "arguments": {name: vars(arguments)[name] for name in ("rounds", "only", "quick")},
            "rows": {},
        }
        for name, value in self._document["machine"].items():
            self._console.print(f"{name}: {value}")
        self._console.print()

    def add(self, row: str, result: Result) -> None:
        for table in report.tables(row, result):
            self._console.print(table)
        self._document["rows"].setdefault(row, []).append(report.as_json(result))
        text = self._console.export_text(clear=False)
        # Not with_suffix: it would take the minor version for one.
        Path(f"{self._base}.txt").write_text(text, encoding="utf-8")
        Path(f"{self._base}.json").write_text(
            json.dumps(self._document, indent=1) + "\n", encoding="utf-8"
        )


def _measure() -> int:
    arguments = _arguments()
    if arguments.list:
        print("\n".join(ROWS))
        return 0
    if arguments.congestion is not None:
        network.run_with(arguments.congestion)
    report_ = _Report(arguments)
    has_failed = False
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        work = Work(Path(directory), arguments.quick)
        for row in arguments.only:
            try:
                with contextlib.closing(_cases(row, work)) as cases:
                    for case in cases:
                        report_.add(row, run(case, arguments.rounds))
            except Exception:  # one row that breaks must not cost the figures of the others
                has_failed = True
                traceback.print_exc()
    return int(has_failed)


def _show(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=_REPORT,
        description="Draw the stored results (benchmarks/results) as plots, for light and for dark "
        "pages, and put plots and figures into the README. Nothing is measured; the same results "
        "give the same files.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=stored.ROOT,
        metavar="DIR",
        help="the folder of the README and of benchmarks/results (default: this project's)",
    )
    root = parser.parse_args(arguments).root
    try:
        for line in figures.report(root):
            print(line)
    except (OSError, ValueError) as error:
        print(f"{_REPORT}: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    # Options that measure do not mix with what only shows: two parsers, not one with a subparser.
    is_report = sys.argv[1:2] == ["report"]
    return _show(sys.argv[2:]) if is_report else _measure()


if __name__ == "__main__":
    sys.exit(main())
