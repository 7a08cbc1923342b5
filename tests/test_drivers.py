"""Drivers: the loop without writer callbacks, and what a call leaves behind on any of them."""

from __future__ import annotations

import asyncio
import errno
import gc
import gzip
import io
import os
import select
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing, suppress
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING

import anyio
import pytest
import uvloop
from conftest import ASYNCIO, DATA, Peer, receive, unix_pair
from odd_files import Reader
from processes import environment
from sends import send_memory_file, send_octets, send_vectors
from waiting import Pace, paces, rests, until

import asend
from asend import _drivers, _senders
from asend._drivers import _turns
from asend._files import FileTransfer
from asend._tally import KERNEL_STEP_SIZE
from asend._transfers import STEP_SIZE, Octets, Vectors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from typing import Any

ROOT = Path(__file__).parent.parent


class ProactorStandIn(asyncio.SelectorEventLoop):
    """Has no writer callbacks, and sends by itself, as the loop of Windows does."""

    def add_writer(self, *_: object) -> None:
        raise NotImplementedError

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        # Of the proactor's, all but TransmitFile: whatever has a descriptor is sent by that.
        try:
            fd = file.fileno()
        except (AttributeError, io.UnsupportedOperation):
            raise asyncio.SendfileNotAvailableError("not a regular file") from None
        size = os.fstat(fd).st_size
        end = min(offset + count, size) if count else size
        data = os.pread(fd, max(0, end - offset), offset)
        await self.sock_sendall(sock, data)
        if data:
            file.seek(offset + len(data))
        return len(data)


PROACTOR = [
    pytest.param(("asyncio", {"debug": True, "loop_factory": ProactorStandIn}), id="proactor")
]
on_proactor = pytest.mark.parametrize("anyio_backend", PROACTOR, indirect=True)
on_asyncio = pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)


