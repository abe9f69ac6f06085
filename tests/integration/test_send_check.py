"""`send --check` writes nothing, and each of its figures is what the sendout then does."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from coupons.commands import Format, ImportCoupons, Recipient, StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import DeliveryState, SendoutState, Shortage
from coupons.store import deliveries, earlier, imports, lists, messages, needs, send_check, sendout_views, sendouts
from coupons.store.deliveries import DeliveryResult
from coupons.store.send_check import Lacked, SendCheck
from coupons.templates.rendering import Parts
from tests.factories import LEASE_SECONDS, SENDER, add_codes, add_list, add_recipients

TIER = '{% if tier == "gold" %}{{ coupon("gold") }}{% else %}{{ coupon("basic") }}{% endif %} {{ first_name }}'
SECONDS_TO_NEXT = "SELECT extract(epoch FROM next_batch_at - now())::float8 FROM sendout WHERE id = $1"
PEOPLE = [(f"c{n}@example.org", {"first_name": "Ada", "tier": "gold" if n % 3 == 0 else "silver"}) for n in range(12)]


async def save(connection: Connection, name: str, text: str) -> None:
    parts = Parts(subject="Hello", text=text, html=None)
    await messages.save(
        connection, name, parts, sender=SENDER, reply_to=None, declared=["first_name", "tier"]
    )  # fmt: skip


async def add_stock(connection: Connection, *, gold: int = 4, basic: int = 8, shortage: Shortage) -> None:
    """Create two lists, a group of 4 gold and 8 silver recipients, and three messages."""
    await add_list(connection, "gold", gold, shortage=shortage)
    await add_list(connection, "basic", basic, shortage=shortage)
    await add_recipients(connection, "g", PEOPLE)
    await save(connection, "tier", TIER)
    await save(connection, "both", '{{ coupon("gold") }} {{ coupon("basic") }} {{ first_name }}')
    await save(connection, "plain", "Hello {{ first_name }}")


def command(message: str, **options: object) -> StartSendout:
    audience = {} if "recipients" in options else {"group": "g"}
    return StartSendout.model_validate({"id": uuid4(), "message": message, **audience, **options})


async def run(connection: Connection, start: StartSendout) -> UUID:
    """Accept and prepare a sendout, as a worker does."""
    async with connection.transaction():
        await sendouts.create(connection, start, batch_size=5)
    claim = await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert claim
    try:
        if claim.recipients is None:
            await sendouts.check_recipients(connection, claim)
            await sendouts.take_snapshot(connection, claim, batch_size=5)
        await sendouts.admit(connection, claim)
    except Conflict as conflict:
        await sendouts.fail(connection, claim, str(conflict))
    return start.id


async def mail(connection: Connection, sendout_id: UUID, states: Mapping[str, DeliveryState]) -> None:
    """Give the mails to these addresses these states, as a worker does; the other mails stay pending."""
    while batch := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        await deliveries.assign_codes(connection, batch)
        due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
        results = [
            DeliveryResult.of(each, states[each.address], "250 ok", due_in=600)
            for each in due
            if each.address in states
        ]
        await deliveries.record(
            connection, batch, flush=uuid4(), results=results, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
        )
        await deliveries.release(connection, batch, not_within=600)


async def assert_equal(connection: Connection, start: StartSendout) -> SendCheck:
    """Check a sendout, run it, and compare each figure with what it did."""
    before = await contents(connection)
    found = await send_check.check_sendout(connection, start)
    assert await contents(connection) == before
    sendout_id = await run(connection, start)
    did = await sendout_views.get(connection, sendout_id)
    assert (found.outcome.state, found.outcome.reason) == (did.state, did.reason)
    assert (found.message, found.message_version, found.audience.group) == (did.message, did.message_version, did.group)
    assert found.sender == (await messages.get_for_sendout(connection, sendout_id)).sender
    if did.state == SendoutState.FAILED:
        return found
    assert (found.audience.recipients, found.audience.left_out) == (did.recipients, did.already_mailed)
    needed = {each.name: (each.needed, each.missing, each.shortage) for each in found.lists}
    assert needed == {each.name: (each.needed, each.missing, each.shortage) for each in did.lists}
    before_it = {each.name: each.available + each.reserved for each in did.lists}
    assert {each.name: each.available for each in found.lists} == before_it
    assert found.schedule.per_hour == pytest.approx(did.per_hour)
    assert found.schedule.first == (did.first if did.rest_held else None)
    return found


@pytest.mark.parametrize(
    "pace",
    [
        {"over_minutes": 2_880, "recipients": [{"email": "only@example.org", "attributes": {"first_name": "Ada"}}]},
        {"over_minutes": 90},
        {"per_hour": 60, "first": 1},
        {"per_hour": 60, "first": 5},
        {"per_hour": 1_800},
        {"per_hour": 1_000_000},
    ],
)
async def test_the_end_is_when_the_last_batch_is_claimed(connection: Connection, pace: dict[str, Any]) -> None:
    """Workers send the first batch at once, and each batch waits for the time of the mails before it."""
    await add_stock(connection, shortage=Shortage.PAUSE)
    start = command("plain", **pace)
    schedule = (await send_check.check_sendout(connection, start)).schedule
    sendout_id = await run(connection, start)
    waits = []
    while await deliveries.claim(connection, owner="test", lease_seconds=3_600):
        waits.append(await connection.fetchval(SECONDS_TO_NEXT, sendout_id))
        await connection.execute("UPDATE sendout SET next_batch_at = now() WHERE id = $1", sendout_id)
    assert schedule.ends_at
    assert (schedule.ends_at - schedule.starts_at).total_seconds() == pytest.approx(sum(waits[:-1]), abs=1)


async def contents(connection: Connection) -> dict[str, Any]:
    """Return everything that a write would change: the rows of all tables, and the sequences."""
    found = await connection.fetch(
        "SELECT relname AS name, relkind = 'S' AS is_sequence FROM pg_class "
        "WHERE relkind IN ('r', 'S') AND relnamespace = 'public'::regnamespace"
    )
    queries = {
        row["name"]: f"SELECT last_value::text || is_called FROM {row['name']}"
        if row["is_sequence"]
        else f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {row['name']} t"
        for row in found
    }
    return {name: await connection.fetchval(query) for name, query in queries.items()}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "enough codes": ({}, {"message": "tier"}),
    "a pause list that is short": ({"gold": 3}, {"message": "tier"}),
    "two pause lists that are short": ({"gold": 3, "basic": 7}, {"message": "tier"}),
    "a text list that is short": ({"gold": 3, "shortage": Shortage.TEXT}, {"message": "tier"}),
    "no condition": ({"gold": 12, "basic": 12}, {"message": "both"}),
    "no condition, short": ({"gold": 12}, {"message": "both"}),
    "no condition, a text list that is short": ({"gold": 5, "shortage": Shortage.TEXT}, {"message": "both"}),
    "no coupon": ({}, {"message": "plain"}),
    "a rate": ({}, {"message": "tier", "per_hour": 60}),
    "a spread": ({}, {"message": "tier", "over_minutes": 90}),
    "a start time": ({}, {"message": "tier", "start_at": "2099-01-01T09:00:00+01:00", "per_hour": 60}),
    "a first part": ({}, {"message": "tier", "first": 5}),
    "a first part of all": ({}, {"message": "tier", "first": 12}),
    "an address in several spellings": (
        {},
        {
            "message": "tier",
            "recipients": [
                {"email": address, "attributes": {"first_name": "Ada", "tier": tier}}
                for address, tier in (("A@Example.ORG", "gold"), ("a@example.org", "silver"), ("b@example.org", "x"))
            ],
        },
    ),
}


@pytest.fixture(params=["hash join", "lookups", "lookups of all mails"])
def comparison(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way in which recipients are compared with the earlier sendouts."""
    monkeypatch.setattr(earlier, "MAX_READ", 40 if request.param == "hash join" else 0.01)
    monkeypatch.setattr(earlier, "MAX_SENDOUTS", 0 if request.param == "lookups of all mails" else 100)
    return str(request.param)


