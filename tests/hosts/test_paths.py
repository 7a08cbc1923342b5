"""What the calls that send do on paths that are narrow, full or bad."""

from __future__ import annotations

import os
import socket
import time
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import anyio
import pytest
from conftest import DATA
from network import BUFFER, TCP_WINDOW_CLAMP, Info, Network, accepted, info, needs_hosts, needs_tun
from ways import Count, attempts, each_runtime, each_way, opened, send_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Peer

pytestmark = [pytest.mark.anyio, needs_hosts, each_runtime]

# What IPv6 asks of every path; a cable has 1500.
MTU = 1280
# Bytes of a window. With one that is less than two packets the kernels wait for each other.
TINY = 4096
# Bytes that no path here brings in the seconds that a call has.
ENDLESS = 1 << 26
TIMEOUT = 0.2


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that takes no room."""
    path = tmp_path / "endless"
    with path.open("wb") as file:
        file.truncate(ENDLESS)
    return path


class Window(NamedTuple):
    """What the receiver has room for: bytes of a buffer, and those that it says to have."""

    buffer: int = BUFFER
    clamp: int | None = None

    async def read(self, peer: Peer, nbytes: int) -> bytes:
        """Read so many bytes, or to the end."""
        received = bytearray()
        while len(received) < nbytes:
            if self.clamp is not None:
                # Each time, as the kernel forgets it when it learns how large packets are.
                peer.other.setsockopt(socket.IPPROTO_TCP, TCP_WINDOW_CLAMP, self.clamp)
            block = await peer.read(min(nbytes - len(received), 16384))
            if not block:
                break
            received += block
        return bytes(received)


OPEN = Window()
each_tiny_window = pytest.mark.parametrize(
    "window", [Window(buffer=1), Window(clamp=TINY)], ids=["buffer", "clamp"]
)


async def send_to(
    peer: Peer,
    way: str,
    path: Path,
    window: Window = OPEN,
    halfway: Callable[[], object] = lambda: None,
) -> Info:
    """Send a file, see that it arrives, and return what the kernel says of the connection then.

    Args:
        halfway: What happens when half of it has arrived.
    """
    with path.open("rb") as file:
        data = file.read()
    count = Count()
    async with opened(way, peer.sock, path) as send:
        async with anyio.create_task_group() as group:
            group.start_soon(send_all, peer, send, count)
            received = await window.read(peer, len(data) // 2)
            assert count.sent < len(data)
            halfway()
            received += await window.read(peer, len(data) - len(received))
        known = info(peer.sock)
    assert count.sent == len(data)
    assert sha256(received).digest() == sha256(data).digest()
    return known


async def time_out(peer: Peer, way: str, endless: Path) -> float:
    """Send to who reads all the time, till a timeout; return how many seconds late that was."""
    count = Count()
    async with opened(way, peer.sock, endless) as send, anyio.create_task_group() as reader:
        reader.start_soon(peer.read, ENDLESS)
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            await send(timeout=TIMEOUT, progress=count.add)
        ended = time.monotonic()
        reader.cancel_scope.cancel()
        taken = accepted(peer.sock)

    assert caught.value.__notes__ == [f"{taken} of {ENDLESS} bytes sent"]
    assert 0 < count.sent == taken
    return ended - began - TIMEOUT


@each_way
async def test_a_path_of_small_packets_brings_all(way: str, path: Path) -> None:
    with Network() as network, network.connection() as peer:
        network.lower_mtu()
        known = await send_to(peer, way, path)

    assert known.path_mtu == MTU


@each_way
async def test_a_path_may_become_one_of_small_packets(way: str, path: Path) -> None:
    with Network() as network, network.connection() as peer:
        known = await send_to(peer, way, path, halfway=network.lower_mtu)

    assert known.path_mtu == MTU


@each_tiny_window
@each_way
async def test_a_tiny_window_takes_all(way: str, window: Window, path: Path) -> None:
    os.truncate(path, len(DATA) // 4)
    known: list[Info] = []
    with Network() as network, network.connection(window.buffer) as peer:
        await send_to(peer, way, path, window, lambda: known.append(info(peer.sock)))

    assert known[0].window <= TINY


@each_way
async def test_a_tiny_window_gives_no_more_time(way: str, endless: Path) -> None:
    for late in attempts():
        with Network() as network, network.connection(buffer=1) as peer:
            late.append(await time_out(peer, way, endless))


@needs_tun
@each_way
async def test_a_router_that_loses_packets_loses_no_byte(way: str, path: Path) -> None:
    with Network(is_lossy=True) as network, network.connection() as peer:
        known = await send_to(peer, way, path)

    # Of more than 2000 packets there are 20 that it drops.
    assert known.retransmits >= 10


@needs_tun
@each_way
async def test_a_router_that_loses_packets_gives_no_more_time(way: str, endless: Path) -> None:
    for late in attempts():
        with Network(is_lossy=True) as network, network.connection() as peer:
            late.append(await time_out(peer, way, endless))
            assert network.sender.retransmits