# --- fairness


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("is_memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("others_work", [False, True], ids=["alone", "beside-work"])
@pytest.mark.parametrize(("ncalls", "size"), [(1, 4 << 20), (4, 3 << 19), (20, 3 << 19)])
async def test_calls_share_what_goes_in_one_turn_of_the_loop(
    ncalls: int, size: int, others_work: bool, is_memory: bool, tmp_path: Path
) -> None:
    """Else 20 calls would hold the loop for as long as 20 steps take."""
    whole = bytes(range(256)) * (size // 256)
    path = tmp_path / "file"
    path.write_bytes(whole)
    counted: list[int] = []
    at_turn: list[int] = []
    peers = [Peer(*socket.socketpair()) for _ in range(ncalls)]
    for peer in peers:
        # So that each step moves all that it may.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)

    async def send(peer: Peer) -> None:
        if is_memory:
            await asend.sock_sendall(peer.sock, whole, progress=counted.append)
        else:
            with path.open("rb") as file:
                await asend.sock_sendfile(peer.sock, file, progress=counted.append)

    async def watch_turns() -> None:
        # The first step of a call comes before it waits, and knows of no others.
        while len(counted) < ncalls:
            await asyncio.sleep(0)
        while sum(counted) < ncalls * len(whole):
            at_turn.append(sum(counted))
            end = thread_time() + others_work * 0.001
            while thread_time() < end:
                pass
            await asyncio.sleep(0)

    async with anyio.create_task_group() as group:
        for peer in peers:
            group.start_soon(send, peer)
        group.start_soon(watch_turns)
        received = await asyncio.gather(*(peer.read(len(whole)) for peer in peers))
    for peer in peers:
        peer.close()

    assert all(each == whole for each in received)
    turns = [(before, after - before) for before, after in pairwise(at_turn)]
    # Most goes in a turn where a step that was not whole comes before one that is.
    step = STEP_SIZE if is_memory else KERNEL_STEP_SIZE
    assert max(counted) <= step
    if ncalls == 1:
        assert max(counted) == step
    else:
        assert max(nbytes for _, nbytes in turns) <= KERNEL_STEP_SIZE + STEP_SIZE
    if others_work and ncalls > 1:
        # Each is over what counts for a small one, by up to a step.
        past = ncalls * (_turns._BULK + STEP_SIZE)
        large = [nbytes for before, nbytes in turns if before > past]
        assert len(large) > 10
        assert max(large) <= max(2 * 64 * 1024, (8 * ncalls + 64) * 1024)
        # What the work began in one turn goes on in the next, before more is sent.
        assert large.count(0) >= len(large) / 3


@pytest.mark.anyio
@on_asyncio
async def test_calls_that_took_turns_leave_a_loop_that_rests(tmp_path: Path) -> None:
    """Told again while it waits for its turn, a call is off the loop, and back once it is full."""
    whole = bytes(range(256)) * (8 << 12)
    path = tmp_path / "file"
    path.write_bytes(whole)
    peers = [Peer(*socket.socketpair()) for _ in range(4)]
    for peer in peers:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    async def send(peer: Peer) -> None:
        with path.open("rb") as file:
            await asend.sock_sendfile(peer.sock, file)

    async with anyio.create_task_group() as group:
        for peer in peers:
            group.start_soon(send, peer)
        some = await asyncio.gather(*(peer.read(len(whole) // 2) for peer in peers))
        for peer in peers:
            await peer.until_full()
        is_resting = await rests()
        rest = await asyncio.gather(*(peer.read(len(whole) // 2) for peer in peers))
    for peer in peers:
        peer.close()

    assert is_resting
    assert [a + b for a, b in zip(some, rest, strict=True)] == [whole] * len(peers)


@pytest.mark.anyio
@on_asyncio
async def test_progress_runs_in_the_context_of_its_call() -> None:
    """Whichever call's callback had it step."""
    name: ContextVar[int] = ContextVar("name", default=-1)
    seen: list[set[int]] = [set() for _ in range(3)]
    peers = [Peer(*socket.socketpair()) for _ in range(3)]

    async def send(n: int) -> None:
        name.set(n)
        await asend.sock_sendall(
            peers[n].sock, bytes(1 << 21), progress=lambda _: seen[n].add(name.get())
        )

    async with anyio.create_task_group() as group:
        for n in range(3):
            group.start_soon(send, n)
        await asyncio.gather(*(peer.read(1 << 21) for peer in peers))
    for peer in peers:
        peer.close()

    assert seen == [{0}, {1}, {2}]


# --- a loop that sends by itself


@pytest.mark.anyio
@on_proactor
async def test_a_loop_without_writer_callbacks_sends_buffers(peer: Peer) -> None:
    counted: list[int] = []

    _, received = await receive(
        peer, partial(asend.sock_sendall, peer.sock, DATA, progress=counted.append)
    )

    assert received == DATA
    assert sum(counted) == len(DATA)
    assert max(counted) <= STEP_SIZE


@pytest.mark.anyio
@on_proactor
async def test_a_loop_without_writer_callbacks_sends_vectors(peer: Peer) -> None:
    counted: list[int] = []
    pieces = [DATA[at : at + 70_001] for at in range(0, len(DATA), 70_001)]

    _, received = await receive(
        peer, partial(asend.sock_sendmsg, peer.sock, pieces, progress=counted.append)
    )

    assert received == DATA
    assert sum(counted) == len(DATA)


@pytest.mark.anyio
@on_proactor
@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (7, None), (5, len(DATA) - 10), (5, len(DATA)), (0, len(DATA)), (3, 10)],
)
@pytest.mark.parametrize("is_memory", [False, True], ids=["file", "memory"])
async def test_a_loop_without_writer_callbacks_sends_files(
    is_memory: bool, offset: int, count: int | None, data_file: Path, peer: Peer
) -> None:
    counted: list[int] = []
    with io.BytesIO(DATA) if is_memory else data_file.open("rb") as file:
        file.seek(99)

        sent, received = await receive(
            peer,
            partial(asend.sock_sendfile, peer.sock, file, offset, count, progress=counted.append),
        )

        assert received == DATA[offset:][:count]
        assert sent == sum(counted) == len(received)
        assert max(counted) <= STEP_SIZE
        assert file.tell() == offset + len(received)


@pytest.mark.anyio
@on_proactor
async def test_a_loop_without_writer_callbacks_refuses_what_needs_a_fallback(
    data_file: Path, unix_peer: Peer
) -> None:
    with pytest.raises(asend.SendfileNotAvailableError):
        await asend.sock_sendfile(unix_peer.sock, io.BytesIO(DATA), fallback=False)
    with data_file.open("rb") as file:
        _, received = await receive(
            unix_peer, partial(asend.sock_sendfile, unix_peer.sock, file, fallback=False)
        )

    assert received == DATA


@pytest.mark.anyio
@on_proactor
async def test_a_loop_without_writer_callbacks_sends_any_object_with_read(peer: Peer) -> None:
    sent, received = await receive(peer, partial(asend.sock_sendfile, peer.sock, Reader(DATA)))

    assert received == DATA
    assert sent == len(DATA)


@pytest.mark.anyio
@on_proactor
async def test_a_loop_without_writer_callbacks_sends_a_pipe(peer: Peer) -> None:
    source, target = os.pipe()
    with os.fdopen(target, "wb") as writing:
        writing.write(b"from a pipe")

    with os.fdopen(source, "rb") as file:
        _, received = await receive(peer, partial(asend.sock_sendfile, peer.sock, file))

    assert received == b"from a pipe"


@pytest.mark.anyio
@on_proactor
async def test_a_loop_without_writer_callbacks_sends_a_compressed_file_as_it_reads(
    tmp_path: Path, peer: Peer
) -> None:
    with gzip.open(tmp_path / "file.gz", "wb", compresslevel=1) as file:
        file.write(DATA)

    with gzip.open(tmp_path / "file.gz") as file:
        _, received = await receive(peer, partial(asend.sock_sendfile, peer.sock, file))

    assert received == DATA


@pytest.mark.anyio
@on_proactor
async def test_the_first_send_has_its_flags_on_any_loop(tcp_peer: Peer) -> None:
    await asend.sock_sendall(tcp_peer.sock, memoryview(b"!"), socket.MSG_OOB)

    select.select([], [], [tcp_peer.other], 5)

    assert tcp_peer.other.recv(1, socket.MSG_OOB) == b"!"


@pytest.mark.anyio
@on_proactor
async def test_flags_are_refused_where_the_loop_would_lose_them(peer: Peer) -> None:
    with pytest.raises(NotImplementedError, match="neither flags nor ancillary data") as caught:
        await asend.sock_sendall(peer.sock, DATA, socket.MSG_NOSIGNAL)

    received = await peer.read_all()
    assert received == DATA[: len(received)]
    assert caught.value.__notes__ == [f"{len(received)} of {len(DATA)} bytes sent"]


@pytest.fixture(params=[send_octets, send_vectors, send_memory_file, "file"])
def send(request: pytest.FixtureRequest, data_file: Path) -> Iterator[Callable[..., Any]]:
    if request.param != "file":
        yield request.param
        return
    with data_file.open("rb") as file:

        def send_file(sock: socket.socket, **options: Any) -> Awaitable[object]:
            return asend.sock_sendfile(sock, file, **options)

        yield send_file


@pytest.mark.anyio
@on_proactor
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0.1}, r"within 0\.1 s"),
        ({"limits": asend.Limits(stall=0.1)}, "stalled"),
        ({"limits": asend.Limits(min_rate=1e9, grace=0.1)}, "too slow"),
        ({"timeout": 0.1, "limits": asend.Limits(stall=30)}, r"within 0\.1 s"),
    ],
    ids=["timeout", "stall", "rate", "both"],
)
async def test_a_slow_peer_ends_the_call_on_a_loop_that_sends_by_itself(
    options: dict[str, Any], words: str, send: Callable[..., Any], peer: Peer
) -> None:
    counted: list[int] = []

    with pytest.raises(TimeoutError, match=words) as caught:
        await send(peer.sock, progress=counted.append, **options)

    received = await peer.read_all()
    assert caught.value.__notes__ == [f"{sum(counted)} of {len(DATA)} bytes sent"]
    # The loop does not tell what it sent of the step that was cancelled.
    assert sum(counted) <= len(received) <= sum(counted) + STEP_SIZE
    assert received == DATA[: len(received)]


@pytest.mark.anyio
@on_proactor
async def test_limits_that_are_kept_change_nothing_on_a_loop_that_sends_by_itself(
    send: Callable[..., Any], peer: Peer
) -> None:
    received = b""
    limits = asend.Limits(stall=30, min_rate=1, grace=0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(partial(send, peer.sock, limits=limits))
        await peer.until_full()
        # Longer than the grace, so that a look happens with all well.
        await anyio.sleep(0.05)
        received = await peer.read(len(DATA))

    assert received == DATA


@pytest.mark.anyio
@on_proactor
@pytest.mark.parametrize("limits", [None, asend.Limits(stall=30)], ids=["free", "watched"])
async def test_a_cancelled_call_sends_no_more_on_a_loop_that_sends_by_itself(
    limits: asend.Limits | None, send: Callable[..., Any], peer: Peer
) -> None:
    counted: list[int] = []
    task = asyncio.ensure_future(send(peer.sock, limits=limits, progress=counted.append))
    await peer.until_full()
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    received = peer.read_now()
    assert not _senders.senders
    await asend.sock_sendall(peer.sock, b"next")
    received += await peer.read_all()
    assert received == DATA[: len(received) - 4] + b"next"
    assert sum(counted) <= len(received) - 4


@pytest.mark.anyio
@on_proactor
async def test_a_second_call_is_refused_on_a_loop_that_sends_by_itself(peer: Peer) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendall, peer.sock, DATA)
        await peer.until_full()
        with pytest.raises(asend.BusyResourceError):
            await asend.sock_sendall(peer.sock, b"second")
        received = await peer.read(len(DATA))

    assert received == DATA


@pytest.mark.anyio
@on_proactor
async def test_a_peer_that_closes_ends_the_call_on_a_loop_that_sends_by_itself(
    send: Callable[..., Any], peer: Peer
) -> None:
    async def run() -> None:
        with pytest.raises(ConnectionError):
            await send(peer.sock)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await peer.until_full()
        peer.other.close()


# --- which one


def test_no_driver_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        _drivers.running()


@pytest.mark.anyio
async def test_each_library_has_its_driver(anyio_backend_name: str) -> None:
    expected = {"asyncio": "asend._drivers._asyncio", "trio": "asend._drivers._anyio"}

    assert _drivers.running().__name__ == expected[anyio_backend_name]


# --- the edges of one sender per socket


@pytest.mark.anyio
async def test_small_sends_on_a_full_socket_wait_with_what_is_left(peer: Peer) -> None:
    """The first try is made before anything is built, and may send nothing or a part."""
    pieces = [DATA[at : at + 60_000] for at in range(0, 1_200_000, 60_000)]

    async def run() -> None:
        for piece in pieces:
            await asend.sock_sendall(peer.sock, piece)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await peer.until_full()
        received = await peer.read(1_200_000)

    assert received == DATA[:1_200_000]


@pytest.mark.anyio
async def test_a_small_send_to_a_dead_peer_says_how_far_it_came(unix_peer: Peer) -> None:
    unix_peer.other.close()

    with pytest.raises(BrokenPipeError) as caught:
        await asend.sock_sendall(unix_peer.sock, b"small")

    assert caught.value.__notes__ == ["0 of 5 bytes sent"]


@pytest.mark.anyio
async def test_a_call_in_the_same_turn_as_the_end_of_another_is_not_busy(
    anyio_backend_name: str, data_file: Path, unix_peer: Peer
) -> None:
    """Under trio it is chance whether the other is cleaning up before this one looks."""
    with data_file.open("rb") as file:
        for _ in range(30):
            async with anyio.create_task_group() as group:
                group.start_soon(
                    partial(asend.sock_sendfile, unix_peer.sock, file, limits=asend.Limits())
                )
                await unix_peer.until_full()
                unix_peer.read_now()
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    if anyio_backend_name == "asyncio":
                        await asyncio.sleep(0)
                    await asend.sock_sendall(unix_peer.sock, b"next")
            assert unix_peer.read_now()[-4:] == b"next"


@pytest.mark.anyio
@on_asyncio
async def test_a_cancelled_call_of_a_socket_that_was_taken_apart_is_over_once(peer: Peer) -> None:
    """Its number is another's before it has cleaned up."""
    first = asyncio.ensure_future(asend.sock_sendall(peer.sock, DATA))
    await peer.until_full()
    peer.read_now()
    successor = socket.socket(fileno=peer.sock.detach())
    successor.setblocking(False)

    first.cancel()
    with successor:
        # In this very turn.
        with pytest.raises(TimeoutError):
            await asend.sock_sendall(successor, DATA, timeout=0.05)
        await asyncio.wait([first])

        assert first.cancelled()
        assert not _senders.senders
        assert not asyncio.get_running_loop().remove_writer(successor)


def test_a_number_whose_socket_is_gone_is_not_busy() -> None:
    """As where the call of another thread ends in this moment."""
    sock, other = socket.socketpair()
    sock.setblocking(False)
    with other, _senders.Sender(sock):
        number = sock.detach()
        successor = socket.socket(fileno=number)

        with successor:
            assert not _senders.is_busy(successor)

    assert not _senders.senders


# --- a clean-up that seeks


@pytest.fixture
def zipped(tmp_path: Path) -> Iterator[gzip.GzipFile]:
    """An object whose position takes a thread to set."""
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(os.urandom(3_000_000), 1))
    with gzip.open(path) as file:
        yield file


async def start_reading(
    zipped: gzip.GzipFile, call: Coroutine[Any, Any, object]
) -> asyncio.Task[object]:
    """Start a call, and wait until it has read two blocks."""
    task = asyncio.ensure_future(call)
    while zipped.tell() < 2 * STEP_SIZE:
        await asyncio.sleep(0.001)
    return task


@asynccontextmanager
async def no_thread_is_free(library: str) -> AsyncIterator[None]:
    """Have others use all the threads that tasks share."""
    if library == "trio":
        limiter = anyio.to_thread.current_default_thread_limiter()
        while limiter.borrowed_tokens:
            await anyio.sleep(0.001)
        others = [object() for _ in range(int(limiter.total_tokens))]
        for other in others:
            limiter.acquire_on_behalf_of_nowait(other)
        yield
        for other in others:
            limiter.release_on_behalf_of(other)
        return
    may_end = threading.Event()
    busy = [asyncio.ensure_future(asyncio.to_thread(may_end.wait, 20)) for _ in range(64)]
    await asyncio.sleep(0)
    yield
    may_end.set()
    await asyncio.gather(*busy)


@pytest.mark.anyio
async def test_a_call_ends_while_no_thread_is_free(
    anyio_backend_name: str, zipped: gzip.GzipFile, unix_peer: Peer
) -> None:
    counted: list[int] = []
    is_over = anyio.Event()

    async def run() -> None:
        with scope:
            await asend.sock_sendfile(unix_peer.sock, zipped, progress=counted.append)
        is_over.set()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(run)
        while zipped.tell() < 2 * STEP_SIZE:
            await anyio.sleep(0.001)
        await unix_peer.until_full()
        async with no_thread_is_free(anyio_backend_name):
            scope.cancel()
            with anyio.move_on_after(10):
                await is_over.wait()
            was_over = is_over.is_set()

    assert was_over
    # A thread that was about to end its read sets it.
    await anyio.to_thread.run_sync(until, lambda: zipped.tell() == sum(counted))


@pytest.mark.anyio
async def test_a_pipe_is_read_while_no_thread_is_free(
    anyio_backend_name: str, unix_peer: Peer
) -> None:
    """It may never deliver, and so gets a thread of its own."""
    source, target = os.pipe()
    os.write(target, b"from a pipe")
    os.close(target)

    with os.fdopen(source, "rb") as file:
        async with no_thread_is_free(anyio_backend_name):
            with anyio.move_on_after(10):
                await asend.sock_sendfile(unix_peer.sock, file)
            received = unix_peer.read_now()

    assert received == b"from a pipe"


@pytest.mark.anyio
@on_asyncio
async def test_the_position_is_set_though_no_thread_can_be_started(
    zipped: gzip.GzipFile, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python has it while the program ends."""
    counted: list[int] = []
    call = await start_reading(
        zipped, asend.sock_sendfile(unix_peer.sock, zipped, progress=counted.append)
    )
    await unix_peer.until_full()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        call.cancel()
        await asyncio.wait([call])

    assert call.cancelled()
    # A thread that was about to end its read sets it.
    await asyncio.to_thread(until, lambda: zipped.tell() == sum(counted))


@pytest.mark.anyio
@on_asyncio
async def test_a_call_that_is_cancelled_twice_still_says_how_far_it_came(
    zipped: gzip.GzipFile, unix_peer: Peer
) -> None:
    counted: list[int] = []

    async def run() -> None:
        try:
            await asend.sock_sendfile(unix_peer.sock, zipped, progress=counted.append)
        except asyncio.CancelledError as error:
            notes.extend(error.__notes__)
            raise

    notes: list[str] = []
    call = await start_reading(zipped, run())
    await unix_peer.until_full()
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])

    assert notes == [f"{sum(counted)} of an unknown number of bytes sent"]
    with anyio.fail_after(10):
        while zipped.tell() != sum(counted):
            await asyncio.sleep(0.001)


@pytest.mark.anyio
@on_asyncio
async def test_a_transport_is_left_in_the_thread_of_its_loop(
    zipped: gzip.GzipFile, unix_peer: Peer
) -> None:
    """asyncio in debug mode refuses any other."""
    ended, lost = threading.Event(), threading.Event()

    class Protocol(asyncio.Protocol):
        def eof_received(self) -> None:
            ended.set()

        def connection_lost(self, error: Exception | None) -> None:
            lost.set()

    transport, _ = await asyncio.get_running_loop().create_unix_connection(
        Protocol, sock=unix_peer.sock.dup()
    )
    unix_peer.sock.close()
    counted: list[int] = []
    call = await start_reading(zipped, asend.sendfile(transport, zipped, progress=counted.append))
    unix_peer.other.shutdown(socket.SHUT_WR)
    with anyio.fail_after(10):
        while not ended.is_set():
            await asyncio.sleep(0.001)

    call.cancel()
    await asyncio.wait([call])

    assert call.cancelled()
    with anyio.fail_after(10):
        while not lost.is_set():
            await asyncio.sleep(0.001)
    assert zipped.tell() == sum(counted)


@pytest.mark.anyio
async def test_a_call_ends_in_time_while_a_pipe_delivers_nothing(unix_peer: Peer) -> None:
    source, target = os.pipe()
    # Lets a call go on that waits for its read.
    timer = threading.Timer(10, os.write, (target, b"late"))
    timer.start()

    with os.fdopen(source, "rb") as file:
        with pytest.raises(TimeoutError):
            await asend.sock_sendfile(unix_peer.sock, file, timeout=0.05)
        was_in_time = timer.is_alive()
        timer.cancel()
        # So that the read ends, too.
        os.close(target)

    assert was_in_time
    timer.join()


# --- what a call leaves behind


ENDLESS = """
import os, socket
import anyio, trio, uvloop
import asend

async def main():
    sock, other = socket.socketpair()
    sock.setblocking(False)
    source, target = os.pipe()
    with sock, other:
        try:
            await asend.sock_sendfile(sock, os.fdopen(source, "rb"), timeout=0.05)
        except TimeoutError as error:
            print(error)

{run}
print("ended")
"""


@pytest.mark.parametrize(
    "run",
    [
        "anyio.run(main)",
        "anyio.run(main, backend_options={'use_uvloop': True})",
        "trio.run(main)",
    ],
    ids=["asyncio", "uvloop", "trio"],
)
def test_a_pipe_that_never_delivers_keeps_no_process_alive(run: str) -> None:
    """Python waits at its end for the threads of executors, for ever where one reads."""
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS.format(run=run)],
        capture_output=True,
        text=True,
        timeout=15,
        cwd=ROOT,
        env=environment(),
    )

    assert done.stdout.split("\n") == ["timed out: not all was sent within 0.05 s", "ended", ""]
    assert "Error" not in done.stderr
    assert done.returncode == 0


class Slow(io.BytesIO):
    """Is read when the test allows it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.is_read = threading.Event()
        self.may_go_on = threading.Event()
        self.threads: list[threading.Thread] = []

    def read(self, size: int | None = -1, /) -> bytes:
        self.threads.append(threading.current_thread())
        self.is_read.set()
        assert self.may_go_on.wait(10)
        return super().read(size)


class Endless(Slow):
    def seekable(self) -> bool:
        return False

    read1 = Slow.read


@pytest.mark.parametrize("kind", [Slow, Endless])
@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_loop_may_be_closed_while_a_cancelled_call_still_reads(
    kind: type[Slow], new_loop: Any, unix_peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    file = kind(DATA)
    loop = new_loop()

    async def cancel_while_reading() -> None:
        task = asyncio.ensure_future(asend.sock_sendfile(unix_peer.sock, file))
        while not file.is_read.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(cancel_while_reading())
    loop.close()
    file.may_go_on.set()
    for thread in file.threads:
        thread.join(10)

    # What a thread raises is a warning, and so an error; what a future's callback does, is logged.
    assert caplog.records == []
    assert unix_peer.read_now() == b""


class SlowToSeek(Reader):
    """Sets its position, once it was read, when the test allows it."""

    def __init__(self, data: bytes) -> None:
        file = io.BytesIO(data)
        self.read, self.tell = file.read, file.tell
        self._seek = file.seek
        self.seeks = threading.Event()
        self.may_go_on = threading.Event()
        self.thread = threading.current_thread()

    def seek(self, position: int, /) -> None:
        if self.tell():
            self.thread = threading.current_thread()
            self.seeks.set()
            assert self.may_go_on.wait(10)
        self._seek(position)


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_loop_may_be_closed_while_a_cancelled_call_still_seeks(
    new_loop: Any, unix_peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    file = SlowToSeek(DATA)
    counted: list[int] = []
    loop = new_loop()

    async def cancel_while_seeking() -> None:
        task = asyncio.ensure_future(
            asend.sock_sendfile(unix_peer.sock, file, progress=counted.append)
        )
        while not (unix_peer.is_full() and file.tell() >= 2 * STEP_SIZE):
            await asyncio.sleep(0.001)
        task.cancel()
        while not file.seeks.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(cancel_while_seeking())
    loop.close()
    file.may_go_on.set()
    file.thread.join(10)

    assert caplog.records == []
    assert file.tell() == sum(counted)


class Recording:
    """Remembers the timers of a loop that asend asks for; made the first of a loop's bases."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_later(self, *args: Any, **options: Any) -> asyncio.TimerHandle:
        timer = super().call_later(*args, **options)  # type: ignore[misc]  # the loop's
        if getattr(args[1], "__name__", "") == "_look":
            self.timers.append(timer)
        return timer


class RecordingAsyncio(Recording, asyncio.SelectorEventLoop):
    pass


class RecordingUvloop(Recording, uvloop.Loop):
    pass


@pytest.mark.parametrize("new_loop", [RecordingAsyncio, RecordingUvloop])
@pytest.mark.parametrize("ending", ["done", "cancelled", "stalled", "broken"])
def test_no_timer_is_left(ending: str, new_loop: Any, unix_peer: Peer) -> None:
    loop = new_loop()

    async def run() -> None:
        limits = asend.Limits(stall=0.05 if ending == "stalled" else 30)
        task = asyncio.ensure_future(asend.sock_sendall(unix_peer.sock, DATA, limits=limits))
        await unix_peer.until_full()
        if ending == "done":
            await unix_peer.read(len(DATA))
        elif ending == "cancelled":
            task.cancel()
        elif ending == "broken":
            unix_peer.other.close()
        await asyncio.wait([task])
        assert task.cancelled() or (task.exception() is None) == (ending == "done")

    loop.run_until_complete(run())

    assert loop.timers
    # The timer of a stall is the one that has run.
    assert loop.timers[-1].cancelled() or ending == "stalled"
    assert len(loop.timers) <= 2
    loop.close()


@pytest.mark.anyio
async def test_looks_go_on_while_a_slow_peer_keeps_the_pace() -> None:
    """A look that breaks nothing is followed by another, until one does."""
    for pace in paces(0.12):
        with closing(Peer(*unix_pair())) as peer:
            error, was_early, sent = await send_until_it_stalls(peer, pace, 0.15)

    assert not was_early
    assert "stalled" in str(error)
    assert error.__notes__ == [f"{sent} of {len(DATA)} bytes sent"]


async def send_until_it_stalls(
    peer: Peer, pace: Pace, stall: float
) -> tuple[TimeoutError, bool, int]:
    """Read in time for so long, then no more; return the error, if it was early, and its count."""
    caught: list[TimeoutError] = []

    async def run() -> None:
        with pytest.raises(TimeoutError) as info:
            await asend.sock_sendall(peer.sock, DATA, limits=asend.Limits(stall=stall))
        caught.append(info.value)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        received = b""
        for _ in range(5):
            while not (peer.is_full() or caught):
                await anyio.sleep(0.001)
            # All of it, as less may be no room to the kernel.
            received += peer.read_now()
            pace.note()
            await anyio.sleep(stall / 3)
            pace.note()
        was_early = bool(caught)
    return caught[0], was_early, len(received + await peer.read_all())


class Unreadable(io.BytesIO):
    """Fails at its second block."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.has_failed = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            self.has_failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def transfers_alive() -> list[object]:
    return [o for o in gc.get_objects() if isinstance(o, (Octets, Vectors, FileTransfer))]


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("ending", ["broken", "stalled", "timed out", "cancelled", "done"])
@pytest.mark.usefixtures("no_collection")
async def test_a_call_that_waited_leaves_no_cycle(
    ending: str, send: Callable[..., Any], unix_peer: Peer
) -> None:
    """A server that fails many calls must not keep their buffers until the next collection.

    The error may be what ends the task, which `asyncio.timeout` refers to.
    """
    options: dict[str, Any] = {
        "stalled": {"limits": asend.Limits(stall=0.05)},
        "timed out": {"timeout": 0.05},
    }.get(ending, {})
    task = asyncio.ensure_future(send(unix_peer.sock, **{"timeout": 60} | options))
    await unix_peer.until_full()
    was_alive = len(transfers_alive())
    if ending == "broken":
        unix_peer.other.close()
    elif ending == "cancelled":
        task.cancel()
    elif ending == "done":
        await unix_peer.read(len(DATA))
    await asyncio.wait([task])
    has_failed = task.cancelled() or task.exception() is not None
    del task
    # The loop lets go of its last callback a turn later.
    await asyncio.sleep(0)
    left = len(transfers_alive())

    assert has_failed == (ending != "done")
    assert (was_alive, left) == (1, 0)


@pytest.mark.anyio
@on_asyncio
@pytest.mark.usefixtures("no_collection")
async def test_a_call_that_fails_and_is_cancelled_at_once_leaves_no_cycle(unix_peer: Peer) -> None:
    """Its own error is raised nowhere then."""

    calls: list[Callable[[], object]] = []

    def progress(_: int) -> None:
        if calls:
            asyncio.get_running_loop().call_soon(calls.pop())
            raise KeyError("no more")

    task = asyncio.ensure_future(asend.sock_sendall(unix_peer.sock, DATA, progress=progress))
    await unix_peer.until_full()
    calls.append(task.cancel)
    await unix_peer.read(STEP_SIZE)
    await asyncio.wait([task])
    was_cancelled = task.cancelled()
    del task
    await asyncio.sleep(0)
    left = len(transfers_alive())

    assert was_cancelled
    assert left == 0


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "unheard"])
@pytest.mark.usefixtures("no_collection")
async def test_a_file_that_cannot_be_read_leaves_no_cycle(is_heard: bool, unix_peer: Peer) -> None:
    """Its error waits for what was read before; the call may end before it is raised."""
    file = Unreadable(DATA)

    async def run() -> None:
        with suppress(OSError, asyncio.CancelledError):
            await asend.sock_sendfile(unix_peer.sock, file)

    task = asyncio.ensure_future(run())
    while not file.has_failed.is_set():
        await asyncio.sleep(0)
    await unix_peer.until_full()
    if is_heard:
        await unix_peer.read(STEP_SIZE)
    else:
        task.cancel()
    await task
    del task
    # The thread that read may not have let go of the transfer yet.
    with anyio.move_on_after(5):
        while transfers_alive():
            await asyncio.sleep(0.001)
    left = len(transfers_alive())

    assert left == 0
