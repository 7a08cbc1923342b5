"""Runs the benchmarks, all rows or some of them.

`python -m benchmarks report` shows in the README what was stored: `benchmarks.report` does that.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import network, report, stored
from .harness import Work, run
from .recording import Recorder
from .rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        "--output",
        type=Path,
        default=Path(__file__).parent / "results",
        help="where to write, in files of its own",
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
    names, name = network.allowed(), arguments.congestion
    if name is not None and name not in names:
        parser.error(
            f"--congestion: {name} is none of those here: {', '.join(names)} "
            "(net.ipv4.tcp_allowed_congestion_control)"
        )
    if not arguments.dir.is_dir():
        parser.error(f"--dir: {arguments.dir} is no folder")
    return arguments


def _measure() -> int:
    arguments = _arguments()
    if arguments.list:
        print("\n".join(ROWS))
        return 0
    if arguments.congestion is not None:
        network.run_with(arguments.congestion)
    # Where the files were put is nobody else's business.
    shown = {name: vars(arguments)[name] for name in ("rounds", "only", "quick")}
    recorder = Recorder(arguments.output, arguments.dir, _PROGRAM, shown)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        work = Work(Path(directory), arguments.quick)
        for row in arguments.only:
            recorder.record(
                "benchmarks.rows", row, work, functools.partial(run, rounds=arguments.rounds)
            )
    return int(recorder.has_failed)


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
        for line in report.write(root):
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
