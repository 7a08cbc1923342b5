"""The command line: what the server is told, with units, and one line for what it cannot be."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asend
from units import (
    connection_count,
    duration,
    field_value,
    folder,
    header_size,
    host_name,
    pacing_rate,
    port_number,
    positive_duration,
    rate,
    socket_path,
    worker_count,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

UNITS = """\
A duration is a number of seconds, or one with a unit: 500ms, 10s, 1.5m, 2h. A size is a number of
bytes, or one with a unit: K, M and G, also written KiB, MiB and GiB, count by 1024; kB, MB and GB
count by 1000. A rate is a size per second, as in 1.5M or 1.5M/s. Where systemd hands over sockets
that listen (LISTEN_FDS), they are used in place of HOST, PORT and the UNIX socket."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the server is told.

    Args:
        root: The folder to serve: an absolute path without symlinks in it.
        port: 0: any free one.
        unix: The path of a UNIX socket to listen on, instead of host and port.
        tls_cert: A file in PEM format, which has the key too if `tls_key` is None.
        rate: Bytes per second that a connection gets at most. None: no limit.
        header_timeout: Seconds for a request to come in.
        keep_alive: Seconds between two requests of a connection.
        stall: Seconds in which the client of a response has to take a byte.
        min_rate: Bytes per second, averaged over a response, that its client has to take. 0: any.
        stop_timeout: Seconds for responses in flight to end when the server is told to stop.
        max_connections: Of one process.
        max_header: Bytes of a request line and its header.
        cache_control: The value of that header field. None: there is none.
        cache_seconds: How old what is known of a small file may be.
        hidden: Whether names that begin with a dot are served.
        follow_symlinks: Whether symlinks may lead out of `root`.
        loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed.
    """

    root: str
    host: str = "127.0.0.1"
    port: int = 8000
    unix: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    workers: int = 1
    rate: int | None = None
    header_timeout: float = 10.0
    keep_alive: float = 15.0
    stall: float = 60.0
    min_rate: float = 240.0
    stop_timeout: float = 30.0
    max_connections: int = 10_000
    max_header: int = 32 * 1024
    cache_control: str | None = None
    cache_seconds: float = 1.0
    hidden: bool = False
    follow_symlinks: bool = False
    listing: bool = True
    loop: str = "auto"
    quiet: bool = False


DEFAULTS = Options(root="")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Return what a command line says; by default that of this process.

    Raises:
        SystemExit: 2 after one line on stderr that says what is wrong; 0 after --help, --version.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    if problem := _problem(given):
        parser.error(problem)
    return Options(**given)


def _problem(given: dict[str, object]) -> str | None:
    """Return what makes no sense in options of which each one does."""
    if "tls_key" in given and "tls_cert" not in given:
        return "argument --tls-key: makes no sense without --tls-cert"
    if "unix" not in given:
        return None
    for name in ("host", "port", "rate"):
        if name in given:
            return f"argument --{name}: makes no sense with --unix"
    return None


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="file_server",
        usage="file_server [options] [DIR]",
        description="Serve a folder over HTTP: whole files and ranges, conditional requests, "
        "listings.",
        epilog=UNITS,
        # Only what is said on the command line is in the result: Options has the defaults.
        argument_default=argparse.SUPPRESS,
        # An abbreviation in somebody's script would break with the next option that we add.
        allow_abbrev=False,
    )
    parser.add_argument(
        "root",
        metavar="DIR",
        nargs="?",
        type=folder,
        default=".",
        help="the folder to serve (default: the current one)",
    )
    for add in (_add_addresses, _add_site, _add_limits, _add_process):
        add(parser)
    return parser


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where it listens").add_argument
    add(
        "--host",
        type=host_name,
        help="an address or a name, of which all addresses are taken; 0.0.0.0 for every IPv4 "
        f"address, :: for every address (default: {DEFAULTS.host})",
    )
    add(
        "--port",
        type=port_number,
        help=f"a port; 0 takes a free one (default: {DEFAULTS.port})",
    )
    add("--unix", metavar="PATH", type=socket_path, help="a UNIX socket instead of host and port")
    add(
        "--tls-cert",
        metavar="FILE",
        help="serve HTTPS by this certificate chain, in PEM format (default: plain HTTP)",
    )
    add(
        "--tls-key",
        metavar="FILE",
        help="the private key of the certificate (default: it is in the certificate's file)",
    )


def _add_site(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what it serves").add_argument
    add("--hidden", action="store_true", help="also names that begin with a dot")
    add(
        "--follow-symlinks",
        action="store_true",
        help="also what symlinks lead to out of DIR (default: only what is in DIR)",
    )
    add(
        "--no-listing",
        dest="listing",
        action="store_false",
        help="no list of names for a folder without index.html",
    )
    add(
        "--cache-control",
        metavar="VALUE",
        type=field_value,
        help='the Cache-Control of files, such as "max-age=3600" (default: none)',
    )
    add(
        "--cache-seconds",
        metavar="DURATION",
        type=duration,
        help="how long a small file is served from memory without a look at the disk "
        f"(default: {DEFAULTS.cache_seconds:g}s)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what clients may do").add_argument
    add(
        "--header-timeout",
        metavar="DURATION",
        type=positive_duration,
        help="how long a request, or a TLS handshake, may take to come in "
        f"(default: {DEFAULTS.header_timeout:g}s)",
    )
    add(
        "--keep-alive",
        metavar="DURATION",
        type=positive_duration,
        help="how long a connection is kept without a next request "
        f"(default: {DEFAULTS.keep_alive:g}s)",
    )
    add(
        "--stall",
        metavar="DURATION",
        type=positive_duration,
        help=f"how long a client may take nothing of its response (default: {DEFAULTS.stall:g}s)",
    )
    add(
        "--min-rate",
        metavar="RATE",
        type=rate,
        help="how fast a client has to be on average; 0 for any rate "
        f"(default: {DEFAULTS.min_rate:g} bytes per second)",
    )
    add(
        "--rate",
        metavar="RATE",
        type=pacing_rate,
        help="how fast a connection is at most, by TCP's pacing (default: no limit)",
    )
    add(
        "--max-header",
        metavar="SIZE",
        type=header_size,
        help="how large a request line with its header fields may be, 1K to 64K "
        f"(default: {DEFAULTS.max_header // 1024}K)",
    )


def _add_process(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it runs").add_argument
    add(
        "--workers",
        metavar="N",
        type=worker_count,
        help="how many processes share the work; 0 or auto for one per core "
        f"(default: {DEFAULTS.workers})",
    )
    add(
        "--max-connections",
        metavar="N",
        type=connection_count,
        help="how many connections each process has at most, which its limit of open files may "
        "lower "
        f"(default: {DEFAULTS.max_connections})",
    )
    add(
        "--stop-timeout",
        metavar="DURATION",
        type=duration,
        help="how long responses in flight may go on after Ctrl+C or SIGTERM; the second one "
        f"cuts them off (default: {DEFAULTS.stop_timeout:g}s)",
    )
    add(
        "--loop",
        choices=("auto", "uvloop", "asyncio"),
        help=f"the event loop; auto takes uvloop where it is installed (default: {DEFAULTS.loop})",
    )
    add(
        "--quiet",
        action="store_true",
        help="say where it serves and what goes wrong, but show no transfers and no access log",
    )
    add("--version", action="version", version=f"file_server of asend {asend.__version__}")
