"""The sockets that the server listens on: TCP, UNIX, or those that systemd hands over.

They are bound first and listen later: with workers, who binds is not who accepts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from options import Options

# Clients that may wait to be accepted. The system lowers it to what it allows (somaxconn).
BACKLOG = 2048
# The first descriptor that systemd hands over (sd_listen_fds(3)).
FIRST_HANDED = 3
# A port that is free on one address of a name may be taken on the next one; not so often.
PORT_TRIES = 10
# A name may have addresses that this machine does not, such as ::1 where there is no IPv6.
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

# As getaddrinfo() gives it: host and port, for IPv6 flow and scope too.
Address = tuple[Any, ...]


@contextlib.contextmanager
def bound_sockets(options: Options) -> Iterator[list[socket.socket]]:
    """Give the sockets that the options ask for; closed in the end.

    Those that systemd hands over listen already, the others are bound.

    Raises:
        OSError: Its text says in one line which socket cannot be had, and why.
    """
    with contextlib.ExitStack() as stack:
        sockets = handed_over()
        if not sockets and options.unix is not None:
            sockets = [stack.enter_context(_bound_path(options.unix))]
        elif not sockets:
            sockets = _bound_name(options.host, options.port)
        for sock in sockets:
            stack.enter_context(sock)
        yield sockets


def listen(sockets: list[socket.socket]) -> None:
    """Let clients connect.

    Raises:
        OSError: Another process listens on an address since it was bound.
    """
    for sock in sockets:
        with _told(f"cannot listen on {address_text(sock)}"):
            sock.listen(BACKLOG)


def own_sockets(sockets: list[socket.socket]) -> list[socket.socket]:
    """Return the sockets, listening, on which one of several workers accepts.

    On Linux each worker has its own for an address of TCP, and the kernel divides the clients
    between them: one socket for all would wake all for each client. That has to do for sockets of
    UNIX and of systemd, and for other systems, where SO_REUSEPORT does not divide.

    Raises:
        OSError: An address cannot be bound once more.
    """
    mine = [_sibling(sock) if _is_divisible(sock) else sock for sock in sockets]
    listen([sock for sock in mine if not _is_listening(sock)])
    return mine


def address_text(sock: socket.socket) -> str:
    """Return where a socket is bound: `127.0.0.1:80`, `[::1]:80` or `unix:PATH`."""
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        # Linux has names that are no paths, and begin with a zero byte.
        path = os.fsdecode(address)
        return "unix:" + path.replace("\0", "@", 1)
    host, port = address[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def handed_over() -> list[socket.socket]:
    """Return the listening sockets that systemd hands over to this process, if any.

    Raises:
        OSError: What is handed over is nothing to accept clients from.

    Source: sd_listen_fds(3).
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    # The variables may be meant for the process that has started this one.
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    return [_handed(descriptor) for descriptor in range(FIRST_HANDED, FIRST_HANDED + int(count))]


def _handed(descriptor: int) -> socket.socket:
    with _told(f"cannot use descriptor {descriptor} of LISTEN_FDS"):
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        if sock.type != socket.SOCK_STREAM or not _is_listening(sock):
            sock.close()
            raise OSError(errno.EINVAL, "not a stream socket that listens")
        return sock


def _is_listening(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Put errors into one line that says what could not be done, and why."""
    try:
        yield
    except UnicodeError as error:
        raise OSError(f"{what}: not a host name") from error
    except OSError as error:
        raise OSError(f"{what}: {error.strerror or error}") from error


# TCP


def _bound_name(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of a name, all with the same port."""
    with _told(f"cannot listen on {host}:{port}"):
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        # A name may be in several lines of /etc/hosts.
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        tries = PORT_TRIES if port == 0 else 1
        while True:
            tries -= 1
            try:
                return _bound_addresses(addresses)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or tries == 0:
                    raise


def _bound_addresses(
    addresses: Sequence[tuple[socket.AddressFamily, Address]],
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    is_dual = len(addresses) == 1
    absent: OSError | None = None
    for family, (host, port, *more) in addresses:
        if sockets:
            # What 0 was for the first one is the port of all.
            port = sockets[0].getsockname()[1]
        try:
            sockets.append(_bound_address(family, (host, port, *more), is_dual))
        except OSError as error:
            if error.errno not in ABSENT:
                for sock in sockets:
                    sock.close()
                raise
            absent = error
    if absent is not None and not sockets:
        raise absent
    return sockets


def _bound_address(family: socket.AddressFamily, address: Address, is_dual: bool) -> socket.socket:
    """Return a bound socket; `::` takes IPv4 too if `is_dual`."""
    # asyncio sets TCP_NODELAY only on what is said to be of this protocol.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # The last connections of a server that has ended do not keep its port taken.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        sock.bind(address)
    except BaseException:  # nobody else knows the socket
        sock.close()
        raise
    return sock


def _is_divisible(sock: socket.socket) -> bool:
    return sys.platform == "linux" and sock.family != socket.AF_UNIX and not _is_listening(sock)


def _sibling(sock: socket.socket) -> socket.socket:
    """Return another socket of the same address."""
    with _told(f"cannot listen on {address_text(sock)}"):
        # Asked for after bind(): a port that another server divides is taken, and not ours too.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sibling = socket.socket(sock.family, sock.type, sock.proto)
        try:
            for level, option in _copied_options(sock):
                sibling.setsockopt(level, option, sock.getsockopt(level, option))
            sibling.bind(sock.getsockname())
        except BaseException:  # nobody else knows the socket
            sibling.close()
            raise
        return sibling


def _copied_options(sock: socket.socket) -> list[tuple[int, int]]:
    options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT)]
    if sock.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    return options


# UNIX


@contextlib.contextmanager
def _bound_path(path: str) -> Iterator[socket.socket]:
    """Give a bound UNIX socket, whose file is removed in the end, if it is still this one's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with sock:
        with _told(f"cannot listen on unix:{path}"):
            if _is_stale(path):
                os.unlink(path)
            sock.bind(path)
        created = os.stat(path)
        # Who may read and write may connect; execution means nothing here.
        os.chmod(path, stat.S_IMODE(created.st_mode) & 0o666)
        try:
            yield sock
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), created):
                    os.unlink(path)


def _is_stale(path: str) -> bool:
    """Tell whether a path is a socket on which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            # Who listens may have as many clients waiting as it allows, which is EAGAIN then.
            client.setblocking(False)
            client.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
