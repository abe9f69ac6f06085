"""The shape of codes, and whether a file of codes was probably meant for another list.

The shape of codes is their length, their separators, the characters that all of them share, and the kinds of characters
at the other places: `GIFT-` and eight capitals or digits. Codes from one generator have one shape. A file whose codes
have the shape of another list, and not that of the list they are imported into, was probably meant for the other list.

    suspicion = find_suspicion(shapes_of(codes), target, others)

docs/decisions/0025 has the measured rates of detection and of false alarms.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import takewhile, zip_longest
from typing import Any

SAMPLE_CODES = 500
"""The number of a file's first accepted codes that give its shapes."""
MIN_CODES = 10
"""Fewer codes have no reliable shape: with 5 codes, 1.4 % of the imports into the right list would ask."""
MIN_TIGHT_CODES = 100
"""A list with fewer known codes may get codes of a shape that no list has."""
MAX_SHAPES = 8
"""A list has up to this number of shapes, the newest ones. A file with more shapes gives no verdict."""
MIN_SHARE = 0.05
"""A shape with a smaller share of a file's codes is ignored, such as that of a test code."""
MIN_BODY = 4
"""The number of places that shapes of different lengths have in common at least, if they are similar."""
MIN_LETTERS, MIN_DIGITS = 1, 3
"""The number of letters or digits that tell apart what two lists share. Batches of one counter differ in one or two
digits of those that they share."""
MIN_MISSING = 3
"""The number of characters that a file's codes may lack by chance although their generator uses them."""

DIGIT, UPPER, LOWER, OTHER = 1, 2, 4, 8
_PARTS = re.compile(r"[^\W_]+")
_SEPARATORS = re.compile(r"[\W_]")

Place = str | int
"""What all codes share at a place, or the kinds of characters that they have there, as a sum of DIGIT, UPPER, …"""


class Likeness(IntEnum):
    """How alike two shapes are. Similar ones differ only in characters that one batch shares, such as `SPRING24-`."""

    DIFFERENT = 0
    SIMILAR = 1
    SAME = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of `count` codes, whose lengths are between `shortest` and `longest`.

    If all have one length, there is a place for each character. Otherwise the first place is what all codes begin with,
    and the others are the parts of the rest between separators. `alphabet` are the characters that not all codes share.
    """

    count: int
    shortest: int
    longest: int
    places: tuple[Place, ...]
    alphabet: str

    @property
    def has_one_length(self) -> bool:
        return self.shortest == self.longest

    @property
    def beginning(self) -> str:
        """What all codes begin with."""
        return "".join(str(place) for place in takewhile(_is_shared, self.places))

    @property
    def body(self) -> tuple[Place, ...]:
        """The places after those that all codes share at the beginning."""
        return self.places[len(list(takewhile(_is_shared, self.places))) :]


Profile = tuple[Shape, ...]
"""The shapes of a file or a list, the newest ones last. Empty if they are not known."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A file's codes do not look like those of its list, but like those of the list `other`; None: of no list.

    Without another list, `difference` says what differs, such as "15 characters instead of 12".
    """

    other: str | None
    difference: str = ""


# --- verdict ---------------------------------------------------------------------------------------------------------


def is_like(file: Profile, target: Profile) -> bool:
    """Whether a file needs no comparison with other lists: its shape is the list's, or one of the two is unknown."""
    return not file or not target or any(_likeness(shape, target) is Likeness.SAME for shape in file)


def find_suspicion(file: Profile, target: Profile, others: Mapping[str, Profile]) -> Suspicion | None:
    """Return what is suspicious about importing the file into the target, or None."""
    if is_like(file, target):
        return None
    for name, other in others.items():
        if all(_is_rather(shape, other, target) for shape in file) and not _has_shapes_of(other, target):
            return Suspicion(name)
    if _is_tight(target) and not any(_may_continue(shape, each) for shape in file for each in target):
        return Suspicion(None, describe_difference(file[0], target[-1]))
    return None


