"""A sendout counts its deferred mails and its outcomes per batch, and workers store samples of them."""

import asyncio
from unittest import mock

import pytest

from coupons import migrate
from coupons.database import Connection, connect, open_pool
from coupons.sendout_speed import SAMPLES, SMALL_SENDOUT
from coupons.states import DeliveryState
from coupons.store import deliveries, retries, sendout_views, sendouts
from coupons.store.deliveries import DeliveryResult
from tests.factories import LEASE_SECONDS
from tests.integration.test_retries import (
    DEFERRED,
    REFUSED,
    claim,
    deliver,
    deliver_batch,
    outcomes,
    record,
    sending,
)
from tests.locks import until_blocked
from workers.delivery.in_flight import Flush
from workers.delivery.recorder import Recorder

DEFER_TWO = outcomes(DeliveryState.DEFERRED, (1, 9))
BATCHES = "SELECT number, remaining, deferred, outcomes, first_outcomes FROM delivery_batch ORDER BY number"


def deferred(number: int) -> DeliveryResult:
    return DeliveryResult(number, DeliveryState.DEFERRED, "reply", due_in=3_600)


async def make_due(connection: Connection) -> None:
    await connection.execute("UPDATE delivery SET due_at = now() WHERE state = 'deferred'")
    await connection.execute("UPDATE delivery_batch SET due_at = now()")


async def batches(connection: Connection) -> list[tuple[int, ...]]:
    return [tuple(row.values()) for row in await connection.fetch(BATCHES)]


async def test_deferred_mails_are_counted_apart(connection: Connection) -> None:
    """Each batch counts its deferred mails, also if one is deferred again; the view has the next attempt's time."""
    sendout_id = await sending(connection)
    await deliver(connection, DEFER_TWO)
    assert await batches(connection) == [(1, 1, 1, 8, 8), (2, 1, 1, 2, 2)]
    found = await sendout_views.get(connection, sendout_id)
    next_due = await connection.fetchval("SELECT min(due_at) FROM delivery WHERE state = 'deferred'")
    assert (found.remaining, found.deferred, found.next_attempt_at) == (2, 2, next_due)
    await make_due(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, (1,)))
    assert await batches(connection) == [(1, 1, 1, 9, 8), (2, 0, 0, 3, 2)]
    await make_due(connection)
    await deliver(connection)
    assert await sendouts.settle(connection, sendout_id)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.deferred, found.next_attempt_at) == (10, 0, None)


async def test_only_first_attempts_count_for_the_time_left(connection: Connection) -> None:
    """A retry of a deferred mail is an outcome, but no pending mail less."""
    await sending(connection)
    await deliver(connection, DEFER_TWO)
    await make_due(connection)
    await deliver(connection)
    assert [row[3:] for row in await batches(connection)] == [(9, 8), (3, 2)]


async def test_a_retry_of_deferred_mails_makes_them_pending(connection: Connection) -> None:
    """They count for the time left again, and other deferred mails do not."""
    sendout_id = await sending(connection)
    await deliver(connection, DEFER_TWO)
    await retries.retry(connection, sendout_id, DEFERRED)
    assert [row[1:3] for row in await batches(connection)] == [(1, 0), (1, 0)]
    assert (await sendout_views.get(connection, sendout_id)).next_attempt_at is None
    await deliver(connection, outcomes(DeliveryState.REFUSED, (1, 9)))
    await retries.retry(connection, sendout_id, REFUSED)
    assert [row[1:3] for row in await batches(connection)] == [(1, 0), (1, 0)]


async def test_a_cancelled_sendout_has_no_deferred_mails(connection: Connection) -> None:
    """A batch that is closed has neither remaining nor deferred mails."""
    sendout_id = await sending(connection)
    await deliver(connection, DEFER_TWO)
    await sendouts.cancel(connection, sendout_id)
    await make_due(connection)
    while batch := await deliveries.claim(connection, owner="test", lease_seconds=60):
        await deliveries.close(connection, batch)
        await deliveries.release(connection, batch)
    assert [row[1:3] for row in await batches(connection)] == [(0, 0), (0, 0)]


