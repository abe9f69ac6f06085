"""Turns the lines of a file into columns of cells. All rows have as many cells as the header."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from coupons.files.csv_records import parse_records
from coupons.files.decoding import FileError, OptionError
from coupons.files.format import FileFormat
from coupons.files.layout import HeadRow, Layout, Opening, cut_head, find_layout, skipped_lines
from coupons.files.notices import counted
from coupons.files.rejections import Reason, Rejected, reject, shown_text

NOTHING_FOUND = "check the quotes and comments, or use --skip-lines N"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table: `columns[c][i]` is a cell of the row that begins at line `lines[i]`. Cells are not stripped.

    `columns` is empty until the first row of data has been read. A rejected row has all its cells in `extra`, unless
    its quotes are invalid.
    """

    lines: Sequence[int]
    columns: Sequence[Sequence[str]]
    rejected: list[Rejected]
    blank: int


class Table:
    """Turns lines into rows of one width. A txt file is a table of one column without separators and quotes.

    `begin` gets the rows of the head, of which there is at least one, and returns how the table begins. A quoted record
    may continue on later lines. Incomplete records are kept and parsed again with the next lines. `feed` raises
    FileError.
    """

    def __init__(
        self,
        file_format: FileFormat,
        name: str,
        begin: Callable[[list[HeadRow]], Opening],
        is_table: Callable[[list[str]], bool],
    ) -> None:
        self._format = file_format
        self._name = name
        self._begin = begin
        self._is_table = is_table
        self._layout: Layout | None = None
        self._opening: Opening | None = None
        self._held: list[str] = []
        self._doubtful: set[int] = set()
        self._filled_up = self._repaired = 0

    @property
    def kind(self) -> str:
        return self._layout.kind if self._layout else ""

    @property
    def notices(self) -> list[str]:
        """What the layout assumes, and how many rows were completed or repaired."""
        found = list(self._layout.notices) if self._layout else []
        if self._filled_up and not self._format.is_spreadsheet:
            found.append(f"{counted(self._filled_up, 'row')} without all cells: the missing cells at the end are empty")
        if self._repaired:
            found.append(f'{counted(self._repaired, "row")} with unusual quotes: blanks after a quote, or \\" inside')
        return found

    def describe(self, column: int) -> str:
        """The detected format in words, with the given 1-based column. It is complete once the head was read."""
        layout, opening = self._layout, self._opening
        header = "with" if opening and opening.header_line else "without"
        if not layout or layout.kind == "txt":
            return "txt" + ", with a header" * bool(opening and opening.header_line)
        separator = "TAB" if layout.separator == "\t" else f'"{layout.separator}"'
        return f"csv, separator {separator}, column {column}, {header} a header"

    def feed(self, first: int, lines: list[str], *, final: bool = False) -> Rows:
        if self._opening is None:
            return self._feed_head(first, lines, final=final)
        if self.kind == "txt":
            return Rows(range(first, first + len(lines)), [lines], [], 0)
        if columns := self._plain_columns(lines):
            return Rows(range(first, first + len(lines)), columns, [], 0)
        return self._feed_records(first, lines, final=final)

    def _feed_head(self, first: int, lines: list[str], *, final: bool) -> Rows:
        first, lines = first - len(self._held), self._held + lines
        length = cut_head(lines, final=final, skipped=self._format.skip_lines)
        if length is None:
            self._held = lines
            return Rows([], [], [], 0)
        self._held = []
        self._layout = layout = find_layout(lines[:length], self._format, self._is_table)
        rows = self._head_rows(layout, lines[:length], is_whole=final and length == len(lines))
        if not rows and len(lines) <= self._format.skip_lines:
            raise FileError(
                f"{self._name} has only {counted(len(lines), 'line')}: --skip-lines {self._format.skip_lines} skips all"
            )
        if not rows:
            raise FileError(
                f"{self._name}, line {layout.begins + 1}: no code and no table begins here: {NOTHING_FOUND}"
            )
        try:
            opening = self._opening = self._begin(rows)
        except OptionError:
            raise
        except FileError as error:
            raise FileError(f"{self._name}, line {error.line or rows[0].line}: {error}") from None
        above = [row.line for row in rows if row.line < (opening.header_line or opening.first_line)]
        if title := skipped_lines(above, "was", "were", "skipped as a title"):
            layout.notices.append(title)
        blank = layout.blank + _blank_lines(lines[layout.begins : opening.first_line - 1])
        skipped = opening.first_line - first
        found = self.feed(opening.first_line, lines[skipped:], final=final)
        return replace(found, blank=found.blank + blank)

    def _head_rows(self, layout: Layout, head: list[str], *, is_whole: bool) -> list[HeadRow]:
        first, lines = layout.begins + 1, head[layout.begins :]
        if layout.kind == "txt":
            return [HeadRow(line, [text]) for line, text in enumerate(lines, first) if text.strip()]
        records = parse_records(first, lines, layout.separator, final=is_whole)
        return [HeadRow(line, row) for line, row in zip(records.numbers, records.rows, strict=True) if _has_text(row)]

    def _plain_columns(self, lines: list[str]) -> list[list[str]] | None:
        """The columns, if each line is one row and either all or no cells are quoted, as most programs write files.

        Returns None otherwise. A million rows of three cells take 0.4 s (0.6 s if quoted); the csv module takes 1.5 s.
        """
        if not (self._layout and self._opening and lines) or self._held:
            return None
        width, between = self._opening.width, self._layout.separator
        if lines[0][:1] == '"':
            if min(map(len, lines)) < 2 or not all(line[0] == line[-1] == '"' for line in lines):
                return None
            lines, between = [line[1:-1] for line in lines], f'"{between}"'
        if set(map(str.count, lines, repeat(between))) != {width - 1}:
            return None
        text = between.join(lines)
        cells = text.split(between)
        if text.count('"') != between.count('"') * (len(cells) - 1):  # otherwise no cell contains a quote
            return None
        return [cells[column::width] for column in range(width)]

    def _feed_records(self, first: int, lines: list[str], *, final: bool) -> Rows:
        if not self._layout or not self._opening or not (lines or final):
            return Rows([], [()] * (self._opening.width if self._opening else 0), [], 0)
        first, lines = first - len(self._held), self._held + lines
        records = parse_records(first, lines, self._layout.separator, final=final)
        self._held = lines[records.read :]
        self._repaired += records.repaired
        self._doubtful = {line for line in self._doubtful if line >= first} | records.doubtful
        rows = self._of_width(self._opening, records.numbers, records.rows)
        rows.rejected.extend(records.rejected)
        return rows

    def _of_width(self, opening: Opening, numbers: Sequence[int], rows: list[list[str]]) -> Rows:
        """Rows of one width. A row that lacks cells at its end gets empty cells; other rows are rejected.

        In a row of another width, the code may be in another column. Empty cells beyond the width are removed.
        """
        width = opening.width
        if set(map(len, rows)) <= {width}:
            return Rows(numbers, _columns(width, rows), [], 0)
        kept: list[int] = []
        fitting: list[list[str]] = []
        rejected: list[Rejected] = []
        blank = 0
        for number, row in zip(numbers, rows, strict=True):
            if len(row) == width:
                fitted: list[str] | None = row
            elif not _has_text(row):
                blank += 1
                continue
            else:
                fitted = None if number in self._doubtful else _fit(row, opening)
                self._filled_up += fitted is not None and len(row) < width
            if fitted is None:
                rejected.append(self._reject_row(opening, number, row))
            else:
                kept.append(number)
                fitting.append(fitted)
        return Rows(kept, _columns(width, fitting), rejected, blank)

    def _reject_row(self, opening: Opening, line: int, row: list[str]) -> Rejected:
        """The rejected row. It has all its cells in `extra`."""
        reason, detail = Reason.QUOTES, ""
        if line not in self._doubtful:
            top = "the header" if opening.header_line else "the first row"
            reason, detail = Reason.COLUMNS, f"{counted(len(row), 'cell')} where {top} has {opening.width}"
        return replace(reject(line, " ".join(row), reason, detail), extra=tuple(map(shown_text, row)))


def _fit(row: list[str], opening: Opening) -> list[str] | None:
    """The row with the width of the table. None if it has text beyond, or lacks the cell that each row must have."""
    missing = opening.width - len(row)
    if missing <= 0:
        return None if _has_text(row[opening.width :]) else row[: opening.width]
    column = opening.column
    is_complete = column is None or (column < len(row) and row[column].strip())
    return row + [""] * missing if is_complete else None


def _columns(width: int, rows: list[list[str]]) -> Sequence[Sequence[str]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _blank_lines(lines: Sequence[str]) -> int:
    return sum(1 for line in lines if not line.strip())


def _has_text(row: Sequence[str]) -> bool:
    return any(map(str.strip, row))
