"""The benchmarks run, write what they print, and compare what they say that they compare."""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("rich", reason="the benchmarks need asend[bench]")

ROOT = Path(__file__).parent.parent
ROWS = ("calls", "files", "streams", "imports")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)


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
    major, minor, *_ = sys.version_info
    return Path(output, f"{major}.{minor}.{suffix}").read_text(encoding="utf-8")


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


def test_targets_compare_round_by_round(document: Any) -> None:
    for case in _cases(document):
        for target in case["targets"]:
            ours = case["arms"][target["arm"]]["samples"][target["measure"]]
            if target["against"]:
                theirs = case["arms"][target["against"]]["samples"][target["measure"]]
                compared = [
                    a - b if target["is_difference"] else a / b
                    for a, b in zip(ours, theirs, strict=True)
                ]
            else:
                compared = ours
            median = statistics.median(compared)
            assert target["result"]["median"] == pytest.approx(median)
            more = target["more_is_better"]
            beyond = median - target["bound"] if more else target["bound"] - median
            # Within rounding either answer is right.
            assert target["met"] is (beyond > 0) or abs(beyond) < 0.01


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


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("matplotlib", reason="plots need asend[bench]")
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.plots")


def _compared(title: str, *measures: str) -> dict[str, Any]:
    """Return a case in which one arm took 3 of each measure, one 2, and one was skipped."""
    harness = importlib.import_module("benchmarks.harness")
    report = importlib.import_module("benchmarks.report")
    named = [harness.Measure(measure) for measure in measures]

    def skip() -> None:
        raise harness.Skipped("not here")

    arms = [
        harness.Arm("asend, uvloop", lambda: dict.fromkeys(named, 3.0)),
        harness.Arm("asend, asyncio", skip),
        harness.Arm("nginx", lambda: dict.fromkeys(named, 2.0)),
    ]
    targets = [harness.Target("asend, uvloop", measure, 1.0, ["nginx"]) for measure in named]
    case: dict[str, Any] = report.as_json(harness.run(harness.Case(title, arms, targets), 2))
    return case


@pytest.fixture
def compared(plots: Any) -> dict[str, Any]:
    """Return a stored run, as far as plots look at it."""
    names = ("cpu", "kernel", "python", "uvloop", "asend", "nginx", "date")
    small = _compared("4 KiB, 16 connections", "requests/s")
    large = _compared("1 MiB, 16 connections", "GB/s", "CPU s/GB")
    return {
        "machine": {name: f"<{name}>" for name in names},
        "rows": {"file_server": [small, large, _compared("4 KiB beside 8 downloads", "p99, ms")]},
    }


def test_plots_come_for_light_and_for_dark_pages(
    plots: Any, compared: dict[str, Any], tmp_path: Path
) -> None:
    paths = plots.render(compared, tmp_path)

    assert {path.name for path in paths} == {
        f"file_server-{plot}-{variant}.svg"
        for plot in ("requests", "bytes")
        for variant in ("light", "dark")
    }
    for path in paths:
        root = ElementTree.parse(path).getroot()
        texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"asend, uvloop", "nginx", "16 connections"} <= {*texts}
        assert "asend, asyncio" not in texts
        assert sum("(1.50x)" in text for text in texts) == (2 if "bytes" in path.name else 1)
        assert all(any(f"<{name}>" in text for text in texts) for name in compared["machine"])


def test_plots_of_the_same_figures_are_the_same_bytes(
    plots: Any, compared: dict[str, Any], tmp_path: Path
) -> None:
    first, second = (plots.render(compared, tmp_path / name) for name in ("first", "second"))

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_an_unknown_row_is_refused_by_name() -> None:
    ended = run("--only", "nonsense")

    assert ended.returncode == 2
    assert "nonsense" in ended.stderr
    assert "calls" in ended.stderr


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    ended = run("--dir", str(tmp_path / "nonsense"))

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith(f"error: --dir: {tmp_path}/nonsense is no folder\n")


def test_rows_can_be_listed() -> None:
    ended = run("--list")

    assert ended.returncode == 0
    assert set(ROWS) < set(ended.stdout.split())
