"""Attributes of recipients: how they are named, and what their values may contain."""

import re
import unicodedata

MAX_ATTRIBUTES = 100
MAX_ATTRIBUTE_CHARS = 1_000
MAX_ATTRIBUTE_NAME = 50
"""Maximum number of characters in the name of an attribute."""

RESERVED = frozenset({"coupon", "has_coupon", "self", "loop", "super", "caller"}) | frozenset(
    {"and", "or", "not", "is", "in", "if", "elif", "else", "for", "true", "false", "none", "True", "False", "None"}
)
"""Words of the template language: an attribute cannot have one of these names."""

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
"""Finds a character that no attribute value may contain. Joiners are allowed: they are parts of letters in names."""

is_attribute_name = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII).fullmatch

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "o", "ł": "l"})


def attribute_name(header: str) -> str:
    """The attribute name for a column header: "First Name" becomes first_name, "Größe (cm)" becomes groesse_cm.

    Letters of other scripts are transliterated: "Имя" becomes imya. The name is empty if no letter or digit of the
    header has an ASCII form.
    """
    composed = unicodedata.normalize("NFC", header).lower().translate(_UMLAUTS)
    letters = composed if composed.isascii() else "".join(map(_in_ascii, composed)).lower()
    name = re.sub(r"[^a-z0-9]+", "_", letters).strip("_")
    return f"_{name}" if name[:1].isdigit() else name


def _in_ascii(character: str) -> str:
    """The character without its accents if its letter is Latin, else its transliteration."""
    from anyascii import anyascii  # noqa: PLC0415 # takes 20 ms, and only headers in other scripts need it

    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or anyascii(character)
