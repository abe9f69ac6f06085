"""Code files of shops and CRMs are read exactly, or rejected with the line of the error."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader
from coupons.files.codes import CheckedCodes, CodeChecker, FileRules
from coupons.files.csv_rows import Rows, Table
from coupons.files.decoding import MAX_RECORD_CHARS, FileError, Lines
from coupons.files.format import CODE_COLUMNS, FileFormat, describe_columns, normalized_header
from coupons.files.layout import SEPARATORS, HeadRow, Opening
from coupons.files.notices import limit_notices
from coupons.files.rejections import Reason, rejections_csv

DETECTED = FileFormat()
CSV = FileFormat(kind="csv")
TXT = FileFormat(kind="txt")


def is_code(text: str) -> bool:
    return CodeChecker(FileRules()).check([1], [text]).codes == [text]


CODES = st.lists(
    st.text("ABCxyz0189-_. ÄÖß€/#;,|\"'", min_size=1, max_size=12).map(str.strip).filter(is_code),
    min_size=1,
    max_size=30,
)
NOTES = st.text("ab ÄÖ;,|\t\"'\n", max_size=8)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
DIALECTS = st.tuples(st.sampled_from(SEPARATORS), LINE_ENDS)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
CUTS = st.lists(st.integers(0, 2_000), max_size=12)

Dialect = tuple[str, str]


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return (data[start:end] for start, end in zip([0, *ends], ends, strict=False))


def read(
    data: bytes, file_format: FileFormat = DETECTED, name: str = "the file", cuts: Sequence[int] = ()
) -> CheckedCodes:
    reader = CodeReader(file_format, name)
    batches = [*(reader.feed(piece) for piece in pieces(data, cuts)), reader.finish()]
    return CheckedCodes(
        [line for batch in batches for line in batch.lines],
        [code for batch in batches for code in batch.codes],
        [rejected for batch in batches for rejected in batch.rejected],
        sum(batch.blank for batch in batches),
    )


def read_rows(data: bytes, file_format: FileFormat = CSV, cuts: Sequence[int] = ()) -> tuple[list[str], list[Rows]]:
    """The header of a table and its rows."""
    header: list[str] = []

    def begin(rows: list[HeadRow]) -> Opening:
        header.extend(rows[0].cells)
        height = 1 + "".join(header).count("\n")
        return Opening(len(header), None, rows[0].line + height, rows[0].line)

    lines = Lines(file_format.encoding, "people.csv", is_forced=file_format.force_encoding)
    table = Table(replace(file_format, kind="csv"), "people.csv", begin, lambda _: False)
    batches = [table.feed(*lines.feed(piece)) for piece in pieces(data, cuts)]
    return header, [*batches, table.feed(*lines.feed(b"", final=True), final=True)]


def rows_of(batches: Sequence[Rows]) -> list[tuple[str, ...]]:
    return [row for batch in batches for row in zip(*batch.columns, strict=True)]


def error(data: bytes, file_format: FileFormat = DETECTED, name: str = "spring.csv") -> str:
    with pytest.raises(FileError) as caught:
        read(data, file_format, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def csv_bytes(rows: Sequence[Sequence[str]], dialect: Dialect, encoding: str) -> bytes:
    text = io.StringIO()
    separator, line_end = dialect
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator=line_end).writerows(rows)
    return text.getvalue().encode(encoding)


# --- reading back what was written -----------------------------------------------------------------------------------


@given(CODES, LINE_ENDS, ENCODINGS, st.booleans(), CUTS)
def test_a_txt_file_reads_back_exactly(
    codes: list[str], line_end: str, encoding: str, last_line_ends: bool, cuts: list[int]
) -> None:
    """Every code is read with its line number, in any encoding, with any line ends and in any chunks."""
    data = (line_end.join(codes) + line_end * last_line_ends).encode(encoding)
    checked = read(
        data, FileFormat(kind="txt", encoding=given_encoding(encoding), header=False, force_encoding=True), cuts=cuts
    )
    assert checked == CheckedCodes(list(range(1, len(codes) + 1)), codes, [], 0)


@given(CODES, st.lists(NOTES, min_size=30, max_size=30), DIALECTS, ENCODINGS, CUTS)
def test_a_quoted_csv_file_reads_back_exactly(
    codes: list[str], notes: list[str], dialect: Dialect, encoding: str, cuts: list[int]
) -> None:
    """Quotes, separators and line ends inside quoted cells never shift a code or its line number."""
    rows = [("Note", " CODE "), *zip(notes, codes, strict=False)]
    data = csv_bytes(rows, dialect, encoding)
    checked = read(data, FileFormat(kind="csv", encoding=given_encoding(encoding), force_encoding=True), cuts=cuts)
    starts = [2]
    for note in notes[: len(codes) - 1]:
        starts.append(starts[-1] + 1 + note.count("\n"))
    assert checked == CheckedCodes(starts, codes, [], 0)


@given(CODES, st.sampled_from(SEPARATORS), LINE_ENDS, CUTS)
def test_a_csv_file_with_minimal_quoting_reads_back_exactly(
    codes: list[str], separator: str, line_end: str, cuts: list[int]
) -> None:
    """Quoted and bare cells may be mixed in a file, as most programs write them."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=line_end)
    writer.writerows([("id", "code"), *((str(number), code) for number, code in enumerate(codes))])
    assert read(text.getvalue().encode(), cuts=cuts).codes == codes


