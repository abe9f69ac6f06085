"""Batches of deliveries: claim a batch, assign its codes, record intents and outcomes, release it.

An intent is a committed note that a mail may be handed over. Every write compares the lease's token. No transaction is
open while a mail is handed over.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg
import structlog

from coupons.batching import paced_batch
from coupons.database import Connection, affected
from coupons.errors import LeaseLost, SendingBlocked, WorkStopped
from coupons.sendout_speed import SAMPLE_SECONDS, SAMPLES
from coupons.states import DeliveryState, SendoutState, Shortage
from coupons.store.queries import Queries

SQL = Queries("deliveries.sql")
log = structlog.get_logger()
ABANDONED = "a worker died or lost its lease while handing over this mail"


class NotSending(Exception):
    """The sendout was paused, cancelled or scheduled for later."""


class _TurnTaken(Exception):
    """The sendout has a rate limit, and another worker has just claimed its next batch."""


CLAIM_TRIES = 10
"""If other workers were faster this many times in a row, the worker tries again later."""
GATHER_SECONDS = 10.0
"""Deferred mails of a batch whose times differ by at most this much are retried together."""
RETRIED_STATES = (DeliveryState.DEFERRED, DeliveryState.UNCERTAIN)
"""The states after which another attempt may follow."""


@dataclass(frozen=True, slots=True)
class Batch:
    sendout_id: UUID
    number: int
    first_delivery: int
    last_delivery: int
    lease_token: UUID
    sendout_state: SendoutState
    waiting_reason: str | None = None
    """Why the sendout makes no progress, as the Outbox shows it."""
    rest_held: bool = False
    """The batch belongs to the first part of a sendout, after which the sendout pauses."""
    per_hour: float | None = None
    """The sendout's rate limit. Once it changes, no more mails of this batch are handed over under this lease."""
    recipients: int = 0
    """The number of recipients of the whole sendout."""

    @property
    def most_mails(self) -> int | None:
        """The number of mails that may be handed over under this lease; None for no limit."""
        if self.per_hour is None:
            return None
        return paced_batch(self.last_delivery - self.first_delivery + 1, self.per_hour)

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
    """One mail to be rendered. `codes` maps list ids to codes; it lacks the lists that have no code for this mail."""

    number: int
    address: str
    attributes: Mapping[str, str]
    attempts: int
    was_uncertain: bool = False
    """An earlier mail may have arrived, so the codes stay with this recipient."""
    deferred_for: float | None = None
    """Seconds since the first deferral or the sendout's last resume; None if the mail was never deferred."""
    was_resumed: bool = False
    """The sendout was resumed after the first deferral."""
    codes: dict[int, str] = field(default_factory=dict, repr=False)
    lists: Collection[int] | None = None
    """The ids of the lists that the mail needs; None: all lists of the message."""

    def needs(self, list_id: int) -> bool:
        return self.lists is None or list_id in self.lists

    def limited_to(self, list_ids: Collection[int]) -> "Delivery":
        """Return the delivery with only these lists: its mail needs no other list, and it has no code of another."""
        codes = {each: code for each, code in self.codes.items() if each in list_ids}
        return replace(self, lists=list_ids, codes=codes)


@dataclass(frozen=True, slots=True)
class Assignment:
    """`complete` is True once each delivery has its codes or no reserved codes are left.

    If it is False, assign again.
    """

    complete: bool
    cursors: dict[int, int]
    """For each list id, the last coupon id that was assigned. The next assignment begins after it."""


NO_CURSORS: Mapping[int, int] = {}
NONE_UNUSED: Mapping[int, Sequence[int]] = {}


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The state of a delivery after an attempt, and the relay's reply or why there is none."""

    number: int
    state: DeliveryState
    reply: str
    list_ids: Collection[int] = ()
    """The lists of which the mail has a code."""
    due_in: float | None = None
    """Seconds until a deferred mail is due."""
    attempted: bool = True
    """False if the mail was not handed over because it cannot be rendered."""

    @classmethod
    def of(
        cls,
        delivery: Delivery,
        state: DeliveryState,
        reply: str,
        *,
        due_in: float | None = None,
        attempted: bool = True,
    ) -> Self:
        return cls(delivery.number, state, reply, delivery.codes.keys(), due_in, attempted)


