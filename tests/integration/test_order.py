"""Sendouts and resumes wait for the imports that their publisher means, and go on once these have ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from unittest import mock
from uuid import UUID, uuid4

import pytest

from coupons import broker, migrate, topology
from coupons.admission import Granted, Short
from coupons.broker import open_sender
from coupons.commands import ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.database import Connection, Pool, connect, open_pool
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.smtp import Relays, SmtpAddress
from coupons.states import ImportMode, SendoutState, Shortage
from coupons.store import (
    deliveries,
    imports,
    inbox,
    invariants,
    lists,
    restore_guard,
    sendout_views,
    sendouts,
    waits,
)
from coupons.store.sendout_views import Sendout
from coupons.store.sendouts import Ended, Queued, Rejected, Resumed, Waiting
from coupons.topology import queue_name
from producers.cli.outbox import _remarks
from producers.cli.sendout_text import describe
from producers.cli.sendouts import _progress_of
from producers.web.templating import page
from producers.web.workers_view import Workers
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, claimed, prepare, save_message
from tests.locks import lock_rows, until_blocked, without_waiting
from tests.web import consume
from workers.dead_letters import publish_dead_letters
from workers.delivery.deliverer import Deliverer
from workers.importer import Importer
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges
from workers.preparer import Preparer

LIMIT_SECONDS = 20.0
Begin = Callable[[Connection], Awaitable[UUID]]
"""Starts a sendout that an operator can resume."""
Fail = Callable[[Connection, Preparer], Awaitable[UUID]]
"""Lets a sendout fail that has two deliveries."""


@pytest.fixture
async def stock(connection: Connection) -> None:
    """A list with ten codes, a group of ten recipients, and a message."""
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")


@pytest.fixture
async def preparer(database_url: str) -> AsyncIterator[Preparer]:
    """The sendout role of a worker that is not connected to the broker."""
    async with open_pool(database_url, size=4) as pool:
        yield sendout_role(pool)


def sendout_role(pool: Pool) -> Preparer:
    signals = Signals(("sendout",))
    return Preparer(pool=pool, nudges=Nudges(signals), settings=Settings(_env_file=None), owner="test")


def codes_import(name: str = "a", *, mode: ImportMode = ImportMode.ADD) -> ImportCoupons:
    return ImportCoupons(list=name, mode=mode, codes=(f"{uuid4()}",))


def group_import(name: str = "g") -> ImportCoupons:
    return ImportCoupons(group=name, source="file:customers.csv")


async def publish(connection: Connection, *commands: ImportCoupons | StartSendout | ResumeSendout) -> UUID:
    """Accept the commands, as a worker does; return the id of the last one."""
    for command in commands:
        await consume(connection, command)
    return commands[-1].id


async def send(connection: Connection, *after: UUID, message: str = "m", group: str = "g") -> UUID:
    return await publish(connection, StartSendout(message=message, group=group, after=after))


async def finish(connection: Connection, import_id: UUID) -> None:
    await imports.finish(connection, await claimed(connection, import_id))


async def finish_with(connection: Connection, command: ImportCoupons, *, attributes: str) -> None:
    """Finish an import that adds one recipient to its group."""
    await connection.execute(
        "INSERT INTO recipient (group_id, address_key, address, attributes) "
        "SELECT id, 'a@b.de', 'a@b.de', $2::text::jsonb FROM recipient_group WHERE name = $1",
        command.group,
        attributes,
    )
    await finish(connection, command.id)


async def end(connection: Connection, import_id: UUID, how: str) -> None:
    """Let the import end as `finished`, `failed` or `cancelled`."""
    match how:
        case "finished":
            await finish(connection, import_id)
        case "failed":
            await imports.fail(connection, await claimed(connection, import_id), "ada@example.org is in line 7")
        case _:
            await imports.cancel(connection, import_id)


async def get(connection: Connection, sendout_id: UUID) -> Sendout:
    return await sendout_views.get(connection, sendout_id)


async def state_of(connection: Connection, sendout_id: UUID) -> str:
    return (await get(connection, sendout_id)).state


async def interrupt(connection: Connection) -> UUID:
    """Start a sendout to eleven recipients that lacks one code."""
    await add_group(connection, "eleven", 11)
    sendout_id = await send(connection, group="eleven")
    assert isinstance(await prepare(connection), Short)
    return sendout_id


async def pause(connection: Connection) -> UUID:
    sendout_id = await send(connection)
    assert isinstance(await prepare(connection), Granted)
    await sendouts.pause(connection, sendout_id, "paused by a test")
    return sendout_id


async def dead_letters(connection: Connection) -> list[tuple[UUID, str]]:
    rows = await connection.fetch("SELECT command_id, reason FROM dead_letter ORDER BY command_id")
    return [(row["command_id"], row["reason"]) for row in rows]


# --- waiting for accepted imports ---


@pytest.mark.parametrize("how", ["finished", "failed", "cancelled"])
@pytest.mark.parametrize("command", [codes_import(), group_import()], ids=["list", "group"])
async def test_a_sendout_waits_for_unfinished_imports_into_its_group_and_lists(
    connection: Connection, preparer: Preparer, stock: None, command: ImportCoupons, how: str
) -> None:
    """It is prepared once the import has ended. A failed import changes nothing: the sendout uses what there is."""
    command = command.model_copy(update={"id": uuid4()})
    await publish(connection, command)
    sendout_id = await send(connection)
    assert await preparer.step() != 0
    assert await state_of(connection, sendout_id) == "queued"
    await end(connection, command.id, how)
    assert await preparer.step() == 0
    assert await state_of(connection, sendout_id) == "sending"


async def test_a_sendout_does_not_wait_for_other_imports(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """Imports into other lists and groups, and imports that were accepted later, do not hold it back."""
    await add_list(connection, "other")
    await publish(connection, codes_import("other"), group_import("others"))
    sendout_id = await send(connection)
    await publish(connection, codes_import(), group_import())
    await preparer.step()
    assert await state_of(connection, sendout_id) == "sending"


async def test_a_waiting_sendout_does_not_hold_back_others(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """A younger sendout that does not wait is prepared first."""
    waiting = await send(connection, uuid4())
    other = await send(connection)
    await preparer.step()
    assert [await state_of(connection, each) for each in (waiting, other)] == ["queued", "sending"]


async def test_a_sendout_waits_for_a_group_that_is_being_imported_for_the_first_time(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The group is checked when the sendout is prepared; until then the group may be empty."""
    into_new = group_import("new")
    await publish(connection, into_new)
    sendout_id = await send(connection, group="new")
    await preparer.step()
    await finish_with(connection, into_new, attributes='{"first_name": "Ada"}')
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.recipients) == ("sending", 1)


