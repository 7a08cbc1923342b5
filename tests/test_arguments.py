"""Every wrong argument: asyncio's or socket's exception and words, before the first byte."""

from __future__ import annotations

import asyncio
import io
import os
import pathlib
import re
import socket
from contextlib import ExitStack
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import anyio
import pytest
from certificates import client_context
from conftest import ASYNCIO, DATA, Peer

import asend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.anyio

NAN = float("nan")

# What all three calls take: options, error, words.
WATCHERS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"timeout": -1}, ValueError, "Timeout value out of range (got -1)"),
    ({"timeout": -0.001}, ValueError, "Timeout value out of range (got -0.001)"),
    ({"timeout": float("-inf")}, ValueError, "Timeout value out of range (got -inf)"),
    ({"timeout": NAN}, ValueError, "Invalid value NaN (not a number)"),
    ({"timeout": "1"}, TypeError, "timeout must be a number (got '1')"),
    ({"timeout": b"1"}, TypeError, "timeout must be a number (got b'1')"),
    ({"limits": 5}, TypeError, "limits must be an asend.Limits or None (got 5)"),
    ({"limits": {}}, TypeError, "limits must be an asend.Limits or None (got {})"),
    ({"progress": 5}, TypeError, "progress must be callable or None (got 5)"),
]

NOT_CONTIGUOUS = "memoryview: underlying buffer is not C-contiguous"

DATA_ERRORS: list[tuple[Any, type[Exception], str]] = [
    ("text", TypeError, "a bytes-like object is required, not 'str'"),
    (None, TypeError, "a bytes-like object is required, not 'NoneType'"),
    (5, TypeError, "a bytes-like object is required, not 'int'"),
    ([1, 2], TypeError, "a bytes-like object is required, not 'list'"),
    (memoryview(b"abcdef")[::2], BufferError, NOT_CONTIGUOUS),
    (memoryview(b"abcdef")[::-1], BufferError, NOT_CONTIGUOUS),
]

FILE_ERRORS: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((0, 0), ValueError, "count must be a positive integer (got 0)"),
    ((0, -1), ValueError, "count must be a positive integer (got -1)"),
    ((0, 1.5), TypeError, "count must be a positive integer (got 1.5)"),
    ((0, "1"), TypeError, "count must be a positive integer (got '1')"),
    ((-1,), ValueError, "offset must be a non-negative integer (got -1)"),
    ((-1, 10), ValueError, "offset must be a non-negative integer (got -1)"),
    ((1.5,), TypeError, "offset must be a non-negative integer (got 1.5)"),
    ((None,), TypeError, "offset must be a non-negative integer (got None)"),
    (("1",), TypeError, "offset must be a non-negative integer (got '1')"),
    ((2**63,), OverflowError, f"offset is beyond any file (got {2**63})"),
]


def first_line(value: object) -> str:
    return repr(value)[:30]


@pytest.fixture(params=["sendall", "sendmsg", "sendfile"])
def call(request: pytest.FixtureRequest, data_file: Path) -> Iterator[Any]:
    """Each of the three, with arguments that are right."""
    with data_file.open("rb") as file:
        yield {
            "sendall": lambda sock, **options: asend.sock_sendall(sock, DATA, **options),
            "sendmsg": lambda sock, **options: asend.sock_sendmsg(sock, [DATA], **options),
            "sendfile": lambda sock, **options: asend.sock_sendfile(sock, file, **options),
        }[request.param]
        # Whatever was refused has left the file alone.
        assert file.tell() == 0


def assert_not_started(error: BaseException, peer: Peer) -> None:
    assert not hasattr(error, "__notes__")
    assert peer.read_now() == b""


@pytest.mark.parametrize(("options", "error", "words"), WATCHERS, ids=first_line)
async def test_a_wrong_option_is_refused(
    options: dict[str, Any], error: type[Exception], words: str, call: Any, unix_peer: Peer
) -> None:
    with pytest.raises(error, match=f"^{re.escape(words)}$") as caught:
        await call(unix_peer.sock, **options)

    assert_not_started(caught.value, unix_peer)


@pytest.mark.parametrize(("data", "error", "words"), DATA_ERRORS, ids=first_line)
async def test_wrong_data_is_refused(
    data: Any, error: type[Exception], words: str, unix_peer: Peer
) -> None:
    with pytest.raises(error, match=f"^{re.escape(words)}$") as caught:
        await asend.sock_sendall(unix_peer.sock, data)
    assert_not_started(caught.value, unix_peer)

    # Also behind a buffer that is right.
    with pytest.raises(error, match=f"^{re.escape(words)}$") as caught:
        await asend.sock_sendmsg(unix_peer.sock, [b"right", data])
    assert_not_started(caught.value, unix_peer)


