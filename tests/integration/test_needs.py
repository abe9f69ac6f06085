"""A sendout reserves and assigns only the codes that its mails print."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from coupons.admission import Granted, Short
from coupons.commands import Recipient, StartSendout
from coupons.database import Connection, Pool, connect, open_pool
from coupons.errors import Conflict, LeaseLost
from coupons.smtp import Limits, Relays, SmtpAddress
from coupons.states import DeliveryState, Shortage
from coupons.store import deliveries, lists, messages, needs, retries, sendout_views, sendouts, uncertain
from coupons.store.deliveries import Batch, Delivery, DeliveryResult
from coupons.store.retries import Choice
from coupons.templates.rendering import Parts
from sandbox.services import private_sink
from tests.factories import LEASE_SECONDS, SENDER, add_codes, add_list, add_recipients, prepare, resume, start
from tests.locks import lock_rows, until_blocked
from tests.worker_harness import batch_sender, load_batch

TIER = '{% if tier == "gold" %}{{ coupon("gold") }}{% else %}{{ coupon("basic") }}{% endif %}'
BOTH = '{% if has_coupon("a") and has_coupon("b") %}{{ coupon("a") }} {{ coupon("b") }}{% else %}Sorry{% endif %}'


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


async def save(connection: Connection, text: str, subject: str = "Hello") -> None:
    parts = Parts(subject=subject, text=text, html=None)
    await messages.save(connection, "m", parts, sender=SENDER, reply_to=None, declared=["tier", "points"])


async def add_group(connection: Connection, attributes: Sequence[Mapping[str, str]]) -> None:
    """Create the group g of c0000@example.org, c0001@example.org, … with these attributes."""
    await add_recipients(connection, "g", [(f"c{n:04}@example.org", dict(each)) for n, each in enumerate(attributes)])


def tiers(gold: int, basic: int) -> list[dict[str, str]]:
    return [{"tier": "gold"}] * gold + [{"tier": "basic"}] * basic


async def start_tiers(connection: Connection, *, gold: int = 10, basic: int = 990, text: str = TIER) -> UUID:
    """Create a sendout to recipients of two tiers, the gold ones first; each list has exactly the needed codes."""
    await add_list(connection, "gold", gold)
    await add_list(connection, "basic", basic)
    await add_group(connection, tiers(gold, basic))
    await save(connection, text)
    return await start(connection, "m", "g")


async def start_both(connection: Connection) -> UUID:
    """Create a sendout to three recipients that prints codes of both lists or none; list b has one code."""
    await add_list(connection, "a", 3)
    await add_list(connection, "b", 1, shortage=Shortage.TEXT)
    await add_group(connection, [{}] * 3)
    await save(connection, BOTH)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    return sendout_id


async def needed(connection: Connection, sendout_id: UUID) -> dict[str, int]:
    return {each.name: each.needed for each in (await sendout_views.get(connection, sendout_id)).lists}


async def available(connection: Connection, *names: str) -> list[int]:
    found = {each.name: each.available for each in await lists.get(connection, *names)}
    return [found[name] for name in names]


async def ids(connection: Connection, *names: str) -> list[int]:
    found = {each.name: each.id for each in await lists.get(connection, *names)}
    return [found[name] for name in names]


async def send(connection: Connection, pool: Pool, folder: Path) -> dict[str, str]:
    """Send a batch; return the text of each recipient's mail."""
    batch, renderer, due = await load_batch(connection)
    with private_sink(folder / "mails.jsonl") as sink:
        async with Relays(SmtpAddress.parse_all(sink.url), limits=Limits(connections=1)) as relays:
            with batch_sender(pool, batch, renderer, relays, window=50) as sender:
                await sender.run(due)
        await sendouts.settle(connection, batch.sendout_id)
        return {mail.rcpt_to[0]: mail.text.strip() for mail in sink.mails()}


async def record(connection: Connection, batch: Batch, **changes: object) -> bool:
    nothing: dict[str, object] = {"results": (), "in_flight": (), "intents": ()}
    arguments: dict[str, Any] = {"flush": uuid4(), "lease_seconds": LEASE_SECONDS} | nothing | changes
    return await deliveries.record(connection, batch, **arguments)


def refused(delivery: Delivery) -> DeliveryResult:
    return DeliveryResult.of(delivery, DeliveryState.REFUSED, "550")


# --- needs -----------------------------------------------------------------------------------------------------------


