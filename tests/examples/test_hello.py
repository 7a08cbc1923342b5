"""The hello examples, run as the tutorial says."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from processes import EXAMPLES, port_of, run, started, stop
from waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


def receive_all(port: int) -> bytes:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)) as sock:
        return sock.makefile("rb").read()


def test_the_client_prints_the_whole_message_of_the_server() -> None:
    with started(EXAMPLES / "hello_server.py", "--port", 0) as (_, line):
        client = run(EXAMPLES / "hello_client.py", "--port", port_of(line))

    assert client.stderr == ""
    assert client.returncode == 0
    assert client.stdout.startswith("received 72 bytes: Hello! ")


def test_the_server_serves_every_client_until_it_is_interrupted() -> None:
    with started(EXAMPLES / "hello_server.py", "--port", 0) as (server, line):
        messages = {receive_all(port_of(line)) for _ in range(20)}
        end = stop(server, signal.SIGINT)

    assert len(messages) == 1
    assert end == (0, "")


def test_the_client_says_that_nobody_listens() -> None:
    # It keeps others from the port.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]

        client = run(EXAMPLES / "hello_client.py", "--port", port)

    assert client.returncode == 1
    assert client.stderr.startswith("hello_client: ")
    assert client.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_the_trio_server_sends_its_message_and_then_the_file(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"asend" * (size // 5) + b"." * (size % 5))

    with started(EXAMPLES / "trio_server.py", "--port", 0, file) as (server, line):
        received = receive_all(port_of(line))
        end = stop(server, signal.SIGINT)

    assert received == b"Hello from trio!\n" + file.read_bytes()
    assert end == (0, "")


@pytest.mark.parametrize("program", ["hello_server", "trio_server"])
def test_a_port_that_is_taken_is_one_line(program: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = run(EXAMPLES / f"{program}.py", "--port", taken.getsockname()[1])

    assert (server.returncode, server.stdout) == (1, "")
    assert re.fullmatch(rf"{program}: .*in use.*\n", server.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="has its limits changed from outside")
@pytest.mark.parametrize("program", ["hello_server", "trio_server"])
def test_a_server_outlives_that_too_many_files_are_open(program: str) -> None:
    with started(EXAMPLES / f"{program}.py", "--port", 0) as (server, line):
        # Of those that it has it keeps all; there is no room for another one.
        number = max(map(int, os.listdir(f"/proc/{server.pid}/fd"))) + 1
        _, most = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (number, most))
        with closing(socket.create_connection(("127.0.0.1", port_of(line)))) as client:
            client.settimeout(PATIENCE)
            assert server.stdout is not None
            assert server.stdout.readline().startswith("cannot accept: ")
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))

            assert client.makefile("rb").read().startswith(b"Hello")


def test_the_trio_server_asks_for_its_file_before_it_serves(tmp_path: Path) -> None:
    server = run(EXAMPLES / "trio_server.py", "--port", 0, tmp_path / "nothing")

    assert (server.returncode, server.stdout) == (1, "")
    assert server.stderr.startswith("trio_server: [Errno 2] No such file")
    assert server.stderr.count("\n") == 1


def test_the_trio_server_outlives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with started(EXAMPLES / "trio_server.py", "--port", 0, file) as (_, line):
        file.unlink()

        received = [receive_all(port_of(line)) for _ in range(2)]

    assert received == [b"Hello from trio!\n"] * 2


def test_the_trio_server_needs_no_file() -> None:
    with started(EXAMPLES / "trio_server.py", "--port", 0) as (_, line):
        received = receive_all(port_of(line))

    assert received == b"Hello from trio!\n"
