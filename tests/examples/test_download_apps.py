"""The download page on aiohttp and on Starlette: as processes, with real clients and a browser."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pytest
from browser import needs_chromium
from processes import EXAMPLES, REPOSITORY, Client, ask, port_of, run, started, stop
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from browser import Browser

DIGITS = b"0123456789"
# More than what the kernel holds for a client that does not read.
BIG = 32 * 1024 * 1024
ODD = 'a "é" <b>1 %\r\n;.txt'
README = (REPOSITORY / "README.md").read_text()
APPS = ["aiohttp_app", "asgi_app"]


class Site(NamedTuple):
    root: Path
    port: int


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, beside what must not be served."""
    above = tmp_path_factory.mktemp("site")
    (above / "secret.txt").write_text("SECRET")
    root = above / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "secret.txt").write_text("SECRET")
    (root / "digits.txt").write_bytes(DIGITS)
    (root / "empty").touch()
    (root / "big.bin").write_bytes(os.urandom(BIG))
    (root / ODD).write_text("odd")
    (root / "page.html").write_text("<script>document.title = 'run'</script>")
    (root / ".hidden").write_text("SECRET")
    (root / "back\\slash").write_text("SECRET")
    (root / "link").symlink_to("../secret.txt")
    (root / "inside").symlink_to("digits.txt")
    (root / "dangling").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(root / "latin-") + b"\xe9")).write_text("SECRET")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        # A path of a socket is not to be longer than some 100 bytes.
        before = Path.cwd()
        os.chdir(root)
        sock.bind("socket")
        os.chdir(before)
    return root


@pytest.fixture(scope="module")
def without_uvloop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules in which uvloop cannot be imported."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "uvloop.py").write_text("raise ImportError")
    return folder


@pytest.fixture(params=APPS, scope="module")
def app(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["uvloop", "asyncio"], scope="module")
def site(
    request: pytest.FixtureRequest, app: str, root: Path, without_uvloop: Path
) -> Iterator[Site]:
    """One server for all tests of a loop, which has to end without a word on stderr."""
    folders = (without_uvloop,) if request.param == "asyncio" else ()
    script = EXAMPLES / f"{app}.py"
    with started(script, root, "--port", 0, folders=folders) as (process, line):
        yield Site(root, port_of(line))
        assert stop(process, signal.SIGINT) == (0, "")


class Events:
    """What a page is told, read as it comes."""

    def __init__(self, port: int, page: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request("GET", f"/events?page={page}")
        self.response = self._connection.getresponse()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def next(self) -> tuple[str, Any]:
        """Return the kind of the next event, and its data."""
        kind, data = "message", None
        for line in iter(self.response.readline, b""):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = json.loads(value)
            elif not line.strip() and data is not None:
                return kind, data
        raise EOFError

    def until_end(self) -> list[dict[str, Any]]:
        """Return the events of one download up to that of its end."""
        told = [self.next()[1]]
        while told[-1]["state"] == "running":
            told.append(self.next()[1])
        return told


def listing(port: int) -> Any:
    return json.loads(ask(port, b"/api/files").body)


# Requests and what they get


def test_the_api_lists_the_files_that_can_be_downloaded(site: Site) -> None:
    reply = ask(site.port, b"/api/files")

    assert reply.headers.get_content_type() == "application/json"
    assert json.loads(reply.body) == [
        {"name": ODD, "size": 3},
        {"name": "big.bin", "size": BIG},
        {"name": "digits.txt", "size": 10},
        {"name": "empty", "size": 0},
        {"name": "page.html", "size": 39},
    ]


def test_every_file_of_the_list_comes_whole_and_is_saved_under_its_name(site: Site) -> None:
    for file in listing(site.port):
        reply = ask(site.port, b"/files/" + quote(file["name"], safe="").encode())

        assert reply.status == 200
        assert reply.body == (site.root / file["name"]).read_bytes()
        said = reply.headers["Content-Disposition"]
        assert said == f"attachment; filename*=UTF-8''{quote(file['name'], safe='')}"


@pytest.mark.parametrize(
    "target", [b"/", b"/api/files", b"/api/downloads", b"/files/page.html", b"/files/nothing"]
)
def test_every_response_says_what_a_browser_may_do_with_it(site: Site, target: bytes) -> None:
    headers = ask(site.port, target).headers

    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [(b"2-5", 2, 5), (b"7-", 7, 9), (b"-3", 7, 9)],
)
def test_a_range_is_sent_and_named(site: Site, asked: bytes, first: int, last: int) -> None:
    reply = ask(site.port, b"/files/digits.txt", b"Range: bytes=" + asked)

    assert reply.status == 206
    assert reply.body == DIGITS[first : last + 1]
    assert reply.headers["Content-Range"] == f"bytes {first}-{last}/10"


def test_a_range_outside_the_file_is_416(site: Site) -> None:
    assert ask(site.port, b"/files/digits.txt", b"Range: bytes=10-").status == 416


