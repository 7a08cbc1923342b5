"""The page of a folder, and its JSON: what is written, and what a browser makes of it."""

from __future__ import annotations

import importlib
import json
import re
import threading
import unicodedata
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from browser import needs_chromium
from hypothesis import given
from hypothesis import strategies as st
from processes import FILE_SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from browser import Browser

    # A name with what is in the file, None for a folder, and how old it is in seconds.
    Row = tuple[str, int | None, float]

BASE = "http://host/a%20b/"
# 2024-02-29 23:59:58 UTC
MOMENT = 1_709_251_198.9
HOSTILE = [
    "<script>alert(1)",
    '"><img src=x onerror=alert(1)>.png',
    "' onclick='alert(1)",
    "javascript:alert(1)",
    "\\\\host\\share",
    "%2e%2e",
    "a?b#c&amp;d;e=1.txt",
    "photo\u202egpj.exe",
    "line\nfeed",
    "carriage\r\nreturn",
    " spaces  around ",
    "<!--totals-->",
    "\x01\x1b[31m\x7f\x85",
    "\U0001f389 \u0645\u0644\u0641.pdf",
]
# What a folder can have in it, and HTTP can name.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
names = (names | st.sampled_from(HOSTILE)).filter(lambda name: name not in (".", ".."))


@pytest.fixture(scope="module")
def listing() -> Iterator[ModuleType]:
    """The module of the example, imported as the example does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE_SERVER)
        yield importlib.import_module("listing")


class Page(HTMLParser):
    """What a page has in it, by the kind of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: dict[str, list[str]] = {}
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes.setdefault(tag, []).append(dict(attributes))
        self.text.setdefault(tag, []).append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        # Some have no end tag, or may be without one.
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.text[tag][-1] += data

    def by_id(self, name: str) -> str:
        """Return the text of an element."""
        for tag, found in self.attributes.items():
            for attributes, text in zip(found, self.text[tag], strict=True):
                if attributes.get("id") == name:
                    return text
        raise LookupError(name)


def page_of(listing: ModuleType, path: str, *entries: object) -> Page:
    return Page(b"".join(listing.html_blocks(path, entries)).decode())


def file(listing: ModuleType, name: str, nbytes: int = 1, mtime: float = MOMENT) -> Any:
    return listing.Entry(name, False, nbytes, mtime)


def folder(listing: ModuleType, name: str) -> Any:
    return listing.Entry(name, True, 4096, MOMENT)


# Rows


def test_a_file_has_a_row_with_its_name_size_and_time(listing: ModuleType) -> None:
    page = page_of(listing, "/", file(listing, "a b.JPG", 1_234_567))

    assert page.attributes["tr"][1]["class"] == "image"
    assert page.attributes["a"] == [{"href": "a%20b.JPG"}]
    assert page.text["bdi"] == ["a b.JPG"]
    assert page.attributes["data"] == [{"value": "1234567", "title": "1,234,567 bytes"}]
    assert page.text["data"] == ["1.2 MiB"]
    assert page.attributes["time"] == [{"datetime": "2024-02-29T23:59:58Z"}]
    assert page.text["time"] == ["2024-02-29 23:59"]


def test_a_folder_has_a_slash_and_no_size(listing: ModuleType) -> None:
    page = page_of(listing, "/", folder(listing, "x.zip"))

    assert page.attributes["tr"][1]["class"] == "folder"
    assert page.attributes["a"] == [{"href": "x.zip/"}]
    assert page.text["a"] == ["x.zip/"]
    assert page.text["bdi"] == ["x.zip"]
    assert "data" not in page.attributes


