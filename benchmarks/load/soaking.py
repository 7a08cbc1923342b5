"""A process that sends at random for a time, and watches itself: `soaking(loop, ...)`.

All kinds of sends run at once, to receivers that check each byte. Some are cancelled, some break a
limit or their timeout, some are reset by the other end. What has to hold of each is said here; that
nothing is left of all of them shows in descriptors, memory and tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import io
import json
import os
import random
import socket
import ssl
import subprocess
import sys
from asyncio import get_running_loop
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import asend

from .checking import Places
from .pattern import PERIOD, VERDICT_NBYTES, Manner, Order, Verdict, pattern, verdict_of
from .senders import LOOPS

# Sends at the same time.
_SENDERS = 32
# Of the file, and of what is sent from memory.
_PERIODS, _PERIODS_IN_MEMORY = 17, 5
_LARGEST_COPY = 256 * 1024
# Seconds after which a send is cancelled or broken off, at most.
_LONGEST = 0.05
# Of which any receiver is less than what a send of this rate has in its grace.
_TOO_FAST = 1e12
# Seconds between looks at the memory.
_BETWEEN = 1.0
# Seconds for what goes on in the end.
_PATIENCE = 60.0
_MOST_SHOWN = 10
_SMALL_BUFFER = 16 * 1024

_Progress: TypeAlias = Callable[[int], object]
# Ways a send is to end, and how often. It may be whole before it has been broken off.
_ENDS = {"whole": 5, "cancel": 2, "timeout": 2, "stall": 1, "rate": 1, "reset": 2}
_ERRORS = {
    "whole": (),
    "cancel": (asyncio.CancelledError,),
    "timeout": (TimeoutError,),
    "stall": (TimeoutError,),
    "rate": (TimeoutError,),
    "reset": (ConnectionError,),
}


@dataclass(frozen=True)
class _Plan:
    """What one send is to be.

    Args:
        at: Where in the data it begins.
        seconds: After which it is broken off, if it is.
    """

    at: int
    nbytes: int
    end: str
    seconds: float

    @classmethod
    def drawn(cls, dice: random.Random, most: int) -> _Plan:
        # As many small ones as large ones.
        nbytes = int(2 ** dice.uniform(0, (most - 1).bit_length()))
        nbytes = min(max(nbytes, 1), most)
        (end,) = dice.choices(list(_ENDS), list(_ENDS.values()))
        at = dice.randrange(most - nbytes + 1)
        return cls(at, nbytes, end, dice.uniform(0.001, _LONGEST))

    def order(self, dice: random.Random) -> Order:
        manner, amount = dice.choice((Manner.DRAIN, Manner.SIP)), 0
        if self.end in ("timeout", "stall", "rate"):
            manner, amount = Manner.PAUSE, dice.randrange(1, int(4000 * _LONGEST))
        elif self.end == "reset":
            manner, amount = Manner.RESET, dice.randrange(1, self.nbytes + 1)
        return Order(self.at % PERIOD, self.nbytes, manner, amount)

    def options(self) -> dict[str, Any]:
        if self.end == "timeout":
            return {"timeout": self.seconds}
        if self.end == "stall":
            return {"limits": asend.Limits(self.seconds)}
        if self.end == "rate":
            return {"limits": asend.Limits(min_rate=_TOO_FAST, grace=self.seconds)}
        return {"limits": asend.Limits(_PATIENCE, 1.0), "timeout": _PATIENCE}


class _Link:
    """A connection to a receiver, by a socket or by a stream.

    Args:
        target: What the calls take.
        has_verdict: Whether the receiver says what has come when a send was broken off.
    """

    def __init__(self, target: Any, has_verdict: bool = True) -> None:
        self.target = target
        self.has_verdict = has_verdict

    async def verdict(self) -> Verdict:
        raise NotImplementedError


class _SocketLink(_Link):
    async def verdict(self) -> Verdict:
        self.target.shutdown(socket.SHUT_WR)
        data = b""
        while len(data) < VERDICT_NBYTES:
            received = await get_running_loop().sock_recv(self.target, VERDICT_NBYTES - len(data))
            if not received:
                raise EOFError("no verdict")
            data += received
        return verdict_of(data)


class _StreamLink(_Link):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer, writer.can_write_eof())
        self._reader = reader

    async def verdict(self) -> Verdict:
        if self.has_verdict:
            self.target.write_eof()
        return verdict_of(await self._reader.readexactly(VERDICT_NBYTES))


@dataclass(frozen=True)
class _Kind:
    """A kind of send: what it sends by, at most how much, and how."""

    connect: Callable[[Order], AbstractAsyncContextManager[_Link]]
    most: int
    send: Callable[..., Coroutine[Any, Any, object]]


class _Soak:
    """Sends, and keeps account of what has come of them."""

    def __init__(self, seed: int, places: Places, path: Path) -> None:
        self.dice = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._places = places
        self._path = path
        self._memory = memoryview(pattern(_PERIODS_IN_MEMORY * PERIOD))
        self._context = ssl.create_default_context(cafile=places.certificate)
        in_file, in_memory = _PERIODS * PERIOD, _PERIODS_IN_MEMORY * PERIOD
        tls = partial(self._stream, is_tls=True)
        self.kinds = {
            "sock_sendall": _Kind(self._socket, in_memory, self._view),
            "sock_sendall of a copy": _Kind(self._socket, _LARGEST_COPY, self._copy),
            "sock_sendmsg": _Kind(self._socket, in_memory, self._vectors),
            "sock_sendfile": _Kind(self._socket, in_file, self._file),
            "sock_sendfile of memory": _Kind(self._socket, in_memory, self._object),
            "sendall": _Kind(self._stream, in_memory, self._view_on_stream),
            "sendfile": _Kind(self._stream, in_file, self._file_on_stream),
            "sendall, TLS": _Kind(tls, in_memory, self._view_on_stream),
            "sendfile, TLS": _Kind(tls, in_file, self._file_on_stream),
        }

    def fail(self, text: str) -> None:
        self.counts["failures"] += 1
        if len(self.failures) < _MOST_SHOWN:
            self.failures.append(text)

    async def one(self, name: str, end: str = "") -> None:
        """Connect, send, and compare what has become of it with what the receiver says."""
        kind = self.kinds[name]
        plan = _Plan.drawn(self.dice, kind.most)
        if end:
            plan = _Plan(plan.at, plan.nbytes, end, plan.seconds)
        try:
            async with kind.connect(plan.order(self.dice)) as link:
                await self._send(name, kind, plan, link)
        except Exception as error:  # whatever it is, the soak goes on and tells
            self.fail(f"{name}, {plan}: {error!r}")

    async def _send(self, name: str, kind: _Kind, plan: _Plan, link: _Link) -> None:
        taken = 0

        def progress(nbytes: int) -> None:
            nonlocal taken
            taken += nbytes

        sending = asyncio.ensure_future(kind.send(link.target, plan, progress, plan.options()))
        if plan.end == "cancel":
            await asyncio.wait([sending], timeout=plan.seconds)
            sending.cancel()
        try:
            await sending
        except (*_ERRORS[plan.end],) as error:
            ended = {asyncio.CancelledError: "cancelled", TimeoutError: "timed out"}.get(
                type(error), "reset"
            )
        else:
            ended = "whole"
            if taken != plan.nbytes:
                self.fail(f"{name}, {plan}: whole after {taken} bytes")
        finally:
            # Its error refers to this frame, which would wait for the garbage collector.
            del sending
        self.counts[ended] += 1
        self.counts["bytes"] += taken
        if plan.end != "reset" and (ended == "whole" or link.has_verdict):
            verdict = await link.verdict()
            if verdict != (taken, True):
                self.fail(f"{name}, {plan}: {ended} after {taken} bytes, {verdict}")

    # Connections.

    @contextlib.asynccontextmanager
    async def _socket(self, order: Order) -> AsyncIterator[_Link]:
        address: Any = self._places.unix
        family = socket.AF_UNIX
        if self.dice.random() < 0.5:
            family, address = socket.AF_INET, ("127.0.0.1", self._places.tcp)
        with socket.socket(family) as sock:
            if self.dice.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
            sock.setblocking(False)
            loop = get_running_loop()
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, order.pack())
            yield _SocketLink(sock)

    @contextlib.asynccontextmanager
    async def _stream(self, order: Order, *, is_tls: bool = False) -> AsyncIterator[_Link]:
        places = self._places
        if is_tls:
            streams = asyncio.open_connection("127.0.0.1", places.tls, ssl=self._context)
        elif self.dice.random() < 0.5:
            streams = asyncio.open_connection("127.0.0.1", places.tcp)
        else:
            streams = asyncio.open_unix_connection(places.unix)
        reader, writer = await streams
        try:
            writer.write(order.pack())
            yield _StreamLink(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    # Sends.

    def _part(self, plan: _Plan) -> memoryview:
        return self._memory[plan.at : plan.at + plan.nbytes]

    async def _view(
        self, sock: socket.socket, plan: _Plan, progress: _Progress, options: dict[str, Any]
    ) -> None:
        await asend.sock_sendall(sock, self._part(plan), progress=progress, **options)

    async def _copy(
        self, sock: socket.socket, plan: _Plan, progress: _Progress, options: dict[str, Any]
    ) -> None:
        kind = self.dice.choice((bytes, bytearray))
        await asend.sock_sendall(sock, kind(self._part(plan)), progress=progress, **options)

    async def _vectors(
        self, sock: socket.socket, plan: _Plan, progress: _Progress, options: dict[str, Any]
    ) -> None:
        part = self._part(plan)
        cuts = sorted(self.dice.randrange(plan.nbytes + 1) for _ in range(self.dice.randrange(20)))
        ends = zip([0, *cuts], [*cuts, plan.nbytes], strict=True)
        buffers = [part[begin:end] for begin, end in ends]
        await asend.sock_sendmsg(sock, buffers, progress=progress, **options)

    async def _file(
        self, sock: socket.socket, plan: _Plan, progress: _Progress, options: dict[str, Any]
    ) -> None:
        with io.FileIO(self._path) as file:
            await asend.sock_sendfile(
                sock, file, plan.at, plan.nbytes, progress=progress, **options
            )

    async def _object(
        self, sock: socket.socket, plan: _Plan, progress: _Progress, options: dict[str, Any]
    ) -> None:
        # Not closed: a thread may still read it.
        file = io.BytesIO(self._part(plan))
        await asend.sock_sendfile(sock, file, 0, plan.nbytes, progress=progress, **options)

    async def _view_on_stream(
        self,
        writer: asyncio.StreamWriter,
        plan: _Plan,
        progress: _Progress,
        options: dict[str, Any],
    ) -> None:
        await asend.sendall(writer, self._part(plan), progress=progress, **options)

    async def _file_on_stream(
        self,
        writer: asyncio.StreamWriter,
        plan: _Plan,
        progress: _Progress,
        options: dict[str, Any],
    ) -> None:
        with io.FileIO(self._path) as file:
            await asend.sendfile(writer, file, plan.at, plan.nbytes, progress=progress, **options)


def _resident() -> float:
    """Return the resident memory of this process in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1024


