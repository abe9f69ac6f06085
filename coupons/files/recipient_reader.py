"""Reads recipients from a CSV file. Each row has one address and its attributes.

A rejected row is kept with all its attributes. The CSV of rejected rows can be fixed and read like the original file;
unfixed rows are rejected again.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress, repeat
from json.encoder import encode_basestring
from operator import attrgetter

from coupons.addresses import Address, AddressError, parse_address
from coupons.attributes import (
    CONTROL,
    MAX_ATTRIBUTE_CHARS,
    MAX_ATTRIBUTE_NAME,
    MAX_ATTRIBUTES,
    RESERVED,
    attribute_name,
)
from coupons.files.csv_rows import RowReader, Rows
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat, describe_columns, find_column, normalized_header
from coupons.files.rejections import Reason, Rejected, cell_text, reject

ADDRESS_COLUMNS = frozenset(
    start + end
    for start in ("email", "mail")
    for end in ("", "s", "address", "addresses", "addr", "adresse", "adressen")
)
"""Normalized header names of the column that holds the addresses."""

EMAIL = "email"
LOST = "\ufffd"
"""U+FFFD. It marks earlier damage of a text, and replaces every invisible character in a rejected row."""

# The common form of addresses. `parse_address` accepts them unchanged, but takes 0.9 s per million instead of 0.2 s.
_PLAIN_ADDRESS = re.compile(
    r"[A-Za-z0-9_+-]{1,20}+(?:\.[A-Za-z0-9_+-]{1,20}+){0,2}+"
    r"@(?:[A-Za-z0-9]{1,20}+(?:-[A-Za-z0-9]{1,20}+){0,2}+\.){1,4}[A-Za-z]{2,20}+"
)


@dataclass(frozen=True, slots=True)
class CheckedRecipients:
    """A batch of checked rows, column by column: `addresses[i]` comes from line `lines[i]`.

    `keys[i]` identifies the mailbox. `attributes[i]` is a JSON object of strings, which Postgres stores unchanged.
    Blank rows are only counted.
    """

    lines: Sequence[int]
    keys: list[str]
    addresses: list[str]
    attributes: list[str]
    rejected: list[Rejected]
    blank: int


class RecipientReader:
    """Reads the recipients of a CSV file. In a CSV of rejected rows, the columns line and reason are ignored.

    The addresses are in the given column, else in the column with a known name (`ADDRESS_COLUMNS`). Before the first
    recipient, `attributes` is set to the names of the attributes, in the order of the file. After the first line,
    `description` contains the detected format in words, without the content of any cell. `feed` and `finish` raise
    FileError; the reader cannot be used afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self.attributes: list[str] = []
        self.description = ""
        self._column = file_format.column
        self._name = name
        self._rows = RowReader(file_format, name)
        self._address = 0
        self._places: list[int] = []
        self._is_reimport = False

    @property
    def notices(self) -> list[str]:
        """What was assumed, skipped or changed, one sentence each, without an address."""
        return []

    def feed(self, data: bytes) -> CheckedRecipients:
        return self._check(self._rows.feed(data))

    def finish(self) -> CheckedRecipients:
        return self._check(self._rows.finish())

    def _check(self, rows: Rows) -> CheckedRecipients:
        if not rows.columns:
            return CheckedRecipients([], [], [], [], [], rows.blank)
        if not self.description:
            self._open(self._rows.header)
        addresses = rows.columns[self._address]
        attributes = [list(map(str.strip, rows.columns[place])) for place in self._places]
        if self._is_reimport:
            addresses = [cell_text(cell.lstrip(" ")) for cell in addresses]
            attributes = [list(map(cell_text, cells)) for cells in attributes]
        return _check_rows(rows, addresses, self.attributes, attributes)

    def _open(self, header: list[str]) -> None:
        try:
            names = column_names(header, self._column)
        except FileError as error:
            raise FileError(f"{self._name}: {error}") from None
        self._address = names.index(EMAIL)
        self._places = [index for index, name in enumerate(names) if name not in ("", EMAIL)]
        self._is_reimport = "" in names
        self.attributes = [names[place] for place in self._places]
        self.description = self._rows.describe(self._address + 1)


def _check_rows(
    rows: Rows, cells: Sequence[str], names: Sequence[str], attributes: Sequence[Sequence[str]]
) -> CheckedRecipients:
    """Check rows. `cells` contain the addresses, `attributes[a][i]` is the value of `names[a]` in row `i`.

    The columns are processed in C as if every row had the common form. Suspicious rows are checked one by one.
    """
    results = {
        index: _check_row(cells[index], [each[index] for each in attributes])
        for index in _suspicious_rows(cells, attributes)
    }
    addresses, keys = list(cells), list(map(str.lower, cells))
    accepted = [True] * len(addresses)
    rejected = [
        replace(each, row={EMAIL: each.value}) for each in rows.rejected
    ]  # cells of these rows have no names yet
    for index, result in results.items():
        if isinstance(result, Address):
            addresses[index], keys[index] = result.address, result.key
        else:
            accepted[index] = False
            if result:
                row = zip(names, (each[index] for each in attributes), strict=True)
                rejected.append(_reject(rows.lines[index], cells[index], row, result))
    return CheckedRecipients(
        rows.lines if all(accepted) else list(compress(rows.lines, accepted)),
        list(compress(keys, accepted)),
        list(compress(addresses, accepted)),
        list(compress(_json_objects(names, attributes, len(accepted)), accepted)),
        sorted(rejected, key=attrgetter("line")),
        rows.blank + accepted.count(False) - len(rejected) + len(rows.rejected),
    )


