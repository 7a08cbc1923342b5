"""What holds for every call: all or an error, exact progress, limits, one sender, clean ends."""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import errno
import inspect
import mmap
import os
import resource
import select
import socket
import struct
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from conftest import ASYNCIO, DATA, TRIO, Peer, tcp_pair, unix_pair
from sends import note, notes, send_memory_file, send_octets, send_vectors
from waiting import Pace, paces, rests

import asend
from asend import _senders

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    Send = Callable[..., Coroutine[Any, Any, object]]

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["octets", "vectors", "kernel", "copy", "memory"])
def send(request: pytest.FixtureRequest, data_file: Path, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Send DATA, in each of the ways that there are."""

    async def send_file(sock: socket.socket, **options: Any) -> int:
        with data_file.open("rb") as file:
            return await asend.sock_sendfile(sock, file, **options)

    if request.param == "copy":
        # As on systems that do not have it.
        monkeypatch.delattr(os, "sendfile")
    ways: dict[str, Send] = {
        "octets": send_octets,
        "vectors": send_vectors,
        "kernel": send_file,
        "copy": send_file,
        "memory": send_memory_file,
    }
    return ways[request.param]


async def test_all_bytes_arrive_in_order(send: Send, peer: Peer) -> None:
    counted: list[int] = []

    async with anyio.create_task_group() as group:
        group.start_soon(partial(send, peer.sock, progress=counted.append))
        received = await peer.read(len(DATA))

    assert received == DATA
    assert sum(counted) == len(DATA)
    assert not _senders.senders


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        array.array("i", range(300_000)),
        memoryview(bytes(range(200)) * 2000).cast("B", (20, 20000)),
        (ctypes.c_int * 1000)(*range(1000)),
        ctypes.c_int64(-5),
    ],
    ids=["bytearray", "memoryview", "array-i", "2-D", "ctypes", "0-D"],
)
async def test_any_contiguous_buffer_is_sent_as_its_bytes(data: Any, peer: Peer) -> None:
    """CPython gh-135862: items were counted as bytes."""
    whole = memoryview(data).cast("B").tobytes()

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendall, peer.sock, data)
        received = await peer.read(len(whole))
        group.start_soon(asend.sock_sendmsg, peer.sock, [b"<", data, b">"])
        received_vectors = await peer.read(len(whole) + 2)

    assert received == whole
    assert received_vectors == b"<" + whole + b">"


async def test_a_memory_map_is_sent(data_file: Path, peer: Peer) -> None:
    with (
        data_file.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(asend.sock_sendall, peer.sock, mapped)
            received = await peer.read(len(DATA))

    assert received == DATA


async def test_a_bytearray_can_be_resized_after_the_call(peer: Peer) -> None:
    data = bytearray(DATA)

    with pytest.raises(TimeoutError) as caught:
        await asend.sock_sendall(peer.sock, data, timeout=0)
    data.clear()
    with pytest.raises(TimeoutError) as caught_vectors:
        await asend.sock_sendmsg(peer.sock, [other := bytearray(DATA)], timeout=0)
    other.clear()

    # Here, as the frames that they hold would keep the views alive, were those not released.
    assert caught.value is not caught_vectors.value


async def test_a_bytearray_cannot_be_resized_during_the_call(peer: Peer) -> None:
    data = bytearray(DATA)

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendall, peer.sock, data)
        await peer.until_full()
        with pytest.raises(BufferError):
            data.clear()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("empty", [b"", bytearray(), array.array("i"), (ctypes.c_int * 0 * 3)()])
async def test_empty_data_makes_one_send(empty: Any, unix_peer: Peer) -> None:
    counted: list[int] = []

    await asend.sock_sendall(unix_peer.sock, empty, progress=counted.append)
    await asend.sock_sendmsg(unix_peer.sock, [empty], progress=counted.append)
    unix_peer.other.close()

    assert counted == [0, 0]
    with pytest.raises(BrokenPipeError):
        await asend.sock_sendall(unix_peer.sock, empty)
    with pytest.raises(BrokenPipeError):
        await asend.sock_sendmsg(unix_peer.sock, [])


async def test_an_empty_datagram_is_sent() -> None:
    sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sock, other:
        sock.setblocking(False)
        await asend.sock_sendall(sock, b"")
        await asend.sock_sendmsg(sock, [b"one ", b"message"])

        received = [other.recv(100), other.recv(100)]

    assert received == [b"", b"one message"]


async def test_a_large_datagram_stays_one_message() -> None:
    sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sock, other:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        size = min(300_000, sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 1000)
        await asend.sock_sendall(sock, DATA[:size])
        first = other.recv(1 << 20)
        await asend.sock_sendmsg(sock, [DATA[:5], DATA[5:size]])
        second = other.recv(1 << 20)

    assert first == second == DATA[:size]


async def test_flags_reach_the_kernel(tcp_peer: Peer) -> None:
    urgent = []

    for call, data in (
        (asend.sock_sendall(tcp_peer.sock, b"a", socket.MSG_OOB), b"a"),
        (asend.sock_sendall(tcp_peer.sock, memoryview(b"b"), socket.MSG_OOB), b"b"),
        (asend.sock_sendmsg(tcp_peer.sock, [b"c"], (), socket.MSG_OOB), b"c"),
    ):
        await call
        select.select([], [], [tcp_peer.other], 5)
        urgent.append((tcp_peer.other.recv(1, socket.MSG_OOB), data))

    assert urgent == [(b"a", b"a"), (b"b", b"b"), (b"c", b"c")]


async def test_ancillary_data_goes_once_with_the_first_byte(
    unix_peer: Peer, data_file: Path
) -> None:
    with data_file.open("rb") as file:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
        async with anyio.create_task_group() as group:
            group.start_soon(asend.sock_sendmsg, unix_peer.sock, [DATA], rights)
            await unix_peer.until_full()
            data, ancillary, _, _ = unix_peer.other.recvmsg(10, 1000)
            fds = [struct.unpack("i", payload[:4])[0] for _, _, payload in ancillary]
            data += await unix_peer.read(len(DATA) - len(data))
    copies = [os.fdopen(fd, "rb") for fd in fds]
    for copy in copies:
        copy.close()

    assert data == DATA
    assert len(copies) == 1


async def test_many_small_buffers_are_sent(peer: Peer) -> None:
    pieces = [DATA[at : at + 7] for at in range(0, 70_000, 7)]

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendmsg, peer.sock, pieces)
        received = await peer.read(70_000)

    assert received == DATA[:70_000]


# --- time and pace


async def test_the_timeout_is_total_and_not_restarted_by_progress(send: Send, peer: Peer) -> None:
    received = b""
    counted: list[int] = []
    start = time.monotonic()

    async def trickle() -> None:
        nonlocal received
        while True:
            received += peer.read_now(4096)
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(trickle)
        with pytest.raises(TimeoutError, match=r"within 0\.1 s") as caught:
            await send(peer.sock, timeout=0.1, progress=counted.append)
        group.cancel_scope.cancel()
    took = time.monotonic() - start

    assert 0.09 <= took < 2
    assert notes(caught.value) == [note(sum(counted))]
    assert 0 < sum(counted) < len(DATA)
    assert received + await peer.read_all() == DATA[: sum(counted)]


async def test_the_default_timeout_is_the_sockets_own(send: Send, peer: Peer) -> None:
    peer.sock.settimeout(0.1)

    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        await send(peer.sock)
    peer.sock.setblocking(False)


async def test_a_socket_with_a_timeout_does_not_block_the_loop(send: Send, peer: Peer) -> None:
    peer.sock.settimeout(30)
    ticks = 0

    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        await peer.until_full()
        for _ in range(20):
            await anyio.sleep(0.001)
            ticks += 1
        received = await peer.read(len(DATA))

    assert ticks == 20
    assert received == DATA
    assert peer.sock.gettimeout() == 30


async def test_a_timeout_of_zero_tries_once(send: Send, peer: Peer) -> None:
    counted: list[int] = []

    with pytest.raises(TimeoutError) as caught:
        await send(peer.sock, timeout=0, progress=counted.append)

    assert len(counted) <= 1
    assert notes(caught.value) == [note(sum(counted))]
    assert await peer.read_all() == DATA[: sum(counted)]


@pytest.mark.parametrize("timeout", [0, 5, None, float("inf")])
async def test_what_the_kernel_takes_at_once_meets_any_timeout(
    timeout: float | None, peer: Peer
) -> None:
    await asend.sock_sendall(peer.sock, b"hello", timeout=timeout)

    assert await peer.read_all() == b"hello"


async def test_a_stall_ends_the_call(send: Send, peer: Peer) -> None:
    start = time.monotonic()

    with pytest.raises(TimeoutError, match=r"stalled: no byte accepted for 0\.1 s") as caught:
        await send(peer.sock, limits=asend.Limits(stall=0.1))
    took = time.monotonic() - start

    assert 0.1 <= took < 2
    sent = len(await peer.read_all())
    assert notes(caught.value) == [note(sent)]


async def test_progress_holds_a_stall_off() -> None:
    limits = asend.Limits(stall=0.25)

    # What is read makes room every third time.
    for pace in paces(0.08):
        counted: list[int] = []
        start = time.monotonic()
        error = await send_to_a_slow_one(pace, limits=limits, progress=counted.append)
        took = time.monotonic() - start

    assert error is None
    assert took > 0.25
    assert sum(counted) == len(DATA)


async def send_to_a_slow_one(pace: Pace, **options: Any) -> TimeoutError | None:
    """Send to a peer that reads a bit now and then, and return how it failed, if it did."""
    ended: list[TimeoutError | None] = []

    async def run() -> None:
        try:
            await asend.sock_sendall(peer.sock, DATA, **options)
        except TimeoutError as error:
            ended.append(error)
        else:
            ended.append(None)

    with contextlib.closing(Peer(*unix_pair())) as peer:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            while not ended:
                peer.read_now(65536)
                pace.note()
                await anyio.sleep(0.01)
    return ended[0]


async def test_a_rate_below_the_least_ends_the_call_after_the_grace(send: Send, peer: Peer) -> None:
    limits = asend.Limits(min_rate=1e9, grace=0.1)
    start = time.monotonic()

    with pytest.raises(TimeoutError, match=r"too slow: \d+ bytes/s, min_rate is 1e\+09"):
        await send(peer.sock, limits=limits, timeout=30)

    assert 0.1 <= time.monotonic() - start < 2


async def test_limits_that_are_kept_change_nothing(send: Send, peer: Peer) -> None:
    limits = asend.Limits(stall=20, min_rate=1, grace=0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(partial(send, peer.sock, limits=limits))
        await peer.until_full()
        # Longer than the grace, so that a look happens with all well.
        await anyio.sleep(0.05)
        received = await peer.read(len(DATA))

    assert received == DATA


async def test_the_earlier_of_two_limits_counts(peer: Peer) -> None:
    with pytest.raises(TimeoutError, match="within"):
        await asend.sock_sendall(peer.sock, DATA, timeout=0.1, limits=asend.Limits(stall=5))
    with pytest.raises(TimeoutError, match="stalled"):
        await asend.sock_sendall(peer.sock, DATA, timeout=5, limits=asend.Limits(stall=0.1))


# --- progress and errors


async def test_what_progress_raises_comes_out(send: Send, peer: Peer) -> None:
    counted = 0

    def progress(nbytes: int) -> None:
        nonlocal counted
        counted += nbytes
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough") as caught:
        await send(peer.sock, progress=progress)

    assert notes(caught.value) == [note(counted)]
    assert await peer.read_all() == DATA[:counted]


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, asend.SendfileNotAvailableError])
async def test_what_progress_raises_after_a_wait_comes_out(
    error: type[BaseException], send: Send, peer: Peer
) -> None:
    counted = 0
    has_waited = False
    caught: list[BaseException] = []

    def progress(nbytes: int) -> None:
        nonlocal counted
        counted += nbytes
        if has_waited:
            raise error("enough")

    async def run() -> None:
        try:
            await send(peer.sock, progress=progress)
        except BaseException as raised:  # whatever progress raises
            caught.append(raised)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await peer.until_full()
        has_waited = True
        received = peer.read_now()
        while not caught:
            await anyio.sleep(0.001)

    assert type(caught[0]) is error
    assert notes(caught[0]) == [note(counted)]
    assert received + await peer.read_all() == DATA[:counted]


async def test_a_peer_that_closes_ends_the_call(send: Send, peer: Peer) -> None:
    counted: list[int] = []
    caught: list[OSError] = []

    async def run() -> None:
        with pytest.raises(ConnectionError) as info:
            await send(peer.sock, progress=counted.append)
        caught.append(info.value)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await peer.until_full()
        peer.other.close()

    assert caught[0].errno in (errno.EPIPE, errno.ECONNRESET)
    assert notes(caught[0]) == [note(sum(counted))]


async def test_a_dead_peer_is_an_error_at_once(send: Send, unix_peer: Peer) -> None:
    unix_peer.other.close()

    with pytest.raises(BrokenPipeError) as caught:
        await send(unix_peer.sock)

    assert notes(caught.value) == [note(0)]


async def test_shutdown_ends_a_waiting_call(send: Send, peer: Peer) -> None:
    async def run() -> None:
        with pytest.raises(BrokenPipeError):
            await send(peer.sock)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await peer.until_full()
        peer.sock.shutdown(socket.SHUT_RDWR)


# --- cancelling


@pytest.mark.parametrize("waits", range(4))
async def test_a_cancelled_call_is_exact_at_every_wait(waits: int, send: Send, peer: Peer) -> None:
    counted: list[int] = []
    received = b""
    caught: list[BaseException] = []

    async def run() -> None:
        try:
            await send(peer.sock, progress=counted.append)
        except BaseException as error:  # a cancellation, whatever its class here
            caught.append(error)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(waits):
            await peer.until_full()
            received += peer.read_now()
        await peer.until_full()
        group.cancel_scope.cancel()

    assert isinstance(caught[0], anyio.get_cancelled_exc_class())
    assert notes(caught[0]) == [note(sum(counted))]
    assert not _senders.senders
    # The socket is as usable as before, and nothing of the call comes later.
    received += peer.read_now()
    await asend.sock_sendall(peer.sock, b"next")
    received += await peer.read_all()
    assert received == DATA[: sum(counted)] + b"next"


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_cancelled_call_sends_nothing_in_its_last_turn(peer: Peer) -> None:
    """The socket is writable and the task cancelled, both before the loop runs."""
    counted: list[int] = []
    task = asyncio.ensure_future(asend.sock_sendall(peer.sock, DATA, progress=counted.append))
    await peer.until_full()
    sent = sum(counted)

    received = peer.read_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert sum(counted) == sent
    assert received + await peer.read_all() == DATA[:sent]


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_cancelled_call_leaves_no_writer(send: Send, peer: Peer) -> None:
    task = asyncio.ensure_future(send(peer.sock))
    await peer.until_full()

    task.cancel()
    await asyncio.wait([task])

    assert not asyncio.get_running_loop().remove_writer(peer.sock)


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_call_right_after_a_cancelled_one_is_not_busy(peer: Peer) -> None:
    """bpo-30064: the clean-up of the first call took the writer of the second away."""
    counted: list[int] = []
    first = asyncio.ensure_future(asend.sock_sendall(peer.sock, DATA, progress=counted.append))
    await peer.until_full()

    first.cancel()
    # Without a turn of the loop in between: the first call has not cleaned up yet.
    second = asyncio.ensure_future(asend.sock_sendall(peer.sock, DATA))
    received = await peer.read(sum(counted) + len(DATA))
    await second

    assert received == DATA[: sum(counted)] + DATA
    assert first.cancelled()


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
@pytest.mark.parametrize("timeout", [0, 20])
async def test_cancelled_calls_leave_a_loop_that_rests(timeout: float, peer: Peer) -> None:
    """A call on a socket with a timeout waits on a duplicate, that no successor replaces."""
    peer.sock.settimeout(timeout)
    first = asyncio.ensure_future(asend.sock_sendall(peer.sock, DATA))
    await peer.until_full()

    first.cancel()
    second = asyncio.ensure_future(asend.sock_sendall(peer.sock, DATA, timeout=0.05))
    await asyncio.wait([first])
    peer.read_now()
    with pytest.raises(TimeoutError):
        await second
    peer.read_now()

    assert await rests()
    assert not _senders.senders


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
@pytest.mark.parametrize("anyio_backend", ASYNCIO[:1], indirect=True)
async def test_a_call_that_progress_starts_meanwhile_is_refused(send: Send, peer: Peer) -> None:
    caught: list[BaseException | None] = []

    def progress(_: int) -> None:
        if not caught:
            loop = asyncio.get_running_loop()
            inner = asyncio.eager_task_factory(loop, asend.sock_sendall(peer.sock, b"between"))
            caught.append(inner.exception())

    async with anyio.create_task_group() as group:
        group.start_soon(partial(send, peer.sock, progress=progress))
        received = await peer.read(len(DATA))

    assert [type(error) for error in caught] == [asend.BusyResourceError]
    assert received == DATA


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_call_of_a_closed_loop_is_not_busy(peer: Peer) -> None:
    loop = asyncio.new_event_loop()
    coroutine = asend.sock_sendall(peer.sock, DATA)

    def run() -> None:
        with pytest.raises(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(asyncio.shield(task), 0.05))
        loop.close()

    task = loop.create_task(coroutine)
    await asyncio.to_thread(run)
    received = peer.read_now()
    await asend.sock_sendall(peer.sock, b"next")

    assert received + peer.read_now() == DATA[: len(received)] + b"next"
    task.get_coro().close()
    task._log_destroy_pending = False


@pytest.mark.parametrize("call", [send_octets, send_vectors, send_memory_file])
async def test_a_socket_closed_before_the_call_waits_ends_it(call: Send, peer: Peer) -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        await call(peer.sock, progress=lambda _: peer.sock.close())

    assert caught.value.errno == errno.EBADF


async def test_ancillary_data_of_a_generator_survives_a_full_socket(
    unix_peer: Peer, data_file: Path
) -> None:
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += unix_peer.sock.send(bytes(65536))
    with data_file.open("rb") as file:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
        async with anyio.create_task_group() as group:
            group.start_soon(asend.sock_sendmsg, unix_peer.sock, [b"x"], iter([rights]))
            await anyio.lowlevel.checkpoint()
            await unix_peer.read(filled)
            await anyio.wait_readable(unix_peer.other)
            data, ancillary, _, _ = unix_peer.other.recvmsg(10, 1000)
    for _, _, payload in ancillary:
        os.close(struct.unpack("i", payload[:4])[0])

    assert data == b"x"
    assert len(ancillary) == 1


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_a_call_right_after_a_cancelled_one_is_not_busy_under_trio(
    send: Send, peer: Peer
) -> None:
    counted: list[int] = []
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await send(peer.sock, progress=counted.append)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await peer.until_full()
        scope.cancel()
        nursery.start_soon(send, peer.sock)
        received = await peer.read(sum(counted) + len(DATA))

    assert received == DATA[: sum(counted)] + DATA


# --- one sender


async def test_a_second_call_on_a_busy_socket_is_refused(send: Send, peer: Peer) -> None:
    counted: list[int] = []

    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        await peer.until_full()
        for call in (send, send_octets, send_vectors):
            with pytest.raises(asend.BusyResourceError, match="another call is sending") as caught:
                await call(peer.sock, progress=counted.append)
            assert notes(caught.value) == []
        with pytest.raises(asend.BusyResourceError):
            await asend.sock_sendall(peer.sock, b"small")
        received = await peer.read(len(DATA))

    assert received == DATA
    assert counted == []
    await asend.sock_sendall(peer.sock, b"free again")
    assert await peer.read_all() == b"free again"


async def test_two_sockets_are_sent_on_at_once(send: Send, peer: Peer) -> None:
    second = Peer(*tcp_pair())

    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        group.start_soon(send, second.sock)
        await peer.until_full()
        await second.until_full()
        received = [await second.read(len(DATA)), await peer.read(len(DATA))]
    second.close()

    assert received == [DATA, DATA]


async def test_a_small_send_goes_by_while_others_wait(peer: Peer) -> None:
    second = Peer(*tcp_pair())

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sock_sendall, peer.sock, DATA)
        await peer.until_full()
        await asend.sock_sendall(second.sock, b"small")
        with pytest.raises(asend.BusyResourceError):
            await asend.sock_sendall(peer.sock, b"small")
        received = await second.read(5)
        group.cancel_scope.cancel()
    second.close()

    assert received == b"small"


# --- closing meanwhile


async def test_closing_under_a_call_is_deferred_until_it_ends(send: Send, peer: Peer) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        await peer.until_full()
        number = peer.sock.fileno()
        peer.sock.close()
        # One of them takes the number of the closed socket.
        others = [Peer(*socket.socketpair()) for _ in range(3)]
        numbers = {sock.fileno() for other in others for sock in (other.sock, other.other)}
        received = await peer.read(len(DATA))
        rest = await peer.read(1)

    leaked = [other.read_now() for other in others]
    for other in others:
        other.close()
    assert number in numbers
    assert received == DATA
    # And then it is closed.
    assert rest == b""
    assert leaked == [b"", b"", b""]


async def test_closing_a_detached_socket_is_deferred_until_the_call_ends(
    send: Send, peer: Peer
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        await peer.until_full()
        os.close(peer.sock.detach())
        received = await peer.read(len(DATA))
        rest = await peer.read(1)

    assert received == DATA
    assert rest == b""


async def test_a_peer_that_goes_ends_the_call_of_a_detached_socket(peer: Peer) -> None:
    async def run() -> None:
        with pytest.raises(ConnectionError):
            await asend.sock_sendall(peer.sock, DATA)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await peer.until_full()
            os.close(peer.sock.detach())
            peer.other.close()


async def test_a_number_that_is_another_connection_by_now_is_free(send: Send, peer: Peer) -> None:
    other = Peer(*tcp_pair())

    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        await peer.until_full()
        number = peer.sock.detach()
        # Closes `number`, and gives it to another connection.
        os.dup2(other.sock.fileno(), number)
        successor = socket.socket(fileno=number)
        successor.setblocking(False)
        group.start_soon(asend.sock_sendall, successor, DATA)
        await other.until_full()
        received = [await peer.read(len(DATA)), await other.read(len(DATA))]
    successor.close()
    other.close()

    assert received == [DATA, DATA]
    assert not _senders.senders


async def test_a_detached_socket_is_busy_under_its_new_object(send: Send, peer: Peer) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(send, peer.sock)
        await peer.until_full()
        successor = socket.socket(fileno=peer.sock.detach())
        successor.setblocking(False)
        with successor:
            for call in (send, send_octets, send_vectors):
                with pytest.raises(asend.BusyResourceError):
                    await call(successor)
            with pytest.raises(asend.BusyResourceError):
                await asend.sock_sendall(successor, b"small")
        received = await peer.read(len(DATA))

    assert received == DATA


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_socket_is_busy_while_a_call_of_another_thread_sends(unix_peer: Peer) -> None:
    caught: list[BaseException] = []

    async def send_there() -> None:
        try:
            await asend.sock_sendall(unix_peer.sock, DATA)
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=asyncio.run, args=(send_there(),))
    thread.start()
    await unix_peer.until_full()
    with pytest.raises(asend.BusyResourceError):
        await asend.sock_sendall(unix_peer.sock, DATA)
    unix_peer.other.close()
    await asyncio.to_thread(thread.join, 20)

    assert [type(error) for error in caught] == [BrokenPipeError]
    assert not _senders.senders


async def test_a_process_without_descriptors_is_told_so(peer: Peer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(peer.sock.fileno())
    os.close(highest)
    counted: list[int] = []

    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            await asend.sock_sendall(peer.sock, DATA, progress=counted.append)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert caught.value.errno == errno.EMFILE
    assert notes(caught.value) == [f"{sum(counted)} of {len(DATA)} bytes sent"]
    assert await peer.read_all() == DATA[: sum(counted)]
    assert not _senders.senders


def test_a_small_send_is_a_checkpoint_for_a_guest_of_asyncio(unix_peer: Peer) -> None:
    async def guest() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await asend.sock_sendall(unix_peer.sock, b"not sent")

    async def host() -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
        )
        (await over).unwrap()

    asyncio.run(host())

    assert unix_peer.read_now() == b""


async def test_a_socket_closed_before_the_call_is_an_error(send: Send, peer: Peer) -> None:
    peer.sock.close()

    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        await send(peer.sock)

    assert caught.value.errno == errno.EBADF


# --- fairness


async def test_others_run_while_a_fast_peer_takes_everything(
    send: Send, peer: Peer, request: pytest.FixtureRequest
) -> None:
    turns = 0
    is_over = False

    async def count_turns() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            await anyio.lowlevel.checkpoint()

    counted: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(count_turns)
        group.start_soon(partial(send, peer.sock, progress=counted.append))
        await peer.read(len(DATA))
        is_over = True

    # What is copied holds the loop longer.
    is_copied = request.node.callspec.params["send"] != "kernel"
    most = (256 if is_copied else 1024) * 1024
    assert max(counted) <= most
    assert turns > len(DATA) / most


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_every_call_is_a_checkpoint_under_trio(data_file: Path, unix_peer: Peer) -> None:
    with trio.testing.assert_checkpoints():
        await asend.sock_sendall(unix_peer.sock, b"x")
    with trio.testing.assert_checkpoints():
        await asend.sock_sendmsg(unix_peer.sock, [b"x"])
    with data_file.open("rb") as file, trio.testing.assert_checkpoints():
        await asend.sock_sendfile(unix_peer.sock, file, 0, 1)

    with trio.CancelScope() as scope:
        scope.cancel()
        await asend.sock_sendall(unix_peer.sock, b"not sent")
    assert await unix_peer.read_all() == b"xx" + DATA[:1]


# --- trio's sockets


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_a_trio_socket_is_sent_on(send: Send) -> None:
    sock, other = trio.socket.socketpair()
    received = b""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, sock)
        while len(received) < len(DATA):
            received += await other.recv(1 << 20)
    sock.close()
    other.close()

    assert received == DATA


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_closing_a_trio_socket_ends_the_call(send: Send) -> None:
    sock, other = trio.socket.socketpair()

    async def run() -> None:
        with pytest.raises(OSError, match="closed while sending") as caught:
            await send(sock)
        assert caught.value.errno == errno.EBADF

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        sock.close()
    other.close()


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_a_detached_trio_socket_ends_the_call(send: Send) -> None:
    sock, other = trio.socket.socketpair()

    async def run() -> None:
        with pytest.raises(OSError, match="closed while sending"):
            await send(sock)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked(0.05)
            os.close(sock.detach())
            # Once there is room for more, the call looks after its socket.
            while await other.recv(1 << 20):
                pass
    other.close()


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_a_trio_socket_that_trio_sends_on_is_busy() -> None:
    sock, other = trio.socket.socketpair()

    async with trio.open_nursery() as nursery:

        async def send_with_trio() -> None:
            while True:
                await sock.send(DATA)

        nursery.start_soon(send_with_trio)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with pytest.raises(asend.BusyResourceError):
            await asend.sock_sendall(sock, DATA)
        nursery.cancel_scope.cancel()
    sock.close()
    other.close()


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_trio_socket_is_refused_under_asyncio() -> None:
    sock, other = trio.socket.socketpair()

    with pytest.raises(TypeError, match=r"^a trio socket can be sent on only under trio$"):
        await asend.sock_sendall(sock, b"x")
    # Its close() needs trio.
    os.close(sock.detach())
    os.close(other.detach())


def test_no_running_loop_is_an_error(unix_peer: Peer) -> None:
    call = asend.sock_sendall(unix_peer.sock, b"x", progress=print)

    with pytest.raises(RuntimeError, match="no running event loop"):
        call.send(None)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
