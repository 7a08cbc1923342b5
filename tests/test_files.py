"""Files on every runtime: what is sent of which kind, where the position ends, what blocks."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from conftest import ASYNCIO, DATA, Peer, receive
from odd_files import Gated, Opaque, Reader
from opened import opened

import asend
from asend import _residency, _transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["kernel", "copy", "memory", "object", "gzip", "unbuffered"])
def file(
    request: pytest.FixtureRequest,
    data_file: Path,
    zipped_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """DATA as each kind of file that can seek."""
    if request.param == "copy":
        monkeypatch.delattr(os, "sendfile")
    kinds: dict[str, Callable[[], Any]] = {
        "kernel": lambda: data_file.open("rb"),
        "copy": lambda: data_file.open("rb"),
        "unbuffered": lambda: data_file.open("rb", buffering=0),
        "memory": lambda: io.BytesIO(DATA),
        "object": lambda: Opaque(DATA),
        "gzip": lambda: gzip.open(zipped_file, "rb"),
    }
    file = kinds[request.param]()
    yield file
    if hasattr(file, "close"):
        file.close()


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (0, 5), (1000, None), (1000, 300_000), (len(DATA) - 1, 1), (0, len(DATA))],
)
@pytest.mark.parametrize("position", [0, 12345])
async def test_a_range_is_sent_and_the_position_set(
    position: int, offset: int, count: int | None, file: Any, unix_peer: Peer
) -> None:
    """gh-150107: an offset of 0 was taken for "from the current position"."""
    file.seek(position)
    whole = DATA[offset:] if count is None else DATA[offset : offset + count]

    sent, received = await receive(
        unix_peer, lambda: asend.sock_sendfile(unix_peer.sock, file, offset, count)
    )

    assert received == whole
    assert sent == len(whole)
    assert file.tell() == offset + sent
    # And not only the number: what is read next is what comes next.
    assert file.read(10) == DATA[offset + sent :][:10]


async def test_a_buffered_file_that_was_read_before_reads_on_rightly(
    data_file: Path, unix_peer: Peer
) -> None:
    """os.lseek behind its back leaves a BufferedReader with wrong bytes in its buffer."""
    with data_file.open("rb") as file:
        file.read(10)
        await asend.sock_sendfile(unix_peer.sock, file, 100, 50)

        assert file.tell() == 150
        assert file.read(20) == DATA[150:170]


async def test_what_was_written_is_flushed_first(tmp_path: Path, unix_peer: Peer) -> None:
    with (tmp_path / "new").open("w+b") as file:
        file.write(b"not in the file yet")
        sent = await asend.sock_sendfile(unix_peer.sock, file)

        assert sent == 19
        assert file.tell() == 19
    with tempfile.NamedTemporaryFile(dir=tmp_path) as named:
        named.write(b" nor this")
        await asend.sock_sendfile(unix_peer.sock, named)
    with tempfile.SpooledTemporaryFile(dir=tmp_path) as spooled:
        spooled.write(b", in memory")
        await asend.sock_sendfile(unix_peer.sock, spooled)

    assert unix_peer.read_now() == b"not in the file yet nor this, in memory"


# --- ends before the end


async def assert_position(file: Any, position: int) -> None:
    """Where a thread was just reading an object it is set when that read ends, else at once."""
    if isinstance(file, Opaque | gzip.GzipFile):
        with anyio.fail_after(5):
            while file.tell() != position:
                await anyio.sleep(0.001)
    assert file.tell() == position


async def test_the_position_is_exact_after_an_error(file: Any, peer: Peer) -> None:
    counted: list[int] = []

    async def run() -> None:
        with pytest.raises(ConnectionError):
            await asend.sock_sendfile(peer.sock, file, 1000, progress=counted.append)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await peer.until_full()
        peer.other.close()

    assert sum(counted) > 0
    await assert_position(file, 1000 + sum(counted))


async def test_the_position_is_exact_after_a_timeout(file: Any, peer: Peer) -> None:
    counted: list[int] = []

    with pytest.raises(TimeoutError):
        await asend.sock_sendfile(peer.sock, file, 1000, timeout=0.1, progress=counted.append)

    await assert_position(file, 1000 + sum(counted))
    assert await peer.read_all() == DATA[1000:][: sum(counted)]


async def test_the_position_is_exact_after_progress_raises(file: Any, peer: Peer) -> None:
    counted: list[int] = []

    def progress(nbytes: int) -> None:
        counted.append(nbytes)
        raise LookupError

    with pytest.raises(LookupError):
        await asend.sock_sendfile(peer.sock, file, 1000, progress=progress)

    assert file.tell() == 1000 + sum(counted)


async def test_the_position_is_left_alone_if_nothing_was_sent(file: Any, unix_peer: Peer) -> None:
    unix_peer.other.close()
    file.seek(77)

    with pytest.raises(BrokenPipeError):
        await asend.sock_sendfile(unix_peer.sock, file, 1000)

    assert file.tell() == 77


@pytest.mark.parametrize("waits", range(4))
async def test_the_position_is_exact_after_cancelling_at_every_wait(
    waits: int, file: Any, peer: Peer
) -> None:
    counted: list[int] = []
    received = b""

    async with anyio.create_task_group() as group:
        group.start_soon(partial(asend.sock_sendfile, peer.sock, file, 10, progress=counted.append))
        for _ in range(waits):
            await peer.until_full()
            received += peer.read_now()
        await peer.until_full()
        group.cancel_scope.cancel()

    await assert_position(file, 10 + sum(counted))
    received += await peer.read_all()
    assert received == DATA[10:][: sum(counted)]


async def test_cancelling_does_not_wait_for_a_read(unix_peer: Peer) -> None:
    gated = Gated(DATA)
    counted: list[int] = []

    async with anyio.create_task_group() as group:
        group.start_soon(
            partial(asend.sock_sendfile, unix_peer.sock, gated, progress=counted.append)
        )
        received = await unix_peer.read(_transfers.STEP_SIZE)
        await anyio.to_thread.run_sync(gated.is_reading.wait, 20)
        group.cancel_scope.cancel()
    # The call is over, and the read is still going on.
    assert not gated.was_restored.is_set()
    await asend.sock_sendall(unix_peer.sock, b"next")
    gated.gate.set()
    await anyio.to_thread.run_sync(gated.was_restored.wait, 20)

    assert received + unix_peer.read_now() == DATA[: sum(counted)] + b"next"
    assert gated.tell() == sum(counted)


async def test_an_object_can_be_sent_again_while_it_is_still_being_read(unix_peer: Peer) -> None:
    gated = Gated(DATA)

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendfile, unix_peer.sock, gated)
        received = await unix_peer.read(_transfers.STEP_SIZE)
        await anyio.to_thread.run_sync(gated.is_reading.wait, 20)
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendfile, unix_peer.sock, gated, 7)
        await anyio.wait_all_tasks_blocked()
        gated.gate.set()
        again = await unix_peer.read(len(DATA) - 7)

    assert received == DATA[: len(received)]
    assert again == DATA[7:]
    assert gated.tell() == len(DATA)


async def test_a_call_that_ends_before_its_turn_to_read_reads_nothing(unix_peer: Peer) -> None:
    gated = Gated(DATA)
    second = Peer(*socket.socketpair())

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendfile, unix_peer.sock, gated)
        await unix_peer.read(_transfers.STEP_SIZE)
        await anyio.to_thread.run_sync(gated.is_reading.wait, 20)
        with pytest.raises(TimeoutError):
            await asend.sock_sendfile(second.sock, gated, 7, timeout=0.05)
        reads = gated.reads
        group.cancel_scope.cancel()
    second.close()
    gated.gate.set()
    await anyio.to_thread.run_sync(gated.was_restored.wait, 20)

    assert gated.reads == reads
    assert gated.tell() == _transfers.STEP_SIZE


@pytest.mark.parametrize("is_memory", [False, True], ids=["object", "memory"])
async def test_an_object_is_sent_to_several_peers_at_once(is_memory: bool) -> None:
    file: Any = io.BytesIO(DATA) if is_memory else Opaque(DATA)
    peers = [Peer(*socket.socketpair()) for _ in range(4)]

    async with anyio.create_task_group() as group:
        for n, peer in enumerate(peers):
            group.start_soon(asend.sock_sendfile, peer.sock, file, n)
        received = [await peer.read(len(DATA) - n) for n, peer in enumerate(peers)]
    for peer in peers:
        peer.close()

    assert received == [DATA[n:] for n in range(4)]
    assert file.tell() == len(DATA)


async def test_a_timeout_counts_slow_reads(unix_peer: Peer) -> None:
    gated = Gated(DATA)

    async with anyio.create_task_group() as group:
        group.start_soon(unix_peer.read, _transfers.STEP_SIZE)
        with pytest.raises(TimeoutError, match="within"):
            await asend.sock_sendfile(unix_peer.sock, gated, timeout=0.1)
    gated.gate.set()
    await anyio.to_thread.run_sync(gated.was_restored.wait, 20)

    assert gated.tell() == _transfers.STEP_SIZE


async def test_a_slow_read_does_not_block_the_loop(unix_peer: Peer) -> None:
    """Else the gate would stay closed."""
    gated = Gated(DATA)
    turns = 0

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendfile, unix_peer.sock, gated)
        received = await unix_peer.read(_transfers.STEP_SIZE)
        await anyio.to_thread.run_sync(gated.is_reading.wait, 20)
        while turns < 20:
            await anyio.sleep(0.001)
            turns += 1
        reads = gated.reads
        gated.gate.set()
        received += await unix_peer.read(len(DATA) - len(received))

    # All of them in one read.
    assert reads == 2
    assert received == DATA


async def test_an_error_of_the_file_comes_after_what_was_read_before(unix_peer: Peer) -> None:
    class Broken(Opaque):
        def __init__(self) -> None:
            super().__init__(DATA)
            self.read = self._read

        def _read(self, size: int = -1) -> bytes:
            if self.tell() >= 2 * _transfers.STEP_SIZE:
                raise OSError(5, "a bad block")
            return self._file.read(size)

    received = b""

    async def read() -> None:
        nonlocal received
        received = await unix_peer.read(2 * _transfers.STEP_SIZE)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        with pytest.raises(OSError, match="a bad block") as caught:
            await asend.sock_sendfile(unix_peer.sock, Broken())

    assert received == DATA[: 2 * _transfers.STEP_SIZE]
    assert caught.value.__notes__ == [f"{len(received)} of an unknown number of bytes sent"]


# --- files that change


async def test_a_file_cut_while_it_is_sent_returns_less(path: Path, peer: Peer) -> None:
    received = b""

    async with anyio.create_task_group() as group:
        with path.open("rb") as file:
            counted: list[int] = []
            results: list[int] = []

            async def run() -> None:
                results.append(
                    await asend.sock_sendfile(
                        peer.sock, file, 0, len(DATA), progress=counted.append
                    )
                )
                peer.sock.close()

            group.start_soon(run)
            await peer.until_full()
            os.truncate(path, sum(counted) + 1000)
            received = await peer.read(1 << 30)

    assert results == [len(received)]
    assert received == DATA[: len(received)]
    assert sum(counted) <= len(received) < len(DATA)


async def test_a_file_that_grows_is_followed(path: Path, peer: Peer) -> None:
    grown = False

    def progress(_: int) -> None:
        nonlocal grown
        if not grown:
            grown = True
            with path.open("ab") as more:
                more.write(b"more")

    with path.open("rb") as file:
        sent, received = await receive(
            peer, lambda: asend.sock_sendfile(peer.sock, file, progress=progress)
        )

    assert received == DATA + b"more"
    assert sent == len(received)


async def test_a_file_closed_early_is_sent_to_its_end(path: Path, peer: Peer) -> None:
    """And its number, another file by then, does not leak out."""
    secret = path.with_name("secret")
    secret.write_bytes(b"secret" * 1_000_000)
    file = path.open("rb")

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendfile, peer.sock, file)
        await peer.until_full()
        file.close()
        others = [secret.open("rb") for _ in range(3)]
        received = await peer.read(len(DATA))
    for other in others:
        other.close()

    assert received == DATA


async def test_an_object_closed_early_is_an_error(unix_peer: Peer) -> None:
    file = io.BytesIO(DATA)

    async def run() -> None:
        with pytest.raises(ValueError, match="closed file"):
            await asend.sock_sendfile(unix_peer.sock, file)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await unix_peer.until_full()
        file.close()
        await unix_peer.read(_transfers.STEP_SIZE)


# --- what os.sendfile cannot send


@pytest.mark.parametrize("count", [None, 10])
async def test_a_read_that_gives_more_than_asked_is_an_error(
    count: int | None, unix_peer: Peer
) -> None:
    class Greedy:
        def read(self, size: int = -1) -> bytes:
            return bytes(size + 1)

    with pytest.raises(ValueError, match="more than it was asked for"):
        await asend.sock_sendfile(unix_peer.sock, Greedy(), 0, count)

    assert unix_peer.read_now() == b""


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_no_thread_for_a_read_is_an_error(unix_peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    executor.shutdown()

    with pytest.raises(RuntimeError, match="after shutdown"):
        await asend.sock_sendfile(unix_peer.sock, Opaque(DATA))

    loop.set_default_executor(ThreadPoolExecutor(1))
    assert unix_peer.read_now() == b""


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_no_thread_for_a_later_read_is_an_error(unix_peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    file = Opaque(DATA)

    def progress(_: int) -> None:
        executor.shutdown(wait=False)

    async with anyio.create_task_group() as group:
        group.start_soon(unix_peer.read, 2 * _transfers.STEP_SIZE)
        with pytest.raises(RuntimeError, match="after shutdown") as caught:
            await asend.sock_sendfile(unix_peer.sock, file, progress=progress)
        group.cancel_scope.cancel()

    loop.set_default_executor(ThreadPoolExecutor(1))
    sent = int(caught.value.__notes__[0].split()[0])
    await assert_position(file, sent)


# --- pipes


async def test_a_pipe_is_read_to_its_end(peer: Peer) -> None:
    reader, writer = os.pipe()

    def fill() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(DATA)

    thread = threading.Thread(target=fill)
    thread.start()
    with os.fdopen(reader, "rb") as file:
        first = file.read(3)
        sent, received = await receive(peer, lambda: asend.sock_sendfile(peer.sock, file))
    thread.join()

    assert first + received == DATA
    assert sent == len(received)


async def test_what_a_pipe_has_is_sent_before_more_comes(unix_peer: Peer) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"now")

    with os.fdopen(reader, "rb") as file:
        async with anyio.create_task_group() as group:
            group.start_soon(asend.sock_sendfile, unix_peer.sock, file)
            with anyio.fail_after(5):
                first = await unix_peer.read(3)
            os.write(writer, b"later")
            os.close(writer)
            rest = await unix_peer.read(5)

    assert (first, rest) == (b"now", b"later")


async def test_a_pipe_refuses_an_offset(unix_peer: Peer) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"kept")
    os.close(writer)

    with os.fdopen(reader, "rb") as file:
        with pytest.raises(io.UnsupportedOperation, match="not seekable"):
            await asend.sock_sendfile(unix_peer.sock, file, 1)
        assert file.read() == b"kept"


async def test_a_file_of_proc_is_read(peer: Peer) -> None:
    with open("/proc/self/status", "rb") as file:
        sent, received = await receive(peer, lambda: asend.sock_sendfile(peer.sock, file))

    assert received.startswith(b"Name:")
    assert sent == len(received)


async def test_a_device_is_read_up_to_count(peer: Peer) -> None:
    with open("/dev/zero", "rb") as file:
        sent, received = await receive(
            peer, lambda: asend.sock_sendfile(peer.sock, file, 0, 300_000)
        )

    assert received == bytes(300_000)
    assert sent == 300_000


async def test_a_socket_is_read_like_a_file(unix_peer: Peer) -> None:
    source, sink = socket.socketpair()
    with sink:
        sink.sendall(b"through")
    with source, source.makefile("rb") as file:
        sent = await asend.sock_sendfile(unix_peer.sock, file)

    assert sent == 7
    assert unix_peer.read_now() == b"through"


async def test_an_object_with_nothing_but_read_is_sent(peer: Peer) -> None:
    sent, received = await receive(peer, lambda: asend.sock_sendfile(peer.sock, Reader(DATA)))

    assert received == DATA
    assert sent == len(DATA)


async def test_an_empty_file_sends_nothing(tmp_path: Path, unix_peer: Peer) -> None:
    path = tmp_path / "empty"
    path.touch()

    with path.open("rb") as file:
        for fallback in (True, False):
            assert await asend.sock_sendfile(unix_peer.sock, file, fallback=fallback) == 0
            assert await asend.sock_sendfile(unix_peer.sock, file, 5, 5, fallback=fallback) == 0

    assert unix_peer.read_now() == b""


@pytest.mark.parametrize("name", ["/proc/self/status", "/dev/zero"])
async def test_without_fallback_what_cannot_be_is_refused(name: str, unix_peer: Peer) -> None:
    with open(name, "rb") as file, pytest.raises(asend.SendfileNotAvailableError):
        await asend.sock_sendfile(unix_peer.sock, file, 0, 10, fallback=False)
    with pytest.raises(asend.SendfileNotAvailableError, match="not a regular file"):
        await asend.sock_sendfile(unix_peer.sock, io.BytesIO(DATA), fallback=False)

    assert unix_peer.read_now() == b""


async def test_without_fallback_a_regular_file_goes_by_the_kernel(
    data_file: Path, peer: Peer
) -> None:
    with data_file.open("rb") as file:
        sent, received = await receive(
            peer, lambda: asend.sock_sendfile(peer.sock, file, fallback=False)
        )

    assert received == DATA
    assert sent == len(DATA)


# --- cold files


@pytest.mark.parametrize("fallback", [True, False])
async def test_a_file_that_was_dropped_from_the_cache_is_sent(
    fallback: bool, data_file: Path, peer: Peer
) -> None:
    with data_file.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        sent, received = await receive(
            peer, lambda: asend.sock_sendfile(peer.sock, file, fallback=fallback)
        )

        assert file.tell() == sent == len(DATA)
    assert received == DATA


@pytest.mark.parametrize("answer", [None, False])
async def test_a_file_of_which_the_cache_tells_nothing_is_sent(
    answer: bool | None, data_file: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the system does not tell. False for ever: the file system has no page cache."""
    monkeypatch.setattr(_residency.PageCache, "has", lambda *_: answer)
    counted: list[int] = []

    with data_file.open("rb") as file:
        sent, received = await receive(
            peer, lambda: asend.sock_sendfile(peer.sock, file, 10, progress=counted.append)
        )

        assert file.tell() == 10 + sent
    assert received == DATA[10:]
    assert sum(counted) == sent == len(received)


