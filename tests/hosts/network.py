"""Two hosts on this machine and a router between them: network namespaces, joined by veth devices.

The namespaces have no names. One lives as long as a descriptor of this process, or a process in it:
whatever becomes of a test, nothing of its network stays, and two runs do not know of each other.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import termios
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from conftest import Peer
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

# linux/sched.h; `os.setns` came with Python 3.12.
CLONE_NEWNET = 0x40000000
# linux/if_tun.h: a device of IP packets, with nothing before them.
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
# linux/tcp.h
TCP_WINDOW_CLAMP = 10

# Bytes that an end of a connection keeps: small, so that there is something to wait for.
BUFFER = 65536
# Milliseconds after which a host asks again for whose address it is. The first time may be in vain,
# as a link takes a moment to come up, and a second later is what is usual.
ASK_AGAIN = "ntable change name arp_cache dev {} retrans 20"
SENDER, RECEIVER = "10.0.1.2", "10.0.2.2"

_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A host: a network namespace."""

    def __init__(self) -> None:
        with _coming_back():
            _check(_libc.unshare(CLONE_NEWNET))
            self._fd = _namespace()
        # For other processes.
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread on the host. Sockets and processes that it makes stay there."""
        with _coming_back():
            _check(_libc.setns(self._fd, CLONE_NEWNET))
            yield

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8)."""
        with self.inside():
            subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(commands),
                capture_output=True,
                text=True,
                check=True,
            )

    def set(self, name: str, value: object) -> None:
        """Set a value of net.ipv4, as sysctl(8) does."""
        with self.inside():
            Path("/proc/sys/net/ipv4", name).write_text(str(value))

    def read(self, name: str) -> list[list[str]]:
        """Return the words of a table of /proc/net."""
        with self.inside():
            lines = Path("/proc/thread-self/net", name).read_text().splitlines()
        return [line.split() for line in lines]

    @property
    def retransmits(self) -> int:
        """How many segments this host has sent again."""
        names, values = (words for words in self.read("snmp") if words[0] == "Tcp:")
        return int(values[names.index("RetransSegs")])


