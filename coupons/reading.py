"""Reads the files that shops and CRMs export, TXT and CSV, as their bytes come in; never holds the file.

Whoever has the bytes pushes them, a worker from Postgres or the command line from a file, and takes what is complete:

    reader = CodeReader(FileFormat(), "spring.csv")
    for chunk in chunks:
        take(reader.feed(chunk))
    take(reader.finish())

Bytes become lines (`_Lines`), lines become rows of one width (`_Table`), and these the codes (`CodeReader`) or the rows
(`RowReader`). Nothing is guessed that could change a code: what is neither said nor plain to see is a `FileError`.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter
from typing import Literal

from coupons.codes import Checked, Reason, Rejected, check, reject
from coupons.errors import Told

MAX_RECORD_CHARS = 65_536
"""Of a line, or of a CSV record over several lines: a quote that never closes must not eat the file."""

SEPARATORS = ";,\t|"
CODE_COLUMNS = frozenset(
    start + end
    for start in ("", "coupon", "voucher", "promo", "promotion", "discount", "gutschein", "rabatt", "aktions")
    for end in ("code", "codes")
) | {"coupon", "coupons", "voucher", "vouchers", "gutschein", "gutscheine"}
"""Header names, as `plain` makes them, of the column that holds the codes."""

_HEAD_BYTES = 8
_SHOWN_COLUMNS = 30
_SHOWN_CHARS = 50
_MANY_NULS = 4  # in a line; of UTF-16 that is read as UTF-8, every second character is one
_BINARY = {
    b"PK\x03\x04": "a ZIP or Excel file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x1f\x8b": "a gzip file",
    b"%PDF-1.": "a PDF file",
}
_BYTE_ORDER_MARKS = {  # UTF-32 first: in little-endian its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NEED_A_MARK = ("utf-16", "utf-32")
_NO_FILE_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined")
_SEP_LINE = re.compile(r'"?sep=([^"])"?', re.IGNORECASE).fullmatch  # Excel names the separator so, in line 1


class FileError(Told, ValueError):
    """The file is not text, or not what it was said to be: one line that names file, line and remedy, never a code."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What is known about a file; what is None is found in the file itself, but never its encoding.

    `column` is a name in the header or a number from 1; `header` says whether the first line is one.

    Raises FileError for an unknown encoding, an impossible separator, a txt file with columns.
    """

    kind: Literal["txt", "csv"] | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    column: str | int | None = None
    header: bool | None = None

    def __post_init__(self) -> None:
        if not _is_encoding(self.encoding):
            raise FileError(f"there is no encoding {self.encoding!r}")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise FileError("a separator is one character, neither a quote nor a line end")
        if self.kind == "txt" and self.has_columns:
            raise FileError("a txt file has no columns: leave out separator, column and header, or say csv")

    @property
    def has_columns(self) -> bool:
        return self.separator is not None or self.column is not None or self.header is not None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table, all as wide as its first; `lines[i]` is where `rows[i]` begins. Cells are not stripped."""

    lines: Sequence[int]
    rows: list[list[str]]
    rejected: list[Rejected]
    blank: int


