"""A client that asks again and again while others load the server: `with probing(...) as probe`.

It is a process of its own, so that it times the server and not those who load it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..harness import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The core that servers have not.
_CORE = 1
# Seconds between two requests, and for an answer at most.
_BETWEEN = 0.005
_PATIENCE = 5.0
_NBYTES = 65536


@dataclass(frozen=True)
class Answer:
    """What came of a request: when it began, by `time.monotonic`, and how long it took."""

    began: float
    seconds: float
    is_right: bool


class Probe:
    """A process that asks, and all of its answers once it has been stopped."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> list[Answer]:
        """Let it end, and return all answers in the order of the requests.

        Raises:
            RuntimeError: There is none.
        """
        output, _ = self._process.communicate("")
        answers = [Answer(*answer) for answer in json.loads(output or "[]")]
        if not answers:
            raise RuntimeError("nothing was asked meanwhile")
        return answers


def check() -> None:
    """Raise `Skipped` where nothing can be asked beside others."""
    if len(os.sched_getaffinity(0)) < 2:
        raise Skipped("a server and its clients need two cores")


@contextlib.contextmanager
def probing(port: int, path: str, body: Path, *, is_kept: bool = False) -> Iterator[Probe]:
    """Ask a server for a path while the context is open, from the first answer on.

    Args:
        body: A file with what has to come.
        is_kept: Ask on one connection, not on a new one for each request.
    """
    command = [sys.executable, "-m", __name__, str(port), path, str(body)]
    with subprocess.Popen(
        [*command, *(["--keep"] if is_kept else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"no answer from port {port}")
            yield Probe(process)
        finally:
            process.kill()


def p99(answers: Sequence[Answer], began: float, ended: float) -> float:
    """Return in ms what 99 of 100 answers took at most, of the requests made meanwhile."""
    taken = sorted(answer.seconds for answer in answers if began <= answer.began < ended)
    if not taken:
        raise RuntimeError("nothing was asked meanwhile")
    return taken[(len(taken) * 99 - 1) // 100] * 1000


class _Client:
    """Asks on connections of its own."""

    def __init__(self, port: int, path: str, body: bytes, is_kept: bool) -> None:
        self._port, self._body, self._is_kept = port, body, is_kept
        close = "" if is_kept else "Connection: close\r\n"
        self._request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode()
        self._sock: socket.socket | None = None

    def ask(self) -> bool:
        """Tell whether the answer is right."""
        try:
            sock = self._sock or socket.create_connection(("127.0.0.1", self._port), _PATIENCE)
            self._sock = None
            sock.sendall(self._request)
            is_right = self._is_right(sock)
        except OSError:
            return False
        if is_right and self._is_kept:
            self._sock = sock
        else:
            sock.close()
        return is_right

    def _is_right(self, sock: socket.socket) -> bool:
        data, end = b"", -1
        while end < 0 or len(data) < end + len(self._body):
            received = sock.recv(_NBYTES)
            if not received:
                return False
            data += received
            end = data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else -1
        return data.startswith(b"HTTP/1.1 200 ") and data[end:] == self._body


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {_CORE})
    if arguments.keep:
        # Before those who load the server, as its answers are timed to the ms. Only root may.
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    client = _Client(arguments.port, arguments.path, arguments.body.read_bytes(), arguments.keep)
    answers: list[tuple[float, float, bool]] = []
    while not select.select([sys.stdin], [], [], _BETWEEN)[0]:
        began = time.monotonic()
        is_right = client.ask()
        answers.append((began, time.monotonic() - began, is_right))
        if len(answers) == 1:
            print("begun", flush=True)
    print(json.dumps(answers))


if __name__ == "__main__":
    _main()