def _may_continue(shape: Shape, known: Shape) -> bool:
    """Whether the shape is at least similar to the known one, or its codes could be codes of that shape.

    They could if all codes begin alike, with a letter, and have the same length, separators and alphabet:
    SUMMER-00000001 could be one of the codes SUMMER-K7Q2M8XA.
    """
    if compare(shape, known) is not Likeness.DIFFERENT:
        return True
    return (
        shape.has_one_length
        and len(shape.places) == len(known.places)
        and known.has_one_length
        and any(map(str.isalpha, known.beginning))
        and all(map(_can_be, shape.places, known.places))
        and {*shape.alphabet} <= {*known.alphabet}
    )


def _can_be(new: Place, known: Place) -> bool:
    """Whether all characters that new codes have at a place could be those of known codes."""
    if _is_shared(known):
        return new == known
    return not _is_separator(new) and not _kinds_at(new) & ~int(known)


def describe_difference(new: Shape, known: Shape) -> str:
    """What tells codes of a shape from those of a known one, without any character of a code except separators."""
    for describe in (_describe_length, _describe_layout, _describe_kinds):
        mine, other = describe(new), describe(known)
        if mine != other:
            return f"{mine} instead of {other.removesuffix(' characters')}"
    return "other characters"


def _describe_length(shape: Shape) -> str:
    lengths = str(shape.shortest) if shape.has_one_length else f"{shape.shortest} to {shape.longest}"
    return f"{lengths} character{'' if lengths == '1' else 's'}"


def _describe_layout(shape: Shape) -> str:
    """The separators at their places: `AB12-X` gives `••••-•`."""
    if not shape.has_one_length:
        return "several lengths"
    return "".join(str(place) if _is_separator(place) else "•" for place in shape.places)


def _describe_kinds(shape: Shape) -> str:
    kinds = _kinds(shape.alphabet)
    letters = {UPPER: "capitals", LOWER: "small letters", UPPER | LOWER: "letters"}.get(kinds & (UPPER | LOWER))
    words = [word for word in (letters, "digits" if kinds & DIGIT else None) if word]
    return " and ".join(words) or "other characters"


def _is_rather(shape: Shape, other: Profile, target: Profile) -> bool:
    """Whether the shape is one of the other list, and tells it apart from each of the target.

    What codes share, such as `SPRING24-`, tells lists apart only if it has never changed in either list.
    """
    is_lasting = not _has_changed(other) and not _has_changed(target)
    return any(
        compare(shape, each) is Likeness.SAME
        and all(compare(shape, old) is Likeness.DIFFERENT or (is_lasting and _share_other(each, old)) for old in target)
        for each in other
    )


def _has_changed(profile: Profile) -> bool:
    """Whether later batches of a list share other characters than the first one."""
    return any(compare(shape, profile[0]) is not Likeness.DIFFERENT for shape in profile[1:])


def _share_other(a: Shape, b: Shape) -> bool:
    """Whether codes of the shape `a` share other characters than those of `b`."""
    if len(a.places) == len(b.places) and a.has_one_length:
        pairs = [(x, y) for x, y in zip(a.places, b.places, strict=True) if _is_shared(x) and _is_shared(y)]
    else:
        pairs = list(zip_longest(a.beginning, b.beginning, fillvalue=""))
    differing = ["".join(map(str, pair)) for pair in pairs if pair[0] != pair[1]]
    letters = sum(any(map(str.isalpha, pair)) for pair in differing)
    return letters >= MIN_LETTERS or len(differing) >= MIN_DIGITS


def _has_shapes_of(other: Profile, target: Profile) -> bool:
    """Whether the other list has the shapes of the target as well, so that shapes do not tell the two lists apart."""
    return all(_likeness(shape, other) is Likeness.SAME for shape in target)


