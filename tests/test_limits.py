"""Limits: what they may be, and when a call that is watched by them ends."""

from __future__ import annotations

import inspect
import math
from dataclasses import FrozenInstanceError
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asend
from asend import _limits
from asend._limits import SHORTEST_LOOK, Deadline, Limits, Pace, timed_out
from asend._tally import Tally, note_sent

if TYPE_CHECKING:
    from typing import Any

NAN = float("nan")
# Beyond what the arithmetic of floating-point times may lose.
ROUNDING = 1e-6


class Clock:
    """The system's clock, that stands still until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(_limits, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# --- what they may be


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"stall": None, "min_rate": None},
        {"stall": 1, "min_rate": 1, "grace": 0},
        {"stall": 1e-9, "min_rate": 1e-9, "grace": 0.0},
        {"stall": math.inf, "min_rate": math.inf, "grace": math.inf},
        {"stall": True},
    ],
)
def test_positive_numbers_and_none_are_taken_as_they_are(values: dict[str, Any]) -> None:
    limits = Limits(**values)

    assert all(getattr(limits, name) == value for name, value in values.items())


@pytest.mark.parametrize("name", ["stall", "min_rate", "grace"])
@pytest.mark.parametrize("value", ["1", b"1", 1j, Decimal(1), Fraction(1), [1], object()])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["stall", "min_rate"])
@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -math.inf, NAN, False])
def test_what_is_not_positive_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive or None"):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [-1, -1e-9, -math.inf, NAN])
def test_a_negative_grace_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="grace must not be negative"):
        Limits(grace=value)


def test_no_grace_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="grace must be a number"):
        Limits(grace=None)  # type: ignore[arg-type]  # refused


def test_limits_are_values() -> None:
    limits = asend.Limits(1, 2, 3)

    with pytest.raises(FrozenInstanceError):
        limits.stall = 5  # type: ignore[misc]  # it is frozen

    assert limits == Limits(stall=1, min_rate=2, grace=3)
    assert len({limits, Limits(1, 2, 3)}) == 1


# --- looks


def test_no_limit_is_never_looked_at_again(clock: Clock) -> None:
    pace = Pace(Limits(), Tally(None, None))

    clock.now += 1e9

    assert pace.look() == math.inf


def test_a_stall_is_due_so_long_after_the_last_byte(clock: Clock) -> None:
    tally = Tally(100, None)
    pace = Pace(Limits(stall=10), tally)

    looks = [pace.look()]
    clock.now += 4
    looks.append(pace.look())
    tally.add(1)
    looks.append(pace.look())
    clock.now += 9.5
    looks.append(pace.look())

    assert looks == [10, 6, 10, 0.5]
    clock.now += 0.5
    with pytest.raises(TimeoutError, match=r"^stalled: no byte accepted for 10 s$"):
        pace.look()


def test_a_rate_is_not_asked_for_before_the_grace(clock: Clock) -> None:
    tally = Tally(100, None)
    pace = Pace(Limits(min_rate=100, grace=5), tally)

    first = pace.look()
    clock.now += 5
    at_the_end = pace.look()

    assert (first, at_the_end) == (5, SHORTEST_LOOK)
    clock.now += 0.001
    with pytest.raises(TimeoutError, match=r"^too slow: 0 bytes/s, min_rate is 100$"):
        pace.look()


def test_a_rate_without_grace_is_not_asked_for_at_once(clock: Clock) -> None:
    """No byte in no time is no rate: a peer whose buffer is full just now would break any."""
    pace = Pace(Limits(min_rate=1, grace=0), Tally(100, None))

    clock.now += SHORTEST_LOOK / 2
    left = pace.look()

    assert left == SHORTEST_LOOK
    clock.now += SHORTEST_LOOK
    with pytest.raises(TimeoutError, match="too slow: 0 bytes/s"):
        pace.look()


def test_a_rate_is_averaged_over_the_call(clock: Clock) -> None:
    tally = Tally(None, None)
    pace = Pace(Limits(min_rate=100, grace=0), tally)
    tally.add(1000)

    clock.now += 4
    left = pace.look()
    clock.now += left
    # 1000 bytes in just 10 s keep the rate.
    at_the_end = pace.look()

    assert (left, at_the_end) == (6, SHORTEST_LOOK)
    clock.now += 2.5
    with pytest.raises(TimeoutError, match="too slow: 80 bytes/s"):
        pace.look()


def test_bytes_that_had_to_go_first_count_for_the_rate(clock: Clock) -> None:
    tally = Tally(None, None)
    pace = Pace(Limits(min_rate=100, grace=0), tally)
    tally.drain(700)
    tally.add(300)

    left = pace.look()

    assert left == 10


def test_the_earlier_of_the_two_is_what_is_waited_for(clock: Clock) -> None:
    tally = Tally(None, None)
    tally.add(700)

    stall_first = Pace(Limits(stall=3, min_rate=100, grace=0), tally).look()
    rate_first = Pace(Limits(stall=30, min_rate=100, grace=0), tally).look()

    assert (stall_first, rate_first) == (3, 7)


def test_looks_are_never_closer_than_the_shortest(clock: Clock) -> None:
    tally = Tally(None, None)

    looks = [
        Pace(Limits(stall=1e-9), tally).look(),
        Pace(Limits(min_rate=1e9, grace=0), tally).look(),
    ]

    assert looks == [SHORTEST_LOOK, SHORTEST_LOOK]


seconds = st.floats(1e-3, 1e3)


@given(
    stall=st.none() | seconds,
    min_rate=st.none() | st.floats(1e-2, 1e6),
    grace=st.floats(0, 100),
    # Between two looks, in parts of the time to the next one: when bytes come, and how many.
    turns=st.lists(
        st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), max_size=3), max_size=10
    ),
)
@settings(max_examples=300)
def test_a_broken_limit_is_seen_in_time_and_a_kept_one_never(
    stall: float | None,
    min_rate: float | None,
    grace: float,
    turns: list[list[tuple[float, int]]],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        tally = Tally(None, None)
        started = moved = clock.now
        sent = 0
        pace = Pace(Limits(stall=stall, min_rate=min_rate, grace=grace), tally)

        for turn in turns:
            due = math.inf if stall is None else moved + stall
            if min_rate is not None:
                due = min(due, started + max(grace, SHORTEST_LOOK, sent / min_rate))
            try:
                left = pace.look()
            except TimeoutError:
                assert clock.now >= due - ROUNDING
                return
            assert clock.now <= due + ROUNDING
            # Bytes that come meanwhile only put it off.
            assert clock.now + left <= max(due, clock.now + SHORTEST_LOOK) + ROUNDING
            assert left >= SHORTEST_LOOK
            if left == math.inf:
                return
            next_look = clock.now + left
            for part, nbytes in sorted(turn):
                clock.now = max(clock.now, next_look - left * (1 - part))
                tally.add(nbytes)
                sent += nbytes
                moved = clock.now
            clock.now = next_look


# --- the end of several calls


def test_calls_with_one_total_time_have_what_is_left_of_it(clock: Clock) -> None:
    deadline = Deadline(10)

    lefts = [deadline.left()]
    for seconds in (4, 5.5):
        clock.now += seconds
        lefts.append(deadline.left())

    assert lefts == [10, 6, 0.5]
    for seconds in (0.5, 1):
        clock.now += seconds
        with pytest.raises(TimeoutError, match="timed out: not all was sent within 10 s"):
            deadline.left()


@pytest.mark.parametrize("seconds", [None, 0])
def test_calls_without_a_total_time_have_none_to_keep(seconds: int | None, clock: Clock) -> None:
    deadline = Deadline(seconds)

    clock.now += 1e9

    assert deadline.left() == seconds


# --- what calls tell


def test_the_tally_counts_before_progress_hears_of_it() -> None:
    heard = []
    tally = Tally(10, lambda nbytes: heard.append((nbytes, tally.sent)), 2)

    tally.add(3)
    tally.add(0)

    assert heard == [(3, 5), (0, 5)]
    assert tally.total == 10


def test_progress_hears_of_every_byte_while_the_pace_is_watched(clock: Clock) -> None:
    heard: list[int] = []
    tally = Tally(10, heard.append)
    pace = Pace(Limits(stall=1), tally)

    clock.now += 0.75
    tally.add(3)
    left = pace.look()

    assert heard == [3]
    assert left == 1


@pytest.mark.parametrize(
    ("total", "words"), [(9, "5 of 9 bytes sent"), (None, "5 of an unknown number of bytes sent")]
)
def test_the_note_says_how_far_a_call_came(total: int | None, words: str) -> None:
    error = OSError()

    note_sent(error, 5, total)

    assert error.__notes__ == [words]


def test_the_total_time_is_named_in_its_error() -> None:
    assert str(timed_out(0.25)) == "timed out: not all was sent within 0.25 s"


def test_the_default_of_timeout_shows_what_it_is() -> None:
    signature = str(inspect.signature(asend.sock_sendall))

    assert "= <the socket's own timeout>" in signature
