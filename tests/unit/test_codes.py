"""The rules for a coupon code."""

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.files import codes
from coupons.files.codes import CheckedCodes, check_codes, fold, fold_all, fold_codes, spellings
from coupons.files.rejections import MAX_CODE_CHARS, Reason

ANY_TEXT = st.text(st.characters(codec=None), max_size=30) | st.text("A1'=+-@,;| \t\"", max_size=8)


def rejection_reason(code: str) -> Reason | None:
    checked = check_codes([1], [code])
    return checked.rejected[0].reason if checked.rejected else None


@pytest.mark.parametrize(
    "code",
    [
        *("A", "a-b_C9", "-A", "SPRING 10", "ABCD-1234/5", "a.b", "A#1", "1E5", "12E11", "1.5", "1E-5", "N/A1", "www"),
        *("MAR-01", "1-MAR", "1-mar", "1-3", "01.03.2026", "41-Mar", "Marc-01", "A-Mar-01", "www2.a", "00042"),
        *("=A", "50% off", "$5", "{A}", "[A]", "%A%", "O'Hara", "Ä-ß", "גשם", "X" * MAX_CODE_CHARS, "ÄÖ" * 100),
    ],
)
def test_plausible_codes_are_accepted(code: str) -> None:
    """Plausible codes are accepted and stay unchanged, because only the shop knows what a code means."""
    assert check_codes([7], [code]) == CheckedCodes([7], [code], [], 0)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("X" * (MAX_CODE_CHARS + 1), Reason.TOO_LONG),
        ("A\x00B", Reason.CONTROL),
        ("A\tB", Reason.CONTROL),
        ("A\nB", Reason.CONTROL),
        ("A\x7fB", Reason.CONTROL),
        ("A\u200bB", Reason.CONTROL),  # zero-width space
        ("A\u200b", Reason.CONTROL),
        ("\ufeffA", Reason.CONTROL),  # byte order mark of a second file
        ("A\u202eB", Reason.CONTROL),  # right-to-left override
        ("A\u00adB", Reason.CONTROL),  # soft hyphen
        ("A\ud800B", Reason.CONTROL),  # lone surrogate
        ("A\ue000B", Reason.CONTROL),  # private use
        ("A\u2028B", Reason.CONTROL),  # line separator
        ("A\u3164B", Reason.CONTROL),  # an invisible filler
        ("A\ufe0fB", Reason.CONTROL),  # variation selector
        ("A\ufffdB", Reason.CONTROL),  # replacement of a character that was lost earlier
        ("A  B", Reason.SPACES),
        ("A\u00a0B", Reason.SPACES),
        ("1.2E+11", Reason.EXCEL),
        ("1,23457E+11", Reason.EXCEL),
        ("1E+15", Reason.EXCEL),
        ("4e+21", Reason.EXCEL),
        ("#NAME?", Reason.EXCEL),
        ("#REF!", Reason.EXCEL),
        ("#BEZUG!", Reason.EXCEL),
        ("#N/A", Reason.EXCEL),
        ("#####", Reason.EXCEL),
        ("1-Mar", Reason.EXCEL),
        ("Mar-01", Reason.EXCEL),
        ("01. Mrz", Reason.EXCEL),
        ("https://shop.example/A1", Reason.URL),
        ("see http://a", Reason.URL),
        ("WWW.shop.example", Reason.URL),
        ("mailto:a@b.de", Reason.URL),
        ("{{ code }}", Reason.PLACEHOLDER),
        ("{% code %}", Reason.PLACEHOLDER),
        ("${code}", Reason.PLACEHOLDER),
        ("<%code%>", Reason.PLACEHOLDER),
        ("%%code%%", Reason.PLACEHOLDER),
        ("[[code]]", Reason.PLACEHOLDER),
        ("*|CODE|*", Reason.PLACEHOLDER),
    ],
)
def test_an_impossible_code_is_rejected_with_its_reason(code: str, reason: Reason) -> None:
    """A line that cannot be a code is rejected with one reason, which does not depend on other lines."""
    assert rejection_reason(code) == reason
    checked = check_codes([1, 2, 3], ["A1", f" {code} ", "B2"])
    assert (checked.lines, checked.codes) == ([1, 3], ["A1", "B2"])
    assert [(each.line, each.reason) for each in checked.rejected] == [(2, reason)]