class CodeReader:
    """The codes of a file, checked: one a line (txt), or those of one column (csv).

    A csv's column is the given one, else the one with a known name (`CODE_COLUMNS`), else the only one. What the file
    is, if not said, is seen in its name and its first line.

    `feed` and `finish` raise FileError; the reader is of no use afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self._format = file_format
        self._name = name
        self._kind = file_format.kind
        self._lines = _Lines(file_format.encoding, name)
        self._table = _Table(file_format.separator, name, self._begin)
        self._column = 0

    def feed(self, data: bytes) -> Checked:
        return self._check(*self._lines.feed(data))

    def finish(self) -> Checked:
        return self._check(*self._lines.feed(b"", final=True), final=True)

    def _check(self, first: int, lines: list[str], *, final: bool = False) -> Checked:
        self._kind = self._kind or _kind(lines, self._format, self._name)
        if self._kind != "csv":
            return check(range(first, first + len(lines)), lines)
        table = self._table.feed(first, lines, final=final)
        checked = check(table.lines, [row[self._column] for row in table.rows])
        rejected = sorted(table.rejected + checked.rejected, key=attrgetter("line"))
        return Checked(checked.lines, checked.codes, rejected, table.blank + checked.blank)

    def _begin(self, first_row: list[str]) -> tuple[int, bool]:
        self._column, has_header = _code_column(first_row, self._format)
        return len(first_row), has_header


class RowReader:
    """The rows under a csv's header line. `header`, its cells stripped, is there before the first row.

    Raises FileError, also in `feed` and `finish`; the reader is of no use afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        if file_format.kind == "txt" or file_format.header is False:
            raise FileError(f"{name} must be read as a csv file with a header line")
        self.header: list[str] = []
        self._lines = _Lines(file_format.encoding, name)
        self._table = _Table(file_format.separator, name, self._begin)

    def feed(self, data: bytes) -> Rows:
        return self._table.feed(*self._lines.feed(data))

    def finish(self) -> Rows:
        return self._table.feed(*self._lines.feed(b"", final=True), final=True)

    def _begin(self, first_row: list[str]) -> tuple[int, bool]:
        """Nameless columns at the end are a spreadsheet's own; a row that has something there is refused."""
        self.header = [cell.strip() for cell in first_row]
        while not self.header[-1]:
            self.header.pop()
        return len(self.header), True


def plain(header: str) -> str:
    """A header name for comparison: "E-Mail Address" is "emailaddress"."""
    return re.sub(r"[\s_.-]", "", header).lower()


def find_column(header: Sequence[str], column: str | int | None, known: frozenset[str]) -> int | None:
    """The index of the column that is meant, by its name or number, else by one of the `known` names.

    Raises FileError when the given column is not there, or more than one could be meant.
    """
    if isinstance(column, int):
        return _numbered_column(header, column)
    if column is None:
        found = [index for index, cell in enumerate(header) if plain(cell) in known]
    else:
        found = [index for index, cell in enumerate(header) if _is_name(cell, column)]
    if len(found) > 1:
        raise FileError(f"columns {' and '.join(str(index + 1) for index in found)} could be meant: say which number")
    if not found and column is not None:
        return _numbered_column(header, int(column) if column.isdecimal() else column)
    return found[0] if found else None


def columns_of(row: Sequence[str]) -> str:
    """The columns in words. Cells with a digit or an @ may be a headerless file's codes or addresses: not shown."""
    if not _reads_as_header(row):
        return f"it has {len(row)} columns"
    shown = (f"{number} {cell.strip()[:_SHOWN_CHARS]!r}" for number, cell in enumerate(row[:_SHOWN_COLUMNS], 1))
    return "its columns are " + ", ".join(shown) + (", …" if len(row) > _SHOWN_COLUMNS else "")


def _numbered_column(header: Sequence[str], column: str | int) -> int:
    if isinstance(column, int) and 1 <= column <= len(header):
        return column - 1
    raise FileError(f"there is no column {column!r}: {columns_of(header)}")


def _code_column(row: list[str], file_format: FileFormat) -> tuple[int, bool]:
    """Where the codes stand, and whether the first row is a header."""
    header = [""] * len(row) if file_format.header is False else row
    index = find_column(header, file_format.column, CODE_COLUMNS)
    if index is None and len(row) > 1:
        raise FileError(f"which column holds the codes? Say its name or number ({columns_of(row)})")
    return index or 0, _is_header(row, index or 0, file_format)


def _is_header(row: list[str], index: int, file_format: FileFormat) -> bool:
    """A header taken for a code would be mailed, so where a column is given by its number, words alone are a header."""
    column = file_format.column
    if file_format.header is not None:
        return file_format.header
    if any(plain(cell) in CODE_COLUMNS for cell in row) or (isinstance(column, str) and _is_name(row[index], column)):
        return True
    return column is not None and len(row) > 1 and _reads_as_header(row)


def _is_name(cell: str, column: str) -> bool:
    return cell.strip().lower() == column.strip().lower()


def _reads_as_header(row: Sequence[str]) -> bool:
    return not re.search(r"[\d@]", "".join(row))


def _is_encoding(name: str) -> bool:
    try:
        "".encode(name)  # refuses bytes-to-bytes codecs such as zlib, which lookup() finds
        return codecs.lookup(name).name not in _NO_FILE_ENCODINGS
    except (LookupError, UnicodeError, ValueError):
        return False


