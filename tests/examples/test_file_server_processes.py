"""How the file server serves: where it listens, TLS, workers, its end, and what the user sees."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import pty
import re
import resource
import select
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trustme
from processes import FILE_SERVER, Client, ask, end, environment, needs_curl, port_of, run, started
from waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = 32 * 1024 * 1024
CURL = ["curl", "--silent", "--show-error", "--fail"]
needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's /proc")
loops = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A name without a digit at its end, which port_of() would take for a port.
    root = tmp_path_factory.mktemp("site") / "root"
    root.mkdir()
    (root / "page.html").write_text("<p>page")
    (root / "big.bin").write_bytes(bytes(BIG))
    return root


def get(client: Client | ssl.SSLSocket, target: str = "/page.html") -> None:
    sock = client.sock if isinstance(client, Client) else client
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def listening(port: int) -> set[int]:
    """Return the processes that listen on a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {
        f"socket:[{words[9]}]"
        for words in lines
        if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port
    }
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) in sockets:
                found.add(int(descriptor.parts[2]))
    return found


# Where it listens


@needs_ipv6
@loops
def test_every_address_means_those_of_both_families(root: Path, loop: str) -> None:
    with started(FILE_SERVER, root, "--host", "::", "--port", 0, "--loop", loop) as (_, line):
        for host in ("127.0.0.1", "::1"):
            with Client(port_of(line), host) as client:
                get(client)
                assert client.reply().body == b"<p>page"

    # Where others find it, and not "::", which leads nowhere.
    assert "[::]" not in line
    assert f"({loop}) - Ctrl+C stops" in line


@needs_ipv6
def test_every_ipv6_address_and_every_ipv4_address_are_two_servers(root: Path) -> None:
    with started(FILE_SERVER, root, "--host", "0.0.0.0", "--port", 0) as (_, line):
        ended = run(FILE_SERVER, root, "--host", "::", "--port", port_of(line))

    assert ended.returncode == 1
    assert ended.stderr == (
        f"file_server: error: cannot listen on :::{port_of(line)}: Address already in use\n"
    )


def test_a_name_with_several_addresses_is_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(FILE_SERVER)
    options = importlib.import_module("options").Options("/", host="some.name", port=0)
    listeners = importlib.import_module("listeners")
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))
        # The last one is of no machine: what a name server says may be out of date.
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1", "192.0.2.77")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)

    with listeners.bound_sockets(options) as sockets:
        addresses = [sock.getsockname() for sock in sockets]

    assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2"]
    assert addresses[0][1] == addresses[1][1] != 0


@loops
def test_a_unix_socket_is_made_and_removed(root: Path, tmp_path: Path, loop: str) -> None:
    path = tmp_path / "socket"

    with started(FILE_SERVER, root, "--unix", path, "--loop", loop) as (server, line):
        mode = path.stat().st_mode
        reply = ask_path(path)
        ended = end(server, signal.SIGTERM)

    assert line == f"serving {root} on unix:{path} ({loop}) - Ctrl+C stops\n"
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o111 == 0
    assert reply.endswith(b"\r\n\r\n<p>page")
    assert (ended.status, ended.err) == (0, "")
    assert re.search(r'^unix: - - .* "GET /page.html HTTP/1.1" 200 7 "-" "-"$', ended.out, re.M)
    assert not path.exists()


