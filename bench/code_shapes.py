"""Measures the wrong-list guard on generated lists: how often it asks about files for the right list and a wrong one.

`python -m bench.code_shapes` prints the rates. A shop has two to six lists, and each list has a generator of codes in
one of the STYLES. Lists get batches by turns, of 10 to 500 codes. Then each list gets its next batch (right), and the
next batch of another list (wrong). All is drawn from one seed.
"""

import argparse
import random
import string
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from coupons.files.code_shapes import MIN_CODES, SAMPLE_CODES, Profile, Suspicion, extend, find_suspicion, shapes_of

SHOPS = 700
SEED = 14

Batch = Callable[[int], list[str]]
Style = Callable[[random.Random], Batch]
"""Makes the generator of one list, which returns the given number of codes."""

CAPITALS, SMALL, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM = CAPITALS + DIGITS
CLEAR = "".join(sorted(set(ALNUM) - set("0O1IL")))
CROCKFORD = "".join(sorted(set(ALNUM) - set("ILOU")))
HEX = "0123456789abcdef"
CAMPAIGNS = [
    *(
        "GIFT",
        "SAVE",
        "VIP",
        "NEWS",
        "WELCOME",
        "BLACK",
        "XMAS",
        "SUMMER",
        "WIN",
        "LOYAL",
        "REF",
        "PROMO",
        "KUNDE",
        "OSTER",
    ),
    *(
        "BDAY",
        "TEAM",
        "PRESS",
        "APP",
        "SHOP",
        "CLUB",
        "PLUS",
        "FRIEND",
        "BACK",
        "THANKS",
        "DANKE",
        "SORRY",
        "FLASH",
        "PRO",
    ),
]
SEASONS = ["SPRING24", "SUMMER24", "AUTUMN24", "WINTER24", "SPRING25", "SUMMER25", "FALL25", "XMAS25", "Q1", "Q2", "Q3"]
WORDS = [
    *("happy", "tiger", "blue", "river", "green", "cloud", "silver", "mountain", "golden", "lucky", "brave"),
    *("quiet", "rapid", "sunny", "royal", "fresh", "maple", "ocean", "forest", "desert", "winter", "summer"),
    *("apple", "lemon", "cherry", "velvet", "copper", "marble", "crystal", "shadow", "falcon", "eagle", "panda"),
    *("otter", "zebra", "violet", "amber", "coral", "indigo", "jasmine", "quartz", "kiwi", "yellow", "xenon"),
    *("ivory"),
]


def _random(rng: random.Random, characters: str, length: int) -> str:
    return "".join(rng.choices(characters, k=length))


def alnum(characters: str, *lengths: int) -> Style:
    def style(rng: random.Random) -> Batch:
        length = rng.choice(lengths)
        return lambda count: [_random(rng, characters, length) for _ in range(count)]

    return style


def prefixed(characters: str, separator: str, *lengths: int) -> Style:
    def style(rng: random.Random) -> Batch:
        length, value = rng.choice(lengths), rng.choice(("", "5", "10", "20", "50"))
        prefix = f"{rng.choice(CAMPAIGNS)}{value}{separator}"
        return lambda count: [prefix + _random(rng, characters, length) for _ in range(count)]

    return style


def suffixed(rng: random.Random) -> Batch:
    suffix = f"-{rng.choice(('DE', 'AT', 'CH', 'FR', 'IT', 'NL'))}"
    return lambda count: [_random(rng, CLEAR, 8) + suffix for _ in range(count)]


def seasonal(characters: str, separator: str, length: int) -> Style:
    """The prefix of a batch changes with the season."""

    def style(rng: random.Random) -> Batch:
        campaign = rng.choice(("", f"{rng.choice(CAMPAIGNS)}-"))
        seasons = rng.sample(SEASONS, len(SEASONS)) * 20

        def batch(count: int) -> list[str]:
            prefix = f"{campaign}{seasons.pop()}{separator}"
            return [prefix + _random(rng, characters, length) for _ in range(count)]

        return batch

    return style


def dated(rng: random.Random) -> Batch:
    """The prefix of a batch is the date of its creation."""
    day = rng.randrange(20240101, 20240128)

    def batch(count: int) -> list[str]:
        nonlocal day
        day += rng.randrange(1, 100)
        return [f"{day}-{_random(rng, ALNUM, 6)}" for _ in range(count)]

    return batch


def grouped(characters: str, *groups: int) -> Style:
    def style(rng: random.Random) -> Batch:
        return lambda count: ["-".join(_random(rng, characters, each) for each in groups) for _ in range(count)]

    return style


