"""What rows share: connections, files, clocks, and the ways to send a file that are compared."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import anyio
import trio

import asend

from .harness import CPU, PAUSE, RATE, Arm, Measure

if TYPE_CHECKING:
    from .receivers import Address

T = TypeVar("T")
SendBytes: TypeAlias = Callable[[socket.socket, bytes], Awaitable[object]]
# Sends a file on a socket, or on what is opened on it.
SendFile: TypeAlias = Callable[[Any, FileIO], Awaitable[object]]
Opener: TypeAlias = Callable[[socket.socket], AbstractAsyncContextManager[object]]
# The runtime and the function of each way to send a file, by name.
Ways: TypeAlias = dict[str, tuple[str, SendFile]]

RUNTIMES = ("asyncio", "uvloop", "trio")
GB = 1e9
KIB: Final = 1024
MIB: Final = 1024 * 1024
# The blocks in which a thread may read a file for a loop that has no sendfile.
BLOCKS = (64 * KIB, 256 * KIB, MIB)
_TICK = 0.001


def run_on(runtime: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function on a new event loop of a runtime."""
    if runtime == "trio":
        return anyio.run(main, backend="trio")
    return anyio.run(main, backend_options={"use_uvloop": runtime == "uvloop"})


class Stopwatch:
    """Seconds, and CPU seconds of all threads of this process, that a `with` block took."""

    def __enter__(self) -> Stopwatch:
        self.cpu = time.process_time()
        self.seconds = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.seconds
        self.cpu = time.process_time() - self.cpu

    def of(self, nbytes: int) -> dict[Measure, float]:
        return {RATE: nbytes / GB / self.seconds, CPU: self.cpu * GB / nbytes}


@contextlib.contextmanager
def connected(address: Address, buffer: int = 0) -> Iterator[socket.socket]:
    """Connect to a receiver; leave only when it has read it all, so that no arm pays for another.

    Args:
        address: Of the receiver.
        buffer: Size of the send buffer to ask for. 0: what the system does by itself.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.connect(address)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        yield sock
        sock.setblocking(True)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)


@contextlib.contextmanager
def new_file(directory: Path, nbytes: int) -> Iterator[Path]:
    """Create a file on disk, whose pages are in the page cache, and remove it at the end."""
    path = Path(directory, f"{nbytes}.bin")
    block = os.urandom(MIB)
    try:
        with open(path, "wb") as file:
            for at in range(0, nbytes, MIB):
                file.write(block[: nbytes - at])
            file.flush()
            os.fsync(file.fileno())
        warm(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def warm(path: Path) -> None:
    """Read a file whole, so that the page cache has it."""
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def drop(path: Path) -> None:
    """Take a file out of the page cache, as far as the system will."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


async def longest_pause(work: Callable[[], Awaitable[object]]) -> float:
    """Return the longest time in ms that a task which ticks every ms had to wait beyond that."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            start = time.perf_counter()
            await anyio.sleep(_TICK)
            longest = max(longest, time.perf_counter() - start - _TICK)

    async with anyio.create_task_group() as ticker:
        ticker.start_soon(tick)
        # The first tick and the first step of the work take their turns.
        await anyio.sleep(5 * _TICK)
        await work()
        # A pause that reaches to the end of the work shows in the tick after it.
        await anyio.sleep(5 * _TICK)
        ticker.cancel_scope.cancel()
    return longest * 1000


@contextlib.asynccontextmanager
async def _as_it_is(sock: socket.socket) -> AsyncIterator[socket.socket]:
    yield sock


def send_and_measure(
    runtime: str,
    send: SendFile,
    address: Address,
    path: Path,
    *,
    opener: Opener = _as_it_is,
    watches_pauses: bool = False,
) -> dict[Measure, float]:
    """Send a file on a new loop and connection; measure rate and CPU, and pauses if asked to.

    Args:
        opener: Opens on the connected socket what `send` is called with, before the clock starts.
    """
    pause = 0.0
    with connected(address) as sock, open(path, "rb", buffering=0) as file, Stopwatch() as watch:

        async def main() -> None:
            nonlocal pause

            async with opener(sock) as target:

                async def work() -> None:
                    with watch:
                        await send(target, file)

                if watches_pauses:
                    pause = await longest_pause(work)
                else:
                    await work()

        run_on(runtime, main)
        measured = watch.of(path.stat().st_size)
    return measured | {PAUSE: pause} if watches_pauses else measured


async def bytes_by_loop(sock: socket.socket, data: bytes) -> None:
    await get_running_loop().sock_sendall(sock, data)


async def by_asend(sock: socket.socket, file: FileIO) -> None:
    await asend.sock_sendfile(sock, file)


async def by_loop(sock: socket.socket, file: FileIO) -> None:
    await get_running_loop().sock_sendfile(sock, file)


async def by_reading(block: int, sock: socket.socket, file: FileIO) -> None:
    """Read in a thread and send by the loop: all that a loop without sendfile can do."""
    loop = get_running_loop()
    while data := await loop.run_in_executor(None, file.read, block):
        await loop.sock_sendall(sock, data)


async def by_reading_on_trio(block: int, sock: socket.socket, file: FileIO) -> None:
    """Read in a thread and send by a trio stream."""
    # Not closed: the socket is the caller's.
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    while data := await trio.to_thread.run_sync(file.read, block):
        await stream.send_all(data)


def reading_ways(runtime: str) -> Ways:
    """Return the ways to send by reading in a thread, one per block size."""
    send = by_reading_on_trio if runtime == "trio" else by_reading
    return {
        f"read {block // KIB} KiB + send, {runtime}": (runtime, functools.partial(send, block))
        for block in BLOCKS
    }


def file_arms(
    ways: Ways, address: Address, path: Path, *, watches_pauses: bool = False
) -> list[Arm]:
    """Return an arm per way that sends the file by it."""
    return [
        Arm(
            name,
            functools.partial(
                send_and_measure, runtime, send, address, path, watches_pauses=watches_pauses
            ),
        )
        for name, (runtime, send) in ways.items()
    ]


ASEND_WAYS: Ways = {f"asend, {runtime}": (runtime, by_asend) for runtime in RUNTIMES}
STOCK = "loop.sock_sendfile, asyncio"
STOCK_WAY: Ways = {STOCK: ("asyncio", by_loop)}
