"""Lock rows and wait for lock waits, so that tests of two concurrent sessions need no fixed delays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coupons.database import Connection
from tests.waiting import until

NO_WAIT_SECONDS = 20.0
"""The limit for a statement that must not wait for a lock. Such a statement takes a thousandth of this time."""


async def until_blocked(connection: Connection) -> None:
    """Wait until another session waits for a lock of this connection."""
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
    await until(lambda: connection.fetchval(waits), "another session to wait for a lock")


@asynccontextmanager
async def lock_rows(connection: Connection, rows: str) -> AsyncIterator[None]:
    """Lock these rows (`delivery WHERE number = 1`) during the block; fail if they are locked already."""
    async with connection.transaction():
        await connection.execute(f"SELECT FROM {rows} FOR NO KEY UPDATE NOWAIT")
        yield
