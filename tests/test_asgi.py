"""`SendfileMiddleware` on the servers themselves, on a port, byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgi_servers import (
    KINDS,
    LOOPS,
    ON_UVICORN,
    Client,
    Server,
    hypercorn_server,
    lines,
    until,
    uvicorn_server,
)
from conftest import DATA
from starlette.middleware.gzip import GZipMiddleware

from asend import Limits, _uvicorn
from asend.asgi import SendfileMiddleware
from asend.http import FILES, OpenFile

if TYPE_CHECKING:
    from asgi_servers import App, Message

START, BODY = "http.response.start", "http.response.body"
PATHSEND, ZEROCOPYSEND = "http.response.pathsend", "http.response.zerocopysend"
# More than the buffers of a connection take, of which there is no more than this on the disk.
LARGE = 50_000_000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(DATA)
    os.truncate(path, LARGE)
    return path


def start(length: int | None = None, **fields: str) -> Message:
    if length is not None:
        fields["content-length"] = str(length)
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    return {"type": START, "status": 200, "headers": headers}


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": BODY, "body": content, "more_body": more}


def pathsend(path: Path) -> Message:
    return {"type": PATHSEND, "path": str(path)}


def sends(*messages: Message) -> App:
    """An application that sends these to every request."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        for message in messages:
            await send(dict(message))

    return app


def serves(path: Path, length: int | None = None) -> App:
    return sends(start(path.stat().st_size if length is None else length), pathsend(path))


def hidden(app: App) -> App:
    """The same, with the server's own `send` out of sight."""

    async def wrapped(scope: Message, receive: Any, send: Any) -> None:
        async def forward(message: Message) -> None:
            await send(message)

        await app(scope, receive, forward)

    return wrapped


# --- what goes which way


@ON_UVICORN
@pytest.mark.parametrize("length", [len(DATA), None], ids=["length", "chunked"])
def test_a_file_goes_by_the_kernel(
    server: Server, path: Path, by_kernel: list[int], length: int | None
) -> None:
    server.app = SendfileMiddleware(sends(start(length), pathsend(path)))

    with Client(server) as client:
        replies = [client.get(), client.get()]

    assert [reply.body == DATA for reply in replies] == [True, True]
    server.until_idle()
    assert sum(by_kernel) == 2 * len(DATA)


@ON_UVICORN
@pytest.mark.parametrize("length", [1000, None], ids=["length", "chunked"])
def test_bodies_and_descriptors_mix(server: Server, path: Path, length: int | None) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert {PATHSEND, ZEROCOPYSEND} <= set(scope["extensions"])
        with path.open("rb") as file:
            file.read(7)
            one = {"type": ZEROCOPYSEND, "file": file, "more_body": True}
            await send(start(length))
            await send(body(b"head", more=True))
            await send({**one, "offset": 100, "count": 200})
            await send({**one, "count": 300})
            await send(body(b"tail", more=True))
            await send({**one, "file": file.fileno(), "offset": 0, "count": 0})
            await send({**one, "count": 492, "more_body": False})
            assert file.tell() == 7 + 300 + 492

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        replies = [client.get(), client.get()]

    whole = b"head" + DATA[100:300] + DATA[7:307] + b"tail" + DATA[307:799]
    assert [reply.body for reply in replies] == [whole, whole]


@ON_UVICORN
def test_a_descriptor_without_count_is_sent_to_its_end(server: Server, path: Path) -> None:
    class Bare:
        def __init__(self, fd: int) -> None:
            self.fd = fd

        def fileno(self) -> int:
            return self.fd

    async def app(scope: Message, receive: Any, send: Any) -> None:
        with path.open("rb", buffering=0) as file:
            file.seek(len(DATA) - 10)
            await send(start(10))
            await send({"type": ZEROCOPYSEND, "file": Bare(file.fileno())})
            assert file.tell() == len(DATA)
            assert not file.closed

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        assert client.get().body == DATA[-10:]
    server.until_idle()
    assert server.raised == []