def _suspicious_rows(cells: Sequence[str], attributes: Sequence[Sequence[str]]) -> list[int]:
    """The indices of the rows whose address or attributes do not have the common form."""
    rows = {index for index, common in enumerate(map(_PLAIN_ADDRESS.fullmatch, cells)) if not common}
    if not all(map(_are_plain, attributes)):
        rows |= {index for index, row in enumerate(zip(*attributes, strict=True)) if _violation(row)}
    return sorted(rows)


def _are_plain(values: Sequence[str]) -> bool:
    text = "".join(values)
    return text.isprintable() and LOST not in text and max(map(len, values), default=0) <= MAX_ATTRIBUTE_CHARS


def _check_row(cell: str, attributes: Sequence[str]) -> Address | Reason | None:
    """The address of the row, or the reason to reject the row. None if the row is blank."""
    if not cell.strip():
        return Reason.NO_ADDRESS if any(attributes) else None
    if LOST in cell:  # parse_address accepts it like any letter
        return Reason.BAD_ADDRESS
    try:
        address = parse_address(cell)
    except AddressError:
        return Reason.BAD_ADDRESS
    return _violation(attributes) or address


def _violation(attributes: Sequence[str]) -> Reason | None:
    if attributes and max(map(len, attributes)) > MAX_ATTRIBUTE_CHARS:
        return Reason.LONG_ATTRIBUTE
    text = "".join(attributes)
    return Reason.CONTROL if CONTROL(text) or LOST in text else None


def _reject(line: int, cell: str, attributes: Iterable[tuple[str, str]], reason: Reason) -> Rejected:
    """The rejected row with all its attributes. They keep their joiners, because names contain joiners."""
    rejected = reject(line, "" if reason is Reason.NO_ADDRESS else cell.lstrip(" "), reason)
    return replace(rejected, row={EMAIL: rejected.value} | {name: _sanitized(text) for name, text in attributes})


def _sanitized(attribute: str) -> str:
    """The value without control characters. A value that is too long stays too long, so its row is rejected again."""
    cut = attribute if len(attribute) <= MAX_ATTRIBUTE_CHARS else attribute[:MAX_ATTRIBUTE_CHARS] + "…"
    return "".join(LOST if CONTROL(character) else character for character in cut) if CONTROL(cut) else cut


def _json_objects(names: Sequence[str], attributes: Sequence[Sequence[str]], count: int) -> Iterable[str]:
    """One JSON object per row, joined from constant and variable parts. A million take 0.1 s (0.5 s with `%`)."""
    if not names:
        return repeat("{}", count)
    openings = [f'{{"{names[0]}":"', *(f'","{name}":"' for name in names[1:])]
    parts = [
        part for opening, each in zip(openings, attributes, strict=True) for part in (repeat(opening), _escape(each))
    ]
    return map("".join, zip(*parts, repeat('"}'), strict=False))


def _escape(values: Sequence[str]) -> Sequence[str]:
    """The values, escaped for JSON strings. Values with control characters are rejected elsewhere."""
    text = "".join(values)
    return [encode_basestring(value)[1:-1] for value in values] if '"' in text or "\\" in text else values


def column_names(header: Sequence[str], column: str | int | None = None) -> list[str]:
    """A name for every column: "email" for the column of the addresses, the attribute's name for every other column.

    The columns line and reason of a CSV of rejected rows get an empty name. Raises FileError if templates could not use
    the names: a name is empty, duplicate or reserved, or there are too many names.
    """
    address = find_column(header, column, ADDRESS_COLUMNS)
    if address is None:
        raise FileError(f"no column is named email; specify the address column ({describe_columns(header)})")
    if "@" in header[address]:
        raise FileError("the first line must be a header row, but contains an address")
    places = set(range(len(header))) - _report_columns(header) - {address}
    if len(places) > MAX_ATTRIBUTES:
        raise FileError(f"{len(header)} columns exceed the limit of {MAX_ATTRIBUTES} attributes")
    names = [attribute_name(cell) if index in places else "" for index, cell in enumerate(header)]
    names[address] = EMAIL
    for place in sorted(places):
        _check_name(place + 1, names[place], names)
    return names


def _report_columns(header: Sequence[str]) -> set[int]:
    """The indices of the columns line and reason if this is a CSV of rejected rows. Only the outer columns count."""
    return (
        {0, len(header) - 1}
        if (normalized_header(header[0]), normalized_header(header[-1])) == ("line", "reason")
        else set()
    )


def _check_name(number: int, name: str, names: list[str]) -> None:
    if not name:
        raise FileError(f"column {number} needs a name in Latin letters, so that templates can use it")
    if len(name) > MAX_ATTRIBUTE_NAME:
        raise FileError(f"the name of column {number} exceeds the limit of {MAX_ATTRIBUTE_NAME} characters")
    if name == EMAIL or name in RESERVED:
        raise FileError(f"column {number}: the name {name!r} is reserved; rename the column")
    if (first := names.index(name) + 1) < number:
        raise FileError(f"columns {first} and {number} have the same name {name!r}; rename one")
