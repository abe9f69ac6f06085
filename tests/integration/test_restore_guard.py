"""The restore guard: restored data send no mail and release no code until an operator has accepted them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock
from uuid import UUID, uuid4

import asyncpg
import pytest

from coupons import migrate
from coupons.database import Connection, connect
from coupons.errors import Conflict, LeaseLost, SendingBlocked
from coupons.schedule import Reschedule
from coupons.states import DeliveryState
from coupons.store import deliveries, invariants, lists, restore_guard, schedules, sendout_views, sendouts, uncertain
from coupons.store.deliveries import Batch, DeliveryResult
from coupons.store.restore_guard import UnassignedCodes
from tests.clusters import Cluster, cluster, cut_off, promote, with_database
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, resume, save_message, start
from tests.locks import until_blocked
from tests.services import database, execute
from tests.waiting import until
from tests.web import web_client

TOMORROW = Reschedule(start_at=datetime.now(UTC) + timedelta(days=1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made, made.running():
        yield made


@pytest.fixture
async def origin(server: Cluster) -> AsyncIterator[str]:
    """Create a database in the middle of a sendout of 30 mails in three batches, of which the first is sent."""
    async with database(server.url) as url:
        await migrate.migrate(url)
        async with connect(url) as connection:
            await start_sendout(connection)
            await send_one_batch(connection)
        yield url


async def start_sendout(connection: Connection) -> UUID:
    await add_list(connection, "a", 40)
    await add_group(connection, "g", 30)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=10)
    return sendout_id


async def claim(connection: Connection) -> Batch | None:
    return await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def send_one_batch(connection: Connection) -> None:
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    await record(connection, batch)
    await deliveries.release(connection, batch)


async def record(connection: Connection, batch: Batch, *, intents: Sequence[int] = ()) -> None:
    """Record intents for some mails, or the result sent for all mails of the batch."""
    used = await deliveries.list_lists(connection, batch.sendout_id)
    due = [] if intents else await deliveries.list_due(connection, batch, used)
    await deliveries.record(
        connection,
        batch,
        flush=uuid4(),
        results=[DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due],
        in_flight=[],
        intents=intents,
        lease_seconds=LEASE_SECONDS,
    )


async def revoke_acceptance(connection: Connection) -> None:
    """Rewrite the rows of the restore guard, as a restore of a dump into the same database does."""
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE dumped ON COMMIT DROP AS TABLE restore_guard")
        await connection.execute("TRUNCATE restore_guard")
        await connection.execute("INSERT INTO restore_guard SELECT * FROM dumped")


async def block_reason(connection: Connection) -> str:
    return await restore_guard.refusal(connection) or "accepted"


async def invariants_hold(connection: Connection) -> bool:
    return all(proof.ok for proof in await invariants.check(connection))


# --- detection -----------------------------------------------------------------------------------------------------


async def into_a_new_database(server: Cluster, origin: str) -> str:
    """Restore by `pg_dump | psql` into a new database."""
    url = await new_database(server)
    server.replay(url, server.dump(origin))
    return url


async def over_the_old_one(server: Cluster, origin: str) -> str:
    """Restore by `pg_restore --clean` into the dumped database."""
    server.restore(origin, server.dump(origin, "--format=custom"), "--clean")
    return origin


async def data_into_emptied_tables(server: Cluster, origin: str) -> str:
    file = server.dump(origin, "--data-only", "--disable-triggers")
    async with connect(origin) as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        await connection.execute(f"TRUNCATE {', '.join(row['tablename'] for row in tables)}")
    server.replay(origin, file)
    return origin


async def data_into_a_migrated_database(server: Cluster, origin: str) -> str:
    """Restore only rows. Those that `coupons migrate` inserted stay, and psql continues after the duplicate keys."""
    url = await new_database(server)
    await migrate.migrate(url)
    server.replay(url, server.dump(origin, "--data-only", "--disable-triggers"))
    return url


async def a_copy(server: Cluster, origin: str) -> str:
    """Copy the database by CREATE DATABASE … TEMPLATE."""
    return await new_database(server, origin.rpartition("/")[2])


async def dump_of_an_older_version(server: Cluster, _: str) -> str:
    """Create a database of a version without the restore guard, then migrate it."""
    url = await new_database(server)
    await older_version(url, migrations=3)
    await migrate.migrate(url)
    return url


OLDER_SENDOUT = """
INSERT INTO coupon_list (name, preview_text, total, available) VALUES ('a', 'x', 40, 10);
INSERT INTO message (name, version, sender, subject, text) VALUES ('m', 1, 'a@example.org', 's', '{{ coupon("a") }}');
INSERT INTO message_list VALUES (1, 1);
INSERT INTO sendout (id, message_id, state, recipients, started_at) VALUES (gen_random_uuid(), 1, 'sending', 30, now());
INSERT INTO sendout_list (sendout_id, list_id, needed, promised, bound, sent) SELECT id, 1, 30, 30, 20, 10 FROM sendout;
INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, open, sent, closed)
SELECT id, n, n * 10 - 9, n * 10, CASE n WHEN 1 THEN 0 ELSE 10 END, CASE n WHEN 1 THEN 10 ELSE 0 END, n = 1
FROM sendout, generate_series(1, 3) n;
INSERT INTO delivery (sendout_id, number, address_key, address, state)
SELECT id, n, 'c' || n || '@example.org', 'c' || n || '@example.org', CASE WHEN n <= 10 THEN 'sent' ELSE 'pending' END
FROM sendout, generate_series(1, 30) n;
INSERT INTO coupon (list_id, code, import_id, sendout_id, delivery_number)
SELECT 1, 'A-' || n, id, CASE WHEN n <= 20 THEN id END, CASE WHEN n <= 20 THEN n END
FROM sendout, generate_series(1, 40) n;
"""
"""Of 30 mails in three batches, the first ten are sent; codes are assigned to the first 20."""


async def older_version(url: str, *, migrations: int) -> None:
    """Apply only the first migrations, and put the database in the middle of a sendout."""
    with mock.patch.object(migrate, "migrations", return_value=migrate.migrations()[:migrations]):
        await migrate.migrate(url)
    await execute(url, OLDER_SENDOUT)


async def new_database(server: Cluster, template: str = "template0") -> str:
    name = f"other_{uuid4().hex[:12]}"
    await execute(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    return with_database(server.url, name)


WAYS: dict[Callable[[Cluster, str], Awaitable[str]], str] = {
    into_a_new_database: "restored from a dump",
    over_the_old_one: "restored from a dump",
    data_into_emptied_tables: "restored from a dump",
    data_into_a_migrated_database: "restored from a dump",
    a_copy: "copy of another",
    dump_of_an_older_version: "was never accepted",
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_restored_data_are_blocked_until_accepted(
    server: Cluster, origin: str, way: Callable[[Cluster, str], Awaitable[str]]
) -> None:
    """Each way of restoring is detected with its own reason. Once the data are accepted, the sendout continues."""
    async with connect(await way(server, origin)) as connection:
        assert WAYS[way] in await block_reason(connection)
        assert await claim(connection) is None
        await restore_guard.accept(connection)
        assert await restore_guard.refusal(connection) is None
        await send_one_batch(connection)
        await send_one_batch(connection)
        assert await claim(connection) is None
        assert await invariants_hold(connection)


async def test_a_promoted_replica_is_blocked_until_accepted(tmp_path: Path) -> None:
    """The guard reports a replica without an error. After a promotion it blocks at once, before any checkpoint."""
    with cluster(tmp_path) as primary, primary.running() as url:
        await migrate.migrate(url)
        async with connect(url) as connection:
            await start_sendout(connection)
            replica = primary.replica()
            with replica.running() as replica_url:
                await cut_off(replica_url)
                await send_one_batch(connection)
                async with connect(replica_url) as promoted:
                    assert "replica" in await block_reason(promoted)
                    with pytest.raises(Conflict, match="cannot be accepted"):
                        await restore_guard.accept(promoted)
                    await promote(replica_url)
                    assert "it is on timeline 2, and timeline 1 was accepted" in await block_reason(promoted)
                    assert await claim(promoted) is None
                    assert [each.remaining for each in (await restore_guard.since(promoted)).sendouts] == [30]
                    await restore_guard.accept(promoted)
                    await send_one_batch(promoted)


async def test_another_server_is_blocked_until_accepted(connection: Connection) -> None:
    """pg_upgrade keeps the rows' xmin and the database's oid, but the server gets another identifier."""
    await start_sendout(connection)
    await connection.execute("UPDATE restore_guard SET cluster = cluster + 1, written_by = pg_current_xact_id()::xid")
    assert "on another server" in await block_reason(connection)
    assert await claim(connection) is None


async def test_routine_maintenance_is_not_a_restore(tmp_path: Path) -> None:
    """Vacuums, a rename, a reindex, a checkpoint and a crash do not block sending."""
    with cluster(tmp_path) as own:
        with own.running() as url:
            await execute(url, "CREATE DATABASE shop")
            await migrate.migrate(with_database(url, "shop"))
            for statement in ("VACUUM FULL", "VACUUM (FREEZE)", "ANALYZE", "REINDEX TABLE restore_guard", "CHECKPOINT"):
                await execute(with_database(url, "shop"), statement)
            await execute(url, "ALTER DATABASE shop RENAME TO store")
            async with connect(with_database(url, "store")) as connection:
                await start_sendout(connection)
        with own.running() as url:
            async with connect(with_database(url, "store")) as connection:
                assert await restore_guard.refusal(connection) is None
                await send_one_batch(connection)


# --- before acceptance ---------------------------------------------------------------------------------------------


async def test_a_worker_loses_its_batch_after_a_restore(connection: Connection) -> None:
    """The worker cannot assign, record or close, not even after the data are accepted.

    After acceptance, the mails that are in flight according to the data become uncertain.
    """
    await start_sendout(connection)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    await record(connection, batch, intents=[1, 2, 3])
    await revoke_acceptance(connection)
    for error in (SendingBlocked, LeaseLost):
        for attempt in (
            deliveries.assign_codes(connection, batch),
            record(connection, batch),
            record(connection, batch, intents=[4]),
            deliveries.close(connection, batch),
        ):
            with pytest.raises(error):
                await attempt
        await restore_guard.accept(connection)
    assert await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS) == 3


async def test_mails_of_a_dead_worker_wait_for_acceptance(connection: Connection) -> None:
    """Mails in flight of a dead worker become uncertain after acceptance. Before that, the sweep skips them."""
    await start_sendout(connection)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    await record(connection, batch, intents=[1, 2, 3])
    await connection.execute("UPDATE delivery_batch SET lease_until = now() WHERE in_flight <> '{}'")
    await revoke_acceptance(connection)
    assert await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS) == 0
    await restore_guard.accept(connection)
    assert await deliveries.recover(connection, owner="test", lease_seconds=LEASE_SECONDS) == 3


async def test_a_cancelled_sendout_releases_no_code_before_acceptance(connection: Connection) -> None:
    """The codes may have been sent since the backup."""
    sendout_id = await start_sendout(connection)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    await deliveries.release(connection, batch)
    await sendouts.cancel(connection, sendout_id)
    await revoke_acceptance(connection)
    assert await deliveries.claim(connection, owner="test", lease_seconds=1, only_stopped=True) is None
    assert (await list_a(connection)).available == 30
    await restore_guard.accept(connection)
    while batch := await claim(connection):
        await deliveries.close(connection, batch)
        await deliveries.release(connection, batch)
    assert (await list_a(connection)).available == 40


async def list_a(connection: Connection) -> lists.CouponList:
    (found,) = await lists.get(connection, "a")
    return found


async def test_a_new_database_is_accepted(connection: Connection) -> None:
    """The migration of an empty database accepts it."""
    assert await restore_guard.refusal(connection) is None
    assert (await restore_guard.state(connection)).number is not None


async def test_the_console_shows_that_sending_is_blocked(
    connection: Connection, database_url: str, broker_url: str
) -> None:
    """The Outbox shows the reason until the data are accepted."""
    async with web_client(database_url=database_url, broker_url=broker_url) as site:
        assert "coupons restore-guard accept" not in (await site.get("/")).text
        await revoke_acceptance(connection)
        page = (await site.get("/")).text
        reason = "the database was restored from a dump"
        assert f"No mail is sent until an operator runs <code>coupons restore-guard accept</code>: {reason}" in page


async def test_an_ordinary_role_can_check_the_restore_guard(connection: Connection) -> None:
    """Every role that can read the table can call the function, superuser or not."""
    role = f"sender_{uuid4().hex[:12]}"
    await connection.execute(f"CREATE ROLE {role}; GRANT SELECT ON restore_guard TO {role}")
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {role}")
            assert await connection.fetchval("SELECT database_accepted()")
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- the numbers ---------------------------------------------------------------------------------------------------


async def test_possibly_sent_mails_and_codes_are_counted(connection: Connection) -> None:
    """The report has the mails without a result in running sendouts, the unassigned codes and the backup's time."""
    sendout_id = await start_sendout(connection)
    await send_one_batch(connection)
    await add_list(connection, "b", 5)
    await add_list(connection, "empty")
    until = await connection.fetchval("SELECT max(flushed_at) FROM delivery_batch")
    found = await restore_guard.since(connection)
    assert [(each.id, each.recipients, each.sent, each.uncertain, each.remaining) for each in found.sendouts] == [
        (sendout_id, 30, 10, 0, 20)
    ]
    assert found.lists == (
        UnassignedCodes("a", available=10, reserved=20),
        UnassignedCodes("b", available=5, reserved=0),
    )
    assert found.mails_until == until
    assert found.now > until


