"""A sendout reserves amounts of codes and its batches assign them: no code twice, and no false shortage."""

import asyncio
import time
from uuid import UUID, uuid4

import pytest

from coupons.admission import Granted, Short
from coupons.database import Connection, connect
from coupons.errors import Conflict, LeaseLost
from coupons.states import DeliveryState, Shortage
from coupons.store import deliveries, lists, sendout_views, sendouts
from coupons.store.deliveries import Batch, DeliveryResult
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, resume, save_message, start
from tests.locks import until_blocked


async def claim(connection: Connection) -> Batch:
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    return batch


async def assign_all(connection: Connection) -> None:
    cursors: dict[int, int] = {}
    while batch := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        while True:
            assigned = await deliveries.assign_codes(connection, batch, cursors)
            cursors |= assigned.cursors
            if assigned.complete:
                break
            await asyncio.sleep(0.01)  # another worker has locked codes


async def counts_of(connection: Connection, name: str) -> tuple[int, int, int]:
    """Return the list's numbers of available, reserved and assigned codes."""
    (found,) = await lists.get(connection, name)
    return found.available, found.reserved, found.assigned


async def start_sendout(connection: Connection, *, codes: int, recipients: int, batch_size: int = 1_000) -> UUID:
    await add_list(connection, "a", codes)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=batch_size)
    return sendout_id


async def test_a_reservation_moves_an_amount_and_assigns_no_code(connection: Connection) -> None:
    """Reserving changes no row of a code, so it costs the same for ten recipients and for ten million."""
    await start_sendout(connection, codes=12, recipients=10)
    assert await counts_of(connection, "a") == (2, 10, 0)


async def test_one_short_list_prevents_all_reservations(connection: Connection) -> None:
    """Either all codes that a sendout needs of several lists are reserved, or none."""
    await add_list(connection, "full", 10)
    await add_list(connection, "short", 9)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "full", "short")
    sendout_id = await start(connection, "m", "g")
    decision = await prepare(connection)
    assert isinstance(decision, Short)
    assert str(decision) == "list short: 10 needed, 9 available, 1 missing"
    assert await counts_of(connection, "full") == (10, 0, 0)
    assert (await sendout_views.get(connection, sendout_id)).state == "interrupted"


async def test_resuming_counts_missing_codes_again(connection: Connection) -> None:
    """A sendout that still lacks codes gets new numbers. Once there are enough codes, it sends."""
    sendout_id = await start_sendout(connection, codes=5, recipients=10)
    await add_codes(connection, "a", ["ONE-MORE"])
    async with connection.transaction():
        still = await sendouts.resume(connection, sendout_id)
    assert str(still) == "list a: 10 needed, 6 available, 4 missing"
    assert [each.missing for each in (await sendout_views.get(connection, sendout_id)).lists] == [4]
    await add_codes(connection, "a", [f"MORE-{number}" for number in range(4)])
    async with connection.transaction():
        assert isinstance(await sendouts.resume(connection, sendout_id), Granted)
    assert (await sendout_views.get(connection, sendout_id)).state == "sending"
    with pytest.raises(Conflict, match="is sending: only an interrupted or paused sendout"):
        await resume(connection, sendout_id)


async def test_a_list_with_alternative_text_gives_all_its_codes(connection: Connection) -> None:
    """Recipients after the last code get none, and the sendout continues."""
    await add_list(connection, "t", 6, shortage=Shortage.TEXT)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "t")
    await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    await assign_all(connection)
    assert await counts_of(connection, "t") == (0, 0, 6)


async def test_concurrent_workers_assign_each_code_once(connection: Connection, database_url: str) -> None:
    """Four workers assign 4,000 codes of one list to the 4,000 mails of two sendouts."""
    await add_list(connection, "a", 4_000)
    await add_group(connection, "g", 2_000)
    await save_message(connection, "m", "a")
    for _ in range(2):
        await start(connection, "m", "g")
        assert isinstance(await prepare(connection, batch_size=100), Granted)

    async def worker() -> None:
        async with connect(database_url) as own:
            await assign_all(own)

    await asyncio.gather(*(worker() for _ in range(4)))
    assert await counts_of(connection, "a") == (0, 0, 4_000)


async def test_locked_codes_are_not_a_shortage(connection: Connection, other: Connection) -> None:
    """While another session locks codes, the assignment is incomplete. A later attempt finds the codes."""
    await start_sendout(connection, codes=10, recipients=10)
    batch = await claim(connection)
    async with other.transaction():
        await other.execute("SELECT FROM coupon WHERE list_id = 1 LIMIT 4 FOR UPDATE")
        assert not (await deliveries.assign_codes(connection, batch)).complete
    assert (await deliveries.assign_codes(connection, batch)).complete
    assert await counts_of(connection, "a") == (0, 0, 10)


async def test_codes_before_the_cursor_are_found(connection: Connection) -> None:
    """A released code lies before the cursor (the place of the last search), so the next search starts at the front."""
    await start_sendout(connection, codes=10, recipients=10)
    batch = await claim(connection)
    assigned = await deliveries.assign_codes(connection, batch, {1: 1_000_000})
    assert not assigned.complete
    assert (await deliveries.assign_codes(connection, batch, assigned.cursors)).complete


