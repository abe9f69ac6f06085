"""Each fence of a batch, by itself: who holds it, who may write, and what is locked meanwhile, in which order."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from coupons.commands import StartSendout
from coupons.database import Connection, connected
from coupons.errors import LeaseLost, SendingBlocked
from coupons.states import DeliveryState, Shortage
from coupons.store import deliveries, lists, sendout_views, sendouts, uncertain
from coupons.store.deliveries import Batch, Delivery, DeliveryResult
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, save_message, start
from tests.locks import AT_ONCE_SECONDS, locked, until_blocked
from tests.waiting import until
from workers.delivery.policy import refused

OVER = "UPDATE delivery_batch SET lease_until = now() - interval '1 s'"
BACK_IN_TIME = "UPDATE restore_guard SET ended_at = now()"


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connected(database_url) as connection:
        yield connection


async def started(
    connection: Connection, *of_lists: str, codes: int = 10, recipients: int = 10, batch_size: int = 1_000
) -> UUID:
    names = of_lists or ("a",)
    for name in names:
        await add_list(connection, name, codes)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", *names)
    return await begun(connection, batch_size=batch_size)


async def begun(connection: Connection, *, batch_size: int = 1_000) -> UUID:
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=batch_size)
    return sendout_id


async def claim(connection: Connection, *, lease_seconds: float = LEASE_SECONDS) -> Batch | None:
    return await deliveries.claim(connection, owner="test", lease_seconds=lease_seconds)


async def held(connection: Connection, *, lease_seconds: float = LEASE_SECONDS) -> Batch:
    batch = await claim(connection, lease_seconds=lease_seconds)
    assert batch
    return batch


async def bound(connection: Connection, *, lease_seconds: float = LEASE_SECONDS) -> tuple[Batch, list[Delivery]]:
    """A batch whose mails can be written."""
    batch = await held(connection, lease_seconds=lease_seconds)
    assert (await deliveries.assign_codes(connection, batch)).complete
    return batch, await deliveries.due(connection, batch, await deliveries.lists_of(connection, batch.sendout_id))


async def record(
    connection: Connection,
    batch: Batch,
    *results: DeliveryResult,
    flush: UUID | None = None,
    in_flight: tuple[int, ...] = (),
    intents: tuple[int, ...] = (),
) -> bool:
    return await deliveries.record(
        connection,
        batch,
        flush=flush or uuid4(),
        results=results,
        in_flight=in_flight,
        intents=intents,
        lease_seconds=LEASE_SECONDS,
    )


def become(delivery: Delivery, state: DeliveryState) -> DeliveryResult:
    return DeliveryResult.of(
        delivery, state, "the relay's reply", due_in=60 if state == DeliveryState.DEFERRED else None
    )


async def bound_codes(connection: Connection, name: str = "a") -> int:
    (found,) = await lists.named(connection, name)
    return found.assigned


# --- whose a batch is ------------------------------------------------------------------------------------------------


async def test_a_batch_that_is_held_is_nobody_elses(connection: Connection, other: Connection) -> None:
    """Until its lease is over."""
    await started(connection)
    await held(connection)
    assert await claim(other) is None
    await connection.execute(OVER)
    assert await claim(other)


async def test_a_batch_that_is_just_being_claimed_is_passed_by(connection: Connection, other: Connection) -> None:
    """Nobody gets it, and nobody waits for it."""
    await started(connection)
    async with other.transaction():
        await held(other)
        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert await claim(connection) is None


async def test_a_batch_that_was_handed_back_for_later_waits(connection: Connection) -> None:
    """Whoever looks is told for how long."""
    await started(connection)
    await deliveries.release(connection, await held(connection), not_within=60)
    assert await claim(connection) is None
    assert await deliveries.next_due(connection) == pytest.approx(60, abs=5)


async def test_while_no_relay_can_be_used_only_cancelled_ones_are_closed(connection: Connection) -> None:
    """A batch that cannot be mailed now is left alone, whatever its sendout was mailed before."""
    await started(connection, codes=20)
    cancelled = await begun(connection)
    await sendouts.cancel(connection, cancelled)
    closing = [
        await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS, only_cancelled=True)
        for _ in range(2)
    ]
    assert [batch and batch.sendout_id for batch in closing] == [cancelled, None]


async def test_a_turn_is_given_once(connection: Connection, other: Connection) -> None:
    """Whoever looks at a sendout that keeps a pace, while its turn is just being taken, waits and goes without."""
    await add_list(connection, "a", 100)
    await add_group(connection, "g", 100)
    await save_message(connection, "m", "a")
    async with connection.transaction():
        await sendouts.create(connection, StartSendout(message="m", group="g", per_hour=3_600), batch_size=1_000)
    await prepare(connection)
    async with other.transaction():
        await held(other)
        looking = asyncio.create_task(claim(connection))
        await until_blocked(other)
    assert await looking is None


async def test_nothing_is_claimed_from_data_that_nobody_has_accepted(connection: Connection) -> None:
    """Nor is anything decided about mails in a dead worker's hands: they may have been sent since, or never."""
    await started(connection, batch_size=5)
    batch, _ = await bound(connection)
    await record(connection, batch, intents=(1, 2))
    await connection.execute(OVER)
    await connection.execute(BACK_IN_TIME)
    assert await claim(connection) is None
    assert await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS) == 0


