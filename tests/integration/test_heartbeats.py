"""Workers show signs of life; work that needs a worker is stalled once nothing has moved and no worker shows life."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient

from coupons import __version__, broker
from coupons.commands import ImportCoupons, StartSendout
from coupons.database import Connection, open_pool
from coupons.schedule import Reschedule
from coupons.settings import Settings
from coupons.states import DeliveryState
from coupons.store import deliveries, heartbeats, imports, schedules, sendout_views, sendouts
from coupons.store.deliveries import DeliveryResult
from coupons.store.heartbeats import Identity, Worker, uncovered_roles
from producers.client import Publisher
from producers.pending import list_pending
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message, start
from tests.waiting import until
from tests.web import Queues, consume, web_client
from workers.heartbeat import signs_of_life

ALL_ROLES = ("import", "sendout", "deliver")
WRITTEN = "SELECT count(*) FROM worker"


@pytest.fixture
async def site(database_url: str, broker_url: str) -> AsyncIterator[AsyncClient]:
    async with web_client(database_url=database_url, broker_url=broker_url) as client:
        yield client


async def live(connection: Connection, *roles: str, host: str = "mill", pid: int = 1) -> Identity:
    """Let a worker show life."""
    worker = Identity(uuid4(), host, pid, roles or ALL_ROLES, "1.2.3")
    await heartbeats.enter(connection, worker, lease_seconds=45)
    return worker


async def die(connection: Connection, *, ago: timedelta = timedelta(seconds=1)) -> None:
    """Let the leases of all workers expire, as if they were killed."""
    await connection.execute(
        "UPDATE worker SET alive_until = now() - $1::interval, last_seen = now() - $1::interval", ago
    )


async def stand_still(connection: Connection) -> None:
    """Set back every time at which something moved, by a minute."""
    await connection.execute(
        "UPDATE sendout SET created_at = created_at - interval '1 min', started_at = started_at - interval '1 min',"
        " resumed_at = resumed_at - interval '1 min', next_batch_at = next_batch_at - interval '1 min';"
        "UPDATE delivery_batch SET due_at = due_at - interval '1 min', claimed_at = claimed_at - interval '1 min',"
        " flushed_at = flushed_at - interval '1 min';"
        "UPDATE sendout_wait SET created_at = created_at - interval '1 min';"
        "UPDATE import_job SET created_at = created_at - interval '1 min', due_at = due_at - interval '1 min'"
    )


async def stall(connection: Connection) -> str | None:
    (found,) = await sendout_views.list_newest(connection)
    assert found.stalled == (found.stall is not None)
    return found.stall


async def queued(connection: Connection) -> UUID:
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 10)
    await save_message(connection, "m", "a")
    return await start(connection, "m", "g")


# --- workers ---------------------------------------------------------------------------------------------------------


async def test_a_worker_is_shown_until_it_ends(database_url: str, connection: Connection) -> None:
    """The row has host, pid, roles, version and times. It is renewed, and is deleted at a clean end."""
    settings = Settings(_env_file=None, heartbeat_seconds=0.05, lease_seconds=1)
    async with open_pool(database_url, size=2) as pool, signs_of_life(pool, settings, ("import", "deliver")):
        await until(lambda: connection.fetchval("SELECT last_seen > since FROM worker"), "the second sign of life")
        (found,) = await heartbeats.list_workers(connection)
        assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
        assert (found.roles, found.version, found.is_alive) == (["import", "deliver"], __version__, True)
        assert found.silent_seconds < 1
    assert await heartbeats.list_workers(connection) == []


async def test_a_worker_whose_event_loop_is_blocked_shows_no_life(database_url: str, connection: Connection) -> None:
    """Its lease expires although its process runs; it shows life again when its loop runs again."""
    settings = Settings(_env_file=None, heartbeat_seconds=0.05, lease_seconds=0.3)
    unblocked = threading.Event()

    async def work() -> None:
        async with open_pool(database_url, size=2) as pool, signs_of_life(pool, settings, ("import",)):
            await asyncio.sleep(0.2)
            unblocked.wait(10)
            await asyncio.sleep(0.5)

    blocked = asyncio.create_task(asyncio.to_thread(asyncio.run, work()))

    async def is_alive() -> bool:
        return any(each.is_alive for each in await heartbeats.list_workers(connection))

    async def is_dead() -> bool:
        return bool(await heartbeats.list_workers(connection)) and not await is_alive()

    await until(is_dead, "the blocked worker to show no life")
    unblocked.set()
    await until(is_alive, "the worker to show life again")
    await blocked


async def test_a_worker_without_its_row_creates_it_again(connection: Connection) -> None:
    """A worker that was silent for hours was forgotten; its next sign of life shows it again."""
    worker = await live(connection)
    await connection.execute("DELETE FROM worker")
    await heartbeats.beat(connection, worker, lease_seconds=45)
    (found,) = await heartbeats.list_workers(connection)
    assert (found.name, found.is_alive) == ("mill:1", True)


async def test_dead_workers_are_forgotten(connection: Connection) -> None:
    """They are listed for an hour; a restarted process with the same host and pid replaces them at once."""
    await live(connection, pid=1)
    await live(connection, pid=2)
    await die(connection, ago=timedelta(minutes=59))
    await live(connection, pid=1)
    assert [(each.pid, each.is_alive) for each in await heartbeats.list_workers(connection)] == [(1, True), (2, False)]
    await die(connection, ago=timedelta(minutes=61))
    await live(connection, pid=3)
    assert [each.pid for each in await heartbeats.list_workers(connection)] == [3]


async def test_live_workers_with_the_same_host_and_pid_are_two(connection: Connection) -> None:
    """Containers share names and pids: one must not hide or delete the other."""
    first = await live(connection)
    await live(connection)
    await heartbeats.leave(connection, first)
    assert len(await heartbeats.list_workers(connection)) == 1


def test_a_role_is_covered_by_live_workers_only() -> None:
    """A dead worker has no role."""
    at = datetime(2027, 1, 1, tzinfo=UTC)
    alive, dead = (Worker("h", 1, ["import"], "1", at, at, 0, is_alive) for is_alive in (True, False))
    assert uncovered_roles([alive]) == ["sendout", "deliver"]
    assert uncovered_roles([dead]) == ["import", "sendout", "deliver"]


# --- stalled work ----------------------------------------------------------------------------------------------------


async def test_a_queued_sendout_stalls_without_a_worker_that_prepares_it(connection: Connection) -> None:
    """It is stalled only if nothing has moved for a lease and no worker with the role shows life."""
    await queued(connection)
    assert await stall(connection) is None
    await stand_still(connection)
    advice = "stalled: no worker with the role sendout shows life; start one with `coupons worker`"
    assert await stall(connection) == advice
    await live(connection, "import", "deliver")
    assert await stall(connection) == advice
    await live(connection, "sendout")
    assert await stall(connection) is None
    await die(connection)
    assert await stall(connection) == advice
    (found,) = await sendout_views.list_newest(connection, state="stalled")
    assert found.state == "queued"
    await live(connection)
    assert await sendout_views.list_newest(connection, state="stalled") == []


async def test_a_sending_sendout_stalls_without_a_worker_that_delivers(connection: Connection) -> None:
    """A flush, a later batch or a deferred mail is a movement; a finished sendout needs no worker."""
    sendout_id = await queued(connection)
    await prepare(connection)
    await stand_still(connection)
    assert "role deliver" in str(await stall(connection))
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    assert await stall(connection) is None
    await stand_still(connection)
    assert await stall(connection)
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    results = [DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due[:9]]
    deferred = DeliveryResult.of(due[9], DeliveryState.DEFERRED, "450", due_in=3_600)
    await deliveries.record(
        connection, batch, flush=uuid4(), results=[*results, deferred], in_flight=[], intents=[], lease_seconds=1
    )
    await deliveries.release(connection, batch)
    await stand_still(connection)
    assert await stall(connection) is None
    await connection.execute("UPDATE sendout SET next_batch_at = now() + interval '1 h'")
    await connection.execute("UPDATE delivery_batch SET due_at = now() - interval '1 min'")
    assert await stall(connection) is None
    await sendouts.cancel(connection, sendout_id)
    await connection.execute("UPDATE sendout SET next_batch_at = now() - interval '1 h'")
    assert "role deliver" in str(await stall(connection))
    await connection.execute("UPDATE sendout SET finished_at = now()")
    assert await stall(connection) is None
    await connection.execute("UPDATE sendout SET finished_at = NULL")


async def test_a_sendout_that_needs_no_worker_does_not_stall(connection: Connection) -> None:
    """A scheduled, interrupted or paused sendout waits for its time or for an operator."""
    sendout_id = await queued(connection)
    await prepare(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    await stand_still(connection)
    assert await stall(connection) is None
    await connection.execute("UPDATE sendout SET state = 'interrupted', started_at = NULL")
    assert await stall(connection) is None
    await connection.execute("UPDATE sendout SET state = 'paused', started_at = now()")
    later = datetime.now(UTC) + timedelta(hours=1)
    await schedules.reschedule(connection, sendout_id, Reschedule(start_at=later))
    await connection.execute("UPDATE sendout SET state = 'sending'")
    await stand_still(connection)
    assert await stall(connection) is None
    assert (await sendout_views.get(connection, sendout_id)).needed_role is None


async def test_an_import_stalls_without_a_worker_that_imports(connection: Connection) -> None:
    """An ended import is not stalled."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", codes=("A1",))
    await consume(connection, command)
    assert not (await imports.get(connection, command.id)).stalled
    await stand_still(connection)
    await live(connection, "sendout", "deliver")
    found = await imports.get(connection, command.id)
    assert (found.state, found.stalled) == ("queued", True)
    assert found.stall == "stalled: no worker with the role import shows life; start one with `coupons worker`"
    await live(connection, "import")
    assert not (await imports.get(connection, command.id)).stalled
    await die(connection)
    await imports.cancel(connection, command.id)
    assert not (await imports.get(connection, command.id)).stalled


