"""Reads files of codes, TXT or CSV, as their bytes arrive. The reader never holds a whole file.

The caller feeds bytes and gets the checked codes of the complete lines. A worker feeds the bytes of a source, the
command line those of a local file.

    reader = CodeReader(FileFormat(), "spring.csv")
    for chunk in chunks:
        process(reader.feed(chunk))
    process(reader.finish())

Bytes become lines (`Lines`), lines become rows of one width (`Table`), and rows become codes. Where a wrong guess could
change a code, the reader does not guess: it raises FileError.
"""

import re
from operator import attrgetter
from typing import Literal

from coupons.files.codes import CheckedCodes, check_codes
from coupons.files.csv_rows import SEP_LINE, SEPARATORS, Rows, Table
from coupons.files.decoding import FileError, Lines
from coupons.files.format import (
    CODE_COLUMNS,
    FileFormat,
    describe_columns,
    find_column,
    looks_like_header,
    normalized_header,
    same_name,
)


class CodeReader:
    """Reads and checks the codes of a file: one code per line (txt), or one column of codes (csv).

    The code column of a csv file is the given column, else the column with a known name (`CODE_COLUMNS`), else the only
    column. If the kind of the file is not given, it is detected from the file's name and first line. After the first
    line, `description` contains the format in words, without the content of any cell.

    `feed` and `finish` raise FileError; the reader cannot be used afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self.description = ""
        self._format = file_format
        self._name = name
        self._kind = file_format.kind
        self._lines = Lines(file_format.encoding, name)
        self._table = Table(file_format.separator, name, self._begin)
        self._column = 0

    @property
    def notices(self) -> list[str]:
        """What was assumed, skipped or changed, one sentence each, without a code."""
        return []

    def feed(self, data: bytes) -> CheckedCodes:
        return self._check(*self._lines.feed(data))

    def finish(self) -> CheckedCodes:
        return self._check(*self._lines.feed(b"", final=True), final=True)

    def _check(self, first: int, lines: list[str], *, final: bool = False) -> CheckedCodes:
        self._kind = self._kind or _detect_kind(lines, self._format, self._name)
        if self._kind == "csv":
            return self._check_rows(self._table.feed(first, lines, final=final))
        if not self.description and any(map(str.strip, lines)):
            self.description = f"txt, {self._lines.encoding}"
        return check_codes(range(first, first + len(lines)), lines)

    def _check_rows(self, rows: Rows) -> CheckedCodes:
        if not rows.columns:
            return CheckedCodes([], [], [], rows.blank)
        self.description = self.description or f"csv, {self._table.describe(self._column + 1)}, {self._lines.encoding}"
        checked = check_codes(rows.lines, rows.columns[self._column])
        rejected = sorted(rows.rejected + checked.rejected, key=attrgetter("line"))
        return CheckedCodes(checked.lines, checked.codes, rejected, rows.blank + checked.blank)

    def _begin(self, first_row: list[str]) -> tuple[int, bool]:
        self._column, has_header = _code_column(first_row, self._format)
        return len(first_row), has_header


def _code_column(row: list[str], file_format: FileFormat) -> tuple[int, bool]:
    """The index of the column with the codes, and whether the first row is a header."""
    header = [""] * len(row) if file_format.header is False else row
    index = find_column(header, file_format.column, CODE_COLUMNS)
    if index is None and len(row) > 1:
        raise FileError(f"specify the code column by name or number ({describe_columns(row)})")
    return index or 0, _is_header(row, index or 0, file_format)


def _is_header(row: list[str], index: int, file_format: FileFormat) -> bool:
    """Whether the first row is a header. A header that is mistaken for a code would be mailed.

    So if a column is given, a row of several cells without digits is a header as well.
    """
    column = file_format.column
    if file_format.header is not None:
        return file_format.header
    if any(normalized_header(cell) in CODE_COLUMNS for cell in row) or (
        isinstance(column, str) and same_name(row[index], column)
    ):
        return True
    return column is not None and len(row) > 1 and looks_like_header(row)


def _detect_kind(lines: list[str], file_format: FileFormat, name: str) -> Literal["txt", "csv"] | None:
    """The kind of the file by its first line that is not blank. None if all lines so far are blank."""
    first = next(filter(str.strip, lines), None)
    if first is None:
        return None
    if file_format.has_columns or name.lower().endswith((".csv", ".tsv")) or normalized_header(first) in CODE_COLUMNS:
        return "csv"
    return "csv" if re.search(f'["{SEPARATORS}]', first) or SEP_LINE(first.strip(" ")) else "txt"
