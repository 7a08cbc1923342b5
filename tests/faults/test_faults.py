"""Whatever system call fails in a call of asend, that ends right: by the table in `expected`."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from certificates import certificates, server_context
from conftest import BUFFER, listen
from expected import RUNTIMES, Case, ends, every_case
from processes import environment
from sender import HOME, SMALL, TAIL
from tracing import STRACE, Seen, faults, read

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

# Calls in a scenario: enough for the fifth of what each call asks for once.
CALLS = 5
# More than a step, so that each call has to wait; not periodic in any power of two.
DATA = b"".join(b"%d," % n for n in range(200_000))[:1_200_000]
# Different ones, so that a file sent in the place of another shows.
OFFSETS = [17 * number for number in range(CALLS)]
# Seconds; a sender gives up a call that hangs, and itself, before.
PATIENCE = 40
# What is cut off of an encrypted stream with the record that it ends in.
RECORD = 16384

# Or one fault in nine, another on each of three Pythons.
IS_ALL = os.environ.get("ASEND_FAULTS") == "all"
CASES = [case for case, is_due in every_case() if IS_ALL or is_due]


class Sender:
    """The process in which the calls are made."""

    def __init__(self, runtime: str, log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [
                    # A descriptor that is left to the collector of garbage shows in the log.
                    *(sys.executable, "-W", "always::ResourceWarning"),
                    *(Path(__file__).with_name("sender.py"), runtime),
                ],
                env=environment(Path(__file__).parents[1]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.pid = self._process.pid
        assert self.hear() == "started"

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            self._process.wait()
            pytest.fail(f"the sender died or was blocked:\n{self._log.read_text()}")
        return json.loads(line)

    def warnings(self) -> list[str]:
        return [line for line in self._log.read_text().splitlines() if "ResourceWarning" in line]

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(PATIENCE)


class Peers:
    """The far ends of a scenario's connections, which read all that comes."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = listen()
        self.address = self._listener.getsockname()
        self._received = [bytearray() for _ in range(CALLS)]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        for received in self._received:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                # The sender died.
                return
            self._threads.append(threading.Thread(target=self._read, args=(sock, received)))
            self._threads[-1].start()

    def _read(self, sock: socket.socket, received: bytearray) -> None:
        with sock:
            sock.settimeout(PATIENCE)
            try:
                if self._context is None:
                    self._read_all(sock, received)
                else:
                    with self._context.wrap_socket(sock, server_side=True) as encrypted:
                        self._read_all(encrypted, received)
            except OSError:
                # Cut off within a record, or reset: what came before counts.
                pass

    def _read_all(self, sock: socket.socket, received: bytearray) -> None:
        while block := sock.recv(BUFFER):
            received += block

    def close(self, *, is_sender_dead: bool) -> list[bytes]:
        """Return what each has received."""
        if is_sender_dead:
            # Nobody will connect any more.
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        return [bytes(received) for received in self._received]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files to send, one for each call of a scenario."""
    folder = tmp_path_factory.mktemp("faults")
    for number in range(CALLS):
        with (folder / str(number)).open("wb") as file:
            file.write(DATA)
            file.flush()
            # Else its pages could not be dropped from the cache.
            os.fsync(file.fileno())
    return folder


@pytest.fixture(scope="module")
def context(folder: Path) -> ssl.SSLContext:
    certificates()[0].cert_pem.write_to_path(str(folder / "authority"))
    return server_context()


@pytest.fixture(scope="module")
def senders(folder: Path) -> Iterator[dict[str, Sender]]:
    """A process for each runtime, as long as it lives."""
    if STRACE is None:
        pytest.skip("there is no strace")
    senders = {runtime: Sender(runtime, folder / runtime) for runtime in RUNTIMES}
    try:
        with faults(senders["trio"].pid, "dup", errno.EIO, "1", [os.devnull], folder / "trace"):
            pass
        yield senders
    except PermissionError as error:
        pytest.skip(f"strace may not attach to a process: {error}")
    finally:
        for sender in senders.values():
            sender.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_call_with_a_fault_ends_right(
    case: Case, senders: dict[str, Sender], folder: Path, context: ssl.SSLContext
) -> None:
    if not senders[case.runtime].is_alive():
        senders[case.runtime] = Sender(case.runtime, folder / case.runtime)
    sender = senders[case.runtime]
    trace = folder / "trace"
    peers = Peers(context if case.op.endswith("-tls") else None)
    try:
        scenario = {
            "op": case.op,
            "address": peers.address,
            "authority": str(folder / "authority"),
            "paths": [str(folder / str(number)) for number in range(CALLS)],
            "offsets": OFFSETS,
        }
        sender.say(json.dumps(scenario))
        opened = sender.hear()
        names = opened["names"]
        with faults(sender.pid, case.call, case.error, case.when, [*chain(*names)], trace):
            sender.say("go")
            outcomes = sender.hear()
        sender.say("close")
        positions = sender.hear()
        left = sender.hear()
    finally:
        received = peers.close(is_sender_dead=not sender.is_alive())
    if opened["keeps"]:
        pytest.skip("the file system does not let go of pages (tmpfs)")

    seen = read(trace, names)
    assert any(each.is_fault for one in seen for each in one), "nothing failed"
    for number in range(CALLS):
        try:
            check(case, number, seen[number], outcomes[number], positions[number], received[number])
        except AssertionError as error:
            calls = "\n".join(each.text for each in seen[number])
            error.add_note(f"call {number}: {outcomes[number]}\n{calls}")
            raise
    assert not left, "descriptors are left"
    assert not sender.warnings()


def check(
    case: Case,
    number: int,
    seen: list[Seen],
    outcome: dict[str, Any],
    position: int,
    received: bytes,
) -> None:
    """Check one call of a scenario."""
    data = DATA[OFFSETS[number] :]
    if case.op.endswith("-small"):
        data = data[:SMALL]

    assert not outcome["hangs"], "the call hangs"
    assert any(end.fits(outcome["errors"], outcome["number"]) for end in ends(case, seen))
    if not outcome["errors"]:
        sent = len(data)
        assert outcome["returned"] in (None, sent)
    elif outcome["notes"]:
        sent = int(outcome["notes"][0].split()[0])
        assert len(outcome["notes"]) == 1
    else:
        # Refused before it started.
        sent = 0
    if not case.op.endswith("-small"):
        assert outcome["progress"] == sent
    if "sendfile" in case.op:
        assert position == (OFFSETS[number] + sent if sent else HOME)
    if not case.op.endswith("-tls"):
        assert len(received) == sent + len(TAIL)
        assert received == data[:sent] + TAIL
    elif not outcome["errors"]:
        assert received == data
    else:
        assert data.startswith(received)
        assert sent <= len(received) + RECORD