NAMES = st.lists(st.text("abcxyz ÄÖß", min_size=1).filter(str.strip), min_size=1, max_size=5)
HEADERS = st.sampled_from(sorted(CODE_COLUMNS)).flatmap(
    lambda name: st.sampled_from([name, name.upper(), name.title(), f" {name}:"])
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """A table that does not declare its format, and its codes. The table has several columns, so it has a separator."""
    codes, header, names = draw(CODES), draw(HEADERS), draw(NAMES)
    assume(not {normalized_header(name) for name in names} & CODE_COLUMNS)
    place = draw(st.integers(0, len(names)))
    all_quoted = draw(st.booleans())
    note = NOTES if all_quoted else NOTES.filter(lambda text: "\n" not in text)  # csv.writer does not quote these
    notes = st.lists(note, min_size=len(names), max_size=len(names))
    rows = [(header, names), *((code, draw(notes)) for code in codes)]
    separator, line_end = draw(DIALECTS)
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=separator,
        quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL,
        lineterminator=line_end,
    )
    writer.writerows([*others[:place], cell, *others[place:]] for cell, others in rows)
    return text.getvalue().encode(), codes


@given(tables(), CUTS)
def test_an_undeclared_table_reads_back_exactly(table: tuple[bytes, list[str]], cuts: list[int]) -> None:
    """The separator, the header and the code column are detected, wherever the column is."""
    data, codes = table
    checked = read(data, name="spring.csv", cuts=cuts)
    assert (checked.codes, checked.rejected, checked.blank) == (codes, [], 0)


@given(CODES, LINE_ENDS, st.integers(0, 400), CUTS)
def test_codes_depend_on_the_bytes_alone(codes: list[str], line_end: str, position: int, cuts: list[int]) -> None:
    """The same bytes give the same codes in any chunks, so an import can resume at a position."""
    data = csv_bytes([("code", "note"), *((code, "a\nb") for code in codes)], (";", line_end), "utf-8")[:position]
    whole, cut = CodeReader(CSV), CodeReader(CSV)
    assert whole.feed(data).codes == [code for piece in pieces(data, cuts) for code in cut.feed(piece).codes]


@given(
    st.text(st.sampled_from('AB12ü ;;;,"\n\n'), max_size=60)
    | st.lists(st.sampled_from(["A;B;1", " A;  ;2", '"A";"B;";"3"', '"A";"";""', '"A', '"', '";"', "A;B", ""])).map(
        "\n".join
    ),
    CUTS,
)
def test_the_fast_path_and_the_csv_module_give_the_same_rows(text: str, cuts: list[int]) -> None:
    """Splitting by columns (for regular chunks) and the csv module (for others) give the same result."""
    data = f"code;b;c\n{text}\n".encode()
    at_once, in_pieces = outcome(data, []), outcome(data, [9, *cuts])
    assert at_once == in_pieces


