"""Local times are parsed only if the zone has them exactly once, and are never shown without their zone."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.local_time import (
    InvalidTime,
    UnknownZone,
    format_time,
    local_zone,
    name_of_local_zone,
    parse_time,
    zone_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = sorted(available_timezones() - {"localtime", "Factory"})
SPELLED = re.compile(r"write (\S+) or (\S+)$")

instants = st.datetimes(datetime(1975, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - bounds
    lambda at: at.replace(second=0, microsecond=0)
)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let the C library read TZ again after the test."""
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


def suggestions(error: InvalidTime) -> list[datetime]:
    found = SPELLED.search(str(error))
    assert found, error
    return [datetime.fromisoformat(each) for each in found.groups()]


@given(st.sampled_from(ZONES), instants)
def test_a_time_of_a_zone_is_parsed_or_its_spellings_are_shown(name: str, at: datetime) -> None:
    """Each instant has a local text. It is parsed as this instant, or the error has the instant as one of two texts."""
    zone = ZoneInfo(name)
    local = at.astimezone(zone)
    try:
        parsed = parse_time(local.replace(tzinfo=None).isoformat(), zone)
    except InvalidTime as error:
        first, second = suggestions(error)
        assert first < second
        assert at in (first, second)
        assert {each.replace(tzinfo=None) for each in (first, second)} == {local.replace(tzinfo=None)}
    else:
        assert parsed == at


@given(st.sampled_from(ZONES), st.datetimes(datetime(1975, 1, 1), datetime(2037, 1, 1)))  # noqa: DTZ001 - bounds
def test_a_parsed_local_time_is_what_the_clocks_of_the_zone_show(name: str, wall: datetime) -> None:
    """A time that is accepted is shown unchanged by the zone's clocks; a skipped one is between its two neighbours."""
    zone = ZoneInfo(name)
    try:
        parsed = parse_time(wall.isoformat(), zone)
    except InvalidTime as error:
        before, after = (each.astimezone(zone) for each in suggestions(error))
        assert before < after
        assert before.replace(tzinfo=None) <= wall
        assert wall < after.replace(tzinfo=None) or before.replace(tzinfo=None) == wall.replace(second=0, microsecond=0)
        assert after - before <= timedelta(hours=3)
    else:
        assert parsed.astimezone(zone).replace(tzinfo=None, fold=0) == wall


def test_a_time_that_the_clocks_skip_is_refused_with_both_neighbours() -> None:
    """In Berlin, 02:30 does not exist on 28 March 2027: the minute before and the time after the skip are named."""
    with pytest.raises(InvalidTime) as refused:
        parse_time("2027-03-28T02:30", BERLIN)
    assert str(refused.value) == (
        "2027-03-28T02:30 does not exist in Europe/Berlin, whose clocks go from 01:59 to 03:00: "
        "write 2027-03-28T01:59+01:00 or 2027-03-28T03:00+02:00"
    )
    assert parse_time("2027-03-28T03:00", BERLIN) == datetime(2027, 3, 28, 1, tzinfo=UTC)


def test_a_time_that_the_clocks_repeat_is_refused_with_both_spellings() -> None:
    """In Berlin, 02:30 is twice on 31 October 2027: the message has both spellings, and each of them is accepted."""
    with pytest.raises(InvalidTime) as refused:
        parse_time("2027-10-31T02:30", BERLIN)
    assert str(refused.value) == (
        "2027-10-31T02:30 exists twice in Europe/Berlin, because its clocks go back: "
        "write 2027-10-31T02:30+02:00 or 2027-10-31T02:30+01:00"
    )
    assert [
        parse_time(f"2027-10-31T02:30{offset}", BERLIN).astimezone(UTC).hour for offset in ("+02:00", "+01:00")
    ] == [
        0,
        1,
    ]


def test_a_day_that_a_zone_skipped_is_refused() -> None:
    """Samoa skipped 30 December 2011."""
    with pytest.raises(InvalidTime, match=r"write 2011-12-29T23:59-10:00 or 2011-12-31T00:00\+14:00"):
        parse_time("2011-12-30T12:00", ZoneInfo("Pacific/Apia"))


def test_the_zone_of_the_system_is_checked_in_the_same_way(zone: pytest.MonkeyPatch) -> None:
    """A zone that only the C library knows skips and repeats times, too."""
    zone.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    assert local_zone() is None
    for text, words in {"2027-03-28T02:30": "does not exist", "2027-10-31T02:30": "exists twice"}.items():
        with pytest.raises(InvalidTime, match=f"{words} in this machine's time zone"):
            parse_time(text, None)
    assert parse_time("2027-06-01T12:00", None) == datetime(2027, 6, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Mars/Olympus", "Europe", "../etc/passwd", "/etc", "ABC", "Europe/Berlin "])
def test_an_unknown_zone_is_an_error(zone: pytest.MonkeyPatch, name: str) -> None:
    """The C library would treat it as UTC without a word."""
    zone.setenv("TZ", name)
    with pytest.raises(UnknownZone, match="unknown time zone"):
        local_zone()


@pytest.mark.parametrize("name", ["", "UTC", ":Europe/Berlin", "EST5EDT", "<-03>3", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_each_form_of_zone_is_accepted(zone: pytest.MonkeyPatch, name: str) -> None:
    """TZ may have a name, a name after a colon, a rule, or nothing, which is UTC."""
    zone.setenv("TZ", name)
    local_zone()


@pytest.mark.parametrize("text", ["tomorrow", "", "2027-13-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    """The message shows how to write a time."""
    with pytest.raises(InvalidTime, match="write 2030-03-01T09:00"):
        parse_time(text, BERLIN)


def test_a_time_is_shown_with_its_zone(zone: pytest.MonkeyPatch) -> None:
    """A zone without an abbreviation is shown as its offset to UTC."""
    at = datetime(2027, 3, 1, 8, 0, 5, tzinfo=UTC)
    shown = {}
    for name in ("Europe/Berlin", "UTC", "America/Sao_Paulo"):
        zone.setenv("TZ", name)
        shown[name] = format_time(at)
    assert [*shown.values()] == ["2027-03-01 09:00 CET", "2027-03-01 08:00 UTC", "2027-03-01 05:00 UTC-03"]
    assert format_time(at, seconds=True) == "2027-03-01 05:00:05 UTC-03"
    assert zone_of(at) == "UTC"


@pytest.mark.parametrize(("zone", "name"), [("Europe/Berlin", "Europe/Berlin"), ("", "UTC"), ("CET-1CEST", "UTC")])
def test_the_local_zone_has_a_name(monkeypatch: pytest.MonkeyPatch, zone: str, name: str) -> None:
    """A recurring import stores the name. A rule in TZ has none, so the default is UTC, which the output shows."""
    monkeypatch.setenv("TZ", zone)
    assert name_of_local_zone() == name
