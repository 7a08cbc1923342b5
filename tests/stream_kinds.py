"""Every kind of stream, with a far end that is a plain descriptor and does only what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import pytest
import trio
from anyio.streams.tls import TLSStream
from certificates import client_context, server_context
from conftest import (
    ASYNCIO,
    BUFFER,
    TRIO,
    is_full,
    listen,
    tcp_pair,
    unix_pair,
    until_full,
)
from opened import opened
from waiting import in_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from typing import Any

    Test = Callable[..., Awaitable[None]]

try:
    import aiofastnet
except ImportError:
    # It is written in C, and not built for every Python.
    aiofastnet = None  # type: ignore[assignment]  # a module elsewhere

# Streams over asyncio's transports that send bytes as they are, over a socket.
PLAIN_TRANSPORTS = ["writer-tcp", "writer-unix", "transport", "buffered", "anyio-tcp"]
# And those that encrypt.
TLS_TRANSPORTS = ["writer-tls", "transport-tls"]
if aiofastnet is not None:
    PLAIN_TRANSPORTS.append("fastnet-tcp")
    TLS_TRANSPORTS.append("fastnet-tls")
PIPES = ["pipe", "subprocess"]
TRANSPORTS = PLAIN_TRANSPORTS + TLS_TRANSPORTS
# Sockets that streams of anyio and trio have to themselves.
TRIO_PLAIN = ["trio-tcp", "trio-unix", "anyio-tcp", "anyio-unix"]
TRIO_TLS = ["trio-tls", "anyio-tls"]

# By the library that runs: valid pairs only.
OF_ASYNCIO = [*TRANSPORTS, *PIPES, "anyio-unix", "anyio-tls"]
OF_TRIO = TRIO_PLAIN + TRIO_TLS
ALL = sorted({*OF_ASYNCIO, *OF_TRIO})
PLAIN = [kind for kind in ALL if not kind.endswith("-tls")]


def on(kinds: Iterable[str], **others: Iterable[str]) -> Callable[[Test], Test]:
    """Run a test on each backend that has the kinds; `others` are more parameters."""
    return _on([(ASYNCIO, OF_ASYNCIO), (TRIO, OF_TRIO)], kinds, others)


def on_asyncio(kinds: Iterable[str], **others: Iterable[str]) -> Callable[[Test], Test]:
    """The same, of asyncio's backends only."""
    return _on([(ASYNCIO, OF_ASYNCIO)], kinds, others)


def _on(
    backends: list[tuple[list[Any], list[str]]],
    kinds: Iterable[str],
    others: dict[str, Iterable[str]],
) -> Callable[[Test], Test]:
    rows = [
        pytest.param(*backend.values, kind, *more, id="-".join([str(backend.id), kind, *more]))
        for those, known in backends
        for backend in those
        for kind in kinds
        if kind in known
        for more in product(*others.values())
        # Others send before their `send` returns: nothing is ever left to drain.
        if "draining" not in more or (those is ASYNCIO and kind in [*TRANSPORTS, *PIPES])
    ]
    names = list(others)
    mark = pytest.mark.parametrize(
        ("anyio_backend", "kind", *names), rows, indirect=["anyio_backend"]
    )

    def decorate(test: Test) -> Test:
        return mark(in_time(test))

    return decorate


class Far:
    """The far end of a connection: reads and writes when it is told to, and not before."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def recv(self, nbytes: int) -> bytes:
        return self.sock.recv(nbytes)

    def send(self, data: memoryview) -> int:
        return self.sock.send(data)

    async def read(self, nbytes: int = 1 << 30) -> bytes:
        """Read so many bytes, or to the end, be it a hard one."""
        blocks = []
        while nbytes:
            try:
                block = self.recv(min(nbytes, 1 << 16))
            except BlockingIOError:
                await anyio.wait_readable(self)
                continue
            except (ConnectionError, ssl.SSLError):
                break
            if not block:
                break
            blocks.append(block)
            nbytes -= len(block)
        return b"".join(blocks)

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.send(view[:65536]) :]
            except BlockingIOError:
                await anyio.wait_writable(self)

    def shutdown(self) -> None:
        """Send no more; go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close, and say so with a reset where the protocol has one."""
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class PipeFar(Far):
    """The reading end of a pipe, and the process that writes to it, if any."""

    def __init__(self, fd: int, pid: int | None = None) -> None:
        os.set_blocking(fd, False)
        self._file = os.fdopen(fd, "rb", buffering=0)
        self._pid = pid

    def fileno(self) -> int:
        return self._file.fileno()

    def recv(self, nbytes: int) -> bytes:
        return os.read(self._file.fileno(), nbytes)

    def reset(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
        self._file.close()

    def close(self) -> None:
        self._file.close()


class TLSFar(Far):
    """The encrypting server at the far end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server_context().wrap_bio(self._in, self._out, server_side=True)

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await super().write(self._out.read())
                await anyio.wait_readable(self)
                self._in.write(self.sock.recv(65536))
            else:
                await super().write(self._out.read())
                return

    def recv(self, nbytes: int) -> bytes:
        while True:
            try:
                return self._tls.read(nbytes)
            except ssl.SSLWantReadError:
                encrypted = self.sock.recv(65536)
                if encrypted:
                    self._in.write(encrypted)
                else:
                    self._in.write_eof()

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await super().write(self._out.read())


