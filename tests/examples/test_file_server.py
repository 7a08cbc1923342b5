"""The file server as its users have it: started as a process, asked by curl, and its folders."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from file_servers import DIGITS, LOOPS, Server, serving
from processes import FILE_SERVER, Client, ask, needs_curl, port_of, run, started, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = 32 * 1024 * 1024
PAGE = b"<p>page" * 1000


class Site(NamedTuple):
    root: Path
    port: int


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site") / "root"
    root.mkdir()
    (root / "digits.txt").write_bytes(DIGITS)
    (root / "big.bin").write_bytes(os.urandom(BIG))
    (root / "page.html").write_bytes(PAGE)
    (root / "page.html.gz").write_bytes(gzip.compress(PAGE))
    return root


@pytest.fixture(scope="module", params=LOOPS)
def site(request: pytest.FixtureRequest, root: Path) -> Iterator[Site]:
    """One server for all tests of a loop, which has to end without a word on stderr."""
    with started(FILE_SERVER, root, "--port", 0, "--loop", request.param) as (process, line):
        assert f"({request.param})" in line
        yield Site(root, port_of(line))
        assert stop(process) == (0, "")


# curl


def curl(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, check=True, timeout=30)


@needs_curl
def test_curl_gets_every_byte_of_a_large_file(site: Site, tmp_path: Path) -> None:
    curl("--output", tmp_path / "big.bin", f"http://127.0.0.1:{site.port}/big.bin")

    is_right = (tmp_path / "big.bin").read_bytes() == (site.root / "big.bin").read_bytes()
    assert is_right


@needs_curl
@pytest.mark.parametrize("ranges", ["1000001-23000003", "0-0", "-5000000"])
def test_curl_gets_a_range(site: Site, ranges: str) -> None:
    got = curl("--range", ranges, f"http://127.0.0.1:{site.port}/big.bin")

    first, _, last = ranges.partition("-")
    content = (site.root / "big.bin").read_bytes()
    is_right = got.stdout == (
        content[int(first) : int(last) + 1] if first else content[-int(last) :]
    )
    assert is_right


@needs_curl
def test_curl_resumes(site: Site, tmp_path: Path) -> None:
    content = (site.root / "big.bin").read_bytes()
    (tmp_path / "big.bin").write_bytes(content[:20_000_001])

    curl(
        "--continue-at", "-", "--output", tmp_path / "big.bin",
        f"http://127.0.0.1:{site.port}/big.bin",
    )  # fmt: skip

    is_right = (tmp_path / "big.bin").read_bytes() == content
    assert is_right


@needs_curl
def test_curl_does_not_get_again_what_it_has(site: Site, tmp_path: Path) -> None:
    url, copy = f"http://127.0.0.1:{site.port}/digits.txt", tmp_path / "copy"
    etags = tmp_path / "etags"

    def get() -> bytes:
        tagged = ["--etag-save", etags, "--etag-compare", etags]
        return curl(*tagged, "--output", copy, "--write-out", "%{http_code}", url).stdout

    assert (get(), get()) == (b"200", b"304")
    assert copy.read_bytes() == DIGITS


@needs_curl
def test_curl_decodes_what_is_there_compressed(site: Site) -> None:
    got = curl(
        "--compressed", "--write-out", "%{size_download}", f"http://127.0.0.1:{site.port}/page.html"
    )

    size = (site.root / "page.html.gz").stat().st_size
    assert got.stdout == PAGE + str(size).encode()


@needs_curl
def test_curl_gets_several_files_over_one_connection(site: Site) -> None:
    url = f"http://127.0.0.1:{site.port}/digits.txt"

    got = curl("--write-out", "%{num_connects}", url, url, url)

    assert got.stdout == DIGITS + b"1" + DIGITS + b"0" + DIGITS + b"0"


# Starting and stopping


def test_the_first_line_says_where(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0) as (_, line):
        address = f"http://127.0.0.1:{port_of(line)}/"

    assert line == f"serving {root} on {address} (uvloop) - Ctrl+C stops\n"


def test_it_listens_on_ipv6(root: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with (
        started(FILE_SERVER, root, "--host", "::1", "--port", 0) as (_, line),
        Client(port_of(line), "::1") as client,
    ):
        client.send(b"GET /digits.txt HTTP/1.1", b"Host: x")

        assert client.reply().body == DIGITS
        assert f"http://[::1]:{port_of(line)}/" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_second_signal_stops_the_server_at_once_and_quietly(
    root: Path, number: signal.Signals
) -> None:
    with (
        started(FILE_SERVER, root, "--port", 0) as (server, line),
        Client(port_of(line)) as loading,
        Client(port_of(line)) as idle,
    ):
        loading.send(b"GET /big.bin HTTP/1.1", b"Host: x")
        idle.send(b"GET /digits.txt HTTP/1.1", b"Host: x")
        loading.sock.recv(1)
        idle.reply()
        server.send_signal(number)
        # Who waits for nothing is told at once.
        assert idle.rest() == b""

        assert stop(server, number) == (0, "")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no..host", "cannot listen on no..host:8000: not a host name"),
        ("192.0.2.1", "cannot listen on 192.0.2.1:8000: "),
    ],
)
def test_a_wrong_address_is_answered_in_one_line(root: Path, host: str, message: str) -> None:
    ended = run(FILE_SERVER, root, "--host", host)

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"file_server: error: {message}")
    assert ended.stderr.count("\n") == 1


def test_a_missing_httptools_is_answered_by_how_to_get_it(root: Path, tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('missing', name='httptools')"
    (tmp_path / "httptools.py").write_text(missing)

    ended = run(FILE_SERVER, root, folders=(tmp_path,))

    assert ended.returncode == 1
    assert ended.stderr == (
        "file_server: error: httptools is missing: pip install 'asend[server]'\n"
    )


# Nothing is forbidden to root unless it gives its privileges away.
WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set", "-all") if os.geteuid() == 0 else ()
needs_setpriv = pytest.mark.skipif(
    bool(WITHOUT_PRIVILEGES) and shutil.which("setpriv") is None,
    reason="root, and no setpriv to be less than that",
)


@needs_setpriv
def test_a_forbidden_folder_is_answered_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0)

    ended = run(FILE_SERVER, tmp_path, prefix=WITHOUT_PRIVILEGES)

    tmp_path.chmod(0o700)
    assert ended.returncode == 2
    assert ended.stderr == f"file_server: error: argument DIR: permission denied: {tmp_path}\n"


@needs_setpriv
@pytest.mark.parametrize("loop", LOOPS)
def test_what_must_not_be_read_is_forbidden(tmp_path: Path, loop: str) -> None:
    root = tmp_path / "root"
    for folder in ("folder", "site"):
        (root / folder).mkdir(parents=True)
    for name in ("file", "folder/file", "site/index.html"):
        (root / name).write_text("SECRET")
    for name in ("file", "folder", "site/index.html"):
        (root / name).chmod(0)
    arguments = [sys.executable, FILE_SERVER, root, "--port", 0, "--loop", loop]
    command = [*WITHOUT_PRIVILEGES, *map(str, arguments)]

    with started("-c", f"import os; os.execvp({command[0]!r}, {command!r})") as (server, line):
        for target in (b"/file", b"/folder/", b"/folder/file", b"/folder/nothing", b"/site/"):
            assert ask(port_of(line), target).status == 403
        # A folder that is not to be read has its name all the same.
        assert ask(port_of(line), b"/folder").status in (301, 403)
        assert stop(server) == (0, "")

    (root / "folder").chmod(0o700)


# Folders, in process


class Page(HTMLParser):
    """Where the links of the rows lead, and the elements that there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self._is_row = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tbody":
            self._is_row = dict(attrs).get("class") == "rows"
        elif tag == "a" and self._is_row:
            self.links.append(dict(attrs)["href"] or "")


