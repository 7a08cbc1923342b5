"""How many bytes of one call the kernel took: for progress, limits and the note on errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


# The most bytes that one step copies, or has read, before the event loop gets its turn: each costs
# the same, so that more would only hold the loop for longer.
STEP_SIZE = 256 * 1024
# And that the kernel takes from a file by itself, where a step of its own costs as much as many of
# its bytes. Of 1 GiB to one receiver, with CUBIC, a GB took 0.12 s of CPU in steps of 256 KiB, and
# 0.07 s in these and in those of 2 MiB, which many calls at once would all have to wait for. The
# median of the longest pauses was less than 1 ms in each (row "steps" of the benchmarks).
KERNEL_STEP_SIZE = 1024 * 1024


class Tally:
    """The bytes of one call that the kernel took so far."""

    __slots__ = ("drained", "most", "on_move", "progress", "sent", "total")

    def __init__(
        self, total: int | None, progress: Callable[[int], object] | None, sent: int = 0
    ) -> None:
        self.total = total
        self.progress = progress
        self.sent = sent
        # The most that the next step may move: a share of what goes in one turn of the event loop.
        # Little at first: a step that is made before the call waits has no turn, and many calls
        # may begin at once.
        self.most = STEP_SIZE
        # Bytes of others, that had to go first.
        self.drained = 0
        # Called at every move; only calls with limits pay for a look at the clock.
        self.on_move: Callable[[], None] | None = None

    def add(self, nbytes: int) -> None:
        """Count bytes just taken. What `progress` raises ends the call, with the bytes counted."""
        self.sent += nbytes
        if self.on_move is not None:
            self.on_move()
        if self.progress is not None:
            self.progress(nbytes)

    def drain(self, nbytes: int) -> None:
        """Count bytes that others wrote before, and the kernel took just now."""
        self.drained += nbytes
        if self.on_move is not None:
            self.on_move()


def note_sent(error: BaseException, sent: int, total: int | None) -> None:
    """Write on an exception how far its call came."""
    whole = "an unknown number of" if total is None else total
    error.add_note(f"{sent} of {whole} bytes sent")
