"""The head and the parts of an answer, sent on a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._arguments import as_seconds, check_watchers
from .._limits import Deadline
from ..streams import sendall, sendfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._limits import Limits
    from ._answers import Part
    from ._open_files import OpenFile

# A body of this size goes with its head, in one piece: one system call instead of three. 64 KiB are
# what the kernel takes at once in any case.
_SMALL: Final = 64 * 1024
# Of a larger one the first bytes do, so that the head is no packet of its own.
_FIRST: Final = 16 * 1024


class TruncatedError(RuntimeError):
    """A file ended before the length that was promised of it: end the connection.

    It is no OSError, which would say that the client has left.
    """


async def send_parts(
    stream: object,
    head: bytes,
    file: OpenFile,
    parts: Iterable[Part],
    *,
    timeout: float | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Send a head and the parts of a body: what is small in one piece, the rest by the kernel.

    Args:
        stream: As for `asend.sendall`.
        head: Goes before the parts.
        file: Of which parts are sent.
        parts: As `answer` has them. Empty ones may be among them.
        timeout: The most seconds for all of it, however many pieces it goes in. 0 tries each once.
            None: no limit.
        limits: The pace that the peer has to keep. It is that of one call of `asend.sendall` or
            `asend.sendfile`, and begins anew, its grace too, with each piece: the head with what is
            small after it, and each larger part.
        progress: Called with each number of bytes of the parts, not the head, that were taken.

    Raises:
        TypeError, ValueError: An argument is wrong. Nothing was sent.
        TruncatedError: The file has become shorter.
        Exception: As `asend.sendall` and `asend.sendfile`. The peer was promised more: abort.

    Cancellation: as for `asend.sendall`; the peer was promised more then, too.
    """
    check_watchers(limits, progress)
    deadline = Deadline(as_seconds(timeout))
    if progress is not None:
        progress = _Body(progress, len(head))

    pending = head
    for part in parts:
        if isinstance(part, bytes):
            pending += part
            continue
        offset, end = part
        nbytes = end - offset
        first = file.read_now(offset, nbytes if nbytes <= _SMALL else _FIRST)
        if first is not None:
            pending += first
            offset += len(first)
            # Not to be held for as long as the file takes.
            del first
        if offset < end or len(pending) > _SMALL:
            await sendall(
                stream, pending, timeout=deadline.left(), limits=limits, progress=progress
            )
            pending = b""
        if offset < end:
            sent = await sendfile(
                stream,
                file.file,
                offset,
                end - offset,
                timeout=deadline.left(),
                limits=limits,
                progress=progress,
            )
            if sent < end - offset:
                missing = end - offset - sent
                raise TruncatedError(f"the file ended {missing} bytes before its length")
    if pending:
        await sendall(stream, pending, timeout=deadline.left(), limits=limits, progress=progress)


class _Body:
    """Tells `progress` of the bytes that come after the head."""

    def __init__(self, progress: Callable[[int], object], head: int) -> None:
        self._progress = progress
        self._head = head

    def __call__(self, nbytes: int) -> None:
        of_head = min(self._head, nbytes)
        self._head -= of_head
        if nbytes > of_head:
            self._progress(nbytes - of_head)