def outcome(data: bytes, cuts: Sequence[int]) -> CheckedCodes | str:
    try:
        return read(data, CSV, cuts=cuts)
    except FileError as broken:
        return str(broken)


def given_encoding(encoding: str) -> str:
    """The encoding to specify, or none if the file begins with a byte order mark."""
    return "utf-8" if encoding in {"utf-8-sig", "utf-16"} else encoding


# --- the kind of file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "code\nA1\nB2\n",
        "Gutschein-Code\nA1\nB2",
        '"A1"\n"B2"\n',
        "A1\nB2\n",
        "sep=;\nA1\nB2\n",
        "\n\ncode;eur\nA1;5\nB2;5",
    ],
)
def test_the_first_line_decides_the_kind_of_file(text: str) -> None:
    """A file is csv if its first line has a header, a quote, a separator or `sep=`; otherwise each line is a code."""
    assert read(text.encode()).codes == ["A1", "B2"]


def test_a_name_that_ends_in_csv_makes_a_table() -> None:
    """If a .csv file has only one column and no header, the column contains the codes."""
    assert read(b"A1\nB2\n", name="Spring.CSV").codes == ["A1", "B2"]


def test_a_txt_file_is_read_line_by_line() -> None:
    """With kind txt, each line is a code, including its separators. Only quotes around the code are removed."""
    assert read(b'A1;5\nB"2\n"C3"\n', TXT).codes == ["A1;5", 'B"2', "C3"]


def test_a_sep_line_declares_the_separator_and_is_not_a_code() -> None:
    """Excel's `sep=` in the first line sets the separator. It counts as a line of the file."""
    checked = read(b"sep=:\r\nname:code\r\nAda, Countess:A1\r\n")
    assert (checked.lines, checked.codes) == ([3], ["A1"])


def test_the_separator_that_gives_most_cells_is_used() -> None:
    """A decimal comma, or a comma in a header, does not make the comma the separator."""
    assert read(b"name, first;code;price, net\nAda;A1;1,50\n").codes == ["A1"]


def test_a_given_separator_wins() -> None:
    """Any single character can be specified as the separator, which is then not detected."""
    assert read(b"code^name;x\nA1^Ada\n", FileFormat(separator="^")).codes == ["A1"]


# --- which column ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        *("code", " Coupon ", "COUPON CODE", "coupon_code", "Gutschein", "Gutscheincode", "Gutschein-Nr.", "Coupon #"),
        *("Gutscheinnummer", "Gutschein-Codes", "Voucher Number", "voucher_nr", "couponNo", "Promo", "promo codes"),
        *("Aktionsnummer", "Code number", "Serial", "Serial No.", "Seriennummer", "Gift card number", "Code:"),
    ],
)
def test_the_code_column_is_detected_by_its_name(header: str) -> None:
    """The code column is detected by an English or German name, in any case and spelling."""
    assert read(f"name;{header};eur\nAda;A1;5\n".encode()).codes == ["A1"]


@pytest.mark.parametrize("column", ["bon no 1", " Bon No 1 ", 2, "2"])
def test_a_column_is_given_by_name_or_number(column: str | int) -> None:
    """The name of a column is compared without case and surrounding spaces; its number is counted from 1."""
    assert read(b"name;Bon No 1;code\nAda;A1;x\n", FileFormat(column=column)).codes == ["A1"]


def test_a_table_may_have_no_header() -> None:
    """If the column is given by number, a first row that contains a digit is data."""
    assert read(b"Ada;A1\nBob;B2\n", FileFormat(column=2)).codes == ["A1", "B2"]