@pytest.mark.parametrize("case", CASES)
async def test_the_check_equals_the_sendout(connection: Connection, case: str) -> None:
    """Recipients, codes, pace and result are those of the sendout that then runs."""
    stock, options = CASES[case]
    await add_stock(connection, **{"shortage": Shortage.PAUSE, **stock})
    await assert_equal(connection, command(**options))


@pytest.mark.parametrize("message", ["tier", "both", "plain"])
@pytest.mark.parametrize("skip", [False, True])
async def test_recipients_who_got_the_message_are_counted(
    connection: Connection, message: str, skip: bool, comparison: str
) -> None:
    """Sent and uncertain mails of any version count, refused, deferred and other messages' mails do not.

    With `skip_already_mailed`, the sendout leaves these recipients out.
    """
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    first = await run(connection, command(message))
    kinds = [DeliveryState.SENT, DeliveryState.UNCERTAIN, DeliveryState.REFUSED, DeliveryState.DEFERRED]
    await mail(connection, first, {f"c{n}@example.org": state for n, state in enumerate(kinds)})
    await run(connection, command("both" if message != "both" else "plain"))
    await save(connection, message, (await messages.get(connection, message)).text or "")
    found = await assert_equal(connection, command(message, skip_already_mailed=skip))
    assert (found.audience.already_mailed, found.audience.recipients) == (2, 10 if skip else 12)
    checked = await sendouts.check(connection, command(message))
    assert await send_check.count_already_mailed(connection, command(message), checked) == 2


