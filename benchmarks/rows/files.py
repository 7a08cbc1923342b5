"""A large file that the page cache has, to one fast receiver over TCP loopback."""

from __future__ import annotations

import functools
import mmap
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ..harness import CPU, RATE, Aim, Arm, Case, Sample, Skipped, Work
from ..receivers import Address, receiver
from ..sending import (
    ASEND_WAYS,
    GB,
    KIB,
    MIB,
    STOCK,
    STOCK_WAY,
    Stopwatch,
    connected,
    file_arms,
    new_file,
    reading_ways,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from io import FileIO

_SIZE = 1024 * MIB
_LIMITS = {"C, steps of 256 KiB": 256 * KIB, "C, steps of 1 GiB": 1024 * MIB}


def cases(work: Work) -> Iterator[Case]:
    nbytes = work.pick(_SIZE, 4 * MIB)
    title = f"{nbytes // MIB} MiB, hot, to one receiver"
    with receiver("drain") as address, new_file(work.directory, nbytes) as path:
        yield _against_the_kernel(title, work.directory / "limit", address, path)
        yield _against_reading(title, address, path)


def _against_the_kernel(title: str, program: Path, address: Address, path: Path) -> Case:
    ours = "asend, asyncio"
    return Case(
        f"{title}, against those that use sendfile",
        [
            *file_arms({ours: ASEND_WAYS[ours]} | STOCK_WAY, address, path),
            *(
                Arm(name, functools.partial(_limit, program, step, address, path))
                for name, step in _LIMITS.items()
            ),
            *(
                Arm(name, functools.partial(_blocking, send, address, path))
                for name, send in _BLOCKING.items()
            ),
        ],
        [
            Aim(ours, RATE, 1.0, [STOCK]),
            Aim(ours, RATE, 0.95, list(_LIMITS)),
            Aim(ours, CPU, 1.05, list(_LIMITS)),
        ],
        # The rate of one and the same program varies twofold between samples.
        repeat=6,
    )


def _against_reading(title: str, address: Address, path: Path) -> Case:
    readers = {runtime: reading_ways(runtime) for runtime in ("uvloop", "trio")}
    ours = {runtime: f"asend, {runtime}" for runtime in readers}
    ways = {name: ASEND_WAYS[name] for name in ours.values()}
    return Case(
        f"{title}, against reading in a thread",
        file_arms(ways | readers["uvloop"] | readers["trio"], address, path),
        [Aim(name, RATE, 2.0, list(readers[runtime])) for runtime, name in ours.items()],
        repeat=2,
    )


def _limit(program: Path, step: int, address: Address, path: Path) -> Sample:
    """Send by the C program, which measures itself."""
    if not program.exists():
        _compile(program)
    command = [str(program), str(address[1]), str(path), str(step), "1"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, cpu = map(float, output.split())
    size = path.stat().st_size / GB
    return {RATE: size / seconds, CPU: cpu / size}


def _compile(program: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("there is no C compiler (cc)")
    source = Path(__file__).parent.parent / "limit.c"
    subprocess.run([compiler, "-O2", "-Wall", "-o", program, source], check=True)


def _blocking(
    send: Callable[[socket.socket, FileIO], object], address: Address, path: Path
) -> Sample:
    with connected(address) as sock, open(path, "rb", buffering=0) as file:
        sock.setblocking(True)
        with Stopwatch() as watch:
            send(sock, file)
    return watch.of(path.stat().st_size)


def _by_sendfile(sock: socket.socket, file: FileIO) -> None:
    sock.sendfile(file)


def _by_mmap(sock: socket.socket, file: FileIO) -> None:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        sock.sendall(content)


_BLOCKING: dict[str, Callable[[socket.socket, FileIO], None]] = {
    "socket.sendfile, blocking": _by_sendfile,
    "socket.sendall of a mmap, blocking": _by_mmap,
}
