"""Servers that send on each connection by one call: `with sending(way, stall, path) as server`.

They know three requests: for `/data`, which is sent for as long as the client reads, `/echo`, a
small answer on the same event loop, and `/status`. Each is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import socket
import struct
import sys
from asyncio import get_running_loop
from collections import Counter
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import uvloop

import asend

from ..receivers import allow_files
from ..servers import Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator

ECHO = b"the loop is awake\n"
# Small, so that those who wait do so for the client and not with half a MB on the way to it; and
# that the one who reads 20 KB/s wakes its sender now and then.
_SEND_BUFFER = 16 * 1024
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
# Bytes per second, which stalled clients break later than the other limit.
_MIN_RATE = 1000
_BACKLOG = 4096
_MOST_FILES = 1 << 20
# Descriptors of a call: the socket, and asend's own of it; a file that all share, and asend's.
DESCRIPTORS = {"sock_sendall": 2, "sock_sendfile": 3}
# In the end the connection is reset: what is on the way would wait in the kernel for its client.
_RESET = struct.pack("ii", 1, 0)

_Send: TypeAlias = Callable[[socket.socket, FileIO, bytes, asend.Limits], Awaitable[object]]


async def _all_by_asend(
    sock: socket.socket, file: FileIO, data: bytes, limits: asend.Limits
) -> None:
    await asend.sock_sendall(sock, data, limits=limits)


async def _file_by_asend(
    sock: socket.socket, file: FileIO, data: bytes, limits: asend.Limits
) -> None:
    await asend.sock_sendfile(sock, file, limits=limits)


async def _all_by_loop(
    sock: socket.socket, file: FileIO, data: bytes, limits: asend.Limits
) -> None:
    await get_running_loop().sock_sendall(sock, data)


async def _file_by_loop(
    sock: socket.socket, file: FileIO, data: bytes, limits: asend.Limits
) -> None:
    await get_running_loop().sock_sendfile(sock, file)


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
# By what is sent, and by the name of the arm; uvloop's loop has no sock_sendfile.
WAYS: dict[str, dict[str, tuple[str, _Send]]] = {
    "sock_sendall": {
        **{f"asend, {loop}": (loop, _all_by_asend) for loop in LOOPS},
        **{f"loop.sock_sendall, {loop}": (loop, _all_by_loop) for loop in LOOPS},
    },
    "sock_sendfile": {
        **{f"asend, {loop}": (loop, _file_by_asend) for loop in LOOPS},
        "loop.sock_sendfile, asyncio": ("asyncio", _file_by_loop),
    },
}


@contextlib.contextmanager
def sending(call: str, arm: str, stall: float, path: Path) -> Iterator[Server]:
    """Run a server while the context is open.

    Args:
        stall: Of the limits, where calls have some.
        path: Of the file that is sent, or its content.
    """
    command = [sys.executable, "-m", __name__, call, arm, str(stall), str(path)]
    with running(command) as process:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))


def status(server: Server) -> dict[str, Any]:
    """Ask a server what has become of its calls.

    Returns:
        `pending`, how many still send; `late`, for each that has broken its limit the seconds by
        which it was too late for that; `others`, the errors of all that have ended else.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/status")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found


class _Senders:
    """All connections of a process."""

    def __init__(self, send: _Send, stall: float, path: Path) -> None:
        self._send = send
        self._limits = asend.Limits(stall, _MIN_RATE)
        self._stall = stall
        self._file = FileIO(path)
        self._data = path.read_bytes()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._late: list[float] = []
        self._others: Counter[str] = Counter()

    async def accept(self, listener: socket.socket) -> None:
        loop = get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = loop.create_task(self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        loop = get_running_loop()
        with sock:
            while request := await loop.sock_recv(sock, 4096):
                if request.startswith(b"GET /data "):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    await loop.sock_sendall(sock, _HEAD % len(self._data))
                    await self._send_data(sock)
                    return
                is_echo = request.startswith(b"GET /echo ")
                body = ECHO if is_echo else self._status()
                await loop.sock_sendall(sock, _HEAD % len(body) + body)

    async def _send_data(self, sock: socket.socket) -> None:
        loop = get_running_loop()
        # Of a client that reads nothing: all that it ever takes is taken now.
        began = loop.time()
        self._pending += 1
        try:
            await self._send(sock, self._file, self._data, self._limits)
        except TimeoutError:
            self._late.append(loop.time() - began - self._stall)
        except OSError as error:
            self._others[repr(error)] += 1
        finally:
            self._pending -= 1

    def _status(self) -> bytes:
        found = {"pending": self._pending, "late": self._late, "others": self._others}
        return json.dumps(found).encode()


async def _run(send: _Send, stall: float, path: Path) -> None:
    with socket.socket() as listener:
        # Connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        print(listener.getsockname()[1], flush=True)
        await _Senders(send, stall, path).accept(listener)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("call", choices=WAYS)
    parser.add_argument("arm")
    parser.add_argument("stall", type=float)
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    allow_files(_MOST_FILES)
    loop, send = WAYS[arguments.call][arguments.arm]
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(_run(send, arguments.stall, arguments.path))


if __name__ == "__main__":
    _main()
