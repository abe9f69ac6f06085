"""Arbitrary and damaged spreadsheets give their text or a one-line error, and no other exception."""

import io

from hypothesis import given
from hypothesis import strategies as st

from coupons.sheets import END, REFUSED, SHEET, TEXT
from coupons.sheets.__main__ import iter_frames
from coupons.sheets.numbers import number_text
from coupons.sheets.workbook import Limits
from tests.fuzz.fuzzing import damaged, fuzzed
from tests.spreadsheets import ods, xls, xlsx, xlsx_parts

LIMITS = Limits(max_bytes=1_000_000, max_ratio=200)
CELLS = st.text("aA1ä日\t\n\"'<&", max_size=5) | st.integers(-(10**16), 10**16) | st.booleans() | st.none()
TABLES = st.lists(st.lists(CELLS, max_size=3), max_size=4)
WORKBOOKS = st.builds(
    lambda write, table: write({"A": table, "B": table[:1]}), st.sampled_from([xlsx, xls, ods]), TABLES
)
TAGS = st.sampled_from(
    [
        "<row>",
        "</row>",
        "<row r='3'>",
        "<c>",
        "</c>",
        "<c t='s'>",
        "<c t='b'>",
        "<c s='9'>",
        "<c r='C3'>",
        "<v>",
        "</v>",
    ]
)
SHEETS = st.lists(TAGS | st.sampled_from(["1", "x", "<t>", "</t>", "<f>", "</f>"]), max_size=12).map("".join)


@fuzzed()
@given(WORKBOOKS | damaged(WORKBOOKS) | SHEETS.map(xlsx_parts) | st.binary(max_size=60).map(lambda tail: b"PK" + tail))
def test_any_spreadsheet_is_read_or_refused(content: bytes) -> None:
    """The frames are the sheet, texts and the end, or one line that says why the file is refused."""
    frames = list(iter_frames(io.BytesIO(content), None, LIMITS))
    kinds = [kind for kind, _, _ in frames]
    assert kinds[-1] in {END, REFUSED}
    assert set(kinds[1:-1]) <= {TEXT}
    assert kinds[0] in {SHEET, REFUSED}
    if kinds[-1] == REFUSED:
        assert len(frames[-1][2].decode().splitlines()) == 1
    for _, done, text in frames[1:-1]:
        assert 0 <= done <= 1
        assert text.decode().endswith("\n")


@fuzzed()
@given(st.text('0#?,.%;"\\_*[]@GeneralEe+-/ymdhsA€ ', max_size=20), st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_format_shows_any_number(code: str, number: float) -> None:
    """A number format of any program, also a wrong one, gives a text in one line."""
    assert len(number_text(code)(number).splitlines()) <= 1
