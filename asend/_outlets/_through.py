"""A transfer on a transport: it waits until what was written before has gone, then steps."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from .._errors import aborted_error
from .._wants import DONE, SOCKET
from ._watches import watch

if TYPE_CHECKING:
    import socket

    from .._senders import Sender
    from .._wants import FilePart, Transfer
    from ._ends import Written
    from ._traits import Transport
    from ._watches import Watch

# The proactor of Windows.
NO_WRITERS = "an event loop without add_writer cannot send on its streams"


class Through:
    """A transfer on a transport: after what was written before, and among nothing."""

    __slots__ = (
        "_is_drained",
        "_is_half_open",
        "_pending",
        "_sender",
        "_transfer",
        "_transport",
        "_watch",
        "_written",
        "endless",
        "tally",
    )

    def __init__(
        self,
        transfer: Transfer,
        transport: Transport,
        sender: Sender,
        written: Written | None,
        *,
        is_half_open: bool,
    ) -> None:
        self._transfer = transfer
        self._transport = transport
        self._sender = sender
        self._written = written
        self._is_half_open = is_half_open
        self._is_drained = False
        self._pending = transport.get_write_buffer_size()
        self._watch: Watch | None = None
        self.tally = transfer.tally
        self.endless = transfer.endless

    def step(self) -> int:
        if self._transport.is_closing():
            if self._is_complete():
                return DONE
            if self._written is not None and self._written.is_lost():
                # The error of the connection comes in the next turn.
                return SOCKET
            raise aborted_error()
        pending = self._transport.get_write_buffer_size()
        if not self._is_drained:
            self.tally.drain(max(0, self._pending - pending))
            self._pending = pending
            if pending:
                return SOCKET
            self._is_drained = True
        elif pending and not (self._written is not None and self._written.left):
            raise RuntimeError("the stream was written to while a call was sending on it")
        return self._transfer.step()

    def load(self) -> None:
        self._transfer.load()

    def hold(self, sock: socket.socket) -> None:
        self._transfer.hold(sock if self._written is None else cast("socket.socket", self._written))
        self._watch = watch(self._transport, self._is_half_open, self._lose)

    def _is_complete(self) -> bool:
        """Tell whether all that there was has gone, though the end of the file was not read yet.

        A peer may close as soon as it has the last byte.
        """
        return self._is_drained and self.tally.sent == self.tally.total

    def _lose(self, error: Exception | None) -> None:
        if self._is_complete():
            # Not the next step: nobody may read any more, so that the kernel takes some.
            self._sender.give_up(None)
            return
        lost = aborted_error()
        lost.__cause__ = error
        # As it is; a copy, as notes and traceback of this call are not those of the connection.
        self._sender.give_up(type(error)(*error.args) if isinstance(error, OSError) else lost)

    @property
    def closes_slowly(self) -> bool:
        return self._transfer.closes_slowly

    def leave(self) -> None:
        if self._watch is not None:
            self._watch.end()
            # It refers to this one.
            self._watch = None
        if (
            self._written is not None
            and self._written.left
            and not self._transport.is_closing()
            and not self._written.is_lost()
        ):
            # A call that failed meanwhile cannot take these back: they will go. It has its error,
            # whatever `progress` says to that.
            with suppress(Exception):
                self.tally.add(self._written.left)
        self._transfer.leave()

    def close(self) -> None:
        self._transfer.close()

    def rest(self) -> memoryview | FilePart | int:
        # Only asked on loops that cannot wait on a descriptor.
        raise NotImplementedError(NO_WRITERS)

    def ahead(self) -> int:
        return self._transfer.ahead()
