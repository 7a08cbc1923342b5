"""The body of an ASGI response that is a file, or parts of one, on its way to the client.

The bytes go out by `asend.sendfile`: on the server's transport where it can be reached, else on a
stream that makes messages of them.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from typing import TYPE_CHECKING, Final, TypeAlias

from ._failures import Progress, in_short
from ._limits import Deadline
from .http import TruncatedError
from .streams import sendall, sendfile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
    from typing import Any, Protocol

    from ._arguments import BinaryFile
    from ._limits import Limits
    from ._uvicorn import Connection
    from .http import OpenFile, Part

    Message: TypeAlias = MutableMapping[str, object]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]

    class Call(Protocol):
        """What sends some bytes on a stream, and returns how many there were."""

        def __call__(
            self,
            stream: object,
            *,
            timeout: float | None,
            limits: Limits | None,
            progress: Callable[[int], object] | None,
        ) -> Coroutine[None, None, int | None]: ...


BODY: Final = "http.response.body"

# Up to here it costs less to read a file and send it with the head than to send it by itself.
# uvicorn on asyncio, 64 KiB: 2 system calls, not 3; above, `os.sendfile` saves more in copying.
_SMALL: Final = 65536

logger: Final = logging.getLogger("asend.asgi")


class Sending:
    """One message that is a file, or parts of it, on its way to the client."""

    def __init__(
        self,
        connection: Connection | None,
        send: Send,
        begin: Callable[[], Awaitable[None]],
        name: object,
        timeout: float | None,
        limits: Limits | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._connection = connection
        self._send = send
        self._begin = begin
        self._name = name
        self._deadline = Deadline(timeout)
        self._limits = limits
        # Where there is no connection to end nobody asks whose error it is.
        if progress is not None and connection is not None:
            progress = Progress(progress)
        self._progress = progress

    async def run(self, calls: Iterable[tuple[int, Call]], *, more: bool) -> None:
        """Send it; where it fails end the connection, as the client cannot know otherwise."""
        connection = self._connection
        if connection is None:
            await self._send_all(calls, more=more)
            return
        if connection.is_lost:
            # As uvicorn does when it is given a message then. It may not have heard of it yet.
            connection.abort()
            return
        await self.guard(self._send_all(calls, more=more), connection)

    async def guard(self, sending: Awaitable[None], connection: Connection) -> None:
        """Await what sends; where it fails end the connection."""
        try:
            await sending
        except BaseException as error:  # cancelled, too: the peer was promised more
            was_lost = connection.is_lost
            if isinstance(self._progress, Progress) and self._progress.has_raised(error):
                connection.abort()
                raise
            connection.end(error)
            is_quiet = isinstance(error, (OSError, TruncatedError)) or (
                # What asend says of a transport that uvicorn closes, or writes to, meanwhile.
                was_lost and isinstance(error, RuntimeError)
            )
            if not is_quiet:
                raise
            self._log(error)

    async def _send_all(self, calls: Iterable[tuple[int, Call]], *, more: bool) -> None:
        if self._connection is not None and self._connection.is_full:
            # uvicorn waits without a limit.
            await self._call(partial(sendall, data=b""), self._connection.transport)
        await self._begin()
        for nbytes, call in calls:
            sent = await self._carry(nbytes, call)
            if sent is not None and sent < nbytes:
                raise TruncatedError(f"the file ended early: {sent} of {nbytes} bytes sent")
        # Without bytes of its own it is only to tell the server.
        await self._send(body(b"", more=more))

    async def send_together(self, connection: Connection, head: Message, content: bytes) -> None:
        """Send the head and all of the body in one piece, not one each."""
        pieces = [await connection.written(self._send, head)]
        before, after = connection.claim(len(content))
        pieces += [before, content, after]
        await self._call(partial(sendall, data=b"".join(pieces)), connection.transport)
        await self._send(body(b"", more=False))

    async def _carry(self, nbytes: int, call: Call) -> int | None:
        connection = self._connection
        if connection is None:
            return await self._call(call, _message_streams()(self._send))
        before, after = connection.claim(nbytes)
        if before:
            connection.transport.write(before)
        sent = await self._call(call, connection.transport)
        if after and sent in (None, nbytes):
            connection.transport.write(after)
        return sent

    async def _call(self, call: Call, stream: object) -> int | None:
        left = self._deadline.left()
        return await call(stream, timeout=left, limits=self._limits, progress=self._progress)

    def _log(self, error: BaseException) -> None:
        is_of_file = isinstance(error, TruncatedError) or not isinstance(
            error, (ConnectionError, TimeoutError, RuntimeError)
        )
        level = logging.WARNING if is_of_file else logging.INFO
        logger.log(level, "%s: %s", self._name, in_short(error))


def call_of(file: BinaryFile, part: Part) -> tuple[int, Call]:
    if isinstance(part, bytes):
        return len(part), partial(sendall, data=part)
    first, end = part
    return end - first, partial(sendfile, file=file, offset=first, count=end - first)


def read_now(file: OpenFile, parts: list[Part]) -> bytes | None:
    """Return a small body if it can be had without waiting."""
    blocks = []
    left = _SMALL
    for part in parts:
        left -= len(part) if isinstance(part, bytes) else part[1] - part[0]
        if left < 0:
            return None
        block = part if isinstance(part, bytes) else file.read_now(part[0], part[1] - part[0])
        if block is None:
            return None
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def body(content: bytes, *, more: bool) -> Message:
    return {"type": BODY, "body": content, "more_body": more}


@cache
def _message_streams() -> type[Any]:
    # Only where messages are all that there is: `asend.sendfile` needs anyio for such streams.
    from anyio.abc import ByteSendStream

    class MessageStream(ByteSendStream):
        """Makes messages of blocks."""

        def __init__(self, send: Send) -> None:
            self._send = send

        async def send(self, item: bytes) -> None:
            await self._send(body(item, more=True))

        async def aclose(self) -> None:
            """The end of the body is a message of its own."""

    return MessageStream