@given(names, st.booleans())
def test_any_name_is_what_the_row_says_and_where_its_link_leads(
    listing: ModuleType, name: str, is_folder: bool
) -> None:
    plain = page_of(listing, "/a b/", listing.Entry("plain", is_folder, 1, MOMENT))

    page = page_of(listing, "/a b/", listing.Entry(name, is_folder, 1, MOMENT))

    href = page.attributes["a"][-1]["href"]
    assert href is not None
    assert re.fullmatch(r"[\w.~%-]+/?", href, re.ASCII)
    slash = "/" if is_folder else ""
    assert unquote(href, errors="strict") == name + slash
    assert urljoin(BASE, href) == BASE + href
    assert page.text["bdi"][-1] == name
    # No name makes an element, nor an attribute.
    assert {tag: len(found) for tag, found in page.attributes.items()} == {
        tag: len(found) for tag, found in plain.attributes.items()
    }
    assert [*page.attributes["a"][-1]] == ["href"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_a_folder_above_is_only_text(listing: ModuleType, name: str) -> None:
    path = f"/{name}/{name}/"

    page = page_of(listing, path, folder(listing, name))

    assert page.text["title"] == [f"Index of {path}"]
    assert page.text["bdi"] == [name] * 3
    assert page.text["h1"] == [name]
    assert page.by_id("totals") == "1 folder"
    assert (
        page.attributes.keys() == page_of(listing, "/a/b/", folder(listing, "c")).attributes.keys()
    )


def test_no_carriage_return_is_left_to_the_parser(listing: ModuleType) -> None:
    page = b"".join(listing.html_blocks("/\r/", [file(listing, "\r\n")]))

    assert b"\r" not in page


def test_the_folders_above_are_links_that_any_prefix_may_precede(listing: ModuleType) -> None:
    page = page_of(listing, "/a b/c/d/", folder(listing, "e"))

    links = [urljoin(f"{BASE}c/d/", each["href"]) for each in page.attributes["a"]]
    assert links == [
        "http://host/",
        BASE,
        f"{BASE}c/",
        f"{BASE}c/",
        f"{BASE}c/d/e/",
    ]
    assert page.text["li"] == ["Home", "a b", "c"]
    assert page.text["h1"] == ["d"]
    assert page.by_id("parent") == "Parent folder"


def test_there_is_nothing_above_the_root(listing: ModuleType) -> None:
    page = page_of(listing, "/", folder(listing, "a"))

    assert page.text["h1"] == ["Home"]
    assert page.attributes["a"] == [{"href": "a/"}]
    assert "li" not in page.text


def test_an_empty_folder_says_so(listing: ModuleType) -> None:
    page = page_of(listing, "/a/")

    assert page.by_id("empty") == "This folder is empty.\n"
    assert page.by_id("totals") == ""
    assert page.attributes["a"][-1] == {"id": "parent", "href": "../"}


@pytest.mark.parametrize(
    ("folders", "files", "totals"),
    [
        (0, 1, "1 file, 1.0 KiB"),
        (1, 0, "1 folder"),
        (3, 12, "3 folders, 12 files, 12.0 KiB"),
        (0, 1024, "1,024 files, 1.0 MiB"),
    ],
)
def test_the_totals_count_folders_files_and_their_bytes(
    listing: ModuleType, folders: int, files: int, totals: str
) -> None:
    entries = [folder(listing, "a")] * folders + [file(listing, "b", 1024)] * files

    page = page_of(listing, "/", *entries)

    assert page.by_id("totals") == totals


@pytest.mark.parametrize(
    ("nbytes", "size", "exact"),
    [
        (0, "0 B", "0 bytes"),
        (1, "1 B", "1 byte"),
        (1023, "1023 B", "1,023 bytes"),
        (1024, "1.0 KiB", "1,024 bytes"),
        (1024 * 1024 - 1, "1.0 MiB", "1,048,575 bytes"),
        (1 << 40, "1.0 TiB", "1,099,511,627,776 bytes"),
        ((1 << 63) - 1, "8.0 EiB", "9,223,372,036,854,775,807 bytes"),
        (1 << 80, "1048576.0 EiB", "1,208,925,819,614,629,174,706,176 bytes"),
    ],
)
def test_a_size_is_short_and_its_title_exact(
    listing: ModuleType, nbytes: int, size: str, exact: str
) -> None:
    page = page_of(listing, "/", file(listing, "a", nbytes))

    assert page.text["data"] == [size]
    assert page.attributes["data"] == [{"value": str(nbytes), "title": exact}]


@pytest.mark.parametrize(
    ("mtime", "moment"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (0.999999, "1970-01-01T00:00:00Z"),
        (-0.5, "1969-12-31T23:59:59Z"),
        (-62_135_596_800.0, "0001-01-01T00:00:00Z"),
        (-1e18, "0001-01-01T00:00:00Z"),
        (1e18, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_that_no_calendar_has_is_the_nearest_that_one_has(
    listing: ModuleType, mtime: float, moment: str
) -> None:
    page = page_of(listing, "/", file(listing, "a", mtime=mtime))

    assert page.attributes["time"] == [{"datetime": moment}]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpeg", "image"),
        ("a.b.MKV", "video"),
        ("a.flac", "audio"),
        ("a.tar.gz", "archive"),
        ("a.py", "code"),
        ("Makefile", "code"),
        ("README", "text"),
        ("a.pdf", "pdf"),
        ("a", "other"),
        ("a.", "other"),
        ("a.jpg~", "other"),
    ],
)
def test_a_name_tells_the_kind_of_a_file(listing: ModuleType, name: str, kind: str) -> None:
    page = page_of(listing, "/", file(listing, name))

    assert page.attributes["tr"][1]["class"] == kind


def test_every_kind_has_an_icon(listing: ModuleType) -> None:
    style = page_of(listing, "/").text["style"][0]

    for kind in {"folder", "other", *listing.KINDS.values()}:
        assert re.search(rf'^\.{kind} \{{ --tint: .* --icon: url\("data:image/svg', style, re.M)


# The policy


def test_the_policy_names_the_script_and_the_style_and_allows_nothing_else(
    listing: ModuleType,
) -> None:
    page = page_of(listing, "/a/", folder(listing, "b"))

    policy = listing.HTML_FIELDS["Content-Security-Policy"]
    directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    for tag in ("script", "style"):
        assert page.attributes[tag] == [{}]
        digest = b64encode(sha256(page.text[tag][0].encode()).digest()).decode()
        assert directives[f"{tag}-src"] == f"'sha256-{digest}'"
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"


def test_nothing_is_loaded_and_no_attribute_is_one_that_the_policy_forbids(
    listing: ModuleType,
) -> None:
    page = page_of(listing, "/a/", folder(listing, "b"), file(listing, "c"))

    attributes = [pair for found in page.attributes.values() for each in found for pair in each]
    assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert "src" not in attributes
    assert [urlsplit(each["href"] or "").scheme for each in page.attributes["link"]] == ["data"]


def test_caches_keep_both_forms_apart(listing: ModuleType) -> None:
    for fields, kind in (
        (listing.HTML_FIELDS, "text/html; charset=utf-8"),
        (listing.JSON_FIELDS, "application/json"),
    ):
        assert fields["Content-Type"] == kind
        assert fields["Vary"] == "Accept"
        assert fields["X-Content-Type-Options"] == "nosniff"


# Blocks


@pytest.mark.parametrize("form", ["html_blocks", "json_blocks"])
def test_entries_are_taken_no_further_than_the_blocks_are(listing: ModuleType, form: str) -> None:
    taken = count()
    endless = (file(listing, f"{'x' * 100}{next(taken)}") for _ in count())

    blocks = getattr(listing, form)("/", endless)
    assert next(taken) == 0
    sizes, marks = [], []
    for _ in range(5):
        sizes.append(len(next(blocks)))
        marks.append(next(taken))

    # A block has at most one row, or the head of the page, more than it must.
    assert all(listing.BLOCK <= size < 1.5 * listing.BLOCK for size in sizes)
    steps = [after - before for before, after in pairwise(marks)]
    assert max(steps) < listing.BLOCK / 100


def test_rows_are_in_groups_of_which_the_script_knows_the_size(listing: ModuleType) -> None:
    entries = [file(listing, str(number)) for number in range(2 * listing.GROUP + 1)]

    page = b"".join(listing.html_blocks("/", entries)).decode()

    groups = page.split('<tbody class="rows">')[1:]
    assert [group.count("<tr class=") for group in groups] == [listing.GROUP, listing.GROUP, 1]
    assert f"const GROUP = {listing.GROUP};" in page


# JSON


@given(st.lists(st.tuples(names, st.booleans(), st.integers(0, 1 << 63))), names)
def test_json_says_the_same_of_any_names(
    listing: ModuleType, found: list[tuple[str, bool, int]], above: str
) -> None:
    path = f"/{above}/"

    blocks = listing.json_blocks(path, [listing.Entry(*each, MOMENT) for each in found])

    assert json.loads(b"".join(blocks)) == {
        "path": path,
        "entries": [
            {
                "name": name,
                "type": "folder" if is_folder else "file",
                "size": None if is_folder else nbytes,
                "modified": "2024-02-29T23:59:58Z",
            }
            for name, is_folder, nbytes in found
        ],
    }


def test_json_of_an_empty_folder_is_json(listing: ModuleType) -> None:
    assert json.loads(b"".join(listing.json_blocks("/", []))) == {"path": "/", "entries": []}


def test_json_has_letters_as_they_are(listing: ModuleType) -> None:
    assert "été".encode() in b"".join(listing.json_blocks("/", [file(listing, "été")]))


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (None, False),
        ("", False),
        (",;q=1", False),
        ("*/*", False),
        ("application/json", True),
        ("Application/JSON", True),
        ("application/*", True),
        ("application/json, */*;q=0.5", True),
        ("application/json, text/html", False),
        ("text/html;q=0.5, application/json;q=0.6", True),
        ("text/html; q=0.6, application/json ; Q = 0.5", False),
        ("text/*;q=0.1, */*", True),
        ("text/html;q=0, */*;q=0.1", True),
        ("application/json;q=0", False),
        ("application/json;q=much", False),
        ("application/json;q=1.001e3", False),
        ("application/json;q=inf", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
    ],
)
def test_json_is_for_who_likes_it_better(
    listing: ModuleType, accept: str | None, is_json: bool
) -> None:
    assert listing.prefers_json(accept) is is_json


# In a browser


FOLDERS: dict[str, list[Row]] = {
    "/": [
        ("sub", None, 0),
        ("hostile", None, 5),
        ("IMG_1.jpg", 300, 3),
        ("IMG_10.jpg", 100, 2),
        ("IMG_2.jpg", 200, 1),
        ("R\u00e9sum\u00e9.pdf", 300, 9),
    ],
    "/sub/": [],
    "/hostile/": [(name, 1, 0) for name in HOSTILE],
    "/long/": [("x" * 255, 1, 0), (" ".join(["word"] * 51), None, 0)],
    "/many/": [(f"{number} {number % 7}.txt", number % 997, number) for number in range(10_000)],
}
IN_ORDER = ["hostile", "sub", "IMG_1.jpg", "IMG_2.jpg", "IMG_10.jpg", "R\u00e9sum\u00e9.pdf"]
ENTER, ESCAPE, BACKSPACE, DOWN, UP = "\ue007", "\ue00c", "\ue003", "\ue015", "\ue013"


@pytest.fixture(scope="module")
def site(listing: ModuleType) -> Iterator[str]:
    """Folders that are not on a disk, behind the least server there can be."""

    class Handler(BaseHTTPRequestHandler):
        # A browser connects once more than it has requests, and would stay.
        timeout = 0.2

        def do_GET(self) -> None:
            rows = FOLDERS.get(unquote(self.path))
            self.send_response(404 if rows is None else 200)
            for name, value in listing.HTML_FIELDS.items():
                self.send_header(name, value)
            self.end_headers()
            entries = [
                listing.Entry(name, nbytes is None, nbytes, MOMENT - age)
                for name, nbytes, age in rows or []
            ]
            for block in listing.html_blocks(unquote(self.path), entries):
                self.wfile.write(block)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def browser(window: Browser, site: str) -> Iterator[Browser]:
    """A browser that shows `/`, and has nothing to complain of in the end."""
    show(window, f"{site}/")
    yield window
    assert window.complaints() == []


def show(browser: Browser, url: str) -> None:
    browser.open(url)
    wait_shown(browser, unquote(urlsplit(url).path))


def wait_shown(browser: Browser, path: str) -> None:
    """Wait until the page of a folder is painted: Chromium drops what is typed before."""
    is_there = f"document.title === 'Index of {path}' && document.readyState === 'complete'"
    browser.wait(f"{is_there} && performance.getEntriesByType('paint').length > 0")


def shown(browser: Browser) -> Any:
    return browser.run(
        "return [...document.querySelectorAll('.rows > tr')].filter(row => row.offsetHeight)"
        ".map(row => row.querySelector('bdi').textContent)"
    )


def focused(browser: Browser) -> Any:
    return browser.run("return document.activeElement.textContent")


@needs_chromium
def test_the_page_begins_in_natural_order(browser: Browser) -> None:
    assert shown(browser) == IN_ORDER
    assert browser.run("return document.querySelector('[aria-sort]').ariaSort") == "ascending"


@needs_chromium
def test_a_click_sorts_with_folders_first_and_another_one_turns_it_round(browser: Browser) -> None:
    folders, files = IN_ORDER[:2], IN_ORDER[2:]
    largest_first = ["IMG_1.jpg", "R\u00e9sum\u00e9.pdf", "IMG_2.jpg", "IMG_10.jpg"]

    browser.click("[data-sort=name]")
    assert shown(browser) == folders[::-1] + files[::-1]
    # Files of one size, and folders, are in the order of their names whatever was before.
    browser.click("[data-sort=size]")
    assert shown(browser) == folders + largest_first
    browser.click("[data-sort=size]")
    assert shown(browser) == [*folders, "IMG_10.jpg", "IMG_2.jpg", *largest_first[:2]]
    browser.click("[data-sort=time]")
    assert shown(browser) == ["sub", "hostile", *files[1:3], files[0], files[3]]
    browser.click("[data-sort=name]")
    assert shown(browser) == IN_ORDER
    sorts = browser.run("return [...document.querySelectorAll('th')].map(e => e.ariaSort)")
    assert sorts == ["ascending", None, None]


@needs_chromium
def test_the_order_is_kept_for_other_folders(browser: Browser, site: str) -> None:
    browser.click("[data-sort=size]")

    show(browser, f"{site}/sub/")
    show(browser, f"{site}/")

    assert shown(browser)[2:4] == ["IMG_1.jpg", "R\u00e9sum\u00e9.pdf"]


@needs_chromium
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("img", IN_ORDER[2:5]),
        ("resume", IN_ORDER[5:]),
        (unicodedata.normalize("NFD", "R\u00c9S"), IN_ORDER[5:]),
        ("*.jpg 1", ["IMG_1.jpg", "IMG_10.jpg"]),
        ("  ", IN_ORDER),
        ("nothing", []),
    ],
)
def test_the_filter_shows_what_has_all_that_is_typed(
    browser: Browser, typed: str, found: list[str]
) -> None:
    browser.press("/", *typed)

    assert browser.run("return document.querySelector('#filter').value") == typed
    assert shown(browser) == found
    said = browser.run("return document.querySelector('#count').textContent")
    assert said == (f"{len(found)} of 6" if typed.strip() else "")
    assert browser.run("return document.querySelector('#nothing').hidden") is bool(found)
    browser.press(ESCAPE)
    assert shown(browser) == IN_ORDER