async def test_assigning_again_assigns_no_more_codes(connection: Connection) -> None:
    """A batch that was assigned only in part keeps its codes and gets the missing ones."""
    await start_sendout(connection, codes=20, recipients=10)
    batch = await claim(connection)
    assigned = await deliveries.assign_codes(connection, batch)
    assert assigned.complete
    assert (await deliveries.assign_codes(connection, batch, assigned.cursors)).complete
    assert await counts_of(connection, "a") == (10, 0, 10)


async def test_a_refused_mail_releases_its_code_once(connection: Connection) -> None:
    """The code becomes available again, and the list's counters agree with its codes."""
    sendout_id = await start_sendout(connection, codes=10, recipients=10)
    batch = await claim(connection)
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    assert await record(connection, batch, intents=[each.number for each in due])
    outcomes = [
        DeliveryResult.of(each, DeliveryState.REFUSED if each.number == 3 else DeliveryState.SENT, "reply")
        for each in due
    ]
    await record(connection, batch, results=outcomes)
    assert await counts_of(connection, "a") == (1, 0, 0)
    assert await sendouts.settle(connection, sendout_id)


async def test_a_repeated_flush_is_recorded_once(connection: Connection) -> None:
    """A repeated flush returns the same answer as the first one, counts nothing twice and leaves no mail uncertain."""
    sendout_id = await start_sendout(connection, codes=10, recipients=10)
    batch = await claim(connection)
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    first, second = uuid4(), uuid4()
    for _ in range(2):
        assert await record(connection, batch, intents=[1, 2], flush=first)
    for _ in range(2):
        outcomes = [
            DeliveryResult.of(due[0], DeliveryState.SENT, "250"),
            DeliveryResult.of(due[1], DeliveryState.REFUSED, "550"),
        ]
        assert await record(connection, batch, results=outcomes, intents=[3], flush=second)
    assert await counts_of(connection, "a") == (1, 0, 8)


async def test_assigning_needs_no_statistics(connection: Connection) -> None:
    """Without ANALYZE a list is as fast as with it, because the statements leave the planner no choice."""
    for table in ("coupon", "delivery"):
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await start_sendout(connection, codes=40_000, recipients=8_000)
    begun = time.perf_counter()
    await assign_all(connection)
    assert time.perf_counter() - begun < 8  # 0.1 s; with a bad plan, each of the eight batches took 7 s or more


async def test_delivering_needs_no_statistics(connection: Connection) -> None:
    """A sendout newer than the last ANALYZE is read by its deliveries' numbers, not by a scan of the whole table."""
    await connection.execute("ALTER TABLE delivery SET (autovacuum_enabled = off)")
    earlier = await start_sendout(connection, codes=6_000, recipients=2_000)
    await connection.execute("UPDATE sendout SET state = 'paused' WHERE id = $1", earlier)
    await connection.execute("ANALYZE")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    before = await scans_of(connection, "one_mail_per_address")
    batch = await claim(connection)
    assert (await deliveries.assign_codes(connection, batch)).complete
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    for begin in range(0, len(due), 100):
        outcomes = [DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due[begin : begin + 100]]
        await record(connection, batch, results=outcomes)
    await deliveries.release(connection, batch)
    assert await scans_of(connection, "one_mail_per_address") == before


async def scans_of(connection: Connection, index: str) -> int:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    scans: int = await connection.fetchval("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1", index)
    return scans


async def test_cancelling_waits_for_a_running_snapshot(connection: Connection, other: Connection) -> None:
    """After the snapshot of the recipients is written, the cancellation sees its batches and closes them."""
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    claimed = await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert claimed
    async with connection.transaction():
        await sendouts.take_snapshot(connection, claimed, batch_size=5)
        cancelling = asyncio.create_task(sendouts.cancel(other, sendout_id))
        await until_blocked(connection, cancelling)
    await cancelling
    assert (await sendout_views.get(connection, sendout_id)).finished_at is None
    while closing := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        await deliveries.close(connection, closing)
    assert await sendouts.settle(connection, sendout_id)


async def test_a_worker_that_lost_its_lease_writes_nothing(connection: Connection) -> None:
    """Another worker's claim changes the lease token. With the old token no code, intent or result is written."""
    sendout_id = await start_sendout(connection, codes=10, recipients=10)
    old = await claim(connection)
    await deliveries.assign_codes(connection, old)
    due = await deliveries.list_due(connection, old, await deliveries.list_lists(connection, sendout_id))
    await record(connection, old, intents=[due[0].number])
    await connection.execute("UPDATE delivery_batch SET lease_until = now() - interval '1 s'")
    new = await claim(connection)
    with pytest.raises(LeaseLost):
        await deliveries.assign_codes(connection, old)
    with pytest.raises(LeaseLost):
        await record(connection, old, results=[DeliveryResult.of(due[0], DeliveryState.SENT, "250 late")])
    with pytest.raises(LeaseLost):
        await deliveries.renew(connection, old, lease_seconds=LEASE_SECONDS)
    left = await deliveries.list_due(connection, new, await deliveries.list_lists(connection, sendout_id))
    assert [each.number for each in left] == list(range(2, 11))
    (problem,) = await sendout_views.list_problems(connection, sendout_id)
    assert (problem.number, problem.state) == (1, "uncertain")
    assert await counts_of(connection, "a") == (0, 0, 10)


