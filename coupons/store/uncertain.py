"""Mails that were handed over and never answered for: listed, and resolved by a person or by the setting.

Until then nobody is mailed again and the codes stay with their people. A mail that is sent again has the same codes and
the same Message-ID.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import SendoutState
from coupons.store.queries import Queries

SQL = Queries("uncertain.sql")
AT_ONCE = 1_000
MOST_ATTEMPTS = 3
"""A mail that was uncertain so often is left to a person: something about it ends the connection each time."""
RESOLVE_SECONDS = 600
"""Of a sendout with a million uncertain mails."""
_ANY = 2**31 - 1
Resolution = Literal["resend", "accept"]


@dataclass(frozen=True, slots=True)
class UncertainMail:
    """`reply` says what happened last."""

    number: int
    address: str
    attempts: int
    reply: str | None
    changed_at: datetime | None


async def iter_mails(connection: Connection, sendout_id: UUID) -> AsyncIterator[UncertainMail]:
    """All of a sendout's, by their numbers."""
    after = 0
    while rows := await connection.fetch(SQL.listed, sendout_id, after, AT_ONCE):
        for row in rows:
            yield UncertainMail(**row)
        after = rows[-1]["number"]


async def resolve(
    connection: Connection,
    sendout_id: UUID,
    how: Resolution,
    *,
    address_keys: Collection[str] | None = None,
    most_attempts: int = _ANY,
) -> int:
    """Send uncertain mails again, or count them as sent; returns how many. None of `address_keys` means all.

    Mails with `most_attempts` attempts stay as they are. Mails marked `never_resend` are not sent again.

    Raises:
        Conflict: there is no such sendout, or nothing of a cancelled one is to be sent again.
    """
    keys = None if address_keys is None else list(address_keys)
    async with connection.transaction():
        await connection.fetch(SQL.lock_batches, sendout_id)
        sendout = await connection.fetchrow(SQL.lock, sendout_id)
        if sendout is None:
            raise Conflict(f"there is no sendout {sendout_id}")
        if how == "resend" and sendout["state"] == SendoutState.CANCELLED:
            raise Conflict(f"sendout {sendout_id} is cancelled: its uncertain mails can only be accepted")
        await connection.execute(f"SET LOCAL statement_timeout = '{RESOLVE_SECONDS}s'")
        rows = await connection.fetch(SQL.chosen, sendout_id, keys, most_attempts, how == "resend")
        chosen = [row["number"] for row in rows]
        if not chosen:
            return 0
        if how == "resend":
            count: int = await connection.fetchval(SQL.resend, sendout_id, chosen, timeout=RESOLVE_SECONDS)
            await connection.execute(SQL.reopen, sendout_id)
        else:
            await connection.fetch(SQL.lock_sendout_lists, sendout_id)
            count = await connection.fetchval(SQL.accept, sendout_id, chosen, timeout=RESOLVE_SECONDS)
        return count


async def resolve_all(connection: Connection, how: Resolution) -> int:
    """Of every sendout, as the setting says; returns how many mails."""
    most_attempts = MOST_ATTEMPTS if how == "resend" else _ANY
    count = 0
    for row in await connection.fetch(SQL.sendouts, how):
        with suppress(Conflict):  # cancelled meanwhile
            count += await resolve(connection, row["id"], how, most_attempts=most_attempts)
    return count
