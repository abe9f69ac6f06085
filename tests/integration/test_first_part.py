"""A sendout with a first part hands over exactly these mails, then pauses; a resume mails the rest."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from coupons.commands import StartSendout
from coupons.database import Connection, connect
from coupons.states import DeliveryState
from coupons.store import deliveries, sendout_views, sendouts
from coupons.store.deliveries import Batch, DeliveryResult
from coupons.store.sendout_views import Sendout
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, resume, save_message
from tests.waiting import until

EXPIRE = "UPDATE delivery_batch SET lease_until = now() - interval '1 second' WHERE lease_token IS NOT NULL"


async def start_with_first(
    connection: Connection, first: int, *, recipients: int = 50, batch_size: int = 8, **options: object
) -> UUID:
    await add_list(connection, "a", recipients)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    command = StartSendout.model_validate({"id": uuid4(), "message": "m", "group": "g", "first": first, **options})
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=batch_size)
    await prepare(connection, batch_size=batch_size)
    return command.id


async def claim(connection: Connection) -> Batch | None:
    return await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def send(
    connection: Connection, batch: Batch, state: DeliveryState = DeliveryState.SENT, *, only: int | None = None
) -> int:
    """Hand over the due mails of a batch, as a worker does, release the batch, and return how many mails they were."""
    await until(lambda: _assigned(connection, batch), "codes for the batch")
    due = (await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id)))[
        :only
    ]
    intents = [each.number for each in due]
    if not await _flush(connection, batch, intents=intents):
        return 0
    later = 600 if state == DeliveryState.DEFERRED else None
    results = [DeliveryResult.of(each, state, "250 ok", due_in=later) for each in due]
    await _flush(connection, batch, results=results)
    await deliveries.release(connection, batch)
    await sendouts.pause_after_first(connection, batch.sendout_id)
    return len(due)


async def _assigned(connection: Connection, batch: Batch) -> bool:
    return (await deliveries.assign_codes(connection, batch)).complete


async def _flush(
    connection: Connection, batch: Batch, *, intents: list[int] | None = None,
    results: list[DeliveryResult] | None = None,
) -> bool:  # fmt: skip
    return await deliveries.record(
        connection, batch, flush=uuid4(), results=results or [], in_flight=[], intents=intents or [],
        lease_seconds=LEASE_SECONDS,
    )  # fmt: skip


async def send_all(connection: Connection, state: DeliveryState = DeliveryState.SENT) -> int:
    """Send until no batch can be claimed, and return the number of mails."""
    mails = 0
    while batch := await claim(connection):
        mails += await send(connection, batch, state)
    return mails


async def view(connection: Connection, sendout_id: UUID) -> Sendout:
    return await sendout_views.get(connection, sendout_id)


@pytest.mark.parametrize("first", [1, 7, 8, 20])
async def test_exactly_the_first_part_is_handed_over(connection: Connection, first: int) -> None:
    """The first part need not be a multiple of the batch size. The codes of all recipients are reserved."""
    sendout_id = await start_with_first(connection, first)
    assert [each.reserved for each in (await view(connection, sendout_id)).lists] == [50]
    assert await send_all(connection) == first
    paused = await view(connection, sendout_id)
    assert (paused.state, paused.sent, paused.remaining, paused.is_first_mailed) == ("paused", first, 50 - first, True)
    who = "recipient was" if first == 1 else f"{first} recipients were"
    how = f"resume with `coupons resume {sendout_id}`"
    assert paused.reason == f"the first {who} mailed; look at the result, then {how}"
    assert await claim(connection) is None
    await resume(connection, sendout_id)
    assert await send_all(connection) == 50 - first
    assert await sendouts.settle(connection, sendout_id)
    assert (await view(connection, sendout_id)).sent == 50


async def test_a_first_part_of_all_recipients_does_not_pause(connection: Connection) -> None:
    """A first part that is not smaller than the audience has no rest."""
    sendout_id = await start_with_first(connection, 50)
    assert await send_all(connection) == 50
    assert await sendouts.pause_after_first(connection) == []
    assert await sendouts.settle(connection, sendout_id)


async def test_several_workers_hand_over_exactly_the_first_part(connection: Connection, database_url: str) -> None:
    """Four workers that claim batches at the same time send 20 mails together, and the sendout is paused once."""
    sendout_id = await start_with_first(connection, 20, batch_size=3)

    async def worker() -> int:
        async with connect(database_url) as own:
            return await send_all(own)

    assert sum(await asyncio.gather(*(worker() for _ in range(4)))) == 20
    assert (await view(connection, sendout_id)).is_first_mailed


@pytest.mark.parametrize("state", [DeliveryState.DEFERRED, DeliveryState.REFUSED, DeliveryState.UNCERTAIN])
async def test_mails_that_were_not_sent_count_as_tried(connection: Connection, state: DeliveryState) -> None:
    """The first part does not wait for deferred mails; they are sent with the rest after the resume."""
    sendout_id = await start_with_first(connection, 20)
    assert await send_all(connection, state) == 20
    paused = await view(connection, sendout_id)
    assert (paused.state, paused.sent) == ("paused", 0)
    await resume(connection, sendout_id)
    await connection.execute("UPDATE delivery_batch SET due_at = now()")
    await connection.execute("UPDATE delivery SET due_at = now() WHERE state = 'deferred'")
    assert await send_all(connection) == (50 if state == DeliveryState.DEFERRED else 30)


async def test_mails_that_were_not_handed_over_are_not_tried(connection: Connection) -> None:
    """If the relay cannot be reached, the sendout goes on with its first part later."""
    sendout_id = await start_with_first(connection, 20)
    batch = await claim(connection)
    assert batch
    assert await send(connection, batch, only=3) == 3
    assert (await view(connection, sendout_id)).state == "sending"
    assert await send_all(connection) == 17
    assert (await view(connection, sendout_id)).is_first_mailed


async def test_the_first_part_does_not_end_while_mails_are_in_flight(connection: Connection) -> None:
    """Deferred mails are handed over again, and their worker dies. Once they are uncertain, the sendout pauses."""
    sendout_id = await start_with_first(connection, 8)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    deferred = [DeliveryResult.of(each, DeliveryState.DEFERRED, "450 later", due_in=0) for each in due]
    await _flush(connection, batch, results=deferred)
    assert await _flush(connection, batch, intents=[*range(1, 9)])
    assert await sendouts.pause_after_first(connection) == []
    await connection.execute(EXPIRE)
    assert await sendouts.pause_after_first(connection) == []
    await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert await sendouts.pause_after_first(connection) == [sendout_id]
    found = await view(connection, sendout_id)
    assert (found.uncertain, found.remaining, found.is_first_mailed) == (8, 42, True)


async def test_the_sweep_pauses_a_sendout_whose_worker_died(connection: Connection) -> None:
    """A worker may die after it recorded the last outcome of the first part. No batch of the rest is claimed then."""
    sendout_id = await start_with_first(connection, 8)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    await _flush(connection, batch, results=[DeliveryResult.of(each, DeliveryState.SENT, "250 ok") for each in due])
    await connection.execute(EXPIRE)
    assert await claim(connection) is None
    assert await sendouts.pause_after_first(connection) == [sendout_id]


async def test_another_pause_does_not_release_the_rest(connection: Connection) -> None:
    """After a resume, the sendout continues its first part, and pauses once each of its mails was tried."""
    sendout_id = await start_with_first(connection, 20)
    batch = await claim(connection)
    assert batch
    assert await send(connection, batch) == 8
    await sendouts.pause(connection, sendout_id, "paused by an operator")
    assert not (await view(connection, sendout_id)).is_first_mailed
    await resume(connection, sendout_id)
    assert await send_all(connection) == 12
    assert (await view(connection, sendout_id)).is_first_mailed


async def test_a_pause_after_the_last_mail_does_not_release_the_rest(connection: Connection) -> None:
    """An operator may pause before a worker notices the end of the first part; the resume then pauses again."""
    sendout_id = await start_with_first(connection, 8)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    await _flush(connection, batch, results=[DeliveryResult.of(each, DeliveryState.SENT, "250 ok") for each in due])
    await sendouts.pause(connection, sendout_id, "paused by an operator")
    await deliveries.release(connection, batch)
    assert await sendouts.pause_after_first(connection) == []
    await resume(connection, sendout_id)
    assert await claim(connection) is None
    assert await sendouts.pause_after_first(connection) == [sendout_id]


async def test_a_cancelled_sendout_closes_the_batches_of_the_rest(connection: Connection) -> None:
    """The codes of all mails that were not sent return to their list."""
    sendout_id = await start_with_first(connection, 8)
    await send_all(connection)
    await sendouts.cancel(connection, sendout_id)
    while batch := await claim(connection):
        await deliveries.close(connection, batch)
        await deliveries.release(connection, batch)
    assert await sendouts.settle(connection, sendout_id)
    found = await view(connection, sendout_id)
    assert (found.sent, found.cancelled, [each.available for each in found.lists]) == (8, 42, [42])


async def test_the_first_part_keeps_the_start_time_and_the_rate(connection: Connection) -> None:
    """The rate is that of the whole sendout. While the rest is held, workers wait for the first part alone."""
    start_at = datetime.now(UTC) + timedelta(hours=2)
    await start_with_first(connection, 3, batch_size=1_000, start_at=start_at, per_hour=3_600)
    assert await claim(connection) is None
    assert await deliveries.next_due(connection) == pytest.approx(7_200, abs=60)
    await connection.execute("UPDATE sendout SET next_batch_at = now(), start_at = now(), started_at = now()")
    batch = await claim(connection)
    assert batch
    assert batch.last_delivery == 3
    assert await claim(connection) is None
    assert await send(connection, batch) == 3


async def test_workers_do_not_wait_for_the_rest(connection: Connection) -> None:
    """A deferred mail of the first part is due in ten minutes. The batches of the rest, which are due, do not count."""
    sendout_id = await start_with_first(connection, 8)
    batch = await claim(connection)
    assert batch
    await connection.execute("UPDATE delivery_batch SET due_at = now() + interval '10 minutes' WHERE number = 1")
    await deliveries.release(connection, batch, not_within=600)
    assert await claim(connection) is None
    assert await deliveries.next_due(connection) == pytest.approx(600, abs=60)
    assert (await view(connection, sendout_id)).state == "sending"
