"""What the README and the guides show runs as it stands, and they leave nothing out."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pytest
from waiting import until

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# What each server that is shown has at /report.
REPORT = b"%PDF" * 100_000

# A block of Python, and below it the text that shows what it prints, if any.
SNIPPET = re.compile(r"(?ms)^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?")
SERVES = re.compile(r"^( *(?:uvicorn\.run|web\.run_app)\()(.*)\)$", re.MULTILINE)


class Snippet(NamedTuple):
    name: str
    code: str
    printed: str


def snippets_of(page: Path) -> list[Snippet]:
    where = page.relative_to(ROOT).with_suffix("")
    found = SNIPPET.findall(page.read_text())
    return [Snippet(f"{where}-{at}", *each) for at, each in enumerate(found, 1)]


SHOWN = [snippet for page in PAGES for snippet in snippets_of(page)]
PROGRAMS = [each for each in SHOWN if not SERVES.search(each.code)]
SERVERS = [each for each in SHOWN if SERVES.search(each.code)]
name_of = attrgetter("name")


@pytest.mark.parametrize("snippet", PROGRAMS, ids=name_of)
def test_a_program_runs_as_it_is(snippet: Snippet, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", written(snippet.code, tmp_path)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout
    if snippet.printed:
        assert done.stdout == snippet.printed


@pytest.mark.parametrize("snippet", SERVERS, ids=name_of)
def test_a_server_answers_as_it_is(snippet: Snippet, tmp_path: Path) -> None:
    """But for its port, which is a free one here."""
    if "fastapi" in snippet.code:
        pytest.importorskip("fastapi", reason="needs fastapi")
    (tmp_path / "report.pdf").write_bytes(REPORT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = SERVES.sub(rf"\1\2, port={port})", snippet.code)

    with subprocess.Popen(
        [sys.executable, written(code, tmp_path)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            body = until(lambda: answer_of(port, "/report"), 20, "it listens")
        finally:
            server.terminate()

    assert body == REPORT


def written(code: str, folder: Path) -> Path:
    script = folder / "snippet.py"
    script.write_text(code)
    return script


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def answer_of(port: int, path: str) -> bytes:
    """Return what a server answers, nothing while it does not listen."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except urllib.error.URLError:
        return b""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_of_python_is_passed_over(page: Path) -> None:
    """As one would be that is indented, or marked in another way."""
    marked = re.findall(r"(?:```|~~~) *\{?\.?(?:py|python)", page.read_text())

    assert len(marked) == len(snippets_of(page))


PUBLIC = ["", ".aiohttp", ".asgi", ".http", ".loops", ".starlette", ".streams"]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name(module: str) -> None:
    page = (DOCS / "reference" / f"{module[1:] or 'asend'}.md").read_text()
    # Described here, or at another place that is linked to.
    described = set(re.findall(r"^::: asend\.[\w.]*?(\w+)$", page, re.MULTILINE))
    linked = set(re.findall(r"(?:\]\[|\{ #)asend\.(?:\w+\.)?(\w+)", page))

    assert set(importlib.import_module(f"asend{module}").__all__) <= described | linked


def test_the_guide_has_every_option_of_the_file_server() -> None:
    page = (DOCS / "guides" / "file-server.md").read_text()
    helped = subprocess.run(
        [sys.executable, ROOT / "examples" / "file_server", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    options = set(re.findall(r"^  (?:-h, )?(--[\w-]+)", helped.stdout, re.MULTILINE))

    assert set(re.findall(r"`(--[\w-]+)", page)) == options - {"--help", "--version"}
