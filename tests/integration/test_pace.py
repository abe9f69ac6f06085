"""Start times, rates of sendouts and the rate limit of all workers: the database decides when a mail may leave."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from coupons.batching import paced_batch
from coupons.commands import StartSendout
from coupons.database import Connection, connect
from coupons.schedule import Reschedule
from coupons.states import DeliveryState
from coupons.store import deliveries, rate_limit, schedules, sendout_views, sendouts
from coupons.store.deliveries import DeliveryResult
from coupons.store.schedules import PastStart
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message


async def start_paced(
    connection: Connection,
    *,
    recipients: int = 100,
    start_at: datetime | None = None,
    per_hour: int | None = None,
    over_minutes: int | None = None,
) -> UUID:
    await add_list(connection, "a", recipients)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    command = StartSendout(
        id=uuid4(), message="m", group="g", start_at=start_at, per_hour=per_hour, over_minutes=over_minutes
    )
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=1_000)
    await prepare(connection)
    return command.id


async def claim(connection: Connection) -> deliveries.Batch | None:
    return await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def test_no_mail_leaves_before_the_start_time(connection: Connection) -> None:
    """The codes are reserved at once, so that a shortage is known early. Workers know when the first batch is due."""
    sendout_id = await start_paced(connection, start_at=datetime.now(UTC) + timedelta(hours=2))
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, [each.reserved for each in found.lists]) == ("scheduled", [100])
    assert await claim(connection) is None
    assert await deliveries.next_due(connection) == pytest.approx(7_200, abs=60)
    await connection.execute("UPDATE sendout SET next_batch_at = now()")
    assert await claim(connection)


@pytest.mark.parametrize(
    ("pace", "size", "wait"),
    [({"per_hour": 3_600}, 10, 10), ({"per_hour": 60}, 1, 60), ({"over_minutes": 10}, 1, 6)],
)
async def test_batches_keep_the_rate_of_a_sendout(
    connection: Connection, pace: dict[str, int], size: int, wait: float
) -> None:
    """After a batch is claimed, the next one cannot be claimed for as long as its mails take at the rate."""
    await start_paced(connection, per_hour=pace.get("per_hour"), over_minutes=pace.get("over_minutes"))
    batch = await claim(connection)
    assert batch
    assert len(await deliveries.read_due(connection, batch)) == size
    assert await claim(connection) is None
    assert await deliveries.next_due(connection) == pytest.approx(wait, abs=0.9)


async def test_two_workers_share_the_rate_of_a_sendout(connection: Connection, database_url: str) -> None:
    """If eight workers ask at the same time, one of them claims the batch."""
    await start_paced(connection, per_hour=3_600)

    async def look() -> bool:
        async with connect(database_url) as own:
            return await claim(own) is not None

    assert sum(await asyncio.gather(*(look() for _ in range(8)))) == 1


async def test_missed_time_is_not_caught_up(connection: Connection) -> None:
    """After a pause of any length the rate is unchanged: no hour has more mails than the rate permits."""
    await start_paced(connection, per_hour=3_600)
    await connection.execute("UPDATE sendout SET next_batch_at = now() - interval '5 hours'")
    assert await claim(connection)
    assert await claim(connection) is None


async def test_a_cancelled_sendout_ignores_its_rate(connection: Connection) -> None:
    """Batches of a cancelled sendout are closed as fast as possible."""
    sendout_id = await start_paced(connection, per_hour=60)
    assert await claim(connection)
    await sendouts.cancel(connection, sendout_id)
    async with asyncio.timeout(10):
        for _ in range(99):
            batch = await claim(connection)
            assert batch
            await deliveries.close(connection, batch)


async def test_a_small_sendout_does_not_wait_for_a_large_one(connection: Connection) -> None:
    """Sendouts take turns: the second one has a batch claimed long before the first one's fifty batches are done."""
    await add_list(connection, "a", 6_000)
    await add_group(connection, "large", 5_000)
    await add_group(connection, "small", 10)
    await save_message(connection, "m", "a")
    of_group = {}
    for name in ("large", "small"):
        command = StartSendout(id=uuid4(), message="m", group=name)
        of_group[name] = command.id
        async with connection.transaction():
            await sendouts.create(connection, command, batch_size=100)
        await prepare(connection, batch_size=100)
    claimed = []
    while batch := await claim(connection):
        claimed.append(batch.sendout_id)
    assert claimed.index(of_group["small"]) < len(claimed) - 10


