"""How durations and rates are written and read, and what a spreadsheet is given."""

import csv
import io
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.cli.output import emit_csv
from producers.durations import lasting, minutes_of, rate


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90m", 90), ("4h", 240), ("2d", 2_880), ("1h30m", 90), (" 1H ", 60), ("0m", None), ("", None), ("1.5h", None)],
)
def test_durations_are_read_as_people_write_them(text: str, minutes: int | None) -> None:
    """Days, hours, minutes; nothing else is guessed at."""
    assert minutes_of(text) == minutes


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 90))
def test_every_duration_of_these_units_is_read(days: int, hours: int, minutes: int) -> None:
    """Their sum, or None for no time at all."""
    assert minutes_of(f"{days}d{hours}h{minutes}m") == (((days * 24 + hours) * 60 + minutes) or None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3_600, "1 h"), (12_000, "3 h 20 min"), (90_061, "1 d 1 h")],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, words: str) -> None:
    """Nobody wants to know the seconds of a day."""
    assert lasting(seconds) == words


def test_a_slow_rate_is_written_by_the_hour() -> None:
    """0 mails a second would say nothing."""
    assert [rate(each) for each in (12_345.6, 1, 0.5)] == ["12,346 mails/s", "1 mails/s", "1,800 mails/h"]


async def test_csv_runs_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    """What a relay or an address says stays text, also behind another separator; quotes stay inside their cell."""

    async def rows() -> AsyncIterator[str]:
        for value in ("=1+1", "a;=2", '250 "ok"; said', "-7", "ada@example.org"):
            yield value

    await emit_csv(rows(), {"reply": lambda value: value})
    out = capsys.readouterr().out
    assert out.startswith("\ufeffreply\r\n")
    cells = [row[0] for row in csv.reader(io.StringIO(out[1:], newline=""), delimiter=";")][1:]
    assert cells == ["'=1+1", "a;'=2", '250 "ok"; said', "'-7", "ada@example.org"]
