"""Groups and messages can be deleted while no unfinished work uses them; a failed import leaves no empty group."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from coupons.commands import Format, ImportCoupons, StartSendout
from coupons.database import Connection, connect
from coupons.errors import Conflict, LeaseLost
from coupons.states import DeliveryState
from coupons.store import deliveries, groups, import_chunks, imports, messages, retries, sendout_views, sendouts
from coupons.store.deliveries import DeliveryResult
from coupons.store.retries import Choice
from coupons.templates.rendering import Parts
from tests.factories import (
    LEASE_SECONDS,
    SENDER,
    add_group,
    add_list,
    add_recipients,
    claimed,
    prepare,
    save_message,
    start,
)
from tests.locks import lock_rows, until_blocked

PEOPLE = [("ada@example.org", {"first_name": "Ada"}), ("bob@example.org", {"first_name": "Bob"})]
End = Callable[[Connection, UUID], Awaitable[None]]


async def begin_import(connection: Connection, group: str) -> UUID:
    command = ImportCoupons(group=group, source="file:people.csv", format=Format(kind="csv"))
    async with connection.transaction():
        await imports.create(connection, command)
    return command.id


async def finish(connection: Connection, import_id: UUID) -> None:
    await imports.finish(connection, await claimed(connection, import_id))


async def fail(connection: Connection, import_id: UUID) -> None:
    await imports.fail(connection, await claimed(connection, import_id), "the file has no addresses")


async def cancel(connection: Connection, import_id: UUID) -> None:
    await imports.cancel(connection, import_id)


async def names(connection: Connection) -> list[str]:
    return [each.name for each in await groups.list_all(connection)]


async def finish_sendout(connection: Connection, first: DeliveryState = DeliveryState.SENT) -> UUID:
    """Send message m to group g, and record its results: `first` for the first mail, sent for the other one."""
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    outcomes = [DeliveryResult.of(each, first if each.number == 1 else DeliveryState.SENT, "a reply") for each in due]
    await deliveries.record(
        connection, batch, flush=uuid4(), results=outcomes, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
    )
    assert await sendouts.settle(connection, sendout_id)
    return sendout_id


# --- failed imports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [fail, cancel])
async def test_a_failed_import_leaves_no_empty_group(connection: Connection, end: End) -> None:
    """The group that the import has created is deleted. The import still shows the name of its group."""
    import_id = await begin_import(connection, "new")
    await end(connection, import_id)
    assert await names(connection) == []
    status = await imports.get(connection, import_id)
    assert (status.group, status.columns) == ("new", ["email"])
    await add_recipients(connection, "new", PEOPLE)
    assert await names(connection) == ["new"]


async def test_an_import_that_finishes_leaves_its_group_although_it_is_empty(connection: Connection) -> None:
    """A file without one accepted line leaves an empty group, which can be deleted. A failed import then keeps it."""
    await finish(connection, await begin_import(connection, "empty"))
    await fail(connection, await begin_import(connection, "empty"))
    assert [(each.name, each.recipients) for each in await groups.list_all(connection)] == [("empty", 0)]
    assert await groups.delete(connection, "empty") == 0
    assert await names(connection) == []


@pytest.mark.parametrize("end", [fail, cancel])
async def test_a_failed_import_leaves_a_group_that_is_used(connection: Connection, end: End) -> None:
    """A group stays if it has recipients, if another import has filled or will fill it, or if a sendout uses it."""
    await save_message(connection, "m")
    await add_recipients(connection, "filled", PEOPLE)
    await add_recipients(connection, "emptied", PEOPLE)
    await connection.execute(
        "DELETE FROM recipient r USING recipient_group g WHERE g.id = group_id AND name = 'emptied'"
    )
    ending = [await begin_import(connection, name) for name in ("filled", "half", "emptied", "awaited", "sent")]
    await connection.execute(
        "INSERT INTO recipient (group_id, address_key, address) "
        "SELECT id, 'a@b.de', 'a@b.de' FROM recipient_group WHERE name = 'half'"
    )
    await begin_import(connection, "awaited")
    await start(connection, "m", "sent")
    for import_id in ending:
        await end(connection, import_id)
    assert await names(connection) == ["awaited", "emptied", "filled", "half", "sent"]


async def test_an_import_that_arrives_while_its_group_is_deleted_creates_it_again(
    connection: Connection, other: Connection
) -> None:
    """The import waits for the deletion, then creates the group. An import that came first keeps the group."""
    failing = await begin_import(connection, "new")
    async with connection.transaction():
        await cancel(connection, failing)
        arriving = asyncio.create_task(begin_import(other, "new"))
        await until_blocked(connection, arriving)
    await arriving
    assert await names(connection) == ["new"]
    second = await begin_import(connection, "second")
    async with connection.transaction():
        await imports.create(connection, ImportCoupons(group="second", source="file:x", format=Format(kind="csv")))
        ending = asyncio.create_task(cancel(other, second))
        await until_blocked(connection, ending)
    await ending
    assert await names(connection) == ["new", "second"]
    await connection.execute(imports.SQL.ensure_group, "third")
    async with connection.transaction():  # also between the group and the import
        await connection.execute(imports.SQL.ensure_group, "third")
        deleting = asyncio.create_task(groups.delete(other, "third"))
        await until_blocked(connection, deleting)
        await imports.create(connection, ImportCoupons(group="third", source="file:x", format=Format(kind="csv")))
    with pytest.raises(Conflict, match="is being filled by import"):
        await deleting


async def test_a_cancellation_and_new_attributes_of_a_group_lock_in_one_order(
    connection: Connection, other: Connection, database_url: str
) -> None:
    """The import that is about to replace the attributes waits without holding a lock, and finds its lease lost."""
    await add_recipients(connection, "g", PEOPLE)
    job = await claimed(connection, await begin_import(connection, "g"))
    async with connect(database_url) as third:
        async with lock_rows(connection, "recipient_group WHERE name = 'g'"):
            cancelling = asyncio.create_task(cancel(other, job.id))
            await until_blocked(connection, cancelling)
            replacing = asyncio.create_task(import_chunks.replace_attributes(third, job, ["x"], lease_seconds=60))
            await until_blocked(connection, cancelling, replacing)
        await cancelling
        with pytest.raises(LeaseLost):
            await replacing
    assert (await groups.get(connection, "g")).attributes == ["first_name"]


# --- groups ----------------------------------------------------------------------------------------------------------


async def test_a_deleted_group_stays_in_the_history_by_its_name(connection: Connection) -> None:
    """Its recipients and rejected lines are gone. Sendouts and imports have its name; a new group has none of them."""
    import_id = await add_recipients(connection, "g", PEOPLE)
    await save_message(connection, "m")
    sendout_id = await finish_sendout(connection)
    await connection.execute("INSERT INTO import_rejection VALUES ($1, 9, '{9}', '{x}', '{no_at}')", import_id)
    assert await groups.delete(connection, "g") == 2
    assert await names(connection) == []
    for table in ("recipient", "import_rejection"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert (await sendout_views.get(connection, sendout_id)).group == "g"
    assert (await imports.get(connection, import_id)).group == "g"
    await add_recipients(connection, "g", PEOPLE[:1])
    assert len(await imports.list_for_group(connection, "g")) == 1
    with pytest.raises(Conflict, match="there is no group x"):
        await groups.delete(connection, "x")


async def test_a_group_in_use_is_not_deleted(connection: Connection) -> None:
    """An unfinished import into it or an unfinished sendout to it prevents the deletion; so does a wait for it."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    sendout_id = await start(connection, "m", "g")
    with pytest.raises(Conflict, match=f"group g is used by sendout {sendout_id}, which is not finished"):
        await groups.delete(connection, "g")
    await sendouts.cancel(connection, sendout_id)
    import_id = await begin_import(connection, "g")
    with pytest.raises(Conflict, match=f"group g is being filled by import {import_id}"):
        await groups.delete(connection, "g")
    await cancel(connection, import_id)
    waiting = StartSendout(message="m", group="later", after=(uuid4(),))
    async with connection.transaction():
        await sendouts.create(connection, waiting, batch_size=10)
    await add_group(connection, "later", 2)
    with pytest.raises(Conflict, match=f"group later is used by sendout {waiting.id}"):
        await groups.delete(connection, "later")
    assert await groups.delete(connection, "g") == 2