async def test_deferred_mails_do_not_wait_for_the_whole_sendout(connection: Connection) -> None:
    """A batch whose deferred mails are due again is claimed before batches that were never tried."""
    await start_paced(connection, recipients=30)
    await connection.execute("UPDATE sendout SET per_hour = NULL")
    await connection.execute(
        "UPDATE delivery_batch SET last_delivery = 10, remaining = 10;"
        "INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, remaining, due_at)"
        "SELECT sendout_id, n, n * 10 - 9, n * 10, 10, due_at FROM delivery_batch, generate_series(2, 3) n"
    )
    deferred = await claim(connection)
    assert deferred
    await deliveries.release(connection, deferred)
    order = [await claim(connection) for _ in range(3)]
    assert [each and each.number for each in order] == [1, 2, 3]


async def test_a_clock_that_was_set_back_does_not_stop_sending(connection: Connection) -> None:
    """A slot that is further in the future than any worker can book is ignored."""
    await rate_limit.book(connection, seconds=1)
    await connection.execute("UPDATE rate_limit SET next_mail_at = now() + interval '3 days'")
    assert await rate_limit.book(connection, seconds=1) <= 3_600


def test_batches_of_a_slow_sendout_are_small() -> None:
    """A batch has as many mails as ten seconds permit, at least one and at most the batch size."""
    assert [paced_batch(1_000, pace) for pace in (None, 1.5, 3_600, 36_000_000)] == [1_000, 1, 10, 1_000]


async def test_slots_follow_one_another(connection: Connection) -> None:
    """A slot begins where the previous one ends. Time that no worker has booked is lost."""
    waits = [await rate_limit.book(connection, seconds=2) for _ in range(3)]
    assert waits == pytest.approx([0, 2, 4], abs=0.5)
    await connection.execute("UPDATE rate_limit SET next_mail_at = now() - interval '1 hour'")
    assert await rate_limit.book(connection, seconds=2) == pytest.approx(0, abs=0.5)


async def test_a_start_is_compared_with_the_clock_of_the_database(connection: Connection) -> None:
    """A start up to five minutes in the past is accepted, because clocks differ and a form takes time to send."""
    now: datetime = await connection.fetchval("SELECT now()")
    await schedules.check_start(connection, None)
    await schedules.check_start(connection, now - timedelta(minutes=4, seconds=50))
    with pytest.raises(PastStart, match=r"more than 5 minutes in the past: to start now, use --now"):
        await schedules.check_start(connection, now - timedelta(minutes=5, seconds=10))


async def test_the_time_left_follows_a_slower_pace(connection: Connection) -> None:
    """The batch keeps its 100 mails. A worker sends 10 under each lease, and then the others wait for 10 s."""
    sendout_id = await start_paced(connection, per_hour=3_600_000)
    await sendouts.pause(connection, sendout_id, "paused by an operator")
    await schedules.reschedule(connection, sendout_id, Reschedule(per_hour=3_600, now=True))
    batch = await claim(connection)
    assert batch
    assert await record_sent(connection, batch) == 10
    assert (await sendout_views.get(connection, sendout_id)).seconds_left is None, "the limit is not known to be kept"
    await deliveries.release(connection, batch)
    assert (await sendout_views.get(connection, sendout_id)).seconds_left == pytest.approx(90, abs=2)


async def record_sent(connection: Connection, batch: deliveries.Batch) -> int:
    """Record the mails of one lease as sent; return their number."""
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id))
    await deliveries.record(
        connection,
        batch,
        flush=uuid4(),
        results=[DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due],
        in_flight=[],
        intents=[],
        lease_seconds=LEASE_SECONDS,
    )
    return len(due)
