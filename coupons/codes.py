"""What may be a coupon code, and what a list may be called: the rules of one line, in one place.

The shop decides what a code is worth; here is only decided whether a line can be a code at all. Limits are those of the
reference manual: at most 200 characters, no URL, no placeholder, blank lines ignored.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from coupons.errors import Told

MAX_CODE_CHARS = 200
MAX_NAME_CHARS = 50
MAX_SHOWN_CHARS = 500
"""Of a refused value; longer than a code may be, so that what was cut is refused again."""


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
    HELD = "held", "belongs to a recipient, or is promised to a sendout"
    NOT_IN_LIST = "not_in_list", "is not in the list"
    SENT = "sent", "has been sent already"
    NO_ADDRESS = "no_address", "has no e-mail address"
    BAD_ADDRESS = "bad_address", "is not exactly one e-mail address"
    LONG_ATTRIBUTE = "long_attribute", "has an attribute that is too long"


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line that was not taken, made by `reject`; `value` can be shown and stored as it is."""

    line: int
    value: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch of lines after the check: `lines[i]` is where `codes[i]` stood. Blank lines are only counted."""

    lines: list[int]
    codes: list[str]
    rejected: list[Rejected]
    blank: int


class InvalidName(Told, ValueError):
    """One line that says what a name must look like."""


# What most shops export. A whole batch of it passes by map() in C: 0.2 s for a million codes, half of a loop in Python.
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,200}").fullmatch

# HTML shows two spaces as one, so the recipient would type another code; the others are left by copying from a page.
_ODD_SPACES = re.compile("  |[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]").search

# Printable for Python, yet nothing to see: joiners, fillers, variation selectors. U+FFFD marks earlier damage, and in
# `Rejected.value` the place of what cannot be seen.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\ufffd]").search

# Twelve digits and more become 1.2E+11 where a cell is a number. Only with a plus: 1E5 is what a shop may well make.
_EXCEL_DAMAGE = re.compile(
    r"\d+(?:[.,]\d+)?[Ee]\+\d+"
    r"|#(?:NAME\?|REF!|VALUE!|DIV/0!|N/A|NULL!|NUM!|SPILL!|CALC!|BEZUG!|WERT!|NV|ZAHL!|ÜBERLAUF!|#*)"
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

    White space around a code is dropped, and so is the ' by which `rejections_csv` made a formula harmless. Letter case
    and everything else inside is kept as the shop wrote it.
    """
    stripped = list(map(str.strip, values))
    if all(map(_PLAIN, stripped)):
        return Checked(list(lines), stripped, [], 0)
    return _check_each(lines, stripped)


def _check_each(lines: Sequence[int], values: Sequence[str]) -> Checked:
    taken: list[int] = []
    codes: list[str] = []
    rejected: list[Rejected] = []
    blank = 0
    for line, value in zip(lines, values, strict=True):
        code = _DEFUSED.sub(r"\1\2", value) if "'" in value else value
        if not code:
            blank += 1
        elif not _PLAIN(code) and (reason := _against(code)):
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


def rejections_csv(rejected: Iterable[Rejected], column: str = "code") -> Iterator[str]:
    """The lines of a CSV file to mend and import again: `line;<column>;reason`, to be encoded as UTF-8.

    It begins with a byte order mark, without which Excel shows umlauts as two letters. A value that a spreadsheet would
    run as a formula has a ' in front; `check` takes it off again.
    """
    yield f"\ufeffline;{column};reason\r\n"
    for row in rejected:
        yield f'{row.line};{csv_cell(row.value)};"{row.reason.sentence}"\r\n'


def csv_cell(text: str) -> str:
    """A cell in quotes; what a spreadsheet would run as a formula has a ' in front."""
    return '"' + _FORMULA.sub(r"\1'\2", text).replace('"', '""') + '"'


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
