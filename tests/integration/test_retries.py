"""Refused and deferred mails are retried only if an operator decides so, with codes of all their lists."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID, uuid4

import pytest

from coupons.addresses import parse_address
from coupons.admission import Granted
from coupons.database import Connection, open_pool
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.states import DeliveryState, Shortage
from coupons.store import deliveries, lists, lookup, messages, retries, sendout_views, sendouts, uncertain
from coupons.store.deliveries import Assignment, Batch, Delivery, DeliveryResult
from coupons.store.retries import Choice, Correction, NotEnoughCodes
from coupons.templates.rendering import Parts
from tests.factories import (
    LEASE_SECONDS,
    SENDER,
    add_codes,
    add_group,
    add_list,
    add_recipients,
    add_samples,
    prepare,
    save_message,
    start,
)
from tests.locks import until_blocked, without_waiting
from workers.delivery.batch_loader import BatchLoader, LoadedBatch

REFUSED = Choice(refused=True)
DEFERRED = Choice(deferred=True)
Outcome = Callable[[Delivery], DeliveryState]


def all_sent(_: Delivery) -> DeliveryState:
    return DeliveryState.SENT


def outcomes(state: DeliveryState, numbers: Iterable[int]) -> Outcome:
    """Return a relay's replies: mails with these numbers get this state, and the others are sent."""
    return lambda delivery: state if delivery.number in {*numbers} else DeliveryState.SENT


def correction(old: str, new: str) -> Choice:
    return Choice(corrections=(Correction(parse_address(old), parse_address(new)),))


async def sending(connection: Connection, *, codes: int = 10, recipients: int = 10) -> UUID:
    """Create a sendout in batches of eight mails, which prints a code of list a."""
    await add_list(connection, "a", codes)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection, batch_size=8), Granted)
    return sendout_id


async def finished(connection: Connection, *, refused: int = 3, codes: int = 10) -> UUID:
    """Create a finished sendout of ten mails, of which the first ones are refused."""
    sendout_id = await sending(connection, codes=codes)
    await deliver(connection, outcomes(DeliveryState.REFUSED, range(1, refused + 1)))
    assert await sendouts.settle(connection, sendout_id)
    return sendout_id


async def claim(connection: Connection) -> Batch:
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    return batch


async def deliver(connection: Connection, outcome: Outcome = all_sent) -> list[Delivery]:
    """Send all mails that are due, as a worker does, and return them."""
    sent: list[Delivery] = []
    while batch := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        sent += await deliver_batch(connection, batch, outcome)
        await deliveries.release(connection, batch)
    return sent


async def deliver_batch(connection: Connection, batch: Batch, outcome: Outcome = all_sent) -> list[Delivery]:
    assert (await deliveries.assign_codes(connection, batch)).complete
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id))
    results = [
        DeliveryResult.of(each, outcome(each), "250" if outcome(each) == DeliveryState.SENT else "reply", due_in=3_600)
        for each in due
    ]
    await record(connection, batch, results=results)
    return due


async def record(
    connection: Connection, batch: Batch, *, results: list[DeliveryResult], intents: Iterable[int] = ()
) -> None:
    await deliveries.record(
        connection, batch, flush=uuid4(), results=results, in_flight=[], intents=[*intents], lease_seconds=LEASE_SECONDS
    )  # fmt: skip


async def codes_of(connection: Connection, name: str = "a") -> tuple[int, int, int, int]:
    """Return the list's numbers of available, reserved, assigned and sent codes."""
    (found,) = await lists.get(connection, name)
    return found.available, found.reserved, found.assigned, found.sent


async def contents(connection: Connection) -> list[str]:
    """Return the rows that a retry may change."""
    tables = ("delivery", "delivery_attempt", "delivery_batch", "sendout", "sendout_list", "coupon_list", "coupon")
    return [
        await connection.fetchval(f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} t")
        for table in tables
    ]


# --- refused mails ---------------------------------------------------------------------------------------------------


