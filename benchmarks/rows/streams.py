"""A file that the page cache has, through a stream, plain and encrypted, to one fast receiver.

Each stream is compared with what its library offers for a file today: `loop.sendfile`, which
uvloop, anyio and trio have not, and the faster of two loops that read a block in a thread and write
it, of 64 and of 256 KiB. Two more are shown beside them, with no aim: a loop with blocks of 1 MiB,
which few would write, and aiofastnet, whose transport is its own, in the place of the loop's.

The clock stops when the sender has handed over everything: a loop that writes to asyncio's
transport and drains leaves up to half a MiB there by then, asend leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.abc
import anyio.streams.tls
import trio

import asend.streams

from ..harness import PAUSE, RATE, Aim, Arm, Case, Skipped, Work
from ..receivers import Address, receiver
from ..sending import BLOCKS, KIB, MIB, SendFile, new_file, send_and_measure

if TYPE_CHECKING:
    import socket
    from io import FileIO
    from pathlib import Path

_Open: TypeAlias = Callable[..., AbstractAsyncContextManager[Any]]

_LONGEST_PAUSE = 10.0
_LOOP_SENDFILE = "loop.sendfile"
_AIOFASTNET = "aiofastnet.sendfile"


@functools.cache
def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # The peer is our own process; whom to trust is settled before the clock starts.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _options(is_tls: bool) -> dict[str, Any]:
    return {"ssl": _client_context(), "server_hostname": "localhost"} if is_tls else {}


@contextlib.asynccontextmanager
async def _open_writer(sock: socket.socket, *, is_tls: bool) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(sock=sock.dup(), **_options(is_tls))
    yield writer
    writer.close()
    await writer.wait_closed()


@contextlib.asynccontextmanager
async def _open_aiofastnet(
    sock: socket.socket, *, is_tls: bool
) -> AsyncIterator[asyncio.StreamWriter]:
    if importlib.util.find_spec("aiofastnet") is None:
        raise Skipped("aiofastnet is not installed")
    import aiofastnet

    loop = asyncio.get_running_loop()
    _, writer = await aiofastnet.open_connection(loop, sock=sock.dup(), **_options(is_tls))
    # As asyncio's transports say it. It has no other way for a file.
    if not getattr(writer.transport, "_sendfile_compatible", True):
        writer.transport.abort()
        raise Skipped("no TLS in the kernel")
    yield writer
    writer.close()
    await writer.wait_closed()


@contextlib.asynccontextmanager
async def _open_trio(
    sock: socket.socket, *, is_tls: bool
) -> AsyncIterator[trio.SocketStream | trio.SSLStream[trio.SocketStream]]:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock.dup()))
    if not is_tls:
        async with stream:
            yield stream
        return
    async with trio.SSLStream(stream, _client_context()) as encrypting:
        await encrypting.do_handshake()
        yield encrypting


@contextlib.asynccontextmanager
async def _open_anyio(
    sock: socket.socket, *, is_tls: bool
) -> AsyncIterator[anyio.abc.ByteSendStream]:
    stream = await anyio.abc.SocketStream.from_socket(sock.dup())
    if not is_tls:
        async with stream:
            yield stream
        return
    async with await anyio.streams.tls.TLSStream.wrap(
        stream, server_side=False, ssl_context=_client_context(), standard_compatible=False
    ) as encrypting:
        yield encrypting


async def _by_asend(stream: object, file: FileIO) -> None:
    await asend.streams.sendfile(stream, file)


async def _by_loop(writer: asyncio.StreamWriter, file: FileIO) -> None:
    await asyncio.get_running_loop().sendfile(writer.transport, file)


async def _by_aiofastnet(writer: asyncio.StreamWriter, file: FileIO) -> None:
    import aiofastnet

    await aiofastnet.sendfile(asyncio.get_running_loop(), writer.transport, file)


async def _by_writing(block: int, writer: asyncio.StreamWriter, file: FileIO) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.run_in_executor(None, file.read, block):
        writer.write(data)
        await writer.drain()


async def _by_send_all(block: int, stream: trio.abc.SendStream, file: FileIO) -> None:
    while data := await trio.to_thread.run_sync(file.read, block):
        await stream.send_all(data)


async def _by_send(block: int, stream: anyio.abc.ByteSendStream, file: FileIO) -> None:
    while data := await anyio.to_thread.run_sync(file.read, block):
        await stream.send(data)


@dataclass(frozen=True)
class _Kind:
    """A kind of stream: how to open one, how to send a file on it without asend, and the aims.

    Args:
        others: By what it is called, how to open and what sends, where it is more than a loop.
        plain: The least ratio, where bytes go out as they are, to the best loop and to
            `loop.sendfile`.
        tls: The same where it encrypts; of asyncio to `loop.sendfile` alone, which falls back to a
            loop of its own.
    """

    runtime: str
    open: _Open
    write: Callable[[int, Any, FileIO], Awaitable[object]]
    plain: float = 2.0
    tls: float = 1.0
    others: Mapping[str, tuple[_Open, SendFile]] = field(default_factory=dict)


_KINDS = {
    "StreamWriter, asyncio": _Kind(
        "asyncio",
        _open_writer,
        _by_writing,
        plain=1.0,
        tls=1.5,
        others={
            _LOOP_SENDFILE: (_open_writer, _by_loop),
            _AIOFASTNET: (_open_aiofastnet, _by_aiofastnet),
        },
    ),
    "StreamWriter, uvloop": _Kind(
        "uvloop",
        _open_writer,
        _by_writing,
        others={_AIOFASTNET: (_open_aiofastnet, _by_aiofastnet)},
    ),
    "trio's stream": _Kind("trio", _open_trio, _by_send_all),
    "anyio's stream, asyncio": _Kind("asyncio", _open_anyio, _by_send),
    "anyio's stream, trio": _Kind("trio", _open_anyio, _by_send),
}


def cases(work: Work) -> Iterator[Case]:
    for title, mode, size in (("plain", "drain", 256 * MIB), ("TLS", "decrypt", 128 * MIB)):
        nbytes = work.pick(size, 4 * MIB)
        with receiver(mode) as address, new_file(work.directory, nbytes) as path:
            bench = _Bench(address, path, is_tls=mode == "decrypt")
            for name in _KINDS:
                yield Case(
                    f"{nbytes // MIB} MiB, {title}, {name}",
                    [*bench.ours(name), *bench.others(name), *bench.loops(name)],
                    [*bench.aims(name)],
                    # What the kernel sends from the page cache varies twofold between samples.
                    repeat=1 if bench.is_tls else 3,
                )
            yield bench.pauses(f"{nbytes // MIB} MiB, {title}, pauses")


@dataclass(frozen=True)
class _Bench:
    """The arms and aims for one file and receiver."""

    address: Address
    path: Path
    is_tls: bool

    def ours(self, name: str, *, watches_pauses: bool = False) -> Iterator[Arm]:
        kind = _KINDS[name]
        yield self._arm(f"asend, {name}", kind, kind.open, _by_asend, watches_pauses)

    def others(self, name: str, *, watches_pauses: bool = False) -> Iterator[Arm]:
        kind = _KINDS[name]
        for what, (opener, send) in kind.others.items():
            yield self._arm(f"{what}, {kind.runtime}", kind, opener, send, watches_pauses)

    def loops(self, name: str) -> Iterator[Arm]:
        kind = _KINDS[name]
        for block in BLOCKS:
            send = functools.partial(kind.write, block)
            yield self._arm(_loop(block), kind, kind.open, send, False)

    def _arm(
        self, name: str, kind: _Kind, open_: _Open, send: SendFile, watches_pauses: bool
    ) -> Arm:
        run = functools.partial(
            send_and_measure,
            kind.runtime,
            send,
            self.address,
            self.path,
            opener=functools.partial(open_, is_tls=self.is_tls),
            watches_pauses=watches_pauses,
        )
        return Arm(name, run)

    def aims(self, name: str) -> Iterator[Aim]:
        kind = _KINDS[name]
        bound = kind.tls if self.is_tls else kind.plain
        has_sendfile = _LOOP_SENDFILE in kind.others
        if has_sendfile:
            yield Aim(f"asend, {name}", RATE, bound, [f"{_LOOP_SENDFILE}, {kind.runtime}"])
        if not (has_sendfile and self.is_tls):
            loops = [_loop(block) for block in BLOCKS if block < MIB]
            yield Aim(f"asend, {name}", RATE, bound, loops)

    def pauses(self, title: str) -> Case:
        arms = [
            arm
            for ways in (self.ours, self.others)
            for name in _KINDS
            for arm in ways(name, watches_pauses=True)
        ]
        aims = [Aim(f"asend, {name}", PAUSE, _LONGEST_PAUSE) for name in _KINDS]
        return Case(title, arms, aims)


def _loop(block: int) -> str:
    return f"read {block // KIB} KiB + write"