@needs_chromium
def test_sorting_keeps_the_filter_and_the_keys_go_along_the_new_order(browser: Browser) -> None:
    browser.press("/", *"img")

    browser.click("[data-sort=size]")
    browser.click("[data-sort=size]")
    browser.press("j")

    assert shown(browser) == ["IMG_10.jpg", "IMG_2.jpg", "IMG_1.jpg"]
    assert focused(browser) == "IMG_10.jpg"


@needs_chromium
def test_keys_go_along_the_rows_and_into_folders_and_back(browser: Browser) -> None:
    browser.press("j", DOWN, "j", "k", UP, UP)
    assert focused(browser) == "hostile/"

    browser.press(DOWN, ENTER)
    wait_shown(browser, "/sub/")
    assert "This folder is empty." in browser.text()
    browser.press(BACKSPACE)
    wait_shown(browser, "/")

    browser.wait("document.activeElement.textContent === 'sub/'")
    browser.press("/", *"host", ENTER)
    wait_shown(browser, "/hostile/")
    browser.press("u")
    wait_shown(browser, "/")


@needs_chromium
def test_a_question_mark_shows_the_keys_which_then_do_nothing_else(browser: Browser) -> None:
    browser.press("?", "j")
    assert browser.run("return document.querySelector('#keys').open")
    assert focused(browser) == "Close"

    browser.press(ESCAPE)

    assert not browser.run("return document.querySelector('#keys').open")