async def test_wrong_vectors_are_refused(unix_peer: Peer) -> None:
    with pytest.raises(TypeError, match=r"^sendmsg\(\) argument 1 must be an iterable$") as caught:
        await asend.sock_sendmsg(unix_peer.sock, 5)
    assert_not_started(caught.value, unix_peer)

    with pytest.raises(TypeError, match=r"^sendmsg\(\) argument 2 must be an iterable$"):
        await asend.sock_sendmsg(unix_peer.sock, [b"x"], 5)
    with pytest.raises(TypeError):
        await asend.sock_sendmsg(unix_peer.sock, [b"x"], ["not a triple"])
    assert unix_peer.read_now() == b""


@pytest.mark.parametrize(
    ("flags", "error"),
    [("1", TypeError), (1.5, TypeError), (None, TypeError), (2**40, OverflowError)],
)
async def test_wrong_flags_are_refused(flags: Any, error: Any, unix_peer: Peer) -> None:
    for call in (
        asend.sock_sendall(unix_peer.sock, b"x", flags),
        asend.sock_sendall(unix_peer.sock, DATA, flags),
        asend.sock_sendmsg(unix_peer.sock, [DATA], (), flags),
    ):
        with pytest.raises(error):
            await call
        assert unix_peer.read_now() == b""


@pytest.mark.parametrize(("arguments", "error", "words"), FILE_ERRORS, ids=first_line)
async def test_a_wrong_offset_or_count_is_refused(
    arguments: tuple[Any, ...], error: type[Exception], words: str, data_file: Path, unix_peer: Peer
) -> None:
    with data_file.open("rb") as file:
        file.seek(7)
        with pytest.raises(error, match=f"^{re.escape(words)}$") as caught:
            await asend.sock_sendfile(unix_peer.sock, file, *arguments)

        assert file.tell() == 7
    assert_not_started(caught.value, unix_peer)


async def test_a_text_file_is_refused(data_file: Path, unix_peer: Peer) -> None:
    words = "file should be opened in binary mode"
    with data_file.open() as file, pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        await asend.sock_sendfile(unix_peer.sock, file)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        await asend.sock_sendfile(unix_peer.sock, io.StringIO("text"))
    # A wrapper, which is no TextIOBase.
    with NamedTemporaryFile("w+") as wrapped, pytest.raises(ValueError, match=f"^{words}$"):
        await asend.sock_sendfile(unix_peer.sock, wrapped)

    assert unix_peer.read_now() == b""


@pytest.mark.parametrize("file", ["name", pathlib.Path("name"), 3, None, b"bytes"], ids=repr)
async def test_what_is_no_file_is_refused(file: Any, unix_peer: Peer) -> None:
    with pytest.raises(TypeError, match=r"^file must be a binary file object with read\(\) "):
        await asend.sock_sendfile(unix_peer.sock, file)

    assert unix_peer.read_now() == b""


async def test_a_closed_file_is_refused(data_file: Path, unix_peer: Peer) -> None:
    for file in (data_file.open("rb"), io.BytesIO(DATA)):
        file.close()
        with pytest.raises(ValueError, match=r"^I/O operation on closed file$"):
            await asend.sock_sendfile(unix_peer.sock, file)

    assert unix_peer.read_now() == b""


@pytest.mark.parametrize("mode", ["wb", "ab"])
async def test_a_write_only_file_is_refused(mode: str, path: Path, unix_peer: Peer) -> None:
    with (
        path.open(mode) as file,
        pytest.raises(io.UnsupportedOperation, match=r"^File not open for reading$"),
    ):
        await asend.sock_sendfile(unix_peer.sock, file)

    assert unix_peer.read_now() == b""


async def test_a_directory_is_refused(tmp_path: Path, unix_peer: Peer) -> None:
    class Directory:
        def __init__(self, fd: int) -> None:
            self.fileno = lambda: fd

    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        await asend.sock_sendfile(unix_peer.sock, Directory(fd))
    os.close(fd)

    assert unix_peer.read_now() == b""


async def test_a_count_beyond_the_end_sends_less(data_file: Path, peer: Peer) -> None:
    with data_file.open("rb") as file:
        sent = await asend.sock_sendfile(peer.sock, file, len(DATA) - 100, 2**70)

        assert sent == 100
        assert file.tell() == len(DATA)
    assert await peer.read_all() == DATA[-100:]


