"""What the file server answers: methods, conditions, ranges and codings, by tables of RFC 9110."""

from __future__ import annotations

import os
import re
from email.utils import formatdate
from itertools import chain
from mimetypes import MimeTypes
from typing import TYPE_CHECKING

import file_servers
import pytest
from file_servers import DATA, DIGITS, LOOPS, Reply, Server, serving, until
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

# When all files were modified, and a day before and after.
MTIME = 981173106
MODIFIED, EARLIER, LATER = (formatdate(MTIME + days * 86400, usegmt=True) for days in (0, -1, 1))
# One that is answered from memory, and one that the kernel sends.
CONTENTS = {"digits.txt": DIGITS, "data.bin": DATA}
CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}


running, site = file_servers.running, file_servers.site


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("answers")
    (root / "sub").mkdir()
    (root / "site").mkdir()
    (root / "site" / "index.html").write_text("<p>index")
    (root / "digits.txt").write_bytes(DIGITS)
    (root / "data.bin").write_bytes(DATA)
    (root / "empty").touch()
    add_encoded(root)
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (MTIME, MTIME), follow_symlinks=False)
    return root


def add_encoded(root: Path) -> None:
    (root / "all.txt").write_text("plain text")
    for coding, suffix in CODINGS.items():
        # Of different lengths, and none of them what it is called: it is sent as it is.
        (root / f"all.txt{suffix}").write_text(f"text by {coding}")
    (root / "some.js").write_text("plain script")
    (root / "some.js.gz").write_text("script by gzip")
    (root / "some.js.br").mkdir()
    (root / "some.js.zst").symlink_to("/etc/hostname")
    (root / "large.css").write_bytes(DATA)
    (root / "large.css.gz").write_bytes(DATA[::-1])


# Whole files, and what is said of them


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_is_sent_whole_with_what_clients_need_to_know(
    site: Server, root: Path, name: str
) -> None:
    content = CONTENTS[name]

    reply = site.get(f"/{name}")

    assert reply.status == 200
    assert reply.body == content
    status = (root / name).stat()
    assert reply.undated().fields == {
        "content-length": str(len(content)),
        "content-type": TYPES[name],
        "etag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
        "last-modified": MODIFIED,
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
    }


TYPES = {
    "digits.txt": "text/plain; charset=utf-8",
    "data.bin": "application/octet-stream",
    "empty": "application/octet-stream",
    "page.html": "text/html; charset=utf-8",
    "page.HTM": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    # "text/javascript" since Python 3.12.
    "module.mjs": f"{MimeTypes().guess_type('x.mjs')[0]}; charset=utf-8",
    "data.json": "application/json; charset=utf-8",
    "code.wasm": "application/wasm",
    "image.svg": "image/svg+xml",
    "image.png": "image/png",
    "archive.tar.gz": "application/gzip",
    "archive.tar.xz": "application/octet-stream",
    "page.html.br": "application/octet-stream",
    "text.txt.gz": "application/gzip",
    "program.exe.unknown": "application/octet-stream",
}


def test_the_type_is_that_of_the_name(tmp_path: Path) -> None:
    for name in TYPES:
        (tmp_path / name).touch()

    with serving(tmp_path, "asyncio") as server:
        found = {name: server.get(f"/{name}").fields["content-type"] for name in TYPES}

    assert found == TYPES


def test_an_empty_file_has_no_body(site: Server) -> None:
    reply = site.get("/empty")

    assert (reply.status, reply.fields["content-length"]) == (200, "0")


def test_an_answer_from_memory_has_the_date_of_its_sending(site: Server) -> None:
    past = "Sun, 06 Nov 1994 08:49:37 GMT"

    def set_clock_back() -> None:
        # Until the next tick of the server.
        site.service.date = past.encode()

    with site.connect() as client:
        first = client.get("/digits.txt")
        seen = []

        def is_dated() -> bool:
            site.run(set_clock_back)
            seen.append(client.get("/digits.txt"))
            return seen[-1].fields["date"] == past

        until(is_dated)

    assert first.fields["date"] != past
    assert all(reply.undated() == first.undated() for reply in seen)


@pytest.mark.parametrize("loop", LOOPS)
def test_how_long_files_may_be_kept_is_said_as_told(root: Path, loop: str) -> None:
    with serving(root, loop, cache_control="max-age=60") as server:
        reply = server.get("/digits.txt")
        known = server.get("/digits.txt", f"If-None-Match: {reply.fields['etag']}")

        assert reply.fields["cache-control"] == "max-age=60"
        assert known.fields["cache-control"] == "max-age=60"
        assert "cache-control" not in server.get("/nothing").fields


