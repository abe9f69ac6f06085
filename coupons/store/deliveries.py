"""A batch of deliveries: claimed, its codes bound, its mails intended, their outcomes recorded, handed back.

Every write carries the lease's token. No transaction is open while a mail is handed over.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import asyncpg

from coupons.database import Connection, affected
from coupons.errors import LeaseLost
from coupons.store.lists import Shortage
from coupons.store.queries import Queries

SQL = Queries("deliveries.sql")
ABANDONED = "a worker died or lost its lease while it handed this mail over"


class NotSending(Exception):
    """The sendout was paused or cancelled."""


Outcome = Literal["sent", "refused", "uncertain", "deferred", "pending"]


@dataclass(frozen=True, slots=True)
class Batch:
    sendout_id: UUID
    number: int
    first_delivery: int
    last_delivery: int
    lease_token: UUID
    sendout_state: str

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
    codes: dict[int, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What became of a delivery that was in hand; `pending` if it certainly was not handed over."""

    delivery: Delivery
    outcome: Outcome
    reply: str
    due_in: float | None = None
    """Seconds, for a deferred one."""


async def claim(connection: Connection, *, owner: str, lease_seconds: float) -> Batch | None:
    """The batch that is due longest. What a dead worker left in hand becomes uncertain."""
    async with connection.transaction():
        row = await connection.fetchrow(SQL.claim, owner, lease_seconds)
        if row is None:
            return None
        batch = Batch(**row)
        abandoned = affected(await connection.execute(SQL.abandoned, *batch.span, ABANDONED))
        if abandoned:
            await _move_counters(connection, batch, Counter(uncertain=abandoned), lease_seconds)
        return batch


async def lists_of(connection: Connection, sendout_id: UUID) -> list[BatchList]:
    return [BatchList(**row) for row in await connection.fetch(SQL.lists, sendout_id)]


async def bind(connection: Connection, batch: Batch, cursors: dict[int, int]) -> bool:
    """Give each of the batch's deliveries a code of each list, as far as the promise goes; False: look again.

    `cursors` remembers where each list's free codes begin, and is moved on. Under a granted promise, fewer codes than
    wanted means "locked by somebody else, or given back behind the cursor", never "short".

    Raises:
        LeaseLost: nothing was bound.
        NotSending: nor here.
    """
    complete = True
    async with connection.transaction():
        await _hold(connection, batch)
        if await connection.fetchval(SQL.hold_sendout, batch.sendout_id) != "sending":
            raise NotSending
        for promise in await connection.fetch(SQL.lock_promises, batch.sendout_id):
            list_id: int = promise["list_id"]
            cursor = cursors.get(list_id, 0)
            row = await connection.fetchrow(SQL.bind, *batch.span, list_id, promise["left"], cursor)
            assert row is not None  # noqa: S101 - an aggregate always has a row
            short = row["bound"] < row["wanted"]
            cursors[list_id] = 0 if short else row["last_id"] or cursor
            complete = complete and not short
    return complete


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
    unwritable: Sequence[Conclusion],
    intents: Sequence[int],
    lease_seconds: float,
) -> set[int]:
    """One flush: what became of mails in hand, and the intent to hand over the next ones.

    `flush` is the same when the same flush is tried again: if it was committed, although nobody heard of it, it only
    answers.

    Returns those of `intents` that may be handed over: none once the sendout is paused or cancelled.

    Raises:
        LeaseLost: nothing was written, nothing more may be handed over.
    """
    async with connection.transaction():
        held = await _hold(connection, batch)
        if held["last_flush"] == flush:
            rows = await connection.fetch(SQL.intended, batch.sendout_id, intents)
            return {row["number"] for row in rows}
        moved = await _conclude(connection, batch, conclusions) + await _refuse(connection, batch, unwritable)
        await _move_counters(connection, batch, moved, lease_seconds, flush)
        await _settle_codes(connection, batch, [*conclusions, *unwritable])
        if not intents or held["state"] != "sending":
            return set()
        rows = await connection.fetch(SQL.intend, batch.sendout_id, intents)
        return {row["number"] for row in rows}


