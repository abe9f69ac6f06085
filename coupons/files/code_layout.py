"""Which line of a file of codes is its header, and which column holds the codes.

The names and the shapes of the cells in the head decide. A header must never be mailed as a code, and a code must never
be dropped silently. So a line that could be both is refused, with the option that solves it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from coupons.files.codes import violation
from coupons.files.decoding import FileError, concerning
from coupons.files.format import FileFormat, describe_columns, find_column, looks_like_header, same_name
from coupons.files.header_names import NameKind, code_name, has_code_word, is_other_name, name_key
from coupons.files.layout import HeadRow, Opening, count_titles
from coupons.files.not_codes import is_address, is_missing, is_total
from coupons.files.notices import quoted_name
from coupons.files.spelling import unwrap
from coupons.files.words import is_word

UNDECIDED = "could be a header or a code: use --header or --no-header"
NO_COLUMN = "specify the code column by name or number"
ADDRESSES = "these are e-mail addresses: did you mean `coupons group import`?"
NUMBERED = (
    "the lines begin with their numbers: remove the numbers, or use --header or --no-header if they belong to codes"
)
FRAMED = (
    "most lines have a bullet, brackets, a label or a tag around the code: remove it, or use --header or --no-header if"
    " it belongs to the codes"
)
_MAX_TITLES = 20
_FRAME = re.compile(
    r"[-*+>\u2022\u00b7\u2013\u2014] +\S.*|\(.*\)[,;]?|\[.*\][,;]?|\{.*\}[,;]?|=\s*\w+\(.*\)|.*<[A-Za-z/][^<>]*>"
    r"|[^\W\d_][^\W_ ]*(?: [^\W_]+){0,4} ?(?:=|: )\s*\S.*"
).fullmatch

_DATE = re.compile(
    r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}\.?(?:[T ].*)?|\d{1,2}:\d\d(?::\d\d)?(?: ?[AaPp][Mm])?"
    r"|(?:\d{1,2}\.? )?[^\W\d]{3,9}\.? \d{1,4},? \d{2,4}.*"
).fullmatch
_AMOUNT = re.compile(r"[^\w\s]{0,2} ?[-+]?\d{1,5}(?:[.,]\d{1,3})* ?(?:%|[^\w\s]|[A-Za-z]{2,3})?").fullmatch


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """The column with the codes and its header. `is_report` tells that the file is a CSV of rejected lines."""

    opening: Opening
    column: int
    header: str = ""
    is_report: bool = False
    first_code: str = ""
    notices: list[str] = field(default_factory=list)


def find_code_layout(rows: Sequence[HeadRow], file_format: FileFormat) -> CodeLayout:
    """The layout of a file of codes with these first rows. Raises FileError if it is not certain."""
    if file_format.header is not False and _is_report(rows[0].cells):
        return _report_layout(rows, file_format)
    titles = 0 if file_format.header is False else _count_titles(rows, file_format)
    with concerning(rows[titles].line):
        return _table_layout(rows[titles:], file_format)


def _table_layout(rows: Sequence[HeadRow], file_format: FileFormat) -> CodeLayout:
    """The layout of a table whose header or first code is in the first row."""
    row, rest = rows[0], rows[1:]
    width = len(row.cells)
    if width == 1 and 2 * sum(below.filled > 1 for below in rest) > len(rest):
        raise FileError("the line has one cell, but most lines below it have more: use --skip-lines N if it is a title")
    header = [""] * width if file_format.header is False else row.cells
    column = _named_column(header, rest, file_format)
    by_content = column is None
    if column is None:
        column = _only_code_column(row, rest, file_format)
    has_header = _is_header(row, rest, column, file_format)
    data = rest if has_header else rows
    values = _values(data, column)
    if file_format.header is None and _are_numbered(values):
        raise FileError(NUMBERED)
    if values and 2 * sum(map(is_address, values)) >= len(values):
        raise FileError(ADDRESSES)
    if file_format.header is None and values and 2 * sum(map(bool, map(_FRAME, values))) > len(values):
        raise FileError(FRAMED)
    opening = (
        Opening(width, column, row.line + _height(row), row.line) if has_header else Opening(width, column, row.line)
    )
    notices = []
    if has_header and file_format.header is None:
        notices.append(f"line {row.line} {quoted_name(row.cells[column])} was read as a header")
    notices += _column_notices(row, data, column, has_header=has_header, by_content=by_content)
    first = next((text for text in values if not violation(text)), "")
    return CodeLayout(opening, column, row.cells[column] if has_header else "", False, first, notices)


# --- a CSV of rejected lines -----------------------------------------------------------------------------------------


def _is_report(header: Sequence[str]) -> bool:
    filled = [cell for cell in header if cell.strip()]
    return len(filled) > 2 and name_key(filled[0]) == "line" and name_key(filled[-1]) == "reason"


def _report_layout(rows: Sequence[HeadRow], file_format: FileFormat) -> CodeLayout:
    """The layout of a CSV of rejected lines. Cells behind the last name belong to no column."""
    row = rows[0]
    header = list(row.cells)
    while not header[-1].strip():
        header.pop()
    column = _named_column(header, (), file_format)
    column = 1 if column is None else column
    opening = Opening(len(header), column, row.line + _height(row), row.line)
    notices = [f"line {row.line} is the header of a CSV of rejected lines: unchanged lines are rejected again"]
    return CodeLayout(opening, column, header[column], True, "", notices)


# --- titles ----------------------------------------------------------------------------------------------------------


def _count_titles(rows: Sequence[HeadRow], file_format: FileFormat) -> int:
    """The number of rows above the header that are titles, such as the name of the report."""
    if titles := _wide_header(rows, file_format):
        return titles
    for index, row in enumerate(rows[:_MAX_TITLES]):
        if any(_is_name(cell, file_format) for cell in row.cells):
            below = rows[index + 1 :]
            return index if all(_is_title(above, row, below, certain=False) for above in rows[:index]) else 0
    widest = max(row.filled for row in rows)
    return count_titles(
        rows, lambda row: widest < 2 or not _is_title(row, rows[-1], rows[2:] or rows[1:], certain=True)
    )


def _wide_header(rows: Sequence[HeadRow], file_format: FileFormat) -> int:
    """The number of rows with one cell above the first wider row, if this has a known name and most rows are as wide.

    0 if there is no such header.
    """
    place = next((index for index, row in enumerate(rows[:_MAX_TITLES]) if row.filled > 1), 0)
    if not any(_is_given(cell, file_format) or code_name(cell) is NameKind.STRONG for cell in rows[place].cells):
        return 0
    return place if 2 * sum(row.filled > 1 for row in rows[place + 1 :]) > len(rows) - place - 1 else 0


def _is_name(cell: str, file_format: FileFormat) -> bool:
    return _is_given(cell, file_format) or code_name(cell) is not NameKind.NONE


def _is_given(cell: str, file_format: FileFormat) -> bool:
    return isinstance(file_format.column, str) and same_name(cell, file_format.column)


def _is_title(row: HeadRow, header: HeadRow, below: Sequence[HeadRow], *, certain: bool) -> bool:
    """Whether a row above the header is a title: it is narrower, and has not the shape of the codes below.

    Above a known name, a shape that may be that of a header is enough. Then `certain` is False.
    """
    if row.filled > 1 and row.filled >= header.filled:
        return False
    for column, cell in enumerate(row.cells):
        shape = _shape_of_header(cell.strip(), _values(below, column)) if cell.strip() else True
        is_sentence = header.filled > row.filled and " " in cell.strip()
        if not (shape or is_sentence or (shape is False and not certain)):
            return False
    return True


# --- the column ------------------------------------------------------------------------------------------------------


def _named_column(header: Sequence[str], rest: Sequence[HeadRow], file_format: FileFormat) -> int | None:
    """The given column, or the column with a known name.

    Raises FileError if several columns have known names, and not exactly one of them can hold codes.
    """
    if file_format.column is not None:
        return find_column(header, file_format.column, frozenset())
    for kind in (NameKind.STRONG, NameKind.WEAK):
        found = [index for index, cell in enumerate(header) if code_name(cell) is kind]
        if len(found) == 1 and not (rivals := _rivals(header, rest, found[0])):
            return found[0]
        if len(found) == 1:
            numbers = ", ".join(str(each + 1) for each in [*found, *rivals])
            raise FileError(f"columns {numbers} may all hold the codes: specify one of them with --column")
        able = [index for index in found if _can_hold_codes(_values(rest, index))]
        if len(able) == 1:
            return able[0]
        if found and kind is NameKind.STRONG:
            raise FileError(f"ambiguous column name ({', '.join(str(each + 1) for each in found)}): use its number")
    return None


def _rivals(header: Sequence[str], rest: Sequence[HeadRow], column: int) -> list[int]:
    """Other columns that may hold the codes if the one with a known name has serial numbers, such as Activation Key."""
    if not name_key(header[column]).startswith("seri"):
        return []
    return [
        index
        for index, cell in enumerate(header)
        if index != column and has_code_word(cell) and _can_hold_codes(_values(rest, index))
    ]


def _only_code_column(row: HeadRow, rest: Sequence[HeadRow], file_format: FileFormat) -> int:
    """The only column that can hold codes. Raises FileError if there are several or none."""
    if len(row.cells) == 1:
        return 0
    names = ["" if file_format.header is False else cell for cell in row.cells]
    is_named = any(map(is_other_name, names))
    data = rest if is_named or file_format.header else [row, *rest]
    found = [
        column
        for column, name in enumerate(names)
        if not (is_named and is_other_name(name)) and _can_hold_codes(_values(data, column))
    ]
    if len(found) == 1:
        return found[0]
    if not found and any(_are_addresses(_values(data, column)) for column in range(len(names))):
        raise FileError(ADDRESSES)
    raise FileError(
        f"{NO_COLUMN}: use --column, or --skip-lines N if the table begins below ({describe_columns(row.cells)})"
    )


def _can_hold_codes(values: Sequence[str]) -> bool:
    """Whether the values of a column can be codes: no two are equal, and most are not amounts, dates or sentences."""
    if not values or len(set(values)) < 0.9 * len(values):
        return False
    others = sum(
        bool(violation(each) or is_address(each) or _DATE(each) or _AMOUNT(each) or is_missing(each) or " " in each)
        for each in values
    )
    return 2 * others < len(values)


def _are_addresses(values: Sequence[str]) -> bool:
    return bool(values) and 2 * sum(map(is_address, values)) >= len(values)


def _are_numbered(values: Sequence[str]) -> bool:
    """Whether each value begins with its number, as in "1. AAAA-1111"."""
    numbered = (re.match(rf"{number}[.)] \s*\S", each) for number, each in enumerate(values, 1))
    return len(values) > 1 and all(numbered)


def _column_notices(
    row: HeadRow, data: Sequence[HeadRow], column: int, *, has_header: bool, by_content: bool
) -> list[str]:
    def shown(index: int) -> str:
        return f"column {index + 1}" + (f" {quoted_name(row.cells[index])}" if has_header else "")

    others = [index for index in range(len(row.cells)) if index != column and _values(data, index)]
    if by_content and others:
        ignored = ", ".join(map(shown, others))
        return [f"{shown(column)} was read as the codes, because no other column can hold codes; ignored: {ignored}"]
    addresses = [index for index in others if _are_addresses(_values(data, index))]
    return [f"{shown(index)} was ignored: it contains e-mail addresses" for index in addresses]


# --- the header ------------------------------------------------------------------------------------------------------


def _is_header(row: HeadRow, rest: Sequence[HeadRow], column: int, file_format: FileFormat) -> bool:
    """Whether the row is a header. Raises FileError if it could be a code as well."""
    if file_format.header is not None:
        return file_format.header
    cells = row.cells
    if any(_is_given(cell, file_format) or code_name(cell) is NameKind.STRONG for cell in cells):
        return True
    if len(cells) > 1 and _has_other_names(row, rest, column):
        return True
    if file_format.column is not None and len(cells) > 1 and looks_like_header(cells):
        return True
    cell, values = cells[column].strip(), _values(rest, column)
    shape = _shape_of_header(cell, values)
    if shape is None and code_name(cell) is NameKind.WEAK:
        shape = False
    elif shape is False and code_name(cell) is NameKind.WEAK:
        shape = True
    if shape is False:
        raise FileError(UNDECIDED)
    return bool(shape)


def _has_other_names(row: HeadRow, rest: Sequence[HeadRow], column: int) -> bool:
    """Whether another column shows that the row is a header: by a known name, or by amounts or dates below a word."""
    for index, cell in enumerate(row.cells):
        text = cell.strip()
        if index == column or not text:
            continue
        if is_other_name(text) and text not in _values(rest, index):
            return True
        values = _values(rest, index)
        typed = all(_DATE(each) or _AMOUNT(each) or is_address(each) for each in values)
        if values and typed and not (_DATE(text) or _AMOUNT(text) or is_address(text) or is_missing(text)):
            return True
    return False


def _shape_of_header(cell: str, values: Sequence[str]) -> bool | None:
    """Whether the cell has another shape than most codes below it: True, False for a doubt, None for the same shape."""
    text, _ = unwrap(cell)
    if not text or violation(text) or is_missing(text) or is_total(text) or is_address(text):
        return None  # it is rejected with its reason
    if is_other_name(text) and not any(map(is_other_name, values)):
        return True
    one_word = [not re.search(r"\s", each) for each in values]
    values = [each for each in values if not violation(each)]
    if not values:
        return False if " " in text and not _digits(text) else None
    styles = list(map(_style, values))
    if len(values) > 2 and _resembles(text, values):
        return False if _may_be_word(text, values) else None
    no_digit = not _digits(text) and _are_most(map(_digits, values))
    blank = " " in text and _are_most(one_word)
    style = _style(text) is not None and _are_most(each not in {None, _style(text)} for each in styles)
    length = len(values) > 2 and {len(each) for each in values} != {len(text)} and len({*map(len, values)}) == 1
    if no_digit + blank + style > 1 and (len(values) > 1 or blank):
        return True
    differs = (
        no_digit
        or blank
        or (style and (length or not _digits(text)))
        or (length and text.isascii() and text.isalpha() and is_word(text, 0.05))
    )
    return False if differs or _is_name_with_number(text, values) or _is_shorter(text, values) else None


def _resembles(text: str, values: Sequence[str]) -> bool:
    """Whether the text has the prefix of the values, their separators, a length and a case of theirs.

    Of random codes of six capitals and digits, one in seven has no digit.
    """
    lengths = set(map(len, values))
    separators = {_separators(each) for each in values}
    has_outline = separators == {_separators(text)} and min(lengths) <= len(text) <= max(lengths)
    styles = set(map(_style, values))
    return has_outline and (_style(text) in styles or "mixed" in styles) and text.startswith(_prefix(values))


def _may_be_word(text: str, values: Sequence[str]) -> bool:
    """Whether a text that resembles the values is a word, and so may be a header.

    The threshold for words depends on how often codes like these lack digits. So at most four of a thousand files with
    random codes are refused.
    """
    prefix = _prefix(values)
    if _digits(text) or prefix:
        return code_name(text.removeprefix(prefix)) is not NameKind.NONE
    letters, everything = (re.sub(r"[\W_]", "", each) for each in (text, "".join(values)))
    if not letters or not everything:
        return False
    if len(everything) > _MANY_LETTERS and not set(letters.casefold()) <= set(everything.casefold()):
        return True
    without_digit = (1 - sum(map(str.isdigit, everything)) / len(everything)) ** len(letters)
    words = re.findall(r"[^\W\d_]{3,}", text)
    return any(is_word(each, _MAX_REFUSED / without_digit / len(words)) for each in words)


_MAX_REFUSED = 0.001  # the share of files with random codes whose first code may be taken for a word
_MANY_LETTERS = 300  # they contain each letter of their alphabet
_MIN_PREFIX = 2
_MIN_CAPITALIZED = 4


def _prefix(values: Sequence[str]) -> str:
    """The beginning that all values share, up to its last separator if it has one. None of one character."""
    first, last = min(values), max(values)
    shared = first[: next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    ends = [place + 1 for place, each in enumerate(shared) if not each.isalnum()]
    shared = shared[: ends[-1]] if ends else shared
    return shared if len(shared) >= _MIN_PREFIX else ""


def _separators(text: str) -> str:
    """The separators of a text: `AB-12` gives `0-0`."""
    return re.sub(r"[^\W_]+", "0", text)


def _is_shorter(text: str, values: Sequence[str]) -> bool:
    """Whether at least three values have one length and separators at the same places, and the text is much shorter."""
    has_one_outline = len(values) > 2 and len({re.sub(r"[^\W_]", "0", each) for each in values}) == 1
    return has_one_outline and len(text) * 2 <= len(values[0])


def _is_name_with_number(text: str, values: Sequence[str]) -> bool:
    """Whether the text is a name of a code column and a number, such as Kod_2026, and the values begin otherwise."""
    name = re.match(r"([^\W\d_]+)[\W_]*\d{1,4}", text)
    if not name or name[0] != text or code_name(name[1]) is not NameKind.STRONG:
        return False
    if _separators(text) in set(map(_separators, values)) and _separators(text) != "0":
        return False
    return not any(each.casefold().startswith(name[1].casefold()) for each in values)


def _are_most(found: Iterable[bool]) -> bool:
    values = list(found)
    return 2 * sum(values) > len(values)


def _digits(text: str) -> bool:
    return any(map(str.isdigit, text))


def _style(text: str) -> str | None:
    """The case of the letters. None without letters of two cases."""
    if text.upper() == text.lower():
        return None
    if text == text.upper() or text == text.lower():
        return "upper" if text == text.upper() else "lower"
    return "capitalized" if text == text.capitalize() and text.isalpha() and len(text) > _MIN_CAPITALIZED else "mixed"


def _values(rows: Sequence[HeadRow], column: int) -> list[str]:
    """The values of a column that are not empty, not a comment and not a total."""
    cells = (unwrap(row.cells[column].strip())[0] for row in rows if column < len(row.cells))
    return [each for each in cells if each and not _is_other_line(each)]


def _is_other_line(text: str) -> bool:
    return is_missing(text) or is_total(text) or text.startswith("#") or code_name(text) is NameKind.STRONG


def _height(row: HeadRow) -> int:
    return 1 + "".join(row.cells).count("\n")