def test_head_says_the_length_without_the_body(site: Site) -> None:
    reply = ask(site.port, b"/files/big.bin", method=b"HEAD")

    assert reply.status == 200
    assert reply.headers["Content-Length"] == str(BIG)


def test_a_client_with_the_current_file_gets_304(site: Site) -> None:
    etag = ask(site.port, b"/files/digits.txt").headers["ETag"].encode()

    assert ask(site.port, b"/files/digits.txt", b"If-None-Match: " + etag).status == 304


@pytest.mark.parametrize(
    "target",
    [
        b"/nothing",
        b"/files",
        b"/files/",
        b"/files/nothing",
        b"/files/..",
        b"/files/.",
        b"/files/../secret.txt",
        b"/files/%2e%2e/secret.txt",
        b"/files/..%2fsecret.txt",
        b"/files/%2e%2e%2fsecret.txt",
        b"/files/%252e%252e%252fsecret.txt",
        b"/files/sub",
        b"/files/sub/secret.txt",
        b"/files/sub%2fsecret.txt",
        b"/files/sub%5csecret.txt",
        b"/files//etc/passwd",
        b"/files/%2fetc%2fpasswd",
        b"/files/.hidden",
        b"/files/%2ehidden",
        b"/files/back%5cslash",
        b"/files/link",
        b"/files/inside",
        b"/files/dangling",
        b"/files/fifo",
        b"/files/socket",
        b"/files/latin-%e9",
        b"/files/digits.txt%00",
        b"/files/%00",
        b"/files/digits.txt/",
        b"/files/" + b"a" * 256,
        b"/files/" + b"a" * 5000,
    ],
)
def test_what_the_list_does_not_show_is_not_found(site: Site, target: bytes) -> None:
    reply = ask(site.port, target)

    assert reply.status == 404
    assert b"SECRET" not in reply.body
    assert b"root:" not in reply.body


# Progress


def test_a_page_is_told_of_its_downloads_until_all_was_sent(site: Site) -> None:
    with Events(site.port, "mine") as events, Events(site.port, "other") as others:
        assert events.next() == ("running", [])
        assert others.next() == ("running", [])
        ask(site.port, b"/files/big.bin?page=mine")
        told = events.until_end()
        ask(site.port, b"/files/digits.txt?page=other")
        other = others.until_end()

    assert events.response.headers["Content-Type"].startswith("text/event-stream")
    assert [each["state"] for each in told] == ["running"] * (len(told) - 1) + ["done"]
    assert [each["at"] for each in told] == sorted(each["at"] for each in told)
    assert {(each["name"], each["size"]) for each in told} == {("big.bin", BIG)}
    assert told[-1]["at"] == told[-1]["sent"] == BIG
    assert {each["name"] for each in other} == {"digits.txt"}
    assert other[-1]["at"] == 10


def test_a_download_that_is_resumed_goes_on_where_it_was(site: Site) -> None:
    with Events(site.port, "mine") as events:
        events.next()
        ask(site.port, b"/files/digits.txt?page=mine", b"Range: bytes=4-")
        told = events.until_end()[-1]

    assert (told["at"], told["sent"], told["size"], told["state"]) == (10, 6, 10, "done")


def test_what_sends_nothing_of_a_file_is_not_told(site: Site) -> None:
    with Events(site.port, "mine") as events:
        events.next()
        target = b"/files/digits.txt?page=mine"
        ask(site.port, target, method=b"HEAD")
        ask(site.port, target, b"Range: bytes=99-")
        ask(site.port, target, b"If-None-Match: *")
        ask(site.port, target)
        told = events.until_end()

    assert {each["sent"] for each in told} == {10}


def test_a_page_that_comes_back_and_the_api_know_what_is_running(site: Site) -> None:
    with Client(site.port) as client, Events(site.port, "mine") as events:
        client.send(b"GET /files/big.bin?page=mine HTTP/1.1", b"Host: x")
        events.next()
        events.next()
        with Events(site.port, "mine") as again:
            kind, running = again.next()
        status = json.loads(ask(site.port, b"/api/downloads").body)
        client.close()
        told = events.until_end()[-1]

    assert kind == "running"
    assert [(each["name"], each["state"]) for each in running] == [("big.bin", "running")]
    assert [(each["name"], each["size"]) for each in status] == [("big.bin", BIG)]
    assert told["state"] == "stopped"
    assert 0 < told["at"] < BIG
    assert json.loads(ask(site.port, b"/api/downloads").body) == []


def changed(app: str, change: str) -> tuple[str, str]:
    """Return arguments that start an app after a change to its constants."""
    return "-c", f"import asend, downloads, {app} as app; {change}; app.main()"