# --- pending commands, API and console -------------------------------------------------------------------------------


async def test_commands_that_no_worker_takes_are_counted(broker_url: str) -> None:
    """They count if their queue has no consumer or their role no live worker. An unavailable broker answers nothing."""
    await Queues(broker_url).declare()
    async with Publisher.connect(broker_url) as publisher:
        for _ in range(2):
            await publisher.publish(StartSendout(message="m", group="g"))
        await publisher.publish(ImportCoupons(list="a", codes=("A1",)))
    for uncovered in (["import", "sendout", "deliver"], []):
        assert [str(each) for each in await list_pending(broker_url, uncovered)] == [
            "1 command waits in coupons.import, and no worker takes it",
            "2 commands wait in coupons.sendout, and no worker takes them",
        ]

    async def keep(_: object) -> None:
        """Acknowledge nothing."""

    async with broker.connect(broker_url, "test") as connected, connected.channel() as channel:
        await channel.set_qos(1)
        await (await channel.declare_queue("coupons.sendout", passive=True)).consume(keep)
        for uncovered, queues in (([], []), (["sendout"], ["coupons.sendout"])):
            found = [each.queue for each in await list_pending(broker_url, uncovered)]
            assert found == ["coupons.import", *queues]
    assert await list_pending("amqp://127.0.0.1:1/", ["import"]) == []


