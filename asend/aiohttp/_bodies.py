"""One body on its way to a client of aiohttp: past its writer, or through it where that encodes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from .. import streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiohttp.http import StreamWriter

    from .._limits import Limits
    from ..http import OpenFile, Part

# A body of this size goes with its head, in one piece: one system call instead of three. 64 KiB are
# what the kernel takes at once in any case.
_SMALL: Final = 64 * 1024
# Of a larger one the first bytes do, so that the head is no packet of its own.
_FIRST: Final = 16 * 1024
BLOCK: Final = 256 * 1024


class Sending:
    """One body on its way."""

    def __init__(
        self,
        transport: asyncio.Transport,
        timeout: float | None,
        limits: Limits | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._transport = transport
        self._until = None if timeout is None else monotonic() + timeout
        self._limits = limits
        self._progress = progress

    def _left(self) -> float | None:
        if self._transport.is_closing():
            # As a lost connection, which between two calls nobody has told of.
            raise ConnectionResetError("Connection lost")
        return None if self._until is None else max(0.001, self._until - monotonic())

    async def past(self, head: bytes, file: OpenFile, parts: Iterable[Part]) -> None:
        """Send the head and the parts, past aiohttp's writer: what is large by the kernel."""
        pending, progress = head, self._progress
        if progress is not None:
            progress = _Body(progress, len(head))
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
            if offset < end or len(pending) > _SMALL:
                await self._sendall(pending, progress)
                pending = b""
            if offset < end:
                await self._sendfile(file, offset, end, progress)
        if pending:
            await self._sendall(pending, progress)

    async def _sendall(self, data: bytes, progress: Callable[[int], object] | None) -> None:
        await streams.sendall(
            self._transport, data, timeout=self._left(), limits=self._limits, progress=progress
        )

    async def _sendfile(
        self, file: OpenFile, offset: int, end: int, progress: Callable[[int], object] | None
    ) -> None:
        sent = await streams.sendfile(
            self._transport,
            file.file,
            offset,
            end - offset,
            timeout=self._left(),
            limits=self._limits,
            progress=progress,
        )
        if sent < end - offset:
            raise _ended(end - offset - sent)

    async def through(self, writer: StreamWriter, file: OpenFile) -> None:
        """Send the whole file by aiohttp's writer, which encodes it; wait for each block to go."""
        offset, limits, began = 0, self._limits, monotonic()
        while offset < file.size:
            block = await _read(file, offset, min(BLOCK, file.size - offset))
            if not block:
                raise _ended(file.size - offset)
            await self._write(writer, block)
            offset += len(block)
            if limits is not None:
                # Each block is a call of its own: its grace is what is left of that of the whole.
                grace = max(0.0, limits.grace - (monotonic() - began))
                self._limits = replace(limits, grace=grace)

    async def _write(self, writer: StreamWriter, block: bytes) -> None:
        await writer.write(block, drain=False)
        # Nothing more, but when all that was written has gone.
        await self._sendall(b"", None)
        if self._progress is not None:
            self._progress(len(block))


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


async def _read(file: OpenFile, offset: int, nbytes: int) -> bytes:
    block = file.read_now(offset, nbytes)
    if block is None:
        loop = asyncio.get_running_loop()
        block = await loop.run_in_executor(None, os.pread, file.file.fileno(), nbytes, offset)
    return block


def _ended(missing: int) -> OSError:
    return OSError(f"the file ended {missing} bytes before its length")
