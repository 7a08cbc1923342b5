"""The example file server on one host, curl on the other."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from conftest import DATA
from network import SENDER, Network, needs_hosts, needs_tun
from processes import FILE_SERVER, port_of, started, stop
from waiting import PATIENCE, until
from ways import attempts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

each_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
pytestmark = [
    each_loop,
    needs_hosts,
    *(
        pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
        for tool in ("curl", "setpriv")
    ),
]

# Has a process end with this one, however that ends, as a process keeps its host.
WITH_US = ("setpriv", "--pdeathsig", "KILL")
CURL = [*WITH_US, "curl", "--disable", "--noproxy", "*", "--silent", "--write-out", "%{http_code}"]
# Statuses that curl exits with.
NO_RANGES, TOO_SLOW = 33, 28
# A state in /proc/net/tcp.
ESTABLISHED = "01"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(DATA)
    return root


@contextmanager
def served(network: Network, root: Path, loop: str, *options: str) -> Iterator[str]:
    """Serve a folder on the sender, and give the URL of the file in it."""
    command = [FILE_SERVER, root, "--host", SENDER, "--port", 0, "--quiet", "--loop", loop]
    with ExitStack() as stack:
        with network.sender.inside():
            server, line = stack.enter_context(started(*command, *options, prefix=WITH_US))
        yield f"http://{SENDER}:{port_of(line)}/file"
        assert stop(server) == (0, "")


@contextmanager
def downloading(network: Network, url: str, *options: object) -> Iterator[subprocess.Popen[str]]:
    """Download on the receiver; what curl prints in the end is the status of the response."""
    with network.receiver.inside():
        client = subprocess.Popen(
            [*CURL, *map(str, options), url], stdout=subprocess.PIPE, text=True
        )
    with client:
        try:
            yield client
        finally:
            client.kill()


def end(client: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = client.communicate(timeout=PATIENCE)
    return client.returncode, printed


def has_begun(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@needs_tun
def test_a_download_by_a_router_that_loses_packets_is_whole(
    root: Path, tmp_path: Path, loop: str
) -> None:
    copy = tmp_path / "copy"
    with (
        Network(is_lossy=True) as network,
        served(network, root, loop) as url,
        downloading(network, url, "--output", copy) as client,
    ):
        ended = end(client)
        retransmits = network.sender.retransmits

    assert ended == (0, "200")
    assert sha256(copy.read_bytes()).digest() == sha256(DATA).digest()
    assert retransmits >= 10


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_download_that_the_link_broke_goes_on_with_the_same_file_only(
    root: Path, tmp_path: Path, loop: str, is_replaced: bool
) -> None:
    copy, head = tmp_path / "copy", tmp_path / "head"
    # At this rate it takes more time than it has.
    slowly = ["--rate", "4M"]
    broken = ["--output", copy, "--dump-header", head, "--max-time", "0.5"]
    with Network() as network, served(network, root, loop, *slowly) as url:
        with downloading(network, url, *broken) as client:
            until(lambda: has_begun(copy))
            network.down(network.router)
            first = end(client)
        part = copy.read_bytes()
        if is_replaced:
            (root / "file").write_bytes(DATA[::-1])
        network.up(network.router)
        [tag] = re.findall(r"^etag: (.*)$", head.read_text(), re.MULTILINE | re.IGNORECASE)
        resumed = ["--output", copy, "--continue-at", "-", "--header", f"If-Range: {tag}"]
        with downloading(network, url, *resumed) as client:
            second = end(client)

    assert first == (TOO_SLOW, "200")
    assert 0 < len(part) < len(DATA)
    if is_replaced:
        assert second == (NO_RANGES, "200")
        assert copy.read_bytes() == part == DATA[: len(part)]
    else:
        assert second == (0, "206")
        assert sha256(copy.read_bytes()).digest() == sha256(DATA).digest()


def queue(network: Network, url: str) -> str | None:
    """Return what the kernel says of the bytes on the way from the server; None: it ended that."""
    port = f"{port_of(url.rpartition('/')[0]):04X}"
    for _, local, _, state, queues, *_ in network.sender.read("tcp"):
        if local.endswith(port) and state == ESTABLISHED:
            return queues
    return None


def test_a_client_whose_link_is_down_is_dropped_in_time(
    root: Path, tmp_path: Path, loop: str
) -> None:
    with (root / "file").open("wb") as file:
        file.truncate(1 << 30)
    copy = tmp_path / "copy"
    for late in attempts():
        copy.unlink(missing_ok=True)
        with ExitStack() as stack:
            network = stack.enter_context(Network())
            # Little is taken at a time, so that the last time is when the queue changed at last.
            network.sender.set("tcp_wmem", "4096 65536 65536")
            url = stack.enter_context(
                served(network, root, loop, "--stall", "0.5", "--rate", "100M")
            )
            stack.enter_context(downloading(network, url, "--output", copy))
            until(lambda: has_begun(copy))
            network.down(network.router)
            # Before each look: this process may be stopped after it.
            moved = looked = time.monotonic()
            queued = queue(network, url)
            assert queued is not None
            while looked < moved + PATIENCE:
                time.sleep(0.001)  # asked again and again, as nothing tells
                before, looked = looked, time.monotonic()
                now = queue(network, url)
                if now is None:
                    break
                if now != queued:
                    # Since the last look, whenever that was.
                    queued, moved = now, before
            assert now is None
            late.append(time.monotonic() - moved - 0.5)
