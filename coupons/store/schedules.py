"""The start times and paces of sendouts."""

from datetime import datetime, timedelta

from coupons.database import Connection
from coupons.errors import UserError
from coupons.store.queries import Queries

SQL = Queries("schedules.sql")
LATE_START = timedelta(minutes=5)
"""How far in the past a requested start may be: the time to send a form, and clocks that differ."""


class PastStart(UserError):
    """The requested start is too far in the past."""


async def check_start(connection: Connection, start_at: datetime | None) -> None:
    """Refuse a start that is too far in the past by the database's clock. Raises PastStart.

    Only publishers check this, before they publish. A worker accepts any start, because a command may have waited in
    its queue until its start was past.
    """
    if start_at is not None and await connection.fetchval(SQL.is_past, start_at, LATE_START):
        raise PastStart(
            f"the start {start_at.isoformat(timespec='minutes')} is more than {LATE_START // timedelta(minutes=1)} "
            "minutes in the past: to start now, use --now (in JSON: no start_at)"
        )
