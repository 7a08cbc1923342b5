"""Serve a folder over HTTP/1.1: `python examples/file_server DIR`. For POSIX systems."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

try:
    import httptools  # noqa: F401  (asked here, where its absence has one plain answer)

    from activity import Activity
    from display import banner, print_last, show
    from figures import Totals, count_text, seconds_text
    from listeners import bound_sockets, listen, own_sockets
    from options import Options, parse_options
    from server import Stop, fit_open_files, leave_stuck_threads, loop_factory, serve
    from service import Service
    from tls import tls_context
    from workers import READY, Orders, Supervisor
except ModuleNotFoundError as error:
    sys.exit(f"file_server: error: {error.name} is missing: pip install 'asend[server]'")

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from display import Display


@dataclass(frozen=True, slots=True)
class Setup:
    """What is there when the server begins to serve.

    Args:
        sockets: With workers those of TCP are only bound.
        lines: What the user is told first.
    """

    options: Options
    tls: ssl.SSLContext | None
    sockets: list[socket.socket]
    new_loop: Callable[[], asyncio.AbstractEventLoop]
    lines: list[str]


def main() -> None:
    with contextlib.ExitStack() as stack:
        try:
            setup = set_up(parse_options(), stack)
        except OSError as error:
            sys.exit(f"file_server: error: {error}")
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        if setup.options.workers == 1:
            with asyncio.Runner(loop_factory=setup.new_loop) as runner:
                runner.run(serve_alone(setup))
                stack.close()
                leave_stuck_threads()
        else:
            sys.exit(supervise(setup))


def set_up(options: Options, stack: contextlib.ExitStack) -> Setup:
    """Make ready all that can fail.

    Raises:
        OSError: Its text says in one line what has failed.
    """
    try:
        new_loop, loop_name = loop_factory(options.loop)
    except ImportError as error:
        raise OSError("uvloop is missing: pip install uvloop") from error
    options, note = fit_open_files(options)
    tls = tls_context(options)
    sockets = stack.enter_context(bound_sockets(options))
    if options.workers == 1:
        listen(sockets)
    lines = [banner(options, sockets, loop_name)]
    if note is not None and not options.quiet:
        lines.append(note)
    return Setup(options, tls, sockets, new_loop, lines)


def say(lines: list[str]) -> None:
    """Print in one piece: who has read the first line may read no more."""
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


async def serve_alone(setup: Setup) -> None:
    """Serve in this process, until SIGINT or SIGTERM."""
    loop, stop, activity, began = asyncio.get_running_loop(), Stop(), Activity(), monotonic()
    display: Display

    def step() -> None:
        stop.step()
        if activity.transfers and not stop.at_once.is_set():
            display.say(
                f"{count_text(len(activity.transfers), 'download')} may go on for "
                f"{seconds_text(setup.options.stop_timeout)} - Ctrl+C cuts them off"
            )

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, step)
    # Who reads the first line may signal then, so that it comes after the handlers.
    say(setup.lines)
    display = show(setup.options, activity, setup.lines)
    last = None
    try:
        totals = await serve_counted(setup, setup.sockets, activity, stop)
        totals.unlogged = display.unlogged
        last = totals.text(monotonic() - began)
    finally:
        display.close(last)


async def serve_counted(
    setup: Setup, sockets: list[socket.socket], activity: Activity, stop: Stop
) -> Totals:
    """Serve, and return what was done."""
    service = Service(setup.options, activity)
    aborted = await serve(sockets, service, setup.options, setup.tls, stop)
    return Totals(activity.requests, activity.nbytes, aborted, dropped=activity.dropped)


# With workers


def supervise(setup: Setup) -> int:
    """Serve in other processes, until SIGINT or SIGTERM, and return the exit status."""
    began = monotonic()

    def close_sockets() -> None:
        # Those that workers share would take clients on as long as one process has them.
        for sock in setup.sockets:
            sock.close()

    supervisor = Supervisor(
        setup.options.workers,
        partial(work, setup),
        on_ready=partial(say, setup.lines),
        on_stop=close_sockets,
        stop_seconds=setup.options.stop_timeout,
    )
    status = supervisor.run()
    if not setup.options.quiet:
        print_last(supervisor.totals.text(monotonic() - began))
    return status


def work(setup: Setup, orders: Orders) -> int:
    """Serve in this process, one of several, and return the exit status."""
    try:
        sockets = own_sockets(setup.sockets)
    except OSError as error:
        print(f"file_server: error: {error}", file=sys.stderr)
        return 1
    with asyncio.Runner(loop_factory=setup.new_loop) as runner:
        runner.run(serve_as_told(setup, sockets, orders))
        leave_stuck_threads()
    return 0


async def serve_as_told(setup: Setup, sockets: list[socket.socket], orders: Orders) -> None:
    """Serve until the supervisor orders the end, or SIGTERM."""
    loop, stop, activity = asyncio.get_running_loop(), Stop(), Activity()
    loop.add_signal_handler(signal.SIGTERM, stop.step)
    for sock, follow in ((orders.stop, stop.begin), (orders.stop_at_once, stop.hurry)):

        def obey(sock: socket.socket = sock, follow: Callable[[], None] = follow) -> None:
            loop.remove_reader(sock)
            follow()

        loop.add_reader(sock, obey)
    orders.report(READY)
    display = show(setup.options, activity, setup.lines)
    try:
        totals = await serve_counted(setup, sockets, activity, stop)
    finally:
        display.close(None)
    totals.unlogged = display.unlogged
    orders.report(totals.to_json().encode())


if __name__ == "__main__":
    main()
