"""What HTTP asks of who answers with a file: tables of RFC 9110, and the cache of open files."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asend.http import (
    TruncatedError,
    _answers,
    _conditions,
    _encodings,
    _open_files,
    _ranges,
    send_parts,
)
from asend.http._open_files import FileCache, IrregularFileError, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Peer

# --- ranges

RANGES: dict[str, list[tuple[int, int]] | None] = {
    "bytes=0-0": [(0, 1)],
    "bytes=0-99": [(0, 100)],
    "bytes=0-100": [(0, 100)],
    "bytes=10-": [(10, 100)],
    "bytes=-10": [(90, 100)],
    "bytes=-1000": [(0, 100)],
    "BYTES=1-2": [(1, 3)],
    " bytes = 1-2": [(1, 3)],
    "bytes=\t1-2 ,, 5-6 ": [(1, 3), (5, 7)],
    "bytes=5-6,1-2": [(5, 7), (1, 3)],
    "bytes=5-9,0-6": [(0, 10)],
    "bytes=5-9,0-4": [(0, 10)],
    "bytes=5-9,0-6,50-": [(0, 10), (50, 100)],
    "bytes=0-,1-2": [(0, 100)],
    "bytes=100-": [],
    "bytes=-0": [],
    "bytes=100-,0-1": [(0, 2)],
    "bytes=" + ",".join(["0-0"] * _ranges.MOST_RANGES): [(0, 1)],
    "bytes=" + ",".join(["0-0"] * (_ranges.MOST_RANGES + 1)): None,
}


@pytest.mark.parametrize("value", RANGES, ids=lambda value: value[:20])
def test_ranges_are_found(value: str) -> None:
    assert _ranges.parse(value, 100) == RANGES[value]


@pytest.mark.parametrize(
    "value",
    [
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=1",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=0x1-2",
        "bytes=1 0-20",
        "bytes=1-2;3-4",
        "bytes=" + 21 * "9" + "-",
    ],
)
def test_what_is_no_range_is_malformed(value: str) -> None:
    with pytest.raises(_ranges.MalformedRangeError) as caught:
        _ranges.parse(value, 100)
    assert type(caught.value) is _ranges.MalformedRangeError


@pytest.mark.parametrize("value", ["lines=1-2", "1-2", "", "bytes", "by tes=1-2"])
def test_another_unit_is_told_from_a_malformed_range(value: str) -> None:
    with pytest.raises(_ranges.OtherUnitError):
        _ranges.parse(value, 100)


# --- conditions

TAG = '"tag"'
TIME = 1_000_000_000
DATE, BEFORE, AFTER = (f"Sun, 09 Sep 2001 01:46:{second} GMT" for second in ("40", "39", "41"))
# In the order of section 13.2.2: the first that is there decides.
CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    ({"If-Match": TAG}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": f'"a", {TAG}'}, 200),
    ({"If-Match": '"a"'}, 412),
    ({"If-Match": f"W/{TAG}"}, 412),
    ({"If-Match": ""}, 412),
    ({"If-Match": TAG, "If-Unmodified-Since": BEFORE}, 200),
    ({"If-Unmodified-Since": DATE}, 200),
    ({"If-Unmodified-Since": AFTER}, 200),
    ({"If-Unmodified-Since": BEFORE}, 412),
    ({"If-Unmodified-Since": "never"}, 200),
    ({"If-None-Match": TAG}, 304),
    ({"If-None-Match": f"W/{TAG}"}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"a"'}, 200),
    ({"If-None-Match": '"a"', "If-Modified-Since": DATE}, 200),
    ({"If-Modified-Since": DATE}, 304),
    ({"If-Modified-Since": AFTER}, 304),
    ({"If-Modified-Since": BEFORE}, 200),
    ({"If-Modified-Since": "Sun, 99 Sep 2001 01:46:40 GMT"}, 200),
    ({"If-Match": '"a"', "If-None-Match": TAG}, 412),
    ({"If-Match": TAG, "If-None-Match": TAG}, 304),
    ({"If-Unmodified-Since": BEFORE, "If-None-Match": TAG}, 412),
]


@pytest.mark.parametrize(("fields", "status"), CONDITIONS, ids=str)
def test_conditions_decide_in_their_order(fields: dict[str, str], status: int) -> None:
    assert _conditions.check(fields.get, TAG, TIME) == status
    assert set(fields) <= set(_conditions.CONDITIONS)


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("If-None-Match", TAG, 304),
        ("If-None-Match", f"W/{TAG}", 304),
        ("If-Match", TAG, 412),
        ("If-Match", f"W/{TAG}", 412),
    ],
)
def test_a_weak_tag_matches_where_that_is_enough(field: str, value: str, status: int) -> None:
    assert _conditions.check({field: value}.get, f"W/{TAG}", TIME) == status


def test_a_tag_that_is_none_matches_nothing() -> None:
    assert _conditions.check({"If-None-Match": TAG}.get, "tag", TIME) == 200


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (TAG, True),
        (f" {TAG} ", True),
        (f"W/{TAG}", False),
        ('"a"', False),
        (DATE, True),
        (BEFORE, False),
        (AFTER, False),
        ("never", False),
        ("", False),
    ],
)
def test_if_range_names_one_version(value: str, same: bool) -> None:
    assert _conditions.is_unchanged(value, TAG, TIME) == same


# --- answers


def answer(fields: dict[str, str], size: int = 100, **options: int) -> _answers.Answer:
    return _answers.answer(
        fields.get, size=size, mtime=TIME, etag=TAG, content_type="text/plain", **options
    )


def test_an_answer_is_the_whole_file_or_nothing_or_a_part() -> None:
    assert answer({}) == _answers.Answer(200, {}, [(0, 100)], 100)
    assert answer({}, size=0) == _answers.Answer(200, {}, [], 0)
    assert answer({"If-None-Match": TAG}) == _answers.Answer(304, {}, [], None)
    assert answer({"If-Match": '"a"'}) == _answers.Answer(412, {}, [], 0)
    part = _answers.Answer(206, {"Content-Range": "bytes 1-2/100"}, [(1, 3)], 2)
    assert answer({"Range": "bytes=1-2"}) == part
    assert answer({"Range": "bytes=1-2", "If-Range": TAG}) == part
    assert answer({"Range": "bytes=1-2", "If-Range": '"a"'}).status == 200
    refused = _answers.Answer(416, {"Content-Range": "bytes */100"}, [], 0)
    assert answer({"Range": "bytes=100-"}) == refused
    too_many = "bytes=" + ",".join(["0-0"] * 101)
    assert answer({"Range": too_many}).status == 200


@pytest.mark.parametrize(("value", "malformed"), [("bytes=a", True), ("lines=1-2", False)])
def test_what_is_no_range_is_refused_as_the_caller_wants(value: str, malformed: bool) -> None:
    assert answer({"Range": value}).status == 200
    options = {"malformed" if malformed else "other_unit": 400}
    assert answer({"Range": value}, **options) == _answers.Answer(400, {}, [], 0)
    options = {"malformed": 416, "other_unit": 416}
    assert answer({"Range": value}, **options).fields == {"Content-Range": "bytes */100"}


def test_several_ranges_are_parts_of_one_body() -> None:
    several = answer({"Range": "bytes=0-1,50-99"})

    boundary = several.fields["Content-Type"].removeprefix("multipart/byteranges; boundary=")
    assert several.status == 206
    assert several.parts == [
        f"\r\n--{boundary}\r\nContent-Type: text/plain\r\n"
        f"Content-Range: bytes 0-1/100\r\n\r\n".encode(),
        (0, 2),
        f"\r\n--{boundary}\r\nContent-Type: text/plain\r\n"
        f"Content-Range: bytes 50-99/100\r\n\r\n".encode(),
        (50, 100),
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    lengths = [len(part) for part in several.parts if isinstance(part, bytes)]
    assert several.nbytes == 52 + sum(lengths)


# --- encodings

OFFERED = ("br", "gzip")
ENCODINGS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "": (),
    "gzip": ("gzip",),
    "gzip, br": ("br", "gzip"),
    "GZIP;Q=1": ("gzip",),
    "gzip;q=0": (),
    "gzip;q=0.9, br;q=0.1": ("gzip", "br"),
    "*": ("br", "gzip"),
    "*;q=0": (),
    "*, br;q=0": ("gzip",),
    "xgzipx": (),
    "gzip;q=two": (),
    "gzip;q=2": (),
    "gzip;level=9": ("gzip",),
    "gzip; q=0.5, identity": (),
    "gzip; q=0.5, identity;q=0.1": ("gzip",),
    "gzip,,": ("gzip",),
}


@pytest.mark.parametrize("header", ENCODINGS, ids=str)
def test_the_best_encoding_comes_first(header: str | None) -> None:
    assert _encodings.preferred(header, OFFERED) == ENCODINGS[header]


# --- open files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    return file


def test_an_open_file_says_what_http_wants_to_know(file: Path) -> None:
    os.utime(file, ns=(TIME * 10**9, TIME * 10**9 + 1))

    found = OpenFile(str(file))

    assert (found.size, found.mtime, found.last_modified) == (7, TIME, DATE)
    assert found.tag == f"{TIME * 10**9 + 1:x}-7"
    assert found.read_now(2, 3) == b"nte"
    assert found.is_current()
    assert found.is_at(str(file), follows=True)


def test_a_part_that_is_gone_or_not_in_memory_is_not_read(file: Path) -> None:
    class NotInMemory:
        def has(self, *_: int) -> bool:
            return False

        def read(self, *_: int) -> None:
            return None

        def release(self) -> None:
            pass

    found = OpenFile(str(file))

    os.truncate(file, 3)
    assert found.read_now(0, 7) is None
    found._pages.release()
    found._pages = NotInMemory()  # type: ignore[assignment]  # has what is used
    assert found.read_now(0, 3) is None


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"others!")
    other.replace(file)


def write_in_place(file: Path) -> None:
    file.write_bytes(b"CONTENT")
    # The clock of a file system may be too coarse to show it.
    os.utime(file, ns=(5, 5))


CHANGES: dict[str, Callable[[Path], object]] = {
    "replaced": replace,
    "truncated": lambda file: os.truncate(file, 3),
    "removed": Path.unlink,
    "in-place": write_in_place,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_to_a_file_shows_at_once(file: Path, change: str) -> None:
    cache = FileCache()
    found = cache.look_up(str(file))
    assert cache.find(str(file)) is found

    CHANGES[change](file)

    with pytest.raises(KeyError):
        cache.find(str(file))
    assert not found.is_current()
    if change == "removed":
        with pytest.raises(FileNotFoundError):
            cache.look_up(str(file))
        assert not found.is_at(str(file), follows=True)
    else:
        assert cache.look_up(str(file)).file.read() == file.read_bytes()


def test_a_path_is_good_for_some_seconds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(_open_files, "monotonic", lambda: now)
    cache = FileCache(seconds=1)
    found = cache.look_up(str(file))

    now = 1.0
    assert cache.find(str(file)) is found
    now = 1.1
    with pytest.raises(KeyError):
        cache.find(str(file))
    # It is the same file, and need not be opened again.
    assert cache.look_up(str(file)) is found
    assert cache.find(str(file)) is found


def remembering(file: Path) -> FileCache:
    """A cache that remembers what was made of a file beside which there is nothing."""
    cache = FileCache(seconds=1)
    cache.look_beside([f"{file}.gz"])
    cache.remember(str(file), cache.look_up(str(file)), [f"{file}.gz"], "key", "made")
    return cache


def test_what_was_made_of_a_file_is_remembered_for_its_key(file: Path) -> None:
    cache = remembering(file)

    assert cache.recall(str(file), "key") == "made"
    assert cache.recall(str(file), "other") is None
    assert cache.recall(f"{file}.gz", "key") is None
    cache.clear()
    assert cache.recall(str(file), "key") is None


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_made_of_a_file_goes_with_it(file: Path, change: str) -> None:
    cache = remembering(file)

    CHANGES[change](file)

    assert cache.recall(str(file), "key") is None


def test_what_was_made_is_good_for_as_long_as_what_was_looked_up(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(_open_files, "monotonic", lambda: now)
    cache = FileCache(seconds=1)
    cache.look_beside([f"{file}.gz"])
    now = 0.5
    cache.remember(str(file), cache.look_up(str(file)), [f"{file}.gz"], "key", "made")

    now = 1.0
    assert cache.recall(str(file), "key") == "made"
    now = 1.1
    # There may be something beside the file by now.
    assert cache.find(str(file)) is not None
    assert cache.recall(str(file), "key") is None


def test_only_what_would_be_made_again_is_remembered(file: Path) -> None:
    cache, before, path = FileCache(), FileCache(), str(file)
    sidecar = file.with_name(f"{file.name}.gz")
    sidecar.write_bytes(b"encoded")
    found, earlier = cache.look_up(path), before.look_up(path)

    # Of a file that is not what the cache has; of one that was not looked beside; of one beside
    # which there is another; and of one that is not kept at all.
    cache.remember(path, earlier, [], "key", "made")
    assert cache.recall(path, "key") is None
    cache.remember(path, found, [str(sidecar)], "key", "made")
    assert cache.recall(path, "key") is None
    cache.look_beside([str(sidecar)])
    cache.remember(path, found, [str(sidecar)], "key", "made")
    assert cache.recall(path, "key") is None
    cache.clear()
    cache.remember(path, found, [], "key", "made")
    assert cache.recall(path, "key") is None


def test_another_file_at_the_path_is_opened(file: Path, tmp_path: Path) -> None:
    cache = FileCache(seconds=0)
    link = tmp_path / "link"
    link.symlink_to(file)
    found = cache.look_up(str(link))
    other = tmp_path / "other"
    other.write_bytes(b"other")

    link.unlink()
    link.symlink_to(other)

    assert found.is_current()
    assert cache.look_up(str(link)).file.read() == b"other"


def test_beside_a_file_no_link_is_followed(file: Path, tmp_path: Path) -> None:
    cache = FileCache()
    link = tmp_path / "link"
    link.symlink_to(file)

    assert cache.look_beside([str(link), str(tmp_path / "missing")]) == [None, None]
    assert cache.find(str(tmp_path / "missing")) is None
    [found] = cache.look_beside([str(file)])
    assert found is not None
    assert cache.look_beside([str(file)]) == [found]


def special(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    return path


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = str(special(tmp_path, kind))
    cache = FileCache()

    with pytest.raises(IrregularFileError):
        cache.look_up(path)
    assert cache.look_beside([path]) == [None]


def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = special(tmp_path, "fifo")
    was = os.stat(file)
    monkeypatch.setattr(_open_files.os, "stat", lambda *_, **__: was)

    with pytest.raises(IrregularFileError):
        OpenFile(str(fifo))


@pytest.mark.parametrize("name", ["nul\0", "half\ud800"])
def test_a_name_that_no_file_can_have_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"null|surrogates"):
        FileCache().look_up(name)
    with pytest.raises(ValueError, match=r"null|surrogates"):
        FileCache().look_beside([name])


def test_a_large_file_is_not_kept(file: Path) -> None:
    cache = FileCache(largest=6)
    cache.look_up(str(file))

    with pytest.raises(KeyError):
        cache.find(str(file))


def test_a_file_that_has_grown_is_not_kept_any_more(file: Path) -> None:
    cache = FileCache(largest=7)
    cache.look_up(str(file))
    file.write_bytes(b"too much")
    cache.look_up(str(file))

    assert not cache._entries


def test_what_was_used_stays_longest(tmp_path: Path) -> None:
    cache = FileCache(most=2)
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        Path(path).touch()
    cache.look_up(paths[0])
    cache.look_up(paths[1])

    cache.find(paths[0])
    cache.look_up(paths[2])

    assert set(cache._entries) == {paths[0], paths[2]}
    cache.clear()
    assert not cache._entries


def test_a_cache_may_have_no_place(file: Path) -> None:
    cache = FileCache(most=0)

    assert cache.look_up(str(file)).size == 7
    assert not cache._entries


@pytest.mark.parametrize("wrong", [{"most": -1}, {"seconds": -1}, {"largest": -1}])
def test_a_cache_refuses_what_is_negative(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        FileCache(**wrong)


def test_threads_may_ask_at_once(tmp_path: Path) -> None:
    cache = FileCache(most=3)
    paths = [str(tmp_path / str(number)) for number in range(6)]
    for path in paths:
        Path(path).write_text(path)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            for number in range(300):
                path = paths[number % 6]
                assert cache.look_up(path).read_now(0, len(path)) == path.encode()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    cache.clear()


# --- sending


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"limits": 5}, TypeError),
        ({"progress": 5}, TypeError),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_the_first_byte(
    wrong: dict[str, Any], kind: type[Exception], file: Path, unix_peer: Peer
) -> None:
    async def attempt() -> None:
        with pytest.raises(kind, match=r"limits|progress|imeout|NaN"):
            await send_parts(unix_peer.sock, b"head", OpenFile(str(file)), [(0, 7)], **wrong)

    asyncio.run(attempt())

    assert unix_peer.read_now() == b""


def test_a_file_that_has_become_shorter_is_not_taken_for_a_lost_connection(
    file: Path, unix_peer: Peer
) -> None:
    async def attempt() -> None:
        found = OpenFile(str(file))
        os.truncate(file, 3)
        with pytest.raises(TruncatedError, match="ended 4 bytes before"):
            await send_parts(unix_peer.sock, b"head", found, [(0, 7)])

    asyncio.run(attempt())

    assert not issubclass(TruncatedError, OSError)
    assert unix_peer.read_now() == b"headcon"
