"""A batch of deliveries: claim it, assign its codes, record its intents and outcomes, release it.

Every write carries the lease's token. No transaction is open while a mail is handed over.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID, uuid4

import asyncpg

from coupons.database import Connection
from coupons.errors import LeaseLost
from coupons.store.lists import Shortage
from coupons.store.queries import Queries

SQL = Queries("deliveries.sql")
ABANDONED = "a worker died or lost its lease while it handed this mail over"


class NotSending(Exception):
    """The sendout was paused or cancelled."""


class _NotItsTurn(Exception):
    """The sendout keeps a pace, and another worker has just been given its turn."""


Outcome = Literal["sent", "refused", "uncertain", "deferred"]
TURNS_TRIED = 10
"""Sendouts that keep a pace, and whose turn another worker took at the same moment, before it is looked later."""
NOT_THE_LAST = ("deferred", "uncertain")
"""Outcomes after which another attempt may follow."""


@dataclass(frozen=True, slots=True)
class Batch:
    sendout_id: UUID
    number: int
    first_delivery: int
    last_delivery: int
    lease_token: UUID
    sendout_state: str
    waiting_reason: str | None = None
    """Why the sendout makes no progress, as the Outbox shows it."""

    @property
    def key(self) -> tuple[UUID, int, UUID]:
        return self.sendout_id, self.number, self.lease_token

    @property
    def span(self) -> tuple[UUID, int, int]:
        return self.sendout_id, self.first_delivery, self.last_delivery


@dataclass(frozen=True, slots=True)
class BatchList:
    list_id: int
    name: str
    shortage: Shortage
    alternative_text: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mail to be written. `codes` by list id; a list that gave none is missing in it."""

    number: int
    address: str
    attributes: Mapping[str, str]
    attempts: int
    was_uncertain: bool = False
    """Whether an earlier mail may have arrived: its codes are never anybody else's."""
    deferred_for: float | None = None
    """Seconds since it was first deferred."""
    codes: dict[int, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Assignment:
    """`complete`: each delivery has a code of each list, as far as codes are reserved. If not, assign again."""

    complete: bool
    cursors: dict[int, int]
    """Of the sendout's lists, by their ids, for the next assignment: the last coupon id that was assigned."""


NO_CURSORS: Mapping[int, int] = {}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What became of a delivery."""

    delivery: Delivery
    outcome: Outcome
    reply: str
    due_in: float | None = None
    """Seconds, for a deferred one."""
    attempted: bool = True
    """False if there is no such mail: nothing was handed over."""


async def claim(
    connection: Connection, *, owner: str, lease_seconds: float, only_cancelled: bool = False
) -> Batch | None:
    """A batch that is due, or only one that is to be closed. What a dead worker left in hand becomes uncertain."""
    for _ in range(TURNS_TRIED):
        try:
            async with connection.transaction():
                return await _claim(connection, owner, lease_seconds, only_cancelled=only_cancelled)
        except _NotItsTurn:
            continue
    return None


async def _claim(connection: Connection, owner: str, lease_seconds: float, *, only_cancelled: bool) -> Batch | None:
    row = await connection.fetchrow(SQL.claim, owner, lease_seconds, only_cancelled)
    if row is None:
        return None
    columns = dict(row)
    abandoned, per_hour = (columns.pop(name) for name in ("abandoned", "per_hour"))
    batch = Batch(**columns)
    keeps_pace = per_hour and batch.sendout_state == "sending"
    if keeps_pace and await connection.fetchval(SQL.take_turn, *batch.span) is None:
        raise _NotItsTurn
    if abandoned:
        await _abandon(connection, batch, abandoned, lease_seconds)
    return batch


async def recover(connection: Connection, *, owner: str, lease_seconds: float) -> int:
    """Call uncertain what dead workers have left in hand, of sendouts that nobody works on too; returns how many."""
    count = 0
    while True:
        async with connection.transaction():
            row = await connection.fetchrow(SQL.abandoned, owner, lease_seconds)
            if row is None:
                return count
            columns = dict(row)
            abandoned: list[int] = columns.pop("abandoned")
            batch = Batch(**columns)
            await _abandon(connection, batch, abandoned, lease_seconds)
            await release(connection, batch)
            count += len(abandoned)


async def _abandon(connection: Connection, batch: Batch, numbers: list[int], lease_seconds: float) -> None:
    left = [Conclusion(Delivery(number, "", {}, 0), "uncertain", ABANDONED) for number in numbers]
    await _flush(connection, batch, flush=uuid4(), conclusions=left, lease_seconds=lease_seconds)


async def next_due(connection: Connection) -> float | None:
    """Seconds until there is a batch to claim that cannot be claimed now; None if nothing is known to come."""
    seconds: float | None = await connection.fetchval(SQL.next_due)
    return seconds


async def lists_of(connection: Connection, sendout_id: UUID) -> list[BatchList]:
    return [BatchList(**row) for row in await connection.fetch(SQL.lists, sendout_id)]


async def assign_codes(connection: Connection, batch: Batch, cursors: Mapping[int, int] = NO_CURSORS) -> Assignment:
    """Assign a code of each list to each of the batch's deliveries, up to the number that is reserved.

    `cursors` come from assignments before: a list's available codes begin after its cursor. Codes are reserved, so
    fewer codes than wanted means that another transaction locks them or that they came back behind the cursor; it never
    means a shortage.

    Raises:
        LeaseLost, NotSending: nothing was assigned.
    """
    complete, moved = True, dict[int, int]()
    async with connection.transaction():
        await _hold(connection, batch)
        if await connection.fetchval(SQL.hold_sendout, batch.sendout_id) != "sending":
            raise NotSending
        for each in await connection.fetch(SQL.lock_reserved, batch.sendout_id):
            list_id: int = each["list_id"]
            cursor = cursors.get(list_id, 0)
            row = await connection.fetchrow(SQL.assign_codes, *batch.span, list_id, each["reserved"], cursor)
            assert row is not None  # noqa: S101 - an aggregate always has a row
            short = row["assigned"] < row["wanted"]
            moved[list_id] = 0 if short else row["last_id"] or cursor
            complete = complete and not short
    return Assignment(complete, moved)


async def due(connection: Connection, batch: Batch, lists: Sequence[BatchList]) -> list[Delivery]:
    """The batch's mails that can be written now, with their codes."""
    deliveries = {row["number"]: Delivery(**row) for row in await connection.fetch(SQL.due, *batch.span)}
    for row in await connection.fetch(SQL.codes, *batch.span, [each.list_id for each in lists]):
        if row["delivery_number"] in deliveries:
            deliveries[row["delivery_number"]].codes[row["list_id"]] = row["code"]
    return list(deliveries.values())


async def record(
    connection: Connection,
    batch: Batch,
    *,
    flush: UUID,
    conclusions: Sequence[Conclusion],
    in_flight: Collection[int],
    intents: Sequence[int],
    lease_seconds: float,
) -> bool:
    """One flush: what became of mails, and the intent to hand over the next ones.

    `in_flight` are the numbers of mails that were handed over before and have no outcome yet. `flush` is the same when
    the same flush is tried again: if it was committed, although nobody heard of it, it only answers.

    Returns whether `intents` may be handed over: not once the sendout is paused or cancelled.

    Raises:
        LeaseLost: nothing was written, nothing more may be handed over.
    """
    async with _whole(connection, conclusions):
        returning = [c.delivery for c in conclusions if c.outcome == "refused" and c.delivery.codes]
        if returning:
            await _lock_lists(connection, batch, {list_id for each in returning for list_id in each.codes})
        may_send = await _flush(
            connection,
            batch,
            flush=flush,
            conclusions=conclusions,
            in_flight=in_flight,
            intents=intents,
            lease_seconds=lease_seconds,
        )
        if may_send is None:
            return await _answer_again(connection, batch, flush, intents)
        await _free_codes(connection, batch, [each.number for each in returning])
        return may_send


def _whole(
    connection: Connection, conclusions: Sequence[Conclusion]
) -> "asyncpg.transaction.Transaction | nullcontext[None]":
    """A transaction, if more than the one statement is needed."""
    alone = all(c.outcome == "sent" for c in conclusions)
    return nullcontext() if alone else connection.transaction()


async def _lock_lists(connection: Connection, batch: Batch, list_ids: Collection[int]) -> None:
    """Before the flush locks what the sendout holds of them: schema.sql has the order."""
    await _hold(connection, batch)
    await connection.fetch(SQL.lock_lists, list(list_ids))


async def _answer_again(connection: Connection, batch: Batch, flush: UUID, intents: Sequence[int]) -> bool:
    held = await _hold(connection, batch)
    if held["last_flush"] != flush:
        raise _lost(batch)
    return {*intents} <= {*held["in_flight"]}


async def close(connection: Connection, batch: Batch) -> int:
    """End a batch of a cancelled sendout; returns how many deliveries were cancelled. Raises LeaseLost."""
    async with connection.transaction():
        await _hold(connection, batch)
        rows = await connection.fetch(SQL.cancel, *batch.span)
        cancelled = [row["number"] for row in rows if row["state"] == "cancelled"]
        await connection.execute(SQL.close, *batch.key, len(cancelled), len(rows) - len(cancelled))
        await _free_codes(connection, batch, cancelled)
        return len(cancelled)


async def release(connection: Connection, batch: Batch, *, not_within: float = 0) -> None:
    """Hand the batch back; it is due again with its next delivery, but not within so many seconds."""
    await connection.execute(SQL.release, *batch.key, not_within)


async def renew(connection: Connection, batch: Batch, *, lease_seconds: float) -> None:
    """Keep the batch for longer. Raises LeaseLost."""
    row = await connection.fetchval(SQL.renew, *batch.key, lease_seconds)
    if row is None:
        raise _lost(batch)


def _lost(batch: Batch) -> LeaseLost:
    return LeaseLost(f"batch {batch.number} of sendout {batch.sendout_id}")


async def _hold(connection: Connection, batch: Batch) -> asyncpg.Record:
    held = await connection.fetchrow(SQL.hold, *batch.key)
    if held is None:
        raise _lost(batch)
    return held


async def _flush(
    connection: Connection,
    batch: Batch,
    *,
    flush: UUID,
    conclusions: Sequence[Conclusion],
    in_flight: Collection[int] = (),
    intents: Sequence[int] = (),
    lease_seconds: float,
) -> bool | None:
    """Whether the sendout sends; None: the lease is lost, or the flush was done before."""
    rows = [(c.delivery.number, c.outcome, c.reply, int(c.attempted), c.due_in) for c in conclusions]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 5
    sent = Counter(list_id for c in conclusions if c.outcome == "sent" for list_id in c.delivery.codes)
    try:
        may_send: bool | None = await connection.fetchval(
            SQL.flush, *batch.key, flush, list(in_flight), intents, *columns, [*sent], [*sent.values()], lease_seconds
        )
    except asyncpg.CheckViolationError as error:  # somebody else has decided about them
        raise _lost(batch) from error
    if may_send is not None and (log := [c.delivery.number for c in conclusions if c.outcome in NOT_THE_LAST]):
        await connection.execute(SQL.log_attempts, batch.sendout_id, log)
    return may_send


async def _free_codes(connection: Connection, batch: Batch, numbers: list[int]) -> None:
    if not numbers:
        return
    freed: list[Any] = await connection.fetch(SQL.free_codes, batch.sendout_id, numbers)
    lists, amounts = [row["list_id"] for row in freed], [row["amount"] for row in freed]
    await connection.fetch(SQL.lock_lists, lists)
    await connection.execute(SQL.give_back, lists, amounts)
    await connection.execute(SQL.unassign, batch.sendout_id, lists, amounts)
