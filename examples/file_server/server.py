"""The listening socket, and how many connections are served at a time."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from connection import refuse_connection, serve_connection

if TYPE_CHECKING:
    from typing import NoReturn

# Each connection needs a descriptor or two; 1024 of them is what many systems allow.
MAX_CONNECTIONS = 1000
# Seconds until accepting is tried again after an error, such as too many open files.
ACCEPT_PAUSE = 0.1

logger = logging.getLogger("file_server")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket for a host name or an address of IPv4 or IPv6.

    Raises:
        OSError: The name is unknown, or the address is taken, foreign or not permitted.
        UnicodeError: The name cannot be one.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    # On POSIX systems create_server() sets SO_REUSEADDR.
    listener = socket.create_server((host, port), family=family, backlog=1024)
    listener.setblocking(False)
    return listener


async def serve(listener: socket.socket, root: str) -> NoReturn:
    """Serve the folder `root`, an absolute path without symlinks, until cancelled.

    Cancellation closes all connections.
    """
    async with asyncio.TaskGroup() as group:
        connections: set[asyncio.Task[None]] = set()
        while True:
            sock = await _accept(listener)
            _start(group, connections, sock, root)


def _start(
    group: asyncio.TaskGroup,
    connections: set[asyncio.Task[None]],
    sock: socket.socket,
    root: str,
) -> None:
    is_full = len(connections) >= MAX_CONNECTIONS
    task = group.create_task(refuse_connection(sock) if is_full else serve_connection(sock, root))
    if not is_full:
        connections.add(task)

    def finish(task: asyncio.Task[None]) -> None:
        # Not in the coroutine, which never runs if it is cancelled before its first step.
        connections.discard(task)
        sock.close()

    task.add_done_callback(finish)


async def _accept(listener: socket.socket) -> socket.socket:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, _ = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            # The connection is still in the queue: to go on at once would be to spin.
            logger.warning("cannot accept: %s", error)
            await asyncio.sleep(ACCEPT_PAUSE)
        else:
            return sock
