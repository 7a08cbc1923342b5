"""Transfers of real files on real sockets, driven by hand: step, load, hold, close."""

from __future__ import annotations

import errno
import gzip
import io
import os
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import DATA, Peer
from opened import opened_by_tests

from asend import SendfileNotAvailableError, _by_copy, _by_kernel
from asend._files import FileTransfer, kernel_sends
from asend._transfers import STEP_SIZE
from asend._wants import DONE, FILE, SOCKET, FilePart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def transfer_of(
    peer: Peer,
    file: Any,
    offset: int = 0,
    count: int | None = None,
    *,
    fallback: bool = True,
    progress: Any = None,
) -> FileTransfer:
    return FileTransfer(peer.sock, file, offset, count, fallback, progress)


def run(transfer: FileTransfer, peer: Peer) -> tuple[bytes, list[int]]:
    """Drive to the end as drivers do, the peer reading at each step; return bytes and wants."""
    received = b""
    wants = []
    while (want := transfer.step()) != DONE:
        wants.append(want)
        received += peer.read_now()
        if want & FILE:
            transfer.load()
    return received + peer.read_now(), wants


@pytest.fixture
def sendfiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offset and size of each os.sendfile, in their order."""
    calls = []
    sendfile = os.sendfile

    def recording(out: int, source: int, offset: int, nbytes: int) -> int:
        calls.append((offset, nbytes))
        return sendfile(out, source, offset, nbytes)

    monkeypatch.setattr(os, "sendfile", recording)
    return calls


class ColdCache:
    """A page cache that has nothing."""

    def has(self, fd: int, size: int, offset: int, nbytes: int) -> bool | None:
        return False

    def release(self) -> None:
        pass


class Cache:
    """A page cache that has what was read since, by `preadv`; it may not tell, or not keep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keeps = True
        self.tells = True
        self.reads: list[int] = []
        self.is_released = False
        self._parts: list[range] = []
        self._preadv = os.preadv
        monkeypatch.setattr(_by_kernel, "PageCache", lambda: self)
        # Files that are copied are not cached here, and read where that does no harm.
        monkeypatch.setattr(_by_copy, "PageCache", ColdCache)
        monkeypatch.setattr(os, "preadv", self.preadv)

    def preadv(self, fd: int, buffers: list[bytearray], offset: int) -> int:
        nbytes = self._preadv(fd, buffers, offset)
        self.reads.append(offset)
        if self.keeps:
            self._parts.append(range(offset, offset + nbytes))
        return nbytes

    def has(self, fd: int, size: int, offset: int, nbytes: int) -> bool | None:
        assert nbytes > 0
        assert offset + nbytes <= size
        assert not self.is_released
        at = offset
        for part in sorted(self._parts, key=lambda part: part.start):
            if at in part:
                at = part.stop
        return at >= offset + nbytes if self.tells else None

    def release(self) -> None:
        self.is_released = True


