"""Makes the calls that a test lets fail: `python tests/faults/sender.py RUNTIME`.

A scenario comes as a line of JSON on stdin. All that it needs is opened, and what the descriptors
of each call are called under /proc goes out. On "go" the calls are made, and their outcomes go out.
On "close" all is closed, and what descriptors are left goes out. From "go" on nothing else is done
with these descriptors, so that a fault on them is one in a call.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import io
import json
import os
import socket
import ssl
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import trio
from opened import opened_by_tests

import asend
from asend import _by_kernel
from asend._residency import PageCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Seconds after which a call is taken to hang, and after which the whole process is.
CALL_SECONDS = 5
ALL_SECONDS = 25
BUFFER = 65536
# Where a file is before a call; a call that sends nothing leaves it there.
HOME = 13
# Bytes of a call that the kernel takes at once.
SMALL = 1000
# What is sent after the call, whatever became of that: the connection is still of use.
TAIL = b"and on it goes"


class Call(NamedTuple):
    """What one call sends."""

    path: str
    offset: int
    data: bytes
    file: Any
    progress: Callable[[int], None]


class Op(NamedTuple):
    """A way to send: on what, and how."""

    kind: str
    send: Callable[[Any, Call], Awaitable[int | None]]


class Slow(io.RawIOBase):
    """A file that is no plain descriptor: it has to be read."""

    def __init__(self, path: str) -> None:
        self._file = io.FileIO(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self._file.close()
        super().close()


def _sock_sendall(sock: socket.socket, call: Call) -> Awaitable[None]:
    return asend.sock_sendall(sock, call.data, progress=call.progress)


def _sock_sendall_small(sock: socket.socket, call: Call) -> Awaitable[None]:
    # Nothing is built for it, if there is no progress to be told of.
    return asend.sock_sendall(sock, call.data[:SMALL])


def _sock_sendmsg(sock: socket.socket, call: Call) -> Awaitable[None]:
    blocks = [memoryview(call.data)[at : at + 10_000] for at in range(0, len(call.data), 10_000)]
    return asend.sock_sendmsg(sock, blocks, progress=call.progress)


def _sock_sendfile(sock: socket.socket, call: Call, *, fallback: bool = True) -> Awaitable[int]:
    return asend.sock_sendfile(
        sock, call.file, call.offset, fallback=fallback, progress=call.progress
    )


def _sendall(stream: Any, call: Call) -> Awaitable[None]:
    return asend.sendall(stream, call.data, progress=call.progress)


def _sendall_small(stream: Any, call: Call) -> Awaitable[None]:
    return asend.sendall(stream, call.data[:SMALL])


def _sendfile(stream: Any, call: Call) -> Awaitable[int]:
    return asend.sendfile(stream, call.file, call.offset, progress=call.progress)


OPS = {
    "sock_sendall": Op("socket", _sock_sendall),
    "sock_sendall-small": Op("socket", _sock_sendall_small),
    "sock_sendmsg": Op("socket", _sock_sendmsg),
    "sock_sendfile": Op("socket", _sock_sendfile),
    # Nothing of the file is in the page cache.
    "sock_sendfile-cold": Op("socket", _sock_sendfile),
    "sock_sendfile-or-not": Op("socket", partial(_sock_sendfile, fallback=False)),
    # It is no plain file.
    "sock_sendfile-object": Op("socket", _sock_sendfile),
    "sendall": Op("stream", _sendall),
    "sendall-small": Op("stream", _sendall_small),
    "sendfile": Op("stream", _sendfile),
    "sendall-tls": Op("tls", _sendall),
    "sendfile-tls": Op("tls", _sendfile),
}


def say(message: object) -> None:
    print(json.dumps(message), flush=True)


def hear(word: str) -> None:
    # Not through the event loop: it has nothing to do meanwhile, so that no call of its own fails.
    heard = sys.stdin.readline().strip()
    assert heard == word, heard


def connect(address: list[Any]) -> socket.socket:
    sock = socket.create_connection(tuple(address))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    sock.setblocking(False)
    return sock


async def open_target(kind: str, runtime: str, scenario: dict[str, Any]) -> tuple[Any, int]:
    """Return what a call sends on, and its descriptor."""
    sock = connect(scenario["address"])
    number = sock.fileno()
    if kind == "socket":
        return sock, number
    context = ssl.create_default_context(cafile=scenario["authority"]) if kind == "tls" else None
    if runtime != "trio":
        name = None if context is None else "localhost"
        _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
        return writer, number
    stream: Any = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    if context is not None:
        stream = trio.SSLStream(stream, context, server_hostname="localhost")
        await stream.do_handshake()
    return stream, number


async def close_target(target: Any) -> None:
    if isinstance(target, socket.socket):
        target.close()
    elif isinstance(target, asyncio.StreamWriter):
        target.close()
        # What broke the connection is told here again.
        with suppress(OSError):
            await target.wait_closed()
    else:
        await trio.aclose_forcefully(target)


def open_file(path: str, op: str) -> Any:
    if op == "sock_sendfile-object":
        file: Any = io.BufferedReader(Slow(path))
    else:
        file = open(path, "rb")
    file.seek(HOME)
    if op == "sock_sendfile-cold":
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return file


def is_cold(file: Any) -> bool:
    size = os.fstat(file.fileno()).st_size
    return PageCache().has(file.fileno(), size, 0, size) is False


async def make(op: Op, target: Any, call: Call, told: list[int]) -> dict[str, Any]:
    """Make one call, and say what came of it."""
    # Else it would not ask for what was seen a moment ago.
    _by_kernel._seen.clear()
    outcome: dict[str, Any] = {"errors": [], "number": None, "notes": [], "returned": None}
    with anyio.move_on_after(CALL_SECONDS) as limit:
        try:
            outcome["returned"] = await op.send(target, call)
        except Exception as error:
            outcome["errors"] = [kind.__name__ for kind in type(error).__mro__]
            outcome["number"] = number_of(error)
            outcome["notes"] = getattr(error, "__notes__", [])
    outcome["hangs"] = limit.cancelled_caught
    outcome["progress"] = sum(told)
    return outcome


def number_of(error: BaseException | None) -> int | None:
    """The number that the system gave, if only as the cause."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__
    return None


