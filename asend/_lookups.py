"""Files looked up on any event loop: at once where they are known, in a worker thread where not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from . import _drivers
from .http import FILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .http import OpenFile


async def open_file(
    path: str, accepts: Callable[[OpenFile], bool] = lambda found: True
) -> OpenFile:
    """Return the file at a path, looked up in a worker thread unless one is known and accepted.

    Raises:
        IrregularFileError: It is no regular file.
        OSError: It cannot be opened.
        ValueError: No file can have this name.
    """
    found = None
    with suppress(KeyError):
        found = FILES.find(path)
    if found is None or not accepts(found):
        found = await _in_thread(partial(FILES.look_up, path))
    return found


async def _in_thread(function: Callable[[], OpenFile]) -> OpenFile:
    if _drivers.running().HAS_TRANSPORTS:
        return await asyncio.get_running_loop().run_in_executor(None, function)
    from anyio import to_thread

    return await to_thread.run_sync(function)
