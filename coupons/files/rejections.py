"""Rejected lines of an import: their reasons, and the CSV file in which users fix the lines and import them again."""

import re
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

MAX_CODE_CHARS = 200
MAX_SHOWN_CHARS = 500
"""Maximum length of a stored rejected value. No code may be this long, so a truncated value is rejected again."""

CODE = ("code",)
"""The columns between line and reason for a rejected code."""


class Reason(StrEnum):
    """The reason why a line was rejected. The value is stored, the sentence is shown.

    A stored reason may have a detail, such as the other list's name. Then `detailed` is shown, with the detail in it.
    """

    sentence: str
    detailed: str

    def __new__(cls, value: str, sentence: str = "", detailed: str = "") -> Self:  # Reason("url") needs the defaults
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.detailed = detailed
        return member

    TOO_LONG = "too_long", f"longer than {MAX_CODE_CHARS} characters"
    CONTROL = "control", "contains a control or invisible character"
    SPACES = "spaces", "contains white space other than single spaces"
    EXCEL = "excel", "damaged by a spreadsheet: export the column as text"
    URL = "url", "looks like a URL"
    PLACEHOLDER = "placeholder", "looks like a placeholder that was never filled in"
    COLUMNS = "columns", "does not have as many cells as the header", "has {}"
    DUPLICATE = "duplicate", "duplicate of an earlier line"
    IN_LIST = "in_list", "already in the list"
    OTHER_LIST = "other_list", "already in another list", "already in list {}"
    ASSIGNED = "assigned", "already assigned to a recipient"
    RESERVED = "reserved", "reserved for a sendout"
    NOT_IN_LIST = "not_in_list", "not in the list"
    SENT = "sent", "already sent"
    NO_ADDRESS = "no_address", "no e-mail address"
    BAD_ADDRESS = "bad_address", "not exactly one e-mail address", "the address {}"
    LONG_ATTRIBUTE = "long_attribute", "an attribute is too long"
    # lines that are not codes
    HEADER = "header", "looks like a header, not like a code"
    TOTAL = "total", "looks like a total, not like a code"
    COMMENT = "comment", "looks like a comment, not like a code"
    NO_VALUE = "no_value", "is a word for a missing value, such as NULL"
    ADDRESS = "address", "is an e-mail address, not a code"
    # spelling
    LOOKALIKE = (
        "lookalike",
        "contains a character that looks like another: --allow-lookalikes accepts it",
        "contains {}: --allow-lookalikes accepts it",
    )
    CASE = "case", "differs from an earlier line only in case", "differs from line {} only in case"
    QUOTES = "quotes", "has a quote that is not closed, or text after a closing quote"
    LOST = "lost", "has lost characters: ? or U+FFFD replaces them"
    SPELLED = "spelled", "contains a spelled character such as <U+2010>: type the character itself"


@dataclass(frozen=True, slots=True)
class Rejected:
    """One rejected line, created by `reject`. `value` can be shown and stored unchanged.

    For a recipient, `row` contains all cells of the line by column name, and `value` is the address. `detail` completes
    the reason: for OTHER_LIST, it is the name of the list that has the code. `extra` are the cells that belong to no
    column, because the line has too many or too few cells.
    """

    line: int
    value: str
    reason: Reason
    row: Mapping[str, str] | None = None
    detail: str = ""
    extra: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        return describe(self.reason, self.detail)

    @property
    def stored_reason(self) -> str:
        """The reason as it is stored, such as `sent` or `other_list:spring-10`."""
        return f"{self.reason.value}:{self.detail}" if self.detail else self.reason.value


def describe(reason: Reason, detail: str = "") -> str:
    """The reason in words, with its detail, such as the name of the list that has the code."""
    return reason.detailed.format(detail) if detail and reason.detailed else reason.sentence


def parse_reason(stored: str) -> tuple[Reason, str]:
    """The reason and the detail of a stored reason, such as `sent` or `other_list:spring-10`."""
    value, _, detail = stored.partition(":")
    return _REASONS[value], detail


_REASONS = {reason.value: reason for reason in Reason}


# Characters that are printable for Python, but invisible: joiners, fillers, variation selectors. U+FFFD is included: it
# marks earlier damage, and replaces invisible characters in `Rejected.value`.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\ufffd]").search

