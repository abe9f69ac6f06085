"""The interaction points of a worker with the outside world, at which the model injects faults.

Interaction points are statements, COMMITs, mails handed over and replies of relays. A worker always dies between two
interaction points, so faults at each of them reproducibly cover a fault at any moment.
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

FaultKind = Literal["dies", "freezes", "loses the connection", "loses the reply"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at the interaction point number `at` (from 1), or at the next point where this kind is possible.

    "dies" simulates SIGKILL and "freezes" SIGSTOP, both before the point. "loses the connection" closes the connection
    to the database before the statement, "loses the reply" after its execution.
    """

    kind: FaultKind
    at: int


def log_step(what: str) -> None:
    """Log a step. In a test of Hypothesis, only the steps of the shortest failing example are printed."""
    (note if currently_in_test_context() else print)(f"    {what}")


class ProcessDied(BaseException):
    """The simulated process is dead, so its clean-up code has no effect outside."""


class InteractionPoints:
    """The interaction points of one worker, and the fault that is to be injected at one of them."""

    def __init__(self, name: str, pool: Pool) -> None:
        self.name = name
        self.dead = False
        self.frozen = asyncio.Event()
        self.hit_at = 0
        """The number of the point at which the fault was injected; 0 if it was not injected."""
        self._pool = pool
        self._running = asyncio.Event()
        self._body: asyncio.Task[Any] | None = None
        self._fault: Fault | None = None
        self._passed = 0
        self._running.set()

    def start(self, body: "asyncio.Task[Any]", fault: Fault | None) -> None:
        self._body, self._fault, self._passed, self.hit_at = body, fault, 0, 0

    def resume(self) -> None:
        self.frozen.clear()
        self._running.set()

    def kill(self) -> None:
        """Simulate SIGKILL: close the connections, which rolls back their transactions."""
        self.dead = True
        self._pool.terminate()
        if self._body and self._body is not asyncio.current_task():
            self._body.cancel()
        self.resume()

    def submit(self, recipient: str) -> None:
        """Pass the point at which a mail is handed over. It cannot freeze."""
        self._hit_fault(f"hands over the mail to {recipient}", {"dies"})

    async def reach(self, what: str) -> None:
        """Pass a point that is not a statement."""
        if self._hit_fault(what, {"dies", "freezes"}):
            await self._freeze()

    @asynccontextmanager
    async def statement(self, connection: Connection, what: str) -> AsyncIterator[None]:
        """Pass a statement. It does not freeze inside a transaction, because the locks would stay held."""
        possible: set[FaultKind] = {"dies", "loses the connection", "loses the reply"}
        fault = self._hit_fault(what, possible if connection.is_in_transaction() else {*possible, "freezes"})
        if fault == "freezes":
            await self._freeze()
        if fault == "loses the connection":
            _cut(connection)
        yield
        if fault == "loses the reply":
            _cut(connection)

    def _hit_fault(self, what: str, possible: "set[FaultKind]") -> FaultKind | None:
        if self.dead:
            raise ProcessDied
        self._passed += 1
        fault = self._fault
        if fault is None or self._passed < fault.at or fault.kind not in possible:
            return None
        self._fault, self.hit_at = None, self._passed
        log_step(f"{self.name} {fault.kind} at point {self._passed}: {what}")
        if fault.kind == "dies":
            self.kill()
            raise ProcessDied
        return fault.kind

    async def _freeze(self) -> None:
        self._running.clear()
        self.frozen.set()
        await self._running.wait()
        if self.dead:
            raise ProcessDied


def _cut(connection: Connection) -> None:
    connection.terminate()
    raise asyncpg.ConnectionDoesNotExistError("the connection was lost")


class WatchedPool:
    """A pool in which each statement is an interaction point. A fixed seed makes `ORDER BY random()` reproducible."""

    def __init__(self, pool: Pool, points: InteractionPoints) -> None:
        self._pool = pool
        self._points = points

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["_WatchedConnection"]:
        if self._points.dead:
            raise ProcessDied
        connection = await self._pool.acquire()
        try:
            await connection.execute("SELECT setseed(0)")
            yield _WatchedConnection(connection, self._points)
        finally:
            if not self._points.dead:
                await self._pool.release(connection)
        await self._points.reach("continues without a connection")

    async def fetchrow(self, statement: str, *arguments: object) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(statement, *arguments)


class _WatchedConnection:
    def __init__(self, connection: Connection, points: InteractionPoints) -> None:
        self._connection = connection
        self._points = points

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        return self._wrap(found) if name in STATEMENTS else found

    def _wrap(self, ask: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def watched(statement: str, *arguments: object, **options: object) -> Any:
            async with self._points.statement(self._connection, NAMES.get(statement, statement[:40])):
                return await ask(statement, *arguments, **options)

        return watched

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[None]:
        transaction = self._connection.transaction(**options)
        async with self._points.statement(self._connection, "BEGIN"):
            await transaction.start()
        try:
            yield
        except BaseException:
            with suppress(asyncpg.InterfaceError):  # the connection may be lost
                await transaction.rollback()
            raise
        async with self._points.statement(self._connection, "COMMIT"):
            await transaction.commit()
