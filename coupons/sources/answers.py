"""Answers of hosts in words, such as `Unauthorized` or `404 Not Found`, which would be read as a list of one code."""

import re

from coupons.files.address_columns import is_address_name
from coupons.files.content import HEAD_BYTES
from coupons.files.header_names import NameKind, code_name

_MAX_LINES = 5
_STATUS = re.compile(r"[1-5]\d\d").fullmatch


def is_answer_in_words(head: bytes) -> bool:
    """Whether a whole answer is a word or a sentence. A code has a digit, and a list has an address or a known header.

    Several lines are an answer if each one has several words, and one of them ends like a sentence.
    """
    lines = [line for line in head.decode("utf-8-sig", "ignore").splitlines() if line.strip()]
    if len(head) >= HEAD_BYTES or not 1 <= len(lines) <= _MAX_LINES:
        return False
    if any("@" in line for line in lines) or any(map(_is_header_name, re.split("[,;\t|]", lines[0]))):
        return False
    if not all(map(_is_in_words, lines)):
        return False
    return len(lines) == 1 or (
        all(len(line.split()) > 1 for line in lines) and any(line.rstrip().endswith((".", "!", "?")) for line in lines)
    )


def _is_in_words(line: str) -> bool:
    words = line.split()
    with_digits = [word for word in words if any(map(str.isdigit, word))]
    if len(words) == 1:
        return not with_digits or _STATUS(words[0]) is not None
    return len(with_digits) * 2 <= len(words)


def _is_header_name(cell: str) -> bool:
    return code_name(cell) is NameKind.STRONG or is_address_name(cell)
