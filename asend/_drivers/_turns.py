"""Which call sends next on an event loop of asyncio, and how much: its turns.

If each call sent a step whenever it could, the loop would be held for as long as there are calls:
8 steps of 1 MiB take 2 ms. So those that could send queue, and share what goes in one turn of the
loop. A call that sends alone, or a little now and then, does not queue: that costs 3 us and more.

How much goes in one turn depends on whether others on the loop have work to do. They have if the
thread has used more CPU since the end of our last turn than the loop takes by itself. Then a turn
is small, and every second one is left to them: what began in one turn goes on in the next. Measured
under uvicorn, with 8 downloads beside a small route (row "handlers" of benchmarks/results):

    a turn                      p99 of the small route      rate of 1 MiB files
    256 KiB of each call        1                           1
    64 KiB                      1/2                         2/3
    64 KiB, every second one    1/3                         1/2
    32 KiB, every second one    2/7                         2/5
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from time import thread_time
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from .._tally import KERNEL_STEP_SIZE, STEP_SIZE

if TYPE_CHECKING:
    import asyncio

_TURN_SIZE = KERNEL_STEP_SIZE
# Where others have work, of calls that have sent so much that they are no small files.
_SMALL_TURN_SIZE = 32 * 1024
_BULK = 1 << 20
# Seconds of CPU between two turns that the loop does not take by itself, and for how long others
# are taken to have more to do.
_WORK = 30e-6
_WORK_LASTS = 5e-3
# Seconds of CPU that it takes to have a call wait for its turn, which is no work of others.
_QUEUEING = 10e-6
# With many calls a turn takes longer, as else most of it would go into asking who can send.
_LEAST_SHARE = 4 * 1024


class Pump(Protocol):
    """What is asked of a call that sends."""

    @property
    def sent(self) -> int:
        """How many bytes have gone."""

    def step(self, most: int) -> int:
        """Send once, not more than so many bytes; return how many it was."""

    def stop_writing(self) -> None:
        """Be told no more that the socket is writable."""


class Turns:
    """The calls that could send now on a loop, first come first served."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_has_yielded",
        "_is_due",
        "_left",
        "_loop",
        "_queue",
        "_small_until",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: OrderedDict[Pump, None] = OrderedDict()
        self._is_due = False
        # Bytes that may still go in this turn.
        self._left = _TURN_SIZE
        # By the CPU time of the thread: when our last turn ended (inf: nobody is to ask), and till
        # when others are taken to have work (0: they have none).
        self._ended = inf
        self._small_until = 0.0
        # Whether the last turn was left to others.
        self._has_yielded = False

    def take(self, pump: Pump) -> None:
        """Have a call step that could: now, or when it is its turn."""
        if self._queue or self._left <= 0:
            if pump in self._queue:
                # To be told again costs less than to be taken off the loop and put on again; to be
                # told each time costs more.
                pump.stop_writing()
            self._queue[pump] = None
            self._ended += _QUEUEING
        else:
            self._step(pump)
            if self._left > 0:
                # Calls that send a little now and then need no turn to follow. It could not tell
                # what they do from the work of others.
                self._ended = inf
                return
            self._ended = thread_time()
        self._schedule()

    def wait(self, pump: Pump) -> None:
        """Have a call step again when it is its turn."""
        self._queue[pump] = None
        self._schedule()

    def leave(self, pump: Pump) -> None:
        """Forget a call that is over."""
        self._queue.pop(pump, None)

    def _schedule(self) -> None:
        if not self._is_due:
            self._loop.call_soon(self._serve)
            self._is_due = True

    def _serve(self) -> None:
        self._is_due = False
        self._look()
        self._has_yielded = self._small_until > 0 and not self._has_yielded
        if self._has_yielded:
            self._ended = thread_time()
            self._schedule()
            return
        size = _SMALL_TURN_SIZE if self._small_until else _TURN_SIZE
        self._left = max(size, len(self._queue) * _LEAST_SHARE)
        while self._queue and self._left > 0:
            pump, _ = self._queue.popitem(last=False)
            self._step(pump)
        self._ended = inf
        if self._queue:
            self._ended = thread_time()
            self._schedule()

    def _step(self, pump: Pump) -> None:
        most = max(STEP_SIZE, min(KERNEL_STEP_SIZE, self._left))
        if self._small_until:
            most = _SMALL_TURN_SIZE if pump.sent > _BULK else STEP_SIZE
        self._left -= pump.step(most)

    def _look(self) -> None:
        """Find out whether others had work since the last turn."""
        if self._ended == inf and not self._small_until:
            return
        now = thread_time()
        if now - self._ended > _WORK:
            self._small_until = now + _WORK_LASTS
        elif now > self._small_until:
            self._small_until = 0.0


# By the id of the loop, which lives as long as its calls, and these have its turns.
_turns: WeakValueDictionary[int, Turns] = WeakValueDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Return the turns of a loop."""
    turns = _turns.get(id(loop))
    if turns is None:
        turns = _turns[id(loop)] = Turns(loop)
    return turns
