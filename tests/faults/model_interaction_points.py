"""The contacts of a worker with the outside world, before which a fault of the model meets it.

A worker that dies anywhere has died between two of its contacts: a statement, a COMMIT, a mail that it hands over, an
answer that it hears. So a fault at every contact is a fault anywhere, and the same one each time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg
from hypothesis import currently_in_test_context, note

from coupons.database import Connection, Pool
from coupons.store import deliveries, import_chunks, imports, inbox, sendouts, uncertain, uploads

STATEMENTS = ("execute", "executemany", "fetch", "fetchrow", "fetchval")
NAMES = {
    sql: f"{module.__name__.rpartition('.')[2]}.{name}"
    for module in (import_chunks, deliveries, imports, inbox, sendouts, uncertain, uploads)
    for name, sql in module.SQL
}

What = Literal["dies", "stands still", "is cut off", "hears no answer"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a worker before its contact `at`, from 1, or before the next one where it can happen.

    "stands still" is a SIGSTOP. "is cut off": its connection to the database is lost before the statement is said;
    "hears no answer": after that was carried out.
    """

    what: What
    at: int


def tell(what: str) -> None:
    """Where a failed test is read: hypothesis shows it of the shortest example only."""
    (note if currently_in_test_context() else print)(f"    {what}")


class Dead(BaseException):
    """The process is gone: nothing of it reaches the world any more, whatever its clean-up tries."""


class Contacts:
    """Where each contact of one worker passes, and its fault waits."""

    def __init__(self, name: str, pool: Pool) -> None:
        self.name = name
        self.dead = False
        self.stood_still = asyncio.Event()
        self.met_at = 0
        """The contact at which the fault has come; 0: it has not."""
        self._pool = pool
        self._moves = asyncio.Event()
        self._body: asyncio.Task[Any] | None = None
        self._fault: Fault | None = None
        self._passed = 0
        self._moves.set()

    def begin(self, body: "asyncio.Task[Any]", fault: Fault | None) -> None:
        self._body, self._fault, self._passed, self.met_at = body, fault, 0, 0

    def go_on(self) -> None:
        self.stood_still.clear()
        self._moves.set()

    def die(self) -> None:
        """As SIGKILL: its connections are closed, and with them what was not committed is undone."""
        self.dead = True
        self._pool.terminate()
        if self._body and self._body is not asyncio.current_task():
            self._body.cancel()
        self.go_on()

    def hands_over(self, recipient: str) -> None:
        """A contact that cannot wait."""
        self._meets(f"hands the mail to {recipient} over", {"dies"})

    async def passes(self, what: str) -> None:
        """A contact without the database."""
        if self._meets(what, {"dies", "stands still"}):
            await self._stand_still()

    @asynccontextmanager
    async def asks(self, connection: Connection, what: str) -> AsyncIterator[None]:
        """A statement. A transaction that stands still would hold its locks until the server ends it: not here."""
        possible: set[What] = {"dies", "is cut off", "hears no answer"}
        fault = self._meets(what, possible if connection.is_in_transaction() else {*possible, "stands still"})
        if fault == "stands still":
            await self._stand_still()
        if fault == "is cut off":
            _cut(connection)
        yield
        if fault == "hears no answer":
            _cut(connection)

    def _meets(self, what: str, possible: "set[What]") -> What | None:
        if self.dead:
            raise Dead
        self._passed += 1
        fault = self._fault
        if fault is None or self._passed < fault.at or fault.what not in possible:
            return None
        self._fault, self.met_at = None, self._passed
        tell(f"{self.name} {fault.what} at contact {self._passed}: {what}")
        if fault.what == "dies":
            self.die()
            raise Dead
        return fault.what

    async def _stand_still(self) -> None:
        self._moves.clear()
        self.stood_still.set()
        await self._moves.wait()
        if self.dead:
            raise Dead


def _cut(connection: Connection) -> None:
    connection.terminate()
    raise asyncpg.ConnectionDoesNotExistError("the connection was lost")


class WatchedPool:
    """A pool whose connections are a worker's contacts. Chance gives the same each time: `ORDER BY random()`."""

    def __init__(self, pool: Pool, contacts: Contacts) -> None:
        self._pool = pool
        self._contacts = contacts

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["_WatchedConnection"]:
        if self._contacts.dead:
            raise Dead
        connection = await self._pool.acquire()
        try:
            await connection.execute("SELECT setseed(0)")
            yield _WatchedConnection(connection, self._contacts)
        finally:
            if not self._contacts.dead:
                await self._pool.release(connection)
        await self._contacts.passes("goes on without a connection")

    async def fetchrow(self, statement: str, *arguments: object) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(statement, *arguments)


class _WatchedConnection:
    def __init__(self, connection: Connection, contacts: Contacts) -> None:
        self._connection = connection
        self._contacts = contacts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        return self._watched(found) if name in STATEMENTS else found

    def _watched(self, ask: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def watched(statement: str, *arguments: object, **options: object) -> Any:
            async with self._contacts.asks(self._connection, NAMES.get(statement, statement[:40])):
                return await ask(statement, *arguments, **options)

        return watched

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[None]:
        transaction = self._connection.transaction(**options)
        async with self._contacts.asks(self._connection, "BEGIN"):
            await transaction.start()
        try:
            yield
        except BaseException:
            with suppress(asyncpg.InterfaceError):  # the connection may be what was lost
                await transaction.rollback()
            raise
        async with self._contacts.asks(self._connection, "COMMIT"):
            await transaction.commit()
