"""One connection: what comes on it, whose turn it is, and how it ends. No wait is without a limit.

Small files are answered in the very callback that brings the request. All else is an exchange in a
task, one at a time; what the client sends meanwhile waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from asend.http import TruncatedError
from exchange import Exchange
from parser import Request, RequestParser
from responses import text_response

if TYPE_CHECKING:
    from service import Service

# Parsed at a time: more requests than come in so many bytes need not be held.
FEED_NBYTES = 16 * 1024
# Answers to pipelined requests that are written before the client has to read.
MAX_PIPELINED = 256 * 1024
# Seconds for a client to read the last response, whose end it may not know else.
LINGER_SECONDS = 2.0
# Linux; Python has no name for it. Socket option: bytes per second that leave.
SO_MAX_PACING_RATE = 47
# What the option takes as an int.
MAX_RATE = 2**31 - 1
# For SO_LINGER: closing resets the connection.
RESET = struct.pack("ii", 1, 0)

logger = logging.getLogger("file_server")


class Connection(asyncio.Protocol):
    """One client.

    Attributes:
        deadline: When it has to be ended if nothing has happened, by the service's clock.
    """

    __slots__ = (
        "_client",
        "_has_ended",
        "_is_full",
        "_is_last",
        "_last_until",
        "_parser",
        "_service",
        "_task",
        "_transport",
        "_unread",
        "deadline",
    )

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parser = RequestParser(service.options.max_header, service.known)
        self._transport: asyncio.Transport
        self._client = ""
        # What came while a response was under way.
        self._unread = b""
        self._task: asyncio.Task[None] | None = None
        # Whether the client has to read before it is written more.
        self._is_full = False
        # The client has nothing more to say.
        self._has_ended = False
        # When what was written at last has to be gone.
        self._last_until = 0.0
        # Nothing is read any more but to see the client's end.
        self._is_last = False
        self.deadline = service.now() + service.options.header_timeout

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by their class.
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) else ""
        if not self._service.opened(self):
            self._drop("too many", HTTPStatus.SERVICE_UNAVAILABLE)
            # Not waited for: who is not served must not take the place of others.
            transport.close()
        elif self._service.options.rate is not None:
            self._pace(self._service.options.rate)
        if self._service.is_stopping:
            transport.close()

    def _pace(self, rate: int) -> None:
        sock = self._transport.get_extra_info("socket")
        # A UNIX socket has no pace.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, min(rate, MAX_RATE))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_last = True
        self._service.closed(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        if self._task is None and not self._is_full and len(data) <= FEED_NBYTES:
            self._feed(data)
        else:
            self._unread += data
            self._read_on()

    def eof_received(self) -> bool:
        self._has_ended = True
        # Who has nothing more to ask may still want to read; TLS has no such end.
        may_read = self._task is not None or self._is_full
        return may_read and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        self._is_full = True
        self._wait()

    def resume_writing(self) -> None:
        self._is_full = False
        if self._task is None and not self._is_last:
            # Not in here, where asyncio is still writing: a write that fails would end it twice.
            asyncio.get_running_loop().call_soon(self._read_on)

    # What the service calls.

    def expire(self) -> None:
        """End the connection, as its deadline has passed."""
        has_unsent = self._transport.get_write_buffer_size() > 0
        if self._is_last and has_unsent and self._service.now() < self._last_until:
            # Answers that are in memory; asend looks at all others.
            self.deadline = self._service.now() + LINGER_SECONDS
        elif self._is_last or self._is_full:
            if has_unsent:
                self._count("slow reader")
                self._reset()
            else:
                self.abort()
        elif self._parser.is_within:
            self._drop("slow header", HTTPStatus.REQUEST_TIMEOUT)
        elif has_unsent:
            self._finish()
        else:
            self._transport.close()

    @property
    def is_busy(self) -> bool:
        """Whether there is a response that has not gone."""
        return self._task is not None or self._transport.get_write_buffer_size() > 0

    def stop(self) -> None:
        """End the connection with the response that is under way, if there is one."""
        if self._task is None and not self._is_last:
            self._finish()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _reset(self) -> None:
        """End the connection at once, and forget what the kernel has for its client.

        It may have some MB, and would keep them for as long as a client likes that reads a byte now
        and then.
        """
        sock = self._transport.get_extra_info("socket")
        # The client may have gone (no socket, and ValueError: uvloop).
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.abort()

    # Requests.

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        was_within = parser.is_within
        parser.feed(data)
        if parser.requests:
            self._answer()
            self._wait()
        elif not was_within:
            # From the first byte on: bytes that trickle in after it win no time.
            self._wait()

    def _wait(self) -> None:
        """Have all that is waited for come in time."""
        if self._is_last or self._task is not None:
            return
        options = self._service.options
        if self._is_full:
            self.deadline = self._service.now() + options.stall
        elif self._parser.is_within:
            self.deadline = self._service.now() + options.header_timeout
        else:
            self.deadline = self._service.now() + options.keep_alive

    def _answer(self) -> None:
        """Answer what was asked, up to what takes a task, or till the client has to read."""
        requests, service, transport = self._parser.requests, self._service, self._transport
        if self._task is not None:
            return
        while requests and not self._is_full and not self._is_last:
            request = requests.popleft()
            ready = None
            if request.is_plain and request.keep_alive and not service.is_stopping:
                ready = service.folder.ready(request, service.date)
            if ready is None or (requests and transport.get_write_buffer_size() > MAX_PIPELINED):
                self._task = asyncio.ensure_future(self._respond(request))
                # Its limits are those of what it sends.
                service.waiting.discard(self)
                return
            whole, nbytes = ready
            transport.write(whole)
            service.activity.answered(self._client, request, 200, nbytes)
            if requests and transport.is_closing():
                # The client has gone: asyncio would complain of each further one in the log.
                requests.clear()

    def _read_on(self) -> None:
        """Go on with what was asked during a response, then with what came, then with reading."""
        self._answer()
        while self._unread and self._is_waiting:
            data, self._unread = self._unread[:FEED_NBYTES], self._unread[FEED_NBYTES:]
            self._feed(data)
        self._wait()
        if self._is_last or self._transport.is_closing():
            return
        if not self._is_waiting:
            if self._unread:
                self._transport.pause_reading()
        elif self._has_ended or self._service.is_stopping:
            self._finish()
        else:
            self._transport.resume_reading()

    @property
    def _is_waiting(self) -> bool:
        return self._task is None and not self._is_full and not self._is_last

    async def _respond(self, request: Request) -> None:
        may_follow = False
        if request.error is not None:
            self._count("malformed")
        try:
            exchange = Exchange(self._service, self._transport, self._client, request)
            may_follow = await exchange.run()
        except TruncatedError as error:
            # After less than was promised, nothing that follows would be taken for what it is.
            logger.warning("%s: %s", request.target.decode("ascii", "replace"), error)
            self.abort()
        except Exception as error:  # it ends this connection, not the server
            # Of a file it has a number.
            if isinstance(error, TimeoutError) and error.errno is None:
                self._count("slow reader")
                self._reset()
            elif not (isinstance(error, ConnectionError) or self._transport.is_closing()):
                logger.exception("a connection was ended by an error")
            self.abort()
        finally:
            self._task = None
            if self in self._service.connections:
                self._service.waiting.add(self)
        if may_follow:
            self._read_on()
        else:
            self._finish()

    def _drop(self, reason: str, status: HTTPStatus) -> None:
        """Refuse what comes from this client, and count it."""
        self._count(reason)
        response = text_response(status)
        self._transport.write(response.head(keep_alive=False) + response.body)
        self._service.activity.answered(
            self._client, Request(error=status), status, len(response.body)
        )
        self._finish()

    def _finish(self) -> None:
        """End the connection after what was written; input that is not read would reset it."""
        self._is_last = True
        self._unread = b""
        self._parser.requests.clear()
        transport, now = self._transport, self._service.now()
        # For what was written and has not gone; of TLS nobody can tell how much that is.
        self._last_until = now + self._service.options.stall
        can_write_eof = transport.can_write_eof()
        self.deadline = now + LINGER_SECONDS if can_write_eof else self._last_until
        if transport.is_closing():
            return
        if can_write_eof and not self._has_ended:
            # The client may have reset the connection, which asyncio has yet to find out.
            with contextlib.suppress(OSError):
                transport.write_eof()
            transport.resume_reading()
        else:
            transport.close()

    # Accounts.

    def _count(self, reason: str) -> None:
        self._service.activity.dropped[reason] += 1
