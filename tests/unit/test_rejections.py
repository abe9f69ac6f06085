"""Rejected lines and the CSV report of them."""

import itertools
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader
from coupons.files.codes import CodeChecker, FileRules, check_codes
from coupons.files.format import FileFormat
from coupons.files.rejections import (
    MAX_SHOWN_CHARS,
    Reason,
    Rejected,
    cell_text,
    reject,
    rejections_csv,
    report_cell,
    streamed_rejections_csv,
)

ANY_TEXT = st.text(st.characters(codec=None), max_size=30) | st.text("A1'=+-@,;| \t\"", max_size=8)
FORMULA = re.compile("(^|[;,|\t])[-=+@\t\r\uff1d]")


@given(ANY_TEXT, st.sampled_from(Reason))
def test_a_rejected_value_can_be_stored_and_shown(text: str, reason: Reason) -> None:
    """A rejected value has no NUL, surrogate, escape sequence or invisible character: it can be stored and printed."""
    value = reject(1, text, reason).value
    assert value.isprintable()
    assert len(value) == len(text)
    value.encode()


def test_a_rejected_value_is_truncated() -> None:
    """A rejected value is truncated to more than the maximum length of a code, so it cannot be imported by mistake."""
    value = reject(1, "X" * 60_000, Reason.TOO_LONG).value
    assert value == "X" * (MAX_SHOWN_CHARS - 1) + "…"
    assert [each.reason for each in check_codes([1], [value]).rejected] == [Reason.TOO_LONG]


def test_every_reason_has_a_sentence() -> None:
    """Every reason has a value, which is stored, and a sentence, which is shown."""
    assert Reason("too_long") is Reason.TOO_LONG
    assert str(Reason.TOO_LONG) == "too_long"
    assert Reason.TOO_LONG.sentence == "longer than 200 characters"
    assert len({reason.sentence for reason in Reason}) == len(Reason)


def test_rejected_lines_become_a_csv_file() -> None:
    """The CSV file has line, value and reason, and spreadsheets show its umlauts correctly."""
    rejected = [Rejected(3, 'Ä "1"', Reason.SENT), Rejected(5, "x", Reason.IN_LIST)]
    assert "".join(rejections_csv(rejected)).encode() == (
        "\ufeffline;code;reason\r\n"
        '3;"Ä ""1""";"already sent"\r\n'
        '5;"x";"already in the list"\r\n'
    ).encode()  # fmt: skip
    assert next(rejections_csv([], columns=["email"])) == "\ufeffline;email;reason\r\n"


def test_rejected_recipients_keep_their_rows() -> None:
    """A rejected recipient has one cell per column, empty if the row had no value or only the address was kept."""
    rejected = [
        Rejected(3, "nobody", Reason.BAD_ADDRESS, {"phone": "+49 1", "email": "nobody", "first_name": 'Ä "1"'}),
        Rejected(5, "x", Reason.COLUMNS, {"email": "x"}),
    ]
    _, first, second = rejections_csv(rejected, ("email", "first_name", "phone"))
    assert first == f'3;"nobody";"Ä ""1""";"\'+49 1";"{Reason.BAD_ADDRESS.sentence}"\r\n'
    assert second == f'5;"x";"";"";"{Reason.COLUMNS.sentence}"\r\n'
    _, line = rejections_csv([Rejected(7, "y", Reason.BAD_ADDRESS)], ["email"])
    assert line == f'7;"y";"{Reason.BAD_ADDRESS.sentence}"\r\n'


@given(st.text("'=+-@,;|A\uff1d", max_size=8) | st.text(max_size=20))
def test_a_cell_is_read_back_exactly(text: str) -> None:
    """A cell is read back exactly, also if it was escaped or began with a '."""
    assert cell_text(report_cell(text)[1:-1].replace('""', '"')) == text


async def test_streamed_rejected_lines_become_the_same_file() -> None:
    """Rejected lines that arrive in batches from the database become the same CSV file."""
    rejected = [Rejected(3, "=Ä", Reason.RESERVED), Rejected(5, "x", Reason.NOT_IN_LIST)]

    async def stream() -> AsyncIterator[Rejected]:
        for each in rejected:
            yield each

    assert [line async for line in streamed_rejections_csv(stream())] == list(rejections_csv(rejected))


def test_rejected_lines_are_written_one_by_one() -> None:
    """Each line is written before the next line is requested, so millions of lines need little memory."""
    requested: list[int] = []

    def rejected() -> Iterator[Rejected]:
        for line in itertools.count(1):
            requested.append(line)
            yield Rejected(line, "x", Reason.ASSIGNED)

    lines = rejections_csv(rejected())
    assert next(lines) == "\ufeffline;code;reason\r\n"
    assert not requested
    assert next(lines) == '1;"x";"already assigned to a recipient"\r\n'
    assert requested == [1]


@pytest.mark.parametrize(
    "value", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1+1", "\uff1d1", "A;=1+1", "A|=1", "A,=1", "A\t=1", "\t=1"]
)
def test_a_spreadsheet_runs_no_formula(value: str) -> None:
    """A spreadsheet runs no formula at the beginning of a cell, nor where another locale would split the cell."""
    line = list(rejections_csv([reject(1, value, Reason.IN_LIST)]))[1]
    cell = line.split(";", 1)[1].rsplit(";", 1)[0].strip('"')
    assert not FORMULA.search(cell)


@given(st.lists(ANY_TEXT.filter(lambda text: bool(text.strip()) and "?" not in text)))
def test_a_report_can_be_imported_again(values: list[str]) -> None:
    """In a re-imported report, a code is read back exactly, and an unfixed invalid line is rejected again."""
    before = CodeChecker(FileRules()).check(range(len(values)), values)
    as_codes = [reject(line, code, Reason.IN_LIST) for line, code in zip(before.lines, before.codes, strict=True)]
    reader = CodeReader(FileFormat(), "rejected.csv")
    data = "".join(rejections_csv(as_codes + before.rejected)).encode()
    after = [reader.feed(data), reader.finish()]
    assert [code for batch in after for code in batch.codes] == before.codes
    assert sum(len(batch.rejected) for batch in after) == len(before.rejected)
