"""Requests, as httptools parses them: bytes in, `Request`s out, in the order in which they came.

A request that can only be refused is one with an `error`, and the last of its connection. A body is
never read: the connection ends after the answer, so that nothing in it is taken for a request.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus

import httptools

# Longer ones are no names that a file system has; nginx and browsers draw the line here, too.
MAX_TARGET = 8 * 1024
# With a port. DNS has no longer names.
MAX_HOST = 253 + len(":65535")
# Plain requests that are known again by their bytes, and how many each may have.
MAX_KNOWN = 1024
MAX_KNOWN_NBYTES = 1024
# A client that sends more than this with a GET wants something else.
MAX_BODY = 64 * 1024
# Fields that may change what is answered, besides Accept-Encoding, or how the request ends.
_SPECIAL = frozenset(
    [
        b"content-length",
        b"expect",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
        b"transfer-encoding",
    ]
)
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} ")
_HOST = re.compile(rb"[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]*")


@dataclass(slots=True)
class Request:
    """The head of a request.

    Args:
        target: As in the request line.
        fields: By name in lower case; the values of a repeated name are joined by commas.
        version: Of HTTP, "1.0" or "1.1".
        keep_alive: Whether another request may follow.
        is_plain: A GET for the whole of what is there: no field asks for more, and it is HTTP/1.1.
        error: What it can only be refused with.
    """

    method: str = "GET"
    target: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    version: str = "1.1"
    keep_alive: bool = False
    is_plain: bool = False
    error: HTTPStatus | None = None

    def get(self, name: str) -> str | None:
        """Return the value of a field, None if it was not sent."""
        value = self.fields.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")


class RequestParser:
    """Parses what comes on one connection. It has the methods that httptools calls.

    Args:
        max_header: The most bytes of a request line with its fields.
        known: Plain requests that came before, by all of their bytes: clients ask for the same
            again and again. For all parsers with this `max_header`, which keep it.

    Attributes:
        requests: To be answered. After one with an `error` nothing more may be fed.
        is_within: Whether the next one has begun to come.
    """

    __slots__ = ("_fields", "_known", "_max_header", "_nbytes", "_parser", "_target", "requests")

    def __init__(self, max_header: int, known: dict[bytes, Request]) -> None:
        self.requests: deque[Request] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._max_header = max_header
        self._known = known
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        # Of the request that is coming.
        self._nbytes = 0

    @property
    def is_within(self) -> bool:
        return self._nbytes > 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        if not self._nbytes:
            request = self._known.get(data)
            if request is not None:
                self.requests.append(request)
                return
            before = len(self.requests)
            self._parse(data)
            if len(self.requests) == before + 1 and _is_whole(data):
                self._remember(data, self.requests[-1])
        else:
            self._parse(data)

    def _remember(self, data: bytes, request: Request) -> None:
        if request.is_plain and request.keep_alive:
            if len(self._known) >= MAX_KNOWN:
                # Those that are asked for still come again.
                self._known.clear()
            self._known[data] = request

    def _parse(self, data: bytes) -> None:
        self._nbytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Not switched: it is answered as what it is without the upgrade.
            pass
        except httptools.HttpParserInvalidMethodError:
            # Of methods that nobody knows it is as of others that are not served.
            known = self._nbytes == len(data) and _METHOD.match(data)
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.BAD_REQUEST)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST)
        if len(self._target) > MAX_TARGET:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self._nbytes > self._max_header:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _refuse(self, error: HTTPStatus) -> None:
        # What was answered or refused before stays what it is.
        if not (self.requests and self.requests[-1].error):
            method = self._parser.get_method().decode("ascii") if self._target else ""
            self.requests.append(Request(method, self._target, error=error))

    # Called by httptools, with the target in pieces where it came so.

    def on_message_begin(self) -> None:
        # After others in the same bytes: it has begun, though nobody tells where.
        self._nbytes = self._nbytes or 1

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        fields, name = self._fields, name.lower()
        # Two hosts are none: the comma is not in a name of one.
        fields[name] = fields[name] + b", " + value if name in fields else value

    def on_headers_complete(self) -> None:
        parser, target, fields = self._parser, self._target, self._fields
        nbytes, self._target, self._fields, self._nbytes = self._nbytes, b"", {}, 0
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        is_special = not _SPECIAL.isdisjoint(fields)
        error = _fault(version, fields.get(b"host"))
        has_body = False
        if is_special and error is None:
            error, has_body = _refusal(fields), _has_body(fields)
        if len(target) > MAX_TARGET:
            error = HTTPStatus.REQUEST_URI_TOO_LONG
        elif nbytes > self._max_header and _size(target, fields) > self._max_header:
            # In `nbytes` is also what came after it in the same piece.
            error = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if method != "GET":
            # RFC 9110, section 14.2: for no other method.
            fields.pop(b"range", None)
        is_last = error is not None or has_body or parser.should_upgrade()
        self.requests.append(
            Request(
                method,
                target,
                fields,
                version,
                keep_alive=not is_last and parser.should_keep_alive(),
                is_plain=not (is_special or error) and method == "GET" and version == "1.1",
                error=error,
            )
        )


def _is_whole(data: bytes) -> bool:
    """Tell whether a head, and nothing else, may be all of some bytes."""
    return len(data) <= MAX_KNOWN_NBYTES and data.find(b"\r\n\r\n") == len(data) - 4


def _size(target: bytes, fields: dict[bytes, bytes]) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in fields.items())


@lru_cache(maxsize=128)
def _fault(version: str, host: bytes | None) -> HTTPStatus | None:
    """Return what a request with such a version and Host is refused with."""
    if version not in ("1.0", "1.1"):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if host is None:
        return HTTPStatus.BAD_REQUEST if version == "1.1" else None
    return None if len(host) <= MAX_HOST and _HOST.fullmatch(host) else HTTPStatus.BAD_REQUEST


def _refusal(fields: dict[bytes, bytes]) -> HTTPStatus | None:
    expected = fields.get(b"expect")
    if expected is not None and expected.lower() != b"100-continue":
        return HTTPStatus.EXPECTATION_FAILED
    length = fields.get(b"content-length", b"0")
    # httptools has seen that it is a number, and no longer than 64 bits.
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if int(length) > MAX_BODY else None


def _has_body(fields: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"
