"""`sendall` and `sendfile` on streams: asyncio's, anyio's and trio's, plain and encrypted.

What was written to the stream before goes first, what is written afterwards comes after, and
reading goes on meanwhile. Where the bytes go out as they are, a file is sent by the kernel;
elsewhere it is read in a worker thread and sent in blocks.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from . import _drivers
from ._arguments import as_seconds, check_file, check_watchers, is_positive
from ._errors import SendfileNotAvailableError
from ._files import FileTransfer, kernel_sends
from ._limits import Limits
from ._outlets import outlet_of
from ._outlets._transports import end_now
from ._tally import STEP_SIZE, note_sent
from ._transfers import WOULD_BLOCK, octets_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

    from ._arguments import BinaryFile
    from ._drivers import Driver
    from ._outlets import Outlet

__all__ = ["HasCarrier", "sendall", "sendfile", "sendfile_path"]


@runtime_checkable
class HasCarrier(Protocol):
    """What a stream of another kind implements so that the calls here can send on it."""

    def __asend_carrier__(self) -> object:
        """Return what carries the bytes of this stream.

        It is anything that the calls take: a socket, a transport, another stream. What is sent is
        sent on it as it is, so it must be what the bytes go to after this stream has done to them
        whatever it does. A stream that changes them should be a `ByteSendStream` of anyio or a
        `SendStream` of trio, on which its own way of sending is used.
        """


async def sendall(
    stream: object,
    data: ReadableBuffer,
    *,
    timeout: float | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Send all of `data` on a stream, after what was written to it before.

    Args:
        stream: An `asyncio.StreamWriter`; a transport of asyncio, uvloop or aiofastnet, of a
            socket or a pipe, also one that encrypts; a stream of anyio or trio; or an object with
            `__asend_carrier__` (see `HasCarrier`).
        data: Any C-contiguous buffer, as for `sock_sendall`.
        timeout: The most seconds that the whole call may take, that for what was written before
            included. 0 tries once; where the stream only takes blocks, such as one of anyio or trio
            that encrypts, nothing is tried. None: no limit.
        limits: The pace that the peer has to keep. What was written before counts for it.
        progress: Called with each number of bytes newly taken: by the kernel; by a stream of anyio
            or trio that encrypts, block by block.

    Raises:
        BusyResourceError: Another call is sending on this stream. Nothing was sent.
        TimeoutError: The total time has passed, or a limit is broken. Close the connection.
        TypeError, ValueError, BufferError: An argument is wrong, or the stream is not one to send
            on here. Nothing was sent.
        RuntimeError: The stream is closing, or belongs to another event loop: nothing was sent. Or
            someone wrote to it meanwhile.
        NotImplementedError: The event loop has no `add_writer` (the proactor of Windows). Nothing
            was sent.
        OSError: From the connection, such as BrokenPipeError; ConnectionAbortedError if the stream
            was closed meanwhile, EBADF if it was one of trio's. Streams of anyio and trio that
            encrypt raise their own errors.

    Every exception of a call that has started carries the note "N of M bytes sent".

    Cancellation takes effect at once, and the stream stays usable, with one exception: of a stream
    that encrypts, a block that was handed over cannot be taken back. asyncio's sends it on, and
    progress, note and file position count it; one of anyio or trio is of no more use then.

    Aborting a transport ends the call at once. `close` does so when the buffer is empty, as that is
    when it takes effect: what was written before, and over TLS a block of this call, goes first.

    A transport is not to be written to during the call: what the kernel takes at once would come
    in between. Where it shows, the call ends with RuntimeError.
    """
    sent = 0
    # As in `sock_sendall`: what is not known for sure here goes the long way, which checks
    # everything, and takes three times as long.
    if (
        type(data) is bytes
        and progress is None
        and (timeout is None or is_positive(timeout))
        and (limits is None or type(limits) is Limits)
        and 0 < len(data) <= STEP_SIZE
        and (fd := end_now(stream)) >= 0
    ):
        try:
            sent = os.write(fd, data)
        except WOULD_BLOCK:
            pass
        except OSError as error:
            note_sent(error, 0, len(data))
            raise
        if sent == len(data):
            return
    driver, outlet, seconds = _checked(stream, timeout, limits, progress)
    await outlet.deliver(driver, partial(octets_of, data, 0, progress, sent), seconds, limits)


async def sendfile(
    stream: object,
    file: BinaryFile,
    offset: int = 0,
    count: int | None = None,
    *,
    fallback: bool = True,
    timeout: float | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Send a file on a stream, by `os.sendfile` where `sendfile_path` says "kernel".

    Args:
        stream: As for `sendall`.
        file: As for `sock_sendfile`.
        offset: As for `sock_sendfile`.
        count: As for `sock_sendfile`.
        fallback: False refuses to read and send what `os.sendfile` cannot.
        timeout: As for `sendall`.
        limits: As for `sendall`.
        progress: As for `sendall`.

    Returns:
        The bytes sent. Less than `count` where the file ended before.

    Raises:
        SendfileNotAvailableError: `fallback` is False, and the stream encrypts or the file is not
            of the kind. Nothing was sent.
        Exception: As `sendall` and `sock_sendfile`.

    File position, notes and cancellation: as `sock_sendfile` and `sendall`.

    Source: `loop.sendfile` in the Python documentation, of which it has all arguments.
    """
    check_file(file, offset, count)
    driver, outlet, seconds = _checked(stream, timeout, limits, progress)
    if not (outlet.is_plain or fallback):
        raise SendfileNotAvailableError("the stream does not send bytes as they are")

    def build(sock: socket.socket) -> FileTransfer:
        plain = outlet.is_plain
        return FileTransfer(sock, file, offset, count, fallback, progress, by_kernel=plain)

    return await outlet.deliver(driver, build, seconds, limits)


def sendfile_path(stream: object, file: BinaryFile) -> Literal["kernel", "copy"]:
    """Tell which path a file will take on a stream.

    Args:
        stream: As for `sendall`.
        file: As for `sock_sendfile`.

    Returns:
        "kernel", or "copy" where it is read and sent in blocks.

    Raises:
        TypeError: The stream is not one to send on, or the file has no `read`.
        ValueError: The file is closed, or open for text.
    """
    check_file(file, 0, None)
    return "kernel" if outlet_of(stream).is_plain and kernel_sends(file) else "copy"


def _checked(
    stream: object,
    timeout: float | None,
    limits: Limits | None,
    progress: Callable[[int], object] | None,
) -> tuple[Driver, Outlet, float | None]:
    """Return who waits, the way of the bytes and the total time, or refuse one of these."""
    driver = _drivers.running()
    seconds = as_seconds(timeout)
    check_watchers(limits, progress)
    return driver, outlet_of(stream), seconds
