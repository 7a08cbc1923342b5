"""asyncio's transports: past their buffer where bytes go out as they are, else through it.

A loop lets nobody wait on a descriptor that a transport owns, so a call waits on a duplicate, and
where the transport sends just what is written, sends by it too. What was written before goes
first: until the transport's buffer is empty, a step only waits. Nothing of the transport is changed
but, while a call waits, its protocol, which is wrapped to hear of the end of the connection.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from .._arguments import check_stream_socket
from .._calls import carry_out
from .._errors import BusyResourceError
from .._senders import Sender, is_busy, senders
from ._ends import End, Written
from ._guards import await_clean_up, guarded
from ._through import NO_WRITERS, Through
from ._traits import traits_of

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager
    from typing import TypeGuard

    from _typeshed import HasFileno

    from .._drivers import Driver
    from .._limits import Limits
    from .._wants import Build
    from ._traits import Transport


class TransportOutlet:
    """A transport, plain or encrypting, of a socket or a pipe."""

    def __init__(
        self, transport: Transport, guard: AbstractContextManager[object] | None = None
    ) -> None:
        self._transport = transport
        self._guard = nullcontext() if guard is None else guard
        info = transport.get_extra_info
        self._encrypts = info("sslcontext") is not None or info("ssl_object") is not None
        self.is_plain = traits_of(type(transport)).is_known and not self._encrypts

    async def deliver(
        self, driver: Driver, build: Build, seconds: float | None, limits: Limits | None
    ) -> int:
        end = self._check(driver)
        if is_busy(end):
            raise BusyResourceError
        await await_clean_up(self._guard, end)
        with guarded(self._guard) as leave, Sender(end, leave, is_ours=True) as sender:
            written = None if self.is_plain else Written(self._transport)
            transfer = Through(
                build(sender.sending if written is None else cast("socket.socket", written)),
                self._transport,
                sender,
                written,
                is_half_open=not self._encrypts,
            )
            return await carry_out(driver, transfer, sender, seconds, limits)

    def _check(self, driver: Driver) -> socket.socket:
        """Refuse what cannot be sent on; return the end of the connection to send by."""
        transport = self._transport
        if not driver.HAS_TRANSPORTS:
            raise TypeError("a stream of asyncio can be sent on only under asyncio")
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        if getattr(transport, "_empty_waiter", None) is not None:
            # As `write` of asyncio's says while its own `loop.sendfile` is sending.
            raise BusyResourceError
        try:
            transport.get_write_buffer_size()
        except NotImplementedError:
            # uvloop's, of a pipe to read from.
            raise TypeError(f"{type(transport).__name__!r} is only to read from") from None
        end = transport.get_extra_info("pipe") or transport.get_extra_info("socket")
        if end is None:
            raise TypeError(f"{type(transport).__name__!r} has neither socket nor pipe")
        if not _is_of_this_loop(transport, end.fileno()):
            raise RuntimeError("the stream belongs to another event loop")
        if type(asyncio.get_running_loop()).add_writer is asyncio.AbstractEventLoop.add_writer:
            raise NotImplementedError(NO_WRITERS)
        if not traits_of(type(transport)).is_of_sockets and _is_socket(end):
            check_stream_socket(end)
        # All that is called of it, it has.
        return cast("socket.socket", End(end.fileno()))


def _is_socket(end: HasFileno) -> TypeGuard[socket.socket]:
    # uvloop shows a socket for a pipe too; and a file may be around a socket.
    return hasattr(end, "type") and stat.S_ISSOCK(os.fstat(end.fileno()).st_mode)


def _is_of_this_loop(transport: Transport, fd: int) -> bool:
    loop = asyncio.get_running_loop()
    if not traits_of(type(transport)).is_of_uvloop:
        return getattr(transport, "_loop", loop) is loop
    # Those that encrypt cannot be in such a table.
    is_kept = traits_of(type(transport)).is_of_sockets
    if is_kept and _loops_of_uvloop.get(transport) is loop:
        return True
    # They do not show their loop. But it refuses this of what a transport of its own has, and on
    # another nobody waits for that.
    try:
        loop.remove_writer(fd)
    except RuntimeError:
        if is_kept:
            _loops_of_uvloop[transport] = loop
        return True
    return False


# The loops of transports that were asked about, as to be refused takes 2 us; none changes its loop.
_loops_of_uvloop: WeakKeyDictionary[Transport, asyncio.AbstractEventLoop] = WeakKeyDictionary()


def end_now(stream: object) -> int:
    """Return the descriptor that bytes for this stream can go to at once, as they are.

    -1 where that is not so, or not known for sure: `deliver` finds out, and says why.
    """
    if not traits_of(type(stream)).is_of_sockets:
        return -1
    transport = cast("asyncio.WriteTransport", stream)
    if (
        asyncio._get_running_loop() is None
        or transport.is_closing()
        or transport.get_write_buffer_size()
        # asyncio's own `loop.sendfile` is sending.
        or getattr(transport, "_empty_waiter", None) is not None
        # trio may be a guest of the loop, and nobody is to send on asyncio's streams in its tasks.
        or ("trio" in sys.modules and asyncio.current_task() is None)
    ):
        return -1
    fd: int = transport.get_extra_info("socket").fileno()
    return fd if fd not in senders and _is_of_this_loop(transport, fd) else -1
