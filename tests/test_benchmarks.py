"""The benchmarks run, write what they print, and compare what they say that they compare."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

pytest.importorskip("rich", reason="the benchmarks need asend[bench]")

from benchmarks import network

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
ROWS = ("calls", "files", "streams", "imports")
# A quick run takes 15 s, and on a busy machine several times of it.
pytestmark = pytest.mark.timeout(200)


def run(*arguments: str, program: str = "benchmarks") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that a quick run of a few rows wrote."""
    directory = tmp_path_factory.mktemp("benchmarks")
    ended = run("--quick", "--rounds", "2", "--output", str(directory), "--only", *ROWS)
    assert ended.returncode == 0, ended.stderr
    (directory / "stdout").write_text(ended.stdout, encoding="utf-8")
    return directory


@pytest.fixture
def document(output: Path) -> Any:
    return json.loads(_result(output, "json"))


def _result(output: Path, suffix: str) -> str:
    """Return what the one run that wrote there has written."""
    (path,) = output.glob(f"*.{suffix}")
    return path.read_text(encoding="utf-8")


def _cases(document: Any) -> list[Any]:
    return [case for row in document["rows"].values() for case in row]


def test_what_is_printed_is_what_is_written(output: Path) -> None:
    printed = (output / "stdout").read_text(encoding="utf-8")

    assert _result(output, "txt").split() == printed.split()
    assert "[quartiles]" in printed


def test_the_machine_and_the_arguments_are_recorded(document: Any) -> None:
    assert document["arguments"]["rounds"] == 2
    assert {"cpu", "kernel", "python", "asend", "uvloop", "trio"} <= document["machine"].keys()
    assert all(document["machine"].values())


def test_another_congestion_control_is_that_of_a_run_alone(tmp_path: Path) -> None:
    may = ["unshare", "--net", "--user", "--map-root-user", "true"]
    if shutil.which("unshare") is None or subprocess.run(may, check=False).returncode != 0:
        pytest.skip("nobody but root can make a network here, or there is no unshare")
    before = network.congestion_control()

    ended = run("--quick", "--only", "imports", "--congestion", "reno", "--output", str(tmp_path))

    assert ended.returncode == 0, ended.stderr
    assert json.loads(_result(tmp_path, "json"))["machine"]["congestion control"] == "reno"
    assert network.congestion_control() == before


def test_an_unknown_congestion_control_is_refused() -> None:
    ended = run("--congestion", "carrier-pigeon")

    assert ended.returncode == 2
    assert "carrier-pigeon is none of those here: " in ended.stderr


def test_every_row_has_a_sample_per_round_of_every_arm(document: Any) -> None:
    assert tuple(document["rows"]) == ROWS
    for case in _cases(document):
        for arm in case["arms"].values():
            lengths = {len(samples) for samples in arm["samples"].values()}
            assert arm["skipped"] or len(lengths) == 1
            assert all(length % 2 == 0 for length in lengths)


def test_summaries_are_those_of_the_samples(document: Any) -> None:
    for case in _cases(document):
        for arm in case["arms"].values():
            for measure, samples in arm["samples"].items():
                summary = arm["summary"][measure]
                assert summary["median"] == pytest.approx(statistics.median(samples))
                assert min(samples) <= summary["low"] <= summary["high"] <= max(samples)


def test_aims_compare_round_by_round(document: Any) -> None:
    for case in _cases(document):
        for aim in case["aims"]:
            ours = case["arms"][aim["arm"]]["samples"][aim["measure"]]
            if aim["against"]:
                theirs = case["arms"][aim["against"]]["samples"][aim["measure"]]
                compared = [
                    a - b if aim["is_difference"] else a / b
                    for a, b in zip(ours, theirs, strict=True)
                ]
            else:
                compared = ours
            median = statistics.median(compared)
            assert aim["result"]["median"] == pytest.approx(median)
            more = aim["more_is_better"]
            beyond = median - aim["bound"] if more else aim["bound"] - median
            # Within rounding either answer is right.
            assert aim["met"] is (beyond > 0) or abs(beyond) < 0.01


