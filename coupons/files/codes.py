"""The rules for a coupon code: at most 200 characters, no URL, no placeholder (the limits of the reference manual).

Only the shop knows whether a code is valid. These rules decide only whether a line can be a code.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from coupons.files.rejections import MAX_CODE_CHARS, Reason, Rejected, cell_text, has_invisible, reject


@dataclass(frozen=True, slots=True)
class CheckedCodes:
    """A batch of checked lines: `codes[i]` comes from line `lines[i]`. Blank lines are only counted."""

    lines: Sequence[int]
    codes: list[str]
    rejected: list[Rejected]
    blank: int


# The common forms of codes. No rule below rejects them. Matching this expression with map() takes 0.2 s per million
# codes; checking each rule takes 2.6 s. The third form needs at least 8 characters: a spreadsheet's dates are shorter.
_WORD = "[A-Za-z0-9ÄÖÜäöüß_-]+"
_PLAIN = re.compile(
    rf"[A-Z0-9_-]{{1,200}}|[A-Za-z0-9_]{{1,200}}|(?=.{{8,200}}\Z)(?![Ww]{{3}}\.){_WORD}(?:[ ./]{_WORD})*"
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
).fullmatch

_URL = re.compile(r"://|^(?:www\.|mailto:)", re.IGNORECASE).search
_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{#|\$\{|<%|%%.+%%|\[\[.+\]\]|\*\|.+\|\*"  # Jinja, shells, ERB, AMPscript, wikis, Mailchimp
).search


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
    """Check which values can be codes; `values[i]` comes from line `lines[i]`.

    White space around a code is removed, and the ' with which `csv_cell` escapes a formula as well. Letter case and all
    characters inside the code stay unchanged.
    """
    stripped = list(map(str.strip, values))
    if all(map(_PLAIN.fullmatch, stripped)):
        return CheckedCodes(lines, stripped, [], 0)
    return _check_each(lines, stripped)


def _check_each(lines: Sequence[int], values: Sequence[str]) -> CheckedCodes:
    accepted: list[int] = []
    codes: list[str] = []
    rejected: list[Rejected] = []
    blank = 0
    for line, value in zip(lines, values, strict=True):
        code = cell_text(value)
        if not code:
            blank += 1
        elif not _PLAIN.fullmatch(code) and (reason := _violation(code)):
            rejected.append(reject(line, code, reason))
        else:
            accepted.append(line)
            codes.append(code)
    return CheckedCodes(accepted, codes, rejected, blank)


def _violation(code: str) -> Reason | None:
    return next((reason for violates, reason in _RULES if violates(code)), None)


_RULES: tuple[tuple[Callable[[str], object], Reason], ...] = (
    (lambda code: len(code) > MAX_CODE_CHARS, Reason.TOO_LONG),
    (_BAD_SPACES, Reason.SPACES),
    (_EXCEL_DAMAGE, Reason.EXCEL),  # before U+FFFD, which ends a number of a spreadsheet that has lost digits
    (has_invisible, Reason.CONTROL),
    (_URL, Reason.URL),
    (_PLACEHOLDER, Reason.PLACEHOLDER),
)
