"""Loops of asyncio and uvloop that send by asend: like asyncio's to who calls, aiohttp, uvicorn."""

from __future__ import annotations

import array
import asyncio
import functools
import inspect
import io
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
import warnings
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
import pytest
import uvloop
from aiohttp import web
from certificates import client_context, server_context
from conftest import DATA, Peer, unix_pair
from processes import environment

import asend
from asend import loops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from typing import Any

    NewLoop = Callable[[], asyncio.AbstractEventLoop]
    Call = Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, object]]


NEW_LOOPS = [
    pytest.param(loops.SelectorEventLoop, id="asyncio"),
    pytest.param(lambda: loops.UvloopEventLoop(), id="uvloop"),
]
ON_BOTH = pytest.mark.parametrize("new_loop", NEW_LOOPS)
# The first in debug mode, as all tests here are.
BACKENDS = [
    pytest.param(
        ("asyncio", {"debug": True, "loop_factory": loops.SelectorEventLoop}), id="asyncio"
    ),
    pytest.param(("asyncio", {"loop_factory": loops.new_event_loop}), id="uvloop"),
]
METHODS = ["sock_sendall", "sock_sendfile", "sendfile"]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


# --- the classes


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["SelectorEventLoop", "UvloopEventLoop"])
def test_the_methods_take_what_those_of_asyncio_take(kind: str, name: str) -> None:
    theirs = getattr(asyncio.SelectorEventLoop, name)
    ours = getattr(getattr(loops, kind), name)

    assert inspect.iscoroutinefunction(ours)
    assert untyped(ours) == untyped(theirs)
    assert inspect.getdoc(ours)