# In the order of the listing: folders first.
SHOWN = ["\r\nX: é", "evil", "inside", "sub", "<script>alert(1)<", "a b", "digits.txt", "é%41"]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with names that are odd, and what must not be shown."""
    (tmp_path / "secret.txt").write_text("SECRET")
    odd = tmp_path / "odd"
    for name in ("sub/.git", "evil", "\r\nX: é"):
        (odd / name).mkdir(parents=True)
    for name in ("digits.txt", "a b", "é%41", "<script>alert(1)<", "sub/page.html", ".hidden"):
        (odd / name).write_bytes(DIGITS)
    (odd / "inside").symlink_to("sub")
    for name, to in {
        "outside": "..",
        "outside.txt": "../secret.txt",
        "to-hidden": ".hidden",
        "to-git": "sub/.git",
        "dangling": "nowhere",
        "loop": "loop",
        "null": "/dev/null",
    }.items():
        (odd / name).symlink_to(to)
    os.mkfifo(odd / "fifo")
    (odd / "latin").touch()
    os.rename(odd / "latin", os.fsencode(odd / "latin-") + b"\xe9")
    return odd


def names_of(server: Server, target: str) -> list[str]:
    reply = server.get(target, "Accept: application/json")
    assert (reply.status, reply.fields["content-type"]) == (200, "application/json")
    return [entry["name"] for entry in json.loads(reply.body)["entries"]]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_folder_shows_what_is_served_folders_first(odd: Path, loop: str) -> None:
    with serving(odd, loop) as server:
        reply = server.get("/")

        page = Page(reply.body.decode())
        assert reply.fields["content-type"] == "text/html; charset=utf-8"
        assert reply.fields["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in reply.fields["content-security-policy"]
        assert len(page.links) == len(SHOWN)
        assert page.tags.count("script") == Page(server.get("/evil/").body.decode()).tags.count(
            "script"
        )
        assert names_of(server, "/") == SHOWN
        assert names_of(server, "/sub/") == names_of(server, "/inside/") == ["page.html"]


@pytest.mark.parametrize("loop", LOOPS)
def test_hidden_names_and_links_that_lead_out_are_shown_if_asked_for(odd: Path, loop: str) -> None:
    with serving(odd, loop, hidden=True) as server:
        assert set(names_of(server, "/")) == {*SHOWN, ".hidden", "to-git", "to-hidden"}
        assert names_of(server, "/sub/") == [".git", "page.html"]
    with serving(odd, loop, follow_symlinks=True) as server:
        assert set(names_of(server, "/")) == {
            *SHOWN, "outside", "outside.txt", "to-git", "to-hidden"
        }  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_every_link_of_a_folder_leads_to_something(odd: Path, loop: str) -> None:
    with serving(odd, loop) as server:
        for href in Page(server.get("/").body.decode()).links:
            reply = server.get(f"/{href}")

            assert reply.status == 200
            assert href.endswith("/") or reply.body == DIGITS


@pytest.mark.parametrize("loop", LOOPS)
def test_a_folder_with_an_index_shows_that_as_long_as_it_is_there(odd: Path, loop: str) -> None:
    index = odd / "sub" / "index.html"
    with serving(odd, loop, cache_seconds=0.0) as server:
        assert names_of(server, "/sub/") == ["page.html"]
        index.write_text("<p>index")
        shown = server.get("/sub/")
        index.unlink()

        assert shown.body == b"<p>index"
        assert shown.fields["content-type"] == "text/html; charset=utf-8"
        assert names_of(server, "/sub/") == ["page.html"]


@pytest.mark.parametrize("loop", LOOPS)
def test_an_error_in_one_connection_is_logged_and_the_only_one(
    odd: Path, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(odd, loop) as server, server.connect() as client, server.connect() as another:

        def fail(request: object) -> object:
            del server.service.folder.respond
            raise RuntimeError("a bug")

        server.service.folder.respond = fail
        client.ask("/digits.txt")

        assert client.rest() == b""
        assert another.get("/digits.txt").body == DIGITS
        [complaint] = server.complaints.take()
        assert complaint.endswith("RuntimeError: a bug")
        caplog.clear()
