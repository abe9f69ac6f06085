"""Connections to PostgreSQL: one for the command line, a pool for workers and the console.

A half-open connection can hang far beyond a call's own timeout, so both ends of each connection have limits. The server
ends statements that take too long, and the connection stays usable. Without any reply, the client drops the connection.
The worst case is a network that acknowledges packets without delivering them: then the client drops the connection
after COMMAND_SECONDS plus CANCEL_SECONDS, so that a worker resumes its work within a minute.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

import asyncpg

from coupons.errors import UserError
from coupons.foreign_errors import describe
from coupons.keepalive import SILENCE_SECONDS, notice_silence

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 25
"""The server's time limit for a statement. Statements whose duration grows with a list, a group or a sendout have
their own limits."""
COMMAND_SECONDS = STATEMENT_SECONDS + 5
"""The client's time limit for a statement. It is longer, so that a working server ends the statement first."""
CANCEL_SECONDS = 5
"""Time limit for the server's confirmation of a cancelled statement. asyncpg would wait another COMMAND_SECONDS."""
IDLE_SECONDS = 20
"""Idle time after which a pooled connection is closed: it may be dead, and only its next user would notice."""

# These types are strings because asyncpg's classes are generic for type checkers only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

TRANSIENT_ERRORS = (
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
"""Errors after which the same transaction may succeed. The failed transaction may have been committed, so only
idempotent transactions are retried."""

GONE_SECONDS = 10
"""Within this time the server notices that the client of a running statement is gone, and releases its locks."""

_SERVER = {
    "application_name": "coupon-manager",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{STATEMENT_SECONDS - 5}s",
    "idle_in_transaction_session_timeout": f"{COMMAND_SECONDS}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{SILENCE_SECONDS}s",
    "jit": "off",  # compiling any of our statements takes longer than running it
}


class DatabaseUnavailable(UserError):
    """The database cannot be reached with the given URL."""


class _FailFastConnection(asyncpg.Connection):
    """A connection that is closed when its server stops responding."""

    __slots__ = ()

    def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any) -> None:
        super().__init__(protocol, transport, *others)
        notice_silence(transport.get_extra_info("socket"))

    async def _cancel(self, *waiters: Any) -> None:
        limit = asyncio.get_running_loop().call_later(CANCEL_SECONDS, self.terminate)
        try:
            await super()._cancel(*waiters)  # type: ignore[misc] # asyncpg-stubs has no private names
        finally:
            limit.cancel()


_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
"""With asynchronous commits, a crash could undo the intent to send a mail, and the mail would be sent a second time."""


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await connection.execute(_DURABLE)
    with suppress(asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):  # PostgreSQL 13, or on Windows
        await connection.execute(f"SET client_connection_check_interval = '{GONE_SECONDS}s'")


async def _keep(_: object) -> None:
    """Do not reset a session that returns to its pool, because asyncpg's reset costs a round trip each time.

    Nothing is left to reset: every SET is LOCAL, which a test checks, and asyncpg rolls back an open transaction before
    it calls this function.
    """


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    """Open one connection for the block.

    Raises:
        DatabaseUnavailable: one line, without the password.
    """
    with _opening():
        connection = await asyncpg.connect(
            url,
            connection_class=_FailFastConnection,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=_SERVER,
        )
    try:
        await _prepare(connection)
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


@asynccontextmanager
async def open_pool(url: str, *, size: int) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections. Raises DatabaseUnavailable as `connect` does."""
    pool = asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        max_inactive_connection_lifetime=IDLE_SECONDS,
        connection_class=_FailFastConnection,
        init=_prepare,
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
    """Turn errors of connecting into DatabaseUnavailable, without any part of the URL: it contains the password."""
    try:
        yield
    except ValueError:
        raise DatabaseUnavailable("database: COUPONS_DATABASE_URL is not a valid URL") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(f"database: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return why no connection was opened. The texts of other errors may have values or a part of the URL."""
    match error:
        case (
            asyncpg.InvalidAuthorizationSpecificationError()
            | asyncpg.InvalidCatalogNameError()
            | asyncpg.TooManyConnectionsError()
            | asyncpg.CannotConnectNowError()
        ):
            return str(error).splitlines()[0]  # such as: password authentication failed for user "coupons"
        case ConnectionError(errno=None) if type(error) is ConnectionError:  # asyncpg's error for sslmode=require
            return "the server does not offer TLS"
    return describe(error)


def require_transaction(connection: Connection) -> None:
    """Check that the caller has opened a transaction, so that its writes and the callee's are committed together."""
    if not connection.is_in_transaction():
        raise RuntimeError("must be called within a transaction")


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def affected(status: str) -> int:
    """The number of written rows, from a status like `UPDATE 17` or `INSERT 0 17`."""
    return int(status.rpartition(" ")[2])
