"""Files in aiohttp's handlers: what clients get, byte by byte, over real connections."""

from __future__ import annotations

import asyncio
import email
import errno
import gc
import gzip
import logging
import os
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from types import NoneType
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from certificates import client_context, server_context
from conftest import ASYNCIO
from opened import opened

from asend import Limits
from asend.aiohttp import (
    FileCache,
    FileResponse,
    StaticResource,
    _static,
    add_static,
    static,
)
from asend.http import FILES, TruncatedError, _sending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from email.message import Message
    from pathlib import Path
    from typing import Any

    from aiohttp.abc import AbstractStreamWriter

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

pytestmark = pytest.mark.anyio

# No power of two divides its period.
BODY = b"".join(b"%d," % n for n in range(800_000))
SMALL, LARGE = 4096, 5 << 20
SIZES = [0, 1, SMALL, 64 * 1024, 64 * 1024 + 1, 1 << 20, LARGE]
# Of all files here: in whole seconds, as aiohttp rounds parts of them up, and we down.
MTIME = 1_700_000_000
# What a slow machine may take for anything.
LONG = 20


# For what is HTTP, which does not depend on the loop.
on_one_loop = pytest.mark.parametrize("anyio_backend", ASYNCIO[:1], indirect=True)


@pytest.fixture(params=ASYNCIO)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """Hold no file of another test, nor one whose descriptor the test is asked for."""
    FILES.clear()
    yield
    FILES.clear()


@pytest.fixture
def circles(only_new_is_collected: None) -> Iterator[None]:
    """Clear up behind aiohttp, whose task and exception refer to each other, and so to the file."""
    yield
    gc.collect()


CIRCLES = pytest.mark.usefixtures("circles")


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """What was logged; errors have to be taken, or the test fails."""
    caplog.set_level(logging.INFO)
    log = Log(caplog)
    yield log
    assert log.take_errors() == []


class Log:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def _records(self) -> list[logging.LogRecord]:
        return self._caplog.get_records("call")

    def take_errors(self) -> list[str]:
        """Return what aiohttp has logged as errors, and forget it."""
        errors = [record for record in self._records if record.levelno >= logging.ERROR]
        words = [str(record.exc_info and record.exc_info[1]) for record in errors]
        for record in errors:
            self._records.remove(record)
            # Its traceback holds the file.
            record.exc_info = None
        return words

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The level and text of each of our lines."""
        ours = [record for record in self._records if record.name == "asend.aiohttp"]
        return [(record.levelname, record.getMessage()) for record in ours]


def make(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    os.utime(path, (MTIME, MTIME))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return make(tmp_path / "small.txt", BODY[:SMALL])


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return make(tmp_path / "large.txt", BODY[:LARGE])


# --- a server


@dataclass
class Server:
    address: Any
    family: int

    @asynccontextmanager
    async def connected(self, receive_buffer: int | None = None) -> AsyncIterator[Client]:
        with socket.socket(self.family) as sock:
            sock.setblocking(False)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await asyncio.get_running_loop().sock_connect(sock, self.address)
            yield Client(sock)

    async def ask(self, target: str = "/", method: str = "GET", **fields: str) -> Reply:
        """Send one request over a connection of its own."""
        async with self.connected() as client:
            return await client.ask(target, method, **fields)


def application(handler: Handler) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{name:.*}", handle)
    return app


@asynccontextmanager
async def served(
    app: web.Application | Handler, socket_path: Path | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Serve an application, or whatever a handler answers, to every path and method."""
    if not isinstance(app, web.Application):
        app = application(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1, **options)
    async with asyncio.timeout(LONG):
        await runner.setup()
        try:
            if socket_path is None:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
            else:
                await web.UnixSite(runner, socket_path).start()
            family = socket.AF_INET if socket_path is None else socket.AF_UNIX
            yield Server(runner.addresses[0], family)
        finally:
            await runner.cleanup()
            # Connections that were aborted close their sockets a turn later.
            for _ in range(3):
                await asyncio.sleep(0)


def file_handler(path: Path, **options: Any) -> Handler:
    async def hand_out(request: web.Request) -> FileResponse:
        return FileResponse(path, **options)

    return hand_out


# The types of the exception that ended an answer, and of its cause: itself would hold the file.
Outcome: TypeAlias = tuple[type, type]
SENT: Outcome = (NoneType, NoneType)


class Watched:
    """A handler whose connection has a small buffer, and that says what became of its answer."""

    def __init__(self, path: Path, compress: bool = False, **options: Any) -> None:
        self._path = path
        self._compress = compress
        self._options = options
        self.moved = asyncio.Event()
        self.sent = 0
        self.task: asyncio.Task[None] | None = None
        self.outcome: asyncio.Future[Outcome]
        self.outcome = asyncio.get_running_loop().create_future()

    def count(self, nbytes: int) -> None:
        self.sent += nbytes
        self.moved.set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.task is not None:
            return web.Response(text="the next response")
        self.task = asyncio.current_task()
        carrier = request.get_extra_info("socket")
        carrier.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        response = Recorded(self._path, **{"progress": self.count} | self._options)
        response.outcome = self.outcome
        if self._compress:
            response.enable_compression(web.ContentCoding.gzip)
        return response


class Recorded(FileResponse):
    outcome: asyncio.Future[Outcome]

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            writer = await super().prepare(request)
        except BaseException as error:
            self.outcome.set_result((type(error), type(error.__cause__)))
            raise
        self.outcome.set_result(SENT)
        return writer


# --- a client


@dataclass
class Reply:
    version: str
    status: int
    reason: str
    headers: Message
    body: bytes
    # With the head.
    nbytes: int


class Client:
    """Speaks HTTP over a plain socket, and takes not a byte more than it is asked to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    async def send(self, target: str = "/", method: str = "GET", **fields: str) -> None:
        version = fields.pop("version", "1.1")
        lines = [f"{method} {target} HTTP/{version}", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        await asyncio.get_running_loop().sock_sendall(self.sock, request)

    async def ask(self, target: str = "/", method: str = "GET", **fields: str) -> Reply:
        await self.send(target, method, **fields)
        return await self.read_reply(method)

    async def read_reply(self, method: str = "GET") -> Reply:
        head = await self.read_head()
        line, _, fields = head.partition(b"\r\n")
        version, status, reason = line.decode().split(" ", 2)
        # Nothing of the last answer was left.
        assert version in ("HTTP/1.0", "HTTP/1.1")
        headers = email.message_from_bytes(fields)
        body, extra = b"", 0
        if method == "HEAD" or status in ("204", "304"):
            pass
        elif headers["Transfer-Encoding"] == "chunked":
            assert headers["Content-Length"] is None
            body, extra = await self._read_chunks()
        elif headers["Content-Length"] is not None:
            body = await self.read(int(headers["Content-Length"]))
        else:
            body = await self.read_to_end()
        return Reply(version, int(status), reason, headers, body, len(head) + extra + len(body))

    async def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._rest:
            self._rest += await self._receive()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def _read_chunks(self) -> tuple[bytes, int]:
        blocks, extra = [], 0
        while True:
            while b"\r\n" not in self._rest:
                self._rest += await self._receive()
            size, _, self._rest = self._rest.partition(b"\r\n")
            blocks.append(await self.read(int(size, 16)))
            extra += len(size) + 4
            assert await self.read(2) == b"\r\n"
            if not blocks[-1]:
                return b"".join(blocks), extra

    async def read(self, nbytes: int) -> bytes:
        blocks = [self._rest[:nbytes]]
        self._rest = self._rest[nbytes:]
        left = nbytes - len(blocks[0])
        while left:
            blocks.append(await self._receive(left))
            left -= len(blocks[-1])
        return b"".join(blocks)

    async def read_to(self, most: int) -> None:
        """Take so many bytes at most, if there are any."""
        with suppress(ConnectionError):
            await self._receive(most)

    async def read_to_end(self) -> bytes:
        """Read until the connection ends, in whatever way."""
        blocks, self._rest = [self._rest], b""
        try:
            while True:
                blocks.append(await self._receive())
        except ConnectionError:
            return b"".join(blocks)

    async def is_reset(self) -> bool:
        """Read until the connection ends, and tell whether that is a hard end."""
        try:
            while True:
                await self._receive()
        except ConnectionError as error:
            return isinstance(error, ConnectionResetError)

    async def _receive(self, most: int = 1 << 20) -> bytes:
        block = await asyncio.get_running_loop().sock_recv(self.sock, most)
        if not block:
            raise ConnectionAbortedError("the server has closed the connection")
        return block

    def reset(self) -> None:
        """End the connection as a killed client does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


# --- whole files


@pytest.mark.parametrize("end", ["tcp", "unix", "tcp-small-buffer"])
@pytest.mark.parametrize("size", SIZES)
async def test_a_whole_file_arrives(size: int, end: str, tmp_path: Path) -> None:
    path = make(tmp_path / "file.txt", BODY[:size])
    socket_path = tmp_path / "socket" if end == "unix" else None
    buffer = 4096 if end == "tcp-small-buffer" else None

    async with (
        served(file_handler(path), socket_path) as server,
        server.connected(buffer) as client,
    ):
        # The second from the cache, and over the same connection.
        replies = [await client.ask(), await client.ask()]

    for reply in replies:
        assert (reply.status, reply.reason) == (200, "OK")
        assert reply.headers["Content-Type"] == "text/plain"
        assert reply.headers["Content-Length"] == str(size)
        assert reply.headers["Accept-Ranges"] == "bytes"
        assert reply.headers["Last-Modified"] == formatdate(MTIME, usegmt=True)
        assert reply.body == BODY[:size]


async def test_a_slow_reader_gets_everything(large: Path) -> None:
    handler = Watched(large)
    async with served(handler) as server, server.connected(4096) as client:
        await client.send()
        await handler.moved.wait()
        head = await client.read_head()
        body = b""
        while len(body) < LARGE:
            # Less than there is, so that the kernel often has no room for more.
            body += await client.read(min(LARGE - len(body), 50_000))
            await asyncio.sleep(0)

        assert await handler.outcome == SENT

    assert f"Content-Length: {LARGE}".encode() in head
    assert body == BODY[:LARGE]
    assert handler.sent == LARGE


async def test_many_clients_get_the_same_file_at_once(large: Path) -> None:
    async with served(file_handler(large)) as server:
        replies = await asyncio.gather(*(server.ask() for _ in range(10)))

    assert [reply.body == BODY[:LARGE] for reply in replies] == [True] * 10