async def test_cancelled_sendouts_are_not_counted(connection: Connection) -> None:
    """Interrupted and scheduled sendouts are counted: they may have been resumed or rescheduled since the backup."""
    sendout_id = await start_sendout(connection)
    await connection.execute("UPDATE sendout SET start_at = now() + interval '1 hour'")
    await start(connection, "m", "g")
    await prepare(connection)
    assert [(each.state, each.remaining) for each in (await restore_guard.since(connection)).sendouts] == [
        ("scheduled", 30),
        ("interrupted", 30),
    ]
    await sendouts.cancel(connection, sendout_id)
    assert len((await restore_guard.since(connection)).sendouts) == 1


# --- accepting -----------------------------------------------------------------------------------------------------


async def test_data_are_accepted_once(connection: Connection, other: Connection) -> None:
    """A concurrent second acceptance waits and then changes nothing. Each acceptance stays on record."""
    await revoke_acceptance(connection)
    before = await connection.fetchval("SELECT count(*) FROM restore_guard")
    async with other.transaction():
        for statement in (restore_guard.SQL.lock, restore_guard.SQL.end, restore_guard.SQL.begin):
            await other.execute(statement)
        second = asyncio.create_task(restore_guard.accept(connection))
        await until_blocked(other, second)
    await second
    await restore_guard.accept(connection)
    assert await connection.fetchval("SELECT count(*) FROM restore_guard") == before + 1
    assert await connection.fetchval("SELECT count(*) FROM restore_guard WHERE ended_at IS NULL") == 1


