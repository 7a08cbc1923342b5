"""Who waits: one driver per kind of event loop, and the choice among them.

Drivers know event loops, and of a transfer only what `asend._wants` says.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from . import _asyncio

if TYPE_CHECKING:
    from .._arguments import AnySocket
    from .._calls import Waiter
    from .._senders import Sender

    class Driver(Waiter[Sender], Protocol):
        """What each module here has."""

        # Whether asyncio's transports can be sent on.
        HAS_TRANSPORTS: bool

        async def admit(self, sock: AnySocket) -> None:
            """Refuse a socket on which another call is sending, or that belongs to a transport."""


def running() -> Driver:
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