# A spreadsheet runs a cell that begins with one of these characters as a formula (OWASP, CSV Injection; the last four
# are the full-width forms). A separator inside the cell is matched too, because a spreadsheet with another locale
# splits the cell there. A leading ' turns the cell into text.
_FORMULA = re.compile("(^|[,;|])('*[=+\\-@\uff1d\uff0b\uff0d\uff20])")
_ESCAPED_FORMULA = re.compile("(^|[,;|])'('*[=+\\-@\uff1d\uff0b\uff0d\uff20])")

# A spreadsheet changes a cell that it takes for a number, a date or a truth value: 007 becomes 7, MAR1 becomes a date.
# Such a cell has a digit, and no letters but these words. The months are in the languages of Europe.
_NUMBER_WORDS = frozenset(
    """
    e d t z h p a am pm utc gmt eur euro usd gbp chf sek nok dkk pln czk huf kr zl fr st nd rd th de uhr jan ene gen
    sty led tam ian oca янв ιαν feb fev fev úno úno uno hel lut sub şub фев φεβ mar mär mrz maa bře bre mai mart мар
    apr abr avr kwi dub huh nis апр may mei maj mag kvě kve tou máj мая jun jui giu cze čer cer kes ion iun haz июн jul
    lip lug hei iul tem tem июл aug ago aou sie srp elo ağu agu авг sep set wrz zář zar syy eyl сен oct okt ott out paz
    paź říj rij lok eki окт nov lis mar kas noi ноя dec dez dic gru des pro jou ara дек déc fév aoû márc ápr jún júl
    szept mon tue wed thu fri sat sun mo di mi do fr sa so lun mer jeu ven sam dim
    """.split()
)
_TRUTH_VALUES = frozenset(
    "true false wahr falsch vrai faux verdadero falso vero verdadeiro waar onwaar prawda fałsz sant falskt sand falsk"
    " tosi epätosi pravda nepravda igaz hamis adevărat fals doğru yanliş истина ложь".split()
)
_LETTERS = re.compile(r"[^\W\d_]+")

# A program that saves text as "ANSI" writes ? or a similar letter for what its code page lacks. So characters that the
# code pages of Western and Central Europe and of Turkey do not all have are spelled in a report. In other columns than
# the first, the letters of Latin-1 are kept, because a similar letter does not make the line another line.
_COMMON = "ÁÂÄÇÉËÍÎÓÔÖÚÜßáâäçéëíîóôöúü"
_SPELLED_IN_KEYS = re.compile(f"[^ -~{_COMMON}]|<(?=U\\+)|^'").sub
_SPELLED_IN_OTHERS = re.compile("[^ -~\u00a1-\u00ac\u00ae-\u00ff]|<(?=U\\+)|^'").sub
_SPELLED = re.compile(r"<U\+([0-9A-F]{4,6})>", re.IGNORECASE)


def has_invisible(text: str) -> bool:
    """Whether the text contains an invisible character.

    These are the unprintable characters (controls, format characters such as zero-width and right-to-left, surrogates,
    unassigned code points) and those in `_INVISIBLE`.
    """
    return not text.isprintable() or _INVISIBLE(text) is not None


def reject(line: int, value: str, reason: Reason, detail: str = "") -> Rejected:
    """A rejected line that can be stored and shown: U+FFFD replaces every invisible character.

    The checks reject U+FFFD too, so an unfixed line of `rejections_csv` is rejected again.
    """
    return Rejected(line, shown_text(value), reason, detail=detail)


def shown_text(value: str) -> str:
    """The text with U+FFFD for every invisible character, and not longer than `MAX_SHOWN_CHARS`."""
    shown = value if len(value) <= MAX_SHOWN_CHARS else value[: MAX_SHOWN_CHARS - 1] + "…"
    if has_invisible(shown):
        shown = "".join("\ufffd" if has_invisible(character) else character for character in shown)
    return shown


def rejections_csv(rejected: Iterable[Rejected], columns: Sequence[str] = CODE) -> Iterator[str]:
    """The lines of a CSV file in which users fix rejected lines: `line;<columns>;reason`, to be encoded as UTF-8.

    The first of `columns` holds the values. The file begins with a byte order mark: without it, Excel shows umlauts as
    two letters. A cell that a spreadsheet would run as a formula gets a leading ', which the readers remove.
    """
    yield _head(columns)
    for each in rejected:
        yield _line(each, columns)