class _Recording:
    """What both kinds of protocol write down."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: list[Exception | None] = []
        self.heard: list[str] = []
        self.stays_open: bool | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def eof_received(self) -> bool | None:
        self.heard.append("eof_received")
        return self.stays_open

    def pause_writing(self) -> None:
        self.heard.append("pause_writing")

    def resume_writing(self) -> None:
        self.heard.append("resume_writing")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Recorder(_Recording, asyncio.Protocol):
    """A protocol that writes down what it hears."""

    def data_received(self, data: bytes) -> None:
        self.received += data


class BufferedRecorder(_Recording, asyncio.BufferedProtocol):
    """The same, that lends its own buffer."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray(1000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]


@dataclass
class Ends:
    """Our end, as its kind's own API has it, and the far one."""

    stream: Any
    far: Far
    fd: int
    # The kind's own ways to write (as much as is written at once), read, close and abort.
    write: Callable[[bytes], Awaitable[object]]
    read: Callable[[int], Awaitable[bytes]]
    close: Callable[[], Awaitable[object]]
    abort: Callable[[], Awaitable[object]]
    transport: Any = None
    protocol: Any = None
    is_plain: bool = True
    others: list[Any] = field(default_factory=list)

    def is_full(self) -> bool:
        return is_full(self.fd)

    async def until_full(self) -> None:
        await until_full(self.fd)


def of_transport(transport: Any, far: Far, stream: Any = None, protocol: Any = None) -> Ends:
    end = transport.get_extra_info("pipe") or transport.get_extra_info("socket")

    async def write(data: bytes) -> None:
        transport.write(data)

    async def read(nbytes: int) -> bytes:
        while len(protocol.received) < nbytes:
            await anyio.sleep(0.001)
        found = bytes(protocol.received[:nbytes])
        del protocol.received[:nbytes]
        return found

    async def close() -> None:
        transport.close()

    async def abort() -> None:
        transport.abort()

    return Ends(
        transport if stream is None else stream,
        far,
        end.fileno(),
        write,
        read,
        close,
        abort,
        transport,
        protocol,
        transport.get_extra_info("sslcontext") is None,
    )


def of_writer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: Far) -> Ends:
    ends = of_transport(writer.transport, far, writer, writer.transport.get_protocol())
    ends.read = reader.readexactly
    return ends


async def read_exactly(receive: Callable[[], Awaitable[bytes]], nbytes: int) -> bytes:
    found = b""
    while len(found) < nbytes:
        found += await receive()
    return found


def of_anyio(stream: anyio.abc.ByteStream, far: Far) -> Ends:
    read = partial(read_exactly, stream.receive)
    abort = partial(anyio.aclose_forcefully, stream)
    sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    is_plain = not isinstance(stream, TLSStream)
    ends = Ends(
        stream, far, sock.fileno(), stream.send, read, stream.aclose, abort, is_plain=is_plain
    )
    ends.transport = getattr(stream, "_transport", None)
    if ends.transport is not None:
        ends.protocol = ends.transport.get_protocol()
    return ends


def of_trio(stream: Any, sock: socket.socket, far: Far) -> Ends:
    read = partial(read_exactly, stream.receive_some)
    abort = partial(trio.aclose_forcefully, stream)
    is_plain = not isinstance(stream, trio.SSLStream)
    return Ends(
        stream, far, sock.fileno(), stream.send_all, read, stream.aclose, abort, is_plain=is_plain
    )


async def _encrypted(far: TLSFar, open_one: Awaitable[Any]) -> Any:
    """Await the opening of our end, while the far one shakes hands."""
    async with anyio.create_task_group() as group:
        group.start_soon(far.handshake)
        return await open_one


