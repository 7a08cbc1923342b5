"""Plots and figures show what is stored: all of it that they name, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
try:
    from benchmarks import drawing, plots, report, stored, svg
    from benchmarks.rows import ROWS
finally:
    sys.path.remove(str(ROOT))

PLOTS = ROOT / "benchmarks" / "results" / "plots"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"
MARKED = ("figures", "plots of the server", "under load")
STORED = sorted(path.relative_to(ROOT) for path in (ROOT / stored.RESULTS).rglob("*.json"))


def run_report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "report", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the stored results, and a README without any."""
    for name in STORED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "README.md").write_text(
        re.sub(
            rf"(<!-- ({'|'.join(MARKED)}) -->\n).*?(?=<!-- /)",
            r"\1",
            README,
            flags=re.S,
        ),
        encoding="utf-8",
    )
    return tmp_path


def files(root: Path) -> dict[str, bytes]:
    directory = root / "benchmarks" / "results" / "plots"
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def base(project: Path) -> Path:
    """Return the oldest of the stored runs."""
    return project / STORED[0]


def rows_of(path: Path) -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def titles(cases: list[Any]) -> list[str]:
    return [case["title"] for case in cases]


def write(path: Path, like: Path, rows: dict[str, Any], **arguments: bool) -> None:
    """Write what a run with other rows, and else as that one, would write."""
    document = json.loads(like.read_text(encoding="utf-8")) | {"rows": rows}
    document["arguments"] |= arguments
    path.write_text(json.dumps(document), encoding="utf-8")


def test_one_command_makes_the_plots_and_the_readme_that_are_stored(project: Path) -> None:
    for _ in range(2):
        done = run_report("--root", project)

        assert (done.returncode, done.stderr) == (0, "")
        assert (project / "README.md").read_text(encoding="utf-8") == README
        assert files(project) == files(ROOT)


def test_what_is_not_stored_is_skipped_with_a_message(project: Path) -> None:
    assert run_report("--root", project).returncode == 0
    rows = rows_of(base(project))
    write(base(project), base(project), {row: rows[row] for row in ("calls", "pauses")})
    for name in STORED[1:]:
        (project / name).unlink()

    done = run_report("--root", project)

    assert (done.returncode, done.stderr) == (0, "")
    assert "handlers-p99: no stored run has the row handlers: skipped" in done.stdout
    assert "pauses-files: no stored run has the row cold: skipped" in done.stdout
    assert "removed handlers-p99-dark.svg" in done.stdout
    kept = {"calls-tcp", "calls-unix", "pauses-files"}
    assert files(project).keys() == {f"{name}-{theme}.svg" for name in kept for theme in svg.THEMES}
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"plots/([\w-]+)-light.svg", readme)) == kept
    assert "| calls: 64 B, TCP |" in readme
    assert "| handlers" not in readme
    assert "<!-- under load -->\n<!-- /under load -->\n" in readme
    assert "More plots" not in readme


def test_a_case_that_is_not_stored_is_skipped_with_a_message(project: Path) -> None:
    rows = rows_of(base(project))
    calls = [case for case in rows["calls"] if "UNIX" not in case["title"]]
    write(base(project), base(project), rows | {"calls": calls})

    done = run_report("--root", project)

    assert done.returncode == 0
    assert 'calls-unix: the stored row calls has no "calls/s"' in done.stdout
    assert "calls-tcp-light.svg" in files(project)
    assert "calls-unix-light.svg" not in files(project)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "benchmarks"), "no results are stored in"),
        (lambda root: base(root).write_text("{"), "is not what a run writes"),
        (lambda root: base(root).write_text("[]"), "is not what a run writes"),
        (lambda root: (root / "README.md").write_text("# asend"), "<!-- figures --> is not there"),
        (lambda root: (root / "README.md").unlink(), "No such file or directory"),
    ],
    ids=["nothing stored", "no JSON", "other JSON", "no marker", "no README"],
)
def test_what_cannot_be_reported_on_is_said_in_one_line(
    project: Path, damage: Any, message: str
) -> None:
    damage(project)

    done = run_report("--root", project)

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"python -m benchmarks report: .*{re.escape(message)}.*\n", done.stderr)


@pytest.mark.parametrize("arguments", [("--quick", "report"), ("report", "--quick")])
def test_options_of_a_run_are_refused_with_report(arguments: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "benchmarks", *arguments]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)

    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments" in done.stderr


