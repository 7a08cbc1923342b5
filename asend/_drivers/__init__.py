"""Who waits: one driver per kind of event loop, and the choice among them.

Drivers know event loops, and of a transfer only what `asend._wants` says.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from . import _asyncio

if TYPE_CHECKING:
    from types import ModuleType


def running() -> ModuleType:
    """Return the driver of the library that runs the current task.

    Raises:
        RuntimeError: No event loop is running. Await the call in a task of asyncio or trio.
    """
    trio = sys.modules.get("trio")
    # First, as trio may run as a guest on an asyncio loop.
    if trio is not None and trio.lowlevel.in_trio_task():
        from . import _anyio

        return _anyio
    asyncio.get_running_loop()
    return _asyncio
