"""One sender per socket: who waits on which, and what keeps its descriptor open meanwhile."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ._arguments import is_trio_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from socket import SocketIO
    from types import TracebackType

    from ._arguments import AnySocket

# The calls that send, by the number of their descriptor, in all threads of the process.
waiting: dict[int, Sender] = {}


def _never() -> bool:
    return False


def _do_nothing(_: OSError) -> None:
    pass


def is_busy(sock: AnySocket) -> bool:
    """Tell whether a call is sending on this socket that has more than its clean-up to do."""
    sender = waiting.get(sock.fileno())
    return sender is not None and not sender.is_over() and not sender.is_stale()


class Sender:
    """A call that sends on a socket; the only one, as a context manager."""

    __slots__ = ("_hold", "fd", "give_up", "is_over", "sending", "sock")

    def __init__(self, sock: AnySocket, sending: socket.socket) -> None:
        self.sock = sock
        self.sending = sending
        self.fd = sock.fileno()
        self._hold: SocketIO | None = None
        # A driver sets these: the call has nothing to do but to clean up; end it with this error.
        self.is_over: Callable[[], bool] = _never
        self.give_up: Callable[[OSError], None] = _do_nothing

    @property
    def wait_on(self) -> AnySocket:
        """The socket to wait on: trio's own is told when it is closed, others are not."""
        return self.sock if is_trio_socket(self.sock) else self.sending

    def is_stale(self) -> bool:
        """Tell whether the socket was taken apart (`detach`), so that the number is another's."""
        return self.sock.fileno() != self.fd

    def __enter__(self) -> Sender:
        former = waiting.get(self.fd)
        if former is not None and former.is_stale():
            former.give_up(closed_error())
        waiting[self.fd] = self
        return self

    def hold(self) -> None:
        """Defer `socket.close()` until the call ends.

        That is what `socket.makefile` promises for the files that it makes, so that nothing is sent
        on a descriptor number that is another connection by then.

        Raises:
            OSError: The socket is closed by now.
        """
        if self.is_stale():
            raise closed_error()
        # trio's sockets tell those who wait when they are closed, and have no makefile.
        if isinstance(self.sock, socket.socket):
            self._hold = self.sock.makefile("wb", buffering=0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not the entry of a call that began when this one was cancelled.
        if waiting.get(self.fd) is self:
            del waiting[self.fd]
        # They refer to the driver's objects, which refer to this one.
        self.is_over, self.give_up = _never, _do_nothing
        if self._hold is not None:
            self._hold.close()


def closed_error() -> OSError:
    """Return the error of a socket that was closed under a call."""
    return OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: the socket was closed while sending")


def sending_socket(sock: AnySocket) -> AbstractContextManager[socket.socket]:
    """Lend the socket to call `send` of: this one, or a duplicate whose `send` never waits.

    A socket with a timeout waits inside `send`; trio's sockets have none but an async one.
    """
    if isinstance(sock, socket.socket) and not sock.getblocking():
        return nullcontext(sock)
    if isinstance(sock, socket.socket):
        duplicate = sock.dup()
    else:
        duplicate = socket.socket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
    duplicate.setblocking(False)
    return duplicate