@ON_UVICORN
def test_small_and_empty_files_are_sent(server: Server, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(DATA[:4096])
    (tmp_path / "empty").touch()

    with Client(server) as client:
        for name, content in [("small", DATA[:4096]), ("empty", b"")] * 2:
            server.app = SendfileMiddleware(serves(tmp_path / name))
            assert client.get().body == content


@ON_UVICORN
def test_a_small_file_may_be_the_last(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(DATA[:4096])
    server.app = SendfileMiddleware(serves(path))

    with Client(server) as client:
        client.ask(Connection="close")
        assert client.reply().body == DATA[:4096]
        assert client.rest() == b""


@ON_UVICORN
def test_a_small_file_that_is_not_in_memory_is_not_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_kernel: list[int]
) -> None:
    path = tmp_path / "small"
    path.write_bytes(DATA[:4096])
    server.app = SendfileMiddleware(serves(path))
    monkeypatch.setattr(OpenFile, "read_now", lambda *_: None)

    with Client(server) as client:
        assert client.get().body == DATA[:4096]

    server.until_idle()
    assert sum(by_kernel) == 4096


@pytest.mark.parametrize("kind", KINDS[:2], ids="-".join, indirect=True)
def test_a_small_file_leaves_with_its_head(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small"
    path.write_bytes(DATA[:4096])
    server.app = SendfileMiddleware(serves(path))
    written: list[bytes] = []
    genuine = os.write

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        return genuine(fd, data)

    monkeypatch.setattr(os, "write", write)

    with Client(server) as client:
        assert client.get().body == DATA[:4096]

    assert [data.endswith(DATA[:4096]) for data in written if b"HTTP/1.1" in data] == [True]


@ON_UVICORN
def test_a_relative_path_is_one_of_this_directory(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    server.app = SendfileMiddleware(sends(start(), pathsend(Path(path.name))))

    with Client(server) as client:
        assert client.get().body == DATA


@ON_UVICORN
def test_the_announced_length_is_what_is_sent(server: Server, path: Path) -> None:
    server.app = SendfileMiddleware(serves(path, 100_000))

    with Client(server) as client:
        assert client.get().body == DATA[:100_000]
        assert client.get().body == DATA[:100_000]


@ON_UVICORN
def test_head_has_no_body(server: Server, path: Path) -> None:
    async def by_descriptor(scope: Message, receive: Any, send: Any) -> None:
        with path.open("rb") as file:
            await send(start(len(DATA)))
            await send({"type": ZEROCOPYSEND, "file": file})

    with Client(server) as client:
        for app in (serves(path), by_descriptor):
            server.app = SendfileMiddleware(app)
            assert client.get(method="HEAD")["content-length"] == str(len(DATA))
            assert client.get().body == DATA


@ON_UVICORN
def test_pipelined_requests_are_answered_in_their_order(
    server: Server, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"small")

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await serves(tmp_path / scope["path"][1:])(scope, receive, send)

    server.app = SendfileMiddleware(app)
    with Client(server) as client:
        for name in ("file", "small", "file", "small"):
            client.ask(f"/{name}")
        bodies = [client.reply().body for _ in range(4)]

    assert bodies == [DATA, b"small", DATA, b"small"]


@ON_UVICORN
def test_other_responses_are_as_they_were(server: Server) -> None:
    server.app = SendfileMiddleware(sends(start(5), body(b"he", more=True), body(b"llo")))
    with Client(server) as client:
        assert client.get().body == b"hello"
        server.app = SendfileMiddleware(sends(start(), body(b"hello")))
        assert client.get().body == b"hello"


@ON_UVICORN
def test_a_response_without_length_begins_at_once(server: Server) -> None:
    """Who listens to events wants to know that they will come."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send(start())
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        client.ask()
        assert client.head()[0] == 200


@ON_UVICORN
def test_one_middleware_in_another_leaves_it_to_that(
    server: Server, path: Path, by_kernel: list[int]
) -> None:
    server.app = SendfileMiddleware(SendfileMiddleware(serves(path)))

    with Client(server) as client:
        assert client.get().body == DATA

    server.until_idle()
    assert sum(by_kernel) == len(DATA)


@ON_UVICORN
def test_an_unknown_server_is_given_messages(
    server: Server, path: Path, by_kernel: list[int]
) -> None:
    server.app = hidden(SendfileMiddleware(serves(path)))

    with Client(server) as client:
        assert client.get().body == DATA
        assert client.get().body == DATA

    assert by_kernel == []


@ON_UVICORN
def test_middleware_outside_may_compress(server: Server, path: Path, by_kernel: list[int]) -> None:
    server.app = GZipMiddleware(SendfileMiddleware(serves(path)))

    with Client(server) as client:
        reply = client.get(Accept_Encoding="gzip")

    assert reply["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body) == DATA
    assert by_kernel == []


@ON_UVICORN
def test_middleware_inside_sees_the_message(
    server: Server, path: Path, by_kernel: list[int]
) -> None:
    server.app = SendfileMiddleware(GZipMiddleware(serves(path)))

    with Client(server) as client:
        assert client.get(Accept_Encoding="gzip").body == DATA

    server.until_idle()
    assert sum(by_kernel) == len(DATA)


def test_an_application_may_use_its_messages_again(path: Path) -> None:
    sent: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        message = start(len(DATA))
        await send(message)
        message["headers"].clear()
        message.clear()
        message.update(pathsend(path))
        await send(message)

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    asyncio.run(SendfileMiddleware(app)({"type": "http", "method": "GET"}, receive, send))
    FILES.clear()

    assert sent[0] == start(len(DATA))
    assert b"".join(message["body"] for message in sent[1:]) == DATA


# --- files that are not as they should be


def special(tmp_path: Path, what: str) -> Path:
    path = tmp_path / what
    if what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    return path


@ON_UVICORN
@pytest.mark.parametrize("what", ["missing", "fifo", "directory", "nul\0", "half\ud800"])
def test_what_is_no_file_is_an_error(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    path = special(tmp_path, what)
    server.app = SendfileMiddleware(serves(path, 5))

    with Client(server) as client:
        assert client.get().status == 500

    assert "cannot send" in str(server.raised[0])
    assert len(lines(caplog)) == 1


@ON_UVICORN
def test_an_unreadable_file_is_an_error(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root none is: the system is made to say so."""
    genuine = os.open

    def refuse(name: Any, *arguments: Any, **options: Any) -> int:
        if name == str(path):
            raise PermissionError(13, "Permission denied")
        return genuine(name, *arguments, **options)

    server.app = SendfileMiddleware(serves(path))
    monkeypatch.setattr(os, "open", refuse)

    with Client(server) as client:
        assert client.get().status == 500

    assert len(lines(caplog)) == 1


@ON_UVICORN
def test_a_file_that_is_too_short_is_an_error(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = SendfileMiddleware(serves(path, len(DATA) + 1))

    with Client(server) as client:
        assert client.get().status == 500

    assert f"has {len(DATA)} bytes, not {len(DATA) + 1}" in str(server.raised[0])
    assert len(lines(caplog)) == 1


@ON_UVICORN
def test_a_replaced_file_is_sent_as_it_is_now(server: Server, tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"first")
    # Another name, so that the old one is not simply gone.
    os.link(path, tmp_path / "link")

    with Client(server) as client:
        server.app = SendfileMiddleware(serves(path))
        assert client.get().body == b"first"
        other.write_bytes(b"the second")
        other.replace(path)
        server.app = SendfileMiddleware(serves(path))
        assert client.get().body == b"the second"
        other.write_bytes(b"the third!")
        other.replace(path)
        date = "Thu, 01 Jan 2026 00:00:00 GMT"
        server.app = SendfileMiddleware(sends(start(10, **{"last-modified": date}), pathsend(path)))
        assert client.get().body == b"the third!"


@ON_UVICORN
@pytest.mark.parametrize("length", [LARGE, None], ids=["length", "chunked"])
def test_a_file_cut_while_it_is_sent_ends_the_connection(
    server: Server, large: Path, caplog: pytest.LogCaptureFixture, length: int | None
) -> None:
    server.app = SendfileMiddleware(sends(start(length), pathsend(large)))

    with Client(server) as client:
        client.ask()
        client.head()
        # Else it may not be open yet.
        client._file.read(10)
        os.truncate(large, 1_000_000)
        rest = client.rest()
    server.until_idle()

    assert len(rest) < LARGE
    assert not rest.endswith(b"0\r\n\r\n")
    (line,) = lines(caplog)
    assert line.startswith(f"WARNING asend.asgi {large}: the file ended early")
    assert server.raised == []


@ON_UVICORN
def test_a_cut_file_is_an_error_where_there_are_only_messages(
    server: Server, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = hidden(SendfileMiddleware(serves(large)))

    with Client(server) as client:
        client.ask()
        client.head()
        # Else it may not be open yet.
        client._file.read(10)
        os.truncate(large, 1_000_000)
        rest = client.rest()
    server.until_idle()

    assert len(rest) < LARGE
    assert [type(error).__mro__[1] for error in server.raised] == [RuntimeError]
    assert len(lines(caplog)) == 1


# --- clients


@ON_UVICORN
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limits": Limits(stall=0.1)}, "stalled"),
        ({"limits": Limits(min_rate=1e9, grace=0.1)}, "too slow"),
        ({"timeout": 0.1}, "timed out"),
    ],
    ids=["stall", "min_rate", "timeout"],
)
def test_a_client_that_reads_nothing_is_dropped(
    server: Server,
    large: Path,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    said: str,
) -> None:
    server.app = SendfileMiddleware(serves(large), **options)

    with Client(server) as client:
        client.ask()
        client.head()
        server.until_idle()

    (line,) = lines(caplog)
    assert line.startswith(f"INFO asend.asgi {large}: {said}")
    assert f"of {LARGE} bytes sent" in line
    assert server.raised == []


@ON_UVICORN
def test_what_a_client_does_not_read_is_not_kept_for_it(server: Server, large: Path) -> None:
    """One that reads a byte now and then would keep it in the kernel for as long as it likes."""
    server.app = SendfileMiddleware(serves(large), limits=Limits(stall=0.1))

    with Client(server) as client:
        client.ask()
        client.head()
        server.until_idle()

        assert client.is_reset()


@ON_UVICORN
def test_a_client_that_reads_no_messages_is_an_error(
    server: Server, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = hidden(SendfileMiddleware(serves(large), limits=Limits(stall=0.1)))

    with Client(server) as client:
        client.ask()
        client.head()
        until(lambda: server.raised)

    assert [type(error) for error in server.raised] == [TimeoutError]
    server.until_idle()
    assert len(lines(caplog)) == 1


@ON_UVICORN
def test_a_client_that_asks_on_and_reads_nothing_is_dropped(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "small"
    path.write_bytes(DATA[:60_000])
    server.app = SendfileMiddleware(serves(path), limits=Limits(stall=0.1))

    with Client(server) as client:
        client.sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        client.head()
        server.until_idle()

    (line,) = lines(caplog)
    assert "stalled" in line


@ON_UVICORN
def test_a_client_that_did_not_read_what_came_before_a_file_is_dropped(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn itself would wait for it without a limit."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        with path.open("rb") as file:
            await send(start(8_000_000 + len(DATA)))
            await send({"type": BODY, "body": bytes(8_000_000), "more_body": True})
            await send({"type": ZEROCOPYSEND, "file": file})

    server.app = SendfileMiddleware(app, limits=Limits(stall=0.1))

    with Client(server, buffer=4096) as client:
        client.ask()
        client.head()
        server.until_idle()

    (line,) = lines(caplog)
    assert "stalled" in line


def test_what_stands_for_a_transport_has_what_that_has() -> None:
    transport = asyncio.Transport({"peername": "someone"})

    assert _uvicorn._Kept(transport).get_extra_info("peername") == "someone"


@ON_UVICORN
def test_a_client_that_trickles_gets_all_in_time(server: Server, path: Path) -> None:
    server.app = SendfileMiddleware(serves(path), limits=Limits(stall=5))

    with Client(server, buffer=4096) as client:
        client.ask()
        client.head()
        whole = b""
        while len(whole) < len(DATA):
            whole += client._file.read1(5000)

    assert whole == DATA


@ON_UVICORN
def test_a_client_that_resets_is_one_line(
    server: Server, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = SendfileMiddleware(serves(large))

    client = Client(server)
    client.ask()
    client.head()
    client.reset()
    server.until_idle()

    (line,) = lines(caplog)
    assert line.startswith(f"INFO asend.asgi {large}: ")
    assert server.raised == []


@ON_UVICORN
def test_a_client_that_has_half_closed_gets_all(server: Server, path: Path) -> None:
    server.app = SendfileMiddleware(serves(path))

    with Client(server) as client:
        client.ask()
        client.head()
        client.sock.shutdown(1)
        assert client.rest() == DATA


@ON_UVICORN
@pytest.mark.parametrize("is_small", [False, True], ids=["descriptor", "small"])
def test_who_has_left_before_is_no_error(
    is_small: bool, server: Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = path.with_name("small")
    small.write_bytes(DATA[:1000])

    async def app(scope: Message, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if is_small:
            await send(start(1000))
            await send({"type": PATHSEND, "path": str(small)})
            return
        with path.open("rb") as file:
            await send(start(2 * len(DATA)))
            await send({"type": ZEROCOPYSEND, "file": file, "more_body": True})
            await send({"type": ZEROCOPYSEND, "file": file, "offset": 0})

    server.app = SendfileMiddleware(app)
    client = Client(server)
    client.ask()
    server.until_asked()
    client.reset()
    server.until_idle()

    assert server.raised == []
    assert lines(caplog) == []


@ON_UVICORN
def test_what_uvicorn_says_in_between_ends_the_connection(
    server: Server, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = SendfileMiddleware(serves(large))

    with Client(server) as client:
        client.ask()
        client.head()
        client.sock.sendall(b"\0\0 nonsense\r\n\r\n" * 10)
        # httptools notices at once, h11 when its turn comes.
        rest = client.rest() if "httptools" in str(server._server.config.http) else b""
    server.until_idle()

    assert len(rest) < LARGE
    # One of uvicorn's, if it has read that before the connection was gone.
    said = [line for line in lines(caplog) if "Invalid HTTP request" not in line]
    assert len(said) == 1
    assert server.raised == []


@ON_UVICORN
def test_a_cancelled_application_ends_the_connection(
    server: Server, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        async with asyncio.timeout(0.1):
            await serves(large)(scope, receive, send)

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        client.ask()
        client.head()
        server.until_idle()
        assert len(client.rest()) < LARGE

    assert [type(error) for error in server.raised] == [TimeoutError]
    assert len(lines(caplog)) == 1


# --- applications that send what they may not

ONE = object()


FILE = {"type": ZEROCOPYSEND, "file": ONE, "count": 5}
PATH = {"type": PATHSEND, "path": ONE}
WRONG = {
    "path-twice": ([start(), PATH, PATH], "after http.response.pathsend"),
    "body-after-path": ([start(), PATH, body(b"")], "after http.response.pathsend"),
    "file-after-path": ([start(), PATH, FILE], "after http.response.pathsend"),
    "path-after-body": ([start(), body(b"1", more=True), PATH], "after a part of the body"),
    "path-after-file": ([start(), {**FILE, "more_body": True}, PATH], "after a part of the body"),
    "path-first": ([PATH], "before http.response.start"),
    "file-first": ([FILE], "before http.response.start"),
    "file-after-end": ([start(1), body(b"1"), FILE], "after the end of the body"),
    "path-after-end": ([start(1), body(b"1"), PATH], "after the end of the body"),
    "start-twice": ([start(5), start(5)], "http.response.start"),
    "too-long": ([start(2), FILE], "(?i)content-length"),
    "too-short": ([start(9), FILE], "(?i)content-length"),
    "no-text": ([start(), {**PATH, "path": b"/"}], "path must be a str"),
    "count": ([start(), {**FILE, "count": -1}], "count must be"),
    "offset": ([start(), {**FILE, "offset": -1}], "offset must be"),
}


@ON_UVICORN
@pytest.mark.parametrize("name", WRONG)
def test_what_may_not_be_sent_is_told_to_the_application(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    messages, said = WRONG[name]

    async def app(scope: Message, receive: Any, send: Any) -> None:
        with path.open("rb") as file:
            for message in messages:
                sent = {key: file if value is ONE else value for key, value in message.items()}
                if message.get("path") is ONE:
                    sent["path"] = str(path)
                await send(sent)

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        client.ask(Connection="close")
        client.rest()
    server.until_idle()

    (error,) = server.raised
    with pytest.raises(type(error), match=said):
        raise error
    assert len(lines(caplog)) == 1


@ON_UVICORN
def test_a_pipe_is_refused(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        ends = os.pipe()
        try:
            await send(start(5))
            await send({"type": ZEROCOPYSEND, "file": ends[0], "offset": 0})
        finally:
            for end in ends:
                os.close(end)

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        assert client.get().status == 500

    assert "regular files" in str(server.raised[0])
    lines(caplog)


@ON_UVICORN
def test_a_descriptor_with_less_than_its_count_ends_the_connection(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        with path.open("rb") as file:
            await send(start(len(DATA)))
            await send({"type": ZEROCOPYSEND, "file": file, "offset": 10, "count": len(DATA)})

    server.app = SendfileMiddleware(app)

    with Client(server) as client:
        client.ask()
        client.head()
        assert client.rest() == DATA[10:]
    server.until_idle()

    (line,) = lines(caplog)
    assert "the file ended early" in line


@ON_UVICORN
def test_a_response_that_never_comes_is_the_servers_matter(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = SendfileMiddleware(sends(start(5)))

    with Client(server) as client:
        client.ask()
        assert client.head()[0] == 200
        assert client.rest() == b""

    (line,) = lines(caplog)
    assert "without completing response" in line


# --- the rest of the world


@pytest.mark.parametrize("loop", LOOPS)
def test_files_go_over_tls(path: Path, by_kernel: list[int], loop: str) -> None:
    with uvicorn_server(loop, "httptools", is_tls=True) as server:
        server.app = SendfileMiddleware(serves(path))
        with Client(server, is_tls=True) as client:
            bodies = [client.get().body, client.get().body]
        server.until_idle()
    FILES.clear()

    assert bodies == [DATA, DATA]
    assert by_kernel == []


@pytest.mark.parametrize("worker", ["asyncio", "trio"])
@pytest.mark.filterwarnings("ignore")
def test_files_go_by_messages_on_hypercorn(path: Path, worker: str) -> None:
    with hypercorn_server(worker) as server:
        server.app = SendfileMiddleware(serves(path))
        with Client(server) as client:
            bodies = [client.get().body, client.get().body]
        until(server.is_idle)
    FILES.clear()

    assert bodies == [DATA, DATA]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_other_protocols_pass_untouched(kind: str) -> None:
    seen: list[object] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    given: list[Any] = [{"type": kind}, object(), object()]
    asyncio.run(SendfileMiddleware(app)(*given))

    assert seen == given
    assert given[0] == {"type": kind}


def test_wrong_options_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="limits"):
        SendfileMiddleware(sends(), limits=60)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="out of range"):
        SendfileMiddleware(sends(), timeout=-1)


@pytest.mark.parametrize("missing", [None, "transport", "expected_content_length"])
def test_an_unknown_version_of_uvicorn_is_not_touched(missing: str | None) -> None:
    names = (*_uvicorn._ATTRIBUTES, "chunked_encoding", "expected_content_length")
    module = "uvicorn.protocols.http.httptools_impl"
    attributes = {name: None for name in names if name != missing}
    attributes |= {"__module__": module, "send": lambda self, message: None}  # type: ignore[dict-item]  # for type()
    cycle = type("RequestResponseCycle", (), attributes)()

    assert (_uvicorn.connection_of(cycle.send) is None) == (missing is not None)


def test_what_is_not_of_uvicorn_is_not_touched() -> None:
    other = type("Other", (), {"__module__": "uvicorn.protocols.http.h11_impl", "send": id})()

    assert _uvicorn.connection_of(other.send) is None
    assert _uvicorn.connection_of(lambda message: None) is None
