"""Event loops that run only while they are told to, all in the thread of the test.

Between two steps of a test time stands still for a loop: what a test does meanwhile (the peer
reads, a call is cancelled, a file is cut) comes in one and the same turn.
"""

from __future__ import annotations

import asyncio
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio
from outcome import Outcome, acapture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

# Seconds of what takes none; counted one by one, as a machine may rest for many of them.
PATIENCE = 30


class Task(Protocol):
    """A coroutine that runs in the turns of a loop."""

    def done(self) -> bool: ...
    def cancel(self) -> object: ...


class Runtime(Protocol):
    is_trio: bool

    def soon(self, function: Callable[[], object]) -> None:
        """Call this in the next turn, before what else it brings."""

    def start(self, function: Callable[[], Awaitable[object]]) -> Task:
        """Start a task; it need not have begun."""

    def turn(self) -> None:
        """Let everything go on that can, once."""

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Go on until this has ended."""

    def close(self) -> None:
        """Leave nothing behind."""


class OnAsyncio:
    """A loop of asyncio or uvloop, that is stopped after each turn."""

    is_trio = False

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop = new_loop()
        self._loop.set_exception_handler(self._raise)
        self._failures: list[Any] = []

    def _raise(self, _: object, context: dict[str, Any]) -> None:
        # asyncio itself calls this twice where an encrypting transport is closed while its buffer
        # empties (python/cpython#156512).
        if "_call_connection_lost" not in context["message"]:
            self._failures.append(context)

    def start(self, function: Callable[[], Awaitable[object]]) -> Task:
        tasks: list[Task] = []

        def start() -> None:
            tasks.append(asyncio.ensure_future(function()))

        # From inside, where eager tasks begin at once.
        self._loop.call_soon(start)
        self.turn()
        return tasks[0]

    def soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon(function)

    def turn(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()
        assert not self._failures, self._failures

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        async def within() -> T:
            task = asyncio.ensure_future(function())
            for _ in range(PATIENCE):
                await asyncio.wait([task], timeout=1)
                if task.done():
                    return task.result()
            task.cancel()
            raise TimeoutError

        result = self._loop.run_until_complete(within())
        assert not self._failures, self._failures
        return result

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens)
        self.run(self._loop.shutdown_default_executor)
        self._loop.close()
        assert not self._failures, self._failures


class _TrioTask:
    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._scope = trio.CancelScope()
        self._is_done = False

    async def run(self, function: Callable[[], Awaitable[object]]) -> None:
        try:
            with self._scope:
                await function()
        finally:
            self._is_done = True

    def done(self) -> bool:
        return self._is_done

    def cancel(self) -> None:
        self._token.run_sync_soon(self._scope.cancel)


class OnTrio:
    """trio as the guest of a loop that is a queue, and runs while somebody empties it."""

    is_trio = True

    def __init__(self) -> None:
        self._todo: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._ended: list[Outcome[None]] = []
        self._nursery: trio.Nursery | None = None
        trio.lowlevel.start_guest_run(
            self._main, run_sync_soon_threadsafe=self._todo.put, done_callback=self._ended.append
        )
        self._until(lambda: self._nursery)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def _until(self, condition: Callable[[], object]) -> None:
        left = PATIENCE
        while not condition():
            try:
                self._todo.get(timeout=1)()
            except Empty:
                left -= 1
                if not left:
                    raise TimeoutError from None

    def soon(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)

    def start(self, function: Callable[[], Awaitable[object]]) -> Task:
        assert self._nursery is not None
        task = _TrioTask(self._token)
        self._token.run_sync_soon(self._nursery.start_soon, task.run, function)
        return task

    def turn(self) -> None:
        self.run(trio.lowlevel.checkpoint)

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        results: list[Outcome[T]] = []

        async def job() -> None:
            results.append(await acapture(function))

        self.start(job)
        self._until(lambda: results)
        return results[0].unwrap()

    def close(self) -> None:
        assert self._nursery is not None
        self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        self._until(lambda: self._ended)
        self._ended[0].unwrap()
