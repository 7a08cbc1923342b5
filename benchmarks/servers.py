"""HTTP servers that are loaded, each in a process of its own: `with nginx(directory) as server`.

They share one core, as only one of them is loaded at a time; the load has the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .harness import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CORE = 0
# In the id of a clock: that of a process, by what the scheduler has counted.
_CPU_CLOCK = 2
_EXAMPLE = Path(__file__).parent.parent / "examples" / "file_server"
# Seconds for a server to accept connections, and between two attempts at it.
_LONGEST_START = 10.0
_BETWEEN = 0.01
# Debian has it where only root looks for programs.
_NGINX_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
# One process, as the file server is one, which also spares it another user. So many connections as
# that takes by default. The temporary folders are never used, but made, and /var is root's.
_NGINX_CONFIGURATION = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log crit;
events {{ worker_connections 10000; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000 inactive=60s;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        root "{directory}";
    }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def cpu(self) -> float:
        """Return the CPU seconds that it has taken, those of its threads included."""
        # The clock that clock_getcpuclockid(3) finds, which Python has for threads alone. What
        # /proc says of a process it says in steps of 10 ms, half of a short sample.
        return time.clock_gettime(~self.pid << 3 | _CPU_CLOCK)

    def resident(self) -> int:
        """Return its resident memory in KiB."""
        return resident(self.pid)


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command on the core of the servers while the context is open; its output is piped."""
    with subprocess.Popen(
        ["taskset", "-c", str(_CORE), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextlib.contextmanager
def file_server(directory: Path, loop: str, *options: str) -> Iterator[Server]:
    """Run the example file server, as its users do, while the context is open."""
    port = _free_port()
    needed = ["--port", str(port), "--quiet", "--loop", loop]
    with running([sys.executable, str(_EXAMPLE), str(directory), *needed, *options]) as process:
        _wait_until_accepting(process, port)
        yield Server(process, port)


@contextlib.contextmanager
def nginx(directory: Path) -> Iterator[Server]:
    """Run nginx, by whoever it is, with all that it writes beside the folder that it serves.

    Raises:
        Skipped: It is not installed.
    """
    program = _nginx()
    if program is None:
        raise Skipped("nginx is not installed (Debian's package nginx)")
    port = _free_port()
    with tempfile.TemporaryDirectory(dir=directory.parent) as prefix:
        configuration = Path(prefix, "nginx.conf")
        configuration.write_text(_NGINX_CONFIGURATION.format(port=port, directory=directory))
        # Until it has read where its errors go, it would open a file under /var.
        files = ["-p", prefix, "-c", str(configuration), "-e", "error.log"]
        with running([program, *files]) as process:
            _wait_until_accepting(process, port)
            yield Server(process, port)


def nginx_version() -> str | None:
    """Return the version of nginx; None: it is not installed."""
    program = _nginx()
    if program is None:
        return None
    # nginx version: nginx/1.22.1
    output = subprocess.run([program, "-v"], check=True, stderr=subprocess.PIPE, text=True).stderr
    return output.partition("/")[2].strip()


def _nginx() -> str | None:
    return shutil.which("nginx", path=_NGINX_PATH)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_accepting(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + _LONGEST_START
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(_BETWEEN)  # between two attempts
    raise RuntimeError(f"no server accepts connections: {process.args!r}")