# --- who may write ---------------------------------------------------------------------------------------------------


async def test_a_lease_that_is_over_is_lost_before_anybody_takes_it(connection: Connection) -> None:
    """Its worker binds, records, closes and renews nothing: it was told when it had to stop."""
    await started(connection)
    batch, (first, *_) = await bound(connection)
    await connection.execute(OVER)
    with pytest.raises(LeaseLost):
        await deliveries.assign_codes(connection, batch)
    with pytest.raises(LeaseLost):
        await record(connection, batch, become(first, DeliveryState.SENT))
    with pytest.raises(LeaseLost):
        await deliveries.close(connection, batch)
    with pytest.raises(LeaseLost):
        await deliveries.renew(connection, batch, lease_seconds=LEASE_SECONDS)


async def test_whoever_lost_a_batch_does_not_hand_it_back(connection: Connection, other: Connection) -> None:
    """It is another worker's, and stays that."""
    await started(connection)
    lost = await held(connection)
    await connection.execute(OVER)
    batch = await held(other)
    await deliveries.release(connection, lost)
    assert await claim(connection) is None
    await deliveries.renew(other, batch, lease_seconds=LEASE_SECONDS)


async def test_whoever_lost_a_batch_records_nothing(connection: Connection, other: Connection) -> None:
    """Nor does it say what it means to hand over: both are the new worker's to decide."""
    await started(connection)
    lost, (first, *_) = await bound(connection)
    await connection.execute(OVER)
    await held(other)
    with pytest.raises(LeaseLost):
        await record(connection, lost, become(first, DeliveryState.SENT))
    with pytest.raises(LeaseLost):
        await record(connection, lost, intents=(2,))


async def test_a_worker_of_data_that_nobody_accepts_any_more_writes_nothing(connection: Connection) -> None:
    """The restore guard stops it, and the error says so: no other worker has taken its lease."""
    await started(connection)
    batch, (first, *_) = await bound(connection)
    await connection.execute(BACK_IN_TIME)
    with pytest.raises(SendingBlocked):
        await deliveries.assign_codes(connection, batch)
    with pytest.raises(SendingBlocked):
        await record(connection, batch, become(first, DeliveryState.SENT), intents=(2,))


async def test_a_batch_that_is_being_bound_is_not_taken_when_its_lease_ends(
    connection: Connection, other: Connection
) -> None:
    """However long the binding takes: who comes meanwhile passes by."""
    await started(connection)
    batch = await held(connection, lease_seconds=0.5)
    async with connection.transaction():
        assert (await deliveries.assign_codes(connection, batch)).complete
        await until_over(other)
        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert await claim(other) is None


