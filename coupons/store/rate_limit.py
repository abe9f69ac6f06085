"""The rate limit of all workers together: slots of time in which mails may leave, booked one after the other."""

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("rate_limit.sql")


async def book(connection: Connection, *, seconds: float) -> float:
    """Book the next free slot of this length; returns the seconds until it begins."""
    wait: float = await connection.fetchval(SQL.book, seconds)
    return wait
