"""Recipients out of a CSV file: one address a row, and what a message may say about its owner."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from coupons.addresses import AddressError, parse_address
from coupons.codes import Reason, Rejected, reject
from coupons.commands import CONTROL, MAX_ATTRIBUTE_CHARS, MAX_ATTRIBUTES
from coupons.reading import FileError, FileFormat, RowReader, Rows, columns_of, find_column
from coupons.templates import RESERVED

ADDRESS_COLUMNS = frozenset(
    start + end
    for start in ("email", "mail")
    for end in ("", "s", "address", "addresses", "addr", "adresse", "adressen")
)
"""Header names, as `plain` makes them, of the column that holds the addresses."""

MAX_ATTRIBUTE_NAME = 50  # characters, as in a command

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "o", "ł": "l"})


@dataclass(frozen=True, slots=True)
class Recipient:
    """`address` is mailed, `key` is one person's, `attributes` are what a template can print besides `{{ email }}`."""

    address: str
    key: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class CheckedRecipients:
    """A batch of rows after the check: `lines[i]` is where `recipients[i]` stood. Blank rows are only counted."""

    lines: list[int]
    recipients: list[Recipient]
    rejected: list[Rejected]
    blank: int


class RecipientReader:
    """The recipients of a CSV file. `attributes`, their names in the file's order, are there before the first of them.

    The addresses are in the given column, else in the one with a known name (`ADDRESS_COLUMNS`). `feed` and `finish`
    raise FileError; the reader is of no use afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self.attributes: list[str] = []
        self._column = file_format.column
        self._name = name
        self._rows = RowReader(file_format, name)
        self._names: list[str] = []
        self._address = 0

    def feed(self, data: bytes) -> CheckedRecipients:
        return self._check(self._rows.feed(data))

    def finish(self) -> CheckedRecipients:
        return self._check(self._rows.finish())

    def _check(self, rows: Rows) -> CheckedRecipients:
        if self._rows.header and not self._names:
            self._open(self._rows.header)
        checked = CheckedRecipients([], [], rows.rejected, rows.blank)
        blank = 0
        for line, row in zip(rows.lines, rows.rows, strict=True):
            recipient = self._recipient(row)
            if isinstance(recipient, Recipient):
                checked.lines.append(line)
                checked.recipients.append(recipient)
            elif any(map(str.strip, row)):
                checked.rejected.append(reject(line, row[self._address], recipient))
            else:
                blank += 1
        return replace(checked, rejected=sorted(checked.rejected, key=attrgetter("line")), blank=rows.blank + blank)

    def _open(self, header: list[str]) -> None:
        try:
            self._names = column_names(header, self._column)
        except FileError as error:
            raise FileError(f"{self._name}: {error}") from None
        self._address = self._names.index("email")
        self.attributes = [name for name in self._names if name != "email"]

    def _recipient(self, row: list[str]) -> Recipient | Reason:
        if not row[self._address].strip():
            return Reason.NO_ADDRESS
        try:
            address = parse_address(row[self._address])
        except AddressError:
            return Reason.BAD_ADDRESS
        attributes = dict(zip(self._names, map(str.strip, row), strict=True))
        del attributes["email"]
        if max(map(len, row)) > MAX_ATTRIBUTE_CHARS and max(map(len, attributes.values())) > MAX_ATTRIBUTE_CHARS:
            return Reason.LONG_ATTRIBUTE
        if CONTROL("".join(attributes.values())):
            return Reason.CONTROL
        return Recipient(address.address, address.key, attributes)


def column_names(header: Sequence[str], column: str | int | None = None) -> list[str]:
    """A name for every column: "email" for the one of the addresses, an attribute's for each other.

    Raises FileError where a template could not use the names: none, two alike, reserved ones, too many.
    """
    address = find_column(header, column, ADDRESS_COLUMNS)
    if address is None:
        raise FileError(f"no column is called email; say which holds the addresses ({columns_of(header)})")
    if "@" in header[address]:
        raise FileError("the first line holds an address already; it must hold the names of the columns")
    if len(header) - 1 > MAX_ATTRIBUTES:
        raise FileError(f"{len(header)} columns: a recipient has at most {MAX_ATTRIBUTES} attributes")
    names = ["email" if index == address else attribute_name(cell) for index, cell in enumerate(header)]
    for number, name in enumerate(names, 1):
        if number != address + 1:
            _check_name(number, name, names)
    return names


def attribute_name(header: str) -> str:
    """A header as templates name it, [a-z_][a-z0-9_]*: "First Name" is first_name, "Größe (cm)" is groesse_cm.

    Empty when no letter or digit of the header can be written in ASCII.
    """
    composed = unicodedata.normalize("NFC", header).lower().translate(_UMLAUTS)
    letters = unicodedata.normalize("NFKD", composed).encode("ascii", "ignore").decode("ascii")
    name = re.sub(r"[^a-z0-9]+", "_", letters).strip("_")
    return f"_{name}" if name[:1].isdigit() else name


def _check_name(number: int, name: str, names: list[str]) -> None:
    if not name:
        raise FileError(f"column {number} has no name that a template could use: write it in Latin letters")
    if len(name) > MAX_ATTRIBUTE_NAME:
        raise FileError(f"column {number} has a name of more than {MAX_ATTRIBUTE_NAME} characters")
    if name == "email" or name in RESERVED:
        raise FileError(f"column {number} cannot be called {name!r}: the name is reserved; rename it")
    if (first := names.index(name) + 1) < number:
        raise FileError(f"columns {first} and {number} are both called {name!r}: rename one")