@pytest.mark.parametrize("beyond", [0, 1, 10**6, 2**63 - 1 - len(DATA)])
async def test_an_offset_beyond_the_end_sends_nothing(
    beyond: int, data_file: Path, peer: Peer
) -> None:
    counted: list[int] = []
    with data_file.open("rb") as file:
        file.seek(7)
        for count in (None, 10):
            sent = await asend.sock_sendfile(
                peer.sock, file, len(DATA) + beyond, count, progress=counted.append
            )

            assert sent == 0
            assert file.tell() == 7
    assert sum(counted) == 0
    assert await peer.read_all() == b""


# --- sockets


@pytest.mark.parametrize("sock", ["socket", 5, None, b"", object()], ids=first_line)
async def test_what_is_no_socket_is_refused(sock: Any, call: Any) -> None:
    with pytest.raises(TypeError, match=f"^a socket is required, not {type(sock).__name__!r}$"):
        await call(sock)


async def test_a_blocking_socket_is_refused(call: Any, unix_peer: Peer) -> None:
    unix_peer.sock.setblocking(True)

    with pytest.raises(ValueError, match=r"^the socket must be non-blocking$") as caught:
        await call(unix_peer.sock)

    assert_not_started(caught.value, unix_peer)


async def test_an_ssl_socket_is_refused(call: Any, unix_peer: Peer) -> None:
    wrapped = client_context().wrap_socket(
        unix_peer.sock, server_hostname="localhost", do_handshake_on_connect=False
    )
    with wrapped:
        with pytest.raises(TypeError, match=r"^Socket cannot be of type SSLSocket$") as caught:
            await call(wrapped)

        assert_not_started(caught.value, unix_peer)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
async def test_a_file_needs_a_stream_socket(kind: int, data_file: Path) -> None:
    sock, other = socket.socketpair(socket.AF_UNIX, kind)
    with sock, other, data_file.open("rb") as file:
        sock.setblocking(False)
        with pytest.raises(ValueError, match=r"^only SOCK_STREAM type sockets are supported$"):
            await asend.sock_sendfile(sock, file)

        assert file.tell() == 0


async def test_an_unconnected_socket_is_an_error(call: Any) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BrokenPipeError):
            await call(sock)


async def test_a_listening_socket_is_an_error(call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        with pytest.raises(BrokenPipeError):
            await call(sock)


async def test_an_unconnected_datagram_socket_is_an_error() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(OSError, match="Destination address required"):
            await asend.sock_sendall(sock, b"x")


# --- transports


class Kept(asyncio.Protocol):
    """Gathers what comes."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_the_socket_of_a_transport_is_refused(call: Any, unix_peer: Peer) -> None:
    """Stock loops send the first chunk before they refuse the rest."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(Kept, sock=unix_peer.sock)

    for sock in (unix_peer.sock, transport.get_extra_info("socket")):
        with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport") as info:
            await call(sock)
        assert_not_started(info.value, unix_peer)
    with pytest.raises(RuntimeError, match="is used by transport"):
        await asend.sock_sendall(unix_peer.sock, b"small")
    transport.write(b"usable as before")
    with anyio.fail_after(5):
        received = await unix_peer.read(16)
    transport.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert received == b"usable as before"


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_the_socket_of_a_closing_transport_that_flushes_is_refused(unix_peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(Kept, sock=unix_peer.sock)
    transport.write(DATA)
    transport.close()

    with pytest.raises((RuntimeError, OSError)):
        await asend.sock_sendall(unix_peer.sock, DATA)
    with anyio.fail_after(5):
        received = await unix_peer.read(1 << 30)

    assert received == DATA


@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_a_number_that_a_closed_transport_had_is_free(unix_peer: Peer) -> None:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        sock, other = socket.socketpair()
        stack.callback(other.close)
        transport, _ = await loop.create_connection(Kept, sock=sock)
        number = sock.fileno()
        transport.abort()
        while sock.fileno() >= 0:
            await asyncio.sleep(0)
        # The transport is still referred to, and so in the loop's table.
        os.dup2(unix_peer.sock.fileno(), number)
        successor = stack.enter_context(socket.socket(fileno=number))
        successor.setblocking(False)

        await asend.sock_sendall(successor, b"free")
        await asend.sock_sendall(successor, memoryview(b" again"))

        assert unix_peer.read_now() == b"free again"
        assert transport.is_closing()