def test_a_first_row_of_words_is_a_header() -> None:
    """If the column is given by number, a first row without digits is a header: it must never be mailed as a code."""
    assert read(b"Name;Bon\nAda;A1\n", FileFormat(column=2)).codes == ["A1"]


def test_header_can_be_specified() -> None:
    """The option overrides the detection of a header.

    So a header with digits, a first code without digits and a code named "code" can be read.
    """
    assert read(b"Name;Bon 1\nAda;A1\n", FileFormat(column=2, header=True)).codes == ["A1"]
    assert read(b"Ada;AB\nBob;BC\n", FileFormat(column=2, header=False)).codes == ["AB", "BC"]
    assert read(b"code\nA1\n", FileFormat(header=False)).codes == ["code", "A1"]


def test_an_unknown_code_column_lists_the_columns() -> None:
    """The error shows the columns from which the operator can choose."""
    assert error(b"Name;X;Y\nAda;A1;B1\n") == (
        "spring.csv, line 1: specify the code column by name or number: use --column, or --skip-lines N if the"
        " table begins below (the columns are 1 'Name', 2 'X', 3 'Y')"
    )
    assert "no column 'x': the columns are 1 'Name', 2 'Bon'" in error(b"Name;Bon\n", FileFormat(column="x"))
    assert "no column 3: the columns" in error(b"Name;Bon\n", FileFormat(column=3))


def test_an_error_never_shows_a_possible_code() -> None:
    """If a table has no header, the error shows the number of its columns but not its first row."""
    message = error(b"Ada;SECRET1;5\nBob;SECRET2;5\n")
    assert "the file has 3 columns" in message
    assert "SECRET" not in message


@pytest.mark.parametrize("row", ["SOMMERGLUECK;FRUEHLING", "ada;SOMMERGLUECK;eur", "Serialität;Gutscheinling"])
def test_codes_of_letters_alone_are_not_shown_either(row: str) -> None:
    """A first row is shown only if one of its cells is a known header name, even if all its cells look like words."""
    for file_format in (CSV, FileFormat(column="Code"), FileFormat(column=9)):
        message = error(f"{row}\n{row}\n".encode(), file_format)
        assert f"the file has {row.count(';') + 1} columns" in message
        assert not [cell for cell in row.split(";") if cell in message]
    assert describe_columns(["SECRET"]) == "the file has 1 column"


def test_a_known_name_shows_the_header() -> None:
    """If one cell of the header is a known name, the error shows all cells."""
    assert "1 'Marke', 2 'Kundennummer'" in error(b"Marke;Kundennummer\nA;1\n")
    assert "1 'Codes', 2 'Marke'" in error(b"Codes;Marke\nA;1\n", FileFormat(column="Bon"))


def test_a_long_header_is_not_listed_in_full() -> None:
    """The error about a long header remains one readable line."""
    message = error(";".join(["x" * 60_000, *"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"]).encode())
    assert len(message) < 1_000


def test_an_ambiguous_code_column_is_rejected() -> None:
    """The reader never guesses which column contains the codes."""
    assert "ambiguous column name (1, 3): use its number" in error(b"coupon;eur;code\nA1;5;B2\n")


def test_a_row_of_another_width_is_rejected() -> None:
    """In a row that is too long, cells may be shifted, and a wrong cell would be mailed as the code.

    Such a row is rejected with all its cells. A row that lacks cells behind the code is accepted.
    """
    checked = read(b"code;eur\nA1;5\nB2\nC3;1;50\nD4;5;;\n\n;\n", name="a.csv")
    assert (checked.lines, checked.codes, checked.blank) == ([2, 3, 5], ["A1", "B2", "D4"], 2)
    assert [(each.line, each.reason) for each in checked.rejected] == [(4, Reason.COLUMNS)]
    assert (checked.rejected[0].value, checked.rejected[0].extra) == ("C3", ("1", "50"))
    report = "".join(rejections_csv(checked.rejected)).encode()
    assert [(each.line, each.reason) for each in read(report).rejected] == [(2, Reason.COLUMNS)]