async def test_given_recipients_who_got_the_message_are_left_out(connection: Connection, comparison: str) -> None:
    """Recipients of a command are looked up when the command is accepted."""
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    first = await run(connection, command("tier"))
    await mail(connection, first, {"c0@example.org": DeliveryState.SENT})
    given = [
        Recipient(email=address, attributes=each) for address, each in (("C0@example.org", PEOPLE[0][1]), PEOPLE[1])
    ]
    found = await assert_equal(connection, command("tier", recipients=given, skip_already_mailed=True))
    assert (found.audience.recipients, found.audience.left_out) == (1, 1)
    only = command("tier", recipients=given[:1], skip_already_mailed=True)
    assert (await send_check.check_sendout(connection, only)).outcome == send_check.Outcome(
        SendoutState.FAILED, sendouts.ALL_MAILED
    )
    with pytest.raises(Conflict, match=sendouts.ALL_MAILED):
        async with connection.transaction():
            await sendouts.create(connection, only, batch_size=5)


async def test_a_group_that_got_the_message_fails_the_sendout(connection: Connection, comparison: str) -> None:
    """With `skip_already_mailed`, no recipient remains."""
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    first = await run(connection, command("plain"))
    await mail(connection, first, {address: DeliveryState.SENT for address, _ in PEOPLE})
    found = await assert_equal(connection, command("plain", skip_already_mailed=True))
    assert found.outcome == send_check.Outcome(SendoutState.FAILED, sendouts.ALL_MAILED)


async def test_missing_attributes_are_counted(connection: Connection, comparison: str) -> None:
    """A recipient without an attribute fails the sendout, except one who is left out."""
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    await connection.execute("UPDATE recipient SET attributes = attributes - 'first_name' WHERE address_key < 'c2'")
    found = await assert_equal(connection, command("tier"))
    assert found.audience.lacking == 4
    assert found.audience.lacked == (Lacked("first_name", 4),)
    assert found.outcome.reason == "4 recipients lack one of first_name, tier"
    await connection.execute("UPDATE recipient SET attributes = attributes - 'tier' WHERE address_key < 'c1'")
    found = await assert_equal(connection, command("tier"))
    assert (found.audience.lacking, found.audience.lacked) == (4, (Lacked("first_name", 4), Lacked("tier", 1)))
    await connection.execute('UPDATE recipient SET attributes = attributes || \'{"tier": "gold"}\'')
    await connection.execute('UPDATE recipient SET attributes = attributes || \'{"first_name": "Ada"}\'')
    first = await run(connection, command("tier"))
    await mail(connection, first, {"c0@example.org": DeliveryState.SENT})
    await connection.execute(
        "UPDATE recipient SET attributes = attributes - 'tier' WHERE address_key = 'c0@example.org'"
    )
    assert (await assert_equal(connection, command("tier"))).audience.lacking == 1
    assert (await assert_equal(connection, command("tier", skip_already_mailed=True))).audience.lacking == 0
    await connection.execute(
        "UPDATE recipient SET attributes = attributes - 'first_name' "
        "WHERE address_key IN ('c0@example.org', 'c1@example.org')"
    )
    found = await assert_equal(connection, command("tier", skip_already_mailed=True))
    assert found.audience.lacked == (Lacked("first_name", 1),)


async def test_empty_attributes_are_counted(connection: Connection) -> None:
    """An empty value of a needed attribute does not fail the sendout, but is counted once per recipient."""
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    assert (await send_check.check_sendout(connection, command("tier"))).audience.with_empty == 0
    await connection.execute(
        """UPDATE recipient SET attributes = attributes || '{"first_name": "", "other": ""}' WHERE address_key < 'c2'"""
    )
    await connection.execute(
        """UPDATE recipient SET attributes = attributes || '{"tier": ""}' WHERE address_key < 'c1'"""
    )
    found = await assert_equal(connection, command("tier"))
    assert (found.audience.with_empty, found.audience.lacking) == (4, 0)
    given = [Recipient(email="a@example.org", attributes={"first_name": "", "tier": "gold"})]
    assert (await send_check.check_sendout(connection, command("tier", recipients=given))).audience.with_empty == 1


