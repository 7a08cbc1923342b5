"""Hands over to event loops that send by themselves: the Windows proactor has no `add_writer`.

Such a loop takes bytes and files, and no flags. It is given one step at a time, so that progress,
limits and file position are exact to a step.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from .._tally import STEP_SIZE
from .._wants import DONE, FilePart

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable

    from .._limits import Pace
    from .._senders import Sender
    from .._tally import Tally
    from .._wants import Transfer

T = TypeVar("T")


async def drive(transfer: Transfer, sender: Sender, pace: Pace | None) -> None:
    """Send what is left by the loop's own `sock_sendall` or `sock_sendfile`."""
    loop, tally = asyncio.get_running_loop(), transfer.tally
    # The caller's own where that may be, as a completion port takes no duplicate of what it has.
    sock = sender.sending if sender.lent is None else sender.lent
    while (rest := transfer.rest()) != DONE:
        if isinstance(rest, int):
            await _within(pace, loop.run_in_executor(None, transfer.load))
        elif isinstance(rest, FilePart):
            await _send_file(sock, rest, tally, pace)
            return
        else:
            await _send_octets(sock, rest, tally, pace)


async def _send_octets(
    sock: socket.socket, octets: memoryview, tally: Tally, pace: Pace | None
) -> None:
    loop = asyncio.get_running_loop()
    for at in range(0, octets.nbytes, STEP_SIZE):
        piece = octets[at : at + STEP_SIZE]
        await _within(pace, loop.sock_sendall(sock, piece))
        tally.add(piece.nbytes)


async def _send_file(sock: socket.socket, part: FilePart, tally: Tally, pace: Pace | None) -> None:
    loop = asyncio.get_running_loop()
    file, offset, left, fallback = part
    while left is None or left > 0:
        asked = STEP_SIZE if left is None else min(STEP_SIZE, left)
        # TransmitFile starts at the file's own position, whatever offset it is given.
        file.seek(offset)  # type: ignore[attr-defined]  # the loop itself seeks all that it sends
        call = loop.sock_sendfile(
            sock,
            file,  # type: ignore[arg-type]  # IO[bytes] is asked for, and not all of it used
            offset,
            asked,
            fallback=fallback,
        )
        sent = await _within(pace, call)
        if not sent:
            return
        offset += sent
        left = None if left is None else left - sent
        tally.add(sent)


async def _within(pace: Pace | None, call: Awaitable[T]) -> T:
    """Await a call of the loop; cancel it when a limit is broken."""
    if pace is None:
        return await call
    task = asyncio.ensure_future(call)
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=pace.look())
        return task.result()
    finally:
        task.cancel()
