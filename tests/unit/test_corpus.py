"""Difficult files have their expected results in any pieces, and any CSV dialect is read back exactly."""

import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader
from coupons.files.codes import CodeChecker, FileRules
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.layout import SEPARATORS
from coupons.files.rejections import Reason, rejections_csv
from tests.corpus import CASES, Case, Codes, Rejections, one_line, pieces

Outcome = tuple[Codes, Rejections, int]


def read(chunks: Iterable[bytes], file_format: FileFormat) -> Outcome:
    reader = CodeReader(file_format, "spring")
    batches = [*map(reader.feed, chunks), reader.finish()]
    return (
        [found for batch in batches for found in zip(batch.lines, batch.codes, strict=True)],
        [(each.line, each.reason) for batch in batches for each in batch.rejected],
        sum(batch.blank for batch in batches),
    )


# --- the corpus ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4_096, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_difficult_file_has_its_expected_result(case: Case, size: int) -> None:
    """In any pieces, each line is accepted or rejected with its reason, or the whole file is rejected."""
    if case.error:
        with pytest.raises(FileError) as caught:
            read(pieces(case.data, size), case.format)
        assert str(caught.value).startswith("spring")
        assert "\n" not in str(caught.value)
        for part in case.error:
            assert part in str(caught.value)
    else:
        assert read(pieces(case.data, size), case.format) == (case.accepted, case.rejected, case.blank)


def test_a_gigabyte_in_one_line_is_rejected_in_little_memory() -> None:
    """A gigabyte in one line is rejected after its first piece, and the rest is never read."""
    line = one_line(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="spring, line 1: exceeds the limit of 65536 characters per line"):
            read(line, FileFormat())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert sum(1 for _ in line) == 1_023


@pytest.mark.parametrize("case", [case for case in CASES if case.rejected], ids=lambda case: case.name)
def test_only_fixed_lines_of_a_rejection_report_are_accepted(case: Case) -> None:
    """Unfixed lines of the re-imported CSV are rejected again."""
    reader = CodeReader(case.format, "spring")
    rejected = reader.feed(case.data).rejected + reader.finish().rejected
    _, *lines = rejections_csv(rejected)
    accepted, again, _ = read(["".join(rejections_csv(rejected)).encode()], FileFormat())
    assert not accepted
    assert len(again) == len(rejected)
    for index, each in enumerate(rejected):
        fixed = [*lines[:index], f'{each.line};"FIXED";""\r\n', *lines[index + 1 :]]
        accepted, again, _ = read(["".join(["\ufeffline;code;reason\r\n", *fixed]).encode()], FileFormat())
        assert [code for _, code in accepted] == ["FIXED"]
        assert len(again) == len(rejected) - 1


# --- any dialect -----------------------------------------------------------------------------------------------------


def is_code(text: str) -> bool:
    return CodeChecker(FileRules()).check([1], [text]).codes == [text]


LETTERS = "ABCxyz0189-_. ÄÖß€/#;,|=\"'"
CODES = st.text(LETTERS, min_size=1, max_size=12).map(str.strip).filter(is_code)
NOTES = st.text("ab ÄÖ;,|\t\"'\n", max_size=8)
ENCODINGS = st.sampled_from(
    ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "cp1252", "iso-8859-15", "mac-roman"]
)
MARKED = {"utf-8-sig", "utf-16", "utf-32"}
SIZES = st.sampled_from([1, 7, 64, 1 << 20])


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, FileFormat, list[str]]:
    """A CSV file as a program may write it, the format to specify, and the codes of the file."""
    codes = draw(st.lists(CODES, min_size=1, max_size=20))
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    separator, line_end = draw(st.sampled_from(SEPARATORS)), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting = draw(st.sampled_from(["all", "needed", "some"]))
    has_header, encoding = draw(st.booleans()), draw(ENCODINGS)
    rows = [
        [*(draw(NOTES) for _ in range(before)), code, *(draw(NOTES) for _ in range(after))]
        for code in codes
    ]  # fmt: skip
    if has_header:
        rows.insert(0, [*(f"a{n}" for n in range(before)), "Code", *(f"b{n}" for n in range(after))])
    by_name = has_header and draw(st.booleans())
    is_certain = not any("=" in code or code.startswith("- ") for code in codes)  # "x=1" may be a label and a code
    file_format = FileFormat(
        kind="csv",
        separator=separator,
        encoding="utf-8" if encoding in MARKED else encoding,
        column=None if by_name else before + 1,
        header=None if by_name and is_certain else has_header,
        force_encoding=True,  # two letters of cp1252 may be one of UTF-8
    )
    written = (
        separator.join(cell_of(cell, separator, quoting, quote_anyway=draw(st.booleans())) for cell in row)
        for row in rows
    )
    text = line_end.join(written) + line_end * draw(st.booleans())
    return text.encode(encoding), file_format, codes


def cell_of(cell: str, separator: str, quoting: str, *, quote_anyway: bool) -> str:
    needs = not cell.strip() or cell[0] in ' "' or separator in cell or "\n" in cell
    if needs or quoting == "all" or (quoting == "some" and quote_anyway):
        return '"' + cell.replace('"', '""') + '"'
    return cell


@given(tables(), SIZES)
def test_a_table_in_any_dialect_is_read_back_exactly(table: tuple[bytes, FileFormat, list[str]], size: int) -> None:
    """A table is read back with any separator, quoting, line end, encoding and columns, with or without a header."""
    data, file_format, codes = table
    accepted, rejected, blank = read(pieces(data, size), file_format)
    assert [code for _, code in accepted] == codes
    assert (rejected, blank) == ([], 0)


@given(st.lists(CODES, min_size=1, max_size=20), st.sampled_from(["\n", "\r\n", "\r"]), ENCODINGS, SIZES)
def test_a_txt_file_in_any_encoding_is_read_back_exactly(
    codes: Sequence[str], line_end: str, encoding: str, size: int
) -> None:
    """Each line of a txt file is read as a code with its line number, in any encoding."""
    file_format = FileFormat(
        kind="txt", encoding="utf-8" if encoding in MARKED else encoding, header=False, force_encoding=True
    )
    data = line_end.join(codes).encode(encoding)
    assert read(pieces(data, size), file_format) == (list(enumerate(codes, 1)), [], 0)


def test_every_reason_that_a_file_alone_can_give_is_in_the_corpus() -> None:
    """The corpus has every reason of a file of codes that `files_of_codes` does not have."""
    found = {reason for case in CASES for _, reason in case.rejected}
    assert found == {
        *(Reason.TOO_LONG, Reason.CONTROL, Reason.SPACES, Reason.EXCEL, Reason.URL, Reason.PLACEHOLDER, Reason.COLUMNS),
        *(Reason.COMMENT, Reason.QUOTES),
    }