async def test_a_group_that_is_still_empty_fails_the_sendout(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The import into it failed, so the check of the group decides."""
    into_new = group_import("new")
    await publish(connection, into_new)
    sendout_id = await send(connection, group="new")
    await end(connection, into_new.id, "failed")
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.reason) == ("failed", "its group has no recipients")


async def test_recipients_without_an_attribute_fail_a_sendout_that_waited(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The attributes are checked when the sendout is prepared."""
    into_new = group_import("new")
    await publish(connection, into_new)
    sendout_id = await send(connection, group="new")
    await finish_with(connection, into_new, attributes="{}")
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.reason) == ("failed", "1 recipient lacks first_name")


async def test_a_group_is_checked_at_once_if_no_import_changes_it(connection: Connection, stock: None) -> None:
    """A publisher learns immediately that there is no such group, also if the lists are being imported."""
    done = codes_import()
    await publish(connection, done)
    await finish(connection, done.id)
    await publish(connection, codes_import())
    for after in ((), (done.id,)):
        with pytest.raises(Conflict, match="there is no group absent"):
            await send(connection, *after, group="absent")


async def test_recipients_in_the_command_wait_for_codes(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """A sendout without a group waits for the imports into its lists."""
    into_list = codes_import()
    given = (Recipient(email="ada@example.org", attributes={"first_name": "Ada"}),)
    sendout_id = await publish(connection, into_list, StartSendout(message="m", recipients=given))
    await preparer.step()
    assert await state_of(connection, sendout_id) == "queued"
    await finish(connection, into_list.id)
    await preparer.step()
    assert await state_of(connection, sendout_id) == "sending"


# --- after ---


async def test_an_import_in_after_may_arrive_later(connection: Connection, preparer: Preparer, stock: None) -> None:
    """The sendout waits for an import into a group that does not exist yet, and then sends to this group."""
    into_new = group_import("new")
    sendout_id = await send(connection, into_new.id, group="new")
    assert (await get(connection, sendout_id)).group == "new"
    await preparer.step()
    await publish(connection, into_new)
    await preparer.step()
    assert await state_of(connection, sendout_id) == "queued"
    await finish_with(connection, into_new, attributes='{"first_name": "Ada"}')
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.recipients, found.group) == ("sending", 1, "new")


