"""Many downloads at once, each byte of which is checked: `with Downloads(...) as downloads`."""

from __future__ import annotations

import contextlib
import selectors
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_BLOCK = 128 * 1024
# Of each, so that most of a file is still to be sent while it is read.
_RECEIVE_BUFFER = 128 * 1024
# Seconds without any byte of any of them.
_PATIENCE = 20.0
_HEAD_END = b"\r\n\r\n"


@dataclass(eq=False)
class Download:
    """One of them.

    Args:
        port: Its own, of the two.
        came: Bytes of the file that came, all of them right.
        has_ended: It has ended, whole or not.
    """

    sock: socket.socket
    port: int
    came: int = 0
    has_ended: bool = False


class Downloads:
    """Downloads of a file, all of which have begun."""

    def __init__(self, port: int, path: str, content: bytes, number: int) -> None:
        self._content = memoryview(content)
        self._block = bytearray(_BLOCK)
        self._selector = selectors.DefaultSelector()
        self.all = [self._begin(port, path) for _ in range(number)]

    def __enter__(self) -> Downloads:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for download in self.all:
            download.sock.close()
        self._selector.close()

    def is_whole(self, download: Download) -> bool:
        return download.came == len(self._content)

    @property
    def came(self) -> float:
        """The part of all bytes that has come."""
        return sum(each.came for each in self.all) / len(self.all) / len(self._content)

    def unfinished(self) -> list[Download]:
        """Return those that go on."""
        return [each for each in self.all if not each.has_ended]

    def read(self, until: Callable[[], bool] = lambda: False) -> None:
        """Read all of them, until they have ended or that is so; it is asked after each round.

        Raises:
            TimeoutError: No byte has come for long.
        """
        while self._selector.get_map() and not until():
            ready = self._selector.select(_PATIENCE)
            if not ready:
                raise TimeoutError("downloads do not go on")
            for key, _ in ready:
                self._read(key.data)

    def _begin(self, port: int, path: str) -> Download:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.settimeout(_PATIENCE)
        sock.connect(("127.0.0.1", port))
        sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = b""
        while not head.endswith(_HEAD_END):
            byte = sock.recv(1)
            if not byte:
                raise RuntimeError("a download was refused")
            head += byte
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a download was refused: {head!r}")
        sock.setblocking(False)
        download = Download(sock, sock.getsockname()[1])
        self._selector.register(sock, selectors.EVENT_READ, download)
        return download

    def _read(self, download: Download) -> None:
        nbytes = 0
        with contextlib.suppress(ConnectionError):
            nbytes = download.sock.recv_into(self._block)
        block = memoryview(self._block)[:nbytes]
        is_right = nbytes > 0 and block == self._content[download.came : download.came + nbytes]
        # What is wrong makes it one that never becomes whole.
        if is_right:
            download.came += nbytes
        if not is_right or self.is_whole(download):
            download.has_ended = True
            self._selector.unregister(download.sock)
