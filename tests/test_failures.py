"""Connections of peers that were too slow are reset, and no others."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from conftest import ASYNCIO

from asend._failures import end, in_short, is_too_slow


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_transport_that_has_closed_meanwhile_may_be_reset() -> None:
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    writer.transport.abort()
    # Its socket is gone a turn or two later.
    with theirs:
        theirs.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(theirs, 1) == b""
    await asyncio.sleep(0)

    end(writer.transport, TimeoutError("stalled"))

    assert writer.transport.is_closing()


@pytest.mark.parametrize(
    ("error", "is_limit"),
    [
        (TimeoutError("stalled"), True),
        (TimeoutError(errno.ETIMEDOUT, "a disk far away"), False),
        (ConnectionResetError(), False),
    ],
)
def test_only_a_limit_makes_a_peer_too_slow(error: OSError, is_limit: bool) -> None:
    assert is_too_slow(error) is is_limit


def test_an_error_is_said_in_one_line_with_its_notes() -> None:
    error = TimeoutError("stalled")
    assert in_short(error) == "stalled"

    error.add_note("3 of 5 bytes sent")

    assert in_short(error) == "stalled; 3 of 5 bytes sent"
