"""Streams that are a socket and nothing else: the bytes go out on that."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from .._arguments import check_kind, check_mode, check_open, check_stream_socket
from .._calls import carry_out
from .._errors import BusyResourceError, aborted_error
from .._senders import Sender, is_busy
from ._guards import await_clean_up, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from .._arguments import AnySocket
    from .._drivers import Driver
    from .._limits import Limits
    from .._wants import Build


class Waking(Protocol):
    """A stream that wakes who waits in its own `send` when it is closed."""

    _send_future: asyncio.Future[None]


@contextmanager
def _told_of_close(stream: Waking | None, sender: Sender) -> Iterator[None]:
    """End the call when the stream is closed, of which its socket tells nobody. None: do nothing.

    anyio wakes whom it knows to wait in its own `send` then. For who has entered the stream's
    guard that is nobody else.
    """
    if stream is None:
        yield
        return
    woken = asyncio.get_running_loop().create_future()
    woken.add_done_callback(lambda _: sender.give_up(aborted_error()))
    stream._send_future = woken
    try:
        yield
    finally:
        # Not that of a call that began while this one was cleaning up.
        if getattr(stream, "_send_future", None) is woken:
            del stream._send_future


class SocketOutlet:
    """The socket under a stream."""

    is_plain = True

    def __init__(
        self,
        sock: AnySocket,
        guard: AbstractContextManager[object] | None = None,
        wakes: Waking | None = None,
    ) -> None:
        self._sock = sock
        self._guard = nullcontext() if guard is None else guard
        # The stream, if it is one that wakes who waits in its `_send_future`.
        self._wakes = wakes

    async def deliver(
        self, driver: Driver, build: Build, seconds: float | None, limits: Limits | None
    ) -> int:
        check_open(self._sock)
        check_mode(self._sock)
        check_kind(self._sock)
        check_stream_socket(self._sock)
        await self._admit(driver)
        await await_clean_up(self._guard, self._sock)
        with (
            guarded(self._guard) as leave,
            Sender(self._sock, leave) as sender,
            _told_of_close(self._wakes, sender),
        ):
            transfer = build(sender.sending)
            return await carry_out(driver, transfer, sender, seconds, limits)

    async def _admit(self, driver: Driver) -> None:
        if self._wakes is None:
            await driver.admit(self._sock)
            return
        # No transport has this one. To ask uvloop would take away the writer of the stream's own
        # `send`, which the guard will tell of.
        if not driver.HAS_TRANSPORTS:
            raise TypeError("a stream of asyncio can be sent on only under asyncio")
        if is_busy(self._sock):
            raise BusyResourceError
