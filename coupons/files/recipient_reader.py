"""Reads recipients from tables, and from lists of addresses. Each row has one address and its attributes.

A rejected row is kept with all its attributes. The CSV of rejected rows can be fixed and read like the original file;
unfixed rows are rejected again.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress, repeat
from json.encoder import encode_basestring
from operator import attrgetter

from coupons.addresses import Address, AddressError, parse_address
from coupons.attributes import CONTROL
from coupons.files.address_columns import find_address_column, is_address_name
from coupons.files.address_lines import (
    SplitLine,
    Surrounding,
    are_address_lines,
    find_address,
    may_be_address,
    split_line,
)
from coupons.files.attribute_values import Values
from coupons.files.columns import EMAIL, choose_attributes
from coupons.files.conditions import Selection
from coupons.files.converted import CONVERTED
from coupons.files.csv_rows import Rows, Table
from coupons.files.decoding import FileError, Lines, concerning
from coupons.files.format import FileFormat, normalized_header
from coupons.files.layout import HeadRow, Opening, count_titles, cut_head
from coupons.files.notices import limit_notices
from coupons.files.rejections import Reason, Rejected, cell_text, shown_text

__all__ = ["EMAIL", "CheckedRecipients", "RecipientReader"]

LOST = "\ufffd"
"""U+FFFD. It marks earlier damage of a text, and replaces every invisible character in a rejected row."""
NAME = "name"
"""The attribute that has the names in a list of `Name <address>`."""

# The common form of addresses. `parse_address` accepts them unchanged, but takes 0.9 s per million instead of 0.2 s.
_PLAIN_ADDRESS = re.compile(
    r"[A-Za-z0-9_+-]{1,20}+(?:\.[A-Za-z0-9_+-]{1,20}+){0,2}+"
    r"@(?:[A-Za-z0-9]{1,20}+(?:-[A-Za-z0-9]{1,20}+){0,2}+\.){1,4}[A-Za-z]{2,20}+"
)


_LOST_DIGITS = re.compile(
    "-?\\d\\.\\d+E\\+\\d+\ufffd"
).fullmatch  # a number cell of a spreadsheet (coupons/sheets/numbers.py)


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


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a row has its address and its attributes. `first` describes the first address.

    A list of addresses has one column: its lines are split into addresses and names.
    """

    address: int
    names: list[str]
    places: list[int]
    notices: list[str]
    selection: Selection
    width: int = 1
    first: str = ""
    is_list: bool = False
    is_reimport: bool = False


@dataclass(frozen=True, slots=True)
class _Problem:
    """The reason to reject a row, with its detail."""

    reason: Reason
    detail: str = ""