async def test_the_api_shows_workers_and_pending_commands(
    site: AsyncClient, connection: Connection, broker_url: str
) -> None:
    """The response has each worker, the roles without a live worker and the commands that wait for them."""
    await Queues(broker_url).declare()
    await live(connection, "import", host="mill", pid=7)
    async with Publisher.connect(broker_url) as publisher:
        await publisher.publish(StartSendout(message="m", group="g"))
    answer = (await site.get("/api/workers")).json()
    (worker,) = answer["workers"]
    assert (worker["host"], worker["pid"], worker["roles"], worker["is_alive"]) == ("mill", 7, ["import"], True)
    assert answer["uncovered_roles"] == ["sendout", "deliver"]
    assert answer["pending"] == [{"queue": "coupons.sendout", "commands": 1}]


async def test_the_outbox_page_shows_workers_and_stalled_sendouts(
    site: AsyncClient, connection: Connection, broker_url: str
) -> None:
    """It says which role has no worker, how many commands wait, and which sendouts are stalled."""
    await Queues(broker_url).declare()
    sendout_id = await queued(connection)
    await stand_still(connection)
    async with Publisher.connect(broker_url) as publisher:
        await publisher.publish(StartSendout(message="m", group="g"))
    for path in ("/", "/?state=stalled"):
        text = (await site.get(path)).text
        assert "No worker with the role import, sendout or deliver shows life" in text
        assert "<code>coupons worker</code>. 1 command waits in coupons.sendout, and no worker takes it. </p>" in text
        assert "`" not in text.split("</script>")[-1]
        assert '<span class="badge stalled">stalled</span>' in text
        assert "Stalled: no worker with the role sendout shows life; start one with" in text
    assert "Stalled: no worker" in (await site.get(f"/sendouts/{sendout_id}")).text
    (shown,) = (await site.get("/api/sendouts?state=stalled")).json()
    assert (shown["state"], shown["stalled"], shown["needed_role"]) == ("queued", True, "sendout")
    await live(connection)
    text = (await site.get("/")).text
    assert "shows life" not in text
    assert '<th scope="row">mill:1</th><td>import, sendout, deliver</td><td>1.2.3</td>' in text
    await die(connection, ago=timedelta(minutes=5))
    assert "5 min ago, <b" in (await site.get("/")).text


async def test_a_requested_import_without_a_worker_says_so(site: AsyncClient, connection: Connection) -> None:
    """The page that waits for a worker says that no worker shows life."""
    await add_list(connection, "a")
    assert "No worker with the role" in (await site.get(f"/imports/{uuid4()}?requested")).text
    await live(connection)
    assert "No worker with the role" not in (await site.get(f"/imports/{uuid4()}?requested")).text
