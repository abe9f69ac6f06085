"""The spelling of a code: what programs write around it, and characters that look like others.

Quotes, Excel's ="…" and a leading apostrophe are not part of a code, because a customer would not type them. Characters
that look like others are rejected, because a shop that compares codes finds neither of them when the other is typed.
"""

import re
from enum import StrEnum
from functools import lru_cache
from unicodedata import category, name, normalize


class Wrapping(StrEnum):
    """What was removed around a code, in the words of a notice."""

    QUOTES = "in quotes: the quotes were removed"
    FORMULA = 'written as a formula ="…": only the text in it was read'
    APOSTROPHE = "with a leading apostrophe: it was removed"


_QUOTES = {
    '"': '"', "'": "'", "`": "`'", "\u2018": "\u2019\u2018", "\u2019": "\u2019\u2018", "\u201a": "\u2018\u2019",
    "\u201c": "\u201d\u201c", "\u201d": "\u201d\u201c", "\u201e": "\u201c\u201d\u201e", "\u201f": "\u201d",
    "\u00ab": "\u00bb", "\u00bb": "\u00ab\u00bb", "\u2039": "\u203a", "\u203a": "\u2039\u203a", "\u300c": "\u300d",
    "\u300e": "\u300f", "\uff02": "\uff02", "\uff07": "\uff07", "\u301d": "\u301e\u301f",
}  # fmt: skip
"""Opening quotes with their closing quotes, as ten languages write them."""
_FORMULA = re.compile(r'=\s*["\u201c](.*)["\u201d]').fullmatch
MAY_BE_WRAPPED = re.compile(f"[={''.join(_QUOTES)}]").match


def unwrap(text: str) -> tuple[str, Wrapping | None]:
    """The code without quotes, formula and apostrophe around it, and what was removed last."""
    removed: Wrapping | None = None
    for _ in range(3):
        inner, wrapping = _unwrap_once(text)
        if wrapping is None:
            break
        text, removed = inner.strip(), wrapping
    return text, removed


def _unwrap_once(text: str) -> tuple[str, Wrapping | None]:
    if formula := _FORMULA(text):
        return formula[1].replace('""', '"'), Wrapping.FORMULA
    opening, inner, closing = text[:1], text[1:-1], text[-1:]
    if len(text) > 2 and closing in _QUOTES.get(opening, ()):
        doubled = inner.replace('""', "") if opening == '"' else inner
        if opening not in doubled and closing not in doubled:
            return (inner.replace('""', '"') if opening == '"' else inner), Wrapping.QUOTES
    if opening == "'":
        return text[1:], Wrapping.APOSTROPHE
    return text, None


# --- characters that look like others --------------------------------------------------------------------------------

_DASHES = frozenset("\u2212\u00af\u02c9\u02d7\u2043\u2500\u2501")
"""Characters like dashes that Unicode does not class as dashes."""
_ONE_WRITING = dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "KATAKANA-HIRAGANA"), "East Asian")


def find_lookalike(code: str) -> str:
    """The first character that looks like another, in words with its code point. No text if there is none."""
    if code.isascii():
        return ""
    for character in code:
        if kind := _form(character):
            return f"U+{ord(character):04X}, {kind}"
    scripts = [(_script(character), character) for character in code]
    written = [script for script, _ in scripts if script]
    counts = {script: written.count(script) for script in dict.fromkeys(written)}
    if len(counts) < 2:
        return ""
    # the odd script is the rarest; Latin letters are the usual ones
    odd = min(counts, key=lambda script: (counts[script] + (script == "Latin") * 0.5, script))
    usual = max((script for script in counts if script != odd), key=lambda script: counts[script])
    character = next(character for script, character in scripts if script == odd)
    article = "an" if odd[0] in "AEIOU" else "a"
    return f"U+{ord(character):04X}, {article} {odd} letter among {usual} ones"


@lru_cache(maxsize=4_096)
def _form(character: str) -> str:
    """The kind of an odd dash, or of a full-width or other form of an ASCII character. No text for others."""
    if character.isascii():
        return ""
    if category(character) == "Pd" or character in _DASHES:
        return "a dash that is not the hyphen of a keyboard"
    plain = normalize("NFKC", character)
    if "\uff01" <= character <= "\uff5e":
        return f"a full-width form of {plain}"
    return f"another form of {plain}" if plain != character and plain.isascii() and plain.isalnum() else ""


@lru_cache(maxsize=4_096)
def _script(character: str) -> str:
    """The script of a letter or of a digit that is not ASCII. No text for other characters."""
    if category(character)[0] != "L" and not (category(character) == "Nd" and not character.isascii()):
        return ""
    script = name(normalize("NFKC", character)[0], "").split(" ")[0].split("-")[0]
    return _ONE_WRITING.get(script, script.capitalize())
