"""Quantities as people read them, and what a process has done in the end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field


def size_text(nbytes: float) -> str:
    """Return `999 B`, `1.0 KiB`, `23.4 MiB` ...: units count by 1024."""
    if nbytes < 1023.5:
        return f"{nbytes:.0f} B"
    units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    nbytes /= 1024
    # What would be rounded to 1024.0 is 1.0 of the next unit.
    while nbytes >= 1023.95 and len(units) > 1:
        nbytes /= 1024
        del units[0]
    return f"{nbytes:.1f} {units[0]}"


def seconds_text(seconds: float) -> str:
    """Return `5s`, `2m 5s` or `3h 2m`; `1.5s` below ten seconds."""
    if seconds < 10:
        return f"{round(seconds, 1):g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def count_text(count: int, noun: str) -> str:
    """Return `1 request` or `2 requests`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def dropped_text(dropped: Counter[str]) -> str:
    """Return how many connections were dropped, most frequent reason first: `2 stalled`."""
    return ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())


@dataclass(slots=True)
class Totals:
    """What a process has done.

    Args:
        requests: How many it has answered.
        nbytes: How many bytes of bodies it has sent.
        aborted: How many connections were cut off when it stopped.
        unlogged: How many lines the access log lacks.
        dropped: How many connections it ended, by reason.
    """

    requests: int = 0
    nbytes: int = 0
    aborted: int = 0
    unlogged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        """Take in what another process has done."""
        self.requests += other.requests
        self.nbytes += other.nbytes
        self.aborted += other.aborted
        self.unlogged += other.unlogged
        self.dropped += other.dropped

    def text(self, seconds: float) -> str:
        """Return one line for the user about `seconds` of work."""
        parts = [
            f"stopped after {seconds_text(seconds)}",
            count_text(self.requests, "request"),
            size_text(self.nbytes),
        ]
        if self.dropped:
            parts.append(f"dropped {dropped_text(self.dropped)}")
        if self.aborted:
            parts.append(f"{self.aborted} cut off in the end")
        if self.unlogged:
            parts.append(f"{count_text(self.unlogged, 'line')} not logged")
        return ", ".join(parts)

    def to_json(self) -> str:
        values = [self.requests, self.nbytes, self.aborted, self.unlogged, self.dropped]
        return json.dumps(values)

    @staticmethod
    def from_json(text: str | bytes) -> Totals:
        requests, nbytes, aborted, unlogged, dropped = json.loads(text)
        return Totals(requests, nbytes, aborted, unlogged, Counter(dropped))
