"""The fences of a batch one by one: its lease, writes under the lease, and the order of locks."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from coupons.commands import StartSendout
from coupons.database import Connection, connect
from coupons.errors import LeaseLost, SendingBlocked
from coupons.states import DeliveryState, Shortage
from coupons.store import deliveries, lists, sendout_views, sendouts, uncertain
from coupons.store.deliveries import Batch, Delivery, DeliveryResult
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, save_message, start
from tests.locks import lock_rows, until_blocked, without_waiting
from tests.waiting import until
from workers.delivery.policy import refused

EXPIRE = "UPDATE delivery_batch SET lease_until = now() - interval '1 s'"
REVOKE_ACCEPTANCE = "UPDATE restore_guard SET ended_at = now()"


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


async def start_sendout(
    connection: Connection, *of_lists: str, codes: int = 10, recipients: int = 10, batch_size: int = 1_000
) -> UUID:
    names = of_lists or ("a",)
    for name in names:
        await add_list(connection, name, codes)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", *names)
    return await start_prepared(connection, batch_size=batch_size)


async def start_prepared(connection: Connection, *, batch_size: int = 1_000) -> UUID:
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=batch_size)
    return sendout_id


async def claim(connection: Connection, *, lease_seconds: float = LEASE_SECONDS) -> Batch | None:
    return await deliveries.claim(connection, owner="test", lease_seconds=lease_seconds)


async def claim_batch(connection: Connection, *, lease_seconds: float = LEASE_SECONDS) -> Batch:
    batch = await claim(connection, lease_seconds=lease_seconds)
    assert batch
    return batch


async def claim_assigned(
    connection: Connection, *, lease_seconds: float = LEASE_SECONDS
) -> tuple[Batch, list[Delivery]]:
    """Claim a batch and assign its codes."""
    batch = await claim_batch(connection, lease_seconds=lease_seconds)
    assert (await deliveries.assign_codes(connection, batch)).complete
    return batch, await deliveries.list_due(
        connection, batch, await deliveries.list_lists(connection, batch.sendout_id)
    )


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


def result(delivery: Delivery, state: DeliveryState) -> DeliveryResult:
    return DeliveryResult.of(
        delivery, state, "the relay's reply", due_in=60 if state == DeliveryState.DEFERRED else None
    )


async def count_assigned(connection: Connection, name: str = "a") -> int:
    (found,) = await lists.get(connection, name)
    return found.assigned


# --- claiming ------------------------------------------------------------------------------------------------------


async def test_a_leased_batch_is_not_claimed_again(connection: Connection, other: Connection) -> None:
    """Another worker can claim the batch once the lease has expired."""
    await start_sendout(connection)
    await claim_batch(connection)
    assert await claim(other) is None
    await connection.execute(EXPIRE)
    assert await claim(other)


async def test_a_batch_that_is_being_claimed_is_skipped(connection: Connection, other: Connection) -> None:
    """A second worker neither claims the batch nor waits for it."""
    await start_sendout(connection)
    async with other.transaction():
        await claim_batch(other)
        assert await without_waiting(other, connection, claim(connection)) is None


async def test_a_batch_released_for_later_is_not_claimed_before(connection: Connection) -> None:
    """Until the batch is due, `next_due` returns the remaining time."""
    await start_sendout(connection)
    await deliveries.release(connection, await claim_batch(connection), not_within=60)
    assert await claim(connection) is None
    assert await deliveries.next_due(connection) == pytest.approx(60, abs=5)


async def test_without_a_relay_only_batches_of_cancelled_sendouts_are_claimed(connection: Connection) -> None:
    """Other batches stay unclaimed, whichever sendout was mailed last."""
    await start_sendout(connection, codes=20)
    cancelled = await start_prepared(connection)
    await sendouts.cancel(connection, cancelled)
    closing = [
        await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS, only_stopped=True)
        for _ in range(2)
    ]
    assert [batch and batch.sendout_id for batch in closing] == [cancelled, None]


async def test_a_rate_limited_batch_is_claimed_once(connection: Connection, other: Connection) -> None:
    """A second worker that looks for a batch during the claim waits, and then gets none."""
    await add_list(connection, "a", 100)
    await add_group(connection, "g", 100)
    await save_message(connection, "m", "a")
    async with connection.transaction():
        await sendouts.create(connection, StartSendout(message="m", group="g", per_hour=3_600), batch_size=1_000)
    await prepare(connection)
    async with other.transaction():
        await claim_batch(other)
        looking = asyncio.create_task(claim(connection))
        await until_blocked(other, looking)
    assert await looking is None


async def test_no_batch_of_unaccepted_data_is_claimed(connection: Connection) -> None:
    """Mails in flight of dead workers are not resolved either: they may or may not have been sent since the backup."""
    await start_sendout(connection, batch_size=5)
    batch, _ = await claim_assigned(connection)
    await record(connection, batch, intents=(1, 2))
    await connection.execute(EXPIRE)
    await connection.execute(REVOKE_ACCEPTANCE)
    assert await claim(connection) is None
    assert await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS) == 0


# --- writing under a lease -----------------------------------------------------------------------------------------


async def test_an_expired_lease_is_lost_before_another_worker_claims_it(connection: Connection) -> None:
    """A worker whose lease has expired cannot assign codes, record results, close the batch or renew the lease."""
    await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await connection.execute(EXPIRE)
    with pytest.raises(LeaseLost):
        await deliveries.assign_codes(connection, batch)
    with pytest.raises(LeaseLost):
        await record(connection, batch, result(first, DeliveryState.SENT))
    with pytest.raises(LeaseLost):
        await deliveries.close(connection, batch)
    with pytest.raises(LeaseLost):
        await deliveries.renew(connection, batch, lease_seconds=LEASE_SECONDS)


async def test_a_worker_that_lost_its_lease_does_not_release_the_batch(
    connection: Connection, other: Connection
) -> None:
    """After the release by the old worker the batch is still leased to the new worker."""
    await start_sendout(connection)
    lost = await claim_batch(connection)
    await connection.execute(EXPIRE)
    batch = await claim_batch(other)
    await deliveries.release(connection, lost)
    assert await claim(connection) is None
    await deliveries.renew(other, batch, lease_seconds=LEASE_SECONDS)


async def test_a_worker_that_lost_its_lease_records_nothing(connection: Connection, other: Connection) -> None:
    """The old worker can record neither results nor intents to send."""
    await start_sendout(connection)
    lost, (first, *_) = await claim_assigned(connection)
    await connection.execute(EXPIRE)
    await claim_batch(other)
    with pytest.raises(LeaseLost):
        await record(connection, lost, result(first, DeliveryState.SENT))
    with pytest.raises(LeaseLost):
        await record(connection, lost, intents=(2,))


async def test_a_worker_writes_nothing_to_data_that_is_no_longer_accepted(connection: Connection) -> None:
    """The worker loses its lease, because the restored data may not know its mails."""
    await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await connection.execute(REVOKE_ACCEPTANCE)
    with pytest.raises(SendingBlocked):
        await deliveries.assign_codes(connection, batch)
    with pytest.raises(SendingBlocked):
        await record(connection, batch, result(first, DeliveryState.SENT), intents=(2,))


async def test_a_batch_is_not_claimed_during_its_assignment(connection: Connection, other: Connection) -> None:
    """Another worker skips the batch, even if the lease expires during the assignment."""
    await start_sendout(connection)
    batch = await claim_batch(connection, lease_seconds=0.5)
    async with connection.transaction():
        assert (await deliveries.assign_codes(connection, batch)).complete
        await wait_expired(other)
        assert await without_waiting(connection, other, claim(other)) is None


async def test_a_batch_is_not_claimed_during_its_flush(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """A flush that starts under the lease also finishes under it, even if the lease expires during the flush."""
    await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection, lease_seconds=0.5)
    async with lock_rows(third, "delivery WHERE number = 1"):
        flushing = asyncio.create_task(record(connection, batch, result(first, DeliveryState.SENT)))
        await until_blocked(third, flushing)
        await wait_expired(other)
        assert await without_waiting(third, other, claim(other)) is None
    assert await flushing


async def wait_expired(connection: Connection) -> None:
    await until(lambda: connection.fetchval("SELECT lease_until < now() FROM delivery_batch"), "the lease to expire")


# --- codes -----------------------------------------------------------------------------------------------------------


async def test_pausing_waits_for_a_running_assignment(connection: Connection, other: Connection) -> None:
    """The sendout becomes paused only after the codes are assigned."""
    sendout_id = await start_sendout(connection)
    batch = await claim_batch(connection)
    async with connection.transaction():
        assert (await deliveries.assign_codes(connection, batch)).complete
        pausing = asyncio.create_task(sendouts.pause(other, sendout_id, "by a test"))
        await until_blocked(connection, pausing)
    await pausing
    assert (await sendout_views.get(connection, sendout_id)).state == "paused"


async def start_with_few_codes(connection: Connection, *, recipients: int, codes: int, batch_size: int = 1_000) -> UUID:
    """Start a sendout in which some recipients get the list's alternative text."""
    await add_list(connection, "a", codes, shortage=Shortage.TEXT)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    return await start_prepared(connection, batch_size=batch_size)


