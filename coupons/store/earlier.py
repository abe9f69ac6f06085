"""The earlier sendouts of a message, to find the recipients who got it already.

A recipient got a message if a mail of any of its versions was sent to them, or may have arrived: the delivery is sent
or uncertain, or an earlier attempt was uncertain. Refused and cancelled mails do not count, and neither do mails that
are still to be sent. The function was_mailed() in schema.sql has this rule.
"""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("earlier.sql")
MAX_PROBED = 100
"""Up to this number of earlier sendouts, each recipient is looked up in each of them. With 100,000
recipients and one sendout, a lookup took 35 µs on a busy machine with 2 cores.

A message that is sent to single recipients may have had a million sendouts; then the mails of each recipient are read.
"""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The sendouts that have mailed a version of the message; None if they are more than MAX_PROBED."""

    message: str
    sendouts: list[UUID] | None

    def __bool__(self) -> bool:
        return self.sendouts is None or bool(self.sendouts)


async def find_earlier(connection: Connection, message: str) -> Earlier:
    """Return the started sendouts of the message. A sendout that is being prepared has not started."""
    return Earlier(message, _few(await connection.fetch(SQL.of_message, message, MAX_PROBED + 1)))


async def find_holding(connection: Connection, message_id: int) -> list[UUID] | None:
    """Return the sendouts that assigned codes of the message's lists; None if they are more than MAX_PROBED."""
    return _few(await connection.fetch(SQL.holding, message_id, MAX_PROBED + 1))


def _few(rows: list[asyncpg.Record]) -> list[UUID] | None:
    return [row["id"] for row in rows] if len(rows) <= MAX_PROBED else None
