"""Values of the command line: durations, sizes, rates, counts and names, checked as they are read.

Each function takes the text of one value and raises `ArgumentTypeError`, whose message is part of
one line, for what it cannot be.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentTypeError

NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
DURATION = re.compile(NUMBER + r"(ms|s|m|h)?")
SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600}
# Event loops count milliseconds in 64 bits and less: nothing here has to last longer than this.
LONGEST_HOURS = 1000

SIZE = re.compile(NUMBER + r"([kKMGT])?(i?B)?")
# The units that GNU's tools and curl have: K is for 1024 where no B follows.
POWERS = {None: 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
LARGEST = 1 << 62

MOST_WORKERS = 256
MOST_CONNECTIONS = 1_000_000
# Less would refuse what browsers send; more would let each connection hold as much memory.
LEAST_HEADER, MOST_HEADER = 1024, 64 * 1024


def duration(text: str) -> float:
    match = DURATION.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"not a duration (such as 10, 500ms, 10s, 1.5m or 2h): {text!r}")
    seconds = float(match[1]) * SECONDS[match[2]]
    if seconds > LONGEST_HOURS * 3600:
        raise ArgumentTypeError(f"longer than {LONGEST_HOURS}h: {text!r}")
    return seconds


def positive_duration(text: str) -> float:
    seconds = duration(text)
    if seconds == 0:
        raise ArgumentTypeError(f"not more than 0: {text!r}")
    return seconds


def size(text: str) -> int:
    """Return a number of bytes, rounded."""
    return _nbytes(text, text, "not a size (such as 500, 64K, 64KiB, 1.5M or 1MB)")


def rate(text: str) -> int:
    """Return a number of bytes per second, rounded."""
    example = "not a rate (such as 500, 64K, 64KiB/s, 1.5M/s or 1MB/s)"
    return _nbytes(text.removesuffix("/s"), text, example)


def _nbytes(measure: str, text: str, complaint: str) -> int:
    match = SIZE.fullmatch(measure)
    if match is None or (match[3] == "iB" and match[2] is None):
        raise ArgumentTypeError(f"{complaint}: {text!r}")
    base = 1000.0 if match[3] == "B" else 1024.0
    nbytes = float(match[1]) * base ** POWERS[match[2]]
    if nbytes > LARGEST:
        raise ArgumentTypeError(f"too large: {text!r}")
    return round(nbytes)


def pacing_rate(text: str) -> int:
    if sys.platform != "linux":
        raise ArgumentTypeError("only Linux paces connections")
    if (nbytes := rate(text)) == 0:
        raise ArgumentTypeError(f"not more than 0: {text!r}")
    return nbytes


def header_size(text: str) -> int:
    if not LEAST_HEADER <= (nbytes := size(text)) <= MOST_HEADER:
        raise ArgumentTypeError(f"not from 1K to 64K: {text!r}")
    return nbytes


def worker_count(text: str) -> int:
    if text in ("auto", "0"):
        return min(_cores(), MOST_WORKERS)
    if not _is_number(text, 1, MOST_WORKERS):
        raise ArgumentTypeError(f"not a number of workers (1 to {MOST_WORKERS}, auto): {text!r}")
    return int(text)


def connection_count(text: str) -> int:
    if not _is_number(text, 1, MOST_CONNECTIONS):
        raise ArgumentTypeError(f"not a number of connections (1 to {MOST_CONNECTIONS}): {text!r}")
    return int(text)


def port_number(text: str) -> int:
    if not _is_number(text, 0, 65535):
        raise ArgumentTypeError(f"not a port (0 to 65535): {text!r}")
    return int(text)


def _is_number(text: str, least: int, most: int) -> bool:
    # int() takes signs, underscores and the digits of other scripts, and refuses 5000 digits.
    return text.isascii() and text.isdigit() and len(text) < 16 and least <= int(text) <= most


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def folder(text: str) -> str:
    try:
        with os.scandir(text):
            return os.path.realpath(text)
    except FileNotFoundError:
        reason = "no such folder"
    except NotADirectoryError:
        reason = "not a folder"
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
    except ValueError:
        reason = "not a folder"
    raise ArgumentTypeError(f"{reason}: {text}")


def host_name(text: str) -> str:
    # To getaddrinfo() an empty name is every address, which nobody asks for by saying nothing.
    if not text or not text.isprintable():
        raise ArgumentTypeError(f"not a host name: {text!r}")
    return text


def socket_path(text: str) -> str:
    if not text or "\0" in text:
        raise ArgumentTypeError(f"not a path: {text!r}")
    return os.path.abspath(text)


def field_value(text: str) -> str:
    # What ends a line would let the value be taken for more fields.
    if not text or not (text.isascii() and text.isprintable()):
        raise ArgumentTypeError(f"not the value of a header field: {text!r}")
    return text