async def test_acceptance_applies_to_the_state_that_was_shown(connection: Connection) -> None:
    """An operator who has seen the numbers of one restore cannot accept a later restore with them."""
    await revoke_acceptance(connection)
    seen = await restore_guard.state(connection)
    await revoke_acceptance(connection)
    with pytest.raises(Conflict, match="has changed in the meantime"):
        await restore_guard.accept(connection, seen=seen)
    assert await restore_guard.refusal(connection)
    await restore_guard.accept(connection, seen=await restore_guard.state(connection))
    assert await restore_guard.refusal(connection) is None


async def test_acceptance_inside_a_transaction_is_rejected(connection: Connection) -> None:
    """The row would get another transaction id than the one recorded in it, and would look restored."""
    await revoke_acceptance(connection)
    with pytest.raises(Conflict, match="within another transaction"):
        async with connection.transaction():
            await restore_guard.accept(connection)
    assert await restore_guard.refusal(connection)


async def test_remaining_mails_can_become_uncertain_with_their_codes(connection: Connection) -> None:
    """Remaining mails become uncertain, and reserved codes are assigned to them.

    So no mail is sent again, and no code that may have been sent goes to another recipient.
    """
    sendout_id = await start_sendout(connection)
    await send_one_batch(connection)
    await revoke_acceptance(connection)
    assert await restore_guard.accept(connection, uncertain=True) == 20
    assert await claim(connection) is None
    assert await sendouts.settle(connection, sendout_id)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.sent, found.uncertain, found.remaining) == ("finished", 10, 20, 0)
    left = await list_a(connection)
    assert (left.available, left.reserved, left.assigned, left.sent) == (10, 0, 20, 10)
    assert await connection.fetchval("SELECT count(*) FROM delivery WHERE never_resend") == 20


