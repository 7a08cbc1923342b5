"""Puts asend's calls in place of the blocking methods of `socket.socket`.

CPython's tests of `socket` are synchronous and run in threads, so each call gets an event loop of
its own on the thread that makes it. For the time of the call the socket is non-blocking, and its
timeout is handed over.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from doubles import count_call, no_kernel_sendfile

import asend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import BinaryIO, TypeAlias

    from _typeshed import ReadableBuffer

    Runner: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Any]

T = TypeVar("T")

_genuine_sendmsg = socket.socket.sendmsg
_thread = threading.local()


def _run_on_asyncio(call: Callable[[], Awaitable[T]], new_loop: Any = None) -> T:
    async def main() -> T:
        return await call()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


def _runner(runtime: str) -> Runner:
    if runtime == "asyncio":
        return _run_on_asyncio
    if runtime == "uvloop":
        import uvloop

        return partial(_run_on_asyncio, new_loop=uvloop.new_event_loop)
    import trio
    from trio._core import _thread_cache

    # ThreadableTest waits until all threads of a test are gone, which trio keeps for 10 s.
    _thread_cache.IDLE_TIMEOUT = 0
    return trio.run


def install(runtime: str) -> None:
    """Replace the methods for the rest of the process."""
    run = _runner(runtime)

    def deliver(sock: socket.socket, call: Callable[..., Awaitable[T]]) -> T:
        count_call()
        timeout = sock.gettimeout()
        # A closed socket refuses it, and takes it over all the same.
        with suppress(OSError):
            sock.settimeout(0)
        _thread.is_sending = True
        try:
            return run(partial(call, timeout=timeout))
        finally:
            _thread.is_sending = False
            with suppress(OSError):
                sock.settimeout(timeout)

    def sendall(sock: socket.socket, data: ReadableBuffer, flags: int = 0, /) -> None:
        return deliver(sock, partial(asend.sock_sendall, sock, data, flags))

    def sendmsg(
        sock: socket.socket,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
        flags: int = 0,
        address: object = None,
        /,
    ) -> int:
        if getattr(_thread, "is_sending", False):
            # This is asend's own call.
            return _genuine_sendmsg(sock, buffers, ancdata, flags)
        if address is not None:
            raise TypeError("sock_sendmsg sends to the peer of a connected socket only")
        if sock.gettimeout():
            # A case sends 512 bytes at a time until the socket is full. Each call makes an event
            # loop here: thousands of them would take longer than the case allows.
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sent: list[int] = []
        call = partial(asend.sock_sendmsg, sock, buffers, ancdata, flags, progress=sent.append)
        deliver(sock, call)
        return sum(sent)

    def sendfile(
        sock: socket.socket, file: BinaryIO, offset: int = 0, count: int | None = None
    ) -> int:
        return deliver(sock, partial(asend.sock_sendfile, sock, file, offset, count))

    def sendfile_by_kernel(
        sock: socket.socket, file: BinaryIO, offset: int = 0, count: int | None = None
    ) -> int:
        call = partial(asend.sock_sendfile, sock, file, offset, count, fallback=False)
        try:
            return deliver(sock, call)
        except asend.SendfileNotAvailableError as error:
            raise socket._GiveupOnSendfile(error) from error

    def sendfile_by_copy(
        sock: socket.socket, file: BinaryIO, offset: int = 0, count: int | None = None
    ) -> int:
        with no_kernel_sendfile():
            return sendfile(sock, file, offset, count)

    for name, method in {
        "sendall": sendall,
        "sendmsg": sendmsg,
        "sendfile": sendfile,
        "_sendfile_use_sendfile": sendfile_by_kernel,
        "_sendfile_use_send": sendfile_by_copy,
    }.items():
        setattr(socket.socket, name, method)
