"""Receivers that check each byte: `with checking() as receivers`, a process of its own.

It listens on TCP, on a UNIX socket, and on TCP for TLS. On each connection comes an order first,
and in the end it says what has come.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .pattern import ORDER_NBYTES, Manner, Order, Verdict, fits, order_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK, _SIP = 256 * 1024, 16 * 1024
_REST = 200e-6
_RESET = struct.pack("ii", 1, 0)
# Longer than any sender waits for anything.
_PATIENCE = 120.0


class Places(NamedTuple):
    """Where receivers are: ports, a path, and a file with the authority of TLS, in PEM format."""

    tcp: int
    unix: str
    tls: int
    certificate: str


@dataclass(frozen=True)
class Receivers:
    """The process, and where to send to."""

    process: subprocess.Popen[str]
    places: Places

    def end(self) -> dict[str, int]:
        """Let the process end, and return how many connections and bytes came, and how many wrong.

        Raises:
            RuntimeError: It has failed.
        """
        output, _ = self.process.communicate("")
        if self.process.returncode:
            raise RuntimeError("the receivers have failed")
        found: dict[str, int] = json.loads(output)
        return found


@contextlib.contextmanager
def checking() -> Iterator[Receivers]:
    """Run receivers while the context is open."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", __name__, directory]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                yield Receivers(process, Places(*json.loads(process.stdout.readline())))
            finally:
                process.kill()


@dataclass
class _Account:
    """What has come, in all threads."""

    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, verdict: Verdict) -> None:
        with self.lock:
            self.counts["connections"] += 1
            self.counts["bytes"] += verdict.nbytes
            self.counts["wrong"] += not verdict.is_right

    def add_wrong(self) -> None:
        with self.lock:
            self.counts["wrong"] += 1


def _serve(listener: socket.socket, account: _Account, context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_receive, args=(sock, account, context), daemon=True).start()


def _receive(sock: socket.socket, account: _Account, context: ssl.SSLContext | None) -> None:
    # A sender may go at any moment, with what is on the way to it or from it.
    with contextlib.suppress(OSError), sock:
        sock.settimeout(_PATIENCE)
        if context is None:
            _check(sock, account)
        else:
            with context.wrap_socket(sock, server_side=True) as secured:
                _check(secured, account)


def _check(sock: socket.socket, account: _Account) -> None:
    order = _order(sock)
    if order is None:
        return
    verdict = Verdict(0, True)
    try:
        if order.manner == Manner.PAUSE:
            time.sleep(order.amount / 1000)  # it is what is asked for
        for verdict in _verdicts(sock, order):
            if order.manner == Manner.RESET and verdict.nbytes >= order.amount:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            if order.manner == Manner.SIP:
                time.sleep(_REST)  # it is its pace
    finally:
        account.add(verdict)
    sock.sendall(verdict.pack())
    # Till the other end has it: then it closes. A byte more would be one that nobody has sent.
    if sock.recv(1):
        account.add_wrong()


def _order(sock: socket.socket) -> Order | None:
    data = b""
    while len(data) < ORDER_NBYTES:
        received = sock.recv(ORDER_NBYTES - len(data))
        if not received:
            return None
        data += received
    return order_of(data)


def _verdicts(sock: socket.socket, order: Order) -> Iterator[Verdict]:
    """Yield what has come so far, after each read, up to what was announced."""
    size = _SIP if order.manner == Manner.SIP else _BLOCK
    block = bytearray(size)
    nbytes, is_right = 0, True
    while nbytes < order.nbytes and (
        received := sock.recv_into(block, min(size, order.nbytes - nbytes))
    ):
        is_right &= fits(memoryview(block)[:received], order.start + nbytes)
        nbytes += received
        yield Verdict(nbytes, is_right)


def _main(directory: str) -> None:
    import trustme

    authority, certificate = trustme.CA(), Path(directory, "authority")
    authority.cert_pem.write_to_path(str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.num_tickets = 0
    account = _Account()
    path = str(Path(directory, "socket"))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    tcp, tls = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    for listener, its_context in ((tcp, None), (unix, None), (tls, context)):
        listener.listen(socket.SOMAXCONN)
        arguments = (listener, account, its_context)
        threading.Thread(target=_serve, args=arguments, daemon=True).start()
    ports = (sock.getsockname()[1] for sock in (tcp, tls))
    print(json.dumps(Places(next(ports), path, next(ports), str(certificate))), flush=True)
    sys.stdin.read()
    with account.lock:
        print(
            json.dumps({name: account.counts[name] for name in ("connections", "bytes", "wrong")})
        )


if __name__ == "__main__":
    _main(*sys.argv[1:])
