"""asyncio's transports: past their buffer where bytes go out as they are, else through it.

A loop lets nobody wait on a descriptor that a transport owns, so a call waits on a duplicate, and
where the transport sends just what is written, sends by it too. What was written before goes
first: until the transport's buffer is empty, a step only waits. Nothing of the transport is changed
but, while a call waits, its protocol, which is wrapped to hear of the end of the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, overload
from weakref import WeakKeyDictionary

from .._arguments import check_stream_socket
from .._calls import carry_out
from .._errors import BusyResourceError
from .._senders import Sender, is_busy, waiting
from .._wants import DONE, SOCKET
from ._plain import aborted, await_clean_up, guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Literal, TypeGuard

    from _typeshed import HasFileno

    from .._drivers import Driver
    from .._limits import Limits
    from .._wants import Build, FilePart, Transfer

# Whose transports send what is written and nothing else, unless they encrypt.
_KNOWN = {"asyncio", "uvloop", "aiofastnet"}
# Classes whose objects always have a stream socket; others are asked, which takes 3 us.
_OF_SOCKETS = {
    ("asyncio.selector_events", "_SelectorSocketTransport"),
    ("uvloop.loop", "TCPTransport"),
    ("uvloop.loop", "UnixTransport"),
}

# The proactor of Windows.
_NO_WRITERS = "an event loop without add_writer cannot send on its streams"


class Transport(Protocol):
    """What asyncio's write transports have, whatever they are of."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Send now what goes, and keep the rest in the buffer."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are in the buffer."""

    def is_closing(self) -> bool:
        """Tell whether it is closing or closed."""

    def close(self) -> None:
        """Close, once the buffer is out."""

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who hears of what is read, and of the end of the connection."""

    def set_protocol(self, protocol: asyncio.BaseProtocol, /) -> None:
        """Set who hears of it."""

    @overload
    def get_extra_info(self, name: Literal["pipe", "socket"], /) -> HasFileno | None: ...
    @overload
    def get_extra_info(self, name: str, /) -> object: ...


def is_transport(stream: object) -> TypeGuard[Transport]:
    """Tell whether bytes can be written to this as to a transport of asyncio."""
    # Some only forward what they are asked for, so that their class does not have it.
    return _traits(type(stream)).is_transport or _has_methods(stream)


def _has_methods(stream: object) -> bool:
    names = ("write", "is_closing", "get_write_buffer_size", "get_extra_info", "set_protocol")
    return all(hasattr(stream, name) for name in names)


class _Traits(NamedTuple):
    """What the class of a stream says of all its objects."""

    is_transport: bool
    is_known: bool
    is_of_sockets: bool
    is_of_uvloop: bool


def _read_traits(kind: type) -> _Traits:
    package = kind.__module__.partition(".")[0]
    return _Traits(
        _has_methods(kind),
        package in _KNOWN,
        (kind.__module__, kind.__name__) in _OF_SOCKETS,
        package == "uvloop",
    )


_traits: Callable[[type], _Traits] = lru_cache(maxsize=256)(_read_traits)


class TransportOutlet:
    """A transport, plain or encrypting, of a socket or a pipe."""

    def __init__(
        self, transport: Transport, guard: AbstractContextManager[object] | None = None
    ) -> None:
        self._transport = transport
        self._guard = nullcontext() if guard is None else guard
        info = transport.get_extra_info
        self._encrypts = info("sslcontext") is not None or info("ssl_object") is not None
        self.is_plain = _traits(type(transport)).is_known and not self._encrypts

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
            raise NotImplementedError(_NO_WRITERS)
        if not _traits(type(transport)).is_of_sockets and _is_socket(end):
            check_stream_socket(end)
        # All that is called of it, it has.
        return cast("socket.socket", End(end.fileno()))


def _is_socket(end: HasFileno) -> TypeGuard[socket.socket]:
    # uvloop shows a socket for a pipe too; and a file may be around a socket.
    return hasattr(end, "type") and stat.S_ISSOCK(os.fstat(end.fileno()).st_mode)


def _is_of_this_loop(transport: Transport, fd: int) -> bool:
    loop = asyncio.get_running_loop()
    if not _traits(type(transport)).is_of_uvloop:
        return getattr(transport, "_loop", loop) is loop
    # Those that encrypt cannot be in such a table.
    is_kept = _traits(type(transport)).is_of_sockets
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
    if not _traits(type(stream)).is_of_sockets:
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
    return fd if fd not in waiting and _is_of_this_loop(transport, fd) else -1


class End:
    """Our end of a stream socket or pipe, with what a call needs of a socket.

    What transports show of theirs is no socket, and a new one for each call takes 10 us.
    """

    type = socket.SOCK_STREAM

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def dup(self) -> End:
        return End(os.dup(self._fd))

    def setblocking(self, flag: bool) -> None:
        """The transport has done it."""

    def send(self, data: memoryview, flags: int = 0) -> int:
        try:
            return os.write(self._fd, data)
        finally:
            # A traceback refers to this frame, and nobody can resize the bytearray of a view.
            del data

    def close(self) -> None:
        os.close(self._fd)


class Written:
    """Looks like a socket to a transfer, and writes to a transport.

    Bytes count as sent when they have left the buffers of the transport and of those below it, and
    no more are written before: the kernel has them, and little is in the buffers when a call is
    cancelled.
    """

    type = socket.SOCK_STREAM

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._below = _below(transport)
        # How many of the bytes offered last are in the buffers, in the same order.
        self.left = 0

    def send(self, data: memoryview, flags: int = 0) -> int:
        if not self.left:
            # The transport may keep what it is given for longer than the caller's buffer is held.
            kept = data if type(data.obj) is bytes else bytes(data)
            nbytes = data.nbytes
            # Where that fails, asyncio keeps the error for a turn, and with it this frame.
            del data
            self._transport.write(kept)
            self.left = nbytes
        if self.is_lost():
            # An empty buffer was thrown away. Why, the call is told in a turn or two.
            raise BlockingIOError
        # Encrypted bytes are a few more: better too low than too high.
        pending = self._transport.get_write_buffer_size()
        pending += sum(each.get_write_buffer_size() for each in self._below)
        taken = self.left - min(self.left, pending)
        if self.left and not taken:
            raise BlockingIOError
        self.left -= taken
        return taken

    def is_lost(self) -> bool:
        """Tell whether the connection ends, of which the transport may not have heard yet."""
        return any(each.is_closing() for each in self._below)


def _below(transport: Transport) -> list[Transport]:
    """Return the transports that one of asyncio or uvloop writes to what it has encrypted.

    It does not count what is in their buffers. (One of aiofastnet has none below it.)
    """
    below: list[Transport] = []
    upper: Transport | None = transport
    while upper is not None:
        upper = _next_below(upper)
        if upper is not None:
            below.append(upper)
    return below


def _next_below(transport: Transport) -> Transport | None:
    layer = transport.get_extra_info("uvloop.sslproto")
    if layer is None:
        below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        return cast("Transport | None", below)
    # uvloop shows it to nobody but the garbage collector.
    import gc

    others = (each for each in gc.get_referents(layer) if each is not transport)
    return next((each for each in others if _traits(type(each)).is_transport), None)


class Through:
    """A transfer on a transport: after what was written before, and among nothing."""

    __slots__ = (
        "_is_drained",
        "_is_half_open",
        "_pending",
        "_sender",
        "_transfer",
        "_transport",
        "_watch",
        "_written",
        "endless",
        "tally",
    )

    def __init__(
        self,
        transfer: Transfer,
        transport: Transport,
        sender: Sender,
        written: Written | None,
        *,
        is_half_open: bool,
    ) -> None:
        self._transfer = transfer
        self._transport = transport
        self._sender = sender
        self._written = written
        self._is_half_open = is_half_open
        self._is_drained = False
        self._pending = transport.get_write_buffer_size()
        self._watch: _Watch | None = None
        self.tally = transfer.tally
        self.endless = transfer.endless

    def step(self) -> int:
        if self._transport.is_closing():
            if self._is_complete():
                return DONE
            if self._written is not None and self._written.is_lost():
                # The error of the connection comes in the next turn.
                return SOCKET
            raise aborted()
        pending = self._transport.get_write_buffer_size()
        if not self._is_drained:
            self.tally.drain(max(0, self._pending - pending))
            self._pending = pending
            if pending:
                return SOCKET
            self._is_drained = True
        elif pending and not (self._written is not None and self._written.left):
            raise RuntimeError("the stream was written to while a call was sending on it")
        return self._transfer.step()

    def load(self) -> None:
        self._transfer.load()

    def hold(self, sock: socket.socket) -> None:
        self._transfer.hold(sock if self._written is None else cast("socket.socket", self._written))
        self._watch = _watch(self._transport, self._is_half_open, self._lose)

    def _is_complete(self) -> bool:
        """Tell whether all that there was has gone, though the end of the file was not read yet.

        A peer may close as soon as it has the last byte.
        """
        return self._is_drained and self.tally.sent == self.tally.total

    def _lose(self, error: Exception | None) -> None:
        if self._is_complete():
            # Not the next step: nobody may read any more, so that the kernel takes some.
            self._sender.give_up(None)
            return
        lost = aborted()
        lost.__cause__ = error
        # As it is; a copy, as notes and traceback of this call are not those of the connection.
        self._sender.give_up(type(error)(*error.args) if isinstance(error, OSError) else lost)

    @property
    def closes_slowly(self) -> bool:
        return self._transfer.closes_slowly

    def leave(self) -> None:
        if self._watch is not None:
            self._watch.end()
            # It refers to this one.
            self._watch = None
        if (
            self._written is not None
            and self._written.left
            and not self._transport.is_closing()
            and not self._written.is_lost()
        ):
            # A call that failed meanwhile cannot take these back: they will go. It has its error,
            # whatever `progress` says to that.
            with suppress(Exception):
                self.tally.add(self._written.left)
        self._transfer.leave()

    def close(self) -> None:
        self._transfer.close()

    def rest(self) -> memoryview | FilePart | int:
        # Only asked on loops that cannot wait on a descriptor.
        raise NotImplementedError(_NO_WRITERS)

    def ahead(self) -> int:
        return self._transfer.ahead()


def _watch(
    transport: Transport, is_half_open: bool, lose: Callable[[Exception | None], None]
) -> _Watch:
    kind = _BufferedWatch if _lends_buffer(transport.get_protocol()) else _StreamWatch
    watch = kind(transport, is_half_open, lose)
    transport.set_protocol(watch)
    return watch


def _lends_buffer(protocol: object) -> bool:
    """Tell whether a transport reads into the buffer of a protocol."""
    # Protocols of aiofastnet have both ways, and know which is theirs.
    ask = getattr(protocol, "is_buffered_protocol", None)
    if ask is not None:
        return bool(ask())
    # uvloop takes what has the methods, subclass or not.
    can_lend = hasattr(protocol, "get_buffer") and not hasattr(protocol, "data_received")
    return can_lend or isinstance(protocol, asyncio.BufferedProtocol)


class _Watch(asyncio.BaseProtocol):
    """Stands before a transport's protocol, and tells the call of the end of the connection.

    All else is the protocol's, as before: reading goes on, and who waits in `drain` is released.
    """

    def __init__(
        self, transport: Transport, is_half_open: bool, lose: Callable[[Exception | None], None]
    ) -> None:
        self._transport = transport
        self._is_half_open = is_half_open
        self._lose = lose
        self._protocol: asyncio.BaseProtocol = transport.get_protocol()
        self.closes = False
        if isinstance(self._protocol, _Watch):
            # Of a call that was cancelled and did not clean up yet: it cannot leave from behind us.
            self.closes = self._protocol.closes
            self._protocol = self._protocol._protocol
        for name in _FORWARDED:
            if hasattr(self._protocol, name):
                setattr(self, name, getattr(self._protocol, name))

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)

    def eof_received(self) -> bool | None:
        # That of a process's stdin does not have it; its transport closes then.
        ask: Callable[[], bool | None] = getattr(self._protocol, "eof_received", _closes)
        stays_open = ask()
        if stays_open or not self._is_half_open:
            return stays_open
        # The transport would close now, once its buffer is empty, which it is. Ours goes first.
        self.closes = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
        self._lose(error)

    def end(self) -> None:
        """Put the protocol back, unless someone has set another meanwhile."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._protocol)
        if self.closes:
            # In the next turn: a call that follows at once, as the body does a head, goes first.
            # (Where no loop runs any more, the transport is of no more use.)
            with suppress(RuntimeError):
                asyncio.get_running_loop().call_soon(_close_unless_watched, self._transport)


def _close_unless_watched(transport: Transport) -> None:
    watch = transport.get_protocol()
    if isinstance(watch, _Watch):
        watch.closes = True
    else:
        transport.close()


def _closes() -> bool:
    return False


_FORWARDED = ("data_received", "get_buffer", "buffer_updated", "pause_writing", "resume_writing")


class _StreamWatch(_Watch, asyncio.Protocol):
    pass


class _BufferedWatch(_Watch, asyncio.BufferedProtocol):
    pass