async def test_a_batch_that_is_being_flushed_is_not_taken_when_its_lease_ends(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """A flush that has begun under the lease comes to its end under it."""
    await started(connection)
    batch, (first, *_) = await bound(connection, lease_seconds=0.5)
    async with locked(third, "delivery WHERE number = 1"):
        flushing = asyncio.create_task(record(connection, batch, become(first, DeliveryState.SENT)))
        await until_blocked(third)
        await until_over(other)
        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert await claim(other) is None
    assert await flushing


async def until_over(connection: Connection) -> None:
    await until(lambda: connection.fetchval("SELECT lease_until < now() FROM delivery_batch"), "the lease to expire")


# --- codes -----------------------------------------------------------------------------------------------------------


async def test_a_sendout_is_not_paused_in_the_middle_of_a_binding(connection: Connection, other: Connection) -> None:
    """Nor cancelled: whoever wants that waits until the codes are bound."""
    sendout_id = await started(connection)
    batch = await held(connection)
    async with connection.transaction():
        assert (await deliveries.assign_codes(connection, batch)).complete
        pausing = asyncio.create_task(sendouts.pause(other, sendout_id, "by a test"))
        await until_blocked(connection)
    await pausing
    assert (await sendout_views.named(connection, sendout_id)).state == "paused"


async def short_of_codes(connection: Connection, *, recipients: int, codes: int, batch_size: int = 1_000) -> UUID:
    """Some recipients get the list's alternative text."""
    await add_list(connection, "a", codes, shortage=Shortage.TEXT)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    return await begun(connection, batch_size=batch_size)


async def test_two_workers_bind_no_more_than_was_promised(connection: Connection, other: Connection) -> None:
    """Six codes for ten recipients, and others free by now: the second worker binds what the first has left."""
    await short_of_codes(connection, recipients=10, codes=6, batch_size=5)
    await add_codes(connection, "a", [f"LATER-{number}" for number in range(10)])
    first, second = await held(connection), await held(other)
    async with connection.transaction():
        assert (await deliveries.assign_codes(connection, first)).complete
        assigning = asyncio.create_task(deliveries.assign_codes(other, second))
        await until_blocked(connection)
    assert (await assigning).complete
    assert await bound_codes(connection) == 6


async def test_a_sendout_takes_no_code_that_another_was_promised(connection: Connection) -> None:
    """Six codes, four and two of them promised: whoever binds first takes its own number."""
    await short_of_codes(connection, recipients=4, codes=6)
    poorer = await begun(connection)
    batches = {batch.sendout_id: batch for batch in (await held(connection), await held(connection))}
    assert (await deliveries.assign_codes(connection, batches[poorer])).complete
    assert await bound_codes(connection) == 2


async def test_a_refused_recipient_gets_no_other_code(connection: Connection) -> None:
    """The batch is bound again when it goes on; the codes that are left are those of other batches."""
    await started(connection, codes=20, batch_size=5)
    batch, (first, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.REFUSED))
    assert (await deliveries.assign_codes(connection, batch)).complete
    assert await bound_codes(connection) == 4


async def test_a_deferred_mail_keeps_its_code(connection: Connection) -> None:
    """And is not tried before it is due."""
    sendout_id = await started(connection)
    batch, (first, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.DEFERRED))
    owner = "SELECT delivery_number FROM coupon WHERE code = $1"
    assert await connection.fetchval(owner, first.codes[1]) == first.number
    due = await deliveries.due(connection, batch, await deliveries.lists_of(connection, sendout_id))
    assert [each.number for each in due] == list(range(2, 11))


# --- outcomes --------------------------------------------------------------------------------------------------------


async def test_what_has_its_outcome_keeps_it(connection: Connection) -> None:
    """A flush that says otherwise, even about one of several mails, is not done at all."""
    sendout_id = await started(connection)
    batch, (first, second, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.SENT))
    for again in (
        (become(first, DeliveryState.SENT),),
        (become(second, DeliveryState.SENT), become(first, DeliveryState.UNCERTAIN)),
    ):
        with pytest.raises(LeaseLost):
            await record(connection, batch, *again)
    found = await sendout_views.named(connection, sendout_id)
    assert (found.sent, found.remaining, found.uncertain) == (1, 9, 0)


async def test_what_has_no_outcome_yet_stays_in_hand(connection: Connection) -> None:
    """A worker that dies after the next flush leaves both: what it had, and what it meant to hand over."""
    await started(connection)
    batch, (first, *_) = await bound(connection)
    await record(connection, batch, intents=(1, 2))
    await record(connection, batch, become(first, DeliveryState.SENT), in_flight=(2,), intents=(3,))
    assert await connection.fetchval("SELECT in_flight FROM delivery_batch") == [2, 3]


