"""What a download site needs beside a web framework: a folder, a page and a command line."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import stat
import sys
import tempfile
from base64 import b64encode
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PAGE = Path(__file__).with_name("download_page.html").read_text(encoding="utf-8")

# What there is to download where no folder is given. They take no room on the disk.
DEMO = {"demo-64MiB.bin": 64 << 20, "demo-1GiB.bin": 1 << 30}


def _hash_of(tag: str) -> str:
    """Return how a policy names the one inline element of this kind, which may then be used."""
    found = re.search(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    assert found is not None
    return f"'sha256-{b64encode(sha256(found[1].encode()).digest()).decode()}'"


# For every response. A file from the folder gets to run nothing, even if a browser shows it.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Folder:
    """The regular files of one folder: none that is hidden, none that is a link when it is found.

    A response opens its file by the path, later. Who may write to the folder can put a link in its
    place meanwhile, and have any file sent that the server may read: the example file server looks
    at what was opened instead.

    All methods may wait for a disk and belong in a worker thread.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def files(self) -> list[dict[str, object]]:
        """Return the name and the size, in bytes, of each file, in the order of the names."""
        found = []
        for name in sorted(os.listdir(self.path), key=str.casefold):
            # It may be gone by now.
            with suppress(OSError):
                if (path := self.find(name)) is not None:
                    found.append({"name": name, "size": os.lstat(path).st_size})
        return found

    def find(self, name: str) -> str | None:
        """Return the path of the file of this name, if it is one that `files` lists."""
        # A name is no path: without a separator there is no way out of the folder.
        if name.startswith(".") or "/" in name or "\\" in name:
            return None
        path = os.path.join(self.path, name)
        try:
            # One that is not UTF-8 could not be asked for.
            name.encode()
            is_file = stat.S_ISREG(os.lstat(path).st_mode)
        except (OSError, ValueError):
            return None
        return path if is_file and os.access(path, os.R_OK) else None


def attachment(name: str) -> str:
    """Return the Content-Disposition that makes a browser save a file under this name."""
    # No other form is needed, and none is as safe: whatever is in the name is percent-encoded.
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


@contextmanager
def opened_site(name: str, description: str) -> Iterator[tuple[Folder, socket.socket]]:
    """Read the command line, say where the site is, and give its folder and its listening socket.

    Raises:
        SystemExit: The command line was wrong, which one line says, or Ctrl+C or SIGTERM came.
    """
    arguments = _parse_arguments(name, description)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    with tempfile.TemporaryDirectory(prefix="asend-") as demo:
        folder = arguments.dir or demo
        try:
            os.listdir(folder)
        except OSError as error:
            sys.exit(f"{name}: error: {folder}: {error.strerror}")
        try:
            listener = _listen(arguments.host, arguments.port)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            address = f"{arguments.host}:{arguments.port}"
            sys.exit(f"{name}: error: cannot listen on {address}: {reason}")
        with listener:
            if arguments.dir is None:
                _write_demo(demo)
            print(f"{_url(listener)} serves {folder} - Ctrl+C stops", flush=True)
            yield Folder(folder), listener


def _exit(number: int, frame: FrameType | None) -> None:
    # Unlike KeyboardInterrupt, this leaves no traceback wherever it is raised.
    sys.exit()


def _parse_arguments(name: str, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog="Subfolders, hidden files and links are not served; but a link that somebody puts "
        "in the place of a file as it is opened is. Give no folder that others may write to.",
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        help="the folder with the files; if none is given, two demo files in a temporary one",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 or :: for all (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="the port to listen on; 0 takes a free one (default: %(default)s)",
    )
    return parser.parse_args()


def _write_demo(folder: str) -> None:
    for name, size in DEMO.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.truncate(size)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.create_server((host, port), family=family, backlog=1024)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A server that closes a connection waits for who does not read; the kernel gives them up.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
