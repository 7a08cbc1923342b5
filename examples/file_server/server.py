"""One serving process: it accepts connections until it is told to stop, and stops in two steps."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import resource
import socket
import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from files import most_kept
from listeners import BACKLOG
from options import DEFAULTS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from options import Options
    from service import Service

# Accepted in a row at most, until other callbacks of the loop have their turn.
ACCEPTED_AT_ONCE = 100
# A connection has its socket, and while it is sent a file that, and a second descriptor of each.
DESCRIPTORS_EACH = 4
# For all else, besides the files that are kept open.
DESCRIPTORS_LEFT = 64
# Of which nobody need be told that there could be more of them.
MANY = 1000
# asyncio complains once for each client that it cannot accept: this often is enough.
COMPLAINT_SECONDS = 60
# For threads to end that have nothing to do any more.
THREADS_SECONDS = 1.0

logger = logging.getLogger("file_server")


class Stop:
    """What tells a server to stop: gracefully, then at once."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.at_once = asyncio.Event()

    def step(self) -> None:
        """Stop gracefully, or at once where that has begun. For signals."""
        (self.at_once if self.begun.is_set() else self.begun).set()

    def begin(self) -> None:
        """Stop gracefully, however often that is said."""
        self.begun.set()

    def hurry(self) -> None:
        """Stop at once."""
        self.begun.set()
        self.at_once.set()


async def serve(
    sockets: list[socket.socket],
    service: Service,
    options: Options,
    tls: ssl.SSLContext | None,
    stop: Stop,
) -> int:
    """Serve on listening sockets, which are closed when the stop begins.

    Returns:
        How many responses were aborted in the end.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(complain_seldom())
    service.start()
    servers = [await _accepting(sock, service, options, tls) for sock in sockets]
    await stop.begun.wait()
    for server in servers:
        # Not waited for: that would be for the connections too, which have a time limit.
        server.close()
    try:
        return await _stopped(service, options.stop_timeout, stop)
    finally:
        service.close()


def leave_stuck_threads() -> None:
    """End the process here if a thread waits for a disk: Python would wait for it, without end."""
    moment = monotonic() + THREADS_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, moment - monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                os._exit(0)


async def _accepting(
    sock: socket.socket, service: Service, options: Options, tls: ssl.SSLContext | None
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    more: dict[str, Any] = {"backlog": ACCEPTED_AT_ONCE}
    if tls is not None:
        more |= {"ssl": tls, "ssl_handshake_timeout": options.header_timeout}
    if sock.family == socket.AF_UNIX and not isinstance(loop, asyncio.SelectorEventLoop):
        # The path is not the loop's to remove: others may accept there, now or next.
        more["cleanup_socket"] = False
        server = await loop.create_unix_server(service.connect, sock=sock, **more)
    else:
        # asyncio's takes UNIX sockets too, and leaves their path alone.
        server = await loop.create_server(service.connect, sock=sock, **more)
    # To asyncio a backlog is also how often to accept in a row. The last listen() counts.
    sock.listen(BACKLOG)
    return server


async def _stopped(service: Service, seconds: float, stop: Stop) -> int:
    graceful = asyncio.ensure_future(service.stop(seconds))
    impatient = asyncio.ensure_future(stop.at_once.wait())
    await asyncio.wait([graceful, impatient], return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if graceful.done():
        return graceful.result()
    graceful.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await graceful
    return await service.stop(0)


def loop_factory(name: str) -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """Return what makes event loops, and which ones: "auto" is uvloop where that is installed.

    Raises:
        ImportError: uvloop is asked for, and is not installed.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise
        else:
            return uvloop.new_event_loop, "uvloop"
    return asyncio.new_event_loop, "asyncio"


def fit_open_files(options: Options) -> tuple[Options, str | None]:
    """Raise this process's limit of open files, and lower the connections to what it allows.

    Returns:
        The options, and a line for the user if they had to change.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no limit, and has one.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        limit = most
    fitting = max(1, (limit - most_kept(limit) - DESCRIPTORS_LEFT) // DESCRIPTORS_EACH)
    wanted = options.max_connections
    if limit == resource.RLIM_INFINITY or wanted <= fitting:
        return options, None
    options = dataclasses.replace(options, max_connections=fitting)
    if wanted == DEFAULTS.max_connections and fitting >= MANY:
        # Nobody has asked for more.
        return options, None
    note = f"at most {fitting} connections, as {limit} open files are allowed"
    return options, note


def complain_seldom() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return an exception handler that says now and then that clients cannot be accepted.

    asyncio says so for each of them, and tries again after a second. uvloop closes them instead,
    and says nothing.
    """
    silent_until = 0.0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal silent_until
        if context["message"] == "socket.accept() out of system resource":
            if monotonic() >= silent_until:
                silent_until = monotonic() + COMPLAINT_SECONDS
                logger.warning("cannot accept: %s", context["exception"])
        # That it tries again on a socket that was closed meanwhile is nothing to be told.
        elif "_start_serving" not in context["message"]:
            loop.default_exception_handler(context)

    return handle
