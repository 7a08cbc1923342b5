"""The calls as users of pytest-asyncio test their own code with them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import asend

if TYPE_CHECKING:
    from conftest import Peer


@pytest.fixture(autouse=True)
def no_descriptor_left() -> None:
    """Not asked here: some versions of the plugin make their loop within the test's fixtures."""


@pytest.mark.asyncio
async def test_a_call_is_a_coroutine_for_tasks_and_timeouts(unix_peer: Peer) -> None:
    task = asyncio.create_task(asend.sock_sendall(unix_peer.sock, b"by a task"))
    async with asyncio.timeout(5):
        await asyncio.gather(task)

    assert unix_peer.read_now() == b"by a task"


@pytest.mark.asyncio
async def test_a_timeout_around_a_call_cancels_it(unix_peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asend.sock_sendall(unix_peer.sock, bytes(1 << 22))

    assert not asyncio.get_running_loop().remove_writer(unix_peer.sock)