def test_help_leads_from_one_command_to_the_other() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert "python -m benchmarks report [--help]" in done.stdout
    assert "--root" in run_report("--help").stdout


def test_the_readme_says_how_many_aims_are_met() -> None:
    runs = stored.load()
    aims = [
        aim
        for run in runs
        for cases in run.rows.values()
        for case in cases
        for aim in case["aims"]
        if aim["result"]
    ]
    missed = [aim for aim in aims if not aim["met"]]

    _, shown, _ = report.shown_in(README)

    assert shown.startswith(f"{len(aims) - len(missed)} of {len(aims)} aims are met.")
    assert sum(int(n) for n in re.findall(r"\((\d+) of \d+\)", shown)) == len(missed)
    assert shown.count("**missed**") == len(missed)


def test_every_picture_in_the_readme_is_there_and_says_what_it_shows() -> None:
    pictures = re.findall(r'<img align="top" alt="(.*?)" src="(.*?)-light.svg">', README)

    assert {Path(path).name for _, path in pictures} == {plot.name for plot in plots.PLOTS}
    for alt, path in pictures:
        assert f'srcset="{path}-dark.svg"' in README
        for theme in svg.THEMES:
            root = ElementTree.parse(ROOT / f"{path}-{theme}.svg").getroot()
            assert root.findtext(f"{SVG}title") == unescape(alt)
        assert re.search(r"asend [\d.]+k? ?.*(more|less) is better", alt)


@pytest.fixture
def run() -> stored.Run:
    """Return a run in which two arms took 3 and 2 of everything, and one was skipped."""
    summary = {name: {"low": 1.0, "median": 2.0, "high": 4.0} for name in ("GB/s", "CPU s/GB")}
    ours = {name: {"low": 2.0, "median": 3.0, "high": 3.5} for name in summary}
    aim = {
        "arm": "asend, uvloop",
        "measure": "GB/s",
        "more_is_better": True,
        "against": "stock",
        "is_difference": False,
        "bound": 2.0,
        "result": {"low": 1.4, "median": 1.5, "high": 1.6},
        "met": False,
    }
    absolute = aim | {"measure": "CPU s/GB", "more_is_better": False, "against": None}
    absolute |= {"bound": 4.0, "result": ours["CPU s/GB"], "met": True}
    case = {
        "title": "1 MiB, <TLS>",
        "skipped": None,
        "arms": {
            "stock": {"skipped": None, "summary": summary},
            "asend, uvloop": {"skipped": None, "summary": ours},
            "other": {"skipped": "not here", "summary": {}},
        },
        "aims": [aim, absolute],
    }
    names = ("date", "cores", "cpu", "kernel", "file system", "python", "uvloop")
    machine = {name: f"<{name}>" for name in names} | {"memory": "1048576 kB"}
    return stored.Run(machine, 7, {"files": [case]})


def test_what_is_missed_and_what_could_not_be_measured_is_counted(run: stored.Run) -> None:
    (case,) = run.rows["files"]
    case["aims"].append(case["aims"][0] | {"arm": "other", "result": None, "met": None})

    text = report.figures([run])

    assert text.startswith("1 of 2 aims are met, and 1 could not be measured.")
    # 2.0 is not between 1.4 and 1.6, nor is 4.0 between 2.0 and 3.5.
    assert "In 0 of the 1 that are missed, and in 0 of those that are met" in text
    assert "* `files`: GB/s 1.50x instead of >= 2x (1 of 1)\n" in text
    assert "| files: 1 MiB, <TLS> | other | stock | GB/s | skipped | >= 2x |" in text


def test_an_aim_between_the_quartiles_is_said_to_be_uncertain(run: stored.Run) -> None:
    (case,) = run.rows["files"]
    case["aims"][0]["bound"] = 1.55

    assert "In 1 of the 1 that are missed" in report.figures([run])


def test_what_has_not_held_under_load_is_said(run: stored.Run) -> None:
    (case,) = run.rows["files"]
    case["aims"].append(case["aims"][0] | {"arm": "other", "result": None, "met": None})
    run.rows["more"] = [{"title": "attacks", "skipped": "no attacker", "arms": {}, "aims": []}]
    readme = "\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in MARKED) + "\n"

    text = report.with_results(readme, [], [run])

    assert "1 of 2 aims are met." in text
    assert "| 1 MiB, <TLS> | uvloop | GB/s: 1.5 (>= 2x) **missed**; CPU s/GB: 3 (<= 4) |" in text
    assert "| 1 MiB, <TLS> | other | GB/s: skipped |" in text
    assert "| attacks | - | skipped: no attacker |" in text