async def test_two_workers_assign_no_more_codes_than_reserved(connection: Connection, other: Connection) -> None:
    """Six codes are reserved for ten recipients. The second worker assigns the rest of them and no other code."""
    await start_with_few_codes(connection, recipients=10, codes=6, batch_size=5)
    await add_codes(connection, "a", [f"LATER-{number}" for number in range(10)])
    first, second = await claim_batch(connection), await claim_batch(other)
    async with connection.transaction():
        assert (await deliveries.assign_codes(connection, first)).complete
        assigning = asyncio.create_task(deliveries.assign_codes(other, second))
        await until_blocked(connection, assigning)
    assert (await assigning).complete
    assert await count_assigned(connection) == 6


async def test_a_sendout_assigns_no_code_reserved_for_another(connection: Connection) -> None:
    """Two sendouts have reserved four and two of six codes. In any order each assigns only its own number."""
    await start_with_few_codes(connection, recipients=4, codes=6)
    poorer = await start_prepared(connection)
    batches = {batch.sendout_id: batch for batch in (await claim_batch(connection), await claim_batch(connection))}
    assert (await deliveries.assign_codes(connection, batches[poorer])).complete
    assert await count_assigned(connection) == 2


async def test_a_refused_delivery_gets_no_other_code(connection: Connection) -> None:
    """When the batch is claimed again, the refused mail gets no code; other batches can use the remaining codes."""
    await start_sendout(connection, codes=20, batch_size=5)
    batch, (first, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.REFUSED))
    assert (await deliveries.assign_codes(connection, batch)).complete
    assert await count_assigned(connection) == 4