# Methods


METHODS = ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "FROBNICATE", "get"]


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_refused_with_those_that_are_allowed(site: Server, method: str) -> None:
    for target in ("/digits.txt", "/sub/", "/nothing", "/../digits.txt", "*"):
        reply = site.get(target, method=method)

        assert reply.status == 405
        assert reply.fields["allow"] == "GET, HEAD"
        assert reply.body == b"405 Method Not Allowed\n"


ASKED = [
    ("/digits.txt",),
    ("/data.bin",),
    ("/empty",),
    ("/nothing",),
    ("/sub",),
    ("/sub/",),
    ("/site/",),
    ("/%00",),
    ("/all.txt", "Accept-Encoding: gzip"),
    ("/digits.txt", 'If-Match: "other"'),
    ("/digits.txt", "If-None-Match: *"),
    ("/all.txt", "If-None-Match: *", "Accept-Encoding: br"),
    ("/digits.txt", f"If-Modified-Since: {LATER}"),
]


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_head_says_what_get_says_without_the_body(site: Server, asked: tuple[str, ...]) -> None:
    got = site.get(*asked)

    reply = site.get(*asked, method="HEAD")

    assert reply.undated() == got.undated()._replace(body=b"")
    if "content-length" in got.fields:
        assert got.fields["content-length"] == str(len(got.body))


def test_head_ignores_ranges(site: Server) -> None:
    for fields in (["Range: bytes=0-1"], ["Range: bytes=99-"], ["Range: x", "If-Range: *"]):
        reply = site.get("/digits.txt", *fields, method="HEAD")

        assert (reply.status, reply.fields["content-length"]) == (200, "10")
        assert "content-range" not in reply.fields


# Versions of HTTP, and who ends the connection


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("HTTP/1.1\r\nHost: x", None),
        ("HTTP/1.1\r\nHost:", None),
        ("HTTP/1.1\r\nHost: x\r\nConnection: keep-alive", None),
        ("HTTP/1.1\r\nHost: x\r\nConnection: close", "close"),
        ("HTTP/1.1\r\nHost: x\r\nConnection: CLOSE", "close"),
        ("HTTP/1.1\r\nHost: x\r\nConnection: te, close", "close"),
        ("HTTP/1.0", "close"),
        ("HTTP/1.0\r\nConnection: close", "close"),
        ("HTTP/1.0\r\nConnection: keep-alive", "keep-alive"),
        ("HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive", "keep-alive"),
    ],
)
def test_the_client_says_whether_a_connection_is_kept(
    site: Server, lines: str, said: str | None
) -> None:
    for target in ("/digits.txt", "/data.bin", "/nothing"):
        with site.connect() as client:
            for _ in range(2):
                client.send(f"GET {target} {lines}\r\n\r\n".encode())
                reply = client.reply()

                assert reply.fields.get("connection") == said
                if reply.is_last:
                    assert client.rest() == b""
                    break


@pytest.mark.parametrize("field", ["", "Connection: keep-alive\r\n"])
def test_a_folder_ends_with_its_connection_for_who_knows_no_chunks(
    site: Server, field: str
) -> None:
    chunked = site.get("/")

    with site.connect() as client:
        client.send(f"GET / HTTP/1.0\r\n{field}\r\n".encode())
        status, fields = client.head()

        assert status == 200
        assert fields["connection"] == "close"
        assert "transfer-encoding" not in fields
        assert client.rest() == chunked.body


# Conditions: RFC 9110, section 13.2.2