async def test_a_batch_is_released_after_a_concurrent_retry(connection: Connection, database_url: str) -> None:
    """An operator retries a deferred mail while its batch is released: the batch is due now, not in an hour."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, (1,)))
    await make_due(connection)
    batch = await claim(connection)
    await connection.execute("UPDATE delivery SET due_at = now() + interval '1 hour' WHERE number = 1")
    async with connect(database_url) as worker:
        async with connection.transaction():
            await retries.retry(connection, sendout_id, DEFERRED)
            releasing = asyncio.create_task(deliveries.release(worker, batch))
            await until_blocked(connection, releasing)
        await releasing
    assert await connection.fetchval("SELECT due_at <= now() FROM delivery_batch WHERE number = 1")
    assert (await batches(connection))[0][1:3] == (1, 0)


async def test_a_flush_counts_deferred_mails(connection: Connection) -> None:
    """The counter is right after each flush, also while other mails of the batch are pending."""
    await sending(connection)
    for numbers, expected in (((1, 2), 2), ((1,), 2), ((3,), 3)):
        batch = await claim(connection)
        await record(connection, batch, results=[deferred(number) for number in numbers])
        assert (
            await connection.fetchval("SELECT deferred FROM delivery_batch WHERE number = $1", batch.number) == expected
        )
        await deliveries.release(connection, batch)
        await make_due(connection)
        await connection.execute("UPDATE delivery_batch SET due_at = now() - interval '1 s' WHERE number = 2")


@pytest.mark.parametrize("counter", [1, 8])
async def test_a_wrong_counter_of_deferred_mails_blocks_no_outcome(connection: Connection, counter: int) -> None:
    """The outcomes of three deferred mails are recorded, and the released batch counts them correctly."""
    await sending(connection)
    batch = await claim(connection)
    await record(connection, batch, results=[deferred(number) for number in (1, 2, 3)])
    await connection.execute("UPDATE delivery_batch SET deferred = $1 WHERE number = 1", counter)
    await make_due(connection)
    await deliver_batch(connection, batch, outcomes(DeliveryState.DEFERRED, (1,)))
    await deliveries.release(connection, batch)
    assert (await batches(connection))[0][1:3] == (1, 1)


async def test_a_counter_of_deferred_mails_that_is_too_low_blocks_no_retry(connection: Connection) -> None:
    """All deferred mails of the batch become pending."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, (1, 2)))
    await connection.execute("UPDATE delivery_batch SET deferred = 1 WHERE number = 1")
    await retries.retry(connection, sendout_id, DEFERRED)
    assert (await batches(connection))[0][1:3] == (2, 0)


