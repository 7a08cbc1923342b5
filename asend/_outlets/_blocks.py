"""Streams that only take whole blocks, such as those that encrypt: handed over one by one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

from .._calls import carry_out
from .._errors import BusyResourceError
from .._wants import SOCKET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from .._drivers import Driver
    from .._limits import Limits, Pace
    from .._wants import Build, Transfer

# The streams that calls are sending on, by their id.
_busy: set[int] = set()


class BlockOutlet:
    """A stream's own way to send."""

    is_plain = False

    def __init__(self, stream: object, send: Callable[[memoryview], Awaitable[object]]) -> None:
        self._stream = stream
        self._send = send

    async def deliver(
        self, driver: Driver, build: Build, seconds: float | None, limits: Limits | None
    ) -> int:
        key = id(self._stream)
        if key in _busy:
            raise BusyResourceError
        _busy.add(key)
        try:
            blocks = _Blocks(driver, self._send)
            # It cannot be tried without waiting, as a socket can.
            return await carry_out(blocks, build(blocks.hold()), blocks, seconds, limits, SOCKET)
        finally:
            _busy.discard(key)


class _Blocks:
    """Drives by handing over; stands for the socket, which is asked for its type only."""

    type = socket.SOCK_STREAM

    def __init__(self, driver: Driver, send: Callable[[memoryview], Awaitable[object]]) -> None:
        # Where such streams are, anyio is.
        from .._drivers import _anyio

        self._send = send
        self._hand_over = _anyio.hand_over
        self.within = _anyio.within
        self.in_thread = driver.in_thread

    def hold(self) -> socket.socket:
        return cast("socket.socket", self)

    def leave(self) -> None:
        """Of no use to another call is a stream that a call could not send all on."""

    def drive(
        self, transfer: Transfer, want: int, sender: object, pace: Pace | None
    ) -> Coroutine[None, None, None]:
        return self._hand_over(transfer, self._send, pace)
