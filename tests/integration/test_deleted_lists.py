"""Deleted lists: codes that a deleted list has sent are never accepted as new ones."""

import asyncio
from uuid import UUID, uuid4

import pytest

from coupons.admission import Granted
from coupons.commands import Recipient, StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import DeliveryState
from coupons.store import deliveries, imports, invariants, lists, lookup, messages, sendout_views, sendouts, uncertain
from coupons.store.deliveries import DeliveryResult
from producers.web.templating import page
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, save_message, start
from tests.locks import until_blocked


async def start_sendout(connection: Connection, *, codes: int = 15) -> UUID:
    """Send message m to ten recipients with codes of list a."""
    await add_list(connection, "a", codes)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    return sendout_id


async def finish_sendout(connection: Connection, *, codes: int = 15, first: DeliveryState = DeliveryState.SENT) -> UUID:
    """Start a sendout and record its results: `first` for the first mail, sent for the others."""
    sendout_id = await start_sendout(connection, codes=codes)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    assert (await deliveries.assign_codes(connection, batch)).complete
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    outcomes = [DeliveryResult.of(each, first if each.number == 1 else DeliveryState.SENT, "a reply") for each in due]
    await deliveries.record(
        connection, batch, flush=uuid4(), results=outcomes, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
    )
    assert await sendouts.settle(connection, sendout_id)
    return sendout_id


async def archive_and_delete(connection: Connection, name: str = "a") -> int:
    await lists.archive(connection, name)
    return await lists.delete(connection, name)


async def count(connection: Connection, table: str) -> int:
    number: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return number


async def test_sent_codes_of_a_deleted_list_are_kept_as_hashes(connection: Connection) -> None:
    """Sent codes are kept only as hashes; unsent codes are deleted without a trace."""
    await finish_sendout(connection)
    assert await archive_and_delete(connection) == 10
    assert (await count(connection, "coupon"), await count(connection, "retired_code")) == (0, 10)
    known = "SELECT count(*) FROM retired_code, retired_code_key WHERE hash = retired_code_hash(key, $1)"
    assert [await connection.fetchval(known, f"a-{number:09}") for number in (0, 9, 10, 14)] == [1, 1, 0, 0]


async def test_an_unused_list_is_deleted_completely(connection: Connection) -> None:
    """No row remains of a list that no message uses."""
    await add_list(connection, "a", 5)
    assert await archive_and_delete(connection) == 0
    tables = ("coupon_list", "coupon", "import_job", "retired_code")
    assert [await count(connection, table) for table in tables] == [0, 0, 0, 0]


async def test_a_deleted_list_used_by_a_message_keeps_a_row(connection: Connection) -> None:
    """The remaining row is in no listing, and no command finds it by its name."""
    await add_list(connection, "a", 5)
    await save_message(connection, "m", "a")
    await archive_and_delete(connection)
    assert await lists.list_all(connection, archived=True) == []
    for refused in (lists.get, lists.archive, lists.restore, lists.delete):
        with pytest.raises(Conflict, match="there is no list a"):
            await refused(connection, "a")
    with pytest.raises(Conflict, match="there is no list a"):
        await lists.copy(connection, "a", "b")
    assert (await messages.get(connection, "m")).lists == ["a"]


async def test_a_new_list_of_the_same_name_is_another_list(connection: Connection) -> None:
    """Changes of the new list and of the deleted list do not affect each other."""
    await finish_sendout(connection)
    await archive_and_delete(connection)
    await add_list(connection, "a", 0)
    await add_codes(connection, "a", ["NEW-1", "NEW-2"])
    with pytest.raises(Conflict, match="already exists"):
        await add_list(connection, "a", 0)
    await lists.change(connection, "a", description="new", shortage=None, alternative_text=None, preview_text=None)
    await lists.copy(connection, "a", "b")
    found, copied = await lists.get(connection, "a", "b")
    assert (found.total, found.available, found.sent) == (2, 2, 0)
    assert (found.description, copied.description) == ("new", "new")
    await archive_and_delete(connection)
    left = await connection.fetch("SELECT description FROM coupon_list WHERE name = 'a'")
    assert [row["description"] for row in left] == [""]
    assert await count(connection, "retired_code") == 10


async def test_a_message_with_a_deleted_list_must_be_saved_again(connection: Connection) -> None:
    """The message does not use a new list of the same name, which its author has not seen."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 5)
    await save_message(connection, "m", "a")
    await archive_and_delete(connection)
    command = StartSendout(message="m", group="g")
    with pytest.raises(Conflict, match="list a was deleted: save message m again"):
        await sendouts.check(connection, command)
    await add_list(connection, "a", 5)
    with pytest.raises(Conflict, match="list a was deleted: save message m again"):
        await sendouts.create(connection, command, batch_size=10)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)


async def test_a_message_cannot_use_a_deleted_list(connection: Connection) -> None:
    """For a new message, a deleted list does not exist."""
    await finish_sendout(connection)
    await archive_and_delete(connection)
    with pytest.raises(Conflict, match="there is no list a"):
        await save_message(connection, "m", "a")


async def test_a_list_that_a_sendout_needs_is_not_deleted(connection: Connection) -> None:
    """The list is needed even before the recipients are counted, when only the sendout's message refers to the list."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await lists.archive(connection, "a")
    with pytest.raises(Conflict, match=f"list a is needed by sendout {sendout_id}, which is not finished"):
        await lists.delete(connection, "a")
    await lists.restore(connection, "a")
    await prepare(connection)
    await connection.execute("UPDATE coupon_list SET archived_at = now()")
    with pytest.raises(Conflict, match="which is not finished"):
        await lists.delete(connection, "a")
    await sendouts.cancel(connection, sendout_id)
    while batch := await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS):
        await deliveries.close(connection, batch)
    assert await sendouts.settle(connection, sendout_id)
    assert await lists.delete(connection, "a") == 0


