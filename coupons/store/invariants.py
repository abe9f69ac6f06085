"""The invariants that `coupons verify` checks. Each invariant is a query that returns the rows that violate it."""

from dataclasses import dataclass
from typing import Any

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("invariants.sql")
CHECK_SECONDS = 3_600
VIOLATIONS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Invariant:
    """A rule and the first rows that violate it. The rows contain no codes."""

    name: str
    sentence: str
    violations: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        return not self.violations


async def check(connection: Connection) -> list[Invariant]:
    """Check all invariants on one snapshot of the database, so that workers can run at the same time."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"SET LOCAL statement_timeout = '{CHECK_SECONDS}s'")
        return [await _check(connection, name, sql) for name, sql in SQL]


async def _check(connection: Connection, name: str, sql: str) -> Invariant:
    rows = await connection.fetch(f"{sql.rstrip(';')} LIMIT {VIOLATIONS_SHOWN}", timeout=CHECK_SECONDS)
    return Invariant(name, SQL.purposes[name], [dict(row) for row in rows])