async def claim(
    connection: Connection, *, owner: str, lease_seconds: float, only_stopped: bool = False
) -> Batch | None:
    """Claim a due batch; with `only_stopped`, one of a cancelled or failed sendout. Return None if there is none.

    If a dead worker left mails of the batch in flight, they become uncertain.
    """
    for _ in range(CLAIM_TRIES):
        with suppress(_TurnTaken):
            async with connection.transaction():
                row = await connection.fetchrow(SQL.claim, owner, lease_seconds, only_stopped)
                if row is None:
                    return None
                batch, abandoned = _batch(row), row["abandoned"]
                await _take_turn(connection, batch)
                if not abandoned or await _abandon(connection, batch, abandoned, lease_seconds):
                    return batch
    return None


async def _take_turn(connection: Connection, batch: Batch) -> None:
    is_limited = batch.per_hour and batch.sendout_state == SendoutState.SENDING
    if is_limited and await connection.fetchval(SQL.take_turn, *batch.span, batch.most_mails) is None:
        raise _TurnTaken


async def sample(connection: Connection, batch: Batch) -> None:
    """Store how many outcomes the batch's sendout has now, for its rate."""
    await connection.execute(SQL.sample, batch.sendout_id, SAMPLE_SECONDS, SAMPLES)


def _batch(row: asyncpg.Record) -> Batch:
    return Batch(
        row["sendout_id"],
        row["number"],
        row["first_delivery"],
        row["last_delivery"],
        row["lease_token"],
        SendoutState(row["sendout_state"]),
        row.get("waiting_reason"),
        row.get("rest_held", False),
        row["per_hour"],
        row.get("recipients", 0),
    )


async def recover(connection: Connection, *, owner: str, lease_seconds: float) -> int:
    """Make mails in flight of dead workers uncertain, whatever the state of their sendouts; return how many."""
    count = 0
    while True:
        async with connection.transaction():
            row = await connection.fetchrow(SQL.abandoned, owner, lease_seconds)
            if row is None:
                return count
            batch, abandoned = _batch(row), row["abandoned"]
            if await _abandon(connection, batch, abandoned, lease_seconds):
                await release(connection, batch)
                count += len(abandoned)


async def _abandon(connection: Connection, batch: Batch, numbers: list[int], lease_seconds: float) -> bool:
    """Make these mails of a dead worker uncertain; return False if the database rejects this.

    The batch then keeps its new lease. So it is tried again only after other batches had their turn.
    """
    results = [DeliveryResult(number, DeliveryState.UNCERTAIN, ABANDONED) for number in numbers]
    with suppress(LeaseLost):
        async with connection.transaction():
            await _flush(connection, batch, flush=uuid4(), results=results, lease_seconds=lease_seconds)
            return True
    log.error("mails of a dead worker cannot become uncertain", sendout=str(batch.sendout_id), batch=batch.number)
    return False


async def next_due(connection: Connection) -> float | None:
    """Return the seconds until a batch can be claimed that cannot be claimed now; None if there is none."""
    seconds: float | None = await connection.fetchval(SQL.next_due)
    return seconds


async def list_lists(connection: Connection, sendout_id: UUID) -> list[BatchList]:
    rows = await connection.fetch(SQL.lists, sendout_id)
    return [BatchList(**{**row, "shortage": Shortage(row["shortage"])}) for row in rows]


async def assign_codes(connection: Connection, batch: Batch, cursors: Mapping[int, int] = NO_CURSORS) -> Assignment:
    """Assign a code of each list to each of the batch's deliveries that needs one, up to the number of reserved codes.

    `cursors` come from earlier assignments: a list's available codes begin after its cursor. The codes are reserved. So
    if fewer codes are found than wanted, another transaction locks them or they were returned to the list behind the
    cursor. It never means that the list has too few.

    Raises:
        LeaseLost, NotSending: nothing was assigned.
    """
    complete, moved = True, dict[int, int]()
    async with connection.transaction():
        await _hold(connection, batch)
        if not await connection.fetchval(SQL.hold_sendout, batch.sendout_id):
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


