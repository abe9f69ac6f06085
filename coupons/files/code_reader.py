"""Reads the files that shops and CRMs export, TXT and CSV, as their bytes come in; never holds the file.

Whoever has the bytes pushes them, a worker from Postgres or the command line from a file, and takes what is complete:

    reader = CodeReader(FileFormat(), "spring.csv")
    for chunk in chunks:
        take(reader.feed(chunk))
    take(reader.finish())

Bytes become lines (`Lines`), lines become rows of one width (`Table`), and these the codes (`CodeReader`) or the rows
under a header (`RowReader`). Nothing is guessed that could change a code: what is neither said nor plain to see is a
`FileError`.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from coupons.files.codes import Checked, check
from coupons.files.csv_rows import SEP_LINE, SEPARATORS, Rows, Table
from coupons.files.decoding import FileError, Lines

_NUMBERS = ("number", "numbers", "num", "no", "nr", "nummer", "nummern")
_COUPONS = (
    *("coupon", "voucher", "promo", "promotion", "promotional", "discount", "gift", "giftcard", "redemption", "bonus"),
    *("gutschein", "gutscheins", "rabatt", "aktion", "aktions", "geschenk", "einlöse", "einloese"),
)
CODE_COLUMNS = frozenset(
    {start + end for start in ("", *_COUPONS, "serial") for end in ("code", "codes")}
    | {start + end for start in (*_COUPONS, "code", "serial", "serien") for end in _NUMBERS}
    | {"coupon", "coupons", "voucher", "vouchers", "gutschein", "gutscheine", "promo", "serial"}
)
"""Header names, as `plain` makes them, of the column that holds the codes."""

_OTHER_COLUMNS = {
    *("name", "firstname", "lastname", "surname", "vorname", "nachname", "anrede", "salutation", "firma", "company"),
    *("email", "emails", "mail", "emailaddress", "emailadresse", "mailadresse", "address", "adresse"),
    *("customer", "customerid", "customernumber", "kunde", "kundennummer", "kundennr"),
    *("value", "amount", "price", "currency", "wert", "betrag", "preis", "währung"),
    *("date", "datum", "created", "createdat", "erstellt", "validfrom", "validuntil", "gültigab", "gültigbis"),
    *("expires", "expiry", "expirydate", "ablaufdatum", "description", "beschreibung"),
}
"""Names that are a header's and nobody's data; what stands beside one may be shown."""

_SHOWN_COLUMNS = 30
_SHOWN_CHARS = 50
_NO_FILE_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined")


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
        if not is_encoding(self.encoding):
            raise FileError(f"there is no encoding {self.encoding!r}")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise FileError("a separator is one character, neither a quote nor a line end")
        if self.kind == "txt" and self.has_columns:
            raise FileError("a txt file has no columns: leave out separator, column and header, or say csv")

    @property
    def has_columns(self) -> bool:
        return self.separator is not None or self.column is not None or self.header is not None


class CodeReader:
    """The codes of a file, checked: one a line (txt), or those of one column (csv).

    A csv's column is the given one, else the one with a known name (`CODE_COLUMNS`), else the only one. What the file
    is, if not said, is seen in its name and its first line; `seen` then says it in words, without any cell.

    `feed` and `finish` raise FileError; the reader is of no use afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self.seen = ""
        self._format = file_format
        self._name = name
        self._kind = file_format.kind
        self._lines = Lines(file_format.encoding, name)
        self._table = Table(file_format.separator, name, self._begin)
        self._column = 0

    def feed(self, data: bytes) -> Checked:
        return self._check(*self._lines.feed(data))

    def finish(self) -> Checked:
        return self._check(*self._lines.feed(b"", final=True), final=True)

    def _check(self, first: int, lines: list[str], *, final: bool = False) -> Checked:
        self._kind = self._kind or _kind(lines, self._format, self._name)
        if self._kind == "csv":
            return self._check_rows(self._table.feed(first, lines, final=final))
        if not self.seen and any(map(str.strip, lines)):
            self.seen = f"txt, {self._lines.encoding}"
        return check(range(first, first + len(lines)), lines)

    def _check_rows(self, rows: Rows) -> Checked:
        if not rows.columns:
            return Checked([], [], [], rows.blank)
        self.seen = self.seen or f"csv, {self._table.seen(self._column + 1)}, {self._lines.encoding}"
        checked = check(rows.lines, rows.columns[self._column])
        rejected = sorted(rows.rejected + checked.rejected, key=attrgetter("line"))
        return Checked(checked.lines, checked.codes, rejected, rows.blank + checked.blank)

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
        self._lines = Lines(file_format.encoding, name)
        self._table = Table(file_format.separator, name, self._begin)

    def feed(self, data: bytes) -> Rows:
        return self._table.feed(*self._lines.feed(data))

    def finish(self) -> Rows:
        return self._table.feed(*self._lines.feed(b"", final=True), final=True)

    def seen(self, column: int) -> str:
        """How the file is read, with the column (from 1) that matters, in words; once the header is there."""
        return f"csv, {self._table.seen(column)}, {self._lines.encoding}"

    def _begin(self, first_row: list[str]) -> tuple[int, bool]:
        """Nameless columns at the end are a spreadsheet's own; a row that has something there is refused."""
        self.header = [cell.strip() for cell in first_row]
        while not self.header[-1]:
            self.header.pop()
        return len(self.header), True


def plain(header: str) -> str:
    """A header name for comparison: "E-Mail Address:" is "emailaddress", "Coupon #" is "coupon"."""
    return re.sub(r"[\s_.:#-]", "", header).lower()


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
    """The columns in words. Cells are shown where one of them is a name that is known: a file without a header has
    codes and addresses there, of letters alone too.
    """
    if not (_reads_as_header(row) and any(plain(cell) in CODE_COLUMNS | _OTHER_COLUMNS for cell in row)):
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


def is_encoding(name: str) -> bool:
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
    return "csv" if re.search(f'["{SEPARATORS}]', first) or SEP_LINE(first.strip(" ")) else "txt"
