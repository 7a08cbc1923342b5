"""The command line of the file server: units, errors in one line, help; and figures for people."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from processes import FILE_SERVER, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    Load = Callable[[str], ModuleType]
    Parse = Callable[..., Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a module of the example, as the example does."""
    monkeypatch.syspath_prepend(FILE_SERVER)
    return importlib.import_module


@pytest.fixture
def parse(load: Load) -> Parse:
    def parse(*arguments: str) -> object:
        return load("options").parse_options(arguments)

    return parse


@pytest.fixture
def refused(parse: Parse, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a command line gets, without what all of them begin with."""

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            parse(*arguments)
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("file_server: error: ")
        assert err.count("\n") == 1
        return err.removeprefix("file_server: error: ").rstrip("\n")

    return refused


# What is said


def test_nothing_said_is_the_current_folder_and_the_defaults(
    load: Load, parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert parse() == load("options").Options(root=os.path.realpath(tmp_path))


def test_the_folder_is_absolute_and_without_symlinks(parse: Parse, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert parse(str(tmp_path / "link")).root == os.path.realpath(tmp_path / "real")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("10s", 10),
        ("1.5m", 90),
        ("2h", 7200),
        ("500ms", 0.5),
        (".5", 0.5),
        ("1.", 1),
        ("1000h", 3_600_000),
    ],
)
def test_a_duration_has_a_unit_or_is_in_seconds(parse: Parse, text: str, seconds: float) -> None:
    assert parse("--stall", text).stall == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "+1", "1 s", "1d", "1S", "s", ".", "1e3", "nan", "inf", "1_0", "٣", "1s\n"],
)
def test_what_is_no_duration_is_refused(refused: Callable[..., str], text: str) -> None:
    assert refused(f"--stall={text}") == (
        "argument --stall: not a duration (such as 10, 500ms, 10s, 1.5m or 2h): " + repr(text)
    )


@pytest.mark.parametrize("text", ["1001h", "9" * 400])
def test_a_duration_that_no_timer_takes_is_refused(refused: Callable[..., str], text: str) -> None:
    assert refused("--stall", text) == f"argument --stall: longer than 1000h: {text!r}"


@pytest.mark.parametrize("name", ["--header-timeout", "--keep-alive", "--stall"])
def test_a_limit_of_no_time_is_refused(refused: Callable[..., str], name: str) -> None:
    assert refused(name, "0ms") == f"argument {name}: not more than 0: '0ms'"


@pytest.mark.parametrize("name", ["stop_timeout", "cache_seconds"])
def test_a_wait_of_no_time_is_none(parse: Parse, name: str) -> None:
    assert getattr(parse(f"--{name.replace('_', '-')}", "0"), name) == 0


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("2000", 2000),
        ("2000B", 2000),
        ("64K", 64 * 1024),
        ("64k", 64 * 1024),
        ("64KiB", 64 * 1024),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("1.5M", 1.5 * 1024 * 1024),
        ("1.5MB", 1_500_000),
        ("2G", 2 * 1024**3),
        ("2GiB/s", 2 * 1024**3),
        ("2GB/s", 2_000_000_000),
        ("1T", 1024**4),
        ("1.5M/s", 1.5 * 1024 * 1024),
        ("0.4", 0),
        ("0", 0),
    ],
)
def test_a_rate_has_a_unit_or_is_in_bytes_per_second(parse: Parse, text: str, nbytes: int) -> None:
    assert parse("--min-rate", text).min_rate == nbytes


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1Kb", "1Mb/s", "1iB", "1 K", "1X", "1K/m", "/s", "1K/s/s", "1e6"]
)
def test_what_is_no_rate_is_refused(refused: Callable[..., str], text: str) -> None:
    assert refused(f"--min-rate={text}") == (
        "argument --min-rate: not a rate (such as 500, 64K, 64KiB/s, 1.5M/s or 1MB/s): "
        + repr(text)
    )


def test_a_rate_beyond_all_is_refused(refused: Callable[..., str]) -> None:
    assert refused("--min-rate", "9" * 400).startswith("argument --min-rate: too large: ")


def test_a_size_is_no_rate(parse: Parse, refused: Callable[..., str]) -> None:
    assert parse("--max-header", "64KiB").max_header == 64 * 1024
    assert refused("--max-header", "64K/s") == (
        "argument --max-header: not a size (such as 500, 64K, 64KiB, 1.5M or 1MB): '64K/s'"
    )


@pytest.mark.parametrize("text", ["1023", "1.1M", "0"])
def test_a_header_has_some_room_and_not_too_much(refused: Callable[..., str], text: str) -> None:
    assert refused("--max-header", text) == f"argument --max-header: not from 1K to 64K: {text!r}"


@pytest.mark.parametrize("text", ["0", "auto"])
def test_workers_may_be_one_for_each_core(parse: Parse, text: str) -> None:
    assert 1 <= parse("--workers", text).workers <= (os.cpu_count() or 1)


@pytest.mark.parametrize("text", ["-1", "257", "1.5", "x", "", "+1", "1_0", "٣", "9" * 5000])
def test_what_is_no_number_of_workers_is_refused(refused: Callable[..., str], text: str) -> None:
    assert refused(f"--workers={text}") == (
        f"argument --workers: not a number of workers (1 to 256, auto): {text!r}"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "65536"], "argument --port: not a port (0 to 65535): '65536'"),
        (["--port", "²"], "argument --port: not a port (0 to 65535): '²'"),
        (["--host", ""], "argument --host: not a host name: ''"),
        (["--host", "a\nb"], "argument --host: not a host name: 'a\\nb'"),
        (["--unix", ""], "argument --unix: not a path: ''"),
        (["--unix", "a", "--port", "1"], "argument --port: makes no sense with --unix"),
        (["--unix", "a", "--host", "x"], "argument --host: makes no sense with --unix"),
        (["--unix", "a", "--rate", "1K"], "argument --rate: makes no sense with --unix"),
        (["--tls-key", "a"], "argument --tls-key: makes no sense without --tls-cert"),
        (["--rate", "0"], "argument --rate: not more than 0: '0'"),
        (["--cache-control", "a\r\nX: y"], "argument --cache-control: not the value of a header "
         "field: 'a\\r\\nX: y'"),
        (["--cache-control", "é"], "argument --cache-control: not the value of a header "
         "field: 'é'"),
        (["--max-connections", "0"], "argument --max-connections: not a number of connections "
         "(1 to 1000000): '0'"),
        (["--loop", "trio"], "argument --loop: invalid choice: 'trio' "),
        (["--hid"], "unrecognized arguments: --hid"),
        ([".", "x"], "unrecognized arguments: x"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    refused: Callable[..., str], arguments: list[str], line: str
) -> None:
    assert refused(*arguments).startswith(line)


def test_a_certificate_makes_sense_without_a_key_of_its_own_file(parse: Parse) -> None:
    options = parse("--tls-cert", "both.pem")

    assert (options.tls_cert, options.tls_key) == ("both.pem", None)


def test_what_is_served_is_said_by_flags(parse: Parse) -> None:
    options = parse("--hidden", "--follow-symlinks", "--no-listing", "--quiet")

    assert (options.hidden, options.follow_symlinks, options.quiet) == (True, True, True)
    assert options.listing is False


# Help


def test_help_names_every_option_with_its_default(load: Load) -> None:
    ended = run(FILE_SERVER, "--help")

    assert (ended.returncode, ended.stderr) == (0, "")
    words = " ".join(ended.stdout.split())
    for name in load("options").Options.__dataclass_fields__:
        said = {"root": "DIR", "listing": "--no-listing"}.get(name, f"--{name.replace('_', '-')}")
        assert said in words
    for default in ("127.0.0.1", "8000", "10s", "15s", "60s", "240 bytes per second", "32K"):
        assert f"(default: {default})" in words
    assert "count by 1024; kB, MB and GB count by 1000" in words


def test_the_version_is_said() -> None:
    ended = run(FILE_SERVER, "--version")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("file_server of asend ")


# Figures


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1023.6, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (1023.9 * 1024, "1023.9 KiB"),
        (1023.96 * 1024, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2.0**80, "1048576.0 EiB"),
    ],
)
def test_sizes_are_said_in_the_units_of_the_listing(load: Load, nbytes: float, text: str) -> None:
    assert load("figures").size_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "0.2s"), (2, "2s"), (59.4, "59s"), (59.6, "1m 0s"), (7325, "2h 2m")],
)
def test_durations_are_said_in_their_largest_units(load: Load, seconds: float, text: str) -> None:
    assert load("figures").seconds_text(seconds) == text


def test_totals_survive_the_way_from_another_process(load: Load) -> None:
    Totals, Counter = load("figures").Totals, load("collections").Counter
    totals = Totals(3, 2_000_000, 1, 4, Counter({"stalled": 2, "slow header": 1}))
    sum_ = Totals(1, 500_000)

    sum_.add(Totals.from_json(totals.to_json()))

    assert sum_ == Totals(4, 2_500_000, 1, 4, totals.dropped)
    assert sum_.text(65) == (
        "stopped after 1m 5s, 4 requests, 2.4 MiB, dropped 2 stalled, 1 slow header, "
        "1 cut off in the end, 4 lines not logged"
    )
