"""Likely encodings of bytes that are not text in the given encoding, with the words as each of them reads them.

An encoding is never chosen for the user. The candidates are in the order of the likelihood of their letters: each
language has a table of the letters that ASCII lacks, and a reading is as likely as in its best language. Letters of two
scripts in a word, capitals behind small letters and symbols inside words make a reading unlikely.
"""

import codecs
import re
from dataclasses import dataclass
from functools import cache
from math import log
from unicodedata import category, name, normalize

from coupons.files.letters import HAN, HANGUL, LANGUAGES

WINDOW_BYTES = 2_000
"""The number of bytes from the first invalid one on by which encodings are judged."""

MAX_WORDS = 3
MAX_READINGS = 10
MAX_NAMES = 5
"""The number of encodings that are named for one reading, because all of them read the words alike."""
_ALWAYS_IN = 4  # the most likely readings are shown if they are plausible, even if they are not in a major encoding
_PLAUSIBLE = 6.0  # the largest difference to the best reading, for readings that are in no major encoding
_COMPARED = 6  # readings that differ in the shown words
_LINES = 50  # from which words are shown
_CONTEXT = 8
_SECRET_CONTEXT = 2

# The encodings that a message names, with their penalties (natural logarithms): a rare one needs better letters.
_ENCODINGS = {
    "utf-8": 0.0, "cp1252": 0.0, "cp1250": 0.5, "cp1251": 0.5, "cp1253": 1.0, "cp1254": 1.0, "koi8-r": 1.5,
    "shift_jis": 1.0, "gbk": 1.0, "big5": 1.5, "euc-kr": 1.0, "iso-8859-15": 1.0, "iso-8859-2": 1.5, "cp1257": 1.0,
    "iso-8859-7": 1.5, "iso-8859-9": 2.0, "iso-8859-5": 3.0, "iso-8859-13": 2.5, "iso-8859-16": 4.0, "koi8-u": 1.6,
    "cp866": 2.5, "cp850": 2.0, "cp852": 2.5, "cp437": 3.0, "mac-roman": 2.5, "mac-latin2": 3.0, "mac-cyrillic": 3.0,
    "mac-greek": 3.5, "mac-turkish": 3.5, "cp1258": 2.0, "euc-jp": 1.5, "gb18030": 2.0,
    "cp1255": 1.5, "cp1256": 1.5, "cp874": 1.5, "utf-16-le": 8.0, "utf-16-be": 8.0,
}  # fmt: skip
_MAJOR = frozenset(list(_ENCODINGS)[:11])