async def test_mails_made_uncertain_at_acceptance_are_never_resent(connection: Connection) -> None:
    """The recipients may have got another code, so neither an operator nor the policy can resend these mails."""
    sendout_id = await start_sendout(connection)
    await revoke_acceptance(connection)
    await restore_guard.accept(connection, uncertain=True)
    assert await uncertain.resolve(connection, sendout_id, "resend") == 0
    assert await uncertain.resolve_all(connection, "resend") == 0
    assert await uncertain.resolve(connection, sendout_id, "accept") == 30


async def test_an_upgrade_counts_each_code_once(empty_database_url: str) -> None:
    """Older versions counted an assigned code as reserved too, and a sent code in all three counters."""
    await older_version(empty_database_url, migrations=4)
    await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        found = await list_a(connection)
        assert (found.total, found.available, found.reserved, found.assigned, found.sent) == (40, 10, 10, 10, 10)
        assert await invariants_hold(connection)


async def test_an_upgrade_marks_mails_that_were_recognized_by_their_reply(empty_database_url: str) -> None:
    """Of ten uncertain mails, the three whose reply is that of the restore guard are never resent."""
    await older_version(empty_database_url, migrations=4)
    marked = "may have been sent after the backup, then perhaps with another code"
    await execute(
        empty_database_url,
        f"""UPDATE delivery_batch SET open = 0, uncertain = 10, closed = true WHERE number = 2;
        UPDATE delivery SET state = 'uncertain', was_uncertain = true,
            reply = CASE WHEN number < 14 THEN '{marked}' ELSE 'connection lost' END WHERE number BETWEEN 11 AND 20""",
    )
    await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        (sendout,) = await sendout_views.list_newest(connection)
        assert await uncertain.resolve(connection, sendout.id, "resend") == 7