def _kind(lines: list[str], file_format: FileFormat, name: str) -> Literal["txt", "csv"] | None:
    """Decided by the first line that is not blank; blank lines are the same in both."""
    first = next(filter(str.strip, lines), None)
    if first is None:
        return None
    if file_format.has_columns or name.lower().endswith((".csv", ".tsv")) or plain(first) in CODE_COLUMNS:
        return "csv"
    return "csv" if re.search(f'["{SEPARATORS}]', first) or _SEP_LINE(first.strip(" ")) else "txt"


def _separator(line: str) -> str:
    """The one that cuts a line into most cells; a comma (RFC 4180) when none does."""

    def cells(separator: str) -> int:
        return len(next(csv.reader([line], delimiter=separator, skipinitialspace=True), ()))

    best = max(SEPARATORS, key=cells)
    return best if cells(best) > 1 else ","


class _Table:
    """Lines in, rows of one width out. `begin` sees the first row and says how wide a row is, and if that is a header.

    A quoted record may go on in lines to come: what is not complete is held, and parsed again together with those.
    """

    def __init__(self, separator: str | None, name: str, begin: Callable[[list[str]], tuple[int, bool]]) -> None:
        self._separator = separator
        self._name = name
        self._begin = begin
        self._width: int | None = None
        self._held: list[str] = []

    def feed(self, first: int, lines: list[str], *, final: bool = False) -> Rows:
        if first == 1 and lines and (named := _SEP_LINE(lines[0].strip(" "))):
            self._separator = self._separator or named[1]
            first, lines = 2, lines[1:]
        numbers, rows = self._records(first, lines, final=final)
        leading = 0
        if self._width is None:
            leading = next((index for index, row in enumerate(rows) if _has_text(row)), len(rows))
            header = leading < len(rows) and self._open(numbers[leading], rows[leading])
            numbers, rows = numbers[leading + header :], rows[leading + header :]
        return _of_width(self._width or 0, numbers, rows, blank=leading)

    def _open(self, line: int, first_row: list[str]) -> bool:
        try:
            self._width, is_header = self._begin(first_row)
        except FileError as error:
            raise FileError(f"{self._name}, line {line}: {error}") from None
        return is_header

    def _records(self, first: int, lines: list[str], *, final: bool) -> tuple[list[int], list[list[str]]]:
        if not lines and not final:
            return [], []
        first, lines = first - len(self._held), self._held + lines
        if self._separator is None and (opening := next(filter(str.strip, lines), None)):
            self._separator = _separator(opening)
        separator = self._separator or ","
        numbers: list[int] = []
        rows: list[list[str]] = []
        done = 0
        # strict: "AB"C would be read as ABC otherwise. A quote behind spaces is still the cell's first character.
        reader = csv.reader([line + "\n" for line in lines], delimiter=separator, skipinitialspace=True, strict=True)
        try:
            for row in reader:
                if reader.line_num > done + 1:
                    self._check_size(first + done, lines[done : reader.line_num])
                numbers.append(first + done)
                rows.append(row)
                done = reader.line_num
        except csv.Error as error:
            self._check_size(first + done, lines[done : reader.line_num])
            if final or reader.line_num < len(lines):  # else it is only the lines that ran out
                raise FileError(f"{self._name}, line {first + done}: broken quotes ({error})") from error
        self._held = lines[done:]
        return numbers, rows

    def _check_size(self, line: int, record: list[str]) -> None:
        if len(record) > 1 and sum(map(len, record)) > MAX_RECORD_CHARS:
            raise FileError(
                f"{self._name}, line {line}: more than {MAX_RECORD_CHARS} characters; is a quote never closed?"
            )


