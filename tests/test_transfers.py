"""Transfers as plain objects, on a socket that follows a script: no event loop, no kernel."""

from __future__ import annotations

import errno
import io
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asend._by_copy import ByCopy, ObjectReader
from asend._files import FileTransfer
from asend._tally import Tally
from asend._transfers import STEP_SIZE, Octets, Vectors
from asend._wants import DONE, FILE, SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from asend._wants import Transfer

EAGAIN = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
EINTR = InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
EPIPE = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
IOV_MAX = os.sysconf("SC_IOV_MAX")

DATA = bytes(range(256)) * 4


class ScriptedSocket:
    """Takes at each call what its script says: so many bytes at most, or an error.

    A script that has ended takes everything.
    """

    def __init__(
        self, *script: int | OSError, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> None:
        self._script = list(script)
        self.type = kind
        self.taken = b""
        # What each call offered: bytes, buffers, flags; and the ancillary data, if there was any.
        self.offers: list[tuple[int, int, int]] = []
        self.ancdata: list[Any] = []

    def send(self, data: memoryview, flags: int = 0) -> int:
        return self.sendmsg([data], (), flags)

    def sendmsg(self, buffers: Iterable[memoryview], ancdata: Any, flags: int) -> int:
        pieces = [bytes(buffer) for buffer in buffers]
        whole = b"".join(pieces)
        self.offers.append((len(whole), len(pieces), flags))
        self.ancdata.append(ancdata)
        answer = self._script.pop(0) if self._script else len(whole)
        if isinstance(answer, OSError):
            # A new one each time, as each keeps its traceback.
            raise type(answer)(*answer.args)
        taken = whole[:answer]
        self.taken += taken
        return len(taken)


class Stream:
    """A file object with nothing but `read`."""

    def __init__(self, data: bytes, *, most: int | None = None) -> None:
        self._file = io.BytesIO(data)
        self._most = most
        self.asked: list[int] = []

    def read(self, size: int = -1, /) -> bytes:
        self.asked.append(size)
        return self._file.read(size if self._most is None else min(size, self._most))


def octets(sock: Any, data: bytes, flags: int = 0, progress: Any = None) -> Octets:
    return Octets(sock, memoryview(data), flags, Tally(len(data), progress))


def vectors(
    sock: Any, pieces: list[bytes], ancdata: Any = (), flags: int = 0, progress: Any = None
) -> Vectors:
    nbytes = sum(map(len, pieces))
    views = [memoryview(piece) for piece in pieces]
    return Vectors(sock, views, ancdata, flags, Tally(nbytes, progress))


def file_transfer(
    sock: Any, file: Any, offset: int = 0, count: int | None = None, progress: Any = None
) -> FileTransfer:
    return FileTransfer(sock, file, offset, count, True, progress)


def run(transfer: Transfer) -> list[int]:
    """Drive a transfer to its end, as drivers do; return what it wanted in between."""
    wants = []
    while (want := transfer.step()) != DONE:
        wants.append(want)
        if want & FILE:
            transfer.load()
    return wants


# --- one buffer


def test_what_the_socket_takes_at_once_is_one_step() -> None:
    sock = ScriptedSocket()
    transfer = octets(sock, DATA)

    want = transfer.step()

    assert want == DONE
    assert sock.taken == DATA
    assert transfer.tally.sent == len(DATA)


def test_a_partial_send_goes_on_where_it_ended() -> None:
    sock = ScriptedSocket(3, EAGAIN, 1)
    counted: list[int] = []
    transfer = octets(sock, DATA, progress=counted.append)

    wants = run(transfer)

    assert wants == [SOCKET, SOCKET, SOCKET]
    assert sock.taken == DATA
    assert counted == [3, 1, len(DATA) - 4]


def test_an_error_comes_out_with_the_bytes_before_it_counted() -> None:
    sock = ScriptedSocket(3, EAGAIN, 1, EPIPE)
    transfer = octets(sock, DATA)
    wants = [transfer.step() for _ in range(3)]

    with pytest.raises(BrokenPipeError):
        transfer.step()

    assert wants == [SOCKET] * 3
    assert transfer.tally.sent == 4
    assert sock.taken == DATA[:4]
    assert transfer.rest() == DATA[4:]


@pytest.mark.parametrize("make", ["octets", "vectors", "file"])
def test_an_interrupted_call_waits_for_its_turn(make: str) -> None:
    """PEP 475: only a signal handler that asks for it lets EINTR out of a call."""
    sock = ScriptedSocket(EINTR, 5, EINTR)
    transfer: Transfer = {
        "octets": lambda: octets(sock, DATA),
        "vectors": lambda: vectors(sock, [DATA]),
        "file": lambda: file_transfer(sock, io.BytesIO(DATA)),
    }[make]()

    wants = run(transfer)

    assert set(wants) == {SOCKET}
    assert sock.taken == DATA
    assert transfer.tally.sent == len(DATA)


def test_a_step_offers_no_more_than_its_size() -> None:
    sock = ScriptedSocket()
    data = bytes(2 * STEP_SIZE + 1)

    run(octets(sock, data))

    assert [offer[0] for offer in sock.offers] == [STEP_SIZE, STEP_SIZE, 1]


def test_a_datagram_is_never_cut() -> None:
    sock = ScriptedSocket(kind=socket.SOCK_DGRAM)
    data = bytes(2 * STEP_SIZE + 1)

    wants = run(octets(sock, data))

    assert wants == []
    assert sock.offers == [(len(data), 1, 0)]


def test_an_empty_buffer_is_sent_once() -> None:
    sock = ScriptedSocket(EAGAIN)

    wants = run(octets(sock, b""))

    assert wants == [SOCKET]
    assert sock.offers == [(0, 1, 0)] * 2


def test_flags_go_with_every_send() -> None:
    sock = ScriptedSocket(1, EAGAIN)

    run(octets(sock, DATA, socket.MSG_MORE))

    assert [offer[2] for offer in sock.offers] == [socket.MSG_MORE] * 3


def test_what_progress_raises_comes_out_with_its_bytes_counted() -> None:
    def progress(nbytes: int) -> None:
        raise LookupError(nbytes)

    transfer = octets(ScriptedSocket(7), DATA, progress=progress)

    with pytest.raises(LookupError, match="7"):
        transfer.step()

    assert transfer.tally.sent == 7


@pytest.mark.parametrize("make", [octets, lambda sock, data: vectors(sock, [data[:2], data[2:]])])
def test_a_transfer_sends_on_by_the_socket_that_it_is_given_to_hold(make: Any) -> None:
    first, second = ScriptedSocket(5, EAGAIN), ScriptedSocket(3, 1 << 30)
    transfer = make(first, memoryview(b"0123456789"))
    transfer.step()

    transfer.hold(second)
    while transfer.step() != DONE:
        pass

    assert (first.taken, second.taken) == (b"01234", b"56789")


@pytest.mark.parametrize("make", [octets, lambda sock, data: vectors(sock, [data[:2], data[2:]])])
def test_a_closed_transfer_has_given_its_buffers_back(make: Any) -> None:
    data = bytearray(DATA)
    views = [memoryview(data)]
    transfer = make(ScriptedSocket(5, EAGAIN), views[0])
    transfer.step()
    # Nothing to read, and no event loop to leave.
    transfer.load()
    assert transfer.ahead() == DONE
    transfer.leave()

    transfer.close()
    views[0].release()

    # Refused with BufferError while there is a view.
    data.clear()


# --- many buffers


def test_buffers_are_sent_in_their_order_without_joining_them() -> None:
    sock = ScriptedSocket()

    want = vectors(sock, [b"one", b"two", b"three"], flags=socket.MSG_MORE).step()

    assert want == DONE
    assert sock.taken == b"onetwothree"
    assert sock.offers == [(11, 3, socket.MSG_MORE)]


@pytest.mark.parametrize("taken", range(1, 11))
def test_a_partial_send_in_any_place_of_any_buffer_goes_on_there(taken: int) -> None:
    sock = ScriptedSocket(taken)
    transfer = vectors(sock, [b"one", b"two", b"three"])

    want = transfer.step()
    run(transfer)

    assert want == SOCKET
    assert sock.taken == b"onetwothree"


def test_ancillary_data_goes_with_the_first_byte_that_is_accepted_and_not_again() -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0\0\0\0")]
    sock = ScriptedSocket(EAGAIN, EINTR, 1, EAGAIN, 2)

    run(vectors(sock, [DATA], rights))

    assert sock.ancdata == [rights, rights, rights, (), (), ()]
    assert sock.taken == DATA


def test_empty_buffers_between_others_are_passed_over() -> None:
    sock = ScriptedSocket(2, 1)

    run(vectors(sock, [b"", b"ab", b"", b"", b"cd", b""]))

    assert sock.taken == b"abcd"


def test_no_buffers_at_all_are_sent_once() -> None:
    sock = ScriptedSocket(EAGAIN)

    wants = run(vectors(sock, []))

    assert wants == [SOCKET]
    assert sock.offers == [(0, 0, 0)] * 2


def test_more_buffers_than_the_system_takes_go_in_batches() -> None:
    sock = ScriptedSocket()

    run(vectors(sock, [b"x"] * (2 * IOV_MAX + 1)))

    assert [offer[1] for offer in sock.offers] == [IOV_MAX, IOV_MAX, 1]
    assert sock.taken == b"x" * (2 * IOV_MAX + 1)


def test_a_step_ends_in_the_middle_of_a_buffer() -> None:
    sock = ScriptedSocket()

    run(vectors(sock, [bytes(STEP_SIZE - 1), b"ab", b"c"]))

    assert sock.offers == [(STEP_SIZE, 2, 0), (2, 2, 0)]
    assert sock.taken[-3:] == b"abc"


@pytest.mark.parametrize(
    "pieces", [[bytes(STEP_SIZE), b"ab"], [b"x"] * (IOV_MAX + 1)], ids=["large", "many"]
)
def test_buffers_of_a_datagram_are_offered_whole(pieces: list[bytes]) -> None:
    sock = ScriptedSocket(kind=socket.SOCK_DGRAM)

    run(vectors(sock, pieces))

    assert sock.offers == [(sum(map(len, pieces)), len(pieces), 0)]


# --- files by copy


def test_memory_is_sent_without_asking_for_the_file() -> None:
    sock = ScriptedSocket(7, EAGAIN)
    data = os.urandom(2 * STEP_SIZE + 1)
    file = io.BytesIO(data)
    transfer = file_transfer(sock, file)

    wants = run(transfer)
    transfer.close()

    assert set(wants) == {SOCKET}
    assert sock.taken == data
    assert file.tell() == len(data)
    assert transfer.tally.total == len(data)


def test_memory_that_grows_is_more_to_send() -> None:
    """Who ends the call early would take it for complete."""
    sock = ScriptedSocket(4, EAGAIN)
    file = io.BytesIO(b"four")

    def grow(nbytes: int) -> None:
        file.seek(0, io.SEEK_END)
        file.write(b"more" if file.tell() == 4 else b"")
        file.seek(transfer.tally.sent)

    transfer = file_transfer(sock, file, progress=grow)
    while len(sock.taken) < 4 or transfer.step() != SOCKET:
        transfer.step()

    assert (transfer.tally.sent, transfer.tally.total) == (4, 8)
    run(transfer)
    transfer.close()
    assert sock.taken == b"fourmore"


def test_an_object_is_asked_for_a_block_and_for_the_next_while_that_is_sent() -> None:
    data = os.urandom(2 * STEP_SIZE)
    sock = ScriptedSocket(1)
    transfer = file_transfer(sock, Stream(data))

    first = transfer.step()
    transfer.load()
    second = transfer.step()
    transfer.load()
    third = transfer.step()

    assert (first, second) == (FILE, SOCKET | FILE)
    # The next block is there: nothing more to read for now.
    assert third == SOCKET
    assert sock.taken == data[:STEP_SIZE]


def test_a_block_sent_before_the_next_is_there_waits_for_the_file() -> None:
    sock = ScriptedSocket(1)
    transfer = file_transfer(sock, Stream(b"ab" * STEP_SIZE))
    transfer.step()
    transfer.load()

    wants = [transfer.step(), transfer.step(), transfer.step()]

    assert wants == [SOCKET | FILE, FILE, FILE]


def test_a_full_socket_lets_the_next_block_be_read() -> None:
    sock = ScriptedSocket(EAGAIN)
    transfer = file_transfer(sock, Stream(b"ab" * STEP_SIZE))
    transfer.step()
    transfer.load()

    want = transfer.step()

    assert want == SOCKET | FILE
    assert sock.taken == b""


def test_a_count_is_never_read_beyond() -> None:
    sock = ScriptedSocket(1, EAGAIN)
    file = Stream(bytes(3 * STEP_SIZE))
    transfer = file_transfer(sock, file, 0, STEP_SIZE + 5)

    run(transfer)

    assert file.asked == [STEP_SIZE, 5]
    assert sock.taken == bytes(STEP_SIZE + 5)


def test_the_last_block_of_a_count_ends_the_transfer_without_another_read() -> None:
    sock = ScriptedSocket(1)
    file = Stream(DATA)
    transfer = file_transfer(sock, file, 0, 10)

    wants = run(transfer)

    assert wants == [FILE, SOCKET]
    assert file.asked == [10]
    assert sock.taken == DATA[:10]


def test_short_reads_are_not_the_end() -> None:
    sock = ScriptedSocket()

    run(file_transfer(sock, Stream(DATA, most=100)))

    assert sock.taken == DATA


class Broken(Stream):
    """Fails at its second read."""

    def read(self, size: int = -1, /) -> bytes:
        if self.asked:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("asked", ["_is_last", "_next"])
@pytest.mark.parametrize("is_handed_over", [False, True], ids=["steps", "rest"])
def test_a_last_block_that_is_read_between_two_questions_is_sent(
    is_handed_over: bool, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads may come between what a step asks for, wherever that is."""
    sock = ScriptedSocket(*([] if is_handed_over else [10]))
    tally = Tally(None, None)
    reader = ObjectReader(Stream(DATA, most=len(DATA) // 2), 0, endless=False)
    way = ByCopy(sock, reader, len(DATA))  # type: ignore[arg-type]  # all that it uses
    slot = getattr(ByCopy, asked)
    is_loaded = False

    def load() -> None:
        way.load(None)  # type: ignore[arg-type]  # not used here

    def ask(asking: ByCopy) -> object:
        nonlocal is_loaded
        answer = slot.__get__(asking)
        if not is_loaded:
            is_loaded = True
            load()
        return answer

    def go_on() -> int:
        rest = way.take() if is_handed_over else way.step(tally)
        return rest if isinstance(rest, int) else sock.send(rest)

    load()
    go_on()
    monkeypatch.setattr(ByCopy, asked, property(ask, slot.__set__))

    while go_on() != DONE:
        pass

    assert is_loaded
    assert sock.taken == DATA


def test_a_read_error_comes_after_the_bytes_before_it() -> None:
    sock = ScriptedSocket(10, EAGAIN, 5)
    transfer = file_transfer(sock, Broken(DATA))

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        run(transfer)
    transfer.close()

    assert sock.taken == DATA


# --- what is left, for a loop that sends by itself


def hand_over(transfer: Transfer) -> bytes:
    """Send what is left elsewhere, as the driver of such loops does."""
    handed = b""
    while not isinstance(rest := transfer.rest(), int) or rest != DONE:
        if isinstance(rest, memoryview):
            handed += rest
            transfer.tally.add(rest.nbytes)
        else:
            assert rest == FILE
            transfer.load()
    return handed


@pytest.mark.parametrize("make", [octets, lambda sock, data: vectors(sock, [data[:2], data[2:]])])
@pytest.mark.parametrize("script", [(5,), (EAGAIN,), ()], ids=["some", "none", "all"])
def test_what_the_socket_did_not_take_is_handed_over(script: tuple[Any, ...], make: Any) -> None:
    sock = ScriptedSocket(*script)
    transfer = make(sock, DATA)
    transfer.step()

    handed = hand_over(transfer)

    assert sock.taken + handed == DATA
    assert transfer.tally.sent == len(DATA)


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("kind", [io.BytesIO, Stream])
def test_what_is_left_of_an_object_is_handed_over_block_by_block(kind: Any, steps: int) -> None:
    data = os.urandom(2 * STEP_SIZE + 1)
    sock = ScriptedSocket(5, EAGAIN, 5)
    transfer = file_transfer(sock, kind(data), 0, len(data) - 3)
    for _ in range(steps):
        if transfer.step() & FILE:
            transfer.load()

    handed = hand_over(transfer)

    assert sock.taken + handed == data[:-3]


def test_a_read_error_comes_out_when_what_was_before_it_is_handed_over() -> None:
    transfer = file_transfer(ScriptedSocket(), Broken(DATA))

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        hand_over(transfer)

    assert transfer.tally.sent == len(DATA)


@pytest.mark.parametrize(
    "make",
    [
        lambda: octets(ScriptedSocket(5), DATA, socket.MSG_MORE),
        lambda: vectors(ScriptedSocket(5), [DATA], (), socket.MSG_MORE),
        lambda: vectors(ScriptedSocket(EAGAIN), [DATA], [(1, 1, b"")]),
    ],
    ids=["octets", "vectors", "ancillary"],
)
def test_flags_and_ancillary_data_are_not_lost_silently(make: Callable[[], Transfer]) -> None:
    transfer = make()
    transfer.step()

    words = r"^this event loop sends neither flags nor ancillary data$"
    with pytest.raises(NotImplementedError, match=words):
        transfer.rest()


def test_ancillary_data_that_went_with_the_first_byte_is_not_missed() -> None:
    sock = ScriptedSocket(5)
    transfer = vectors(sock, [DATA], [(1, 1, b"")])
    transfer.step()

    handed = hand_over(transfer)

    assert sock.taken + handed == DATA


# --- any data, any script

scripts = st.lists(
    st.one_of(
        st.integers(0, 40), st.integers(0, 3 * STEP_SIZE), st.sampled_from([EAGAIN, EINTR, EPIPE])
    ),
    max_size=12,
)
# Long ones too, which are made of few bytes so that examples stay small.
pieces = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda seed, size: (seed * (size // len(seed) + 1))[:size],
        st.binary(min_size=1, max_size=50),
        st.integers(0, 3 * STEP_SIZE),
    ),
)
thorough = settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(transfer: Transfer, sock: ScriptedSocket, whole: bytes, counted: list[int]) -> None:
    """Run to the end or to the first error; hold what always holds against it."""
    try:
        while (want := transfer.step()) != DONE:
            check_counts(transfer, sock, whole, counted)
            if want & FILE:
                transfer.load()
    except BrokenPipeError:
        assert sock.taken == whole[: transfer.tally.sent]
    else:
        assert sock.taken == whole
    check_counts(transfer, sock, whole, counted)
    transfer.close()


def check_counts(
    transfer: Transfer, sock: ScriptedSocket, whole: bytes, counted: list[int]
) -> None:
    sent = transfer.tally.sent
    assert sock.taken == whole[:sent]
    assert sum(counted) == sent
    assert all(offer[0] <= STEP_SIZE for offer in sock.offers)


@given(pieces, scripts)
@thorough
def test_any_buffer_is_sent_exactly_on_any_socket(data: bytes, script: list[Any]) -> None:
    sock = ScriptedSocket(*script)
    counted: list[int] = []

    transfer = octets(sock, data, progress=counted.append)

    check(transfer, sock, data, counted)


@given(st.lists(pieces, max_size=6), scripts)
@thorough
def test_any_buffers_are_sent_exactly_on_any_socket(
    buffers: list[bytes], script: list[Any]
) -> None:
    sock = ScriptedSocket(*script)
    counted: list[int] = []

    transfer = vectors(sock, buffers, progress=counted.append)

    check(transfer, sock, b"".join(buffers), counted)
    assert all(offer[1] <= IOV_MAX for offer in sock.offers)


@given(
    pieces,
    scripts,
    st.integers(0, 100),
    st.none() | st.integers(1, 100) | st.integers(1, 3 * STEP_SIZE),
)
@thorough
def test_any_part_of_a_memory_file_is_sent_exactly(
    data: bytes, script: list[Any], offset: int, count: int | None
) -> None:
    sock = ScriptedSocket(*script)
    counted: list[int] = []
    file = io.BytesIO(data)
    file.seek(3)

    transfer = file_transfer(sock, file, offset, count, counted.append)
    check(transfer, sock, data[offset:][:count], counted)

    sent = transfer.tally.sent
    assert file.tell() == (offset + sent if sent else 3)


@given(pieces, scripts, st.integers(1, 2 * STEP_SIZE), st.none() | st.integers(1, 3 * STEP_SIZE))
@thorough
def test_any_part_of_an_object_is_sent_exactly(
    data: bytes, script: list[Any], most: int, count: int | None
) -> None:
    sock = ScriptedSocket(*script)
    counted: list[int] = []
    # Not thousands of reads for one example.
    file = Stream(data, most=max(most, len(data) // 50))

    transfer = file_transfer(sock, file, 0, count, counted.append)

    check(transfer, sock, data[:count], counted)


@given(st.lists(pieces, max_size=6), scripts, st.integers(0, 10))
@thorough
def test_any_rest_is_handed_over_exactly(
    buffers: list[bytes], script: list[Any], steps: int
) -> None:
    whole = b"".join(buffers)

    for make in (octets, lambda sock, _: vectors(sock, buffers), file_transfer_of):
        sock = ScriptedSocket(*(item for item in script if item is not EPIPE))
        transfer = make(sock, whole)
        for _ in range(steps):
            if (want := transfer.step()) == DONE:
                break
            if want & FILE:
                transfer.load()
        else:
            handed = hand_over(transfer)

            assert sock.taken + handed == whole
            assert transfer.tally.sent == len(whole)
        transfer.close()


def file_transfer_of(sock: Any, data: bytes) -> FileTransfer:
    return file_transfer(sock, Stream(data))
