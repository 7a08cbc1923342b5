"""What the README shows runs as it stands, and its figures are measured ones."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NAMES = ["asyncio", "uvloop", "trio", "streams", "trio-streams", "loops", "aiohttp", "asgi"]
SHOWN = dict(zip(NAMES, SNIPPETS, strict=True))
SERVERS = ["aiohttp", "asgi"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SERVERS])
def test_a_snippet_runs_as_it_is(name: str, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(SHOWN[name])

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


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_answers_as_it_is(name: str, tmp_path: Path) -> None:
    """But for its port, which is a free one here."""
    if name == "asgi":
        pytest.importorskip("fastapi", reason="needs fastapi")
    (tmp_path / "report.pdf").write_bytes(b"%PDF" * 100_000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    snippet = re.sub(
        r"^(\w+\.run(?:_app)?\()(.*)\)$", rf"\1\2, port={port})", SHOWN[name], flags=re.M
    )
    script = tmp_path / "snippet.py"
    script.write_text(snippet)

    with subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            body = read_when_it_listens(port, "/report")
        finally:
            server.terminate()

    assert body == b"%PDF" * 100_000


def read_when_it_listens(port: int, path: str) -> bytes:
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return bytes(response.read())
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


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
        from benchmarks import figures
    finally:
        sys.path.remove(str(ROOT))
    _, shown, _ = figures.shown_in(README)

    assert shown == figures.figures()