# Of several steps, so that what happens within one shows.
WINDOW_SIZE = 4 * STEP_SIZE


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(_by_kernel, "WINDOW_SIZE", WINDOW_SIZE)
    return Cache(monkeypatch)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of three windows and a bit."""
    path = tmp_path / "big"
    path.write_bytes((DATA + DATA)[: 3 * WINDOW_SIZE + 12345])
    return path


# --- by the kernel


def test_a_cached_file_goes_by_the_kernel_in_steps(
    data_file: Path, unix_peer: Peer, sendfiles: list[tuple[int, int]]
) -> None:
    counted: list[int] = []
    with data_file.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        file.read()
        transfer = transfer_of(unix_peer, file, progress=counted.append)

        received, wants = run(transfer, unix_peer)
        transfer.close()
        position = file.tell()

    assert received == DATA
    assert set(wants) == {SOCKET}
    assert max(nbytes for _, nbytes in sendfiles) == STEP_SIZE
    assert sum(counted) == transfer.tally.sent == transfer.tally.total == position == len(DATA)


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize(
    ("offset", "count"), [(0, 10), (7, None), (7, STEP_SIZE), (len(DATA) - 3, 100)]
)
def test_offset_and_count_choose_the_bytes(
    offset: int, count: int | None, fallback: bool, data_file: Path, unix_peer: Peer
) -> None:
    with data_file.open("rb") as file:
        file.seek(99)
        transfer = transfer_of(unix_peer, file, offset, count, fallback=fallback)

        received, _ = run(transfer, unix_peer)
        transfer.close()
        position = file.tell()

    assert received == DATA[offset:][:count]
    assert position == offset + len(received)


@pytest.mark.parametrize("fallback", [True, False])
def test_an_offset_beyond_the_end_sends_nothing_and_leaves_the_position(
    fallback: bool, data_file: Path, unix_peer: Peer, sendfiles: list[tuple[int, int]]
) -> None:
    with data_file.open("rb") as file:
        file.seek(99)
        transfer = transfer_of(unix_peer, file, len(DATA) + 10, 5, fallback=fallback)

        want = transfer.step()
        transfer.close()

        assert file.tell() == 99
    assert want == DONE
    assert sendfiles == []
    assert transfer.tally.sent == 0


def test_a_full_socket_is_waited_for(data_file: Path, unix_peer: Peer) -> None:
    with data_file.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file)
        while not unix_peer.is_full():
            transfer.step()
        sent = transfer.tally.sent

        wants = [transfer.step(), transfer.step()]

        assert wants == [SOCKET, SOCKET]
        assert transfer.tally.sent == sent > 0
        transfer.close()


def test_a_file_that_grows_is_followed(path: Path, unix_peer: Peer) -> None:
    with path.open("rb") as file:
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        with path.open("ab") as more:
            more.write(b"more")

        unix_peer.read_now()
        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received.endswith(DATA[-10:] + b"more")
    assert transfer.tally.sent == len(DATA) + 4


def test_a_file_that_grows_is_not_followed_beyond_the_count(path: Path, unix_peer: Peer) -> None:
    with path.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 0, len(DATA) + 2)
        transfer.step()
        with path.open("ab") as more:
            more.write(b"more")

        received = unix_peer.read_now() + run(transfer, unix_peer)[0]
        transfer.close()

    assert received == DATA + b"mo"


@pytest.mark.parametrize("to", [0, STEP_SIZE // 2, STEP_SIZE, 2 * STEP_SIZE + 1])
@pytest.mark.parametrize("count", [None, len(DATA)])
def test_a_file_that_shrinks_ends_where_it_ends(
    to: int, count: int | None, path: Path, unix_peer: Peer
) -> None:
    with path.open("r+b") as file:
        transfer = transfer_of(unix_peer, file, 0, count)
        transfer.step()
        first = unix_peer.read_now()
        file.truncate(to)

        received = first + run(transfer, unix_peer)[0]
        transfer.close()
        position = file.tell()

    assert received == DATA[: max(to, len(first))]
    assert position == len(received)


def test_a_peer_that_is_gone_is_no_reason_to_copy(data_file: Path, unix_peer: Peer) -> None:
    unix_peer.other.close()
    with data_file.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file)

        with pytest.raises(BrokenPipeError):
            transfer.step()
        transfer.close()


@pytest.mark.parametrize(
    "refusal", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTSOCK]
)
def test_a_kernel_that_refuses_at_first_is_not_asked_again(
    refusal: int, data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def refusing(*_: int) -> int:
        nonlocal calls
        calls += 1
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "sendfile", refusing)
    with data_file.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file, 5)

        received, wants = run(transfer, unix_peer)
        transfer.close()
        position = file.tell()

    assert received == DATA[5:]
    assert FILE not in wants
    assert calls == 1
    assert position == len(DATA)


def test_a_block_that_is_cached_is_read_where_it_is_sent(
    data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sendfile")
    with data_file.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file, 3, len(DATA) - 10)

        received, wants = run(transfer, unix_peer)
        transfer.close()

    assert received == DATA[3:-7]
    assert set(wants) <= {SOCKET, DONE}


def test_a_block_that_is_not_cached_is_read_ahead(
    data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sendfile")
    monkeypatch.setattr(_by_copy, "PageCache", ColdCache)
    with data_file.open("rb") as file:
        transfer = transfer_of(unix_peer, file)

        received, wants = run(transfer, unix_peer)
        transfer.close()

    assert received == DATA
    assert wants[0] == FILE
    assert SOCKET | FILE in wants


def test_a_call_that_ends_just_after_it_could_read_sets_the_position(
    unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closing:
        """Ends the call as soon as the next one may read."""

        def acquire(self, *, blocking: bool) -> bool:
            return lock.acquire(blocking=blocking)

        def release(self) -> None:
            lock.release()

        def __enter__(self) -> None:
            assert lock.acquire(timeout=20)

        def __exit__(self, *_: object) -> None:
            lock.release()
            if not transfer.is_over:
                transfer.close()

    with gzip.open(io.BytesIO(gzip.compress(DATA))) as file:
        transfer = transfer_of(unix_peer, file)
        assert transfer.step() == FILE
        transfer.load()
        assert transfer.step() & FILE
        sent = transfer.tally.sent
        assert transfer._reader is not None
        lock = transfer._reader.position.lock
        monkeypatch.setattr(transfer._reader.position, "lock", Closing())

        transfer.load()

        assert sent > 0
        assert file.tell() == sent


@pytest.mark.parametrize("is_handed_over", [False, True], ids=["steps", "rest"])
def test_a_block_that_a_thread_reads_is_not_read_a_second_time(
    is_handed_over: bool, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its read makes the block seem ready, before it is."""

    class Slow:
        """The other end takes a little, then everything."""

        type = socket.SOCK_STREAM

        def __init__(self) -> None:
            self.taken = b""
            self.most = 1000

        def send(self, data: memoryview) -> int:
            self.taken += bytes(data[: self.most])
            return min(self.most, len(data))

    sock = Slow()
    has_read, may_go_on = threading.Event(), threading.Event()
    pread = os.pread

    def reading(fd: int, nbytes: int, offset: int) -> bytes:
        block = pread(fd, nbytes, offset)
        if threading.current_thread() is not threading.main_thread():
            has_read.set()
            assert may_go_on.wait(20)
        return block

    monkeypatch.setattr(_by_copy, "PageCache", ColdCache)
    with data_file.open("rb") as file:
        transfer = FileTransfer(sock, file, 0, None, True, None, by_kernel=False)  # type: ignore[arg-type]  # all that it uses
        assert transfer.step() == FILE
        transfer.load()
        if is_handed_over:
            rest = transfer.rest()
            assert isinstance(rest, memoryview)
            sock.send(rest[: sock.most])
            sock.taken = bytes(rest)
            assert transfer.ahead() == FILE
        else:
            assert transfer.step() == SOCKET | FILE
        monkeypatch.setattr(os, "pread", reading)
        # From now on the cache says that it has everything.
        monkeypatch.setattr(ColdCache, "has", lambda *_: True)
        thread = threading.Thread(target=transfer.load)
        thread.start()
        assert has_read.wait(20)
        sock.most = 1 << 30

        wants = [transfer.rest() if is_handed_over else transfer.step() for _ in range(3)]
        may_go_on.set()
        thread.join()
        while (want := transfer.rest() if is_handed_over else transfer.step()) != DONE:
            if isinstance(want, memoryview):
                sock.send(want)
            elif want == FILE:
                transfer.load()
        transfer.close()

    assert wants[-1] == FILE
    assert sock.taken == DATA


