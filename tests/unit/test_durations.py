"""Durations and rates are parsed and formatted, and CSV output is safe to open in a spreadsheet."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.cli.output import emit_csv
from producers.durations import (
    format_deferred,
    format_duration,
    format_limit,
    format_rate,
    parse_minutes,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90m", 90),
        ("4h", 240),
        ("2d", 2_880),
        ("1h30m", 90),
        (" 1H ", 60),
        ("0m", None),
        ("", None),
        ("1.5h", None),
        (f"{'9' * 5_000}h", None),
        ("30s", None),
    ],
)
def test_durations_are_parsed(text: str, minutes: int | None) -> None:
    """Days, hours and minutes are accepted, and nothing else."""
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("1h 30m", None), ("1m30s", 90), (" 2H ", 7_200), ("0s", None)]
)
def test_timeouts_are_parsed(text: str, seconds: int | None) -> None:
    """The timeout of a waiting command may also have seconds."""
    assert parse_seconds(text) == seconds


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 90))
def test_every_duration_of_these_units_is_parsed(days: int, hours: int, minutes: int) -> None:
    """The result is the sum of days, hours and minutes, or None if the sum is zero."""
    assert parse_minutes(f"{days}d{hours}h{minutes}m") == (((days * 24 + hours) * 60 + minutes) or None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3_600, "1 h"), (12_000, "3 h 20 min"), (90_061, "1 d 1 h")],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, words: str) -> None:
    """A duration is written in its two largest units, so a duration of days has no seconds."""
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("deferred", "after", "words"),
    [
        (1, None, "1 waits for another attempt"),
        (1_000, timedelta(seconds=-1), "1,000 wait for another attempt, next now"),
        (10, timedelta(days=400), "10 wait for another attempt, next at 20"),
    ],
)
def test_deferred_mails_are_written_with_their_next_attempt(deferred: int, after: timedelta | None, words: str) -> None:
    """An attempt on another day is written with its date."""
    at = None if after is None else datetime.now(UTC) + after
    assert format_deferred(deferred, at).startswith(words)


def test_the_next_attempt_today_is_written_as_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time has its zone, as in "next at 14:20 UTC"."""
    monkeypatch.setenv("TZ", "UTC")
    at = datetime.now(UTC).replace(hour=23, minute=59, second=59, microsecond=999_999)
    assert format_deferred(10, at) == "10 wait for another attempt, next at 23:59 UTC"


def test_a_slow_rate_is_written_per_hour() -> None:
    """A rate below one mail per second is written per hour instead of "0 mails/s"."""
    assert [format_rate(each) for each in (12_345.6, 1, 0.5)] == ["12,346 mails/s", "1 mail/s", "1,800 mails/h"]


@pytest.mark.parametrize(
    ("per_hour", "words"),
    [
        (12_345.6, "12,346 mails per hour"),
        (60, "60 mails per hour"),
        (1.4, "1.4 mails per hour"),
        (1, "1 mail per hour"),
        (0.5, "1 mail every 2 h"),
        (1 / 7, "1 mail every 7 h"),
        (1 / 86_400, "1 mail every 3600 d"),
    ],
)
def test_a_limit_is_never_written_as_zero(per_hour: float, words: str) -> None:
    """A limit below one mail per hour is written as the time between two mails, also as a rate."""
    assert format_limit(per_hour) == words
    assert format_rate(per_hour / 3_600) != "0 mails/h"


async def test_csv_runs_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    """Replies and addresses stay text, also after another separator; quotes stay inside their cell."""

    async def rows() -> AsyncIterator[str]:
        for value in ("=1+1", "a;=2", '250 "ok"; said', "-7", "ada@example.org"):
            yield value

    await emit_csv(rows(), {"reply": lambda value: value})
    out = capsys.readouterr().out
    assert out.startswith("\ufeffreply\r\n")
    cells = [row[0] for row in csv.reader(io.StringIO(out[1:], newline=""), delimiter=";")][1:]
    assert cells == ["'=1+1", "a;'=2", '250 "ok"; said', "'-7", "ada@example.org"]
