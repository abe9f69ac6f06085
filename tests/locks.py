"""Lock rows and wait for lock waits, so that tests of concurrent sessions depend on no timing."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from coupons.database import Connection
from tests.waiting import until

WAITING = """
WITH RECURSIVE waiting AS (
    SELECT pg_backend_pid() AS pid
    UNION
    SELECT l.pid FROM waiting w JOIN pg_locks l ON NOT l.granted AND w.pid = ANY (pg_blocking_pids(l.pid)))
SELECT array_agg(pid) FROM waiting WHERE pid <> pg_backend_pid()
"""
"""The sessions that wait for a lock of this session, or for a session that waits for one. In contrast to
pg_stat_activity, pg_locks also shows sessions that were opened after this session's transaction began to poll."""

T = TypeVar("T")


async def until_blocked(connection: Connection, *tasks: asyncio.Task[Any]) -> None:
    """Wait until as many sessions as there are tasks, but at least one, wait for a lock of this connection.

    Fails at once if one of the tasks ends, because then it did not wait.
    """

    async def are_blocked() -> bool:
        for task in tasks:
            assert not task.done(), f"a task ended that must wait for a lock: {task}"
        return len(await _list_waiting(connection)) >= max(1, len(tasks))

    await until(are_blocked, "other sessions to wait for a lock")


async def without_waiting(holder: Connection, session: Connection, action: Coroutine[Any, Any, T]) -> T:
    """Return the result of an action of `session`. Fails at once if the action waits for a lock of `holder`."""
    task = asyncio.create_task(action)

    async def ends() -> bool:
        assert session.get_server_pid() not in await _list_waiting(holder), "it waits for a lock"
        return task.done()

    try:
        await until(ends, "an action that must not wait")
    except AssertionError:
        task.cancel()
        raise
    return task.result()


async def _list_waiting(holder: Connection) -> list[int]:
    return await holder.fetchval(WAITING) or []


@asynccontextmanager
async def lock_rows(connection: Connection, rows: str) -> AsyncIterator[None]:
    """Lock these rows (`delivery WHERE number = 1`) during the block; fail if they are locked already."""
    async with connection.transaction():
        await connection.execute(f"SELECT FROM {rows} FOR NO KEY UPDATE NOWAIT")
        yield