async def test_a_deferred_delivery_keeps_its_code(connection: Connection) -> None:
    """A deferred delivery is not tried again before it is due."""
    sendout_id = await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.DEFERRED))
    owner = "SELECT delivery_number FROM coupon WHERE code = $1"
    assert await connection.fetchval(owner, first.codes[1]) == first.number
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    assert [each.number for each in due] == list(range(2, 11))


# --- results -------------------------------------------------------------------------------------------------------


async def test_a_result_is_final(connection: Connection) -> None:
    """A flush that contradicts a recorded result is rejected as a whole."""
    sendout_id = await start_sendout(connection)
    batch, (first, second, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.SENT))
    for again in (
        (result(first, DeliveryState.SENT),),
        (result(second, DeliveryState.SENT), result(first, DeliveryState.UNCERTAIN)),
    ):
        with pytest.raises(LeaseLost):
            await record(connection, batch, *again)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.remaining, found.uncertain) == (1, 9, 0)


async def test_a_mail_without_a_result_stays_in_flight(connection: Connection) -> None:
    """After a flush, in_flight contains older mails without a result and the mails of the new intents."""
    await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await record(connection, batch, intents=(1, 2))
    await record(connection, batch, result(first, DeliveryState.SENT), in_flight=(2,), intents=(3,))
    assert await connection.fetchval("SELECT in_flight FROM delivery_batch") == [2, 3]


