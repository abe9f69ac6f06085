"""Turns the lines of a CSV file into columns of cells. All rows have as many cells as the first row."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, repeat
from operator import not_

from coupons.files.decoding import MAX_RECORD_CHARS, FileError, Lines
from coupons.files.format import FileFormat
from coupons.files.rejections import Reason, Rejected, reject

SEPARATORS = ";,\t|"

SEP_LINE = re.compile(r'"?sep=([^"])"?', re.IGNORECASE).fullmatch  # Excel declares the separator like this in line 1


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table: `columns[c][i]` is a cell of the row that begins at line `lines[i]`. Cells are not stripped.

    `columns` is empty until the first row that is not blank has been read.
    """

    lines: Sequence[int]
    columns: Sequence[Sequence[str]]
    rejected: list[Rejected]
    blank: int


class Table:
    """Turns lines into rows of one width. `begin` gets the first row; it returns the width and whether it is a header.

    A quoted record may continue on later lines. Incomplete records are kept and parsed again with the next lines.
    `feed` raises FileError.
    """

    def __init__(self, separator: str | None, name: str, begin: Callable[[list[str]], tuple[int, bool]]) -> None:
        self._separator = separator
        self._name = name
        self._begin = begin
        self._width = 0
        self._has_header = False
        self._held: list[str] = []

    def describe(self, column: int) -> str:
        """The detected format in words, with the given 1-based column. It is complete once the first row was read."""
        separator = "TAB" if self._separator == "\t" else f'"{self._separator or ","}"'
        return f"separator {separator}, column {column}, {'with' if self._has_header else 'without'} a header"

    def feed(self, first: int, lines: list[str], *, final: bool = False) -> Rows:
        if first == 1 and lines and (declared := SEP_LINE(lines[0].strip(" "))):
            self._separator = self._separator or declared[1]
            first, lines = 2, lines[1:]
        if columns := self._plain_columns(lines):
            return Rows(range(first, first + len(lines)), columns, [], 0)
        numbers, rows = self._records(first, lines, final=final)
        leading = 0
        if not self._width:
            leading = next((index for index, row in enumerate(rows) if _has_text(row)), len(rows))
            if leading < len(rows):
                self._open(numbers[leading], rows[leading])
            numbers, rows = numbers[leading + self._has_header :], rows[leading + self._has_header :]
        return _of_width(self._width, numbers, rows, blank=leading)

    def _open(self, line: int, first_row: list[str]) -> None:
        try:
            self._width, self._has_header = self._begin(first_row)
        except FileError as error:
            raise FileError(f"{self._name}, line {line}: {error}") from None

    def _plain_columns(self, lines: list[str]) -> list[list[str]] | None:
        """The columns, if each line is one row and either all or no cells are quoted, as most programs write files.

        Returns None otherwise. A million rows of three cells take 0.4 s (0.6 s if quoted); the csv module takes 1.5 s.
        """
        if not (self._separator and self._width and lines) or self._held:
            return None
        between = self._separator
        if lines[0][:1] == '"':
            if min(map(len, lines)) < 2 or not all(line[0] == line[-1] == '"' for line in lines):
                return None
            lines, between = [line[1:-1] for line in lines], f'"{between}"'
        if set(map(str.count, lines, repeat(between))) != {self._width - 1}:
            return None
        text = between.join(lines)
        cells = text.split(between)
        if text.count('"') != between.count('"') * (len(cells) - 1):  # otherwise no cell contains a quote
            return None
        return [cells[column :: self._width] for column in range(self._width)]

    def _records(self, first: int, lines: list[str], *, final: bool) -> tuple[Sequence[int], list[list[str]]]:
        if not lines and not final:
            return [], []
        first, lines = first - len(self._held), self._held + lines
        if self._separator is None and (opening := next(filter(str.strip, lines), None)):
            self._separator = _separator(opening)
        separator = self._separator or ","
        # Without strict, "AB"C would be read as ABC. With skipinitialspace, a quote after spaces begins a quoted cell.
        text = [line + "\n" for line in lines]
        reader = csv.reader(text, delimiter=separator, skipinitialspace=separator != " ", strict=True)
        rows: list[list[str]] = []
        broken: csv.Error | None = None
        try:
            rows.extend(reader)  # keeps the rows before the invalid row
        except csv.Error as error:
            broken = error
        numbers = self._numbers(first, lines, rows, lines_read=reader.line_num)
        done = numbers[-1] - first
        if broken:
            self._check_size(first + done, lines[done : reader.line_num])
            if final or reader.line_num < len(lines):  # otherwise the record continues on later lines
                raise FileError(f"{self._name}, line {first + done}: invalid quoting ({broken})") from broken
        self._held = lines[done:]
        return numbers[:-1], rows

    def _numbers(self, first: int, lines: list[str], rows: list[list[str]], *, lines_read: int) -> Sequence[int]:
        """The first line of each row, and the line after the last row."""
        if len(rows) == lines_read:
            return range(first, first + len(rows) + 1)
        heights = [1 + "".join(row).count("\n") for row in rows]
        numbers = list(accumulate(heights, initial=first))
        for number, height in zip(numbers, heights, strict=False):
            self._check_size(number, lines[number - first : number - first + height])
        return numbers

    def _check_size(self, line: int, record: list[str]) -> None:
        if len(record) > 1 and sum(map(len, record)) > MAX_RECORD_CHARS:
            raise FileError(
                f"{self._name}, line {line}: record exceeds {MAX_RECORD_CHARS} characters; is a closing quote missing?"
            )


