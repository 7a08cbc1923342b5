"""File responses for Starlette and FastAPI that send ranges without copying them, too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette import responses

from ._arguments import as_seconds, check_watchers
from ._bodies import BODY
from ._limits import DEFAULT_LIMITS
from ._lookups import open_file
from ._responses import OURS, PATHSEND, START, FileBody, Response
from .http import CONDITIONS, Answer, IrregularFileError, OpenFile, answer
from .http._conditions import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.background import BackgroundTask
    from starlette.types import Message, Receive, Scope, Send

    from ._limits import Limits

__all__ = ["FileResponse"]

# The fields of a request that an answer depends on, as ASGI has them and as they are called.
_ASKED: Final = {name.lower().encode(): name for name in (*CONDITIONS, "If-Range", "Range")}
# What is said of a content, and not to be said where there is none.
_OF_CONTENT: Final = {
    b"content-disposition",
    b"content-encoding",
    b"content-language",
    b"content-length",
    b"content-type",
}
_OF_VERSION: Final = {b"accept-ranges", b"etag", b"last-modified"}


class FileResponse(responses.FileResponse):
    """A file, or the ranges of it that were asked for, sent by `asend.sendfile` where it can be.

    Takes the place of Starlette's class of the same name, with the same arguments. Without
    `SendfileMiddleware` around the application it is sent by messages; or by the server's own
    `http.response.pathsend`, where there is one, the whole file is asked for and no option is set.

    Args:
        path: As there.
        status_code: As there. Another than 200 is for the whole file, whatever is asked for.
        headers: As there. An `etag` or `last-modified` among them is what conditions are about.
        media_type: As there.
        background: As there.
        filename: As there.
        stat_result: As there; the length is the file's own.
        content_disposition_type: As there.
        timeout: The most seconds for all of the body. None: what the middleware has.
        limits: The pace that the client has to keep. None: what the middleware has; without one,
            no longer than 60 s without a byte, or whatever a server has that sends it itself.
        progress: Called with each number of bytes of the body that the kernel took; where the
            connection cannot be reached, that the server took.

    Raises:
        TypeError: `limits` is no `Limits`, or `progress` cannot be called.
        ValueError: `timeout` is negative.

    More than the original it answers If-Match and If-Unmodified-Since, and 304 to If-None-Match
    and If-Modified-Since. A range in another unit than bytes is ignored, a malformed one is
    refused with 400, as it is there.

    A client that is too slow or leaves: as `SendfileMiddleware` says.

    Source: RFC 9110, sections 13 and 14.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        filename: str | None = None,
        stat_result: os.stat_result | None = None,
        content_disposition_type: str = "attachment",
        *,
        timeout: float | None = None,
        limits: Limits | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        check_watchers(limits, progress)
        # One name, that a later Starlette is not likely to use.
        self._asend = _Options(as_seconds(timeout), limits, progress)
        super().__init__(
            path,
            status_code=status_code,
            headers=headers,
            media_type=media_type,
            background=background,
            filename=filename,
            stat_result=stat_result,
            content_disposition_type=content_disposition_type,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to one request.

        Raises:
            RuntimeError: There is no such file, or it is no regular one.
            OSError: The file cannot be opened.
        """
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        file = await _open(self.path)
        fields = dict(self.raw_headers)
        fields.setdefault(b"last-modified", file.last_modified.encode())
        fields.setdefault(b"etag", f'"{file.tag}"'.encode())
        can_vary = self.status_code == 200 and scope["method"] in ("GET", "HEAD")
        answered = _answer(_asked(scope) if can_vary else {}, file, fields)
        start = {
            "type": START,
            "status": self.status_code if answered.status == 200 else answered.status,
            "headers": _fields_of(answered, self.raw_headers, fields),
        }
        message, send = _body(scope, send, _path_of(self.path), file, answered, self._asend)
        await send(start)
        await send(message)
        if self.background is not None:
            await self.background()


class _Options(NamedTuple):
    timeout: float | None
    limits: Limits | None
    progress: Callable[[int], object] | None


def _path_of(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)


async def _open(given: str | os.PathLike[str]) -> OpenFile:
    try:
        return await open_file(_path_of(given))
    except (FileNotFoundError, ValueError):
        # ValueError: no file can have this name, as one with NUL.
        raise RuntimeError(f"File at path {given} does not exist.") from None
    except IrregularFileError:
        raise RuntimeError(f"File at path {given} is not a file.") from None


def _answer(asked: dict[str, str], file: OpenFile, fields: dict[bytes, bytes]) -> Answer:
    date = fields[b"last-modified"].decode("latin-1")
    mtime = None if date == file.last_modified else seconds_of(date)
    return answer(
        asked.get,
        size=file.size,
        mtime=file.mtime if mtime is None else mtime,
        etag=fields[b"etag"].decode("latin-1"),
        content_type=fields.get(b"content-type", b"").decode("latin-1"),
        malformed=400,
    )


def _fields_of(
    answered: Answer, given: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]
) -> list[tuple[bytes, bytes]]:
    mine = {key.lower().encode(): value.encode() for key, value in answered.fields.items()}
    if answered.nbytes is not None:
        mine[b"content-length"] = str(answered.nbytes).encode()
    left_out = {b"content-length", *mine}
    if answered.status == 304:
        left_out |= _OF_CONTENT
    elif answered.status not in (200, 206):
        left_out |= _OF_CONTENT | _OF_VERSION
    # Of `fields` only what is new, as some of those given may be there twice.
    said = {key for key, _ in given}
    every = [*given, *((key, value) for key, value in fields.items() if key not in said)]
    return [each for each in every if each[0] not in left_out] + list(mine.items())


def _body(
    scope: Scope, send: Send, path: str, file: OpenFile, answered: Answer, options: _Options
) -> tuple[Message, Send]:
    """Return the message that is the body, and where to send it."""
    message: Message = {"type": BODY, "body": b"", "more_body": False}
    if answered.parts and scope["method"] != "HEAD":
        message = {"type": PATHSEND, "path": path, OURS: FileBody(file, answered.parts, *options)}
    offer = (scope.get("extensions") or {}).get(PATHSEND)
    if offer is not None and OURS in offer:
        return message, send
    if offer is not None and answered.status == 200 and options == (None, None, None):
        # The server's own, for what it can do.
        message.pop(OURS, None)
        return message, send
    # Not by a server's `zerocopysend`: Starlette's own middleware fails on that, or drops it.
    return message, Response(scope["method"], send, None, DEFAULT_LIMITS).send


def _asked(scope: Scope) -> dict[str, str]:
    asked: dict[str, str] = {}
    for key, value in scope["headers"]:
        name = _ASKED.get(key)
        if name is not None:
            text = value.decode("latin-1")
            asked[name] = f"{asked[name]}, {text}" if name in asked else text
    return asked
