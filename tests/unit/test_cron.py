"""The times of cron expressions, with the changes of the clocks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.commands import InvalidCommand
from coupons.cron import MAX_COUNTED, Cron, InvalidCron
from coupons.recurring import merge, parse

SPRING, AUTUMN = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)
NOVEMBER = datetime(2026, 10, 31, 12, tzinfo=UTC)
UPLOAD = "upload:00000000-0000-0000-0000-000000000000"


def times(expression: str, zone: str, at: datetime, count: int) -> list[str]:
    cron, found = Cron(expression, zone), []
    for _ in range(count):
        following = cron.after(at)
        assert following
        at = following
        found.append(f"{at:%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("expression", "zone", "begin", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", SPRING, ["29 01:00", "30 00:30", "31 00:30"]),
        ("30 2 * * *", "Europe/Berlin", AUTUMN, ["25 00:30", "26 01:30", "27 01:30"]),
        ("30 1 * * *", "America/New_York", NOVEMBER, ["01 05:30", "02 06:30", "03 06:30"]),
        ("30 2 * * *", "UTC", SPRING, ["29 02:30", "30 02:30", "31 02:30"]),
    ],
    ids=["skipped", "repeated", "repeated in New York", "UTC"],
)  # fmt: skip
def test_a_daily_time_runs_once_per_day(expression: str, zone: str, begin: datetime, expected: list[str]) -> None:
    """A time that the clocks skip runs right after the skip; one that they repeat runs the first time."""
    assert times(expression, zone, begin, 3) == expected


def test_an_hourly_time_runs_in_each_hour() -> None:
    """Also in the hour that the clocks repeat."""
    night = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    assert times("0 * * * *", "Europe/Berlin", night, 4) == ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]


@pytest.mark.parametrize(
    ("expression", "zone", "reason"),
    [
        ("30 2 * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("61 * * * *", "UTC", "wrong minute"),
        ("0 0 * * mo", "UTC", "wrong day-of-week"),
        ("0 0 30 2 *", "UTC", "never matches: its months have no day 30"),
        ("0 0 32 2 *", "UTC", "wrong day-of-month"),
        ("@reboot", "UTC", "five fields"),
        ("0 0 * *\n*", "UTC", "printable"),
        ("0 0 * * *" + " " * 200, "UTC", "at most 200"),
        ("0 0 * * *", "Europe/Atlantis", "unknown time zone"),
        ("0 0 * * *", "../etc/passwd", "unknown time zone"),
        ("0 0 * * *", "", "unknown time zone"),
        ("0 0 * * *", "localtime", "unknown time zone"),
        ("0 0 * * *", "posixrules", "unknown time zone"),
    ],
)
def test_invalid_expressions_are_refused(expression: str, zone: str, reason: str) -> None:
    """One line says what is wrong."""
    with pytest.raises(InvalidCron, match=reason):
        Cron(expression, zone)


def test_nicknames_are_accepted() -> None:
    """@daily is midnight in the time zone."""
    assert times("@daily", "UTC", SPRING, 2) == ["29 00:00", "30 00:00"]


def test_the_last_occurrence_counts_those_before_it() -> None:
    """Of four due occurrences, the last one runs and three are missed."""
    due = datetime(2026, 3, 1, 3, tzinfo=UTC)
    last, missed = Cron("0 3 * * *", "UTC").last_until(due, due + timedelta(days=3, hours=1))
    assert (last, missed) == (due + timedelta(days=3), 3)


def test_years_of_missed_occurrences_are_not_counted() -> None:
    """The last one is found from the end."""
    due = datetime(2020, 1, 1, tzinfo=UTC)
    last, missed = Cron("* * * * *", "UTC").last_until(due, datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC))
    assert (last, missed) == (datetime(2026, 1, 1, tzinfo=UTC), MAX_COUNTED)


@given(
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "5 4 * * 1-5", "0 0 1 * *", "15 2,3 * * 0"]),
    st.sampled_from(["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "UTC"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_each_occurrence_is_after_the_one_before(expression: str, zone: str, at: datetime) -> None:
    """Occurrences advance by the clock of the world, and none is skipped by the search for the last one."""
    cron = Cron(expression, zone)
    first = cron.after(at)
    assert first
    second = cron.after(first)
    assert second
    assert at < first < second
    assert cron.last_until(first, second) == (second, 1)
    assert cron.last_until(first, second - timedelta(seconds=1)) == (first, 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cron": "0 0 * * *", "list": "a", "source": UPLOAD}, "source: must begin with one of https:, s3:, file:"),
        ({"cron": "0 0 * * *", "list": "a", "source": "/x"}, "^source: must begin with one of https:, s3:[^;]*$"),
        ({"cron": "0 0 * * *", "list": "a", "source": "file:x", "zone": "Mars"}, "^zone: unknown time zone[^;]*$"),
        ({"cron": "0 0 * * *", "list": "a", "source": "file:x", "mode": "undo"}, "mode: must be one of add, replace"),
        ({"cron": "0 0 * * *", "list": "a", "codes": ["A"]}, "codes: unknown field"),
        ({"cron": "0 0 * * *", "list": "a", "source": "file:x", "id": 1}, "id: unknown field"),
        ({"cron": "0 0 * * *", "list": "a"}, "exactly one of codes and source"),
        ({"cron": "0 0 * * *", "source": "file:x"}, "exactly one of list and group"),
        ({"cron": "0 0 * *", "list": "a", "source": "file:x"}, "cron: "),
        ({"list": "a", "source": "file:x"}, "cron: required"),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused(fields: dict[str, object], reason: str) -> None:
    """A recurring import needs a source that can be read again."""
    with pytest.raises(InvalidCommand, match=reason):
        parse(fields)


def test_a_request_keeps_the_fields_of_its_command() -> None:
    """The fields that are not the default are stored."""
    request = parse({"cron": "0 0 * * *", "list": "A", "source": "file:x", "format": {"encoding": "cp1252"}})
    assert request.fields() == {"list": "a", "source": "file:x", "format": {"encoding": "cp1252"}}
    assert str(request.cron) == "0 0 * * * (UTC)"


def test_a_change_keeps_what_is_not_given() -> None:
    """Options of the format are changed one by one; a group replaces a list."""
    stored = {"cron": "@daily", "zone": "UTC", "list": "a", "source": "file:x", "format": {"column": 2, "sheet": "b"}}
    assert merge(stored, {"cron": "@hourly", "format": {"column": 3}}) == {
        **stored, "cron": "@hourly", "format": {"column": 3, "sheet": "b"}
    }  # fmt: skip
    assert merge(stored, {"group": "people"}) == {**{k: v for k, v in stored.items() if k != "list"}, "group": "people"}