def ask_path(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as file:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(b"GET /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return file.read()


def test_the_socket_of_a_server_that_was_killed_is_replaced(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with started(FILE_SERVER, root, "--unix", path):
        pass  # and killed
    assert path.exists()

    with started(FILE_SERVER, root, "--unix", path) as (server, _):
        reply = ask_path(path)
        ended = end(server, signal.SIGTERM)

    assert reply.endswith(b"<p>page")
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("what", ["server", "file"])
def test_a_path_that_is_not_ours_is_left_alone(root: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        if what == "server":
            other.bind(str(path))
            other.listen()
        else:
            path.write_text("precious")
        before = path.stat()

        ended = run(FILE_SERVER, root, "--unix", path)

        assert os.path.samestat(path.stat(), before)
    assert (ended.returncode, ended.stderr) == (
        1, f"file_server: error: cannot listen on unix:{path}: Address already in use\n",
    )  # fmt: skip


def test_a_path_that_another_server_took_over_is_not_removed(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with started(FILE_SERVER, root, "--unix", path) as (server, _):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))

            ended = end(server, signal.SIGTERM)

        assert path.exists()
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_is_one_line(root: Path, workers: int) -> None:
    with started(FILE_SERVER, root, "--port", 0, "--workers", workers) as (server, line):
        ended = run(FILE_SERVER, root, "--port", port_of(line), "--workers", 2)
        end(server, signal.SIGTERM)

    assert (ended.returncode, ended.stderr) == (
        1,
        f"file_server: error: cannot listen on 127.0.0.1:{port_of(line)}: Address already in use\n",
    )


# systemd

# What systemd does: the sockets are 3 and up, and the process that serves is the one that was told.
HANDING_OVER = """
import os, sys
pid, count, *command = sys.argv[1:]
os.environ |= {"LISTEN_PID": pid.replace("self", str(os.getpid())), "LISTEN_FDS": count}
for number in range(int(count)):
    os.dup2(int(os.environ["HANDED"]), 3 + number)
os.execv(sys.executable, [sys.executable, "-W", "error", *command])
"""


@contextlib.contextmanager
def handing_over(
    handed: socket.socket, *command: object, pid: str = "self", count: int = 1
) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", HANDING_OVER, pid, str(count), *map(str, command)]
    # Not one of those that it is to become.
    descriptor = fcntl.fcntl(handed.fileno(), fcntl.F_DUPFD, 20)
    process = subprocess.Popen(
        words,
        env={**environment(), "HANDED": str(descriptor)},
        pass_fds=[descriptor],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(descriptor)
    with process:
        try:
            yield process
        finally:
            process.kill()


@loops
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_socket_of_systemd_is_served_and_kept(
    root: Path, tmp_path: Path, loop: str, workers: int, family: str
) -> None:
    path = tmp_path / "socket"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            socket.create_server(("127.0.0.1", 0))
            if family == "tcp"
            else socket.socket(socket.AF_UNIX)
        )
        if family == "unix":
            listener.bind(str(path))
            listener.listen()
        arguments = ["--loop", loop, "--workers", workers]
        with handing_over(listener, FILE_SERVER, root, *arguments) as server:
            assert server.stdout is not None
            line = server.stdout.readline()
            if family == "tcp":
                body = ask(port_of(line), b"/page.html").body
            else:
                body = ask_path(path).partition(b"\r\n\r\n")[2]
            ended = end(server, signal.SIGTERM)

        assert body == b"<p>page"
        assert (ended.status, ended.err) == (0, "")
        # The next process is given it again.
        assert family == "tcp" or path.exists()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_sockets_for_another_process_are_none_of_ours(root: Path, tmp_path: Path) -> None:
    arguments = ["--unix", tmp_path / "socket"]
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        handing_over(listener, FILE_SERVER, root, *arguments, pid="1") as server,
    ):
        assert server.stdout is not None
        assert "unix:" in server.stdout.readline()
        assert end(server, signal.SIGTERM).status == 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_no_client_can_come_by_is_one_line(root: Path, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as bound:
        bound.bind(("127.0.0.1", 0))
        with handing_over(bound, FILE_SERVER, root) as server:
            ended = end(server)

    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "file_server: error: cannot use descriptor 3 of LISTEN_FDS: "
        "not a stream socket that listens\n"
    )


# TLS


class Certificates(NamedTuple):
    folder: Path
    ca: Path
    both: Path
    chain: Path
    key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    found = Certificates(folder, *(folder / name for name in ("ca", "both", "chain", "key")))
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(found.ca))
    issued.private_key_and_cert_chain_pem.write_to_path(str(found.both))
    issued.private_key_pem.write_to_path(str(found.key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(found.chain), append=True)
    ca.issue_cert("other").private_key_pem.write_to_path(str(folder / "other key"))
    (folder / "text").write_text("text")
    (folder / "broken").write_text(
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"
    )
    (folder / "locked key").write_text(LOCKED_KEY)
    return found


# A key of Ed25519 with the password "secret".
LOCKED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBCo9EJhNaD04XTKOfxB
i5fiAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQcZrug6XLmI2cdV8b
w46OVwRANOfaY+s/thJuOP3Q66kIRnVi++XUL1wzG8XDDXRGe3Gi/9oR9lcye98t
KlWHpFn8gUDmBT0dcKiBGt8/y7exGg==
-----END ENCRYPTED PRIVATE KEY-----
"""


@needs_curl
@loops
@pytest.mark.parametrize("key", [None, "key"])
def test_curl_gets_a_file_by_https(
    root: Path, certificates: Certificates, tmp_path: Path, loop: str, key: str | None
) -> None:
    files = ["--tls-cert", certificates.both] if key is None else [
        "--tls-cert", certificates.chain, "--tls-key", certificates.key,
    ]  # fmt: skip
    with started(FILE_SERVER, root, "--port", 0, "--loop", loop, *files) as (server, line):
        url = f"https://127.0.0.1:{port_of(line)}/"
        assert f" on {url} " in line

        subprocess.run(
            [*CURL, "--cacert", certificates.ca, "--output", tmp_path / "big.bin", url + "big.bin"],
            timeout=PATIENCE,
            check=True,
        )
        ended = end(server, signal.SIGTERM)

    assert (tmp_path / "big.bin").read_bytes() == bytes(BIG)
    assert (ended.status, ended.err) == (0, "")


@loops
def test_http_is_agreed_on_and_old_tls_is_not(
    root: Path, certificates: Certificates, loop: str
) -> None:
    arguments = ["--port", 0, "--loop", loop, "--tls-cert", certificates.both]
    context = ssl.create_default_context(cafile=certificates.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with started(FILE_SERVER, root, *arguments) as (server, line):
        with (
            Client(port_of(line)) as client,
            context.wrap_socket(client.sock, server_hostname="localhost") as secured,
        ):
            agreed = secured.selected_alpn_protocol(), secured.version()
        with Client(port_of(line)) as client:
            get(client)
            plain = client.rest()
        ended = end(server, signal.SIGTERM)

    assert agreed == ("http/1.1", "TLSv1.3")
    assert not plain.startswith(b"HTTP")
    assert (ended.status, ended.err) == (0, "")


@loops
def test_a_handshake_has_as_much_time_as_a_header(
    root: Path, certificates: Certificates, loop: str
) -> None:
    arguments = ["--loop", loop, "--tls-cert", certificates.both, "--header-timeout", "200ms"]
    with (
        started(FILE_SERVER, root, "--port", 0, *arguments) as (server, line),
        Client(port_of(line)) as client,
    ):
        assert client.rest() == b""
        assert end(server, signal.SIGTERM)[::2] == (0, "")


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("missing", None, "cannot read {missing}: No such file or directory"),
        ("chain", "missing", "cannot read {missing}: No such file or directory"),
        ("text", None, "cannot use {text}: no certificate in PEM format in it"),
        ("chain", None, "cannot use {chain}: no private key in PEM format in it"),
        ("chain", "other key", "cannot use {other key}: not the private key of {chain}"),
        ("chain", "locked key", "cannot use {locked key}: a private key with a password"),
        ("broken", "key", "cannot use {key}: not a private key, or {broken} not a certificate, "
         "that OpenSSL takes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_certificate_is_one_line(
    root: Path, certificates: Certificates, certificate: str, key: str | None, message: str
) -> None:
    folder = certificates.folder
    more = ["--tls-key", folder / key] if key is not None else []

    ended = run(FILE_SERVER, root, "--port", 0, "--tls-cert", folder / certificate, *more)

    said = re.sub(r"\{(.*?)\}", lambda match: str(folder / match[1]), message)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"file_server: error: {said}\n"


# The end


@loops
def test_a_download_may_end_after_the_signal(root: Path, loop: str) -> None:
    with (
        started(FILE_SERVER, root, "--port", 0, "--loop", loop) as (server, line),
        Client(port_of(line)) as loading,
        Client(port_of(line)) as idle,
    ):
        get(idle)
        idle.reply()
        get(loading, "/big.bin")
        loading.sock.recv(1)
        server.send_signal(signal.SIGTERM)
        assert idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            Client(port_of(line))

        rest = loading.rest()
        ended = end(server)

    assert len(rest) > BIG
    assert (ended.status, ended.err) == (0, "")
    assert "\n1 download may go on for 30s - Ctrl+C cuts them off\n" in ended.out
    assert re.search(r"\nstopped after \S+, 2 requests, 32\.0 MiB\n$", ended.out)


@linux_only
@loops
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("reason", ["time", "signal"])
def test_a_download_that_does_not_end_is_cut_off(
    root: Path, loop: str, workers: int, reason: str
) -> None:
    seconds = "200ms" if reason == "time" else "1h"
    arguments = ["--loop", loop, "--workers", workers, "--stop-timeout", seconds]
    with (
        started(FILE_SERVER, root, "--port", 0, *arguments) as (server, line),
        Client(port_of(line)) as stalled,
    ):
        get(stalled, "/big.bin")
        stalled.sock.recv(1)
        server.send_signal(signal.SIGTERM)
        # Not asked by connecting, which would be one more to be cut off.
        until(lambda: not listening(port_of(line)))
        if reason == "signal":
            server.send_signal(signal.SIGINT)
        ended = end(server)

        with contextlib.suppress(ConnectionResetError):
            assert len(stalled.rest()) < BIG
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith(", 1 cut off in the end\n")


# A disk that answers nothing: the read of the file with this name goes on for ever.
STUCK = """
import os, runpy, sys, time

read = os.pread

def wait(descriptor, *rest):
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith("stuck.txt"):
        time.sleep(1000)
    return read(descriptor, *rest)

os.pread = wait
del sys.argv[0]
sys.path.insert(0, sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@linux_only
@loops
@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_answers_nothing_does_not_hold_up_the_end(
    tmp_path: Path, loop: str, workers: int
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "stuck.txt").write_text("never read")
    options = ["--loop", loop, "--workers", workers, "--stall", "100ms", "--stop-timeout", "100ms"]
    with (
        started("-c", STUCK, FILE_SERVER, site, "--port", 0, *options) as (server, line),
        Client(port_of(line)) as client,
    ):
        get(client, "/stuck.txt")
        assert client.reply().status == 503

        server.send_signal(signal.SIGTERM)
        ended = end(server)

    assert (ended.status, ended.err) == (0, "")
    assert ", dropped 1 slow disk" in ended.out


# Workers


def workers_of(server: subprocess.Popen[str]) -> set[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return set(map(int, children.split()))


def is_gone(pid: int) -> bool:
    """Tell whether there is no such process, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@linux_only
@loops
def test_workers_share_a_port_and_leave_nothing(root: Path, loop: str) -> None:
    arguments = ["--port", 0, "--workers", 3, "--loop", loop]
    with started(FILE_SERVER, root, *arguments) as (server, line):
        workers = workers_of(server)
        for _ in range(20):
            assert ask(port_of(line), b"/page.html").body == b"<p>page"
        ended = end(server, signal.SIGINT)

    assert f"({loop}) by 3 workers - Ctrl+C stops" in line
    assert len(workers) == 3
    assert all(map(is_gone, workers))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count('"GET /page.html HTTP/1.1" 200 7 "-" "-"\n') == 20
    assert re.search(r"\nstopped after \S+, 20 requests, 140 B\n$", ended.out)


@linux_only
def test_a_worker_that_dies_is_replaced(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0, "--workers", 2) as (server, line):
        before = workers_of(server)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        assert server.stderr is not None
        complaint = server.stderr.readline()
        until(lambda: len(workers_of(server) - {victim}) == 2)
        (new,) = workers_of(server) - before
        until(lambda: new in listening(port_of(line)))
        os.kill(max(before), signal.SIGSTOP)
        # What goes to the one that is stopped stays there.
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(port_of(line))) for _ in range(20)]
            for client in clients:
                get(client)
            answered, _, _ = select.select([client.sock for client in clients], [], [], PATIENCE)
            replies = [sock.recv(1) for sock in answered]
        os.kill(max(before), signal.SIGCONT)
        ended = end(server, signal.SIGTERM)

    assert complaint == f"worker {victim} has ended by SIGKILL; the next one starts in 0.5s\n"
    assert b"H" in replies
    assert (ended.status, ended.err) == (0, "")


@linux_only
def test_the_supervisor_takes_no_clients(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0, "--workers", 2) as (server, line):
        assert listening(port_of(line)) == workers_of(server)


@linux_only
@loops
def test_workers_end_with_a_supervisor_that_is_killed(root: Path, loop: str) -> None:
    arguments = ["--port", 0, "--workers", 2, "--loop", loop]
    with (
        started(FILE_SERVER, root, *arguments) as (server, line),
        Client(port_of(line)) as loading,
    ):
        workers = workers_of(server)
        get(loading, "/big.bin")
        loading.sock.recv(1)

        server.kill()

        # Their zombies are those of whoever has adopted them.
        until(lambda: not any(map(is_running, workers)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# In a process of its own, as pytest's has threads, which do not go with fork().
SUPERVISING = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import workers

def die(orders):
    return 3

def hang(orders):
    orders.report(workers.READY)
    orders.stop.recv(1)
    time.sleep(60)

workers.FIRST_PAUSE = 0.05
if sys.argv[2] == "hang":
    workers.KILL_SECONDS = 0.05
supervisor = workers.Supervisor(
    2,
    {"die": die, "hang": hang}[sys.argv[2]],
    on_ready=lambda: (print("ready"), os.kill(os.getpid(), signal.SIGTERM)),
    on_stop=lambda: print("stop"),
    stop_seconds=0.05,
)
sys.exit(supervisor.run())
"""


def test_workers_that_cannot_live_are_given_up() -> None:
    ended = run("-c", SUPERVISING, FILE_SERVER, "die")

    assert ended.returncode == 3
    assert ended.stdout == "stop\n"
    lines = re.sub(r"worker \d+", "it", ended.stderr).splitlines()
    assert lines.count("it has ended with status 3; so have those before it: giving up") == 1
    assert lines.count("it has ended with status 3; the next one starts in 0.1s") >= 2


def test_workers_that_do_not_stop_are_killed() -> None:
    ended = run("-c", SUPERVISING, FILE_SERVER, "hang")

    assert ended.returncode == signal.SIGKILL
    assert ended.stdout == "ready\nstop\n"
    lines = re.sub(r"worker \d+", "it", ended.stderr).splitlines()
    assert lines == ["it does not stop: it is killed"] * 2


# What the user sees


def test_a_line_of_the_access_log_has_what_was_asked_and_by_whom(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0) as (server, line):
        fields = [b'Referer: http://x/"\\', b"User-Agent: a\xe9b"]
        ask(port_of(line), b"/page.html", *fields)
        ask(port_of(line), b"/none", method=b"HEAD")
        ended = end(server, signal.SIGTERM)

    first, second, _ = [text for text in ended.out.splitlines() if not text.startswith("at most")]
    moment = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
    assert re.fullmatch(
        rf'127\.0\.0\.1 - - {moment} "GET /page\.html HTTP/1\.1" 200 7 '
        r'"http://x/\\"\\\\" "a\\xe9b"',
        first,
    )
    assert re.fullmatch(rf'127\.0\.0\.1 - - {moment} "HEAD /none HTTP/1\.1" 404 - "-" "-"', second)
    assert (ended.status, ended.err) == (0, "")


def test_quiet_is_one_line(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0, "--quiet") as (server, line):
        ask(port_of(line), b"/page.html")

        assert end(server, signal.SIGTERM) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("GET /a HTTP/1.1", "GET /a HTTP/1.1"),
        ('"', r"\""),
        ("\\", r"\\"),
        ("a\r\nb\x1b[31m\x7f", r"a\x0d\x0ab\x1b[31m\x7f"),
        ("\xe9", r"\xe9"),
        ("\u20ac", r"\xe2\x82\xac"),
        ("\udcff", r"\xff"),
    ],
)
def test_no_request_can_forge_a_line(
    monkeypatch: pytest.MonkeyPatch, text: str, logged: str
) -> None:
    monkeypatch.syspath_prepend(FILE_SERVER)

    assert importlib.import_module("access_log").escaped(text) == logged


@loops
def test_a_log_that_nobody_reads_does_not_stop_the_server(root: Path, loop: str) -> None:
    with started(FILE_SERVER, root, "--port", 0, "--loop", loop) as (server, line):
        long = b"/" + b"x" * 2000
        with Client(port_of(line)) as client:
            for _ in range(200):
                client.send(b"GET " + long + b" HTTP/1.1", b"Host: x")
                assert client.reply().status == 404
        server.send_signal(signal.SIGTERM)
        # It does not wait at its end either.
        assert server.wait(PATIENCE) == 0
        ended = end(server)

    assert 0 < ended.out.count("\n") < 200


def test_what_a_log_lacks_is_counted_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(FILE_SERVER)
    access_log, activity = map(importlib.import_module, ("access_log", "activity"))
    monkeypatch.setattr(access_log, "MAX_WAITING", 1 << 18)
    line = activity.Line("127.0.0.1", 0.0, "x" * 10_000, 200, 1, "", "")
    reader, writer = os.pipe()
    with open(reader, "rb") as read, open(writer, "wb") as write:
        log = access_log.AccessLog(write.fileno())
        for _ in range(100):
            log.put(line)
        assert log.dropped > 0
        received = b""
        while received.count(b"\n") < 100 - log.dropped:
            received += os.read(read.fileno(), 1 << 16)
        log.say("the end")
        log.close()
        received += os.read(read.fileno(), 1 << 16)

    assert received.endswith(b'" 200 1 "-" "-"\nthe end\n')
    assert caplog.messages == [f"the access log lacks {log.dropped} lines: it is read too late"]


def test_a_log_whose_reader_has_gone_ends_and_the_server_does_not(root: Path) -> None:
    with started(FILE_SERVER, root, "--port", 0) as (server, line):
        assert server.stdout is not None
        server.stdout.close()
        ask(port_of(line), b"/page.html")
        assert server.stderr is not None
        complaint = server.stderr.readline()
        reply = ask(port_of(line), b"/page.html")
        server.send_signal(signal.SIGTERM)

        assert server.wait(PATIENCE) == 0
        assert server.stderr.read() == ""
    assert complaint == "the access log ends: Broken pipe\n"
    assert reply.status == 200


WITH_FEW_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 264))
os.execv(sys.executable, [sys.executable, "-W", "error", *sys.argv[1:]])
"""


def test_more_connections_than_files_are_lowered_and_that_is_said(root: Path) -> None:
    with started("-c", WITH_FEW_FILES, FILE_SERVER, root, "--port", 0) as (server, line):
        assert server.stdout is not None
        note = server.stdout.readline()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(port_of(line))) for _ in range(42)]
            for client in clients:
                get(client)
            statuses = [client.reply().status for client in clients]

    assert note == "at most 41 connections, as 264 open files are allowed\n"
    assert sorted(statuses) == [200] * 41 + [503]


@linux_only
@loops
def test_too_many_open_files_are_outlived(root: Path, loop: str) -> None:
    """uvloop closes the clients that it has no descriptor for, and asyncio lets them wait."""
    with (
        started(FILE_SERVER, root, "--port", 0, "--loop", loop) as (server, line),
        Client(port_of(line)) as first,
    ):
        get(first)
        first.reply()
        used = len(os.listdir(f"/proc/{server.pid}/fd"))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
        clients = [Client(port_of(line)) for _ in range(8)]
        before = cpu_seconds(server.pid)
        time.sleep(1.5)  # in which asyncio tries again
        spent = cpu_seconds(server.pid) - before
        for client in clients:
            client.close()
        until(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= used)
        reply = ask(port_of(line), b"/page.html")
        first.close()
        ended = end(server, signal.SIGTERM)

    assert reply.body == b"<p>page"
    assert spent < 0.5
    complaint = "cannot accept: [Errno 24] Too many open files\n"
    assert (ended.status, ended.err) == (0, complaint if loop == "asyncio" else "")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_loop_that_is_missing_is_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")

    ended = run(FILE_SERVER, root, "--loop", "uvloop", folders=(tmp_path,))

    assert (ended.returncode, ended.stderr) == (
        1, "file_server: error: uvloop is missing: pip install uvloop\n",
    )  # fmt: skip


# On a terminal


# What a shell does: the terminal is the session's, so that Ctrl+C on it is a signal.
TAKING_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-W", "error", *sys.argv[1:]])
"""


