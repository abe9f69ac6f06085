"""Recipients out of a CSV file: one address a row, and what a message may say about its owner.

A row that is refused is kept whole, with all that it says of its owner: the CSV of such rows, mended, is read as the
file was, and what nobody mended is refused again.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress, repeat
from json.encoder import encode_basestring
from operator import attrgetter

from coupons.addresses import Address, AddressError, parse_address
from coupons.commands import CONTROL, MAX_ATTRIBUTE_CHARS, MAX_ATTRIBUTES
from coupons.files.code_reader import FileFormat, RowReader, columns_of, find_column, plain
from coupons.files.codes import Reason, Rejected, cell_text, reject
from coupons.files.csv_rows import Rows
from coupons.files.decoding import FileError
from coupons.templates.rendering import RESERVED

ADDRESS_COLUMNS = frozenset(
    start + end
    for start in ("email", "mail")
    for end in ("", "s", "address", "addresses", "addr", "adresse", "adressen")
)
"""Header names, as `plain` makes them, of the column that holds the addresses."""

EMAIL = "email"
MAX_ATTRIBUTE_NAME = 50  # characters, as in a command
LOST = "\ufffd"
"""Stands for what was damaged before, and in a refused row for each character that nobody can see."""

# What most addresses look like, and `parse_address` takes as it is: 0.2 s a million of them instead of 0.9 s.
_PLAIN_ADDRESS = re.compile(
    r"[A-Za-z0-9_+-]{1,20}+(?:\.[A-Za-z0-9_+-]{1,20}+){0,2}+"
    r"@(?:[A-Za-z0-9]{1,20}+(?:-[A-Za-z0-9]{1,20}+){0,2}+\.){1,4}[A-Za-z]{2,20}+"
)

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "o", "ł": "l"})


@dataclass(frozen=True, slots=True)
class CheckedRecipients:
    """A batch of rows after the check, column by column: `lines[i]` is where `addresses[i]` stood.

    `keys[i]` is one person's, `attributes[i]` a JSON object of strings that Postgres takes as it is. Blank rows are
    only counted.
    """

    lines: Sequence[int]
    keys: list[str]
    addresses: list[str]
    attributes: list[str]
    rejected: list[Rejected]
    blank: int


class RecipientReader:
    """The recipients of a CSV file. `attributes`, their names in the file's order, are there before the first of them.

    The addresses are in the given column, else in the one with a known name (`ADDRESS_COLUMNS`). `seen` says in words
    how the file is read, without any cell, once its first line was seen. `feed` and `finish` raise FileError; the
    reader is of no use afterwards. In a CSV of rows that were refused before, their lines and reasons are left out.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self.attributes: list[str] = []
        self.seen = ""
        self._column = file_format.column
        self._name = name
        self._rows = RowReader(file_format, name)
        self._address = 0
        self._places: list[int] = []
        self._comes_back = False

    def feed(self, data: bytes) -> CheckedRecipients:
        return self._check(self._rows.feed(data))

    def finish(self) -> CheckedRecipients:
        return self._check(self._rows.finish())

    def _check(self, rows: Rows) -> CheckedRecipients:
        if not rows.columns:
            return CheckedRecipients([], [], [], [], [], rows.blank)
        if not self.seen:
            self._open(self._rows.header)
        addresses = rows.columns[self._address]
        attributes = [list(map(str.strip, rows.columns[place])) for place in self._places]
        if self._comes_back:
            addresses = [cell_text(cell.lstrip(" ")) for cell in addresses]
            attributes = [list(map(cell_text, cells)) for cells in attributes]
        return _checked(rows, addresses, self.attributes, attributes)

    def _open(self, header: list[str]) -> None:
        try:
            names = column_names(header, self._column)
        except FileError as error:
            raise FileError(f"{self._name}: {error}") from None
        self._address = names.index(EMAIL)
        self._places = [index for index, name in enumerate(names) if name not in ("", EMAIL)]
        self._comes_back = "" in names
        self.attributes = [names[place] for place in self._places]
        self.seen = self._rows.seen(self._address + 1)


def _checked(
    rows: Rows, cells: Sequence[str], names: Sequence[str], attributes: Sequence[Sequence[str]]
) -> CheckedRecipients:
    """`cells` hold the addresses, `attributes[a][i]` is the value of `names[a]` in row `i`.

    By columns, in C, as if every row were plain; then the verdicts about those that are not are put in.
    """
    verdicts = {
        index: _verdict(cells[index], [each[index] for each in attributes]) for index in _odd(cells, attributes)
    }
    addresses, keys = list(cells), list(map(str.lower, cells))
    takes = [True] * len(addresses)
    rejected = [replace(each, row={EMAIL: each.value}) for each in rows.rejected]  # whose cells have no names
    for index, verdict in verdicts.items():
        if isinstance(verdict, Address):
            addresses[index], keys[index] = verdict.address, verdict.key
        else:
            takes[index] = False
            if verdict:
                row = zip(names, (each[index] for each in attributes), strict=True)
                rejected.append(_reject(rows.lines[index], cells[index], row, verdict))
    return CheckedRecipients(
        rows.lines if all(takes) else list(compress(rows.lines, takes)),
        list(compress(keys, takes)),
        list(compress(addresses, takes)),
        list(compress(_json_objects(names, attributes, len(takes)), takes)),
        sorted(rejected, key=attrgetter("line")),
        rows.blank + takes.count(False) - len(rejected) + len(rows.rejected),
    )


