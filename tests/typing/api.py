"""Uses the whole public API with every kind of argument; type-checked, never run."""

from __future__ import annotations

import array
import gzip
import io
import mmap
import socket
import tempfile
from typing import TYPE_CHECKING, assert_type

import asend
from asend import aiohttp as asend_aiohttp
from asend.asgi import SendfileMiddleware
from asend.starlette import FileResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path
    from typing import Any

    import trio
    from aiohttp import web
    from starlette.applications import Starlette


class Reader:
    """A file with nothing but `read`."""

    def read(self, size: int = -1, /) -> bytes:
        return b""


class Counter:
    def update(self, nbytes: float | None = 1) -> bool | None:
        return None


async def sends_buffers(sock: socket.socket) -> None:
    assert_type(await asend.sock_sendall(sock, b"data"), None)
    await asend.sock_sendall(sock, bytearray(b"data"), socket.MSG_OOB)
    await asend.sock_sendall(sock, memoryview(b"data").cast("H"), flags=0)
    await asend.sock_sendall(sock, array.array("i", [1, 2]), timeout=None)
    with mmap.mmap(-1, 10) as mapped:
        await asend.sock_sendall(sock, mapped, timeout=5)
    await asend.sock_sendall(
        sock, b"data", timeout=0.5, limits=asend.Limits(), progress=Counter().update
    )
    await asend.sock_sendall(sock, "text")  # type: ignore[arg-type]  # no bytes
    await asend.sock_sendall(sock, b"data", timeout="5")  # type: ignore[arg-type]  # no number
    await asend.sock_sendall(sock, b"data", progress=5)  # type: ignore[arg-type]  # not callable
    await asend.sock_sendall(sock, b"data", 0, 5)  # type: ignore[call-arg]  # only by name
    await asend.sock_sendall(sock.fileno(), b"data")  # type: ignore[arg-type]  # no socket


def pieces() -> Iterator[bytes | memoryview]:
    yield b"one"
    yield memoryview(b"two")


async def sends_vectors(sock: socket.socket) -> None:
    assert_type(await asend.sock_sendmsg(sock, [b"one", b"two"]), None)
    await asend.sock_sendmsg(sock, (b"one", bytearray(b"two")), ())
    await asend.sock_sendmsg(sock, pieces(), [], 0)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))]
    await asend.sock_sendmsg(
        sock,
        [b"one"],
        rights,
        socket.MSG_NOSIGNAL,
        timeout=1,
        limits=asend.Limits(stall=1),
        progress=print,
    )
    await asend.sock_sendmsg(sock, ancdata=[(1, 2, b"")], flags=0, buffers=[])
    await asend.sock_sendmsg(sock, "text")  # type: ignore[arg-type]  # no buffers
    await asend.sock_sendmsg(sock, [b"one"], [(1, 2)])  # type: ignore[list-item]  # no data


async def sends_files(sock: socket.socket, path: Path) -> None:
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        assert_type(await asend.sock_sendfile(sock, buffered), int)
        await asend.sock_sendfile(sock, raw, 5, 10)
    with path.open("r+b") as both:
        await asend.sock_sendfile(sock, both, offset=5, count=None)
    with gzip.open(path) as compressed:
        await asend.sock_sendfile(sock, compressed, fallback=True)
    with tempfile.TemporaryFile() as temporary, tempfile.NamedTemporaryFile() as named:
        await asend.sock_sendfile(sock, temporary)
        await asend.sock_sendfile(sock, named, fallback=False)
    with tempfile.SpooledTemporaryFile() as spooled:
        await asend.sock_sendfile(sock, spooled)
    await asend.sock_sendfile(sock, io.BytesIO(b"data"))
    await asend.sock_sendfile(
        sock,
        Reader(),
        timeout=30.0,
        limits=asend.Limits(min_rate=1000, grace=1),
        progress=lambda nbytes: None,
    )
    with path.open() as text:
        await asend.sock_sendfile(sock, text)  # type: ignore[arg-type]  # it reads str
    await asend.sock_sendfile(sock, path)  # type: ignore[arg-type]  # no file object
    await asend.sock_sendfile(sock, Reader(), 0, None, False)  # type: ignore[call-arg]  # only by name


async def sends_on_trio_sockets(sock: trio.socket.SocketType) -> None:
    await asend.sock_sendall(sock, b"data")
    await asend.sock_sendmsg(sock, [b"data"])
    assert_type(await asend.sock_sendfile(sock, Reader()), int)


def keeps_limits() -> None:
    limits = asend.Limits(stall=1, min_rate=2.5, grace=0)
    assert_type(limits.stall, float | None)
    assert_type(limits.min_rate, float | None)
    assert_type(limits.grace, float)
    asend.Limits(None, None, 5.0)
    asend.Limits(grace=None)  # type: ignore[arg-type]  # no number
    asend.Limits(stall="1")  # type: ignore[arg-type]  # no number
    limits.stall = 5  # type: ignore[misc]  # it is frozen


async def catches_errors(sock: socket.socket) -> None:
    try:
        await asend.sock_sendfile(sock, Reader(), fallback=False)
    except asend.SendfileNotAvailableError as error:
        runtime_error: RuntimeError = error
        raise runtime_error from None
    except asend.BusyResourceError as error:
        assert_type(error.__notes__, list[str])
        runtime_error = error
        raise runtime_error from None


def is_passed_on() -> None:
    send: Callable[[socket.socket, bytes], Coroutine[Any, Any, None]] = asend.sock_sendall
    version: str = asend.__version__
    print(send, version)


async def serves_files(app: Starlette, path: Path) -> None:
    SendfileMiddleware(app)
    SendfileMiddleware(SendfileMiddleware(FileResponse(path)), timeout=5, limits=None)
    FileResponse(str(path), 404, {"Cache-Control": "no-cache"}, filename="name.txt")
    FileResponse(path, timeout=60.0, limits=asend.Limits(stall=5), progress=Counter().update)


def serves_files_in_aiohttp(app: web.Application, path: Path) -> list[web.StreamResponse]:
    cache = asend_aiohttp.FileCache(most=10, seconds=0.5, largest=1 << 16)
    asend_aiohttp.add_static(app.router, "/one", path, show_index=True, limits=None, cache=cache)
    app.add_routes([asend_aiohttp.static("/two", path, timeout=60.0)])
    return [
        asend_aiohttp.FileResponse(path),
        asend_aiohttp.FileResponse(
            str(path),
            status=404,
            timeout=60,
            limits=asend.Limits(stall=5),
            progress=Counter().update,
        ),
    ]
