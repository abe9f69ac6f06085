"""The fences of a sendout and its lists, one test each: its lease, the reservation of codes, its end."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from coupons.admission import Granted, Short
from coupons.commands import ImportCoupons, Recipient, StartSendout
from coupons.database import Connection, connect
from coupons.errors import Conflict, LeaseLost
from coupons.states import DeliveryState, ImportMode
from coupons.store import deliveries, imports, lists, sendout_views, sendouts
from coupons.store.deliveries import DeliveryResult
from coupons.store.sendouts import Claim
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, resume, save_message, start
from tests.locks import lock_rows, until_blocked, without_waiting

EXPIRE = "UPDATE sendout SET lease_until = now() - interval '1 s'"


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


async def add_stock(connection: Connection, *of_lists: str, codes: int = 10) -> None:
    """Add lists with codes, a group of ten recipients and a message with a code of each list."""
    for name in of_lists or ("a",):
        await add_list(connection, name, codes)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", *(of_lists or ("a",)))


async def claim(connection: Connection) -> Claim | None:
    return await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def claim_sendout(connection: Connection) -> Claim:
    claimed = await claim(connection)
    assert claimed
    return claimed


async def start_sending(connection: Connection) -> UUID:
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    return sendout_id


async def send_batch(connection: Connection) -> None:
    """Send all mails of a batch, as a worker does."""
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id))
    sent = [DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due]
    await deliveries.record(
        connection, batch, flush=uuid4(), results=sent, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
    )
    await deliveries.release(connection, batch)


async def state_of(connection: Connection, sendout_id: UUID) -> str:
    return (await sendout_views.get(connection, sendout_id)).state


# --- claiming ------------------------------------------------------------------------------------------------------


async def test_a_leased_sendout_is_not_claimed_again(connection: Connection, other: Connection) -> None:
    """Another worker can claim the sendout once the lease has expired."""
    await add_stock(connection)
    await start(connection, "m", "g")
    await claim_sendout(connection)
    assert await claim(other) is None
    await connection.execute(EXPIRE)
    assert await claim(other)


async def test_a_sendout_that_is_being_claimed_is_skipped(connection: Connection, other: Connection) -> None:
    """A second worker neither claims the sendout nor waits for it."""
    await add_stock(connection)
    await start(connection, "m", "g")
    async with other.transaction():
        await claim_sendout(other)
        assert await without_waiting(other, connection, claim(connection)) is None


async def test_a_worker_that_lost_its_lease_prepares_nothing(connection: Connection, other: Connection) -> None:
    """The old worker cannot write a snapshot of the recipients, reserve codes or fail the sendout."""
    await add_stock(connection)
    await start(connection, "m", "g")
    lost = await claim_sendout(connection)
    await connection.execute(EXPIRE)
    taken = await claim_sendout(other)
    with pytest.raises(LeaseLost):
        await sendouts.take_snapshot(connection, lost, batch_size=10)
    with pytest.raises(LeaseLost):
        await sendouts.renew(connection, lost, lease_seconds=LEASE_SECONDS)
    with pytest.raises(LeaseLost):
        await sendouts.fail(connection, lost, "it has no recipients")
    await sendouts.take_snapshot(other, taken, batch_size=10)
    with pytest.raises(LeaseLost):
        await sendouts.admit(connection, lost)
    assert isinstance(await sendouts.admit(other, taken), Granted)


async def test_an_expired_lease_is_lost_before_another_worker_claims_it(connection: Connection) -> None:
    """A worker whose lease has expired cannot write a snapshot, reserve codes, fail the sendout or renew the lease."""
    await add_stock(connection)
    await start(connection, "m", "g")
    claimed = await claim_sendout(connection)
    await connection.execute(EXPIRE)
    with pytest.raises(LeaseLost):
        await sendouts.take_snapshot(connection, claimed, batch_size=10)
    with pytest.raises(LeaseLost):
        await sendouts.renew(connection, claimed, lease_seconds=LEASE_SECONDS)


async def test_a_sendout_without_a_snapshot_reserves_no_codes(connection: Connection) -> None:
    """Only a snapshot of the recipients gives their number, and restored data may lack the snapshot."""
    await add_stock(connection)
    sendout_id = await start(connection, "m", "g")
    with pytest.raises(LeaseLost):
        await sendouts.admit(connection, await claim_sendout(connection))
    assert await state_of(connection, sendout_id) == "preparing"


async def test_one_address_in_two_spellings_gets_one_mail(connection: Connection) -> None:
    """The mail goes to the first spelling of the address."""
    await add_stock(connection)
    given = [
        Recipient(email=email, attributes={"first_name": name})
        for email, name in (("Ada@example.org", "Ada"), ("ada@Example.ORG", "Eve"), ("bob@example.org", "Bob"))
    ]
    async with connection.transaction():
        await sendouts.create(connection, StartSendout(message="m", recipients=tuple(given)), batch_size=10)
    rows = await connection.fetch("SELECT number, attributes FROM delivery ORDER BY number")
    assert [(row["number"], row["attributes"]["first_name"]) for row in rows] == [(1, "Ada"), (2, "Bob")]


# --- reserving codes -----------------------------------------------------------------------------------------------


async def test_concurrent_resumes_reserve_codes_once(connection: Connection, other: Connection) -> None:
    """The second resume waits for the first one, then finds the sendout in state sending."""
    await add_stock(connection, codes=9)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await add_codes(connection, "a", [f"MORE-{number}" for number in range(20)])
    async with connection.transaction():
        assert isinstance(await sendouts.resume(connection, sendout_id), Granted)
        again = asyncio.create_task(resume(other, sendout_id))
        await until_blocked(connection, again)
    with pytest.raises(Conflict, match="is sending"):
        await again
    (found,) = await lists.get(connection, "a")
    assert (found.available, found.reserved) == (19, 10)


async def test_two_sendouts_do_not_reserve_the_same_codes(connection: Connection, other: Connection) -> None:
    """Two sendouts need ten of fifteen codes each. The second one waits for the first one, then lacks five codes."""
    await add_stock(connection, codes=15)
    for _ in range(2):
        await start(connection, "m", "g")
    first, second = await claim_sendout(connection), await claim_sendout(other)
    for each in (first, second):
        await sendouts.take_snapshot(connection, each, batch_size=10)
    async with connection.transaction():
        assert isinstance(await sendouts.admit(connection, first), Granted)
        admitting = asyncio.create_task(sendouts.admit(other, second))
        await until_blocked(connection, admitting)
    assert str(await admitting) == "list a: 10 needed, 5 available, 5 missing"


async def test_lists_are_locked_in_one_order(connection: Connection, other: Connection, third: Connection) -> None:
    """Lists are locked in the order of their ids. A session that waits for the first list has locked no other list."""
    await add_stock(connection, "a", "b")
    await start(connection, "m", "g")
    async with lock_rows(other, "coupon_list WHERE name = 'a'"):
        preparing = asyncio.create_task(prepare(connection))
        await until_blocked(other, preparing)
        async with lock_rows(third, "coupon_list WHERE name = 'b'"):
            pass
    assert isinstance(await preparing, Granted)


async def test_a_list_deleted_in_the_meantime_reserves_no_codes(connection: Connection) -> None:
    """The deletion could not see the sendout, whose transaction was not yet committed."""
    await add_stock(connection)
    await start(connection, "m", "g")
    async with connection.transaction():
        await connection.execute("DELETE FROM coupon")
        await connection.execute(
            "UPDATE coupon_list SET archived_at = now(), deleted_at = now(), total = 0, available = 0"
        )
    with pytest.raises(Conflict, match="list a is deleted"):
        await prepare(connection)


async def test_a_list_that_is_being_replaced_resumes_no_sendout(connection: Connection) -> None:
    """The import is about to remove some of the list's codes. The sweep checks again after the import."""
    await add_stock(connection, codes=9)
    command = StartSendout(message="m", group="g", auto_resume=True)
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=10)
    assert isinstance(await prepare(connection), Short)
    await add_codes(connection, "a", ["ONE-MORE"])
    replacing = ImportCoupons(list="a", mode=ImportMode.REPLACE, codes=("X",))
    await imports.create(connection, replacing)
    assert await sendouts.auto_resume(connection) == []
    assert await sendout_views.list_resumable(connection, "a") == []
    await imports.cancel(connection, replacing.id)
    assert await sendouts.auto_resume(connection) == [command.id]


