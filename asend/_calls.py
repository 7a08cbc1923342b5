"""What all calls have in common once there is a transfer: step, wait where that is not all, end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from ._limits import Pace, timed_out
from ._tally import note_sent
from ._wants import DONE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from ._limits import Limits
    from ._wants import Transfer


class Holder(Protocol):
    """What keeps the connection open while a call waits."""

    def hold(self) -> socket.socket:
        """Return the socket to send by from now on."""

    def leave(self) -> None:
        """Let others send, as all that is left is to clean up."""


HolderT = TypeVar("HolderT", bound=Holder, contravariant=True)


class Waiter(Protocol[HolderT]):
    """Who waits, on what a holder of this kind holds."""

    async def drive(
        self, transfer: Transfer, want: int, sender: HolderT, pace: Pace | None
    ) -> None:
        """Wait for what the transfer wants, and step, until it is done.

        Raises:
            TimeoutError: A limit is broken.
            Exception: Whatever a step raises.
        """

    async def within(self, seconds: float, call: Coroutine[object, object, None]) -> None:
        """Await a call; end it with TimeoutError when its total time has passed."""

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Run a clean-up that blocks, to its end even if this task is cancelled."""


async def carry_out(
    driver: Waiter[HolderT],
    transfer: Transfer,
    holder: HolderT,
    seconds: float | None,
    limits: Limits | None,
    want: int | None = None,
) -> int:
    """Step once, and wait where that was not all.

    Args:
        driver: Of the running event loop, or of a stream.
        transfer: What is to be sent; closed at the end.
        holder: What keeps the connection open: the sender, or a stream that only takes blocks.
        seconds: The total time. None: no limit. 0: not to wait.
        limits: The pace to keep.
        want: What the transfer wants, if a first try was made already.

    Returns:
        The bytes that the kernel took.
    """
    tally = transfer.tally
    try:
        try:
            if want is None:
                want = transfer.step()
            if want != DONE:
                if seconds == 0:
                    raise timed_out(0)
                transfer.hold(holder.hold())
                pace = None if limits is None else Pace(limits, tally)
                call = driver.drive(transfer, want, holder, pace)
                await (call if seconds is None else driver.within(seconds, call))
        finally:
            # It refers to the pace, and that to the tally.
            tally.on_move = None
            transfer.leave()
            holder.leave()
            if transfer.closes_slowly:
                await driver.in_thread(transfer.close)
            else:
                transfer.close()
    except BaseException as error:  # one that is cancelled says how far it came, even in its end
        note_sent(error, tally.sent, tally.total)
        raise
    return tally.sent
