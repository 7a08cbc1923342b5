"""Mutation testing: `python tests/mutation`, with mutmut installed; about an hour on one core.

Each mutant is asend with one small change, and a test has to fail on it. Those that none fails on
are listed in `survivors.txt`, with the reason why that is no gap in the tests. This ends with
exit status 1 where another one survives, or where too few are killed. It also says which that are
listed were killed: some by chance, as they only change how long something takes.
With names of mutants (patterns such as `asend.streams.*`), only those are tried, and again.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from mutmut.mutation.diff_apply import get_diff_for_mutant

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SURVIVORS = HERE / "survivors.txt"
LEAST_KILLED = 0.9
CLEAR = ("killed", "survived", "timeout")


class Mutant(NamedTuple):
    """Numbers of mutants change with every edit: they go by what they change, and where."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.function}\n- {self.before}\n+ {self.after}"


def mutmut(*arguments: str, **options: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", *arguments]
    return subprocess.run(command, env=environment, text=True, check=True, **options)


def verdicts(patterns: list[str]) -> dict[str, str]:
    """Return what became of each mutant whose name fits, by that."""
    lines = mutmut("results", "--all", "true", capture_output=True).stdout.splitlines()
    found = dict(line.strip().split(": ") for line in lines)
    return {name: found[name] for pattern in patterns for name in fnmatch.filter(found, pattern)}


def function(name: str) -> str:
    return name.rpartition("__mutmut_")[0]


def mutant(name: str) -> Mutant:
    changes = [line for line in get_diff_for_mutant(name).splitlines() if line[:1] in "-+"][2:]
    before, after = (
        " ".join(line[1:].strip() for line in changes if line[0] == sign) for sign in "-+"
    )
    return Mutant(function(name), before, after)


def listed() -> set[Mutant]:
    """Return the survivors that are known; lines before each group of them say why they are."""
    lines = [line for line in SURVIVORS.read_text().splitlines() if not line.startswith("#")]
    lines = [line for line in lines if line]
    return {
        Mutant(function, before[2:], after[2:])
        for function, before, after in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
    }


def main() -> int:
    os.chdir(ROOT)
    patterns = sys.argv[1:] or ["*"]
    mutmut("run", "--max-children", "1", *sys.argv[1:])
    found = verdicts(patterns)
    # Whatever else came out is tried once more, except what hung: all of 142 hung again.
    unclear = [name for name, verdict in found.items() if verdict not in CLEAR]
    if unclear:
        mutmut("run", "--max-children", "1", *unclear)
        found = verdicts(patterns)

    tried = {function(name) for name in found}
    survivors = {mutant(name) for name, verdict in found.items() if verdict == "survived"}
    known = {mutant for mutant in listed() if mutant.function in tried}
    for title, mutants in (
        ("Not listed:", survivors - known),
        ("Listed, but killed:", known - survivors),
    ):
        if mutants:
            print(title, *sorted(mutants), sep="\n\n")
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in found.items():
        counts[name.partition(".x")[0]][verdict] += 1
        counts["all"][verdict] += 1
    for module, count in counts.items():
        print(f"{module}: {count.total()} mutants,", *(f"{n} {v}" for v, n in count.items()))
    killed = 1 - counts["all"]["survived"] / len(found)
    print(f"{killed:.1%} killed")
    return int(bool(survivors - known) or killed < LEAST_KILLED)


if __name__ == "__main__":
    sys.exit(main())
