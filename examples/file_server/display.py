"""What the user sees: where the server is, then a table of transfers or an access log, the end."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Protocol

from access_log import AccessLog
from listeners import address_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from activity import Activity
    from options import Options

# Addresses for documentation: to "connect" a datagram socket asks for a route, and sends nothing.
ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


class Display(Protocol):
    """What is shown while the server serves."""

    @property
    def unlogged(self) -> int:
        """How many lines the access log lacks."""

    def say(self, text: str) -> None:
        """Show one line."""

    def close(self, last: str | None) -> None:
        """End, with a last line if there is one."""


class Log:
    """The access log on stdout."""

    def __init__(self, activity: Activity) -> None:
        self._log = AccessLog(sys.stdout.fileno())
        activity.log = self._log.put

    @property
    def unlogged(self) -> int:
        return self._log.dropped

    def say(self, text: str) -> None:
        self._log.say(text)

    def close(self, last: str | None) -> None:
        if last is not None:
            self._log.say(last)
        self._log.close()


class Nothing:
    """Nothing at all, not even a last line."""

    unlogged = 0

    def say(self, text: str) -> None:
        pass

    def close(self, last: str | None) -> None:
        pass


def show(options: Options, activity: Activity, lines: list[str]) -> Display:
    """Begin to show what one serving process does: nothing, a table, or the access log.

    Args:
        lines: What was printed before.
    """
    # Where a process is started without a stdout, another file may have its descriptor.
    if options.quiet or sys.stdout is None:
        return Nothing()
    # Several processes would draw on top of each other.
    if options.workers == 1 and _can_draw():
        try:
            from table import LiveTable
        except ModuleNotFoundError:  # rich is missing
            pass
        else:
            return LiveTable(activity, lines)
    return Log(activity)


def _can_draw() -> bool:
    # Without TERM nobody knows which orders the terminal obeys.
    term = os.environ.get("TERM", "dumb").lower()
    encoding = sys.stdout.encoding.lower()
    return sys.stdout.isatty() and term not in ("dumb", "unknown") and encoding.startswith("utf")


def print_last(text: str) -> None:
    """Print a line, without waiting for long for somebody who does not read it."""
    if sys.stdout is not None:
        log = AccessLog(sys.stdout.fileno())
        log.say(text)
        log.close()


def banner(options: Options, sockets: Sequence[socket.socket], loop_name: str) -> str:
    """Return the first line: what is served, where, by what, and how to end it."""
    scheme = "https" if options.tls_cert is not None else "http"
    where = " and ".join(url for sock in sockets for url in urls(scheme, sock))
    workers = f" by {options.workers} workers" if options.workers > 1 else ""
    return f"serving {options.root} on {where} ({loop_name}){workers} - Ctrl+C stops"


def urls(scheme: str, sock: socket.socket) -> list[str]:
    """Return where clients find a socket."""
    if sock.family == socket.AF_UNIX:
        return [address_text(sock)]
    host, port = sock.getsockname()[:2]
    if host == "0.0.0.0":
        hosts = outside_addresses([socket.AF_INET]) or ["127.0.0.1"]
    elif host == "::":
        families = [socket.AF_INET6]
        if not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            families.insert(0, socket.AF_INET)
        hosts = outside_addresses(families) or ["::1"]
    else:
        hosts = [host]
    return [f"{scheme}://{_url_host(host)}:{port}/" for host in hosts]


def outside_addresses(families: Sequence[socket.AddressFamily]) -> list[str]:
    """Return the addresses of this machine that others can use, one of each family at most.

    They are those by which it would reach others itself. The addresses of its name may be of
    no use (127.0.1.1), or take a name server seconds to find.
    """
    found = []
    for family in families:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((ELSEWHERE[family], 9))
                found.append(sock.getsockname()[0])
        except OSError:
            pass  # no route: nobody comes by this family
    return found


def _url_host(host: str) -> str:
    # The zone of a link-local address (RFC 6874).
    return f"[{host.replace('%', '%25')}]" if ":" in host else host
