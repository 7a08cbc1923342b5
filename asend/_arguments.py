"""What callers may pass, turned into its normal form, or refused before the first byte.

Exception types and words are those of `socket` and `asyncio` wherever they have any.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from ._limits import Limits, check_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeGuard

    from _typeshed import ReadableBuffer

    Ancillary: TypeAlias = tuple[int, int, ReadableBuffer]


class BinaryFile(Protocol):
    """What `sock_sendfile` takes: anything with `read`; more methods make it faster."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class TrioSocket(Protocol):
    """`trio.socket.SocketType`, for type checkers that may not find trio."""

    @property
    def family(self) -> int:
        """The address family."""

    @property
    def type(self) -> int:
        """The type of socket."""

    @property
    def proto(self) -> int:
        """The protocol."""

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        """Whether sending has ended; only trio's sockets tell."""

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""


AnySocket: TypeAlias = socket.socket | TrioSocket


class SocketTimeout:
    """The type of `SOCKET_TIMEOUT`."""

    def __repr__(self) -> str:
        return "<the socket's own timeout>"


SOCKET_TIMEOUT: Final = SocketTimeout()

# The largest offset that off_t holds.
_LAST_OFFSET = 2**63 - 1


def as_octets(data: ReadableBuffer) -> memoryview:
    """Return a one-dimensional view of the bytes of any C-contiguous buffer.

    Items wider than a byte must not be counted as bytes: several event loops do, and lose three
    quarters of an `array("i")`.
    """
    try:
        view = memoryview(data)
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"a bytes-like object is required, not {kind!r}") from None
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    # cast() refuses shapes with a zero in them.
    return view.cast("B") if view.nbytes else memoryview(b"")


def as_vectors(buffers: Iterable[ReadableBuffer]) -> list[memoryview]:
    """Return the views of all buffers that are not empty."""
    try:
        iterator = iter(buffers)
    except TypeError:
        raise TypeError("sendmsg() argument 1 must be an iterable") from None
    return [octets for buffer in iterator if (octets := as_octets(buffer)).nbytes]


def as_ancillary(ancdata: Iterable[Ancillary]) -> list[Ancillary]:
    """Return ancillary data that can be given to several attempts."""
    try:
        return list(ancdata)
    except TypeError:
        raise TypeError("sendmsg() argument 2 must be an iterable") from None


def as_seconds(timeout: float | SocketTimeout | None, sock: object = None) -> float | None:
    """Return the total time of a call in seconds, or None for no limit."""
    if timeout is None:
        return None
    if isinstance(timeout, SocketTimeout):
        # 0 is how a non-blocking socket says it, not a time to keep. trio's have no timeout.
        return (isinstance(sock, socket.socket) and sock.gettimeout()) or None
    if check_number("timeout", timeout) != timeout:
        raise ValueError("Invalid value NaN (not a number)")
    if timeout < 0:
        raise ValueError(f"Timeout value out of range (got {timeout!r})")
    return timeout


def is_positive(timeout: object) -> bool:
    """Tell whether this is surely a time to keep, and a positive one."""
    return isinstance(timeout, (float, int)) and timeout > 0


def check_watchers(limits: Limits | None, progress: Callable[[int], object] | None) -> None:
    """Refuse limits and progress callbacks of a wrong type."""
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits must be an asend.Limits or None (got {limits!r})")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable or None (got {progress!r})")


def is_trio_socket(sock: object) -> TypeGuard[TrioSocket]:
    """Tell trio's sockets from others without importing trio."""
    trio = sys.modules.get("trio")
    return trio is not None and isinstance(sock, trio.socket.SocketType)


def check_open(sock: AnySocket) -> None:
    """Refuse a closed socket; what is no socket at all is left to `check_kind`."""
    if hasattr(sock, "fileno") and sock.fileno() < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def check_mode(sock: AnySocket) -> None:
    """Refuse a socket that encrypts, or would block."""
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if isinstance(sock, socket.socket) and sock.gettimeout() is None:
        raise ValueError("the socket must be non-blocking")


def check_kind(sock: AnySocket) -> None:
    """Refuse what is no socket. Asked last: a transport's socket is none either."""
    if not (isinstance(sock, socket.socket) or is_trio_socket(sock)):
        raise TypeError(f"a socket is required, not {type(sock).__name__!r}")


def check_stream_socket(sock: AnySocket) -> None:
    """Refuse sockets that no file can be sent on."""
    # Not `&`: SOCK_SEQPACKET has that bit set too.
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")


def check_file(file: BinaryFile, offset: int, count: int | None) -> None:
    """Refuse files that cannot be read as bytes from `offset` on."""
    mode = getattr(file, "mode", "b")
    # gzip's mode was a number for long.
    if isinstance(file, io.TextIOBase) or (isinstance(mode, str) and "b" not in mode):
        raise ValueError("file should be opened in binary mode")
    if not (hasattr(file, "read") or hasattr(file, "fileno")):
        raise TypeError(f"file must be a binary file object with read() (got {file!r})")
    if count is not None:
        _check_int("count", "a positive integer", count, 1)
    _check_int("offset", "a non-negative integer", offset, 0)
    if offset > _LAST_OFFSET:
        raise OverflowError(f"offset is beyond any file (got {offset!r})")
    if getattr(file, "closed", False) is True:
        raise ValueError("I/O operation on closed file")
    if not getattr(file, "readable", lambda: True)():
        raise io.UnsupportedOperation("File not open for reading")


def _check_int(name: str, kind: str, value: int, least: int) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be {kind} (got {value!r})")
    if value < least:
        raise ValueError(f"{name} must be {kind} (got {value!r})")


def is_seekable(file: BinaryFile) -> bool:
    """Tell whether a file has a position that can be set."""
    ask = getattr(file, "seekable", None)
    return bool(ask()) if ask is not None else hasattr(file, "seek")
