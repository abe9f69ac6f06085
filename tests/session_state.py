"""Find state that a pooled database session keeps after its work, which would affect the session's next user."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coupons import database
from coupons.database import TRANSIENT_ERRORS, Connection

PREPARED = ("client_connection_check_interval", "synchronous_commit")
"""The settings that `coupons.database` changes in each new session."""

KEPT = """
SELECT 'setting ' || name FROM pg_settings
WHERE source = 'session' AND setting <> reset_val AND name <> ALL ($1)
UNION ALL
SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""
TEMP_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r' ORDER BY relname
"""


async def session_state(connection: Connection) -> list[str]:
    """Return settings that were set without LOCAL, advisory locks, and temporary tables that have rows."""
    kept = [row[0] for row in await connection.fetch(KEPT, PREPARED)]
    for (table,) in await connection.fetch(TEMP_TABLES):
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM pg_temp.{table})"):
            kept.append(f"rows in {table}")
    return kept


@contextmanager
def watched_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check each pooled session when it is returned to its pool. Fail at the end if a session kept any state."""
    found: list[str] = []

    async def look(connection: Connection) -> None:
        try:
            found.extend(await session_state(connection))
        except TRANSIENT_ERRORS:  # the session is broken and is not used again
            return

    monkeypatch.setattr(database, "_keep", look)
    yield
    assert not found, ", ".join(found)
