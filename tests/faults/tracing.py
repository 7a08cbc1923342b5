"""Faults from outside: strace attached to a process makes its system calls fail, and tells which.

Only calls on the named descriptors are counted and fail: those of imports, of the event loop, of
other threads and of the test go on as ever.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRACE = shutil.which("strace") if sys.platform == "linux" else None

# Under what names kernels and C libraries have a call; strace passes over those it does not know.
NAMES = {"fstat": "?fstat,?newfstatat,?statx", "dup": "fcntl"}


class Seen(NamedTuple):
    """A system call of the process."""

    text: str
    result: int
    # 0 where there was none.
    error: int
    is_fault: bool


@contextmanager
def faults(
    pid: int, call: str, error: int, when: str, names: list[str], path: Path
) -> Iterator[None]:
    """Let a system call of a process fail, on the descriptors that are called so.

    Raises:
        PermissionError: This process may not trace that one.
    """
    assert STRACE is not None
    real = NAMES.get(call, call)
    tracer = subprocess.Popen(
        [
            *(STRACE, "-f", "-y", "-s", "0", "-o", path, "-p", str(pid), "-e", f"trace={real}"),
            *("-e", f"inject={real}:error={errno.errorcode[error]}:when={when}"),
            *(word for name in names for word in ("-P", name)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    with tracer:
        assert tracer.stderr is not None
        try:
            # From here on no thread gets back from the kernel without strace.
            said = tracer.stderr.readline()
            if "attached" not in said:
                raise PermissionError(said + tracer.stderr.read())
            yield
        finally:
            # It detaches, and writes down what it has seen.
            tracer.terminate()
            tracer.stderr.read()


_LINE = re.compile(r"^(\d+) +(.*)$")
_BEGUN = " <unfinished ...>"
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>")
_RESULT = re.compile(r"\) += (-?\d+)(?: (E[A-Z0-9]+))?(?!.*\) += )")


def read(path: Path, names: list[list[str]]) -> list[list[Seen]]:
    """Return what the system was asked for on the descriptors that are called so, call by call."""
    calls: list[list[Seen]] = [[] for _ in names]
    begun: dict[str, str] = {}
    for line in path.read_text().splitlines():
        found = _LINE.match(line)
        assert found is not None, line
        thread, text = found.groups()
        if text.endswith(_BEGUN):
            begun[thread] = text.removesuffix(_BEGUN)
            continue
        text = _RESUMED.sub(lambda _, thread=thread: begun.pop(thread), text)
        result = _RESULT.search(text)
        # Others are signals, and threads that end.
        if result is not None:
            code = getattr(errno, result[2] or "", 0)
            seen = Seen(text, int(result[1]), code, "(INJECTED)" in text)
            for call, those in zip(calls, names, strict=True):
                if any(f"<{name}>" in text for name in those):
                    call.append(seen)
    return calls