@pytest.mark.parametrize("reply", [None, "in other words"])
async def test_the_wording_of_a_reply_decides_nothing(connection: Connection, reply: str | None) -> None:
    """A column marks the mails that are never resent. The wording of a mail's reply has no effect."""
    sendout_id = await start_sendout(connection)
    await revoke_acceptance(connection)
    await restore_guard.accept(connection, uncertain=True)
    await connection.execute("UPDATE delivery SET reply = $1", reply)
    assert await uncertain.resolve(connection, sendout_id, "resend") == 0
    with pytest.raises(asyncpg.CheckViolationError, match="never_resent"):
        await connection.execute("UPDATE delivery SET state = 'pending'")


async def test_no_sendout_is_cancelled_before_acceptance(connection: Connection) -> None:
    """A cancellation would release codes that may have been sent since the backup."""
    sendout_id = await start_sendout(connection)
    await revoke_acceptance(connection)
    with pytest.raises(Conflict, match="pause it instead"):
        await sendouts.cancel(connection, sendout_id)
    assert (await list_a(connection)).reserved == 30


async def test_no_codes_are_reserved_before_acceptance(connection: Connection) -> None:
    """The codes may have been sent since the backup. A new sendout waits, and an interrupted one is not resumed."""
    await start_sendout(connection)
    await add_group(connection, "many", 50)
    await start(connection, "m", "many")
    await prepare(connection)
    interrupted = await connection.fetchval("SELECT id FROM sendout WHERE state = 'interrupted'")
    waiting = await start(connection, "m", "many")
    await revoke_acceptance(connection)
    await add_codes(connection, "a", [f"MORE-{number}" for number in range(100)])
    with pytest.raises(Conflict, match="restore-guard accept"):
        await resume(connection, interrupted)
    assert await sendouts.claim(connection, owner="test", lease_seconds=60) is None
    await restore_guard.accept(connection)
    claimed = await sendouts.claim(connection, owner="test", lease_seconds=60)
    assert claimed
    assert claimed.id == waiting


