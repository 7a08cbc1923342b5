"""What becomes of a call of asend when a system call fails in it: the table that the tests check.

A fault ends the call with its own error, or the call goes on and delivers everything. What the
kernel can give and what it never does are in the table alike: a security module or a sandbox gives
what it likes.
"""

from __future__ import annotations

import errno
import sys
from errno import EAGAIN, EINTR, EINVAL, EIO, EMFILE, ENOBUFS, ENOMEM, ENOSYS, EPIPE
from typing import TYPE_CHECKING, NamedTuple

from sender import OPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracing import Seen

    # How a call of asend may end that has seen these system calls.
    Rule = Callable[["Case", list[Seen]], list["End"]]

ERRORS = (EINTR, EAGAIN, EIO, ENOBUFS, ENOMEM, EMFILE, EINVAL, ENOSYS, EPIPE)
RUNTIMES = ("asyncio", "uvloop", "trio")
# The first, one that is not, and every third: in the words of strace, counted by thread.
WHEN = ("1", "5", "2+3")


class End(NamedTuple):
    """How a call ends: with an error of this name and number, or with all delivered."""

    error: str | None
    number: int | None = None

    def fits(self, errors: list[str], number: int | None) -> bool:
        """Tell whether it is an error of these classes, of which none is no error."""
        return number == self.number and (self.error in errors if self.error else not errors)


DELIVERED = End(None)


def raised(code: int) -> End:
    return End(type(OSError(code, "")).__name__, code)


def fails(case: Case, seen: list[Seen]) -> list[End]:
    """The error comes out as itself."""
    over_tls = case.op.endswith("-tls") and case.call == "sendto"
    if over_tls and case.runtime == "trio":
        return [End("BrokenResourceError", case.error)]
    return [raised(case.error)]


def goes_on(case: Case, seen: list[Seen]) -> list[End]:
    """It is tried again, now or when the socket is writable; or the C library does without it."""
    return [DELIVERED]


def is_full(case: Case, seen: list[Seen]) -> list[End]:
    """To libuv, which writes what is encrypted, it is EAGAIN; uvloop tries first, and to it not."""
    over_libuv = case.op.endswith("-tls") and case.runtime == "uvloop"
    return [DELIVERED, *fails(case, seen)] if over_libuv else fails(case, seen)


def copies(case: Case, seen: list[Seen]) -> list[End]:
    """Before the first byte the kernel may refuse; then the file is read and sent."""
    sent = 0
    for each in seen:
        if each.is_fault:
            break
        sent += each.result
    if sent:
        return fails(case, seen)
    return [End("SendfileNotAvailableError", case.error) if is_strict(case) else DELIVERED]


def is_strict(case: Case) -> bool:
    """Tell whether the kernel has to send the file, or nobody."""
    return case.op == "sock_sendfile-or-not"


def waits(case: Case, seen: list[Seen]) -> list[End]:
    """What cannot be added cannot be waited for.

    asyncio and libuv pass over what cannot be removed, so that it may be there when it is added
    again (EEXIST); trio adds what cannot be modified.
    """
    codes = [each.error for each in seen if "EPOLL_CTL_ADD" in each.text and each.error]
    return [raised(codes[-1])] if codes else [DELIVERED]


def looks(case: Case, seen: list[Seen]) -> list[End]:
    """What cannot be looked at the first time is an object without a descriptor, to be read."""
    of_file = [each for each in seen if "<socket:" not in each.text]
    if not (of_file and of_file[0].is_fault):
        return fails(case, seen)
    return [End("SendfileNotAvailableError") if is_strict(case) else DELIVERED]


def reads(case: Case, seen: list[Seen]) -> list[End]:
    """Where it is only asked what is in the page cache, an error means that nobody knows.

    The other reads bring a file there; an error of one shows if its part is missed.
    """
    is_asking = all("RWF_NOWAIT" in each.text for each in seen if each.is_fault)
    return [DELIVERED] if is_asking else [DELIVERED, *fails(case, seen)]


# By the system call: what an error does, and those that do something else.
_SENDING = (fails, {EINTR: goes_on, EAGAIN: goes_on})
TABLE: dict[str, tuple[Rule, dict[int, Rule]]] = {
    "sendto": _SENDING,
    "sendmsg": _SENDING,
    "write": (fails, {EINTR: goes_on, EAGAIN: goes_on, ENOBUFS: is_full}),
    "sendfile": (
        fails,
        {EINTR: goes_on, EAGAIN: goes_on, EINVAL: copies, ENOSYS: copies},
    ),
    "preadv2": (reads, {EINTR: goes_on, ENOSYS: goes_on}),
    "pread64": (fails, {EINTR: goes_on}),
    "fstat": (looks, {EINTR: goes_on}),
    "epoll_ctl": (waits, {}),
    "dup": (fails, {}),
}


def ends(case: Case, seen: list[Seen]) -> list[End]:
    """Return how a call may end, by what it has asked the system for."""
    if not any(each.is_fault for each in seen):
        return [DELIVERED]
    rule, others = TABLE[case.call]
    return others.get(case.error, rule)(case, seen)


def calls_of(op: str, runtime: str) -> tuple[str, ...]:
    """The system calls that an operation makes, each time it is run."""
    over_tls = op.endswith("-tls")
    if OPS[op].kind == "socket" or runtime == "trio" or (over_tls and runtime == "asyncio"):
        sends = "sendto"
    else:
        sends = "write"
    if op.endswith("-small"):
        return (sends,)
    if over_tls:
        # That asyncio's transport can wait on its own socket, it takes for granted.
        waits = {"asyncio": ("dup",), "uvloop": ("dup", "epoll_ctl"), "trio": ()}[runtime]
        reads = ("fstat", "preadv2", "pread64") if op == "sendfile-tls" else ()
        return (sends, *reads, *waits)
    if op in ("sock_sendmsg", "sock_sendfile-object") or "sendfile" not in op:
        return ("sendmsg" if op == "sock_sendmsg" else sends, "dup", "epoll_ctl")
    return ("sendfile", "fstat", "preadv2", "dup", "epoll_ctl")


def patterns(call: str, runtime: str) -> tuple[str, ...]:
    """When a system call fails."""
    # libuv aborts the process where it cannot remove what it has just added to see whether it can:
    # the second of each call. What it waits on it adds by io_uring.
    return ("1", "3", "1+1") if (call, runtime) == ("epoll_ctl", "uvloop") else WHEN


class Case(NamedTuple):
    """A fault in an operation."""

    runtime: str
    op: str
    call: str
    error: int
    when: str

    def __str__(self) -> str:
        return "-".join([*self[:3], errno.errorcode[self.error], self.when])


def every_case() -> Iterator[tuple[Case, bool]]:
    """Every fault in every operation, and whether it is one of those that are always tried.

    Those are every fault on every runtime, in turn in one operation and in another: a third of them
    on each of three successive Pythons, as what the system answers does not depend on which. On
    each every fault is tried, on one runtime or another.
    """
    for place, runtime in enumerate(RUNTIMES, sys.version_info.minor):
        turns: dict[str, int] = {}
        for op in OPS:
            for call in calls_of(op, runtime):
                turn = turns[call] = turns.get(call, -1) + 1
                for at, error in enumerate(ERRORS):
                    for number, when in enumerate(patterns(call, runtime)):
                        if call == "sendmsg":
                            # Of one operation only.
                            is_due = (place + number) % 3 == 0
                        else:
                            is_due = (turn + at + number) % 3 == (place + turn) % 3 == 0
                        yield Case(runtime, op, call, error, when), is_due
