"""`coupons verify`: what must hold, proved by queries alone. Each returns the rows that contradict it."""

from dataclasses import dataclass
from typing import Any

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("invariants.sql")
PROOF_SECONDS = 3_600
OFFENDERS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Proof:
    """One sentence, and the first rows that contradict it: none if it holds. Rows hold no codes."""

    name: str
    sentence: str
    offenders: list[dict[str, Any]]

    @property
    def holds(self) -> bool:
        return not self.offenders


async def prove(connection: Connection) -> list[Proof]:
    """Every proof, on one snapshot of the database, so that it can run while workers do."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"SET LOCAL statement_timeout = '{PROOF_SECONDS}s'")
        return [await _prove(connection, name, sql) for name, sql in SQL]


async def _prove(connection: Connection, name: str, sql: str) -> Proof:
    rows = await connection.fetch(f"{sql.rstrip(';')} LIMIT {OFFENDERS_SHOWN}", timeout=PROOF_SECONDS)
    return Proof(name, SQL.purposes[name], [dict(row) for row in rows])