@contextmanager
def _coming_back() -> Iterator[None]:
    ours = _namespace()
    try:
        # Root of a user namespace only may leave that of the machine, and not come back.
        _check(_libc.setns(ours, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(ours, CLONE_NEWNET))
    finally:
        os.close(ours)


def _namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Network:
    """A host that sends, one that receives, and a router between them.

    Args:
        is_lossy: The router drops one packet in a hundred, as if by accident. It asks a program of
            which (`lossy.py`), as that takes nothing but a TUN device of the kernel.
    """

    def __init__(self, *, is_lossy: bool = False) -> None:
        with ExitStack() as stack:
            self.sender, self.router, self.receiver = (
                stack.enter_context(closing(Host())) for _ in range(3)
            )
            self._lay_cables()
            if is_lossy:
                self._drop_packets(stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _lay_cables(self) -> None:
        # Else it is as in the namespace of this process.
        self.router.set("conf/all/rp_filter", 0)
        self.router.set("conf/default/rp_filter", 0)
        self.router.set("ip_forward", 1)
        hosts = list(enumerate((self.sender, self.receiver), 1))
        commands: list[str] = []
        for number, host in hosts:
            commands += [
                f"link add eth{number} type veth peer name eth0 netns {host.path}",
                f"address add 10.0.{number}.1/24 dev eth{number}",
                f"link set eth{number} up",
                ASK_AGAIN.format(f"eth{number}"),
            ]
        self.router.ip(*commands)
        for number, host in hosts:
            # What a closed socket has not sent would keep the namespace for minutes.
            host.set("tcp_orphan_retries", 1)
            host.ip(
                f"address add 10.0.{number}.2/24 dev eth0",
                ASK_AGAIN.format("eth0"),
                *self._up(host),
            )

    def _drop_packets(self, stack: ExitStack) -> None:
        with self.router.inside():
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun", IFF_TUN | IFF_NO_PI))
            program = subprocess.Popen(
                [sys.executable, "-I", "-S", Path(__file__).with_name("lossy.py"), str(tun)],
                # With this it ends, and so with this process.
                stdin=subprocess.PIPE,
                pass_fds=[tun],
            )
        finally:
            os.close(tun)
        stack.enter_context(program)
        stack.callback(program.kill)
        self.router.ip(
            "link set tun up",
            "route add default dev tun table 1",
            "rule add iif eth1 table 1",
            "rule add iif eth2 table 1",
        )

    def down(self, host: Host) -> None:
        """Take down the link of a host; of the router, that to the receiver."""
        host.ip(f"link set {self._device(host)} down")

    def up(self, host: Host) -> None:
        """Set it up, with the routes that it had."""
        host.ip(*self._up(host))

    def _up(self, host: Host) -> list[str]:
        commands = [f"link set {self._device(host)} up"]
        if host is self.sender:
            # As with the usual 200 ms an outage of several retransmissions takes seconds.
            commands.append("route add default via 10.0.1.1 rto_min 50ms")
        elif host is self.receiver:
            commands.append("route add default via 10.0.2.1")
        return commands

    def _device(self, host: Host) -> str:
        return "eth2" if host is self.router else "eth0"

    def lower_mtu(self) -> None:
        """Let only packets of 1280 bytes pass the router, of which the hosts know nothing."""
        self.router.ip("link set eth2 mtu 1280")

    @contextmanager
    def connection(self, buffer: int = BUFFER) -> Iterator[Peer]:
        """Connect the two hosts; `buffer` is what the receiver keeps."""
        with self.receiver.inside():
            listener = socket.create_server((RECEIVER, 0))
        with self.sender.inside():
            sock = socket.socket()
        with closing(listener), closing(sock):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            sock.settimeout(PATIENCE)
            sock.connect(listener.getsockname())
            listener.settimeout(PATIENCE)
            other, _ = listener.accept()
            with closing(Peer(sock, other)) as peer:
                yield peer


class Info(NamedTuple):
    """What the kernel says of a connection (struct tcp_info)."""

    # How often in succession it has sent in vain.
    backoff: int
    path_mtu: int
    # Segments sent again, of the whole connection.
    retransmits: int
    acknowledged: int
    # What the other end has room for.
    window: int


def info(sock: socket.socket) -> Info:
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    return Info(*(struct.unpack_from(code, data, at)[0] for code, at in _FIELDS))


_FIELDS = [("B", 4), ("I", 60), ("I", 100), ("Q", 120), ("I", 228)]


def accepted(sock: socket.socket) -> int:
    """Return how many bytes the kernel ever took to send, by its own account."""
    acknowledged = -1
    # Again, if some were acknowledged between the two looks.
    while acknowledged != (acknowledged := info(sock).acknowledged):
        queued: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    # The first that is acknowledged to who connects is that it does.
    return acknowledged - 1 + queued


# Makes who runs it root of hosts of their own.
AS_ROOT = "unshare --user --map-root-user --net"


def _why_not(*, is_lossy: bool = False) -> str:
    """Return why there can be no hosts on this machine; "" where there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "ip (iproute2) is not installed"
    try:
        with Network(is_lossy=is_lossy):
            return ""
    except PermissionError as error:
        return f"{error}; root may, or `{AS_ROOT} python -m pytest tests/hosts`"
    except OSError as error:
        return f"no network namespaces or TUN devices: {error}"
    except subprocess.CalledProcessError as error:
        return f"no veth devices or routes: {error.stderr}"


needs_hosts = pytest.mark.skipif(bool(reason := _why_not()), reason=reason)
needs_tun = pytest.mark.skipif(bool(reason := reason or _why_not(is_lossy=True)), reason=reason)