async def test_refused_mails_are_sent_again(connection: Connection) -> None:
    """A finished sendout sends only its refused mails again, with codes that were reserved again, and then finishes."""
    sendout_id = await finished(connection)
    assert await codes_of(connection) == (3, 0, 0, 7)
    done = await retries.retry(connection, sendout_id, REFUSED)
    assert (done.refused, done.deferred, done.corrected) == (3, 0, 0)
    assert [(each.name, each.needed, each.available, each.missing) for each in done.lists] == [("a", 3, 3, 0)]
    assert await codes_of(connection) == (0, 3, 0, 7)
    assert (await sendout_views.get(connection, sendout_id)).state == "sending"
    assert [each.number for each in await deliver(connection)] == [1, 2, 3]
    ended = await sendouts.settle(connection, sendout_id)
    assert ended
    assert (ended.state, ended.refused, ended.uncertain) == ("finished", 0, 0)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.refused, found.state) == (10, 0, "finished")
    assert await codes_of(connection) == (0, 0, 0, 10)


async def test_mails_that_are_refused_again_return_their_codes_again(connection: Connection) -> None:
    """Each refusal is counted once, and the replies to both attempts are kept."""
    sendout_id = await finished(connection, refused=1)
    await retries.retry(connection, sendout_id, REFUSED)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1]))
    ended = await sendouts.settle(connection, sendout_id)
    assert ended
    assert ended.refused == 1
    assert await codes_of(connection) == (1, 0, 0, 9)
    replies = [each async for each in lookup.iter_replies(connection, sendout_id)]
    assert [(each.attempt, each.outcome) for each in replies] == [(1, "refused"), (2, "refused")]