async def read_due(connection: Connection, batch: Batch) -> list[Delivery]:
    """Return the batch's mails that are due, still without their codes; with a rate limit, not more than it allows.

    A worker reads them before it assigns codes. If an operator retries a mail in between, that mail is pending without
    a code, so it must wait until the batch is claimed again.
    """
    return [Delivery(**row) for row in await connection.fetch(SQL.due, *batch.span, batch.most_mails)]


async def add_codes(connection: Connection, batch: Batch, due: Sequence[Delivery], lists: Sequence[BatchList]) -> None:
    """Fill in the assigned codes of these mails."""
    codes = {each.number: each.codes for each in due}
    for row in await connection.fetch(SQL.codes, *batch.span, [each.list_id for each in lists]):
        if (of_mail := codes.get(row["delivery_number"])) is not None:
            of_mail[row["list_id"]] = row["code"]


async def list_due(connection: Connection, batch: Batch, lists: Sequence[BatchList]) -> list[Delivery]:
    """Return the batch's mails that are due, with their codes. No mail may be retried at the same time."""
    due = await read_due(connection, batch)
    await add_codes(connection, batch, due, lists)
    return due


async def record(
    connection: Connection,
    batch: Batch,
    *,
    flush: UUID,
    results: Sequence[DeliveryResult],
    in_flight: Collection[int],
    intents: Sequence[int],
    unused: Mapping[int, Sequence[int]] = NONE_UNUSED,
    lease_seconds: float,
) -> bool:
    """Commit one flush: record the results of mails and the intents to send the next ones.

    `in_flight` has the numbers of mails that were handed over earlier and have no outcome yet. `unused` has, for list
    ids, the numbers of those mails of `intents` that do not print their code of the list; these codes return to the
    list if the mails may be handed over. `flush` is the id of this flush. If a committed flush is repeated with its id,
    it writes nothing and returns the same answer.

    Returns whether the mails of `intents` may be handed over. They may not once the sendout is paused, cancelled or
    scheduled for later, or once its rate limit has changed.

    Raises:
        LeaseLost, SendingBlocked: nothing was written, and no more mails may be handed over.
    """
    async with _whole(connection, results, unused):
        refused = [each.number for each in results if each.state == DeliveryState.REFUSED and each.list_ids]
        if refused or unused:
            returned = _lists_of(results, DeliveryState.REFUSED) | unused.keys()
            sent = _lists_of(results, DeliveryState.SENT)
            await _lock_lists(connection, batch, returned, returned | sent)
        may_send = await _flush(
            connection,
            batch,
            flush=flush,
            results=results,
            in_flight=in_flight,
            intents=intents,
            lease_seconds=lease_seconds,
        )
        if may_send is None:
            return await _answer_again(connection, batch, flush, intents)
        await _free_codes(connection, batch, refused)
        if may_send:
            await _free_unused(connection, batch, unused)
        return may_send


def _whole(
    connection: Connection, results: Sequence[DeliveryResult], unused: Mapping[int, Sequence[int]]
) -> "asyncpg.transaction.Transaction | nullcontext[None]":
    """Return a transaction if the flush needs more than one statement."""
    alone = not unused and all(each.state == DeliveryState.SENT for each in results)
    return nullcontext() if alone else connection.transaction()


def _lists_of(results: Sequence[DeliveryResult], state: DeliveryState) -> set[int]:
    """Return the ids of the lists of which the mails with this result have codes."""
    return {list_id for each in results if each.state == state for list_id in each.list_ids}


async def _lock_lists(
    connection: Connection, batch: Batch, list_ids: Collection[int], counters: Collection[int]
) -> None:
    """Lock lists, then the sendout's counters of all lists that the flush changes. schema.sql defines this order.

    The flush changes counters twice: it counts sent codes, then returns others. Without their locks, it could wait for
    a flush that counts sent codes of the same lists, while that flush waits for this one.
    """
    await _hold(connection, batch)
    await connection.fetch(SQL.lock_lists, list(list_ids))
    await connection.fetch(SQL.lock_counters, batch.sendout_id, list(counters))


