"""Each fence of a sendout and of its lists, by itself: who prepares it, who is promised codes, how it ends."""

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
from tests.locks import AT_ONCE_SECONDS, locked, until_blocked

OVER = "UPDATE sendout SET lease_until = now() - interval '1 s'"


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


async def stocked(connection: Connection, *of_lists: str, codes: int = 10) -> None:
    """Ten recipients, and a message that names these lists."""
    for name in of_lists or ("a",):
        await add_list(connection, name, codes)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", *(of_lists or ("a",)))


async def claim(connection: Connection) -> Claim | None:
    return await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def held(connection: Connection) -> Claim:
    claimed = await claim(connection)
    assert claimed
    return claimed


async def sending(connection: Connection) -> UUID:
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    return sendout_id


async def mailed(connection: Connection) -> None:
    """A worker sends all mails of a batch."""
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


# --- whose a sendout is ----------------------------------------------------------------------------------------------


async def test_a_sendout_that_is_prepared_is_nobody_elses(connection: Connection, other: Connection) -> None:
    """Until its lease is over."""
    await stocked(connection)
    await start(connection, "m", "g")
    await held(connection)
    assert await claim(other) is None
    await connection.execute(OVER)
    assert await claim(other)


async def test_a_sendout_that_is_just_being_claimed_is_passed_by(connection: Connection, other: Connection) -> None:
    """Nobody gets it, and nobody waits for it."""
    await stocked(connection)
    await start(connection, "m", "g")
    async with other.transaction():
        await held(other)
        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert await claim(connection) is None


async def test_whoever_lost_a_sendout_prepares_nothing(connection: Connection, other: Connection) -> None:
    """No snapshot, no promise, no end: these are the other worker's."""
    await stocked(connection)
    await start(connection, "m", "g")
    lost = await held(connection)
    await connection.execute(OVER)
    taken = await held(other)
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


async def test_a_lease_that_is_over_is_lost_before_anybody_takes_it(connection: Connection) -> None:
    """Its worker was told when it had to stop."""
    await stocked(connection)
    await start(connection, "m", "g")
    claimed = await held(connection)
    await connection.execute(OVER)
    with pytest.raises(LeaseLost):
        await sendouts.take_snapshot(connection, claimed, batch_size=10)
    with pytest.raises(LeaseLost):
        await sendouts.renew(connection, claimed, lease_seconds=LEASE_SECONDS)


async def test_a_sendout_that_nobody_has_counted_is_promised_nothing(connection: Connection) -> None:
    """Its recipients were counted by a worker that knows more than these data."""
    await stocked(connection)
    sendout_id = await start(connection, "m", "g")
    with pytest.raises(LeaseLost):
        await sendouts.admit(connection, await held(connection))
    assert await state_of(connection, sendout_id) == "preparing"


async def test_one_address_in_two_spellings_gets_one_mail(connection: Connection) -> None:
    """The first one counts."""
    await stocked(connection)
    given = [
        Recipient(email=email, attributes={"first_name": name})
        for email, name in (("Ada@example.org", "Ada"), ("ada@Example.ORG", "Eve"), ("bob@example.org", "Bob"))
    ]
    async with connection.transaction():
        await sendouts.create(connection, StartSendout(message="m", recipients=tuple(given)), batch_size=10)
    rows = await connection.fetch("SELECT number, attributes FROM delivery ORDER BY number")
    assert [(row["number"], row["attributes"]["first_name"]) for row in rows] == [(1, "Ada"), (2, "Bob")]


# --- who is promised codes -------------------------------------------------------------------------------------------


async def test_two_that_resume_at_once_promise_once(connection: Connection, other: Connection) -> None:
    """The second waits for the first, and then finds it sending."""
    await stocked(connection, codes=9)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await add_codes(connection, "a", [f"MORE-{number}" for number in range(20)])
    async with connection.transaction():
        assert isinstance(await sendouts.resume(connection, sendout_id), Granted)
        again = asyncio.create_task(resume(other, sendout_id))
        await until_blocked(connection)
    with pytest.raises(Conflict, match="is sending"):
        await again
    (found,) = await lists.get(connection, "a")
    assert (found.available, found.reserved) == (19, 10)


