"""How long a task on the same loop has to wait while a large hot file goes to a fast receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..harness import PAUSE, Aim, Case, Work
from ..receivers import receiver
from ..sending import ASEND_WAYS, MIB, STOCK_WAY, file_arms, new_file

if TYPE_CHECKING:
    from collections.abc import Iterator


def cases(work: Work) -> Iterator[Case]:
    nbytes = work.pick(1024 * MIB, 4 * MIB)
    with receiver("drain") as address, new_file(work.directory, nbytes) as path:
        yield Case(
            f"{nbytes // MIB} MiB, hot, to one receiver",
            file_arms(ASEND_WAYS | STOCK_WAY, address, path, watches_pauses=True),
            [Aim(name, PAUSE, 10.0) for name in ASEND_WAYS],
        )
