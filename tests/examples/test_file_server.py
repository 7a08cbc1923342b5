"""The file server: as a process with real clients, and where a limit must be short, in process."""

from __future__ import annotations

import asyncio
import importlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from processes import FILE_SERVER, PATIENCE, Client, ask, port_of, run, started, stop

import asend

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import ModuleType

    Answer = Callable[..., bytes]

DIGITS = b"0123456789"
BIG = 64 * 1024 * 1024

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Site(NamedTuple):
    root: Path
    port: int


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that can be asked for, beside what must not be served."""
    above = tmp_path_factory.mktemp("site")
    (above / "secret.txt").write_text("SECRET")
    (above / "secrets").mkdir()
    (above / "secrets" / "secret.txt").write_text("SECRET")
    root = above / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "page.html").write_text("<p>page")
    (root / "sub" / ".git").mkdir()
    (root / "sub" / ".git" / "config").write_text("SECRET")
    (root / "evil").mkdir()
    (root / "\r\nX: é").mkdir()
    (root / "site").mkdir()
    (root / "site" / "index.html").write_text("<p>index")
    (root / "digits.txt").write_bytes(DIGITS)
    (root / "empty").touch()
    (root / "archive.tar.gz").write_bytes(b"gz")
    (root / "big.bin").write_bytes(os.urandom(BIG))
    (root / ".hidden").write_text("SECRET")
    (root / "back\\slash").write_text("SECRET")
    (root / "<script>alert(1)<").touch()
    (root / "inside").symlink_to("sub")
    (root / "outside").symlink_to(above / "secrets")
    (root / "outside.txt").symlink_to("../secret.txt")
    (root / "beside").symlink_to(str(root) + "-beside")
    (above / "root-beside").write_text("SECRET")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture(scope="module")
def without_uvloop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules in which uvloop cannot be imported."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "uvloop.py").write_text("raise ImportError")
    return folder


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def site(request: pytest.FixtureRequest, root: Path, without_uvloop: Path) -> Iterator[Site]:
    """One server for all tests of a loop, which has to end without a word on stderr."""
    folders = (without_uvloop,) if request.param == "asyncio" else ()
    with started(FILE_SERVER, root, "--port", 0, folders=folders) as (process, line):
        assert f"({request.param})" in line
        yield Site(root, port_of(line))
        assert stop(process) == (0, "")


# Requests and what they get


def test_a_file_is_sent_whole_with_what_clients_need_to_know(site: Site) -> None:
    reply = ask(site.port, b"/digits.txt")

    assert reply.status == 200
    assert reply.body == DIGITS
    assert reply.headers["Content-Length"] == "10"
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["ETag"].startswith('"')
    assert reply.headers["Last-Modified"].endswith(" GMT")
    assert reply.headers["Date"].endswith(" GMT")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("target", [b"/digits.txt", b"/empty", b"/sub/", b"/sub", b"/nothing"])
def test_head_says_what_get_says_without_the_body(site: Site, target: bytes) -> None:
    got = ask(site.port, target)

    reply = ask(site.port, target, method=b"HEAD")

    del got.headers["Date"], reply.headers["Date"]
    assert reply.status == got.status
    assert reply.headers.items() == got.headers.items()
    assert reply.headers["Content-Length"] == str(len(got.body))
    assert reply.body == b""


def test_an_empty_file_is_a_response_without_a_body(site: Site) -> None:
    reply = ask(site.port, b"/empty")

    assert reply.status == 200
    assert reply.headers["Content-Length"] == "0"
    assert reply.headers["Content-Type"] == "application/octet-stream"


def test_an_archive_is_not_called_what_is_in_it(site: Site) -> None:
    reply = ask(site.port, b"/archive.tar.gz")

    assert reply.headers["Content-Type"] == "application/gzip"


@pytest.mark.parametrize(
    "target", [b"/digits.txt?a=/../b", b"http://host/digits.txt", b"//digits.txt"]
)
def test_only_the_path_of_a_target_counts(site: Site, target: bytes) -> None:
    assert ask(site.port, target).body == DIGITS


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS"])
def test_other_methods_are_refused_with_those_that_are_allowed(site: Site, method: bytes) -> None:
    reply = ask(site.port, b"/digits.txt", method=method)

    assert reply.status == 405
    assert reply.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        (b"bytes=0-0", 0, 0),
        (b"bytes=2-5", 2, 5),
        (b"bytes=7-", 7, 9),
        (b"bytes=7-99999999999999999999999", 7, 9),
        (b"bytes=-3", 7, 9),
        (b"bytes=-99", 0, 9),
        (b"BYTES=9-9", 9, 9),
    ],
)
def test_a_range_is_sent_and_named(site: Site, asked: bytes, first: int, last: int) -> None:
    reply = ask(site.port, b"/digits.txt", b"Range: " + asked)

    assert reply.status == 206
    assert reply.body == DIGITS[first : last + 1]
    assert reply.headers["Content-Range"] == f"bytes {first}-{last}/10"


@pytest.mark.parametrize("asked", [b"bytes=10-", b"bytes=99-100", b"bytes=-0"])
def test_a_range_outside_the_file_is_416(site: Site, asked: bytes) -> None:
    reply = ask(site.port, b"/digits.txt", b"Range: " + asked)

    assert reply.status == 416
    assert reply.headers["Content-Range"] == "bytes */10"


def test_an_empty_file_has_no_range(site: Site) -> None:
    assert ask(site.port, b"/empty", b"Range: bytes=0-").status == 416


@pytest.mark.parametrize(
    "asked",
    [
        b"bytes=0-1,3-4",
        b"bytes=5-2",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=0",
        b"bytes 0-1",
        b"lines=0-1",
        b"bytes=+1-2",
        b"bytes=" + b"9" * 5000 + b"-",
        b"bytes=0-1\r\nRange: bytes=2-3",
    ],
)
def test_a_range_that_is_not_understood_is_ignored(site: Site, asked: bytes) -> None:
    reply = ask(site.port, b"/digits.txt", b"Range: " + asked)

    assert (reply.status, reply.body) == (200, DIGITS)


def test_head_ignores_ranges(site: Site) -> None:
    reply = ask(site.port, b"/digits.txt", b"Range: bytes=0-1", method=b"HEAD")

    assert reply.status == 200
    assert reply.headers["Content-Length"] == "10"


def test_a_client_with_the_current_file_gets_304(site: Site) -> None:
    known = ask(site.port, b"/digits.txt").headers
    etag, modified = known["ETag"].encode(), known["Last-Modified"].encode()

    for field in (
        b"If-None-Match: " + etag,
        b"If-None-Match: W/" + etag,
        b'If-None-Match: "other", ' + etag,
        b"If-None-Match: *",
        b"If-Modified-Since: " + modified,
        b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",
        b'If-None-Match: "other"\r\nIf-None-Match: ' + etag,
    ):
        reply = ask(site.port, b"/digits.txt", field)

        assert (reply.status, reply.body) == (304, b""), field
        assert reply.headers["ETag"] == known["ETag"]


@pytest.mark.parametrize(
    "field",
    [
        b'If-None-Match: "other"',
        b"If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT",
        b"If-Modified-Since: yesterday",
        # The date is not asked for where there is a tag.
        b'If-None-Match: "other"\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT',
    ],
)
def test_a_client_with_another_file_gets_it_whole(site: Site, field: bytes) -> None:
    reply = ask(site.port, b"/digits.txt", field)

    assert (reply.status, reply.body) == (200, DIGITS)


def test_if_range_gives_a_part_of_the_same_file_only(site: Site) -> None:
    known = ask(site.port, b"/digits.txt").headers
    etag, modified = known["ETag"].encode(), known["Last-Modified"].encode()

    def asked(validator: bytes) -> int:
        field = b"If-Range: " + validator
        return ask(site.port, b"/digits.txt", b"Range: bytes=2-", field).status

    assert asked(etag) == 206
    assert asked(modified) == 206
    assert asked(b'"other"') == 200
    assert asked(b"W/" + etag) == 200
    assert asked(b"Mon, 01 Jan 2001 00:00:00 GMT") == 200
    assert asked(b"Fri, 01 Jan 2100 00:00:00 GMT") == 200


# Paths


@pytest.mark.parametrize(
    "target",
    [
        b"/nothing",
        b"/digits.txt/",
        b"/digits.txt/more",
        b"/../secret.txt",
        b"/sub/../../secret.txt",
        b"/./../secret.txt",
        b"//../secret.txt",
        b"/../../../../../../../../etc/passwd",
        b"//etc/passwd",
        b"http://host/../secret.txt",
        b"/%2e%2e/secret.txt",
        b"/.%2e/secret.txt",
        b"/..%2fsecret.txt",
        b"/%2e%2e%2fsecret.txt",
        b"/%2fetc%2fpasswd",
        b"/%252e%252e/secret.txt",
        b"/..%5csecret.txt",
        b"/..\\secret.txt",
        b"/back%5cslash",
        b"/back\\slash",
        b"/..%c0%afsecret.txt",
        b"/%c0%ae%c0%ae/secret.txt",
        b"/..;/secret.txt",
        b"/sub%2fpage.html",
        b"/digits.txt%00",
        b"/digits.txt%00.html",
        b"/%00",
        b"/%ff",
        b"/%",
        b"/%zz",
        b"/.hidden",
        b"/%2ehidden",
        b"/sub/.git/config",
        b"/.",
        b"/..",
        b"/outside.txt",
        b"/outside",
        b"/outside/",
        b"/outside/secret.txt",
        b"/beside",
        b"/loop",
        b"/dangling",
        b"/fifo",
        b"/" + b"a" * 256,
        b"/" + b"a" * 10_000,
        b"/" + b"a/" * 5000,
    ],
)
def test_what_is_not_to_be_served_is_not_found(site: Site, target: bytes) -> None:
    reply = ask(site.port, target)

    assert reply.status == 404
    assert b"SECRET" not in reply.body
    assert b"root:" not in reply.body


def test_a_symlink_that_stays_inside_is_followed(site: Site) -> None:
    assert ask(site.port, b"/inside/page.html").body == b"<p>page"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (b"/sub", "/sub/"),
        (b"/sub?query", "/sub/"),
        (b"//evil", "/evil/"),
        (b"///evil", "/evil/"),
        (b"/%0d%0aX:%20%c3%a9", "/%0D%0AX%3A%20%C3%A9/"),
    ],
)
def test_a_folder_without_its_slash_is_redirected(site: Site, target: bytes, location: str) -> None:
    reply = ask(site.port, target)

    assert reply.status == 301
    assert reply.headers["Location"] == location
    assert "X" not in reply.headers


# Folders


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: dict[str, str] = {}
        self._href = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._href = dict(attrs).get("href") or ""

    def handle_data(self, data: str) -> None:
        if self._href:
            self.links[self._href] = data


def test_a_listing_shows_what_is_served_folders_first(site: Site) -> None:
    reply = ask(site.port, b"/")

    page = Links(reply.body.decode())
    names = list(page.links.values())
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert sorted(names[:5]) == ["\r\nX: é/", "evil/", "inside/", "site/", "sub/"]
    assert names[5:] == ["<script>alert(1)<", "archive.tar.gz", "big.bin", "digits.txt", "empty"]
    assert b"64.0 MiB" in reply.body
    assert "script" not in page.tags


def test_every_link_of_a_listing_leads_to_something(site: Site) -> None:
    page = Links(ask(site.port, b"/").body.decode())

    for href in page.links:
        assert ask(site.port, b"/" + href.encode(), method=b"HEAD").status == 200


def test_a_listing_below_leads_up_again(site: Site) -> None:
    page = Links(ask(site.port, b"/sub/").body.decode())

    assert page.links == {"../": "../", "page.html": "page.html"}


def test_a_folder_with_an_index_shows_that(site: Site) -> None:
    reply = ask(site.port, b"/site/")

    assert reply.body == b"<p>index"
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"


# Connections


def test_a_connection_is_kept_for_the_next_request(site: Site) -> None:
    with Client(site.port) as client:
        for target in (b"/digits.txt", b"/nothing", b"/sub/", b"/empty", b"/digits.txt"):
            client.send(b"GET " + target + b" HTTP/1.1", b"Host: x")
            reply = client.reply()

            assert reply.headers["Connection"] == "keep-alive"

    assert reply.body == DIGITS


@pytest.mark.parametrize(
    ("lines", "is_kept"),
    [
        ([b"GET /digits.txt HTTP/1.1", b"Host: x", b"Connection: close"], False),
        ([b"GET /digits.txt HTTP/1.0"], False),
        ([b"GET /digits.txt HTTP/1.0", b"Connection: keep-alive"], True),
    ],
)
def test_the_client_says_whether_a_connection_is_kept(
    site: Site, lines: list[bytes], is_kept: bool
) -> None:
    with Client(site.port) as client:
        client.send(*lines)
        reply = client.reply()
        client.sock.shutdown(socket.SHUT_WR)

        assert reply.body == DIGITS
        assert reply.headers["Connection"] == ("keep-alive" if is_kept else "close")
        assert client.rest() == b""


def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    targets = [b"/digits.txt", b"/nothing", b"/sub/page.html", b"/empty", b"/digits.txt"]

    with Client(site.port) as client:
        client.sock.sendall(b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % t for t in targets))
        client.sock.shutdown(socket.SHUT_WR)
        replies = [client.reply() for _ in targets]
        rest = client.rest()

    assert [reply.status for reply in replies] == [200, 404, 200, 200, 200]
    assert [replies[0].body, replies[2].body, replies[4].body] == [DIGITS, b"<p>page", DIGITS]
    assert rest == b""


def test_a_request_may_come_byte_by_byte(site: Site) -> None:
    with Client(site.port) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n":
            client.sock.send(bytes([byte]))

        assert client.reply().body == DIGITS


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"nonsense\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT host:80 HTTP/1.1\r\nHost: host:80\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_400_after_those_before_it(site: Site, request_: bytes) -> None:
    with Client(site.port) as client:
        client.sock.sendall(b"GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n" + request_)

        assert client.reply().body == DIGITS
        reply = client.reply()
        assert reply.status == 400
        assert reply.headers["Connection"] == "close"
        assert client.rest() == b""


@pytest.mark.parametrize(
    "field", [b"X: " + b"x" * 70_000, b"X: x\r\n" * 15_000], ids=["long", "many"]
)
def test_a_header_that_is_too_large_gets_431_though_it_was_not_read(
    site: Site, field: bytes
) -> None:
    with Client(site.port) as client:
        client.send(b"GET / HTTP/1.1", b"Host: x", field)

        assert client.reply().status == 431
        assert client.rest() == b""


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: 100"],
        [b"Transfer-Encoding: chunked"],
        [b"Content-Length: 100", b"Expect: 100-continue"],
        [b"Upgrade: h2c", b"Connection: Upgrade"],
    ],
)
def test_nothing_in_a_body_is_taken_for_a_request(site: Site, fields: list[bytes]) -> None:
    with Client(site.port) as client:
        client.send(b"GET /digits.txt HTTP/1.1", b"Host: x", *fields)
        client.send(b"GET /sub/page.html HTTP/1.1", b"Host: x")
        reply = client.reply()

        assert reply.body == DIGITS
        assert reply.headers["Connection"] == "close"
        assert client.rest() == b""


def test_a_client_that_reads_nothing_does_not_hinder_another(site: Site) -> None:
    with Client(site.port) as stalled:
        stalled.send(b"GET /big.bin HTTP/1.1", b"Host: x")
        stalled.sock.recv(1)

        assert ask(site.port, b"/digits.txt").body == DIGITS


def test_a_client_that_goes_away_is_not_mentioned(site: Site) -> None:
    """The fixture asks for an empty stderr in the end."""
    for target in (b"/big.bin", b"/digits.txt", b"/"):
        with Client(site.port) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.send(b"GET " + target + b" HTTP/1.1", b"Host: x")
            client.sock.recv(1)

    assert ask(site.port, b"/digits.txt").status == 200


# curl


def curl(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, check=True, timeout=30)


@needs_curl
def test_curl_gets_every_byte_of_a_large_file(site: Site, tmp_path: Path) -> None:
    curl("--output", tmp_path / "big.bin", f"http://127.0.0.1:{site.port}/big.bin")

    assert (tmp_path / "big.bin").read_bytes() == (site.root / "big.bin").read_bytes()


@needs_curl
def test_curl_gets_a_range(site: Site) -> None:
    got = curl("--range", "1000001-33000003", f"http://127.0.0.1:{site.port}/big.bin")

    assert got.stdout == (site.root / "big.bin").read_bytes()[1000001:33000004]


@needs_curl
def test_curl_resumes(site: Site, tmp_path: Path) -> None:
    content = (site.root / "big.bin").read_bytes()
    (tmp_path / "big.bin").write_bytes(content[:20_000_001])

    curl(
        "--continue-at", "-", "--output", tmp_path / "big.bin",
        f"http://127.0.0.1:{site.port}/big.bin",
    )  # fmt: skip

    assert (tmp_path / "big.bin").read_bytes() == content


@needs_curl
def test_curl_gets_several_files_over_one_connection(site: Site) -> None:
    url = f"http://127.0.0.1:{site.port}/digits.txt"

    got = curl("--write-out", "%{num_connects}", url, url, url)

    assert got.stdout == DIGITS + b"1" + DIGITS + b"0" + DIGITS + b"0"


# Starting and stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_the_server_at_once_and_quietly(root: Path, number: signal.Signals) -> None:
    with (
        started(FILE_SERVER, root, "--port", 0) as (server, line),
        Client(port_of(line)) as loading,
        Client(port_of(line)) as idle,
    ):
        loading.send(b"GET /big.bin HTTP/1.1", b"Host: x")
        idle.send(b"GET /digits.txt HTTP/1.1", b"Host: x")
        loading.sock.recv(1)
        idle.reply()

        assert stop(server, number) == (0, "")
        assert idle.rest() == b""


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


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{root}/nothing"], 2, "no such folder: {root}/nothing"),
        (["{root}/digits.txt"], 2, "not a folder: {root}/digits.txt"),
        (["{root}", "--port", "x"], 2, "not a port (0 to 65535): 'x'"),
        (["{root}", "--port", "65536"], 2, "not a port (0 to 65535): '65536'"),
        (["{root}", "--port", "-1"], 2, "not a port (0 to 65535): '-1'"),
        ([], 2, "the following arguments are required: DIR"),
        (["{root}", "--host", "no..host"], 1, "cannot listen on no..host:8000: not a host name"),
        (["{root}", "--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:8000: "),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(
    root: Path, arguments: list[str], status: int, message: str
) -> None:
    ended = run(FILE_SERVER, *[argument.format(root=root) for argument in arguments])

    assert ended.returncode == status
    assert message.format(root=root) in ended.stderr
    assert ended.stderr.startswith("file_server: error: ")
    assert ended.stderr.count("\n") == 1


def test_a_taken_port_is_answered_in_one_line(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        ended = run(FILE_SERVER, root, "--port", port)

    assert ended.returncode == 1
    assert ended.stderr == (
        f"file_server: error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_a_forbidden_folder_is_answered_in_one_line(tmp_path: Path) -> None:
    # Nothing is forbidden to root unless it gives its privileges away.
    prefix = ("setpriv", "--bounding-set", "-all") if os.geteuid() == 0 else ()
    if prefix and shutil.which("setpriv") is None:
        pytest.skip("root, and no setpriv to be less than that")
    tmp_path.chmod(0)

    ended = run(FILE_SERVER, tmp_path, prefix=prefix)

    tmp_path.chmod(0o700)
    assert ended.returncode == 2
    assert ended.stderr == f"file_server: error: argument DIR: permission denied: {tmp_path}\n"


def test_a_missing_httptools_is_answered_by_how_to_get_it(root: Path, tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('missing', name='httptools')"
    (tmp_path / "httptools.py").write_text(missing)

    ended = run(FILE_SERVER, root, folders=(tmp_path,))

    assert ended.returncode == 1
    assert ended.stderr == (
        "file_server: error: httptools is missing: pip install 'asend[server]'\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are Linux's")
def test_too_many_open_files_are_outlived(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0) as (server, line):
        used = len(os.listdir(f"/proc/{server.pid}/fd"))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
        clients = [Client(port_of(line)) for _ in range(8)]
        assert server.stderr is not None
        complaint = server.stderr.readline()
        for client in clients:
            client.close()

        reply = ask(port_of(line), b"/sub/page.html")

    assert complaint == "cannot accept: [Errno 24] Too many open files\n"
    assert reply.body == b"<p>page"


# Limits, in process, where they can be made short


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the example, imported as the example does."""
    monkeypatch.syspath_prepend(FILE_SERVER)
    return importlib.import_module("connection")


