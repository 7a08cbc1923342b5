"""Whether a request may have the file at all, or has it already: RFC 9110, section 13."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')
CONDITIONS = ("If-Match", "If-Unmodified-Since", "If-None-Match", "If-Modified-Since")
"""The fields of a request any of which makes an answer more than the file."""


def check(get: Callable[[str], str | None], etag: str, mtime: int) -> int:
    """Return the status that the conditions of a GET or HEAD lead to: 200, 304 or 412.

    Args:
        get: Returns a field of the request by its name, repeated ones joined by commas.
        etag: Of the file, quoted. A weak one matches only where that is enough.
        mtime: When the file was modified, in seconds since the epoch.

    Source: RFC 9110, section 13.2.2, for the order.
    """
    if (tags := get("If-Match")) is not None:
        if not _has(tags, etag, is_weak=False):
            return 412
    elif (date := seconds_of(get("If-Unmodified-Since"))) is not None and mtime > date:
        return 412
    if (tags := get("If-None-Match")) is not None:
        if _has(tags, etag, is_weak=True):
            return 304
    elif (date := seconds_of(get("If-Modified-Since"))) is not None and mtime <= date:
        return 304
    return 200


def is_unchanged(if_range: str, etag: str, mtime: int) -> bool:
    """Tell whether If-Range names this very version, so that a part of it continues another."""
    if match := _ENTITY_TAG.fullmatch(if_range.strip()):
        # A weak one says that the bytes may differ.
        return if_range.strip() == etag and not match[1]
    return seconds_of(if_range) == mtime


def _has(tags: str, etag: str, *, is_weak: bool) -> bool:
    if tags.strip() == "*":
        return True
    own = _ENTITY_TAG.fullmatch(etag)
    if own is None or (own[1] and not is_weak):
        return False
    return any(
        match[2] == own[2] and (is_weak or not match[1]) for match in _ENTITY_TAG.finditer(tags)
    )


def seconds_of(value: str | None) -> int | None:
    """Return a date of HTTP in seconds since the epoch, None if there is none."""
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        # A condition that cannot be read is as if it were not there.
        return None
    # That of asctime names no zone, and all of HTTP are in UTC.
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
