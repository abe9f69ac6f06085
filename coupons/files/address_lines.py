"""Lists of addresses: files with one address per line, such as people paste them.

An address may have a number or a bullet before it, quotes or brackets around it, and a name: `Name <address>`,
`address (Name)`, `address Name`.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from coupons.addresses import AddressError, parse_address
from coupons.files.spelling import MAY_BE_WRAPPED, Wrapping, unwrap

_NAMED = re.compile(r"(?P<name>[^<>]*)<\s*(?:mailto:)?(?P<address>[^<>]+?)\s*>", re.IGNORECASE)
_MAILTO = re.compile(r"(?:mailto|smtp):(?P<address>[^?]+)", re.IGNORECASE)
_IN_QUOTES = re.compile(r'"(?P<address>[^"]+@[^"@]+)"')
_QUOTED_LOCAL_PART = r'"(?:[^"\\]|\\.)*"'
_ALONE = re.compile(rf'(?:[^\s@<>";,|]+|{_QUOTED_LOCAL_PART})@[^\s@<>";,|]+')
_WITH_NAME = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^<>;|\t"]*[^<>;|\t",])?\s*<[^<>\s]+>')
# A word in lower case behind an address may be a part of the address, which a blank divides.
_NAME_BEHIND = re.compile(
    rf"(?P<address>(?:[^\s@<>\"]+|{_QUOTED_LOCAL_PART})@[^\s@<>()\[\]\",:;|]+)"
    r"(?:\s*\((?P<comment>[^()@]*)\)|(?::?\s+|\s+[-\u2013\u2014#/]+\s+)(?P<name>[^\W\d_][^@<>,;|\t]*))"
)
_PART_OF_DOMAIN = re.compile(r"[a-z]|.*\w{2}\.\w{2}").match
_NAME_BEFORE = re.compile(
    r"(?P<label>[^@<>()\[\],;|\t\"]*?)(?:"
    r"\((?P<round>[^\s@()]+@[^\s@()]+)\)|\[(?P<square>[^\s@\[\]]+@[^\s@\[\]]+)\]|"
    r"(?:(?<=\w):\s+|\s[-\u2013\u2014]\s+)(?P<bare>[^\s@<>()\[\]\",:;|]+@[^\s@<>()\[\]\",:;|]+))"
)
_LINK = re.compile(r"\[[^\[\]]*\]\(mailto:(?P<address>[^()?]+)[^()]*\)", re.IGNORECASE)
_NUMBER = re.compile(
    "(?:\\(?\\d{1,7}[.):]{0,2}|[-*+>\u2610\u2022\u2023\u25e6\u25aa\u25cf\u00b7\u2013\u2014])\\s+(?=.*@)"
)
_HAS_SURROUNDING = re.compile(r"""[\s<\[(:=]|["'`\u2018-\u201f\xab\xbb\u2039\u203a\u3000-\u301f\uff00-\uff07]""").search
_COMMON = re.compile(r"([^\W\d_][\w .-]{0,98}\w) <([^\s<>@:\"]+@[^\s<>@:\"]+)>").fullmatch
_MAX_CHARS = 500  # a longer line is no address; the patterns above take quadratic time
_SEPARATOR = re.compile(r'[;,|\t"]')
_ENDS = " \t,;"  # a list that was copied from the field of a mail program has a separator behind each address
_SIGN_OF_ADDRESS = re.compile(r"[@\uff20]|[(\[{]at[)\]}]", re.IGNORECASE)


class Surrounding(StrEnum):
    """What was removed around an address, in the words of a notice about some `addresses`."""

    NAMES = "names and brackets around {addresses} were ignored"
    NUMBERS = "numbers and bullets before {addresses} were removed"
    QUOTES = "{addresses} " + Wrapping.QUOTES
    FORMULA = "{addresses} " + Wrapping.FORMULA
    APOSTROPHE = "{addresses} " + Wrapping.APOSTROPHE


class SplitLine(NamedTuple):
    """The address of a line or cell, the name beside it, which may be empty, and what else was removed."""

    address: str
    name: str = ""
    removed: tuple[Surrounding, ...] = ()


def are_address_lines(lines: Sequence[str]) -> bool:
    """Whether most lines are addresses, with or without names, and the first line is one or has one cell."""
    filled = [line.strip().rstrip(_ENDS) for line in lines if line.strip()]
    if not filled:
        return False
    matches = [_is_address_line(line) for line in filled]
    if not matches[0]:  # a header, or an invalid address
        if _SEPARATOR.search(filled[0]):
            return False
        matches = matches[1:]
    return matches.count(True) * 2 >= len(matches) > 0


def may_be_address(cell: str, *, is_alone: bool) -> bool:
    """Whether a cell of the first row may be an invalid address instead of a name of a column.

    A cell `is_alone` if the row has no other. Then a dot inside, as in `adaexample.org`, is a sign of an address.
    """
    if is_alone:
        return _SIGN_OF_ADDRESS.search(cell) is not None or re.search(r"\w\.\w", cell) is not None
    return _SIGN_OF_ADDRESS.search(cell) is not None and " " not in cell.strip()


def split_line(line: str) -> SplitLine:
    """The parts of a line or cell. The address may be invalid."""
    if found := _COMMON(line):  # twice as fast
        return SplitLine(found[2], found[1], (Surrounding.NAMES,))
    text = line.strip().rstrip(_ENDS)
    if len(text) > _MAX_CHARS or not _HAS_SURROUNDING(text):
        return SplitLine(text)
    return _split_unusual(text)


def _split_unusual(text: str) -> SplitLine:
    removed: list[Surrounding] = []
    if number := _NUMBER.match(text):
        text, removed = text[number.end() :], [Surrounding.NUMBERS]
    if quoted := _IN_QUOTES.fullmatch(text):
        text = quoted["address"].strip()
    if named := _NAMED.fullmatch(text):
        return SplitLine(named["address"], _name(named["name"], named["address"]), (*removed, Surrounding.NAMES))
    if MAY_BE_WRAPPED(text) and not re.match("'[^'@]*'@", text):
        text, wrapping = unwrap(text)
        removed += [Surrounding[wrapping.name]] if wrapping else []
    if link := _MAILTO.fullmatch(text) or _LINK.fullmatch(text):
        return SplitLine(link["address"], "", (*removed, Surrounding.NAMES))
    if found := _match_name(text):
        return SplitLine(*found, (*removed, Surrounding.NAMES))
    return SplitLine(text, "", tuple(removed))


def find_address(cell: str) -> str | None:
    """The address of a line or cell. None if it does not contain exactly one."""
    if "@" not in cell:
        return None
    try:
        return parse_address(split_line(cell).address).address
    except AddressError:
        return None


def _is_address_line(line: str) -> bool:
    if len(line) > _MAX_CHARS:
        return False
    if _ALONE.fullmatch(line) or _WITH_NAME.fullmatch(line):
        return True
    number = _NUMBER.match(line)
    if number:
        return _is_address_line(line[number.end() :])
    return _match_name(line) is not None or _LINK.fullmatch(line) is not None


def _match_name(text: str) -> tuple[str, str] | None:
    """The address and the name of `address (Name)`, `address Name`, `Name (address)`, `Name: address` and the like.

    A word in lower case or with a dot behind an address may be a part of the address, which a blank divides.
    """
    if (found := _NAME_BEHIND.fullmatch(text)) and not _PART_OF_DOMAIN(found["name"] or ""):
        return found["address"], (found["comment"] or found["name"] or "").strip()
    if found := _NAME_BEFORE.fullmatch(text):
        label = found["label"].strip()
        is_label = label.casefold() in {"email", "e-mail", "mail"}
        return found["round"] or found["square"] or found["bare"], "" if is_label else label
    return None


def _name(written: str, address: str) -> str:
    name = written.strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        name = re.sub(r"\\(.)", r"\1", name[1:-1]).strip()
    return "" if name == address else name