async def test_the_retry_period_begins_again(connection: Connection) -> None:
    """A mail that was refused because its retries were exhausted is not given up at its next deferral."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
    await connection.execute(
        "UPDATE delivery SET deferred_since = now() - interval '2 days', due_at = now() WHERE number = 1"
    )
    await connection.execute("UPDATE delivery_batch SET due_at = now()")
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1]))
    assert await sendouts.settle(connection, sendout_id)
    await retries.retry(connection, sendout_id, REFUSED)
    (due,) = await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
    assert (due.attempts, due.deferred_for) == (2, None)
    period = "SELECT now() - deferred_since < interval '1 hour' FROM delivery WHERE number = 1"
    assert await connection.fetchval(period)


async def test_a_retry_with_too_few_codes_changes_nothing(connection: Connection) -> None:
    """Codes of all lists are reserved or of none. The reason has the numbers; after an import the retry succeeds."""
    await add_list(connection, "b", 10)
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a", "b")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=8)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1, 2, 3]))
    assert await sendouts.settle(connection, sendout_id)
    await use_up(connection, "a", recipients=2)
    before = await contents(connection)
    for action in (retries.preview, retries.retry):
        with pytest.raises(
            NotEnoughCodes, match=r"^not enough codes: list a: 3 needed, 1 available, 2 missing; import"
        ):
            await action(connection, sendout_id, REFUSED)
    assert await contents(connection) == before
    await add_codes(connection, "a", ["MORE-1", "MORE-2"])
    shown = await retries.preview(connection, sendout_id, REFUSED)
    assert {(each.name, each.needed, each.available) for each in shown.lists} == {("a", 3, 3), ("b", 3, 3)}
    assert (await retries.retry(connection, sendout_id, REFUSED)).refused == 3
    assert (await codes_of(connection, "a"), await codes_of(connection, "b")) == ((0, 3, 0, 9), (0, 3, 0, 7))


async def use_up(connection: Connection, name: str, *, recipients: int) -> None:
    """Send codes of this list to other recipients."""
    await add_group(connection, "others", recipients)
    await save_message(connection, "other", name)
    sendout_id = await start(connection, "other", "others")
    await prepare(connection)
    await deliver(connection)
    assert await sendouts.settle(connection, sendout_id)


async def test_recipients_without_a_code_get_the_alternative_text(connection: Connection) -> None:
    """A list with an alternative text gives the codes that it has. The sendout shows how many mails print the text."""
    await add_list(connection, "a", 10, shortage=Shortage.TEXT)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1, 2, 3]))
    assert await sendouts.settle(connection, sendout_id)
    await use_up(connection, "a", recipients=2)
    await retries.retry(connection, sendout_id, REFUSED)
    sent = await deliver(connection)
    assert [len(each.codes) for each in sent] == [1, 0, 0]
    assert await sendouts.settle(connection, sendout_id)
    (codes,) = (await sendout_views.get(connection, sendout_id)).lists
    assert (codes.sent, codes.missing) == (8, 2)


async def test_a_mail_with_the_alternative_text_counts_once_as_missing(connection: Connection) -> None:
    """A refused mail that had no code before the retry is not counted as missing a second time."""
    await add_list(connection, "a", 8, shortage=Shortage.TEXT)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [9]))
    await sendouts.settle(connection, sendout_id)
    await retries.retry(connection, sendout_id, REFUSED)
    assert [each.missing for each in (await sendout_views.get(connection, sendout_id)).lists] == [2]


async def test_an_archived_list_serves_a_retry_and_a_deleted_one_prevents_it(connection: Connection) -> None:
    """The sendout was accepted before its list was archived. A deleted list has no codes."""
    sendout_id = await finished(connection)
    await lists.archive(connection, "a")
    assert (await retries.preview(connection, sendout_id, REFUSED)).mails
    await lists.delete(connection, "a")
    with pytest.raises(Conflict, match=r"^list a is deleted$"):
        await retries.retry(connection, sendout_id, REFUSED)


@pytest.mark.parametrize("state", ["cancelled", "failed", "interrupted", "preparing", "queued"])
async def test_a_sendout_in_another_state_is_not_retried(connection: Connection, state: str) -> None:
    """Only mails of a sending, paused or finished sendout are retried."""
    sendout_id = await finished(connection)
    async with connection.transaction():
        await connection.execute("UPDATE sendout SET started_at = NULL, state = $1", state)
        with pytest.raises(Conflict, match=f"is {state}: only mails of a sending, paused or finished one"):
            await retries.retry(connection, sendout_id, REFUSED)
        await connection.execute("UPDATE sendout SET state = 'finished'")
    with pytest.raises(Conflict, match="there is no sendout"):
        await retries.retry(connection, uuid4(), REFUSED)


async def test_restored_data_are_not_retried(connection: Connection) -> None:
    """Available codes may have been sent since the backup, so the restore guard blocks a retry."""
    sendout_id = await finished(connection)
    await connection.execute("UPDATE restore_guard SET timeline = timeline + 1")
    with pytest.raises(Conflict, match="restore-guard accept"):
        await retries.retry(connection, sendout_id, REFUSED)


async def test_a_paused_sendout_stays_paused(connection: Connection) -> None:
    """Its retried mails are sent once it is resumed."""
    sendout_id = await sending(connection)
    await deliver_batch(connection, await claim(connection), outcomes(DeliveryState.REFUSED, [1]))
    await sendouts.pause(connection, sendout_id, "by a test")
    done = await retries.retry(connection, sendout_id, REFUSED)
    assert (done.state, done.refused) == ("paused", 1)
    assert (await sendout_views.get(connection, sendout_id)).state == "paused"


async def test_concurrent_retries_retry_each_mail_once(connection: Connection, other: Connection) -> None:
    """The second retry waits for the first one, and finds no refused mail left."""
    sendout_id = await finished(connection)
    async with connection.transaction():
        first = await retries.retry(connection, sendout_id, REFUSED)
        second = asyncio.create_task(retries.retry(other, sendout_id, REFUSED))
        await until_blocked(connection, second)
    assert (first.refused, (await second).refused) == (3, 0)
    assert await codes_of(connection) == (0, 3, 0, 7)


async def test_a_retry_without_mails_changes_nothing(connection: Connection) -> None:
    """A finished sendout without refused mails stays finished."""
    sendout_id = await finished(connection, refused=0)
    before = await contents(connection)
    assert (await retries.retry(connection, sendout_id, REFUSED)).mails == 0
    assert await contents(connection) == before


async def test_two_retries_do_not_reserve_the_same_code(connection: Connection, other: Connection) -> None:
    """Two sendouts have a refused mail each, and the list has one code. The second retry waits and is refused."""
    first = await finished(connection, refused=1, codes=21)
    second = await start(connection, "m", "g")
    await prepare(connection)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1]))
    assert await sendouts.settle(connection, second)
    await use_up(connection, "a", recipients=2)
    async with connection.transaction():
        await retries.retry(connection, first, REFUSED)
        waiting = asyncio.create_task(retries.retry(other, second, REFUSED))
        await until_blocked(connection, waiting)
    with pytest.raises(NotEnoughCodes, match="1 needed, 0 available, 1 missing"):
        await waiting
    assert await codes_of(connection) == (0, 1, 0, 20)


async def test_a_batch_is_not_claimed_during_a_retry(connection: Connection, other: Connection) -> None:
    """A worker that claimed the batch could send the mail to the old address."""
    sendout_id = await sending(connection, codes=8, recipients=8)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
    await connection.execute("UPDATE delivery_batch SET due_at = now()")
    async with connection.transaction():
        await retries.preview(connection, sendout_id, correction("c0@example.org", "new@example.org"))
        claiming = deliveries.claim(other, owner="other", lease_seconds=LEASE_SECONDS)
        assert await without_waiting(connection, other, claiming) is None
    assert await deliveries.claim(other, owner="other", lease_seconds=LEASE_SECONDS)


async def test_a_sendout_does_not_finish_during_a_retry(connection: Connection, other: Connection) -> None:
    """A worker that settles the sendout waits for the retry, and then finds open batches."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1]))
    async with connection.transaction():
        await retries.retry(connection, sendout_id, REFUSED)
        settling = asyncio.create_task(sendouts.settle(other, sendout_id))
        await until_blocked(connection, settling)
    assert await settling is None
    assert await codes_of(connection) == (0, 1, 0, 9)