async def test_files_arrive_over_tls(tmp_path: Path, by_kernel: list[int]) -> None:
    for size in SIZES:
        make(tmp_path / str(size), BODY[:size])

    async def hand_out(request: web.Request) -> FileResponse:
        return FileResponse(tmp_path / request.match_info["name"])

    app = web.Application()
    app.router.add_get("/{name}", hand_out)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context()).start()
    bodies, parts = [], []
    async with aiohttp.ClientSession(f"https://127.0.0.1:{runner.addresses[0][1]}") as session:
        for size in SIZES:
            async with session.get(f"/{size}", ssl=client_context()) as response:
                bodies.append(await response.read())
        for asked in ("bytes=1000000-1999999", "bytes=0-0,9-2000000"):
            async with session.get(
                f"/{LARGE}", ssl=client_context(), headers={"Range": asked}
            ) as response:
                parts.append((response.status, await response.read()))
    await runner.cleanup()

    assert [len(body) for body in bodies] == SIZES
    assert all(body == BODY[: len(body)] for body in bodies)
    assert parts[0] == (206, BODY[1_000_000:2_000_000])
    assert BODY[9:2_000_001] in parts[1][1]
    assert by_kernel == []


# --- how they are sent


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What each call of `os.write` wrote that does not wake a thread."""
    written: list[bytes] = []
    genuine = os.write

    def write(fd: int, data: bytes) -> int:
        if len(data) > 1:
            written.append(bytes(data))
        return genuine(fd, data)

    monkeypatch.setattr(os, "write", write)
    return written


async def test_a_large_file_is_sent_by_the_kernel(large: Path, by_kernel: list[int]) -> None:
    async with served(file_handler(large)) as server:
        reply = await server.ask()

    assert reply.body == BODY[:LARGE]
    # Its first bytes go with the head.
    assert sum(by_kernel) == LARGE - _sending._FIRST


@pytest.mark.parametrize("size", [1, SMALL, 64 * 1024 - 1000])
async def test_head_and_body_of_a_small_file_go_in_one_system_call(
    size: int, tmp_path: Path, by_kernel: list[int], writes: list[bytes]
) -> None:
    path = make(tmp_path / "file", BODY[:size])

    async with served(file_handler(path)) as server, server.connected() as client:
        await client.send()
        came = await asyncio.get_running_loop().sock_recv(client.sock, 1 << 20)

    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == BODY[:size]
    assert writes == [came]
    assert by_kernel == []


class CountingExecutor(ThreadPoolExecutor):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def submit(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return super().submit(*arguments, **options)


async def test_a_small_file_in_the_cache_needs_no_thread(small: Path) -> None:
    executor = CountingExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    cache = FileCache(seconds=1000)

    async with (
        served(file_handler(small, cache=cache)) as server,
        server.connected() as client,
    ):
        calls = []
        for fields in ({}, {}, {"Range": "bytes=1-"}, {"Accept_Encoding": "gzip"}):
            reply = await client.ask(**fields)
            calls.append(executor.calls)

    assert reply.body == BODY[:SMALL]
    assert calls == [1, 1, 1, 1]
    cache.clear()


async def test_a_file_that_is_not_in_memory_is_read_in_a_thread(
    small: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        if flags:
            raise BlockingIOError
        return genuine(fd, buffers, offset)

    genuine = os.preadv
    monkeypatch.setattr(os, "preadv", refuse)
    compressed = file_handler(large)

    async def compress(request: web.Request) -> web.StreamResponse:
        response = await compressed(request)
        response.enable_compression()
        return response

    for handler, size in ((file_handler(small), SMALL), (file_handler(large), LARGE)):
        async with served(handler) as server:
            assert (await server.ask()).body == BODY[:size]
    async with served(compress) as server:
        reply = await server.ask(Accept_Encoding="gzip")
    assert gzip.decompress(reply.body) == BODY[:LARGE]


# --- in place of aiohttp's


async def test_status_reason_and_headers_are_kept(small: Path) -> None:
    handler = file_handler(
        small,
        status=203,
        reason="Fine",
        headers={"content-type": "text/own; charset=utf-8", "X-Own": "yes", "ETag": "replaced"},
    )

    async with served(handler) as server:
        reply = await server.ask(Range="bytes=1-", If_None_Match="*")

    assert (reply.status, reply.reason) == (203, "Fine")
    assert reply.headers.get_all("Content-Type") == ["text/own; charset=utf-8"]
    assert reply.headers["X-Own"] == "yes"
    assert reply.headers.get_all("ETag") == [f'"{MTIME * 10**9:x}-{SMALL:x}"']
    assert reply.body == BODY[:SMALL]


@on_one_loop
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", "text/html"),
        ("a.tar.gz", "application/gzip"),
        ("a.no-such-type", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
async def test_the_type_is_guessed_by_the_name(name: str, expected: str, tmp_path: Path) -> None:
    path = make(tmp_path / name, b"hello")

    async with served(file_handler(path)) as server:
        reply = await server.ask()

    assert reply.headers["Content-Type"] == expected


# What is asked for, and what comes: the status, and whether there is a body.
KINDS = {
    "small": ({}, 200),
    "large": ({"target": "/large.txt"}, 200),
    "empty": ({"target": "/empty"}, 200),
    "head": ({"method": "HEAD"}, 200),
    "head-large": ({"method": "HEAD", "target": "/large.txt"}, 200),
    "post": ({"method": "POST", "Content_Length": "0"}, 200),
    "range": ({"Range": "bytes=100-199"}, 206),
    "large-range": ({"target": "/large.txt", "Range": "bytes=100-3000000"}, 206),
    "ranges": ({"Range": "bytes=0-9,100-199"}, 206),
    "large-ranges": ({"target": "/large.txt", "Range": "bytes=0-9,20-199999,300000-"}, 206),
    "head-ranges": ({"method": "HEAD", "Range": "bytes=0-9,100-199"}, 206),
    "not-modified": ({"If_None_Match": "*"}, 304),
    "precondition": ({"If_Match": '"other"'}, 412),
    "unsatisfiable": ({"Range": "bytes=5000-"}, 416),
    "missing": ({"target": "/missing"}, 404),
    "directory": ({"target": "/."}, 403),
    "compressed": ({"target": "/large.txt?compress", "Accept_Encoding": "gzip"}, 200),
    "compressed-head": (
        {"target": "/large.txt?compress", "method": "HEAD", "Accept_Encoding": "gzip"},
        200,
    ),
    "compressed-empty": ({"target": "/empty?compress", "Accept_Encoding": "deflate"}, 200),
    "compressed-not-modified": (
        {"target": "/small.txt?compress", "If_None_Match": "*", "Accept_Encoding": "gzip"},
        304,
    ),
    "compressed-missing": ({"target": "/missing?compress", "Accept_Encoding": "gzip"}, 404),
}
EACH_KIND = pytest.mark.parametrize(("asked", "status"), KINDS.values(), ids=KINDS)


@pytest.fixture
def folder(small: Path, large: Path, tmp_path: Path) -> Path:
    make(tmp_path / "empty", b"")
    return tmp_path


def folder_handler(folder: Path) -> Handler:
    async def hand_out(request: web.Request) -> FileResponse:
        response = FileResponse(folder / (request.match_info["name"] or "small.txt"))
        if "compress" in request.query:
            response.enable_compression()
        return response

    return hand_out


@EACH_KIND
async def test_the_next_response_follows_each_kind(
    asked: dict[str, str], status: int, folder: Path
) -> None:
    method = asked.get("method", "GET")

    async with served(folder_handler(folder)) as server, server.connected() as client:
        # Two are there before the first is answered.
        await client.send(**asked)
        await client.send()
        first, second = await client.read_reply(method), await client.read_reply()
        third = await client.ask(**asked)
        last = await client.ask()

    assert (first.status, third.status) == (status, status)
    assert (first.reason, third.reason) == (HTTPStatus(status).phrase,) * 2
    assert len(first.body) == len(third.body)
    assert second.body == last.body == BODY[:SMALL]


class AccessLogger(AbstractAccessLogger):
    lengths: list[int]

    def log(self, request: Any, response: Any, time: float) -> None:
        self.lengths.append(response.body_length)


@EACH_KIND
async def test_the_access_log_has_the_length(
    asked: dict[str, str], status: int, folder: Path
) -> None:
    class Logger(AccessLogger):
        lengths: list[int] = []  # noqa: RUF012  # one class a test

    async with served(
        folder_handler(folder), access_log_class=Logger, access_log=logging.getLogger("access")
    ) as server:
        reply = await server.ask(**asked)

    # aiohttp counts the head too.
    assert Logger.lengths == [reply.nbytes]


@pytest.mark.parametrize(
    ("version", "fields", "stays"),
    [
        ("1.0", {}, False),
        ("1.0", {"Connection": "keep-alive"}, True),
        ("1.1", {}, True),
        ("1.1", {"Connection": "close"}, False),
    ],
)
@pytest.mark.parametrize("name", ["small.txt", "large.txt", "large.txt?compress"])
async def test_the_connection_is_kept_as_the_client_asks(
    version: str, fields: dict[str, str], stays: bool, name: str, folder: Path
) -> None:
    async with served(folder_handler(folder)) as server, server.connected() as client:
        reply = await client.ask(f"/{name}", version=version, **fields)
        if stays:
            assert (await client.ask()).body == BODY[:SMALL]
        else:
            assert await client.read_to_end() == b""

    assert (reply.version, reply.status, reply.reason) == (f"HTTP/{version}", 200, "OK")
    assert reply.body == BODY[: SMALL if name == "small.txt" else LARGE]


async def test_signals_see_and_change_the_headers(folder: Path) -> None:
    seen = []

    async def mark(request: web.BaseRequest, response: web.StreamResponse) -> None:
        seen.append((response.status, response.headers.get("Content-Length")))
        response.headers["X-Signal"] = "yes"
        del response.headers["Accept-Ranges"]

    app = web.Application()
    app.router.add_get("/{name:.*}", folder_handler(folder))
    app.on_response_prepare.append(mark)
    async with served(app) as server:
        replies = [await server.ask(target) for target in ("/small.txt", "/large.txt")]
        replies.append(await server.ask("/large.txt", Range="bytes=0-0"))

    assert seen == [(200, str(SMALL)), (200, str(LARGE)), (206, "1")]
    assert [reply.headers["X-Signal"] for reply in replies] == ["yes"] * 3
    assert [reply.headers["Accept-Ranges"] for reply in replies] == [None] * 3
    assert [len(reply.body) for reply in replies] == [SMALL, LARGE, 1]


@CIRCLES
async def test_a_header_with_a_line_break_is_refused(small: Path, log: Log) -> None:
    handler = file_handler(small, headers={"X-Own": "a\r\nSet-Cookie: b"})

    async with served(handler) as server, server.connected() as client:
        await client.send()

        assert await client.read_to_end() == b""

    assert len(log.take_errors()) == 1


@pytest.mark.parametrize("name", ["small.txt", "large.txt", "missing"])
async def test_a_handler_may_send_it_and_then_return_it(name: str, folder: Path) -> None:
    prepared = []

    async def hand_out(request: web.Request) -> FileResponse:
        response = FileResponse(folder / name)
        prepared.append(await response.prepare(request) is not None)
        prepared.append(await response.prepare(request) is not None)
        return response

    async with served(hand_out) as server, server.connected() as client:
        replies = [await client.ask(), await client.ask()]

    expected = {"small.txt": BODY[:SMALL], "large.txt": BODY[:LARGE], "missing": b""}[name]
    assert [reply.body for reply in replies] == [expected] * 2
    # What has ended has no writer; that of an answer without body has not.
    assert prepared == ([True, True] if name == "missing" else [True, False]) * 2


async def test_a_post_with_a_body_is_answered(large: Path) -> None:
    async def hand_out(request: web.Request) -> FileResponse:
        assert await request.read() == b"hello"
        return FileResponse(large)

    async with served(hand_out) as server, server.connected() as client:
        await client.send("/", "POST", Content_Length="5")
        await asyncio.get_running_loop().sock_sendall(client.sock, b"hello")
        reply = await client.read_reply()

    assert reply.body == BODY[:LARGE]


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int, small: Path) -> None:
    async with (
        served(file_handler(small, status=status)) as server,
        server.connected() as client,
    ):
        replies = [await client.ask(), await client.ask()]

    assert [reply.status for reply in replies] == [status] * 2


async def test_aiohttps_own_may_be_replaced_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "FileResponse", FileResponse)

    async def hand_out(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / "large.txt", 4096)

    app = web.Application()
    app.router.add_get("/file", hand_out)
    add_static(app.router, "/static", folder)
    async with served(app) as server:
        for target in ("/file", "/static/large.txt"):
            assert (await server.ask(target)).body == BODY[:LARGE]


async def test_it_is_one_of_aiohttps(small: Path) -> None:
    response = FileResponse(str(small))

    assert isinstance(response, web.FileResponse)
    assert response._path == small


async def test_names_of_all_kinds_are_taken(small: Path) -> None:
    for name in (small, str(small)):
        async with served(file_handler(name)) as server:
            assert (await server.ask()).body == BODY[:SMALL]


# --- content codings

DECODE = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


def compressing(path: Path, force: str | None = None, kind: Any = FileResponse) -> Handler:
    async def hand_out(request: web.Request) -> web.FileResponse:
        response = kind(path)
        response.enable_compression(None if force is None else web.ContentCoding(force))
        return response  # type: ignore[no-any-return]  # either class

    return hand_out


@on_one_loop
@pytest.mark.parametrize("size", [0, 1, SMALL, LARGE])
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "deflate"),
        ("gzip, deflate;q=0.5", "gzip"),
        ("GZIP", "gzip"),
        ("*", "deflate"),
        ("gzip;q=0", None),
        ("xgzipx", None),
        ("identity", None),
        ("br", None),
        ("", None),
    ],
)
async def test_compression_by_aiohttp_decodes_to_the_file(
    accepted: str, coding: str | None, size: int, tmp_path: Path
) -> None:
    path = make(tmp_path / "file.txt", BODY[:size])

    async with served(compressing(path)) as server, server.connected() as client:
        replies = [await client.ask(Accept_Encoding=accepted) for _ in range(2)]

    for reply in replies:
        assert reply.headers["Content-Encoding"] == coding
        assert reply.headers["Vary"] == "Accept-Encoding"
        assert DECODE[coding](reply.body) == BODY[:size]


@pytest.mark.parametrize("force", ["gzip", "deflate", "identity"])
async def test_a_coding_may_be_forced(force: str, large: Path) -> None:
    async with served(compressing(large, force)) as server:
        reply = await server.ask()

    coding = None if force == "identity" else force
    assert reply.headers["Content-Encoding"] == coding
    assert DECODE[coding](reply.body) == BODY[:LARGE]


async def test_what_aiohttp_compresses_has_no_ranges(large: Path) -> None:
    """aiohttp's sends a compressed part of the file: whoever resumes a download gets garbage."""
    async with served(compressing(large)) as server:
        plain = await server.ask()
        replies = [
            await server.ask(Range=asked_range, Accept_Encoding="gzip", **asked)
            for asked_range in ("bytes=10-19", "bytes=1-2,5-6", "bytes=99999999-")
            for asked in ({}, {"If_Range": plain.headers["ETag"]})
        ]

    assert plain.headers["Accept-Ranges"] == "bytes"
    for reply in replies:
        assert reply.status == 200
        assert reply.headers["Accept-Ranges"] == "none"
        assert reply.headers["ETag"] == plain.headers["ETag"][:-1] + '-gzip"'
        assert gzip.decompress(reply.body) == BODY[:LARGE]