def uuids(rng: random.Random) -> Batch:
    return lambda count: [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]


def words(separator: str, number: int, *, capital: bool) -> Style:
    def style(rng: random.Random) -> Batch:
        chosen = [each.upper() if capital else each for each in rng.sample(WORDS, 30)]

        def batch(count: int) -> list[str]:
            return [
                separator.join(
                    [*rng.choices(chosen, k=2), _random(rng, DIGITS, number)] if number else rng.choices(chosen, k=3)
                )
                for _ in range(count)
            ]

        return batch

    return style


def pronounceable(rng: random.Random) -> Batch:
    def code() -> str:
        return "".join(rng.choice("BDFGKLMNPRST") + rng.choice("AEIOU") for _ in range(4)) + _random(rng, DIGITS, 2)

    return lambda count: [code() for _ in range(count)]


def counter(digits: int, *, prefix: bool, padded: bool = True) -> Style:
    def style(rng: random.Random) -> Batch:
        beginning = f"{rng.choice(CAMPAIGNS)}-" if prefix else ""
        following = rng.randrange(1, 10 ** (digits - 1))

        def batch(count: int) -> list[str]:
            nonlocal following
            first, following = following, following + count
            width = digits if padded else 0
            return [f"{beginning}{number:0{width}}" for number in range(first, following)]

        return batch

    return style


def shared_counter(digits: int) -> Style:
    """Lists take blocks of one counter of the shop."""

    def style(rng: random.Random) -> Batch:
        counters = vars(rng).setdefault("counters", {}) if hasattr(rng, "__dict__") else {}
        counters.setdefault(digits, rng.randrange(10 ** (digits - 2)))

        def batch(count: int) -> list[str]:
            first = counters[digits]
            counters[digits] += count + rng.choice((0, 0, 1_000, 25_000))
            return [f"{number:0{digits}}" for number in range(first, first + count)]

        return batch

    return style


def luhn(length: int) -> Style:
    """Numbers of gift cards: an issuer, random digits and a check digit."""

    def style(rng: random.Random) -> Batch:
        issuer = _random(rng, DIGITS, 6)

        def code() -> str:
            number = issuer + _random(rng, DIGITS, length - 7)
            digits = [int(each) * (2 if index % 2 == 0 else 1) for index, each in enumerate(reversed(number))]
            return f"{number}{-sum(each // 10 + each % 10 for each in digits) % 10}"

        return lambda count: [code() for _ in range(count)]

    return style


def letters_then_digits(rng: random.Random) -> Batch:
    letters, digits = rng.choice(((2, 6), (3, 5), (4, 4)))
    return lambda count: [_random(rng, CAPITALS, letters) + _random(rng, DIGITS, digits) for _ in range(count)]


def year_inside(rng: random.Random) -> Batch:
    """The year in the middle of a code changes between batches."""
    year, letters = rng.choice((23, 24)), rng.choice(("A", "B", "K"))

    def batch(count: int) -> list[str]:
        nonlocal year
        year += rng.choice((0, 0, 1))
        return [f"{letters}{_random(rng, CLEAR, 4)}-{year}-{_random(rng, CLEAR, 4)}" for _ in range(count)]

    return batch


def token(rng: random.Random) -> Batch:
    """URL-safe base64, in which - and _ are at any place."""
    return lambda count: [_random(rng, CAPITALS + SMALL + DIGITS + "-_", 16) for _ in range(count)]


