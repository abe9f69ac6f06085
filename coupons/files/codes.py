"""The rules for a coupon code: at most 200 characters, no URL, no placeholder (the limits of the reference manual).

Only the shop knows whether a code is valid. These rules decide only whether a line can be a code.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from coupons.files.converted import CONVERTED
from coupons.files.not_codes import (
    HEADER_SPELLINGS,
    TOTAL_WORDS,
    WORD_SPELLINGS,
    is_address,
    is_header,
    is_missing,
    is_total,
)
from coupons.files.notices import counted
from coupons.files.rejections import (
    MAX_CODE_CHARS,
    Reason,
    Rejected,
    cell_text,
    has_invisible,
    has_lost_characters,
    has_spelled_characters,
    reject,
)
from coupons.files.spelling import MAY_BE_WRAPPED, Wrapping, find_lookalike, unwrap


@dataclass(frozen=True, slots=True)
class CheckedCodes:
    """A batch of checked lines: `codes[i]` comes from line `lines[i]`. Blank lines are only counted."""

    lines: Sequence[int]
    codes: list[str]
    rejected: list[Rejected]
    blank: int


# The common forms of codes. No rule below rejects them, except for some words. Matching this expression with map()
# takes 0.2 s per million codes; checking each rule takes 2.6 s. The third form needs at least 8 characters: dates of
# spreadsheets are shorter. It excludes what may be a total: "Total 500", "500 codes".
_WORD = "[A-Za-z0-9ÄÖÜäöüß_-]+"
_PLAIN = re.compile(
    r"[A-Z0-9][A-Z0-9_-]{0,199}|[A-Za-z0-9][A-Za-z0-9_]{0,199}"
    rf"|(?=.{{8,200}}\Z)(?![-_]|[Ww]{{3}}\.|\d+ [a-z]|-+ |(?:{TOTAL_WORDS})[ /.])"
    rf"{_WORD}(?:[ ./]{_WORD})*"
)

# HTML collapses two spaces into one, so the recipient would type another code. The other spaces come from web pages.
_BAD_SPACES = re.compile("  |[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]").search

# Damage by spreadsheets. A spreadsheet turns twelve or more digits into 1.2E+11. Only forms with a plus are rejected,
# because a shop may generate 1E5. "1-3", "MAR1" and "3/2001" become 1-Mar, Mar-01, "01. Mrz", "Mrz 01". Only these
# exact spellings are rejected: no program generates such codes, because there are so few that they could be guessed.
# MAR-01 and 1-mar are accepted. Dates of digits alone are accepted because they look like serial numbers. A code that
# lost its leading zeros is accepted because the loss leaves no trace.
_MONTH = "(?:Jan|Feb|M(?:ar|är|rz|ay|ai)|Apr|Jun[ei]?|Jul[yi]?|Aug|Sept?|O[ck]t|Nov|De[cz])"
_EXCEL_DAMAGE = re.compile(
    r"-?\d+(?:[.,]\d+)?[Ee]\+\d+\ufffd?"
    r"|#(?:NAME\?|REF!|VALUE!|DIV/0!|N/A|NULL!|NUM!|SPILL!|CALC!|BEZUG!|WERT!|NV|ZAHL!|ÜBERLAUF!|#*)"
    rf"|[0-3]?\d(?:-|\. ?){_MONTH}|{_MONTH}[- ]\d\d"
    f"|.*{CONVERTED}"  # a cell of a spreadsheet that is not a text
).fullmatch

_URL = re.compile(r"://|^(?:www\.|mailto:)", re.IGNORECASE).search
_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{#|\$\{|<%|%%.+%%|\[\[.+\]\]|\*\|.+\|\*"  # Jinja, shells, ERB, AMPscript, wikis, Mailchimp
).search


_LINE = re.compile(r"[-_=+*~#|.:/\\<>\s\u2010-\u2015\u2022\u2500-\u257f]+").fullmatch
"""Underlines and borders of tables, such as `|-----|` and `====`. They have no letter and no digit."""


def fold(code: str) -> str:
    """The form in which codes are compared: Unicode's canonical caseless match (D145), in NFC. `schema.sql` uses it.

    For assigned characters, Unicode guarantees that it never changes. A code contains no other characters.
    """
    return normalize("NFC", normalize("NFD", code).casefold())


def fold_codes(codes: Sequence[str]) -> list[str | None]:
    """The fold of each code that is not ASCII. None for the others: the database computes it."""
    return [None if code.isascii() else folded for code, folded in zip(codes, fold_all(codes), strict=True)]


def fold_all(codes: Sequence[str]) -> list[str]:
    """The fold of each code, which takes 0.8 µs. If all characters are in Latin-1, it takes 0.2 µs.

    For a code in Latin-1, it is the case folding, because such a code contains no combining character.
    """
    text = "\n".join(codes)
    return text.casefold().split("\n") if codes and _is_latin_1(text) else list(map(fold, codes))


def _is_latin_1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def spellings(code: str) -> set[str]:
    """The spellings of a code that are compared with the hashes from before migration 0006, which are of one spelling.

    They are its own, in upper case, in lower case and with capitals at the beginning, each in NFC and NFD. The hash of
    any other mixture of cases cannot be found, because a hash cannot be folded.
    """
    written = {code, code.upper(), code.lower(), fold(code), code.title(), code.capitalize()}
    return {code} | {normalize(form, each) for each in written for form in ("NFC", "NFD")}


def check_codes(lines: Sequence[int], values: Sequence[str]) -> CheckedCodes:
    """Check which values of a command can be codes; `values[i]` comes from line `lines[i]`.

    White space around a code is removed. Letter case and all characters inside the code stay unchanged.
    """
    stripped = list(map(str.strip, values))
    if all(map(_PLAIN.fullmatch, stripped)):
        return CheckedCodes(lines, stripped, [], 0)
    checked = _Checked()
    for line, value in zip(lines, stripped, strict=True):
        checked.add(line, value, None if _PLAIN.fullmatch(value) else violation(value))
    return checked.as_codes()


@dataclass(frozen=True, slots=True)
class FileRules:
    """What the head of a file tells about its codes. `header` is the name of the code column."""

    header: str = ""
    has_header_names: bool = True
    has_comments: bool = True
    has_totals: bool = True
    is_report: bool = False
    allow_lookalikes: bool = False


class CodeChecker:
    """Checks which lines of a file are codes.

    A line that is not a code is rejected: a repeated header, a total, a comment, a word for a missing value, an e-mail
    address. Quotes and other characters around a code are removed and counted.
    """

    def __init__(self, rules: FileRules) -> None:
        self._rules = rules
        own = {rules.header.strip()} if rules.header.strip() and rules.has_header_names else set()
        self._headers = frozenset(each.casefold() for each in own)
        names = HEADER_SPELLINGS if rules.has_header_names else frozenset()
        self._words = WORD_SPELLINGS | names | own
        self._removed: Counter[Wrapping] = Counter()

    @property
    def notices(self) -> list[str]:
        """How many codes were written with characters around them."""
        return [f"{counted(count, 'code')} {wrapping.value}" for wrapping, count in self._removed.items()]

    def check(self, lines: Sequence[int], values: Sequence[str]) -> CheckedCodes:
        """Check which values are codes; `values[i]` comes from line `lines[i]`. White space around a code is removed.

        Looking for the words takes 0.04 s per million codes.
        """
        stripped = list(map(str.strip, values))
        if all(map(_PLAIN.fullmatch, stripped)) and self._words.isdisjoint(stripped):
            return CheckedCodes(lines, stripped, [], 0)
        checked = _Checked()
        for line, value in zip(lines, stripped, strict=True):
            if _PLAIN.fullmatch(value) and value not in self._words:
                checked.add(line, value, None)
            else:
                code = self._code(value)
                lost = self._rules.is_report and has_lost_characters(value)
                checked.add(line, code, *((Reason.LOST, "") if lost else self._violation(code)))
        return checked.as_codes()

    def _code(self, value: str) -> str:
        if self._rules.is_report:
            return cell_text(value).strip()
        if MAY_BE_WRAPPED(value):
            value, removed = unwrap(value)
            if removed:
                self._removed[removed] += 1
        return value

    def _violation(self, code: str) -> tuple[Reason | None, str]:
        """The reason why the text is not a code of this file, and the detail of the reason."""
        rules = self._rules
        if reason := violation(code) or self._other_line(code):
            return reason, ""
        if not rules.is_report and has_spelled_characters(code):
            return Reason.SPELLED, ""
        found = "" if rules.allow_lookalikes else find_lookalike(code)
        return (Reason.LOOKALIKE, found) if found else (None, "")

    def _other_line(self, text: str) -> Reason | None:
        """The reason if the text is something else than a code in exports."""
        if is_address(text):
            return Reason.ADDRESS
        if is_missing(text):
            return Reason.NO_VALUE
        if self._rules.has_header_names and (text.casefold() in self._headers or is_header(text.partition(": ")[0])):
            return Reason.HEADER
        if self._rules.has_totals and is_total(text):
            return Reason.TOTAL
        if " # " in text or (self._rules.has_comments and text.startswith("#")) or _LINE(text):
            return Reason.COMMENT
        return None


class _Checked:
    """Collects the results of lines."""

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._codes: list[str] = []
        self._rejected: list[Rejected] = []
        self._blank = 0

    def add(self, line: int, code: str, reason: Reason | None, detail: str = "") -> None:
        if not code:
            self._blank += 1
        elif reason:
            self._rejected.append(reject(line, code, reason, detail))
        else:
            self._lines.append(line)
            self._codes.append(code)

    def as_codes(self) -> CheckedCodes:
        return CheckedCodes(self._lines, self._codes, self._rejected, self._blank)


def violation(code: str) -> Reason | None:
    """The reason why the text cannot be a code, whatever the other lines are. None if it can be a code."""
    return next((reason for violates, reason in _RULES if violates(code)), None)


_RULES: tuple[tuple[Callable[[str], object], Reason], ...] = (
    (lambda code: len(code) > MAX_CODE_CHARS, Reason.TOO_LONG),
    (_BAD_SPACES, Reason.SPACES),
    (_EXCEL_DAMAGE, Reason.EXCEL),  # before U+FFFD, which ends a number of a spreadsheet that has lost digits
    (has_invisible, Reason.CONTROL),
    (_URL, Reason.URL),
    (_PLACEHOLDER, Reason.PLACEHOLDER),
)