async def test_a_sendout_needs_only_the_codes_that_its_mails_print(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """10 gold of 1,000 recipients need 10 codes of one list, the others 990 codes of another, and all are mailed."""
    sendout_id = await start_tiers(connection)
    assert isinstance(await prepare(connection), Granted)
    assert await needed(connection, sendout_id) == {"gold": 10, "basic": 990}
    assert await available(connection, "gold", "basic") == [0, 0]
    mails = await send(connection, pool, tmp_path)
    assert sorted(mails.values()) == [
        *(f"BASIC-{n:09}" for n in range(990)),
        *(f"GOLD-{n:09}" for n in range(10)),
    ]
    found = await sendout_views.get(connection, sendout_id)
    assert {each.name: (each.sent, each.missing) for each in found.lists} == {"gold": (10, 0), "basic": (990, 0)}


async def test_given_recipients_need_only_the_codes_that_their_mails_print(connection: Connection) -> None:
    """The recipients of a command are evaluated as those of a group are; the first of a repeated address counts."""
    await add_list(connection, "gold", 1)
    await add_list(connection, "basic", 2)
    await save(connection, TIER)
    recipients = [Recipient(email=f"c{n}@example.org", attributes=each) for n, each in enumerate(tiers(1, 2))]
    again = Recipient(email="C0@example.org", attributes={"tier": "basic"})
    command = StartSendout(id=uuid4(), message="m", recipients=(*recipients, again))
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=100)
    assert await needed(connection, command.id) == {"gold": 1, "basic": 2}


@pytest.mark.parametrize(
    ("text", "attributes", "expected"),
    [
        ('{{ coupon("a") }}', [{}] * 3, {"a": 3}),
        ('{% if has_coupon("a") %}{{ coupon("a") }}{% endif %}', [{}] * 3, {"a": 3}),
        ('{% if tier is defined %}{{ coupon("a") }}{% endif %}', [{}, {"tier": ""}], {"a": 1}),
        ('{% if points | d("0") | int > 9 %}{{ coupon("a") }}{% endif %}', [{}, {"points": "10"}], {"a": 1}),
        ('{% if tier | d("") == "x" %}{{ coupon("a") }}{% endif %}', [{}, {"tier": "y"}], {"a": 0}),
        ('{% if email == "c0001@example.org" %}{{ coupon("a") }}{% endif %}', [{}] * 3, {"a": 1}),
        (
            r"""{% if tier == "a\tb\n\\N" and points == "\\N" and email %}{{ coupon("a") }}{% endif %}""",
            [{"tier": "a\tb\n\\N", "points": "\\N"}, {"tier": "\\N", "points": "a\tb\n\\N"}],
            {"a": 1},
        ),
    ],
)
async def test_needs_follow_the_conditions_of_the_message(
    connection: Connection, text: str, attributes: list[dict[str, str]], expected: dict[str, int]
) -> None:
    """Missing attributes, defaults, filters and the address count as in the mail; a sendout may need no code."""
    await add_list(connection, "a", 3)
    await add_group(connection, attributes)
    await save(connection, text)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    assert await needed(connection, sendout_id) == expected


async def test_unconditional_messages_store_no_needs(connection: Connection) -> None:
    """If no attribute decides, each delivery needs all lists, and the snapshot is the same as before."""
    await add_list(connection, "a", 2)
    await add_group(connection, [{}, {}])
    await save(connection, '{% if has_coupon("a") %}{{ coupon("a") }}{% endif %}')
    await start(connection, "m", "g")
    await prepare(connection)
    assert await connection.fetchval("SELECT bool_and(lists IS NULL) FROM delivery")


