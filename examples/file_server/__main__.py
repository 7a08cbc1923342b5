"""Serve a folder over HTTP/1.1: `python examples/file_server DIR`. For POSIX systems.

Headers go by `asend.sock_sendall`, files by `asend.sock_sendfile`, on raw sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

try:
    import httptools  # noqa: F401  (asked here, where its absence has one plain answer)

    from server import listen, serve
except ModuleNotFoundError as error:
    sys.exit(f"file_server: error: {error.name} is missing: pip install 'asend[server]'")

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"not a port (0 to 65535): {text!r}")
    return int(text)


def folder(text: str) -> str:
    try:
        with os.scandir(text):
            return os.path.realpath(text)
    except FileNotFoundError:
        reason = "no such folder"
    except NotADirectoryError:
        reason = "not a folder"
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
    raise argparse.ArgumentTypeError(f"{reason}: {text}")


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(
        prog="file_server",
        description="Serve a folder over HTTP, with ranges, conditional requests and listings.",
        epilog="Hidden files and symlinks that lead out of DIR are not served.",
    )
    parser.add_argument("dir", metavar="DIR", type=folder, help="the folder to serve")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 or :: for all (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=8000,
        help="the port to listen on; 0 takes a free one (default: %(default)s)",
    )
    return parser.parse_args()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's factory where uvloop is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def run(listener: socket.socket, root: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(serve(listener, root))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    kind = type(loop).__module__.partition(".")[0]
    print(f"serving {root} on {url} ({kind}) - Ctrl+C stops", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> None:
    arguments = parse_arguments()
    address = f"{arguments.host}:{arguments.port}"
    try:
        listener = listen(arguments.host, arguments.port)
    except UnicodeError:
        sys.exit(f"file_server: error: cannot listen on {address}: not a host name")
    except OSError as error:
        # create_server() says the address again after the reason.
        reason = str(error.strerror).partition(" (")[0]
        sys.exit(f"file_server: error: cannot listen on {address}: {reason}")
    with listener, asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(listener, arguments.dir))


if __name__ == "__main__":
    main()
