"""Start the examples as a user does, as processes, and talk to them over sockets."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPMessage, parse_headers
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
FILE_SERVER = EXAMPLES / "file_server"


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def environment(*folders: Path) -> dict[str, str]:
    """Return an environment in which modules are found in `folders`, then in the repository."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*folders, REPOSITORY]))}


def run(
    *arguments: object, folders: tuple[Path, ...] = (), prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run an example that ends by itself, by way of the command `prefix`."""
    return subprocess.run(
        [*prefix, sys.executable, *map(str, arguments)],
        env=environment(*folders),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def started(
    *arguments: object, folders: tuple[Path, ...] = (), prefix: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start an example by way of the command `prefix`; give it with the first line that it prints.

    Warnings are errors in it, so that a file that is never closed shows on stderr.
    """
    process = subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", *map(str, arguments)],
        env=environment(*folders),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


class End(NamedTuple):
    status: int
    out: str
    err: str


def end(process: subprocess.Popen[str], *numbers: signal.Signals) -> End:
    """Signal a process, wait for its end, and return all that it wrote but its first line."""
    for number in numbers:
        process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return End(process.returncode, out, err)


def stop(
    process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM
) -> tuple[int, str]:
    """The same by one signal, where only the exit status and stderr matter."""
    ended = end(process, number)
    return ended.status, ended.err


def port_of(line: str) -> int:
    """Return the port in the first line that an example prints."""
    address = next(word for word in line.split() if word.rstrip("/")[-1:].isdigit())
    return int(address.rstrip("/").rpartition(":")[2])


class Reply(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes


class Client:
    """A connection on which requests are written byte by byte, as no library would let us."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((host, port), timeout=PATIENCE)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, *lines: bytes) -> None:
        """Send the lines of a request and the empty one that ends it."""
        self.sock.sendall(b"\r\n".join([*lines, b"", b""]))

    def reply(self, *, is_head: bool = False) -> Reply:
        """Read one response, no byte more."""
        line = self._file.readline()
        headers = parse_headers(self._file)
        nbytes = 0 if is_head else int(headers.get("Content-Length", 0))
        return Reply(int(line.split()[1]), headers, self._file.read(nbytes))

    def rest(self) -> bytes:
        """Read until the server closes."""
        return self._file.read()


def ask(port: int, target: bytes, *fields: bytes, method: bytes = b"GET") -> Reply:
    """Make one request on a connection of its own, after whose reply nothing may follow."""
    with Client(port) as client:
        client.send(
            method + b" " + target + b" HTTP/1.1", b"Host: x", b"Connection: close", *fields
        )
        reply = client.reply(is_head=method == b"HEAD")
        assert client.rest() == b""
        return reply
