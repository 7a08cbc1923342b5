"""Counts the calls of the methods of asend's own event loops; puts nothing in their place."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import shim_loops
from doubles import count_call, no_kernel_sendfile

from asend import loops

_sendall, _sendfile = loops._Sends.sock_sendall, loops._Sends.sock_sendfile
_stream_sendfile = loops._Sends.sendfile


async def _counted_sendall(*arguments: Any) -> None:
    count_call()
    await _sendall(*arguments)


async def _counted_sendfile(*arguments: Any, **options: Any) -> int:
    count_call()
    return await _sendfile(*arguments, **options)


async def _counted_stream_sendfile(loop: object, *arguments: Any, **options: Any) -> int:
    count_call()
    # So a case says that there is no native sendfile.
    is_hidden = "_sendfile_native" in vars(loop)
    with no_kernel_sendfile() if is_hidden else nullcontext():
        return await _stream_sendfile(loop, *arguments, **options)


def install(runtime: str) -> None:
    """Count for the rest of the process."""
    loops._Sends.sock_sendall = _counted_sendall
    loops._Sends.sock_sendfile = _counted_sendfile
    loops._Sends.sendfile = _counted_stream_sendfile
    if runtime == "uvloop":
        shim_loops.make_uvloop_connect_at_once()
    elif runtime == "asyncio-eager":
        shim_loops.make_tasks_eager()
