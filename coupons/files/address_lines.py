"""Lists of addresses: files with one address per line, alone or as `Name <address>`, such as people paste them."""

import re
from collections.abc import Sequence

from coupons.addresses import AddressError, parse_address

_NAMED = re.compile(r"(?P<name>[^<>]*?)\s*<\s*(?:mailto:)?(?P<address>[^<>]+?)\s*>", re.IGNORECASE)
_MAILTO = re.compile(r"mailto:(?P<address>[^?]+)", re.IGNORECASE)
_IN_QUOTES = re.compile(r"""(?P<quote>["'])(?P<address>[^"']+@[^"'@]+)(?P=quote)""")
_QUOTED_LOCAL_PART = r'"(?:[^"\\]|\\.)*"'
_ALONE = re.compile(rf'(?:[^\s@<>";,|]+|{_QUOTED_LOCAL_PART})@[^\s@<>";,|]+')
_WITH_NAME = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^<>;|\t"]*[^<>;|\t",])?\s*<[^<>\s]+>')
_SEPARATOR = re.compile(r'[;,|\t"]')
_ENDS = " \t,;"  # a list that was copied from the field of a mail program has a separator behind each address


def are_address_lines(lines: Sequence[str]) -> bool:
    """Whether the first line, or the second one below a header, and most lines are addresses or `Name <address>`."""
    filled = [line.strip().rstrip(_ENDS) for line in lines if line.strip()]
    if filled and "@" not in filled[0] and not _SEPARATOR.search(filled[0]):
        filled = filled[1:]
    matches = [bool(_ALONE.fullmatch(line) or _WITH_NAME.fullmatch(line)) for line in filled]
    return bool(matches) and matches[0] and matches.count(True) * 2 >= len(matches)


def split_line(line: str) -> tuple[str, str]:
    """The address of a line or cell without what is around it, and the name before it, which may be empty."""
    text = line.strip().rstrip(_ENDS)
    if found := _NAMED.fullmatch(text):
        name = found["name"].strip()
        if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
            name = re.sub(r"\\(.)", r"\1", name[1:-1]).strip()
        return found["address"], "" if name == found["address"] else name
    found = _MAILTO.fullmatch(text) or _IN_QUOTES.fullmatch(text)
    return found["address"] if found else text, ""


def find_address(cell: str) -> str | None:
    """The address of a line or cell. None if it does not contain exactly one."""
    if "@" not in cell:
        return None
    try:
        return parse_address(split_line(cell)[0]).address
    except AddressError:
        return None