def _is_tight(profile: Profile) -> bool:
    """Whether a list has many codes, and they differ only in what a batch shares."""
    return sum(shape.count for shape in profile) >= MIN_TIGHT_CODES and all(
        compare(shape, profile[-1]) is not Likeness.DIFFERENT for shape in profile
    )


def _likeness(shape: Shape, profile: Profile) -> Likeness:
    return max((compare(shape, each) for each in profile), default=Likeness.DIFFERENT)


# --- profiles --------------------------------------------------------------------------------------------------------


def shapes_of(codes: Sequence[str]) -> Profile:
    """The shapes of the codes. Empty if there are too few codes, or too many shapes."""
    if len(codes) < MIN_CODES:
        return ()
    for layout in (_layout, _separators):
        groups = _grouped(codes, layout)
        common = [group for group in groups if len(group) >= MIN_SHARE * len(codes)]
        if len(common) <= MAX_SHAPES and sum(map(len, common)) > (1 - MIN_SHARE) * len(codes):
            return tuple(map(_shape, common))
    return ()


def extend(profile: Profile, file: Profile) -> Profile:
    """The profile of a list that gets the codes of the file. The oldest shapes are dropped."""
    for shape in file:
        same = next((each for each in profile if compare(shape, each) is Likeness.SAME), None)
        profile = (*(each for each in profile if each is not same), _union(same, shape) if same else shape)
    return profile[-MAX_SHAPES:]


def to_json(profile: Profile) -> list[list[Any]]:
    return [[each.count, each.shortest, each.longest, list(each.places), each.alphabet] for each in profile]


def from_json(value: Iterable[Sequence[Any]]) -> Profile:
    return tuple(
        Shape(count, shortest, longest, tuple(places), alphabet) for count, shortest, longest, places, alphabet in value
    )