async def test_a_list_must_be_archived_and_idle_to_be_deleted(connection: Connection) -> None:
    """A list is not deleted before it is archived and its imports have ended."""
    await add_list(connection, "a", 5)
    with pytest.raises(Conflict, match="archive it first"):
        await lists.delete(connection, "a")
    await lists.archive(connection, "a")
    await connection.execute("UPDATE import_job SET state = 'running', finished_at = NULL")
    with pytest.raises(Conflict, match="is being filled by an import"):
        await lists.delete(connection, "a")


async def test_a_list_with_uncertain_mails_is_not_deleted(connection: Connection) -> None:
    """A resent mail needs its code again, and the code of an accepted mail counts as sent."""
    sendout_id = await finish_sendout(connection, first=DeliveryState.UNCERTAIN)
    await lists.archive(connection, "a")
    with pytest.raises(Conflict, match=f"uncertain mails of sendout {sendout_id}: resolve them first"):
        await lists.delete(connection, "a")
    await uncertain.resolve(connection, sendout_id, "accept")
    assert await lists.delete(connection, "a") == 10


async def test_the_history_of_a_deleted_list_is_kept(connection: Connection) -> None:
    """The Outbox still shows how many of the list's codes were sent and to whom, but not which codes."""
    sendout_id = await finish_sendout(connection)
    await archive_and_delete(connection)
    (of,) = (await sendout_views.get(connection, sendout_id)).lists
    assert (of.name, of.deleted, of.sent, of.available) == ("a", True, 10, 0)
    (mail,) = await lookup.list_mails(connection, "c1@example.org")
    assert (mail.state, mail.codes, mail.deleted_lists) == ("sent", {}, ["a"])
    sendout = await sendout_views.get(connection, sendout_id)
    shown = bytes(page("sendout.html", live=False, sendout=sendout, problems=[], resume="").body).decode()
    assert "a (deleted)" in shown
    assert 'href="/lists/a"' not in shown
    assert all(proof.ok for proof in await invariants.check(connection))


async def test_a_sent_code_of_a_deleted_list_is_recognized(connection: Connection) -> None:
    """`who --code` reports that the code was sent, in any spelling. It reports nothing about unsent codes."""
    await finish_sendout(connection)
    await archive_and_delete(connection)
    for spelling in ("A-000000000", "a-000000000"):
        found = await lookup.list_owners(connection, spelling)
        assert [(each.list, each.code, each.state) for each in found] == [(None, None, "sent")]
    assert await lookup.list_owners(connection, "A-000000014") == []


async def test_rejected_lines_are_deleted_with_the_list(connection: Connection) -> None:
    """Rejected lines contain codes too, so only the import's counts are kept."""
    await add_list(connection, "a", 0)
    await save_message(connection, "m", "a")
    import_id = await add_codes(connection, "a", ["ONE", "ONE", "TWO"])
    await archive_and_delete(connection)
    found = await imports.find(connection, import_id)
    assert found
    assert (found.added, found.rejected) == (2, 1)
    assert await count(connection, "import_rejection") == 0


async def test_a_sendout_that_starts_during_the_deletion_fails(connection: Connection, other: Connection) -> None:
    """The deletion cannot see the uncommitted sendout. The sendout fails later and never gets a code."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 5)
    await save_message(connection, "m", "a")
    async with other.transaction():
        sendout_id = await start(other, "m", "g")
        await archive_and_delete(connection)
    with pytest.raises(Conflict, match="list a is deleted"):
        await prepare(connection)
    assert [each.deleted for each in (await sendout_views.get(connection, sendout_id)).lists] == [True]


async def test_a_deletion_waits_for_a_sendout_that_is_being_created(connection: Connection, other: Connection) -> None:
    """A sendout with inline recipients needs the list from its first row on, even while it is not committed."""
    await add_list(connection, "a", 5)
    await save_message(connection, "m", "a")
    given = StartSendout(
        message="m", recipients=(Recipient(email="ada@example.org", attributes={"first_name": "Ada"}),)
    )
    async with other.transaction():
        await sendouts.create(other, given, batch_size=10)
        await lists.archive(connection, "a")
        deletion = asyncio.create_task(lists.delete(connection, "a"))
        await until_blocked(other, deletion)
    with pytest.raises(Conflict, match="which is not finished"):
        await deletion


async def test_two_lists_with_the_same_codes_can_be_deleted_at_once(connection: Connection, other: Connection) -> None:
    """One deletion waits for the other one without a deadlock, and no code is lost.

    Only codes that two recipients had got before migration 0006 are in two lists.
    """
    for name, first in (("a", 0), ("b", 10_000)):
        await add_list(connection, name, [f"{name}-{(first + number) % 20_000}" for number in range(20_000)])
        await lists.archive(connection, name)
    await connection.execute("UPDATE coupon SET sendout_id = gen_random_uuid(), delivery_number = 1")
    await connection.execute(
        "UPDATE coupon SET code = replace(code, 'b', 'a'), fold = replace(code, 'b', 'a'), "
        "variant = chr(1) || id::text WHERE code LIKE 'b%'"
    )
    assert {*await asyncio.gather(lists.delete(connection, "a"), lists.delete(other, "b"))} == {20_000}
    assert await count(connection, "retired_code") == 20_000
