"""Whether the database's data are those that somebody has accepted, or went back in time: then nothing is sent.

schema.sql says how it is found, docs/decisions/0011 what cannot be.
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
"""The first that is so; a dump that was restored on another server is both."""
_REPLY = "may have been sent after the backup, perhaps with another code"
_LOCKED_SECONDS = 0.05
_ASSIGN_TRIES = 1_200
_LEASE_SECONDS = 24 * 3_600


@dataclass(frozen=True, slots=True)
class State:
    """`refusal` is why nothing is sent; None while the data are accepted."""

    refusal: str | None
    number: int | None
    """Of the acceptance in force; None if there is none."""
    accepted_at: datetime | None
    mark: str
    """Another one as soon as the database, or what was accepted of it, is."""


@dataclass(frozen=True, slots=True)
class UnfinishedSendout:
    """Its `remaining` mails may have been sent since the data end; None before its recipients are counted."""

    id: UUID
    message: str
    state: SendoutState
    recipients: int | None
    sent: int
    uncertain: int
    remaining: int | None


@dataclass(frozen=True, slots=True)
class UnassignedCodes:
    """Codes of a list that are not assigned in these data, and may have been sent since."""

    name: str
    available: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Since:
    """How far the data reach, and what may have been sent since."""

    mails_until: datetime | None
    """The last trace of a mail. It stays, as long as nothing is sent."""
    work_until: datetime | None
    """The last trace of anything else: commands, imports, sendouts that were prepared. It moves on as workers run."""
    now: datetime
    sendouts: tuple[UnfinishedSendout, ...]
    lists: tuple[UnassignedCodes, ...]


async def state(connection: Connection) -> State:
    row = await _state(connection)
    return State(_refusal(row), row["number"], row["accepted_at"], row["mark"])


async def refusal(connection: Connection) -> str | None:
    """Why nothing is sent, as people are told; None while it is."""
    if await connection.fetchval(SQL.accepted):
        return None
    found = _refusal(await _state(connection))
    return found and f"nothing is sent before `coupons restore-guard accept`: {found}"


async def since(connection: Connection) -> Since:
    """What may have been sent after the data end. Reads a row for each batch that there ever was."""
    reaches = await connection.fetchrow(SQL.reaches)
    assert reaches is not None  # noqa: S101 - it has always a row
    rows = await connection.fetch(SQL.sendouts)
    sendouts = [UnfinishedSendout(**{**row, "state": SendoutState(row["state"])}) for row in rows]
    lists = [UnassignedCodes(**row) for row in await connection.fetch(SQL.lists)]
    return Since(**reaches, sendouts=tuple(sendouts), lists=tuple(lists))


async def accept(connection: Connection, *, seen: State | None = None, uncertain: bool = False) -> int:
    """Let workers send from these data, as they are; returns how many mails became uncertain. Once is enough.

    With `uncertain`, what may have been sent of sendouts that had begun is not sent again by itself: each of their open
    mails gets the codes that it is promised, so that nobody else does, and is uncertain. Leases of before are void.
    Not within a transaction: PostgreSQL writes a nested one's rows under another transaction id than the guard stores.

    Raises:
        Conflict: the database is a replica, or is not as it was when it was `seen`.
    """
    if (await _state(connection))["is_replica"]:
        raise Conflict(f"{_REASONS['is_replica']}: it cannot be accepted")
    async with connection.transaction():
        await connection.execute(SQL.lock)
        row = await _state(connection)
        if row["accepted"]:
            return 0
        if seen and seen.mark != row["mark"]:
            raise Conflict("the database has changed meanwhile: look again (coupons restore-guard show)")
        await connection.execute(f"SET LOCAL statement_timeout = '{ACCEPT_SECONDS}s'")
        await connection.execute(SQL.end)
        await connection.execute(SQL.begin)
        if not await connection.fetchval(SQL.accepted):
            raise Conflict("a database cannot be accepted within another transaction")
        await connection.execute(SQL.void, timeout=ACCEPT_SECONDS)
        return await _make_uncertain(connection) if uncertain else 0


async def _state(connection: Connection) -> asyncpg.Record:
    row = await connection.fetchrow(SQL.state)
    assert row is not None  # noqa: S101 - the database itself is always there
    return row


def _refusal(row: asyncpg.Record) -> str | None:
    if row["accepted"]:
        return None
    reasons = (words for fact, words in _REASONS.items() if row[fact])
    timelines = f"timeline {row['timeline']}, accepted was {row['accepted_timeline']}"
    return next(reasons, f"the database's server was promoted, or recovered to a point in time: {timelines}")


async def _make_uncertain(connection: Connection) -> int:
    """Nobody else takes part: a batch can be had only once this is committed."""
    await connection.execute(SQL.lock_sendouts)
    rows = await connection.fetch(SQL.seize, timeout=ACCEPT_SECONDS)
    seized = [Batch(**{**row, "sendout_state": SendoutState(row["sendout_state"])}) for row in rows]
    await connection.execute(SQL.unpause)
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
    """Assign the batch's codes; returns the cursors. An import unlocks its codes when a chunk is committed."""
    for _ in range(_ASSIGN_TRIES):
        assigned = await deliveries.assign_codes(connection, batch, cursors)
        if assigned.complete:
            return cursors | assigned.cursors
        cursors = cursors | assigned.cursors
        await asyncio.sleep(_LOCKED_SECONDS)
    raise Conflict("an import locks reserved codes: accept again when it has ended")
