"""Pooled sessions are not reset between uses. These tests check how the suite finds state that a session keeps."""

import pytest

from coupons.database import Connection, open_pool
from tests.session_state import session_state, watched_pools


async def test_a_fresh_session_has_no_state(connection: Connection) -> None:
    """Settings that each session gets when it is opened are not reported."""
    assert await session_state(connection) == []


@pytest.mark.parametrize(
    ("statements", "kept"),
    [
        ("SET enable_nestloop = off", "setting enable_nestloop"),
        ("SELECT pg_advisory_lock(1)", "advisory lock"),
        ("CREATE TEMP TABLE staged AS SELECT 1", "rows in staged"),
    ],
)
async def test_state_that_a_session_keeps_is_found(database_url: str, statements: str, kept: str) -> None:
    """A setting without LOCAL, a lock of the session and rows of a temporary table are reported."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match=kept), watched_pools(patch):
        async with open_pool(database_url, size=1) as pool:
            await pool.execute(statements)


async def test_state_of_a_transaction_does_not_count(database_url: str, connection: Connection) -> None:
    """SET LOCAL, a lock of the transaction and an empty temporary table are not reported."""
    with pytest.MonkeyPatch.context() as patch, watched_pools(patch):
        async with open_pool(database_url, size=1) as pool, pool.acquire() as own, own.transaction():
            await own.execute("SET LOCAL enable_nestloop = off; CREATE TEMP TABLE staged (line bigint)")
            await own.execute("SELECT pg_advisory_xact_lock(1)")
    assert await session_state(connection) == []
