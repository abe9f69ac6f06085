"""Uncertain mails are sent again only if an operator or the policy decides so, and with the same code."""

from uuid import UUID, uuid4

import pytest

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import DeliveryState
from coupons.store import deliveries, lookup, sendout_views, sendouts, uncertain
from coupons.store.deliveries import DeliveryResult
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message, start
from workers.delivery.policy import refused


async def finished_with_uncertain(connection: Connection) -> UUID:
    """Create a finished sendout of ten mails in two batches, of which the first three mails are uncertain."""
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=8)
    await deliver(connection, uncertain=3)
    assert await sendouts.settle(connection, sendout_id)
    return sendout_id


async def deliver(connection: Connection, *, uncertain: int = 0) -> list[int]:
    """Send all mails that are due, as a worker does, and return their numbers."""
    numbers = []
    while batch := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        await deliveries.assign_codes(connection, batch)
        due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id))
        outcomes = [
            DeliveryResult.of(each, DeliveryState.UNCERTAIN, "the connection was lost")
            if each.number <= uncertain
            else DeliveryResult.of(each, DeliveryState.SENT, "250")
            for each in due
        ]
        await deliveries.record(
            connection,
            batch,
            flush=uuid4(),
            results=outcomes,
            in_flight=[],
            intents=[],
            lease_seconds=LEASE_SECONDS,
        )
        await deliveries.release(connection, batch)
        numbers += [each.number for each in due]
    return numbers


async def code_of(connection: Connection, number: int) -> str:
    (mail,) = await lookup.list_mails(connection, f"c{number}@example.org")
    return mail.codes["a"]


async def test_uncertain_mails_are_listed(connection: Connection) -> None:
    """The list has the mails in the order of their numbers, each with its reason."""
    sendout_id = await finished_with_uncertain(connection)
    found = [each async for each in uncertain.iter_mails(connection, sendout_id)]
    assert [(each.number, each.reply) for each in found] == [(n, "the connection was lost") for n in (1, 2, 3)]


async def test_accepted_mails_count_as_sent(connection: Connection) -> None:
    """After the mails are accepted, the sendout's numbers add up, and no mail is sent."""
    sendout_id = await finished_with_uncertain(connection)
    assert await uncertain.resolve(connection, sendout_id, "accept") == 3
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.uncertain, found.state, found.lists[0].sent) == (10, 0, "finished", 10)
    assert await uncertain.resolve(connection, sendout_id, "accept") == 0


async def test_resent_mails_keep_their_codes(connection: Connection) -> None:
    """A finished sendout sends only its uncertain mails again, and then finishes again."""
    sendout_id = await finished_with_uncertain(connection)
    before = await code_of(connection, 0)
    assert await uncertain.resolve(connection, sendout_id, "resend") == 3
    assert (await sendout_views.get(connection, sendout_id)).state == "sending"
    assert await deliver(connection) == [1, 2, 3]
    assert await sendouts.settle(connection, sendout_id)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.uncertain, found.state) == (10, 0, "finished")
    assert await code_of(connection, 0) == before


async def test_mails_can_be_resolved_by_address(connection: Connection) -> None:
    """Mails to other addresses stay uncertain."""
    sendout_id = await finished_with_uncertain(connection)
    assert await uncertain.resolve(connection, sendout_id, "accept", address_keys=["c1@example.org"]) == 1
    assert (await sendout_views.get(connection, sendout_id)).uncertain == 2


async def test_mails_of_a_cancelled_sendout_are_not_resent(connection: Connection) -> None:
    """Uncertain mails of a cancelled sendout can only be accepted."""
    sendout_id = await finished_with_uncertain(connection)
    await connection.execute("UPDATE sendout SET state = 'cancelled'")
    with pytest.raises(Conflict, match="can only be accepted"):
        await uncertain.resolve(connection, sendout_id, "resend")
    assert await uncertain.resolve_all(connection, "resend") == 0
    assert await uncertain.resolve(connection, sendout_id, "accept") == 3


