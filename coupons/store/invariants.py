"""The invariants that `coupons verify` checks. Each invariant is a query that returns the rows that violate it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from coupons.database import Connection
from coupons.files.codes import fold
from coupons.store.queries import Queries

SQL = Queries("invariants.sql")
CHECK_SECONDS = 3_600
VIOLATIONS_SHOWN = 20
ROWS_AT_ONCE = 10_000


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
        return [await _check(connection, name, sql) for name, sql in SQL] + [await _check_folds(connection)]


async def _check(connection: Connection, name: str, sql: str) -> Invariant:
    rows = await connection.fetch(f"{sql.rstrip(';')} LIMIT {VIOLATIONS_SHOWN}", timeout=CHECK_SECONDS)
    return Invariant(name, SQL.purposes[name], [dict(row) for row in rows])


async def _check_folds(connection: Connection) -> Invariant:
    """Check the folds of codes that are not ASCII. The database cannot compute them; it checks those of ASCII codes."""
    query = "SELECT list_id, code, fold FROM coupon WHERE octet_length(code) <> char_length(code)"
    wrong = Counter[int]()
    async for row in connection.cursor(query, prefetch=ROWS_AT_ONCE, timeout=CHECK_SECONDS):
        wrong[row["list_id"]] += row["fold"] != fold(row["code"])
    violations = [{"list_id": list_id, "codes": codes} for list_id, codes in wrong.items() if codes]
    return Invariant("codes_are_folded", "codes are compared in Unicode NFC and ignoring case", violations)
