"""Requests as httptools parses them, and responses as they are sent."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from io import FileIO

# The most bytes of a request line with its header fields; browsers send up to some KiB of cookies.
MAX_HEAD = 64 * 1024


@dataclass
class Request:
    """The head of a request.

    Args:
        path: The path as it came, percent-encoded and without the query.
        headers: By lower-case name; the values of a repeated name are joined by commas.
        error: Why the request can only be refused.
    """

    method: str = "GET"
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = False
    error: HTTPStatus | None = None


@dataclass
class Response:
    """A response whose body is text in memory, or `count` bytes of a file from `offset` on."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: FileIO | None = None
    offset: int = 0
    count: int = 0

    def head(self, keep_alive: bool) -> bytes:
        """Return the status line and the header as they are sent."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
            "X-Content-Type-Options: nosniff",
        ]
        if self.status != HTTPStatus.NOT_MODIFIED:
            lines.append(f"Content-Length: {self.count or len(self.body)}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def text_response(status: HTTPStatus, **headers: str) -> Response:
    """Return a response that says its status in words; `a_b` names the header field `a-b`."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields["Content-Type"] = "text/plain; charset=utf-8"
    return Response(status, fields, f"{status.value} {status.phrase}\n".encode())


class RequestParser:
    """Bytes of a connection in, requests out: in `requests`, in the order in which they came.

    A request that cannot be served becomes one with an `error`, in its turn, and the last. So is
    one with a body (`keep_alive` is false): its body is never read, so that no byte of it can be
    taken for a request.
    """

    def __init__(self) -> None:
        self.requests: deque[Request] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._head_nbytes = 0

    @property
    def room(self) -> int:
        """How many bytes may be fed next; more than 0 while `requests` is empty."""
        return MAX_HEAD - self._head_nbytes

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        self._head_nbytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # Not switched: answered as what it is without the upgrade.
        except httptools.HttpParserError:
            self.requests.append(Request(error=HTTPStatus.BAD_REQUEST))
        if self.room <= 0:
            error = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.requests.append(Request(error=error))

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers:
            if key == "host":
                raise ValueError("more than one Host")
            text = f"{self._headers[key]}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        """Note one more request; an exception here becomes a parser error."""
        self._head_nbytes = 0
        parser, headers = self._parser, self._headers
        version = parser.get_http_version()
        if version not in ("1.0", "1.1") or (version == "1.1" and "host" not in headers):
            raise ValueError("no version that is spoken here, or no Host")
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.requests.append(
            Request(
                parser.get_method().decode("ascii"),
                (httptools.parse_url(self._target).path or b"/").decode("ascii"),
                headers,
                parser.should_keep_alive() and not parser.should_upgrade() and not has_body,
            )
        )
