"""Which parts of a file a Range field asks for: RFC 9110, section 14."""

from __future__ import annotations

import re

_UNIT = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=(.*)", re.DOTALL)
_RANGE = re.compile(r"[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII)
# More are an attack, or a mistake that the whole file serves better.
MOST_RANGES = 100
# More digits than any offset has; int() of very many takes its time.
_MOST_DIGITS = 20


class MalformedRangeError(ValueError):
    """No range set of the unit "bytes"."""


class OtherUnitError(MalformedRangeError):
    """Another unit than bytes, or none at all."""


def parse(value: str, size: int) -> list[tuple[int, int]] | None:
    """Return the ranges that can be satisfied, each as its first byte and the one after its last.

    Ranges that overlap are merged, and sorted then; others keep their order.

    Args:
        value: The field Range.
        size: Of the file, in bytes.

    Returns:
        An empty list where none can be satisfied (416); None if there are so many that the field
        is better ignored.

    Raises:
        MalformedRangeError: It has no such syntax; servers may ignore it or refuse it.
    """
    match = _UNIT.fullmatch(value)
    if match is None or match[1].lower() != "bytes":
        raise OtherUnitError("Range must be in bytes")
    specs = [spec for spec in match[2].split(",") if spec.strip()]
    if not specs:
        raise MalformedRangeError("no range")
    if len(specs) > MOST_RANGES:
        return None
    asked = [_bounds(spec, size) for spec in specs]
    return _merged([(first, end) for first, end in asked if first < end])


def _bounds(spec: str, size: int) -> tuple[int, int]:
    match = _RANGE.fullmatch(spec)
    if match is None or not (match[1] or match[2]) or max(map(len, match.groups())) > _MOST_DIGITS:
        raise MalformedRangeError(f"not a range: {spec.strip()!r}")
    if not match[1]:
        return max(0, size - int(match[2])), size
    first = int(match[1])
    if not match[2]:
        return first, size
    last = int(match[2])
    if last < first:
        raise MalformedRangeError(f"ends before it starts: {spec.strip()!r}")
    return first, min(last + 1, size)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    in_order = sorted(ranges)
    merged: list[tuple[int, int]] = []
    for first, end in in_order:
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((first, end))
    return ranges if len(merged) == len(ranges) else merged
