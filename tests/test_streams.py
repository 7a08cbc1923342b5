"""Streams of every kind, on every library that has them: order, counts, ends, and refusals."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import gzip
import io
import os
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pickle import PickleBuffer
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
import trio
from anyio.streams.stapled import StapledByteStream
from conftest import ASYNCIO, DATA, TRIO, tcp_pair
from odd_files import Gated, Opaque
from sends import note, notes
from stream_kinds import (
    ALL,
    PIPES,
    PLAIN,
    PLAIN_TRANSPORTS,
    TLS_TRANSPORTS,
    TRANSPORTS,
    Ends,
    Far,
    PipeFar,
    Recorder,
    on,
    on_asyncio,
    open_ends,
)
from waiting import PATIENCE, paces, rests

import asend
from asend import _senders
from asend._files import FileTransfer
from asend._outlets import _blocks, _through
from asend._wants import FILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.anyio

# More than the kernel takes of a stream whose far end does not read.
LARGE = bytes(range(251)) * 8000
STAGES = ["draining", "first", "middle", "last"]


# What a call raises whose stream is closed.
CLOSED = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)


@pytest.fixture
async def ends(anyio_backend: object, kind: str) -> AsyncIterator[Ends]:
    async with open_ends(kind) as ends:
        yield ends
    assert not _senders.senders
    assert not _blocks._busy


@pytest.fixture
def file(data_file: Path) -> Iterator[Any]:
    with data_file.open("rb") as file:
        yield file


class Call:
    """A call in a task of its own, how far it is, and how it ended."""

    def __init__(self, send: Callable[..., Awaitable[object]], *args: Any, **options: Any) -> None:
        self.counted: list[int] = []
        self._send = partial(send, *args, progress=self.counted.append, **options)
        self.scope = anyio.CancelScope()
        self.is_started = False
        self.is_over = False
        self.result: object = None
        self.error: BaseException | None = None

    async def run(self) -> None:
        self.is_started = True
        with self.scope:
            try:
                self.result = await self._send()
            except Exception as error:  # how it ended, whatever that is
                self.error = error
            except BaseException as error:  # a cancellation, which its scope is to have
                self.error = error
                raise
            finally:
                self.is_over = True

    @property
    def sent(self) -> int:
        return sum(self.counted)

    async def over(self) -> None:
        with anyio.fail_after(10):
            while not self.is_over:
                await anyio.sleep(0.001)

    def notes(self) -> list[str]:
        return notes(self.error)


async def bring_to(stage: str, ends: Ends, call: Call) -> bytes:
    """Read until the call waits at this stage; return what was read."""
    # More than what is on the way takes: a process and its two pipes, or what encrypts.
    rest = 500_000 if ends.is_plain else 900_000
    at = {"draining": 0, "first": 0, "middle": len(DATA) // 2, "last": len(DATA) - rest}[stage]
    received = b""
    with anyio.fail_after(20):
        while len(received) < at and not call.is_over:
            try:
                received += ends.far.recv(min(65536, at - len(received)))
            except BlockingIOError:
                # Not to be waited for: a call that is over sends no more.
                await anyio.sleep(0.001)
        while not (call.is_started and (ends.is_full() or call.is_over)):
            await anyio.sleep(0.001)
    assert call.sent < len(DATA)
    return received


async def start(stage: str, ends: Ends, call: Call, group: anyio.abc.TaskGroup) -> bytes:
    """Start a call and bring it to a stage; return what the far end read."""
    if stage == "draining":
        ends.transport.write(LARGE)
    group.start_soon(call.run)
    return await bring_to(stage, ends, call)


def written_before(stage: str) -> bytes:
    return LARGE if stage == "draining" else b""


# --- cycles


@on(["transport"])
@pytest.mark.parametrize("limits", [None, asend.Limits(stall=20)], ids=["", "limits"])
@pytest.mark.usefixtures("no_collection")
async def test_a_call_on_a_transport_that_waited_leaves_no_cycle(
    limits: asend.Limits | None, ends: Ends, tmp_path: Path
) -> None:
    """The file would stay open till the next collection."""
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    file = path.open("rb", buffering=0)
    was_dropped = weakref.ref(file)

    async with anyio.create_task_group() as group:
        group.start_soon(partial(asend.sendfile, ends.stream, file, limits=limits))
        received = await ends.far.read(len(LARGE))
    file.close()
    del file, group
    # The loop lets go of its last callback a turn later.
    await asyncio.sleep(0)
    left = was_dropped()

    assert received == LARGE
    assert left is None


@on(["transport"])
async def test_a_call_right_after_a_cancelled_one_leaves_the_protocol_as_it_was(
    ends: Ends,
) -> None:
    """The cancelled one has its clean-up left, and its watch still on the transport."""
    protocol = ends.transport.get_protocol()
    task = asyncio.ensure_future(asend.sendall(ends.stream, LARGE))
    await ends.until_full()
    reading = asyncio.ensure_future(ends.far.read(3 * len(LARGE)))
    task.cancel()
    second = asyncio.ensure_future(asend.sendall(ends.stream, LARGE))

    await second

    assert task.cancelled()
    assert ends.transport.get_protocol() is protocol
    reading.cancel()
    await asyncio.wait([reading])


# uvloop has no sendfile.
@pytest.mark.parametrize(
    "anyio_backend", [one for one in ASYNCIO if one.id != "uvloop"], indirect=True
)
@pytest.mark.parametrize("kind", ["transport"])
async def test_a_transport_on_which_asyncio_sends_a_file_is_busy(
    ends: Ends, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    with path.open("rb") as file:
        task = asyncio.ensure_future(loop.sendfile(ends.transport, file))
        await ends.until_full()
        for data in (b"small", bytearray(b"small")):
            with pytest.raises(asend.BusyResourceError):
                await asend.sendall(ends.stream, data)
        received = await ends.far.read(len(LARGE))
        await task

    assert received == LARGE


def test_a_stream_of_asyncio_is_refused_in_a_task_of_trio() -> None:
    async def connect() -> asyncio.BaseTransport:
        left, right = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=left
        )
        right.close()
        return transport

    with asyncio.Runner() as runner:
        transport = runner.run(connect())

        with pytest.raises(TypeError, match="only under asyncio"):
            trio.run(asend.sendall, transport, b"small")

        transport.abort()
        runner.run(asyncio.sleep(0))


# --- small data


@on(["transport"])
@pytest.mark.parametrize("first", [0, 2], ids=["nothing", "a-part"])
async def test_small_data_that_has_to_wait_waits(
    first: int, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    write = os.write

    def write_little(fd: int, data: bytes) -> int:
        tries.append(len(data))
        if len(tries) > 1:
            return write(fd, data)
        if not first:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return write(fd, data[:first])

    monkeypatch.setattr(os, "write", write_little)

    await asend.sendall(ends.stream, b"small")
    received = await ends.far.read(5)

    assert received == b"small"
    assert tries == [5, 5 - first]


@on(["transport"])
async def test_small_data_comes_after_what_was_written_before(ends: Ends) -> None:
    ends.transport.write(LARGE)

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sendall, ends.stream, b"small")
        received = await ends.far.read(len(LARGE) + 5)

    assert received == LARGE + b"small"


@on(["transport"])
async def test_an_error_of_small_data_says_that_nothing_was_sent(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the peer is gone, and the loop has not heard of it yet."""

    def refuse(fd: int, data: object) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(os, "write", refuse)

    with pytest.raises(BrokenPipeError) as caught:
        await asend.sendall(ends.stream, b"small")

    assert caught.value.__notes__ == ["0 of 5 bytes sent"]