async def test_each_import_in_after_must_finish(connection: Connection, preparer: Preparer, stock: None) -> None:
    """The imports may be into any list or group."""
    await add_list(connection, "other")
    awaited = [codes_import("other"), group_import("others")]
    sendout_id = await send(connection, *(each.id for each in awaited))
    for command in awaited:
        await preparer.step()
        assert await state_of(connection, sendout_id) == "queued"
        await publish(connection, command)
        await finish(connection, command.id)
    await preparer.step()
    assert await state_of(connection, sendout_id) == "sending"


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_an_import_in_after_that_does_not_finish_fails_the_sendout(
    connection: Connection, preparer: Preparer, stock: None, how: str
) -> None:
    """It fails at once, although other imports still run. It does not matter whether the import ended before or after
    the sendout was accepted. The reason names the import and its list, and quotes nothing of its file.
    """
    command, *running = codes_import(), *(group_import("slow") for _ in range(waits.IMPORTS_SHOWN))
    after = [each.id for each in (*running, command)]
    await publish(connection, *running, command)
    before = await send(connection, *after)
    await end(connection, command.id, how)
    later = await send(connection, *after)
    await preparer.step()
    for found in (await get(connection, before), await get(connection, later)):
        problem = {"failed": "failed", "cancelled": "was cancelled"}[how]
        assert (found.state, found.reason) == ("failed", f"import {command.id} into a {problem}")
        assert not found.is_waiting
    assert await dead_letters(connection) == []


async def test_a_rejected_import_in_after_fails_the_sendout(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """It will never arrive, so the sendout does not wait until the limit."""
    command = codes_import("nowhere")
    sendout_id = await send(connection, command.id)
    await inbox.reject(connection, command, "there is no list nowhere")
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.reason) == ("failed", f"import {command.id} was rejected: there is no list nowhere")
    assert found.ended


