"""What may be a coupon code, and what a list may be called: the rules of one line, in one place.

The shop decides what a code is worth; here is only decided whether a line can be a code at all. Limits are those of the
reference manual: at most 200 characters, no URL, no placeholder, blank lines ignored.
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from coupons.errors import UserError

MAX_CODE_CHARS = 200
MAX_NAME_CHARS = 50
MAX_SHOWN_CHARS = 500
"""Of a refused value; longer than a code may be, so that what was cut is refused again."""

CODE = ("code",)
"""What stands between the line and the reason of a code that was not taken."""


class Reason(StrEnum):
    """Why a line was not taken. The value is stored, the sentence is shown."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Self:  # the default only makes Reason("url") pass type checks
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    TOO_LONG = "too_long", f"longer than {MAX_CODE_CHARS} characters"
    CONTROL = "control", "holds a control character or one that nobody can see"
    SPACES = "spaces", "holds white space other than single spaces"
    EXCEL = "excel", "damaged by a spreadsheet: export the column as text"
    URL = "url", "looks like a URL"
    PLACEHOLDER = "placeholder", "looks like a placeholder that was never filled in"
    COLUMNS = "columns", "has another number of columns than the first line"
    DUPLICATE = "duplicate", "is in this file already, further up"
    IN_LIST = "in_list", "is in the list already"
    BOUND = "bound", "belongs to a recipient"
    PROMISED = "promised", "is promised to a sendout"
    NOT_IN_LIST = "not_in_list", "is not in the list"
    SENT = "sent", "has been sent already"
    NO_ADDRESS = "no_address", "has no e-mail address"
    BAD_ADDRESS = "bad_address", "is not exactly one e-mail address"
    LONG_ATTRIBUTE = "long_attribute", "has an attribute that is too long"


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line that was not taken, made by `reject`; `value` can be shown and stored as it is.

    `row` is all that stood in a recipient's line, by the names of its columns; `value` is the address then.
    """

    line: int
    value: str
    reason: Reason
    row: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch of lines after the check: `lines[i]` is where `codes[i]` stood. Blank lines are only counted."""

    lines: Sequence[int]
    codes: list[str]
    rejected: list[Rejected]
    blank: int


class InvalidName(UserError, ValueError):
    """One line that says what a name must look like."""


# What most shops export, and no rule below refuses: 0.2 s for a million codes by map() in C, 2.6 s rule by rule. Of the
# third kind only from 8 characters on: a spreadsheet's dates are shorter.
_WORD = "[A-Za-z0-9ÄÖÜäöüß_-]+"
_PLAIN = re.compile(
    rf"[A-Z0-9_-]{{1,200}}|[A-Za-z0-9_]{{1,200}}|(?=.{{8,200}}\Z)(?![Ww]{{3}}\.){_WORD}(?:[ ./]{_WORD})*"
)

# HTML shows two spaces as one, so the recipient would type another code; the others are left by copying from a page.
_ODD_SPACES = re.compile("  |[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]").search

# Printable for Python, yet nothing to see: joiners, fillers, variation selectors. U+FFFD marks earlier damage, and in
# `Rejected.value` the place of what cannot be seen.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\ufffd]").search

# Twelve digits and more become 1.2E+11 where a cell is a number. Only with a plus: 1E5 is what a shop may well make.
# "1-3", "MAR1" and "3/2001" become 1-Mar, Mar-01, "01. Mrz", "Mrz 01". Only in this very spelling, in which no program
# makes codes, and of which there are too few for codes that nobody must guess: MAR-01 and 1-mar are codes. Dates in
# digits alone look like serial numbers, and lost leading zeros like nothing: both are taken.
_MONTH = "(?:Jan|Feb|M(?:ar|är|rz|ay|ai)|Apr|Jun[ei]?|Jul[yi]?|Aug|Sept?|O[ck]t|Nov|De[cz])"
_EXCEL_DAMAGE = re.compile(
    r"\d+(?:[.,]\d+)?[Ee]\+\d+"
    r"|#(?:NAME\?|REF!|VALUE!|DIV/0!|N/A|NULL!|NUM!|SPILL!|CALC!|BEZUG!|WERT!|NV|ZAHL!|ÜBERLAUF!|#*)"
    rf"|[0-3]?\d(?:-|\. ?){_MONTH}|{_MONTH}[- ]\d\d"
).fullmatch

_URL = re.compile(r"://|^(?:www\.|mailto:)", re.IGNORECASE).search
_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{#|\$\{|<%|%%.+%%|\[\[.+\]\]|\*\|.+\|\*"  # Jinja, shells, ERB, AMPscript, wikis, Mailchimp
).search

