"""What to answer to a request for a file: the status, the fields, and which parts go out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from . import _conditions, _ranges

if TYPE_CHECKING:
    from collections.abc import Callable

Part: TypeAlias = bytes | tuple[int, int]
"""Bytes as they are, or the first byte of a part of the file and the one after its last."""


@dataclass(slots=True)
class Answer:
    """The answer to a GET or HEAD for a file.

    Attributes:
        status: Of HTTP.
        fields: What is to be said besides of what is always said of the file.
        parts: The body. For a HEAD, what it would be.
        nbytes: The length of the body; None where there is to be none, nor its length.
    """

    status: int
    fields: dict[str, str]
    parts: list[Part]
    nbytes: int | None

    @classmethod
    def whole(cls, size: int) -> Answer:
        """Return the answer that is all of a file of this size."""
        return cls(200, {}, [(0, size)] if size else [], size)


def answer(
    get: Callable[[str], str | None],
    *,
    size: int,
    mtime: int,
    etag: str,
    content_type: str,
    malformed: int = 200,
    other_unit: int = 200,
) -> Answer:
    """Return what a request for a file of this size and version is to be answered.

    Args:
        get: Returns a field of the request by its name, repeated ones joined by commas.
        size: In bytes.
        mtime: When it was modified, in seconds since the epoch.
        etag: Of this version, quoted.
        content_type: For the parts of an answer with several ranges.
        malformed: The status for a Range that is not one: 200 ignores it, 4xx refuses it.
        other_unit: The same for a Range in something else than bytes.

    Returns:
        200 and the whole, 206 and one or several parts of it, or a status without a body: 304, 412,
        416, `malformed` or `other_unit`.

    Source: RFC 9110, sections 13 and 14.
    """
    status = _conditions.check(get, etag, mtime)
    if status != 200:
        return Answer(status, {}, [], None if status == 304 else 0)
    whole = Answer.whole(size)
    value, if_range = get("Range"), get("If-Range")
    if value is None or not (if_range is None or _conditions.is_unchanged(if_range, etag, mtime)):
        return whole
    try:
        ranges = _ranges.parse(value, size)
    except _ranges.MalformedRangeError as error:
        status = other_unit if isinstance(error, _ranges.OtherUnitError) else malformed
        return whole if status == 200 else _refused(status, size)
    if ranges is None:
        return whole
    if not ranges:
        return _refused(416, size)
    if len(ranges) > 1:
        return _several(ranges, size, content_type)
    first, end = ranges[0]
    return Answer(
        206, {"Content-Range": _content_range(first, end, size)}, [(first, end)], end - first
    )


def _refused(status: int, size: int) -> Answer:
    return Answer(status, {"Content-Range": f"bytes */{size}"} if status == 416 else {}, [], 0)


def _content_range(first: int, end: int, size: int) -> str:
    return f"bytes {first}-{end - 1}/{size}"


def _several(ranges: list[tuple[int, int]], size: int, content_type: str) -> Answer:
    # Not to be guessed, so that no file can contain it.
    boundary = secrets.token_hex(16)
    parts: list[Part] = []
    for first, end in ranges:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: {_content_range(first, end, size)}\r\n\r\n"
        )
        parts += [head.encode("latin-1"), (first, end)]
    parts.append(f"\r\n--{boundary}--\r\n".encode())
    nbytes = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)
    fields = {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    return Answer(206, fields, parts, nbytes)