async def test_an_archived_list_serves_sendouts_under_way(connection: Connection) -> None:
    """A queued and an interrupted sendout get its codes, but a new one is refused, and the list is not deleted."""
    await add_stock(connection, codes=9)
    interrupted = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await add_codes(connection, "a", [f"MORE-{number}" for number in range(11)])
    queued = await start(connection, "m", "g")
    served = await lists.archive(connection, "a")
    assert [(each.id, each.message, each.state) for each in served] == [
        (interrupted, "m", "interrupted"), (queued, "m", "queued"),
    ]  # fmt: skip
    assert isinstance(await prepare(connection), Granted)
    assert [each.id for each in await sendout_views.list_resumable(connection, "a")] == [interrupted]
    assert isinstance(await resume(connection, interrupted), Granted)
    for refused in (start(connection, "m", "g"), save_message(connection, "m", "a"), add_codes(connection, "a", ["X"])):
        with pytest.raises(Conflict, match="list a is archived"):
            await refused
    with pytest.raises(Conflict, match="list a is needed by sendout"):
        await lists.delete(connection, "a")
    with pytest.raises(Conflict, match="list a is already archived"):
        await lists.archive(connection, "a")


async def test_a_cancelled_sendout_still_shows_its_missing_codes(connection: Connection) -> None:
    """The cancelled sendout shows the numbers of its interruption, however many codes the list has now."""
    await add_stock(connection, codes=7)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await sendouts.cancel(connection, sendout_id)
    await add_codes(connection, "a", [f"LATER-{number}" for number in range(9)])
    assert [each.missing for each in (await sendout_views.get(connection, sendout_id)).lists] == [3]