async def test_an_import_that_was_deleted_with_its_list_fails_the_sendout(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """Nothing shows any longer whether the import finished."""
    await add_list(connection, "gone")
    command = codes_import("gone")
    await publish(connection, command)
    await finish(connection, command.id)
    await lists.archive(connection, "gone")
    await lists.delete(connection, "gone")
    sendout_id = await send(connection, command.id)
    await preparer.step()
    assert (await get(connection, sendout_id)).reason == f"import {command.id} was deleted with its list"


async def test_an_id_of_another_command_is_rejected(connection: Connection, preparer: Preparer, stock: None) -> None:
    """`after` names imports only. If the other command arrives later, the sendout fails."""
    other = StartSendout(message="m", group="g")
    early = await send(connection, other.id)
    await publish(connection, other)
    reason = f"{other.id} is the id of a sendout command, not of an import"
    with pytest.raises(Conflict, match=reason):
        await send(connection, other.id)
    for _ in range(2):
        await preparer.step()
    assert (await get(connection, early)).reason == reason


async def test_producers_check_whether_the_imports_can_finish(connection: Connection, stock: None) -> None:
    """An import that has not arrived may still finish; a failed one cannot."""
    command = codes_import()
    await publish(connection, command)
    await waits.check_after(connection, [command.id, uuid4()])
    await end(connection, command.id, "failed")
    with pytest.raises(Conflict, match=f"after: import {command.id} into a failed"):
        await waits.check_after(connection, [command.id])


async def test_a_command_whose_import_does_not_arrive_is_rejected(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """After the limit the sendout fails, and a repeated command is rejected with the same reason."""
    command = StartSendout(message="m", group="new", after=(missing := uuid4(), arrived := codes_import().id))
    await publish(connection, ImportCoupons(id=arrived, list="a", codes=("X",)), command)
    await expire(connection)
    await preparer.step()
    reason = f"import {missing} did not arrive in time (COUPONS_AFTER_SECONDS)"
    found = await get(connection, command.id)
    assert (found.state, found.reason, found.group) == ("failed", reason, "new")
    assert await dead_letters(connection) == [(command.id, reason)]
    with pytest.raises(Conflict, match="did not arrive in time"):
        await inbox.is_repeated(connection, command)


async def test_an_import_that_has_arrived_may_take_longer_than_the_limit(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The limit is for imports that have not arrived. A large import may take hours."""
    command = codes_import()
    await publish(connection, command)
    sendout_id = await send(connection, command.id)
    await expire(connection)
    await preparer.step()
    assert await state_of(connection, sendout_id) == "queued"


async def test_two_workers_publish_a_rejected_command_once(
    connection: Connection, other: Connection, preparer: Preparer, stock: None, broker_url: str
) -> None:
    """While a worker publishes it, another one does not wait and publishes nothing."""
    await declare_queues(broker_url)
    sendout_id = await fail_late(connection, preparer)
    async with open_sender(broker_url) as sender:
        async with connection.transaction():
            letter = await waits.take_dead_letter(connection)
            assert letter
            assert letter.command_id == sendout_id
            assert await without_waiting(connection, other, publish_dead_letters(other, sender))
        assert await count_dead(broker_url) == 0
        await connection.execute("INSERT INTO dead_letter VALUES ($1, $2, $3)", *astuple(letter))
        assert await publish_dead_letters(other, sender)
        assert await publish_dead_letters(connection, sender)
    assert await count_dead(broker_url) == 1
    assert await dead_letters(connection) == []


async def test_a_rejected_command_is_kept_while_the_broker_is_unavailable(
    connection: Connection, preparer: Preparer, stock: None, broker_url: str
) -> None:
    """A worker tries again later, also if the connection is lost while it publishes."""
    await fail_late(connection, preparer)
    async with open_sender(broker_url) as sender:
        pass
    for lost in (None, sender):
        assert not await publish_dead_letters(connection, lost)
        assert len(await dead_letters(connection)) == 1


async def declare_queues(broker_url: str) -> None:
    async with broker.connect(broker_url, "test") as amqp:
        await topology.declare(await amqp.channel())


async def count_dead(broker_url: str) -> int:
    """Return the number of commands in the dead queue."""
    async with broker.connect(broker_url, "test") as amqp:
        queue = await (await amqp.channel()).declare_queue(queue_name(topology.DEAD), passive=True)
        return queue.declaration_result.message_count or 0


# --- failing with deliveries ---


async def send_to_two(connection: Connection, *after: UUID) -> UUID:
    """Start a sendout whose command contains the recipients, so that it has deliveries while it waits."""
    given = tuple(Recipient(email=f"{name}@example.org", attributes={"first_name": name}) for name in ("ada", "zoe"))
    start = StartSendout(message="m", recipients=given, after=after, start_at=datetime.now(UTC) + timedelta(hours=1))
    return await publish(connection, start)


async def fail_late(connection: Connection, preparer: Preparer) -> UUID:
    """Let a sendout fail because an import in `after` did not arrive."""
    sendout_id = await send_to_two(connection, uuid4())
    await expire(connection)
    await preparer.step()
    return sendout_id


async def fail_cancelled(connection: Connection, preparer: Preparer) -> UUID:
    """Let a sendout fail because an import in `after` was cancelled."""
    command = codes_import()
    await publish(connection, command)
    sendout_id = await send_to_two(connection, command.id)
    await imports.cancel(connection, command.id)
    await preparer.step()
    return sendout_id


async def delete_list(connection: Connection) -> None:
    """Delete the list as if its deletion had not seen the sendout."""
    async with connection.transaction():
        await connection.execute("DELETE FROM coupon")
        await connection.execute(
            "UPDATE coupon_list SET archived_at = now(), deleted_at = now(), total = 0, available = 0"
        )


async def fail_deleted(connection: Connection, preparer: Preparer) -> UUID:
    """Let a sendout fail because its list was deleted after the recipients had been copied."""
    await add_group(connection, "two", 2)
    sendout_id = await send(connection, group="two")
    claim = await sendouts.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert claim
    await sendouts.take_snapshot(connection, claim, batch_size=1)
    await connection.execute("UPDATE sendout SET lease_until = now() - interval '1 second'")
    await delete_list(connection)
    await preparer.step()
    return sendout_id


@pytest.mark.parametrize("fail", [fail_late, fail_cancelled, fail_deleted])
async def test_a_failed_sendout_cancels_its_deliveries(
    connection: Connection, preparer: Preparer, stock: None, database_url: str, fail: Fail
) -> None:
    """Workers close its batches, even without a usable relay. Before that, no invariant is violated either."""
    sendout_id = await fail(connection, preparer)
    failed = await get(connection, sendout_id)
    assert (failed.state, failed.remaining, failed.ended) == ("failed", 2, False)
    assert all(each.ok for each in await invariants.check(connection))
    async with open_pool(database_url, size=4) as pool, deliver_role(pool) as deliverer:
        while await deliverer.step() == NO_PAUSE:
            pass
    found = await get(connection, sendout_id)
    assert (found.state, found.reason, found.ended) == ("failed", failed.reason, True)
    assert (found.remaining, found.cancelled, found.sent) == (0, 2, 0)
    assert list(_remarks(found)) == ["2 cancelled", failed.reason]
    assert await connection.fetchval("SELECT count(*) FROM delivery WHERE state = 'cancelled'") == 2
    assert await connection.fetchval("SELECT available = total FROM coupon_list")


@asynccontextmanager
async def deliver_role(pool: Pool) -> AsyncIterator[Deliverer]:
    """The deliver role of a worker. No relay accepts its connections."""
    async with Relays(SmtpAddress.parse_all("smtp://127.0.0.1:1")) as relays, asyncio.TaskGroup() as group:
        yield Deliverer(
            pool=pool, relays=relays, signals=Signals(("deliver",)), settings=Settings(_env_file=None),
            owner="test", background=group,
        )  # fmt: skip


async def test_a_failed_sendout_ends_although_a_worker_died(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """If the worker dies after it has closed the last batch, a sweep ends the sendout."""
    sendout_id = await fail_late(connection, preparer)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS, only_stopped=True)
    assert batch
    await deliveries.close(connection, batch)
    assert await sendouts.settle_all(connection) == [Ended(sendout_id, SendoutState.FAILED, 0, 0)]
    assert (await get(connection, sendout_id)).ended


async def test_a_failed_sendout_shows_that_it_sends_nothing(
    connection: Connection, preparer: Preparer, stock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until its deliveries are cancelled, it shows no start time, no button to cancel it, and nothing to restore."""
    found = await get(connection, await fail_late(connection, preparer))
    assert not found.may_send
    describe(found)
    assert found.reason
    shown = capsys.readouterr().out
    assert found.reason in shown
    assert "starts" not in shown
    assert b"Cancel this sendout" not in page("sendout.html", live=True, sendout=found, problems=[], resume=None).body
    await connection.execute("UPDATE sendout SET start_at = NULL")
    assert (await restore_guard.since(connection)).sendouts == ()


async def test_verify_notices_a_failed_sendout_with_deliveries(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """An ended sendout has neither an open batch nor a pending delivery, whatever its final state is."""
    await fail_late(connection, preparer)
    await connection.execute("UPDATE sendout SET finished_at = now()")
    wrong = {each.name for each in await invariants.check(connection) if not each.ok}
    await connection.execute("UPDATE sendout SET finished_at = NULL")
    assert wrong == {"ended_sendouts_add_up", "ended_sendouts_hold_nothing"}


async def test_an_upgrade_cancels_the_deliveries_of_failed_sendouts(empty_database_url: str) -> None:
    """Earlier versions ended such a sendout with pending deliveries. After the upgrade, workers cancel them."""
    with mock.patch.object(migrate, "migrations", return_value=migrate.migrations()[:5]):
        await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        await connection.execute(FAILED_BEFORE)
    await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        assert all(each.ok for each in await invariants.check(connection))
        await restore_guard.accept(connection)
        batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
        assert batch
        await deliveries.close(connection, batch)
        (ended,) = await sendouts.settle_all(connection)
        assert (ended.id, ended.state) == (batch.sendout_id, "failed")
        assert all(each.ok for each in await invariants.check(connection))
        assert await connection.fetchval("SELECT count(*) FROM sendout WHERE finished_at IS NULL") == 0


FAILED_BEFORE = """
INSERT INTO message (name, version, sender, subject, text) VALUES ('m', 1, 'a@example.org', 's', 't');
INSERT INTO sendout (id, message_id, state, recipients, finished_at)
SELECT gen_random_uuid(), 1, 'failed', recipients, now() FROM (VALUES (1), (NULL)) has (recipients);
INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, remaining)
SELECT id, 1, 1, 1, 1 FROM sendout WHERE recipients = 1;
INSERT INTO delivery (sendout_id, number, address_key, address)
SELECT id, 1, 'a@b.de', 'a@b.de' FROM sendout WHERE recipients = 1;
"""
"""A failed sendout with a pending delivery, and one that failed before its recipients were copied."""


async def expire(connection: Connection) -> None:
    await connection.execute("UPDATE sendout_wait SET arrive_until = now() - interval '1 second'")


# --- resuming ---


async def test_a_resume_waits_for_unfinished_imports(connection: Connection, preparer: Preparer, stock: None) -> None:
    """An interrupted sendout is resumed with the codes of the import, once the import has finished."""
    sendout_id = await interrupt(connection)
    command = codes_import()
    await publish(connection, command, ResumeSendout(sendout=sendout_id))
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.ended) == ("interrupted", False)
    assert found.waiting == f"resume requested, waiting for import {command.id} into a"
    await add_more(connection, command.id)
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.waiting) == ("sending", None)


async def add_more(connection: Connection, import_id: UUID) -> None:
    """Add a code, and finish the import. Another import adds the code, because `import_id` must not overtake it."""
    await finish(connection, import_id)
    await add_codes(connection, "a", ["ONE-MORE"])


async def test_a_resume_that_waited_may_still_lack_codes(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The sendout stays interrupted and waits no longer."""
    sendout_id = await interrupt(connection)
    command = codes_import()
    await publish(connection, command, ResumeSendout(sendout=sendout_id))
    await finish(connection, command.id)
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.ended, found.waiting) == ("interrupted", True, None)


async def test_a_paused_sendout_waits_only_for_imports_in_after(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """It already has its codes, so imports into its lists cannot change what it sends."""
    sendout_id = await pause(connection)
    command = codes_import()
    await publish(connection, command, ResumeSendout(sendout=sendout_id))
    assert await state_of(connection, sendout_id) == "sending"
    await sendouts.pause(connection, sendout_id, "paused by a test")
    await publish(connection, ResumeSendout(sendout=sendout_id, after=(command.id,)))
    await preparer.step()
    assert await state_of(connection, sendout_id) == "paused"
    await finish(connection, command.id)
    await preparer.step()
    assert await state_of(connection, sendout_id) == "sending"


@pytest.mark.parametrize("begin", [interrupt, pause])
@pytest.mark.parametrize("how", ["failed", "cancelled", "late"])
async def test_a_resume_whose_import_does_not_finish_is_rejected(
    connection: Connection, preparer: Preparer, stock: None, begin: Begin, how: str
) -> None:
    """The sendout keeps its state, its reason and its mails, shows why it was not resumed, and can be resumed later."""
    sendout_id = await begin(connection)
    before = await get(connection, sendout_id)
    command = codes_import()
    resume = ResumeSendout(sendout=sendout_id, after=(command.id,))
    await publish(connection, resume)
    if how == "late":
        await expire(connection)
    else:
        await publish(connection, command)
        await end(connection, command.id, how)
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.reason, found.ended) == (before.state, before.reason, True)
    assert found.not_resumed
    assert f"import {command.id}" in found.not_resumed
    assert await dead_letters(connection) == [(resume.id, found.not_resumed)]
    with pytest.raises(Conflict, match=found.not_resumed.split(" (")[0]):
        await inbox.is_known(connection, resume.id)
    await add_codes(connection, "a", ["ONE-MORE"])
    await publish(connection, ResumeSendout(sendout=sendout_id))
    found = await get(connection, sendout_id)
    assert (found.state, found.not_resumed) == ("sending", None)


async def test_a_resume_that_is_no_longer_possible_is_rejected(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """A list of the sendout was deleted while the resume waited."""
    sendout_id = await interrupt(connection)
    command = codes_import()
    await publish(connection, command, resume := ResumeSendout(sendout=sendout_id))
    await end(connection, command.id, "cancelled")
    await delete_list(connection)
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.not_resumed) == ("interrupted", "list a is deleted")
    assert await dead_letters(connection) == [(resume.id, "list a is deleted")]


async def test_the_newest_resume_decides(connection: Connection, preparer: Preparer, stock: None) -> None:
    """An operator can resume a sendout at once although an earlier resume waits for an import that does not arrive."""
    sendout_id = await pause(connection)
    await publish(connection, ResumeSendout(sendout=sendout_id, after=(uuid4(),)))
    await publish(connection, ResumeSendout(sendout=sendout_id))
    assert await state_of(connection, sendout_id) == "sending"
    assert not await waits.exists(connection, sendout_id)


async def test_auto_resume_leaves_a_requested_resume_to_its_wait(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The publisher asked for a resume after an import, so enough codes alone do not resume the sendout."""
    await add_group(connection, "eleven", 11)
    command = StartSendout(message="m", group="eleven", auto_resume=True)
    await publish(connection, command)
    assert isinstance(await prepare(connection), Short)
    await publish(connection, ResumeSendout(sendout=command.id, after=(uuid4(),)))
    await add_codes(connection, "a", ["ONE-MORE"])
    assert await sendout_views.list_auto_resumable(connection) == []
    assert not await sendouts._resume_interrupted(connection, command.id)
    assert await state_of(connection, command.id) == "interrupted"


async def test_auto_resume_waits_for_codes_instead_of_an_alternative_text(connection: Connection) -> None:
    """While codes are added to a list, its recipients do not get the alternative text."""
    await add_list(connection, "a")
    await add_list(connection, "b", shortage=Shortage.TEXT)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a", "b")
    await publish(connection, start := StartSendout(message="m", group="g", auto_resume=True))
    assert isinstance(await prepare(connection), Short)
    into_b, into_a = codes_import("b"), codes_import("a")
    await publish(connection, into_b, into_a)
    await connection.execute("UPDATE import_job SET due_at = now() + interval '1 hour' WHERE finished_at IS NULL")
    await add_codes(connection, "a", [f"A{number}" for number in range(10)])
    assert await sendouts.auto_resume(connection) == []
    await imports.cancel(connection, into_b.id)
    assert await sendouts.auto_resume(connection) == [start.id]


# --- cancelling, repeating, racing ---


async def test_a_waiting_sendout_is_cancelled(connection: Connection, preparer: Preparer, stock: None) -> None:
    """It waits no longer, and an import that ends later does not start it."""
    command = codes_import()
    sendout_id = await publish(connection, command, StartSendout(message="m", group="g"))
    await sendouts.cancel(connection, sendout_id)
    assert not await waits.exists(connection, sendout_id)
    await finish(connection, command.id)
    await preparer.step()
    found = await get(connection, sendout_id)
    assert (found.state, found.ended, found.waiting) == ("cancelled", True, None)


async def test_a_repeated_command_changes_no_wait(connection: Connection, preparer: Preparer, stock: None) -> None:
    """A second delivery of the command is ignored while the sendout waits and afterwards."""
    command = codes_import()
    start = StartSendout(message="m", group="g", after=(command.id,))
    await publish(connection, command, start)
    async with connection.transaction():
        assert not await inbox.accept(connection, start)
    await finish(connection, command.id)
    await preparer.step()
    async with connection.transaction():
        assert not await inbox.accept(connection, start)
    assert await state_of(connection, start.id) == "sending"


async def test_two_workers_end_a_wait_once(
    connection: Connection, other: Connection, database_url: str, stock: None
) -> None:
    """Both workers find the wait. One continues the sendout, and the other one finds nothing to do."""
    sendout_id = await interrupt(connection)
    command = codes_import()
    await publish(connection, command, ResumeSendout(sendout=sendout_id))
    await add_more(connection, command.id)
    async with connect(database_url) as holder:
        async with lock_rows(holder, "sendout"):
            ending = [asyncio.create_task(sendouts.end_wait(each, sendout_id)) for each in (connection, other)]
            await until_blocked(holder, *ending)
        assert sorted(await asyncio.gather(*ending), key=str) == [None, Resumed()]


async def test_a_poll_finds_the_waits_that_have_ended(connection: Connection, stock: None) -> None:
    """Workers look only at these sendouts, so thousands of waiting ones cost little. The longest wait is first."""
    await add_list(connection, "b", 1)
    await save_message(connection, "n", "b")
    into_a, into_b = codes_import("a"), codes_import("b")
    await publish(connection, into_a, into_b)
    first = await send(connection, into_a.id, into_b.id, message="n")
    second = await send(connection, message="m")
    third = await send(connection, into_b.id, message="m")
    found = []
    for command in (None, into_a, into_b):
        if command:
            await finish(connection, command.id)
        found.append(await waits.list_ended(connection))
    assert found == [[], [second], [first, second, third]]


async def test_a_wait_that_has_not_ended_continues(connection: Connection, stock: None) -> None:
    """A worker that looked too early changes nothing: the imports are checked again under the lock of the sendout. A
    sendout that does not wait is not changed either.
    """
    missing = await send(connection, uuid4())
    assert await sendouts.end_wait(connection, missing) is None
    await publish(connection, running := codes_import())
    waiting = [await send(connection), await send(connection, running.id)]
    await expire(connection)  # the limit is for imports that have not arrived
    for sendout_id in waiting:
        assert await sendouts.end_wait(connection, sendout_id) is None
    assert {missing, *waiting} == {row["sendout_id"] for row in await connection.fetch("SELECT * FROM sendout_wait")}
    assert await sendouts.end_wait(connection, uuid4()) is None


async def test_nothing_goes_on_while_the_restore_guard_blocks_sending(
    connection: Connection, preparer: Preparer, stock: None
) -> None:
    """The wait of a restored sendout ends only after an operator has accepted the database."""
    command = codes_import()
    await publish(connection, command)
    sendout_id = await send(connection)
    await finish(connection, command.id)
    await connection.execute("UPDATE restore_guard SET cluster = cluster + 1 WHERE ended_at IS NULL")
    assert await preparer.step() is None
    assert await waits.exists(connection, sendout_id)


async def test_an_import_that_ends_wakes_the_role_of_sendouts(connection: Connection, database_url: str) -> None:
    """A sendout that waits in the same process starts at once."""
    await add_list(connection, "a")
    await publish(connection, codes_import())
    signals = Signals(("import", "sendout"))
    async with open_pool(database_url, size=4) as pool, asyncio.timeout(LIMIT_SECONDS):
        settings = Settings(_env_file=None)
        await Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=settings, owner="test").step()
        await signals.wait("sendout", 2 * LIMIT_SECONDS)


# --- showing ---


def wait(*imports: waits.AwaitedImport, total: int = 0) -> waits.Wait:
    return waits.Wait(imports, total or len(imports), obstacle=None)


ID = UUID("0c8e6a4b-1f0e-4a4d-9c56-5d1d6b1f7a22")


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (wait(waits.AwaitedImport(ID, "customers", 40)), f"import {ID} into customers, 40 %"),
        (wait(waits.AwaitedImport(ID, "customers", None)), f"import {ID} into customers"),
        (wait(waits.AwaitedImport(ID, None, None)), f"import {ID}, which has not arrived yet"),
        (wait(waits.AwaitedImport(ID, "a", 1), total=2), f"import {ID} into a, 1 %; and for 1 more import"),
        (wait(waits.AwaitedImport(ID, "a", 1), total=3), f"import {ID} into a, 1 %; and for 2 more imports"),
    ],
)
def test_a_wait_names_its_imports(shown: waits.Wait, text: str) -> None:
    """It names the target and the progress of each import, or that the import has not arrived."""
    assert str(shown) == f"waiting for {text}"


