"""What it costs to ask, before each step, whether the page cache has what the step sends."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest import mock

from asend._residency import PageCache

from ..harness import RATE, Aim, Arm, Case, Sample, Skipped, Work
from ..machine import file_system
from ..receivers import Address, receiver
from ..sending import MIB, by_asend, new_file, send_and_measure

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIZE = 1024 * MIB
_ASKING, _TRUSTING = "asks", "does not ask"
_SHARED_MEMORY = Path("/dev/shm")


def cases(work: Work) -> Iterator[Case]:
    nbytes = work.pick(_SIZE, 4 * MIB)
    with receiver("drain") as address:
        for title, place, bound in (
            (f"disk ({file_system(work.directory)})", contextlib.nullcontext(work.directory), 0.98),
            ("tmpfs", _tmpfs(), 0.95),
            ("overlayfs", _overlayfs(work.directory), 0.95),
        ):
            try:
                with place as directory, new_file(directory, nbytes) as path:
                    arms = [
                        Arm(_ASKING, functools.partial(_ask, address, path)),
                        Arm(_TRUSTING, functools.partial(_trust, address, path)),
                    ]
                    aims = [Aim(_ASKING, RATE, bound, [_TRUSTING])]
                    yield Case(f"{title}, {nbytes // MIB} MiB", arms, aims, repeat=3)
            except Skipped as reason:
                yield Case(title, skipped=str(reason))


def _ask(address: Address, path: Path) -> Sample:
    return send_and_measure("asyncio", by_asend, address, path)


def _has_everything(*_: object) -> bool:
    return True


def _trust(address: Address, path: Path) -> Sample:
    with mock.patch.object(PageCache, "has", _has_everything):
        return _ask(address, path)


@contextlib.contextmanager
def _tmpfs() -> Iterator[Path]:
    if not _SHARED_MEMORY.is_dir() or file_system(_SHARED_MEMORY) != "tmpfs":
        raise Skipped(f"{_SHARED_MEMORY} is no tmpfs")
    with TemporaryDirectory(dir=_SHARED_MEMORY) as directory:
        yield Path(directory)


@contextlib.contextmanager
def _overlayfs(directory: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=directory) as parent:
        parts = {part: Path(parent, part) for part in ("lower", "upper", "work", "merged")}
        for part in parts.values():
            part.mkdir()
        merged = parts.pop("merged")
        options = ",".join(f"{name}dir={part}" for name, part in parts.items())
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            raise Skipped(f"overlayfs cannot be mounted: {reason.strip()}") from error
        try:
            yield merged
        finally:
            subprocess.run(["umount", merged], check=True)