async def test_a_repeated_flush_gives_the_same_answer(connection: Connection) -> None:
    """A flush of a paused sendout permits no mail. Neither does its repetition, if the first answer was lost."""
    sendout_id = await start_sendout(connection)
    batch, _ = await claim_assigned(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    flush = uuid4()
    assert [await record(connection, batch, flush=flush, intents=(1,)) for _ in range(2)] == [False, False]


async def test_a_refusal_and_the_release_of_its_code_are_atomic(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the code cannot be released, the refusal is not recorded. The next flush records both."""
    await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)

    async def fails(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "_free_codes", fails)
        with pytest.raises(ConnectionResetError):
            await record(connection, batch, result(first, DeliveryState.REFUSED))
    assert await connection.fetchval("SELECT state FROM delivery WHERE number = 1") == "pending"


async def test_a_resent_mail_that_cannot_be_rendered_stays_uncertain(connection: Connection) -> None:
    """The mail may have been sent once. The failed rendering does not count as an attempt."""
    sendout_id = await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.UNCERTAIN))
    await uncertain.resolve(connection, sendout_id, "resend")
    again, *_ = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    await record(connection, batch, refused(again, "the message lacks an attribute", attempted=False))
    assert (await sendout_views.get(connection, sendout_id)).uncertain == 1
    assert await connection.fetchval("SELECT count(*) FROM delivery_attempt") == 1


# --- order of locks ------------------------------------------------------------------------------------------------


async def test_lists_are_locked_in_one_order(connection: Connection, other: Connection, third: Connection) -> None:
    """Lists are locked in the order of their ids. A flush that waits for the first list has locked no other list."""
    await start_sendout(connection, "a", "b")
    batch, (first, *_) = await claim_assigned(connection)
    async with lock_rows(other, "sendout_list WHERE list_id = 1"):
        flushing = asyncio.create_task(record(connection, batch, result(first, DeliveryState.SENT)))
        await until_blocked(other, flushing)
        async with lock_rows(third, "sendout_list WHERE list_id = 2"):
            pass
    assert await flushing


async def test_released_codes_follow_the_lock_order(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """The list is locked before its row in sendout_list."""
    await start_sendout(connection)
    batch, (first, second, *_) = await claim_assigned(connection)
    async with lock_rows(other, "coupon_list"):
        flushing = asyncio.create_task(
            record(connection, batch, result(first, DeliveryState.SENT), result(second, DeliveryState.REFUSED))
        )
        await until_blocked(other, flushing)
        async with lock_rows(third, "sendout_list"):
            pass
    assert await flushing


async def test_resolving_follows_the_lock_order(connection: Connection, other: Connection, third: Connection) -> None:
    """Batches are locked before their sendout."""
    sendout_id = await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.UNCERTAIN))
    async with lock_rows(other, "delivery_batch"):
        resolving = asyncio.create_task(uncertain.resolve(connection, sendout_id, "resend"))
        await until_blocked(other, resolving)
        async with lock_rows(third, "sendout"):
            pass
    assert await resolving == 1


# --- resolving and finishing ---------------------------------------------------------------------------------------


async def test_the_policy_does_not_resend_mails_with_too_many_attempts(connection: Connection) -> None:
    """Mails with too many attempts are left to an operator."""
    await start_sendout(connection)
    batch, (first, second, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.UNCERTAIN), result(second, DeliveryState.UNCERTAIN))
    await connection.execute("UPDATE delivery SET attempts = $1 WHERE number = 1", uncertain.MAX_ATTEMPTS)
    assert await uncertain.resolve_all(connection, "resend") == 1


async def test_resolving_does_not_end_a_pause(connection: Connection) -> None:
    """Resent mails of a paused sendout wait until it is resumed, like its other mails."""
    sendout_id = await start_sendout(connection)
    batch, (first, *_) = await claim_assigned(connection)
    await record(connection, batch, result(first, DeliveryState.UNCERTAIN))
    await sendouts.pause(connection, sendout_id, "by a test")
    assert await uncertain.resolve(connection, sendout_id, "resend") == 1
    assert (await sendout_views.get(connection, sendout_id)).state == "paused"


async def test_a_sendout_does_not_finish_while_it_is_resolved(connection: Connection, other: Connection) -> None:
    """A worker that is about to finish the sendout waits for the resolution, then finds pending mails."""
    sendout_id = await start_sendout(connection)
    batch, due = await claim_assigned(connection)
    await record(connection, batch, *(result(each, DeliveryState.UNCERTAIN) for each in due))
    async with other.transaction():
        assert await uncertain.resolve(other, sendout_id, "resend") == 10
        settling = asyncio.create_task(sendouts.settle(connection, sendout_id))
        await until_blocked(other, settling)
    assert not await settling
