"""What the README names is there, and its figures are measured ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_commands_name_what_is_there() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)

    assert len(commands) == 4
    assert (ROOT / "examples" / "file_server" / "__main__.py").exists()
    for command in commands:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)

    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_figures_are_those_of_the_stored_runs() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import report
    finally:
        sys.path.remove(str(ROOT))
    _, shown, _ = report.shown_in(README)

    assert shown == report.figures()
