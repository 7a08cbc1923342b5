"""Several serving processes: who starts them, replaces those that die, and ends with the last one.

What tells workers to stop is that the supervisor closes its end of a pair of sockets: one pair for
all means to stop, another one to do so at once. A supervisor that was killed has closed both, so
that no worker outlives it, on any system. Signals would not do: Ctrl+C goes to all processes of a
terminal and systemd's to all of a service, where the supervisor's would be the second one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from figures import Totals, seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# A worker that lives for less has died of something that the next one will die of too.
QUICK_SECONDS = 10.0
# Seconds until such a one is replaced, twice as many each time; after how many no more.
FIRST_PAUSE = 0.5
MOST_QUICK_ENDS = 5
# Seconds that workers may be late to stop, until they are killed.
KILL_SECONDS = 5.0

READY = b"ready"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

logger = logging.getLogger("file_server")


class Orders(NamedTuple):
    """A worker's ends of what joins it to the supervisor.

    Args:
        stop: Its end-of-file means to stop.
        stop_at_once: Its end-of-file means to stop without waiting for responses.
        reports: Takes `READY`, and totals in the end, a datagram each.
    """

    stop: socket.socket
    stop_at_once: socket.socket
    reports: socket.socket

    def report(self, message: bytes) -> None:
        """Tell the supervisor, if it is still there."""
        with contextlib.suppress(OSError):
            self.reports.send(message)


@dataclass(slots=True)
class Worker:
    """A place for one process, and the one that has it.

    Args:
        pid: None: there is none.
        began: When it was started.
        due: When the next one is to be started; None: none is.
        quick_ends: How many in a row have died soon after they were started.
        status: The exit status of the last one.
    """

    pid: int | None = None
    began: float = 0.0
    due: float | None = 0.0
    quick_ends: int = 0
    status: int = 0


class Supervisor:
    """Keeps workers at work.

    Args:
        count: How many.
        work: What each of them does, in a process of its own; it returns the exit status.
        on_ready: Called when all have reported `READY`.
        on_stop: Called when the stop begins.
        stop_seconds: How long workers may take to stop.

    Attributes:
        totals: What workers have reported that they have done.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[Orders], int],
        *,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        stop_seconds: float,
    ) -> None:
        self.totals = Totals()
        self._workers = [Worker() for _ in range(count)]
        self._work = work
        self._on_ready, self._on_stop = on_ready, on_stop
        self._stop_seconds = stop_seconds
        self._count_ready = 0
        # When what has not ended is killed; None: the stop has not begun.
        self._kill_at: float | None = None
        self._has_given_up = False
        self._stop, stop = socket.socketpair()
        self._stop_at_once, stop_at_once = socket.socketpair()
        # Datagrams stay apart, however many workers send them.
        self._reports, reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._orders = Orders(stop, stop_at_once, reports)
        self._signals, self._wakeup = socket.socketpair()

    def run(self) -> int:
        """Work until a signal ends it, in the main thread, and return the worst exit status."""
        with self._signals, self._wakeup, self._reports, contextlib.ExitStack() as stack:
            for sock in (self._stop, self._stop_at_once, *self._orders):
                stack.enter_context(sock)
            self._take_signals()
            stack.callback(signal.set_wakeup_fd, -1)
            while any(w.pid is not None or w.due is not None for w in self._workers):
                self._start_due()
                self._wait()
                self._reap()
                self._read_reports()
        return max(int(self._has_given_up), *(worker.status for worker in self._workers))

    def _take_signals(self) -> None:
        for sock in (self._signals, self._wakeup, self._reports):
            sock.setblocking(False)
        for number in SIGNALS:
            # Only what has a handler comes through the descriptor.
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)

    def _wait(self) -> None:
        """Wait until something is to be done, and take orders."""
        due = min((w.due for w in self._workers if w.due is not None), default=inf)
        moment = min(due, inf if self._kill_at is None else self._kill_at)
        timeout = None if moment == inf else max(0.0, moment - monotonic())
        select.select([self._signals, self._reports], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            for number in self._signals.recv(4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._begin_stop()
        if self._kill_at is not None and monotonic() >= self._kill_at:
            self._kill()

    def _begin_stop(self) -> None:
        """Stop, or stop at once where that has begun."""
        if self._kill_at is None:
            self._kill_at = monotonic() + self._stop_seconds + KILL_SECONDS
            self._stop.close()
            self._on_stop()
            for worker in self._workers:
                worker.due = None
        else:
            self._kill_at = min(self._kill_at, monotonic() + KILL_SECONDS)
            self._stop_at_once.close()

    def _kill(self) -> None:
        self._kill_at = inf
        for worker in self._workers:
            if worker.pid is not None:
                logger.warning("worker %d does not stop: it is killed", worker.pid)
                os.kill(worker.pid, signal.SIGKILL)

    def _read_reports(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self._reports.recv(1 << 16)
                if message != READY:
                    self.totals.add(Totals.from_json(message))
                    continue
                self._count_ready += 1
                if self._count_ready == len(self._workers):
                    self._on_ready()

    # Processes.

    def _start_due(self) -> None:
        for worker in self._workers:
            if worker.due is not None and worker.due <= monotonic():
                worker.began, worker.due = monotonic(), None
                try:
                    worker.pid = self._start()
                except OSError as error:
                    self._replace(worker, f"a worker cannot be started: {error.strerror}")

    def _start(self) -> int:
        # Until the worker has said what they mean to it, signals have to wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return os.fork() or self._be_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _be_worker(self) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for sock in (self._stop, self._stop_at_once, self._reports):
                sock.close()
            status = self._work(self._orders)
        except BaseException:  # of a process that has no caller
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            # What the supervisor has begun is not the worker's to end.
            os._exit(status)

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid is None:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                worker.pid = None
                self._note_end(worker, pid, os.waitstatus_to_exitcode(status))

    def _note_end(self, worker: Worker, pid: int, status: int) -> None:
        if self._kill_at is not None:
            # One that was signalled before it could have a handler has stopped as it should.
            worker.status = 0 if status == -signal.SIGTERM else abs(status)
            return
        worker.status = abs(status)
        cause = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        self._replace(worker, f"worker {pid} has ended {cause}")

    def _replace(self, worker: Worker, reason: str) -> None:
        is_quick = monotonic() - worker.began < QUICK_SECONDS
        worker.quick_ends = worker.quick_ends + 1 if is_quick else 0
        if worker.quick_ends == MOST_QUICK_ENDS:
            logger.error("%s; so have those before it: giving up", reason)
            self._has_given_up = True
            self._begin_stop()
            return
        pause = FIRST_PAUSE * 2 ** (worker.quick_ends - 1) if is_quick else 0.0
        worker.due = monotonic() + pause
        when = f"in {seconds_text(pause)}" if pause else "at once"
        logger.warning("%s; the next one starts %s", reason, when)
