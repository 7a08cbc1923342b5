"""Residency, on real files of a file system with a page cache: what the system really tells."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from asend import _residency
from asend._residency import PageCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
PARTS = range(0, SIZE, 8 * PAGE)


def skip_without_cachestat() -> None:
    if _residency._linux() is None:
        pytest.skip("cachestat is of Linux 6.5")


@pytest.fixture(params=["cachestat", "preadv2", "mincore"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way that answers, as on a file system or a kernel that has no other."""
    if request.param != "preadv2":
        skip_without_cachestat()
    if request.param == "preadv2":
        monkeypatch.setattr(_residency, "_linux", lambda: None)
    elif request.param == "mincore":
        monkeypatch.setattr(_residency, "_RWF_NOWAIT", 0)
        monkeypatch.setattr(_residency, "_linux", lambda: Counting(0))
    return str(request.param)


def open_cold(path: Path) -> int:
    """Make a file of which nothing is in the page cache."""
    path.write_bytes(os.urandom(SIZE))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    # Pages that are read would bring others with them.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return fd


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A cold file, of which each part may be asked about once.

    A read with RWF_NOWAIT that finds nothing starts to read that page in, and may even find it then
    (Linux 5.10 and later), so that it is not certain to see a single page as cold.
    """
    probe = open_cold(tmp_path / "probe")
    is_kept = all(PageCache().has(probe, SIZE, at, 2 * PAGE) for at in PARTS)
    os.close(probe)
    if is_kept:
        pytest.skip("the file system does not let go of pages (tmpfs)")
    fd = open_cold(tmp_path / "cold")
    yield fd
    os.close(fd)


class Counting(_residency._Linux):
    """The system, that counts as it would for another file."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def cachestat(self, fd: int, offset: int, nbytes: int) -> int:
        return self._count


def ask(fd: int, offset: int = 0, nbytes: int = SIZE) -> bool | None:
    cache = PageCache()
    answer = cache.has(fd, SIZE, offset, nbytes)
    cache.release()
    if answer is None:
        pytest.skip("the file system does not tell")
    return answer


def test_a_file_that_was_just_read_is_resident(way: str, fd: int) -> None:
    os.pread(fd, SIZE, 0)

    assert ask(fd)
    assert ask(fd, 0, 1)
    assert ask(fd, SIZE - 1, 1)
    assert ask(fd, 123, SIZE // 2)


def read_now(fd: int, offset: int, nbytes: int) -> bytes | None:
    cache = PageCache()
    block = cache.read(fd, SIZE, offset, nbytes)
    cache.release()
    return block


def test_what_is_resident_is_read(way: str, fd: int) -> None:
    whole = os.pread(fd, SIZE, 0)
    if way != "cachestat":
        ask(fd)

    assert read_now(fd, 0, SIZE) == whole
    assert read_now(fd, 5, 100) == whole[5:105]


def test_what_is_no_longer_there_is_not_read(way: str, tmp_path: Path, fd: int) -> None:
    """The file was cut since its size was asked for."""
    os.pread(fd, SIZE, 0)
    os.truncate(tmp_path / "cold", SIZE - 10)

    assert read_now(fd, SIZE - 20, 20) is None


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP], ids=["cold", "unknown"])
def test_what_has_to_be_waited_for_is_not_read(
    code: int, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_residency, "_RWF_NOWAIT", 8)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(_residency, "_linux", lambda: None)

    assert read_now(fd, 0, 10) is None


def test_a_file_that_was_dropped_is_not_resident(way: str, fd: int) -> None:
    answers = [ask(fd, at, 2 * PAGE) for at in PARTS]

    # None of them, were the disk slow enough for certain.
    assert answers.count(False) > len(PARTS) // 2


@pytest.fixture
def counting_way(way: str) -> str:
    if way == "preadv2":
        pytest.skip("it sees both ends")
    return way