@pytest.mark.parametrize("kind", [web.FileResponse, FileResponse])
async def test_chunked_encoding_is_refused_as_aiohttp_does(
    kind: Any, small: Path, log: Log
) -> None:
    async def hand_out(request: web.Request) -> web.FileResponse:
        response = kind(small)
        response.enable_chunked_encoding()
        await response.prepare(request)
        return response  # type: ignore[no-any-return]  # either class

    async with served(hand_out) as server:
        reply = await server.ask()

    assert reply.status == 500
    assert log.take_errors() == ["You can't set content length when chunked encoding is enable"]


# Which files there are beside, what the client accepts, and which one it gets.
SIDECARS = [
    ("br zst gz", "br, zstd, gzip", "br"),
    ("br zst gz", "gzip, zstd, br", "br"),
    ("br zst gz", "gzip, br;q=0.5", "gzip"),
    ("br zst gz", "br;q=0.1, zstd;q=0.9, gzip;q=0.5", "zstd"),
    ("br zst gz", "BR", "br"),
    ("br zst gz", "*", "br"),
    ("br zst gz", "*, br;q=0", "zstd"),
    ("br zst gz", "identity", None),
    ("br zst gz", "identity, gzip;q=0.5", None),
    ("br zst gz", "identity;q=0.5, gzip", "gzip"),
    ("br zst gz", "identity;q=0", None),
    ("br zst gz", "identity;q=0, *", "br"),
    ("br zst gz", None, None),
    ("br zst gz", "", None),
    ("gz", "br, gzip", "gzip"),
    ("gz", "gzip", "gzip"),
    ("gz", "gzip;q=0", None),
    ("gz", "gzip;q=0.0", None),
    ("gz", "gzip;q=0.001", "gzip"),
    ("gz", "gzip ; Q=1", "gzip"),
    ("gz", "gzip;q=many", None),
    ("gz", "gzip;q=2", None),
    ("gz", "gzip;level=9", "gzip"),
    ("gz", "xgzipx", None),
    ("gz", "deflate", None),
    ("gz", "*;q=0", None),
    ("gz", ", ,gzip", "gzip"),
]


@on_one_loop
@pytest.mark.parametrize(("suffixes", "accepted", "coding"), SIDECARS)
async def test_the_client_gets_the_coding_that_it_likes_best(
    suffixes: str, accepted: str | None, coding: str | None, small: Path
) -> None:
    contents = {None: BODY[:SMALL]}
    for suffix in suffixes.split():
        name = {"br": "br", "zst": "zstd", "gz": "gzip"}[suffix]
        contents[name] = f"encoded by {name}".encode()
        make(small.with_name(f"{small.name}.{suffix}"), contents[name])
    fields = {} if accepted is None else {"Accept_Encoding": accepted}

    async with served(file_handler(small)) as server, server.connected() as client:
        # The second from the cache.
        replies = [await client.ask(**fields), await client.ask(**fields)]

    for reply in replies:
        assert reply.headers["Content-Encoding"] == coding
        assert reply.headers["Content-Type"] == "text/plain"
        assert reply.headers.get_all("Vary") == ["Accept-Encoding"]
        assert reply.body == contents[coding]


async def test_there_is_no_vary_without_sidecars(small: Path) -> None:
    async with served(file_handler(small)) as server:
        reply = await server.ask(Accept_Encoding="gzip")

    assert reply.headers["Vary"] is None


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("Origin", ["Origin", "Accept-Encoding"]),
        ("origin, accept-encoding", ["origin, accept-encoding"]),
        ("*", ["*"]),
    ],
)
async def test_vary_is_added_to_that_of_the_handler(
    known: str, expected: list[str], small: Path
) -> None:
    make(small.with_name("small.txt.gz"), b"encoded")

    async with served(file_handler(small, headers={"Vary": known})) as server:
        reply = await server.ask()

    assert reply.headers.get_all("Vary") == expected


async def test_entity_tags_of_codings_differ(small: Path) -> None:
    # Of the same time and length.
    make(small.with_name("small.txt.gz"), bytes(SMALL))
    make(small.with_name("small.txt.br"), bytes(SMALL))
    accepted = {"plain": "identity", "gzip": "gzip", "br": "br"}

    async with served(file_handler(small)) as server:
        tags = {
            name: (await server.ask(Accept_Encoding=coding)).headers["ETag"]
            for name, coding in accepted.items()
        }
        statuses = {
            (name, tag): (
                await server.ask(Accept_Encoding=accepted[name], If_None_Match=tags[tag])
            ).status
            for name in tags
            for tag in tags
        }

    assert len(set(tags.values())) == 3
    assert statuses == {(name, tag): 304 if name == tag else 200 for name in tags for tag in tags}