def untyped(function: Callable[..., object]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [each.replace(annotation=inspect.Parameter.empty) for each in parameters]


def test_all_else_is_the_loops_own() -> None:
    for kind, base in [
        (loops.SelectorEventLoop, asyncio.SelectorEventLoop),
        (loops.UvloopEventLoop, uvloop.Loop),
    ]:
        own = {name for name in dir(kind) if getattr(kind, name) is not getattr(base, name, None)}

        assert issubclass(kind, base)
        assert {name for name in own if not name.startswith("__")} == set(METHODS)


def test_the_class_over_uvloop_is_made_once() -> None:
    kind = loops.UvloopEventLoop

    assert loops.UvloopEventLoop is kind
    assert (kind.__module__, kind.__qualname__) == ("asend.loops", "UvloopEventLoop")
    assert inspect.getdoc(kind) != inspect.getdoc(uvloop.Loop)


def test_there_is_no_other_name() -> None:
    with pytest.raises(
        AttributeError, match=r"'asend\.loops' has no attribute 'ProactorEventLoop'"
    ):
        loops.ProactorEventLoop  # type: ignore[attr-defined]  # noqa: B018  # the look-up fails


def test_a_new_loop_is_uvloops_where_that_is_installed() -> None:
    with closing(loops.new_event_loop()) as loop:
        assert type(loop) is loops.UvloopEventLoop


@pytest.fixture
def uvloop_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that uvloop was found, for the time of a test."""
    monkeypatch.setattr(loops, "_over_uvloop", functools.cache(loops._over_uvloop.__wrapped__))
    monkeypatch.delitem(sys.modules, "uvloop")


@pytest.mark.usefixtures("uvloop_to_be_found")
def test_a_new_loop_is_asyncios_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    with closing(loops.new_event_loop()) as loop:
        assert type(loop) is loops.SelectorEventLoop
    with pytest.raises(ModuleNotFoundError, match="uvloop"):
        loops.UvloopEventLoop  # noqa: B018  # the look-up fails


@pytest.mark.usefixtures("uvloop_to_be_found")
def test_a_uvloop_that_does_not_load_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('built for another Python')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ImportError, match="another Python"):
        loops.new_event_loop()


# --- to run programs on


async def send_hello() -> bytes:
    with closing(Peer(*unix_pair())) as peer:
        await asyncio.get_running_loop().sock_sendall(peer.sock, b"hello")
        return peer.read_now()


@pytest.mark.parametrize("new_loop", [*NEW_LOOPS, pytest.param(loops.new_event_loop, id="new")])
def test_a_runner_takes_them(new_loop: NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop, debug=True) as runner:
        assert runner.run(send_hello()) == b"hello"
        assert isinstance(runner.get_loop(), loops._Sends)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run has it since Python 3.12")
@ON_BOTH
def test_asyncio_run_takes_them(new_loop: NewLoop) -> None:
    assert asyncio.run(send_hello(), loop_factory=new_loop) == b"hello"


@ON_BOTH
def test_the_methods_can_be_run_by_the_loop_itself(new_loop: NewLoop) -> None:
    with closing(new_loop()) as loop, closing(Peer(*unix_pair())) as peer:
        loop.run_until_complete(loop.sock_sendall(peer.sock, b"hello"))

        assert peer.read_now() == b"hello"


def test_a_loop_without_writers_does_not_call_itself_for_ever() -> None:
    """asend hands over to `sock_sendall` of such a loop, which is asend's here."""

    class Writerless(loops.SelectorEventLoop):
        def add_writer(self, *_: object) -> None:
            raise NotImplementedError

    with (
        closing(Peer(*unix_pair())) as peer,
        asyncio.Runner(loop_factory=Writerless) as runner,
        pytest.raises(asend.BusyResourceError),
    ):
        runner.run(runner.get_loop().sock_sendall(peer.sock, DATA))


# --- sockets


@pytest.mark.anyio
async def test_sock_sendall_sends_all_bytes_of_wide_items(peer: Peer) -> None:
    """The loops' own hang on these, or leave three quarters out (gh-135862)."""
    numbers = array.array("i", range(700_000))
    loop = asyncio.get_running_loop()

    reading = asyncio.create_task(peer.read(len(bytes(numbers))))
    await loop.sock_sendall(peer.sock, numbers)

    assert await reading == bytes(numbers)


@pytest.mark.anyio
async def test_sock_sendfile_sends_by_the_kernel(
    peer: Peer, data_file: Path, by_kernel: list[int]
) -> None:
    loop = asyncio.get_running_loop()

    with data_file.open("rb") as file:
        reading = asyncio.create_task(peer.read(2_000_000))
        sent = await loop.sock_sendfile(peer.sock, file, 1000, 2_000_000, fallback=False)

        assert await reading == DATA[1000:2_001_000]
        assert sent == sum(by_kernel) == 2_000_000
        assert file.tell() == 2_001_000


@pytest.mark.anyio
async def test_sock_sendfile_reads_what_the_kernel_cannot_send(peer: Peer) -> None:
    loop = asyncio.get_running_loop()

    reading = asyncio.create_task(peer.read(len(DATA)))
    sent = await loop.sock_sendfile(peer.sock, io.BytesIO(DATA))

    assert await reading == DATA
    assert sent == len(DATA)


@pytest.mark.anyio
@pytest.mark.parametrize("fallback", [False, None])
async def test_sock_sendfile_refuses_to_read_if_so_told(
    unix_peer: Peer, fallback: bool | None
) -> None:
    """None is the default of `AbstractEventLoop`."""
    loop = asyncio.get_running_loop()

    with pytest.raises(asyncio.SendfileNotAvailableError):
        await loop.sock_sendfile(unix_peer.sock, io.BytesIO(DATA), fallback=fallback)

    assert unix_peer.read_now() == b""


@pytest.mark.anyio
async def test_a_socket_that_a_transport_owns_is_refused(unix_peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=unix_peer.sock)

    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_sendall(unix_peer.sock, DATA)

    assert unix_peer.read_now() == b""
    transport.abort()


@pytest.mark.anyio
async def test_a_second_call_on_a_socket_is_refused(unix_peer: Peer) -> None:
    """With the loops' own the first one never ends."""
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(loop.sock_sendall(unix_peer.sock, DATA))
    await unix_peer.until_full()

    with pytest.raises(asend.BusyResourceError):
        await loop.sock_sendall(unix_peer.sock, DATA)

    reading = asyncio.create_task(unix_peer.read(len(DATA)))
    await first
    assert await reading == DATA


# --- errors, as asyncio's


@contextmanager
def pair(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(type=kind)
    with ours, theirs:
        ours.setblocking(False)
        yield ours


@contextmanager
def encrypting() -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context()
    with (
        pair() as sock,
        context.wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False
        ) as wrapped,
    ):
        yield wrapped


async def all_on_ssl(loop: asyncio.AbstractEventLoop) -> None:
    with encrypting() as sock:
        await loop.sock_sendall(sock, b"data")


async def all_on_blocking_ssl(loop: asyncio.AbstractEventLoop) -> None:
    with encrypting() as sock:
        sock.setblocking(True)
        await loop.sock_sendall(sock, b"data")


async def file_on_ssl(loop: asyncio.AbstractEventLoop) -> None:
    with encrypting() as sock, Path(__file__).open("rb") as file:
        await loop.sock_sendfile(sock, file)


async def all_on_closed(loop: asyncio.AbstractEventLoop) -> None:
    with pair() as sock:
        sock.close()
        await loop.sock_sendall(sock, b"data")


async def file_on_closed(loop: asyncio.AbstractEventLoop) -> None:
    with pair() as sock, Path(__file__).open("rb") as file:
        sock.close()
        await loop.sock_sendfile(sock, file)


async def all_of_text(loop: asyncio.AbstractEventLoop) -> None:
    with pair() as sock:
        await loop.sock_sendall(sock, "text")  # type: ignore[arg-type]  # refused


async def all_to_nobody(loop: asyncio.AbstractEventLoop) -> None:
    with pair() as sock:
        sock.shutdown(socket.SHUT_WR)
        await loop.sock_sendall(sock, b"data")


async def file_of_text(loop: asyncio.AbstractEventLoop) -> None:
    with pair() as sock, Path(__file__).open() as file:
        await loop.sock_sendfile(sock, file)  # type: ignore[arg-type]  # refused


async def file_by_datagrams(loop: asyncio.AbstractEventLoop) -> None:
    with pair(socket.SOCK_DGRAM) as sock, Path(__file__).open("rb") as file:
        await loop.sock_sendfile(sock, file)


def file_with(offset: Any, count: Any) -> Call:
    async def call(loop: asyncio.AbstractEventLoop) -> None:
        with pair() as sock, Path(__file__).open("rb") as file:
            await loop.sock_sendfile(sock, file, offset, count)

    return call


@asynccontextmanager
async def connected(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.BaseProtocol] = asyncio.Protocol
) -> AsyncIterator[tuple[asyncio.Transport, Peer]]:
    """A transport of the loop, and its peer."""
    with closing(Peer(*unix_pair())) as peer:
        transport, _ = await loop.create_connection(protocol, sock=peer.sock)
        try:
            yield transport, peer
        finally:
            if not transport.is_closing():
                transport.abort()
            await asyncio.sleep(0)


