"""Uncertain mails, which were handed over without a reply. An operator or the policy resolves them.

Until an uncertain mail is resolved, it is not sent again and keeps its codes. A resent mail has the same codes and the
same Message-ID.
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
PAGE_SIZE = 1_000
MAX_ATTEMPTS = 3
"""The policy resends a mail up to this number of attempts. Then an operator has to decide, because the mail itself may
be the reason why the connection is lost each time.
"""
RESOLVE_SECONDS = 600
"""The time limit, which is enough for a sendout with a million uncertain mails."""
_ANY = 2**31 - 1
Resolution = Literal["resend", "accept"]


@dataclass(frozen=True, slots=True)
class UncertainMail:
    """`reply` is the reason why the last attempt is uncertain."""

    number: int
    address: str
    attempts: int
    reply: str | None
    changed_at: datetime | None


async def iter_mails(connection: Connection, sendout_id: UUID) -> AsyncIterator[UncertainMail]:
    """Iterate over all uncertain mails of a sendout, by number."""
    after = 0
    while rows := await connection.fetch(SQL.listed, sendout_id, after, PAGE_SIZE):
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
    """Resend uncertain mails, or count them as sent; return how many. If `address_keys` is None, resolve all.

    Mails that have `most_attempts` attempts stay uncertain. Mails marked `never_resend` are not sent again.

    Raises:
        Conflict: the sendout does not exist, or mails of a cancelled sendout should be resent.
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
    """Resolve the uncertain mails of every sendout as the policy says; return how many."""
    most_attempts = MAX_ATTEMPTS if how == "resend" else _ANY
    count = 0
    for row in await connection.fetch(SQL.sendouts, how):
        with suppress(Conflict):  # cancelled in the meantime
            count += await resolve(connection, row["id"], how, most_attempts=most_attempts)
    return count