CONDITIONS = {
    # First step: If-Match, or else If-Unmodified-Since.
    "If-Match: {etag}": 200,
    "If-Match: *": 200,
    'If-Match: "other", {etag}': 200,
    'If-Match: "other"\r\nIf-Match: {etag}': 200,
    'If-Match: "other"': 412,
    "If-Match: W/{etag}": 412,
    "If-Match: ": 412,
    "If-Match: {etag}\r\nIf-Unmodified-Since: {earlier}": 200,
    'If-Match: "other"\r\nIf-Unmodified-Since: {later}': 412,
    "If-Unmodified-Since: {modified}": 200,
    "If-Unmodified-Since: {later}": 200,
    "If-Unmodified-Since: {earlier}": 412,
    "If-Unmodified-Since: yesterday": 200,
    # Then If-None-Match, or else If-Modified-Since.
    "If-None-Match: {etag}": 304,
    "If-None-Match: W/{etag}": 304,
    "If-None-Match: *": 304,
    'If-None-Match: "other", {etag}': 304,
    'If-None-Match: "a, b",W/{etag}': 304,
    'If-None-Match: "other"\r\nIf-None-Match: {etag}': 304,
    'If-None-Match: "other"': 200,
    "If-None-Match: ": 200,
    "If-None-Match: other": 200,
    "If-Modified-Since: {modified}": 304,
    "If-Modified-Since: {later}": 304,
    "If-Modified-Since: {earlier}": 200,
    "If-Modified-Since: yesterday": 200,
    "If-Modified-Since: Sat, 99 Feb 2001 04:05:06 GMT": 200,
    # All three formats of a date: section 5.6.7.
    "If-Modified-Since: Saturday, 03-Feb-01 04:05:06 GMT": 304,
    "If-Modified-Since: Sat Feb  3 04:05:06 2001": 304,
    "If-Modified-Since: Sat Feb  3 04:05:05 2001": 200,
    'If-None-Match: "other"\r\nIf-Modified-Since: {later}': 200,
    "If-None-Match: {etag}\r\nIf-Modified-Since: {earlier}": 304,
    # One after the other.
    "If-None-Match: {etag}\r\nIf-Match: {etag}": 304,
    'If-None-Match: {etag}\r\nIf-Match: "other"': 412,
    "If-None-Match: {etag}\r\nIf-Unmodified-Since: {earlier}": 412,
    "If-Modified-Since: {later}\r\nIf-Unmodified-Since: {later}": 304,
    "If-Modified-Since: {later}\r\nIf-Unmodified-Since: {earlier}": 412,
    # Ranges come last.
    "Range: bytes=2-3\r\nIf-Match: {etag}": 206,
    'Range: bytes=2-3\r\nIf-Match: "other"': 412,
    "Range: bytes=2-3\r\nIf-None-Match: {etag}": 304,
    'Range: bytes=2-3\r\nIf-None-Match: "other"': 206,
    "Range: bytes=99-\r\nIf-None-Match: {etag}": 304,
    'Range: bytes=99-\r\nIf-Match: "other"': 412,
    "Range: bytes=2-3\r\nIf-Range: {etag}": 206,
    "Range: bytes=2-3\r\nIf-Range: {modified}": 206,
    'Range: bytes=2-3\r\nIf-Range: "other"': 200,
    "Range: bytes=2-3\r\nIf-Range: W/{etag}": 200,
    "Range: bytes=2-3\r\nIf-Range: {earlier}": 200,
    "Range: bytes=2-3\r\nIf-Range: {later}": 200,
    "Range: bytes=2-3\r\nIf-Range: *": 200,
    "Range: bytes=2-3\r\nIf-Range: ": 200,
    "Range: bytes=2-3\r\nIf-Range: {etag}, {etag}": 200,
    'Range: bytes=99-\r\nIf-Range: "other"': 200,
    "Range: bytes=99-\r\nIf-Range: {etag}": 416,
    "If-Range: {etag}": 200,
    'If-Range: "other"': 200,
    'Range: bytes=2-3\r\nIf-Range: {etag}\r\nIf-Match: "other"': 412,
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_are_asked_in_order(site: Server, condition: str) -> None:
    for name, content in CONTENTS.items():
        etag = site.get(f"/{name}").fields["etag"]
        field = condition.format(etag=etag, modified=MODIFIED, earlier=EARLIER, later=LATER)
        field = field.replace("=99-", f"={len(content)}-")

        reply = site.get(f"/{name}", *field.split("\r\n"))

        assert reply.status == CONDITIONS[condition]
        if reply.status == 304:
            assert reply.body == b""
            assert reply.undated().fields == {"etag": etag, "last-modified": MODIFIED}
        elif reply.status in (412, 416):
            assert reply.body.startswith(b"%d " % reply.status)
            assert "etag" not in reply.fields
        else:
            assert reply.body == (content if reply.status == 200 else content[2:4])
            assert reply.fields["etag"] == etag


def test_a_folder_has_no_version_to_be_asked_for(site: Server) -> None:
    for field in ("If-None-Match: *", f"If-Modified-Since: {LATER}", "Range: bytes=0-0"):
        reply = site.get("/sub/", field)

        assert (reply.status, reply.body) == (200, site.get("/sub/").body)


# Ranges: RFC 9110, section 14


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=2-5", 2, 5),
        ("bytes=002-05", 2, 5),
        ("bytes=7-", 7, 9),
        ("bytes=0-", 0, 9),
        ("bytes=7-10", 7, 9),
        ("bytes=7-99999999999999999999", 7, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-10", 0, 9),
        ("bytes=-99", 0, 9),
        ("BYTES=9-9", 9, 9),
        ("bytes= 1-2", 1, 2),
        ("bytes=,1-2,, ,", 1, 2),
        # What is left of several, and what several are together.
        ("bytes=1-2,10-", 1, 2),
        ("bytes=0-4,5-9", 0, 9),
        ("bytes=3-4,0-3", 0, 4),
        ("bytes=-1,-2,-3", 7, 9),
    ],
)
def test_a_range_is_sent_and_named(site: Server, asked: str, first: int, last: int) -> None:
    reply = site.get("/digits.txt", f"Range: {asked}")

    assert reply.status == 206
    assert reply.body == DIGITS[first : last + 1]
    assert reply.fields["content-range"] == f"bytes {first}-{last}/10"
    assert reply.fields["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0", "bytes=10-,-0,11-12"])