class Terminal:
    """A process on a terminal, and all that it wrote there."""

    def __init__(self, *arguments: object, folders: tuple[Path, ...] = (), **env: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(24, 100)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKING_TERMINAL, *map(str, arguments)],
            env={**environment(*folders), "TERM": "xterm", **env},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.written = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: str) -> str:
        """Read on until a text comes, and return what came; "": until the process has ended."""
        came, last = "", time.monotonic() + PATIENCE
        while not text or text not in came:
            assert select.select([self.ours], [], [], last - time.monotonic())[0], came
            try:
                data = os.read(self.ours, 65536)
            except OSError:  # Linux says EIO where nobody has the terminal any more
                data = b""
            if not data:
                assert not text, came
                break
            came += data.decode()
        self.written += came
        return came

    def nbytes_within(self, seconds: float) -> int:
        nbytes, last = 0, time.monotonic() + seconds
        while (left := last - time.monotonic()) > 0 and select.select([self.ours], [], [], left)[0]:
            nbytes += len(os.read(self.ours, 65536))
        return nbytes


@pytest.fixture
def terminal(root: Path) -> Iterator[Terminal]:
    with Terminal(FILE_SERVER, root, "--port", 0) as terminal:
        yield terminal


def served_port(terminal: Terminal) -> int:
    return port_of(terminal.read_until("Ctrl+C stops\r\n").splitlines()[0])