async def _open_writer(kind: str) -> Ends:
    sock, other = unix_pair() if kind == "writer-unix" else tcp_pair()
    if kind != "writer-tls":
        return of_writer(*await asyncio.open_connection(sock=sock), Far(other))
    far = TLSFar(other)
    opening = asyncio.open_connection(sock=sock, ssl=client_context(), server_hostname="localhost")
    return of_writer(*await _encrypted(far, opening), far)


async def _open_fastnet(kind: str) -> Ends:
    sock, other = tcp_pair()
    loop = asyncio.get_running_loop()
    if kind == "fastnet-tcp":
        return of_writer(*await aiofastnet.open_connection(loop, sock=sock), Far(other))
    far = TLSFar(other)
    opening = aiofastnet.open_connection(
        loop, sock=sock, ssl=client_context(), server_hostname="localhost"
    )
    return of_writer(*await _encrypted(far, opening), far)


async def _open_transport(kind: str) -> Ends:
    sock, other = tcp_pair()
    factory = BufferedRecorder if kind == "buffered" else Recorder
    loop = asyncio.get_running_loop()
    if kind != "transport-tls":
        transport, protocol = await loop.create_connection(factory, sock=sock)
        return of_transport(transport, Far(other), None, protocol)
    far = TLSFar(other)
    opening = loop.create_connection(
        factory, sock=sock, ssl=client_context(), server_hostname="localhost"
    )
    transport, protocol = await _encrypted(far, opening)
    return of_transport(transport, far, None, protocol)


async def _open_pipe(kind: str) -> Ends:
    theirs, ours = os.pipe()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        Recorder, os.fdopen(ours, "wb", buffering=0)
    )
    return of_transport(transport, PipeFar(theirs), None, protocol)


async def _open_subprocess(kind: str) -> Ends:
    theirs, ours = os.pipe()
    child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=ours)
    os.close(ours)
    assert child.stdin is not None
    ends = of_transport(
        child.stdin.transport,
        PipeFar(theirs, child.pid),
        child.stdin,
        child.stdin.transport.get_protocol(),
    )
    ends.others.append(child)
    return ends


async def _open_anyio(kind: str) -> Ends:
    stream: Any
    if kind == "anyio-unix":
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/listener")
            listener.listen()
            stream = await anyio.connect_unix(f"{folder}/listener")
            other, _ = listener.accept()
        return of_anyio(stream, Far(other))
    with listen() as listener:
        stream = await anyio.connect_tcp("127.0.0.1", listener.getsockname()[1])
        other, _ = listener.accept()
    sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    if kind == "anyio-tcp":
        return of_anyio(stream, Far(other))
    far = TLSFar(other)
    opening = TLSStream.wrap(
        stream, hostname="localhost", ssl_context=client_context(), standard_compatible=False
    )
    return of_anyio(await _encrypted(far, opening), far)


async def _open_trio(kind: str) -> Ends:
    sock, other = unix_pair() if kind == "trio-unix" else tcp_pair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    if kind != "trio-tls":
        return of_trio(stream, sock, Far(other))
    far = TLSFar(other)
    encrypting = trio.SSLStream(
        stream, client_context(), server_hostname="localhost", https_compatible=True
    )
    await _encrypted(far, encrypting.do_handshake())
    return of_trio(encrypting, sock, far)


OPENERS = {
    "writer": _open_writer,
    "fastnet": _open_fastnet,
    "transport": _open_transport,
    "buffered": _open_transport,
    "pipe": _open_pipe,
    "subprocess": _open_subprocess,
    "anyio": _open_anyio,
    "trio": _open_trio,
}


@contextlib.asynccontextmanager
async def open_ends(kind: str) -> AsyncIterator[Ends]:
    """Open a stream of this kind, and leave nothing of it at the end."""
    ends = await OPENERS[kind.partition("-")[0]](kind)
    item = str(ends.fd), opened()[str(ends.fd)]
    try:
        yield ends
    finally:
        ends.far.close()
        with anyio.CancelScope(shield=True):
            # A pipe of asyncio that is closed already cannot be aborted any more.
            with contextlib.suppress(OSError, trio.BrokenResourceError, AttributeError):
                await ends.abort()
            for child in ends.others:
                await child.wait()
            with anyio.move_on_after(5):
                # A transport closes its socket some turns later.
                while item in opened().items():
                    await anyio.sleep(0.001)
        if kind.startswith("fastnet"):
            # It asks its transport when it is collected, be it in a thread that reads a file, where
            # that transport does not answer.
            ends.stream._transport = SimpleNamespace(is_closing=lambda: True)
