"""How long a task on the same loop has to wait while a file goes out that is not in memory."""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..harness import PAUSE, RATE, Aim, Arm, Case, Measure, Sample, Skipped, Work
from ..machine import file_system
from ..receivers import Address, receiver
from ..sending import (
    ASEND_WAYS,
    GB,
    MIB,
    STOCK_WAY,
    SendFile,
    drop,
    new_file,
    send_and_measure,
)
from ..slow_files import SECONDS_PER_READ, SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIME = Measure("seconds")
_WAYS = ASEND_WAYS | STOCK_WAY
_AIMS = [Aim(name, PAUSE, 10.0) for name in ASEND_WAYS]
_MOUNT_TIMEOUT = 10.0


def cases(work: Work) -> Iterator[Case]:
    with receiver("drain") as address:
        yield from _slow_cases(work, address)
        nbytes = work.pick(256 * MIB, 4 * MIB)
        with new_file(work.directory, nbytes) as path:

            def measure(runtime: str, send: SendFile) -> Sample:
                drop(path)
                return send_and_measure(runtime, send, address, path, watches_pauses=True)

            yield Case(
                f"{nbytes // MIB} MiB on {file_system(path)}, dropped from the page cache",
                [Arm(name, functools.partial(measure, *way)) for name, way in _WAYS.items()],
                _AIMS,
            )


def _slow_cases(work: Work, address: Address) -> Iterator[Case]:
    title = f"{SIZE // MIB} MiB on FUSE, {SECONDS_PER_READ * 1000:.0f} ms per read"
    try:
        with _slow_file_system(work.directory) as mount:
            # Each name is a file that nobody has read yet.
            names = map(str, itertools.count())

            def measure(runtime: str, send: SendFile) -> Sample:
                path = mount / next(names)
                measured = send_and_measure(runtime, send, address, path, watches_pauses=True)
                return {PAUSE: measured[PAUSE], _TIME: SIZE / GB / measured[RATE]}

            arms = [Arm(name, functools.partial(measure, *way)) for name, way in _WAYS.items()]
            yield Case(title, arms, _AIMS)
    except Skipped as reason:
        yield Case(title, skipped=str(reason))


@contextlib.contextmanager
def _slow_file_system(directory: Path) -> Iterator[Path]:
    """Mount `benchmarks.slow_files` in a process of its own."""
    unmount = shutil.which("fusermount3") or shutil.which("fusermount")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or unmount is None:
        raise Skipped("FUSE is not available: /dev/fuse or fusermount is missing")
    if importlib.util.find_spec("mfusepy") is None or ctypes.util.find_library("fuse") is None:
        raise Skipped("mfusepy or libfuse is not installed")
    with TemporaryDirectory(dir=directory) as mount:
        command = [sys.executable, "-m", "benchmarks.slow_files", mount]
        with subprocess.Popen(command) as process:
            try:
                _wait_for_mount(process, Path(mount))
                yield Path(mount)
            finally:
                # Lazily, so that a file that is still open cannot keep it.
                subprocess.run([unmount, "-u", "-z", mount], check=False, capture_output=True)
                process.terminate()


def _wait_for_mount(process: subprocess.Popen[bytes], mount: Path) -> None:
    deadline = time.monotonic() + _MOUNT_TIMEOUT
    while not mount.is_mount():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Skipped("the FUSE file system could not be mounted")
        time.sleep(0.01)