async def test_a_sendout_is_not_cancelled_during_a_retry(connection: Connection, other: Connection) -> None:
    """The cancellation waits for the retry, and then cancels the retried mails too: their codes return to the list."""
    sendout_id = await sending(connection)
    batch = await claim(connection)
    await deliver_batch(connection, batch, outcomes(DeliveryState.REFUSED, [1]))
    await deliveries.release(connection, batch)
    async with connection.transaction():
        await retries.retry(connection, sendout_id, REFUSED)
        cancelling = asyncio.create_task(sendouts.cancel(other, sendout_id))
        await until_blocked(connection, cancelling)
    await cancelling
    while closing := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        await deliveries.close(connection, closing)
        await deliveries.release(connection, closing)
    assert await sendouts.settle(connection, sendout_id)
    assert await codes_of(connection) == (3, 0, 0, 7)


async def test_a_mail_that_is_retried_while_its_batch_is_loaded_waits(
    connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has assigned the codes of its batch, so this mail has none yet and waits for the next claim."""
    sendout_id = await sending(connection, codes=8, recipients=8)
    await deliver(connection, outcomes(DeliveryState.REFUSED, [1, 2]))
    await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))
    batch = await claim(connection)
    assign_codes = deliveries.assign_codes

    async def assign_and_retry(own: Connection, *arguments: Any) -> Assignment:
        assigned = await assign_codes(own, *arguments)
        await retries.retry(connection, sendout_id, REFUSED)
        return assigned

    monkeypatch.setattr(deliveries, "assign_codes", assign_and_retry)
    async with open_pool(database_url, size=2) as pool:
        loaded = await BatchLoader(pool=pool, settings=Settings(_env_file=None)).load(batch)
    monkeypatch.undo()
    assert isinstance(loaded, LoadedBatch)
    assert [(each.number, len(each.codes)) for each in loaded.due] == [(1, 1)]
    await record(connection, batch, results=[DeliveryResult.of(each, DeliveryState.SENT, "250") for each in loaded.due])
    await deliveries.release(connection, batch)
    assert [(each.number, len(each.codes)) for each in await deliver(connection)] == [(2, 1)]
    assert await sendouts.settle(connection, sendout_id)


async def test_a_repeated_flush_does_not_refuse_a_retried_mail(connection: Connection) -> None:
    """A worker that lost the reply to its flush repeats it after the retry. The mail stays pending."""
    sendout_id = await sending(connection)
    batch, flush = await claim(connection), uuid4()
    await deliveries.assign_codes(connection, batch)
    first, *_ = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    refusal = [DeliveryResult.of(first, DeliveryState.REFUSED, "550")]
    for _ in range(2):
        await deliveries.record(
            connection, batch, flush=flush, results=refusal, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
        )
        await retries.retry(connection, sendout_id, REFUSED)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.refused, found.remaining) == (0, 10)


@pytest.mark.parametrize("state", [DeliveryState.REFUSED, DeliveryState.UNCERTAIN])
async def test_the_rate_does_not_count_retried_mails(connection: Connection, state: DeliveryState) -> None:
    """Mails per second come from the outcomes of attempts. Neither a retry nor a resend reduces them."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(state, range(1, 9)))
    await add_samples(connection, sendout_id)
    before = (await sendout_views.get(connection, sendout_id)).per_second
    await retries.retry(connection, sendout_id, REFUSED)
    await uncertain.resolve(connection, sendout_id, "resend")
    after = (await sendout_views.get(connection, sendout_id)).per_second
    assert before
    assert after
    assert after > before / 2


# --- deferred mails --------------------------------------------------------------------------------------------------


async def test_deferred_mails_become_due_now(connection: Connection) -> None:
    """They keep their codes, so no code is reserved."""
    sendout_id = await sending(connection)
    mails = await deliver(connection, outcomes(DeliveryState.DEFERRED, [1, 9]))
    before = {each.number: each.codes for each in mails}
    assert await deliver(connection) == []
    done = await retries.retry(connection, sendout_id, DEFERRED)
    assert (done.refused, done.deferred, done.lists) == (0, 2, ())
    assert {each.number: each.codes for each in await deliver(connection)} == {n: before[n] for n in (1, 9)}
    assert await sendouts.settle(connection, sendout_id)


async def test_a_deferred_mail_that_was_uncertain_becomes_due_now(connection: Connection) -> None:
    """Its address cannot be corrected, but it can be retried, alone and with others."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.UNCERTAIN, [1]))
    await uncertain.resolve(connection, sendout_id, "resend")
    await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
    assert (await retries.retry(connection, sendout_id, DEFERRED)).deferred == 1
    assert [each.number for each in await deliver(connection)] == [1]


async def test_a_retry_of_refused_mails_leaves_deferred_ones(connection: Connection) -> None:
    """Deferred mails are retried at their own time, and refused ones only if they are chosen."""
    sendout_id = await sending(connection)
    states = {1: DeliveryState.DEFERRED, 2: DeliveryState.REFUSED}
    await deliver(connection, lambda each: states.get(each.number, DeliveryState.SENT))
    await retries.retry(connection, sendout_id, REFUSED)
    assert [each.number for each in await deliver(connection, outcomes(DeliveryState.REFUSED, [2]))] == [2]
    await retries.retry(connection, sendout_id, DEFERRED)
    assert [each.number for each in await deliver(connection)] == [1]


async def test_a_mail_in_flight_is_not_retried(connection: Connection) -> None:
    """Its outcome is recorded as if no retry had happened."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, [1, 9]))
    await connection.execute("UPDATE delivery SET due_at = now() WHERE number = 1")
    await connection.execute("UPDATE delivery_batch SET due_at = now() WHERE number = 1")
    batch = await claim(connection)
    await deliveries.assign_codes(connection, batch)
    (mail,) = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    await record(connection, batch, results=[], intents=[1])
    assert (await retries.retry(connection, sendout_id, DEFERRED)).mails == 1
    states = "SELECT array_agg(state ORDER BY number) FROM delivery WHERE number IN (1, 9)"
    assert await connection.fetchval(states) == ["deferred", "pending"]
    with pytest.raises(Conflict, match=r"a worker is sending the mail to c0@example.org now"):
        await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))
    await record(connection, batch, results=[DeliveryResult.of(mail, DeliveryState.SENT, "250")])
    await deliveries.release(connection, batch)
    assert [each.number for each in await deliver(connection)] == [9]
    assert await sendouts.settle(connection, sendout_id)