def test_the_file_server_is_compared_with_nginx_on_both_loops(tmp_path: Path) -> None:
    ended = run("--quick", "--rounds", "1", "--output", str(tmp_path), "--only", "file_server")

    assert ended.returncode == 0, ended.stderr
    cases = _cases(json.loads(_result(tmp_path, "json")))
    if cases[0]["skipped"]:
        pytest.skip(cases[0]["skipped"])
    assert "asend, asyncio" in cases[0]["arms"]
    for case in cases:
        assert {"asend, uvloop", "nginx"} <= case["arms"].keys()
        assert all(arm["samples"] for arm in case["arms"].values())


LOAD_ROWS = ("stalled", "soak", "attacks", "stop", "kill")
# Nothing is in flight when the signal comes, so that nothing is shown.
MISSING = """
import sys
from benchmarks.load import __main__, stop
stop.PART = 2.0
sys.exit(__main__.main())
"""
LOADS = {
    **{row: ("-m", "benchmarks.load", "--quick", "--only", row) for row in LOAD_ROWS},
    "missing": ("-c", MISSING, "--quick", "--only", "stop"),
}


class Loading(NamedTuple):
    process: subprocess.Popen[str]
    output: Path

    @classmethod
    def begun(cls, name: str, output: Path) -> Loading:
        command = [sys.executable, *LOADS[name], "--output", str(output), "--dir", str(output)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return cls(process, output)

    def end(self) -> tuple[int, Any]:
        """Return the exit status, and what was written."""
        text, _ = self.process.communicate(timeout=50)
        print(text)
        return self.process.returncode, json.loads(_result(self.output, "json"))


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Loading]]:
    """Run all of these at once, as they wait most of the time."""
    with ExitStack() as stack:
        found = {}
        for name in LOADS:
            found[name] = Loading.begun(name, tmp_path_factory.mktemp(name))
            stack.enter_context(found[name].process)
            stack.callback(found[name].process.kill)
        yield found


@pytest.mark.parametrize("row", LOAD_ROWS)
@pytest.mark.timeout(120)
def test_what_has_to_hold_under_load_holds(
    loading: dict[str, Loading], row: str, tmp_path: Path
) -> None:
    status, document = loading[row].end()
    if status:
        # Some of it is a matter of time, and a machine that has all of these to do may be late.
        alone = Loading.begun(row, tmp_path)
        with alone.process:
            status, document = alone.end()

    assert status == 0
    assert tuple(document["rows"]) == (row,)
    cases = _cases(document)
    if cases[0]["skipped"]:
        pytest.skip(cases[0]["skipped"])
    for case in cases:
        assert all(aim["met"] for aim in case["aims"])
        # Each arm has aims, or is there to be compared with.
        for name, arm in case["arms"].items():
            assert arm["samples"]
            is_asked = any(aim["arm"] == name for aim in case["aims"])
            assert is_asked is name.startswith("asend")
    if row == "attacks":
        arms = [arm["samples"] for case in cases for arm in case["arms"].values()]
        assert all(seconds > 0 for arm in arms for seconds in arm["until all are dropped, s"])
    if row == "soak":
        for arm in cases[0]["arms"].values():
            ends = (arm["samples"][end] for end in ("whole", "cancelled", "timed out", "reset"))
            assert all(number > 0 for (number,) in ends)


def test_an_aim_that_is_missed_under_load_is_an_error(loading: dict[str, Loading]) -> None:
    status, document = loading["missing"].end()

    assert status == 1
    (case,) = _cases(document)
    assert [aim["measure"] for aim in case["aims"] if not aim["met"]] == ["in flight"]


def test_an_unknown_row_is_refused_by_name() -> None:
    ended = run("--only", "nonsense")

    assert ended.returncode == 2
    assert "nonsense" in ended.stderr
    assert "calls" in ended.stderr


@pytest.mark.parametrize("program", ["benchmarks", "benchmarks.load"])
def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path, program: str) -> None:
    ended = run("--dir", str(tmp_path / "nonsense"), program=program)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith(f"error: --dir: {tmp_path}/nonsense is no folder\n")


def test_rows_can_be_listed() -> None:
    ended = run("--list")

    assert ended.returncode == 0
    assert set(ROWS) < set(ended.stdout.split())