def test_blank_lines_are_counted() -> None:
    """Blank lines are counted in both kinds of file, and they count in the line numbers."""
    assert read(b"\n \nA1\n\t\nB2\n\n", TXT) == CheckedCodes([3, 5], ["A1", "B2"], [], 4)
    assert read(b"\n \ncode;eur\nA1;5\n\n;\nB2;5\n") == CheckedCodes([4, 7], ["A1", "B2"], [], 4)


def test_rejected_lines_keep_their_order() -> None:
    """Rejected lines are reported in the order of the file, whatever their reasons."""
    checked = read(b"code;eur\nwww.a;1\nB2;1;1\n{{x}};2\n", name="a.csv")
    assert [each.line for each in checked.rejected] == [2, 3, 4]


# --- quotes ----------------------------------------------------------------------------------------------------------


def test_a_line_break_in_a_code_is_rejected_with_its_first_line() -> None:
    """A quoted cell with a line break is read as one code, which is invalid."""
    checked = read(b'code;eur\n"A\r\n1";5\nB2;5\n')
    assert [(each.line, each.value, each.reason) for each in checked.rejected] == [(2, "A\ufffd1", Reason.CONTROL)]
    assert (checked.lines, checked.codes) == ([4], ["B2"])


def test_an_inch_mark_inside_a_cell_is_text() -> None:
    """A quote opens a quoted cell only at the beginning of the cell."""
    assert read(b'screen;code\n5" wide;A1\n 6"; B2\n').codes == ["A1", "B2"]


def test_a_quote_after_spaces_opens_a_quoted_cell() -> None:
    """Spaces before a quoted cell are skipped, because some programs write a space after each separator."""
    assert read(b'name, code\n"A, B", "C1"\n"A", "D, 2"\n').codes == ["C1", "D, 2"]


@pytest.mark.parametrize("cuts", [[], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]])
def test_text_after_a_closing_quote_rejects_the_row(cuts: list[int]) -> None:
    """A quoted cell must end at its closing quote. The csv module alone would read "AB"C as ABC."""
    checked = read(b'code\n"A1"\n"AB"C\nD4\n', CSV, "spring.csv", cuts)
    assert (checked.lines, checked.codes) == ([2, 4], ["A1", "D4"])
    assert [(each.line, each.value, each.reason) for each in checked.rejected] == [(3, '"AB"C', Reason.QUOTES)]


def test_a_lone_quote_rejects_its_line() -> None:
    """A lone quote is not an empty quoted cell, even among quoted lines."""
    checked = read(b'code\n"\n"A1"\n', CSV, "spring.csv", cuts=[5])
    assert [(each.line, each.reason) for each in checked.rejected] == [(2, Reason.QUOTES)]
    assert checked.codes == ["A1"]


def test_an_unclosed_quote_does_not_swallow_the_file() -> None:
    """A quote that is not closed within 64 Ki characters rejects its line; complete rows after it are read."""
    data = b'code;note\nA1;x\nB2;"never closed\n' + b"".join(b"C%d;y\n" % number for number in range(20_000))
    for cuts in ([], [40], list(range(0, len(data), 4_096))):
        checked = read(data, CSV, "spring.csv", cuts)
        assert [(each.line, each.reason) for each in checked.rejected] == [(3, Reason.QUOTES)]
        assert len(checked.codes) == 20_001


def test_a_long_record_is_rejected_however_it_is_cut() -> None:
    """A record that is too long is rejected in any chunks, even if its quote is closed."""
    data = b'code;note\nA1;"' + b"x\n" * MAX_RECORD_CHARS + b'"\n'
    for cuts in ([], list(range(0, len(data), 4_096))):
        checked = read(data, CSV, "spring.csv", cuts)
        assert checked.rejected[0].reason is Reason.QUOTES
        assert checked == read(data, CSV, "spring.csv")


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (b'"A1" ;"x"  ', ["A1"]),
        (b'"A ""1""" ; x', ['A "1"']),
        (b'"A\\"1";x', ['A"1']),
        (b'"A\\"1\\"";"a\\"b"', ['A"1"']),
        (b'A1;"a\nb" ', ["A1"]),
    ],
)
def test_quotes_as_other_programs_write_them_are_read(row: bytes, cells: list[str]) -> None:
    """Blanks after a closing quote are skipped, and a backslash before a quote escapes it, also over lines."""
    data = b"code;note\n" + row + b"\nB2;y\n"
    for cuts in ([], list(range(len(data)))):
        assert read(data, CSV, "a.csv", cuts).codes == [*cells, "B2"]