async def test_a_flush_after_a_concurrent_retry_counts_the_mail_once(connection: Connection, database_url: str) -> None:
    """A worker loaded a deferred mail. An operator retries it at the moment when the worker records its outcome."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, (1, 2)))
    await make_due(connection)
    batch = await claim(connection)
    await record(connection, batch, results=[], intents=[2])
    async with connect(database_url) as worker:
        async with connection.transaction():
            await retries.retry(connection, sendout_id, DEFERRED)
            result = DeliveryResult(1, DeliveryState.SENT, "250", {1})
            recording = asyncio.create_task(record(worker, batch, results=[result]))
            await until_blocked(connection, recording)
        await recording
    assert (await batches(connection))[0][1:3] == (1, 1)


DEFERRED_BY_THE_FIRST_VERSION = """
INSERT INTO message (name, version, sender, subject, text) VALUES ('m', 1, 'a@example.org', 's', 't');
INSERT INTO sendout (id, message_id, state, recipients) VALUES (gen_random_uuid(), 1, 'sending', 2);
INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, remaining)
SELECT id, 1, 1, 2, 2 FROM sendout;
INSERT INTO delivery (sendout_id, number, address_key, address, state, due_at, deferred_since)
SELECT id, n, n || '@example.org', n || '@example.org', 'deferred', now(), now() FROM sendout, generate_series(1, 2) n;
"""
"""The first version did not store when a batch was claimed."""


async def test_an_upgrade_counts_all_deferred_mails(empty_database_url: str) -> None:
    """Each open batch counts its deferred mails, also if it was never claimed since the first version."""
    with mock.patch.object(migrate, "migrations", return_value=migrate.migrations()[:10]):
        await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        await connection.execute(DEFERRED_BY_THE_FIRST_VERSION)
        await migrate.migrate(empty_database_url)
        assert [row[1:3] for row in await batches(connection)] == [(2, 2)]


async def test_deferred_mails_are_retried_together(connection: Connection) -> None:
    """A batch of deferred mails is due when the mails of ten seconds are, or at once if it has a pending mail."""
    await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, (1, 2, 3)))
    await make_due(connection)
    batch = await claim(connection)
    due = "UPDATE delivery SET due_at = now() + make_interval(secs => 100 + number * $1) WHERE number <= 3"
    seconds = "SELECT round(extract(epoch FROM due_at - now()))::integer FROM delivery_batch WHERE number = 1"
    for apart, expected in ((3, 109), (6, 116), (0, 100)):
        await connection.execute(due, apart)
        await deliveries.release(connection, batch)
        assert await connection.fetchval(seconds) == pytest.approx(expected, abs=1)
        await connection.execute("UPDATE delivery_batch SET lease_token = $1, due_at = now()", batch.lease_token)
    await connection.execute("UPDATE delivery SET state = 'pending', due_at = NULL WHERE number = 1")
    await deliveries.release(connection, batch)
    assert await connection.fetchval(seconds) <= 0


async def test_samples_are_a_few_seconds_apart(connection: Connection) -> None:
    """All workers together store one sample in this time, and keep the last minute."""
    await sending(connection)
    batch = await claim(connection)
    for n in range(1, SAMPLES + 3):
        for _ in range(2):
            await deliveries.sample(connection, batch)
        assert await connection.fetchval("SELECT cardinality(times) FROM sendout_speed") == min(n, SAMPLES)
        await connection.execute("UPDATE sendout_speed SET times[cardinality(times)] = now() - interval '6 s'")


async def test_a_sample_does_not_wait_for_another_worker(connection: Connection, database_url: str) -> None:
    """Two workers may store samples at the same moment; both are valid."""
    await sending(connection)
    first = await claim(connection)
    await deliveries.sample(connection, first)
    await connection.execute("UPDATE sendout_speed SET times[1] = now() - interval '6 s'")
    async with connect(database_url) as other:
        await asyncio.gather(deliveries.sample(connection, first), deliveries.sample(other, first))
    assert await connection.fetchval("SELECT cardinality(times) FROM sendout_speed") in (2, 3)


async def sample_count(connection: Connection) -> int:
    found: int = await connection.fetchval("SELECT count(*) FROM sendout_speed")
    return found


async def test_samples_are_deleted_when_the_sendout_ends(connection: Connection) -> None:
    """The table does not grow with the history, also if a worker stores its last sample late."""
    sendout_id = await sending(connection)
    batch = await claim(connection)
    await deliveries.sample(connection, batch)
    await deliver_batch(connection, batch)
    await deliveries.release(connection, batch)
    await deliver(connection)
    assert await sample_count(connection) == 1
    assert await sendouts.settle(connection, sendout_id)
    await deliveries.sample(connection, batch)
    assert await sample_count(connection) == 0


async def test_samples_are_deleted_when_a_sendout_without_open_batches_is_cancelled(connection: Connection) -> None:
    """A paused sendout whose mails all have an outcome ends at once when it is cancelled."""
    sendout_id = await sending(connection)
    batch = await claim(connection)
    await deliveries.sample(connection, batch)
    await deliver_batch(connection, batch)
    await deliveries.release(connection, batch)
    await deliver(connection)
    await sendouts.pause(connection, sendout_id, "paused by an operator")
    await sendouts.cancel(connection, sendout_id)
    assert await sample_count(connection) == 0


@pytest.mark.parametrize(("recipients", "samples"), [(SMALL_SENDOUT, 0), (SMALL_SENDOUT + 1, 1)])
async def test_a_small_sendout_has_no_samples(
    connection: Connection, database_url: str, recipients: int, samples: int
) -> None:
    """A worker stores none, because the sendout is finished before it has a rate."""
    await sending(connection, codes=recipients, recipients=recipients)
    batch = await claim(connection)
    async with open_pool(database_url, size=1) as pool:
        recorder = Recorder(pool, batch, lease_seconds=LEASE_SECONDS)
        await recorder.record(Flush((), (), {}, frozenset(), frozenset()))
    assert await sample_count(connection) == samples


async def test_a_paused_sendout_has_no_rate(connection: Connection) -> None:
    """Rate, time left and next attempt are shown only while the sendout is sending."""
    sendout_id = await sending(connection)
    await deliver(connection, DEFER_TWO)
    await sendouts.pause(connection, sendout_id, "paused by an operator")
    found = await sendout_views.get(connection, sendout_id)
    assert (found.per_second, found.seconds_left, found.next_attempt_at, found.deferred) == (None, None, None, 2)
