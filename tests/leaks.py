"""Find codes, addresses and passwords in texts that must have none: logs, reasons, headers, errors, health pages."""

import re
from collections.abc import Collection, Iterable, Mapping

ADDRESS = re.compile(r"[^\s<>\"'(),;:=\[\]{}/]+@[^\s<>\"'(),;:=\[\]{}/]+\.[^\s<>\"'(),;:=\[\]{}/]+")
CODE = re.compile(r"\b[A-Z]{2,}-\d{5,9}\b")
"""The codes of most tests. Other codes are recognized if they are known."""
WORD = re.compile(r"\w[\w.+@-]{4,}\w")
"""A word that may be a code or an address. Shorter codes of tests are also ordinary words."""


EXAMPLES = {"name@example.org"}
"""Addresses in our own sentences."""
MASK = "•••"
"""The hidden part of an address in the description of a file."""


def leaks(text: str, known: Collection[str] = frozenset()) -> list[str]:
    """Return the addresses and codes in a text. `known` are codes and addresses of any form."""
    addresses = {found.rstrip(".") for found in ADDRESS.findall(text) if MASK not in found} - EXAMPLES
    return sorted({*addresses, *CODE.findall(text), *(word for word in WORD.findall(text) if word in known)})


def find_leaks(texts: Mapping[str, str], known: Collection[str]) -> dict[str, list[str]]:
    """Return the leaks of each text that has any."""
    found = {where: leaks(text, known) for where, text in texts.items()}
    return {where: each for where, each in found.items() if each}


def words_of(texts: Iterable[str]) -> set[str]:
    """Return the words that may be codes or addresses."""
    return {word for text in texts for word in WORD.findall(text)}


def without_arguments(text: str, arguments: Iterable[object]) -> str:
    """Return the text without a command's arguments, which an error may show to the person who typed them."""
    for argument in sorted(map(str, arguments), key=len, reverse=True):
        if argument:
            text = text.replace(argument, "…").replace(repr(argument)[1:-1], "…")
    return text
