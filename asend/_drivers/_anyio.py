"""Waits under trio, through anyio: a task waits where asyncio has a callback."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .._errors import BusyResourceError, closed_error
from .._limits import timed_out
from .._senders import is_busy
from .._tally import KERNEL_STEP_SIZE, STEP_SIZE
from .._wants import DONE, FILE, SOCKET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from anyio.abc import TaskGroup

    from .._arguments import AnySocket
    from .._limits import Pace
    from .._senders import Sender
    from .._tally import Tally
    from .._wants import Transfer

    # Ends a call from one of the tasks that help it, with this error.
    _Fail: TypeAlias = Callable[[BaseException], None]


# Whether asyncio's transports can be sent on here.
HAS_TRANSPORTS = False


async def admit(sock: AnySocket) -> None:
    """Let others run, then refuse a socket on which another call is sending."""
    await checkpoint()
    if is_busy(sock):
        # A call that was cancelled before this one began may be in this very batch of tasks, or
        # have to leave a task group first. It is over two turns later.
        await checkpoint()
        await checkpoint()
        if is_busy(sock):
            raise BusyResourceError


async def in_thread(function: Callable[[], None]) -> None:
    """Run a clean-up that blocks, to its end even if this task is cancelled."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(function, limiter=anyio.CapacityLimiter(1))


async def within(seconds: float, call: Coroutine[object, object, None]) -> None:
    """Await a call; end it with TimeoutError when its total time has passed."""
    with anyio.move_on_after(seconds) as limit:
        await call
    if limit.cancelled_caught:
        raise timed_out(seconds)


async def hand_over(
    transfer: Transfer, send: Callable[[memoryview], Awaitable[object]], pace: Pace | None
) -> None:
    """Send block by block by `send`, on trio and on asyncio, and read the next one meanwhile.

    Raises:
        TimeoutError: A limit is broken.
        Exception: What reading or `send` raises.
    """
    # The pace shows only between two blocks.
    most = STEP_SIZE if pace is None else STEP_SIZE // 16

    async def run(helpers: TaskGroup, fail: _Fail) -> None:
        loads = _Loads(transfer, helpers)
        if pace is not None:
            helpers.start_soon(_watch, pace, fail)
        while (rest := transfer.rest()) != DONE:
            if isinstance(rest, int):
                loads.start()
                await loads.wait()
                continue
            assert isinstance(rest, memoryview)
            if transfer.ahead():
                loads.start()
            await _send_blocks(rest, most, send, transfer.tally)

    await _with_helpers(run)


async def _watch(pace: Pace, fail: _Fail) -> None:
    while True:
        try:
            left = pace.look()
        except TimeoutError as broken:
            fail(broken)
            return
        await anyio.sleep(left)


async def _with_helpers(run: Callable[[TaskGroup, _Fail], Awaitable[None]]) -> None:
    """Run with tasks that help, and end with it; raise what it raises, or what one fails with."""
    error: BaseException | None = None

    def fail(raised: BaseException) -> None:
        nonlocal error
        error = raised
        helpers.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as helpers:
            try:
                await run(helpers, fail)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as raised:  # a task group would wrap it in an ExceptionGroup
                error = raised
            helpers.cancel_scope.cancel()
        if error is not None:
            raise error
    finally:
        # Its traceback refers to this frame, which would keep the file open till a collection.
        error = None


async def _send_blocks(
    data: memoryview, most: int, send: Callable[[memoryview], Awaitable[object]], tally: Tally
) -> None:
    block = data
    try:
        for at in range(0, data.nbytes, most):
            block = data[at : at + most]
            await send(block)
            tally.add(block.nbytes)
    except BaseException:
        # The traceback refers to both, here and in frames of the stream: who handles the error
        # could not resize the bytearray that they are of. A stream may hold what it could not send.
        with suppress(BufferError):
            block.release()
            data.release()
        raise


class _Loads:
    """The reads of one call in a worker thread, one at a time."""

    def __init__(self, transfer: Transfer, tasks: TaskGroup) -> None:
        self._transfer = transfer
        self._tasks = tasks
        # Set while nothing is being read.
        self._loaded = anyio.Event()
        self._loaded.set()

    def start(self) -> None:
        if self._loaded.is_set():
            self._loaded = anyio.Event()
            self._tasks.start_soon(self._load)

    async def wait(self) -> None:
        """Wait for the read that goes on, if any."""
        await self._loaded.wait()

    async def _load(self) -> None:
        # A pipe that never delivers would keep its place among the threads of all tasks for ever.
        limiter = anyio.CapacityLimiter(1) if self._transfer.endless else None
        await anyio.to_thread.run_sync(self._transfer.load, abandon_on_cancel=True, limiter=limiter)
        self._loaded.set()


async def drive(transfer: Transfer, want: int, sender: Sender, pace: Pace | None) -> None:
    """Wait for what the transfer wants, and step, until it is done."""
    transfer.tally.most = KERNEL_STEP_SIZE
    # Most calls never want a file: a task group would double what they cost while they wait.
    while want == SOCKET and pace is None:
        await _wait_writable(sender)
        want = transfer.step()
    if want == DONE:
        return

    async def run(readers: TaskGroup, _: _Fail) -> None:
        pump = _Pump(transfer, want, sender, readers)
        try:
            await (pump.run() if pace is None else pump.run_watched(pace))
        finally:
            # What is left is clean-up, which takes turns of the loop.
            sender.is_over = lambda: True

    await _with_helpers(run)


async def _wait_writable(sender: Sender) -> None:
    try:
        await anyio.wait_writable(sender.wait_on)
    except anyio.BusyResourceError:
        raise BusyResourceError from None
    except anyio.ClosedResourceError:
        raise closed_error() from None


class _Pump:
    """One call that waits: what it wants next, and its read in a thread."""

    def __init__(self, transfer: Transfer, want: int, sender: Sender, readers: TaskGroup) -> None:
        self._transfer = transfer
        self._sender = sender
        self._loads = _Loads(transfer, readers)
        self._set_want(want)

    def _set_want(self, want: int) -> None:
        # Once per step: a wait that is begun again must not read a second block.
        self._want = want
        if want & FILE:
            self._loads.start()

    async def run(self) -> None:
        while self._want != DONE:
            await self._wait()
            self._set_want(self._transfer.step())

    async def run_watched(self, pace: Pace) -> None:
        while self._want != DONE:
            with anyio.move_on_after(pace.look()):
                await self.run()

    async def _wait(self) -> None:
        if self._want & SOCKET:
            await _wait_writable(self._sender)
        else:
            await self._loads.wait()
