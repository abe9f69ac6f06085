"""The earlier sendouts of a message, to find the recipients who got it already.

A recipient got a message if a mail of any of its versions was sent to them, or may have arrived: the delivery is sent
or uncertain, or an earlier attempt was uncertain. Refused and cancelled mails do not count, and neither do mails that
are still to be sent. The function is_mailed() in schema.sql is this rule.

Two ways lead to the same recipients. Usually all deliveries of the earlier sendouts are read, and a hash join compares
them with the recipients. A small group with a large history is looked up instead, recipient by recipient.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("earlier.sql")
MAX_SENDOUTS = 100
"""Up to this number of earlier sendouts, recipients are compared with these sendouts. A message that is sent to single
recipients may have had a million sendouts; then all mails of each recipient are looked up."""
MAX_READ = 40
"""Deliveries that are read per recipient instead of looking the recipient up. Reading takes 0.3 to 2 µs per delivery,
and a lookup 35 to 77 µs in one sendout, or 500 µs in 100 of them."""


@dataclass(frozen=True, slots=True)
class Sendouts:
    """The sendouts that recipients are compared with: `probed` by a lookup per recipient, or `hashed` as a whole.

    If `probed` is None, they are more than MAX_SENDOUTS, and all mails of a recipient are looked up.
    """

    probed: list[UUID] | None
    hashed: list[UUID]

    def __bool__(self) -> bool:
        return self.probed is None or bool(self.probed or self.hashed)


@dataclass(frozen=True, slots=True)
class Earlier:
    """The sendouts that have mailed a version of the message."""

    message: str
    sendouts: Sendouts

    def __bool__(self) -> bool:
        return bool(self.sendouts)

    @property
    def arguments(self) -> tuple[str, list[UUID] | None, list[UUID]]:
        """The message and the sendouts, as the statements take them."""
        return self.message, self.sendouts.probed, self.sendouts.hashed


NEVER = Earlier("", Sendouts([], []))
"""No earlier sendout."""


async def find_earlier(connection: Connection, message: str, group_id: int | None, *, given: int = 0) -> Earlier:
    """Return the started sendouts of the message, to compare them with the group or with `given` recipients.

    A sendout that is being prepared has not started.
    """
    rows = await connection.fetch(SQL.of_message, message, MAX_SENDOUTS + 1)
    return Earlier(message, await _choose(connection, rows, group_id, given))


async def find_holding(connection: Connection, message_id: int, group_id: int | None, *, given: int) -> Sendouts:
    """Return the sendouts that assigned codes of the message's lists."""
    rows = await connection.fetch(SQL.holding, message_id, MAX_SENDOUTS + 1)
    return await _choose(connection, rows, group_id, given)


async def _choose(connection: Connection, rows: list[asyncpg.Record], group_id: int | None, given: int) -> Sendouts:
    """Return the sendouts in the way that takes less time."""
    if len(rows) > MAX_SENDOUTS:
        return Sendouts(None, [])
    found = [row["id"] for row in rows]
    least = sum(row["recipients"] for row in rows) // MAX_READ + 1
    is_large = not rows or given >= least or await connection.fetchval(SQL.has_recipients, group_id, least)
    return Sendouts([], found) if is_large else Sendouts(found, [])


@asynccontextmanager
async def hash_joins(connection: Connection) -> AsyncIterator[None]:
    """Let the block's statements join recipients and earlier deliveries with a hash. Must run in a transaction."""
    await connection.execute(SQL.hash_plan)
    yield
    await connection.execute(SQL.usual_plan)  # not after an error: the transaction is rolled back
