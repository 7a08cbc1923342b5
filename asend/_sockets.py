"""The public coroutines on sockets: check, try at once, and drive a transfer where that is not all.

A call that the kernel accepts at once builds no transfer, no future and no timer.
"""

from __future__ import annotations

from asyncio import _get_running_loop, current_task
from functools import partial
from socket import socket
from sys import modules
from typing import TYPE_CHECKING

from . import _drivers
from ._arguments import (
    SOCKET_TIMEOUT,
    as_ancillary,
    as_seconds,
    as_vectors,
    check_file,
    check_kind,
    check_mode,
    check_open,
    check_stream_socket,
    check_watchers,
    is_positive,
)
from ._calls import carry_out
from ._files import FileTransfer
from ._limits import Limits
from ._senders import Sender, senders
from ._tally import Tally, note_sent
from ._transfers import SMALL, WOULD_BLOCK, Vectors, octets_of
from ._wants import SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import ReadableBuffer

    from ._arguments import AnySocket, BinaryFile, SocketTimeout
    from ._wants import Build


async def sock_sendall(
    sock: AnySocket,
    data: ReadableBuffer,
    flags: int = 0,
    *,
    timeout: float | SocketTimeout | None = SOCKET_TIMEOUT,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Send all of `data` on a connected socket, as `socket.sendall` does.

    Args:
        sock: A connected non-blocking `socket.socket` of any type; under trio also a
            `trio.socket.SocketType`. A socket with a timeout is taken too and does not block.
        data: Any C-contiguous buffer, sent as its bytes whatever its item size and shape. It is
            not copied: what changes in it while the call waits may be sent changed, and a
            bytearray cannot be resized until the call ends. Empty data makes one `send(b"")`.
        flags: As for `socket.send`, e.g. `socket.MSG_MORE`; given to each `send`.
        timeout: The most seconds that the whole call may take, not restarted by progress. 0 tries
            once. None: no limit. Default: the socket's own timeout where that is positive, else
            no limit.
        limits: The pace that the peer has to keep.
        progress: Called with each number of bytes newly accepted by the kernel, on the event
            loop's thread: it must not block. What it raises ends the call.

    Raises:
        BusyResourceError: Another call is sending on this socket. Nothing was sent, unless it is
            trio that sends and a note says how much.
        TimeoutError: The total time has passed, or a limit is broken. Close the connection.
        TypeError, ValueError, BufferError: An argument is wrong, the socket is blocking or of
            type SSLSocket. Nothing was sent.
        RuntimeError: A transport owns the socket: write to that. Nothing was sent.
        OSError: From `send`, such as BrokenPipeError. The connection is of no more use. EMFILE: the
            call has to wait and the process has no descriptor left for that.

    Every exception of a call that has started carries the note "N of M bytes sent".

    Cancellation takes effect at once: no byte is sent afterwards, and the socket stays usable.
    A call that waits has a descriptor of its own for the connection: closing or detaching the
    socket takes effect when the call ends; `shutdown(SHUT_RDWR)` ends it. A trio socket that is
    closed ends the call with OSError (EBADF). On uvloop, a writer of your own on the socket is
    taken off.

    Source: `socket.socket.sendall` in the Python documentation; send(2); PEP 475.
    """
    # What is not known for sure here goes the long way, which checks everything. Each test is of
    # 10 to 40 ns, where the whole of a small send takes about 1 us.
    if (
        type(sock) is socket
        and (type(data) is bytes or type(data) is bytearray)
        and not sock.getblocking()
        and progress is None
        and (timeout is SOCKET_TIMEOUT or timeout is None or is_positive(timeout))
        and (limits is None or type(limits) is Limits)
        and not (senders and sock.fileno() in senders)
        and len(data) <= SMALL
        and (loop := _get_running_loop()) is not None
        # trio may be a guest on that loop, and runs its tasks in none of asyncio's.
        and not ("trio" in modules and current_task(loop) is None)
        # No transport may own it. asyncio has a table of them; uvloop shows none, but keeps the
        # sockets in it from being closed. `admit` says this in full.
        and not (
            (table := transports.data) and sock.fileno() in table
            if (transports := getattr(loop, "_transports", None)) is not None
            else sock._io_refs  # type: ignore[attr-defined]  # 0 unless held open, as by makefile
        )
    ):
        try:
            sent = sock.send(data) if flags == 0 else sock.send(data, flags)
        except WOULD_BLOCK:
            sent = 0
        except BaseException as error:  # a KeyboardInterrupt says how far it came, too
            note_sent(error, 0, len(data))
            raise
        else:
            if sent == len(data):
                return
        want = SOCKET
    else:
        sent, want = 0, None
    build = partial(octets_of, data, flags, progress, sent)
    await _deliver(sock, build, timeout, limits, progress, want)


async def sock_sendmsg(
    sock: AnySocket,
    buffers: Iterable[ReadableBuffer],
    ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
    flags: int = 0,
    *,
    timeout: float | SocketTimeout | None = SOCKET_TIMEOUT,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Send all bytes of several buffers, in their order, without joining them.

    Args:
        sock: As for `sock_sendall`.
        buffers: C-contiguous buffers of any number, item size and shape, held until the call ends.
            On a socket whose sends are messages (datagrams) they make one message.
        ancdata: Ancillary data as for `socket.sendmsg`, sent once, with the first byte. File
            descriptors in it must stay open until the call ends.
        flags: As for `socket.sendmsg`; given to each call of it.
        timeout: As for `sock_sendall`.
        limits: As for `sock_sendall`.
        progress: As for `sock_sendall`.

    Raises:
        Exception: As `sock_sendall`.

    Cancellation: as `sock_sendall`.

    Source: `socket.socket.sendmsg` in the Python documentation, which sends a part; sendmsg(2).
    """
    build = partial(_vectors, buffers, ancdata, flags, progress)
    await _deliver(sock, build, timeout, limits, progress)


def _vectors(
    buffers: Iterable[ReadableBuffer],
    ancdata: Iterable[tuple[int, int, ReadableBuffer]],
    flags: int,
    progress: Callable[[int], object] | None,
    sending: socket,
) -> Vectors:
    views = as_vectors(buffers)
    tally = Tally(sum(view.nbytes for view in views), progress)
    return Vectors(sending, views, as_ancillary(ancdata), flags, tally)


async def sock_sendfile(
    sock: AnySocket,
    file: BinaryFile,
    offset: int = 0,
    count: int | None = None,
    *,
    fallback: bool = True,
    timeout: float | SocketTimeout | None = SOCKET_TIMEOUT,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Send a file on a connected stream socket, as `socket.sendfile` does, by `os.sendfile`.

    Args:
        sock: A connected non-blocking `socket.socket` of type SOCK_STREAM; under trio also a
            `trio.socket.SocketType`. A socket with a timeout is taken too and does not block.
        file: A binary file object. A regular file goes by `os.sendfile`; parts of it that are not
            in the page cache are read first, in a worker thread, so that a slow disk does not
            block the event loop. What `os.sendfile` cannot send (pipes, files of /proc, BytesIO,
            gzip, devices) is read to its end in a worker thread and sent by `send`. What was
            written to the object is flushed first.
        offset: The first byte to send, counted from the start of the file, whatever its position.
            It must be 0 where the file cannot seek: sending starts where reading would.
        count: The most bytes to send. None: to the end, following a file that grows.
        fallback: False refuses what `os.sendfile` cannot send instead of reading it.
        timeout: As for `sock_sendall`. This is stricter than `socket.sendfile`, whose timeout
            starts anew at each wait.
        limits: As for `sock_sendall`.
        progress: As for `sock_sendall`.

    Returns:
        The bytes that the kernel took. Less than `count` where the file ended before.

    Raises:
        BusyResourceError: Another call is sending on this socket. Nothing was sent.
        SendfileNotAvailableError: `fallback` is False and the file is not of the kind.
        TimeoutError: The total time has passed, or a limit is broken. Close the connection.
        TypeError, ValueError, OverflowError: An argument is wrong, the file is a text file or
            closed, the socket is blocking, of type SSLSocket or no stream. Nothing was sent.
        RuntimeError: A transport owns the socket. Nothing was sent.
        OSError: From the socket or the file.

    Every exception of a call that has started carries the note "N of M bytes sent".

    The file position is `offset` plus the bytes sent when the call ends, in whatever way, if any
    byte was sent and the file can seek. Where a call that failed was just reading an object that is
    no plain file, the worker thread sets it when that read ends, as no failure waits for a read.
    The calls here know of that and of each other, and can send the same object at any time; use it
    otherwise only when that read has ended. The pages of the file are not copied: what is written
    to the file shortly after the call may still change what the peer gets.

    Cancellation: as `sock_sendall`. Closing the file does not end a call that uses `os.sendfile`.

    Source: `socket.socket.sendfile` in the Python documentation; sendfile(2).
    """
    check_file(file, offset, count)
    build = partial(_file, file, offset, count, fallback, progress)
    return await _deliver(sock, build, timeout, limits, progress)


def _file(
    file: BinaryFile,
    offset: int,
    count: int | None,
    fallback: bool,
    progress: Callable[[int], object] | None,
    sending: socket,
) -> FileTransfer:
    check_stream_socket(sending)
    return FileTransfer(sending, file, offset, count, fallback, progress)


async def _deliver(
    sock: AnySocket,
    build: Build,
    timeout: float | SocketTimeout | None,
    limits: Limits | None,
    progress: Callable[[int], object] | None,
    want: int | None = None,
) -> int:
    """Check what all calls have in common, step once, and wait where that was not all.

    Args:
        build: Makes the transfer on the socket to send by.
        want: What the transfer wants, if a first try was made already.

    Returns:
        The bytes that the kernel took.
    """
    driver = _drivers.running()
    seconds = as_seconds(timeout, sock)
    check_watchers(limits, progress)
    check_open(sock)
    check_mode(sock)
    if hasattr(sock, "fileno"):
        await driver.admit(sock)
    check_kind(sock)
    with Sender(sock) as sender:
        return await carry_out(driver, build(sender.sending), sender, seconds, limits, want)
