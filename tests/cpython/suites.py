"""Which of CPython's cases run over asend, on what, and which do not, with the reason.

A suite takes whole modules and classes; what of them does not run is named here. A name that no
longer exists fails the run, and so does a case which passes without calling asend: neither these
tables nor what they select can rot unnoticed.
"""

from __future__ import annotations

import importlib
import unittest
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Suite:
    """Cases that one process runs.

    `excluded` and, by runtime, `excluded_on` give the reason for each case that is left out, by
    its name or as Class.name.
    """

    shim: str
    cases: tuple[str, ...]
    runtimes: tuple[str, ...]
    excluded: dict[str, str] = field(default_factory=dict)
    excluded_on: dict[str, dict[str, str]] = field(default_factory=dict)

    def reasons(self, runtime: str) -> dict[str, str]:
        """Return why cases are left out on a runtime."""
        return self.excluded | self.excluded_on.get(runtime, {})

    def load(self, runtime: str) -> Iterator[unittest.TestCase]:
        """Find all cases, those that are left out too."""
        for name in self.cases:
            if self.shim == "shim_asend_loops":
                yield from _flat(_load(_on_asend_loops(name, runtime)))
            elif runtime == "uvloop" and self.shim == "shim_loops":
                yield from _flat(_load(_on_uvloop(name)))
            else:
                yield from _flat(unittest.defaultTestLoader.loadTestsFromName(name))


def _load(case: type[unittest.TestCase]) -> unittest.TestSuite:
    return unittest.defaultTestLoader.loadTestsFromTestCase(case)


