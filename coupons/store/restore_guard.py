"""The restore guard: nothing is sent from a restored database until an operator accepts it.

schema.sql explains how a restore is detected. docs/decisions/0011 lists what cannot be detected.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import DeliveryState, SendoutState
from coupons.store import deliveries
from coupons.store.deliveries import Batch, DeliveryResult
from coupons.store.queries import Queries

SQL = Queries("restore_guard.sql")
ACCEPT_SECONDS = 3_600
_REASONS = {
    "is_replica": "the database is a replica that was not promoted",
    "is_new": "the database was never accepted: it was upgraded with sendouts in it, or restored without its guard",
    "is_restored": "the database was restored from a dump",
    "is_elsewhere": "the database is on another server: it was moved or upgraded",
    "is_copy": "the database is a copy of another one",
}
"""Only the first reason that applies is shown. A dump that was restored on another server has two."""
_SCHEDULED = "it was scheduled in the backup, and may have been rescheduled and sent since: resume or cancel it"
_REPLY = "may have been sent after the backup, perhaps with another code"
_LOCKED_SECONDS = 0.05
_ASSIGN_TRIES = 1_200
_LEASE_SECONDS = 24 * 3_600


@dataclass(frozen=True, slots=True)
class State:
    """`refusal` is the reason why no mail is sent, or None while the database is accepted."""

    refusal: str | None
    number: int | None
    """The number of the current acceptance; None if there is none."""
    accepted_at: datetime | None
    mark: str
    """A text that changes when the database or its acceptance changes."""


@dataclass(frozen=True, slots=True)
class UnfinishedSendout:
    """A sendout that had not ended in the restored data.

    Its `remaining` mails may have been sent after the backup. The number is None before its recipients are counted.
    """

    id: UUID
    message: str
    state: SendoutState
    recipients: int | None
    sent: int
    uncertain: int
    remaining: int | None


@dataclass(frozen=True, slots=True)
class UnassignedCodes:
    """A list with codes that are unassigned in the restored data and may have been sent after the backup."""

    name: str
    available: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Since:
    """The time up to which the restored data reach, and the mails and codes that may have been sent since then."""

    mails_until: datetime | None
    """The last time at which mails were claimed or recorded. It does not change while no mail is sent."""
    work_until: datetime | None
    """The last time of any other work (commands, imports, prepared sendouts). It advances while workers run."""
    now: datetime
    sendouts: tuple[UnfinishedSendout, ...]
    lists: tuple[UnassignedCodes, ...]


async def state(connection: Connection) -> State:
    row = await _state(connection)
    return State(_refusal(row), row["number"], row["accepted_at"], row["mark"])


async def refusal(connection: Connection) -> str | None:
    """Return the reason why no mail is sent, as shown to users; None while the database is accepted."""
    if await connection.fetchval(SQL.accepted):
        return None
    found = _refusal(await _state(connection))
    return found and f"no mail is sent until an operator runs `coupons restore-guard accept`: {found}"


async def since(connection: Connection) -> Since:
    """Return the mails and codes that may have been sent after the backup. Reads one row per batch in the database."""
    reaches = await connection.fetchrow(SQL.reaches)
    assert reaches is not None  # noqa: S101 - a SELECT without FROM always has a row
    rows = await connection.fetch(SQL.sendouts)
    sendouts = [UnfinishedSendout(**{**row, "state": SendoutState(row["state"])}) for row in rows]
    lists = [UnassignedCodes(**row) for row in await connection.fetch(SQL.lists)]
    return Since(**reaches, sendouts=tuple(sendouts), lists=tuple(lists))


async def accept(connection: Connection, *, seen: State | None = None, uncertain: bool = False) -> int:
    """Accept the database as it is, so that workers send again; return how many mails became uncertain.

    If the database is accepted already, nothing changes. With `uncertain`, the remaining mails of started sendouts are
    not sent: their reserved codes are assigned to them, and they become uncertain. Other scheduled sendouts are paused,
    because they may have been rescheduled and sent since the backup. All leases end.

    Must not run in a transaction. In a nested transaction (savepoint), PostgreSQL would write the guard's row with
    another transaction id than the row contains.

    Raises:
        Conflict: the database is a replica, or it has changed since the state `seen`.
    """
    if (await _state(connection))["is_replica"]:
        raise Conflict(f"{_REASONS['is_replica']}: it cannot be accepted")
    async with connection.transaction():
        await connection.execute(SQL.lock)
        row = await _state(connection)
        if row["accepted"]:
            return 0
        if seen and seen.mark != row["mark"]:
            raise Conflict("the database has changed in the meantime: run `coupons restore-guard show` again")
        await connection.execute(f"SET LOCAL statement_timeout = '{ACCEPT_SECONDS}s'")
        await connection.execute(SQL.end)
        await connection.execute(SQL.begin)
        if not await connection.fetchval(SQL.accepted):
            raise Conflict("a database cannot be accepted within another transaction")
        await connection.execute(SQL.void, timeout=ACCEPT_SECONDS)
        return await _make_uncertain(connection) if uncertain else 0


async def _state(connection: Connection) -> asyncpg.Record:
    row = await connection.fetchrow(SQL.state)
    assert row is not None  # noqa: S101 - this_database() always returns a row
    return row


def _refusal(row: asyncpg.Record) -> str | None:
    if row["accepted"]:
        return None
    reasons = (words for fact, words in _REASONS.items() if row[fact])
    timelines = f"it is on timeline {row['timeline']}, and timeline {row['accepted_timeline']} was accepted"
    return next(reasons, f"the database's server was promoted, or recovered to a point in time: {timelines}")


async def _make_uncertain(connection: Connection) -> int:
    """Make the remaining mails of started sendouts uncertain; return how many.

    No worker interferes, because a batch can be claimed only after this transaction is committed.
    """
    await connection.execute(SQL.lock_sendouts)
    await connection.execute(SQL.continue_started)
    await connection.execute(SQL.pause_scheduled, _SCHEDULED)
    rows = await connection.fetch(SQL.seize, timeout=ACCEPT_SECONDS)
    seized = [Batch(**{**row, "sendout_state": SendoutState(row["sendout_state"])}) for row in rows]
    cursors: dict[int, int] = {}
    count = 0
    for batch in sorted(seized, key=lambda each: (each.sendout_id, each.number)):
        cursors |= await _assign_codes(connection, batch, cursors)
        numbers = [row["number"] for row in await connection.fetch(SQL.remaining, *batch.span)]
        await deliveries.record(
            connection,
            batch,
            flush=uuid4(),
            results=[DeliveryResult(number, DeliveryState.UNCERTAIN, _REPLY) for number in numbers],
            in_flight=[],
            intents=[],
            lease_seconds=_LEASE_SECONDS,
        )
        await connection.execute(SQL.never_resend, batch.sendout_id, numbers)
        await deliveries.release(connection, batch)
        count += len(numbers)
    return count


async def _assign_codes(connection: Connection, batch: Batch, cursors: dict[int, int]) -> dict[int, int]:
    """Assign the batch's codes and return the cursors.

    If an import locks the codes, wait until its chunk is committed.
    """
    for _ in range(_ASSIGN_TRIES):
        assigned = await deliveries.assign_codes(connection, batch, cursors)
        if assigned.complete:
            return cursors | assigned.cursors
        cursors = cursors | assigned.cursors
        await asyncio.sleep(_LOCKED_SECONDS)
    raise Conflict("an import locks reserved codes: run the command again when the import has ended")