async def test_two_sendouts_are_not_promised_the_same_codes(connection: Connection, other: Connection) -> None:
    """Fifteen codes, ten needed twice: the second waits for the first, and then is short by five."""
    await stocked(connection, codes=15)
    for _ in range(2):
        await start(connection, "m", "g")
    first, second = await held(connection), await held(other)
    for each in (first, second):
        await sendouts.take_snapshot(connection, each, batch_size=10)
    async with connection.transaction():
        assert isinstance(await sendouts.admit(connection, first), Granted)
        admitting = asyncio.create_task(sendouts.admit(other, second))
        await until_blocked(connection)
    assert str(await admitting) == "list a: 10 needed, 5 available, 5 missing"


async def test_lists_are_locked_in_one_order(connection: Connection, other: Connection, third: Connection) -> None:
    """Of several lists the first comes first: whoever waits for it holds none of the others."""
    await stocked(connection, "a", "b")
    await start(connection, "m", "g")
    async with locked(other, "coupon_list WHERE name = 'a'"):
        preparing = asyncio.create_task(prepare(connection))
        await until_blocked(other)
        async with locked(third, "coupon_list WHERE name = 'b'"):
            pass
    assert isinstance(await preparing, Granted)


async def test_a_list_that_was_archived_meanwhile_promises_nothing(connection: Connection) -> None:
    """The sendout had begun before anybody could see that it needs the list."""
    await stocked(connection)
    await start(connection, "m", "g")
    await connection.execute("UPDATE coupon_list SET archived_at = now()")
    with pytest.raises(Conflict, match="list a is archived"):
        await prepare(connection)
    (found,) = await lists.get(connection, "a")
    assert (found.available, found.reserved) == (10, 0)


async def test_a_list_that_is_being_replaced_resumes_nobody(connection: Connection) -> None:
    """What it has now is partly to go; when the import has ended, it is looked again."""
    await stocked(connection, codes=9)
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


async def test_a_list_that_a_sendout_needs_is_not_archived(connection: Connection) -> None:
    """Nor can it be deleted then: its codes go on to the sendout's recipients."""
    await stocked(connection)
    sendout_id = await sending(connection)
    with pytest.raises(Conflict, match="needs it"):
        await lists.archive(connection, "a")
    await mailed(connection)
    assert await sendouts.settle(connection, sendout_id)
    await lists.archive(connection, "a")


async def test_what_was_missing_is_shown_of_a_cancelled_one_too(connection: Connection) -> None:
    """It did not send for want of so many codes, however many there are now."""
    await stocked(connection, codes=7)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await sendouts.cancel(connection, sendout_id)
    await add_codes(connection, "a", [f"LATER-{number}" for number in range(9)])
    assert [each.missing for each in (await sendout_views.get(connection, sendout_id)).lists] == [3]


# --- how it ends -----------------------------------------------------------------------------------------------------


async def test_what_has_ended_stays_as_it_is(connection: Connection) -> None:
    """Neither paused nor cancelled; only what sends is paused."""
    await stocked(connection, codes=15)
    finished = await sending(connection)
    await mailed(connection)
    assert await sendouts.settle(connection, finished)
    interrupted = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    for sendout_id in (finished, interrupted):
        with pytest.raises(Conflict, match="only a sending one"):
            await sendouts.pause(connection, sendout_id, "by a test")
    with pytest.raises(Conflict, match="finished already"):
        await sendouts.cancel(connection, finished)
    assert await state_of(connection, finished) == "finished"
    assert await state_of(connection, interrupted) == "interrupted"


async def test_a_sendout_with_open_mails_does_not_end(connection: Connection) -> None:
    """However many have an outcome."""
    await stocked(connection)
    sendout_id = await sending(connection)
    assert not await sendouts.settle(connection, sendout_id)
    await mailed(connection)
    assert await sendouts.settle(connection, sendout_id)


async def test_a_paused_sendout_does_not_end(connection: Connection) -> None:
    """Although its last mail was sent: whoever paused it lets it end."""
    await stocked(connection)
    sendout_id = await sending(connection)
    await mailed(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    assert not await sendouts.settle(connection, sendout_id)
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    assert await sendouts.settle(connection, sendout_id)
    assert await state_of(connection, sendout_id) == "finished"


async def test_a_cancelled_sendout_stays_cancelled(connection: Connection) -> None:
    """When its last batch is closed, it has ended, and is not called finished."""
    await stocked(connection)
    sendout_id = await sending(connection)
    await sendouts.cancel(connection, sendout_id)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.close(connection, batch)
    assert await sendouts.settle(connection, sendout_id)
    assert await state_of(connection, sendout_id) == "cancelled"
