"""Turns of the mails of all workers together."""

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("rate_limit.sql")


async def book(connection: Connection, *, seconds: float) -> float:
    """Book the next so many seconds for oneself; returns how many seconds from now they begin."""
    wait: float = await connection.fetchval(SQL.book, seconds)
    return wait