def _descriptors() -> int:
    # One of them is that by which they are listed.
    return len(os.listdir("/proc/self/fd")) - 1


async def _settled(wanted: int | None = None) -> int:
    """Wait until descriptors are as many as wanted, or no fewer for a while; return how many."""
    for _ in range(100):
        found = _descriptors()
        await asyncio.sleep(0.05)
        if found == (_descriptors() if wanted is None else wanted):
            break
    return found


async def _run(seed: int, seconds: float, places: Places, path: Path) -> dict[str, Any]:
    soak, loop = _Soak(seed, places, path), get_running_loop()
    loop.set_exception_handler(lambda loop, context: soak.fail(f"the loop: {context}"))
    sys.unraisablehook = lambda hooked: soak.fail(f"unraisable: {hooked.exc_value!r}")
    # What the first ones load, and the threads that they start, stay.
    for name in soak.kinds:
        for end in _ENDS:
            await soak.one(name, end)
    first = await _settled()
    until = loop.time() + seconds

    async def send() -> None:
        while loop.time() < until:
            await soak.one(soak.dice.choice(list(soak.kinds)))

    tasks = [asyncio.create_task(send()) for _ in range(_SENDERS)]
    memory = []
    while loop.time() < until:
        # What waits for the garbage collector is not left; when that comes is another question.
        gc.collect()
        memory.append(_resident())
        await asyncio.sleep(_BETWEEN)
    _, stuck = await asyncio.wait(tasks, timeout=2 * _PATIENCE)
    for task in stuck:
        task.print_stack()
    last = await _settled(first)
    others = asyncio.all_tasks() - {asyncio.current_task(), *stuck}
    for other in others:
        soak.fail(f"left: {other}")
    return {
        "counts": soak.counts,
        "failures": soak.failures,
        "stuck": len(stuck),
        "descriptors": [first, last],
        "memory": memory,
    }


def start(
    loop: str, seed: int, seconds: float, places: Places, path: Path
) -> subprocess.Popen[str]:
    """Start to send a file of `write_file` and other things; the process prints a JSON object."""
    arguments = map(str, (loop, seed, seconds, path, *places))
    # What is left to the garbage collector is a failure.
    command = [sys.executable, "-W", "error", "-m", __name__, *arguments]
    # Blocks go back to the system at once: what is resident is what is held, not what glibc keeps.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def write_file(path: Path) -> None:
    """Write the file that is sent."""
    path.write_bytes(pattern(_PERIODS * PERIOD))


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("path", type=Path)
    parser.add_argument("tcp", type=int)
    parser.add_argument("unix")
    parser.add_argument("tls", type=int)
    parser.add_argument("certificate")
    asked = parser.parse_args()
    places = Places(asked.tcp, asked.unix, asked.tls, asked.certificate)
    with asyncio.Runner(loop_factory=LOOPS[asked.loop]) as runner:
        found = runner.run(_run(asked.seed, asked.seconds, places, asked.path))
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
