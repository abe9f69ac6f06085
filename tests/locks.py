"""Who waits for whom: so that a test of two at once waits for a fact, and not for time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coupons.database import Connection
from tests.waiting import until

AT_ONCE_SECONDS = 20.0
"""What waits for nobody takes a thousandth of it."""


async def until_blocked(connection: Connection) -> None:
    """Until somebody waits for this connection's locks."""
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
    await until(lambda: connection.fetchval(waits), "another session to wait for a lock")


@asynccontextmanager
async def locked(connection: Connection, rows: str) -> AsyncIterator[None]:
    """These rows (`delivery WHERE number = 1`) are somebody's, for as long as the block runs; they are free before."""
    async with connection.transaction():
        await connection.execute(f"SELECT FROM {rows} FOR NO KEY UPDATE NOWAIT")
        yield