# --- corrected addresses ---------------------------------------------------------------------------------------------


async def test_a_corrected_mail_goes_to_the_new_address(connection: Connection) -> None:
    """Only this mail is retried. Its earlier attempt is shown with the address that it was sent to."""
    sendout_id = await finished(connection)
    done = await retries.retry(connection, sendout_id, correction("C1@example.org", "Ada@example.org"))
    assert (done.refused, done.corrected) == (1, 1)
    assert [(each.number, each.address) for each in await deliver(connection)] == [(2, "Ada@example.org")]
    assert await sendouts.settle(connection, sendout_id)
    (mail,) = await lookup.list_mails(connection, "ada@example.org")
    assert (mail.state, len(mail.codes), mail.attempts) == ("sent", 1, 2)
    assert [(each.address, each.outcome) for each in mail.answers] == [
        ("c1@example.org", "refused"),
        ("Ada@example.org", "sent"),
    ]
    assert await lookup.list_mails(connection, "c1@example.org") == []


async def test_a_deferred_mail_can_be_corrected(connection: Connection) -> None:
    """It keeps its code, and its earlier attempts keep the addresses that they were sent to."""
    sendout_id = await sending(connection)
    (code, *_) = [each.codes for each in await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))]
    for address in ("a@example.org", "b@example.org"):
        old = await connection.fetchval("SELECT address FROM delivery WHERE number = 1")
        done = await retries.retry(connection, sendout_id, correction(old, address))
        assert (done.refused, done.deferred, done.lists) == (0, 1, ())
        (sent,) = await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
        assert (sent.address, sent.codes) == (address, code)
    replies = [each async for each in lookup.iter_replies(connection, sendout_id)]
    assert [each.address for each in replies] == ["c0@example.org", "a@example.org", "b@example.org"]