_PRIOR_OF_SCRIPT = {"HIRAGANA": log(1 / 50), "KATAKANA": log(1 / 50)}
_COMMON_HAN, _RARE_HAN, _COMMON_HANGUL, _RARE_HANGUL = log(1 / 250), log(1 / 20_000), log(1 / 200), log(1 / 4_000)
_ODD_LETTER, _SYMBOL, _PUNCTUATION = log(1e-4), log(1e-5), log(1e-2)
_MIXED_SCRIPTS, _CAPITAL_INSIDE, _SYMBOL_INSIDE = log(1e-2), log(1e-3), log(1e-3)
_CAPITAL, _LONE_CAPITAL = 0.3, log(0.02)
_VALID_UTF_8 = 12.0  # other text is hardly ever valid UTF-8
_QUOTES_AND_DASHES = frozenset(
    "\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u00a7\u00b0\u00ab\u00bb\u20ac\u00a0"
)
_LONE_LETTERS = re.compile(r"(?<!\w)[^\W\d_](?!\w)").findall
_WORD = re.compile("[A-Za-z'\u0080-\U0010ffff]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as the encodings read it, the most common encoding first."""

    encodings: tuple[str, ...]
    text: str
    likelihood: float


def read_likely(data: bytes, *, exclude: str = "") -> list[Reading]:
    """The readings of bytes that may end inside a character, the likeliest first, without `exclude`, a codec's name."""
    found: dict[str, list[tuple[float, str]]] = {}
    for encoding, penalty in _ENCODINGS.items():
        if codecs.lookup(encoding).name != exclude and (text := _decode(data, encoding)) is not None:
            found.setdefault(text, []).append((penalty - _VALID_UTF_8 * (encoding == "utf-8"), encoding))
    readings = [
        Reading(tuple(encoding for _, encoding in encodings), text, _likelihood(text) - min(encodings)[0])
        for text, encodings in found.items()
    ]
    return sorted(readings, key=lambda reading: -reading.likelihood)


def describe_likely(window: bytes, *, exclude: str, is_secret: bool) -> str:
    """The likely encodings with suspect words, side by side: `cp1252: Müller · cp1251: Mьller`.

    `window` begins with the first line that has such words. If the words of this line are the same in several likely
    encodings, words of later lines are shown. With `is_secret`, the words may be codes: none of them is shown whole.
    """
    readings = read_likely(window, exclude=exclude)
    words = [_words_of_lines(reading.text) for reading in readings]
    places = _choose_places(words[:_COMPARED])
    groups: dict[str, list[Reading]] = {}
    for reading, each in zip(readings, words, strict=True):
        shown = " ".join(_cut(match, is_secret=is_secret) for place in places for match in _find_word(each, place))
        groups.setdefault(shown, []).append(reading)
    groups.pop("", None)
    chosen = []
    for rank, (shown, group) in enumerate(groups.items()):
        is_plausible = rank < _ALWAYS_IN and readings[0].likelihood - group[0].likelihood < _PLAUSIBLE
        if names := _names(group, is_plausible=is_plausible):
            chosen.append(f"{', '.join(names)}: {shown}")
    return " · ".join(chosen[:MAX_READINGS])


_Place = tuple[int, int]
"""A line and the number of a suspect word in it."""


def _words_of_lines(text: str) -> list[list[re.Match[str]]]:
    lines = re.split("\r\n?|\n", text)[:_LINES]
    return [[match for match in _WORD.finditer(line) if not match[0].isascii()] for line in lines]


def _find_word(words: list[list[re.Match[str]]], place: _Place) -> list[re.Match[str]]:
    """The word at this place, or no word if the reading has no suspect word there."""
    line, number = place
    return words[line][number : number + 1] if line < len(words) else []


def _choose_places(readings: list[list[list[re.Match[str]]]]) -> list[_Place]:
    """The places of the words to show: the first words, and one in which the best reading differs from each other."""
    if not readings:
        return []
    best = readings[0]
    all_places = [(line, number) for line, words in enumerate(best) for number in range(len(words))]
    first = [place for place in all_places if place[0] == 0][:MAX_WORDS] or all_places[:1]
    differing: list[_Place] = []
    for other in readings[1:]:
        differs = [place for place in all_places if _text_at(best, place) != _text_at(other, place)]
        if differs and not set(differs) & {*first, *differing}:
            differing.append(differs[0])
    differing = differing[: MAX_WORDS - 1]
    return sorted([*first[: MAX_WORDS - len(differing)], *differing])


def _text_at(words: list[list[re.Match[str]]], place: _Place) -> str:
    return "".join(match[0] for match in _find_word(words, place))


def _names(group: list[Reading], *, is_plausible: bool) -> list[str]:
    """The encodings to name: the major ones, and the likeliest others of a plausible reading."""
    names = [encoding for reading in group for encoding in reading.encodings]
    majors = [name for name in names if name in _MAJOR]
    others = [name for name in names if name not in _MAJOR] if is_plausible else []
    named = {*majors, *others[: max(0, MAX_NAMES - len(majors))]}
    return [name for name in names if name in named]


def suspect_words(text: str, *, is_secret: bool = False) -> str:
    """The first words with a character that ASCII lacks, without digits. Of long words, only their neighbourhood."""
    words = (match for match in _WORD.finditer(text) if not match[0].isascii())
    return " ".join(_cut(match, is_secret=is_secret) for match, _ in zip(words, range(MAX_WORDS), strict=False))


def _cut(match: re.Match[str], *, is_secret: bool) -> str:
    """A word without the letters far from its suspect ones. A secret word that is a whole cell always lacks some."""
    word = match[0]
    suspect = [index for index, character in enumerate(word) if not character.isascii()]
    context = _SECRET_CONTEXT if is_secret else _CONTEXT
    first, last = max(0, suspect[0] - context), min(len(word), suspect[0] + 1 + context)
    if is_secret and (first, last) == (0, len(word)) and len(word) > 1:
        last -= 1
    return "…" * (first > 0) + word[first:last] + "…" * (last < len(word))


def _decode(data: bytes, encoding: str) -> str | None:
    """The text, in NFC. None if the bytes are not printable text in this encoding, or if all of it is ASCII."""
    if encoding.startswith("utf-16") and b"\0" not in data:
        return None  # UTF-16 has a NUL in each space and each line end
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character in "\t\r\n\u00a0\u2028\u3000" for character in text):
        return None
    text = normalize("NFC", text)
    return text if not text.isascii() or encoding.startswith("utf-16") else None


