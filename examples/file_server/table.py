"""What goes on as a table on the terminal, drawn by a thread: Ctrl+S stops it, not the server."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from access_log import escaped
from figures import dropped_text, seconds_text, size_text

if TYPE_CHECKING:
    from rich.console import ConsoleDimensions, RenderableType

    from activity import Activity, Transfer

# Four times a second is as often as eyes follow figures.
UPDATE_SECONDS = 0.25
# Rates are averages of so long.
RATE_SECONDS = 3.0
# Lines of the terminal that are not for transfers: counters, heading, what is left out, a note.
OTHER_LINES = 4
# Columns of the terminal below which a table leaves out the client, then the bar.
WIDTH_OF_CLIENT, WIDTH_OF_BAR = 80, 50
# Seconds for the last drawing to end; the terminal may have been stopped.
CLOSE_SECONDS = 1.0

# A total at some moments, the first of which is left behind.
History = deque[tuple[float, int]]


class LiveTable:
    """The table, from now on until `close`.

    Args:
        lines: What was printed before, and is again where the screen has to be cleared.
    """

    unlogged = 0

    def __init__(self, activity: Activity, lines: list[str]) -> None:
        self._activity = activity
        self._lines = lines
        self._note = ""
        self._console = Console()
        self._size = self._console.size
        self._shown: object = None
        self._histories: dict[object, History] = {}
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, name="table", daemon=True)
        self._live.start()
        self._thread.start()

    def say(self, text: str) -> None:
        """Show a line below the others."""
        self._note = text

    def close(self, last: str | None) -> None:
        """Take the table down, and print a line."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        # A drawing that is stuck holds the lock of both.
        if not self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._live.stop()
                if last is not None:
                    print(last, flush=True)

    # The thread.

    def _draw_on(self) -> None:
        # The terminal may go before the process does.
        with contextlib.suppress(OSError):
            while not self._closing.wait(UPDATE_SECONDS):
                self._draw()

    def _draw(self) -> None:
        """Draw what goes on, if that has changed since it was drawn."""
        activity = self._activity
        # The loop goes on changing both, and cannot come between while they are copied.
        transfers = sorted(activity.transfers, key=lambda transfer: transfer.began)
        recent = list(activity.recent)
        size = self._console.size
        moved = [(id(transfer), transfer.sent) for transfer in transfers]
        counted = (activity.connections, activity.requests, activity.dropped.total())
        is_moving = self._measure(transfers)
        shown = (size, moved, counted, [id(transfer) for transfer in recent], self._note)
        if shown == self._shown and not is_moving:
            return
        self._shown = shown
        if size != self._size:
            # The terminal has wrapped what was drawn, and nobody knows into how many lines.
            self._size = size
            self._console.clear()
            self._console.print(*map(Text, self._lines), sep="\n")
        self._live.update(self._picture(transfers, recent, size), refresh=True)

    def _measure(self, transfers: list[Transfer]) -> bool:
        """Note how far all is; tell whether any rate may still change."""
        now, activity = monotonic(), self._activity
        # What is under way counts when it has ended, and has to be added until then.
        nbytes = activity.nbytes + sum(transfer.sent for transfer in transfers)
        totals: dict[object, int] = {"requests": activity.requests, "nbytes": nbytes}
        totals |= {transfer: transfer.sent for transfer in transfers}
        for key in self._histories.keys() - totals.keys():
            del self._histories[key]
        for key, total in totals.items():
            history = self._histories.setdefault(key, deque())
            history.append((now, total))
            while len(history) > 2 and history[1][0] <= now - RATE_SECONDS:
                history.popleft()
        return any(history[0][1] != history[-1][1] for history in self._histories.values())

    def _rate(self, key: object) -> float:
        (began, before), (now, total) = self._histories[key][0], self._histories[key][-1]
        return max(0, total - before) / (now - began) if now > began else 0.0

    def _picture(
        self, transfers: list[Transfer], recent: list[Transfer], size: ConsoleDimensions
    ) -> RenderableType:
        room = max(1, size.height - OTHER_LINES)
        under_way = transfers[:room]
        ended = recent[len(recent) - min(len(recent), room - len(under_way)) :]
        lines: list[RenderableType] = [_line(self._counters())]
        if under_way or ended:
            lines.append(self._table(under_way, ended, size.width))
        if len(transfers) > room:
            lines.append(_line(f"and {len(transfers) - room} more"))
        if self._note:
            lines.append(_line(self._note, "bold"))
        return Group(*lines)

    def _counters(self) -> str:
        activity = self._activity
        dropped = activity.dropped.copy()
        parts = [
            f"connections: {activity.connections}",
            f"requests: {activity.requests} ({self._rate('requests'):.0f}/s)",
            f"sent: {size_text(self._histories['nbytes'][-1][1])} "
            f"({size_text(self._rate('nbytes'))}/s)",
        ]
        if dropped:
            parts.append(f"dropped: {dropped_text(dropped)}")
        return ", ".join(parts)

    def _table(self, under_way: list[Transfer], ended: list[Transfer], width: int) -> Table:
        table = Table(box=None, expand=True, pad_edge=False)
        has_client, has_bar = width >= WIDTH_OF_CLIENT, width >= WIDTH_OF_BAR
        if has_client:
            table.add_column("client", no_wrap=True, max_width=width // 4)
        table.add_column("path", no_wrap=True, ratio=2)
        if has_bar:
            table.add_column("", ratio=1)
        table.add_column("%", no_wrap=True, justify="right")
        if has_bar:
            table.add_column("rate", no_wrap=True, justify="right", min_width=12)
            table.add_column("left", no_wrap=True, justify="right", min_width=7)
        for transfer in [*under_way, *reversed(ended)]:
            rate, left = self._pace(transfer)
            style = "" if left else "dim"
            percent = _percent(transfer)
            table.add_row(
                *([_cell(_client(transfer))] if has_client else []),
                _cell(transfer.target),
                *([ProgressBar(100, percent)] if has_bar else []),
                f"{percent}",
                *([rate, left or _end(transfer)] if has_bar else []),
                style=style,
            )
        return table

    def _pace(self, transfer: Transfer) -> tuple[str, str]:
        """Return the rate and the time left, both empty for what has ended."""
        if transfer not in self._histories:
            return "", ""
        rate = self._rate(transfer)
        left = seconds_text((transfer.nbytes - transfer.sent) / rate) if rate else "?"
        return f"{size_text(rate)}/s", left


def _end(transfer: Transfer) -> str:
    return "done" if transfer.sent >= transfer.nbytes else "cut off"


def _percent(transfer: Transfer) -> int:
    return 100 * transfer.sent // transfer.nbytes if transfer.nbytes else 100


def _client(transfer: Transfer) -> str:
    return transfer.client.removeprefix("::ffff:") or "unix:"


def _cell(text: str) -> Text:
    # Not as markup, and with nothing in it that the terminal would obey.
    return Text(escaped(text), overflow="ellipsis")


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