@pytest.fixture
def server(connection: ModuleType) -> ModuleType:
    return importlib.import_module("server")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end of a connection, and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(PATIENCE)
        yield ours, theirs


def finish(serving: Coroutine[object, object, None]) -> None:
    """Run one connection to its end, which has to come soon."""
    asyncio.run(asyncio.wait_for(serving, PATIENCE))


def read_all(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as file:
        return file.read()


@pytest.fixture
def answer(
    connection: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[socket.socket, socket.socket],
    root: Path,
) -> Answer:
    """All that a connection answers to what is sent at once, with its constants changed."""

    def answer(sent: bytes, **constants: object) -> bytes:
        ours, theirs = pair
        for name, value in constants.items():
            monkeypatch.setattr(connection, name, value)
        theirs.sendall(sent)
        finish(connection.serve_connection(ours, str(root)))
        ours.close()
        return read_all(theirs)

    return answer


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes, answer: Answer) -> None:
    assert answer(sent, HEADER_SECONDS=0.05) == b""


def test_a_second_request_that_does_not_come_is_not_waited_for(answer: Answer) -> None:
    received = answer(b"GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n", IDLE_SECONDS=0.05)

    assert received.endswith(b"\r\n\r\n" + DIGITS)


def test_a_second_request_has_to_come_as_fast_as_the_first(
    connection: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[socket.socket, socket.socket],
    root: Path,
) -> None:
    ours, theirs = pair
    theirs.setblocking(False)
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.05)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 60)

    async def stop_in_the_middle() -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(theirs, b"GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        serving = asyncio.create_task(connection.serve_connection(ours, str(root)))
        await loop.sock_recv(theirs, 1)
        await loop.sock_sendall(theirs, b"GET /digits.txt HTT")
        await serving

    finish(stop_in_the_middle())


def test_a_client_that_stops_reading_is_left(answer: Answer) -> None:
    limits = asend.Limits(stall=0.1)

    received = answer(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n", BODY_LIMITS=limits)

    assert 0 < len(received) < BIG


def test_a_client_that_never_closes_is_not_waited_for(
    connection: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[socket.socket, socket.socket],
    root: Path,
) -> None:
    ours, theirs = pair
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.05)
    theirs.sendall(b"nonsense\r\n\r\n")

    finish(connection.serve_connection(ours, str(root)))

    assert read_all(theirs).startswith(b"HTTP/1.1 400 ")


def test_a_file_that_shrinks_ends_the_connection_and_not_the_order(
    connection: ModuleType, pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = pair
    theirs.setblocking(False)
    file = tmp_path / "shrinking"
    file.write_bytes(b"x" * 10_000_000)

    async def shrink_while_it_is_sent() -> bytes:
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(connection.serve_connection(ours, str(tmp_path)))
        request = b"GET /shrinking HTTP/1.1\r\nHost: x\r\n\r\n"
        await loop.sock_sendall(theirs, request + request)
        received = await loop.sock_recv(theirs, 1)
        os.truncate(file, 2_000_000)
        while data := await loop.sock_recv(theirs, 1 << 20):
            received += data
        theirs.close()
        await serving
        return received

    received = asyncio.run(asyncio.wait_for(shrink_while_it_is_sent(), PATIENCE))

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: 10000000" in head
    assert body == b"x" * 2_000_000


@pytest.mark.parametrize("turns", range(8))
def test_a_file_is_closed_when_the_server_stops_while_it_is_opened(
    connection: ModuleType, pair: tuple[socket.socket, socket.socket], root: Path, turns: int
) -> None:
    """A file that is left to the garbage collector would warn, and warnings are errors."""
    ours, theirs = pair
    theirs.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")

    async def stop_after_some_turns() -> None:
        serving = asyncio.create_task(connection.serve_connection(ours, str(root)))
        for _ in range(turns):
            await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(asyncio.wait_for(stop_after_some_turns(), PATIENCE))


def test_an_error_in_one_connection_is_logged_and_the_only_one(
    connection: ModuleType,
    server: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    root: Path,
) -> None:
    honest = connection.respond

    def respond(root: str, request: object) -> object:
        monkeypatch.setattr(connection, "respond", honest)
        raise RuntimeError("a bug")

    monkeypatch.setattr(connection, "respond", respond)

    replies = asyncio.run(ask_in_turn(server, root, 2))

    assert replies[0] == b""
    assert replies[1].startswith(b"HTTP/1.1 200 ")
    assert "a bug" in caplog.text
    caplog.clear()


async def ask_in_turn(server: ModuleType, root: Path, times: int) -> list[bytes]:
    """Serve in this process, and make requests on connections that are kept until the end."""
    loop = asyncio.get_running_loop()
    replies, clients = [], []
    with server.listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server.serve(listener, str(root)))
        async with asyncio.timeout(PATIENCE):
            for _ in range(times):
                sock = socket.socket()
                clients.append(sock)
                sock.setblocking(False)
                await loop.sock_connect(sock, listener.getsockname())
                await loop.sock_sendall(sock, b"GET /sub/page.html HTTP/1.1\r\nHost: x\r\n\r\n")
                replies.append(await loop.sock_recv(sock, 4096))
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
    for sock in clients:
        sock.close()
    return replies


def test_one_connection_more_than_the_most_gets_503(
    server: ModuleType, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    replies = asyncio.run(ask_in_turn(server, root, 3))

    assert [reply.split()[1] for reply in replies] == [b"200", b"200", b"503"]
    assert b"Connection: close\r\n" in replies[2]
