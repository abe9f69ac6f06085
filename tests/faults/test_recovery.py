"""A worker recovers automatically within a minute after its database or broker was silent, broken or unavailable.

By default, the timeouts are a tenth of the real ones, so that each test takes seconds. COUPONS_FAULTS=long keeps the
real ones.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiormq
import asyncpg
import pytest
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue

from coupons import broker as amqp
from coupons import database, health, topology
from coupons.broker import BrokerUnavailable
from coupons.database import Connection, connect
from sandbox.rabbitmq import Broker
from tests.faults.proxy import FaultProxy
from tests.waiting import until
from tests.worker_harness import LIMIT_SECONDS, LIST, ROLE, ImportWorker, is_done, run_import_worker
from workers import intake, loops

LONG = os.environ.get("COUPONS_FAULTS") == "long"
SILENT_SECONDS = 40.0 if LONG else 4.0
"""Duration of a black hole: longer than any timeout of a running operation."""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
LOCKING = "SELECT pg_sleep(3600) FROM (SELECT FROM recipient_group FOR UPDATE) locked"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"

Say = Callable[[str], None]


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the timeouts by ten in the short form; the broker's heartbeat cannot be below one second."""
    if LONG:
        return
    for module, names in {
        database: ("CONNECT_SECONDS", "COMMAND_SECONDS", "CANCEL_SECONDS", "IDLE_SECONDS", "GONE_SECONDS"),
        amqp: ("CONNECT_SECONDS", "CLOSE_SECONDS"),
        intake: ("DECLARE_SECONDS", "WATCH_SECONDS", "RETRY_SECONDS"),
        loops: ("RETRY_SECONDS",),
        health: ("PROBE_SECONDS", "CACHE_SECONDS"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name) / 10)
    monkeypatch.setattr(amqp, "HEARTBEAT_SECONDS", 1)
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(database._SERVER, name, f"{int(database._SERVER[name].removesuffix('s')) * 100}ms")