async def test_a_correction_can_be_combined_with_all_refused_mails(connection: Connection) -> None:
    """The corrected mail is one of them, so it needs one code only."""
    sendout_id = await finished(connection)
    (one,) = correction("c1@example.org", "new@example.org").corrections
    done = await retries.retry(connection, sendout_id, Choice(refused=True, corrections=(one,)))
    assert (done.refused, done.corrected, done.lists[0].needed) == (3, 1, 3)
    assert [each.address for each in await deliver(connection)] == [
        "c0@example.org",
        "new@example.org",
        "c2@example.org",
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("stranger@example.org", "new@example.org", "stranger@example.org is not a recipient"),
        ("c5@example.org", "new@example.org", "the mail to c5@example.org is sent"),
        ("c0@example.org", "C5@example.org", "C5@example.org is already a recipient"),
        ("c0@example.org", "C0@example.org", "C0@example.org is already a recipient"),
        ("c0@example.org", "c1@example.org", "c1@example.org is already a recipient"),
    ],
)
async def test_a_wrong_correction_changes_nothing(connection: Connection, old: str, new: str, reason: str) -> None:
    """One line names the address and the reason. Other corrections of the same retry are not made either."""
    sendout_id = await finished(connection)
    (right,) = correction("c2@example.org", "right@example.org").corrections
    (wrong,) = correction(old, new).corrections
    before = await contents(connection)
    with pytest.raises(Conflict, match=rf"^{reason}"):
        await retries.retry(connection, sendout_id, Choice(corrections=(right, wrong)))
    assert await contents(connection) == before


async def test_a_retry_reserves_only_the_codes_that_mails_need(connection: Connection) -> None:
    """Conditions decide which list a recipient needs. A retry reserves codes of these lists only, as admission does."""
    sendout_id = await finished_with_tiers(connection, "tier", gold=2, basic=2, refused=[1, 4])
    done = await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))
    assert [(each.name, each.needed) for each in done.lists] == [("gold", 1)]
    done = await retries.retry(connection, sendout_id, REFUSED)
    assert [(each.name, each.needed) for each in done.lists] == [("basic", 1)]
    assert await codes_of(connection, "gold") == (0, 1, 0, 1)
    assert await codes_of(connection, "basic") == (0, 1, 0, 1)
    assert [(each.number, len(each.codes)) for each in await deliver(connection)] == [(1, 1), (4, 1)]
    assert await sendouts.settle(connection, sendout_id)