def stream_with(offset: Any, count: Any) -> Call:
    async def call(loop: asyncio.AbstractEventLoop) -> None:
        async with connected(loop) as (transport, _):
            with Path(__file__).open("rb") as file:
                await loop.sendfile(transport, file, offset, count)

    return call


async def stream_of_text(loop: asyncio.AbstractEventLoop) -> None:
    async with connected(loop) as (transport, _):
        with Path(__file__).open() as file:
            await loop.sendfile(transport, file)  # type: ignore[arg-type]  # refused


async def stream_that_closes(loop: asyncio.AbstractEventLoop) -> None:
    async with connected(loop) as (transport, _):
        transport.close()
        with Path(__file__).open("rb") as file:
            # The count is wrong, too, but that is not asked first.
            await loop.sendfile(transport, file, 0, -1)


async def stream_of_memory(loop: asyncio.AbstractEventLoop) -> None:
    async with connected(loop) as (transport, _):
        await loop.sendfile(transport, io.BytesIO(DATA), fallback=False)


WRONG: dict[str, Call] = {
    "sendall-ssl": all_on_ssl,
    "sendall-ssl-blocking": all_on_blocking_ssl,
    "sendall-closed": all_on_closed,
    "sendall-text": all_of_text,
    "sendall-shut-down": all_to_nobody,
    "sock_sendfile-ssl": file_on_ssl,
    "sock_sendfile-closed": file_on_closed,
    "sock_sendfile-text": file_of_text,
    "sock_sendfile-datagrams": file_by_datagrams,
    "sock_sendfile-count-0": file_with(0, 0),
    "sock_sendfile-count-float": file_with(0, 1.5),
    "sock_sendfile-offset-negative": file_with(-1, None),
    "sock_sendfile-offset-str": file_with("0", None),
    "sendfile-count-negative": stream_with(0, -1),
    "sendfile-count-str": stream_with(0, "5"),
    "sendfile-offset-negative": stream_with(-1, None),
    "sendfile-offset-float": stream_with(1.5, None),
    "sendfile-text": stream_of_text,
    "sendfile-closing": stream_that_closes,
    "sendfile-memory": stream_of_memory,
}


