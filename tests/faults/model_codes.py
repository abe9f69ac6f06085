"""The codes of the model, in several spellings."""

from collections.abc import Callable, Iterable
from unicodedata import normalize

LETTER = "Ç"
"""All its spellings mean the same to most shops. PostgreSQL's lower() changes it in some locales only."""
SPELLINGS: dict[str, Callable[[str], str]] = {
    "composed": str,
    "lower case": str.lower,
    "decomposed": lambda code: normalize("NFD", code),
    "decomposed lower case": lambda code: normalize("NFD", code.lower()),
}


def codes(numbers: Iterable[int], spelling: str = "composed") -> tuple[str, ...]:
    return tuple(SPELLINGS[spelling](f"{LETTER}{number}") for number in sorted(numbers))


def composed(code: str) -> str:
    return normalize("NFC", code)


def folded(code: str) -> str:
    """What all spellings of a code have in common."""
    return composed(code).lower()
