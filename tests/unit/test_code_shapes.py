"""The shapes of codes, and the verdict about a file for the wrong list."""

import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import code_shapes as corpus
from coupons.files.code_shapes import (
    DIGIT,
    MAX_SHAPES,
    MIN_CODES,
    UPPER,
    Likeness,
    Profile,
    Suspicion,
    compare,
    extend,
    find_suspicion,
    from_json,
    shapes_of,
    to_json,
)

ALNUM = string.ascii_uppercase + string.digits
SHOPS = 650


def codes(template: str, count: int = 100, *, seed: int = 0) -> list[str]:
    """Codes like the template: `*` is a capital or digit, `#` a digit, `?` a capital."""
    rng = random.Random(f"{template} {seed}")
    kinds = {"*": ALNUM, "#": string.digits, "?": string.ascii_uppercase}
    return ["".join(rng.choice(kinds.get(each, each)) for each in template) for _ in range(count)]


def shapes(template: str, count: int = 100, *, seed: int = 0) -> Profile:
    return shapes_of(codes(template, count, seed=seed))


def test_a_shape_has_what_codes_share_and_the_kinds_of_other_characters() -> None:
    """A shared character is a place of its own; the others are kinds."""
    (shape,) = shapes("V-#?")
    assert shape.places == ("V", "-", DIGIT, UPPER)
    (shape,) = shapes_of([f"V-{number * 10 ** (number % 12)}" for number in range(1, 121)])
    assert shape.places == ("V-", DIGIT)
    assert shape.shortest < shape.longest


def test_few_codes_and_many_shapes_have_no_shape() -> None:
    """Then there is no verdict."""
    assert not shapes("********", MIN_CODES - 1)
    assert not shapes_of(["-".join("A" * (index % 12 + 1)) for index in range(120)])


def test_rare_codes_are_ignored() -> None:
    """A test code in a file does not change its shape."""
    assert shapes_of([*codes("SAVE-****"), "TEST"]) == shapes("SAVE-****")


@pytest.mark.parametrize(
    ("new", "known", "likeness"),
    [
        ("SAVE-******", "SAVE-******", Likeness.SAME),
        ("SAVE-******", "GIFT-******", Likeness.SIMILAR),
        ("FALL24-******", "SPRING24-******", Likeness.SIMILAR),
        ("FALL24******", "SPRING24******", Likeness.SIMILAR),
        ("1####", "9###", Likeness.SIMILAR),
        ("********", "##########", Likeness.DIFFERENT),
        ("********", "########", Likeness.DIFFERENT),
        ("****-****", "*********", Likeness.DIFFERENT),
        ("****-****", "****-****-****", Likeness.DIFFERENT),
        ("****-****", "****_****", Likeness.DIFFERENT),
        ("??####", "******", Likeness.DIFFERENT),
    ],
)
def test_shapes_are_compared(new: str, known: str, likeness: Likeness) -> None:
    """Similar shapes differ only in what a batch shares."""
    assert compare(shapes(new)[0], shapes(known, seed=1)[0]) is likeness


def test_an_alphabet_without_some_characters_is_another_shape() -> None:
    """Hexadecimal codes are not codes of all letters, and codes without 0, O, 1 and I are not either."""
    rng = random.Random(1)
    every, clear, hexadecimal = (
        shapes_of(["".join(rng.choices(alphabet, k=10)) for _ in range(100)])[0]
        for alphabet in (ALNUM, "".join(set(ALNUM) - set("0O1I")), "0123456789ABCDEF")
    )
    assert compare(hexadecimal, every) is compare(every, hexadecimal) is Likeness.DIFFERENT
    assert compare(clear, every) is compare(every, clear) is Likeness.DIFFERENT


@pytest.mark.parametrize(
    ("file", "target", "other", "suspicion"),
    [
        ("GIFT-******", "SAVE-******", "GIFT-******", Suspicion("other")),
        ("################", "SAVE-******", "################", Suspicion("other")),
        ("SAVE-******", "SAVE-******", "GIFT-******", None),
        ("FALL24-******", "SPRING24-******", "GIFT-******", None),
        ("600649##########", "603571##########", "600649##########", Suspicion("other")),
        ("12######", "11######", "12######", None),
        ("????", "SAVE-******", "GIFT-######", Suspicion(None, "4 characters instead of 11")),
        ("####_######", "SAVE-******", "GIFT-######", Suspicion(None, "••••_•••••• instead of ••••-••••••")),
        ("###########", "***********", "GIFT-######", Suspicion(None, "digits instead of capitals and digits")),
        ("SAVE-######", "SAVE-******", "GIFT-######", None),
        ("SAVE-000***", "SAVE-******", "GIFT-######", None),
        ("SAVE-######", "SAVE-******", "SAVE-######", Suspicion("other")),
    ],
)
def test_a_file_for_another_list_is_suspicious(file: str, target: str, other: str, suspicion: Suspicion | None) -> None:
    """Its shape is that of the other list, or its codes cannot be codes of its own list, and a difference is named."""
    assert find_suspicion(shapes(file, seed=1), shapes(target), {"other": shapes(other)}) == suspicion


def test_a_shape_of_both_lists_tells_them_not_apart() -> None:
    """The other list has the shape of the target as well, so the file may continue either of them."""
    target = shapes("########", 60)
    both = (*shapes("########", 60, seed=1), *shapes("SAVE-******"))
    assert find_suspicion(shapes("SAVE-******", seed=1), target, {"other": both}) is None


def test_a_beginning_that_changes_tells_no_lists_apart() -> None:
    """A list whose prefix changes with the season may get the prefix that another list got before."""
    target = extend(shapes("SPRING24-******"), shapes("SUMMER24-******"))
    assert find_suspicion(shapes("FALL24-******", seed=1), target, {"other": shapes("FALL24-******")}) is None


def test_a_list_keeps_its_newest_shapes() -> None:
    """The profile of a list does not grow with its history."""
    profile: Profile = ()
    for number in range(2 * MAX_SHAPES):
        profile = extend(profile, shapes(f"S{number:02}-******"))
    assert len(profile) == MAX_SHAPES
    assert profile[-1].places[:3] == ("S", "1", "5")


def test_imports_of_one_shape_stay_one_shape() -> None:
    """The number of its codes grows."""
    profile = extend(shapes("SAVE-******"), shapes("SAVE-******", seed=1))
    assert [shape.count for shape in profile] == [200]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1), min_size=30))
def test_any_codes_have_shapes_that_can_be_stored(given: list[str]) -> None:
    """Shapes of any codes come back from JSON, are compared and extended."""
    profile = shapes_of(given)
    assert from_json(json.loads(json.dumps(to_json(profile)))) == profile
    assert find_suspicion(profile, profile, {"other": profile}) is None
    assert all(compare(a, b) in Likeness for a in profile for b in profile)
    extend(profile, profile)


def test_the_rates_on_the_corpus() -> None:
    """Fewer than 1 % of imports into the right list ask; most of those into a list of another generator do."""
    found = corpus.rates(list(corpus.imports(SHOPS)))
    print(found)  # noqa: T201 - the figures of docs/decisions/0025
    assert found.right >= 2_000
    assert found.false_alarms < 0.01 * found.right
    assert found.detected_other_style > 0.8 * found.other_style
    assert len(corpus.STYLES) >= 30
