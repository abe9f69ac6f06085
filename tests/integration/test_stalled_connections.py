"""Connections that a middlebox has dropped: only the mails on them wait for their replies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from coupons import smtp
from coupons.database import Connection, Pool, open_pool
from coupons.settings import Settings
from coupons.smtp import Relays, SmtpAddress
from coupons.store import sendout_views, sendouts
from tests.factories import add_group, add_list, prepare, save_message, start
from tests.smtp_server import HANG, PIPELINING, Act, ScriptedServer, serving
from tests.waiting import cancel, until
from workers.delivery import batch_sender
from workers.delivery.deliverer import Deliverer
from workers.loops import Signals, work

RECIPIENTS, BATCH = 40, 4
CLOSED = {"GREETING": Act("421 4.3.2 not now\r\n", then="cut")}
BOTH_WAYS = pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])


@pytest.fixture(autouse=True)
def soon_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp.connection, "STALLED_SECONDS", 0.3)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=10) as pool:
        yield pool


async def sendout_in_batches(connection: Connection, batch_size: int = BATCH) -> UUID:
    await add_list(connection, "a", RECIPIENTS)
    await add_group(connection, "g", RECIPIENTS)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g", batch_size=batch_size)
    await prepare(connection, batch_size=batch_size)
    return sendout_id


@asynccontextmanager
async def delivering(pool: Pool, server: ScriptedServer, window: int = 200) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a worker that delivers one batch after the other. It waits up to ten minutes for the relay's replies."""
    signals = Signals(("deliver",))
    chosen = Settings(lease_seconds=2, heartbeat_seconds=0.5, smtp_connections=1, max_in_flight=window)
    async with (
        Relays(
            SmtpAddress.parse_all(f"smtp://127.0.0.1:{server.port}"),
            limits=smtp.Limits(connections=1, backoff_seconds=0.2),
        ) as relays,
        asyncio.TaskGroup() as group,
    ):
        deliverer = Deliverer(
            pool=pool, relays=relays, signals=signals, settings=chosen, owner="test", background=group
        )
        loop = group.create_task(work("deliver", deliverer.step, signals, sweep_seconds=0.2))
        try:
            yield loop
        finally:
            signals.stop()


async def comes_true(connection: Connection, query: str, *arguments: object) -> None:
    await until(lambda: connection.fetchval(query, *arguments), query)


def reset(server: ScriptedServer) -> None:
    """Reset the dropped connections of the relay."""
    for session in server.sessions:
        session.writer.transport.abort()


async def all_but_one_are_sent(server: ScriptedServer) -> None:
    """Wait until all mails except the stalled one are sent, then reset the stalled connection."""
    await until(lambda: len(set(server.accepted)) == RECIPIENTS - 1)
    asyncio.get_running_loop().call_later(1, reset, server)


@BOTH_WAYS
async def test_other_batches_do_not_wait_for_stalled_connections(
    connection: Connection, pool: Pool, way: dict[str, str]
) -> None:
    """With one batch at a time and a small in-flight window, all other mails are sent and the lease is renewed.

    The stalled mails get their outcomes even if the worker is already shutting down.
    """
    sendout_id = await sendout_in_batches(connection)
    held = 2 if way else 1
    async with serving({**way, "DOT": HANG}, way) as server:
        async with delivering(pool, server, window=6) as loop:
            await until(lambda: len(set(server.accepted)) == RECIPIENTS - held)
            leases_end = await connection.fetchval("SELECT max(lease_until) FROM delivery_batch")
            await comes_true(connection, "SELECT clock_timestamp() > $1", leases_end)
            found = await sendout_views.get(connection, sendout_id)
            assert (found.state, found.sent, found.in_flight) == ("sending", RECIPIENTS - held, held)
            assert not loop.done()
            asyncio.get_running_loop().call_later(1, reset, server)
        found = await sendout_views.get(connection, sendout_id)
        assert (found.in_flight, found.uncertain) == (0, 1)
        assert len(server.accepted) == len(set(server.accepted))


async def test_postponed_mails_do_not_wait_for_stalled_connections(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mails that a pause took back are sent after the resume, although a mail of their batch is still stalled."""
    monkeypatch.setattr(batch_sender, "UNREACHABLE_SECONDS", 0.2)
    sendout_id = await sendout_in_batches(connection, RECIPIENTS)
    async with serving({"DOT": HANG}, {}) as server:
        async with delivering(pool, server, window=6):
            await until(lambda: bool(server.mails))
            await sendouts.pause(connection, sendout_id, "by a test")
            await comes_true(connection, "SELECT max(cardinality(in_flight)) = 1 FROM delivery_batch")
            assert len(set(server.accepted)) < RECIPIENTS - 1
            async with connection.transaction():
                await sendouts.resume(connection, sendout_id)
            await all_but_one_are_sent(server)
        found = await sendout_views.get(connection, sendout_id)
        assert (found.sent, found.in_flight, found.uncertain) == (RECIPIENTS - 1, 0, 1)
        assert len(server.accepted) == RECIPIENTS - 1


async def test_mails_postponed_by_an_outage_do_not_wait_for_stalled_connections(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay rejects connections for a while, and then accepts them again."""
    monkeypatch.setattr(batch_sender, "UNREACHABLE_SECONDS", 0.2)
    sendout_id = await sendout_in_batches(connection, RECIPIENTS)
    async with serving({"DOT": HANG}, CLOSED, CLOSED, {}) as server:
        async with delivering(pool, server):
            await all_but_one_are_sent(server)
            assert len(server.verbs) == 4
        found = await sendout_views.get(connection, sendout_id)
        assert (found.sent, found.in_flight, found.uncertain, found.waiting_reason) == (RECIPIENTS - 1, 0, 1, None)
        assert len(server.accepted) == RECIPIENTS - 1


async def test_a_sendout_pauses_although_stalled_mails_have_no_reply(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the relay refuses the sender, the sendout pauses at once. After a resume it does not pause again."""
    monkeypatch.setattr(batch_sender, "UNREACHABLE_SECONDS", 0.2)
    sendout_id = await sendout_in_batches(connection, RECIPIENTS)
    async with serving({"DOT": HANG}, {"MAIL": Act("550 5.7.1 not you\r\n", then="cut")}, {}) as server:
        async with delivering(pool, server):
            await comes_true(connection, "SELECT state = 'paused' FROM sendout WHERE id = $1", sendout_id)
            assert (await sendout_views.get(connection, sendout_id)).in_flight == 1
            async with connection.transaction():
                await sendouts.resume(connection, sendout_id)
            await until(lambda: len(set(server.accepted)) == RECIPIENTS - 2)  # the refused mail follows the stalled one
            reset(server)
            await comes_true(connection, "SELECT state = 'finished' FROM sendout WHERE id = $1", sendout_id)
        found = await sendout_views.get(connection, sendout_id)
        assert (found.sent, found.uncertain) == (RECIPIENTS - 1, 1)


async def test_a_cancelled_step_ends_its_tasks(connection: Connection, pool: Pool) -> None:
    """No task that renews the lease is left."""
    await sendout_in_batches(connection)
    async with serving({"DOT": HANG}) as server, delivering(pool, server) as loop:
        await until(lambda: bool(server.mails))
        (working,) = [task for task in asyncio.all_tasks() if "Deliverer._deliver" in repr(task)]
        await cancel(loop)
        assert working.cancelled()
        reset(server)  # otherwise the relays would wait for the stalled reply when they close