# --- bytes that are not text -----------------------------------------------------------------------------------------


def test_an_endless_line_is_rejected() -> None:
    """A line is rejected after 64 Ki characters, so memory stays bounded even if a gigabyte has no line end."""
    reader = CodeReader(TXT, "spring.txt")
    reader.feed(b"A1\n" + b"x" * MAX_RECORD_CHARS)
    with pytest.raises(FileError, match=r"spring.txt, line 2: exceeds the limit of 65536 characters per line"):
        reader.feed(b"x")
    assert "line 2: exceeds the limit" in error(b"A1\n" + b"x" * (MAX_RECORD_CHARS + 1) + b"\nB2\n", TXT)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\n \r\n\n"])
@pytest.mark.parametrize("file_format", [FileFormat(), TXT, CSV])
def test_an_empty_file_is_rejected(data: bytes, file_format: FileFormat) -> None:
    """An empty file and a file of blank lines are rejected, because they must be the wrong export."""
    assert error(data, file_format) == "spring.csv is empty"


@pytest.mark.parametrize(
    ("head", "description"),
    [
        (b"PK\x03\x04\x14\x00", "a file compressed twice, not a list of codes or recipients: compress it once"),
        (b"\x89PNG\r\n\x1a\n", "a picture, not a list of codes or recipients: export the table as CSV"),
        (b"%PDF-1.7\n", "a PDF file, not a list of codes or recipients: export the table as CSV"),
    ],
)
def test_other_content_is_identified(head: bytes, description: str) -> None:
    """The error contains the content of a file that is not a list, even if the file arrives byte by byte."""
    assert error(head) == f"spring.csv looks like {description}"
    with pytest.raises(FileError, match=description):
        read(head + b"\x00" * 20, name="spring.csv", cuts=range(9))


def test_many_nuls_are_not_text() -> None:
    """A file full of NULs is rejected, as most binary files are."""
    assert error(b"CODE1234\r\n\0C\0\0O\0D\0\0E").startswith("spring.csv, line 2: NUL bytes (00). ")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("cuts", [[], list(range(40))])