def drawn(run: stored.Run, *panels: plots.Panel) -> ElementTree.Element:
    plot = plots.Plot("name", "costs", panels, ("uvloop",))
    shown = [plots.pick(panel, [run]) for panel in panels]
    return ElementTree.fromstring(drawing.draw(plot, shown, svg.THEMES["dark"]))


def texts(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_a_plot_shows_medians_in_proportion_ours_first(run: stored.Run) -> None:
    root = drawn(run, plots.Panel("files", "GB/s", "Title"))

    ours, theirs = root.iter(f"{SVG}rect")
    assert (ours.get("class"), theirs.get("class")) == ("ours", "others")
    assert float(ours.get("width", 0)) / float(theirs.get("width", 0)) == pytest.approx(1.5, 0.01)
    assert float(ours.get("y", 0)) < float(theirs.get("y", 0))
    whiskers = [path for path in root.iter(f"{SVG}path") if path.get("class") == "whisker"]
    assert len(whiskers) == 2
    low, high = (float(x) for x in re.findall(r"M([\d.]+) [\d.]+v", whiskers[1].get("d", "")))
    left, width = float(theirs.get("x", 0)), float(theirs.get("width", 0))
    assert (low - left, high - left) == pytest.approx((width / 2, width * 2), abs=0.2)


def test_a_plot_says_what_is_compared_on_what_and_how_to_repeat_it(run: stored.Run) -> None:
    shown = texts(drawn(run, plots.Panel("files", "GB/s", "Title", r"1 MiB, (.*)")))

    assert {"Title", "GB/s; more is better", "<TLS>", "stock", "3.00", "1.50x missed"} <= {*shown}
    small = " ".join(shown)
    for name in ("date", "cores", "cpu", "kernel", "file system", "python"):
        assert f"<{name}>" in small
    assert "uvloop <uvloop>" in small
    assert "to stock." in small
    assert "Skipped: other: not here." in small
    assert shown[-1] == "python -m benchmarks --only files --rounds 7"


def test_a_command_names_the_congestion_control_that_was_measured(run: stored.Run) -> None:
    rows = {"file_server": run.rows["files"]}
    machine = run.machine | {"congestion control": "cubic"}
    by_wrk = stored.Run(machine, 7, rows)
    loaded = stored.Run(machine, 7, rows, "python -m benchmarks.load")

    shown, under_load = (
        texts(drawn(each, plots.Panel("file_server", "GB/s", "Title"))) for each in (by_wrk, loaded)
    )

    assert "".join(shown[-2:]).replace("\\", "") == (
        "python -m benchmarks --only file_server --rounds 7 --congestion cubic"
    )
    assert all(svg.width_of(line, "small") <= drawing.WIDTH for line in shown[-2:])
    assert shown[-2].endswith(" \\")
    # It has no such option.
    assert under_load[-1] == "python -m benchmarks.load --only file_server --rounds 7"


def test_an_absolute_aim_is_a_line_across_the_bars(run: stored.Run) -> None:
    root = drawn(run, plots.Panel("files", "CPU s/GB", "Title"))

    assert "aim 4" in texts(root)
    (line,) = (path for path in root.iter(f"{SVG}path") if path.get("class") == "aim")
    x = float(re.findall(r"M([\d.]+)", line.get("d", ""))[0])
    box = next(root.iter(f"{SVG}rect"))
    left, width = float(box.get("x", 0)), float(box.get("width", 0))
    assert x - left == pytest.approx(width * 4 / 3, abs=0.2)


@pytest.mark.parametrize("measure", ["GB/s", "longest pause, ms"])
def test_zeros_can_be_drawn(run: stored.Run, measure: str) -> None:
    (case,) = run.rows["files"]
    zeros = {measure: {"low": 0.0, "median": 0.0, "high": 0.0}}
    arms = {"asend": {"skipped": None, "summary": zeros}}
    nothing = stored.Run(run.machine, 1, {"files": [case | {"arms": arms, "aims": []}]})

    assert "0.00" in texts(drawn(nothing, plots.Panel("files", measure, "Title")))


def test_each_row_is_that_of_the_newest_run_that_has_it(project: Path) -> None:
    """A run of all rows is newer than the stored ones of some, and one of some newer yet."""
    rows = rows_of(base(project))
    again = rows | {"handlers": rows["calls"][:1]}
    write(project / stored.RESULTS / "2100-01-01-000000.json", base(project), again)
    one = {"calls": rows["calls"][:2]}
    write(project / stored.RESULTS / "2100-01-02-000000.json", base(project), one)
    before = {row for run in stored.load() for row in run.rows}

    runs = stored.load(project)

    shown = {row: cases for run in runs for row, cases in run.rows.items()}
    assert shown.keys() == before
    assert titles(shown["calls"]) == titles(one["calls"])
    assert titles(shown["handlers"]) == titles(again["handlers"])
    assert sum(len(run.rows) for run in runs) == len(shown)
    places = [min(map(ROWS.index, run.rows)) for run in runs]
    assert places == sorted(places)


def test_what_measured_nothing_replaces_nothing(project: Path) -> None:
    rows = rows_of(base(project))
    skipped = {"calls": [{"title": "the whole row", "skipped": "no network", "arms": {}}]}
    directory = project / stored.RESULTS
    write(directory / "2100-01-01-000000.json", base(project), skipped)
    write(directory / "2100-01-02-000000.json", base(project), rows, quick=True)

    assert stored.load(project) == stored.load()


def test_runs_under_load_of_some_rows_are_shown_beside_others(project: Path) -> None:
    directory = project / stored.UNDER_LOAD
    # Of those stored, one that has all rows.
    path = max(directory.glob("*.json"), key=lambda path: (len(rows_of(path)), path.name))
    for other in directory.glob("*.json"):
        if other != path:
            other.unlink()
    rows = rows_of(path)
    write(directory / "2100-01-01-000000.json", path, {"stop": rows["stop"][:1]})

    assert run_report("--root", project).returncode == 0

    _, text, _ = report.shown_under_load((project / "README.md").read_text(encoding="utf-8"))
    assert text.count("Measured on") == 2
    assert text.count("| SIGTERM during") == sum(len(case["arms"]) for case in rows["stop"][:1])
    assert "| kill -9 of" in text


def _boxes(root: ElementTree.Element) -> Iterator[tuple[float, float, float, float, str]]:
    """Yield left, top, right and bottom of each text in a wide font."""
    for text in root.iter(f"{SVG}text"):
        kind, content = text.get("class", ""), text.text or ""
        size, width = svg.LETTERS[kind].size, svg.width_of(content, kind)
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        x -= {"end": width, "middle": width / 2}.get(text.get("text-anchor", ""), 0)
        yield x, y - size * 0.8, x + width, y + size * 0.1, content


@pytest.mark.parametrize("path", sorted(PLOTS.glob("*.svg")), ids=lambda path: path.stem)
def test_no_text_is_cut_off_or_covers_another(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = list(_boxes(root))

    # Less than two phones, so that text on one is nearly as large as it is drawn.
    assert width < 420
    for at, (left, top, right, bottom, text) in enumerate(boxes):
        assert left >= -1, text
        assert right <= width + 1, text
        assert top >= -1, text
        assert bottom <= height, text
        for other in boxes[:at]:
            apart = left >= other[2] or other[0] >= right or top >= other[3] or other[1] >= bottom
            assert apart, (text, other)


def _brightness(color: str) -> float:
    """Return the relative luminance. Source: WCAG 2.2."""
    values = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_brightness(one), _brightness(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("theme", "page"), [("light", "#ffffff"), ("dark", "#0d1117")])
def test_bars_and_text_differ_in_brightness(theme: str, page: str) -> None:
    colors = svg.THEMES[theme]

    assert _contrast(colors["text"], page) >= 7
    assert _contrast(colors["faint"], page) >= 4.5
    assert _contrast(colors["ours"], page) >= 4.5
    assert _contrast(colors["others"], page) >= 2.5
    assert _contrast(colors["ours"], colors["others"]) >= 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.27, "0.270"),
        (0.0123, "0.0123"),
        (9.996, "10.0"),
        (55.04, "55.0"),
        (503.4, "503"),
        (999.7, "1.00k"),
        (7650.2, "7.65k"),
        (148_873.8, "149k"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert drawing.short(value) == text