def test_a_file_with_a_number_that_is_none_is_not_sent_by_the_kernel() -> None:
    class Wrong(io.BytesIO):
        def fileno(self) -> int:
            return 1_000_000

    class Odd:
        fileno = Wrong().fileno

    assert not kernel_sends(Odd())  # type: ignore[arg-type]  # it has no read
    assert not kernel_sends(io.BytesIO(b"data"))


def test_blocks_in_a_buffer_that_is_used_again_are_sent_as_they_were(unix_peer: Peer) -> None:
    class Reuses:
        def __init__(self) -> None:
            self.buffer = bytearray(1000)
            self.left = list(range(1, 200))

        def read(self, size: int = -1) -> memoryview:
            if not self.left:
                return memoryview(b"")
            self.buffer[:] = bytes([self.left.pop(0)]) * 1000
            return memoryview(self.buffer)

    transfer = transfer_of(unix_peer, Reuses())

    received, _ = run(transfer, unix_peer)
    transfer.close()

    assert received == b"".join(bytes([n]) * 1000 for n in range(1, 200))


def test_memory_is_sent_a_block_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast peer must not keep the loop for all of it, or the stack."""

    class TakesAll:
        def send(self, data: memoryview) -> int:
            return len(data)

    # More blocks than the stack has room for.
    monkeypatch.setattr(_by_copy, "STEP_SIZE", 1024)
    transfer = FileTransfer(TakesAll(), io.BytesIO(bytes(3000 * 1024)), 0, None, True, None)  # type: ignore[arg-type]  # all that it uses

    steps = [transfer.step() for _ in range(3000)]
    last = transfer.step()
    transfer.close()

    assert steps == [SOCKET] * 3000
    assert last == DONE


def test_a_kernel_that_refuses_is_an_error_without_fallback(
    data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "sendfile", refusing)
    with data_file.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file, fallback=False)

        with pytest.raises(SendfileNotAvailableError, match=r"os\.sendfile call failed") as caught:
            transfer.step()
        transfer.close()

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.EPIPE])
def test_an_error_after_the_first_byte_is_raised(
    error: int, data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel could send before, it can send; and no byte goes twice."""
    with data_file.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        first = unix_peer.read_now()

        def failing(*_: int) -> int:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(os, "sendfile", failing)
        with pytest.raises(OSError, match=os.strerror(error)) as caught:
            transfer.step()
        transfer.close()
        position = file.tell()

    assert caught.value.errno == error
    assert position == transfer.tally.sent == len(first) > 0


