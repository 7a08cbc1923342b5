"""What the kernel says of the connections of this machine: /proc/net/tcp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connection(NamedTuple):
    """A socket of TCP.

    Args:
        port: Its own.
        peer: The port of the other end; 0: it listens.
        state: As the kernel numbers them, in hexadecimal.
        inode: By which a descriptor is known to be of this socket.
    """

    port: int
    peer: int
    state: str
    inode: str


def connections() -> Iterator[Connection]:
    """Yield the sockets of TCP by IPv4."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        port, peer = (int(address.rpartition(":")[2], 16) for address in words[1:3])
        yield Connection(port, peer, words[3], words[9])
