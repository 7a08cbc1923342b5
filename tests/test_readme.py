"""What the README shows runs as it stands, and its figures are measured ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NAMES = ["asyncio", "uvloop", "trio", "streams", "trio-streams", "loops"]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=NAMES)
def test_a_snippet_runs_as_it_is(snippet: str, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet)

    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout


def test_the_commands_name_what_is_there() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)

    assert len(commands) == 2
    assert (ROOT / "examples" / "file_server" / "__main__.py").exists()
    for command in commands:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)

    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_figures_are_those_of_the_stored_run() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import figures
    finally:
        sys.path.remove(str(ROOT))
    run = json.loads(figures.RESULTS.read_text())

    _, shown, _ = figures.shown_in(README)

    assert shown == figures.figures(run)