async def test_a_waiting_sendout_shows_its_imports(connection: Connection, stock: None) -> None:
    """It shows the running import first, then those that wait or have not arrived, and no import that has ended."""
    first, second, done = codes_import(), codes_import(), group_import()
    await publish(connection, first, second, done)
    missing = [uuid4() for _ in range(3)]
    sendout_id = await send(connection, *missing, done.id)
    job = await claimed(connection, first.id)
    await imports.set_total_bytes(connection, job, 200)
    await connection.execute("UPDATE import_job SET read_bytes = 80 WHERE id = $1", first.id)
    await finish(connection, done.id)
    found = await get(connection, sendout_id)
    assert found.wait
    assert found.wait.total == 5
    assert [(each.id, each.target, each.percent) for each in found.wait.imports] == [
        (first.id, "a", 40),
        (second.id, "a", None),
        (min(missing), None, None),
    ]
    (listed,) = await sendout_views.list_newest(connection)
    assert listed.wait == found.wait


async def test_progress_and_pages_show_what_a_sendout_waits_for(connection: Connection, stock: None) -> None:
    """`--wait` shows it next to the bar, and the console in the sendout's card."""
    sendout_id = await send(connection, missing := uuid4())
    found = await get(connection, sendout_id)
    waiting = f"waiting for import {missing}, which has not arrived yet"
    assert _progress_of(found).state == waiting
    assert not _progress_of(found).ended
    shown = page(
        "outbox.html", live=False, refusal=None, sendouts=[found], chosen=None, states=[], workers=Workers([], [], [])
    )
    assert waiting.capitalize() in bytes(shown.body).decode()


async def test_outcomes_of_a_wait(connection: Connection, stock: None) -> None:
    """A start is queued again, a resume is done, and a rejection has its reason."""
    sendout_id = await publish(connection, command := codes_import(), StartSendout(message="m", group="g"))
    await finish(connection, command.id)
    assert await sendouts.end_wait(connection, sendout_id) == Queued()
    failing = await send(connection, (broken := codes_import()).id)
    await publish(connection, broken)
    await end(connection, broken.id, "cancelled")
    assert await sendouts.end_wait(connection, failing) == Rejected(f"import {broken.id} into a was cancelled")


async def test_a_resume_without_unfinished_imports_does_not_wait(connection: Connection, stock: None) -> None:
    """It is carried out with its command, in one transaction."""
    sendout_id = await interrupt(connection)
    async with connection.transaction():
        decided = await sendouts.request_resume(connection, ResumeSendout(sendout=sendout_id))
    assert isinstance(decided, Short)
    async with connection.transaction():
        decided = await sendouts.request_resume(connection, ResumeSendout(sendout=sendout_id, after=(uuid4(),)))
    assert decided == Waiting()
