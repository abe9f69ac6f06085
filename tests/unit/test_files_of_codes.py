"""Files of codes that users have are read as a person would read them, or refused with the option that helps."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader
from coupons.files.codes import CodeChecker, FileRules
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat, parse_column
from coupons.files.layout import SEPARATORS
from coupons.files.notices import MAX_NOTICE_CHARS, MAX_NOTICES
from tests.corpus import pieces
from tests.files_of_codes import CASES
from tests.files_people_have import Case

BY_THE_LIST = {"duplicate", "case"}
"""Reasons that depend on the list, which the reader does not know."""


def format_of(options: tuple[str, ...]) -> FileFormat:
    """The format that the options of the command line describe."""
    values = list(options)
    arguments: dict[str, Any] = {}
    while values:
        match values.pop(0):
            case "--header":
                arguments["header"] = True
            case "--no-header":
                arguments["header"] = False
            case "--allow-lookalikes":
                arguments["allow_lookalikes"] = True
            case "--skip-lines":
                arguments["skip_lines"] = int(values.pop(0))
            case "--where":
                arguments["where"] = (*arguments.get("where", ()), values.pop(0))
            case "--column":
                arguments["column"] = parse_column(values.pop(0))
            case option:
                raise ValueError(option)
    return FileFormat(**arguments)


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_has_its_right_result(case: Case, size: int) -> None:
    """Codes, rejected lines and notices are right, or the file is refused, whatever the size of the pieces."""
    reader = CodeReader(format_of(case.options), case.name)
    if case.refused:
        with pytest.raises(FileError) as caught:
            for piece in pieces(case.content, size):
                reader.feed(piece)
            reader.finish()
        assert case.refused in str(caught.value)
        assert str(caught.value).startswith(case.name)
        return
    batches = [*map(reader.feed, pieces(case.content, size)), reader.finish()]
    codes = tuple(code for batch in batches for code in batch.codes)
    rejected = {each.line: each.reason.value for batch in batches for each in batch.rejected}
    by_the_list = {line for line, reason in case.rejected.items() if reason in BY_THE_LIST}
    assert rejected == {line: reason for line, reason in case.rejected.items() if line not in by_the_list}
    assert codes == case.accepted or (by_the_list and codes[: len(case.accepted)] == case.accepted)
    assert case.notice is None or any(case.notice in notice for notice in reader.notices)
    assert len(reader.notices) <= MAX_NOTICES
    for notice in reader.notices:
        assert len(notice) <= MAX_NOTICE_CHARS
        assert not any(code in notice for code in codes)


# --- any table of any program ----------------------------------------------------------------------------------------


def is_code(text: str) -> bool:
    return CodeChecker(FileRules()).check([1], [text]).codes == [text]


CODES = st.lists(
    st.from_regex(r"[A-Z]{2,4}-[0-9A-Z]{4,8}", fullmatch=True)
    | st.from_regex(r"[a-z0-9]{6,12}", fullmatch=True)
    | st.text("ABCxyz0189-_. ÄÖß€/#;,|\"'=", min_size=2, max_size=9).map(lambda text: text.strip(" ;,|")),
    min_size=1,
    max_size=12,
    unique_by=str.casefold,
).map(lambda codes: [code for code in codes if is_code(code)] or ["AAAA-1111"])
OTHER_COLUMNS: dict[str, st.SearchStrategy[str]] = {
    "Note": st.text("ab ÄÖ;,|\t\"'\n", max_size=8),
    "Wert": st.sampled_from(["10", "5,00", "7.50 €", ""]),
    "Valid until": st.sampled_from(["2026-05-01", "31.12.2026", ""]),
    "E-Mail": st.sampled_from(["ada@example.org", "bob@example.org"]),
    "Empty": st.just(""),
}
HEADERS = st.sampled_from(["Code", "Codice sconto", "Kod rabatowy", "Key", "Gutschein-Nr. 2026", "Zniżka jesienna", ""])


@dataclass(frozen=True)
class Dialect:
    """How a program writes a table."""

    separator: str
    line_end: str
    quotes_all: bool
    encoding: str
    names_separator: bool
    has_title: bool

    def write(self, rows: list[list[str]]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(
            text,
            delimiter=self.separator,
            lineterminator=self.line_end,
            # csv does not quote a line feed if lines end in CR alone
            quoting=csv.QUOTE_ALL if self.quotes_all or self.line_end == "\r" else csv.QUOTE_MINIMAL,
        )
        writer.writerows([["Spring campaign"] + [""] * (len(rows[0]) - 1)] * (self.has_title and len(rows[0]) > 1))
        writer.writerows(rows)
        first = f"sep={self.separator}{self.line_end}" * self.names_separator
        return (first + text.getvalue()).encode(self.encoding)


EXCEL = st.builds(
    Dialect, st.sampled_from(";,\t"), st.just("\r\n"), st.just(value=False), st.sampled_from(["utf-8-sig", "utf-16"]),
    st.booleans(), st.booleans(),
)  # fmt: skip
OTHERS = st.builds(
    Dialect, st.sampled_from(SEPARATORS), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.just("utf-8"),
    st.booleans(), st.booleans(),
)  # fmt: skip


@given(
    CODES, HEADERS, st.lists(st.sampled_from(sorted(OTHER_COLUMNS)), max_size=4, unique=True), EXCEL | OTHERS, st.data()
)
def test_a_table_is_read_exactly_or_refused(
    codes: list[str], header: str, others: list[str], dialect: Dialect, data: st.DataObject
) -> None:
    """No code is altered, no header or other cell becomes a code, and no row is lost, whatever program wrote it."""
    # a header of an unknown name is recognized by the shape of codes
    assume("jesienna" not in header or all(" " not in code and any(map(str.isdigit, code)) for code in codes))
    assume(header or any(map(str.isdigit, codes[0])))  # a word above codes may be a header
    place = data.draw(st.integers(0, len(others)))
    rows = [[*others[:place], header, *others[place:]]] if header else []
    for code in codes:
        cells = [data.draw(OTHER_COLUMNS[name]) for name in others]
        rows.append([*cells[:place], code, *cells[place:]])
    reader = CodeReader(FileFormat(), "spring.csv")
    try:
        batches = [reader.feed(dialect.write(rows)), reader.finish()]
    except FileError:
        return
    found = [code for batch in batches for code in batch.codes]
    rejected = [each for batch in batches for each in batch.rejected]
    assert found == [code for code in codes if code in found]
    assert len(found) + len(rejected) == len(codes)
