"""Spreadsheets become CSV text whose line n is row n of the sheet, with the texts that the cells show."""

import csv
import datetime as dt
import gc
import gzip
import io
import json
import tempfile
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
import xlwt
from hypothesis import given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from coupons.files.code_reader import CodeReader
from coupons.files.converted import CONVERTED
from coupons.files.format import FileFormat
from coupons.files.recipient_reader import RecipientReader
from coupons.files.rejections import Reason
from coupons.settings import Settings
from coupons.sheets import END, REFUSED, SEPARATOR, TEXT, UNAVAILABLE
from coupons.sheets.__main__ import iter_frames
from coupons.sheets.numbers import DAMAGED, number_text, plain_number
from coupons.sheets.ods import MIME_TYPE
from coupons.sheets.workbook import LINE_BREAK, Limits
from coupons.sources import PIECE_BYTES, Source, SourceError, SourceLimits, SourceUnavailable, Text, spreadsheet
from tests.spreadsheets import Cell, Table, make_zip, ods, ods_parts, xls, xlsx, xlsx_parts
from tests.waiting import until

LIMITS = Limits(max_bytes=1_000_000_000, max_ratio=200)
WRITERS: dict[str, Callable[[Mapping[str, Table]], bytes]] = {"xlsx": xlsx, "xls": xls, "ods": ods}
each_kind = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def frames_of(content: bytes, sheet: str | int | None = None, limits: Limits = LIMITS) -> dict[bytes, bytes]:
    """The contents of all frames by their kind."""
    frames: dict[bytes, bytes] = {}
    for kind, done, frame in iter_frames(io.BytesIO(content), sheet, limits):
        assert 0 <= done <= 1
        frames[kind] = frames.get(kind, b"") + frame
    return frames


def text_of(content: bytes, sheet: str | int | None = None) -> str:
    frames = frames_of(content, sheet)
    assert REFUSED not in frames, frames[REFUSED]
    return frames.get(TEXT, b"").decode()


def rows_of(content: bytes, sheet: str | int | None = None) -> list[list[str]]:
    lines = text_of(content, sheet).replace(CONVERTED, "").split("\n")[:-1]
    return list(csv.reader(lines, delimiter=SEPARATOR, strict=True))


def refusal_of(content: bytes, sheet: str | int | None = None, limits: Limits = LIMITS) -> str:
    return frames_of(content, sheet, limits)[REFUSED].decode()


def notices_of(content: bytes, sheet: str | int | None = None) -> list[str]:
    notices: list[str] = json.loads(frames_of(content, sheet)[END])
    return notices


def read_text(content: bytes, name: str = "codes.xlsx", *, sheet: str | int | None = None, host: str = "") -> Text:
    async def pieces() -> AsyncIterator[bytes]:
        yield content

    limits = SourceLimits.from_settings(Settings(_env_file=None))
    return Text(Source(name, len(content), pieces(), host), limits, sheet=sheet)


# --- cells -----------------------------------------------------------------------------------------------------------


