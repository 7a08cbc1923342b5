"""What streams of anyio and trio keep two senders apart with, entered by our calls as well."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from .._errors import BusyResourceError
from .._senders import senders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .._arguments import AnySocket


def guarded(
    guard: AbstractContextManager[object],
) -> AbstractContextManager[Callable[[], None] | None]:
    """Enter what a stream keeps two senders apart with; raise our own error where it does.

    What is entered is how to leave it before the end, if there is anything to leave.
    """
    return nullcontext() if type(guard) is nullcontext else _guarded(guard)


@contextmanager
def _guarded(guard: AbstractContextManager[object]) -> Iterator[Callable[[], None]]:
    with ExitStack() as entered:
        try:
            entered.enter_context(guard)
        except _busy_errors():
            raise BusyResourceError from None
        yield entered.close


# Turns of the loop that a call needs to end, at most: a read in a thread that was just to begin
# hears of it in the first and is over in the third, and the call leaves its group in the fourth.
_CLEAN_UP_TURNS = 4


async def await_clean_up(guard: AbstractContextManager[object], sock: AnySocket) -> None:
    """Let a call on this socket that is over leave the guard of its stream.

    It is over when it is cancelled, and no reason to refuse another one then.
    """
    if type(guard) is nullcontext:
        return
    for _ in range(_CLEAN_UP_TURNS):
        if sock.fileno() not in senders:
            return
        # Where streams have guards, anyio is.
        from anyio.lowlevel import checkpoint

        await checkpoint()


def _busy_errors() -> tuple[type[Exception], ...]:
    packages = (sys.modules.get(name) for name in ("anyio", "trio"))
    return tuple(package.BusyResourceError for package in packages if package is not None)