async def test_a_flush_that_permitted_nothing_says_so_again(connection: Connection) -> None:
    """Its first answer was lost; nothing is handed over on the second."""
    sendout_id = await started(connection)
    batch, _ = await bound(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    flush = uuid4()
    assert [await record(connection, batch, flush=flush, intents=(1,)) for _ in range(2)] == [False, False]


async def test_a_refusal_and_the_return_of_its_code_are_one(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the code cannot be given back, the mail is not refused either: it is flushed again."""
    await started(connection)
    batch, (first, *_) = await bound(connection)

    async def fails(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "_free_codes", fails)
        with pytest.raises(ConnectionResetError):
            await record(connection, batch, become(first, DeliveryState.REFUSED))
    assert await connection.fetchval("SELECT state FROM delivery WHERE number = 1") == "pending"


async def test_a_mail_that_cannot_be_written_any_more_stays_uncertain(connection: Connection) -> None:
    """It was sent once, perhaps; that it could not even be tried again changes nothing, and adds no answer."""
    sendout_id = await started(connection)
    batch, (first, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.UNCERTAIN))
    await uncertain.resolve(connection, sendout_id, "resend")
    again, *_ = await deliveries.due(connection, batch, await deliveries.lists_of(connection, sendout_id))
    await record(connection, batch, refused(again, "the message lacks an attribute", attempted=False))
    assert (await sendout_views.named(connection, sendout_id)).uncertain == 1
    assert await connection.fetchval("SELECT count(*) FROM delivery_attempt") == 1


# --- in which order locks are taken ----------------------------------------------------------------------------------


async def test_lists_are_locked_in_one_order(connection: Connection, other: Connection, third: Connection) -> None:
    """Of several lists the first comes first: whoever waits for it holds none of the others."""
    await started(connection, "a", "b")
    batch, (first, *_) = await bound(connection)
    async with locked(other, "sendout_list WHERE list_id = 1"):
        flushing = asyncio.create_task(record(connection, batch, become(first, DeliveryState.SENT)))
        await until_blocked(other)
        async with locked(third, "sendout_list WHERE list_id = 2"):
            pass
    assert await flushing


async def test_codes_come_back_in_the_order_of_locks(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """The list comes before what the sendout holds of it: whoever waits for the list holds nothing of that."""
    await started(connection)
    batch, (first, second, *_) = await bound(connection)
    async with locked(other, "coupon_list"):
        flushing = asyncio.create_task(
            record(connection, batch, become(first, DeliveryState.SENT), become(second, DeliveryState.REFUSED))
        )
        await until_blocked(other)
        async with locked(third, "sendout_list"):
            pass
    assert await flushing


async def test_uncertain_mails_are_decided_about_in_the_order_of_locks(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """Batches come before their sendout: whoever waits for a batch does not hold the sendout."""
    sendout_id = await started(connection)
    batch, (first, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.UNCERTAIN))
    async with locked(other, "delivery_batch"):
        resolving = asyncio.create_task(uncertain.resolve(connection, sendout_id, "resend"))
        await until_blocked(other)
        async with locked(third, "sendout"):
            pass
    assert await resolving == 1


# --- uncertain ones and the end --------------------------------------------------------------------------------------


async def test_what_was_tried_often_enough_is_left_to_a_person(connection: Connection) -> None:
    """Where the setting decides, it decides no more."""
    await started(connection)
    batch, (first, second, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.UNCERTAIN), become(second, DeliveryState.UNCERTAIN))
    await connection.execute("UPDATE delivery SET attempts = $1 WHERE number = 1", uncertain.MOST_ATTEMPTS)
    assert await uncertain.resolve_all(connection, "resend") == 1


async def test_resolving_does_not_end_a_pause(connection: Connection) -> None:
    """Mails that are to be sent again wait for whoever paused the sendout, as the others do."""
    sendout_id = await started(connection)
    batch, (first, *_) = await bound(connection)
    await record(connection, batch, become(first, DeliveryState.UNCERTAIN))
    await sendouts.pause(connection, sendout_id, "by a test")
    assert await uncertain.resolve(connection, sendout_id, "resend") == 1
    assert (await sendout_views.named(connection, sendout_id)).state == "paused"


async def test_a_sendout_does_not_end_while_it_is_resolved(connection: Connection, other: Connection) -> None:
    """Whoever is about to finish it waits, and then sees that a mail is to be sent again."""
    sendout_id = await started(connection)
    batch, due = await bound(connection)
    await record(connection, batch, *(become(each, DeliveryState.UNCERTAIN) for each in due))
    async with other.transaction():
        assert await uncertain.resolve(other, sendout_id, "resend") == 10
        settling = asyncio.create_task(sendouts.settle(connection, sendout_id))
        await until_blocked(other)
    assert not await settling
