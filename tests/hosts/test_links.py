"""What the calls that send do when a link is down, for a while or for good."""

from __future__ import annotations

import socket
import time
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING

import anyio
import pytest
from conftest import DATA
from network import Network, accepted, info, needs_hosts
from ways import Count, attempts, each_runtime, each_way, opened, send_all

from asend import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Peer

pytestmark = [pytest.mark.anyio, needs_hosts, each_runtime]

# Bytes after which all is under way.
PART = len(DATA) // 4


@pytest.mark.parametrize("whose", ["sender", "router"])
@each_way
async def test_a_transfer_goes_on_when_the_link_is_up_again(
    way: str, whose: str, path: Path
) -> None:
    count = Count()
    with Network() as network, network.connection() as peer:
        host = getattr(network, whose)
        async with opened(way, peer.sock, path) as send, anyio.create_task_group() as group:
            group.start_soon(send_all, peer, send, count)
            received = await peer.read(PART)
            network.down(host)
            while not info(peer.sock).backoff and count.sent < len(DATA):
                received += peer.read_now()
                await anyio.sleep(0.001)
            before = count.sent
            network.up(host)
            received += await peer.read(len(DATA) - len(received))

    assert PART <= before < len(DATA)
    assert count.sent == len(DATA)
    assert sha256(received).digest() == sha256(DATA).digest()


# By what they are called with: when they have to end.
LIMITS = {
    "timeout": ({"timeout": 0.2}, lambda began, count: began + 0.2),
    "stall": ({"limits": Limits(stall=0.2)}, lambda began, count: count.moved + 0.2),
    "min_rate": (
        {"limits": Limits(min_rate=4e6, grace=0.1)},
        lambda began, count: began + count.sent / 4e6,
    ),
}


async def read_on(network: Network, peer: Peer, received: bytearray) -> None:
    """Read a part, take down the link, and read all that arrives nevertheless."""
    received += await peer.read(PART)
    network.down(network.router)
    while True:
        await anyio.wait_readable(peer.other)
        received += peer.read_now()


@pytest.mark.parametrize("limit", LIMITS)
@each_way
async def test_a_link_that_stays_down_ends_a_call_in_time(way: str, limit: str, path: Path) -> None:
    options, due = LIMITS[limit]
    for late in attempts():
        count = Count()
        received = bytearray()
        with Network() as network, network.connection() as peer:
            async with opened(way, peer.sock, path) as send, anyio.create_task_group() as reader:
                reader.start_soon(read_on, network, peer, received)
                began = time.monotonic()
                with pytest.raises(TimeoutError) as caught:
                    await send(progress=count.add, **options)
                late.append(time.monotonic() - due(began, count))
                reader.cancel_scope.cancel()
                taken = accepted(peer.sock)

        assert caught.value.__notes__ == [f"{taken} of {len(DATA)} bytes sent"]
        assert count.sent == taken
        assert received == DATA[: len(received)]
        assert len(received) < taken < len(DATA)
        if len(received) < PART:
            # On a busy machine the time was over before the link was down: once more.
            late[0] = inf


@each_way
async def test_what_was_sent_before_a_timeout_arrives_when_the_link_is_up_again(
    way: str, path: Path
) -> None:
    count = Count()
    with Network() as network, network.connection() as peer:
        async with opened(way, peer.sock, path) as send:
            network.down(network.router)
            with pytest.raises(TimeoutError):
                await send(timeout=0.1, progress=count.add)
            assert not peer.read_now()
            network.up(network.router)
            peer.sock.shutdown(socket.SHUT_WR)
            received = await peer.read(len(DATA))

    assert 0 < count.sent < len(DATA)
    assert received == DATA[: count.sent]