def test_utf_16_without_a_byte_order_mark_is_read(encoding: str, cuts: list[int]) -> None:
    """Text in UTF-16 without a byte order mark is read, because text in no other encoding contains a NUL."""
    assert read("CODE-1\r\nGRÜN-2\r\n".encode(encoding), cuts=cuts).codes == ["CODE-1", "GRÜN-2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_double_byte_order_mark_is_read_as_one(encoding: str) -> None:
    """Programs that join or convert files write two byte order marks. The first code does not contain one."""
    assert read("\ufeff\ufeffCODE1\nCODE2\n".encode(encoding)).codes == ["CODE1", "CODE2"]


def test_a_single_nul_only_rejects_its_line() -> None:
    """A line with a NUL is rejected, and the other lines are accepted."""
    checked = read(b"ABCDEF\nABC\x00DEF\nGHI\n", TXT)
    assert (checked.codes, [each.reason for each in checked.rejected]) == (["ABCDEF", "GHI"], [Reason.CONTROL])


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("cuts", [[], list(range(40))])
def test_bytes_of_another_encoding_are_rejected_with_their_line(line_end: bytes, cuts: list[int]) -> None:
    """The error shows the invalid bytes and their line. The encoding is never guessed."""
    data = line_end.join([b"CODE1", b"CODE2", "über".encode("cp1252"), b"C3"])
    with pytest.raises(FileError) as caught:
        read(data, TXT, "spring.txt", cuts)
    problem, _, likely = str(caught.value).partition("; likely ")
    assert problem == "spring.txt, line 3: the bytes fc are not utf-8. Specify the encoding (--encoding)"
    assert likely.startswith("cp1252, ")
    assert ": übe… · " in likely


@pytest.mark.parametrize("cuts", [[], list(range(40))])
def test_a_stray_byte_in_a_utf_8_file_must_be_fixed(cuts: list[int]) -> None:
    """If earlier umlauts are valid UTF-8, the error suggests no other encoding, because none would help."""
    with pytest.raises(FileError) as caught:
        read("CODE1\nüber\n".encode() + b"gr\xfcn\nC4\n", TXT, "spring.txt", cuts)
    assert str(caught.value).startswith(
        "spring.txt, line 3: the bytes fc are not utf-8, although earlier lines are. Fix that line; likely cp1252, "
    )


@pytest.mark.parametrize("cuts", [[], list(range(40))])
def test_an_encoding_does_not_override_a_byte_order_mark(cuts: list[int]) -> None:
    """The error suggests no other encoding, because the byte order mark would override it."""
    data = "\ufeffCODE1\r\nCODE".encode("utf-16-le") + b"\x00\xd8" + "\r\n".encode("utf-16-le")
    with pytest.raises(FileError) as caught:
        read(data, TXT, "spring.txt", cuts)
    assert str(caught.value) == (
        "spring.txt, line 2: the bytes 00 d8 are not utf-16-le, although its byte order mark declares it. Fix that line"
    )


@pytest.mark.parametrize("encoding", ["shift_jis", "gb18030", "iso2022_jp", "ascii", "utf-7", "utf-16-le"])
def test_errors_name_the_line_in_any_encoding(encoding: str) -> None:
    """Errors contain the line, also in multi-byte and stateful encodings."""
    data = "A1\nB2\n".encode(encoding) + b"\xff\xff\xff\xdc\xff"
    assert "spring.csv, line 3: the bytes " in error(data, FileFormat(kind="txt", encoding=encoding))


def test_a_file_that_ends_inside_a_character_is_rejected() -> None:
    """A file that ends inside a character is rejected, because it was truncated."""
    assert "line 2: the bytes c3 are not utf-8" in error("A1\nfü".encode()[:-1], TXT)


def test_an_error_has_no_cause_with_the_bytes() -> None:
    """The error has no decoding error as its cause, which would carry the data, and so codes, into logs."""
    with pytest.raises(FileError) as caught:
        read(b"SECRET1\n\xfc\n", TXT)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "SECRET" not in str(caught.value)


def test_a_byte_order_mark_overrides_the_encoding() -> None:
    """A byte order mark overrides the encoding option, because the file itself is more reliable."""
    assert read(b"\xef\xbb\xbfAB\xc3\x9c\n", FileFormat(kind="txt", encoding="cp1252")).codes == ["ABÜ"]
    assert read("ABÜ\n".encode("utf-32")).codes == ["ABÜ"]


def test_utf_16_needs_a_byte_order() -> None:
    """The encoding utf-16 without a byte order mark is rejected, because it could mean two encodings."""
    assert "has no byte order mark: specify utf-16-le" in error(b"A\x001\x00\n\x00B\x00", FileFormat(encoding="utf-16"))


def test_other_line_separators_do_not_end_a_line() -> None:
    """A form feed or Unicode's line separator does not end a line: it is a control character in its line."""
    checked = read("A\x0cB\nA\u2028B\nA\x85B\n".encode(), TXT)
    assert [(each.line, each.reason) for each in checked.rejected] == [(line, Reason.CONTROL) for line in (1, 2, 3)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"encoding": "klingon"}, "unknown encoding 'klingon'"),
        ({"encoding": "zlib"}, "unknown encoding 'zlib'"),
        ({"encoding": "unicode_escape"}, "unknown encoding 'unicode_escape'"),
        ({"encoding": "utf\x008"}, "unknown encoding"),
        ({"separator": ";;"}, "a separator must be one character"),
        ({"separator": '"'}, "a separator must be one character"),
        ({"kind": "txt", "column": "code"}, "a txt file has no columns"),
    ],
)
def test_an_impossible_format_is_rejected(arguments: dict[str, str], reason: str) -> None:
    """An impossible format is rejected before any file is opened."""
    with pytest.raises(FileError, match=reason):
        FileFormat(**arguments)  # type: ignore[arg-type] # invalid arguments on purpose


