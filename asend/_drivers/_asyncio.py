"""Waits on asyncio, uvloop and other loops with `add_writer`.

The transfer's step is itself the writer callback: readiness resumes the partial write inside it,
with no task switch per chunk, and one future ends the call.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

from .._arguments import is_trio_socket
from .._errors import BusyResourceError
from .._limits import timed_out
from .._senders import is_busy, senders
from .._tally import KERNEL_STEP_SIZE, STEP_SIZE
from .._wants import DONE, FILE, SOCKET
from . import _proactor
from ._turns import turns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .._arguments import AnySocket
    from .._limits import Pace
    from .._senders import Sender
    from .._wants import Transfer


# Whether asyncio's transports can be sent on here.
HAS_TRANSPORTS = True


async def admit(sock: AnySocket) -> None:
    """Refuse a socket on which another call is sending, or that belongs to a transport."""
    if is_busy(sock):
        raise BusyResourceError
    if is_trio_socket(sock):
        raise TypeError("a trio socket can be sent on only under trio")
    loop = asyncio.get_running_loop()
    fd = sock.fileno()
    transports = getattr(loop, "_transports", None)
    if transports is None:
        # Only the loop itself can tell (uvloop). This refuses as add_writer does, in 0.3 us, and
        # changes nothing where nobody waits.
        with suppress(NotImplementedError):
            loop.remove_writer(fd)
        return
    transport = transports.get(fd)
    # The table keeps transports until they are collected, when the number may be another's.
    if transport is None or (transport.is_closing() and not transport.get_write_buffer_size()):
        return
    raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")


async def in_thread(function: Callable[[], None]) -> None:
    """Run a clean-up that blocks, to its end even if this task is cancelled. It must not raise."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def run() -> None:
        function()
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set_result, None)

    try:
        # Not in the executor, whose threads may all be busy: a call that is over must end.
        threading.Thread(target=run).start()
    except RuntimeError:
        # There are no new threads as the program ends.
        function()
    else:
        await asyncio.shield(over)


async def within(seconds: float, call: Coroutine[object, object, None]) -> None:
    """Await a call; end it with TimeoutError when its total time has passed."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await call
        return
    except TimeoutError:
        if not limit.expired():
            raise
    finally:
        # It refers to the task, and this frame is in the traceback of an error that may end that:
        # both would wait for the garbage collector.
        del limit
    # Not in there: the error of asyncio, as the context of this one, refers to the limit too.
    raise timed_out(seconds)


async def drive(transfer: Transfer, want: int, sender: Sender, pace: Pace | None) -> None:
    """Wait for what the transfer wants, and step, until it is done."""
    pump = _Pump(transfer, sender)
    try:
        if pump.start(want):
            pump.watch(pace)
            await pump.over
        else:
            await _proactor.drive(transfer, sender, pace)
        if pump.error is not None:
            raise pump.error
    finally:
        pump.stop()
        # Its traceback refers to this frame, and so to the pump. It is there, too, where the call
        # was cancelled before it could be raised.
        pump.error = None


class _Pump:
    """One call that waits: its writer on the loop, its read in a thread, its timer, its end."""

    __slots__ = (
        "_context",
        "_fd",
        "_is_loading",
        "_is_writing",
        "_loop",
        "_pace",
        "_timer",
        "_transfer",
        "_turns",
        "error",
        "over",
    )

    def __init__(self, transfer: Transfer, sender: Sender) -> None:
        self._loop = asyncio.get_running_loop()
        # `progress` is the caller's, whosever turn it is and whatever thread read the file.
        self._context = copy_context()
        self._transfer = transfer
        self._turns = turns_of(self._loop)
        # Nobody else's, so that no clean-up takes away the writer of another call.
        self._fd = sender.sending.fileno()
        self._is_writing = False
        self._is_loading = False
        self._pace: Pace | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Done when the call is over, whatever the outcome; `error` says which. An exception that
        # was set on the future itself would be logged where a cancelled call never takes it.
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.error: BaseException | None = None
        sender.is_over = self._is_over
        sender.give_up = self._end

    def start(self, want: int) -> bool:
        """Wait for the first time. False: this loop has no writer callbacks."""
        try:
            # Even if only the file is to be read: it is how a loop says that it cannot.
            self._start_writing()
        except NotImplementedError:
            return False
        self._wait_for(want)
        return True

    def stop(self) -> None:
        """Leave nothing behind on the loop."""
        self.stop_writing()
        self._turns.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        """Step or wait for a turn, as the socket has become writable or the file was read."""
        if len(senders) > 1:
            self._turns.take(self)
        else:
            self.step(KERNEL_STEP_SIZE)

    @property
    def sent(self) -> int:
        """How many bytes have gone."""
        return self._transfer.tally.sent

    def step(self, most: int) -> int:
        """Send once, not more than so many bytes; return how many it was."""
        if self.over.done():
            # Cancelled, and the task did not run since: not a byte more.
            return 0
        tally = self._transfer.tally
        tally.most, before = most, tally.sent
        try:
            want = self._context.run(self._transfer.step)
            if want == SOCKET and not self._is_writing and tally.sent - before in (most, STEP_SIZE):
                # The kernel may take more: what is copied ends here, too.
                self._turns.wait(self)
            elif want != SOCKET or not self._is_writing:
                self._wait_for(want)
        except BaseException as error:  # the call's, not the loop's whose callback this is
            self._end(error)
        return tally.sent - before

    def _wait_for(self, want: int) -> None:
        if want == DONE:
            self._end(None)
            return
        if want & FILE and not self._is_loading:
            self._load()
        if not want & SOCKET:
            # A writable socket with nothing to send would keep the loop spinning.
            self.stop_writing()
        elif not self._is_writing:
            self._start_writing()

    def _start_writing(self) -> None:
        self._loop.add_writer(self._fd, self._turn)
        self._is_writing = True

    def stop_writing(self) -> None:
        """Be told no more that the socket is writable."""
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._fd)

    def _is_over(self) -> bool:
        # On a closed loop nothing of the call will ever run.
        return self.over.done() or self._loop.is_closed()

    def _end(self, error: BaseException | None) -> None:
        if not self.over.done():
            self.error = error
            self.over.set_result(None)

    def _load(self) -> None:
        self._is_loading = True
        if self._transfer.endless:
            # A pipe may never deliver; the executor's threads are waited for at exit, these not.
            threading.Thread(target=self._load_in_thread, daemon=True).start()
        else:
            self._loop.run_in_executor(None, self._load_in_thread)

    def _load_in_thread(self) -> None:
        self._transfer.load()
        # The loop may be closed by now, if the call was cancelled long ago.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loaded)

    def _loaded(self) -> None:
        self._is_loading = False
        # With a writer on the loop the next step comes from there.
        if not self._is_writing:
            self._turn()

    def watch(self, pace: Pace | None) -> None:
        """Look at the pace of the call whenever a limit can be broken."""
        self._pace = pace
        if pace is not None:
            self._look()

    def _look(self) -> None:
        assert self._pace is not None
        try:
            left = self._pace.look()
        except TimeoutError as error:
            self._end(error)
        else:
            self._timer = self._loop.call_later(min(left, _LONGEST_TIMER), self._look)


# Some loops refuse delays beyond 2**31 ms or so; a look more a day costs nothing.
_LONGEST_TIMER = 86400.0
