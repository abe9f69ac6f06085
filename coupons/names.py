"""Names of coupon lists, recipient groups and messages."""

import re

from coupons.errors import UserError

MAX_NAME_CHARS = 50

_NAME = re.compile(r"[a-z0-9](?: ?[a-z0-9._-])*").fullmatch


class InvalidName(UserError, ValueError):
    """A name is invalid. The text is one line with the rule that the name breaks."""


def parse_name(text: str) -> str:
    """The name as it is stored: stripped and in lower case. Raises InvalidName."""
    name = text.strip().lower()
    if len(name) > MAX_NAME_CHARS:
        raise InvalidName(f"a name has at most {MAX_NAME_CHARS} characters")
    if not _NAME(name):
        raise InvalidName(
            "a name consists of letters a-z, digits, single spaces and . _ - and begins with a letter or digit"
        )
    return name
