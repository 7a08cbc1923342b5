"""What clients and files do to the file server while it serves, and that all of it has an end."""

from __future__ import annotations

import errno
import os
import random
import select
import time
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from file_servers import (
    BUFFER,
    DATA,
    DIGITS,
    HUGE,
    LOOPS,
    SHORT,
    Client,
    Request,
    Server,
    request,
    serving,
    until,
)
from opened import opened
from waiting import PATIENCE

import asend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = DATA[:60_000]
# Where the file server draws the line, whatever the options.
LONGEST_TARGET = 8 * 1024
LARGEST_BODY = 64 * 1024
MOST_KNOWN = 4096
# What may be on the way in buffers of client, server and kernel, and more than that.
MAX_UNREAD = 1024 * 1024


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("limits")
    (root / "digits.txt").write_bytes(DIGITS)
    (root / "small.bin").write_bytes(SMALL)
    (root / "data.bin").write_bytes(DATA)
    with (root / "huge.bin").open("wb") as file:
        file.truncate(HUGE)
    (root / "many").mkdir()
    for number in range(800):
        # A page of them is more than what the kernel keeps for a client.
        (root / "many" / f"{number:0200}").touch()
    return root


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(loop: str, root: Path) -> Iterator[Server]:
    with serving(root, loop) as server:
        yield server


@pytest.fixture
def site(running: Server) -> Iterator[Server]:
    """A server whose limits are far away."""
    yield running
    running.check()
    running.lines.clear()
    running.activity.dropped.clear()
    running.activity.recent.clear()


# Requests that do not come


