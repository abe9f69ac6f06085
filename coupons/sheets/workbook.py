"""What the readers of all kinds of spreadsheets have in common: sheets, rows of texts, and their errors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from coupons.errors import UserError
from coupons.files.content import Content

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
"""The size of a sheet in every program. A file that exceeds it is damaged."""

LINE_BREAK = "\u2028"
"""A line break inside a cell. With a line feed, the lines of the text would not be the rows of the sheet."""


class SheetError(UserError):
    """The spreadsheet cannot be read. The text continues the name of the file, and contains no cell."""


class DiskError(UserError):
    """The table of texts cannot be written to a temporary file at present. The text continues the name of the file."""


def not_a_table(what: str) -> SheetError:
    return SheetError(str(Content(what, "save the table as .xlsx, .ods or CSV")))


DAMAGED = SheetError("is damaged or truncated (invalid spreadsheet data); send it again")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for the parts of a spreadsheet when they are decompressed."""

    max_bytes: int
    max_ratio: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """`place` identifies the sheet for its workbook."""

    name: str
    is_hidden: bool
    place: str


@dataclass(slots=True)
class Reading:
    """How far a sheet was read, and what a user should know about it. It changes while the rows are read."""

    done: float = 0.0
    hidden_rows: int = 0
    missing_results: int = 0
    merged_ranges: int = 0


Rows = Iterator[tuple[int, list[str]]]
"""Row numbers in ascending order, each with the texts of the row's cells. Rows without text may be left out."""


class Workbook(Protocol):
    kind: str
    sheets: list[Sheet]

    def rows(self, sheet: Sheet, reading: Reading) -> Rows: ...


def cell_text(text: str) -> str:
    """The text of a cell in one line."""
    if "\n" in text or "\r" in text:
        return text.replace("\r\n", LINE_BREAK).replace("\n", LINE_BREAK).replace("\r", LINE_BREAK)
    return text