# --- order


@on(ALL)
async def test_what_is_written_before_and_after_keeps_its_place(ends: Ends, file: Any) -> None:
    """Both ways at once, for streams that have two."""
    is_duplex = not isinstance(ends.far, PipeFar)
    whole = LARGE + DATA + b"data" + LARGE
    received: list[bytes] = []
    counted: list[int] = []

    async def receive() -> None:
        received.append(await ends.far.read(len(whole)))

    async def converse() -> None:
        for at in range(0, len(LARGE), 100_000):
            part = LARGE[at : at + 100_000]
            async with anyio.create_task_group() as both:
                both.start_soon(ends.far.write, part)
                received.append(await ends.read(len(part)))

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await ends.write(LARGE)
        if is_duplex:
            group.start_soon(converse)
        sent = await asend.sendfile(ends.stream, file, progress=counted.append)
        await asend.sendall(ends.stream, b"data", progress=counted.append)
        await ends.write(LARGE)

    assert sent == len(DATA)
    assert sum(counted) == len(DATA) + 4
    assert file.tell() == len(DATA)
    sizes = [len(part) for part in received]
    theirs = received.pop(sizes.index(len(whole)))
    assert theirs == whole
    assert b"".join(received) == (LARGE if is_duplex else b"")


@on_asyncio([*TRANSPORTS, *PIPES])
async def test_what_fills_the_kernel_goes_before_the_file(ends: Ends, file: Any) -> None:
    counted: list[int] = []
    ends.transport.write(LARGE)
    received = b""

    async with anyio.create_task_group() as group:
        group.start_soon(
            partial(asend.sendfile, ends.stream, file, 1000, 2000, progress=counted.append)
        )
        await ends.until_full()
        # What encrypts has buffers of its own below.
        assert not (counted and ends.is_plain)
        received = await ends.far.read(len(LARGE) + 2000)

    assert received == LARGE + DATA[1000:3000]
    assert sum(counted) == 2000
    assert file.tell() == 3000


@on(ALL)
async def test_ranges_of_a_file_follow_each_other(ends: Ends, file: Any) -> None:
    ranges = [(0, 5), (1000, 300_000), (len(DATA) - 1, 1), (len(DATA) - 7, 100), (9, None)]
    whole = b"".join(DATA[at:][:count] for at, count in ranges)
    received = b""
    results = []

    async def send() -> None:
        for at, count in ranges:
            sent = await asend.sendfile(ends.stream, file, at, count)
            results.append((sent, file.tell()))

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        received = await ends.far.read(len(whole))

    assert received == whole
    expected = [len(DATA[at:][:count]) for at, count in ranges]
    assert results == [(sent, at + sent) for sent, (at, _) in zip(expected, ranges, strict=True)]


