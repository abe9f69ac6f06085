"""Values of attributes: line breaks and tabs become blanks, and values over the limit are cut, each with a notice.

Spreadsheets keep a value as text by writing ="007" or '007. These signs are removed. An apostrophe before a word is
kept: 's-Hertogenbosch is a city. So are quotes, because a text may begin and end with them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import repeat

from coupons.attributes import MAX_ATTRIBUTE_CHARS

_FORMULA = re.compile(r'="((?:[^"]|"")*)"', re.DOTALL).fullmatch
_KEPT_AS_TEXT = re.compile(r"'(?:[=+@-]|\d[^A-Za-z]*$)").match
_BREAKS = re.compile("[\t\n\r\v\f\u2028\u2029]+")


class Values:
    """Changes values so that they can be attributes, and counts the changes by column.

    The values of a CSV of rejected rows have `are_wrapped` False: their signs were removed before.
    """

    def __init__(self) -> None:
        self.are_wrapped = True
        self._unwrapped = 0
        self._joined: Counter[str] = Counter()
        self._cut: Counter[str] = Counter()

    @property
    def notices(self) -> list[str]:
        """The numbers of changed values: one sentence for each column with values that were cut."""
        found = []
        if self._unwrapped:
            found.append(
                f'the signs of text cells (="…", \') were removed from {_count(self._unwrapped, "value", "values")}'
            )
        if joined := self._joined.total():
            found.append(f"line breaks and tabs became blanks in {_count(joined, 'value', 'values')}")
        for name, cut in self._cut.items():
            were = "was" if cut == 1 else "were"
            found.append(f"{name}: {_count(cut, 'value', 'values')} {were} cut to {MAX_ATTRIBUTE_CHARS:,} characters")
        return found

    def clean(self, name: str, cells: Sequence[str]) -> list[str]:
        """The values of a column, without surrounding white space.

        A column of a million plain values takes 0.1 s, of which 0.08 s are needed to strip them.
        """
        values = list(map(str.strip, cells))
        text = "".join(values)
        if self.are_wrapped and ("'" in text or '="' in text) and any(map(str.startswith, values, repeat(("'", "=")))):
            unwrapped = [_unwrap(value) for value in values]
            self._unwrapped += sum(map(str.__ne__, unwrapped, values))
            values = unwrapped
        if not text.isprintable() and _BREAKS.search(text):
            joined = [_join(value) for value in values]
            self._joined[name] += sum(map(str.__ne__, joined, values))
            values = joined
        if len(text) > MAX_ATTRIBUTE_CHARS and max(map(len, values)) > MAX_ATTRIBUTE_CHARS:
            self._cut[name] += sum(len(value) > MAX_ATTRIBUTE_CHARS for value in values)
            values = [value[:MAX_ATTRIBUTE_CHARS].rstrip() for value in values]
        return values


def _unwrap(value: str) -> str:
    """The text of a cell that a spreadsheet keeps as text by a formula or an apostrophe."""
    if formula := _FORMULA(value):
        return formula[1].replace('""', '"').strip()
    return value[1:].strip() if _KEPT_AS_TEXT(value) else value


def _join(value: str) -> str:
    """The value on one line. Blanks around a line break are part of it."""
    if not _BREAKS.search(value):
        return value
    return " ".join(filter(None, map(str.strip, _BREAKS.split(value))))


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"