async def test_a_cold_file_that_is_cut_ends_there(
    path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> bool:
        os.truncate(path, 1000)
        return False

    monkeypatch.setattr(_residency.PageCache, "has", cut)
    with path.open("rb") as file:
        sent, received = await receive(
            peer, lambda: asend.sock_sendfile(peer.sock, file, 0, len(DATA))
        )

    assert sent == 1000
    assert received == DATA[:1000]


async def test_a_cold_part_is_read_in_a_thread(
    data_file: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    preadv = os.preadv

    def slow_preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        threads.add(threading.current_thread())
        return preadv(fd, buffers, offset, flags)

    monkeypatch.setattr(_residency.PageCache, "has", lambda *_: None)
    monkeypatch.setattr(os, "preadv", slow_preadv)
    with data_file.open("rb") as file:
        sent, _ = await receive(peer, lambda: asend.sock_sendfile(peer.sock, file))

    assert sent == len(DATA)
    assert threads
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_call_cancelled_while_it_reads_leaves_no_descriptor(
    data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, is_reading = threading.Event(), threading.Event()
    preadv = os.preadv

    def gated_preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        is_reading.set()
        assert gate.wait(20)
        return preadv(fd, buffers, offset, flags)

    monkeypatch.setattr(_residency.PageCache, "has", lambda *_: None)
    monkeypatch.setattr(os, "preadv", gated_preadv)
    with data_file.open("rb") as file:
        task = asyncio.ensure_future(asend.sock_sendfile(unix_peer.sock, file))
        await asyncio.to_thread(is_reading.wait, 20)
        task.cancel()
        await asyncio.wait([task])
        held = count_of(data_file)
        gate.set()
        # The thread that read closes it at its end.
        with anyio.fail_after(5):
            while count_of(data_file) > 1:
                await asyncio.sleep(0.001)

        assert file.tell() == 0
    assert held == 2
    assert unix_peer.read_now() == b""


def count_of(path: Path) -> int:
    """Count this process's descriptors of a file."""
    return list(opened().values()).count(str(path))
