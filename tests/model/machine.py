"""Steps on one connection, in any order, and a model of what the peer must have received.

The model is a line of pieces, each a part of DATA of which so many bytes have gone. What the peer
reads must be these, in their order, at every moment; and how a call ends must follow from what was
done to it. No step depends on how fast anything is.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
from functools import partial, wraps
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import anyio
import trio
from calls import (
    BUFFERS,
    LIMITS,
    RAISES_AFTER,
    WORDS,
    Call,
    Piece,
    Raised,
)
from conftest import DATA
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from links import Link, open_link, writers
from opened import opened_by_tests
from sources import OTHER_FILES, PLAIN_FILES, Source
from waiting import until

import asend
from asend import _senders
from asend._outlets import _blocks

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from runtimes import Runtime

    Condition = Callable[["Machine"], object]


class How(NamedTuple):
    """What a call is told besides what to send, and whether it comes while another one sends."""

    hurry: str = "none"
    is_watched: bool = True
    is_second: bool = False


class Flight(NamedTuple):
    """A call that a step starts first if none is sending, and how many turns of the loop it has."""

    kind: str
    turns: int


# More than goes at once to a peer that rests.
MUCH = 600_000
SIZES = st.sampled_from([0, 1, 100, 5_000, 65_536, 70_001, 262_144, 300_000, MUCH])
READS = st.sampled_from([1, 100, 5_000, 70_000, 300_000, 1 << 30])
HOW = st.builds(
    How,
    st.sampled_from(["none", "none", "none", *LIMITS]),
    st.sampled_from([True, True, False]),
    st.sampled_from([False, False, True]),
)
WAYS = st.sampled_from(["sendall", *PLAIN_FILES])
TURNS = st.integers(0, 6)
FLIGHTS = st.builds(Flight, WAYS, TURNS)
FILE_FLIGHTS = st.builds(Flight, st.sampled_from(PLAIN_FILES), TURNS)

# What is raised where the connection is gone, by our doing or the peer's.
GONE = (
    ConnectionError,
    RuntimeError,
    ssl.SSLError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
# What is raised before the first byte.
REFUSED = (asend.BusyResourceError, asend.SendfileNotAvailableError)
# Turns of the loop without a byte moving, after which nothing will move by itself.
IDLE = 6
# And after which a call hangs that should end: 5 s and more. Turns, as machines may rest, too.
HANGS = 10_000

# The names of all steps.
STEPS: set[str] = set()


def step(
    given: Condition = lambda machine: True, **arguments: Any
) -> Callable[[Callable[..., None]], Any]:
    """Make a method a step, which does nothing where a condition does not hold.

    That is no precondition, as hypothesis has them: it may depend on how fast a thread is, and they
    may not.
    """

    def decorate(function: Callable[..., None]) -> Any:
        name = f"step {function.__name__}"
        STEPS.add(name)

        @wraps(function)
        def run(self: Machine, **arguments: Any) -> None:
            self.is_sound = False
            if given(self):
                function(self, **arguments)
                self.compare()
                self.see(name)
            self.is_sound = True

        return rule(**arguments)(run)

    return decorate


class Machine(RuleBasedStateMachine):
    """All that may happen on one connection, and on a new one after its end."""

    new_runtime: ClassVar[Callable[[], Runtime]]
    kind: ClassVar[str]
    folder: ClassVar[Path]
    # What was done, and how calls ended.
    seen: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.is_sound = True
        self.serial = 0
        self.before = opened_by_tests()
        self.runtime = type(self).new_runtime()
        self.open()

    def open(self) -> None:
        self.opening = open_link(self.kind)
        self.link: Link = self.runtime.run(self.opening.__aenter__)
        # What was sent and has not come yet, and what has come and was not compared yet.
        self.line: list[Piece] = []
        self.got = bytearray()
        self.has_eof = False
        # By what the connection has ended, or is about to.
        self.is_closed = self.is_aborted = self.is_peer_gone = self.has_peer_ended = False
        # Whether calls end when we close.
        self.ends_by_close = False
        # How many bytes that count as sent may not come.
        self.may_be_lost = 0.0
        # Whether a call was made on what is of no more use.
        self.was_tried = False

    def see(self, what: str) -> None:
        self.seen[what] += 1

    # --- the model

    @property
    def calls(self) -> list[Call]:
        """The calls that have not ended, as far as anybody knows."""
        return [call for call in self.line if isinstance(call, Call) and not call.has_ended]

    @property
    def call(self) -> Call | None:
        """The call that is sending."""
        calls = [call for call in self.calls if "cancelled" not in call.met]
        return calls[-1] if calls else None

    @property
    def is_dead(self) -> bool:
        return self.is_closed or self.is_aborted or self.is_peer_gone or self.link.is_closing

    @property
    def outstanding(self) -> int:
        """How many bytes that count as sent have not come."""
        return sum(max(0, piece.sent - piece.received) for piece in self.line)

    def next_start(self) -> int:
        # Each piece is of other bytes than the one before.
        self.serial += 1
        return self.serial * 100_003 % 1_500_000

    def compare(self) -> None:
        """What the peer has must be what was sent."""
        for piece in self.line:
            data = bytes(self.got[: piece.may_come])
            piece.receive(data)
            del self.got[: len(data)]
        assert not self.got, f"the peer has {len(self.got)} bytes that were not sent: {self.line}"
        while self.line and self.line[0].has_ended and not self.line[0].may_come:
            del self.line[0]

    # --- running

    def during(
        self, condition: Callable[[], object], each: Callable[[], object] = lambda: None
    ) -> None:
        """Let the loop run while a condition holds; where that takes too long, it hangs."""
        moved = -1
        self.idle = 0
        while condition():
            assert self.idle < HANGS, f"a hang: {self.line}, {self.link}"
            if self.idle < IDLE // 2:
                self.runtime.turn()
            else:
                self.runtime.run(rest)
            self.reap()
            each()
            before, moved = moved, sum(piece.sent + piece.received for piece in self.line)
            self.idle = self.idle + 1 if moved == before else 0

    def turns(self, number: int) -> None:
        for _ in range(number):
            self.runtime.turn()
            self.reap()

    def settle(self) -> None:
        """Let the loop run until nothing goes on by itself."""
        self.during(lambda: self.calls and not self.rests())

    def rests(self) -> bool:
        ends_by_itself = self.is_peer_gone or self.is_aborted or self.ends_by_close
        if ends_by_itself or any(
            "cancelled" in call.met or call.hurry in ("timeout", "stall", "rate")
            for call in self.calls
        ):
            return False
        return self.idle >= IDLE and (self.is_closed or self.link.is_full())

    def reap(self) -> None:
        ended = [call for call in self.calls if call.task.done()]
        for call in ended:
            self.judge(call)
        if ended and not self.calls:
            # uvloop takes a writer of its own off in the next turn.
            self.runtime.turn()
            self.assert_nothing_is_left()

    def assert_nothing_is_left(self) -> None:
        assert not _senders.senders
        assert not _blocks._busy
        assert self.link.has_its_protocol(), "who hears of the connection was not put back"
        # A stream sends on what it has in its own buffer.
        if self.link.is_plain and not self.link.pending() and not self.link.is_closing:
            assert not writers(), f"a writer is left on the loop: {writers()}"

    # --- how a call ends

    def judge(self, call: Call) -> None:
        says = call.says()
        if call.is_watched:
            assert call.sent == says, f"progress and the call disagree, which says {says}: {call}"
        call.sent = says
        call.has_ended = True
        # What encrypts may have sent, or lost, a part of a block. A call that is refused, or tries
        # once where nothing can be tried, hands no block over.
        has_failed = not call.has_returned and not (
            isinstance(call.error, REFUSED) or (self.link.is_fragile and call.hurry == "zero")
        )
        if has_failed and (self.link.is_fragile or (self.is_dead and not self.link.is_plain)):
            self.may_be_lost = max(self.may_be_lost, self.link.may_be_lost)
            self.is_aborted |= self.link.is_fragile
        else:
            call.is_exact = True
            assert call.received <= call.sent, f"more has come than was sent: {call}"
        self.see(f"end {self.judge_end(call)}")
        self.judge_rival(call)
        self.judge_file(call)
        assert not call.is_held, f"its buffer was held when it had ended: {call}"
        # Its traceback refers to the frames of the call.
        call.error = None

    def judge_end(self, call: Call) -> str:
        """Check that a call ended by what was done to it, and return by what."""
        error = call.error
        name = type(error).__name__
        is_right = False
        if call.has_returned:
            name = "return"
            is_right = call.is_complete
            is_right &= call.hurry != "raises" or call.sent <= RAISES_AFTER
            is_right &= not call.needs_kernel or call.by_kernel
        elif call.is_cancelled:
            name = "cancelled"
            is_right = name in call.met and call.sent_when_cancelled in (None, call.sent)
        elif isinstance(error, Raised):
            is_right = call.sent > RAISES_AFTER
        elif isinstance(error, TimeoutError) and error.errno is None:
            name = f"too late: {call.hurry}"
            is_right = WORDS[call.hurry] in str(error)
        elif isinstance(error, asend.BusyResourceError):
            # One that was cancelled has not left a stream of trio yet, which was closed meanwhile.
            is_excused = self.runtime.is_trio and self.is_dead
            is_right = not call.sent and (call.rival is not None or is_excused)
        elif isinstance(error, asend.SendfileNotAvailableError):
            is_right = not call.sent and call.needs_kernel and not call.by_kernel
        elif isinstance(error, ValueError):
            # Closed when the call had not begun to look at it.
            is_right = not call.sent and "file closed" in call.met
        elif isinstance(error, OSError) and error.errno == errno.EBADF:
            name = "EBADF"
            is_right = self.is_closed or self.is_aborted
        elif isinstance(error, GONE):
            is_right = self.is_closed or self.is_aborted or self.is_peer_gone or "late" in call.met
        if not is_right:
            raise AssertionError(f"it ended so: {error!r}, {call}") from error
        return name

    def judge_rival(self, call: Call) -> None:
        rival = call.rival
        if rival is not None and not isinstance(call.error, REFUSED) and not self.is_dead:
            # It came in, so that the other must have been over, but for a clean-up in a thread.
            self.during(lambda: not rival.has_ended)

    def judge_file(self, call: Call) -> None:
        source = call.source
        if source is None:
            return
        if source.is_seekable and not source.is_closed:
            position = source.offset + call.sent if call.sent else source.position
            if not source.is_plain:
                # A thread that was reading when the call failed sets it when it is through.
                until(lambda: source.file.tell() == position, what=f"position {position}")
            assert source.file.tell() == position, f"position {source.file.tell()}: {call}"
        source.remove()

    # --- steps: calls

    def ready(self, *, is_second: bool = False) -> None:
        """Have a connection to send on, and nobody else sending, unless this is to be a second."""
        if not is_second and not self.is_peer_gone:
            self.during(lambda: self.call, self.read_now)
        if self.call is None:
            # What these have sent is not known before they have ended.
            self.during(lambda: any(not call.is_exact for call in self.calls))
        elif self.runtime.is_trio:
            # Which of two tasks comes first there is anybody's guess.
            self.during(lambda: self.call is not None and self.idle < 3)
        if self.is_dead and (self.was_tried or self.link.is_fragile):
            self.finish()
            self.open()

    def launch(self, call: Call) -> None:
        """Start a call; a second one at a time is to be refused."""
        call.rival = self.call
        if call.rival is not None:
            call.hurry = "zero"
            call.is_watched = True
        call.is_exact = call.is_watched and self.link.is_plain
        if self.is_dead or self.has_peer_ended:
            call.met.add("late")
            self.was_tried = True
        self.line.append(call)
        call.task = self.runtime.start(call.run)
        self.reap()
        if call.rival is not None:
            self.during(lambda: not call.has_ended)

    def fly(self, flight: Flight | None) -> None:
        if flight is not None and self.call is None:
            self.ready()
            self.send_much(flight.kind, How())
            self.turns(flight.turns)

    def send_much(self, kind: str, how: How) -> None:
        if kind == "sendall":
            # The kind of which it shows whether somebody holds it afterwards.
            self.send_buffer(MUCH, "bytearray", how)
        else:
            self.send_file(kind, MUCH, how)

    @step(size=SIZES, kind=st.sampled_from(list(BUFFERS)), how=HOW)
    def sendall(self, size: int, kind: str, how: How) -> None:
        self.ready(is_second=how.is_second)
        self.send_buffer(size, kind, how)

    def send_buffer(self, size: int, kind: str, how: How) -> None:
        start = self.next_start()
        data = BUFFERS[kind](DATA[start : start + size])
        send = partial(self.link.sendall, data)
        call = Call(start, memoryview(data).nbytes, send, how.hurry, is_watched=how.is_watched)
        call.data = data
        self.launch(call)

    @step(
        lambda self: self.link.is_socket,
        sizes=st.lists(SIZES, max_size=5),
        is_many=st.booleans(),
        how=HOW,
    )
    def sendmsg(self, sizes: list[int], is_many: bool, how: How) -> None:
        self.ready(is_second=how.is_second)
        start = at = self.next_start()
        buffers = []
        for size in sizes + [7] * 3000 * is_many:
            buffers.append(DATA[at : at + size])
            # DATA may end before.
            at += len(buffers[-1])
        send = partial(asend.sock_sendmsg, self.link.ends.stream, buffers)
        self.launch(Call(start, at - start, send, how.hurry, is_watched=how.is_watched))

    @step(
        kind=st.sampled_from(PLAIN_FILES) | st.sampled_from(OTHER_FILES),
        size=SIZES,
        how=HOW,
        offset=st.sampled_from([0, 0, 1, 5_000, 100_000]),
        count=st.none() | st.sampled_from([1, 5_000, 262_144, 400_000]),
        fallback=st.sampled_from([True, True, False]),
    )
    def sendfile(self, how: How, **arguments: Any) -> None:
        self.ready(is_second=how.is_second)
        self.send_file(how=how, **arguments)

    def send_file(
        self,
        kind: str,
        size: int,
        how: How,
        offset: int = 0,
        count: int | None = None,
        fallback: bool = True,
    ) -> None:
        start = self.next_start()
        source = Source(kind, self.folder / str(self.serial), start, size, offset, count)
        send = partial(self.link.sendfile, source.file, source.offset, count, fallback=fallback)
        # While it seeks in a thread at its end it is not busy, and only its progress tells of that.
        is_watched = how.is_watched or not source.is_plain
        call = Call(start + source.offset, source.end(), send, how.hurry, is_watched=is_watched)
        call.source = source
        call.needs_kernel = not fallback
        is_sendable = source.is_plain and (source.size > 0 or not fallback)
        call.by_kernel = is_sendable and self.link.is_plain
        self.launch(call)

    @step(
        lambda self: (
            self.link.can_write and not self.calls and not self.is_dead and not self.has_peer_ended
        ),
        size=SIZES,
    )
    def write(self, size: int) -> None:
        """Write to a transport as programs do, between calls."""
        piece = Piece(self.next_start(), size)
        self.line.append(piece)
        data = DATA[piece.start : piece.start + size]
        self.runtime.run(lambda: self.link.ends.write(data))

    # --- steps: what happens to a call

    @step(flight=FLIGHTS, in_turn=st.booleans())
    def cancel(self, flight: Flight, in_turn: bool) -> None:
        """Cancel, before the next turn of the loop or in it; another call may come in the same."""
        self.fly(flight)
        call = self.call
        if call is None or call.task.done():
            return
        call.met.add("cancelled")

        def cancel() -> None:
            if self.link.is_plain and call.is_watched and not self.runtime.is_trio:
                call.sent_when_cancelled = call.sent
            call.task.cancel()

        if in_turn:
            self.runtime.soon(cancel)
        else:
            cancel()

    @step(kind=WAYS, hurry=st.sampled_from(["raises", *WORDS]), rests=st.booleans())
    def fall_short(self, kind: str, hurry: str, rests: bool) -> None:
        """Send more than goes while the peer rests: a limit is broken, or progress raises."""
        self.ready()
        self.send_much(kind, How(hurry))
        if rests:
            self.settle()

    @step(number=st.integers(1, 3))
    def turn(self, number: int) -> None:
        self.turns(number)

    @step()
    def wait(self) -> None:
        self.settle()

    @step(flight=FILE_FLIGHTS, size=st.sampled_from([0, 1, 5_000, 100_000, 262_144, 400_000]))
    def truncate(self, flight: Flight, size: int) -> None:
        self.fly(flight)
        call = self.call
        if call is None or not call.may_be_resized() or size >= call.source.size:
            return
        # The pages that were sent are the file's own; what is read ahead may be half cut.
        first = max(0, size - call.source.offset)
        call.blurred = range(min(first, call.blurred.start or first), call.sent + (1 << 20))
        self.see("file cut" if call.sent else "file cut before")
        call.resize(size)

    @step(flight=FILE_FLIGHTS, size=st.sampled_from([1, 4_096, 100_000, 500_000]))
    def append(self, flight: Flight, size: int) -> None:
        self.fly(flight)
        call = self.call
        if call is None or not call.may_be_resized():
            return
        self.see("file grown" if call.sent else "file grown before")
        # As far as DATA goes from wherever it starts.
        call.resize(min(call.source.size + size, 1_400_000))

    @step(flight=FILE_FLIGHTS)
    def close_file(self, flight: Flight) -> None:
        self.fly(flight)
        call = self.call
        if call is None or call.source is None or not call.source.is_plain or call.task.done():
            return
        self.see("file closed" if call.sent else "file closed before")
        if not call.sent:
            call.met.add("file closed")
        call.source.close()

    # --- steps: the peer

    def read_now(self, most: int = 1 << 30) -> None:
        """Let the peer read what is there."""
        while most and not self.has_eof:
            try:
                data = self.link.ends.far.recv(min(most, 1 << 20))
            except BlockingIOError:
                break
            except ssl.SSLEOFError:
                # Not all say goodbye.
                data = b""
            except OSError:
                assert self.is_aborted or self.may_be_lost
                data = b""
            if not data:
                self.has_eof = True
                assert self.is_closed or self.is_aborted or self.link.is_closing
            self.got += data
            most -= len(data)
        self.compare()

    @step(lambda self: not self.is_peer_gone, nbytes=READS)
    def read(self, nbytes: int) -> None:
        self.read_now(nbytes)

    @step(lambda self: not self.is_peer_gone)
    def read_all(self) -> None:
        """Read until there is nothing more to come, and no call."""
        self.during(lambda: self.calls or (self.outstanding and not self.is_dead), self.read_now)

    @step(
        lambda self: (
            self.link.is_plain and not self.is_dead and all(call.is_exact for call in self.calls)
        )
    )
    def read_exactly(self) -> None:
        """Read while the loop rests: it must be just what was counted."""
        left = self.link.pending()
        until(lambda: self.read_now() or self.outstanding <= left, what="what was counted")
        assert self.outstanding == left

    @step(
        lambda self: (
            self.link.kind != "pipe"
            and not self.is_dead
            and not self.has_peer_ended
            # Calls that fail take such a stream with them.
            and not (
                self.link.is_fragile
                and any(call.met or call.hurry != "none" for call in self.calls)
            )
        )
    )
    def speak(self) -> None:
        """Reading goes on meanwhile."""
        self.runtime.run(lambda: self.link.ends.far.write(b"hello"))
        assert self.runtime.run(lambda: self.link.ends.read(5)) == b"hello"
        self.reap()

    @step(
        lambda self: (
            self.link.is_plain
            and self.link.kind != "pipe"
            and not self.is_dead
            and not self.has_peer_ended
        )
    )
    def peer_ends(self) -> None:
        """The peer sends no more, and reads on."""
        self.link.ends.far.shutdown()
        self.has_peer_ended = True

    @step(lambda self: not self.is_peer_gone, is_hard=st.booleans(), flight=st.none() | FLIGHTS)
    def peer_goes(self, is_hard: bool, flight: Flight | None) -> None:
        self.fly(flight)
        self.is_peer_gone = True
        if is_hard:
            self.link.ends.far.reset()
        else:
            self.link.ends.far.close()
        self.see(f"{'reset' if is_hard else 'gone'}{' under a call' if self.calls else ''}")

    # --- steps: our end

    @step(lambda self: not self.is_dead, flight=st.none() | FLIGHTS)
    def close(self, flight: Flight | None) -> None:
        self.fly(flight)
        self.see("closed under a call" if self.calls else "closed")
        self.shut_down()

    def shut_down(self) -> None:
        self.is_closed = True
        # Else when the stream has sent what it has in its buffers.
        self.ends_by_close = not self.link.closes_late and not self.link.pending()
        self.ends_by_close &= self.link.is_plain or self.link.is_fragile
        if self.calls:
            self.may_be_lost = max(self.may_be_lost, self.link.may_be_lost)
        self.runtime.run(self.link.ends.close)
        self.reap()

    @step(lambda self: not self.is_dead, flight=st.none() | FLIGHTS)
    def abort(self, flight: Flight | None) -> None:
        self.fly(flight)
        self.see("aborted under a call" if self.calls else "aborted")
        self.is_aborted = True

        async def abort() -> None:
            # Only now, as the loop may have sent some of it in the turn that led here.
            self.lose_what_is_buffered()
            await self.link.ends.abort()

        self.runtime.run(abort)
        self.reap()

    def lose_what_is_buffered(self) -> None:
        """Take off what is in the buffer of a transport: it will never be sent.

        That is what was written and, over TLS, the block that a call had handed over when it
        failed, which counts as sent.
        """
        written = [piece for piece in self.line if not isinstance(piece, Call)]
        if not self.link.is_plain:
            is_counted = all(isinstance(piece, Call) and piece.is_fine for piece in self.line)
            self.may_be_lost = self.link.may_be_lost if is_counted else inf
        lost = self.link.pending() if self.link.is_plain else 0
        for piece in reversed(written):
            cut = min(lost, piece.sent)
            piece.sent -= cut
            lost -= cut
        assert not lost

    # --- the end

    def finish(self) -> None:
        """End the connection; nothing may be missing then."""
        for call in self.calls:
            if "cancelled" not in call.met:
                call.met.add("cancelled")
                call.task.cancel()
        self.during(lambda: self.calls)
        if not self.is_peer_gone:
            if not self.is_dead:
                self.during(lambda: self.outstanding, self.read_now)
            if not self.is_closed:
                self.shut_down()
            self.during(lambda: not self.has_eof, self.read_now)
            assert self.outstanding <= self.may_be_lost, f"lost: {self.line}"
        self.drop()

    def drop(self) -> None:
        self.runtime.run(lambda: self.opening.__aexit__(None, None, None))

    def teardown(self) -> None:
        was_sound, self.is_sound = self.is_sound, False
        try:
            if was_sound:
                self.finish()
                self.runtime.close()
                until(lambda: not opened_by_tests() - self.before, what="no descriptor left")
                self.is_sound = True
        finally:
            if not self.is_sound:
                self.clear_away()

    def clear_away(self) -> None:
        """Leave nothing of what has failed to the next try, and do not fail again."""
        for call in self.calls:
            call.task.cancel()
        sources = [call.source for call in self.line if isinstance(call, Call) and call.source]
        for end in (self.drop, self.runtime.close, *(source.remove for source in sources)):
            with contextlib.suppress(Exception):
                end()
        _senders.senders.clear()


async def rest() -> None:
    await anyio.sleep(0.0005)
