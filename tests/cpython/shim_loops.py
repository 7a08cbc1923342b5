"""Puts asend's calls in place of the methods of event loops that send on sockets.

`loop.sendfile` of asyncio stands on `sock_sendfile`, and so on asend's, without a change.
"""

from __future__ import annotations

import asyncio
from asyncio import unix_events
from asyncio.selector_events import BaseSelectorEventLoop
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from doubles import count_call, no_kernel_sendfile

import asend

if TYPE_CHECKING:
    import socket
    from typing import BinaryIO

    from _typeshed import ReadableBuffer


async def _sock_sendall(_: object, sock: socket.socket, data: ReadableBuffer) -> None:
    count_call()
    await asend.sock_sendall(sock, data)


async def _sock_sendfile(
    _: object,
    sock: socket.socket,
    file: BinaryIO,
    offset: int = 0,
    count: int | None = None,
    *,
    fallback: bool = True,
) -> int:
    count_call()
    return await asend.sock_sendfile(sock, file, offset, count, fallback=fallback)


async def _sock_sendfile_native(
    loop: object, sock: socket.socket, file: BinaryIO, offset: int, count: int | None
) -> int:
    # A case hides os.sendfile from this module of asyncio only.
    is_hidden = not hasattr(unix_events.os, "sendfile")
    with no_kernel_sendfile() if is_hidden else nullcontext():
        return await _sock_sendfile(loop, sock, file, offset, count, fallback=False)


def install(runtime: str) -> None:
    """Replace the methods for the rest of the process."""
    if runtime == "uvloop":
        _install_on_uvloop()
        return
    _replace(BaseSelectorEventLoop, sock_sendall=_sock_sendall)
    _replace(asyncio.BaseEventLoop, sock_sendfile=_sock_sendfile)
    _replace(asyncio.SelectorEventLoop, _sock_sendfile_native=_sock_sendfile_native)
    if runtime == "asyncio-eager":
        make_tasks_eager()


def _install_on_uvloop() -> None:
    import uvloop

    make_uvloop_connect_at_once()
    _replace(uvloop.Loop, sock_sendall=_sock_sendall, sock_sendfile=_sock_sendfile)


def make_uvloop_connect_at_once() -> None:
    """Connect in the turn that calls it, as asyncio does.

    A case accepts the connection by a blocking call right after that.
    """
    import uvloop

    genuine = uvloop.Loop.sock_connect

    async def sock_connect(loop: uvloop.Loop, sock: socket.socket, address: Any) -> None:
        if sock.gettimeout() == 0:
            try:
                sock.connect(address)
            except BlockingIOError:
                pass
            else:
                return
        await genuine(loop, sock, address)

    _replace(uvloop.Loop, sock_connect=sock_connect)


def _replace(loop: type, **methods: Any) -> None:
    for name, method in methods.items():
        # A name that the loop does not have would test nothing.
        getattr(loop, name)
        setattr(loop, name, method)


def make_tasks_eager() -> None:
    """Give every loop of asyncio the factory of eager tasks."""
    genuine = asyncio.BaseEventLoop.__init__

    def init(loop: asyncio.BaseEventLoop) -> None:
        genuine(loop)
        loop.set_task_factory(asyncio.eager_task_factory)

    asyncio.BaseEventLoop.__init__ = init