def test_without_os_sendfile_a_file_is_copied(
    data_file: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sendfile")
    with data_file.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 3, len(DATA))
        with pytest.raises(SendfileNotAvailableError, match="not available"):
            transfer_of(unix_peer, file, fallback=False)

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == DATA[3:]


# --- cold files


def test_a_cold_file_is_read_in_windows_before_it_is_sent(
    big: Path, unix_peer: Peer, cold: Cache, sendfiles: list[tuple[int, int]]
) -> None:
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)

        first = transfer.step()
        before = list(sendfiles)
        transfer.load()
        received, wants = run(transfer, unix_peer)
        transfer.close()

    assert first == FILE
    assert before == []
    assert received == big.read_bytes()
    # All windows after the first were read ahead.
    assert FILE not in wants
    assert cold.reads == list(range(0, big.stat().st_size, STEP_SIZE))


def test_the_next_window_is_asked_for_when_half_of_this_one_is_left(
    big: Path, unix_peer: Peer, cold: Cache
) -> None:
    asked_at = []
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        transfer.load()

        while (want := transfer.step()) != DONE:
            unix_peer.read_now()
            if want & FILE:
                asked_at.append(transfer.tally.sent)
                transfer.load()
        transfer.close()

    half = WINDOW_SIZE // 2
    # Each at the first step that ends in the second half of a window.
    assert len(asked_at) == 3
    for n, sent in enumerate(asked_at):
        assert n * WINDOW_SIZE + half <= sent < n * WINDOW_SIZE + half + STEP_SIZE


def test_a_full_socket_asks_for_the_next_window_too(
    big: Path, unix_peer: Peer, cold: Cache
) -> None:
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        transfer.load()
        while transfer.step() == SOCKET:
            unix_peer.read_now()
        while not unix_peer.is_full():
            transfer.step()

        want = transfer.step()

        assert want == SOCKET | FILE
        transfer.close()