def _flat(found: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in found:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _on_uvloop(module: str) -> type[unittest.TestCase]:
    """Make of the mixin of a module of test_asyncio what the module makes of it for asyncio."""
    import uvloop
    from test.test_asyncio import test_sendfile, test_sock_lowlevel

    mixin = {
        test_sendfile.__name__: test_sendfile.SockSendfileMixin,
        test_sock_lowlevel.__name__: test_sock_lowlevel.BaseSockTestsMixin,
    }[module]

    return _on_loop(mixin, uvloop.new_event_loop)


def _on_asend_loops(name: str, runtime: str) -> type[unittest.TestCase]:
    """Make of a mixin of test_asyncio what it is for, on the loops of asend."""
    from asend import loops

    module, _, mixin = name.rpartition(".")
    loop = loops.UvloopEventLoop if runtime == "uvloop" else loops.SelectorEventLoop
    return _on_loop(getattr(importlib.import_module(module), mixin), loop)


def _on_loop(
    mixin: type, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> type[unittest.TestCase]:
    from test.test_asyncio import utils

    class LoopTests(mixin, utils.TestCase):
        def create_event_loop(self) -> asyncio.AbstractEventLoop:
            return new_loop()

        @staticmethod
        def close_loop(loop: asyncio.AbstractEventLoop) -> None:
            # CPython's own looks into attributes of asyncio's loops.
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return LoopTests


_SOCKETS: Final = ("asyncio", "uvloop", "trio")
_LOOPS: Final = ("asyncio", "asyncio-eager", "uvloop")
_SOCKET: Final = "test.test_socket"
_ASYNCIO: Final = "test.test_asyncio"

_BOTH_TAKE: Final = "asend takes non-blocking sockets, socket.sendfile refuses them"
_DONTWAIT: Final = "MSG_DONTWAIT asks not to wait; a call that sends all of it does wait"
_NO_CALL: Final = "nothing in it goes through sock_sendall or sock_sendfile"
_TRANSPORT: Final = "asyncio copies the file through its transport, not by sock_sendfile"
_INTERNAL: Final = "drives asyncio's _sock_sendfile_native_impl by hand, which asend does not have"

_SOCK_LOWLEVEL_NO_CALL: Final = dict.fromkeys(
    (
        "test_cancel_sock_accept",
        "test_create_connection_sock",
        "test_recvfrom",
        "test_recvfrom_into",
        "test_sendto_blocking",
        "test_sock_accept",
        "test_sock_client_connect_racing",
        "test_sock_client_fail",
    ),
    _NO_CALL,
)

_SIGNALS: Final = {
    "uvloop": "what a Python signal handler raises goes to uvloop's exception handler, not to the "
    "caller, and the task stays pending",
    "trio": "what a Python signal handler raises in trio's I/O wait ends trio.run as "
    "TrioInternalError (trio delivers KeyboardInterrupt only)",
}


def _interrupted(*names: str) -> dict[str, dict[str, str]]:
    return {runtime: dict.fromkeys(names, reason) for runtime, reason in _SIGNALS.items()}


SUITES: Final = {
    "socket-sendall": Suite(
        shim="shim_sockets",
        cases=(
            f"{_SOCKET}.BasicTCPTest.testSendAll",
            f"{_SOCKET}.BasicTCPTest2.testSendAll",
            f"{_SOCKET}.ContextManagersTest",
            f"{_SOCKET}.CreateServerFunctionalTest",
            f"{_SOCKET}.GeneralModuleTests.test_sendall_interrupted",
            f"{_SOCKET}.GeneralModuleTests.test_sendall_interrupted_with_timeout",
            f"{_SOCKET}.NonBlockingTCPTests.testRecv",
        ),
        runtimes=_SOCKETS,
        excluded_on=_interrupted(
            "test_sendall_interrupted", "test_sendall_interrupted_with_timeout"
        ),
    ),
    # By connected sockets only, as there is no address: SendmsgUDPTest and its like are not here.
    "socket-sendmsg": Suite(
        shim="shim_sockets",
        cases=(
            f"{_SOCKET}.SendmsgTCPTest",
            f"{_SOCKET}.SendmsgUnixStreamTest",
            f"{_SOCKET}.RecvmsgTCPTest.testRecvmsgFromSendmsg",
            f"{_SOCKET}.RecvmsgUnixStreamTest.testRecvmsgFromSendmsg",
            f"{_SOCKET}.RecvmsgSCMRightsStreamTest",
            f"{_SOCKET}.RecvmsgIntoSCMRightsStreamTest",
            f"{_SOCKET}.SendRecvFdsTests",
            f"{_SOCKET}.InterruptedSendTimeoutTest.testInterruptedSendmsgTimeout",
        ),
        runtimes=_SOCKETS,
        excluded={
            "testSendmsgDontWait": _DONTWAIT,
            "testSendmsgExcessCmsgReject": "sends nothing by sendmsg where CMSG_SPACE exists",
        },
        excluded_on=_interrupted("testInterruptedSendmsgTimeout"),
    ),
    "socket-sendfile": Suite(
        shim="shim_sockets",
        cases=(f"{_SOCKET}.SendfileUsingSendTest", f"{_SOCKET}.SendfileUsingSendfileTest"),
        runtimes=_SOCKETS,
        excluded={"testNonBlocking": _BOTH_TAKE},
    ),
    "asyncio-sock-lowlevel": Suite(
        shim="shim_loops",
        cases=(f"{_ASYNCIO}.test_sock_lowlevel",),
        runtimes=_LOOPS,
        excluded=_SOCK_LOWLEVEL_NO_CALL,
    ),
    # Not on uvloop but for SockSendfileMixin: it has no loop.sendfile, and the other two modules
    # make asyncio's loops themselves.
    "asyncio-sock-sendfile": Suite(
        shim="shim_loops",
        cases=(f"{_ASYNCIO}.test_sendfile",),
        runtimes=_LOOPS,
        excluded_on=dict.fromkeys(
            ("asyncio", "asyncio-eager"),
            dict.fromkeys(
                (
                    "test_sendfile_fallback_close_peer_in_the_middle_of_receiving",
                    "test_sendfile_force_fallback",
                    "test_sendfile_ssl",
                    "test_sendfile_ssl_close_peer_after_receiving",
                    "test_sendfile_ssl_partial",
                    "test_sendfile_ssl_pre_and_post_data",
                ),
                _TRANSPORT,
            )
            | dict.fromkeys(
                (
                    "test_sendfile_for_closing_transp",
                    "test_sendfile_force_unsupported_native",
                    "test_sendfile_no_fallback_for_fallback_transport",
                    "test_sendfile_not_supported",
                ),
                _NO_CALL,
            ),
        ),
    ),
    "asyncio-sock-sendfile-errors": Suite(
        shim="shim_loops",
        cases=(
            f"{_ASYNCIO}.test_base_events.BaseLoopSockSendfileTests",
            f"{_ASYNCIO}.test_unix_events.SelectorEventLoopUnixSockSendfileTests",
        ),
        runtimes=("asyncio", "asyncio-eager"),
        excluded={
            "test__sock_sendfile_native_failure": _NO_CALL,
            "test_sock_sendfile_no_fallback": "BaseSelectorEventLoop has no os.sendfile of its "
            "own, asend has it on every loop",
            "test_sock_sendfile_not_a_file": "what has neither read nor fileno is a TypeError, "
            "whatever fallback says",
        }
        | dict.fromkeys(
            (
                "test_sock_sendfile_blocking_error",
                "test_sock_sendfile_cancel1",
                "test_sock_sendfile_cancel2",
                "test_sock_sendfile_exception",
                "test_sock_sendfile_os_error_first_call",
                "test_sock_sendfile_os_error_next_call",
            ),
            _INTERNAL,
        ),
    ),
    "loops-sendfile": Suite(
        shim="shim_asend_loops",
        # SendfileMixin and SockSendfileMixin, of which the first needs methods.
        cases=(f"{_ASYNCIO}.test_sendfile.SendfileTestsBase",),
        runtimes=_LOOPS,
        excluded={
            "test_sendfile_force_unsupported_native": "the words are those of a method of asyncio "
            "that has no native sendfile; asend has asyncio's other ones, of os.sendfile missing",
            "test_sendfile_prevents_bare_write": "the transport does not know of the call, and "
            "takes a write; it is the call that ends with RuntimeError where that shows",
        },
    ),
    "loops-sock-lowlevel": Suite(
        shim="shim_asend_loops",
        cases=(f"{_ASYNCIO}.test_sock_lowlevel.BaseSockTestsMixin",),
        runtimes=_LOOPS,
        excluded=_SOCK_LOWLEVEL_NO_CALL,
    ),
}
