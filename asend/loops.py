"""Event loops whose `sock_sendall`, `sock_sendfile` and `sendfile` are asend's.

Programs and frameworks that call these methods send by asend without a change: aiohttp's stock
`FileResponse` goes through the kernel on uvloop too. All else is the loop's own.

    asyncio.Runner(loop_factory=asend.loops.new_event_loop)
    aiohttp.web.run_app(app, loop=asend.loops.new_event_loop())
    uvicorn --loop asend.loops:new_event_loop ...
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from ._arguments import check_mode
from ._errors import SendfileNotAvailableError
from ._outlets import outlet_of
from ._outlets._traits import is_transport
from ._sockets import sock_sendall, sock_sendfile
from .streams import sendfile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from ._arguments import BinaryFile

__all__ = ["SelectorEventLoop", "UvloopEventLoop", "new_event_loop"]


class _Sends(asyncio.AbstractEventLoop):
    """Three methods with the arguments, errors and words of asyncio's, and asend's promises.

    Only over loops with `add_writer`: where there is none, asend hands over to these very methods
    of the loop.
    """

    async def sock_sendall(self, sock: socket.socket, data: ReadableBuffer) -> None:
        """Send all of `data` on a connected non-blocking socket.

        Raises:
            ValueError: The socket is blocking; in debug mode, as asyncio has it, also if it has a
                timeout. Without debug mode that is the most seconds that the call may take.
            Exception: As `asend.sock_sendall`.

        All else is as in `asend.sock_sendall`.
        """
        if self.get_debug():
            check_mode(sock)
            _check_timeout(sock)
        await sock_sendall(sock, data)

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: BinaryFile,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send a file on a connected non-blocking stream socket, by `os.sendfile` where it can.

        Args:
            fallback: False, or None, refuses what `os.sendfile` cannot send.

        Returns:
            The bytes that the kernel took. Less than `count` where the file ended before.

        Raises:
            ValueError: As `sock_sendall`, too.
            Exception: As `asend.sock_sendfile`.

        All else is as in `asend.sock_sendfile`.
        """
        if self.get_debug():
            _check_timeout(sock)
        return await sock_sendfile(sock, file, offset, count, fallback=bool(fallback))

    async def sendfile(
        self,
        transport: asyncio.BaseTransport,
        file: BinaryFile,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file on a transport, by `os.sendfile` unless it encrypts.

        Reading goes on meanwhile, unlike in asyncio's own. What is written to the transport during
        the call is not refused there: this call ends with RuntimeError where it shows.

        Args:
            transport: Of a stream socket; also of a pipe, which asyncio refuses.

        Returns:
            The bytes sent. Less than `count` where the file ended before.

        Raises:
            RuntimeError: The transport is closing, or not one that files can be sent on. Nothing
                was sent.
            SendfileNotAvailableError: `fallback` is False, and the transport encrypts or the file
                is not of the kind. Nothing was sent. It is a RuntimeError.
            Exception: As `asend.sendfile`.

        All else is as in `asend.sendfile`.
        """
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        if not _is_stream(transport):
            raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
        if not fallback and not outlet_of(transport).is_plain:
            raise SendfileNotAvailableError(
                "fallback is disabled and native sendfile is not supported for transport "
                f"{transport!r}"
            )
        return await sendfile(transport, file, offset, count, fallback=fallback)


def _check_timeout(sock: socket.socket) -> None:
    if sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")


def _is_stream(transport: asyncio.BaseTransport) -> bool:
    if not is_transport(transport):
        return False
    end = transport.get_extra_info("socket") or transport.get_extra_info("pipe")
    # Transports of other makers may show nothing to wait on. asyncio's of datagrams have a `write`,
    # too, which is nowhere implemented.
    return end is not None and getattr(end, "type", None) != socket.SOCK_DGRAM


class SelectorEventLoop(_Sends, asyncio.SelectorEventLoop):
    """`asyncio.SelectorEventLoop`, sending by asend."""


@cache
def _over_uvloop() -> type[UvloopEventLoop]:
    import uvloop

    documentation = "`uvloop.Loop`, sending by asend."
    names = {"__module__": __name__, "__doc__": documentation}
    return type("UvloopEventLoop", (_Sends, uvloop.Loop), names)


if TYPE_CHECKING:
    import uvloop

    class UvloopEventLoop(_Sends, uvloop.Loop):  # type: ignore[misc]  # stubs unlike asyncio's
        """`uvloop.Loop`, sending by asend. Looking it up imports uvloop."""

else:  # Type checkers would take every name for one of this module.

    def __getattr__(name: str) -> type[asyncio.AbstractEventLoop]:
        if name == "UvloopEventLoop":
            return _over_uvloop()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new `UvloopEventLoop` where uvloop is installed, else a new `SelectorEventLoop`.

    On Windows, for which there is no uvloop, that is not the loop that asyncio itself takes: it
    has no subprocesses and no pipes, and waits on 512 sockets at most.
    """
    kind: type[asyncio.AbstractEventLoop] = SelectorEventLoop
    # Only of a uvloop that is not there: one that does not load is an error.
    with suppress(ModuleNotFoundError):
        kind = _over_uvloop()
    return kind()