@each_kind
def test_cells_are_read_as_they_are_shown(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """Text cells keep leading zeros, numbers have neither `.0` nor an exponent, booleans are TRUE and FALSE."""
    table: Table = [
        ["code", "value"],
        ["00123", 10],
        ["A\tB", 12.5],
        ['say "x"', 123456789012],
        ["Łódź 日本 👩‍🚒", True],
        ["-", False],
    ]
    assert rows_of(write({"Codes": table})) == [
        ["code", "value"], ["00123", "10"], ["A\tB", "12.5"], ['say "x"', "123456789012"], ["Łódź 日本 👩‍🚒", "TRUE"],
        ["-", "FALSE"],
    ]  # fmt: skip


@each_kind
def test_a_line_break_in_a_cell_does_not_end_the_line(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """A line break in a cell becomes a line separator, so that a report's line numbers are the sheet's row numbers."""
    content = write({"Codes": [["code"], ["A\nB"], ["C"]]})
    assert rows_of(content) == [["code"], [f"A{LINE_BREAK}B"], ["C"]]


@each_kind
def test_lines_are_the_rows_of_the_sheet(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """Empty rows and columns around and in the table stay, so line n and column n are those of the sheet."""
    table: Table = [[], [], [None, "code", "x"], [None, "A1", None], [], [None, "B2", 5, None], [None, " "], []]
    content = write({"Codes": table})
    assert rows_of(content)[:6] == [[], [], ["", "code", "x"], ["", "A1"], [], ["", "B2", "5"]]


@each_kind
def test_a_number_of_more_than_15_digits_is_rejected_as_damaged(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """A spreadsheet has lost the last digits of such a number, so the line is rejected, not the file."""
    content = write({"Codes": [["code"], [123456789012345], [1234567890123456], [-4006381333931123], ["A1"]]})
    reader = CodeReader(FileFormat(kind="csv", separator=SEPARATOR))
    checked = [reader.feed(text_of(content).encode()), reader.finish()]
    assert [code for each in checked for code in each.codes] == ["123456789012345", "A1"]
    assert [(bad.line, bad.reason) for each in checked for bad in each.rejected] == [
        (3, Reason.EXCEL), (4, Reason.EXCEL),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "number", "text"),
    [
        ("General", 12.0, "12"), ("General", 0.1 + 0.2, "0.3"), ("General", 1e-7, "0.0000001"), ("General", -0.0, "0"),
        ("0", 12.5, "13"), ("00000", 123.0, "00123"), ("0.00", 12.345, "12.35"), ("0.0#", 1.0, "1.0"), ("#", 0.0, ""),
        ("#,##0.00", 1234567.5, "1234567.50"), ("0,", 12345.0, "12"), ("0.###", 1.5, "1.5"), ("0.00", -0.001, "0.00"),
        ("0%", 0.1, "10%"), ("0.00%", 0.1234, "12.34%"), ("0.00E+00", 123456789012.0, "123456789012"),
        ("# ?/?", 1.5, "1.5"), ("@", 5.0, "5"), ("[Red]0", 5.0, "5"), ("[>100]0;0.0", 5.0, "5"),
        ("0000-0000", 12345678.0, "1234-5678"), ("000-00-0000", 12345678.0, "012-34-5678"),
        ('"ABC-"0000', 12.0, "ABC-0012"),
        ('General" Stk"', 5.0, "5 Stk"), ('"m"0', 3.0, "m3"), ("\\d0", 3.0, "d3"),
        ("(000) 000-0000", 5551234567.0, "(555) 123-4567"),
        ("#,##0.00 [$€-407]", 12.5, "12.50 €"), ('_-* #,##0.00\\ "€"_-;\\-* #,##0.00\\ "€"_-', -12.5, "-12.50 €"),
        ("0_);(0)", -5.0, "(5)"), (";;;", 5.0, ""),
        ("dd/mm/yyyy", 46022.0, "2025-12-31"), ("TT.MM.JJJJ", 46022.0, "2025-12-31"), ("mmm-yy", 46022.0, "2025-12-31"),
        ("dd/mm/yyyy hh:mm", 46022.5, "2025-12-31 12:00:00"), ("h:mm", 0.25, "06:00:00"),
        ("mm:ss", 0.5 / 24, "00:30:00"),
        ("[h]:mm", 1.5, "36:00:00"), ("yyyy-mm-dd", 60.0, "1900-02-29"), ("yyyy-mm-dd", 1.0, "1900-01-01"),
        ("yyyy-mm-dd", 61.0, "1900-03-01"), ("yyyy-mm-dd", -1.0, "########"),
        ('ggge"年"m"月"d"日"', 46022.0, "2025-12-31"),
    ],
)  # fmt: skip
def test_a_number_format_decides_what_is_shown(code: str, number: float, text: str) -> None:
    """Digits, percent signs, texts and dates are shown as in the cell. A date is never mistaken for a number."""
    assert number_text(code)(number).removesuffix(CONVERTED) == text


def test_a_workbook_may_count_days_from_1904() -> None:
    """Old workbooks of macOS count days from 1904."""
    assert number_text("yyyy-mm-dd", since_1904=True)(0.0) == f"1904-01-01{CONVERTED}"
    assert number_text("yyyy-mm-dd", since_1904=True)(44560.0) == f"2025-12-31{CONVERTED}"


@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_a_whole_number_keeps_all_digits(number: int) -> None:
    """A whole number of at most 15 digits is read exactly."""
    assert plain_number(float(number)) == str(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_has_its_value_or_is_marked(number: float) -> None:
    """The text of each number is this number in 15 digits and without an exponent, or it is marked as damaged."""
    text = plain_number(number)
    if abs(number) >= 10**15:
        assert text.endswith(DAMAGED)
    else:
        assert float(text) == float(f"{number:.15g}")
        assert "e" not in text.lower()


NOON = dt.datetime(2026, 3, 1, 12)  # noqa: DTZ001 - a cell has no time zone
CONVERTED_CELLS: list[tuple[Any, str, str]] = [
    (dt.date(2026, 3, 1), "d-mmm", "2026-03-01"), (NOON, "d/m/yy h:mm", "2026-03-01 12:00:00"),
    (0.5, "h:mm", "12:00:00"), (True, "General", "TRUE"), (100_000, "0.00E+00", "100000"),
]  # fmt: skip
"""The cells that a spreadsheet makes of MAR1, 1/3/26 12:00, 12:00, TRUE and 1E5, with their texts."""


def workbook_with_converted_cells(kind: str) -> bytes:
    """A sheet whose columns are an address, a code and a value: in each row, both are the same converted cell."""
    content = io.BytesIO()
    book = xlsxwriter.Workbook(content) if kind == "xlsx" else xlwt.Workbook()
    sheet = book.add_worksheet("Codes") if kind == "xlsx" else book.add_sheet("Codes")
    for row, (value, code, _) in enumerate([("Code", "General", ""), ("AB-1X", "General", ""), *CONVERTED_CELLS]):
        style = book.add_format({"num_format": code}) if kind == "xlsx" else xlwt.easyxf(num_format_str=code)
        sheet.write(row, 0, f"a{row}@example.org" if row else "E-Mail")
        for column in (1, 2):
            sheet.write(row, column, value if row or column == 1 else "Seen", style)
    book.close() if kind == "xlsx" else book.save(content)
    return content.getvalue()


def ods_with_converted_cells() -> bytes:
    """The same sheet as OpenDocument."""
    values = [
        'date" office:date-value="2026-03-01"><text:p>1. Mrz',
        'date" office:date-value="2026-03-01T12:00:00"><text:p>12:00',
        'time" office:time-value="PT12H00M00S"><text:p>12:00', 'boolean" office:boolean-value="true"><text:p>WAHR',
        'float" office:value="100000"><text:p>1,00E+05',
    ]  # fmt: skip
    texts = [
        [f'string"><text:p>{text}' for text in row]
        for row in (["E-Mail", "Code", "Seen"], ["a1@example.org", "AB-1X", "AB-1X"])
    ]
    rows = [*texts, *([f'string"><text:p>a{row}@example.org', value, value] for row, value in enumerate(values, 2))]
    cells = (
        "".join(f'<table:table-cell office:value-type="{cell}</text:p></table:table-cell>' for cell in row)
        for row in rows
    )
    table = "".join(f"<table:table-row>{row}</table:table-row>" for row in cells)
    return ods_parts(f'<table:table table:name="Codes">{table}</table:table>')


@pytest.mark.parametrize("kind", ["xlsx", "xls", "ods"])
def test_a_code_that_a_spreadsheet_converted_is_damaged_and_a_value_is_not(kind: str) -> None:
    """Dates, times, truth values and exponents are rejected as codes, and read as attributes and in conditions."""
    content = ods_with_converted_cells() if kind == "ods" else workbook_with_converted_cells(kind)
    text = text_of(content).encode()
    codes = CodeReader(FileFormat(kind="csv", separator=SEPARATOR))
    checked = [codes.feed(text), codes.finish()]
    assert [code for each in checked for code in each.codes] == ["AB-1X"]
    assert [bad.reason for each in checked for bad in each.rejected] == [Reason.EXCEL] * len(CONVERTED_CELLS)
    recipients = RecipientReader(FileFormat(kind="csv", separator=SEPARATOR, columns=("Seen=seen",)))
    rows = [row for each in (recipients.feed(text), recipients.finish()) for row in each.attributes]
    assert [json.loads(row)["seen"] for row in rows] == ["AB-1X", *(shown for _, _, shown in CONVERTED_CELLS)]
    chosen = CodeReader(FileFormat(kind="csv", separator=SEPARATOR, where=("Seen=TRUE",)))
    found = [chosen.feed(text), chosen.finish()]
    assert [bad.reason for each in found for bad in each.rejected] == [Reason.EXCEL]


@pytest.mark.parametrize("kind", ["xlsx", "xls"])
def test_dates_and_formats_of_a_workbook_are_read(kind: str) -> None:
    """Dates are read as ISO dates in any format; zeros and percent signs are read as the cell shows them."""
    day = dt.datetime(2026, 12, 31, 14, 30)  # noqa: DTZ001 - a cell has no time zone
    formats = [(day, "dd.mm.yyyy"), (day, "m/d/yy h:mm"), (0.5, "h:mm"), (42, "00000"), (0.1, "0%"), (20, "0")]
    content = io.BytesIO()
    if kind == "xlsx":
        with xlsxwriter.Workbook(content) as book:
            sheet = book.add_worksheet("Codes")
            for row, (value, code) in enumerate(formats):
                sheet.write(row, 0, value, book.add_format({"num_format": code}))
    else:
        old = xlwt.Workbook()
        sheet = old.add_sheet("Codes")
        for row, (value, code) in enumerate(formats):
            sheet.write(row, 0, value, xlwt.easyxf(num_format_str=code))
        old.save(content)
    shown = [cells[0] for cells in rows_of(content.getvalue())]
    assert shown == ["2026-12-31", "2026-12-31 14:30:00", "12:00:00", "00042", "10%", "20"]


@pytest.mark.parametrize(
    ("attributes", "shown", "text"),
    [
        ('float" office:value="123', "00123", "00123"), ('float" office:value="1234.5', "1.234,50", "1234.50"),
        ('currency" office:value="1234.5', "1.234,50 €", "1234.50 €"),
        ('float" office:value="1234567', "1,234,567", "1234567"),
        ('float" office:value="12345678', "1234-5678", "1234-5678"),
        ('float" office:value="12', "ABC-0012", "ABC-0012"),
        ('percentage" office:value="0.125', "12,5%", "12.5%"),
        ('float" office:value="123456789012', "1,23E+11", "123456789012"),
        ('float" office:value="-12.5', "-12,50", "-12.50"), ('float" office:value="1.5', "1 1/2", "1.5"),
        ('float" office:value="5', "", "5"),
        ('float" office:value="1E+15', "1000000000000000", f"1.00000000000000E+15{DAMAGED}"),
        ('date" office:date-value="2026-12-31', "31.12.26", "2026-12-31"),
        ('date" office:date-value="2026-12-31T14:30:00', "31.12.26 14:30", "2026-12-31 14:30:00"),
        ('time" office:time-value="PT14H30M00S', "14:30", "14:30:00"),
        ('boolean" office:boolean-value="true', "WAHR", "TRUE"),
        ('string" calcext:value-type="error', "#N/A", "#N/A"), ('string" office:string-value="A1', "A1", "A1"),
    ],
)  # fmt: skip
def test_an_ods_cell_is_read_by_value_and_shown_text(attributes: str, shown: str, text: str) -> None:
    """The shown text decides which digits are shown, the value what they mean in the author's country."""
    paragraph = f"<text:p>{shown}</text:p>" if shown else ""
    cell = f'<table:table-cell office:value-type="{attributes}">{paragraph}</table:table-cell>'
    content = ods_parts(f'<table:table table:name="A"><table:table-row>{cell}</table:table-row></table:table>')
    assert rows_of(content) == [[text]]


def test_an_xlsx_of_any_program_is_read() -> None:
    """Prefixes, missing places, rich and inline texts, escapes, cached formulas, errors and ISO dates are read."""
    sheet = (
        "<x:row><x:c t='s'><x:v>0</x:v></x:c><x:c t='inlineStr'><x:is><x:t>in</x:t></x:is></x:c></x:row>"
        "<x:row r='3'><x:c r='B3' t='str'><x:f>A1&amp;\"x\"</x:f><x:v>_x0041_1_x005F_x000D_</x:v></x:c>"
        "<x:c r='C3'><x:f>1/3</x:f><x:v>0.333333333333333314</x:v></x:c><x:c r='D3' t='e'><x:v>#N/A</x:v></x:c></x:row>"
        "<x:row r='4'><x:c r='A4' t='d'><x:v>2026-12-31T10:00:00</x:v></x:c><x:c r='B4' s='1'><x:v>46022</x:v></x:c>"
        "<x:c r='AA4' t='b'><x:v>1</x:v></x:c></x:row>"
    )
    content = xlsx_parts(
        sheet,
        prefix="x",
        styles="<cellXfs><xf numFmtId='0'/><xf numFmtId='14'/></cellXfs>",
        texts="<si><r><t>A</t></r><r><t xml:space='preserve'> B</t></r><rPh><t>x</t></rPh></si>",
    )
    assert rows_of(content) == [
        ["A B", "in"], [], ["", "A1_x000D_", "0.333333333333333", "#N/A"],
        ["2026-12-31 10:00:00", "2025-12-31", *[""] * 24, "TRUE"],
    ]  # fmt: skip


def test_a_formula_without_a_stored_result_is_mentioned() -> None:
    """Some libraries write formulas without their results. Such a cell is empty, and a notice counts them."""
    content = xlsx_parts("<row><c t='str'><f>B1</f></c><c><f>1+1</f><v>2</v></c></row>")
    assert rows_of(content) == [["", "2"]]
    assert notices_of(content) == [
        "1 formula without a stored result is empty: save the file in a spreadsheet program",
    ]


def test_a_full_disk_is_no_damage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the texts cannot be written to a temporary file, the import is retried later."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    frames = frames_of(xlsx({"Codes": [["A1"]]}))
    assert frames[UNAVAILABLE].decode().startswith("cannot be unpacked in TMPDIR: ")


def test_an_ods_repeats_cells_and_rows() -> None:
    """Cells and rows are read as often as they are repeated, without comments and repeated white space."""
    content = ods_parts(
        '<table:table table:name="A"><table:table-row table:number-rows-repeated="2"><table:table-cell '
        'table:number-columns-repeated="3"/></table:table-row><table:table-row table:number-rows-repeated="2" '
        'table:visibility="filter"><table:table-cell table:number-columns-repeated="2" office:value-type="string">'
        "<office:annotation><text:p>note</text:p></office:annotation><text:p>A <text:span>B</text:span>\n  C</text:p>"
        '</table:table-cell><table:table-cell table:number-columns-repeated="16382"/></table:table-row>'
        '<table:table-row table:number-rows-repeated="1048572"><table:table-cell/></table:table-row></table:table>'
    )
    assert rows_of(content) == [[], [], ["A B C", "A B C"], ["A B C", "A B C"]]
    assert notices_of(content) == ["2 hidden rows were read as well"]


def test_a_row_that_ends_early_is_not_mentioned() -> None:
    """A sheet has no missing cells: the rows of its text end with their last cell that is not empty."""
    content = text_of(xlsx({"Codes": [["code", "note"], ["A1-B2"], ["C3-D4", "x"]]})).encode()
    for is_spreadsheet, mentioned in ((True, 0), (False, 1)):
        reader = CodeReader(FileFormat(kind="csv", separator=SEPARATOR, is_spreadsheet=is_spreadsheet))
        assert [*reader.feed(content).codes, *reader.finish().codes] == ["A1-B2", "C3-D4"]
        assert sum("missing cells" in notice for notice in reader.notices) == mentioned


# --- tables of hypothesis --------------------------------------------------------------------------------------------

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters=f"\ufffe\uffff{CONVERTED}"),
    max_size=12,
) | st.sampled_from(
    ["00123", "1234567890123456789", "a\nb", "=1+1", "'x", '"', "\t", "1E5", "2026-12-31", "_x0041_", "#N/A"]
)
TABLES = st.lists(st.lists(TEXTS | st.none(), min_size=1, max_size=4), min_size=1, max_size=6)


@each_kind
@settings(max_examples=60, deadline=None)
@given(table=TABLES)
def test_a_table_of_texts_comes_back_exactly(
    write: Callable[[Mapping[str, Table]], bytes], table: list[list[str | None]]
) -> None:
    """A table that a spreadsheet program writes comes back exactly: zeros, long digits, Unicode, line breaks."""
    found = rows_of(write({"Codes": table}))
    wanted = [_trimmed([(cell or "").replace("\n", LINE_BREAK) for cell in cells]) for cells in table]
    assert _without_blank_rows(found) == _without_blank_rows(wanted)


def _without_blank_rows(rows: list[list[str]]) -> list[tuple[int, list[str]]]:
    return [(number, cells) for number, cells in enumerate(rows, 1) if any(map(str.strip, cells))]


def _trimmed(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    return cells


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            TEXTS | st.floats(-1e14, 1e14) | st.integers(-(10**14), 10**14) | st.booleans() | st.none(), max_size=3
        ),
        min_size=1,
        max_size=4,
    )
)
def test_our_reader_and_calamine_read_the_same(table: list[list[Cell]]) -> None:
    """Two independent readers find the same values in the same cells of an .xlsx file."""
    content = xlsx({"Codes": table})
    theirs = CalamineWorkbook.from_filelike(io.BytesIO(content)).get_sheet_by_index(0).to_python(skip_empty_area=False)
    shown = [_trimmed([_as_text(cell) for cell in cells]) for cells in theirs]
    ours = rows_of(content)
    assert [cells for cells in ours if any(map(str.strip, cells))] == [
        cells for cells in shown if any(map(str.strip, cells))
    ]


