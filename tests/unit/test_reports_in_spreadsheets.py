"""A CSV of rejected lines that other programs have changed: an unchanged line is never accepted as another code."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from unicodedata import normalize

from hypothesis import given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader
from coupons.files.codes import CheckedCodes, CodeChecker, FileRules
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.rejections import (
    Reason,
    Rejected,
    cell_text,
    has_lost_characters,
    reject,
    rejections_csv,
    report_cell,
)

ANY_TEXT = st.text(max_size=20).filter(str.strip)
NUMBER_LIKE = st.from_regex(r"\A[0-9]{1,20}([.,][0-9]{1,3})?([eE][+-]?[0-9]{1,2})?%?\Z")
DATE_LIKE = st.from_regex(r"\A[0-3]?[0-9][-./ ]{1,2}([01]?[0-9]|Jan|mar|Mrz|MAI|Okt|déc|lut)([-./ ][0-9]{2,4})?\Z")
MONTHS = st.sampled_from(
    ["MAR1", "Sept 2", "May-2026", "Mai 01", "1E5", "12:30", "3 pm", "TRUE", "wahr", "Faux", "5 EUR"]
)
ODD = st.text("AB12\u0410\u2013\u2010\u200b\u00a0\ufffd?\"'=;,|<U+>éÄœŁ", min_size=1, max_size=10)
VALUES = st.lists(ANY_TEXT | NUMBER_LIKE | DATE_LIKE | MONTHS | ODD, min_size=1, max_size=8)


@dataclass(frozen=True)
class Program:
    """A program that opens a CSV file and saves it."""

    separator: str
    encoding: str
    line_end: str
    quotes_all: bool
    drops_apostrophes: bool
    misreads: bool = False

    def save(self, text: str) -> bytes:
        text = text.removeprefix("\ufeff")
        if self.misreads:  # it opens UTF-8 as cp1252
            text = text.encode().decode("cp1252", "replace")
        rows = [[self._convert(cell) for cell in row] for row in csv.reader(io.StringIO(text), delimiter=";")]
        width = max(map(len, rows))
        saved = io.StringIO()
        writer = csv.writer(
            saved,
            delimiter=self.separator,
            lineterminator=self.line_end,
            quoting=csv.QUOTE_ALL if self.quotes_all else csv.QUOTE_MINIMAL,
        )
        writer.writerows([*row, *[""] * (width - len(row))] for row in rows)
        return saved.getvalue().encode(self.encoding, "replace")

    def _convert(self, cell: str) -> str:
        """The text of the cell after a spreadsheet has opened it as a number, a date, a formula or a truth value."""
        if cell.startswith("'"):
            return cell[1:] if self.drops_apostrophes else cell
        return next((shown(cell) for pattern, shown in CONVERSIONS if pattern.fullmatch(cell)), cell)


def number(cell: str) -> str:
    value = float(cell.rstrip("%").replace(",", "."))
    return f"{value:.5E}" if value >= 1e11 else f"{value:g}"


MONTH = "(?i:jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sept?|o[kc]t|nov|de[cz])"
CONVERSIONS: list[tuple[re.Pattern[str], Callable[[str], str]]] = [
    (re.compile(r"[=+@-].*", re.DOTALL), lambda _: "#NAME?"),
    (re.compile(r"true|false|wahr|vrai|faux", re.IGNORECASE), str.upper),
    (re.compile(r"[0-9]+([.,][0-9]+)?%?"), number),
    (re.compile(r"[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+%?"), lambda _: "1.00E+05"),
    (re.compile(r"[0-9]{1,2}:[0-9]{2}|[0-9]{1,2} [ap]m", re.IGNORECASE), lambda _: "12:30:00"),
    (re.compile(r"\d{1,4}[-./ ]{1,2}(\d{1,2}|[^\W\d]{3,5})([-./ ]\d{2,4})?"), lambda _: "46000"),
    (re.compile(rf"{MONTH}[-. ]{{0,2}}[0-9]{{1,4}}"), lambda _: "46000"),
]  # fmt: skip


PROGRAMS = st.builds(
    Program, st.sampled_from(";,\t"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp1250", "cp1251"]),
    st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip


def read(data: bytes, encoding: str) -> CheckedCodes:
    reader = CodeReader(FileFormat(encoding="utf-8" if encoding.startswith("utf") else encoding), "rejected.csv")
    batches = [reader.feed(data), reader.finish()]
    return CheckedCodes(
        [line for batch in batches for line in batch.lines],
        [code for batch in batches for code in batch.codes],
        [each for batch in batches for each in batch.rejected],
        sum(batch.blank for batch in batches),
    )


def rejected_lines(values: list[str]) -> list[Rejected]:
    """All values as rejected lines: those that could be codes are in the list already."""
    checked = CodeChecker(FileRules()).check(range(len(values)), values)
    known = [reject(line, code, Reason.IN_LIST) for line, code in zip(checked.lines, checked.codes, strict=True)]
    return [*known, *checked.rejected]


@given(VALUES, PROGRAMS)
def test_an_unchanged_line_is_never_accepted_as_another_code(values: list[str], program: Program) -> None:
    """After a program has saved the file, a line is rejected again, or is the code that the list has already."""
    rejected = rejected_lines(values)
    known = {each.value for each in rejected if each.reason is Reason.IN_LIST}
    report = "".join(rejections_csv(rejected))
    try:
        again = read(program.save(report), program.encoding)
    except FileError:
        return  # the file is refused
    assert {normalize("NFC", code) for code in again.codes} <= {normalize("NFC", code) for code in known}


@given(VALUES)
def test_a_report_as_it_was_written_is_read_back_exactly(values: list[str]) -> None:
    """Codes that the list has are read exactly, and all other lines are rejected again."""
    rejected = rejected_lines(values)
    again = read("".join(rejections_csv(rejected)).encode(), "utf-8")
    lost = {each.value for each in rejected if has_lost_characters(report_cell(each.value, is_key=True))}
    assert again.codes == [each.value for each in rejected if each.reason is Reason.IN_LIST and each.value not in lost]
    assert len(again.rejected) == len(rejected) - len(again.codes)


@given(st.text(max_size=30) | ODD | NUMBER_LIKE | DATE_LIKE, st.booleans())
def test_any_cell_of_a_report_is_read_back_exactly(text: str, is_key: bool) -> None:
    """The cell of a report has only characters that survive, and its text is the original one."""
    written = report_cell(text, is_key=is_key)[1:-1].replace('""', '"')
    assert cell_text(written) == text
    assert written.isprintable()
    for encoding in ("cp1252", "cp1250", "cp1254") if is_key else ("latin-1",):
        assert written.encode(encoding).decode(encoding) == written


def test_a_row_with_too_many_cells_is_shown_in_its_columns() -> None:
    """The cells are not joined: the code is in its column, and the others are behind the reason."""
    reader = CodeReader(FileFormat(), "a.csv")
    reader.feed(b'value;code\n10;A-1\n10;B-2;x;007\n"a"b;C-3\n')
    rejected = reader.finish().rejected
    _, first, second = rejections_csv(rejected)
    assert first == '3;"B-2";"has 4 cells where the header has 2";"\'10";"x";"\'007"\r\n'
    assert second == f'4;"";"{Reason.QUOTES.sentence}";"""a""b;C-3"\r\n'
    again = read("".join(rejections_csv(rejected)).encode(), "utf-8")
    assert (again.codes, [each.reason for each in again.rejected]) == ([], [Reason.COLUMNS, Reason.COLUMNS])
