"""CPython's own cases of sendall, sendmsg and sendfile pass over asend, and would fail if it lied.

Each suite runs in a process of its own, as the cases replace methods of the standard library,
start threads and set signal handlers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import environment
from suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

# A suite takes less than 5 s.
SECONDS = 120


def ships_its_tests() -> bool:
    try:
        return all(map(importlib.util.find_spec, ("test.test_socket", "test.test_asyncio")))
    except ModuleNotFoundError:
        return False


pytestmark = [
    pytest.mark.timeout(SECONDS + 30),
    pytest.mark.skipif(sys.platform == "win32", reason="the cases are those of POSIX"),
    pytest.mark.skipif(
        not ships_its_tests(), reason="this interpreter does not ship its own tests (package test)"
    ),
]


def run(directory: Path, *arguments: str) -> tuple[int, str]:
    """Run a suite; return its exit status and output. One that hangs is killed, and fails here."""
    script = Path(__file__).with_name("run.py")
    process = subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"not over after {SECONDS} s:\n{process.communicate()[0]}")
    return process.returncode, output


def passed(output: str) -> int:
    counts = re.findall(r"^(\d+) cases passed over asend", output, re.MULTILINE)
    return int(counts[-1]) if counts else 0


def suites_and_runtimes() -> Iterator[ParameterSet]:
    for name, suite in SUITES.items():
        for runtime in suite.runtimes:
            too_old = runtime == "asyncio-eager" and sys.version_info < (3, 12)
            marks = pytest.mark.skipif(too_old, reason="eager tasks came with Python 3.12")
            yield pytest.param(name, runtime, marks=marks, id=f"{name}-{runtime}")


@pytest.mark.parametrize(("suite", "runtime"), list(suites_and_runtimes()))
def test_a_suite_of_cpython_passes(suite: str, runtime: str, tmp_path: Path) -> None:
    status, output = run(tmp_path, suite, runtime)

    assert status == 0, output
    assert passed(output) > 0, output


@pytest.mark.parametrize("broken", ["sends-nothing", "drops-last-byte"])
@pytest.mark.parametrize(
    ("suite", "case"),
    [
        ("socket-sendall", "testSendAll"),
        ("socket-sendmsg", "SendmsgTCPTest.testSendmsgGather"),
        ("socket-sendfile", "testRegularFile"),
        ("asyncio-sock-sendfile", "test_sock_sendfile_success"),
        ("loops-sendfile", "test_sendfile"),
        ("loops-sendfile", "test_sendfile_ssl"),
        ("loops-sendfile", "test_sock_sendfile_success"),
    ],
)
def test_a_suite_fails_over_calls_that_lie(
    suite: str, case: str, broken: str, tmp_path: Path
) -> None:
    status, output = run(tmp_path, suite, "asyncio", "--only", case, "--broken", broken)

    assert status == 1, output
    assert "AssertionError" in output
    assert passed(output) == 0, output


@pytest.mark.parametrize(
    ("suite", "case"),
    [("socket-sendall", "testSendAll"), ("asyncio-sock-sendfile", "test_sock_sendfile_success")],
)
def test_a_case_that_never_calls_asend_fails(suite: str, case: str, tmp_path: Path) -> None:
    status, output = run(tmp_path, suite, "asyncio", "--only", case, "--no-shim")

    assert status == 1, output
    assert "passed without calling asend" in output


def test_an_exclusion_of_no_case_fails(tmp_path: Path) -> None:
    status, output = run(tmp_path, "socket-sendall", "asyncio", "--exclude", "test_gone")

    assert status == 1, output
    assert "there is no such case: test_gone" in output


def test_a_run_of_no_case_fails(tmp_path: Path) -> None:
    status, output = run(tmp_path, "socket-sendall", "asyncio", "--only", "test_gone")

    assert status != 0, output
    assert passed(output) == 0, output