async def test_mails_that_stay_uncertain_are_left_to_an_operator(connection: Connection) -> None:
    """The policy does not resend a mail forever, because the recipient might get a copy each time."""
    await finished_with_uncertain(connection)
    resent = []
    while count := await uncertain.resolve_all(connection, "resend"):
        resent.append(count)
        await deliver(connection, uncertain=1)
    assert resent == [3, 1]
    sendout_id = await connection.fetchval("SELECT id FROM sendout")
    assert await uncertain.resolve(connection, sendout_id, "resend") == 1


async def test_a_code_that_may_have_arrived_is_never_reassigned(connection: Connection) -> None:
    """If a resent mail is refused or cancelled, its code stays assigned and the mail stays uncertain."""
    sendout_id = await finished_with_uncertain(connection)
    await uncertain.resolve(connection, sendout_id, "resend")
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    first, *_ = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    assert refused(first, "550 5.1.1 unknown").state == "uncertain"
    await deliveries.record(
        connection,
        batch,
        flush=uuid4(),
        results=[refused(first, "550 5.1.1 unknown")],
        in_flight=[],
        intents=[],
        lease_seconds=LEASE_SECONDS,
    )
    await sendouts.cancel(connection, sendout_id)
    await deliveries.close(connection, batch)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.uncertain, found.cancelled, found.remaining) == (3, 0, 0)
    assert await connection.fetchval("SELECT count(*) FROM coupon WHERE sendout_id IS NULL") == 0


async def test_mails_in_flight_of_a_dead_worker_become_uncertain(connection: Connection) -> None:
    """The mails become uncertain even in a paused sendout, so that an operator can resolve them before the resume."""
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    await deliveries.record(
        connection, batch, flush=uuid4(), results=[], in_flight=[], intents=[1, 2, 3], lease_seconds=LEASE_SECONDS
    )
    await sendouts.pause(connection, sendout_id, "by a test")
    assert await deliveries.recover(connection, owner="other", lease_seconds=LEASE_SECONDS) == 0
    await connection.execute("UPDATE delivery_batch SET lease_until = now() - interval '1 s'")
    assert await deliveries.recover(connection, owner="other", lease_seconds=LEASE_SECONDS) == 3
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.uncertain, found.in_flight, found.leased_batches) == ("paused", 3, 0, 0)


async def test_a_batch_that_cannot_be_recovered_holds_up_no_other(connection: Connection) -> None:
    """The sweep and the workers recover the other batches of dead workers, and the batch is tried once per lease."""
    await add_group(connection, "g", 24)
    await save_message(connection, "m")
    await start(connection, "m", "g")
    await prepare(connection, batch_size=8)
    for _ in range(3):
        batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
        assert batch
        await deliveries.record(
            connection,
            batch,
            flush=uuid4(),
            results=[],
            in_flight=[],
            intents=[batch.first_delivery],
            lease_seconds=LEASE_SECONDS,
        )
    await connection.execute("UPDATE delivery SET state = 'sent' WHERE number IN (1, 9)")
    await connection.execute("UPDATE delivery_batch SET lease_until = now() - interval '1 s'")
    claimed = await deliveries.claim(connection, owner="other", lease_seconds=LEASE_SECONDS)
    assert claimed and claimed.number == 3
    await connection.execute("UPDATE delivery_batch SET lease_until = now() - interval '1 s' WHERE number < 3")
    await connection.execute("UPDATE delivery SET state = 'pending' WHERE number = 9")
    assert await deliveries.recover(connection, owner="other", lease_seconds=LEASE_SECONDS) == 1
    await connection.execute("UPDATE delivery SET state = 'pending' WHERE number = 1")


async def test_every_reply_is_kept(connection: Connection) -> None:
    """The delivery stores the last reply, and the log of attempts the earlier ones."""
    sendout_id = await finished_with_uncertain(connection)
    await uncertain.resolve(connection, sendout_id, "resend")
    await deliver(connection)
    rows = await connection.fetch("SELECT number, attempt, outcome, reply FROM delivery_attempt ORDER BY number")
    assert [tuple(row) for row in rows] == [(n, 1, "uncertain", "the connection was lost") for n in (1, 2, 3)]
    (mail,) = await lookup.list_mails(connection, "c0@example.org")
    assert (mail.attempts, mail.reply) == (2, "250")