def test_nothing_is_sent_beyond_what_was_read_of_a_cold_file(
    big: Path, unix_peer: Peer, cold: Cache, sendfiles: list[tuple[int, int]]
) -> None:
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 100)
        transfer.step()
        transfer.load()
        while transfer.step() & SOCKET:
            unix_peer.read_now()

        assert transfer.tally.sent == WINDOW_SIZE
        assert all(offset + nbytes <= 100 + WINDOW_SIZE for offset, nbytes in sendfiles)
        transfer.close()


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("tells", [True, False])
def test_a_window_that_a_thread_has_just_read_is_for_the_next_step(
    tells: bool,
    fallback: bool,
    big: Path,
    unix_peer: Peer,
    cold: Cache,
    sendfiles: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step may be larger than a window, and must not be taken for one that was read."""
    is_cold = _by_kernel.ByKernel._is_cold
    is_read = False

    def asked(*arguments: Any) -> bool:
        nonlocal is_read
        if not is_read and transfer.tally.sent == WINDOW_SIZE:
            is_read = True
            transfer.load()
        return is_cold(*arguments)

    cold.tells = tells
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, fallback=fallback)
        transfer.tally.most = 4 * WINDOW_SIZE
        assert transfer.step() == FILE
        transfer.load()
        while transfer.tally.sent < WINDOW_SIZE:
            transfer._way.step(transfer.tally)
            unix_peer.read_now()
        monkeypatch.setattr(_by_kernel.ByKernel, "_is_cold", asked)

        beyond = []
        while (want := transfer.step()) != DONE:
            beyond.append(sum(sendfiles[-1]) - min(max(cold.reads) + STEP_SIZE, big.stat().st_size))
            unix_peer.read_now()
            if want & FILE:
                transfer.load()
        transfer.close()

    assert is_read
    assert isinstance(transfer._way, _by_kernel.ByKernel)
    assert max(beyond) <= 0


def test_a_window_ends_at_the_count(big: Path, unix_peer: Peer, cold: Cache) -> None:
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 0, STEP_SIZE + 1)

        received, wants = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()[: STEP_SIZE + 1]
    assert wants[0] == FILE
    assert cold.reads == [0, STEP_SIZE]


def test_a_system_that_does_not_tell_has_every_window_read_first(
    big: Path, unix_peer: Peer, cold: Cache
) -> None:
    cold.tells = False
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)

        received, wants = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()
    assert wants[0] == FILE
    assert sum(want & FILE for want in wants) == 4 * FILE


def test_a_file_that_does_not_stay_in_the_cache_is_copied(
    big: Path, unix_peer: Peer, cold: Cache, sendfiles: list[tuple[int, int]]
) -> None:
    cold.keeps = False
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 5)

        received, wants = run(transfer, unix_peer)
        transfer.close()
        position = file.tell()

    assert received == big.read_bytes()[5:]
    assert wants[:2] == [FILE, FILE]
    assert sendfiles == []
    assert position == big.stat().st_size


@pytest.mark.parametrize("to", [1000, STEP_SIZE + 1])
def test_a_file_that_is_cut_while_it_is_read_is_not_copied(
    to: int, big: Path, unix_peer: Peer, cold: Cache, sendfiles: list[tuple[int, int]]
) -> None:
    """What was cut off is not in the cache either, and no sign of one that keeps nothing."""
    with big.open("r+b") as file:
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        file.truncate(to)
        transfer.load()

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()
    assert {offset for offset, _ in sendfiles} == set(range(0, to, STEP_SIZE))


def test_a_file_that_leaves_the_cache_after_a_while_is_copied_from_there(
    big: Path, unix_peer: Peer, cold: Cache, sendfiles: list[tuple[int, int]]
) -> None:
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 0, 3 * WINDOW_SIZE)
        transfer.step()
        transfer.load()
        cold.keeps = False

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()[: 3 * WINDOW_SIZE]
    assert sum(nbytes for _, nbytes in sendfiles) >= WINDOW_SIZE
    assert all(offset < WINDOW_SIZE for offset, _ in sendfiles)


def test_without_fallback_a_file_that_does_not_stay_in_the_cache_goes_by_the_kernel(
    big: Path, unix_peer: Peer, cold: Cache, sendfiles: list[tuple[int, int]]
) -> None:
    cold.keeps = False
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, fallback=False)

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()
    assert sendfiles


def test_what_was_seen_to_be_cached_is_forgotten_when_it_is_too_much(
    big: Path, unix_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[tuple[int, int, int, int], float] = {}
    most = 0
    monkeypatch.setattr(_by_kernel, "_seen", seen)
    monkeypatch.setattr(_by_kernel, "_MOST_SEEN", 2)
    # Of a mebibyte each.
    assert big.stat().st_size > 3 << 20

    def progress(_: int) -> None:
        nonlocal most
        most = max(most, len(seen))

    with big.open("rb") as file:
        file.read()
        transfer = transfer_of(unix_peer, file, progress=progress)

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()
    assert most == 2


def test_what_was_asked_of_the_cache_is_released_at_the_end(
    big: Path, unix_peer: Peer, cold: Cache
) -> None:
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        was_released = cold.is_released

        transfer.close()

    assert (was_released, cold.is_released) == (False, True)


def test_what_was_asked_of_the_cache_is_released_when_it_keeps_nothing(
    big: Path, unix_peer: Peer, cold: Cache
) -> None:
    cold.keeps = False
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)
        while not cold.is_released:
            assert transfer.step() == FILE
            transfer.load()

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == big.read_bytes()


class SlowReads:
    """Reads a window when the test allows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._preadv = os.preadv
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()
        monkeypatch.setattr(os, "preadv", self.preadv)

    def preadv(self, fd: int, buffers: list[bytearray], offset: int) -> int:
        self.has_begun.set()
        assert self.may_go_on.wait(10)
        return self._preadv(fd, buffers, offset)


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize(
    "ends",
    [
        "after the step",
        "in the step",
    ],
)
def test_a_window_that_is_still_being_read_is_waited_for(
    ends: str,
    fallback: bool,
    big: Path,
    unix_peer: Peer,
    cold: Cache,
    monkeypatch: pytest.MonkeyPatch,
    sendfiles: list[tuple[int, int]],
) -> None:
    """A peer that is faster than the disk catches up with the thread that reads ahead."""
    has = cold.has

    def late(fd: int, size: int, offset: int, nbytes: int) -> bool | None:
        answer = has(fd, size, offset, nbytes)
        # The last question of a step is about this step alone.
        if not answer and nbytes <= STEP_SIZE:
            slow.may_go_on.set()
            thread.join()
        return answer

    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, fallback=fallback)
        transfer.step()
        transfer.load()
        while not transfer.step() & FILE:
            unix_peer.read_now()
        slow = SlowReads(monkeypatch)
        thread = threading.Thread(target=transfer.load)
        thread.start()
        assert slow.has_begun.wait(10)
        if ends == "in the step":
            monkeypatch.setattr(cold, "has", late)

        while (want := transfer.step()) & SOCKET and transfer.tally.sent <= WINDOW_SIZE:
            unix_peer.read_now()
        sent = transfer.tally.sent
        slow.may_go_on.set()
        thread.join()
        unix_peer.read_now()
        run(transfer, unix_peer)
        transfer.close()

    assert want == FILE
    assert sent == WINDOW_SIZE
    assert sum(nbytes for _, nbytes in sendfiles) >= big.stat().st_size


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 9])
def test_a_read_error_comes_after_what_was_before_it(
    at: int, unknown: bool, big: Path, unix_peer: Peer, cold: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv = os.preadv

    def failing(fd: int, buffers: list[bytearray], offset: int) -> int:
        if offset >= at * STEP_SIZE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    cold.tells = not unknown
    counted: list[int] = []
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file, progress=counted.append)

        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            run(transfer, unix_peer)
        transfer.close()
        position = file.tell()

    assert sum(counted) == transfer.tally.sent == position == at * STEP_SIZE