def _likelihood(text: str) -> float:
    """The logarithm of the likelihood of the text's characters, in the language in which they are likeliest."""
    suspect = [character for character in text if not character.isascii()]
    tables = [*_letter_tables(), *_han_tables()]
    best = max(sum(table.get(each) or _other(each) for each in suspect) for table in tables)
    lone: int = sum(each.isupper() and not each.isascii() for each in _LONE_LETTERS(text))
    return (
        best
        + lone * _LONE_CAPITAL
        + sum(_shape(before, after) for before, after in zip(" " + text, text + " ", strict=True))
    )


@cache
def _letter_tables() -> list[dict[str, float]]:
    tables = []
    for letters in LANGUAGES.values():
        weights = {each[0]: float(each[1:]) for each in letters.split()}
        whole = sum(weights.values())
        table = {letter: log(weight / whole) for letter, weight in weights.items()}
        capitals = {letter.upper(): weight - _CAPITAL for letter, weight in table.items() if len(letter.upper()) == 1}
        tables.append(capitals | table)
    return tables


@cache
def _han_tables() -> list[dict[str, float]]:
    return [dict.fromkeys(letters, _COMMON_HAN) for letters in HAN.values()] + [dict.fromkeys(HANGUL, _COMMON_HANGUL)]


@cache
def _other(character: str) -> float:
    """The logarithm of the likelihood of a character that is not in the table of a language."""
    if character in _QUOTES_AND_DASHES:
        return _PUNCTUATION
    if not character.isalpha():
        return _PUNCTUATION if category(character) == "Po" and _script(character) == "IDEOGRAPHIC" else _SYMBOL
    match _script(character):
        case "CJK":
            return _RARE_HAN
        case "HANGUL":
            return _RARE_HANGUL
        case script:
            return _PRIOR_OF_SCRIPT.get(script, _ODD_LETTER)


@cache
def _script(character: str) -> str:
    """The script of a letter, by its Unicode name. ASCII letters are Latin."""
    return name(character, "").partition(" ")[0]


def _shape(before: str, after: str) -> float:
    """The penalty for two neighbouring characters that no word contains."""
    if before.isascii() and after.isascii():
        return 0.0
    if before.isalpha() and after.isalpha():
        penalty = _CAPITAL_INSIDE if before.islower() and after.isupper() else 0.0
        scripts = {_script(before), _script(after)}
        return penalty + (_MIXED_SCRIPTS if len(scripts) > 1 and not scripts <= _JAPANESE else 0.0)
    inside = before.isalpha() or after.isalpha()
    symbol = next(
        (each for each in (before, after) if not each.isascii() and not each.isalpha() and not _is_mark(each)), None
    )
    return _SYMBOL_INSIDE if inside and symbol and symbol not in _QUOTES_AND_DASHES and symbol != "\u30fb" else 0.0


def _is_mark(character: str) -> bool:
    """Whether the character is a vowel or a tone above or below a letter, as Thai has them."""
    return category(character)[0] == "M"


_JAPANESE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"})
