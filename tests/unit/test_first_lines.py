"""Whether a first line is a header or a code. The rates are measured with fixed seeds."""

import random
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

import pytest

from coupons.files.code_layout import UNDECIDED, find_code_layout
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.layout import HeadRow
from coupons.files.words import is_word

CAPITALS = ascii_uppercase + digits
READABLE = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
STYLES = [
    ("SUMMER-", (8,), CAPITALS), ("SAVE-", (4,), CAPITALS), ("", (8,), READABLE), ("", (6,), READABLE),
    ("", (10,), ascii_letters + digits), ("", (6, 7, 8, 9, 10), CAPITALS), ("", (8,), ascii_uppercase),
    ("", (8,), ascii_lowercase + digits), ("", (8,), ascii_letters),
]  # fmt: skip
HEADERS = [
    "password", "schlager", "losnummer", "mitglied", "zugang", "kennwort", "teilnehmer", "artikel",
    "referenz", "vertrag", "passwort", "newsletter", "account", "wachtwoord", "contrasena", "identifier",
    "influencer", "premium", "salasana", "losung", "eintritt", "invoice", "member",
]  # fmt: skip


def is_header(lines: list[str]) -> bool | None:
    """Whether the first line is read as a header. None if it is undecided."""
    rows = [HeadRow(number, [text]) for number, text in enumerate(lines, 1)]
    try:
        return find_code_layout(rows, FileFormat()).opening.header_line == 1
    except FileError as error:
        assert str(error) == UNDECIDED
        return None


def codes(prefix: str, lengths: tuple[int, ...], alphabet: str, number: int) -> list[str]:
    return [prefix + "".join(random.choices(alphabet, k=random.choice(lengths))) for _ in range(number)]


def test_a_first_code_without_a_digit_is_a_code() -> None:
    """At most 0.5 % of the files with random codes are refused, and in none is the first code taken for a header."""
    random.seed(14)
    found = [is_header(codes(*style, 40)) for style in STYLES for _ in range(70)]
    assert found.count(True) == 0
    assert found.count(None) <= 0.005 * len(found)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style[0]}{style[1]}-{len(style[2])}")
def test_a_word_above_codes_of_its_length_is_not_a_code(style: tuple[str, tuple[int, ...], str]) -> None:
    """A header of an unknown name is read as a header or refused, also in the case and the length of the codes."""
    random.seed(15)
    for word in HEADERS:
        for spelled in (word.upper(), word, word.capitalize()):
            below = codes(style[0], style[1], style[2], 40)
            assert is_header([spelled, *below]) is not False, spelled


@pytest.mark.parametrize("name", ["2026", "0", "F1", "CODE_1", "Kod_2026", "Coupon#1", "Codes_2026"])
def test_a_name_with_a_number_above_codes_is_undecided(name: str) -> None:
    """A much shorter first line than the codes, or the name of a code column with a number, is not imported."""
    assert is_header([name, "AB1XYZ99", "QW3ERT55", "ZX8CVB01"]) is not False


def test_a_code_that_names_its_kind_is_a_code_among_others_like_it() -> None:
    """CODE1 above CODE2 is a code, as is PROMO10 if others begin with PROMO."""
    assert is_header(["CODE1", "CODE2", "CODE3", "CODE4"]) is False
    assert is_header(["PROMO10", "PROMO15", "PROMO20", "PROMO5"]) is False


def test_words_are_told_from_random_letters() -> None:
    """Words that the tables lack are recognized by the pairs of their letters."""
    assert [
        word for word in ("schlager", "kundenkarte", "lotterie", "destination", "mercadona") if not is_word(word, 0.02)
    ] == []
    random.seed(16)
    found = [is_word("".join(random.choices(ascii_lowercase, k=8)), 0.02) for _ in range(2_000)]
    assert sum(found) < 0.03 * len(found)
