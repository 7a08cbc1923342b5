"""Peers in a process of their own: `with receiver("drain") as address`.

Modes: `drain` reads as fast as it can, `decrypt` does so as a server of TLS, `sip` reads 16 KiB at
a time and rests after each, `hold` accepts and never reads. The process prints its port and ends
when its standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Address: TypeAlias = "tuple[str, int] | str"

_DRAIN = 1024 * 1024
SIP = 16 * 1024
# Longer than any sender needs for a sip, so that it has to wait for each.
_REST = 50e-6


@contextlib.contextmanager
def receiver(mode: str, *, is_unix: bool = False) -> Iterator[Address]:
    """Run a receiver while the context is open, on TCP loopback or on a UNIX socket."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "socket")) if is_unix else ""
        command = [sys.executable, "-m", "benchmarks.receivers", mode, path]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            port = int(process.stdout.readline())
            try:
                yield path or ("127.0.0.1", port)
            finally:
                process.stdin.close()


def allow_files(nfiles: int) -> int:
    """Raise the limit of open files as far as allowed, and return how many are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= nfiles:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (nfiles, max(nfiles, hard)))
    except (ValueError, OSError):
        # Only root may raise the hard limit.
        nfiles = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (nfiles, hard))
    return nfiles


def fit_files(wanted: int, each: int, others: int) -> tuple[int, str]:
    """Raise the limit of open files for so many of something that has some each.

    Returns:
        How many there may be, and what is to be said of it where these are less than wanted.
    """
    limit = allow_files(each * wanted + others)
    fitting = min(wanted, (limit - others) // each)
    note = f"Not {wanted:,}: each takes {each} open files, and {limit:,} are allowed."
    return fitting, note if fitting < wanted else ""


def _discard(sock: socket.socket, nbytes: int, rest: float) -> None:
    """Read to the end, then close, which tells the sender that all of it was read."""
    block = bytearray(nbytes)
    with sock, contextlib.suppress(ConnectionResetError):
        # Copied out, as by any client; MSG_TRUNC would leave the sender a core more for threads.
        while sock.recv_into(block):
            if rest:
                time.sleep(rest)


def _server_context() -> ssl.SSLContext:
    # Here, as those who only run a receiver need it not.
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    # Else the first byte that comes back is a ticket, not the end of the connection.
    context.num_tickets = 0
    return context


def _decrypt(sock: socket.socket, context: ssl.SSLContext) -> None:
    _discard(context.wrap_socket(sock, server_side=True), _DRAIN, 0.0)


def _serve(listener: socket.socket, mode: str) -> None:
    held = []
    context = _server_context() if mode == "decrypt" else None
    while True:
        sock, _ = listener.accept()
        if mode == "hold":
            held.append(sock)
        elif context is not None:
            threading.Thread(target=_decrypt, args=(sock, context), daemon=True).start()
        else:
            pace = (SIP, _REST) if mode == "sip" else (_DRAIN, 0.0)
            threading.Thread(target=_discard, args=(sock, *pace), daemon=True).start()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["drain", "decrypt", "sip", "hold"])
    parser.add_argument("path", help="of a UNIX socket; empty: TCP")
    arguments = parser.parse_args()
    family = socket.AF_UNIX if arguments.path else socket.AF_INET
    listener = socket.socket(family)
    if arguments.mode == "hold":
        allow_files(1 << 20)
    elif arguments.mode == "sip":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIP)
    listener.bind(arguments.path or ("127.0.0.1", 0))
    listener.listen(socket.SOMAXCONN)
    print(0 if arguments.path else listener.getsockname()[1], flush=True)
    threading.Thread(target=_serve, args=(listener, arguments.mode), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    _main()
