"""The matrix of runtimes, and peers: every behaviour is shown on each runtime and socket family."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import anyio
import pytest
import uvloop
from asgi_servers import kind, server  # noqa: F401  # fixtures
from browser import chromium, window  # noqa: F401  # fixtures
from hypothesis import HealthCheck, settings
from opened import opened_by_tests
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import Any

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As where a shell without job control starts the tests in the background: programs that they
    # start would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes examples slow, not wrong; what one run found does not change another.
settings.register_profile(
    "tests",
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")

# A callback that holds the loop for longer is an error. asyncio's own 0.1 s is what a noisy
# machine takes by itself now and then, and 0.5 s where two test runs share two cores.
SLOW_CALLBACK = 2.0
# In debug mode each callback notes from where it was called, ten frames of it: a tenth of the time.
asyncio.constants.DEBUG_STACK_DEPTH = 1


def eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


ASYNCIO = [
    pytest.param(
        ("asyncio", {"debug": True, "loop_factory": asyncio.SelectorEventLoop}), id="asyncio"
    ),
    pytest.param(("asyncio", {"loop_factory": uvloop.new_event_loop}), id="uvloop"),
]
if sys.version_info >= (3, 12):
    eager = ("asyncio", {"debug": True, "loop_factory": eager_loop})
    ASYNCIO.append(pytest.param(eager, id="asyncio-eager"))
TRIO = [pytest.param(("trio", {}), id="trio")]


@pytest.fixture(params=ASYNCIO + TRIO)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(autouse=True)
def no_blocked_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    # Not `records`: they are of the teardown, which runs by now.
    records = caplog.get_records("call")
    slow = [r.getMessage() for r in records if r.name == "asyncio" and took(r) >= SLOW_CALLBACK]
    errors = [r.getMessage() for r in records if r.levelno >= logging.ERROR]
    assert not slow
    assert not errors


def took(record: logging.LogRecord) -> float:
    """Return how many seconds a callback took, if a loop in debug mode complains of one."""
    if record.msg != "Executing %s took %.3f seconds":
        return 0.0
    assert isinstance(record.args, tuple)
    _, seconds = record.args
    assert isinstance(seconds, float)
    return seconds


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    # One number would do on a quiet process; names show what was left.
    before = opened_by_tests()
    yield
    # Threads let go of theirs a moment later.
    end = time.monotonic() + 1
    while (left := opened_by_tests() - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left


@pytest.fixture(scope="module")
def only_new_is_collected() -> Iterator[None]:
    """Keep what there is by now out of sight: looking at all of a test run takes half a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_collection(only_new_is_collected: None) -> Iterator[None]:
    """Leave cycles alone, after one last look for them."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each call of `os.sendfile` sent."""
    sent: list[int] = []
    genuine = os.sendfile

    def sendfile(*arguments: int) -> int:
        sent.append(genuine(*arguments))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", sendfile)
    return sent


class Peer:
    """The two ends of a connection: `sock` to send on, and the one that reads."""

    def __init__(self, sock: socket.socket, other: socket.socket) -> None:
        self.sock = sock
        self.other = other
        sock.setblocking(False)
        other.setblocking(False)

    def close(self) -> None:
        self.sock.close()
        self.other.close()

    def is_full(self) -> bool:
        return is_full(self.sock)

    def read_now(self, most: int = 1 << 30) -> bytes:
        """Read what is there."""
        data = b""
        while len(data) < most:
            try:
                block = self.other.recv(min(most - len(data), 1 << 20))
            except BlockingIOError:
                break
            if not block:
                break
            data += block
        return data

    async def read(self, nbytes: int) -> bytes:
        """Read so many bytes, or to the end."""
        blocks = []
        while nbytes:
            try:
                block = self.other.recv(min(nbytes, 1 << 20))
            except BlockingIOError:
                await anyio.wait_readable(self.other)
                continue
            if not block:
                break
            blocks.append(block)
            nbytes -= len(block)
        return b"".join(blocks)

    async def read_all(self) -> bytes:
        """Close the sending end, then read everything."""
        self.sock.close()
        return await self.read(1 << 30)

    async def until_full(self) -> None:
        """Wait until the sender has to wait."""
        await until_full(self.sock)


async def receive(peer: Peer, send: Callable[[], Awaitable[Any]]) -> tuple[Any, bytes]:
    """Return what a call returns that sends, and what came of it."""
    results = []

    async def run() -> None:
        results.append(await send())
        peer.sock.shutdown(socket.SHUT_WR)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        received = await peer.read(1 << 30)
    return results[0], received


def is_full(end: socket.socket | int) -> bool:
    """Whether the kernel takes no more now."""
    return not select.select([], [end], [], 0)[1]


async def until_full(end: socket.socket | int) -> None:
    """Wait until the kernel takes no more."""
    # Where it takes all that there is, pytest-timeout would end the whole run.
    with anyio.fail_after(PATIENCE):
        while not is_full(end):
            await anyio.sleep(0.001)


# Small, and of a fixed size, so that there is something to wait for at every stage.
BUFFER = 65536


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def listen() -> socket.socket:
    """Listen for what is to read: what is accepted here does not grow its buffer."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A TCP connection: what sends, and what reads."""
    with listen() as listener:
        sock = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    sock.setblocking(False)
    return sock, other


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    peer = Peer(*request.param())
    yield peer
    peer.close()


@pytest.fixture
def unix_peer() -> Iterator[Peer]:
    peer = Peer(*unix_pair())
    yield peer
    peer.close()


@pytest.fixture
def tcp_peer() -> Iterator[Peer]:
    peer = Peer(*tcp_pair())
    yield peer
    peer.close()


# Not periodic in any power of two, so that a block sent twice or left out shows.
DATA = b"".join(b"%d," % n for n in range(450_000))


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with DATA, to be read only."""
    path = tmp_path_factory.mktemp("data") / "file"
    path.write_bytes(DATA)
    path.chmod(0o444)
    yield path
    # Whom the mode does not stop has changed what others are to read.
    assert path.read_bytes() == DATA


@pytest.fixture(scope="session")
def zipped_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, compressed."""
    path = tmp_path_factory.mktemp("data") / "file.gz"
    path.write_bytes(gzip.compress(DATA, 1))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with DATA of a test's own."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path
