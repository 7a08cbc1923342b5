"""`FileResponse`: which answer a request for a file gets from aiohttp, and its head."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.helpers import must_be_empty_body
from aiohttp.http_writer import _serialize_headers
from aiohttp.web_fileresponse import CONTENT_TYPES, FALLBACK_CONTENT_TYPE

# By a name of its own: `web.FileResponse` may be ours, where an application puts it there.
from aiohttp.web_fileresponse import FileResponse as StockFileResponse

from .._arguments import as_seconds, check_watchers
from .._failures import Progress, end, in_short, is_too_slow
from .._limits import DEFAULT_LIMITS
from ..http import (
    CONDITIONS,
    FILES,
    Answer,
    FileCache,
    IrregularFileError,
    OpenFile,
    TruncatedError,
    answer,
    preferred,
    send_parts,
)
from ._bodies import BLOCK, Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import StreamWriter
    from aiohttp.typedefs import LooseHeaders, PathLike
    from multidict import CIMultiDict

    from .._limits import Limits

_log = logging.getLogger(__package__)

# Sidecars: the same file, encoded beforehand. The server's favourite first.
_SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
ENCODINGS: Final = tuple(_SUFFIXES)
# A request with any of these may be answered with something else than the whole file.
_ASKS_MORE: Final = (hdrs.RANGE, *CONDITIONS)
# Of others Range is to be ignored (RFC 9110, section 14.2), and conditions decide whether a request
# is carried out at all (13.2.1), as it was when there is an answer.
_CAN_VARY: Final = (hdrs.METH_GET, hdrs.METH_HEAD)
# What aiohttp encodes by itself, its own favourite first.
_COMPRESSIONS: Final = ("deflate", "gzip")


class FileResponse(StockFileResponse):
    """A file as a response, in place of `aiohttp.web.FileResponse`.

    Args:
        path: Of the file.
        chunk_size: Not used; it is there as aiohttp's has it.
        status: Of the response. Ranges and conditions are looked at only where it is 200.
        reason: As aiohttp's.
        headers: As aiohttp's. Content-Type is guessed where it is not among them.
        timeout: The most seconds that sending may take. None: no limit.
        limits: The pace that the peer has to keep; None: any. By default it may stall for 60 s.
        progress: Called with each number of bytes of the body that the kernel took, or through
            compression, that were given to it. What it raises comes out of `prepare`.
        encodings: Of "br", "zstd" and "gzip" those that the file may be there in, too: beside it,
            as `path.br`, `path.zst` and `path.gz`. Default: all. Give () where these may be
            something else.
        cache: Of open files. None: one that all responses share.

    Raises:
        TypeError: `limits` is no `Limits`, or `progress` cannot be called.
        ValueError: `timeout` is negative, or one of the encodings is another one.

    A client that breaks a limit is disconnected, and so is one whose file ended before its length:
    the next response would be taken for the rest of this one. Both leave a line in the log
    "asend.aiohttp". In a handler that awaits `prepare` they are a ConnectionResetError.

    Requests for one or several ranges, and conditions, are answered by RFC 9110 where the method is
    GET or HEAD; what is no range gets 416, as from aiohttp. What `enable_compression` encodes has
    no ranges, and of a file that was encoded beforehand there is one at a time: the whole is sent
    instead.

    Cancellation: the connection is aborted, as its peer was promised more.
    """

    def __init__(
        self,
        path: PathLike,
        chunk_size: int = BLOCK,
        status: int = 200,
        reason: str | None = None,
        headers: LooseHeaders | None = None,
        *,
        timeout: float | None = None,
        limits: Limits | None = DEFAULT_LIMITS,
        progress: Callable[[int], object] | None = None,
        encodings: Collection[str] = ENCODINGS,
        cache: FileCache | None = None,
    ) -> None:
        # Past aiohttp's own FileResponse: it makes a Path of each name, which takes 3 us.
        super(StockFileResponse, self).__init__(status=status, reason=reason, headers=headers)
        self._name = os.fspath(path)
        self._chunk_size = chunk_size
        check_watchers(limits, progress)
        self._timeout = as_seconds(timeout)
        self._limits = limits
        self._progress = progress
        self._encodings = encodings if encodings is ENCODINGS else _checked(encodings)
        self._cache = FILES if cache is None else cache
        # Of the answer in the cache.
        self._key = _Plain, self._encodings
        self._head: bytes | None = None

    @property
    def _path(self) -> Path:  # type: ignore[override]  # never set: the __init__ that does is passed by
        # aiohttp's has it.
        return Path(self._name)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the response to this request. See `aiohttp.web.StreamResponse`."""
        if self.prepared:
            return await self._prepare_as_stream(request)
        is_plain = self._is_plain(request)
        if is_plain and (known := self._cache.recall(self._name, self._key)) is not None:
            plain = cast("_Plain", known)
            self._headers.extend(plain.headers)
            return await self._send(request, plain.file, plain.answer)
        codings = preferred(_field(request, hdrs.ACCEPT_ENCODING), self._encodings)
        try:
            file, coding, varies = self._choose(codings, self._cache.find, self._cache.find_beside)
        except KeyError:
            loop = asyncio.get_running_loop()
            try:
                file, coding, varies = await loop.run_in_executor(None, self._look_up, codings)
            except (PermissionError, IrregularFileError):
                return await self._refuse(request, 403)
            except (OSError, ValueError):
                # ValueError: NUL in the name.
                return await self._refuse(request, 404)
        return await self._answer(request, file, coding, varies=varies, is_plain=is_plain)

    def _is_plain(self, request: web.BaseRequest) -> bool:
        """Tell whether the answer depends on nothing but the file."""
        return (
            self._status == 200
            and not self._headers
            and not self._compression
            and request.method == hdrs.METH_GET
            and not any(map(request.headers.__contains__, _ASKS_MORE))
        )

    def _beside(self) -> list[str]:
        """Return the paths of the sidecars."""
        return [self._name + _SUFFIXES[coding] for coding in self._encodings]

    def _look_up(self, codings: tuple[str, ...]) -> tuple[OpenFile, str | None, bool]:
        return self._choose(codings, self._cache.look_up, self._cache.look_beside)

    def _choose(
        self,
        codings: tuple[str, ...],
        find: Callable[[str], OpenFile | None],
        find_beside: Callable[[Iterable[str]], list[OpenFile | None]],
    ) -> tuple[OpenFile, str | None, bool]:
        """Return the file to send, its coding, and whether others might get another one."""
        beside = find_beside(self._beside())
        varies = any(beside)
        if varies:
            encoded = dict(zip(self._encodings, beside, strict=True))
            for coding in codings:
                if (file := encoded[coding]) is not None:
                    return file, coding, True
        file = find(self._name)
        if file is None:
            # It was looked for as a sidecar of another.
            raise KeyError(self._name)
        return file, None, varies

    async def _answer(
        self,
        request: web.BaseRequest,
        file: OpenFile,
        coding: str | None,
        *,
        varies: bool,
        is_plain: bool,
    ) -> AbstractStreamWriter | None:
        if coding is not None:
            # Once is enough.
            self._compression = False
        compression = self._choose_compression(request) if self._compression else None
        content_type = self._headers.get(hdrs.CONTENT_TYPE) or _content_type(self._name)
        selected = _Selected(file, coding, compression, content_type)
        found = self._choose_answer(request, selected)
        if found.status in (412, 416):
            self._headers.update(found.fields)
            return await self._refuse(request, found.status)
        self._set_version(selected, varies=varies or self._compression)
        if found.nbytes is None:
            self.set_status(found.status)
            self._length_check = False
            return await self._prepare_as_stream(request)
        self._set_content(selected, found)
        if not found.parts or must_be_empty_body(request.method, self._status):
            return await self._prepare_as_stream(request)
        if is_plain:
            # Only where there is nothing beside it, and so whatever codings a client takes.
            plain = _Plain(file, found, self._headers.copy())
            self._cache.remember(self._name, file, self._beside(), self._key, plain)
        return await self._send(request, file, found)

    def _choose_answer(self, request: web.BaseRequest, selected: _Selected) -> Answer:
        file = selected.file
        whole = Answer.whole(file.size)
        can_vary = self._status == 200 and request.method in _CAN_VARY
        if not (can_vary and any(map(request.headers.__contains__, _ASKS_MORE))):
            return whole
        found = answer(
            partial(_field, request),
            size=file.size,
            mtime=file.mtime,
            etag=selected.etag,
            content_type=selected.content_type,
            malformed=416,
            other_unit=416,
        )
        if selected.compression and found.status in (206, 416):
            # What is encoded on its way has no parts before it was sent.
            return whole
        if selected.coding and len(found.parts) > 1:
            # Around several parts of what is encoded there is no place to say how.
            return whole
        return found

    def _set_version(self, selected: _Selected, *, varies: bool) -> None:
        """Say which version of the file it is, of a 304 too."""
        self._headers[hdrs.ETAG] = selected.etag
        self._headers[hdrs.LAST_MODIFIED] = selected.file.last_modified
        if varies:
            _vary(self._headers)

    def _set_content(self, selected: _Selected, found: Answer) -> None:
        """Say what the body is, that of a HEAD too."""
        headers = self._headers
        headers[hdrs.CONTENT_TYPE] = selected.content_type
        headers[hdrs.ACCEPT_RANGES] = "none" if selected.compression else "bytes"
        if selected.coding is not None:
            headers[hdrs.CONTENT_ENCODING] = selected.coding
        if found.status == 206:
            headers.update(found.fields)
            self.set_status(found.status)
        self.content_length = found.nbytes

    def _choose_compression(self, request: web.BaseRequest) -> str | None:
        """Have aiohttp compress by what the client takes; return what that is, None if nothing."""
        if self._compression_force is None:
            # aiohttp's own choice takes "gzip;q=0" and "xgzipx" for gzip.
            taken = preferred(_field(request, hdrs.ACCEPT_ENCODING), _COMPRESSIONS)
            self._compression_force = web.ContentCoding(taken[0] if taken else "identity")
        coding = self._compression_force.value
        return None if coding == "identity" else coding

    async def _refuse(self, request: web.BaseRequest, status: int) -> AbstractStreamWriter | None:
        self.set_status(status)
        self.content_length = 0
        return await self._prepare_as_stream(request)

    async def _prepare_as_stream(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        # Past aiohttp's own FileResponse.
        return await super(StockFileResponse, self).prepare(request)

    async def _send(
        self, request: web.BaseRequest, file: OpenFile, found: Answer
    ) -> AbstractStreamWriter | None:
        # Not None, so that `_write_headers` puts the head there instead of writing it: it is to
        # leave with the first bytes of the body.
        self._head = b""
        writer = cast("StreamWriter", await self._prepare_as_stream(request))
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("Connection lost")
        progress = None if self._progress is None else Progress(self._progress)
        try:
            if self._head:
                # What aiohttp takes for sent: from here on it writes no other response.
                writer.output_size += len(self._head)
                await send_parts(
                    transport,
                    self._head,
                    file,
                    found.parts,
                    timeout=self._timeout,
                    limits=self._limits,
                    progress=progress,
                )
                writer.output_size += found.nbytes or 0
            else:
                # Of which there are no ranges.
                encoded = Encoded(transport, self._timeout, self._limits, progress)
                await encoded.send(writer, file)
            await self.write_eof()
        except BaseException as error:  # cancelled, too: the peer was promised more
            was_lost = transport.is_closing()
            if progress is not None and progress.has_raised(error):
                transport.abort()
                raise
            end(transport, error)
            if isinstance(error, ConnectionError):
                raise
            if isinstance(error, (OSError, TruncatedError)):
                level = logging.INFO if is_too_slow(error) else logging.WARNING
                _log.log(level, "%s %s: %s", request.method, request.rel_url, in_short(error))
                raise ConnectionResetError(str(error)) from error
            if was_lost and isinstance(error, RuntimeError):
                # Nothing is begun on a transport that closes.
                raise ConnectionResetError("Connection lost") from error
            raise
        return writer

    async def _write_headers(self) -> None:
        writer = cast("StreamWriter", self._payload_writer)
        encodes = writer.chunked or writer._compress is not None
        if self._head is None or self._req is None or encodes:
            self._head = None
            if self._must_be_empty_body:
                # It would send its end, even of nothing.
                writer._compress = None
            await super()._write_headers()
            return
        major, minor = self._req.version
        line = f"HTTP/{major}.{minor} {self._status} {self._reason}"
        self._head = _serialize_headers(line, self._headers)


class _Selected(NamedTuple):
    """What answers a request: a file, and how it is encoded."""

    file: OpenFile
    # Beforehand, and by aiohttp on its way.
    coding: str | None
    compression: str | None
    content_type: str

    @property
    def etag(self) -> str:
        kind = self.coding or self.compression
        return f'"{self.file.tag}"' if kind is None else f'"{self.file.tag}-{kind}"'


class _Plain(NamedTuple):
    """The answer to a request that asks for no more than a file, and its own headers."""

    file: OpenFile
    answer: Answer
    headers: CIMultiDict[str]


def _checked(encodings: Collection[str]) -> tuple[str, ...]:
    """Return encodings in the server's order."""
    unknown = {*encodings} - {*ENCODINGS}
    if unknown:
        raise ValueError(f"encodings are of {', '.join(ENCODINGS)} (got {sorted(unknown)})")
    return tuple(name for name in ENCODINGS if name in encodings)


def _field(request: web.BaseRequest, name: str) -> str | None:
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def _vary(headers: CIMultiDict[str]) -> None:
    """Say that Accept-Encoding decides what a client gets, besides what else does."""
    known = ", ".join(headers.getall(hdrs.VARY, ()))
    if known.strip() != "*" and "accept-encoding" not in known.lower():
        headers.add(hdrs.VARY, hdrs.ACCEPT_ENCODING)


@lru_cache(maxsize=1024)
def _content_type(name: str) -> str:
    guess = (
        CONTENT_TYPES.guess_file_type if sys.version_info >= (3, 13) else CONTENT_TYPES.guess_type
    )
    return guess(name)[0] or FALLBACK_CONTENT_TYPE