def error_on(new_loop: NewLoop, call: Call, *, debug: bool) -> tuple[type, str]:
    with (
        asyncio.Runner(loop_factory=new_loop, debug=debug) as runner,
        pytest.raises(Exception) as caught,  # noqa: PT011  # it is what is compared
    ):
        runner.run(call(runner.get_loop()))
    return caught.type, str(caught.value)


@ON_BOTH
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_the_error_that_it_is_in_asyncio(
    case: str, debug: bool, new_loop: NewLoop
) -> None:
    kind, words = error_on(new_loop, WRONG[case], debug=debug)

    their_kind, their_words = error_on(asyncio.SelectorEventLoop, WRONG[case], debug=debug)
    assert issubclass(kind, their_kind)
    assert words == their_words


async def all_with_timeout(loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
    with pair() as sock:
        sock.settimeout(seconds)
        await loop.sock_sendall(sock, b"data")


async def file_with_timeout(loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
    with pair() as sock, Path(__file__).open("rb") as file:
        sock.settimeout(seconds)
        await loop.sock_sendfile(sock, file, 0, 5)


TIMED = pytest.mark.parametrize("timed", [all_with_timeout, file_with_timeout])


@ON_BOTH
@TIMED
@pytest.mark.parametrize("seconds", [None, 5.0])
def test_a_socket_that_may_block_is_refused_in_debug_mode(
    timed: Callable[..., Coroutine[Any, Any, None]], seconds: float | None, new_loop: NewLoop
) -> None:
    call = functools.partial(timed, seconds=seconds)

    ours = error_on(new_loop, call, debug=True)

    theirs = error_on(asyncio.SelectorEventLoop, call, debug=True)
    assert ours == theirs == (ValueError, "the socket must be non-blocking")


@ON_BOTH
@TIMED
def test_a_blocking_socket_is_always_refused(
    timed: Callable[..., Coroutine[Any, Any, None]], new_loop: NewLoop
) -> None:
    """Without debug mode asyncio takes it, and blocks."""
    call = functools.partial(timed, seconds=None)

    assert error_on(new_loop, call, debug=False) == (ValueError, "the socket must be non-blocking")


@ON_BOTH
@TIMED
def test_a_socket_with_a_timeout_is_taken_without_debug_mode(
    timed: Callable[..., Any], new_loop: NewLoop
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(timed(runner.get_loop(), seconds=5.0))


# --- transports


@pytest.mark.anyio
async def test_sendfile_sends_by_the_kernel_between_what_is_written(
    data_file: Path, by_kernel: list[int]
) -> None:
    loop = asyncio.get_running_loop()
    async with connected(loop) as (transport, peer):
        reading = asyncio.create_task(peer.read(1 << 30))

        transport.write(DATA[:1_000_000])
        with data_file.open("rb") as file:
            sent = await loop.sendfile(transport, file, 1_000_000, 1_000_000, fallback=False)
            position = file.tell()
        transport.write(DATA[2_000_000:])
        transport.close()

        assert await reading == DATA
        assert sent == sum(by_kernel) == 1_000_000
        assert position == 2_000_000


@pytest.mark.anyio
async def test_sendfile_takes_a_stream_protocol(data_file: Path, by_kernel: list[int]) -> None:
    """What servers have is a StreamWriter's transport, whose other side may be reading."""
    loop = asyncio.get_running_loop()
    with closing(Peer(*unix_pair())) as peer:
        reader, writer = await asyncio.open_connection(sock=peer.sock)
        sending = asyncio.create_task(send_path(loop, writer.transport, data_file))
        await peer.until_full()
        peer.other.send(b"heard\n")

        assert await reader.readline() == b"heard\n"
        assert await peer.read(len(DATA)) == DATA
        assert await sending == sum(by_kernel) == len(DATA)
        writer.close()
        await writer.wait_closed()


async def send_path(
    loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport, path: Path
) -> int:
    with path.open("rb") as file:
        return await loop.sendfile(transport, file)


@pytest.mark.anyio
async def test_sendfile_takes_a_pipe(data_file: Path) -> None:
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb") as writer:
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, writer)
        reading = asyncio.create_task(asyncio.to_thread(reader.read))

        sent = await send_path(loop, transport, data_file)
        transport.close()

        assert await reading == DATA
        assert sent == len(DATA)


@asynccontextmanager
async def encrypted() -> AsyncIterator[tuple[asyncio.WriteTransport, asyncio.StreamReader]]:
    """A transport that encrypts, and a reader of what is sent on it."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0, ssl=server_context()
    )
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_context()
    )
    sender = await accepted.get()
    try:
        yield sender.transport, reader
    finally:
        for each in (sender, writer):
            each.transport.abort()
        server.close()
        await server.wait_closed()
        # Both ends close their sockets a turn later.
        await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
async def test_sendfile_encrypts_where_the_transport_does(
    data_file: Path, by_kernel: list[int]
) -> None:
    loop = asyncio.get_running_loop()
    async with encrypted() as (transport, reader):
        reading = asyncio.create_task(reader.readexactly(len(DATA)))

        sent = await send_path(loop, transport, data_file)

        assert await reading == DATA
        assert sent == len(DATA)
        assert by_kernel == []


@pytest.mark.anyio
async def test_a_connection_may_end_with_the_last_byte(data_file: Path) -> None:
    """As a peer ends it that has all; that the file has ended shows only after that."""
    async with encrypted() as (transport, reader):
        left = len(DATA)

        def close_at_last(nbytes: int) -> None:
            nonlocal left
            left -= nbytes
            if not left:
                transport.close()

        reading = asyncio.create_task(reader.readexactly(len(DATA)))
        with data_file.open("rb") as file:
            sent = await asend.sendfile(transport, file, progress=close_at_last)

        assert await reading == DATA
        assert sent == len(DATA)


@pytest.mark.anyio
async def test_sendfile_without_fallback_refuses_what_encrypts(data_file: Path) -> None:
    """It is a RuntimeError in asyncio, and of this kind of RuntimeError since gh-152099."""
    loop = asyncio.get_running_loop()
    words = "fallback is disabled and native sendfile is not supported for transport "
    async with encrypted() as (transport, _):
        with data_file.open("rb") as file, pytest.raises(RuntimeError) as caught:
            await loop.sendfile(transport, file, fallback=False)

        assert str(caught.value) == f"{words}{transport!r}"
        assert type(caught.value) is asyncio.SendfileNotAvailableError


class Elsewhere(asyncio.Transport):
    """Of another maker, and with nothing to wait on."""

    def is_closing(self) -> bool:
        return False


async def datagrams(loop: asyncio.AbstractEventLoop) -> asyncio.BaseTransport:
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    return transport


async def elsewhere(loop: asyncio.AbstractEventLoop) -> asyncio.BaseTransport:
    return Elsewhere()


@pytest.mark.anyio
@pytest.mark.parametrize("new_transport", [datagrams, elsewhere])
async def test_sendfile_refuses_transports_of_other_kinds(
    new_transport: Callable[..., Awaitable[Any]], data_file: Path
) -> None:
    loop = asyncio.get_running_loop()
    transport = await new_transport(loop)

    with data_file.open("rb") as file, pytest.raises(RuntimeError) as caught:
        await loop.sendfile(transport, file)

    assert str(caught.value) == f"sendfile is not supported for transport {transport!r}"
    if new_transport is not elsewhere:
        transport.close()
        await anyio.wait_all_tasks_blocked()


# --- aiohttp, as it comes

# No power of two divides its period.
BODY = b"".join(b"%d," % n for n in range(1_200_000))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "body").write_bytes(BODY)
    return tmp_path


def application(directory: Path) -> web.Application:
    async def hand_out(request: web.Request) -> web.FileResponse:
        return web.FileResponse(directory / "body")

    app = web.Application()
    app.router.add_static("/static", directory)
    app.router.add_get("/file", hand_out)
    return app


@asynccontextmanager
async def served(app: web.Application, **options: Any) -> AsyncIterator[int]:
    """Serve; yield the port."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, **options).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/static/body", "/file"])