async def close(connection: Connection, batch: Batch, *, lease_seconds: float) -> int:
    """End a batch of a cancelled sendout; returns how many deliveries were cancelled. Raises LeaseLost."""
    async with connection.transaction():
        await _hold(connection, batch)
        numbers = [row["number"] for row in await connection.fetch(SQL.cancel, *batch.span)]
        await _move_counters(connection, batch, Counter(cancelled=len(numbers)), lease_seconds)
        await _free_codes(connection, batch, numbers)
        return len(numbers)


async def release(connection: Connection, batch: Batch, *, not_within: float = 0) -> None:
    """Hand the batch back; it is due again with its next delivery, but not within so many seconds."""
    await connection.execute(SQL.release, batch.sendout_id, batch.number, batch.lease_token, not_within)


async def renew(connection: Connection, batch: Batch, *, lease_seconds: float) -> None:
    """Keep the batch for longer. Raises LeaseLost."""
    row = await connection.fetchval(SQL.renew, batch.sendout_id, batch.number, batch.lease_token, lease_seconds)
    if row is None:
        raise LeaseLost(f"batch {batch.number} of sendout {batch.sendout_id}")


async def _hold(connection: Connection, batch: Batch) -> asyncpg.Record:
    held = await connection.fetchrow(SQL.hold, batch.sendout_id, batch.number, batch.lease_token)
    if held is None:
        raise LeaseLost(f"batch {batch.number} of sendout {batch.sendout_id}")
    return held


async def _conclude(connection: Connection, batch: Batch, conclusions: Sequence[Conclusion]) -> "Counter[str]":
    if not conclusions:
        return Counter()
    columns = zip(*((c.delivery.number, c.outcome, c.reply, c.due_in) for c in conclusions), strict=True)
    status = await connection.execute(SQL.conclude, *batch.span, *(list(column) for column in columns))
    _all_or_lost(batch, affected(status), len(conclusions))
    return Counter(c.outcome for c in conclusions)


async def _refuse(connection: Connection, batch: Batch, unwritable: Sequence[Conclusion]) -> "Counter[str]":
    if not unwritable:
        return Counter()
    numbers, replies = [c.delivery.number for c in unwritable], [c.reply for c in unwritable]
    status = await connection.execute(SQL.refuse_unsent, *batch.span, numbers, replies)
    _all_or_lost(batch, affected(status), len(unwritable))
    return Counter(refused=len(unwritable))


def _all_or_lost(batch: Batch, written: int, expected: int) -> None:
    if written != expected:  # somebody else has decided about them: roll everything back
        raise LeaseLost(f"batch {batch.number} of sendout {batch.sendout_id}")


async def _move_counters(
    connection: Connection, batch: Batch, moved: Mapping[str, int], lease_seconds: float, flush: UUID | None = None
) -> None:
    amounts = (moved.get(final, 0) for final in ("sent", "refused", "uncertain", "cancelled"))
    await connection.execute(
        SQL.count_outcomes, batch.sendout_id, batch.number, batch.lease_token, *amounts, lease_seconds, flush
    )


async def _settle_codes(connection: Connection, batch: Batch, conclusions: Sequence[Conclusion]) -> None:
    """Codes of refused mails return to their lists, those of sent ones are counted."""
    refused = [c.delivery.number for c in conclusions if c.outcome == "refused" and c.delivery.codes]
    await _free_codes(connection, batch, refused)
    sent = Counter(list_id for c in conclusions if c.outcome == "sent" for list_id in c.delivery.codes)
    if sent:
        await connection.execute(SQL.count_sent, batch.sendout_id, list(sent), list(sent.values()))


async def _free_codes(connection: Connection, batch: Batch, numbers: list[int]) -> None:
    if not numbers:
        return
    freed: list[Any] = await connection.fetch(SQL.free_codes, batch.sendout_id, numbers)
    lists, amounts = [row["list_id"] for row in freed], [row["amount"] for row in freed]
    await connection.fetch(SQL.lock_lists, lists)
    await connection.execute(SQL.give_back, lists, amounts)
    await connection.execute(SQL.unbind, batch.sendout_id, lists, amounts)
