"""Pages of long listings. A cursor is the last row of a page, so that new rows move no row to another page."""

from collections.abc import Sequence
from typing import TypeVar

from coupons.errors import UserError

PAGE_SIZE = 100
MAX_PAGE_SIZE = 10_000

T = TypeVar("T")


class UnknownCursor(UserError):
    """The row at which a page should begin does not exist."""


def cut(rows: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Return the first `limit` of the rows, and the last of these if there are more: the cursor of the next page."""
    shown = rows[:limit]
    return shown, shown[-1] if len(rows) > limit else None