def _grouped(codes: Iterable[str], layout: Callable[[str], str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for code in codes:
        groups.setdefault(layout(code), []).append(code)
    return list(groups.values())


def _layout(code: str) -> str:
    """The separators at their places: `AB12-X` gives `0000-0`."""
    return _PARTS.sub(lambda part: "0" * len(part[0]), code)


def _separators(code: str) -> str:
    return _PARTS.sub("0", code)


def _shape(codes: Sequence[str]) -> Shape:
    shortest, longest = min(map(len, codes)), max(map(len, codes))
    if shortest == longest:
        columns = list(map(set, zip(*codes, strict=True)))
        varying = set().union(*(column for column in columns if len(column) > 1))
        return Shape(len(codes), shortest, longest, tuple(map(_place, columns)), "".join(sorted(varying)))
    beginning = _common_beginning(codes)
    rests = [code[len(beginning) :] for code in codes]
    parts = zip(*map(_PARTS.findall, rests), strict=False)  # the rest of one code may begin with a separator
    kinds = (_kinds("".join(part)) for part in parts)
    return Shape(len(codes), shortest, longest, (beginning, *kinds), "".join(sorted(set("".join(rests)))))


def _place(characters: set[str]) -> Place:
    return min(characters) if len(characters) == 1 else _kinds(characters)


def _kinds(characters: Iterable[str]) -> int:
    kinds = 0
    for character in set(characters):
        kinds |= _kind(character)
    return kinds


def _kind(character: str) -> int:
    if character.isdigit():
        return DIGIT
    if character.isalpha():
        return UPPER if character.isupper() else LOWER
    return OTHER


def _common_beginning(codes: Sequence[str]) -> str:
    first, last = min(codes), max(codes)
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _union(a: Shape, b: Shape) -> Shape:
    """The shape of the codes of two shapes that are the same."""
    places = tuple(x if x == y else _kinds_at(x) | _kinds_at(y) for x, y in zip(a.places, b.places, strict=True))
    alphabet = {*a.alphabet, *b.alphabet}
    alphabet |= {
        str(x) for pair in zip(a.places, b.places, strict=True) if pair[0] != pair[1] for x in pair if _is_shared(x)
    }
    return Shape(
        a.count + b.count, min(a.shortest, b.shortest), max(a.longest, b.longest), places, "".join(sorted(alphabet))
    )


# --- likeness of two shapes ------------------------------------------------------------------------------------------


def compare(new: Shape, known: Shape) -> Likeness:
    """How alike a file's shape is to one that is known."""
    if _are_of_one_counter(new, known):
        return Likeness.SIMILAR
    if new.has_one_length and known.has_one_length:
        return _compare_places(new, known)
    if new.has_one_length or known.has_one_length:
        return _compare_parts(_by_parts(new), _by_parts(known), most=Likeness.SIMILAR)
    return _compare_parts(new, known, most=Likeness.SAME)


def _compare_places(new: Shape, known: Shape) -> Likeness:
    if _have_other_alphabets(new, known):
        return Likeness.DIFFERENT
    if _are_alike(new.places, known.places):
        agree = all(map(_agree, new.places, known.places))
        return Likeness.SAME if agree else Likeness.SIMILAR
    is_similar = len(new.body) >= MIN_BODY and _are_alike(new.body, known.body)
    return Likeness.SIMILAR if is_similar else Likeness.DIFFERENT


def _compare_parts(new: Shape, known: Shape, *, most: Likeness) -> Likeness:
    """Compare shapes of codes of several lengths."""
    overlap = min(new.longest, known.longest) - max(new.shortest, known.shortest)
    if new.places[1:] != known.places[1:] or overlap < 0:
        return Likeness.DIFFERENT
    return most if new.places[0] == known.places[0] else Likeness.SIMILAR


def _by_parts(shape: Shape) -> Shape:
    """The shape as one of codes of several lengths."""
    if not shape.has_one_length:
        return shape
    parts: list[Place] = [shape.beginning]
    for place in shape.body:
        if _is_separator(place) or len(parts) == 1:
            parts.append(0)
        if not _is_separator(place):
            parts[-1] = int(parts[-1]) | _kinds_at(place)
    return Shape(shape.count, shape.shortest, shape.longest, tuple(parts), shape.alphabet)


def _are_of_one_counter(a: Shape, b: Shape) -> bool:
    """Whether a counter may have made both: its numbers become longer."""
    bodies = {*a.body, *b.body}
    return abs(len(a.places) - len(b.places)) == 1 and a.has_one_length and b.has_one_length and bodies == {DIGIT}


def _are_alike(a: Sequence[Place], b: Sequence[Place]) -> bool:
    """Whether the separators are the same, and the kinds of characters are, at all places except one."""
    if len(a) != len(b) or any(x != y and (_is_separator(x) or _is_separator(y)) for x, y in zip(a, b, strict=True)):
        return False
    kinds = [(x, y) for x, y in zip(a, b, strict=True) if not _is_shared(x) and not _is_shared(y)]
    return all(int(x) & int(y) for x, y in kinds) and sum(x != y for x, y in kinds) <= 1


def _agree(new: Place, known: Place) -> bool:
    """Whether new codes have at a place what known codes share there, or one of the kinds that known codes have."""
    return new == known if _is_shared(known) else bool(_kinds_at(new) & int(known))


def _have_other_alphabets(a: Shape, b: Shape) -> bool:
    return _lacks_characters_of(a, b) or _lacks_characters_of(b, a)


def _lacks_characters_of(a: Shape, b: Shape) -> bool:
    """Whether codes of the shape `a` lack more characters of those of `b` than they would by chance."""
    seen, size = a.count * sum(not _is_shared(place) for place in a.places), len(b.alphabet)
    by_chance = size * (1 - 1 / size) ** seen if size else 0
    return len({*b.alphabet} - {*a.alphabet}) > MIN_MISSING * (1 + by_chance)


def _is_shared(place: Place) -> bool:
    return isinstance(place, str)


def _is_separator(place: Place) -> bool:
    return isinstance(place, str) and not place.isalnum()


def _kinds_at(place: Place) -> int:
    return _kinds(place) if isinstance(place, str) else place