async def test_a_part_of_a_sidecar_is_of_its_bytes(small: Path) -> None:
    make(small.with_name("small.txt.gz"), BODY[1000:2000])

    async with served(file_handler(small)) as server:
        part = await server.ask(Accept_Encoding="gzip", Range="bytes=10-19")
        parts = await server.ask(Accept_Encoding="gzip", Range="bytes=0-1,10-19")

    assert (part.status, part.body) == (206, BODY[1010:1020])
    assert part.headers["Content-Range"] == "bytes 10-19/1000"
    assert part.headers["Content-Encoding"] == "gzip"
    # A client would decode the multipart itself.
    assert (parts.status, parts.body) == (200, BODY[1000:2000])


async def test_a_link_beside_is_no_sidecar(small: Path, tmp_path: Path) -> None:
    secret = make(tmp_path / "secret", b"secret")
    link = small.with_name("small.txt.gz")
    link.symlink_to(secret)
    cache = FileCache(seconds=1000)

    async def hand_out(request: web.Request) -> FileResponse:
        name = request.match_info["name"] or "small.txt"
        return FileResponse(tmp_path / name, cache=cache)

    async with served(hand_out) as server:
        replies = []
        # Asked for by itself, then known as no sidecar, and then asked for again.
        await server.ask("/small.txt.gz")
        # The link is there to be asked for by itself, and then it is in the cache.
        for target in ("/", "/small.txt.gz", "/", "/small.txt.gz", "/"):
            replies.append(await server.ask(target, Accept_Encoding="gzip"))

    assert [reply.body for reply in replies[::2]] == [BODY[:SMALL]] * 3
    assert [reply.body for reply in replies[1::2]] == [b"secret"] * 2
    cache.clear()


@pytest.mark.parametrize("other", ["directory", "fifo"])
async def test_what_is_no_file_beside_is_no_sidecar(other: str, small: Path) -> None:
    beside = small.with_name("small.txt.gz")
    beside.mkdir() if other == "directory" else os.mkfifo(beside)

    async with served(file_handler(small)) as server:
        reply = await server.ask(Accept_Encoding="gzip")

    assert reply.body == BODY[:SMALL]


async def test_a_sidecar_may_be_all_there_is(tmp_path: Path) -> None:
    make(tmp_path / "file.gz", b"encoded")

    async with served(file_handler(tmp_path / "file")) as server:
        replies = [await server.ask(Accept_Encoding=each) for each in ("gzip", "br", "gzip")]

    assert [(reply.status, reply.body) for reply in replies] == [
        (200, b"encoded"),
        (404, b""),
        (200, b"encoded"),
    ]


# --- ranges

# Of 4096 bytes: the status, and the first byte and the one after the last of each part.
RANGES: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "bytes=0-0": (206, [(0, 1)]),
    "bytes=0-4095": (206, [(0, 4096)]),
    "bytes=0-": (206, [(0, 4096)]),
    "bytes=1-99999": (206, [(1, 4096)]),
    "bytes=4095-": (206, [(4095, 4096)]),
    "bytes=4096-": (416, []),
    "bytes=4096-5000": (416, []),
    "bytes=-1": (206, [(4095, 4096)]),
    "bytes=-4096": (206, [(0, 4096)]),
    "bytes=-99999": (206, [(0, 4096)]),
    "bytes=-0": (416, []),
    "Bytes=5-9": (206, [(5, 10)]),
    "bytes= 5-9 ": (206, [(5, 10)]),
    "bytes=5-9,": (206, [(5, 10)]),
    "bytes=0-1,5-9": (206, [(0, 2), (5, 10)]),
    "bytes=5-9, 0-1": (206, [(5, 10), (0, 2)]),
    "bytes=0-1,-2": (206, [(0, 2), (4094, 4096)]),
    "bytes=0-9,5-19": (206, [(0, 20)]),
    "bytes=0-9,10-19": (206, [(0, 20)]),
    "bytes=100-199,0-9,150-249": (206, [(0, 10), (100, 250)]),
    "bytes=0-1,5000-": (206, [(0, 2)]),
    "bytes=0-1,-0": (206, [(0, 2)]),
    "bytes=5000-,6000-": (416, []),
    ",".join(["bytes=0-0", *(f"{2 * n}-{2 * n}" for n in range(1, 100))]): (
        206,
        [(2 * n, 2 * n + 1) for n in range(100)],
    ),
    ",".join(["bytes=0-0", *(f"{2 * n}-{2 * n}" for n in range(1, 101))]): (200, []),
    "bytes=": (416, []),
    "bytes": (416, []),
    "bytes=-": (416, []),
    "bytes=,": (416, []),
    "bytes=a-b": (416, []),
    "bytes=9-5": (416, []),
    "bytes=0-1,9-5": (416, []),
    "bytes=+1-2": (416, []),
    "bytes=--1": (416, []),
    "bytes=0-1;5-9": (416, []),
    f"bytes=0-{'9' * 5000}": (416, []),
    # Digits, but not of HTTP.
    "bytes=\u0661-\u0662": (416, []),
    "lines=0-1": (416, []),
    "0-1": (416, []),
}


@on_one_loop
@pytest.mark.parametrize(("asked", "expected"), RANGES.items(), ids=lambda each: str(each)[:40])
async def test_ranges(asked: str, expected: tuple[int, list[tuple[int, int]]], small: Path) -> None:
    status, parts = expected
    asked = asked.encode().decode("latin-1")

    async with served(file_handler(small)) as server, server.connected() as client:
        replies = [await client.ask(Range=asked) for _ in range(2)]

    for reply in replies:
        assert reply.status == status
        if status == 200:
            assert reply.body == BODY[:SMALL]
        elif status == 416:
            assert reply.headers["Content-Range"] == f"bytes */{SMALL}"
            assert reply.body == b""
        else:
            assert parts_of(reply) == parts
            assert reply.headers["ETag"] is not None
            assert reply.headers["Last-Modified"] is not None


def parts_of(reply: Reply) -> list[tuple[int, int]]:
    """Return the ranges in a reply, whose bytes and types are checked."""
    head = reply.headers["Content-Type"]
    if not head.startswith("multipart/byteranges"):
        messages = [(reply.headers, reply.body)]
    else:
        assert reply.headers["Content-Range"] is None
        whole = email.message_from_bytes(f"Content-Type: {head}\r\n\r\n".encode() + reply.body)
        assert not whole.defects
        parts = whole.get_payload()
        assert isinstance(parts, list)
        messages = [(part, part.get_payload(decode=True)) for part in parts]
    found = []
    for headers, body in messages:
        assert headers["Content-Type"] == "text/plain"
        unit, _, rest = headers["Content-Range"].partition(" ")
        span, _, size = rest.partition("/")
        first, last = map(int, span.split("-"))
        assert (unit, size) == ("bytes", str(SMALL))
        assert body == BODY[first : last + 1]
        found.append((first, last + 1))
    return found


async def test_parts_of_a_large_file_go_by_the_kernel(large: Path, by_kernel: list[int]) -> None:
    spans = [(0, 100), (1_000, 200_000), (300_000, 4_000_000)]
    asked = ",".join(f"{first}-{end - 1}" for first, end in spans)

    async with served(file_handler(large)) as server:
        reply = await server.ask(Range=f"bytes={asked}")

    assert reply.status == 206
    assert [BODY[first:end] in reply.body for first, end in spans] == [True] * 3
    assert sum(by_kernel) == 199_000 + 3_700_000 - 2 * _sending._FIRST


@on_one_loop
@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=-5", "bytes=0-0", "bytes=0-0,1-1"])
async def test_an_empty_file_has_no_ranges(asked: str, tmp_path: Path) -> None:
    path = make(tmp_path / "empty", b"")

    async with served(file_handler(path)) as server:
        reply = await server.ask(Range=asked)

    assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */0")


# --- conditions

EQUAL, OLDER, NEWER = (formatdate(MTIME + n, usegmt=True) for n in (0, -1, 1))
TAG, OTHER = '"{tag}"', '"other"'
# In the order of RFC 9110, section 13.2.2; a later one counts only where the former let it.
CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({"If_Match": TAG}, 200),
    ({"If_Match": "*"}, 200),
    ({"If_Match": f"{OTHER}, {TAG}"}, 200),
    ({"If_Match": OTHER}, 412),
    ({"If_Match": f"W/{TAG}"}, 412),
    ({"If_Match": OTHER, "If_None_Match": TAG}, 412),
    ({"If_Match": TAG, "If_Unmodified_Since": OLDER}, 200),
    ({"If_Unmodified_Since": EQUAL}, 200),
    ({"If_Unmodified_Since": NEWER}, 200),
    ({"If_Unmodified_Since": OLDER}, 412),
    ({"If_Unmodified_Since": OLDER, "If_None_Match": TAG}, 412),
    ({"If_Unmodified_Since": "yesterday"}, 200),
    ({"If_None_Match": TAG}, 304),
    ({"If_None_Match": f"W/{TAG}"}, 304),
    ({"If_None_Match": "*"}, 304),
    ({"If_None_Match": f"{OTHER}, {TAG}"}, 304),
    ({"If_None_Match": OTHER}, 200),
    ({"If_None_Match": OTHER, "If_Modified_Since": NEWER}, 200),
    ({"If_Match": TAG, "If_None_Match": TAG}, 304),
    ({"If_Modified_Since": EQUAL}, 304),
    ({"If_Modified_Since": NEWER}, 304),
    ({"If_Modified_Since": OLDER}, 200),
    ({"If_Modified_Since": "yesterday"}, 200),
    ({"If_Modified_Since": "Tue, 14 Nov 99999999 22:13:20 GMT"}, 200),
    # The two older forms that servers have to take (RFC 9110, section 5.6.7).
    ({"If_Modified_Since": "Tuesday, 14-Nov-23 22:13:20 GMT"}, 304),
    ({"If_Modified_Since": "Tue Nov 14 22:13:20 2023"}, 304),
    ({"If_Modified_Since": "Tue Nov 14 22:13:19 2023"}, 200),
    ({"If_None_Match": OTHER, "Range": "bytes=0-9"}, 206),
    ({"If_None_Match": TAG, "Range": "bytes=0-9"}, 304),
    ({"If_Match": OTHER, "Range": "bytes=0-9"}, 412),
    ({"If_Match": OTHER, "Range": "bytes=9999-"}, 412),
    ({"If_Range": TAG, "Range": "bytes=0-9"}, 206),
    ({"If_Range": OTHER, "Range": "bytes=0-9"}, 200),
    ({"If_Range": f"W/{TAG}", "Range": "bytes=0-9"}, 200),
    ({"If_Range": EQUAL, "Range": "bytes=0-9"}, 206),
    ({"If_Range": OLDER, "Range": "bytes=0-9"}, 200),
    ({"If_Range": NEWER, "Range": "bytes=0-9"}, 200),
    ({"If_Range": "yesterday", "Range": "bytes=0-9"}, 200),
    ({"If_Range": OTHER, "Range": "bytes=9999-"}, 200),
    ({"If_Range": TAG, "Range": "bytes=9999-"}, 416),
    ({"If_Range": TAG}, 200),
]