def test_white_space_around_a_code_is_removed() -> None:
    """White space of any kind around a code is removed: spreadsheets leave no-break spaces."""
    assert check_codes([1, 2], [" A1\t", "\u00a0B 2\u3000"]).codes == ["A1", "B 2"]


def test_blank_lines_are_only_counted() -> None:
    """Blank lines are counted. They are neither codes nor rejected lines."""
    assert check_codes([1, 2, 3], ["", " \t", "A1"]) == CheckedCodes([3], ["A1"], [], 2)


@given(st.lists(ANY_TEXT))
def test_every_line_has_exactly_one_result(values: list[str]) -> None:
    """Each line is a code, rejected or blank. Codes are unchanged except for surrounding white space."""
    checked = check_codes(range(1, len(values) + 1), values)
    assert sorted([*checked.lines, *(each.line for each in checked.rejected)]) == [
        line for line, value in enumerate(values, 1) if value.strip()
    ]
    assert checked.blank == sum(not value.strip() for value in values)
    for line, code in zip(checked.lines, checked.codes, strict=True):
        assert code == values[line - 1].strip() or "'" in values[line - 1]


@given(st.lists(ANY_TEXT))
def test_a_code_is_checked_independently(values: list[str]) -> None:
    """A line has the same result in a batch, where the fast path may apply, as alone."""
    together = check_codes(range(len(values)), values)
    alone = [check_codes([line], [value]) for line, value in enumerate(values)]
    assert together.codes == [code for each in alone for code in each.codes]
    assert together.rejected == [rejected for each in alone for rejected in each.rejected]


@given(st.from_regex(codes._PLAIN, fullmatch=True) | st.text("aZ9-_. /wMarÄ+Ee", max_size=12))
def test_the_fast_path_accepts_only_valid_codes(text: str) -> None:
    """The fast path accepts no code that a rule would reject."""
    if codes._PLAIN.fullmatch(text):
        assert codes.violation(text) is None


@given(ANY_TEXT.filter(lambda text: "'" not in text))
def test_an_accepted_code_is_accepted_again_unchanged(text: str) -> None:
    """An accepted code is accepted again unchanged, so importing a file twice gives the same codes."""
    codes = check_codes([1], [text]).codes
    assert check_codes([1] * len(codes), codes).codes == codes


@given(ANY_TEXT)
def test_a_fold_is_equal_for_all_forms_and_cases(text: str) -> None:
    """NFC, NFD and both cases of a code have one fold, and the fold of a fold is itself."""
    spellings = {normalize("NFC", text), normalize("NFD", text), text.casefold(), fold(text)}
    assert {fold(spelling) for spelling in spellings} == {fold(text)}


def test_only_codes_that_are_not_ascii_are_folded_here() -> None:
    """The database computes the fold of an ASCII code: its lower case."""
    assert fold_codes(["SPR-1", "GRÜN", "Straße"]) == [None, "grün", "strasse"]
    assert fold("SPR-a1_ Z") == "spr-a1_ z"


def test_the_fast_fold_is_right_for_every_character_of_latin_1() -> None:
    """Alone and next to every other character: none of them combines with another one."""
    characters = [chr(number) for number in range(256) if chr(number) != "\n"]
    found = [first + second for first in characters for second in characters]
    assert fold_all(found) == [fold(each) for each in found]


@given(st.lists(ANY_TEXT.filter(lambda text: "\n" not in text)), st.sampled_from(["latin-1", "utf-8"]))
def test_folds_of_many_codes_are_the_fold_of_each(texts: list[str], encoding: str) -> None:
    """The fast way for codes in Latin-1 and the way for others give the same folds."""
    codes = [text.encode(encoding, "ignore").decode(encoding) for text in texts]
    assert fold_all(codes) == [fold(code) for code in codes]
    assert fold_codes(codes) == [None if code.isascii() else fold(code) for code in codes]


@given(ANY_TEXT)
def test_all_spellings_of_a_code_are_equal_codes(text: str) -> None:
    """Each of them has the fold of the code, and the code's own spelling is one of them."""
    assert {fold(each) for each in spellings(text)} == {fold(text)}
    assert text in spellings(text)
