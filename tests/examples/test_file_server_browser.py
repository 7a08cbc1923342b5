"""The file server in a real browser: its listing, a video that seeks, a download that resumes."""

from __future__ import annotations

import hashlib
import os
import wave
from typing import TYPE_CHECKING, NamedTuple

import pytest
from browser import needs_chromium
from processes import FILE_SERVER, port_of, started, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser import Browser

pytestmark = needs_chromium

SECONDS = 600
RATE = 44100
PLAYER = """
<!DOCTYPE html>
<title>player</title>
<video src="sound.wav" preload="metadata" muted controls></video>
"""
# The page takes a part, as if it had been interrupted, and later the rest of the same version.
RESUME = """
(async () => {
  const first = await fetch("big.bin", {headers: {Range: "bytes=0-999999"}});
  const part = await first.arrayBuffer();
  const rest = await fetch("big.bin", {headers: {
    Range: "bytes=1000000-", "If-Range": first.headers.get("ETag")}});
  const whole = new Blob([part, await rest.arrayBuffer()]);
  const hash = await crypto.subtle.digest("SHA-256", await whole.arrayBuffer());
  window.resumed = [first.status, rest.status, rest.headers.get("Content-Range"),
    [...new Uint8Array(hash)].map(byte => byte.toString(16).padStart(2, "0")).join("")];
})();
"""


class Site(NamedTuple):
    root: Path
    url: str


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site") / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "inner & outer.txt").write_text("inner")
    (root / "big.bin").write_bytes(os.urandom(8 * 1024 * 1024))
    (root / "small.txt").write_text("small")
    (root / "player.html").write_text(PLAYER)
    with wave.open(str(root / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(bytes(2 * RATE * SECONDS))
    return root


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def site(request: pytest.FixtureRequest, root: Path) -> Iterator[Site]:
    with started(FILE_SERVER, root, "--port", 0, "--loop", request.param) as (process, line):
        yield Site(root, f"http://127.0.0.1:{port_of(line)}/")
        assert stop(process) == (0, "")


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """A browser that has nothing to complain of in the end."""
    yield window
    # For a text it looks for an icon.
    assert [line for line in window.complaints() if "favicon.ico" not in line] == []


def names(browser: Browser) -> list[str]:
    """The names that are in sight, in their order."""
    found = browser.run(
        "return [...document.querySelectorAll('#entries tbody.rows tr:not([hidden]) a bdi')]"
        ".map(name => name.textContent)"
    )
    return [*map(str, found)]


def show(browser: Browser, url: str) -> None:
    browser.open(url)
    # Before that Chromium drops keys.
    browser.wait("performance.getEntriesByType('paint').length > 0")


def test_a_listing_is_sorted_and_filtered_and_leads_on(site: Site, browser: Browser) -> None:
    show(browser, site.url)

    in_natural_order = names(browser)
    browser.click("button[data-sort=size]")
    browser.wait("document.querySelector('[aria-sort]:has(button[data-sort=size])') !== null")
    by_size = names(browser)
    browser.press("/", *"small")
    browser.wait("document.querySelectorAll('tbody.rows tr:not([hidden])').length === 1")
    filtered = names(browser)
    show(browser, site.url + "sub/")
    inner = names(browser)
    browser.click("tbody.rows a")
    text = browser.wait("document.contentType === 'text/plain' && document.body.innerText")

    assert in_natural_order == ["sub", "big.bin", "player.html", "small.txt", "sound.wav"]
    assert sorted(by_size) == sorted(in_natural_order)
    sizes = [(site.root / name).stat().st_size for name in by_size if name != "sub"]
    assert sizes in (sorted(sizes), sorted(sizes, reverse=True))
    assert filtered == ["small.txt"]
    assert inner == ["inner & outer.txt"]
    assert text == "inner"


def test_a_video_seeks(site: Site, browser: Browser) -> None:
    show(browser, site.url + "player.html")
    browser.wait("document.querySelector('video').readyState >= 1")

    duration = browser.run("return document.querySelector('video').duration")
    browser.run("document.querySelector('video').currentTime = 590")
    browser.wait("!document.querySelector('video').seeking")
    now = browser.run("return document.querySelector('video').currentTime")

    assert duration == pytest.approx(SECONDS)
    # To the beginning where there are no ranges.
    assert now == pytest.approx(590)


def test_a_download_resumes(site: Site, browser: Browser) -> None:
    show(browser, site.url + "player.html")
    browser.run(RESUME)

    first, rest, content_range, digest = browser.wait("window.resumed")

    whole = (site.root / "big.bin").read_bytes()
    assert (first, rest) == (206, 206)
    assert content_range == f"bytes 1000000-{len(whole) - 1}/{len(whole)}"
    assert digest == hashlib.sha256(whole).hexdigest()