@pytest.mark.parametrize("half", [0, SIZE // 2])
def test_half_a_file_is_not_the_whole(half: int, counting_way: str, fd: int) -> None:
    os.pread(fd, SIZE // 2, half)

    answers = [ask(fd), ask(fd, half, SIZE // 2)]

    assert answers == [False, True]


def test_every_page_that_a_range_touches_counts(counting_way: str, fd: int) -> None:
    os.pread(fd, PAGE, 4 * PAGE)

    answers = {
        "the page": ask(fd, 4 * PAGE, PAGE),
        "within it": ask(fd, 4 * PAGE + 1, PAGE - 2),
        "a byte before": ask(fd, 4 * PAGE - 1, PAGE),
        "a byte more": ask(fd, 4 * PAGE, PAGE + 1),
        "two bytes over the edge": ask(fd, 5 * PAGE - 1, 2),
    }

    assert [name for name, answer in answers.items() if answer] == ["the page", "within it"]


@pytest.mark.parametrize(
    ("cold", "expected"), [([], True), ([100], False), ([1099], False), ([99, 1100], True)]
)
def test_both_ends_of_a_range_are_tried(
    cold: list[int], expected: bool, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if offset in cold:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return sum(map(len, buffers))

    monkeypatch.setattr(_residency, "_linux", lambda: None)
    monkeypatch.setattr(os, "preadv", preadv)

    assert PageCache().has(fd, SIZE, 100, 1000) is expected


def test_cachestat_sees_a_hole_in_the_middle(fd: int) -> None:
    """What both ends do not tell."""
    skip_without_cachestat()
    os.pread(fd, PAGE, 0)
    os.pread(fd, PAGE, SIZE - PAGE)

    assert not ask(fd)


def test_a_file_that_cachestat_is_refused_on_is_asked_about_by_preadv(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM: a file of somebody else."""
    skip_without_cachestat()
    monkeypatch.setattr(_residency, "_linux", lambda: Counting(-errno.EPERM))

    before = [ask(fd, at, 2 * PAGE) for at in PARTS]
    os.pread(fd, SIZE, 0)

    assert False in before
    assert ask(fd)


def test_a_kernel_without_cachestat_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, uncached: None
) -> None:
    # A number that no system call has.
    monkeypatch.setattr(_residency, "_CACHESTAT", 100_000)

    assert _residency._linux() is None


@pytest.fixture
def uncached() -> Iterator[None]:
    _residency._linux.cache_clear()
    yield
    _residency._linux.cache_clear()


def test_a_descriptor_that_is_closed_is_unknown(fd: int) -> None:
    closed = os.dup(fd)
    os.close(closed)

    assert PageCache().has(closed, SIZE, 0, 1) is None


@pytest.fixture
def shared_memory() -> Iterator[int]:
    """A file of tmpfs, which does not know RWF_NOWAIT (nor do overlayfs and FUSE)."""
    name = f"/dev/shm/asend-{os.getpid()}"
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except OSError:
        pytest.skip("there is no tmpfs at /dev/shm")
    os.unlink(name)
    os.write(fd, bytes(2 * PAGE))
    yield fd
    os.close(fd)


def test_a_file_system_that_cannot_tell_is_unknown(
    shared_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EOPNOTSUPP of preadv2, and no cachestat or EPERM of it."""
    monkeypatch.setattr(_residency, "_linux", lambda: None)
    with contextlib.suppress(OSError):
        os.preadv(shared_memory, [bytearray(1)], 0, os.RWF_NOWAIT)
        pytest.skip("this kernel's tmpfs tells")

    assert PageCache().has(shared_memory, 2 * PAGE, 0, PAGE) is None


def test_a_system_with_no_question_does_not_tell(
    fd: int, monkeypatch: pytest.MonkeyPatch, uncached: None
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(_residency, "_RWF_NOWAIT", 0)

    answer = PageCache().has(fd, SIZE, 0, 1)

    assert answer is None
    assert _residency._linux() is None


# --- mappings


@pytest.fixture
def overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlayfs: cachestat counts nothing, whatever is cached, and preadv2 does not answer."""
    skip_without_cachestat()
    monkeypatch.setattr(_residency, "_linux", lambda: Counting(0))
    monkeypatch.setattr(_residency, "_RWF_NOWAIT", 0)


def count_mappings(path: Path) -> int:
    with open("/proc/self/maps") as maps:
        return sum(str(path) in line for line in maps)


def test_a_mapping_is_made_once_and_kept_until_the_end(
    overlay: None, fd: int, tmp_path: Path
) -> None:
    os.pread(fd, SIZE // 2, 0)
    cache = PageCache()

    answers = [
        cache.has(fd, SIZE, 0, SIZE // 2),
        cache.has(fd, SIZE, 123, SIZE // 2 - 123),
        cache.has(fd, SIZE, 0, SIZE // 2 + 1),
        cache.has(fd, SIZE, SIZE - 1, 1),
    ]
    mappings = count_mappings(tmp_path / "cold")
    cache.release()
    cache.release()

    assert answers == [True, True, False, False]
    assert mappings == 1
    assert count_mappings(tmp_path / "cold") == 0


def test_asking_a_mapping_reads_nothing_in(overlay: None, fd: int) -> None:
    cache = PageCache()

    answers = [cache.has(fd, SIZE, PAGE, PAGE) for _ in range(20)]
    cache.release()

    assert answers == [False] * 20


def test_a_file_that_has_grown_is_mapped_anew(overlay: None, fd: int, tmp_path: Path) -> None:
    os.pread(fd, SIZE, 0)
    cache = PageCache()
    before = cache.has(fd, SIZE, 0, SIZE)

    with (tmp_path / "cold").open("ab") as file:
        file.write(bytes(PAGE))
    after = cache.has(fd, SIZE + PAGE, SIZE - PAGE, 2 * PAGE)
    mappings = count_mappings(tmp_path / "cold")
    cache.release()

    assert (before, after) == (True, True)
    assert mappings == 1
    assert count_mappings(tmp_path / "cold") == 0


def test_a_file_that_shrinks_is_no_danger_to_a_mapping(
    overlay: None, fd: int, tmp_path: Path
) -> None:
    """Reading through it would end the process (SIGBUS)."""
    os.pread(fd, SIZE, 0)
    cache = PageCache()
    cache.has(fd, SIZE, 0, SIZE)

    os.truncate(tmp_path / "cold", PAGE)
    answers = [cache.has(fd, SIZE, 0, PAGE), cache.has(fd, SIZE, 0, SIZE)]
    cache.release()

    assert answers == [True, False]


def test_a_file_that_cannot_be_mapped_is_not_resident(overlay: None) -> None:
    source, target = os.pipe()
    cache = PageCache()

    answer = cache.has(source, SIZE, 0, 1)
    cache.release()
    os.close(source)
    os.close(target)

    assert answer is False


def test_mincore_is_not_asked_by_those_whom_cachestat_is_refused(
    shared_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM: it says "all" to those who may not know."""
    skip_without_cachestat()
    monkeypatch.setattr(_residency, "_linux", lambda: Counting(-errno.EPERM))
    monkeypatch.setattr(_residency, "_RWF_NOWAIT", 0)

    assert PageCache().has(shared_memory, 2 * PAGE, 0, PAGE) is None


def test_a_file_of_tmpfs_is_resident(shared_memory: int) -> None:
    skip_without_cachestat()
    cache = PageCache()

    answer = cache.has(shared_memory, 2 * PAGE, 0, 2 * PAGE)
    cache.release()

    assert answer is True