async def streamed_rejections_csv(
    rejected: AsyncIterable[Rejected], columns: Sequence[str] = CODE
) -> AsyncIterator[str]:
    """Like `rejections_csv`, for an asynchronous stream of rejected lines."""
    yield _head(columns)
    async for each in rejected:
        yield _line(each, columns)


def _head(columns: Sequence[str]) -> str:
    return f"\ufeffline;{';'.join(columns)};reason\r\n"


def _line(rejected: Rejected, columns: Sequence[str]) -> str:
    """A line with the values in their columns. Cells without a column are behind the reason.

    So a line with too many cells is rejected again until these cells are moved or removed. The text of a line with
    invalid quotes is such a cell.
    """
    row = dict(rejected.row or {columns[0]: rejected.value})
    extra = rejected.extra
    if rejected.reason is Reason.QUOTES:
        row, extra = {}, (rejected.value,)
    cells = [report_cell(row.get(name, ""), is_key=name == columns[0]) for name in columns]
    sentence = csv_cell(rejected.sentence)
    if rejected.reason is Reason.DUPLICATE and rejected.row:  # the address shows later whether the row was fixed
        sentence = report_cell(f"{rejected.sentence}: {rejected.value}", is_key=True)
    return f"{';'.join([str(rejected.line), *cells, sentence, *map(report_cell, extra)])}\r\n"


def report_cell(text: str, *, is_key: bool = False) -> str:
    """A quoted cell whose text survives a spreadsheet and other encodings. `cell_text` is the inverse.

    Characters that a code page may lack are spelled, such as <U+2010>. A leading ' escapes what a spreadsheet would
    convert or run. The cell of a code or an address is a key: it must not become another one.
    """
    substitute = _SPELLED_IN_KEYS if is_key else _SPELLED_IN_OTHERS
    spelled = substitute(lambda match: f"<U+{ord(match[0]):04X}>", text)
    return csv_cell(f"'{spelled}" if _is_converted(spelled) else spelled)


def _is_converted(text: str) -> bool:
    """Whether a spreadsheet may take the text for a number, a date or a truth value."""
    if text.casefold() in _TRUTH_VALUES:
        return True
    if text[:1] in _FORMULA_STARTS or not any(map(str.isdigit, text)):
        return False  # `csv_cell` escapes formulas
    words = _LETTERS.findall(text.casefold())
    if text[0].isalpha() and len(words[0]) == 1:
        return False  # A1 is text, 1A is a time
    return all(word in _NUMBER_WORDS or word[:3] in _NUMBER_WORDS or word[:4] in _NUMBER_WORDS for word in words)


_FORMULA_STARTS = tuple("=+-@")


def csv_cell(text: str) -> str:
    """A quoted cell. If a spreadsheet would run the text as a formula, a leading ' escapes it."""
    return '"' + _FORMULA.sub(r"\1'\2", text).replace('"', '""') + '"'


def cell_text(cell: str) -> str:
    """The text that `report_cell` or `csv_cell` wrote, from a cell without its quotes."""
    if "'" in cell:
        cell = _ESCAPED_FORMULA.sub(r"\1\2", cell)
        cell = cell.removeprefix("'")
    return _SPELLED.sub(_spelled_character, cell) if "<" in cell else cell


def _spelled_character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if number <= sys.maxunicode else match[0]


def has_spelled_characters(text: str) -> bool:
    """Whether the text contains a character as a report spells it, such as <U+2010>."""
    return _SPELLED.search(text) is not None


def has_lost_characters(cell: str) -> bool:
    """Whether a cell of a report, as it is in the file, has lost characters.

    ? or U+FFFD replaces them, or UTF-8 was read as another encoding: "Ü" became "Ãœ".
    """
    return "?" in cell or (not cell.isascii() and ("\ufffd" in cell or _MISREAD(cell) is not None))


# The first byte of "Ü" in UTF-8, as encodings of Western and Central Europe read it.
_MISREAD = re.compile("[ÃĂ├√][^ -~]").search