STYLES: dict[str, Style] = {
    "8 to 12 capitals and digits": alnum(ALNUM, 8, 9, 10, 12),
    "6 capitals": alnum(CAPITALS, 6, 8),
    "clear alphabet": alnum(CLEAR, 6, 7, 8, 10),
    "Crockford base32": alnum(CROCKFORD, 10, 13, 16),
    "mixed case": alnum(CAPITALS + SMALL + DIGITS, 8, 10, 12),
    "small letters and digits": alnum(SMALL + DIGITS, 8, 10),
    "hexadecimal": alnum(HEX, 8, 16, 32),
    "random digits": alnum(DIGITS, 8, 10, 12, 16),
    "PIN": alnum(DIGITS, 4, 5, 6),
    "URL-safe token": token,
    "prefix-random": prefixed(ALNUM, "-", 6, 8),
    "prefixrandom": prefixed(ALNUM, "", 5, 6, 8),
    "prefix_clear": prefixed(CLEAR, "_", 6, 7),
    "prefix-digits": prefixed(DIGITS, "-", 5, 6, 8),
    "prefix.mixed": prefixed(CAPITALS + SMALL + DIGITS, ".", 8),
    "random-country": suffixed,
    "season-random": seasonal(ALNUM, "-", 6),
    "seasonrandom": seasonal(CLEAR, "", 7),
    "season-digits": seasonal(DIGITS, "-", 6),
    "date-random": dated,
    "year inside": year_inside,
    "UUID": uuids,
    "4-4-4": grouped(ALNUM, 4, 4, 4),
    "4-4-4-4 clear": grouped(CLEAR, 4, 4, 4, 4),
    "5-5-5-5-5": grouped(ALNUM, 5, 5, 5, 5, 5),
    "3-3 digits": grouped(DIGITS, 3, 3),
    "4-4-4-4 digits": grouped(DIGITS, 4, 4, 4, 4),
    "words-number": words("-", 2, capital=True),
    "words": words("-", 0, capital=False),
    "wordswordnumber": words("", 4, capital=True),
    "pronounceable": pronounceable,
    "letters and digits": letters_then_digits,
    "serial number": counter(8, prefix=False),
    "prefix-serial": counter(6, prefix=True),
    "unpadded serial": counter(5, prefix=False, padded=False),
    "prefix-unpadded": counter(4, prefix=True, padded=False),
    "shared counter": shared_counter(8),
    "issuer and check digit": luhn(16),
    "long card number": luhn(19),
}


@dataclass(frozen=True, slots=True)
class Import:
    """A file for a list, and the guard's verdict. `style` is that of the file, `into` that of the list."""

    style: str
    into: str
    is_right: bool
    suspicion: Suspicion | None


def imports(shops: int = SHOPS, seed: int = SEED) -> Iterator[Import]:
    """The imports of the given number of shops."""
    for number in range(shops):
        yield from _imports_of_shop(random.Random(f"{seed} {number}"))


def _imports_of_shop(rng: random.Random) -> Iterator[Import]:
    styles = rng.sample(sorted(STYLES), rng.randint(1, 3))
    names = [rng.choice(styles) for _ in range(rng.randint(2, 6))]
    batches = [STYLES[name](rng) for name in names]
    profiles: list[Profile] = [()] * len(names)
    for _ in range(rng.randint(1, 4)):
        for index, batch in enumerate(batches):
            if rng.random() < 0.7:
                profiles[index] = extend(profiles[index], _file(rng, batch))
    for index, target in enumerate(profiles):
        others = {str(other): profile for other, profile in enumerate(profiles) if other != index and profile}
        if not target:
            continue
        right = _file(rng, batches[index])
        wrong = (index + rng.randrange(1, len(names))) % len(names)
        yield Import(names[index], names[index], True, find_suspicion(right, target, others))
        yield Import(names[wrong], names[index], False, find_suspicion(_file(rng, batches[wrong]), target, others))


def _file(rng: random.Random, batch: Batch) -> Profile:
    return shapes_of(batch(round(MIN_CODES * (SAMPLE_CODES / MIN_CODES) ** rng.random())))


@dataclass(frozen=True, slots=True)
class Rates:
    right: int
    false_alarms: int
    wrong: int
    detected: int
    other_style: int
    detected_other_style: int

    def __str__(self) -> str:
        return (
            f"right list: {self.false_alarms} of {self.right:,} imports ask ({self.false_alarms / self.right:.2%})\n"
            f"wrong list: {self.detected:,} of {self.wrong:,} imports ask ({self.detected / self.wrong:.1%})\n"
            f"wrong list of another style: {self.detected_other_style:,} of {self.other_style:,} imports ask "
            f"({self.detected_other_style / self.other_style:.1%})"
        )


def rates(found: list[Import]) -> Rates:
    right = [each for each in found if each.is_right]
    wrong = [each for each in found if not each.is_right]
    others = [each for each in wrong if each.style != each.into]
    return Rates(len(right), _asked(right), len(wrong), _asked(wrong), len(others), _asked(others))


def _asked(found: list[Import]) -> int:
    return sum(each.suspicion is not None for each in found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.code_shapes", description=__doc__)
    parser.add_argument("--shops", type=int, default=SHOPS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    found = list(imports(options.shops, options.seed))
    print(rates(found))
    for title, chosen in (
        ("asked about the right list", [each for each in found if each.is_right and each.suspicion]),
        ("not asked about a wrong list", [each for each in found if not each.is_right and not each.suspicion]),
    ):
        print(f"\n{title}:")
        for (style, into), number in Counter((each.style, each.into) for each in chosen).most_common(12):
            print(f"  {number:4}  {style} into {into}")


if __name__ == "__main__":
    main()