async def test_a_sendout_that_arrives_while_its_group_is_deleted_is_rejected(
    connection: Connection, other: Connection
) -> None:
    """The sendout waits for the deletion. A deletion waits for a sendout that came first, and is refused."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    async with connection.transaction():
        await groups.delete(connection, "g")
        arriving = asyncio.create_task(start(other, "m", "g"))
        await until_blocked(connection, arriving)
    with pytest.raises(Conflict, match="there is no group g"):
        await arriving
    await add_group(connection, "g", 2)
    async with connection.transaction():
        await start(connection, "m", "g")
        deleting = asyncio.create_task(groups.delete(other, "g"))
        await until_blocked(connection, deleting)
    with pytest.raises(Conflict, match="group g is used by sendout"):
        await deleting


async def test_commands_for_a_group_do_not_wait_while_its_recipients_are_deleted(
    connection: Connection, other: Connection
) -> None:
    """A sendout or an import that arrives while many recipients are deleted is accepted, and the group stays."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    async with lock_rows(connection, "recipient"):
        deleting = asyncio.create_task(groups.delete(other, "g"))
        await until_blocked(connection, deleting)
        import_id = await begin_import(connection, "g")
    with pytest.raises(Conflict, match=f"group g is being filled by import {import_id}"):
        await deleting
    await cancel(connection, import_id)
    async with lock_rows(connection, "recipient"):
        deleting = asyncio.create_task(groups.delete(other, "g"))
        await until_blocked(connection, deleting)
        sendout_id = await start(connection, "m", "g")
    with pytest.raises(Conflict, match=f"group g is used by sendout {sendout_id}"):
        await deleting
    assert (await groups.get(connection, "g")).recipients == 2


