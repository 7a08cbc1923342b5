"""The file server in the test process: real sockets, a loop in a thread, and short limits."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import struct
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pytest
import uvloop
from conftest import took
from processes import FILE_SERVER
from waiting import PATIENCE, until

with pytest.MonkeyPatch.context() as _patch:
    # Where `python examples/file_server` has it.
    _patch.syspath_prepend(FILE_SERVER)
    from activity import Activity, Line
    from folder import Folder
    from options import Options
    from parser import Request, RequestParser  # noqa: F401  (for tests)
    from service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
DIGITS = b"0123456789"
# Not periodic in any power of two, so that a block sent twice or left out shows. More than what is
# kept in memory, and more than what goes with a head.
DATA = b"".join(b"%d," % n for n in range(20_000))
# More than all buffers between the server and a client that does not read.
HUGE = 16 * 1024 * 1024
# Of sockets: small, so that there is something to wait for.
BUFFER = 64 * 1024
# Limits that no test is to run into by accident; those of a test of limits are short instead.
AMPLE = {"header_timeout": 60.0, "keep_alive": 60.0, "stall": 60.0, "cache_seconds": 60.0}
# Seconds of a limit that a test has to wait for.
SHORT = 0.1
# RFC 9110, sections 5.1 and 5.5, but what this server says is in ASCII, and never nothing.
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [A-Z][A-Za-z -]+")


class Reply(NamedTuple):
    status: int
    # By name in lower case.
    fields: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        return self.fields.get("connection") == "close"

    def undated(self) -> Reply:
        """Return what has to be the same whenever it was sent."""
        assert self.fields["date"].endswith(" GMT")
        return self._replace(fields={k: v for k, v in self.fields.items() if k != "date"})


class Client:
    """A connection on which bytes are written as they are, and replies read strictly.

    Args:
        buffer: Bytes that the kernel keeps of each direction; None: as many as it likes.
    """

    def __init__(self, port: int, *, buffer: int | None = None) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        if buffer is not None:
            set_buffers(self.sock, buffer)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, target: str, *fields: str, method: str = "GET") -> None:
        self.send(request(target, *fields, method=method))

    def get(self, target: str, *fields: str, method: str = "GET") -> Reply:
        self.ask(target, *fields, method=method)
        return self.reply(method)

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the status and the fields of a response."""
        match = STATUS_LINE.fullmatch(self._line())
        assert match is not None
        fields: dict[str, str] = {}
        while line := self._line():
            field = FIELD.fullmatch(line)
            assert field is not None, line
            name = field[1].decode().lower()
            assert name not in fields, line
            fields[name] = field[2].decode()
        return int(match[1]), fields

    def reply(self, method: str = "GET") -> Reply:
        """Read one response, no byte more."""
        status, fields = self.head()
        if method == "HEAD" or status == 304:
            return Reply(status, fields, b"")
        if "content-length" in fields:
            assert "transfer-encoding" not in fields
            return Reply(status, fields, self.read(int(fields["content-length"])))
        assert fields["transfer-encoding"] == "chunked"
        return Reply(status, fields, b"".join(self._chunks()))

    def replies(self) -> list[Reply]:
        """Read responses to the end of the connection."""
        found = []
        while self._file.peek(1):
            found.append(self.reply())
        return found

    def read(self, nbytes: int) -> bytes:
        data = self._file.read(nbytes)
        assert len(data) == nbytes, "the connection has ended too early"
        return data

    def rest(self) -> bytes:
        """Read to the end of the connection, be it a hard one."""
        blocks = []
        try:
            while block := self._file.read1(1 << 20):
                blocks.append(block)
        except ConnectionError:
            pass
        return b"".join(blocks)

    def is_reset(self) -> bool:
        """Read to the end, and tell whether it was a hard one."""
        try:
            while self._file.read1(1 << 20):
                pass
        except ConnectionResetError:
            return True
        return False

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()

    def _line(self) -> bytes:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), line
        return line[:-2]

    def _chunks(self) -> Iterator[bytes]:
        while nbytes := int(self._line(), 16):
            yield self.read(nbytes)
            assert self._line() == b""
        assert self._line() == b""


def set_buffers(sock: socket.socket, nbytes: int) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, nbytes)