def test_a_terminal_shows_transfers_and_then_the_totals(terminal: Terminal) -> None:
    port = served_port(terminal)
    terminal.read_until("connections: 0, requests: 0")
    with Client(port) as client:
        get(client, "/big.bin")
        client.sock.recv(1)
        came = terminal.read_until("127.0.0.1")
        came += terminal.read_until("/big.bin")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("1 download may go on for 30s - Ctrl+C cuts them off")
        terminal.process.send_signal(signal.SIGINT)
        last = terminal.read_until("")

    assert "connections: 1, requests: 0 (0/s), sent: " in came
    assert terminal.process.wait(PATIENCE) == 0
    # The cursor is shown again, and the table has gone.
    _, shown, after = last.rpartition("\x1b[?25h")
    assert shown
    assert "big.bin" not in after
    assert after.endswith(", 1 cut off in the end\r\n")


def test_a_terminal_is_left_alone_while_nothing_moves(terminal: Terminal) -> None:
    served_port(terminal)
    terminal.read_until("connections: 0, requests: 0")

    assert terminal.nbytes_within(1.0) < 200  # the first drawing may go on
    assert terminal.nbytes_within(1.0) == 0


@pytest.mark.parametrize("size", [(24, 40), (3, 12), (1, 1), (2, 200)])
def test_a_terminal_may_be_resized(terminal: Terminal, size: tuple[int, int]) -> None:
    port = served_port(terminal)
    with Client(port) as client:
        get(client, "/big.bin")
        client.sock.recv(1)
        terminal.read_until("/big.bin")

        terminal.resize(*size)

        # Cleared, as what was drawn is somewhere else now.
        terminal.read_until("\x1b[2J\x1b[H")
        terminal.resize(24, 100)
        terminal.read_until("/big.bin")
    terminal.process.send_signal(signal.SIGTERM)

    assert "Traceback" not in terminal.read_until("")
    assert terminal.process.wait(PATIENCE) == 0