@pytest.mark.parametrize("sent", ["\r\n", "G", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_does_not_end_is_not_waited_for(root: Path, loop: str, sent: str) -> None:
    with serving(root, loop, header_timeout=SHORT) as server, server.connect() as client:
        client.send(sent.encode())

        reply = client.reply()

        assert (reply.status, reply.is_last) == (408, True)
        assert client.rest() == b""
        assert server.activity.dropped == {"slow header": 1}
        [line] = server.lines
        assert (line.request, line.status) == ("-", 408)


def test_a_client_that_says_nothing_is_not_waited_for(root: Path, loop: str) -> None:
    with serving(root, loop, header_timeout=SHORT) as server, server.connect() as client:
        assert client.rest() == b""
        assert server.activity.dropped == {}


def test_bytes_that_trickle_in_win_no_time(root: Path, loop: str) -> None:
    with serving(root, loop, header_timeout=SHORT) as server, server.connect() as client:
        client.send(b"GET /digits.txt HTTP/1.1\r\nX: ")
        began = time.monotonic()
        while not select.select([client.sock], [], [], SHORT / 10)[0]:
            client.send(b"x")
            assert time.monotonic() - began < PATIENCE

        assert client.reply().status == 408


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_a_second_request_has_to_come_as_fast_as_the_first(
    root: Path, loop: str, is_pipelined: bool
) -> None:
    with serving(root, loop, header_timeout=5 * SHORT) as server:
        # The first time it is not in memory.
        server.get("/digits.txt")
        with server.connect() as client:
            client.get("/digits.txt")
            if is_pipelined:
                client.send(request("/digits.txt") + b"GET /digits.txt HTT")
                client.reply()
            else:
                client.send(b"GET /digits.txt HTT")

            assert client.reply().status == 408
            assert server.activity.dropped == {"slow header": 1}


@pytest.mark.parametrize("target", ["/digits.txt", "/data.bin", "/nothing", "/many/"])
def test_a_next_request_that_does_not_come_is_not_waited_for(
    root: Path, loop: str, target: str
) -> None:
    with serving(root, loop, keep_alive=SHORT) as server, server.connect() as client:
        reply = client.get(target)

        assert not reply.is_last
        assert client.rest() == b""
        # It did nothing wrong.
        assert server.activity.dropped == {}


# Clients that do not read

# It holds for looking a file up in a thread, too, which a busy machine may begin late.
STALL = 5 * SHORT


def ended_by_us(server: Server, client: Client, reason: str) -> bytes:
    """Wait until the server has ended a connection, and return what the client got before."""
    until(lambda: server.activity.dropped)
    until(lambda: not server.activity.connections)
    assert server.activity.dropped == {reason: 1}
    return client.rest()


@pytest.mark.parametrize("target", ["/huge.bin", "/many/"])
def test_a_client_that_stops_reading_is_left(root: Path, loop: str, target: str) -> None:
    with serving(root, loop, stall=STALL) as server, server.connect(buffer=BUFFER) as client:
        client.ask(target)
        client.read(1)

        received = ended_by_us(server, client, "slow reader")

        assert len(received) < HUGE
        until(lambda: not server.activity.transfers)
        line = server.lines[-1]
        assert line.request == f"GET {target} HTTP/1.1"
        assert 0 < line.nbytes < HUGE


@pytest.mark.parametrize(("target", "times"), [("/huge.bin", 1), ("/small.bin", 50)])
def test_what_a_client_does_not_read_is_not_kept_for_it(
    root: Path, loop: str, target: str, times: int
) -> None:
    """One that reads a byte now and then would keep it in the kernel for as long as it likes."""
    with serving(root, loop, stall=STALL) as server:
        with server.connect() as client:
            client.get("/small.bin")
        with server.connect(buffer=BUFFER) as client:
            client.send(request(target) * times)
            client.head()

            until(lambda: not server.activity.connections)

            assert client.is_reset()


def test_a_client_that_reads_too_slowly_is_left(root: Path, loop: str) -> None:
    with serving(root, loop) as server, server.connect(buffer=BUFFER) as client:
        server.service.limits = asend.Limits(60, min_rate=1e9, grace=SHORT)
        client.ask("/huge.bin")

        while not server.activity.dropped:
            client.sock.recv(1000)
            time.sleep(SHORT / 100)  # it is slow

        ended_by_us(server, client, "slow reader")


@pytest.mark.parametrize("target", ["/small.bin", "/digits.txt", "/nothing", "/many/"])
def test_a_client_that_asks_on_and_never_reads_is_left(root: Path, loop: str, target: str) -> None:
    with serving(root, loop, stall=STALL) as server:
        with server.connect() as client:
            client.get(target)
        with server.connect(buffer=BUFFER) as client:
            # Longer than any pause in which the server still reads.
            client.sock.settimeout(SHORT / 2)
            requests, sent = request(target) * 10_000, 0
            with suppress(TimeoutError, ConnectionError):
                while sent < MAX_UNREAD:
                    sent += client.sock.send(requests)
            client.sock.settimeout(PATIENCE)

            received = ended_by_us(server, client, "slow reader")

        # It was not read from either, and nothing piled up.
        assert sent < MAX_UNREAD
        assert server.activity.nbytes - len(received) < MAX_UNREAD


def test_a_client_that_asks_on_and_reads_later_gets_all(site: Server) -> None:
    targets = ["/digits.txt", "/small.bin", "/digits.txt", "/nothing", "/data.bin"] * 40
    with site.connect(buffer=BUFFER) as client:
        client.send(b"".join(map(request, targets)))
        site.settle()

        for target in targets:
            assert_answered(client, target)


def assert_answered(client: Client, target: str) -> None:
    reply = client.reply()
    expected = {"/digits.txt": DIGITS, "/small.bin": SMALL, "/data.bin": DATA}.get(target)
    assert reply.status == (404 if expected is None else 200)
    is_right = expected is None or reply.body == expected
    assert is_right


# Requests that are too large


def header_of(nbytes: int, fields: int = 1) -> bytes:
    """Return a request whose line and fields have so many bytes, the empty line not counted."""
    line = b"GET /digits.txt HTTP/1.1\r\nHost: x\r\n"
    each, more = divmod(nbytes - len(line), fields)
    each -= len(b"X: \r\n")
    return (
        line
        + b"X: "
        + b"x" * (each + more)
        + b"\r\n"
        + (b"X: " + b"x" * each + b"\r\n") * (fields - 1)
    )


@pytest.mark.parametrize("fields", [1, 50])
@pytest.mark.parametrize("limit", [1024, 32 * 1024])
def test_a_header_within_the_limit_is_answered(
    root: Path, loop: str, limit: int, fields: int
) -> None:
    header = header_of(limit - 2, fields) + b"\r\n"

    with serving(root, loop, max_header=limit) as server, server.connect() as client:
        for _ in range(3):
            client.send(header)
            assert client.reply().body == DIGITS
        # Together they are more.
        client.send(header * 3)
        for _ in range(3):
            assert client.reply().body == DIGITS


@pytest.mark.parametrize("fields", [1, 50])
@pytest.mark.parametrize("limit", [1024, 32 * 1024])
@pytest.mark.parametrize("end", [b"\r\n", b""])
def test_a_larger_header_gets_431_though_it_is_not_read_to_its_end(
    root: Path, loop: str, limit: int, fields: int, end: bytes
) -> None:
    with serving(root, loop, max_header=limit) as server:
        # A bit more, some pieces more, and more than all buffers have.
        for nbytes in (limit + 400, limit + 100_000, 8 * 1024 * 1024):
            with server.connect() as client:
                client.send(header_of(nbytes, fields) + end)

                reply = client.reply()

                assert (reply.status, reply.is_last) == (431, True)
                assert client.rest() == b""


@pytest.mark.parametrize("end", ["", "?", " HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_longer_target_than_any_file_has_gets_414(site: Server, end: str) -> None:
    for nbytes, status in ((LONGEST_TARGET, 404), (LONGEST_TARGET + 1, 414), (30_000, 414)):
        if status == 404 and not end.endswith("\n"):
            continue
        with site.connect() as client:
            client.send(b"GET /" + b"n" * (nbytes - 1) + end.encode())

            reply = client.reply()

            assert (reply.status, reply.is_last) == (status, status == 414)
            if reply.is_last:
                assert client.rest() == b""


@pytest.mark.parametrize(
    ("fields", "method", "status"),
    [
        ([f"Content-Length: {LARGEST_BODY}"], "GET", 200),
        ([f"Content-Length: {LARGEST_BODY + 1}"], "GET", 413),
        ([f"Content-Length: {1 << 62}"], "GET", 413),
        ([f"Content-Length: {LARGEST_BODY + 1}"], "POST", 413),
        (["Content-Length: 5"], "POST", 405),
        (["Transfer-Encoding: chunked"], "POST", 405),
        (["Expect: 100-continue", f"Content-Length: {LARGEST_BODY + 1}"], "PUT", 413),
        (["Expect: 100-continue", "Content-Length: 5"], "GET", 200),
        (["Expect: 100-Continue"], "GET", 200),
        (["Expect: 200-ok"], "GET", 417),
        (["Expect: 100-continue", "Expect: x"], "GET", 417),
    ],
)
def test_what_a_client_wants_to_send_besides_is_refused_before_it_is_sent(
    site: Server, fields: list[str], method: str, status: int
) -> None:
    with site.connect() as client:
        reply = client.get("/digits.txt", *fields, method=method)

        # Not by 100: it may send it, and it is not read.
        assert reply.status == status
        assert reply.is_last or not any("Length" in field for field in fields)


# Bodies are never taken for requests

BODIES = {
    "Content-Length: {nbytes}": "{hidden}",
    "Transfer-Encoding: chunked": "{nbytes:x}\r\n{hidden}\r\n0\r\n\r\n",
    "Transfer-Encoding: Chunked": "0\r\n\r\n{hidden}",
    "Expect: 100-continue\r\nContent-Length: {nbytes}": "{hidden}",
    "Content-Length: 0{nbytes}": "{hidden}",
    "Upgrade: h2c\r\nConnection: Upgrade": "{hidden}",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: {nbytes}": "{hidden}",
    "Connection: close": "{hidden}",
}


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("fields", BODIES)
def test_nothing_in_a_body_is_taken_for_a_request(
    site: Server, fields: str, is_split: bool
) -> None:
    hidden = request("/hidden").decode()
    body = BODIES[fields].format(nbytes=len(hidden), hidden=hidden).encode()
    said = fields.format(nbytes=len(hidden))
    asked = list(product(("GET", "POST", "HEAD"), ("/digits.txt", "/data.bin", "/nothing")))

    for method, target in asked:
        head = request(target, said, method=method)
        with site.connect() as client:
            if is_split:
                client.send(head)
                site.settle()
                client.send(body + body)
            else:
                client.send(head + body + body)
            reply = client.reply(method)

            assert reply.is_last
            assert client.rest() == b""
    assert [line.request for line in site.lines] == [
        f"{method} {target} HTTP/1.1" for method, target in asked
    ]


# Too many clients


def test_one_connection_more_than_the_most_gets_503(root: Path, loop: str) -> None:
    with serving(root, loop, max_connections=2) as server:
        with server.connect() as first, server.connect() as second:
            assert first.get("/digits.txt").body == DIGITS
            assert second.get("/digits.txt").body == DIGITS
            with server.connect() as third:
                # It need not even ask.
                reply = third.reply()

                assert (reply.status, reply.is_last) == (503, True)
                assert reply.fields["retry-after"] == "5"
                assert third.rest() == b""
            assert server.activity.dropped == {"too many": 1}
            assert first.get("/digits.txt").body == DIGITS
        until(lambda: not server.activity.connections)
        with server.connect() as fourth:
            assert fourth.get("/digits.txt").body == DIGITS


def test_many_clients_at_once_get_what_they_asked_for(site: Server) -> None:
    targets = ["/data.bin", "/digits.txt", "/nothing", "/small.bin"] * 15
    clients = [site.connect() for _ in targets]

    for client, target in zip(clients, targets, strict=True):
        client.ask(target)

    for client, target in zip(clients, targets, strict=True):
        assert_answered(client, target)
    assert site.activity.connections == len(clients)
    for client in clients:
        client.close()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux paces connections")
def test_a_connection_gets_no_more_than_its_rate(root: Path, loop: str) -> None:
    rate, nbytes = 5_000_000, 2_000_000
    with serving(root, loop, rate=rate) as server, server.connect() as client:
        began = time.monotonic()
        client.get("/huge.bin", f"Range: bytes=0-{nbytes - 1}")

        # What goes at once, before the kernel can know a pace, is less than half.
        assert time.monotonic() - began > nbytes / rate / 2


# Several requests, one after the other

REPLIES: dict[str, tuple[int, Callable[[bytes], bool]]] = {
    "GET /digits.txt": (200, lambda body: body == DIGITS),
    "GET /small.bin": (200, lambda body: body == SMALL),
    "GET /data.bin": (200, lambda body: body == DATA),
    "GET /nothing": (404, lambda body: body == b"404 Not Found\n"),
    "GET /many": (301, lambda body: body.startswith(b"301")),
    "GET /many/": (200, lambda body: body.endswith(b"</html>\n")),
    "POST /data.bin": (405, lambda body: body.startswith(b"405")),
    "HEAD /data.bin": (200, lambda body: body == b""),
    "HEAD /digits.txt": (200, lambda body: body == b""),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_split", [False, True])
def test_pipelined_requests_are_answered_in_order(site: Server, is_split: bool, seed: int) -> None:
    asked = random.Random(seed).choices(list(REPLIES), k=40)
    requests = [
        request(target, method=method) for method, target in (line.split() for line in asked)
    ]

    with site.connect() as client:
        if is_split:
            for data in requests:
                client.send(data)
                site.settle()
        else:
            client.send(b"".join(requests))
        client.end()

        for line in asked:
            status, is_right = REPLIES[line]
            reply = client.reply(line.split()[0])
            assert reply.status == status
            assert is_right(reply.body)
            assert not reply.is_last
        assert client.rest() == b""


def test_what_is_no_request_is_refused_after_what_was_asked_before(site: Server) -> None:
    with site.connect() as client:
        client.send(request("/data.bin") + request("/digits.txt") * 2 + b"nonsense\r\n\r\n")
        client.send(request("/digits.txt"))

        assert client.reply().body == DATA
        assert client.reply().body == DIGITS
        assert client.reply().body == DIGITS
        reply = client.reply()
        assert (reply.status, reply.is_last) == (400, True)
        assert client.rest() == b""


def test_what_is_asked_meanwhile_comes_after_what_is_being_sent(site: Server) -> None:
    with site.connect(buffer=BUFFER) as client:
        client.get("/digits.txt")
        client.send(request("/huge.bin") + request("/digits.txt"))
        client.head()
        client.send(request("/digits.txt"))
        site.settle()

        assert not client.read(HUGE).strip(b"\0")
        assert client.reply().body == DIGITS
        assert client.reply().body == DIGITS


# Clients that end


@pytest.mark.parametrize("target", ["/digits.txt", "/small.bin", "/data.bin", "/many/", "/nothing"])
def test_a_client_that_says_no_more_gets_what_it_asked_for(site: Server, target: str) -> None:
    status, is_right = REPLIES[f"GET {target}"]
    with site.connect(buffer=BUFFER) as client:
        client.send(request(target) * 3)
        client.end()
        site.settle()

        for _ in range(3):
            reply = client.reply()
            assert reply.status == status
            assert is_right(reply.body)
        assert client.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET", request("/digits.txt")[:-1]])
def test_a_client_that_ends_before_its_request_gets_no_answer(site: Server, sent: bytes) -> None:
    with site.connect() as client:
        client.send(sent)
        client.end()

        assert client.rest() == b""
    assert site.activity.dropped == {}


@pytest.mark.parametrize("target", ["/huge.bin", "/many/", "/small.bin"])
def test_a_client_that_goes_away_stops_its_download(site: Server, target: str) -> None:
    for _ in range(5):
        client = site.connect(buffer=BUFFER)
        client.send(request(target) * 100)
        client.head()

        client.reset()

    until(lambda: not site.activity.connections)
    until(lambda: not site.activity.transfers)
    assert site.activity.dropped == {}
    assert site.get("/digits.txt").body == DIGITS


@pytest.mark.parametrize("target", ["/huge.bin", "/many/", "/digits.txt", "/nothing"])
def test_a_client_may_go_away_at_any_moment(site: Server, target: str) -> None:
    for is_hard, turns in product((False, True), range(6)):
        client = site.connect()
        client.ask(target)
        for _ in range(turns):
            site.run(lambda: None)
        (client.reset if is_hard else client.close)()

    until(lambda: not site.activity.connections)
    until(lambda: not site.activity.transfers)


def test_a_connection_that_is_gone_already_can_be_stopped(root: Path, loop: str) -> None:
    with serving(root, loop) as server:
        client, stays = server.connect(), server.connect()
        client.get("/digits.txt")
        stays.get("/digits.txt")

        def stop() -> object:
            # Before the loop can find out.
            client.reset()
            return [connection.stop() for connection in server.service.connections]

        server.run(stop)

        assert stays.rest() == b""
        stays.close()


def test_a_connection_that_is_gone_already_does_not_stop_the_clock(root: Path, loop: str) -> None:
    with serving(root, loop, header_timeout=SHORT) as server:
        client = server.connect()
        client.send(b"GET")
        server.settle()

        def expire() -> None:
            client.reset()
            for connection in server.service.connections:
                connection.expire()

        server.run(expire)

        with server.connect() as another:
            another.send(b"GET")
            assert another.reply().status == 408


# Files that change


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of more than what is on the way to a client that does not read."""
    file = tmp_path / "file.bin"
    file.write_bytes(DATA * 80)
    return file


def begin(server: Server) -> Client:
    """Begin to get the file, and another one after it."""
    client = server.connect(buffer=BUFFER)
    client.send(request("/file.bin") + request("/file.bin"))
    status, fields = client.head()
    assert (status, fields["content-length"]) == (200, str(len(DATA) * 80))
    return client


def test_a_file_that_is_cut_while_it_is_sent_ends_the_connection(
    file: Path, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(file.parent, loop) as server, begin(server) as client:
        os.truncate(file, len(DATA) * 40)

        received = client.rest()

        is_right = (DATA * 40).startswith(received)
        assert is_right
        until(server.lines.__len__)
        [line] = server.lines
        assert (line.status, line.nbytes) == (200, len(DATA) * 40)
        [complaint] = server.complaints.take()
        assert complaint == f"/file.bin: the file ended {len(DATA) * 40} bytes before its length"
        # What was logged refers to the error, and that to the file.
        caplog.clear()
        assert server.get("/file.bin").fields["content-length"] == str(len(DATA) * 40)


def test_a_file_that_grows_while_it_is_sent_has_the_length_that_was_said(
    file: Path, loop: str
) -> None:
    with serving(file.parent, loop) as server, begin(server) as client:
        with file.open("ab") as more:
            more.write(b"more")

        is_right = client.read(len(DATA) * 80) == DATA * 80
        assert is_right
        is_right = client.reply().body == DATA * 80 + b"more"
        assert is_right


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_replaced_or_removed_is_sent_as_it_was(
    file: Path, loop: str, is_replaced: bool
) -> None:
    with serving(file.parent, loop) as server, begin(server) as client:
        if is_replaced:
            (file.parent / "new").write_bytes(b"new")
            (file.parent / "new").replace(file)
        else:
            file.unlink()

        is_right = client.read(len(DATA) * 80) == DATA * 80
        assert is_right
        reply = client.reply()
        assert reply.status == (200 if is_replaced else 404)
        assert reply.body == (b"new" if is_replaced else b"404 Not Found\n")


def test_a_large_file_is_never_sent_as_another_than_it_is(file: Path, loop: str) -> None:
    """Whoever resumes a download continues the very same bytes."""
    with serving(file.parent, loop) as server:
        tags = set()
        for content in (DATA, DATA[:-1], DATA + b"1", DATA + b"2", DATA[::-1]):
            file.write_bytes(content)
            reply = server.get("/file.bin")
            is_right = reply.body == content
            assert is_right
            tags.add(reply.fields["etag"])

        assert len(tags) == 5


@pytest.mark.parametrize("change", ["written", "cut", "replaced", "removed", "grown"])
def test_a_small_file_is_as_it_is_when_it_is_looked_up_again(
    tmp_path: Path, loop: str, change: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old content")
    with serving(tmp_path, loop, cache_seconds=5.0) as server:
        old = server.get("/file")
        new = {"written": b"new content", "cut": b"old", "grown": b"old content, more"}
        if change == "replaced":
            (tmp_path / "new").write_bytes(b"another file")
            (tmp_path / "new").replace(file)
        elif change == "removed":
            file.unlink()
        else:
            file.write_bytes(new[change])
        server.ahead += 5.1
        reply = server.get("/file")

    assert old.body == b"old content"
    if change == "removed":
        assert reply.status == 404
    else:
        assert reply.body == file.read_bytes()
        assert reply.fields["etag"] != old.fields["etag"]


def test_what_is_known_of_a_file_stays_bounded(root: Path, loop: str) -> None:
    """However many codings clients make up: each is one more way to ask for the same answer."""
    with serving(root, loop) as server:

        def ask_in_many_ways() -> tuple[int, int]:
            folder = server.service.folder
            for number in range(MOST_KNOWN + 100):
                fields = {b"accept-encoding": b"x%d" % number}
                folder.respond(Request(target=b"/digits.txt", fields=fields))
            folder.forget_old()
            [resource] = {resource for resource, _ in folder._known.values()}
            return len(folder._known), len(resource.keys)

        assert server.run(ask_in_many_ways) == (MOST_KNOWN, MOST_KNOWN)


def test_a_file_that_opens_and_cannot_be_read_is_forbidden(
    root: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and /proc refuse the reading, by an error that names no file."""

    def refuse(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with serving(root, loop) as server, server.connect() as client:
        monkeypatch.setattr(os, "pread", refuse)

        assert client.get("/digits.txt").status == 403


def test_a_file_that_is_removed_does_not_stay_on_the_disk(file: Path, loop: str) -> None:
    with serving(file.parent, loop, cache_seconds=5.0) as server:
        server.get("/file.bin")
        assert is_open(file)
        file.unlink()

        server.ahead += 60
        server.run(lambda: server.service.folder.forget_old())

        until(lambda: not is_open(file))


def is_open(file: Path) -> bool:
    return str(file) in {target.removesuffix(" (deleted)") for target in opened().values()}


def test_a_folder_that_cannot_be_read_to_its_end_ends_the_connection(
    tmp_path: Path, loop: str
) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).symlink_to(name)
    (tmp_path / "folder" / "c").touch()

    with serving(tmp_path, loop) as server:
        body = server.get("/folder/").body

    assert b'"c"' in body
    assert b'"a"' not in body


# The end


@pytest.mark.parametrize("asks_on", [False, True])
def test_a_download_may_end_when_the_server_stops(root: Path, loop: str, asks_on: bool) -> None:
    with serving(root, loop) as server, server.connect(buffer=BUFFER) as client:
        client.ask("/huge.bin")
        _, fields = client.head()
        stopping = server.begin_stop(PATIENCE)
        server.settle()
        if asks_on:
            client.ask("/digits.txt")

        # It was told that more may follow; that is for the next server, or the last of this one.
        assert "connection" not in fields
        assert not client.read(HUGE).strip(b"\0")
        rest = client.rest()
        is_answered = b"Connection: close\r\n" in rest and rest.endswith(DIGITS)
        assert rest == b"" or (asks_on and is_answered)
        client.close()
        assert stopping.result(PATIENCE) == 0


def test_a_download_that_takes_too_long_is_cut_off(root: Path, loop: str) -> None:
    with serving(root, loop) as server, server.connect(buffer=BUFFER) as client:
        client.ask("/huge.bin")
        client.read(1)

        assert server.begin_stop(SHORT).result(PATIENCE) == 1

        until(lambda: not server.activity.transfers)
        assert server.activity.connections == 0
        assert len(client.rest()) < HUGE


@pytest.mark.parametrize("sent", [b"", b"GET / HT", request("/digits.txt") + b"GET"])
def test_who_is_waited_for_is_told_that_the_server_stops(
    root: Path, loop: str, sent: bytes
) -> None:
    with serving(root, loop) as server, server.connect() as client:
        client.send(sent)
        server.settle()
        until(lambda: len(server.lines) == (sent[-3:] == b"GET"))

        stopping = server.begin_stop(PATIENCE)

        assert client.rest().endswith(DIGITS if sent[-3:] == b"GET" else b"")
        client.close()
        assert stopping.result(PATIENCE) == 0


def test_who_comes_while_the_server_stops_is_not_served(root: Path, loop: str) -> None:
    with serving(root, loop) as server, server.connect(buffer=BUFFER) as client:
        client.ask("/huge.bin")
        client.head()
        stopping = server.begin_stop(PATIENCE)
        server.settle()

        with server.connect() as late:
            assert late.rest() == b""

        client.close()
        assert stopping.result(PATIENCE) == 0


# What is counted


def test_each_answer_is_counted_and_logged_once(site: Server) -> None:
    activity = site.activity
    requests, nbytes = activity.requests, activity.nbytes
    asked = [("GET", "/digits.txt"), ("GET", "/digits.txt"), ("GET", "/data.bin")]
    asked += [("HEAD", "/data.bin"), ("GET", "/nothing"), ("GET", "/many"), ("GET", "/many/")]
    with site.connect() as client:
        sent = [
            len(client.get(target, "Referer: r", "User-Agent: a", method=method).body)
            for method, target in asked
        ]
        site.settle()

    assert activity.requests - requests == len(asked)
    assert activity.nbytes - nbytes == sum(sent)
    assert [line.nbytes for line in site.lines] == sent
    assert [line.status for line in site.lines] == [200, 200, 200, 200, 404, 301, 200]
    for line, (method, target) in zip(site.lines, asked, strict=True):
        assert line.request == f"{method} {target} HTTP/1.1"
        assert (line.client, line.referer, line.agent) == ("127.0.0.1", "r", "a")
        assert abs(line.moment - time.time()) < PATIENCE


REFUSED = {
    b"nonsense\r\n\r\n": ("-", 400),
    b"FROBNICATE / HTTP/1.1\r\n\r\n": ("-", 405),
    b"PUT /x HTTP/1.1\r\nHost : x\r\n\r\n": ("PUT /x HTTP/1.1", 400),
    b"HEAD /x HTTP/1.1\r\nHost : x\r\n\r\n": ("HEAD /x HTTP/1.1", 400),
    b"PUT /x HTTP/1.1\r\n\r\n": ("PUT /x HTTP/1.1", 400),
    b"PUT /x HTTP/1.0\r\nExpect: x\r\n\r\n": ("PUT /x HTTP/1.0", 417),
    b"GET /x HTTP/2.0\r\n\r\n": ("GET /x HTTP/2.0", 505),
}


@pytest.mark.parametrize("sent", REFUSED)
def test_what_is_refused_is_counted_and_logged_as_far_as_it_is_known(
    site: Server, sent: bytes
) -> None:
    with site.connect() as client:
        client.send(sent)

        assert client.reply(sent.split()[0].decode()).is_last
        assert client.rest() == b""

    [line] = site.lines
    assert (line.request, line.status) == REFUSED[sent]
    assert site.activity.dropped == {"malformed": 1}


def test_a_download_is_shown_while_it_goes_on(site: Server) -> None:
    with site.connect(buffer=BUFFER) as client:
        client.ask("/huge.bin", "Range: bytes=1-")
        client.read(100_000)
        [transfer] = site.activity.transfers
        assert (transfer.client, transfer.target) == ("127.0.0.1", "/huge.bin")
        assert transfer.nbytes == HUGE - 1
        assert 0 < transfer.sent < HUGE - 1
        client.read(HUGE // 2)
        assert transfer.sent > HUGE // 3

    until(lambda: not site.activity.transfers)
    assert site.activity.recent[-1] is transfer


def test_what_a_client_leaves_unread_does_not_keep_its_place(root: Path, loop: str) -> None:
    """Less than asyncio holds back for, so that it says nothing of it."""
    with serving(root, loop, stall=SHORT, keep_alive=SHORT) as server:
        with server.connect() as client:
            client.get("/small.bin")
        with server.connect(buffer=BUFFER) as client:
            client.send(request("/small.bin") * 50)

            until(lambda: not server.activity.connections)


def test_a_rate_beyond_all_lines_is_one(root: Path, loop: str) -> None:
    with serving(root, loop, rate=2**40) as server, server.connect() as client:
        assert client.get("/digits.txt").body == DIGITS
