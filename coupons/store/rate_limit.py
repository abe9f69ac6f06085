"""The rate limit that all workers share. They book slots of time, one after the other, in which mails may be sent."""

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("rate_limit.sql")


async def book(connection: Connection, *, seconds: float) -> float:
    """Book the next free slot of the given length; return the seconds until it begins."""
    wait: float = await connection.fetchval(SQL.book, seconds)
    return wait