class RecipientReader:
    """Reads the recipients of a file. In a CSV of rejected rows, the columns line and reason are ignored.

    The addresses are in the given column, else in the column with the likeliest name (`find_address_column`). Before
    the first recipient, `attributes` is set to the names of the attributes, in the order of the file. After the head,
    `description` contains the detected format in words, with the first address masked. `feed` and `finish` raise
    FileError; the reader cannot be used afterwards.
    """

    def __init__(self, file_format: FileFormat, name: str = "the file") -> None:
        self.attributes: list[str] = []
        self.description = ""
        self._format = file_format
        self._name = name
        self._lines = Lines(file_format.encoding, name, is_forced=file_format.force_encoding)
        self._head: list[str] = []
        self._table: Table | None = None
        self._plan: _Plan | None = None
        self._values = Values()
        self._removed: Counter[Surrounding] = Counter()

    @property
    def notices(self) -> list[str]:
        """What was assumed, skipped, cut or left out, one sentence each, without an address."""
        if not self._table or not self._plan:
            return []
        return limit_notices([
            *self._table.notices, *self._plan.notices, *self._plan.selection.notices, *self._removed_parts(),
            *self._values.notices,
        ])  # fmt: skip

    def feed(self, data: bytes) -> CheckedRecipients:
        return self._read(*self._lines.feed(data))

    def finish(self) -> CheckedRecipients:
        return self._read(*self._lines.feed(b"", final=True), final=True)

    def _read(self, first: int, lines: list[str], *, final: bool = False) -> CheckedRecipients:
        if any(CONVERTED in line for line in lines):
            lines = [line.replace(CONVERTED, "") for line in lines]
        if self._table is None:
            lines = self._head = self._head + lines
            length = cut_head(lines, final=final, skipped=self._format.skip_lines)
            if length is None:
                return CheckedRecipients([], [], [], [], [], 0)
            file_format = _detect_kind(lines[:length], self._format)
            self._table = Table(file_format, self._name, self._begin, lambda cells: any(map(is_address_name, cells)))
            first, self._head = 1, []
        return self._check(self._table.feed(first, lines, final=final))

    def _begin(self, rows: list[HeadRow]) -> Opening:
        """Set the plan by the rows of the head."""
        file_format = self._format
        titles = 0 if file_format.header is False else count_titles(rows, lambda row: "@" in "".join(row.cells))
        top = rows[titles]
        has_header = file_format.header if file_format.header is not None else not _may_be_recipient(top.cells)
        width = len(top.cells) if has_header else max(len(row.cells) for row in rows[titles:])
        header = [cell.strip() for cell in top.cells] if has_header else [""] * width
        if _report_columns(header):  # a spreadsheet makes the header as wide as a row with too many cells
            width = len(header := _without_empty_end(header))
        body = rows[titles + has_header :]
        with concerning(top.line):
            if self._table and self._table.kind == "txt":
                self._plan = _list_plan(header, body, file_format, top.line)
            else:
                if not has_header and file_format.header is None and width > 1:
                    raise FileError(_no_header(top))
                self._plan = _table_plan(header, body, file_format, top.line)
                self._values.are_wrapped = not self._plan.is_reimport
        self.attributes = self._plan.names
        height = 1 + "".join(top.cells).count("\n") if has_header else 0
        return Opening(width, self._plan.address, top.line + height, top.line if has_header else 0)

    def _check(self, rows: Rows) -> CheckedRecipients:
        plan = self._plan
        if plan is None or self._table is None or not rows.columns:
            return CheckedRecipients([], [], [], [], [], rows.blank)
        if not self.description:
            parts = self._table.describe(plan.address + 1), self._lines.encoding, plan.first
            self.description = ", ".join(filter(None, parts))
        rows = plan.selection.select(rows)
        columns = rows.columns
        if plan.is_reimport:
            columns = [[cell_text(cell.strip()) for cell in cells] for cells in columns]
        split, attributes = self._parts(plan, columns)
        addresses = [part.address for part in split] if split else columns[plan.address]
        unfixed = _unfixed_duplicates(addresses, columns[-1]) if plan.is_reimport else ()
        rejected = [_in_columns(plan, each) for each in rows.rejected]
        checked = _check_rows(
            replace(rows, rejected=rejected), addresses, plan.names, attributes, unfixed=unfixed, removed=self._removed
        )
        accepted = checked.lines if isinstance(checked.lines, range) else set(checked.lines)
        for line, part in zip(rows.lines, split, strict=False):  # only a list with names has parts
            if part.removed and line in accepted:
                self._removed.update(part.removed)
        return checked

    def _parts(self, plan: _Plan, columns: Sequence[Sequence[str]]) -> tuple[list[SplitLine], list[list[str]]]:
        """The parts of the lines of a list with names, and the values of each attribute."""
        if plan.is_list and plan.names:
            parts = list(map(split_line, columns[0]))
            return parts, [self._values.clean(NAME, [part.name for part in parts])]
        return [], [
            self._values.clean(name, columns[place]) for name, place in zip(plan.names, plan.places, strict=True)
        ]

    def _removed_parts(self) -> list[str]:
        """What was removed around the accepted addresses. The names of a list are kept as an attribute."""
        are_kept = self._plan is not None and self._plan.is_list and self._plan.names
        removed = {
            what: count for what, count in self._removed.items() if what is not Surrounding.NAMES or not are_kept
        }
        return [
            what.format(addresses=f"{count:,} address{'' if count == 1 else 'es'}")
            for what, count in sorted(removed.items())
        ]


