"""One sender per socket: who waits on which, and by what descriptor it sends."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, cast

from ._arguments import is_trio_socket
from ._errors import closed_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._arguments import AnySocket

# The calls that send, by the number of their descriptor, in all threads of the process.
senders: dict[int, Sender] = {}


def _never(*_: object) -> bool:
    return False


def is_busy(sock: AnySocket) -> bool:
    """Tell whether a call is sending on this socket that has more than its clean-up to do."""
    sender = senders.get(sock.fileno())
    return sender is not None and not sender.is_over() and sender.sends_on(sock)


class Sender:
    """A call that sends on a socket; the only one, as a context manager."""

    __slots__ = ("_fd", "_leave", "give_up", "is_over", "lent", "sending", "sock")

    def __init__(
        self,
        sock: AnySocket,
        leave: Callable[[], object] | None = None,
        *,
        is_ours: bool = False,
    ) -> None:
        """Prepare to send on a socket.

        Args:
            sock: What to send on.
            leave: What to call when nothing is sent any more.
            is_ours: Whether the socket was made for this call, and never waits.
        """
        self.sock = sock
        self._leave = leave
        self._fd = sock.fileno()
        # The caller's own, if its `send` will do: a socket with a timeout waits inside it, trio's
        # have none but an async one.
        is_fit = is_ours or (isinstance(sock, socket.socket) and not sock.getblocking())
        self.lent = cast("socket.socket", sock) if is_fit else None
        # The socket to call `send` of.
        self.sending = _duplicate(sock) if self.lent is None else self.lent
        # A driver sets these: the call has nothing to do but to clean up; end it, with this error
        # if any.
        self.is_over: Callable[[], bool] = _never
        self.give_up: Callable[[BaseException | None], object] = _never

    def __enter__(self) -> Sender:
        senders[self._fd] = self
        return self

    def hold(self) -> socket.socket:
        """Return the socket to send by from now on, which nobody else can close.

        Whatever becomes of the caller's while the call waits (closed, detached, its number closed
        and another connection's by then), the bytes go where they should, and who waits is woken.

        Raises:
            OSError: The process has no descriptor left (EMFILE), or the socket is closed by now.
        """
        if self.sending is self.lent:
            self.sending = _duplicate(self.sock)
        return self.sending

    def leave(self) -> None:
        """Let others send, as all that is left is to clean up."""
        if self._leave is not None:
            self._leave()

    @property
    def wait_on(self) -> AnySocket:
        """The socket to wait on: trio's own is told when it is closed, others are not.

        Raises:
            OSError: It is closed by now.
        """
        if not is_trio_socket(self.sock):
            return self.sending
        if self.sock.fileno() != self._fd:
            raise closed_error()
        return self.sock

    def sends_on(self, sock: AnySocket) -> bool:
        """Tell whether this is the socket of the call: its number may be another's by now."""
        if self.sock is sock:
            return True
        try:
            ours, theirs = (os.fstat(each.fileno()) for each in (self.sending, sock))
        except OSError:
            # The call ends just now, in another thread; or sockets have no such status (Windows).
            return False
        return os.path.samestat(ours, theirs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not the entry of a call that began when this one was cancelled.
        if senders.get(self._fd) is self:
            del senders[self._fd]
        # They refer to what the driver has made for the call, and that to this sender.
        self.is_over = self.give_up = _never
        if self.sending is not self.lent:
            self.sending.close()


def _duplicate(sock: AnySocket) -> socket.socket:
    if is_trio_socket(sock):
        duplicate = socket.socket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
    else:
        # A socket, or what a transport shows of its own.
        duplicate = cast("socket.socket", sock).dup()
    duplicate.setblocking(False)
    return duplicate