@pytest.fixture
def to_database(database_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def to_broker(broker_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(broker_url) as proxy:
        yield proxy


async def black_hole(proxy: FaultProxy) -> None:
    proxy.stall()
    await asyncio.sleep(SILENT_SECONDS)
    proxy.heal()


async def half_open(proxy: FaultProxy) -> None:
    proxy.forget()


async def reset(proxy: FaultProxy) -> None:
    proxy.cut()


async def gone(proxy: FaultProxy) -> None:
    """Refuse connections for a while, as without a server."""
    proxy.refuse()
    await asyncio.sleep(SILENT_SECONDS)
    proxy.heal()


only_long = partial(pytest.param, marks=pytest.mark.long)
Fault = Callable[[FaultProxy], Awaitable[None]]


@pytest.mark.parametrize("fault", [only_long(black_hole), half_open, reset, only_long(gone)])
async def test_a_worker_recovers_from_a_fault_during_a_statement(
    database_url: str, broker_url: str, to_database: FaultProxy, fault: Fault, say: Say
) -> None:
    """If the connection to PostgreSQL fails while a command waits for a lock, the worker still executes it once.

    The worker then executes new commands too.
    """
    async with (
        run_import_worker(database_url, broker_url, database_proxy=to_database.url) as worker,
        plain(database_url) as other,
    ):
        async with other.transaction():
            await other.execute("SELECT FROM coupon_list WHERE name = $1 FOR UPDATE", LIST)
            command = await worker.publish()
            await until(lambda: other.fetchval(WAITING), within=LIMIT_SECONDS)
            await fault(to_database)
            ended = time.monotonic()
        await until(lambda: is_done(other, command), within=LIMIT_SECONDS)
        await worker.time_command()
        await assert_recovery(worker, ended, f"{fault.__name__} to PostgreSQL", say)
        assert await other.fetchval("SELECT total FROM coupon_list WHERE name = $1", LIST) == 2


async def test_readiness_reports_a_silent_database_in_time(
    database_url: str, broker_url: str, to_database: FaultProxy
) -> None:
    """A probe answers within its limit while the database is silent, and reports ready once it responds."""
    async with run_import_worker(database_url, broker_url, database_proxy=to_database.url) as worker:
        to_database.stall()
        answer: dict[str, Any] = {"database": True}
        while answer["database"]:
            begun = time.monotonic()
            answer = await worker.ready()
            assert time.monotonic() - begun < health.PROBE_SECONDS + 1
        assert (answer["database"], answer["consumers"]) == (False, True)
        assert answer["reasons"]["database"] in {health.NO_RESPONSE, "unreachable (TimeoutError)"}
        to_database.heal()
        await until(worker.is_ready, within=LIMIT_SECONDS)


async def test_a_statement_of_a_killed_client_does_not_hold_its_locks(
    database_url: str, to_database: FaultProxy, say: Say
) -> None:
    """The server detects that the client of a running statement is gone, and rolls back long before the timeout."""
    async with plain(database_url) as other, connect(to_database.url) as killed:
        await other.execute("INSERT INTO recipient_group (name) VALUES ('customers')")
        transaction = killed.transaction()
        await transaction.start()
        await killed.execute("SET LOCAL statement_timeout = '1h'")
        running = asyncio.create_task(killed.execute(LOCKING, timeout=3_600))
        await until(lambda: other.fetchval(SLEEPING), within=LIMIT_SECONDS)
        to_database.cut()
        ended = time.monotonic()
        await other.execute("SELECT FROM recipient_group FOR UPDATE")
        say(f"client killed: its lock was free after {time.monotonic() - ended:.1f} s")
        assert time.monotonic() - ended < LIMIT_SECONDS
        with pytest.raises(database.TRANSIENT_ERRORS):
            await running


@pytest.mark.parametrize("fault", [black_hole, only_long(half_open), reset, only_long(gone)])
async def test_a_worker_consumes_again_after_a_broker_fault(
    database_url: str, broker_url: str, to_broker: FaultProxy, fault: Fault, say: Say
) -> None:
    """If the connection to RabbitMQ fails while the worker waits for commands, the worker registers a new consumer."""
    async with run_import_worker(database_url, broker_url, broker_proxy=to_broker.url) as worker:
        failing = asyncio.create_task(inject(fault, to_broker))
        await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
        ended = await failing
        await worker.time_command()
        await assert_recovery(worker, ended, f"{fault.__name__} to RabbitMQ", say)


async def test_a_worker_consumes_from_a_queue_that_was_deleted(database_url: str, broker_url: str) -> None:
    """After its queue is deleted, the worker is not ready until it has registered a new consumer."""
    async with run_import_worker(database_url, broker_url) as worker:
        async with amqp.connect(broker_url, "test") as connection:
            await (await connection.channel()).queue_delete(topology.queue_name(ROLE))
        await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
        await until(worker.is_ready, within=LIMIT_SECONDS)
        await worker.time_command()


async def test_a_worker_reconnects_after_the_broker_closed_its_connections(
    database_url: str, broker_url: str, broker: Broker
) -> None:
    """After an operator has closed all connections, the worker becomes ready again and executes commands.

    The connections are closed only if the test can control the broker.
    """
    async with run_import_worker(database_url, broker_url) as worker:
        if broker.control:
            command = "close_all_connections", "--global", "test"
            closing = asyncio.create_task(asyncio.to_thread(broker.rabbitmqctl, *command))
            await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
            await closing
        await until(worker.is_ready, within=LIMIT_SECONDS)
        await worker.time_command()


async def test_a_silently_lost_consumer_is_detected(
    database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker detects that the broker has lost its consumer without notice, and registers a new consumer."""
    declared: list[AbstractChannel] = []

    async def record(channel: AbstractChannel) -> tuple[AbstractExchange, dict[str, AbstractQueue]]:
        declared.append(channel)
        return await declare(channel)

    declare = topology.declare
    monkeypatch.setattr(topology, "declare", record)
    async with run_import_worker(database_url, broker_url) as worker:
        channel = await declared[0].get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        for tag in list(channel.consumers):
            await channel.basic_cancel(tag)
        await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
        await until(worker.is_ready, within=LIMIT_SECONDS)
        await worker.time_command()


async def test_a_cancellation_by_the_amqp_client_becomes_an_error(broker_url: str, to_broker: FaultProxy) -> None:
    """If the AMQP client cancels a task that waits for a silent broker, the task raises BrokerUnavailable.

    A plain cancellation would end a role without a trace.
    """
    with pytest.raises(BrokerUnavailable):
        async with amqp.connect(to_broker.url, "test") as connection:
            channel = await connection.channel()
            to_broker.stall()
            await topology.declare(channel)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Connection]:
    """A connection without timeouts."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def inject(fault: Fault, proxy: FaultProxy) -> float:
    """Inject the fault; return the time when it ended."""
    await fault(proxy)
    return time.monotonic()


async def lacks_consumers(worker: ImportWorker) -> bool:
    answer = await worker.ready()
    assert answer["consumers"] or answer["reasons"]["consumers"] == f"no consumer on coupons.{ROLE}"
    return not answer["consumers"]


async def assert_recovery(worker: ImportWorker, ended: float, what: str, say: Say) -> None:
    await until(worker.is_ready, within=LIMIT_SECONDS)
    seconds = time.monotonic() - ended
    say(f"{what}: recovered after {seconds:.1f} s")
    assert seconds < LIMIT_SECONDS