@needs_chromium
def test_hostile_names_are_shown_as_they_are_and_do_nothing(browser: Browser, site: str) -> None:
    show(browser, f"{site}/hostile/")

    assert sorted(shown(browser)) == sorted(HOSTILE)
    links = browser.run("return [...document.querySelectorAll('.rows a')].map(e => e.href)")
    assert sorted(links) == sorted(f"{site}/hostile/{quote(name, safe='')}" for name in HOSTILE)


@needs_chromium
@pytest.mark.parametrize("folder", ["/", "/sub/", "/hostile/", "/long/"])
def test_nothing_is_wider_than_a_small_phone(browser: Browser, site: str, folder: str) -> None:
    small = {"width": 320, "height": 600, "deviceScaleFactor": 1, "mobile": True}
    browser.command("Emulation.setDeviceMetricsOverride", **small)
    try:
        show(browser, site + folder)
        widths = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        ends = browser.run(
            "return [...document.querySelectorAll('bdi')].map(e => e.getBoundingClientRect().right)"
        )
        heights = browser.run(
            "return [...document.querySelectorAll('tr, th button')].map(e => e.offsetHeight)"
        )
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")

    assert widths == [320, 320]
    assert all(end < 320 for end in ends)
    # A finger needs some room.
    assert all(height >= 40 for height in heights if height)


