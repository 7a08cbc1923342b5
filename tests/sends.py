"""Calls that send DATA on a socket, and what they say of it where they fail."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from conftest import DATA

import asend

if TYPE_CHECKING:
    import socket
    from typing import Any


async def send_octets(sock: socket.socket, **options: Any) -> None:
    await asend.sock_sendall(sock, DATA, **options)


async def send_vectors(sock: socket.socket, **options: Any) -> None:
    pieces = [DATA[at : at + 70_001] for at in range(0, len(DATA), 70_001)]
    await asend.sock_sendmsg(sock, pieces, **options)


async def send_memory_file(sock: socket.socket, **options: Any) -> None:
    await asend.sock_sendfile(sock, io.BytesIO(DATA), **options)


def notes(error: BaseException | None) -> list[str]:
    return list(getattr(error, "__notes__", []))


def note(sent: int) -> str:
    return f"{sent} of {len(DATA)} bytes sent"