def _as_text(cell: object) -> str:
    match cell:
        case bool():
            return str(cell).upper()
        case int() | float():
            return plain_number(float(cell))
    return str(cell).replace("\n", LINE_BREAK)


# --- sheets ----------------------------------------------------------------------------------------------------------

TWO = {"Empty": [], "Codes": [["A1"]], "Büro": [["B2"]]}


@each_kind
@pytest.mark.parametrize(
    ("sheet", "cell"), [(None, "A1"), ("Codes", "A1"), ("büro ", "B2"), (3, "B2"), ("2", "A1"), (2, "A1")]
)
def test_a_sheet_is_chosen_by_name_or_number(
    write: Callable[[Mapping[str, Table]], bytes], sheet: str | int | None, cell: str
) -> None:
    """The default is the first sheet with text."""
    assert rows_of(write(TWO), sheet) == [[cell]]


@each_kind
def test_an_unknown_sheet_is_refused(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """The error lists the sheets."""
    for sheet in ("Kodes", 4, 0, "4", -1):
        assert refusal_of(write(TWO), sheet) == (
            f"has no sheet {sheet!r}: the sheets are 1 'Empty', 2 'Codes', 3 'Büro' (--sheet)"
        )


def test_a_notice_says_which_of_several_sheets_was_read() -> None:
    """The notice lists the sheets, unless the user has chosen one."""
    wanted = "only sheet 'Codes' was read; the sheets are 1 'Empty', 2 'Codes', 3 'Büro' (--sheet)"
    assert notices_of(xlsx(TWO)) == [wanted]
    assert notices_of(xlsx(TWO), "Codes") == notices_of(xlsx({"Codes": [["A1"]]})) == []


INFO: Table = [["Instructions: please read this"], ["Use each code once"]]
LISTS: dict[str, Table] = {
    "Codes": [["Code"], ["AB-1X"]],
    "Kunden": [["Export"], ["E-Mail", "Ort"], ["ada@example.org"]],
}


@each_kind
@pytest.mark.parametrize(("name", "table"), LISTS.items())
def test_a_sheet_with_a_known_header_is_preferred_to_notes(
    write: Callable[[Mapping[str, Table]], bytes], name: str, table: Table
) -> None:
    """Instructions and a table of properties before the list are not read, and a notice names the sheet."""
    others: list[Table] = [INFO, [["Info"]], [["Author", "Ada"], ["Version", 3]]]
    for notes in others:
        content = write({"Info": notes, name: table})
        assert rows_of(content) == [[str(cell) for cell in row] for row in table]
        assert notices_of(content)[0].startswith(f"only sheet {name!r} was read")
    assert rows_of(write({name: table, "Info": INFO, "Used": LISTS["Codes"]}))[0] == list(table[0])


@each_kind
def test_several_sheets_without_a_likely_one_are_refused(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """The error lists the sheets and names the option."""
    for sheets in ({"Info": INFO, **LISTS}, {"Info": INFO, "Notes": INFO}, {"A": INFO, "B": [["A1"]], "C": [["B2"]]}):
        message = refusal_of(write(sheets))
        assert message.startswith(f"has {len(sheets)} sheets with text, of which none is clearly the list")
        assert all(repr(name) in message for name in sheets)
        assert "--sheet" in message


def test_hidden_rows_sheets_and_merged_cells_are_mentioned() -> None:
    """Hidden rows are read, a hidden sheet only if no other has text, merged cells have their text in the first one."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content) as book:
        book.add_worksheet("Front")
        sheet = book.add_worksheet("Codes")
        sheet.hide()
        sheet.write_column(0, 0, ["A1", "A2", "A3"])
        sheet.merge_range(0, 1, 2, 1, "M")
        sheet.set_row(1, None, None, {"hidden": True})
    assert rows_of(content.getvalue()) == [["A1", "M"], ["A2"], ["A3"]]
    assert notices_of(content.getvalue())[1:] == [
        "sheet 'Codes' is hidden", "1 hidden row was read as well",
        "1 range of merged cells: only its first cell has a text",
    ]  # fmt: skip


@each_kind
def test_an_empty_workbook_has_no_text(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """The import then reports that the file is empty."""
    assert TEXT not in frames_of(write({"Codes": [], "More": []}))


# --- files that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_damaged_spreadsheet_is_refused(write: Callable[[Mapping[str, Table]], bytes]) -> None:
    """A damaged spreadsheet gives a clear error or its text, but never another exception."""
    content = write({"Codes": [["code", 5], ["A1", 0.5], ["B2", True]] * 30})
    for cut in range(1, len(content), max(1, len(content) // 60)):
        for damaged in (content[:cut], content[:cut] + b"\xff\0\x7f" + content[cut + 3 :]):
            frames = frames_of(damaged)
            assert END in frames or frames[REFUSED]


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("<row r='2'/><row r='1'/>", "is damaged"), ("<row r='1048577'/>", "is damaged"),
        ("<row><c r='B1'><v>1</v></c><c r='A1'><v>1</v></c></row>", "is damaged"),
        ("<row><c r='XFE1'><v>1</v></c></row>", "is damaged"),
        ("<row><c t='s'><v>7</v></c></row>", "is damaged"), ("<row><c><v>x</v></c></row>", "is damaged"),
        ("<row><c><v>nan</v></c></row>", "is damaged"), ("<row>", "is damaged"),
    ],
)  # fmt: skip
def test_a_sheet_with_impossible_cells_is_damaged(sheet: str, message: str) -> None:
    """Cells out of order or outside of a sheet, unknown texts and numbers that are none show that a file is damaged."""
    assert refusal_of(xlsx_parts(sheet)).startswith(message)


def test_a_document_type_is_refused() -> None:
    """Entities of a document type could multiply a small file, or read other files."""
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><worksheet><sheetData/></worksheet>'
    parts = zipfile.ZipFile(io.BytesIO(xlsx_parts("")))
    members: dict[str, str | bytes] = {name: parts.read(name) for name in parts.namelist()}
    assert refusal_of(make_zip({**members, "xl/worksheets/sheet1.xml": bomb})).startswith("is damaged")


def test_limits_hold_for_the_parts_of_a_spreadsheet() -> None:
    """The limits of sources hold for the XML too: a part of a few kilobytes could contain gigabytes of white space."""
    content = xlsx_parts("<row r='1'/>" + " " * 4 * PIECE_BYTES)
    assert "times its size" in refusal_of(content)
    assert "exceeds the limit" in refusal_of(content, limits=Limits(max_bytes=PIECE_BYTES, max_ratio=200))


def encrypted_workbook() -> bytes:
    """An .xls file whose records are encrypted: it has the record FILEPASS."""
    content = xls({"Codes": [["A1"]]})
    return content.replace(b"\x42\x00\x02\x00\xb0\x04", b"\x2f\x00\x02\x00\x00\x00", 1)  # CODEPAGE


def compound_file(stream: str) -> bytes:
    """An old Office document with one stream. Excel encrypts an .xlsx file as such a document."""
    content = xls({"Codes": [["A1"]]})
    place = content.index("Workbook".encode("utf-16-le"))
    name = f"{stream}\0".encode("utf-16-le")
    return content[:place] + name.ljust(64, b"\0") + len(name).to_bytes(2, "little") + content[place + 66 :]


PASSWORD = "is protected by a password: save it without one"
OTHERS = {
    "encrypted xls": (encrypted_workbook, PASSWORD),
    "encrypted xlsx": (lambda: compound_file("EncryptedPackage"), PASSWORD),
    "doc": (lambda: compound_file("WordDocument"), "looks like a Word document"),
    "ppt": (lambda: compound_file("PowerPoint Document"), "looks like a PowerPoint file"),
    "msg": (lambda: compound_file("__properties"), "looks like an old Office document"),
    "encrypted ods": (lambda: ods_parts("", manifest="<m:encryption-data xmlns:m='m'/>"), PASSWORD),
    "encrypted package of ods": (lambda: make_zip({"mimetype": MIME_TYPE, "encrypted-package": b"x"}), PASSWORD),
    "docx": (lambda: make_zip({"[Content_Types].xml": "", "word/document.xml": ""}), "looks like a Word document"),
    "pptx": (lambda: make_zip({"[Content_Types].xml": "", "ppt/presentation.xml": ""}), "looks like a PowerPoint file"),
    "odt": (lambda: make_zip({"mimetype": MIME_TYPE[:-11] + b"text"}), "looks like a text document (OpenDocument)"),
    "odb": (lambda: make_zip({"mimetype": MIME_TYPE[:-11] + b"base"}), "looks like an OpenDocument file that is not"),
    "epub": (lambda: make_zip({"mimetype": "application/epub+zip"}), "looks like an e-book (EPUB)"),
    "xlsb": (lambda: make_zip({"[Content_Types].xml": "", "xl/workbook.bin": ""}), "is a binary Excel file (.xlsb)"),
    "numbers": (lambda: make_zip({"Index/Document.iwa": ""}), "looks like an Apple iWork document"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
def test_other_documents_are_refused_by_name(content: Callable[[], bytes], message: str) -> None:
    """Encrypted spreadsheets and other documents are refused, and the error says what they are."""
    assert refusal_of(content()).startswith(message)


# --- as the text of a source -----------------------------------------------------------------------------------------


async def whole(text: Text) -> bytes:
    return b"".join([piece async for piece in text])


@each_kind
@pytest.mark.parametrize("packed", ["plain", "gzip", "zip"])
async def test_a_spreadsheet_is_recognized_by_its_content(
    write: Callable[[Mapping[str, Table]], bytes], packed: str
) -> None:
    """A spreadsheet is read by its own process, also with another name and in a .gz or .zip."""
    content = write({"Codes": [["code"], ["A1"]]})
    match packed:
        case "gzip":
            content = gzip.compress(content)
        case "zip":
            content = make_zip({"folder/codes.bin": content})
    text = read_text(content, "upload.csv")
    assert await whole(text) == b"code\nA1\n"
    assert text.name == f"{'codes.bin' if packed == 'zip' else 'upload.csv'}, sheet Codes"
    assert text.source_bytes == len(content)
    given = FileFormat(encoding="cp1252", separator=";", header=True)
    assert text.format_for(given) == FileFormat(kind="csv", separator=SEPARATOR, header=True, is_spreadsheet=True)
    assert text.notices == ["ignored for a spreadsheet: separator, encoding"]


async def test_a_large_spreadsheet_gives_the_same_pieces_as_its_csv_text() -> None:
    """All pieces but the last have the size of a piece, so that an import can resume at each of them."""
    content = xlsx({"Codes": [[f"CODE-{number:07}", "x" * 30] for number in range(60_000)]})
    pieces = [piece async for piece in read_text(content)]
    assert [len(piece) for piece in pieces[:-1]] == [PIECE_BYTES] * (len(pieces) - 1)
    assert b"".join(pieces) == b"".join(b"CODE-%07d\t%s\n" % (number, b"x" * 30) for number in range(60_000))


async def test_errors_of_a_spreadsheet_contain_its_name() -> None:
    """An error contains the file's name and the remedy."""
    with pytest.raises(SourceError, match=r"^codes.xlsx has no sheet 'B': the sheets are 1 'A' \(--sheet\)$"):
        await whole(read_text(xlsx({"A": [["A1"]]}), sheet="B"))
    with pytest.raises(SourceError, match=r"^codes.csv is not a spreadsheet: omit --sheet$"):
        await whole(read_text(b"A1\n", "codes.csv", sheet="B"))
    with pytest.raises(SourceError, match=r"^codes.gz is compressed twice"):
        await whole(read_text(gzip.compress(make_zip({"a.txt": "A1"})), "codes.gz"))


async def test_a_page_of_a_host_is_refused_with_its_name() -> None:
    """A page that a host sends instead of a file is refused, and the error contains the host."""
    with pytest.raises(SourceError, match=r"^codes.csv, which shop.example sent, looks like a web page"):
        await whole(read_text(b"<!DOCTYPE html><html>", "codes.csv", host="shop.example"))


@pytest.mark.parametrize(
    "answer",
    [b"Unauthorized", b"404 Not Found\n", b"Access denied.\n\nPlease log in.\n", b"Error 403: Forbidden", b"404",
     b"retry in 30 seconds", "\ufeffZugriff verweigert".encode()],
)  # fmt: skip
async def test_an_answer_in_words_is_not_a_code(answer: bytes) -> None:
    """A host that answers with a word or a sentence has not sent a list. From a file, a word may be a code."""
    with pytest.raises(SourceError, match=r"^codes.csv: shop.example answered with a line of text instead of a list"):
        await whole(read_text(answer, "codes.csv", host="shop.example"))
    assert await whole(read_text(answer, "codes.csv")) == answer


@pytest.mark.parametrize(
    "content", [b"AB12-CD\n", b"AB12 CD34 EF56", b"code", b"E-Mail;Name", b"ada@example.org", b"SPRING\nSUMMER\n", b""]
)
async def test_a_short_list_of_a_host_is_read(content: bytes) -> None:
    """One code with a digit, one address, only a header, or several words in lines of their own are a list."""
    assert await whole(read_text(content, "codes.csv", host="shop.example")) == content


async def test_an_ended_process_is_retried_and_a_crash_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system ends the process, a later retry may help. If the process fails, each retry would fail."""
    content = xlsx({"Codes": [["A1"]]})
    for command, error in (("os.kill(os.getpid(), 9)", SourceUnavailable), ("os.abort()", SourceError)):
        monkeypatch.setattr(spreadsheet, "PROGRAM", ("-c", f"import os; {command}"))
        with pytest.raises(error, match=r"^codes.xlsx"):
            await whole(read_text(content))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found by /proc")
async def test_a_process_ends_with_its_reader() -> None:
    """An import that stops in the middle of a sheet leaves no process."""
    text = read_text(xlsx({"Codes": [[f"CODE-{number:07}", "x" * 90] for number in range(40_000)]}))
    pieces = aiter(text)
    assert len(await anext(pieces)) == PIECE_BYTES
    assert children()
    await pieces.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
    del pieces, text
    gc.collect()
    await until(lambda: not children())


def children() -> list[str]:
    found = [path.read_text(encoding="ascii").split() for path in Path("/proc/self/task").glob("*/children")]
    return [pid for pids in found for pid in pids if b"coupons.sheets" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_text_of_a_sheet_with_gaps_comes_in_parts() -> None:
    """A part of the text has a limited size, also if every second row is empty or the rows have a gap."""
    rows = [
        f"<row r='{number}'><c t='inlineStr'><is><t>{'x' * 2_000}</t></is></c></row>" for number in range(1, 801, 2)
    ]
    content = xlsx_parts("".join(rows) + "<row r='600001'><c><v>1</v></c></row><row r='600003'><c><v>2</v></c></row>")
    parts = [frame for kind, _, frame in iter_frames(io.BytesIO(content), None, LIMITS) if kind == TEXT]
    assert max(map(len, parts)) < PIECE_BYTES
    assert len(parts) > 3
    assert b"".join(parts).count(b"\n") == 600_003


def test_memory_does_not_grow_with_an_xlsx_file() -> None:
    """A sheet of 30,000 rows with two texts takes as much memory as one of 10,000: there is one buffer."""
    peaks = []
    for rows in (10_000, 30_000):
        table = [[f"CODE-{number:07}", f"{'x' * 40}{number}"] for number in range(rows)]
        file = io.BytesIO(xlsx({"Codes": table}))
        tracemalloc.start()
        for _ in iter_frames(file, None, LIMITS):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + PIECE_BYTES
