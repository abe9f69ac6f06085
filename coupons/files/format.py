"""The format of a file: the options that the user specified, and the column of a header to which they refer."""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coupons.files.decoding import FileError

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
"""Normalized header names of the column that holds the codes."""

_OTHER_COLUMNS = {
    *("name", "firstname", "lastname", "surname", "vorname", "nachname", "anrede", "salutation", "firma", "company"),
    *("email", "emails", "mail", "emailaddress", "emailadresse", "mailadresse", "address", "adresse"),
    *("customer", "customerid", "customernumber", "kunde", "kundennummer", "kundennr"),
    *("value", "amount", "price", "currency", "wert", "betrag", "preis", "währung"),
    *("date", "datum", "created", "createdat", "erstellt", "validfrom", "validuntil", "gültigab", "gültigbis"),
    *("expires", "expiry", "expirydate", "ablaufdatum", "description", "beschreibung"),
}
"""Other names that occur only in a header. An error message may quote a row that contains one of them."""

_MAX_DIGITS = 9
_SHOWN_COLUMNS = 30
_SHOWN_CHARS = 50
_NO_FILE_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined")


def parse_column(text: str | None) -> str | int | None:
    """Return a column as the user typed it: a number is a position, everything else a name. None for no text."""
    return int(text) if text and text.isdecimal() and len(text) <= _MAX_DIGITS else text or None


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The options for reading a file. An option that is None is detected from the file. The encoding is never guessed.

    `column` is a name in the header or a 1-based number. `header` states whether the first line is a header. `sheet` is
    the name or 1-based number of a spreadsheet's sheet. `skip_lines` lines before the table or the first code are not
    read. `columns` are the columns that become attributes: `Name`, or `Name=attribute` to rename one. `where` selects
    rows: `Column=value` or `Column!=value`; all conditions must hold. `allow_lookalikes` accepts codes with letters of
    two scripts, `force_encoding` reads valid UTF-8 in another encoding. `is_spreadsheet` is set by
    the program: the text was a sheet, whose rows end with their last cell that is not empty.

    Raises FileError for an unknown encoding, an impossible separator, or a txt file with columns.
    """

    kind: Literal["txt", "csv"] | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    column: str | int | None = None
    header: bool | None = None
    sheet: str | int | None = None
    skip_lines: int = 0
    columns: Sequence[str] = ()
    where: Sequence[str] = ()
    allow_lookalikes: bool = False
    force_encoding: bool = False
    is_spreadsheet: bool = False

    def __post_init__(self) -> None:
        if not is_encoding(self.encoding):
            raise FileError(f"unknown encoding {self.encoding!r}")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise FileError("a separator must be one character, but not a quote or a line end")
        if self.kind == "txt" and self.has_columns:
            raise FileError("a txt file has no columns: omit separator and column, or specify csv")

    @property
    def has_columns(self) -> bool:
        return self.separator is not None or self.column is not None


def is_encoding(name: str) -> bool:
    try:
        "".encode(name)  # rejects bytes-to-bytes codecs such as zlib, which lookup() accepts
        return codecs.lookup(name).name not in _NO_FILE_ENCODINGS
    except (LookupError, UnicodeError, ValueError):
        return False


def normalized_header(header: str) -> str:
    """The header name for comparison: "E-Mail Address:" becomes "emailaddress", "Coupon #" becomes "coupon"."""
    return re.sub(r"[\s_.:#-]", "", header).lower()


def find_column(header: Sequence[str], column: str | int | None, known: frozenset[str]) -> int | None:
    """The index of `column`, a name or number. If `column` is None, the index of the column with a `known` name.

    Returns None if no column has a known name. Raises FileError if `column` does not exist or several columns match.
    """
    if isinstance(column, int):
        return _column_index(header, column)
    if column is None:
        found = [index for index, cell in enumerate(header) if normalized_header(cell) in known]
    else:
        found = [index for index, cell in enumerate(header) if same_name(cell, column)]
    if len(found) > 1:
        raise FileError(f"ambiguous column name ({', '.join(str(index + 1) for index in found)}): use its number")
    if not found and column is not None:
        return _column_index(header, int(column) if column.isdecimal() else column)
    return found[0] if found else None


def _column_index(header: Sequence[str], column: str | int) -> int:
    if isinstance(column, int) and 1 <= column <= len(header):
        return column - 1
    raise FileError(f"no column {column!r}: {describe_columns(header)}")


def describe_columns(row: Sequence[str]) -> str:
    """The columns in words. The cells are shown only if one of them is a known name.

    Otherwise the file may have no header, and its first line may contain codes or addresses.
    """
    if not (looks_like_header(row) and any(normalized_header(cell) in CODE_COLUMNS | _OTHER_COLUMNS for cell in row)):
        return f"the file has {len(row)} column{'' if len(row) == 1 else 's'}"
    shown = (f"{number} {cell.strip()[:_SHOWN_CHARS]!r}" for number, cell in enumerate(row[:_SHOWN_COLUMNS], 1))
    return "the columns are " + ", ".join(shown) + (", …" if len(row) > _SHOWN_COLUMNS else "")


def looks_like_header(row: Sequence[str]) -> bool:
    return not re.search(r"[\d@]", "".join(row))


def same_name(cell: str, column: str) -> bool:
    return cell.strip().lower() == column.strip().lower()
