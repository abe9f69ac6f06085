r"""Turns the lines of a CSV file into records. An invalid record costs only its first line, never the file.

The csv module reads the records. A record that it rejects is read once more with two habits of other programs: blanks
after a closing quote, and a quote that is written as \" inside quotes.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from coupons.files.decoding import MAX_RECORD_CHARS
from coupons.files.rejections import Reason, Rejected, reject


@dataclass(slots=True)
class Records:
    """Rows with the numbers of their first lines. `read` is the number of lines that the rows and rejections have.

    The lines with the numbers `doubtful` may be the rest of an invalid record.
    """

    numbers: list[int] | range = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    read: int = 0
    repaired: int = 0
    doubtful: set[int] = field(default_factory=set)


def parse_records(first: int, lines: Sequence[str], separator: str, *, final: bool) -> Records:
    """The complete records of the lines, of which the first has the number `first`.

    If the file does not end here, a record that may continue is left out. An invalid record costs its first line: its
    quote is not closed within 64 Ki characters, or text follows a closing quote. The result does not depend on how the
    file is divided.
    """
    found = Records()
    numbers: list[int] = []
    while found.read < len(lines):
        valid = _parse_valid(lines, found.read, separator, found.rows)
        if not numbers and len(valid.heights) == len(lines):  # each line is one row, which is the common case
            found.numbers, found.read = range(first, first + len(lines)), len(lines)
            return found
        too_long = False
        for height in valid.heights:
            if too_long := _is_too_long(lines[found.read : found.read + height]):
                break
            numbers.append(first + found.read)
            found.read += height
        del found.rows[len(numbers) :]
        if not too_long and not valid.failed_at:
            break
        if not too_long and valid.failed_at == len(lines) and not final and not _is_too_long(lines[found.read :]):
            break  # the record may continue
        row, height = _parse_again(lines, found.read, separator, final=final)
        if row is not None:
            numbers.append(first + found.read)
            found.rows.append(row)
            found.repaired += 1
        elif height:
            found.rejected.append(reject(first + found.read, lines[found.read].strip(), Reason.QUOTES))
            end = _end_of_invalid(lines, found.read, valid.failed_at)
            found.doubtful.update(range(first + found.read + 1, first + end))
        else:
            break  # the record may continue
        found.read += height
    found.numbers = numbers
    return found


@dataclass(frozen=True, slots=True)
class _Valid:
    """The number of lines of each valid record, and the number of lines up to the first error, or 0 for no error."""

    heights: list[int]
    failed_at: int


def _parse_valid(lines: Sequence[str], start: int, separator: str, rows: list[list[str]]) -> _Valid:
    """Append the records up to the first invalid or incomplete one."""
    # Without strict, "AB"C would be read as ABC. With skipinitialspace, a quote after spaces begins a quoted cell.
    text = _lines_from(lines, start)
    reader = csv.reader(text, delimiter=separator, skipinitialspace=separator != " ", strict=True)
    before = len(rows)
    failed_at = 0
    try:
        rows.extend(reader)  # keeps the rows before the invalid row
    except csv.Error:
        failed_at = start + reader.line_num
    if len(rows) - before == reader.line_num:
        return _Valid([1] * reader.line_num, failed_at)
    return _Valid([1 + "".join(row).count("\n") for row in rows[before:]], failed_at)


def _lines_from(lines: Sequence[str], start: int) -> Iterator[str]:
    for index in range(start, len(lines)):
        yield lines[index] + "\n"


def _parse_again(lines: Sequence[str], start: int, separator: str, *, final: bool) -> tuple[list[str] | None, int]:
    """The cells of the record that begins at line `start`, and its number of lines.

    Without a row, the record is invalid and one line is to be rejected, or 0 if the record may continue after the last
    line.
    """
    for end in range(start + 1, len(lines) + 1):
        if end > start + 1 and '"' not in lines[end - 1]:
            continue  # the quote is still open
        if _is_too_long(lines[start:end]):
            return None, 1
        is_open = False
        for text in _spellings("\n".join(lines[start:end])):
            row = _cells(text, separator)
            if row is not None:
                return row, end - start
            is_open = is_open or _is_open(text, separator)
        if not is_open:
            return None, 1
    return (None, 1) if final or _is_too_long(lines[start:]) else (None, 0)


def _end_of_invalid(lines: Sequence[str], start: int, failed_at: int) -> int:
    """The end of the lines that may belong to the invalid record: its first error, or the limit of its characters."""
    chars = 0
    for end in range(start + 1, (failed_at or len(lines)) + 1):
        chars += len(lines[end - 1])
        if end > start + 1 and chars > MAX_RECORD_CHARS:
            return end
    return failed_at or len(lines)


def _spellings(record: str) -> Iterator[str]:
    r"""The record, and the record with \" as a quote if it writes no quote as two quotes."""
    yield record
    if '\\"' in record:
        yield record.replace('\\"', '""')


@cache
def _patterns(separator: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    between = re.escape(separator)
    blanks = "" if separator == " " else " *"
    after = "[ \t]*" if separator not in " \t" else "[ \t]*".replace(separator, "")
    text = '[^"]*+(?:""[^"]*+)*+'
    quoted = f'{blanks}"{text}"{after}'
    bare = f'(?!{blanks}"){blanks}[^{between}\n]*+'
    cell = f"(?:{quoted}|{bare})"
    return (
        re.compile(f"({quoted}|{bare})(?:{between}|\\Z)"),
        re.compile(f'(?:{cell}{between})*{blanks}"{text}\\Z'),
    )


def _cells(record: str, separator: str) -> list[str] | None:
    """The cells of a complete record, or None."""
    pattern, _ = _patterns(separator)
    cells: list[str] = []
    position = 0
    while match := pattern.match(record, position):
        text = match[1] if separator == " " else match[1].lstrip(" ")
        cells.append(text.rstrip(" \t")[1:-1].replace('""', '"') if text.startswith('"') else text)
        position = match.end()
        if position == len(record):
            if match[0].endswith(separator) and match.end(1) < match.end():
                cells.append("")
            return cells
    return None


def _is_open(record: str, separator: str) -> bool:
    """Whether a quoted cell is open at the end of the record."""
    return _patterns(separator)[1].fullmatch(record) is not None


def _is_too_long(record: Sequence[str]) -> bool:
    return len(record) > 1 and sum(map(len, record)) > MAX_RECORD_CHARS