def test_a_range_outside_the_file_is_416(site: Server, asked: str) -> None:
    reply = site.get("/digits.txt", f"Range: {asked}")

    assert reply.status == 416
    assert reply.fields["content-range"] == "bytes */10"


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=-1", "bytes=0-0", "bytes=0-0,-1"])
def test_an_empty_file_has_no_range(site: Server, asked: str) -> None:
    reply = site.get("/empty", f"Range: {asked}")

    assert (reply.status, reply.fields["content-range"]) == (416, "bytes */0")


MALFORMED = [
    "bytes=5-2",
    "bytes=-",
    "bytes=--1",
    "bytes=a-b",
    "bytes=0",
    "bytes=",
    "bytes=,",
    "bytes=0x0-1",
    "bytes=1.0-2",
    "bytes=0-1-2",
    "bytes=0-1;2-3",
    "bytes=0-1,x",
    "bytes=1 2-3",
    "bytes",
    "bytes 0-1",
    "lines=0-1",
    "bytes=+1-2",
    "0-1",
    "",
    "bytes=" + "9" * 5000 + "-",
    "bytes=0-1\r\nRange: bytes=2-3",
    "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 1000, 2)),
]


@pytest.mark.parametrize("asked", MALFORMED, ids=lambda asked: asked[:20])
def test_a_range_that_is_not_understood_is_ignored(site: Server, asked: str) -> None:
    reply = site.get("/digits.txt", *f"Range: {asked}".split("\r\n"))

    assert (reply.status, reply.body) == (200, DIGITS)


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [
        ("bytes=0-1,3-4", [(0, 1), (3, 4)]),
        ("bytes=8-,0-0", [(8, 9), (0, 0)]),
        ("bytes=-1, 0-0 ,5-5", [(9, 9), (0, 0), (5, 5)]),
        ("bytes=5-6,0-1,1-2", [(0, 2), (5, 6)]),
        ("bytes=0-1,3-4,10-20", [(0, 1), (3, 4)]),
    ],
)
def test_several_ranges_are_parts_of_one_body(
    site: Server, asked: str, bounds: list[tuple[int, int]]
) -> None:
    reply = site.get("/digits.txt", f"Range: {asked}")

    assert reply.status == 206
    assert parts_of(reply, "text/plain; charset=utf-8", 10) == [
        (first, DIGITS[first : last + 1]) for first, last in bounds
    ]


def parts_of(reply: Reply, content_type: str, size: int) -> list[tuple[int, bytes]]:
    """Return where each part of a multipart body begins in the file, and its bytes."""
    assert "content-range" not in reply.fields
    match = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", reply.fields["content-type"])
    assert match is not None
    delimiter = f"\r\n--{match[1]}".encode()
    before, *parts, after = reply.body.split(delimiter)
    assert (before, after) == (b"", b"--\r\n")
    return [part_of(part, content_type, size) for part in parts]


