"""Values with units, names and schedules: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.base import (
    AbsolutePath,
    Suffix,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)
from schemas.pipeline import Cron, Name

SIZES = {
    "1B": 1,
    "0B": 0,
    "1KB": 1000,
    "1KiB": 1024,
    "64MiB": 64 * 2**20,
    "64 MiB": 64 * 2**20,
    " 64MiB ": 64 * 2**20,
    "64mib": 64 * 2**20,
    "10GB": 10 * 10**9,
    "2TiB": 2 * 2**40,
    "1TB": 10**12,
    "1.5KiB": 1536,
    "0.1MB": 100_000,
    "999999999999999B": 999_999_999_999_999,
    "999999999999999TiB": 999_999_999_999_999 * 2**40,
}
# fmt: off
WRONG_SIZES: list[Any] = [
    "", "64", "MiB", "64M", "64MiBs", "64 Mi B", "-1MiB", "+1MiB", "1e3B", "1,5MiB", ".5MiB",
    "5.MiB", "0x10B", "64MiB/s", "٣MiB", "1PiB", "9" * 400 + "B", "1." + "9" * 400 + "B",
    "inf B", "nanB", 64, 64.0, None, True, [], {}, b"64MiB",
]
# fmt: on
RATES = {"20MiB/s": 20 * 2**20, "1B/s": 1, "1.5 KB/s": 1500, " 1GiB/s ": 2**30}
# fmt: off
WRONG_RATES: list[Any] = [
    "", "20MiB", "20/s", "/s", "0B/s", "0.1B/s", "20MiB/m", "20MiB /s/s", "-1B/s", 20, None,
]
# fmt: on
DURATIONS = {
    "30s": 30,
    "500ms": 0.5,
    "10m": 600,
    "26h": 26 * 3600,
    "30d": 30 * 86400,
    "2w": 14 * 86400,
    "1h30m": 5400,
    "1h 30m": 5400,
    "1 h 30 m": 5400,
    " 30s ": 30,
    "1.5h": 5400,
    "1d12h30m15s": 86400 + 43200 + 1800 + 15,
}
# fmt: off
WRONG_DURATIONS: list[Any] = [
    "", "30", "s", "30S", "0s", "0h0m", "-1s", "1h-5m", "1h5", "30sec", "1y", "1M", "1e3s", "٣s",
    "3 0s", "h1", "1,5h", "9" * 400 + "s", "1:30", "inf s", 30, 30.0, None, True, [], b"30s",
]
CRON = [
    "15 3 * * *", "*/5 * * * *", "0,30 8-18/2 1 jan-mar mon-fri", "00 07 * * 7", " 0  0 1 1 0 ",
    "0 0 * * SUN",
]
WRONG_CRON = [
    "", "@daily", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *",
    "* * 32 * *", "* * * 13 *", "* * * * 8", "* * * foo *", "*/0 * * * *", "5- * * * *",
    "-5 * * * *", "1,,2 * * * *", "* jan * * *", "1--2 * * * *", "a * * * *", "**/5 * * * *",
]
# fmt: on


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("value", WRONG_SIZES, ids=lambda value: repr(value)[:20])
def test_a_wrong_size_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a size with a unit; such as 64MiB or 10GB$"):
        parse_size(value)


@pytest.mark.parametrize(("text", "rate"), RATES.items())
def test_a_rate_is_read(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("value", WRONG_RATES, ids=repr)
def test_a_wrong_rate_is_refused(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^must be a rate above zero with a unit; such as 20MiB/s$"
    ):
        parse_rate(value)


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", WRONG_DURATIONS, ids=lambda value: repr(value)[:20])
def test_a_wrong_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a time above zero with a unit; such as 30s, "):
        parse_duration(value)


@settings(deadline=None, database=None)
@given(st.integers(min_value=0, max_value=2**49))
def test_a_size_is_written_as_it_is_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (5 * 2**20, "5MiB"), (2**20 + 1, "1048577B")],
)
def test_a_size_is_written_in_the_largest_whole_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@settings(deadline=None, database=None)
@given(st.integers(min_value=1, max_value=10**6))
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(30, "30s"), (60, "1m"), (90, "90s"), (7200, "2h"), (86400, "1d"), (0.5, "0.5s")],
)
def test_a_duration_is_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def accepts(kind: Any, value: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["a", "crm-db", "A_1.b", "1", "x" * 100])
def test_a_plain_name_is_taken(name: str) -> None:
    assert accepts(Name, name)


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "_a", "a/b", "a b", "a\n", "ü", "..", "x" * 101, "a\x00", "a:b"]
)
def test_a_name_that_is_no_safe_path_is_refused(name: str) -> None:
    assert not accepts(Name, name)


@pytest.mark.parametrize("suffix", ["", ".sql", ".tar.gz", ".7z"])
def test_a_suffix_is_taken(suffix: str) -> None:
    assert accepts(Suffix, suffix)


@pytest.mark.parametrize("suffix", ["sql", ".", ".sql.", ".a/b", ".a b", "..sql", ".sql\n"])
def test_a_wrong_suffix_is_refused(suffix: str) -> None:
    assert not accepts(Suffix, suffix)


@pytest.mark.parametrize(
    ("path", "taken"), [("/", True), ("/etc/*", True), ("etc", False), ("~/x", False)]
)
def test_a_path_must_be_absolute(path: str, taken: bool) -> None:
    assert accepts(AbsolutePath, path) is taken


@pytest.mark.parametrize("expression", CRON)
def test_a_cron_expression_is_taken(expression: str) -> None:
    assert accepts(Cron, expression)


@pytest.mark.parametrize("expression", WRONG_CRON)
def test_a_wrong_cron_expression_is_refused(expression: str) -> None:
    assert not accepts(Cron, expression)