# --- what else there is


@pytest.mark.parametrize("offset", [0, 20])
def test_a_file_of_proc_is_read(offset: int, unix_peer: Peer) -> None:
    """Its size is 0, and it is not empty."""
    whole = Path("/proc/self/cmdline").read_bytes()
    with open("/proc/self/cmdline", "rb") as file:
        transfer = transfer_of(unix_peer, file, offset)
        with pytest.raises(SendfileNotAvailableError):
            transfer_of(unix_peer, file, offset, fallback=False)

        received, wants = run(transfer, unix_peer)
        transfer.close()
        position = file.tell()

    assert received == whole[offset:]
    assert FILE in wants
    assert position == len(whole)
    assert transfer.tally.total is None


@pytest.mark.parametrize("fallback", [True, False])
def test_an_empty_file_is_sent(fallback: bool, tmp_path: Path, unix_peer: Peer) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as file:
        transfer = transfer_of(unix_peer, file, fallback=fallback)

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == b""
    assert transfer.tally.sent == 0


def test_a_directory_is_an_error(tmp_path: Path, unix_peer: Peer) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)

    class Directory:
        def fileno(self) -> int:
            return fd

    with pytest.raises(IsADirectoryError):
        transfer_of(unix_peer, Directory())
    os.close(fd)


def unsupported() -> int:
    raise io.UnsupportedOperation("fileno")


@pytest.mark.parametrize("fileno", [lambda: 10**6, lambda: -1, unsupported])
def test_an_object_whose_descriptor_is_none_is_read(
    fileno: Callable[[], int], unix_peer: Peer
) -> None:
    class Odd:
        def __init__(self) -> None:
            self.read = io.BytesIO(DATA).read
            self.fileno = fileno

    transfer = transfer_of(unix_peer, Odd())

    received, _ = run(transfer, unix_peer)
    transfer.close()

    assert received == DATA
    assert transfer.endless


def test_an_object_with_no_more_than_a_descriptor_goes_by_the_kernel(
    data_file: Path, unix_peer: Peer, sendfiles: list[tuple[int, int]]
) -> None:
    with data_file.open("rb") as file:

        class Bare:
            fileno = file.fileno

        file.read()
        transfer = transfer_of(unix_peer, Bare(), fallback=False)

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == DATA
    assert sendfiles


def test_a_buffered_file_that_was_read_before_stays_in_step(
    data_file: Path, unix_peer: Peer
) -> None:
    """CPython's loops call os.lseek behind the buffer, which then gives bytes of before."""
    with data_file.open("rb") as file:
        file.read(10)
        transfer = transfer_of(unix_peer, file, 2, 50)

        received, _ = run(transfer, unix_peer)
        transfer.close()

        assert received == DATA[2:52]
        assert file.tell() == 52
        assert file.read(10) == DATA[52:62]


def test_what_was_written_to_the_object_before_is_sent(path: Path, unix_peer: Peer) -> None:
    with path.open("r+b") as file:
        file.write(b"new")
        transfer = transfer_of(unix_peer, file, 0, 10)

        received, _ = run(transfer, unix_peer)
        transfer.close()

    assert received == b"new" + DATA[3:10]


def test_an_unbuffered_file_goes_by_the_kernel(
    data_file: Path, unix_peer: Peer, sendfiles: list[tuple[int, int]]
) -> None:
    with data_file.open("rb", buffering=0) as file:
        transfer = transfer_of(unix_peer, file, fallback=False)

        received, _ = run(transfer, unix_peer)
        transfer.close()

        assert file.tell() == len(DATA)
    assert received == DATA
    assert sendfiles