def test_a_terminal_that_is_stopped_does_not_stop_the_server(terminal: Terminal) -> None:
    port = served_port(terminal)
    terminal.read_until("connections: 0, requests: 0")
    termios.tcflow(terminal.ours, termios.TCOOFF)

    for _ in range(3):
        assert ask(port, b"/page.html").body == b"<p>page"


@pytest.mark.parametrize(
    "env", [{"TERM": "dumb"}, {"TERM": "unknown"}, {"PYTHONIOENCODING": "ascii"}], ids=str
)
def test_a_terminal_that_cannot_draw_has_the_access_log(root: Path, env: dict[str, str]) -> None:
    with Terminal(FILE_SERVER, root, "--port", 0, **env) as terminal:
        ask(served_port(terminal), b"/page.html")
        terminal.read_until('"GET /page.html HTTP/1.1" 200 7 "-" "-"\r\n')
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("")

    assert "\x1b" not in terminal.written


def test_several_workers_have_the_access_log_on_a_terminal(root: Path) -> None:
    with Terminal(FILE_SERVER, root, "--port", 0, "--workers", 2) as terminal:
        ask(served_port(terminal), b"/page.html")
        terminal.read_until('"GET /page.html HTTP/1.1" 200 7 "-" "-"\r\n')
        # Ctrl+C goes to all of them, and is one signal to stop.
        os.write(terminal.ours, b"\3")
        last = terminal.read_until("")
        status = terminal.process.wait(PATIENCE)

    assert status == 0
    assert "stopped after" in last
    assert "Traceback" not in last


def test_without_rich_a_terminal_has_the_access_log(root: Path, tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('missing', name='rich')"
    (tmp_path / "rich.py").write_text(missing)
    with Terminal(FILE_SERVER, root, "--port", 0, folders=(tmp_path,)) as terminal:
        ask(served_port(terminal), b"/page.html")
        terminal.read_until('"GET /page.html HTTP/1.1" 200 7 "-" "-"\r\n')


def test_no_color_is_none(root: Path) -> None:
    with Terminal(FILE_SERVER, root, "--port", 0, NO_COLOR="1") as terminal:
        port = served_port(terminal)
        with Client(port) as client:
            get(client, "/big.bin")
            client.sock.recv(1)
            terminal.read_until("/big.bin")

    # Orders of the kind of 31 and 38;5;1 are colors; 0, 1 and 2 are normal, bold and dim.
    orders = set(re.findall(r"\x1b\[([\d;]*)m", terminal.written))
    assert orders <= {"", "0", "1", "2"}