async def test_a_warning_that_takes_long_holds_up_no_sendout(connection: Connection, other: Connection) -> None:
    """The command line then says that the recipients who got the message were not counted."""
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    await run(connection, command("plain"))
    checked = await send_check.check_command(connection, command("plain"))
    async with other.transaction():
        await other.execute("LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE")
        found = await send_check.count_already_mailed(connection, command("plain"), checked, seconds=0.1)
    assert found is None
    assert await send_check.count_already_mailed(connection, command("plain"), checked) == 0


async def test_recipients_who_hold_codes_are_counted(connection: Connection, comparison: str) -> None:
    """Recipients with an assigned or sent code of the message's lists count, whichever message they got it with."""
    await add_stock(connection, gold=40, basic=40, shortage=Shortage.PAUSE)
    await save(connection, "gold", '{{ coupon("gold") }} {{ first_name }}')
    await run(connection, command("tier"))
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    for message, holders in (("both", 5), ("gold", 1), ("plain", 0)):
        assert (await send_check.check_sendout(connection, command(message))).audience.code_holders == holders


async def test_unfinished_imports_are_named(connection: Connection) -> None:
    """The sendout waits for an import into its lists or group. Once it has ended, the figures are those of then."""
    await add_stock(connection, gold=3, shortage=Shortage.PAUSE)
    running = ImportCoupons(list="gold", codes=("LATE",))
    await imports.create(connection, running)
    found = await send_check.check_sendout(connection, command("tier"))
    assert [(each.id, each.target) for each in found.imports] == [(running.id, "gold")]
    assert found.outcome.state == SendoutState.QUEUED
    assert {each.name: each.missing for each in found.lists} == {"basic": 0, "gold": 1}
    await imports.cancel(connection, running.id)
    await add_codes(connection, "gold", ["LATE"])
    assert (await assert_equal(connection, command("tier"))).outcome.state == SendoutState.SENDING


async def test_a_group_that_an_import_creates_is_not_counted_yet(connection: Connection) -> None:
    """While the group may change, its recipients are those of now; the check names the import."""
    await add_stock(connection, shortage=Shortage.PAUSE)
    first = ImportCoupons(group="new", source="file:x.csv", format=Format(kind="csv"))
    await imports.create(connection, first)
    found = await send_check.check_sendout(connection, command("tier", group="new"))
    assert (found.audience.recipients, found.outcome.state) == (0, SendoutState.QUEUED)
    assert [each.target for each in found.imports] == ["new"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE coupon_list SET archived_at = now() WHERE name = 'gold'", "message tier: list gold is archived"),
        ("DELETE FROM recipient", "group g has no recipients"),
    ],
)
async def test_a_sendout_that_would_be_rejected_is_rejected(connection: Connection, change: str, reason: str) -> None:
    """The check has the same reason as the sendout: an archived list, an empty group."""
    await add_stock(connection, shortage=Shortage.PAUSE)
    await connection.execute(change)
    with pytest.raises(Conflict, match=reason):
        await send_check.check_sendout(connection, command("tier"))
    with pytest.raises(Conflict, match=reason):
        async with connection.transaction():
            await sendouts.create(connection, command("tier"), batch_size=5)


async def test_a_check_cannot_write(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses every write in its transaction, so that no later change of the code can write."""
    await add_stock(connection, shortage=Shortage.PAUSE)

    async def write(*_: object, **__: object) -> object:
        return await connection.execute("UPDATE coupon_list SET description = 'x'")

    monkeypatch.setattr(send_check, "_count_audience", write)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await send_check.check_sendout(connection, command("tier"))
    assert [each.description for each in await lists.list_all(connection, archived=False)] == ["", ""]


async def test_recipients_are_compared_by_hash_joins(connection: Connection) -> None:
    """No other join is planned, also without statistics, so that no recipient is compared with each delivery."""
    mailed: tuple[object, ...] = ("plain", [], [uuid4()])
    statements: dict[str, tuple[object, ...]] = {
        send_check.SQL.count: (1, [], [], [], *mailed, True, [1], [], [uuid4()]),
        send_check.SQL.count_mailed: (1, [], *mailed),
        sendouts.SQL.lacking_unmailed: (1, ["a"], *mailed),
        needs.SQL.snapshot_unmailed: (uuid4(), 1, *mailed),
        needs.SQL.copy_unmailed: (1, *mailed),
        needs.SQL.mailed: (["a@example.org"], *mailed),
    }
    await connection.execute(needs.SQL.create_audience)
    async with connection.transaction(), earlier.hash_joins(connection):
        for sql, arguments in statements.items():
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}", *arguments))
            assert re.search(r"Hash \w* ?Join", plan), plan
            assert not re.search("Nested Loop|Merge|Function Scan on (already|code)", plan), plan