def _odd(cells: Sequence[str], attributes: Sequence[Sequence[str]]) -> list[int]:
    """The indices of the rows that are not plain at a glance: their address or their attributes."""
    odd = {index for index, plain in enumerate(map(_PLAIN_ADDRESS.fullmatch, cells)) if not plain}
    if not all(map(_are_plain, attributes)):
        odd |= {index for index, row in enumerate(zip(*attributes, strict=True)) if _against(row)}
    return sorted(odd)


def _are_plain(values: Sequence[str]) -> bool:
    text = "".join(values)
    return text.isprintable() and LOST not in text and max(map(len, values), default=0) <= MAX_ATTRIBUTE_CHARS


def _verdict(cell: str, attributes: Sequence[str]) -> Address | Reason | None:
    """The row's address, or why it has none; None for a blank row."""
    if not cell.strip():
        return Reason.NO_ADDRESS if any(attributes) else None
    if LOST in cell:  # otherwise a letter like others
        return Reason.BAD_ADDRESS
    try:
        address = parse_address(cell)
    except AddressError:
        return Reason.BAD_ADDRESS
    return _against(attributes) or address


def _against(attributes: Sequence[str]) -> Reason | None:
    if attributes and max(map(len, attributes)) > MAX_ATTRIBUTE_CHARS:
        return Reason.LONG_ATTRIBUTE
    text = "".join(attributes)
    return Reason.CONTROL if CONTROL(text) or LOST in text else None


def _reject(line: int, cell: str, attributes: Iterable[tuple[str, str]], reason: Reason) -> Rejected:
    """With the whole row. Joiners stay in its attributes: they are parts of names."""
    rejected = reject(line, "" if reason is Reason.NO_ADDRESS else cell.lstrip(" "), reason)
    return replace(rejected, row={EMAIL: rejected.value} | {name: _shown(text) for name, text in attributes})


def _shown(attribute: str) -> str:
    """What was too long still is."""
    cut = attribute if len(attribute) <= MAX_ATTRIBUTE_CHARS else attribute[:MAX_ATTRIBUTE_CHARS] + "…"
    return "".join(LOST if CONTROL(character) else character for character in cut) if CONTROL(cut) else cut


def _json_objects(names: Sequence[str], attributes: Sequence[Sequence[str]], count: int) -> Iterable[str]:
    """An object for each row, joined of what is the same in all and what is not: 0.1 s a million, `%` takes 0.5 s."""
    if not names:
        return repeat("{}", count)
    openings = [f'{{"{names[0]}":"', *(f'","{name}":"' for name in names[1:])]
    parts = [
        part for opening, each in zip(openings, attributes, strict=True) for part in (repeat(opening), _escaped(each))
    ]
    return map("".join, zip(*parts, repeat('"}'), strict=False))


def _escaped(values: Sequence[str]) -> Sequence[str]:
    """As they stand between the quotes of a JSON string; what holds control characters is refused anyway."""
    text = "".join(values)
    return [encode_basestring(value)[1:-1] for value in values] if '"' in text or "\\" in text else values


def column_names(header: Sequence[str], column: str | int | None = None) -> list[str]:
    """A name for every column: "email" for the one of the addresses, an attribute's for each other.

    The lines and the reasons in a CSV of refused rows have none. Raises FileError where a template could not use the
    names: none, two alike, reserved ones, too many.
    """
    address = find_column(header, column, ADDRESS_COLUMNS)
    if address is None:
        raise FileError(f"no column is called email; say which holds the addresses ({columns_of(header)})")
    if "@" in header[address]:
        raise FileError("the first line holds an address already; it must hold the names of the columns")
    places = set(range(len(header))) - _our_own(header) - {address}
    if len(places) > MAX_ATTRIBUTES:
        raise FileError(f"{len(header)} columns: a recipient has at most {MAX_ATTRIBUTES} attributes")
    names = [attribute_name(cell) if index in places else "" for index, cell in enumerate(header)]
    names[address] = EMAIL
    for place in sorted(places):
        _check_name(place + 1, names[place], names)
    return names


def _our_own(header: Sequence[str]) -> set[int]:
    """Where a CSV of refused rows has their lines and reasons; the file may have had columns of these names too."""
    return {0, len(header) - 1} if (plain(header[0]), plain(header[-1])) == ("line", "reason") else set()


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
    if name == EMAIL or name in RESERVED:
        raise FileError(f"column {number} cannot be called {name!r}: the name is reserved; rename it")
    if (first := names.index(name) + 1) < number:
        raise FileError(f"columns {first} and {number} are both called {name!r}: rename one")
