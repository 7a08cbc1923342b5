"""What the shims share: the count of calls, an os without sendfile, and broken calls.

The count tells a case that tests asend from one that passes without calling it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asend
from asend import loops

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_calls = 0


def count_call() -> None:
    """Note that a case called asend."""
    global _calls
    _calls += 1


def calls_made() -> int:
    """Return how often asend was called so far."""
    return _calls


@contextmanager
def no_kernel_sendfile() -> Iterator[None]:
    """Hide `os.sendfile`, so that files have to be copied."""
    genuine = os.sendfile
    del os.sendfile
    try:
        yield
    finally:
        os.sendfile = genuine


_sendall, _sendmsg, _sendfile = asend.sock_sendall, asend.sock_sendmsg, asend.sock_sendfile
_stream_sendfile = asend.sendfile


async def _sendall_nothing(*_: Any, **__: Any) -> None:
    """Say that all was sent."""


async def _sendmsg_nothing(sock: Any, buffers: Any, *_: Any, progress: Any, **__: Any) -> None:
    progress(sum(map(len, buffers)))


async def _sendfile_nothing(
    sock: Any, file: Any, offset: Any = 0, count: Any = None, **_: Any
) -> int:
    end = file.seek(0, os.SEEK_END) if count is None else file.seek(offset + count)
    return int(end) - int(offset)


async def _sendall_short(sock: Any, data: Any, *arguments: Any, **options: Any) -> None:
    await _sendall(sock, data[:-1], *arguments, **options)


async def _sendmsg_short(sock: Any, buffers: Any, *arguments: Any, **options: Any) -> None:
    *first, last = buffers
    await _sendmsg(sock, [*first, last[:-1]], *arguments, **options)
    options["progress"](1)


def _short(genuine: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    async def sendfile(
        end: Any, file: Any, offset: Any = 0, count: Any = None, **options: Any
    ) -> int:
        asked = await _sendfile_nothing(end, file, offset, count)
        await genuine(end, file, offset, asked - 1, **options)
        file.seek(offset + asked)
        return asked

    return sendfile


# Each lies: it says that all was sent.
BROKEN = {
    "sends-nothing": (_sendall_nothing, _sendmsg_nothing, _sendfile_nothing, _sendfile_nothing),
    "drops-last-byte": (
        _sendall_short,
        _sendmsg_short,
        _short(_sendfile),
        _short(_stream_sendfile),
    ),
}


def break_calls(kind: str) -> None:
    """Replace asend's calls by ones that do not keep their promise."""
    asend.sock_sendall, asend.sock_sendmsg, asend.sock_sendfile, asend.sendfile = BROKEN[kind]
    for name in ("sock_sendall", "sock_sendfile", "sendfile"):
        # A name that the loops do not look up would break nothing.
        getattr(loops, name)
        setattr(loops, name, getattr(asend, name))