def test_a_compressed_file_is_sent_as_it_reads(tmp_path: Path, unix_peer: Peer) -> None:
    """Its fileno() is that of the compressed file."""
    with gzip.open(tmp_path / "file.gz", "wb", compresslevel=1) as file:
        file.write(DATA)
    with gzip.open(tmp_path / "file.gz") as file:
        with pytest.raises(SendfileNotAvailableError):
            transfer_of(unix_peer, file, fallback=False)
        transfer = transfer_of(unix_peer, file, 5, len(DATA))

        received, _ = run(transfer, unix_peer)
        transfer.close()

        assert file.tell() == len(DATA)
    assert received == DATA[5:]
    assert not transfer.endless


def test_a_named_temporary_file_goes_by_the_kernel(
    tmp_path: Path, unix_peer: Peer, sendfiles: list[tuple[int, int]]
) -> None:
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(DATA)
        transfer = transfer_of(unix_peer, file, fallback=False)

        received, _ = run(transfer, unix_peer)
        transfer.close()

        assert file.tell() == len(DATA)
    assert received == DATA
    assert sendfiles


@pytest.mark.parametrize("is_rolled", [False, True])
def test_a_spooled_temporary_file_is_sent_as_it_reads(
    is_rolled: bool, tmp_path: Path, unix_peer: Peer
) -> None:
    with tempfile.SpooledTemporaryFile(len(DATA), dir=tmp_path) as file:
        file.write(DATA)
        if is_rolled:
            file.rollover()
        transfer = transfer_of(unix_peer, file, 3)

        received, _ = run(transfer, unix_peer)
        transfer.close()

        assert file.tell() == len(DATA)
    assert received == DATA[3:]


# --- pipes and other objects


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, int]]:
    source, target = os.pipe()
    with os.fdopen(source, "rb") as file:
        yield file, target


def test_a_pipe_is_sent_as_it_comes(pipe: tuple[io.BufferedReader, int], unix_peer: Peer) -> None:
    """read(n) of a pipe waits for n bytes; what has come must go before."""
    file, target = pipe
    os.write(target, b"first")
    transfer = transfer_of(unix_peer, file)

    transfer.step()
    transfer.load()
    transfer.step()
    first = unix_peer.read_now()
    os.write(target, b"second")
    os.close(target)
    rest, _ = run(transfer, unix_peer)
    transfer.close()

    assert transfer.endless
    assert (first, rest) == (b"first", b"second")
    assert transfer.tally.total is None


def test_a_pipe_has_no_offset(pipe: tuple[io.BufferedReader, int], unix_peer: Peer) -> None:
    file, target = pipe
    os.close(target)

    with pytest.raises(io.UnsupportedOperation, match="not seekable"):
        transfer_of(unix_peer, file, 1)


def test_a_pipe_that_does_not_block_is_an_error(
    pipe: tuple[io.BufferedReader, int], unix_peer: Peer
) -> None:
    """Its read() gives None where there is nothing yet, which is not the end."""
    file, target = pipe
    os.set_blocking(file.fileno(), False)
    with os.fdopen(os.dup(file.fileno()), "rb", buffering=0) as raw:
        transfer = transfer_of(unix_peer, raw)

        with pytest.raises(ValueError, match="the file must be blocking"):
            run(transfer, unix_peer)
        transfer.close()
    os.close(target)


@pytest.mark.parametrize(
    ("gives", "error"),
    [("text", TypeError), (5, TypeError), (memoryview(b"abc")[::2], BufferError)],
)
def test_an_object_that_reads_no_bytes_is_an_error(
    gives: object, error: type[Exception], unix_peer: Peer
) -> None:
    class Odd:
        def read(self, size: int = -1, /) -> Any:
            return gives

    transfer = transfer_of(unix_peer, Odd())

    with pytest.raises(error):
        run(transfer, unix_peer)
    transfer.close()


def test_an_error_of_inline_memory_comes_out(unix_peer: Peer) -> None:
    file = io.BytesIO(DATA)
    transfer = transfer_of(unix_peer, file)
    file.close()

    with pytest.raises(ValueError, match="closed file"):
        transfer.step()
    transfer.close()


def fill(peer: Peer) -> None:
    """Until not a byte more is taken."""
    for nbytes in (100_000, 1):
        with suppress(BlockingIOError):
            while True:
                peer.sock.send(bytes(nbytes))


@pytest.mark.parametrize("sent_any", [False, True])
@pytest.mark.parametrize("kind", ["file", "memory", "object"])
def test_the_position_is_after_what_was_sent_or_where_it_was(
    kind: str, sent_any: bool, data_file: Path, unix_peer: Peer
) -> None:
    class Object(io.BytesIO):
        pass

    file: Any = {
        "file": lambda: data_file.open("rb"),
        "memory": lambda: io.BytesIO(DATA),
        "object": lambda: Object(DATA),
    }[kind]()
    file.seek(99)
    transfer = transfer_of(unix_peer, file, 10)
    fill(unix_peer)
    blocked = transfer.step()
    if blocked & FILE:
        transfer.load()
        blocked = transfer.step()
    assert blocked & SOCKET
    if sent_any:
        unix_peer.read_now()
        transfer.step()

    was_slow = transfer.closes_slowly
    transfer.close()

    assert (transfer.tally.sent > 0) is sent_any
    assert file.tell() == (10 + transfer.tally.sent if sent_any else 99)
    assert was_slow is (kind == "object")
    file.close()


