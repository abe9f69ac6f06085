"""Nasty files end as is written beside each, however they are cut; any dialect of any program is read back exactly."""

import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader, FileFormat
from coupons.files.codes import Reason, check, rejections_csv
from coupons.files.csv_rows import SEPARATORS
from coupons.files.decoding import FileError
from tests.corpus import CASES, Case, Codes, Refusals, one_line, pieces

Outcome = tuple[Codes, Refusals, int]


def read(chunks: Iterable[bytes], file_format: FileFormat) -> Outcome:
    reader = CodeReader(file_format, "spring")
    batches = [*map(reader.feed, chunks), reader.finish()]
    return (
        [found for batch in batches for found in zip(batch.lines, batch.codes, strict=True)],
        [(each.line, each.reason) for batch in batches for each in batch.rejected],
        sum(batch.blank for batch in batches),
    )


# --- the corpus ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4_096, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_nasty_file_ends_as_is_written_beside_it(case: Case, size: int) -> None:
    """Whatever the pieces in which it comes: each line is taken, or refused with its reason; or the whole file is."""
    if case.error:
        with pytest.raises(FileError) as caught:
            read(pieces(case.data, size), case.format)
        assert str(caught.value).startswith("spring")
        assert "\n" not in str(caught.value)
        for part in case.error:
            assert part in str(caught.value)
    else:
        assert read(pieces(case.data, size), case.format) == (case.taken, case.rejected, case.blank)


def test_a_gigabyte_of_one_line_is_refused_in_little_memory() -> None:
    """After its first piece; what comes behind is never asked for."""
    line = one_line(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="spring, line 1: more than 65536 characters without a line end"):
            read(line, FileFormat())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert sum(1 for _ in line) == 1_023


@pytest.mark.parametrize("case", [case for case in CASES if case.rejected], ids=lambda case: case.name)
def test_only_what_was_mended_is_taken_from_the_rejected_lines(case: Case) -> None:
    """The lines come back as a CSV; one that nobody mended is refused again, with all others."""
    reader = CodeReader(case.format, "spring")
    rejected = reader.feed(case.data).rejected + reader.finish().rejected
    _, *lines = rejections_csv(rejected)
    taken, refused, _ = read(["".join(rejections_csv(rejected)).encode()], FileFormat())
    assert not taken
    assert len(refused) == len(rejected)
    for index, each in enumerate(rejected):
        mended = [*lines[:index], f'{each.line};"MENDED";""\r\n', *lines[index + 1 :]]
        taken, refused, _ = read(["".join(["\ufeffline;code;reason\r\n", *mended]).encode()], FileFormat())
        assert [code for _, code in taken] == ["MENDED"]
        assert len(refused) == len(rejected) - 1


# --- any dialect ---------------------------------------------------------------------------------------------------


def is_code(text: str) -> bool:
    return check([1], [text]).codes == [text]


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
    """A CSV as some program writes it, how it must be said to be read, and the codes in it."""
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
    file_format = FileFormat(
        kind="csv",
        separator=separator,
        encoding="utf-8" if encoding in MARKED else encoding,
        column=None if by_name else before + 1,
        header=None if by_name else has_header,
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
    """Any separator, quoting, line end, encoding, header or none, with any columns around the codes."""
    data, file_format, codes = table
    taken, rejected, blank = read(pieces(data, size), file_format)
    assert [code for _, code in taken] == codes
    assert (rejected, blank) == ([], 0)


@given(st.lists(CODES, min_size=1, max_size=20), st.sampled_from(["\n", "\r\n", "\r"]), ENCODINGS, SIZES)
def test_a_txt_file_in_any_encoding_is_read_back_exactly(
    codes: Sequence[str], line_end: str, encoding: str, size: int
) -> None:
    """One code a line, each with its number."""
    file_format = FileFormat(kind="txt", encoding="utf-8" if encoding in MARKED else encoding)
    data = line_end.join(codes).encode(encoding)
    assert read(pieces(data, size), file_format) == (list(enumerate(codes, 1)), [], 0)


def test_every_reason_that_a_file_alone_can_give_is_in_the_corpus() -> None:
    """The others need the list, or are those of recipients."""
    found = {reason for case in CASES for _, reason in case.rejected}
    assert found == {
        *(Reason.TOO_LONG, Reason.CONTROL, Reason.SPACES, Reason.EXCEL, Reason.URL, Reason.PLACEHOLDER, Reason.COLUMNS),
    }