# --- ending --------------------------------------------------------------------------------------------------------


async def test_an_ended_sendout_is_neither_paused_nor_cancelled(connection: Connection) -> None:
    """A finished or interrupted sendout cannot be paused, and a finished one cannot be cancelled."""
    await add_stock(connection, codes=15)
    finished = await start_sending(connection)
    await send_batch(connection)
    assert await sendouts.settle(connection, finished)
    interrupted = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    for sendout_id in (finished, interrupted):
        with pytest.raises(Conflict, match="only a sending or scheduled sendout"):
            await sendouts.pause(connection, sendout_id, "by a test")
    with pytest.raises(Conflict, match="finished already"):
        await sendouts.cancel(connection, finished)
    assert await state_of(connection, finished) == "finished"
    assert await state_of(connection, interrupted) == "interrupted"


async def test_a_sendout_with_remaining_mails_does_not_finish(connection: Connection) -> None:
    """A sendout finishes only when every mail has a result."""
    await add_stock(connection)
    sendout_id = await start_sending(connection)
    assert not await sendouts.settle(connection, sendout_id)
    await send_batch(connection)
    assert await sendouts.settle(connection, sendout_id)


async def test_a_paused_sendout_does_not_finish(connection: Connection) -> None:
    """A paused sendout finishes after it is resumed, even if its last mail was sent before the pause."""
    await add_stock(connection)
    sendout_id = await start_sending(connection)
    await send_batch(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    assert not await sendouts.settle(connection, sendout_id)
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    assert await sendouts.settle(connection, sendout_id)
    assert await state_of(connection, sendout_id) == "finished"


async def test_a_cancelled_sendout_stays_cancelled(connection: Connection) -> None:
    """When the last batch is closed, the sendout ends, but does not become finished."""
    await add_stock(connection)
    sendout_id = await start_sending(connection)
    await sendouts.cancel(connection, sendout_id)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.close(connection, batch)
    assert await sendouts.settle(connection, sendout_id)
    assert await state_of(connection, sendout_id) == "cancelled"