# A cell that begins like this is run by a spreadsheet (OWASP, CSV Injection; the last four are the full-width forms),
# also behind another separator, where the spreadsheet of another country cuts. One ' in front makes it text.
_FORMULA = re.compile("(^|[,;|])('*[=+\\-@\uff1d\uff0b\uff0d\uff20])")
_DEFUSED = re.compile("(^|[,;|])'('*[=+\\-@\uff1d\uff0b\uff0d\uff20])")

_NAME = re.compile(r"[a-z0-9](?: ?[a-z0-9._-])*").fullmatch


def check(lines: Sequence[int], values: Sequence[str]) -> Checked:
    """Which of the values can be codes; `lines[i]` is the number of `values[i]`.

    White space around a code is dropped, and so is the ' by which `csv_cell` made a formula harmless. Letter case and
    everything else inside is kept as the shop wrote it.
    """
    stripped = list(map(str.strip, values))
    if all(map(_PLAIN.fullmatch, stripped)):
        return Checked(lines, stripped, [], 0)
    return _check_each(lines, stripped)


def _check_each(lines: Sequence[int], values: Sequence[str]) -> Checked:
    taken: list[int] = []
    codes: list[str] = []
    rejected: list[Rejected] = []
    blank = 0
    for line, value in zip(lines, values, strict=True):
        code = cell_text(value)
        if not code:
            blank += 1
        elif not _PLAIN.fullmatch(code) and (reason := _against(code)):
            rejected.append(reject(line, code, reason))
        else:
            taken.append(line)
            codes.append(code)
    return Checked(taken, codes, rejected, blank)


def _against(code: str) -> Reason | None:
    return next((reason for refuses, reason in _RULES if refuses(code)), None)


def _hides_something(text: str) -> bool:
    """Not printable are Unicode's controls, format characters (zero-width, right-to-left), surrogates, unassigned."""
    return not text.isprintable() or _INVISIBLE(text) is not None


_RULES: tuple[tuple[Callable[[str], object], Reason], ...] = (
    (lambda code: len(code) > MAX_CODE_CHARS, Reason.TOO_LONG),
    (_ODD_SPACES, Reason.SPACES),
    (_hides_something, Reason.CONTROL),
    (_EXCEL_DAMAGE, Reason.EXCEL),
    (_URL, Reason.URL),
    (_PLACEHOLDER, Reason.PLACEHOLDER),
)


def reject(line: int, value: str, reason: Reason) -> Rejected:
    """A refused line in a form that can be stored and shown: every character that cannot be seen is a U+FFFD.

    The check refuses U+FFFD too, so a line of `rejections_csv` that nobody mended is refused again.
    """
    shown = value if len(value) <= MAX_SHOWN_CHARS else value[: MAX_SHOWN_CHARS - 1] + "…"
    if _hides_something(shown):
        shown = "".join("\ufffd" if _hides_something(character) else character for character in shown)
    return Rejected(line, shown, reason)


def rejections_csv(rejected: Iterable[Rejected], columns: Sequence[str] = CODE) -> Iterator[str]:
    """The lines of a CSV file to mend and import again: `line;<columns>;reason`, to be encoded as UTF-8.

    The first of the columns is that of the values. The file begins with a byte order mark, without which Excel shows
    umlauts as two letters. A cell that a spreadsheet would run as a formula has a ' in front; who reads the file takes
    it off again.
    """
    yield _head(columns)
    for each in rejected:
        yield _line(each, columns)


async def streamed_rejections_csv(
    rejected: AsyncIterable[Rejected], columns: Sequence[str] = CODE
) -> AsyncIterator[str]:
    """The same, of lines that are still on their way."""
    yield _head(columns)
    async for each in rejected:
        yield _line(each, columns)


def _head(columns: Sequence[str]) -> str:
    return f"\ufeffline;{';'.join(columns)};reason\r\n"


def _line(rejected: Rejected, columns: Sequence[str]) -> str:
    cells = csv_cell(rejected.value)
    if rejected.row:
        cells = ";".join([cells, *(csv_cell(rejected.row.get(name, "")) for name in columns[1:])])
    return f'{rejected.line};{cells};"{rejected.reason.sentence}"\r\n'


def csv_cell(text: str) -> str:
    """A cell in quotes; what a spreadsheet would run as a formula has a ' in front."""
    return '"' + _FORMULA.sub(r"\1'\2", text).replace('"', '""') + '"'


def cell_text(cell: str) -> str:
    """What `csv_cell` made a cell of, without its quotes."""
    return _DEFUSED.sub(r"\1\2", cell) if "'" in cell else cell


def list_name(text: str) -> str:
    """The name of a list, group or message as it is stored: stripped and in lower case.

    Raises InvalidName, which says what a name must look like.
    """
    name = text.strip().lower()
    if len(name) > MAX_NAME_CHARS:
        raise InvalidName(f"a name has at most {MAX_NAME_CHARS} characters")
    if not _NAME(name):
        raise InvalidName(
            "a name is letters a-z, digits, single spaces and . _ - only, and begins with a letter or digit"
        )
    return name