async def _answer_again(connection: Connection, batch: Batch, flush: UUID, intents: Sequence[int]) -> bool:
    held = await _hold(connection, batch)
    if held["last_flush"] != flush:
        raise _lost(batch)
    return {*intents} <= {*held["in_flight"]}


async def close(connection: Connection, batch: Batch) -> int:
    """Close a batch of a cancelled or failed sendout; return how many deliveries were cancelled. Raises LeaseLost."""
    async with connection.transaction():
        await _hold(connection, batch)
        rows = await connection.fetch(SQL.cancel, *batch.span)
        cancelled = [row["number"] for row in rows if row["state"] == DeliveryState.CANCELLED]
        await connection.execute(SQL.close, *batch.key, len(cancelled), len(rows) - len(cancelled))
        await _free_codes(connection, batch, cancelled)
        return len(cancelled)


async def release(connection: Connection, batch: Batch, *, not_within: float = 0) -> None:
    """Release the batch. It is due again when its next delivery is due, but not within `not_within` seconds."""
    async with connection.transaction():
        await connection.execute(SQL.lock_batch, *batch.key)
        await connection.execute(SQL.release, *batch.key, not_within, GATHER_SECONDS)


async def renew(connection: Connection, batch: Batch, *, lease_seconds: float) -> None:
    """Renew the batch's lease. Raises LeaseLost."""
    row = await connection.fetchval(SQL.renew, *batch.key, lease_seconds)
    if row is None:
        raise _lost(batch)


def _lost(batch: Batch) -> LeaseLost:
    return LeaseLost(f"batch {batch.number} of sendout {batch.sendout_id}")


async def _why_lost(connection: Connection, batch: Batch) -> WorkStopped:
    if not await connection.fetchval(SQL.accepted):
        return SendingBlocked(f"batch {batch.number} of sendout {batch.sendout_id}")
    return _lost(batch)


async def _hold(connection: Connection, batch: Batch) -> asyncpg.Record:
    held = await connection.fetchrow(SQL.hold, *batch.key)
    if held is None:
        raise await _why_lost(connection, batch)
    return held


async def _flush(
    connection: Connection,
    batch: Batch,
    *,
    flush: UUID,
    results: Sequence[DeliveryResult],
    in_flight: Collection[int] = (),
    intents: Sequence[int] = (),
    lease_seconds: float,
) -> bool | None:
    """Return whether the sendout is sending; None if the lease is lost or the flush was already committed."""
    sent = Counter(list_id for each in results if each.state == DeliveryState.SENT for list_id in each.list_ids)
    try:
        may_send: bool | None = await connection.fetchval(
            SQL.flush,
            *batch.key,
            flush,
            list(in_flight),
            intents,
            [each.number for each in results],
            [each.state for each in results],
            [each.reply for each in results],
            [int(each.attempted) for each in results],
            [each.due_in for each in results],
            [*sent],
            [*sent.values()],
            lease_seconds,
            batch.per_hour,
        )
    except asyncpg.CheckViolationError as error:  # another worker has settled some of these mails
        raise _lost(batch) from error
    if may_send is not None and (log := [each.number for each in results if each.state in RETRIED_STATES]):
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


async def _free_unused(connection: Connection, batch: Batch, unused: Mapping[int, Sequence[int]]) -> None:
    """Return codes that mails do not print to their lists. The caller has locked the lists and the counters."""
    for list_id, numbers in sorted(unused.items()):
        freed = affected(await connection.execute(SQL.free_unused, batch.sendout_id, list_id, numbers))
        if freed != len(numbers):
            raise _lost(batch)
        await connection.execute(SQL.give_back, [list_id], [freed])
        await connection.execute(SQL.unassign, batch.sendout_id, [list_id], [freed])
        await connection.execute(SQL.unneed, batch.sendout_id, list_id, numbers)