def part_of(part: bytes, content_type: str, size: int) -> tuple[int, bytes]:
    head, _, body = part.partition(b"\r\n\r\n")
    match = re.fullmatch(
        rf"\r\nContent-Type: {re.escape(content_type)}\r\nContent-Range: bytes (\d+)-(\d+)/{size}",
        head.decode(),
    )
    assert match is not None
    assert len(body) == int(match[2]) - int(match[1]) + 1
    return int(match[1]), body


# As a model has it: None where the last byte is not said, or the first one of a suffix.
Spec = tuple[int | None, int | None]
# The kernel has 63 bits for a position; the server reads some digits more.
POSITIONS = st.integers(0, 40) | st.integers(0, len(DATA) + 40) | st.integers(0, 1 << 65)
SPECS = st.one_of(
    st.tuples(POSITIONS, POSITIONS).map(lambda both: (min(both), max(both))),
    st.tuples(POSITIONS, st.none()),
    st.tuples(st.none(), POSITIONS),
)
SPACE = st.text(" \t", max_size=2)


@st.composite
def range_fields(draw: st.DrawFn) -> tuple[str, list[Spec]]:
    """A Range field, and what it asks for."""
    specs = draw(st.lists(SPECS, min_size=1, max_size=8))
    texts = [
        draw(SPACE) + f"{'' if first is None else first}-{'' if last is None else last}"
        for first, last in specs
    ]
    return draw(st.sampled_from(["bytes=", "Bytes="])) + ",".join(texts), specs


def wanted(specs: list[Spec], size: int) -> bytearray:
    """Return 1 for each byte that is asked for, 0 for others: RFC 9110, section 14.1.2."""
    mask = bytearray(size)
    for first, last in specs:
        if first is None:
            assert last is not None
            first, last = max(0, size - last), size - 1
        end = size if last is None else min(last + 1, size)
        if first < end:
            mask[first:end] = b"\1" * (end - first)
    return mask


@given(asked=range_fields())
@settings(max_examples=60)
@pytest.mark.parametrize("name", CONTENTS)
def test_any_ranges_are_what_was_asked_for_and_no_more(
    site: Server, name: str, asked: tuple[str, list[Spec]]
) -> None:
    field, specs = asked
    content = CONTENTS[name]
    size = len(content)
    model = wanted(specs, size)

    with site.connect() as client:
        reply = client.get(f"/{name}", f"Range: {field}")

    if not any(model):
        assert (reply.status, reply.fields["content-range"]) == (416, f"bytes */{size}")
        return
    assert reply.status == 206
    if "content-range" in reply.fields:
        match = re.fullmatch(rf"bytes (\d+)-(\d+)/{size}", reply.fields["content-range"])
        assert match is not None
        parts = [(int(match[1]), reply.body)]
        assert len(reply.body) == int(match[2]) - int(match[1]) + 1
    else:
        parts = parts_of(reply, TYPES[name], size)
        assert len(parts) > 1
    # Each byte once, in whatever order.
    sent = bytearray(size)
    for first, body in parts:
        is_right = body == content[first : first + len(body)]
        assert is_right
        is_new = not any(sent[first : first + len(body)])
        assert is_new
        sent[first : first + len(body)] = b"\1" * len(body)
    # Without what pytest says of unequal sequences, which takes minutes for long ones.
    is_all = sent == model
    assert is_all


# Codings: RFC 9110, section 12.5.3

ACCEPTED: dict[tuple[str, ...], str | None] = {
    (): None,
    ("",): None,
    ("br",): "br",
    ("zstd",): "zstd",
    ("gzip",): "gzip",
    ("GZip",): "gzip",
    ("*",): "br",
    ("gzip, deflate, br, zstd",): "br",
    ("gzip, deflate",): "gzip",
    ("deflate, compress",): None,
    ("gzip", "br"): "br",
    ("gzip;q=1, br;q=0.5",): "gzip",
    ("gzip;q=0.5,zstd;q=0.7, br;q=0.6",): "zstd",
    ("gzip ; q=0.5 , br ; Q=0.4",): "gzip",
    ("br;q=0, gzip",): "gzip",
    ("br;q=0.000, gzip;q=0.001",): "gzip",
    ("gzip;q=0",): None,
    ("br;q=0, *",): "zstd",
    ("*;q=0, gzip",): "gzip",
    ("*;q=0",): None,
    ("identity",): None,
    ("identity, gzip;q=0.5",): None,
    ("identity;q=0.5, gzip",): "gzip",
    ("identity;q=0, br",): "br",
    ("identity;q=0",): None,
    ("gzip;q=x",): None,
    ("gzip;q=2",): None,
    ("gzip;q=-1",): None,
    ("gzip;q=nan",): None,
    (",,;q=1,",): None,
}