async def test_recipients_of_an_import_during_the_deletion_are_deleted_too(
    connection: Connection, other: Connection, database_url: str
) -> None:
    """The import has finished before the deletion locks the group."""
    await add_group(connection, "g", 2)
    async with connect(database_url) as third:
        async with lock_rows(connection, "recipient"):
            deleting = asyncio.create_task(groups.delete(other, "g"))
            await until_blocked(connection, deleting)
            await add_recipients(third, "g", [("late@example.org", {"first_name": "Late"})])
        assert await deleting == 3
    assert await connection.fetchval("SELECT count(*) FROM recipient") == 0


async def test_a_group_is_deleted_while_mails_of_its_sendout_are_retried(
    connection: Connection, other: Connection
) -> None:
    """The deletion waits for the retry, which needs no group. The sendout sends again and keeps the group's name."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    sendout_id = await finish_sendout(connection, DeliveryState.REFUSED)
    async with connection.transaction():
        await retries.retry(connection, sendout_id, Choice(refused=True))
        deleting = asyncio.create_task(groups.delete(other, "g"))
        await until_blocked(connection, deleting)
    assert await deleting == 2
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.group, found.remaining) == ("sending", "g", 1)


# --- messages --------------------------------------------------------------------------------------------------------


async def test_a_deleted_message_stays_where_it_was_mailed(connection: Connection) -> None:
    """It cannot be sent or shown any more. Its sendouts keep the version that they have mailed, also for retries."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    sendout_id = await finish_sendout(connection, DeliveryState.REFUSED)
    await save_message(connection, "m")
    assert await messages.delete(connection, "m") == 2
    assert await messages.list_all(connection) == []
    with pytest.raises(Conflict, match="there is no message m"):
        await start(connection, "m", "g")
    assert (await sendout_views.get(connection, sendout_id)).message == "m"
    assert (await retries.retry(connection, sendout_id, Choice(refused=True))).refused == 1
    assert (await messages.get_for_sendout(connection, sendout_id)).version == 1
    await save_message(connection, "m")
    assert (await messages.get(connection, "m")).version == 2
    with pytest.raises(Conflict, match="there is no message x"):
        await messages.delete(connection, "x")


async def test_a_message_that_was_never_mailed_is_deleted_with_its_files(connection: Connection) -> None:
    """Nothing of it is left, and its lists are not in use any more."""
    await add_list(connection, "spring-10")
    await save_message(connection, "m", "spring-10")
    await messages.delete(connection, "m")
    for table in ("message", "message_list", "message_file"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_message_of_an_unfinished_sendout_is_not_deleted(connection: Connection) -> None:
    """The error names the sendout. Every version counts, not only the newest one."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    sendout_id = await start(connection, "m", "g")
    await save_message(connection, "m")
    with pytest.raises(Conflict, match=f"message m is needed by sendout {sendout_id}, which is not finished"):
        await messages.delete(connection, "m")
    await sendouts.cancel(connection, sendout_id)
    assert await messages.delete(connection, "m") == 2


@pytest.mark.parametrize("is_mailed", [False, True])
async def test_a_sendout_that_arrives_while_its_message_is_deleted_is_rejected(
    connection: Connection, other: Connection, *, is_mailed: bool
) -> None:
    """The sendout waits for the deletion. A deletion waits for a sendout that came first, and is refused."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    if is_mailed:
        await finish_sendout(connection)
    async with connection.transaction():
        await messages.delete(connection, "m")
        arriving = asyncio.create_task(start(other, "m", "g"))
        await until_blocked(connection, arriving)
    with pytest.raises(Conflict, match="there is no message m"):
        await arriving
    await messages.save(
        connection, "m", Parts(subject="Hello", text="Hello", html=None), sender=SENDER, reply_to=None, declared=()
    )
    async with connection.transaction():
        await start(connection, "m", "g")
        deleting = asyncio.create_task(messages.delete(other, "m"))
        await until_blocked(connection, deleting)
    with pytest.raises(Conflict, match="message m is needed by sendout"):
        await deleting
