"""A body that aiohttp encodes on its way to a client."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from .. import streams
from .._limits import Deadline
from ..http import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http import StreamWriter

    from .._limits import Limits
    from ..http import OpenFile

BLOCK: Final = 256 * 1024


class Encoded:
    """One body on its way."""

    def __init__(
        self,
        transport: asyncio.Transport,
        timeout: float | None,
        limits: Limits | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._transport = transport
        self._deadline = Deadline(timeout)
        self._limits = limits
        self._progress = progress

    async def send(self, writer: StreamWriter, file: OpenFile) -> None:
        """Send the whole file by aiohttp's writer, which encodes it; wait for each block to go."""
        offset, began = 0, monotonic()
        while offset < file.size:
            block = await _read(file, offset, min(BLOCK, file.size - offset))
            if not block:
                raise TruncatedError(f"the file ended {file.size - offset} bytes before its length")
            await self._write(writer, block, monotonic() - began)
            offset += len(block)

    async def _write(self, writer: StreamWriter, block: bytes, elapsed: float) -> None:
        await writer.write(block, drain=False)
        limits = self._limits
        if limits is not None and limits.min_rate is not None:
            # Each block is a call of its own, whose rate may not be asked for before the peer had
            # the time for it: at its start a call has sent nothing, however fast the last one was.
            grace = max(limits.grace - elapsed, len(block) / limits.min_rate)
            limits = replace(limits, grace=grace)
        # Nothing more, but when all that was written has gone.
        await streams.sendall(self._transport, b"", timeout=self._deadline.left(), limits=limits)
        if self._progress is not None:
            self._progress(len(block))


async def _read(file: OpenFile, offset: int, nbytes: int) -> bytes:
    block = file.read_now(offset, nbytes)
    if block is None:
        loop = asyncio.get_running_loop()
        block = await loop.run_in_executor(None, os.pread, file.file.fileno(), nbytes, offset)
    return block