async def test_aiohttp_sends_files_by_the_kernel(
    path: str, directory: Path, by_kernel: list[int]
) -> None:
    """aiohttp reads them in a thread on uvloop (aio-libs/aiohttp#5149, uvloop#228)."""
    async with (
        served(application(directory)) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        body = await response.read()

    assert body == BODY
    assert sum(by_kernel) == len(BODY)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=1000-5000999", BODY[1000:5_001_000]),
        ("bytes=8000000-", BODY[8_000_000:]),
        ("bytes=-1", BODY[-1:]),
    ],
    ids=["middle", "from", "last"],
)
async def test_aiohttp_sends_ranges_by_the_kernel(
    asked: str, part: bytes, directory: Path, by_kernel: list[int]
) -> None:
    async with served(application(directory)) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/static/body"
        # The second goes over the same connection.
        for _ in range(2):
            async with session.get(url, headers={"Range": asked}) as response:
                assert response.status == 206
                assert await response.read() == part

    assert sum(by_kernel) == 2 * len(part)


@pytest.mark.anyio
async def test_aiohttp_encrypts_files(directory: Path, by_kernel: list[int]) -> None:
    async with (
        served(application(directory), ssl_context=server_context()) as port,
        aiohttp.ClientSession() as session,
        session.get(f"https://127.0.0.1:{port}/static/body", ssl=client_context()) as response,
    ):
        body = await response.read()

    assert body == BODY
    assert by_kernel == []


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        body: bytes = response.read()
    return body