def test_an_object_that_is_where_it_has_to_be_closes_quickly(unix_peer: Peer) -> None:
    class Object(io.BytesIO):
        pass

    file = Object(b"short")
    transfer = transfer_of(unix_peer, file)

    run(transfer, unix_peer)

    assert not transfer.closes_slowly
    transfer.close()
    assert file.tell() == 5


def test_a_file_closed_meanwhile_is_still_sent_and_no_error_at_the_end(
    data_file: Path, unix_peer: Peer
) -> None:
    file = data_file.open("rb")
    transfer = transfer_of(unix_peer, file)
    transfer.step()
    transfer.hold(unix_peer.sock)
    file.close()

    received = unix_peer.read_now() + run(transfer, unix_peer)[0]
    transfer.close()

    assert received == DATA


def test_a_held_descriptor_is_released_once(data_file: Path, unix_peer: Peer) -> None:
    with data_file.open("rb") as file:
        before = opened_by_tests()
        transfer = transfer_of(unix_peer, file)
        transfer.hold(unix_peer.sock)
        held = opened_by_tests() - before

        transfer.close()
        # Would close the number of another.
        with data_file.open("rb"):
            transfer.close()

        assert len(held) == 1
        assert opened_by_tests() == before


def test_what_is_left_of_a_file_is_a_part_of_it(data_file: Path, unix_peer: Peer) -> None:
    with data_file.open("rb") as file:
        transfer = transfer_of(unix_peer, file, 5, STEP_SIZE, fallback=False)
        transfer.step()

        rest = transfer.rest()
        transfer.close()

    sent = transfer.tally.sent
    assert 0 < sent < STEP_SIZE
    assert rest == FilePart(file, 5 + sent, STEP_SIZE - sent, False)


# --- a call that ends while a thread reads


def test_a_read_that_begins_after_the_end_does_nothing(unix_peer: Peer) -> None:
    class Unread(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("read after the call")

    transfer = transfer_of(unix_peer, Unread(DATA))
    transfer.close()

    transfer.load()

    assert transfer.step() == FILE


class Slow(io.BytesIO):
    """Lets a test do something while a thread reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.is_read = threading.Event()
        self.may_go_on = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        self.is_read.set()
        assert self.may_go_on.wait(10)
        return super().read(size)


@pytest.mark.parametrize("sent_any", [False, True])
def test_a_call_that_ends_while_a_thread_reads_leaves_the_clean_up_to_that(
    sent_any: bool, unix_peer: Peer
) -> None:
    file = Slow(DATA)
    file.seek(99)
    transfer = transfer_of(unix_peer, file)
    if sent_any:
        file.may_go_on.set()
        transfer.load()
        transfer.step()
        file.may_go_on.clear()
        file.is_read.clear()
    thread = threading.Thread(target=transfer.load)
    thread.start()
    assert file.is_read.wait(10)

    transfer.close()
    before = file.tell()
    file.may_go_on.set()
    thread.join()

    sent = transfer.tally.sent
    assert (sent > 0) is sent_any
    # Not moved under the reading thread, but by it.
    assert before == (STEP_SIZE if sent_any else 0)
    assert file.tell() == (sent if sent_any else 99)


def test_a_descriptor_is_held_until_the_thread_that_reads_has_ended(
    big: Path, unix_peer: Peer, cold: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowReads(monkeypatch)
    before = opened_by_tests()
    with big.open("rb") as file:
        transfer = transfer_of(unix_peer, file)
        transfer.step()
        transfer.hold(unix_peer.sock)
    thread = threading.Thread(target=transfer.load)
    thread.start()
    assert slow.has_begun.wait(10)

    transfer.close()
    held = opened_by_tests() - before
    slow.may_go_on.set()
    thread.join()

    assert len(held) == 1
    assert opened_by_tests() == before
    # The rest of its window was not read.
    assert cold.reads == [0]


def test_a_socket_that_is_no_socket_any_more_is_an_error(data_file: Path) -> None:
    sock, other = socket.socketpair()
    with data_file.open("rb") as file, other:
        file.read()
        transfer = FileTransfer(sock, file, 0, None, True, None)
        sock.close()

        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            transfer.step()
        transfer.close()