def test_a_client_that_stops_reading_is_left(app: str, root: Path) -> None:
    arguments = changed(app, "app.LIMITS = asend.Limits(stall=0.2)")

    with started(*arguments, root, "--port", 0, folders=(EXAMPLES,)) as (process, line):
        port = port_of(line)
        with Events(port, "mine") as events, Client(port) as client:
            events.next()
            client.send(b"GET /files/big.bin?page=mine HTTP/1.1", b"Host: x")
            told = events.until_end()[-1]
        end = stop(process, signal.SIGINT)

    assert told["state"] == "stopped"
    assert 0 < told["at"] < BIG
    assert end == (0, "")


def test_pages_beyond_the_most_wait_until_one_has_left(app: str, root: Path) -> None:
    arguments = changed(app, "downloads.MOST_PAGES = 1; downloads.QUIET = 0.05")

    with started(*arguments, root, "--port", 0, folders=(EXAMPLES,)) as (process, line):
        port = port_of(line)
        with Events(port, "first") as first:
            first.next()
            with Events(port, "second") as second:
                refused = second.response.read()
        while True:
            with Events(port, "third") as third:
                if third.response.readline() == b"event: running\n":
                    break
        end = stop(process, signal.SIGINT)

    assert refused == b"retry: 60000\n\n"
    assert end == (0, "")


# From the start to the end


def test_the_command_of_the_readme_shows_the_page_with_demo_files(app: str) -> None:
    assert f".venv/bin/python examples/{app}.py\n" in README

    with started(EXAMPLES / f"{app}.py", "--port", 0) as (process, line):
        page = ask(port_of(line), b"/")
        files = listing(port_of(line))
        end = stop(process, signal.SIGINT)

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<title>Downloads</title>" in page.body
    assert [file["size"] for file in files] == [1 << 30, 64 << 20]
    assert end == (0, "")
    assert not Path(line.split(" serves ")[1].partition(" - ")[0]).exists()


def test_ctrl_c_ends_what_is_running_without_a_word(app: str, root: Path) -> None:
    with started(EXAMPLES / f"{app}.py", root, "--port", 0) as (process, line):
        port = port_of(line)
        with Client(port) as client, Events(port, "mine") as events:
            client.send(b"GET /files/big.bin?page=mine HTTP/1.1", b"Host: x")
            events.next()
            events.next()
            end = stop(process, signal.SIGINT)
            reply = client.reply()

    assert end == (0, "")
    assert len(reply.body) < BIG


def test_sigterm_leaves_no_folder_behind(app: str) -> None:
    with started(EXAMPLES / f"{app}.py", "--port", 0) as (process, line):
        listing(port_of(line))
        end = stop(process, signal.SIGTERM)

    assert end == (0, "")
    assert not Path(line.split(" serves ")[1].partition(" - ")[0]).exists()


def test_help_says_what_there_is(app: str) -> None:
    done = run(EXAMPLES / f"{app}.py", "--help")

    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("DIR", "--host", "--port", "127.0.0.1", "8000"):
        assert word in done.stdout


def test_what_is_wrong_with_a_command_is_said_in_one_line(app: str, tmp_path: Path) -> None:
    script = EXAMPLES / f"{app}.py"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        wrong = [
            (run(script, tmp_path / "nowhere"), "No such file or directory"),
            (run(script, EXAMPLES / "downloads.py"), "Not a directory"),
            (run(script, tmp_path, "--port", port), "Address already in use"),
            (run(script, tmp_path, "--port", 65536), "65535"),
            (run(script, tmp_path, "--host", "256.0.0.1"), "256.0.0.1"),
        ]

    for done, reason in wrong:
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith(f"{app}: error: ")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


# In a browser


@needs_chromium
def test_a_browser_shows_the_progress_and_gets_the_file(
    app: str, root: Path, window: Browser, tmp_path: Path
) -> None:
    with started(EXAMPLES / f"{app}.py", root, "--port", 0) as (process, line):
        window.open(f"http://127.0.0.1:{port_of(line)}/")
        window.wait("document.querySelector('#link').textContent === 'Live'")
        names = window.run("return [...document.querySelectorAll('.name')].map(e => e.textContent)")
        window.click('[aria-label="Download big.bin"]')
        done = window.wait("document.querySelector('li.done')?.innerText")
        bar = window.run("return document.querySelector('li.done progress').value")
        got = tmp_path / "big.bin"
        window.wait_downloaded(got)
        # The keyboard does the same.
        window.run("document.querySelector('[aria-label=\"Download digits.txt\"]').focus()")
        window.press("\ue007")
        window.wait("document.querySelectorAll('li.done').length === 2")
        spoken = window.run("return document.querySelector('[role=status]').textContent")
        complaints = window.complaints()
        end = stop(process, signal.SIGINT)
        window.wait("document.querySelector('#link').textContent === 'No connection'")

    assert names == [ODD, "big.bin", "digits.txt", "empty", "page.html"]
    assert done.startswith("big.bin\nSent: 32.0\xa0MiB")
    assert bar == 1
    assert spoken == "digits.txt was sent."
    assert complaints == []
    assert end == (0, "")
    assert hashlib.sha256(got.read_bytes()).digest() == (
        hashlib.sha256((root / "big.bin").read_bytes()).digest()
    )
