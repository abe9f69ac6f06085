"""How a file is laid out: where its table begins, and which character separates its cells.

The layout is decided from the head of the text: its first 100 lines that are not blank, but at most 64 Ki characters.
So it depends on the text alone, and not on how the bytes arrive.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from coupons.files.csv_records import parse_records
from coupons.files.format import FileFormat

SEPARATORS = ";,\t|"
HEAD_LINES = 100
HEAD_CHARS = 65_536
_EVEN_SHARE = 0.5  # of the lines of a table, at least

_SEP_LINE = re.compile(r'\s*"?sep=([^"])"?\s*', re.IGNORECASE).fullmatch  # Excel declares the separator like this


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A row of the head that is not blank, with the number of its first line."""

    line: int
    cells: list[str]

    @property
    def filled(self) -> int:
        """The number of cells with text."""
        return sum(map(bool, map(str.strip, self.cells)))


@dataclass(frozen=True, slots=True)
class Opening:
    """How a table begins, by its head: its width, the line of its first data, and the column that each row must fill.

    `column` is None if no column must be filled. `header_line` is 0 if the table has no header.
    """

    width: int
    column: int | None
    first_line: int
    header_line: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """`begins` lines before the table are comments or skipped. A txt file has no separator."""

    kind: Literal["txt", "csv"]
    separator: str
    begins: int
    blank: int
    notices: list[str]


def cut_head(lines: Sequence[str], *, final: bool, skipped: int = 0) -> int | None:
    """The number of lines of the head with the `skipped` ones above it, or None if the head is not complete."""
    filled = chars = 0
    for number, line in enumerate(lines[skipped:], skipped + 1):
        filled += not line.isspace() and line != ""
        chars += len(line) + 1
        if filled == HEAD_LINES or chars >= HEAD_CHARS:
            return number
    return len(lines) if final else None


def find_layout(head: Sequence[str], file_format: FileFormat, is_table: Callable[[list[str]], bool]) -> Layout:
    """The layout of a file with this head. `is_table` tells from the cells of its first row that it is a csv file."""
    declared = _SEP_LINE(head[0]) if head else None
    begins, blank = max(file_format.skip_lines, int(declared is not None)), 0
    comments: list[int] = []
    is_comment = _comment_rule(head[begins:])
    while begins < len(head) and (not head[begins].strip() or is_comment(head[begins])):
        if head[begins].strip():
            comments.append(begins + 1)
        else:
            blank += 1
        begins += 1
    notices = [skipped_lines(comments, "begins with # and was", "begin with # and were", "skipped as a comment")]
    rest = head[begins:]
    separator = (
        file_format.separator
        or (declared[1] if declared else None)
        or _separator(rest, is_table, is_csv=file_format.kind == "csv")
    )
    kind = file_format.kind or (
        "csv" if file_format.has_columns or declared or separator or _has_quotes(rest) else "txt"
    )
    return Layout(kind, separator or ",", begins, blank, [each for each in notices if each])


def skipped_lines(lines: Sequence[int], singular: str, plural: str, what: str) -> str:
    """A notice about lines of the file, or no text for no lines."""
    if not lines:
        return ""
    if len(lines) == 1:
        return f"line {lines[0]} {singular} {what}"
    shown = f"{lines[0]} to {lines[-1]}" if lines[-1] - lines[0] == len(lines) - 1 else ", ".join(map(str, lines[:10]))
    return f"lines {shown} {plural} {what.replace(' as a ', ' as ')}s"


def count_titles(rows: Sequence[HeadRow], is_data: Callable[[HeadRow], bool]) -> int:
    """The number of rows above the header that have only one cell with text, although the header has more.

    A row for which `is_data` holds may be the first row of a table without a header.
    """
    for index, row in enumerate(rows):
        if row.filled > 1:
            return index
        if is_data(row):
            break
    return 0


def _comment_rule(lines: Sequence[str]) -> Callable[[str], bool]:
    """Whether a line above the table is a comment. If each line begins with # and has no blank, # is part of codes."""
    filled = [line.strip() for line in lines if line.strip()]
    if len(filled) > 1 and all(line.startswith("#") and " " not in line for line in filled):
        return lambda _: False
    return lambda line: line.lstrip().startswith("#") and not is_spreadsheet_error(line.strip())


is_spreadsheet_error = re.compile(r"#(?:[A-ZÜ/0!?]+[!?]|N/A|NV|#*)").fullmatch


def _has_quotes(lines: Sequence[str]) -> bool:
    return any(line.lstrip(" ").startswith('"') for line in lines[:1])


def _separator(lines: Sequence[str], is_table: Callable[[list[str]], bool], *, is_csv: bool) -> str | None:
    """The separator that divides the lines most evenly. None if no separator divides half of them.

    A csv file, or a file whose first row has a known header name, needs no such lines: the others may lack cells.
    """
    best: tuple[float, int] = (0.0, 0)
    found = None
    for separator in SEPARATORS:
        records = parse_records(1, lines, separator, final=True)
        rows = [row for row in records.rows if any(map(str.strip, row))]
        widths = Counter(len(row) for row in rows if len(row) > 1)
        if not widths:
            continue
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        share = count / (len(rows) + len(records.rejected))
        if share < _EVEN_SHARE and not (len(rows[0]) > 1 and (is_csv or is_table(rows[0]))):
            continue
        if (share, width) > best:
            best, found = (share, width), separator
    return found
