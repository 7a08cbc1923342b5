"""One response of an ASGI application, of which some messages are files: these are sent here.

A response that announces its length is not begun before there is something of it to send, so that
a file that is missing is still an error to the client, and a small one leaves with its head.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from ._bodies import BODY, Sending, call_of, read_now
from ._descriptors import ZEROCOPYSEND, NamedDescriptor
from ._lookups import open_file
from ._uvicorn import connection_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._arguments import BinaryFile
    from ._bodies import Message, Send
    from ._limits import Limits
    from .http import OpenFile, Part


START: Final = "http.response.start"
PATHSEND: Final = "http.response.pathsend"
# The key by which a `pathsend` offered here is known, and by which it may have a `FileBody`.
OURS: Final = "asend"


@dataclass(frozen=True, slots=True)
class FileBody:
    """What a `pathsend` message may have besides of the path: which parts, and how.

    Attributes:
        file: The file.
        parts: The body.
        timeout: Seconds for all of it; None: what the middleware has.
        limits: The same of the pace.
        progress: Called with each number of bytes of the body that the kernel took.
    """

    file: OpenFile
    parts: list[Part]
    timeout: float | None = None
    limits: Limits | None = None
    progress: Callable[[int], object] | None = None


class Response:
    """What stands between an application and its server for one request.

    Args:
        method: Of the request.
        send: The server's.
        timeout: The seconds that one message may take.
        limits: The pace that the client has to keep.
    """

    __slots__ = (
        "_connection",
        "_has_body",
        "_has_path",
        "_head",
        "_is_complete",
        "_is_head",
        "_is_held",
        "_length",
        "_limits",
        "_timeout",
        "_to_server",
    )

    def __init__(
        self, method: object, send: Send, timeout: float | None, limits: Limits | None
    ) -> None:
        self._to_server = send
        self._connection = connection_of(send)
        self._is_head = method == "HEAD"
        self._timeout = timeout
        self._limits = limits
        # The first message, and what it says of the length.
        self._head: Message | None = None
        self._length: int | None = None
        self._is_held = False
        self._has_body = False
        self._has_path = False
        self._is_complete = False

    async def send(self, message: Message) -> None:
        """Take a message of the application.

        Raises:
            RuntimeError: The application may not send this one, or not now; or the file that it
                names cannot be sent. Nothing was sent of it.
            Exception: What the server's own raises; and where its connection cannot be reached,
                TimeoutError of a client that is too slow.
        """
        kind = message["type"]
        if kind == PATHSEND:
            await self._send_path(message)
        elif kind == ZEROCOPYSEND:
            await self._send_descriptor(message)
        elif kind == START and self._head is None:
            # What it says now: the application may use both again for something else.
            self._head = {**message, "headers": [*_headers_of(message)]}
            self._length = _length_of(self._head)
            self._is_held = self._length is not None
            if not self._is_held:
                await self._to_server(self._head)
        else:
            if kind == BODY:
                self._check_path(kind)
                self._has_body = True
                self._is_complete = not message.get("more_body", False)
            await self.begin()
            await self._to_server(message)

    async def begin(self) -> None:
        """Send the start of the response, if it was held."""
        if self._is_held and self._head is not None:
            self._is_held = False
            await self._to_server(self._head)

    def _check_path(self, kind: object) -> None:
        if self._has_path:
            raise RuntimeError(f"{kind} after {PATHSEND}, which is all of the body")

    def _check_order(self, kind: object) -> None:
        self._check_path(kind)
        if self._head is None:
            raise RuntimeError(f"{kind} before {START}")
        if self._is_complete:
            raise RuntimeError(f"{kind} after the end of the body")

    async def _send_path(self, message: Message) -> None:
        self._check_order(PATHSEND)
        if self._has_body:
            raise RuntimeError(f"{PATHSEND} after a part of the body: it has to be all")
        path, body = message["path"], message.get(OURS)
        if not isinstance(body, FileBody):
            body = await self._find(path)
        self._has_path = True
        parts = [] if self._is_head else body.parts
        limits = self._limits if body.limits is None else body.limits
        if await self._send_small(path, body, parts, limits):
            return
        timeout = self._timeout if body.timeout is None else body.timeout
        calls = [call_of(body.file.file, part) for part in parts]
        sending = self._sending(path, timeout, limits, body.progress)
        await sending.run(calls, more=False)

    async def _find(self, path: object) -> FileBody:
        if not isinstance(path, str):
            raise TypeError(f"path must be a str, not {type(path).__name__!r}")
        # The specification wants it absolute; Starlette gives what it was given.
        path = os.path.abspath(path)
        try:
            found = await open_file(path, self._is_as_said)
        except (OSError, ValueError) as error:
            # ValueError: no file can have this name, as one with NUL. To the application an OSError
            # would say that the client has left.
            raise RuntimeError(f"cannot send {path!r}: {error}") from error
        length = found.size if self._length is None else self._length
        if length > found.size:
            raise RuntimeError(f"{path!r} has {found.size} bytes, not {length}")
        return FileBody(found, [(0, length)] if length else [])

    def _is_as_said(self, found: OpenFile) -> bool:
        """Tell whether the application has looked at this file, and not at one that came after."""
        assert self._head is not None
        said = _field(self._head, b"last-modified")
        same_date = said is None or said == found.last_modified.encode()
        return same_date and self._length in (None, found.size)

    async def _send_small(
        self, path: object, body: FileBody, parts: list[Part], limits: Limits | None
    ) -> bool:
        connection, head = self._connection, self._head
        if connection is None or head is None or not self._is_held:
            return False
        if connection.is_lost or connection.is_full:
            # Of a lost one uvicorn takes no head, so that it would know of no length.
            return False
        # Whoever counts, or has a time for this, wants to know when the kernel has it.
        if body.progress is not None or body.timeout is not None or self._timeout is not None:
            return False
        content = read_now(body.file, parts)
        if not content:
            # Unknown, or for HEAD or of an empty file, where uvicorn may write only once.
            return False
        self._is_held = False
        sending = self._sending(path, None, limits)
        await sending.guard(sending.send_together(connection, head, content), connection)
        return True

    async def _send_descriptor(self, message: Message) -> None:
        self._check_order(ZEROCOPYSEND)
        file, offset, count = message["file"], message.get("offset"), message.get("count")
        more = bool(message.get("more_body", False))
        raw = NamedDescriptor(file)
        first: Any = raw.position(file) if offset is None else offset  # as `check` finds out
        nbytes = raw.check(first, count)
        self._has_body = True
        self._is_complete = not more
        calls = []
        if nbytes and not self._is_head:
            calls.append(call_of(cast("BinaryFile", raw), (first, first + nbytes)))
        name = getattr(file, "name", "a file")
        sending = self._sending(name, self._timeout, self._limits)
        await sending.run(calls, more=more)
        if offset is None and calls:
            raw.set_position(file, first + nbytes)

    def _sending(
        self,
        name: object,
        timeout: float | None,
        limits: Limits | None,
        progress: Callable[[int], object] | None = None,
    ) -> Sending:
        return Sending(
            self._connection, self._to_server, self.begin, name, timeout, limits, progress
        )


def _headers_of(start: Message) -> Any:  # of an application, and the server checks them
    return start.get("headers", ())


def _field(start: Message, name: bytes) -> bytes | None:
    return next((value for key, value in _headers_of(start) if key.lower() == name), None)


def _length_of(start: Message) -> int | None:
    value = _field(start, b"content-length")
    # What else it is, the server refuses.
    return int(value) if value is not None and value.isdigit() else None
