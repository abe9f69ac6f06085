"""Reads files of codes, TXT or CSV, as their bytes arrive. The reader never holds a whole file.

The caller feeds bytes and gets the checked codes of the complete lines. A worker feeds the bytes of a source, the
command line those of a local file.

    reader = CodeReader(FileFormat(), "spring.csv")
    for chunk in chunks:
        process(reader.feed(chunk))
    process(reader.finish())

Bytes become lines (`Lines`), lines become rows of one width (`Table`), and rows become codes (`CodeChecker`). The head
of the file decides how it is read (`find_layout`, `find_code_layout`). Where a wrong guess could change a code, the
reader does not guess: it raises FileError.
"""

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from coupons.files.code_layout import CodeLayout, find_code_layout
from coupons.files.codes import CheckedCodes, CodeChecker, FileRules
from coupons.files.conditions import Selection
from coupons.files.converted import CONVERTED
from coupons.files.csv_rows import Rows, Table
from coupons.files.decoding import Lines, concerning
from coupons.files.format import FileFormat
from coupons.files.header_names import NameKind, code_name
from coupons.files.layout import HeadRow, Opening
from coupons.files.not_codes import is_total
from coupons.files.notices import counted, limit_notices, mask
from coupons.files.rejections import Reason, Rejected, reject


class CodeReader:
    """Reads and checks the codes of a file: one code per line (txt), or one column of codes (csv).

    The code column of a csv file is the given column, else the column with a known name, else the only column that can
    hold codes. If the kind of the file is not given, it is detected from the file's name and its first lines. After the
    head was read, `description` contains the format in words, with the first code masked.

    `feed` and `finish` raise FileError; the reader cannot be used afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        is_csv = file_format.kind is None and name.lower().endswith((".csv", ".tsv"))
        self._format = replace(file_format, kind="csv") if is_csv else file_format
        self._lines = Lines(file_format.encoding, name, is_forced=file_format.force_encoding, is_secret=True)
        self._table = Table(self._format, name, self._begin, _has_code_name)
        self._layout: CodeLayout | None = None
        self._checker = CodeChecker(FileRules())
        self._selection = Selection((), ())
        self._without_code = 0

    @property
    def description(self) -> str:
        """The format in words. No text before the head was read."""
        if self._layout is None:
            return ""
        first = f", first code {mask(self._layout.first_code)}" if self._layout.first_code else ""
        return f"{self._table.describe(self._layout.column + 1)}, {self._lines.encoding}{first}"

    @property
    def notices(self) -> list[str]:
        """What was assumed, skipped or changed, one sentence each, without a code."""
        layout = list(self._layout.notices) if self._layout else []
        if self._without_code:
            layout.append(f"{counted(self._without_code, 'row')} without a code counted as blank")
        return limit_notices([
            *layout, *self._table.notices, *self._checker.notices, *self._selection.notices
        ])  # fmt: skip

    def feed(self, data: bytes) -> CheckedCodes:
        return self._check(self._table.feed(*self._lines.feed(data)))

    def finish(self) -> CheckedCodes:
        return self._check(self._table.feed(*self._lines.feed(b"", final=True), final=True))

    def _check(self, rows: Rows) -> CheckedCodes:
        if self._layout is None or not rows.columns:
            return CheckedCodes([], [], [], rows.blank)
        column = self._layout.column
        rows = self._selection.select(rows)
        checked = self._checker.check(rows.lines, rows.columns[column])
        if checked.blank and len(rows.columns) > 1:
            self._without_code += _count_without(rows.columns, column)
        if not rows.rejected:
            return replace(checked, blank=rows.blank + checked.blank)
        others = [_in_its_column(each, column) for each in rows.rejected]
        rejected = sorted(others + checked.rejected, key=attrgetter("line"))
        return CheckedCodes(checked.lines, checked.codes, rejected, rows.blank + checked.blank)

    def _begin(self, rows: list[HeadRow]) -> Opening:
        rows = [replace(row, cells=[cell.removesuffix(CONVERTED) for cell in row.cells]) for row in rows]
        layout = find_code_layout(rows, self._format)
        header = next(
            (row.cells for row in rows if row.line == layout.opening.header_line), [""] * layout.opening.width
        )
        with concerning(layout.opening.header_line or layout.opening.first_line):
            self._selection = Selection(self._format.where, [] if layout.is_report else header, subject=layout.column)
        self._layout = layout
        data = [row.cells[layout.column].strip() for row in rows if len(row.cells) > layout.column]
        self._checker = CodeChecker(
            FileRules(
                header=layout.header,
                has_header_names=self._format.header is not False,
                has_comments=not _all_begin_with_hash(data[bool(layout.header) :]),
                has_totals=not _are_like_totals(data),
                is_report=layout.is_report,
                allow_lookalikes=self._format.allow_lookalikes,
            )
        )
        return layout.opening


def _in_its_column(rejected: Rejected, column: int) -> Rejected:
    """The rejected row with the cell of the code column as its value."""
    if rejected.reason is not Reason.COLUMNS:
        return rejected
    cells = rejected.extra
    value = cells[column] if column < len(cells) else ""
    return replace(
        reject(rejected.line, value, rejected.reason, rejected.detail), extra=cells[:column] + cells[column + 1 :]
    )


def _count_without(columns: Sequence[Sequence[str]], column: int) -> int:
    """The number of rows that have text, but not in the column of the codes."""
    return sum(not row[column].strip() and any(map(str.strip, row)) for row in zip(*columns, strict=True))


def _are_like_totals(values: Sequence[str]) -> bool:
    """Whether most codes begin with one word and look like totals, such as COUNT 5, COUNT 10."""
    totals = [each for each in values if is_total(each)]
    return len(totals) > 2 and 2 * len(totals) > len(values) and len({each.split()[0] for each in totals}) == 1


def _has_code_name(row: Sequence[str]) -> bool:
    return any(code_name(cell) is NameKind.STRONG for cell in row)


def _all_begin_with_hash(values: Sequence[str]) -> bool:
    return len(values) > 1 and all(each.startswith("#") and " " not in each for each in values if each)