async def test_many_combinations_of_values_use_limited_memory(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that are not kept in memory are evaluated again."""
    monkeypatch.setattr(needs, "MAX_KNOWN", 2)
    await add_list(connection, "a", 20)
    await add_group(connection, [{"points": str(n % 7)} for n in range(20)])
    await save(connection, '{% if points | int >= 5 %}{{ coupon("a") }}{% endif %}')
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    assert await needed(connection, sendout_id) == {"a": 5}
    numbers = await connection.fetch("SELECT number FROM delivery WHERE lists <> '{}' ORDER BY number")
    assert [row["number"] for row in numbers] == [6, 7, 13, 14, 20]


async def test_too_many_sets_of_lists_fail_the_sendout(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery refers to its set of lists by two bytes during the snapshot; more sets are an error, not a mistake."""
    monkeypatch.setattr(needs, "MAX_SETS", 1)
    await start_tiers(connection, gold=1, basic=1)
    with pytest.raises(Conflict, match="more than 1 different sets of lists"):
        await prepare(connection)


async def test_an_import_during_the_snapshot_does_not_mix_up_needs(connection: Connection, other: Connection) -> None:
    """Needs are evaluated on the same copy of the group that becomes the deliveries."""
    sendout_id = await start_tiers(connection, gold=2, basic=2)
    claim = await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert claim
    assert claim.group_id
    async with connection.transaction():
        await connection.execute(needs.SQL.create_audience)
        await connection.execute(needs.SQL.copy_audience, claim.group_id)
        await add_recipients(
            other, "g", [("a@example.org", {"tier": "gold"}), ("c0000@example.org", {"tier": "basic"})]
        )
        index = bytes((0, 0, 0, 0, 1, 0, 1, 0))
        await connection.execute(needs.SQL.snapshot_audience, sendout_id, index, ["{1}", "{2}"])
        await connection.execute(needs.SQL.need_some, sendout_id, [1, 2], [2, 2])
        rows = await connection.fetch("SELECT attributes ->> 'tier' AS tier, lists FROM delivery ORDER BY number")
        assert [tuple(row) for row in rows] == [("gold", [1]), ("gold", [1]), ("basic", [2]), ("basic", [2])]


async def test_a_message_of_an_earlier_program_is_checked_before_it_is_mailed(connection: Connection) -> None:
    """A version that was saved before the check existed, and can never be sent, is rejected with the reason."""
    await add_list(connection, "gold", 1)
    await add_group(connection, [{}])
    await save(connection, '{{ coupon("gold") }}')
    await connection.execute("UPDATE message SET text = $1", '{% if has_coupon("x") %}{% endif %}{{ coupon("gold") }}')
    reason = 'message m: text, line 1: has_coupon\\("x"\\) is always false, .*; save the message again'
    with pytest.raises(Conflict, match=reason):
        await start(connection, "m", "g")


@pytest.mark.parametrize("sets", [1, 1_000])
async def test_the_sets_of_needs_are_joined_in_one_pass(connection: Connection, sets: int) -> None:
    """With any number of different sets of lists, and without statistics, no set is compared with each recipient."""
    await add_group(connection, [{}] * 1_000)
    async with connection.transaction():
        await connection.execute(needs.SQL.create_audience)
        await connection.execute(needs.SQL.copy_audience, 1)
        given = (uuid4(), bytes(2_000), ["{1}"] * sets)
        plan = await connection.fetch(f"EXPLAIN {needs.SQL.snapshot_audience}", *given)
    joins = [row[0] for row in plan if " Join" in row[0] or " Loop" in row[0]]
    assert len(joins) == 1
    assert "Nested Loop" not in joins[0]


# --- shortages -------------------------------------------------------------------------------------------------------


async def test_a_shortage_of_one_tier_interrupts_with_its_own_numbers(connection: Connection) -> None:
    """Codes that only a few recipients need can be short although the other list has plenty, and the reverse."""
    sendout_id = await start_tiers(connection, gold=3, basic=5)
    await connection.execute("DELETE FROM coupon WHERE code = 'GOLD-000000000'")
    await connection.execute("UPDATE coupon_list SET total = total - 1, available = available - 1 WHERE name = 'gold'")
    decision = await prepare(connection)
    assert isinstance(decision, Short)
    assert str(decision) == "list gold: 3 needed, 2 available, 1 missing"
    assert not (await sendout_views.get(connection, sendout_id)).resumable
    await add_codes(connection, "gold", ["GOLD-MORE"])
    assert (await sendout_views.get(connection, sendout_id)).resumable
    assert isinstance(await resume(connection, sendout_id), Granted)


async def test_an_alternative_text_reaches_only_recipients_who_need_the_list(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """If the codes of one tier run out, the mails of the other tier do not change."""
    await add_list(connection, "gold", 1, shortage=Shortage.TEXT, alternative_text="Ask us.")
    await add_list(connection, "basic", 3)
    await add_group(connection, tiers(2, 3))
    await save(connection, TIER)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    mails = await send(connection, pool, tmp_path)
    assert sorted(mails.values()) == ["Ask us.", *(f"BASIC-{n:09}" for n in range(3)), "GOLD-000000000"]
    found = {each.name: each for each in (await sendout_views.get(connection, sendout_id)).lists}
    assert (found["gold"].needed, found["gold"].sent, found["gold"].missing) == (2, 1, 1)


# --- mails -----------------------------------------------------------------------------------------------------------


async def test_a_code_only_in_the_subject_is_sent(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """A code in the subject counts as printed."""
    await add_list(connection, "gold", 1)
    await add_group(connection, tiers(1, 1))
    await save(connection, "Hello", subject='{{ coupon("gold") if tier == "gold" else "Hello" }}')
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    assert len(await send(connection, pool, tmp_path)) == 2
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.refused, found.lists[0].sent) == (2, 0, 1)


async def test_a_recipient_whose_condition_fails_is_refused_with_the_reason(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """The recipient needs no code, even if has_coupon would hide the failing condition; all others are mailed."""
    await add_list(connection, "a", 2)
    await add_group(connection, [{"points": "12"}, {"points": "many"}, {"points": "3"}])
    await save(connection, 'Hello{% if has_coupon("a") and points | int > 9 %} {{ coupon("a") }}{% endif %}')
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    assert await needed(connection, sendout_id) == {"a": 1}
    mails = await send(connection, pool, tmp_path)
    assert mails == {"c0000@example.org": "Hello A-000000000", "c0002@example.org": "Hello"}
    [problem] = await sendout_views.list_problems(connection, sendout_id)
    assert problem.address == "c0001@example.org"
    assert problem.reply == "a condition with points cannot be evaluated: InvalidOperation"


async def test_unused_codes_return_to_their_lists(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """A code that a mail does not print, because another list is short, is available again once the mail leaves."""
    sendout_id = await start_both(connection)
    assert await available(connection, "a", "b") == [0, 0]
    mails = await send(connection, pool, tmp_path)
    assert sorted(mails.values()) == ["A-000000000 B-000000000", "Sorry", "Sorry"]
    assert await available(connection, "a", "b") == [2, 0]
    found = {each.name: each for each in (await sendout_views.get(connection, sendout_id)).lists}
    assert (found["a"].needed, found["a"].assigned, found["a"].sent) == (1, 0, 1)
    assert (found["b"].needed, found["b"].sent, found["b"].missing) == (3, 1, 2)


async def test_unused_codes_stay_if_the_mail_may_not_leave(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """A pause before the mails leave changes no code; after the sendout is resumed, the unused codes return."""
    sendout_id = await start_both(connection)
    batch, renderer, due = await load_batch(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    mails = [renderer.render(each) for each in due]
    unused = {list_id: [m.delivery.number for m in mails if list_id in m.unused] for m in mails for list_id in m.unused}
    assert not await record(connection, batch, intents=[1, 2, 3], unused=unused)
    assert await available(connection, "a", "b") == [0, 0]
    await deliveries.release(connection, batch)
    await resume(connection, sendout_id)
    await send(connection, pool, tmp_path)
    assert await available(connection, "a", "b") == [2, 0]


async def test_a_repeated_flush_returns_unused_codes_once(connection: Connection) -> None:
    """A flush whose COMMIT got no reply is repeated without effect."""
    await start_both(connection)
    batch, _, _ = await load_batch(connection)
    [list_id] = await ids(connection, "a")
    flush = uuid4()
    for _ in range(2):
        assert await record(connection, batch, flush=flush, intents=[2, 3], unused={list_id: [2, 3]})
    assert await available(connection, "a") == [2]


async def test_only_assigned_codes_are_returned(connection: Connection) -> None:
    """A code that the delivery does not have is not returned; then nothing is written."""
    await start_both(connection)
    batch, _, _ = await load_batch(connection)
    [list_id] = await ids(connection, "b")
    with pytest.raises(LeaseLost):
        await record(connection, batch, intents=[1, 2], unused={list_id: [1, 2]})
    assert await available(connection, "b") == [0]


async def test_an_uncertain_mail_without_unused_codes_is_resent_unchanged(connection: Connection) -> None:
    """After a worker died, the resent mail has the same text, and its codes are not assigned again."""
    sendout_id = await start_both(connection)
    batch, renderer, due = await load_batch(connection)
    before = [renderer.render(each) for each in due]
    [list_id] = await ids(connection, "a")
    await record(connection, batch, intents=[1, 2, 3], unused={list_id: [2, 3]})
    await connection.execute("UPDATE delivery_batch SET lease_until = now() - interval '1 second'")
    assert await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS) == 3
    assert await uncertain.resolve(connection, sendout_id, "resend") == 3
    _, renderer, due = await load_batch(connection)
    after = [renderer.render(each) for each in due]
    assert [each.unused for each in after] == [()] * 3
    for old, new in zip(before, after, strict=True):
        assert text_of(old.envelope.data) == text_of(new.envelope.data)
    assert await available(connection, "a") == [2]


async def test_a_postponed_mail_is_the_same_when_it_is_rendered_again(connection: Connection) -> None:
    """A mail that no relay took can be rendered again in the same batch without its codes that have returned."""
    await start_both(connection)
    _, renderer, due = await load_batch(connection)
    assert [each.lists for each in due] == [None] * 3
    [list_id] = await ids(connection, "a")
    before = [renderer.render(each) for each in due]
    assert [each.unused for each in before] == [(), (list_id,), (list_id,)]
    after = [renderer.render(each.sent_delivery) for each in before]
    assert [each.unused for each in after] == [()] * 3
    assert [text_of(each.envelope.data) for each in after] == [text_of(each.envelope.data) for each in before]


def text_of(mail: bytes) -> bytes:
    return mail.partition(b"\r\n\r\n")[2]


async def start_without_stored_needs(connection: Connection) -> UUID:
    """Create a sendout to three gold recipients as before the upgrade: each has a code of both lists."""
    sendout_id = await start_tiers(connection, gold=3, basic=3)
    await connection.execute("DELETE FROM recipient WHERE address_key >= 'c0003'")  # three codes for each list
    claim = await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert claim
    await sendouts.take_snapshot(connection, claim, batch_size=100)
    await connection.execute("UPDATE delivery SET lists = NULL")
    await connection.execute("UPDATE sendout_list SET needed = 3")
    await sendouts.admit(connection, claim)
    return sendout_id


async def test_codes_that_an_earlier_mail_may_have_printed_stay(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """Two uncertain mails of an earlier program are resent: all their codes stay with them, also the unused ones."""
    sendout_id = await start_without_stored_needs(connection)
    await connection.execute("UPDATE delivery SET was_uncertain = true WHERE number <= 2")
    mails = await send(connection, pool, tmp_path)
    assert sorted(mails.values()) == [f"GOLD-{n:09}" for n in range(3)]
    assert await available(connection, "gold", "basic") == [0, 1]
    found = {each.name: each for each in (await sendout_views.get(connection, sendout_id)).lists}
    assert (found["basic"].needed, found["basic"].assigned, found["basic"].sent) == (2, 0, 2)


async def test_sendouts_from_before_the_upgrade_go_on(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """A delivery without stored needs has codes of all lists; its mail is sent, and the other codes return."""
    sendout_id = await start_without_stored_needs(connection)
    mails = await send(connection, pool, tmp_path)
    assert sorted(mails.values()) == [f"GOLD-{n:09}" for n in range(3)]
    assert await available(connection, "gold", "basic") == [0, 3]
    assert await needed(connection, sendout_id) == {"gold": 3, "basic": 0}


async def test_a_retry_reserves_only_the_lists_that_its_mails_need(connection: Connection) -> None:
    """A refused mail of one tier needs no code of the other."""
    sendout_id = await start_tiers(connection, gold=1, basic=1)
    await prepare(connection)
    batch, _, (gold, basic) = await load_batch(connection)
    await record(connection, batch, results=[refused(gold), DeliveryResult.of(basic, DeliveryState.SENT, "250")])
    await deliveries.release(connection, batch)
    await sendouts.settle(connection, sendout_id)
    planned = await retries.preview(connection, sendout_id, Choice(refused=True))
    assert [(each.name, each.needed) for each in planned.lists] == [("gold", 1)]
    await retries.retry(connection, sendout_id, Choice(refused=True))
    _, _, (again,) = await load_batch(connection)
    assert list(again.codes.values()) == ["GOLD-000000000"]


async def test_flushes_of_mails_with_different_lists_follow_the_lock_order(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """A flush that returns codes of one list and counts sent codes of another locks both counters, in their order."""
    await start_tiers(connection, gold=1, basic=1)
    await prepare(connection)
    batch, _, (gold, basic) = await load_batch(connection)
    first, second = await ids(connection, "gold", "basic")
    assert first < second
    results = [refused(gold), DeliveryResult.of(basic, DeliveryState.SENT, "250")]
    async with lock_rows(other, f"sendout_list WHERE list_id = {first}"):
        flushing = asyncio.create_task(record(connection, batch, results=results))
        await until_blocked(other, flushing)
        async with lock_rows(third, f"sendout_list WHERE list_id = {second}"):
            pass
    assert await flushing
