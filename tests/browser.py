"""Drive a real Chromium by its WebDriver, with nothing but the standard library.

Source: WebDriver (W3C), and for what has "goog" in it the documentation of ChromeDriver.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from http.client import HTTPConnection
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_chromium = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)

# Nothing that talks to anybody else, and nothing that needs a screen.
ARGUMENTS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,800",
]
# Seconds for the browser to start, which reads some 300 MB from the disk.
START_SECONDS = 40
ATTEMPTS = 5


class Browser:
    """One browser, of which one tab is shown."""

    def __init__(self, port: int, profile: str) -> None:
        self._port = port
        self._path = "/session"
        arguments = [*ARGUMENTS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            # Chromium refuses to put itself into a sandbox as root.
            arguments.append("--no-sandbox")
        wanted = {
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._path = f"/session/{session['sessionId']}"

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Run a script in the page, and return what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true in the page, and return it."""
        return until(lambda: self.run(f"return {expression}"), what=expression)

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def wait_downloaded(self, file: Path) -> None:
        """Wait until a file has its name, which it gets when all of it is there."""
        until(file.exists, what=str(file))

    def click(self, selector: str) -> None:
        """Click an element as a person does: it has to be in sight."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{next(iter(found.values()))}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys and let them go, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._ask("POST", "/actions", {"actions": [source]})

    def command(self, name: str, **parameters: object) -> Any:
        """Run a command of Chromium's own protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def complaints(self) -> list[str]:
        """Return what the console says, such as what a policy has blocked."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    @contextmanager
    def tab(self) -> Iterator[None]:
        """Be in a new tab, which knows nothing of others."""
        before = self._ask("GET", "/window")
        opened = self._ask("POST", "/window/new", {"type": "tab"})
        self._ask("POST", "/window", {"handle": opened["handle"]})
        try:
            yield
        finally:
            self._ask("DELETE", "/window")
            self._ask("POST", "/window", {"handle": before})

    def quit(self) -> None:
        self._ask("DELETE", "")

    def _ask(self, method: str, command: str, body: object = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=START_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, self._path + command, content)
            value = json.load(connection.getresponse())["value"]
        finally:
            connection.close()
        assert not (isinstance(value, dict) and "error" in value), value
        return value


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module: it takes seconds to start. It leaves nothing behind."""
    # Not a folder of pytest's: Chromium's socket in it needs a path of less than 108 bytes.
    with TemporaryDirectory(prefix="asend-", ignore_cleanup_errors=True) as folder:
        driver, port = _started_driver(folder)
        with driver:
            try:
                browser = Browser(port, f"{folder}/profile")
                try:
                    yield browser
                finally:
                    browser.quit()
            finally:
                driver.kill()


@pytest.fixture
def window(chromium: Browser, tmp_path: Path) -> Iterator[Browser]:
    """A tab of a test's own, with a storage of its own; what it downloads goes to `tmp_path`."""
    downloaded = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.command("Browser.setDownloadBehavior", **downloaded)
    with chromium.tab():
        # Those of a test before.
        chromium.complaints()
        yield chromium


def _started_driver(folder: str) -> tuple[subprocess.Popen[str], int]:
    # The free port that it takes for IPv6 is sometimes not free for IPv4, where it gives up.
    for _ in range(ATTEMPTS):
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert driver.stdout is not None
        for line in driver.stdout:
            if match := re.search(r"successfully on port (\d+)", line):
                return driver, int(match[1])
        driver.communicate()
    raise RuntimeError("chromedriver does not start")
