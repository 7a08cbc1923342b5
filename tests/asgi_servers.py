"""ASGI servers in threads of the test process, and a client that does only what it is told."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
import uvloop
from certificates import client_context, server_context
from waiting import PATIENCE, until

from asend.http import FILES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    Message = MutableMapping[str, Any]
    App = Callable[[Message, Any, Callable[[Message], Awaitable[None]]], Awaitable[None]]

LOOPS = ["asyncio", "uvloop"]
KINDS = [(loop, http) for loop in LOOPS for http in ("httptools", "h11")]


class Server:
    """A server on a port, whose application can be changed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._server: uvicorn.Server | None = None
        self.app: App | None = None
        self._running = 0
        # What left the applications as an exception.
        self.raised: list[BaseException] = []

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        assert self.app is not None
        self._running += 1
        try:
            await self.app(scope, receive, send)
        except BaseException as error:
            self.raised.append(error)
            raise
        finally:
            self._running -= 1

    def is_idle(self) -> bool:
        """No connection is left, and no task."""
        state = None if self._server is None else self._server.server_state
        return not self._running and (state is None or not (state.connections or state.tasks))

    def until_asked(self) -> None:
        """Wait until an application runs."""
        until(lambda: self._running)

    def until_idle(self) -> None:
        until(self.is_idle)


@contextmanager
def uvicorn_server(loop: str, http: str, *, is_tls: bool = False) -> Iterator[Server]:
    with socket.socket() as listener, pytest.MonkeyPatch.context() as patch:
        # Small buffers, which connections inherit, so that there is something to wait for.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        listener.bind(("127.0.0.1", 0))
        server = Server(listener.getsockname()[1])
        config = uvicorn.Config(
            server, http=http, loop="none", ws="none", lifespan="off", log_config=None
        )
        if is_tls:
            config.load()
            config.ssl = server_context()
            patch.setattr(config, "load", lambda: None)
        running = server._server = uvicorn.Server(config)

        def run() -> None:
            # Not by its own `run`: before 0.36 that sets the policy of the whole process.
            new_loop = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(running.serve([listener]))

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: running.started)
        try:
            yield server
        finally:
            running.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[Server]:
    with uvicorn_server(*request.param) as server:
        yield server


@pytest.fixture
def server(kind: Server, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """A server that has nothing to do before and after the test."""
    caplog.set_level(logging.INFO, "asend.asgi")
    yield kind
    kind.until_idle()
    FILES.clear()
    # Their tracebacks refer to files.
    kind.raised.clear()


ON_UVICORN = pytest.mark.parametrize("kind", KINDS, ids="-".join, indirect=True)


@contextmanager
def hypercorn_server(worker: str) -> Iterator[Server]:
    import hypercorn.asyncio
    import hypercorn.config

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Server(listener.getsockname()[1])
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.fileno()}"]
        # Connections end with their clients, whom it need not cut off then.
        config.graceful_timeout = 5
        over = threading.Event()

        async def run() -> None:
            async def until_over() -> None:
                await asyncio.get_running_loop().run_in_executor(None, over.wait)

            await hypercorn.asyncio.serve(server, config, shutdown_trigger=until_over)

        async def run_on_trio() -> None:
            import hypercorn.trio
            import trio

            async def until_over() -> None:
                await trio.to_thread.run_sync(over.wait)

            await hypercorn.trio.serve(server, config, shutdown_trigger=until_over)

        if worker == "trio":
            import trio

            thread = threading.Thread(target=trio.run, args=(run_on_trio,))
        else:
            thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        try:
            yield server
        finally:
            over.set()
            thread.join()
            # It has closed the descriptor.
            listener.detach()


class Reply:
    def __init__(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    def __getitem__(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} is there twice"
        return values[0] if values else None


class Client:
    """A connection to a server, that reads when it is told to and not before."""

    def __init__(self, server: Server, *, is_tls: bool = False, buffer: int = 65536) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.connect(("127.0.0.1", server.port))
        if is_tls:
            self.sock = client_context().wrap_socket(self.sock, server_hostname="localhost")
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sock.close()

    def ask(self, path: str = "/", method: str = "GET", **fields: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        status = int(self._file.readline().split()[1])
        fields = []
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            fields.append((name, value.strip()))
        return status, fields

    def reply(self, method: str = "GET") -> Reply:
        status, fields = self.head()
        reply = Reply(status, fields, b"")
        if method == "HEAD" or status == 304:
            pass
        elif reply["transfer-encoding"] == "chunked":
            reply.body = b"".join(self._chunks())
        else:
            reply.body = self._file.read(int(reply["content-length"] or 0))
        return reply

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            assert self._file.readline() == b"\r\n"
        assert self._file.readline() == b"\r\n"

    def get(self, path: str = "/", method: str = "GET", **fields: str) -> Reply:
        self.ask(path, method, **fields)
        return self.reply(method)

    def rest(self) -> bytes:
        """Read to the end of the connection, be it a hard one."""
        blocks = []
        try:
            while block := self._file.read1(1 << 16):
                blocks.append(block)
        except ConnectionError:
            pass
        return b"".join(blocks)

    def is_reset(self) -> bool:
        """Read to the end, and tell whether that was a hard one."""
        try:
            while self._file.read1(1 << 20):
                pass
        except ConnectionResetError:
            return True
        return False

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Take what asend and uvicorn logged, but not what uvicorn logs of every request."""
    records = [
        record
        for record in caplog.records
        if record.levelno >= logging.INFO and record.name in ("asend.asgi", "uvicorn.error")
    ]
    said = [f"{record.levelname} {record.name} {record.getMessage().strip()}" for record in records]
    caplog.clear()
    return [line for line in said if not line.startswith("INFO uvicorn")]