@contextmanager
def local_time_of(zone: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


@on_one_loop
@pytest.mark.parametrize(("fields", "status"), CONDITIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_conditions(
    fields: dict[str, str],
    status: int,
    method: str,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tag = f"{MTIME * 10**9:x}-{SMALL:x}"
    fields = {name: value.format(tag=tag) for name, value in fields.items()}

    with local_time_of("Asia/Tokyo", monkeypatch):
        async with served(file_handler(small)) as server:
            reply = await server.ask("/", method, **fields)

    assert reply.status == status
    lengths = {200: SMALL, 206: 10, 304: 0, 412: 0, 416: 0}
    assert len(reply.body) == (0 if method == "HEAD" else lengths[status])
    if status == 304:
        assert reply.headers["ETag"] == f'"{tag}"'
        assert reply.headers["Last-Modified"] == EQUAL
        assert reply.headers["Content-Length"] is None
        assert reply.headers["Content-Type"] is None


async def test_what_is_not_modified_varies_all_the_same(small: Path) -> None:
    make(small.with_name("small.txt.gz"), b"encoded")

    async with served(file_handler(small)) as server:
        reply = await server.ask(If_None_Match="*")

    assert (reply.status, reply.headers["Vary"]) == (304, "Accept-Encoding")


# --- beside aiohttp's own

MAIN = ["Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "ETag"]
MAIN += ["Last-Modified", "Accept-Ranges", "Vary", "Connection", "Location", "Allow"]
REQUESTS: list[dict[str, str]] = [
    {},
    {"method": "HEAD"},
    {"method": "POST", "Content_Length": "0"},
    {"version": "1.0"},
    {"version": "1.0", "Connection": "keep-alive"},
    {"Connection": "close"},
    {"Accept_Encoding": "gzip"},
    {"Range": "bytes=0-9"},
    {"Range": "bytes=10-"},
    {"Range": "bytes=-10"},
    {"Range": "bytes=-99999"},
    {"Range": "bytes=0-99999"},
    {"Range": "bytes=0-9", "method": "HEAD"},
    {"If_Range": OLDER, "Range": "bytes=0-9"},
    {"If_Range": EQUAL, "Range": "bytes=0-9"},
    {"target": "/directory"},
    {"target": "/empty"},
    {"target": "/file.html"},
    {"target": "/file.tar.gz"},
    {"target": "/packed.txt", "Accept_Encoding": "gzip, deflate"},
    {"target": "/packed.txt", "Accept_Encoding": "gzip", "method": "HEAD"},
    {"target": "/packed.txt", "Accept_Encoding": "gzip", "Range": "bytes=1-2"},
]
REQUESTS += [
    {name: value.format(tag=f"{MTIME * 10**9:x}-{SMALL:x}") for name, value in fields.items()}
    for fields, status in CONDITIONS
    if status in (200, 304, 412) and "Range" not in fields
]
# Of an answer without a body: aiohttp's is chunked, and so has another type and no length.
EMPTY: list[dict[str, str]] = [
    {"target": "/missing"},
    {"target": "/missing", "method": "HEAD"},
    {"Range": "bytes=5000-"},
    {"Range": "lines=0-1"},
    {"Range": "bytes=9-5"},
    {"target": "/empty", "Range": "bytes=0-"},
]
# What is mended, and the status that it has here.
MENDED: list[tuple[dict[str, str], int]] = [
    ({"If_Range": OTHER, "Range": "bytes=0-9"}, 200),
    ({"If_Range": NEWER, "Range": "bytes=0-9"}, 200),
    ({"Range": "bytes=0-1,5-9"}, 206),
    ({"Range": "bytes=-0"}, 416),
    ({"target": "/" + "a" * 256}, 404),
    ({"method": "POST", "Content_Length": "0", "Range": "bytes=0-9"}, 200),
    ({"method": "POST", "Content_Length": "0", "Range": "bytes=5000-"}, 200),
    ({"method": "POST", "Content_Length": "0", "If_None_Match": "*"}, 200),
    ({"method": "POST", "Content_Length": "0", "If_Match": OTHER}, 200),
]


@pytest.fixture
def many(folder: Path) -> Path:
    (folder / "directory").mkdir()
    for name in ("file.html", "file.tar.gz", "packed.txt", "packed.txt.gz"):
        make(folder / name, name.encode())
    return folder


async def ask_both(folder: Path, asked: dict[str, str]) -> tuple[Reply, Reply]:
    """Return what aiohttp's own answers, and what ours does."""

    def handler_of(kind: Any) -> Handler:
        async def hand_out(request: web.Request) -> web.FileResponse:
            return kind(folder / (request.match_info["name"] or "small.txt"))  # type: ignore[no-any-return]  # either class

        return hand_out

    replies = []
    for kind in (web.FileResponse, FileResponse):
        async with served(handler_of(kind)) as server:
            replies.append(await server.ask(**asked))
    return replies[0], replies[1]


@on_one_loop
@pytest.mark.parametrize("asked", REQUESTS, ids=str)
async def test_the_answer_is_that_of_aiohttp(asked: dict[str, str], many: Path) -> None:
    theirs, mine = await ask_both(many, asked)

    assert (mine.status, mine.reason, mine.body) == (theirs.status, theirs.reason, theirs.body)
    names = [name for name in MAIN if name not in differing(asked)]
    assert {name: mine.headers[name] for name in names} == {
        name: theirs.headers[name] for name in names
    }


def differing(asked: dict[str, str]) -> list[str]:
    if asked.get("target") == "/packed.txt":
        # Tags of codings differ from that of the file.
        return ["ETag"]
    if asked.get("target") == "/directory":
        return ["Content-Type", "Content-Length"]
    return []


@on_one_loop
@pytest.mark.parametrize("asked", EMPTY, ids=str)
async def test_an_answer_without_a_body_is_that_of_aiohttp(
    asked: dict[str, str], many: Path
) -> None:
    theirs, mine = await ask_both(many, asked)

    assert (mine.status, mine.reason, mine.body) == (theirs.status, theirs.reason, theirs.body)
    assert mine.headers["Content-Range"] == theirs.headers["Content-Range"]
    assert mine.headers["Content-Length"] == "0"


@on_one_loop
@pytest.mark.parametrize(("asked", "status"), MENDED, ids=lambda each: str(each)[:60])
async def test_what_aiohttp_gets_wrong_is_mended(
    asked: dict[str, str], status: int, many: Path
) -> None:
    """The other mended faults, of codings and Vary, have tests of their own."""
    async with served(folder_handler(many)) as server:
        reply = await server.ask(**asked)

    assert reply.status == status


# --- the cache of open files


@pytest.fixture
def lasting() -> Iterator[FileCache]:
    """Believes what it has looked up for longer than any test takes."""
    cache = FileCache(seconds=1000)
    yield cache
    cache.clear()


def replace(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    other.replace(path)


def rewrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path, (MTIME + 1, MTIME + 1))


CHANGES: dict[str, Callable[[Path, bytes], object]] = {"replaced": replace, "rewritten": rewrite}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("size", [10, SMALL, 2 * SMALL, LARGE])
async def test_a_changed_file_shows_at_once(
    change: Callable[[Path, bytes], object], size: int, small: Path, lasting: FileCache
) -> None:
    async with (
        served(file_handler(small, cache=lasting)) as server,
        server.connected() as client,
    ):
        before = await client.ask()
        change(small, BODY[-size:])
        after = [await client.ask(), await client.ask()]

    assert before.body == BODY[:SMALL]
    assert [reply.body for reply in after] == [BODY[-size:]] * 2
    assert after[0].headers["ETag"] != before.headers["ETag"]


ASKED: list[dict[str, str]] = [
    {},
    {"Accept_Encoding": "gzip"},
    {"Range": "bytes=1-2"},
    {"If_None_Match": "*"},
    {"If_Modified_Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    {"method": "HEAD"},
]
MADE: dict[str, Callable[..., FileResponse]] = {
    "plain": FileResponse,
    "headers": partial(FileResponse, headers={"X-Own": "1", "Content-Type": "text/own"}),
    "status": partial(FileResponse, status=404),
    "empty": partial(FileResponse, status=204),
    "encodings": partial(FileResponse, encodings=()),
}


@pytest.mark.parametrize("has_sidecar", [False, True])
async def test_an_answer_that_is_remembered_is_the_one_that_would_be_made(
    has_sidecar: bool, small: Path, lasting: FileCache
) -> None:
    fresh = FileCache(seconds=0)
    if has_sidecar:
        make(small.with_name("small.txt.gz"), b"encoded")

    async def hand_out(request: web.Request) -> FileResponse:
        kind, _, cache = request.match_info["name"].partition("-")
        return MADE[kind](small, cache=lasting if cache == "lasting" else fresh)

    async with served(hand_out) as server, server.connected() as client:
        for fields in ASKED * 2:
            for kind in MADE:
                one, other = [
                    await client.ask(f"/{kind}-{cache}", **fields) for cache in ("lasting", "fresh")
                ]

                assert (one.status, one.body) == (other.status, other.body)
                assert undated(one) == undated(other)

    fresh.clear()


def undated(reply: Reply) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in reply.headers.items() if name != "Date")


async def test_a_removed_file_is_missing_at_once(small: Path, lasting: FileCache) -> None:
    async with (
        served(file_handler(small, cache=lasting)) as server,
        server.connected() as client,
    ):
        statuses = [(await client.ask()).status]
        os.unlink(small)
        statuses.append((await client.ask()).status)
        make(small, b"again")
        statuses.append((await client.ask()).status)

    assert statuses == [200, 404, 200]


@pytest.mark.parametrize("seconds", [0, 1000])
async def test_a_link_that_leads_elsewhere_shows_when_its_time_is_over(
    seconds: float, tmp_path: Path
) -> None:
    old, new = make(tmp_path / "old", b"old"), make(tmp_path / "new", b"new")
    link = tmp_path / "link"
    link.symlink_to(old)
    cache = FileCache(seconds=seconds)

    async with served(file_handler(link, cache=cache)) as server:
        bodies = [(await server.ask()).body]
        link.unlink()
        link.symlink_to(new)
        bodies.append((await server.ask()).body)
        cache.clear()
        bodies.append((await server.ask()).body)

    assert bodies == [b"old", b"old" if seconds else b"new", b"new"]
    cache.clear()


@pytest.mark.parametrize("seconds", [0, 1000])
async def test_a_file_that_is_moved_away_is_missing_at_once(seconds: float, small: Path) -> None:
    cache = FileCache(seconds=seconds)

    async with served(file_handler(small, cache=cache)) as server:
        statuses = [(await server.ask()).status]
        os.rename(small, small.with_name("elsewhere"))
        statuses.append((await server.ask()).status)

    assert statuses == [200, 404]
    cache.clear()


@pytest.mark.parametrize("seconds", [0, 1000])
async def test_a_file_that_may_not_be_read_any_more_is_not_sent_from_the_cache(
    seconds: float, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FileCache(seconds=seconds)

    async with served(file_handler(small, cache=cache)) as server:
        statuses = [(await server.ask()).status]
        await asyncio.to_thread(small.chmod, 0)
        # Who runs the tests may be root, for whom nothing changes.
        monkeypatch.setattr(os, "open", refuse)
        statuses.append((await server.ask()).status)

    assert statuses == [200, 403]
    cache.clear()


def refuse(*arguments: object) -> int:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


async def test_a_file_that_is_looked_up_again_stays_open(small: Path) -> None:
    cache = FileCache(seconds=0)

    async with served(file_handler(small, cache=cache)) as server:
        await server.ask()
        opened = cache._entries[str(small)].found
        await server.ask()

    assert cache._entries[str(small)].found is opened
    cache.clear()


async def test_a_new_sidecar_shows_when_its_time_is_over(small: Path) -> None:
    cache = FileCache(seconds=0)

    async with served(file_handler(small, cache=cache)) as server:
        await server.ask(Accept_Encoding="gzip")
        make(small.with_name("small.txt.gz"), b"encoded")
        reply = await server.ask(Accept_Encoding="gzip")

    assert reply.body == b"encoded"
    cache.clear()


def opened_below(path: Path) -> list[str]:
    """Return what this process has open there."""
    return [each for each in opened().values() if each.startswith(str(path))]


async def test_the_cache_holds_so_many_files_and_no_more(tmp_path: Path) -> None:
    cache = FileCache(most=2, seconds=1000)

    async def hand_out(request: web.Request) -> FileResponse:
        return FileResponse(tmp_path / request.match_info["name"], cache=cache)

    for n in range(10):
        make(tmp_path / str(n), b"%d" % n)
    async with served(hand_out) as server, server.connected() as client:
        bodies = [(await client.ask(f"/{n}")).body for n in (*range(10), 9, *range(10))]
        held = opened_below(tmp_path)

    assert bodies == [b"%d" % n for n in (*range(10), 9, *range(10))]
    assert 0 < len(held) <= 2
    cache.clear()


def test_the_cache_keeps_what_is_used(tmp_path: Path) -> None:
    cache = FileCache(most=2, seconds=1000)
    often, once, last = (str(make(tmp_path / name, b"")) for name in ("often", "once", "last"))
    for path in (often, once):
        cache.look_up(path)
    cache.find(often)

    cache.look_up(last)

    assert cache.find(often) is not None
    assert cache.find(last) is not None
    with pytest.raises(KeyError):
        cache.find(once)
    cache.clear()


async def test_large_files_are_not_held_open(large: Path) -> None:
    async with served(file_handler(large)) as server:
        await server.ask()
        held = opened_below(large)

    assert held == []


@pytest.mark.parametrize(
    "options", [{"most": -1}, {"seconds": -1}, {"seconds": float("nan")}, {"largest": -1}]
)
def test_a_cache_of_less_than_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        FileCache(**options)


# --- what cannot be served


def missing(folder: Path) -> object:
    return folder / "missing"


def directory(folder: Path) -> object:
    return folder


def fifo(folder: Path) -> object:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def circle(folder: Path) -> object:
    (folder / "circle").symlink_to(folder / "circle")
    return folder / "circle"


def below_a_file(folder: Path) -> object:
    return make(folder / "file", b"") / "below"


REFUSED: dict[str, tuple[Callable[[Path], object], int]] = {
    "missing": (missing, 404),
    "directory": (directory, 403),
    "fifo": (fifo, 403),
    "device": (lambda _: "/dev/zero", 403),
    "circle": (circle, 404),
    "below-a-file": (below_a_file, 404),
    "nul": (lambda folder: f"{folder}/a\0b", 404),
    "long-name": (lambda folder: folder / ("a" * 256), 404),
    "long-path": (lambda folder: folder / "/".join(["a" * 200] * 30), 404),
    "surrogate": (lambda folder: f"{folder}/\ud800", 404),
}


@pytest.mark.parametrize(("make_path", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_file_is_refused(
    make_path: Callable[[Path], object], status: int, tmp_path: Path
) -> None:
    path: Any = make_path(tmp_path)

    async with served(file_handler(path)) as server, server.connected() as client:
        replies = [await client.ask(), await client.ask("/", "HEAD"), await client.ask()]

    assert [(reply.status, reply.body) for reply in replies] == [(status, b"")] * 3


async def test_a_file_that_may_not_be_read_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may be run by root, who may read everything."""
    genuine = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == str(small):
            raise PermissionError(13, "Permission denied")
        return genuine(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)

    async with served(file_handler(small)) as server:
        reply = await server.ask()

    assert (reply.status, reply.body) == (403, b"")


# --- what goes wrong on the way


@pytest.mark.parametrize("left", [0, 1000, 1_500_000])
async def test_a_file_that_is_cut_meanwhile_ends_the_connection(
    left: int, large: Path, log: Log
) -> None:
    handler = Watched(large)
    async with served(handler) as server, server.connected(4096) as client:
        await client.send()
        # Whose answer must not be taken for the rest of the first.
        await client.send("/next")
        await handler.moved.wait()
        os.truncate(large, left)
        head = await client.read_head()
        body = await client.read_to_end()
        outcome = await handler.outcome

    assert f"Content-Length: {LARGE}".encode() in head
    assert len(body) < LARGE
    # What is cut off may come as zeros: the kernel sends the pages of the file, not a copy.
    assert BODY.startswith(body[:left])
    assert b"HTTP" not in body
    assert outcome == (ConnectionResetError, TruncatedError)
    assert len(body) <= handler.sent < LARGE
    [(level, line)] = log.lines
    assert level == "WARNING"
    assert line.startswith("GET /: the file ended ")
    assert line.endswith(" bytes before its length")


@pytest.mark.parametrize("left", [0, 1000, 1_500_000])
@pytest.mark.parametrize("compresses", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_file_that_is_cut_before_its_first_byte_ends_the_connection(
    size: int, compresses: bool, left: int, tmp_path: Path, log: Log
) -> None:
    path = make(tmp_path / "file", BODY[:size])

    async def cut(request: web.BaseRequest, response: web.StreamResponse) -> None:
        os.truncate(path, min(left, size - 1))

    app = web.Application()
    app.router.add_get("/", compressing(path, "gzip") if compresses else file_handler(path))
    app.on_response_prepare.append(cut)
    async with served(app) as server, server.connected() as client:
        await client.send()
        await client.send("/next")
        with pytest.raises(ConnectionError):
            await client.read_reply()

    assert [level for level, _ in log.lines] == ["WARNING"]


SLOW: dict[str, tuple[dict[str, Any], str]] = {
    "stall": ({"limits": Limits(stall=0.1)}, "stalled: no byte accepted for 0.1 s"),
    "min-rate": ({"limits": Limits(min_rate=1e9, grace=0.1)}, "too slow: "),
    "timeout": ({"timeout": 0.1, "limits": None}, "timed out: not all was sent within "),
}


@pytest.mark.parametrize(
    ("name", "trickles"),
    [
        ("stall", False),
        ("min-rate", False),
        ("min-rate", True),
        ("timeout", False),
        ("timeout", True),
    ],
)
async def test_a_slow_client_is_disconnected(
    name: str, trickles: bool, large: Path, log: Log
) -> None:
    options, reason = SLOW[name]
    handler = Watched(large, **options)
    async with served(handler) as server, server.connected(4096) as client:
        began = time.monotonic()
        await client.send()
        await client.send("/next")
        while trickles and not handler.outcome.done():
            # Less than 100 kB/s.
            await client.read_to(500)
            await asyncio.sleep(0.005)
        outcome = await handler.outcome
        took = time.monotonic() - began
        rest = await client.read_to_end()

    assert 0.09 < took < 5
    assert outcome == (ConnectionResetError, TimeoutError)
    assert b"next response" not in rest
    [(level, line)] = log.lines
    assert level == "INFO"
    assert line.startswith(f"GET /: {reason}")
    assert " bytes sent" in line


async def test_what_a_slow_client_does_not_read_is_not_kept_for_it(large: Path) -> None:
    """One that reads a byte now and then would keep it in the kernel for as long as it likes."""
    handler = Watched(large, limits=Limits(stall=0.1))
    async with served(handler) as server, server.connected(4096) as client:
        await client.send()
        await handler.outcome

        assert await client.is_reset()


@pytest.mark.parametrize("name", SLOW)
async def test_a_slow_client_of_a_compressed_file_is_disconnected(
    name: str, large: Path, log: Log
) -> None:
    options, reason = SLOW[name]
    make(large, os.urandom(LARGE))
    handler = Watched(large, compress=True, **options)
    async with served(handler) as server, server.connected(4096) as client:
        await client.send()
        outcome = await handler.outcome
        await client.read_to_end()

    assert outcome[0] is ConnectionResetError
    [(level, line)] = log.lines
    assert level == "INFO"
    assert line.startswith(f"GET /: {reason}")


async def test_a_client_of_a_compressed_file_may_pause_after_the_grace(
    large: Path, log: Log
) -> None:
    """Each block is a call of its own, the first of whose bytes may be a pause away."""
    make(large, os.urandom(LARGE))
    handler = Watched(large, compress=True, limits=Limits(min_rate=10_000, grace=0.1))
    async with served(handler) as server, server.connected(64 * 1024) as client:
        await client.send(Connection="close")
        for _ in range(10):
            # Longer than the grace all together, and each longer than the shortest look.
            await asyncio.sleep(0.05)
            await client.read_to(1 << 20)
        await client.read_to_end()

        assert await handler.outcome == SENT

    assert log.lines == []


async def test_a_compressed_file_is_sent_without_limits(large: Path) -> None:
    handler = Watched(large, compress=True, limits=None)

    async with served(handler) as server:
        reply = await server.ask(Accept_Encoding="gzip")

    assert gzip.decompress(reply.body) == BODY[:LARGE]


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_client_that_is_fast_enough_is_served(size: int, tmp_path: Path) -> None:
    path = make(tmp_path / "file", BODY[:size])
    handler = file_handler(path, timeout=10, limits=Limits(stall=5, min_rate=1, grace=5))

    async with served(handler) as server:
        reply = await server.ask()

    assert reply.body == BODY[:size]


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=0-9,100-2000000,3000000-"}], ids=str)
async def test_a_client_that_resets_its_connection_is_no_news(
    asked: dict[str, str], large: Path, log: Log
) -> None:
    handler = Watched(large)
    async with served(handler) as server, server.connected(4096) as client:
        await client.send(**asked)
        await handler.moved.wait()
        client.reset()
        outcome = await handler.outcome

        assert (await server.ask()).body == b"the next response"

    assert issubclass(outcome[0], ConnectionError)
    assert log.lines == []


@pytest.mark.usefixtures("no_collection")
async def test_the_file_is_closed_with_the_connection(large: Path) -> None:
    """And not when the garbage collector comes by."""
    for ends in (Client.reset, None):
        # Long enough to see it open.
        handler = Watched(large, limits=Limits(stall=0.5))
        async with served(handler) as server, server.connected(4096) as client:
            await client.send()
            await handler.moved.wait()
            during = opened_below(large)
            if ends is not None:
                ends(client)
            await handler.outcome
            while opened_below(large):
                await asyncio.sleep(0.01)
        assert during


async def test_a_connection_that_is_lost_between_two_parts_is_no_news(
    large: Path, log: Log
) -> None:
    """Nobody sends then, who would be told."""

    class Lost(Watched):
        def count(self, nbytes: int) -> None:
            super().count(nbytes)
            for transport in transports:
                transport.abort()

    async def hand_out(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        transports.append(request.transport)
        return await handler(request)

    transports: list[asyncio.Transport] = []
    handler = Lost(large)
    async with served(hand_out) as server, server.connected() as client:
        await client.send(Range="bytes=0-9,100-199999")
        await client.read_to_end()
        outcome = await handler.outcome

    assert issubclass(outcome[0], ConnectionError)
    assert log.lines == []


async def test_a_client_that_left_before_is_no_news(large: Path, log: Log) -> None:
    async def hand_out(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        client.reset()
        while request.transport is not None:
            await asyncio.sleep(0.001)
        return response

    handler = Watched(large)
    async with served(hand_out) as server, server.connected() as client:
        await client.send()
        outcome = await handler.outcome

    assert outcome[0] is ConnectionResetError
    assert log.lines == []


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ({}, [BODY[:LARGE]]),
        # Each part is a call of its own.
        ({"Range": "bytes=0-2999999,4000000-"}, [BODY[:3_000_000], BODY[4_000_000:LARGE]]),
    ],
    ids=["whole", "ranges"],
)
async def test_a_client_that_sends_no_more_gets_everything(
    asked: dict[str, str], parts: list[bytes], large: Path, log: Log
) -> None:
    handler = Watched(large)
    async with served(handler) as server, server.connected(4096) as client:
        await client.send(**asked)
        await handler.moved.wait()
        client.sock.shutdown(socket.SHUT_WR)
        head = await client.read_head()
        fields = email.message_from_bytes(head.partition(b"\r\n")[2])
        body = await client.read(int(fields["Content-Length"]))
        rest = await client.read_to_end()

        assert await handler.outcome == SENT

    assert all(part in body for part in parts)
    assert rest == b""
    assert log.lines == []


@CIRCLES
async def test_a_cancelled_handler_ends_the_connection(large: Path, log: Log) -> None:
    handler = Watched(large)
    async with served(handler) as server, server.connected(4096) as client:
        await client.send()
        await client.send("/next")
        await handler.moved.wait()
        assert handler.task is not None
        handler.task.cancel()
        outcome = await handler.outcome
        await client.read_head()
        body = await client.read_to_end()

    assert outcome[0] is asyncio.CancelledError
    assert len(body) <= handler.sent < LARGE
    assert BODY.startswith(body)
    assert log.lines == []


@pytest.mark.parametrize("catches", [False, True])
async def test_shutting_down_does_not_wait_for_a_stalled_client(
    catches: bool, large: Path, log: Log
) -> None:
    handler = Watched(large)
    async with (
        served(handler, handler_cancellation=catches) as server,
        server.connected(4096) as client,
    ):
        await client.send()
        await handler.moved.wait()

    assert handler.outcome.done()
    assert log.lines == []


# --- progress

PROGRESS = {name: kind for name, kind in KINDS.items() if "head" not in name}


@pytest.mark.parametrize(("asked", "status"), PROGRESS.values(), ids=PROGRESS)
@pytest.mark.parametrize("buffer", [None, 4096], ids=["fast", "slow"])
async def test_progress_adds_up_to_the_body(
    asked: dict[str, str], status: int, buffer: int | None, folder: Path
) -> None:
    seen: list[int] = []

    async def hand_out(request: web.Request) -> FileResponse:
        name = request.match_info["name"] or "small.txt"
        response = FileResponse(folder / name, progress=seen.append)
        if "compress" in request.query:
            response.enable_compression()
        return response

    async with served(hand_out) as server, server.connected(buffer) as client:
        reply = await client.ask(**asked)

    body = reply.body
    if reply.headers["Content-Encoding"] is not None:
        body = DECODE[reply.headers["Content-Encoding"]](body)
    assert sum(seen) == len(body)
    assert 0 not in seen


@CIRCLES
@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("compresses", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize(
    "kind", [ValueError, OSError, ConnectionError, TimeoutError, asyncio.CancelledError]
)
async def test_what_progress_raises_ends_the_connection(
    kind: type[BaseException], size: int, compresses: bool, tmp_path: Path, log: Log
) -> None:
    path = make(tmp_path / "file", BODY[:size])
    errors: list[type] = []

    def refuse(nbytes: int) -> None:
        raise kind("enough")

    async def hand_out(request: web.Request) -> FileResponse:
        response = FileResponse(path, progress=refuse)
        if compresses:
            response.enable_compression(web.ContentCoding.gzip)
        try:
            await response.prepare(request)
        except BaseException as error:
            errors.append(type(error))
            raise
        raise AssertionError

    async with served(hand_out) as server, server.connected() as client:
        await client.send()
        await client.send("/next")
        came = await client.read_to_end()

    assert b"500 Internal" not in came
    assert came.count(b"HTTP/1.1") <= 1
    assert log.lines == []
    assert errors == [kind]
    log.take_errors()


# --- folders


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to serve, with something beside it that is not served."""
    make(tmp_path / "secret.txt", b"secret")
    root = tmp_path / "root"
    (root / "below" / "deeper").mkdir(parents=True)
    make(root / "index.html", b"index")
    make(root / "file.txt", BODY[:SMALL])
    make(root / "two words & more.txt", b"words")
    make(root / "percent%2f.txt", b"percent")
    make(root / "<b>.txt", b"escaped")
    make(root / "below" / "file.txt", b"below")
    make(root / "below" / "file.txt.gz", b"below, encoded")
    (root / "link.txt").symlink_to(root / "below" / "file.txt")
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "out").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "fifo")
    return root


# What is asked for, and the status without and with `follow_symlinks`.
TARGETS: dict[str, tuple[int, int]] = {
    "/files/file.txt": (200, 200),
    "/files/file.txt?v=1": (200, 200),
    "/files/below/file.txt": (200, 200),
    "/files/below%2Ffile.txt": (200, 200),
    "/files/./file.txt": (200, 200),
    "/files/below/../file.txt": (200, 200),
    "/files//file.txt": (404, 404),
    "/files/below//file.txt": (200, 200),
    "/files/two%20words%20&%20more.txt": (200, 200),
    "/files/percent%252f.txt": (200, 200),
    "/files/%3Cb%3E.txt": (200, 200),
    "/files/link.txt": (200, 200),
    "/files/out.txt": (404, 200),
    "/files/out/secret.txt": (404, 200),
    "/files/circle": (404, 404),
    "/files/missing": (404, 404),
    "/files/FILE.TXT": (404, 404),
    "/files/file.txt/": (200, 200),
    "/files/file.txt/below": (404, 404),
    "/files/fifo": (403, 403),
    "/files": (403, 403),
    "/files/": (403, 403),
    "/files/below": (403, 403),
    "/files/below/": (403, 403),
    "/files/../secret.txt": (404, 404),
    "/files/..%2Fsecret.txt": (404, 404),
    "/files/%2e%2e/secret.txt": (404, 404),
    "/files/%2e%2e%2fsecret.txt": (404, 404),
    "/files/below/../../secret.txt": (404, 404),
    "/files/below/..%2f..%2fsecret.txt": (404, 404),
    "/files/..%5Csecret.txt": (404, 404),
    "/files/%2Fetc%2Fpasswd": (404, 404),
    "/files//etc/passwd": (404, 404),
    "/files/%00": (404, 404),
    "/files/file.txt%00.html": (404, 404),
    "/filesystem": (404, 404),
    "/other": (404, 404),
}


# Older releases of aiohttp answer 403 to these.
ABSOLUTE = ["/files//file.txt", "/files/%2Fetc%2Fpasswd", "/files//etc/passwd"]


@on_one_loop
@pytest.mark.parametrize("follows", [False, True], ids=["stays", "follows"])
@pytest.mark.parametrize("target", TARGETS)
async def test_a_folder_answers_as_that_of_aiohttp(target: str, follows: bool, tree: Path) -> None:
    apps = web.Application(), web.Application()
    apps[0].router.add_static("/files", tree, follow_symlinks=follows)
    add_static(apps[1].router, "/files", tree, follow_symlinks=follows)

    replies = []
    for app in apps:
        async with served(app) as server, server.connected() as client:
            # The second from the cache.
            replies += [await client.ask(target), await client.ask(target)]

    statuses = [reply.status for reply in replies]
    if target in ABSOLUTE and statuses[0] == 403:
        assert statuses == [403] * 4
    else:
        assert statuses == [TARGETS[target][follows]] * 4
    theirs, mine = replies[0], replies[-1]
    assert mine.body == theirs.body
    assert b"secret" not in mine.body or (follows and "/out" in target)
    if mine.status == 200:
        for name in ("Content-Type", "Content-Length", "ETag", "Last-Modified"):
            assert mine.headers[name] == theirs.headers[name]


@on_one_loop
@pytest.mark.parametrize("target", ["/files", "/files/", "/files/below", "/files/below/"])
async def test_an_index_is_that_of_aiohttp(target: str, tree: Path) -> None:
    apps = web.Application(), web.Application()
    apps[0].router.add_static("/files", tree, show_index=True)
    add_static(apps[1].router, "/files", tree, show_index=True)

    replies = []
    for app in apps:
        async with served(app) as server:
            replies.append(await server.ask(target))

    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].body == replies[1].body
    assert replies[1].headers["Content-Type"] == "text/html; charset=utf-8"


@on_one_loop
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_a_folder_is_only_to_read(method: str, tree: Path) -> None:
    app = web.Application()
    add_static(app.router, "/files", tree)

    async with served(app) as server:
        reply = await server.ask("/files/file.txt", method, Content_Length="0")

    assert reply.status == 405
    assert reply.headers["Allow"] == "GET,HEAD"


async def test_a_name_that_no_file_can_have_is_missing(tree: Path) -> None:
    """aiohttp's answers 500."""
    app = web.Application()
    add_static(app.router, "/files", tree)

    async with served(app) as server:
        replies = [
            await server.ask("/files/" + name)
            for name in ("a" * 256, "a" * 250 + ".html", "/".join(["below"] * 1000))
        ]

    assert [reply.status for reply in replies] == [404] * 3


async def test_a_folder_does_all_that_a_file_does(tree: Path, by_kernel: list[int]) -> None:
    make(tree / "large.txt", BODY[:LARGE])
    app = web.Application()
    add_static(app.router, "/files/", str(tree))

    async with served(app) as server, server.connected() as client:
        whole = await client.ask("/files/large.txt")
        head = await client.ask("/files/large.txt", "HEAD")
        part = await client.ask("/files/large.txt", Range="bytes=5-9")
        same = await client.ask("/files/large.txt", If_None_Match=whole.headers["ETag"])
        encoded = await client.ask("/files/below/file.txt", Accept_Encoding="gzip")

    assert whole.body == BODY[:LARGE]
    assert sum(by_kernel) == LARGE - _sending._FIRST
    assert (head.body, head.headers["Content-Length"]) == (b"", str(LARGE))
    assert (part.status, part.body) == (206, BODY[5:10])
    assert same.status == 304
    assert encoded.body == b"below, encoded"


async def test_a_file_of_a_folder_needs_no_thread_twice(tree: Path, lasting: FileCache) -> None:
    executor = CountingExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    app = web.Application()
    add_static(app.router, "/files", tree, cache=lasting)

    async with served(app) as server, server.connected() as client:
        calls = []
        for _ in range(3):
            await client.ask("/files/file.txt")
            calls.append(executor.calls)

    # One for the name, and one for the file.
    assert calls == [2, 2, 2]


async def test_a_folder_remembers_so_many_names_and_no_more(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_static, "_MOST_NAMES", 2)
    app = web.Application()
    resource = add_static(app.router, "/files", tree)

    async with served(app) as server, server.connected() as client:
        targets = ("file.txt", "index.html", "link.txt", "below/file.txt", "file.txt", "missing")
        statuses = [(await client.ask(f"/files/{name}")).status for name in targets]

    assert statuses == [200] * 5 + [404]
    assert len(resource._resolved) <= 2


async def test_a_folder_remembers_no_long_name(tree: Path) -> None:
    app = web.Application()
    resource = add_static(app.router, "/files", tree)
    names = ["below" + "/" * (n - len("belowfile.txt")) + "file.txt" for n in (256, 257, 4000)]

    async with served(app) as server, server.connected() as client:
        bodies = [(await client.ask(f"/files/{name}")).body for name in names]

    assert bodies == [b"below"] * 3
    assert list(resource._resolved) == names[:1]


async def test_a_link_of_a_folder_that_leads_elsewhere_shows_in_time(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = web.Application()
    add_static(app.router, "/files", tree, cache=FileCache(seconds=0))
    bodies = []
    for seconds in (1000.0, -1.0):
        monkeypatch.setattr(_static, "_NAME_SECONDS", seconds)
        link = tree / f"link{seconds}.txt"
        link.symlink_to(tree / "index.html")
        async with served(app_of(tree)) as server:
            bodies.append((await server.ask(f"/files/{link.name}")).body)
            link.unlink()
            link.symlink_to(tree / "below" / "file.txt")
            bodies.append((await server.ask(f"/files/{link.name}")).body)

    assert bodies == [b"index", b"index", b"index", b"below"]


def app_of(folder: Path) -> web.Application:
    app = web.Application()
    add_static(app.router, "/files", folder)
    return app


async def test_a_folder_takes_limits(tree: Path, log: Log) -> None:
    make(tree / "large.txt", BODY[:LARGE])
    app = web.Application()
    add_static(app.router, "/files", tree, timeout=LONG, limits=Limits(stall=0.1))

    async def narrow(request: web.BaseRequest, response: web.StreamResponse) -> None:
        carrier = request.get_extra_info("socket")
        carrier.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)

    app.on_response_prepare.append(narrow)
    async with served(app) as server, server.connected(4096) as client:
        await client.send("/files/large.txt")
        while not log.lines:
            await asyncio.sleep(0.01)
        body = await client.read_to_end()

    assert len(body) < LARGE
    [(level, line)] = log.lines
    assert (level, line[:31]) == ("INFO", "GET /files/large.txt: stalled: ")


async def test_a_route_of_a_folder_is_defined_as_aiohttps(tree: Path) -> None:
    app = web.Application()

    routes = app.add_routes([static("/files", tree, name="files", show_index=True)])

    assert sorted(route.method for route in routes) == ["GET", "HEAD"]
    resource = app.router["files"]
    assert isinstance(resource, StaticResource)
    assert isinstance(resource, web.StaticResource)
    async with served(app) as server:
        assert (await server.ask("/files/file.txt")).body == BODY[:SMALL]
        assert b"Index of /." in (await server.ask("/files")).body


def test_urls_are_those_of_aiohttp(tree: Path) -> None:
    routers = web.Application().router, web.Application().router
    theirs = routers[0].add_static("/files", tree, append_version=True)
    mine = add_static(routers[1], "/files", tree, append_version=True)

    for name in ("file.txt", "/file.txt", "two words & more.txt", "missing", "../secret.txt"):
        for version in (None, False, True):
            options: Any = {"filename": name, "append_version": version}
            assert mine.url_for(**options) == theirs.url_for(**options)
    assert "v" in mine.url_for(filename="file.txt").query
    assert str(mine.url_for(filename="a%b c", append_version=False)) == "/files/a%25b%20c"


@pytest.mark.parametrize("prefix", ["files", "", "files/"])
def test_a_prefix_starts_with_a_slash(prefix: str, tree: Path) -> None:
    with pytest.raises(ValueError, match="a prefix starts with '/'"):
        add_static(web.Application().router, prefix, tree)


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_a_folder_has_to_be_one(name: str, tree: Path) -> None:
    with pytest.raises(ValueError, match=r"does not exist|is not a directory"):
        add_static(web.Application().router, "/files", tree / name)


def test_an_unknown_option_is_refused(tree: Path) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        add_static(web.Application().router, "/", tree, no_such_option=1)  # type: ignore[call-arg]  # wrong on purpose


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "limits": (5, TypeError, "limits must be"),
    "timeout": (-1, ValueError, "out of range"),
    "encodings": (["deflate", "gzip"], ValueError, "deflate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_of_a_folder_is_refused_at_once(name: str, tree: Path) -> None:
    value, kind, words = WRONG[name]
    app = web.Application()
    options: Any = {name: value}

    with pytest.raises(kind, match=words):
        add_static(app.router, "/files", tree, **options)
    with pytest.raises(kind, match=words):
        app.add_routes([static("/files", tree, **options)])


async def test_a_folder_may_be_the_whole_application(tree: Path) -> None:
    app = web.Application()
    add_static(app.router, "/", tree)

    async with served(app) as server:
        assert (await server.ask("/below/file.txt")).body == b"below"


async def test_a_folder_may_be_part_of_a_part(tree: Path) -> None:
    inner, app = web.Application(), web.Application()
    add_static(inner.router, "/files", tree)
    app.add_subapp("/inner", inner)

    async with served(app) as server:
        assert (await server.ask("/inner/files/file.txt")).body == BODY[:SMALL]


async def test_a_file_beside_is_no_other_encoding_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"plain")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"something else"))

    async def handler(request: web.Request) -> web.StreamResponse:
        return FileResponse(tmp_path / "a.txt", encodings=())

    async with served(handler) as server, server.connected() as client:
        reply = await client.ask(Accept_Encoding="gzip")

    assert reply.body == b"plain"
    assert "Vary" not in reply.headers


async def test_encodings_are_taken_in_the_order_of_the_server(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst", ".br"):
        (tmp_path / f"a.txt{suffix}").write_bytes(suffix.encode())

    async def handler(request: web.Request) -> web.StreamResponse:
        return FileResponse(tmp_path / "a.txt", encodings=["gzip", "zstd"])

    async with served(handler) as server, server.connected() as client:
        reply = await client.ask(Accept_Encoding="gzip, br, zstd")

    assert reply.headers["Content-Encoding"] == "zstd"
    assert reply.body == b".zst"


@pytest.mark.parametrize("name", [*WRONG, "progress"])
def test_a_wrong_option_is_refused_at_once(name: str) -> None:
    value, kind, words = {**WRONG, "progress": (1, TypeError, "progress must be")}[name]
    options: Any = {name: value}

    with pytest.raises(kind, match=words):
        FileResponse("a.txt", **options)