def request(target: str, *fields: str, method: str = "GET") -> bytes:
    """Return a request of HTTP/1.1, in which everything is as given."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


class Complaints(logging.Handler):
    """What the loop of one thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # How long a callback may take is judged for all tests.
        if record.thread == self._thread and not took(record):
            self._texts.append(self.format(record))

    def take(self) -> list[str]:
        taken, self._texts = self._texts, []
        return taken


class Server:
    """A server that listens on a port, in a thread, by which it is made.

    Attributes:
        lines: Of the access log.
        complaints: What was logged besides.
        service: Belongs to the thread: to be touched by `run`.
        ahead: Seconds by which the clock of the folder is before that of the service.
    """

    def __init__(
        self, options: Options, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.lines: list[Line] = []
        self.complaints = Complaints()
        self.activity = Activity(log=self.lines.append)
        self.service = Service(options, self.activity)
        self.ahead = 0.0
        self.forget()
        self.port: int = sock.getsockname()[1]
        self.loop = loop
        self.is_over = asyncio.Event()

    def connect(self, *, buffer: int | None = None) -> Client:
        return Client(self.port, buffer=buffer)

    def get(self, target: str, *fields: str, method: str = "GET") -> Reply:
        """Ask twice on one connection, as the second time it may come from memory.

        Both have to be the same, but for what is made anew each time.
        """
        with self.connect() as client:
            first = client.get(target, *fields, method=method)
            if first.is_last:
                assert client.rest() == b""
                return first
            second = client.get(target, *fields, method=method)
            client.end()
            assert client.rest() == b""
        if not first.fields.get("content-type", "").startswith("multipart/"):
            assert second.undated() == first.undated()
        return second

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in the server's thread."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # it is the caller's
                future.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return future.result(PATIENCE)

    def settle(self) -> None:
        """Have the server see all that was sent to it."""
        # What is there when the loop looks is handled in its next turn; a client that has connected
        # takes some more until it is read from.
        for _ in range(8):
            self.run(lambda: None)

    def forget(self) -> None:
        """Close all files that are kept open, and know nothing of any."""
        service = self.service
        service.folder = Folder(service.options, lambda: service.now() + self.ahead)

    def begin_stop(self, seconds: float) -> Future[int]:
        """Begin to stop; the result is how many responses were cut off."""
        return asyncio.run_coroutine_threadsafe(self.service.stop(seconds), self.loop)

    def check(self) -> None:
        """Have nothing left of what a test did."""
        # Clients have closed: nothing is to be waited for until a limit ends it.
        self.settle()
        until(lambda: not (self.activity.connections or self.activity.transfers))
        self.run(self.forget)
        # What goes wrong by a client's doing is counted, and nothing to be logged.
        assert self.complaints.take() == []

    async def serve(self, sock: socket.socket, is_ready: threading.Event) -> None:
        logging.getLogger().addHandler(self.complaints)
        self.service.start()
        server = await self.loop.create_server(self.service.connect, sock=sock)
        is_ready.set()
        await self.is_over.wait()
        server.close()
        await self.service.stop(0)
        self.forget()
        # Nothing is served any more, and a test may have its own.
        logging.getLogger().removeHandler(self.complaints)


@contextmanager
def serving(root: Path, loop: str, **options: object) -> Iterator[Server]:
    """Run a server, which is to have no connection in the end."""
    is_ready = threading.Event()
    found: list[Server] = []

    def run() -> None:
        is_debug = loop == "asyncio"
        with asyncio.Runner(loop_factory=LOOPS[loop], debug=is_debug) as runner:
            settings = Options(root=os.path.realpath(root), **{**AMPLE, **options})
            found.append(Server(settings, sock, runner.get_loop()))
            runner.run(found[0].serve(sock, is_ready))

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        # Connections inherit them.
        set_buffers(sock, BUFFER)
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=run)
        thread.start()
        assert is_ready.wait(PATIENCE)
        server = found[0]
        try:
            yield server
            server.check()
        finally:
            server.run(server.is_over.set)
            thread.join()


@pytest.fixture(scope="module", params=LOOPS)
def running(request: pytest.FixtureRequest, root: Path) -> Iterator[Server]:
    """A server of a module's own folder, on each loop."""
    with serving(root, request.param) as server:
        yield server


@pytest.fixture
def site(running: Server) -> Iterator[Server]:
    """The same, of which a test leaves nothing."""
    yield running
    running.check()