def _detect_kind(head: Sequence[str], file_format: FileFormat) -> FileFormat:
    """The format for the table layer: a list of addresses is a txt file, any other file of recipients is a csv file."""
    lines = [line for line in head[file_format.skip_lines :] if not line.lstrip().startswith("#") or "@" in line]
    can_be_list = file_format.separator is None and file_format.column in (None, 1, "1")
    if file_format.kind == "txt" or (file_format.kind is None and can_be_list and are_address_lines(lines)):
        return replace(file_format, kind="txt", separator=None, column=None, header=None)
    return replace(file_format, kind="csv")


def _list_plan(header: Sequence[str], body: Sequence[HeadRow], file_format: FileFormat, line: int) -> _Plan:
    if file_format.columns:
        raise FileError("a list of addresses has no columns: omit --columns")
    if _are_numbered([row.cells[0] for row in body]):
        raise FileError("the lines are numbered without a blank behind the number: remove the numbers")
    has_names = any(split_line(row.cells[0]).name for row in body)
    unknown = header[0] and file_format.header is None and not is_address_name(header[0])
    return _Plan(
        address=0,
        names=[NAME] if has_names else [],
        places=[0] if has_names else [],
        notices=[f"line {line} contains no address and was read as a header"] if unknown else [],
        selection=Selection(file_format.where, []),
        first=_first_address(row.cells[0] for row in body),
        is_list=True,
    )


def _are_numbered(lines: Sequence[str]) -> bool:
    """Whether at least three lines are `1.ada@example.org`, `2.bob@example.org` …, which are valid addresses."""
    return len(lines) > 2 and all(line.lstrip().startswith(f"{number}.") for number, line in enumerate(lines, 1))


def _table_plan(header: Sequence[str], body: Sequence[HeadRow], file_format: FileFormat, line: int) -> _Plan:
    samples = [[row.cells[place] for row in body if place < len(row.cells)] for place in range(len(header))]
    address, notices = find_address_column(header, samples, file_format.column)
    report = _report_columns(header)
    attributes = choose_attributes(header, address, chosen=file_format.columns, ignored=report)
    return _Plan(
        address=address,
        names=attributes.names,
        places=attributes.places,
        notices=[*([_report_notice(line)] if report else []), *notices, *attributes.notices],
        selection=Selection(file_format.where, header, subject=address),
        width=len(header),
        first=_first_address(samples[address]),
        is_reimport=bool(report),
    )


def _report_notice(line: int) -> str:
    return (
        f"line {line} is the header of a CSV of rejected lines: unchanged lines are rejected again, and the columns"
        " line and reason are ignored"
    )


def _may_be_recipient(cells: Sequence[str]) -> bool:
    """Whether the first row may be a recipient, also with an invalid address, instead of a header."""
    unknown = [cell for cell in cells if not is_address_name(cell)]
    return any(map(find_address, unknown)) or any(may_be_address(cell, is_alone=len(cells) == 1) for cell in unknown)


def _no_header(row: HeadRow) -> str:
    if row.filled > 1 and all(map(find_address, filter(str.strip, row.cells))):
        return "the line contains several addresses: write each on a line of its own, or choose one with --no-header"
    return "a header row must be here, but the line contains an address; without a header, use --no-header"


def _first_address(cells: Iterable[str]) -> str:
    """A description of the first address, with only the first character before the @."""
    address = next(filter(None, map(find_address, cells)), "")
    return f"first address {address[0]}•••@{address.rpartition('@')[2]}" if address else ""


def _unfixed_duplicates(addresses: Sequence[str], reasons: Sequence[str]) -> list[int]:
    """The indices of the rows of a report that still have the address for which they were rejected.

    Only the reason of a duplicate ends with the address: the row itself is valid, and the first line with this address
    is in the group now. So the row would replace the attributes of that line.
    """
    pairs = zip(addresses, reasons, strict=True)
    return [index for index, (address, reason) in enumerate(pairs) if address and reason.endswith(f": {address}")]