@ON_BOTH
def test_aiohttp_runs_an_application_on_them(
    new_loop: NewLoop, directory: Path, by_kernel: list[int]
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Before run_app itself does, so that the client need not wait for it.
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/static/body"
        bodies: list[bytes] = []

        def ask_and_stop() -> None:
            try:
                bodies.append(fetch(url))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        client = threading.Thread(target=ask_and_stop)
        app = application(directory)

        async def start_client(app: web.Application) -> None:
            client.start()

        app.on_startup.append(start_client)
        web.run_app(app, sock=listener, loop=new_loop(), print=None)
        client.join()

    assert bodies == [BODY]
    assert sum(by_kernel) == len(BODY)


# Serves a directory, asks for its file, and writes to standard output what came.
SERVE = """
import asyncio, sys, urllib.request
from aiohttp import web
import asend.loops

def fetch(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/static/body") as response:
        return response.read()

async def main():
    app = web.Application()
    app.router.add_static("/static", sys.argv[1])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    body = await asyncio.to_thread(fetch, runner.addresses[0][1])
    sys.stdout.buffer.write(body)
    await runner.cleanup()

with asyncio.Runner(loop_factory=getattr(asend.loops, sys.argv[2])) as runner:
    runner.run(main())
"""


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace here")
@pytest.mark.parametrize("loop", ["UvloopEventLoop", "SelectorEventLoop"])
def test_the_kernel_is_seen_to_send(loop: str, directory: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=sendfile", "-o", str(trace)]
    command += [sys.executable, "-c", SERVE, str(directory), loop]
    done = subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        timeout=50,
        check=True,
    )

    sent = [int(n) for n in re.findall(r"sendfile.* = (\d+)$", trace.read_text(), re.MULTILINE)]
    assert done.stdout == BODY
    assert sum(sent) == len(BODY)


# --- uvicorn


@pytest.mark.parametrize(
    ("loop", "kind"),
    [("new_event_loop", "UvloopEventLoop"), ("SelectorEventLoop", "SelectorEventLoop")],
)
def test_uvicorn_takes_them_by_name(loop: str, kind: str) -> None:
    with warnings.catch_warnings():
        # What it imports of websockets is deprecated there.
        warnings.simplefilter("ignore", DeprecationWarning)
        uvicorn = pytest.importorskip("uvicorn", minversion="0.36", reason="needs uvicorn >= 0.36")
    seen: list[str] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        running = asyncio.get_running_loop()
        with closing(Peer(*unix_pair())) as peer:
            await running.sock_sendall(peer.sock, b"hello")
            seen.append(type(running).__name__)
            body = peer.read_now()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        server.should_exit = True

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        bodies: list[bytes] = []
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        client = threading.Thread(target=lambda: bodies.append(fetch(url)))
        client.start()
        config = uvicorn.Config(
            answer, loop=f"asend.loops:{loop}", lifespan="off", log_config=None, ws="none"
        )
        server = uvicorn.Server(config)
        server.run([listener])
        client.join()

    assert bodies == [b"hello"]
    assert seen == [kind]
