"""Connections to Postgres: one for a command line, a pool for what keeps running.

A half-open connection can hang far beyond a call's own timeout, so every connection carries limits on both ends.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import asyncpg

from coupons.errors import Told

CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
"""What a statement may take; the few that grow with a sendout say so where they run."""

# As text: asyncpg's classes are generic for type checkers only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

TROUBLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # the connection is gone
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutdown, a cancelled or timed-out statement
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.TransactionRollbackError,  # deadlock
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,  # a replica that is about to be promoted
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalClientError,
)
"""What passes: the same transaction may be tried again. It may also have been committed; only idempotent ones are."""

_SERVER = {
    "application_name": "coupon-manager",
    "statement_timeout": f"{COMMAND_SECONDS}s",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": f"{COMMAND_SECONDS}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",  # compiling a statement costs more than running any of these
}


class DatabaseUnavailable(Told):
    """The database cannot be reached, or is not what the URL says."""


async def _decode_json(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _keep(_: object) -> None:
    """Nothing to undo before a connection is used again: sessions are never changed, only transactions (SET LOCAL).

    asyncpg's own reset is a round trip each time; a transaction that was left open is rolled back before this.
    """


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """One connection, for as long as the block runs.

    Raises:
        DatabaseUnavailable: one line, without the password.
    """
    with _opening():
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS, server_settings=_SERVER
        )
    try:
        await _decode_json(connection)
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


@asynccontextmanager
async def pooled(url: str, *, size: int) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections. Raises DatabaseUnavailable as `connected` does."""
    pool = asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        init=_decode_json,
        reset=_keep,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        server_settings=_SERVER,
    )
    with _opening():
        await pool
    try:
        yield pool
    finally:
        await _close(pool)


@contextmanager
def _opening() -> Iterator[None]:
    """Tells what keeps a connection from being opened; never a part of the URL, which holds the password."""
    try:
        yield
    except ValueError:
        raise DatabaseUnavailable("database: COUPONS_DATABASE_URL is not a URL that can be read") from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(f"database: {str(error) or type(error).__name__}") from error


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def affected(status: str) -> int:
    """How many rows a statement has written, by its status: `UPDATE 17`, `INSERT 0 17`."""
    return int(status.rpartition(" ")[2])