async def play(scenario: dict[str, Any], runtime: str) -> None:
    op = OPS[scenario["op"]]
    targets, calls, tolds, names = [], [], [], []
    for path, offset in zip(scenario["paths"], scenario["offsets"], strict=True):
        target, number = await open_target(op.kind, runtime, scenario)
        file = open_file(path, scenario["op"])
        with open(path, "rb") as other:
            other.seek(offset)
            # Reading it all would bring it into the page cache.
            data = b"" if "cold" in scenario["op"] else other.read()
        told: list[int] = []
        targets.append(target)
        calls.append(Call(path, offset, data, file, told.append))
        tolds.append(told)
        names.append([os.readlink(f"/proc/self/fd/{number}"), path])
    keeps = "cold" in scenario["op"] and not all(is_cold(call.file) for call in calls)
    say({"names": names, "keeps": keeps})

    hear("go")
    outcomes = [
        await make(op, target, call, told)
        for target, call, told in zip(targets, calls, tolds, strict=True)
    ]
    say(outcomes)

    hear("close")
    positions = []
    for target, call, told in zip(targets, calls, tolds, strict=True):
        positions.append(await settled(call, sum(told) if "sendfile" in scenario["op"] else 0))
        if op.kind == "socket":
            await asend.sock_sendall(target, TAIL)
        elif op.kind == "stream":
            await asend.sendall(target, TAIL)
        await close_target(target)
        call.file.close()
    say(positions)


async def settled(call: Call, sent: int) -> int:
    """Return where the file is; a thread that was just reading sets it a moment later."""
    right, end = call.offset + sent if sent else HOME, time.monotonic() + 1
    while (position := call.file.tell()) != right and time.monotonic() < end:
        await anyio.sleep(0.001)
    return int(position)


async def main(runtime: str) -> None:
    # What the event loop opens when it is first used is not left by a call.
    await anyio.to_thread.run_sync(int)
    say("started")
    while line := sys.stdin.readline():
        faulthandler.dump_traceback_later(ALL_SECONDS, exit=True)
        before = opened_by_tests()
        await play(json.loads(line), runtime)
        # A transport closes its socket some turns later, a thread its file when it has read.
        end = time.monotonic() + 2
        while (left := dict(opened_by_tests() - before)) and time.monotonic() < end:
            await anyio.sleep(0.001)
        faulthandler.cancel_dump_traceback_later()
        say(left)


if __name__ == "__main__":
    # Some systems let only a parent trace a process, or who is named here (PR_SET_PTRACER: anyone).
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
    if sys.argv[1] == "trio":
        trio.run(main, "trio")
    else:
        options = {"use_uvloop": sys.argv[1] == "uvloop"}
        anyio.run(main, sys.argv[1], backend="asyncio", backend_options=options)