@needs_chromium
def test_times_are_those_of_the_reader(browser: Browser, site: str) -> None:
    browser.command("Emulation.setTimezoneOverride", timezoneId="Asia/Tokyo")
    try:
        show(browser, f"{site}/")
        times = browser.run("return [...document.querySelectorAll('time')].map(e => e.innerText)")
    finally:
        browser.command("Emulation.setTimezoneOverride", timezoneId="")

    assert set(times) == {"2024-03-01 08:59"}
    assert "UTC" not in browser.text()


@needs_chromium
def test_large_folders_are_sorted_and_filtered_as_a_whole(browser: Browser, site: str) -> None:
    rows = sorted(FOLDERS["/many/"], key=lambda row: (-(row[1] or 0), row[2]))
    in_order = [name for name, _, _ in rows]
    matching = [name for name in in_order if "77" in name]
    every = "[...document.querySelectorAll('.rows > tr%s bdi')].map(e => e.textContent)"
    show(browser, f"{site}/many/")

    browser.click("[data-sort=size]")
    browser.wait("document.querySelectorAll('.rows > tr').length === 10000")
    placed = browser.run(f"return {every % ''}")
    browser.press("/", *"77")

    assert placed == in_order
    assert browser.run(f"return {every % ':not([hidden])'}") == matching
    said = browser.run("return document.querySelector('#count').textContent")
    assert said == f"{len(matching)} of 10,000"
    # Groups with nothing to show take no room.
    browser.press(*"777777")
    browser.wait("document.documentElement.scrollHeight <= innerHeight")
    assert "Nothing here matches the filter." in browser.text()