# --- the description -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "file_format", "description"),
    [
        (b"A1\n", DETECTED, "txt, utf-8, first code A•"),
        ("A1\n".encode("utf-16"), TXT, "txt, utf-16-le (byte order mark), first code A•"),
        (b"eur;Code\n5;SPR-A1B2\n", DETECTED,
         'csv, separator ";", column 2, with a header, utf-8, first code SPR-••••'),
        (b"5\tA1\n5\tB2\n", FileFormat(column=2, encoding="latin1"),
         "csv, separator TAB, column 2, without a header, iso8859-1, first code A•"),
        (b"sep=|\r\nA1\r\n", DETECTED, 'csv, separator "|", column 1, without a header, utf-8, first code A•'),
    ],
)  # fmt: skip
def test_a_reader_describes_the_format(data: bytes, file_format: FileFormat, description: str) -> None:
    """After the head, a reader describes the format of its file, with the first code masked."""
    reader = CodeReader(file_format)
    reader.feed(b"")
    assert not reader.description
    for piece in pieces(data, range(len(data))):
        reader.feed(piece)
    reader.finish()
    assert reader.description == description


# --- rows ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(NOTES, NOTES, st.just("x")), max_size=12),
    DIALECTS,
    ENCODINGS,
    CUTS,
)
def test_rows_read_back_exactly(rows: list[tuple[str, ...]], dialect: Dialect, encoding: str, cuts: list[int]) -> None:
    """Cells with any text are read exactly, in any dialect, encoding and chunks."""
    data = csv_bytes([("email", "a b", "c"), *rows], dialect, encoding)
    header, batches = read_rows(data, FileFormat(encoding=given_encoding(encoding), force_encoding=True), cuts)
    assert header == ["email", "a b", "c"]
    assert rows_of(batches) == rows


LINES = "".join(f"SPRING-{number:05}\n" for number in range(200))


def test_lines_beyond_the_head_can_be_skipped() -> None:
    """The head begins below the skipped lines. To skip more lines than the file has is an error with their number."""
    assert read(LINES.encode(), FileFormat(skip_lines=150)).codes[0] == "SPRING-00150"
    assert error(LINES.encode(), FileFormat(skip_lines=500)).endswith("has only 200 lines: --skip-lines 500 skips all")


def test_an_error_names_the_line_of_the_header_or_only_the_option() -> None:
    """An unknown column concerns the header, which may be below a title. A condition that is none concerns no line."""
    table = b"Spring\n\nCode;Used\nAB-1;No\nAB-2;No\n"
    assert ", line 3: no column 'x'" in error(table, FileFormat(where=("x=1",)))
    assert ", line 3: no column 'x'" in error(table, FileFormat(column="x"))
    assert error(table, FileFormat(where=("x",))).startswith("--where 'x' is not a condition")


def test_a_row_of_another_width_is_rejected_with_both_numbers_of_cells() -> None:
    """The header may be below a title, so the reason names it and not the first line."""
    rejected = read(b"Spring\nCode;Used\nAB-1;No;;x\nAB-2;No\n").rejected
    assert [each.sentence for each in rejected] == ["has 4 cells where the header has 2"]


def test_notices_beyond_the_limit_are_counted() -> None:
    """The last notice has the number of those that are not shown."""
    assert limit_notices([str(number) for number in range(40)])[-2:] == ["28", "… and 11 more notices"]
    assert limit_notices(["a"] * 30) == ["a"] * 30