async def test_a_corrected_mail_prints_the_same_coupons(connection: Connection) -> None:
    """If the address decides which list a mail needs, it can be corrected only to one that needs the same list."""
    sendout_id = await finished_with_tiers(connection, "email", gold=2, basic=2, refused=[1])
    with pytest.raises(Conflict, match=r"a mail to d0@example.org would print coupons of other lists"):
        await retries.retry(connection, sendout_id, correction("c0@example.org", "d0@example.org"))
    await retries.retry(connection, sendout_id, correction("c0@example.org", "gold@example.org"))
    assert [(each.address, len(each.codes)) for each in await deliver(connection)] == [("gold@example.org", 1)]
    assert await sendouts.settle(connection, sendout_id)


async def finished_with_tiers(
    connection: Connection, attribute: str, *, gold: int, basic: int, refused: list[int]
) -> UUID:
    """Create a finished sendout whose mails print a code of list gold or basic, as this attribute decides."""
    await add_list(connection, "gold", gold)
    await add_list(connection, "basic", basic)
    tiers = ["gold"] * gold + ["basic"] * basic
    await add_recipients(connection, "g", [(f"c{n}@example.org", {"tier": tier}) for n, tier in enumerate(tiers)])
    values = ("gold", "c0@example.org", "c1@example.org", "gold@example.org")
    is_gold = " or ".join(f'{attribute} == "{value}"' for value in values)
    text = f'{{% if {is_gold} %}}{{{{ coupon("gold") }}}}{{% else %}}{{{{ coupon("basic") }}}}{{% endif %}}'
    parts = Parts(subject="Hello", text=text, html=None)
    await messages.save(connection, "m", parts, sender=SENDER, reply_to=None, declared=["tier"])
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    await deliver(connection, outcomes(DeliveryState.REFUSED, refused))
    assert await sendouts.settle(connection, sendout_id)
    return sendout_id


async def test_contradicting_corrections_are_refused(connection: Connection) -> None:
    """A mail has one new address, and two mails do not get the same one."""
    sendout_id = await finished(connection)
    for pairs, reason in (
        ([("c0@example.org", "a@example.org"), ("c0@example.org", "b@example.org")], "two corrections of c0"),
        ([("c0@example.org", "a@example.org"), ("c1@example.org", "A@example.org")], "A@example.org is already"),
    ):
        chosen = tuple(Correction(parse_address(old), parse_address(new)) for old, new in pairs)
        with pytest.raises(Conflict, match=rf"^{reason}"):
            await retries.retry(connection, sendout_id, Choice(corrections=chosen))


async def test_the_address_of_a_mail_that_may_have_arrived_is_final(connection: Connection) -> None:
    """The recipient may have the code of an uncertain mail, also after the mail was resent and then deferred."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.UNCERTAIN, [1]))
    with pytest.raises(Conflict, match=r"the mail to c0@example.org is uncertain"):
        await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))
    await uncertain.resolve(connection, sendout_id, "resend")
    await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
    with pytest.raises(Conflict, match=r"an earlier mail to c0@example.org may have arrived"):
        await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))


async def test_a_loaded_deferred_mail_is_not_corrected(connection: Connection) -> None:
    """A worker that has read the batch would send the mail to the old address."""
    sendout_id = await sending(connection)
    await deliver(connection, outcomes(DeliveryState.DEFERRED, [1]))
    await connection.execute("UPDATE delivery SET due_at = now() WHERE number = 1")
    await connection.execute("UPDATE delivery_batch SET due_at = now() WHERE number = 1")
    batch = await claim(connection)
    with pytest.raises(Conflict, match="a worker is sending the mail"):
        await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))
    await deliveries.release(connection, batch)
    await retries.retry(connection, sendout_id, correction("c0@example.org", "new@example.org"))
    assert [each.address for each in await deliver(connection)] == ["new@example.org"]