def _of_width(width: int, numbers: Sequence[int], rows: list[list[str]], blank: int) -> Rows:
    """A row of another width may be shifted: its code could be another cell. Empty cells at its end do no harm."""
    if set(map(len, rows)) <= {width}:
        return Rows(numbers, rows, [], blank)
    fitting = [len(row) == width or (len(row) > width and not _has_text(row[width:])) for row in rows]
    others = [(number, row) for number, row, fits in zip(numbers, rows, fitting, strict=True) if not fits]
    # The cells are joined by what `reject` makes a U+FFFD of: not mended, the row is refused when it comes again.
    misfits = [reject(number, "\t".join(row), Reason.COLUMNS) for number, row in others if _has_text(row)]
    return Rows(
        list(compress(numbers, fitting)),
        [row[:width] for row in compress(rows, fitting)],
        misfits,
        blank + len(others) - len(misfits),
    )


def _has_text(row: list[str]) -> bool:
    return any(map(str.strip, row))


class _Lines:
    """Bytes in, whole lines out, with the number of the first. CR, LF and CRLF end a line, and nothing else does."""

    def __init__(self, encoding: str, name: str) -> None:
        self._encoding = encoding
        self._name = name
        self._head = b""
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._next = 1
        self._tail = ""
        self._is_empty = True

    def feed(self, data: bytes, *, final: bool = False) -> tuple[int, list[str]]:
        if self._decoder is None:
            self._head += data
            if len(self._head) < _HEAD_BYTES and not final:
                return self._next, []
            self._decoder, data = self._open(self._head)
        first = self._next
        lines = self._cut(self._decoded(self._decoder, data, final=final), final=final)
        self._next += len(lines)
        self._is_empty = self._is_empty and not _has_text(lines)
        if final and self._is_empty:
            raise FileError(f"{self._name} is empty")
        return first, lines

    def _open(self, head: bytes) -> tuple[io.IncrementalNewlineDecoder, bytes]:
        """The decoder, and the bytes after the byte order mark, which outweighs the encoding that was given."""
        for magic, thing in _BINARY.items():
            if head.startswith(magic):
                raise FileError(f"{self._name} looks like {thing}, not text: save it as CSV or plain text")
        mark = next((mark for mark in _BYTE_ORDER_MARKS if head.startswith(mark)), b"")
        self._encoding = _BYTE_ORDER_MARKS.get(mark, self._encoding)
        if codecs.lookup(self._encoding).name in _NEED_A_MARK:
            raise FileError(
                f"{self._name} has no byte order mark: say {self._encoding}-le (Windows) or {self._encoding}-be"
            )
        decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        return io.IncrementalNewlineDecoder(decoder, translate=True), head[len(mark) :]

    def _decoded(self, decoder: io.IncrementalNewlineDecoder, data: bytes, *, final: bool) -> str:
        try:
            return decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise self._undecodable(error, after_cr=bool(decoder.getstate()[1] & 1)) from None  # it holds the data

    def _undecodable(self, error: UnicodeDecodeError, *, after_cr: bool) -> FileError:
        before = "\r" * after_cr + error.object[: error.start].decode(self._encoding, "replace")
        line = self._next + len(re.findall(r"\r\n?|\n", before))
        wrong = error.object[error.start : max(error.end, error.start + 1)][:4].hex(" ")
        likely = [encoding for encoding in ("cp1252", "utf-16", "utf-8") if encoding != self._encoding]
        return FileError(
            f"{self._name}, line {line}: the bytes {wrong} are not {self._encoding}."
            f" Say which encoding it is; likely are {' and '.join(likely[:2])}"
        )

    def _cut(self, text: str, *, final: bool) -> list[str]:
        text = self._tail + text
        lines = text.split("\n")
        if max(map(len, lines)) > MAX_RECORD_CHARS:
            number = next(number for number, line in enumerate(lines, self._next) if len(line) > MAX_RECORD_CHARS)
            raise FileError(f"{self._name}, line {number}: more than {MAX_RECORD_CHARS} characters without a line end")
        self._tail = lines.pop()
        lines += [self._tail] if final and self._tail else []
        if "\0" in text:
            self._check_nuls(lines)
        return lines

    def _check_nuls(self, lines: list[str]) -> None:
        """One NUL is a character that the check of the line refuses; many are no text."""
        for number, line in enumerate(lines, self._next):
            if line.count("\0") >= max(_MANY_NULS, len(line) / 4):
                raise FileError(
                    f"{self._name}, line {number}: NUL bytes (00). Either this is no text, or it is utf-16-le or"
                    " utf-16-be without a byte order mark: then say so"
                )