async def test_a_paused_sendout_permits_no_new_mail(connection: Connection) -> None:
    """Results of mails in flight are still recorded, but new intents are not."""
    sendout_id = await start_sendout(connection, codes=10, recipients=10)
    batch = await claim(connection)
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    await record(connection, batch, intents=[1])
    await sendouts.pause(connection, sendout_id, "by a test")
    assert not await record(
        connection, batch, results=[DeliveryResult.of(due[0], DeliveryState.SENT, "250")], intents=[2]
    )
    with pytest.raises(deliveries.NotSending):
        await deliveries.assign_codes(connection, batch)
    await deliveries.release(connection, batch)
    assert await deliveries.claim(connection, owner="test", lease_seconds=1) is None


async def test_cancelling_releases_every_unsent_code(connection: Connection) -> None:
    """Reserved codes are released at once, assigned ones when their batch is closed."""
    sendout_id = await start_sendout(connection, codes=30, recipients=30, batch_size=10)
    batch = await claim(connection)
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    await record(connection, batch, intents=[1])
    await sendouts.cancel(connection, sendout_id)
    assert await counts_of(connection, "a") == (20, 0, 10)
    await record(connection, batch, results=[DeliveryResult.of(due[0], DeliveryState.SENT, "250")])
    await deliveries.release(connection, batch)
    while closing := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        assert closing.sendout_state == "cancelled"
        await deliveries.close(connection, closing)
        await deliveries.release(connection, closing)
    assert await sendouts.settle(connection, sendout_id)
    assert await counts_of(connection, "a") == (29, 0, 0)
    assert (await sendout_views.get(connection, sendout_id)).cancelled == 29


async def test_competing_sendouts_reserve_no_more_than_the_lists_have(
    connection: Connection, database_url: str
) -> None:
    """Fifty sendouts compete for codes of three lists. Each of them gets all its codes or none."""
    for name in ("a", "b", "c"):
        await add_list(connection, name, 40)
    await add_group(connection, "g", 7)
    for number, of in enumerate((("a", "b"), ("b", "c"), ("c", "a"), ("a",), ("b", "a", "c"))):
        await save_message(connection, f"m{number}", *of)
    for number in range(50):
        await start(connection, f"m{number % 5}", "g")

    async def worker() -> None:
        async with connect(database_url) as own:
            while claimed := await sendouts.claim(own, owner="test", lease_seconds=LEASE_SECONDS):
                await sendouts.take_snapshot(own, claimed, batch_size=5)
                await sendouts.admit(own, claimed)
            await assign_all(own)

    await asyncio.gather(*(worker() for _ in range(4)))
    found = await sendout_views.list_newest(connection)
    assert {each.state for each in found} == {"sending", "interrupted"}
    for each in found:
        codes = {(of.reserved, of.assigned, of.sent) for of in each.lists}
        assert codes == ({(0, 7, 0)} if each.state == "sending" else {(0, 0, 0)})


async def test_concurrent_flushes_of_one_sendout_do_not_deadlock(connection: Connection, database_url: str) -> None:
    """Flushes that release and send codes change the same two rows in one order. No change is lost."""
    sendout_id = await start_sendout(connection, codes=400, recipients=400, batch_size=200)
    lists_of = await deliveries.list_lists(connection, sendout_id)

    async def worker(number: int) -> None:
        async with connect(database_url) as own:
            batch = await claim(own)
            while not (await deliveries.assign_codes(own, batch)).complete:  # noqa: ASYNC110 - the other worker locks codes
                await asyncio.sleep(0.01)
            due = await deliveries.list_due(own, batch, lists_of)
            for start in range(0, len(due), 4):
                some = due[start : start + 4]
                outcomes = [DeliveryResult.of(each, DeliveryState.REFUSED, "550") for each in some[: 2 + number]]
                outcomes += [DeliveryResult.of(each, DeliveryState.SENT, "250") for each in some[2 + number :]]
                await record(own, batch, results=outcomes)

    await asyncio.gather(*(worker(number) for number in (0, 2)))
    assert await counts_of(connection, "a") == (300, 0, 0)


async def record(
    connection: Connection,
    batch: Batch,
    *,
    flush: UUID | None = None,
    results: list[DeliveryResult] | None = None,
    intents: list[int] | None = None,
) -> bool:
    return await deliveries.record(
        connection,
        batch,
        flush=flush or uuid4(),
        results=results or [],
        in_flight=[],
        intents=intents or [],
        lease_seconds=LEASE_SECONDS,
    )