def _in_columns(plan: _Plan, rejected: Rejected) -> Rejected:
    """A row of the table layer with its cells by column name. Cells beyond the columns stay in `extra`."""
    if rejected.reason is not Reason.COLUMNS or not rejected.extra:
        return replace(rejected, row={EMAIL: rejected.value})
    cells = dict(enumerate(map(str.strip, rejected.extra)))
    address = cells.get(plan.address, "")
    row = {EMAIL: address} | {name: cells.get(place, "") for name, place in zip(plan.names, plan.places, strict=True)}
    beyond = rejected.extra[plan.width :]
    if not beyond:
        return replace(rejected, value=address, reason=Reason.NO_ADDRESS, detail="", row=row, extra=())
    return replace(rejected, value=address, row=row, extra=beyond)


def _check_rows(
    rows: Rows,
    cells: Sequence[str],
    names: Sequence[str],
    attributes: Sequence[Sequence[str]],
    *,
    unfixed: Iterable[int],
    removed: Counter[Surrounding],
) -> CheckedRecipients:
    """Check rows. `cells` contain the addresses, `attributes[a][i]` is the value of `names[a]` in row `i`.

    The columns are processed in C as if every row had the common form. Suspicious rows are checked one by one. The rows
    with the indices `unfixed` are duplicates. `removed` counts what was removed around accepted addresses.
    """
    results = {
        index: _check_row(cells[index], [each[index] for each in attributes])
        for index in _suspicious_rows(cells, attributes)
    } | dict.fromkeys(unfixed, _Problem(Reason.DUPLICATE))
    addresses, keys = list(cells), list(map(str.lower, cells))
    accepted = [True] * len(addresses)
    rejected = list(rows.rejected)
    for index, result in results.items():
        if isinstance(result, Address):
            addresses[index], keys[index] = result.address, result.key
            removed.update(split_line(cells[index]).removed)
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
        rows |= {index for index, row in enumerate(zip(*attributes, strict=True)) if _has_damage(row)}
    return sorted(rows)


def _are_plain(values: Sequence[str]) -> bool:
    text = "".join(values)
    return text.isprintable() and LOST not in text


def _check_row(cell: str, attributes: Sequence[str]) -> Address | _Problem | None:
    """The address of the row, or the reason to reject the row. None if the row is blank."""
    if not cell.strip():
        return _Problem(Reason.NO_ADDRESS) if any(attributes) else None
    if LOST in cell:  # parse_address accepts it like any letter
        return _Problem(Reason.BAD_ADDRESS, "has a character that was lost earlier (U+FFFD)")
    try:
        address = parse_address(split_line(cell).address)
    except AddressError as error:
        return _Problem(Reason.BAD_ADDRESS, error.reason)
    if _has_damage(attributes):
        return _Problem(Reason.EXCEL if any(map(_LOST_DIGITS, attributes)) else Reason.CONTROL)
    return address


def _has_damage(attributes: Sequence[str]) -> bool:
    """Whether a value has control characters, or a character that another program has replaced."""
    text = "".join(attributes)
    return CONTROL(text) is not None or LOST in text


def _reject(line: int, cell: str, attributes: Iterable[tuple[str, str]], problem: _Problem) -> Rejected:
    """The rejected row with all its attributes. They keep their joiners, because names contain joiners."""
    shown = "" if problem.reason is Reason.NO_ADDRESS else shown_text(cell.strip())
    row = {EMAIL: shown} | {name: _sanitized(text) for name, text in attributes}
    return Rejected(line, shown, problem.reason, row, problem.detail)


def _sanitized(attribute: str) -> str:
    """The value without control characters."""
    return "".join(LOST if CONTROL(each) else each for each in attribute) if CONTROL(attribute) else attribute


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


def _report_columns(header: Sequence[str]) -> set[int]:
    """The indices of the columns line and reason if this is a CSV of rejected rows. Only the outer columns count."""
    names = _without_empty_end(header)
    is_report = names and (normalized_header(names[0]), normalized_header(names[-1])) == ("line", "reason")
    return {0, len(names) - 1} if is_report else set()


def _without_empty_end(header: Sequence[str]) -> list[str]:
    """The names up to the last column that has one."""
    return list(header[: max((place + 1 for place, name in enumerate(header) if name.strip()), default=0)])