@pytest.mark.parametrize("accepted", ACCEPTED, ids=" + ".join)
def test_the_best_coding_that_a_client_takes_is_sent(
    site: Server, accepted: tuple[str, ...]
) -> None:
    coding = ACCEPTED[accepted]

    reply = site.get("/all.txt", *(f"Accept-Encoding: {value}" for value in accepted))

    assert reply.status == 200
    assert reply.fields.get("content-encoding") == coding
    assert reply.body == (f"text by {coding}".encode() if coding else b"plain text")
    # Whatever was sent, another client may be sent something else.
    assert reply.fields["vary"] == "Accept-Encoding"
    assert reply.fields["content-type"] == "text/plain; charset=utf-8"


def test_no_client_gets_the_coding_of_another(site: Server) -> None:
    with site.connect() as client:
        # Before and after one who does not say what it takes.
        for values in chain.from_iterable((values, ()) for values in ACCEPTED):
            reply = client.get("/all.txt", *(f"Accept-Encoding: {value}" for value in values))

            assert reply.fields.get("content-encoding") == ACCEPTED[values]


def test_each_coding_has_its_own_tag(site: Server) -> None:
    tags = {
        coding: site.get("/all.txt", f"Accept-Encoding: {coding}").fields["etag"]
        for coding in (*CODINGS, "identity")
    }

    assert len(set(tags.values())) == len(tags)
    for coding in tags:
        for known, tag in tags.items():
            reply = site.get("/all.txt", f"Accept-Encoding: {coding}", f"If-None-Match: {tag}")
            assert reply.status == (304 if coding == known else 200)
            assert reply.fields["vary"] == "Accept-Encoding"
            assert reply.fields["etag"] == tags[coding]
            assert ("content-encoding" in reply.fields) == (
                reply.status == 200 and coding != "identity"
            )


def test_only_regular_files_of_the_same_folder_are_codings(site: Server) -> None:
    reply = site.get("/some.js", "Accept-Encoding: br, zstd, gzip;q=0.5")

    assert reply.body == b"script by gzip"
    assert reply.fields["content-encoding"] == "gzip"


def test_a_file_without_codings_does_not_vary(site: Server) -> None:
    reply = site.get("/digits.txt", "Accept-Encoding: br, gzip")

    assert reply.body == DIGITS
    assert "vary" not in reply.fields
    assert "content-encoding" not in reply.fields


def test_an_encoded_file_asked_for_by_its_name_is_a_file(site: Server) -> None:
    reply = site.get("/all.txt.gz", "Accept-Encoding: gzip")

    assert reply.body == b"text by gzip"
    assert reply.fields["content-type"] == "application/gzip"
    assert "content-encoding" not in reply.fields


def test_a_range_is_one_of_what_is_sent(site: Server) -> None:
    fields = "Accept-Encoding: gzip", "Range: bytes=90000-90009"

    reply = site.get("/large.css", *fields)

    assert reply.status == 206
    assert reply.body == DATA[::-1][90000:90010]
    assert reply.fields["content-encoding"] == "gzip"
    assert reply.fields["content-range"] == f"bytes 90000-90009/{len(DATA)}"


def test_several_ranges_of_what_is_encoded_are_the_whole(site: Server) -> None:
    reply = site.get("/large.css", "Accept-Encoding: gzip", "Range: bytes=0-1,5-6")

    assert reply.status == 200
    assert reply.fields["content-encoding"] == "gzip"
    assert reply.body == DATA[::-1]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_coding_may_come_and_go(tmp_path: Path, loop: str) -> None:
    (tmp_path / "file").write_text("plain")
    with serving(tmp_path, loop, cache_seconds=0.0) as server:

        def get() -> Reply:
            return server.get("/file", "Accept-Encoding: gzip")

        before = get()
        (tmp_path / "file.gz").write_text("by gzip")
        between = get()
        (tmp_path / "file.gz").unlink()
        after = get()

    assert (before.body, between.body, after.body) == (b"plain", b"by gzip", b"plain")
    assert "vary" not in before.fields
    assert "vary" in between.fields
    assert before.fields["etag"] == after.fields["etag"] != between.fields["etag"]
