"""Whatever becomes silent, breaks or goes away: a worker is at work again within a minute after, without a person.

By default with limits of a tenth, so that each takes seconds; with COUPONS_FAULTS=long with the real ones.
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
from coupons.database import Connection, connected
from sandbox.rabbitmq import Broker
from tests.faults.proxy import FaultProxy
from tests.waiting import until
from tests.worker_harness import LIMIT_SECONDS, LIST, ROLE, AtWork, at_work, is_done
from workers import intake, loops

LONG = os.environ.get("COUPONS_FAULTS") == "long"
SILENT_SECONDS = 40.0 if LONG else 4.0
"""How long a black hole lasts: longer than anything that was under way may take."""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
LOCKING = "SELECT pg_sleep(3600) FROM (SELECT FROM recipient_group FOR UPDATE) locked"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"

Say = Callable[[str], None]


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth, but for the long run; of the broker's heartbeat no less than a second is possible."""
    if LONG:
        return
    for module, names in {
        database: ("CONNECT_SECONDS", "COMMAND_SECONDS", "CANCEL_SECONDS", "IDLE_SECONDS", "GONE_SECONDS"),
        amqp: ("CONNECT_SECONDS", "CLOSE_SECONDS"),
        intake: ("DECLARE_SECONDS", "WATCH_SECONDS", "RETRY_SECONDS"),
        loops: ("RETRY_SECONDS",),
        health: ("LOOK_SECONDS", "REMEMBERED_SECONDS"),
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
    """A server that is dead for a while: nobody listens."""
    proxy.refuse()
    await asyncio.sleep(SILENT_SECONDS)
    proxy.heal()


only_long = partial(pytest.param, marks=pytest.mark.long)
Fault = Callable[[FaultProxy], Awaitable[None]]


@pytest.mark.parametrize("fault", [only_long(black_hole), half_open, reset, only_long(gone)])
async def test_a_worker_whose_statement_was_under_way_works_again(
    database_url: str, broker_url: str, to_database: FaultProxy, fault: Fault, say: Say
) -> None:
    """The way to PostgreSQL fails while it waits for a lock: what it was told is done once, and new work too."""
    async with at_work(database_url, broker_url, over_database=to_database.url) as worker, plain(database_url) as other:
        async with other.transaction():
            await other.execute("SELECT FROM coupon_list WHERE name = $1 FOR UPDATE", LIST)
            command = await worker.publish()
            await until(lambda: other.fetchval(WAITING), within=LIMIT_SECONDS)
            await fault(to_database)
            ended = time.monotonic()
        await until(lambda: is_done(other, command), within=LIMIT_SECONDS)
        await worker.works()
        await recovered(worker, ended, f"{fault.__name__} to PostgreSQL", say)
        assert await other.fetchval("SELECT total FROM coupon_list WHERE name = $1", LIST) == 2


async def test_readiness_tells_of_a_silent_database_in_time(
    database_url: str, broker_url: str, to_database: FaultProxy
) -> None:
    """A probe is answered within its limit, however long the database says nothing, and yes again once it speaks."""
    async with at_work(database_url, broker_url, over_database=to_database.url) as worker:
        to_database.stall()
        answer: dict[str, Any] = {"database": True}
        while answer["database"]:
            begun = time.monotonic()
            answer = await worker.ready()
            assert time.monotonic() - begun < health.LOOK_SECONDS + 1
        assert (answer["database"], answer["consumers"]) == (False, True)
        assert answer["reasons"]["database"] in {health.SILENT, "cannot be reached (TimeoutError)"}
        to_database.heal()
        await until(worker.is_ready, within=LIMIT_SECONDS)


async def test_a_statement_whose_client_was_killed_holds_nobody_up(
    database_url: str, to_database: FaultProxy, say: Say
) -> None:
    """It has an hour left, and a lock: the server finds out that nobody waits for it, and rolls it back."""
    async with plain(database_url) as other, connected(to_database.url) as killed:
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
async def test_a_worker_whose_broker_was_silent_consumes_again(
    database_url: str, broker_url: str, to_broker: FaultProxy, fault: Fault, say: Say
) -> None:
    """The way to RabbitMQ fails while it waits for commands: it finds out, and registers its consumer anew."""
    async with at_work(database_url, broker_url, over_broker=to_broker.url) as worker:
        failing = asyncio.create_task(timed(fault, to_broker))
        await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
        ended = await failing
        await worker.works()
        await recovered(worker, ended, f"{fault.__name__} to RabbitMQ", say)


async def test_a_queue_that_is_deleted_is_consumed_again(database_url: str, broker_url: str) -> None:
    """The broker cancels the consumer: readiness says so until another one is registered."""
    async with at_work(database_url, broker_url) as worker:
        async with amqp.connected(broker_url, "test") as connection:
            await (await connection.channel()).queue_delete(topology.queue_name(ROLE))
        await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
        await until(worker.is_ready, within=LIMIT_SECONDS)
        await worker.works()


async def test_connections_that_the_broker_closes_are_made_anew(
    database_url: str, broker_url: str, broker: Broker
) -> None:
    """By a person, or because it is stopped; one that is given by its address alone cannot be told to."""
    async with at_work(database_url, broker_url) as worker:
        if broker.control:
            command = "close_all_connections", "--global", "test"
            closing = asyncio.create_task(asyncio.to_thread(broker.rabbitmqctl, *command))
            await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
            await closing
        await until(worker.is_ready, within=LIMIT_SECONDS)
        await worker.works()


async def test_a_consumer_that_was_lost_unseen_is_found_missing(
    database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker is asked: a consumer that it does not know any more, although nobody was told, is registered anew."""
    declared: list[AbstractChannel] = []

    async def remembered(channel: AbstractChannel) -> tuple[AbstractExchange, dict[str, AbstractQueue]]:
        declared.append(channel)
        return await declare(channel)

    declare = topology.declare
    monkeypatch.setattr(topology, "declare", remembered)
    async with at_work(database_url, broker_url) as worker:
        channel = await declared[0].get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        for tag in list(channel.consumers):
            await channel.basic_cancel(tag)
        await until(lambda: lacks_consumers(worker), within=LIMIT_SECONDS)
        await until(worker.is_ready, within=LIMIT_SECONDS)
        await worker.works()


async def test_what_a_silent_broker_gives_up_is_told(broker_url: str, to_broker: FaultProxy) -> None:
    """Its client cancels whoever waits; a role or an intake that was cancelled so would end, and nobody would see."""
    with pytest.raises(BrokerUnavailable):
        async with amqp.connected(to_broker.url, "test") as connection:
            channel = await connection.channel()
            to_broker.stall()
            await topology.declare(channel)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Connection]:
    """A connection without limits."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def timed(fault: Fault, proxy: FaultProxy) -> float:
    """When it ended."""
    await fault(proxy)
    return time.monotonic()


async def lacks_consumers(worker: AtWork) -> bool:
    answer = await worker.ready()
    assert answer["consumers"] or answer["reasons"]["consumers"] == f"none is registered on coupons.{ROLE}"
    return not answer["consumers"]


async def recovered(worker: AtWork, ended: float, what: str, say: Say) -> None:
    await until(worker.is_ready, within=LIMIT_SECONDS)
    seconds = time.monotonic() - ended
    say(f"{what}: at work again after {seconds:.1f} s")
    assert seconds < LIMIT_SECONDS
