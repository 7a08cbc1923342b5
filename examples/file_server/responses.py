"""Responses, and their heads as they are sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asend.http import OpenFile, Part


@dataclass(slots=True)
class Response:
    """What a request is answered with: one of a body in memory, of a file, or in blocks.

    Args:
        nbytes: Of the body, also where it is not sent (HEAD). None: not known (blocks), or there
            is to be none, nor its length (304).
        body: In memory.
        file: Of which `parts` are sent.
        blocks: Made as they are sent, in a worker thread.
    """

    status: int
    fields: dict[str, str] = field(default_factory=dict)
    nbytes: int | None = None
    body: bytes = b""
    file: OpenFile | None = None
    parts: list[Part] = field(default_factory=list)
    blocks: Iterator[bytes] | None = None

    def head(self, *, keep_alive: bool, version: str = "1.1") -> bytes:
        """Return the status line and the fields."""
        lines = [_status_line(self.status), _date_line(int(time()))]
        if not keep_alive:
            lines.append("Connection: close")
        elif version == "1.0":
            lines.append("Connection: keep-alive")
        if self.nbytes is not None:
            lines.append(f"Content-Length: {self.nbytes}")
        lines += [f"{name}: {value}" for name, value in self.fields.items()]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


@lru_cache(maxsize=1)
def _date_line(moment: int) -> str:
    return f"Date: {formatdate(moment, usegmt=True)}"


@lru_cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"


# What each of these has to say besides.
MORE_FIELDS = {
    HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": "GET, HEAD"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
}


def text_response(status: HTTPStatus, fields: dict[str, str] | None = None) -> Response:
    """Return a response that says its status in words."""
    body = f"{status.value} {status.phrase}\n".encode()
    said = {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        **MORE_FIELDS.get(status, {}),
        **(fields or {}),
    }
    return Response(status, said, len(body), body)
