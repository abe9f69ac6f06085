"""The text of a number cell: numbers, dates and times as the cell shows them, independent of any country.

A spreadsheet stores a number and a format such as `0.00` or `dd/mm/yyyy`. The text has the digits that the format
shows, with a point before decimals and without separators of thousands. A date is written as 2026-12-31, and not in
the order of the format: that order depends on the user's country, and a reader could not tell 04/05 from 05/04.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from coupons.files.converted import CONVERTED

DAMAGED = "\ufffd"
"""Ends the text of a number that has lost digits, so that the readers reject it."""

MAX_DIGITS = 15
"""A spreadsheet keeps 15 digits of a number (IEEE 754) and replaces all others with zeros."""

BUILT_IN_FORMATS = {  # ECMA-376 part 1, 18.8.30; the ids 27 to 36 and 50 to 58 are dates in East Asian countries
    0: "General", 1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 5: "#,##0", 6: "#,##0", 7: "#,##0.00", 8: "#,##0.00",
    9: "0%", 10: "0.00%", 11: "0.00E+00", 12: "# ?/?", 13: "# ??/??", 14: "m/d/yyyy", 15: "d-mmm-yy", 16: "d-mmm",
    17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss", 22: "m/d/yyyy h:mm",
    37: "#,##0", 38: "#,##0", 39: "#,##0.00", 40: "#,##0.00", 41: "#,##0", 42: "#,##0", 43: "#,##0.00", 44: "#,##0.00",
    45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@",
    **dict.fromkeys((*range(27, 32), 36, *range(50, 55), 57, 58), "yyyy-m-d"),
    **dict.fromkeys((32, 33, 34, 35, 55, 56), "h:mm:ss"),
}  # fmt: skip

NumberText = Callable[[float], str]
"""Turns the number of a cell into its text."""

# One token of a number format: text in quotes, an escaped character, padding, a part in brackets, or a character.
_TOKENS = re.compile(r'"[^"]*"?|\\.|_.|\*.|\[[^\]]*\]?|General|AM/PM|A/P|[Ee][+-]|.', re.DOTALL | re.IGNORECASE)
_ELAPSED = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE).fullmatch
_CONDITION = re.compile(r"\[[<>=]").match
_EXPONENT = re.compile("[Ee][+-]").fullmatch
_DATE_LETTERS = frozenset("ymdhsYMDHS")
_PLACEHOLDERS = frozenset("0#?")
_LAST_SERIAL = 2_958_466  # the day after 9999-12-31
_SECONDS_PER_DAY = 86_400


def plain_number(value: float) -> str:
    """The number without an exponent and without `.0`, in at most 15 digits."""
    if abs(value) >= 10**MAX_DIGITS:
        return damaged(value)
    text = f"{value:.{MAX_DIGITS}g}"
    if "e" in text:
        text = f"{Decimal(text):f}"
    return "0" if text == "-0" else text


def damaged(value: float) -> str:
    """The text of a number that has lost digits. `DAMAGED` makes the readers reject it."""
    return f"{value:.{MAX_DIGITS - 1}E}{DAMAGED}"


@lru_cache(maxsize=1_024)
def number_text(code: str, *, since_1904: bool = False) -> NumberText:
    """The function that turns a number into its text in the format `code`."""
    sections = _sections(code)
    if any(map(_is_date, sections)):
        return _marked(_DateFormat.of(next(filter(_is_date, sections)), since_1904=since_1904).text)
    if any(_EXPONENT(part) for section in sections for part in section):
        return _marked(plain_number)
    if any(_CONDITION(part) for section in sections for part in section):
        return plain_number
    numbers = [_NumberFormat.of(section) for section in sections[:3]]
    return numbers[0].text if len(numbers) == 1 else _SectionedFormat(tuple(numbers)).text


def _marked(show: NumberText) -> NumberText:
    return lambda number: show(number) + CONVERTED


def _sections(code: str) -> list[list[str]]:
    sections: list[list[str]] = [[]]
    for part in _TOKENS.findall(code):
        if part == ";":
            sections.append([])
        else:
            sections[-1].append(part)
    return sections


def _is_date(section: list[str]) -> bool:
    return any(part in _DATE_LETTERS or _ELAPSED(part) for part in section)


@dataclass(frozen=True, slots=True)
class _DateFormat:
    """Which parts of a date or a time the format shows."""

    has_date: bool
    has_time: bool
    is_elapsed: bool
    since_1904: bool

    @classmethod
    def of(cls, section: list[str], *, since_1904: bool) -> "_DateFormat":
        letters = "".join(part for part in section if part in _DATE_LETTERS).lower()
        elapsed = any(map(_ELAPSED, section))
        has_time = elapsed or "h" in letters or "s" in letters
        # `m` is a month unless it follows hours or precedes seconds.
        return cls("y" in letters or "d" in letters or not has_time, has_time, elapsed, since_1904)

    def text(self, serial: float) -> str:
        """2026-12-31, 2026-12-31 14:30:00 or 14:30:00. A number that is not a date is `####`, as in the cell."""
        if not 0 <= serial < _LAST_SERIAL:
            return "########"
        days, seconds = divmod(round(serial * _SECONDS_PER_DAY), _SECONDS_PER_DAY)
        if not self.has_date:
            return _clock(days * _SECONDS_PER_DAY + seconds if self.is_elapsed else seconds)
        date = self._date(days)
        return f"{date} {_clock(seconds)}" if self.has_time else date

    def _date(self, days: int) -> str:
        """The date of a serial number. Excel counts a 29 February 1900 that never was as day 60."""
        if self.since_1904:
            return f"{datetime(1904, 1, 1) + timedelta(days):%Y-%m-%d}"  # noqa: DTZ001 - a cell has no time zone
        if days == 60:
            return "1900-02-29"
        return f"{datetime(1899, 12, 31 if days < 60 else 30) + timedelta(days):%Y-%m-%d}"  # noqa: DTZ001 - as above


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


@dataclass(frozen=True, slots=True)
class _NumberFormat:
    """One section of a number format.

    `whole` are the placeholders and literal texts before the decimal point, `decimals` the numbers of decimals: always
    shown, and shown unless zero. `scale` is the power of ten for percent signs and for commas at the end.
    """

    whole: tuple[str, ...]
    fixed: int
    optional: int
    tail: tuple[str, ...]
    scale: int
    is_general: bool

    @classmethod
    def of(cls, section: list[str]) -> "_NumberFormat":
        shown = [text for text in map(_shown, section) if text]
        digits = [index for index, text in enumerate(shown) if text in _PLACEHOLDERS]
        general = next((index for index, text in enumerate(shown) if text.lower() == "general"), None)
        if general is not None:
            before, behind = shown[:general], shown[general + 1 :]
            return cls(tuple(map(_literal, before)), 0, 0, tuple(map(_literal, behind)), 0, is_general=True)
        if "/" in shown:  # a fraction
            return cls((), 0, 0, (), 0, is_general=True)
        if not digits:
            return cls(tuple(shown), 0, 0, (), 0, is_general=False)
        point = next((i for i, text in enumerate(shown) if text == "." and i <= digits[-1] + 1), None)
        end = len(shown) if point is None else point
        decimals = [] if point is None else [text for text in shown[point:] if text in _PLACEHOLDERS]
        last = digits[-1]
        scale = 2 * shown.count("%") - 3 * _trailing_commas(shown, last)
        whole = [text for text in shown[:end] if text != ","]
        tail = [_literal(text) for text in shown[end:] if text not in _PLACEHOLDERS and text not in {".", ","}]
        return cls(
            tuple(whole), decimals.count("0"), len(decimals) - decimals.count("0"), tuple(tail), scale, is_general=False
        )

    def text(self, value: float) -> str:
        sign = "-" if value < 0 else ""
        return self.unsigned(value) if not sign else self._with_sign(self.unsigned(-value))

    def _with_sign(self, text: str) -> str:
        return f"-{text}" if re.search(r"[1-9]|[^\d.]", text) else text

    def unsigned(self, value: float) -> str:
        if abs(value) >= 10**MAX_DIGITS:
            return damaged(value)
        if self.is_general:
            return f"{''.join(self.whole)}{plain_number(value)}{''.join(self.tail)}"
        if not _PLACEHOLDERS & set(self.whole) and not (self.fixed or self.optional):
            return "".join(map(_literal, self.whole)).strip()  # the format shows a text, or nothing, instead
        exact = Decimal(f"{value:.{MAX_DIGITS}g}").scaleb(self.scale)
        rounded = exact.quantize(Decimal(1).scaleb(-self.fixed - self.optional), ROUND_HALF_UP)
        whole, _, decimals = f"{rounded:f}".partition(".")
        while len(decimals) > self.fixed and decimals.endswith("0"):
            decimals = decimals[:-1]
        point = "." if decimals else ""
        return f"{self._fill(whole)}{point}{decimals}{''.join(self.tail)}".strip()

    def _fill(self, whole: str) -> str:
        """The digits in their placeholders, from the right. The first placeholder takes all digits that are left."""
        rest = "" if whole == "0" else whole
        places = [index for index, text in enumerate(self.whole) if text in _PLACEHOLDERS]
        filled: list[str] = []
        for index in reversed(range(len(self.whole))):
            part = self.whole[index]
            if part not in _PLACEHOLDERS:
                filled.append(_literal(part))
            elif index == places[0]:
                filled.append(rest or ("0" if part == "0" else ""))
            else:
                digit, rest = rest[-1:], rest[:-1]
                filled.append(digit or ("0" if part == "0" else ""))
        return "".join(reversed(filled)) + ("" if places else rest)


@dataclass(frozen=True, slots=True)
class _SectionedFormat:
    """Formats for positive, negative and zero numbers. The format of negative numbers contains their sign."""

    sections: tuple[_NumberFormat, ...]

    def text(self, value: float) -> str:
        if value < 0:
            return self.sections[1].unsigned(-value)  # such as (5.00), or nothing
        if value == 0 and len(self.sections) > 2:
            return self.sections[2].unsigned(0.0)
        return self.sections[0].unsigned(value)


def _shown(part: str) -> str:
    """A part as it is shown: a literal in quotes, a placeholder, or a separator. Colours and padding are not shown."""
    match part[0]:
        case '"':
            return '"' + part.strip('"') if part.strip('"') else ""
        case "\\":
            return '"' + part[1:]
        case "_" | "*":
            return ""
        case "[":
            currency = re.match(r"\[\$([^-\]]*)", part)
            return '"' + currency[1] if currency and currency[1] else ""
        case "@":
            return "General"
    return part


def _literal(text: str) -> str:
    return text.removeprefix('"')


def _trailing_commas(shown: list[str], last_digit: int) -> int:
    """The number of commas directly behind the last digit: each divides the shown number by a thousand."""
    commas = 0
    while last_digit + 1 + commas < len(shown) and shown[last_digit + 1 + commas] == ",":
        commas += 1
    return commas
