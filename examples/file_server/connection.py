"""One connection: requests are read and answered in turn, and no wait is without a limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from http import HTTPStatus

import asend
from messages import Request, RequestParser, Response, text_response
from resources import respond

# Seconds for a request to come in, from its first byte on (for the first one: from accepting on).
HEADER_SECONDS = 10.0
# Seconds without a byte of a next request.
IDLE_SECONDS = 15.0
# Seconds for a header, and for a body that is in memory.
SHORT_SECONDS = 60.0
# A file may take as long as it needs, while the client goes on reading.
BODY_LIMITS = asend.Limits(stall=60)
# Seconds for a client to read the last response.
LINGER_SECONDS = 1.0

# Linux only: holds a header back until the first bytes of the file, so that they share a packet.
MSG_MORE = getattr(socket, "MSG_MORE", 0)

logger = logging.getLogger("file_server")


async def serve_connection(sock: socket.socket, root: str) -> None:
    """Answer requests until either side ends the connection. The caller closes the socket."""
    try:
        await _answer_requests(sock, root)
    except (ConnectionError, TimeoutError):
        pass  # Clients go away, and slow ones are left: nothing to be told about.
    except Exception:  # it ends this connection, not the server
        logger.exception("a connection ended by an error")


async def refuse_connection(sock: socket.socket) -> None:
    """Answer 503 to whatever is asked. The caller closes the socket."""
    response = text_response(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="5")
    with contextlib.suppress(OSError):
        await _send(sock, response, Request())
        await _linger(sock)


async def _answer_requests(sock: socket.socket, root: str) -> None:
    parser = RequestParser()
    patience = HEADER_SECONDS
    while (request := await _read_request(sock, parser, patience)) is not None:
        response = await _respond(root, request)
        try:
            is_complete = await _send(sock, response, request)
        finally:
            if response.file is not None:
                response.file.close()
        # After less than was promised, nothing that follows would be taken for what it is.
        if not (is_complete and request.keep_alive):
            await _linger(sock)
            return
        patience = IDLE_SECONDS


async def _read_request(
    sock: socket.socket, parser: RequestParser, patience: float
) -> Request | None:
    """Return the next request, or None if the client has closed."""
    loop = asyncio.get_running_loop()
    begun = False
    async with asyncio.timeout(patience) as limit:
        while not parser.requests:
            data = await loop.sock_recv(sock, parser.room)
            if not data:
                return None
            if not begun:
                begun = True
                limit.reschedule(loop.time() + HEADER_SECONDS)
            parser.feed(data)
    return parser.requests.popleft()


async def _respond(root: str, request: Request) -> Response:
    """Look for the resource in a worker thread, as disks can be slow."""
    task = asyncio.create_task(asyncio.to_thread(respond, root, request))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # A thread cannot be cancelled, and the file that it opens has to be closed.
        response = await task
        if response.file is not None:
            response.file.close()
        raise


async def _send(sock: socket.socket, response: Response, request: Request) -> bool:
    """Send a response, and tell whether all that its header promises was sent."""
    head = response.head(request.keep_alive)
    if request.method == "HEAD":
        await asend.sock_sendall(sock, head, timeout=SHORT_SECONDS)
        return True
    if response.file is None or response.count == 0:
        await asend.sock_sendall(sock, head + response.body, timeout=SHORT_SECONDS)
        return True
    await asend.sock_sendall(sock, head, MSG_MORE, timeout=SHORT_SECONDS)
    sent = await asend.sock_sendfile(
        sock, response.file, response.offset, response.count, limits=BODY_LIMITS
    )
    return sent == response.count


async def _linger(sock: socket.socket) -> None:
    """Read on for a moment: input that nobody read makes close() reset what was sent."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS):
            while await loop.sock_recv(sock, 64 * 1024):
                pass