async def test_a_sendout_claimed_before_the_restore_is_not_admitted(connection: Connection) -> None:
    """The sendout's lease and snapshot precede the restore. After acceptance the sendout is prepared again."""
    await start_sendout(connection)
    waiting = await start(connection, "m", "g")
    claim = await sendouts.claim(connection, owner="test", lease_seconds=60)
    assert claim
    assert claim.id == waiting
    await sendouts.take_snapshot(connection, claim, batch_size=1_000)
    await add_codes(connection, "a", [f"MORE-{number}" for number in range(100)])
    await revoke_acceptance(connection)
    with pytest.raises(SendingBlocked, match="restore-guard accept"):
        await sendouts.admit(connection, claim)
    assert (await list_a(connection)).reserved == 30


async def test_mails_of_a_paused_sendout_become_uncertain_too(connection: Connection) -> None:
    """A paused sendout may have been resumed since the backup. Its mails in flight become uncertain too."""
    sendout_id = await start_sendout(connection)
    batch = await claim(connection)
    assert batch
    await deliveries.assign_codes(connection, batch)
    await record(connection, batch, intents=[1, 2])
    await sendouts.pause(connection, sendout_id, "by a test")
    await revoke_acceptance(connection)
    assert await restore_guard.accept(connection, uncertain=True) == 30
    assert await sendouts.settle(connection, sendout_id)


@pytest.mark.parametrize("paused", [False, True])
async def test_mails_of_a_future_sendout_stay_pending(connection: Connection, paused: bool) -> None:
    """A scheduled sendout is paused with a warning, or stays so: if it was not sent since the backup, it is resumed."""
    sendout_id = await start_sendout(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, TOMORROW)
    if not paused:
        await resume(connection, sendout_id)
    await revoke_acceptance(connection)
    assert await restore_guard.accept(connection, uncertain=True) == 0
    assert (await list_a(connection)).reserved == 30
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.start_at, found.remaining) == ("paused", TOMORROW.start_at, 30)
    assert "may have been rescheduled and sent since" in str(found.reason)


@pytest.mark.parametrize("paused", [False, True])
async def test_mails_of_a_rescheduled_sendout_become_uncertain_once_it_has_started(
    connection: Connection, paused: bool
) -> None:
    """A sendout that was rescheduled to tomorrow after its first mails may have been sent since the backup."""
    sendout_id = await start_sendout(connection)
    await send_one_batch(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, TOMORROW)
    if not paused:
        await resume(connection, sendout_id)
    await revoke_acceptance(connection)
    assert await restore_guard.accept(connection, uncertain=True) == 20
    assert await sendouts.settle(connection, sendout_id)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.sent, found.uncertain) == ("finished", 10, 20)


async def test_acceptance_waits_for_codes_locked_by_an_import(connection: Connection, other: Connection) -> None:
    """The acceptance waits for the import, so that every mail gets its reserved code."""
    await start_sendout(connection)
    await add_codes(connection, "a", ["MORE"])
    await revoke_acceptance(connection)
    async with other.transaction():
        await other.execute("SELECT FROM coupon ORDER BY id LIMIT 20 FOR UPDATE")
        accepting = asyncio.create_task(restore_guard.accept(connection, uncertain=True))
        await wait_for_lock(other, "relation = 'coupon'::regclass AND mode = 'RowExclusiveLock'")
    assert await accepting == 30


async def wait_for_lock(connection: Connection, which: str) -> None:
    """Wait until a session of this database waits for such a lock."""
    found = f"""
        SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE d.datname = current_database() AND {which}"""
    await until(lambda: connection.fetchval(found), "the lock")
