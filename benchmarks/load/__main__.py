"""Loads asend and the example file server, and says what has held and what has not."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path

from ..harness import Work, run
from ..recording import Recorder

ROWS = ("stalled", "soak", "attacks", "stop", "kill")
_PROGRAM = "python -m benchmarks.load"
# Of a quick run: enough for each kind of send to begin and end in each way.
_QUICK_MINUTES = 0.05
_RESULTS = Path(__file__).parent.parent / "results" / "load"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Load asend and the example file server: thousands of clients that stall or "
        "trickle, a soak of random sends, slow attacks, SIGTERM and a killed worker. Print and "
        "write what was measured, and end with status 1 if something has not held.",
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of the soak (default: %(default)g)"
    )
    parser.add_argument(
        "--rounds", type=int, default=1, help="of the row stalled (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=ROWS,
        metavar="ROW",
        default=ROWS,
        help=f"run these rows: {', '.join(ROWS)}",
    )
    parser.add_argument("--quick", action="store_true", help="little load: tests all of this")
    parser.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()), help="where to put files to send"
    )
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where to write")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not arguments.minutes > 0:
        parser.error("--rounds must be at least 1, and --minutes positive")
    if not arguments.dir.is_dir():
        parser.error(f"--dir: {arguments.dir} is no folder")
    return arguments


def main() -> int:
    arguments = _arguments()
    if arguments.quick:
        arguments.minutes = _QUICK_MINUTES
    shown = {name: vars(arguments)[name] for name in ("minutes", "rounds", "only", "quick")}
    recorder = Recorder(arguments.output, arguments.dir, _PROGRAM, shown)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        for row in arguments.only:
            # Of its own: rows put files of the same names there.
            place = Path(directory, row)
            place.mkdir()
            work = Work(place, arguments.quick, arguments.minutes)
            rounds = arguments.rounds if row == "stalled" else 1
            call = functools.partial(run, rounds=rounds, warms_up=False)
            recorder.record(__package__, row, work, call)
    has_missed = any(
        outcome.is_met is False for result in recorder.results for outcome in result.outcomes()
    )
    return int(recorder.has_failed or has_missed)


if __name__ == "__main__":
    sys.exit(main())
