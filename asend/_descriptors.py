"""Part of an open file that an ASGI application names by its descriptor: which bytes these are."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, cast

from ._arguments import check_file

if TYPE_CHECKING:
    from typing import Any

    from ._arguments import BinaryFile

ZEROCOPYSEND: Final = "http.response.zerocopysend"


class NamedDescriptor:
    """What a `zerocopysend` names: an open descriptor, and not what its object makes of it.

    That of gzip decompresses, and has a descriptor as well. It stays the application's.
    """

    def __init__(self, file: Any) -> None:  # what applications give, as all below
        self._fd: int = file if isinstance(file, int) else file.fileno()

    def fileno(self) -> int:
        return self._fd

    def position(self, file: Any) -> Any:  # what applications give
        """Return where to read if nobody says; not where a buffer has read to."""
        return file.tell() if hasattr(file, "tell") else os.lseek(self._fd, 0, os.SEEK_CUR)

    def set_position(self, file: Any, position: int) -> None:  # what applications give
        """Let who reads on, or sends on, do it after what was sent."""
        if hasattr(file, "seek"):
            file.seek(position)
        else:
            os.lseek(self._fd, position, os.SEEK_SET)

    def check(self, offset: Any, count: object) -> int:  # what applications give
        """Return how many bytes there are to send, or refuse."""
        check_file(cast("BinaryFile", self), offset, None)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise RuntimeError(f"{ZEROCOPYSEND} is for regular files")
        if count is None:
            size: int = status.st_size
            return max(0, size - int(offset))
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"count must be an integer, not negative (got {count!r})")
        return count