class RowReader:
    """Reads the rows below the header line of a CSV file. `header`, with stripped cells, is set before the first row.

    The constructor, `feed` and `finish` raise FileError; the reader cannot be used afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        if file_format.kind == "txt" or file_format.header is False:
            raise FileError(f"{name} must be read as a csv file with a header line")
        self.header: list[str] = []
        self._lines = Lines(file_format.encoding, name)
        self._table = Table(file_format.separator, name, self._begin)

    def feed(self, data: bytes) -> Rows:
        return self._table.feed(*self._lines.feed(data))

    def finish(self) -> Rows:
        return self._table.feed(*self._lines.feed(b"", final=True), final=True)

    def describe(self, column: int) -> str:
        """The detected format in words, with the given 1-based column. It is complete once the header was read."""
        return f"csv, {self._table.describe(column)}, {self._lines.encoding}"

    def _begin(self, first_row: list[str]) -> tuple[int, bool]:
        """Set the header without the nameless columns at its end, which spreadsheets add.

        A row with text in one of these columns is rejected.
        """
        self.header = [cell.strip() for cell in first_row]
        while not self.header[-1]:
            self.header.pop()
        return len(self.header), True


def _separator(line: str) -> str:
    """The separator that divides the line into the most cells; a comma (RFC 4180) if no separator divides it."""

    def cells(separator: str) -> int:
        return len(next(csv.reader([line], delimiter=separator, skipinitialspace=True), ()))

    best = max(SEPARATORS, key=cells)
    return best if cells(best) > 1 else ","


def _of_width(width: int, numbers: Sequence[int], rows: list[list[str]], blank: int) -> Rows:
    """Reject rows that have another width than the first row: their codes may be in another column.

    Additional empty cells at the end of a row are harmless and are removed.
    """
    if set(map(len, rows)) <= {width}:
        return Rows(numbers, _columns(width, rows), [], blank)
    fitting = [len(row) == width or (len(row) > width and not _has_text(row[width:])) for row in rows]
    others = list(compress(zip(numbers, rows, strict=True), map(not_, fitting)))
    wrong_width = [_reject_row(number, row) for number, row in others if _has_text(row)]
    return Rows(
        list(compress(numbers, fitting)),
        _columns(width, [row[:width] for row in compress(rows, fitting)]),
        wrong_width,
        blank + len(others) - len(wrong_width),
    )


def _reject_row(line: int, row: list[str]) -> Rejected:
    """The rejected row, with its cells joined by tabs.

    `reject` turns each tab into U+FFFD, so an unfixed row is rejected again when it is re-imported.
    """
    return reject(line, "\t".join(row if len(row) > 1 else [*row, ""]), Reason.COLUMNS)


def _columns(width: int, rows: list[list[str]]) -> Sequence[Sequence[str]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _has_text(row: list[str]) -> bool:
    return any(map(str.strip, row))