@on(ALL)
async def test_an_empty_file_and_one_past_its_end_send_nothing(
    ends: Ends, file: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as empty:
        results = [
            await asend.sendfile(ends.stream, empty),
            await asend.sendfile(ends.stream, io.BytesIO()),
            await asend.sendfile(ends.stream, file, len(DATA) + 5),
        ]
    await asend.sendall(ends.stream, b"next")

    assert results == [0, 0, 0]
    assert await ends.far.read(4) == b"next"


@on(ALL)
async def test_files_that_are_no_plain_descriptor_are_read_and_sent(
    ends: Ends, zipped_file: Path
) -> None:
    status = open("/proc/self/cmdline", "rb")
    command = status.read()
    source = gzip.open(zipped_file, "rb")
    memory, opaque = io.BytesIO(DATA), Opaque(DATA)
    whole = DATA[100:] + DATA[5:] + DATA + command
    received: list[bytes] = []
    results: list[int] = []

    async def receive() -> None:
        received.append(await ends.far.read(len(whole)))

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        results.append(await asend.sendfile(ends.stream, memory, 100))
        results.append(await asend.sendfile(ends.stream, opaque, 5))
        results.append(await asend.sendfile(ends.stream, source))
        results.append(await asend.sendfile(ends.stream, status))
    positions = [memory.tell(), opaque.tell(), source.tell()]
    status.close()
    source.close()

    assert received == [whole]
    assert results == [len(DATA) - 100, len(DATA) - 5, len(DATA), len(command)]
    assert positions == [len(DATA)] * 3


@on(ALL)
async def test_any_contiguous_buffer_is_sent_as_its_bytes(ends: Ends) -> None:
    numbers = array.array("i", range(150_000))
    table = memoryview(bytearray(range(200)) * 20).cast("B", (20, 200))
    whole = numbers.tobytes() + table.tobytes()
    received: list[bytes] = []
    counted: list[int] = []

    async def receive() -> None:
        received.append(await ends.far.read(len(whole)))

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await asend.sendall(ends.stream, numbers, progress=counted.append)
        await asend.sendall(ends.stream, table, progress=counted.append)
        await asend.sendall(ends.stream, b"", progress=counted.append)
    # They are the caller's again.
    numbers.append(1)

    assert received == [whole]
    assert sum(counted) == len(whole)


# --- which path a file takes


@on(ALL)
async def test_the_path_is_told_and_taken(
    ends: Ends, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = os.sendfile

    def counting(*args: Any) -> int:
        nonlocal calls
        calls += 1
        return real(*args)

    monkeypatch.setattr(os, "sendfile", counting)

    path = asend.sendfile_path(ends.stream, file)
    async with anyio.create_task_group() as group:
        group.start_soon(asend.sendfile, ends.stream, file)
        received = await ends.far.read(len(DATA))

    assert received == DATA
    assert path == ("kernel" if ends.is_plain else "copy")
    assert bool(calls) == ends.is_plain


@on(ALL)
async def test_the_path_of_what_the_kernel_cannot_send_is_copy(
    ends: Ends, data_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    folder = os.open(tmp_path, os.O_RDONLY)
    opaque: Any = Opaque(DATA)
    opaque.fileno = lambda: folder
    with (tmp_path / "empty").open("rb") as empty, gzip.open(data_file, "rb") as zipped:
        files = [empty, zipped, io.BytesIO(DATA), Opaque(DATA), opaque]
        found = [asend.sendfile_path(ends.stream, file) for file in files]
        with pytest.raises(IsADirectoryError):
            await asend.sendfile(ends.stream, opaque)
    os.close(folder)

    assert found == ["copy"] * 5
    with pytest.raises(ValueError, match="closed file"):
        asend.sendfile_path(ends.stream, empty)


# --- ends in the middle


@on(PLAIN, stage=STAGES)
async def test_a_cancelled_call_is_exact_and_the_stream_usable(
    stage: str, ends: Ends, file: Any
) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        call.scope.cancel()
        await call.over()
        sent = call.sent
        whole = written_before(stage) + DATA[:sent] + b"next"
        group.start_soon(ends.write, b"next")
        received += await ends.far.read(len(whole) - len(received))

    assert isinstance(call.error, anyio.get_cancelled_exc_class())
    assert call.notes() == [note(sent)]
    assert call.sent == sent
    assert received == whole
    assert file.tell() == sent
    await ends.close()
    assert await ends.far.read() == b""


class SlowToSeek(Opaque):
    """An object that seeks when it may, as one that has to decompress from its start does."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.can_seek = threading.Event()
        self.can_seek.set()
        self.seek = self._seek

    def _seek(self, at: int) -> int:
        assert self.can_seek.wait(10)
        return self._file.seek(at)


@on(["anyio-tcp", "anyio-unix", "trio-tcp", "trio-unix"], send=["data", "file", "object"])
async def test_a_stream_is_not_busy_with_a_call_that_was_cancelled(
    send: str, ends: Ends, file: Any
) -> None:
    """The guard of the stream is left in the clean-up, which has not had its turn yet."""
    slow = SlowToSeek(DATA)
    call = {
        "data": Call(asend.sendall, ends.stream, DATA),
        "file": Call(asend.sendfile, ends.stream, file),
        # Which is read in a thread, and that in a task group.
        "object": Call(asend.sendfile, ends.stream, slow),
    }[send]
    received = b""

    async def read() -> None:
        nonlocal received
        received = await ends.far.read(call.sent + 4)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        group.start_soon(read)
        slow.can_seek.clear()
        call.scope.cancel()
        await asend.sendall(ends.stream, b"next")
        slow.can_seek.set()

    assert isinstance(call.error, anyio.get_cancelled_exc_class())
    assert received == DATA[: call.sent] + b"next"


@on(["anyio-tcp", "anyio-unix", "trio-tcp", "trio-unix"])
async def test_a_stream_is_not_busy_with_a_call_whose_read_was_just_to_begin(ends: Ends) -> None:
    async def read() -> None:
        received = b""
        while not received.endswith(b"next"):
            await anyio.wait_readable(ends.far)
            received += ends.far.recv(65536)

    # In each turn trio takes its tasks in an order of chance.
    for _ in range(30):
        call = Call(asend.sendfile, ends.stream, Opaque(DATA))
        async with anyio.create_task_group() as group:
            group.start_soon(call.run)
            while not call.counted:
                await anyio.lowlevel.checkpoint()
            call.scope.cancel()
            group.start_soon(read)
            await asend.sendall(ends.stream, b"next")
        assert isinstance(call.error, anyio.get_cancelled_exc_class())


@on_asyncio(["anyio-tcp", "anyio-unix"])
async def test_a_call_that_still_cleans_up_takes_nothing_from_the_next(ends: Ends) -> None:
    slow = SlowToSeek(DATA)
    counted: list[int] = []
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    # A scope of anyio would cancel the clean-up, too.
    task = asyncio.ensure_future(asend.sendfile(ends.stream, slow, progress=counted.append))
    received = b""

    async def read() -> None:
        nonlocal received
        received = await ends.far.read(sum(counted) + 4)

    await ends.until_full()
    # A thread that is about to end its read would seek, and the call be over.
    await asyncio.to_thread(int)
    slow.can_seek.clear()
    task.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await asend.sendall(ends.stream, b"next")
    is_done = task.done()
    slow.can_seek.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asend.sendall(ends.stream, b"last")
    received += await ends.far.read(4)

    assert not is_done
    assert received == DATA[: sum(counted)] + b"nextlast"
    assert slow.tell() == sum(counted)


@on(TLS_TRANSPORTS, stage=STAGES)
async def test_a_cancelled_call_on_a_transport_that_encrypts_takes_no_block_back(
    stage: str, ends: Ends, file: Any
) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        call.scope.cancel()
        await call.over()
        whole = written_before(stage) + DATA[: file.tell()] + b"next"
        await ends.write(b"next")
        received += await ends.far.read(len(whole) - len(received))

    assert isinstance(call.error, anyio.get_cancelled_exc_class())
    assert call.notes() == [note(file.tell())]
    assert file.tell() == call.sent
    assert received == whole
    await ends.close()
    assert await ends.far.read() == b""


@on(["anyio-tls", "trio-tls"], stage=STAGES)
async def test_a_cancelled_call_on_an_encrypting_stream_is_exact_to_a_block(
    stage: str, ends: Ends, file: Any
) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        call.scope.cancel()
        await call.over()
    await ends.abort()
    received += await ends.far.read()

    assert isinstance(call.error, anyio.get_cancelled_exc_class())
    assert call.notes() == [note(call.sent)]
    assert received == DATA[: len(received)]
    assert file.tell() == call.sent
    assert len(received) <= call.sent + 256 * 1024


@on(ALL, stage=["draining", "middle"])
async def test_a_call_that_runs_out_of_time_is_exact(stage: str, ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file, timeout=0.05)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        await call.over()
        sent = file.tell()
        whole = written_before(stage) + DATA[:sent]
        if ends.is_plain:
            group.start_soon(ends.write, b"next")
            whole += b"next"
        if ends.is_plain or ends.transport is not None:
            received += await ends.far.read(len(whole) - len(received))
        else:
            # A block may have gone out in part, or whole and not been counted yet.
            await ends.abort()
            received += await ends.far.read()
            whole = (written_before(stage) + DATA)[: len(received)]

    assert isinstance(call.error, TimeoutError)
    assert "within 0.05 s" in str(call.error)
    if ends.is_plain:
        assert call.sent == sent
    if ends.is_plain or ends.transport is not None:
        # What is in the buffer of a transport that encrypts will go, and counts.
        assert call.notes() == [note(sent)]
    assert received == whole


@on(ALL, stage=STAGES)
async def test_a_peer_that_goes_ends_the_call(stage: str, ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start(stage, ends, call, group)
        ends.far.reset()
        await call.over()

    assert isinstance(call.error, (OSError, trio.BrokenResourceError, anyio.BrokenResourceError))
    assert call.notes() == [note(call.sent)]
    assert file.tell() == call.sent


@on(ALL)
async def test_a_bytearray_can_be_resized_where_the_error_of_its_call_is_handled(
    ends: Ends,
) -> None:
    """The traceback refers to frames that had views of it."""
    data = bytearray(DATA)
    call = Call(asend.sendall, ends.stream, data)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        ends.far.reset()
        await call.over()

    assert call.error is not None
    assert call.error.__traceback__ is not None
    data.append(0)


@on_asyncio(TRANSPORTS)
async def test_a_bytearray_can_be_resized_when_a_call_has_ended_in_a_reset(ends: Ends) -> None:
    """asyncio keeps the error of the write, and so our frame, until the connection is lost."""
    data = bytearray(DATA[:262_144])
    ends.far.reset()

    with contextlib.suppress(OSError):
        await asend.sendall(ends.stream, data)

    data.append(0)


@on(ALL, stage=STAGES)
async def test_an_abort_ends_the_call(stage: str, ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        await ends.abort()
        await call.over()
    received += await ends.far.read()

    assert isinstance(call.error, CLOSED)
    assert call.notes() == [note(call.sent)]
    assert file.tell() == call.sent
    whole = written_before(stage) + DATA
    assert received == whole[: len(received)]
    if ends.is_plain and stage != "draining":
        assert len(received) == call.sent


@on_asyncio(PLAIN_TRANSPORTS)
async def test_an_abort_ends_the_call_though_what_the_file_had_at_first_has_gone(
    ends: Ends, path: Path
) -> None:
    sent = 0

    def progress(nbytes: int) -> None:
        nonlocal sent
        sent += nbytes
        if sent == len(DATA):
            with path.open("ab") as more:
                more.write(b"more")
            ends.transport.abort()

    async with anyio.create_task_group() as group:
        group.start_soon(ends.far.read)
        with path.open("rb") as file, pytest.raises(ConnectionAbortedError) as caught:
            await asend.sendfile(ends.stream, file, progress=progress)

    assert sent == len(DATA)
    assert caught.value.__notes__ == [f"{sent} of {sent + 4} bytes sent"]


@on_asyncio(PLAIN_TRANSPORTS)
async def test_an_abort_ends_the_call_that_has_only_the_end_of_its_file_to_read(ends: Ends) -> None:
    """Not when the peer, which rests, has made room for bytes that there are none of."""
    counted: list[int] = []

    def progress(nbytes: int) -> None:
        counted.append(nbytes)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(ends.fd, DATA)

    async with anyio.create_task_group() as group:
        file = io.BytesIO(DATA[:1000])
        group.start_soon(partial(asend.sendfile, ends.stream, file, progress=progress))
        await ends.until_full()
        await ends.abort()

    assert counted == [1000]


@on(PLAIN, stage=["first", "last"])
async def test_a_close_ends_the_call_at_once(stage: str, ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        await ends.close()
        await call.over()
    received += await ends.far.read()

    assert isinstance(call.error, CLOSED)
    assert call.notes() == [note(call.sent)]
    assert received == DATA[: call.sent]
    assert file.tell() == call.sent


# That of anyio aborts when it is closed.
@on_asyncio([kind for kind in TRANSPORTS if kind != "anyio-tcp"], stage=STAGES)
async def test_a_close_ends_the_call_when_the_buffer_is_out(
    stage: str, ends: Ends, file: Any
) -> None:
    """As with `drain`, nobody is told before: the transport itself sends on."""
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start(stage, ends, call, group)
        await ends.close()
        received += await ends.far.read()
        ends.far.close()
        await call.over()

    whole = written_before(stage) + DATA
    assert isinstance(call.error, OSError)
    assert received == whole[: len(received)]
    assert len(received) >= len(written_before(stage)) + call.sent
    assert call.sent <= file.tell()


@on(["writer-tcp", "transport", "pipe"])
async def test_an_error_of_progress_comes_out_and_is_exact(ends: Ends, file: Any) -> None:
    counted = 0

    def progress(nbytes: int) -> None:
        nonlocal counted
        counted += nbytes
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough") as caught:
        await asend.sendfile(ends.stream, file, progress=progress)
    await ends.write(b"next")

    assert caught.value.__notes__ == [note(counted)]
    assert await ends.far.read(counted + 4) == DATA[:counted] + b"next"


@on(["writer-tcp", "writer-unix", "transport", "anyio-tcp", "pipe"])
async def test_a_timeout_of_zero_tries_once(ends: Ends) -> None:
    call = Call(asend.sendall, ends.stream, DATA, timeout=0)

    await call.run()
    await asend.sendall(ends.stream, b"", timeout=0)
    sent = call.sent

    assert isinstance(call.error, TimeoutError)
    assert call.notes() == [note(sent)]
    assert await ends.far.read(sent) == DATA[:sent]


@on_asyncio([*TRANSPORTS, *PIPES])
async def test_a_timeout_of_zero_does_not_wait_for_what_was_written_before(ends: Ends) -> None:
    # Twice, as a transport that encrypts has two buffers.
    ends.transport.write(LARGE)
    ends.transport.write(LARGE)
    call = Call(asend.sendall, ends.stream, DATA, timeout=0)

    await call.run()

    assert isinstance(call.error, TimeoutError)
    assert call.sent == 0
    assert await ends.far.read(2 * len(LARGE)) == LARGE + LARGE


# --- what stays as it was


def state_of(ends: Ends) -> tuple[object, ...]:
    transport = ends.transport
    return (
        transport.get_protocol(),
        transport.get_write_buffer_limits(),
        transport.is_closing(),
        # A pipe's does not know.
        None if isinstance(ends.far, PipeFar) else transport.is_reading(),
    )


@on_asyncio([*TRANSPORTS, *PIPES])
async def test_a_transport_is_as_before_after_success_error_and_cancellation(
    ends: Ends, file: Any
) -> None:
    ends.transport.set_write_buffer_limits(high=77_777, low=33_333)
    before = state_of(ends)
    states = []
    calls = [
        Call(asend.sendfile, ends.stream, file),
        Call(asend.sendfile, ends.stream, file, timeout=0.02),
        Call(asend.sendfile, ends.stream, file),
    ]

    async with anyio.create_task_group() as group:
        group.start_soon(calls[0].run)
        await ends.far.read(len(DATA))
        await calls[0].over()
        states.append(state_of(ends))
        await calls[1].run()
        states.append(state_of(ends))
        await start("first", ends, calls[2], group)
        calls[2].scope.cancel()
        await calls[2].over()
        states.append(state_of(ends))

    assert [type(call.error) for call in calls] == [
        type(None),
        TimeoutError,
        anyio.get_cancelled_exc_class(),
    ]
    assert states == [before] * 3


@on_asyncio([kind for kind in PLAIN_TRANSPORTS if kind != "anyio-tcp"])
async def test_reading_that_was_paused_stays_paused(ends: Ends, file: Any) -> None:
    ends.transport.pause_reading()
    await ends.far.write(b"unread")
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("middle", ends, call, group)
        is_reading = ends.transport.is_reading()
        await ends.far.read() if call.is_over else await ends.far.read(len(DATA) // 2)
        await call.over()

    assert not is_reading
    assert not ends.transport.is_reading()
    ends.transport.resume_reading()
    assert await ends.read(6) == b"unread"


@on(["writer-tcp", "writer-unix", "writer-tls", "fastnet-tcp", "fastnet-tls", "subprocess"])
async def test_who_waits_in_drain_is_released(ends: Ends, file: Any) -> None:
    ends.stream.write(LARGE)
    ends.stream.write(LARGE)
    drained: list[bool] = []

    async def drain() -> None:
        await ends.stream.drain()
        drained.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(drain)
        await anyio.lowlevel.checkpoint()
        group.start_soon(asend.sendfile, ends.stream, file)
        await ends.until_full()
        assert not drained
        received = await ends.far.read(2 * len(LARGE) + len(DATA))

    assert drained == [True]
    assert received == LARGE + LARGE + DATA


@on(["transport", "buffered", "transport-tls", "pipe"])
async def test_a_protocol_hears_of_its_buffer_as_ever(ends: Ends, file: Any) -> None:
    ends.transport.write(LARGE)
    ends.transport.write(LARGE)

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sendfile, ends.stream, file)
        await ends.far.read(2 * len(LARGE) + len(DATA))
    heard = ends.protocol.heard

    # One that encrypts has the file in its buffer, too.
    assert heard[:2] == ["pause_writing", "resume_writing"]
    assert heard == heard[:2] * (len(heard) // 2)


@on(["transport", "buffered"])
async def test_a_protocol_that_was_set_meanwhile_stays(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)
    successor = Recorder()

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        ends.transport.set_protocol(successor)
        await ends.far.write(b"for the other")
        await ends.far.read(len(DATA))
        await call.over()
    while not successor.received:
        await anyio.sleep(0.001)

    assert call.result == len(DATA)
    assert ends.transport.get_protocol() is successor
    assert successor.received == b"for the other"


@on(["transport"])
async def test_other_methods_of_a_protocol_are_found_meanwhile(ends: Ends, file: Any) -> None:
    ends.protocol.greeting = "hello"
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        greeting = ends.transport.get_protocol().greeting
        call.scope.cancel()

    assert greeting == "hello"


# --- the end of the connection


@on(["transport", "buffered", "transport-tls", "pipe"], way=["reset", "abort", "close"])
async def test_the_protocol_hears_of_the_end_exactly_once(way: str, ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        if way == "reset":
            ends.far.reset()
        elif way == "abort":
            await ends.abort()
        else:
            await ends.close()
            ends.far.close()
        await call.over()
    if way != "close" and not ends.transport.is_closing():
        # The call heard of it from the kernel, before the transport has.
        await ends.abort()
    while not ends.protocol.lost:
        await anyio.sleep(0.001)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()

    assert isinstance(call.error, OSError)
    assert len(ends.protocol.lost) == 1


@on(["transport", "buffered", "writer-tcp", "writer-unix", "fastnet-tcp"])
async def test_all_is_sent_to_a_peer_that_sends_no_more(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)
    is_stream = ends.stream is not ends.transport

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        await ends.far.write(b"last words")
        ends.far.shutdown()
        assert await ends.read(10) == b"last words"
        received = await ends.far.read(len(DATA))
        await call.over()
    if is_stream:
        # Its protocol wants the transport open.
        await asend.sendall(ends.stream, b"more")
        assert await ends.far.read(4) == b"more"
    else:
        assert await ends.far.read() == b""
        while not ends.protocol.lost:
            await anyio.sleep(0.001)

    assert received == DATA
    assert call.result == len(DATA)
    assert ends.transport.is_closing() is not is_stream
    if not is_stream:
        assert ends.protocol.heard == ["eof_received"]
        assert ends.protocol.lost == [None]


@on(["transport", "buffered"])
async def test_a_protocol_that_stays_open_after_the_peers_end_is_heeded(
    ends: Ends, file: Any
) -> None:
    ends.protocol.stays_open = True
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        ends.far.shutdown()
        while not ends.protocol.heard:
            await anyio.sleep(0.001)
        await ends.far.read(len(DATA))
    await asend.sendall(ends.stream, b"more")

    assert await ends.far.read(4) == b"more"
    assert not ends.transport.is_closing()


@on(["transport"])
async def test_a_cancelled_call_closes_what_the_peers_end_would_have_closed(
    ends: Ends, file: Any
) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        ends.far.shutdown()
        while not ends.protocol.heard:
            await anyio.sleep(0.001)
        call.scope.cancel()

    assert await ends.far.read() == DATA[: call.sent]
    assert ends.transport.is_closing()


@on_asyncio(["writer-tls", "transport-tls"])
async def test_what_was_encrypted_and_thrown_away_was_not_sent(ends: Ends) -> None:
    """It is in the buffer of a transport below, of which that of the TLS layer knows nothing."""
    call = Call(asend.sendall, ends.stream, LARGE)

    async with anyio.create_task_group() as group:
        group.start_soon(call.run)
        await ends.until_full()
        await ends.abort()
        received = await ends.far.read()
        await call.over()

    assert isinstance(call.error, ConnectionAbortedError)
    assert received == LARGE[: len(received)]
    # Of a record that is cut off, nothing is received.
    assert call.sent <= len(received) + 16384


@on_asyncio(["writer-tls", "transport-tls"])
async def test_a_reset_over_tls_is_an_error_and_its_own(ends: Ends) -> None:
    call = Call(asend.sendall, ends.stream, LARGE)

    async with anyio.create_task_group() as group:
        group.start_soon(call.run)
        await ends.until_full()
        ends.far.reset()
        await call.over()

    assert isinstance(call.error, (BrokenPipeError, ConnectionResetError))


@on_asyncio(["writer-tls", "transport-tls"])
async def test_a_send_over_tls_that_fails_at_once_sends_nothing(ends: Ends) -> None:
    """The transport below throws away what it is given, before anyone hears of it."""
    ends.far.reset()
    call = Call(asend.sendall, ends.stream, LARGE)

    await call.run()

    assert isinstance(call.error, (BrokenPipeError, ConnectionResetError))
    assert call.counted == []


@on_asyncio(["transport", "transport-tls"])
async def test_an_end_of_the_connection_once_all_is_sent_is_no_error(
    ends: Ends, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has yet to find that there is no more to read."""
    monkeypatch.delattr(os, "sendfile")
    sent = 0

    def progress(nbytes: int) -> None:
        nonlocal sent
        sent += nbytes
        if sent == len(DATA):
            ends.transport.abort()

    async with anyio.create_task_group() as group:
        group.start_soon(ends.far.read)
        result = await asend.sendfile(ends.stream, file, progress=progress)

    assert result == len(DATA)
    assert ends.transport.is_closing()


def test_a_loop_that_has_no_writers_is_refused_before_the_first_byte() -> None:
    class Loop(asyncio.SelectorEventLoop):
        """As the proactor of Windows."""

        add_writer = asyncio.AbstractEventLoop.add_writer

    sock, other = socket.socketpair()

    async def main() -> None:
        _, writer = await asyncio.open_unix_connection(sock=sock)
        with pytest.raises(NotImplementedError, match="add_writer") as caught:
            await asend.sendall(writer, b"data")
        assert not hasattr(caught.value, "__notes__")
        writer.close()
        await writer.wait_closed()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())

    with other:
        assert other.recv(10) == b""


@pytest.mark.parametrize("anyio_backend", ASYNCIO[:1], indirect=True)
@pytest.mark.parametrize("kind", ["transport"])
async def test_a_loop_that_cannot_wait_on_a_descriptor_says_so(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_writer(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_writer", add_writer)
    call = Call(asend.sendall, ends.stream, DATA)

    await call.run()

    assert isinstance(call.error, NotImplementedError)
    assert "event loop" in str(call.error)
    assert call.notes() == [note(call.sent)]
    assert ends.transport.get_protocol() is ends.protocol


# --- one sender


@on(ALL)
async def test_a_second_call_on_a_busy_stream_is_refused(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        for second in (
            Call(asend.sendall, ends.stream, b"between"),
            Call(asend.sendfile, ends.stream, io.BytesIO(b"between")),
        ):
            await second.run()
            assert isinstance(second.error, asend.BusyResourceError)
            assert second.notes() == []
            assert not second.counted
        received = await ends.far.read(len(DATA))
        await call.over()
        await asend.sendall(ends.stream, b"free again")

    assert received == DATA
    assert await ends.far.read(10) == b"free again"


@on(["writer-tcp", "transport", "trio-tcp", "trio-unix", "anyio-unix"])
async def test_a_stream_is_as_busy_as_its_socket(ends: Ends) -> None:
    sock: Any = (
        ends.transport.get_extra_info("socket")
        if ends.transport is not None
        else getattr(ends.stream, "socket", None)
        or ends.stream.extra(anyio.abc.SocketAttribute.raw_socket)
    )
    call = Call(asend.sendall, ends.stream, DATA)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        # By the number of its descriptor, whoever has opened it.
        alias = socket.socket(fileno=sock.fileno())
        alias.setblocking(False)
        with pytest.raises(asend.BusyResourceError):
            await asend.sock_sendall(alias, b"between")
        alias.detach()
        received = await ends.far.read(len(DATA))

    assert received == DATA


@on(["anyio-tcp", "anyio-unix", "trio-tcp", "trio-unix"])
async def test_a_stream_whose_own_send_is_under_way_is_busy(ends: Ends) -> None:
    second = Call(asend.sendall, ends.stream, b"between")

    async with anyio.create_task_group() as group:
        group.start_soon(ends.write, LARGE)
        await ends.until_full()
        await second.run()
        received = await ends.far.read(len(LARGE))
    await asend.sendall(ends.stream, b"free again")

    assert isinstance(second.error, asend.BusyResourceError)
    assert received == LARGE
    assert await ends.far.read(10) == b"free again"


@on(["anyio-tcp", "anyio-unix", "trio-tcp", "trio-unix"])
async def test_a_streams_own_send_is_refused_while_a_call_sends(ends: Ends) -> None:
    call = Call(asend.sendall, ends.stream, DATA)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        with pytest.raises((anyio.BusyResourceError, trio.BusyResourceError)):
            await ends.write(b"between")
        received = await ends.far.read(len(DATA))

    assert received == DATA


@on_asyncio([*PLAIN_TRANSPORTS, "pipe"])
async def test_a_write_in_between_that_shows_is_an_error(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start("first", ends, call, group)
        # The kernel is full, so that it stays in the buffer.
        ends.transport.write(LARGE)
        received += await ends.far.read(call.sent + len(LARGE))
        await call.over()

    assert isinstance(call.error, RuntimeError)
    assert "written to" in str(call.error)
    assert call.notes() == [note(call.sent)]
    assert received == DATA[: call.sent] + LARGE
    assert file.tell() == call.sent


# --- limits


@on(ALL)
async def test_a_stall_ends_the_call(ends: Ends) -> None:
    call = Call(asend.sendall, ends.stream, DATA, limits=asend.Limits(stall=0.05))

    await call.run()

    assert isinstance(call.error, TimeoutError)
    assert "stalled" in str(call.error)


@on(["transport", "transport-tls", "trio-unix", "anyio-tls", "pipe"])
async def test_a_stall_ends_the_call_of_a_file(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file, limits=asend.Limits(stall=0.05))

    await call.run()

    assert isinstance(call.error, TimeoutError)
    assert "stalled" in str(call.error)


@on(["writer-tcp", "transport-tls", "anyio-tcp", "trio-unix", "trio-tls", "anyio-tls", "pipe"])
async def test_a_rate_below_the_least_ends_the_call(ends: Ends) -> None:
    limits = asend.Limits(min_rate=1e9, grace=0.05)
    call = Call(asend.sendall, ends.stream, DATA, limits=limits)

    await call.run()

    assert isinstance(call.error, TimeoutError)
    assert "too slow" in str(call.error)


@on(["writer-tcp", "transport-tls", "anyio-tcp", "trio-unix", "trio-tls", "anyio-tls", "pipe"])
async def test_limits_that_are_kept_change_nothing(ends: Ends, file: Any) -> None:
    limits = asend.Limits(stall=20, min_rate=1, grace=0.02)
    call = Call(asend.sendfile, ends.stream, file, limits=limits, timeout=20)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        # Longer than the grace, so that a look happens with all well.
        await anyio.sleep(0.05)
        received = await ends.far.read(len(DATA))

    assert received == DATA
    assert call.result == len(DATA)


@on(["writer-tcp", "writer-unix", "pipe"])
async def test_draining_slowly_is_no_stall_while_it_moves(anyio_backend: object, kind: str) -> None:
    stall = 0.25

    # What is read makes room every second time, at least.
    for pace in paces(0.45 * stall):
        async with open_ends(kind) as ends:
            ends.transport.write(LARGE)
            call = Call(asend.sendall, ends.stream, b"data", limits=asend.Limits(stall=stall))
            async with anyio.create_task_group() as group:
                group.start_soon(call.run)
                begun = time.monotonic()
                received = b""
                for _ in range(12):
                    received += await ends.far.read(len(LARGE) // 16)
                    pace.note()
                    await anyio.sleep(stall / 8)
                took = time.monotonic() - begun
                is_still_draining = not call.is_over
                received += await ends.far.read(len(LARGE) - len(received))
                await call.over()
            if call.error is None:
                received += await ends.far.read(4)

    assert is_still_draining
    assert took > stall
    assert call.error is None
    assert received == LARGE + b"data"


@on(["writer-tcp", "writer-unix", "pipe"])
async def test_what_was_written_before_can_stall(ends: Ends) -> None:
    ends.transport.write(LARGE)
    call = Call(asend.sendall, ends.stream, b"data", limits=asend.Limits(stall=0.05))

    await call.run()

    assert isinstance(call.error, TimeoutError)
    assert call.notes() == ["0 of 4 bytes sent"]
    assert call.sent == 0


# --- rest


@on(ALL)
async def test_calls_leave_a_loop_that_rests(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        received = await start("first", ends, call, group)
        call.scope.cancel()
        await call.over()
    while len(received) < call.sent:
        received += await ends.far.read(call.sent - len(received))

    assert await rests()


@on(["writer-tcp", "writer-tls", "fastnet-tls", "pipe", "anyio-tls", "trio-tls", "trio-tcp"])
async def test_a_call_that_waits_rests(ends: Ends, file: Any) -> None:
    call = Call(asend.sendfile, ends.stream, file)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        is_resting = await rests()
        call.scope.cancel()

    assert is_resting


@on(["writer-tcp", "writer-tls", "anyio-tls", "trio-tls", "trio-tcp"])
async def test_a_call_that_waits_for_its_file_rests(ends: Ends) -> None:
    gated: Any = Gated(DATA)
    call = Call(asend.sendfile, ends.stream, gated)

    async with anyio.create_task_group() as group:
        group.start_soon(call.run)
        received = await ends.far.read(256 * 1024)
        while not gated.is_reading.is_set():
            await anyio.sleep(0.001)
        is_resting = await rests()
        gated.gate.set()
        received += await ends.far.read(len(DATA) - len(received))

    assert is_resting
    assert received == DATA


# --- what is refused


async def refused(stream: object, kinds: Any, match: str, **options: Any) -> None:
    """Both calls refuse before their first byte: without a note, and without progress."""
    counted: list[int] = []
    for call in (
        # Without progress it could go at once.
        partial(asend.sendall, stream, b"refused"),
        partial(asend.sendall, stream, b"refused", progress=counted.append),
        partial(asend.sendfile, stream, io.BytesIO(b"refused"), progress=counted.append),
    ):
        with pytest.raises(kinds, match=match) as caught:
            await call(**options)
        assert not getattr(caught.value, "__notes__", [])
    assert not counted


@on(ALL)
async def test_wrong_arguments_are_refused_and_change_nothing(
    ends: Ends, data_file: Path, file: Any
) -> None:
    stream: Any = ends.stream
    await refused(stream, ValueError, "out of range", timeout=-1)
    await refused(stream, ValueError, "NaN", timeout=float("nan"))
    await refused(stream, TypeError, "timeout must be a number", timeout="1")
    await refused(stream, TypeError, "limits", limits=5)
    with pytest.raises(TypeError, match="progress must be callable"):
        await asend.sendall(stream, b"refused", progress=5)  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match="progress must be callable"):
        await asend.sendfile(stream, file, progress=5)  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match="bytes-like"):
        await asend.sendall(stream, "text")  # type: ignore[arg-type]  # refused
    with pytest.raises(BufferError):
        await asend.sendall(stream, memoryview(b"every second")[::2])
    with data_file.open("r") as text, pytest.raises(ValueError, match="binary mode"):
        await asend.sendfile(stream, text)  # type: ignore[arg-type]  # refused
    with pytest.raises(ValueError, match="offset"):
        await asend.sendfile(stream, file, -1)
    with pytest.raises(ValueError, match="count"):
        await asend.sendfile(stream, file, 0, 0)
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        await asend.sendfile(stream, file)
    await asend.sendall(stream, b"next")

    assert await ends.far.read(4) == b"next"


@on(ALL)
async def test_without_fallback_only_the_kernel_sends(ends: Ends, file: Any) -> None:
    with pytest.raises(asend.SendfileNotAvailableError):
        await asend.sendfile(ends.stream, io.BytesIO(DATA), fallback=False)
    if ends.is_plain:
        sent = await asend.sendfile(ends.stream, file, 0, 4, fallback=False)
        assert sent == 4
    else:
        words = r"^the stream does not send bytes as they are$"
        with pytest.raises(asend.SendfileNotAvailableError, match=words):
            await asend.sendfile(ends.stream, file, 0, 4, fallback=False)
        await asend.sendall(ends.stream, DATA[:4])

    assert await ends.far.read(4) == DATA[:4]


@on_asyncio([*TRANSPORTS, *PIPES])
async def test_a_closing_stream_is_refused(ends: Ends) -> None:
    ends.transport.close()

    await refused(ends.stream, RuntimeError, "Transport is closing")


@on(["trio-tcp", "trio-unix", "anyio-unix", "trio-tls", "anyio-tls"])
async def test_a_closed_stream_is_an_error(ends: Ends) -> None:
    await ends.abort()

    for call in (
        Call(asend.sendall, ends.stream, b"refused"),
        Call(asend.sendfile, ends.stream, io.BytesIO(b"refused")),
    ):
        await call.run()
        assert isinstance(call.error, CLOSED)
        assert not call.counted


class Object:
    """No stream."""


@pytest.mark.parametrize(
    "stream", [Object(), None, b"bytes", io.BytesIO(), 5], ids=lambda it: type(it).__name__
)
async def test_what_is_no_stream_is_refused(stream: object) -> None:
    await refused(stream, TypeError, f"not '{type(stream).__name__}'")
    with pytest.raises(TypeError, match="a stream to send on is required"):
        asend.sendfile_path(stream, io.BytesIO())


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_datagram_transport_is_refused() -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )

    try:
        await refused(transport, (TypeError, ValueError), "stream|STREAM")
    finally:
        transport.close()
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_pipe_to_read_from_is_refused() -> None:
    theirs, ours = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        asyncio.Protocol, os.fdopen(theirs, "rb", buffering=0)
    )

    try:
        await refused(transport, TypeError, "stream|only to read")
    finally:
        transport.close()
        os.close(ours)


class Shouting(asyncio.StreamWriter):
    """Sends something else than what is written."""

    def write(self, data: Any) -> None:
        super().write(bytes(data).upper())


@on_asyncio(["writer-tcp"])
async def test_a_writer_that_changes_what_is_written_is_refused(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    writer = Shouting(ends.transport, ends.protocol, None, loop)

    await refused(writer, TypeError, "not 'Shouting'")

    writer.write(b"next")
    assert await ends.far.read(4) == b"NEXT"


@on_asyncio(["transport"])
async def test_a_transport_of_unknown_make_is_written_to(ends: Ends, file: Any) -> None:
    """What it does to the bytes is not known, so they are not sent past it."""

    class Unknown:
        def __getattr__(self, name: str) -> Any:
            return getattr(ends.transport, name)

        def write(self, data: bytes) -> None:
            ends.transport.write(bytes(data)[::-1])

    stream = Unknown()
    path = asend.sendfile_path(stream, file)
    await asend.sendfile(stream, file, 0, 100)

    assert path == "copy"
    assert await ends.far.read(100) == DATA[:100][::-1]


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_transport_without_socket_is_refused() -> None:
    class Nowhere:
        write = is_closing = get_write_buffer_size = set_protocol = lambda _: 0

        def get_extra_info(self, name: str) -> None:
            return None

    await refused(Nowhere(), TypeError, "neither socket nor pipe")


@pytest.fixture
async def foreign(anyio_backend: object) -> AsyncIterator[tuple[Any, Far]]:
    """A StreamWriter of a loop that is not this one, but of its kind."""
    sock, other = tcp_pair()
    is_trio = anyio_backend == ("trio", {})
    loop = asyncio.SelectorEventLoop() if is_trio else type(asyncio.get_running_loop())()

    def open_there() -> asyncio.StreamWriter:
        return loop.run_until_complete(asyncio.open_connection(sock=sock))[1]

    def close_there() -> None:
        writer.close()
        loop.run_until_complete(writer.wait_closed())
        loop.close()

    writer = await anyio.to_thread.run_sync(open_there)
    yield writer, Far(other)
    other.close()
    await anyio.to_thread.run_sync(close_there)


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_stream_of_another_loop_is_refused(foreign: tuple[Any, Far]) -> None:
    writer, far = foreign

    await refused(writer, RuntimeError, "another event loop")

    with pytest.raises(BlockingIOError):
        far.recv(1)


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_a_stream_of_asyncio_is_refused_under_trio(foreign: tuple[Any, Far]) -> None:
    writer, far = foreign

    await refused(writer, TypeError, "only under asyncio")
    await refused(writer.transport, TypeError, "only under asyncio")

    with pytest.raises(BlockingIOError):
        far.recv(1)


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_a_unix_stream_of_asyncio_is_refused_under_trio() -> None:
    def open_there() -> Any:
        return anyio.run(partial(open_and_detach, "anyio-unix"))

    stream, far = await anyio.to_thread.run_sync(open_there)

    await refused(stream, TypeError, "only under asyncio")

    with pytest.raises(BlockingIOError):
        far.recv(1)
    stream._raw_socket.close()
    far.close()


async def open_and_detach(kind: str) -> tuple[Any, Far]:
    from stream_kinds import OPENERS

    ends = await OPENERS["anyio"](kind)
    return ends.stream, ends.far


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_stream_of_trio_is_refused_under_asyncio() -> None:
    sock, other = tcp_pair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    await refused(stream, TypeError, "only under trio")

    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(1)
    # Its close() needs trio.
    os.close(stream.socket.detach())
    other.close()


# --- streams of other kinds


class Carried:
    """A stream of a kind of its own, that says what carries it."""

    def __init__(self, carrier: object) -> None:
        self.carrier = carrier

    def __asend_carrier__(self) -> object:
        return self.carrier


@on(ALL)
async def test_a_stream_that_says_what_carries_it_is_sent_on(ends: Ends, file: Any) -> None:
    stream = Carried(Carried(ends.stream))

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sendfile, stream, file)
        received = await ends.far.read(len(DATA))

    assert received == DATA
    assert asend.sendfile_path(stream, file) == ("kernel" if ends.is_plain else "copy")


async def test_a_carried_stream_is_known_as_such() -> None:
    assert isinstance(Carried(None), asend.streams.HasCarrier)
    assert not isinstance(Object(), asend.streams.HasCarrier)


async def test_carriers_in_a_circle_are_refused() -> None:
    stream = Carried(None)
    stream.carrier = Carried(stream)

    await refused(stream, TypeError, "a stream to send on is required")


async def test_a_socket_is_a_stream(file: Any) -> None:
    sock, other = tcp_pair()
    far = Far(other)

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sendfile, sock, file)
        received = await far.read(len(DATA))
    with pytest.raises(ValueError, match="non-blocking"):
        await asend.sendall(other_mode(sock), b"refused")
    sock.close()
    far.close()

    assert received == DATA
    assert asend.sendfile_path(sock, io.BytesIO()) == "copy"


def other_mode(sock: socket.socket) -> socket.socket:
    sock.setblocking(True)
    return sock


class Blocks(anyio.abc.ByteSendStream):
    """A stream that keeps what it is given, as one that compresses may."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.error: Exception | None = None

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.kept.append(item)

    async def aclose(self) -> None:
        pass


async def test_a_stream_of_blocks_is_given_bytes_that_it_may_keep() -> None:
    stream = Blocks()
    data = bytearray(DATA)
    counted: list[int] = []

    await asend.sendall(stream, data, progress=counted.append)
    data.clear()

    assert {type(block) for block in stream.kept} == {bytes}
    assert b"".join(stream.kept) == DATA
    assert counted == [len(block) for block in stream.kept]


async def test_what_a_stream_of_blocks_raises_comes_out(file: Any) -> None:
    stream = Blocks()
    call = Call(asend.sendfile, stream, file)
    stream.error = LookupError("broken")

    await call.run()

    assert call.error is stream.error
    assert call.notes() == [note(0)]


class Holding(trio.abc.SendStream):
    """A stream that fails with its block in hand."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        # As what is written in C would: no view of its own.
        self.held = PickleBuffer(data)
        raise LookupError("broken")

    async def wait_send_all_might_not_block(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("anyio_backend", TRIO, indirect=True)
async def test_what_a_stream_raises_that_holds_its_block_comes_out() -> None:
    call = Call(asend.sendall, Holding(), DATA)

    await call.run()

    assert isinstance(call.error, LookupError)
    assert call.notes() == [note(0)]


@on(["anyio-tcp", "anyio-unix"])
async def test_streams_stapled_together_are_sent_on_block_by_block(ends: Ends, file: Any) -> None:
    stream = StapledByteStream(ends.stream, ends.stream)

    async with anyio.create_task_group() as group:
        group.start_soon(asend.sendfile, stream, file)
        received = await ends.far.read(len(DATA))

    assert received == DATA
    assert asend.sendfile_path(stream, file) == "copy"


async def test_a_process_that_anyio_opened_is_sent_to() -> None:
    async with await anyio.open_process(["cat"], stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        received = b""

        async with anyio.create_task_group() as group:
            group.start_soon(asend.sendall, process.stdin, DATA)
            while len(received) < len(DATA):
                received += await process.stdout.receive()

    assert received == DATA


@on_asyncio(["transport", "buffered"])
async def test_protocols_that_are_no_subclass_are_heeded(ends: Ends, file: Any) -> None:
    """uvloop takes them by their methods, aiofastnet asks its own."""
    call = Call(asend.sendfile, ends.stream, file)
    ends.protocol.is_buffered_protocol = lambda: isinstance(ends.protocol, asyncio.BufferedProtocol)

    async with anyio.create_task_group() as group:
        await start("first", ends, call, group)
        await ends.far.write(b"read meanwhile")
        assert await ends.read(14) == b"read meanwhile"
        call.scope.cancel()

    assert ends.transport.get_protocol() is ends.protocol


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_pipe_that_is_a_socket_is_sent_on(file: Any) -> None:
    """A subprocess's stdin is one on some systems, with a file object around it."""
    sock, other = socket.socketpair()
    far = Far(other)
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(
        Recorder, open(sock.detach(), "wb", buffering=0)
    )

    try:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(asend.sendfile, transport, file)
                received = await far.read(len(DATA))
    finally:
        transport.close()
        far.close()
        await anyio.wait_all_tasks_blocked()

    assert received == DATA


@pytest.mark.parametrize("anyio_backend", ASYNCIO[:1], indirect=True)
@pytest.mark.parametrize("kind", ["transport"])
async def test_a_transfer_through_a_transport_reads_ahead_as_its_own(ends: Ends) -> None:
    file: Any = Opaque(DATA)
    transfer = FileTransfer(ends.transport, file, 0, None, True, None)
    with _senders.Sender(ends.transport.get_extra_info("socket")) as sender:
        through = _through.Through(transfer, ends.transport, sender, None, is_half_open=True)
        ahead = through.ahead()
        through.close()

    assert ahead == transfer.ahead() == FILE
