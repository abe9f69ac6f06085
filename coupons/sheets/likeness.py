"""How much the first rows of a sheet look like a list of codes or recipients, and not like instructions or notes."""

import re
from enum import IntEnum
from itertools import pairwise

from coupons.files.address_columns import is_address_name
from coupons.files.header_names import NameKind, code_name

HEAD_ROWS = 20
"""The number of rows with text by which a sheet is judged."""


class Likeness(IntEnum):
    """A known header is the best sign; a table or a column of codes or addresses is a good one."""

    TEXT = 0
    TABLE = 1
    KNOWN_HEADER = 2


def likeness(rows: list[list[str]]) -> Likeness:
    """The likeness of rows that have text. Their cells are stripped."""
    if any(_is_header(row, below) for row, below in pairwise(rows)):
        return Likeness.KNOWN_HEADER
    filled = [[cell for cell in row if cell] for row in rows]
    wide = sum(len(cells) > 1 for cells in filled)
    values = sum(len(cells) == 1 and _is_value(cells[0]) for cells in filled)
    return Likeness.TABLE if (wide > 1 and 2 * wide >= len(rows)) or 2 * values >= len(rows) else Likeness.TEXT


def _is_header(row: list[str], below: list[str]) -> bool:
    """Whether the row has the name of a column of codes or addresses, above a cell that is not a sentence."""
    return any(
        (code_name(name) is NameKind.STRONG or is_address_name(name)) and cell and len(cell.split()) < 4
        for name, cell in zip(row, below, strict=False)
    )


def _is_value(cell: str) -> bool:
    return re.search(r"[\d@]", cell) is not None and " " not in cell
