"""Commands from RabbitMQ are committed once or rejected with a reason, and never lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed, ChannelInvalidStateError
from pydantic import SecretStr

from coupons import broker, topology
from coupons.admission import Short
from coupons.broker import BrokerUnavailable, Sender, open_sender
from coupons.commands import MAX_COMMAND_BYTES, Command, Format, ImportCoupons, ResumeSendout, StartSendout
from coupons.database import Connection, Pool, open_pool
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.store import imports, inbox, sendout_views
from coupons.topology import REASON, declare, queue_name
from tests.factories import add_codes, add_group, add_list, prepare, save_message, start
from tests.waiting import cancel, until
from workers import intake
from workers.intake import Intake
from workers.loops import Signals
from workers.main import ROLES
from workers.nudges import Nudges

LIMIT_SECONDS = 20


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


@pytest.fixture
async def channel(broker_url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(broker_url)
    async with connection:
        yield await connection.channel()


@asynccontextmanager
async def consuming(pool: Pool, broker_url: str, *, activated: bool = True) -> AsyncIterator[Sender]:
    """Run an intake that consumes commands, and yield a sender to publish with."""
    task = start_intake(pool, broker_url, activated=activated)
    try:
        await until(lambda: has_consumer(broker_url), every=0.05)
        async with open_sender(broker_url) as sender:
            yield sender
    finally:
        await cancel(task)


def start_intake(pool: Pool, broker_url: str, *, activated: bool = True) -> asyncio.Task[None]:
    signals = Signals(ROLES)
    settings = Settings(broker_url=SecretStr(broker_url), activated=activated)
    made = Intake(pool=pool, signals=signals, nudges=Nudges(signals), settings=settings, roles=ROLES)
    return asyncio.create_task(made.run())


async def has_consumer(broker_url: str) -> bool:
    """Return whether a worker consumes. Consumers are registered last, after every queue is declared and bound."""
    async with broker.connect(broker_url, "test") as connection:
        try:
            queue = await (await connection.channel()).declare_queue(queue_name("resume"), passive=True)
        except ChannelClosed:
            return False
        return bool(queue.declaration_result.consumer_count)


async def rejected(channel: AbstractChannel, count: int) -> list[tuple[bytes, str]]:
    """Return the first `count` bodies and reasons of the dead-letter queue, in order."""
    queue = await channel.declare_queue(queue_name("dead"), passive=True)
    found: list[tuple[bytes, str]] = []
    async with asyncio.timeout(LIMIT_SECONDS), queue.iterator(no_ack=True) as messages:
        while len(found) < count:
            message = await anext(messages)
            found.append((message.body, str(message.headers[REASON])))
    return found


async def test_an_invalid_command_is_rejected_with_a_reason(
    connection: Connection, pool: Pool, broker_url: str, channel: AbstractChannel
) -> None:
    """Invalid, unknown and oversized commands go to the dead-letter queue. A valid command behind them is accepted."""
    await add_list(connection, "a")
    valid = ImportCoupons(list="a", codes=("X",))
    wrong = {
        json.dumps(
            {
                "type": "resume",
                "id": str(uuid4()),
                "sendout": str(uuid4()),
                **{"x" * 90 + str(n): 1 for n in range(9_000)},
            }
        ).encode(): "unknown field",
        b"{": "not valid UTF-8 JSON",
        b'{"type":"explode","id":"%s"}' % str(uuid4()).encode(): "type",
        b'{"type":"resume","sendout":7,"extra":1}': "id: required; sendout",
        b" " * (MAX_COMMAND_BYTES + 1): "exceed the limit",
        ImportCoupons(list="nowhere", codes=("X",)).body(): "there is no list nowhere",
        StartSendout(message="nothing", group="nobody").body(): "there is no message nothing",
        ResumeSendout(sendout=uuid4()).body(): "there is no sendout",
    }
    async with consuming(pool, broker_url) as sender:
        for body in wrong:
            await sender.send("import", body)
        await sender.send("import", valid.body())
        await until(lambda: exists(connection, valid))
        found = await rejected(channel, len(wrong))
    assert [body for body, _ in found] == list(wrong)
    for (_, reason), expected in zip(found, wrong.values(), strict=True):
        assert expected in reason
    assert await connection.fetchval("SELECT count(*) FROM command WHERE rejection_reason IS NULL") == 1


async def test_a_rejected_command_is_rejected_again_with_the_same_reason(
    connection: Connection, pool: Pool, broker_url: str, channel: AbstractChannel
) -> None:
    """A waiting client gets the reason. A second publication is rejected too, even if the list exists by then."""
    command = ImportCoupons(list="a", codes=("X",))
    async with consuming(pool, broker_url) as sender:
        await sender.send("import", command.body())
        ((_, first),) = await rejected(channel, 1)
        with pytest.raises(Conflict, match="there is no list a"):
            await inbox.is_known(connection, command.id)
        await add_list(connection, "a")
        await sender.send("import", command.body())
        ((_, second),) = await rejected(channel, 1)
    assert first == second == "there is no list a"


async def exists(connection: Connection, command: ImportCoupons) -> bool:
    return await imports.find(connection, command.id) is not None


async def test_a_command_published_many_times_is_one_command(
    connection: Connection, pool: Pool, broker_url: str
) -> None:
    """A duplicate is ignored, also when it arrives late or when two workers get it at the same time."""
    await add_list(connection, "a")
    await add_group(connection, "g", 3)
    await save_message(connection, "m", "a")
    command, last = StartSendout(message="m", group="g"), ImportCoupons(list="a", codes=("X",))
    async with consuming(pool, broker_url) as sender, consuming(pool, broker_url):
        await asyncio.gather(*(sender.send("sendout", command.body()) for _ in range(10)))
        await sender.send("sendout", last.body())
        await until(lambda: exists(connection, last))
        await until(lambda: empty(broker_url, "sendout"))
    assert await connection.fetchval("SELECT count(*) FROM sendout") == 1


async def empty(broker_url: str, key: str) -> bool:
    async with broker.connect(broker_url, "test") as connection:
        declared = await (await connection.channel()).declare_queue(queue_name(key), passive=True)
        return declared.declaration_result.message_count == 0


async def test_an_id_belongs_to_one_command(
    connection: Connection, pool: Pool, broker_url: str, channel: AbstractChannel
) -> None:
    """A command with the same id and other content is rejected."""
    await add_list(connection, "a")
    first = ImportCoupons(list="a", codes=("X",))
    second = first.model_copy(update={"codes": ("Y",)})
    async with consuming(pool, broker_url) as sender:
        await sender.send("import", first.body())
        await sender.send("import", second.body())
        ((body, reason),) = await rejected(channel, 1)
    assert json.loads(body)["codes"] == ["Y"]
    assert reason == f"id {first.id} belongs to another command"


async def test_an_intake_that_is_not_activated_rejects_coupon_commands(
    connection: Connection, pool: Pool, broker_url: str, channel: AbstractChannel
) -> None:
    """Imports of codes and sendouts with coupons are rejected with the reason, and can be repeated after activation."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 2)
    await save_message(connection, "m", "a")
    commands: list[Command] = [ImportCoupons(list="a", codes=("X",)), StartSendout(message="m", group="g")]
    async with consuming(pool, broker_url, activated=False) as sender:
        for command in commands:
            await sender.send(command.type, command.body())
        reasons = [reason for _, reason in await rejected(channel, 2)]
    assert all("the Coupon Manager is not activated" in reason for reason in reasons)
    async with consuming(pool, broker_url) as sender:
        for command in commands:
            await sender.send(command.type, command.body())
            await until(partial(inbox.is_known, connection, command.id))


async def test_an_intake_that_is_not_activated_continues_what_was_accepted(
    connection: Connection, pool: Pool, broker_url: str
) -> None:
    """Groups are imported, messages without coupons are sent, and an accepted sendout with coupons is resumed."""
    await add_list(connection, "a")
    await add_group(connection, "g", 2)
    await save_message(connection, "m", "a")
    await save_message(connection, "plain")
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await add_codes(connection, "a", ["A1", "A2"])
    group = ImportCoupons(group="h", source="file:people.csv", format=Format(kind="csv"))
    commands: list[Command] = [group, StartSendout(message="plain", group="g"), ResumeSendout(sendout=sendout_id)]
    async with consuming(pool, broker_url, activated=False) as sender:
        for command in commands:
            await sender.send(command.type, command.body())
            await until(partial(inbox.is_known, connection, command.id))
    assert (await sendout_views.get(connection, sendout_id)).state == "sending"


async def test_deleted_queues_are_declared_again(
    connection: Connection, pool: Pool, broker_url: str, channel: AbstractChannel
) -> None:
    """The consumer notices the deletion, declares every queue again and continues."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", codes=("X",))
    async with consuming(pool, broker_url):
        queue = await channel.declare_queue(queue_name("import"), passive=True)
        await queue.delete(if_unused=False, if_empty=False)
        await until(lambda: sent(broker_url, command))
        await until(lambda: exists(connection, command))


async def test_an_intake_survives_a_silent_broker_after_a_lost_connection(
    connection: Connection, pool: Pool, broker_url: str, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the broker does not respond, aiormq cancels its callers. The intake connects again, at any attempt."""
    attempts = 0

    async def declares(channel: AbstractChannel) -> object:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            raise asyncio.CancelledError
        return await declare(channel)

    monkeypatch.setattr(topology, "declare", declares)
    monkeypatch.setattr(intake, "RETRY_SECONDS", 0.1)
    await add_list(connection, "a")
    command = ImportCoupons(list="a", codes=("X",))
    async with consuming(pool, broker_url):
        queue = await channel.declare_queue(queue_name("import"), passive=True)
        await queue.delete(if_unused=False, if_empty=False)
        await until(lambda: attempts == 3)
        await until(lambda: sent(broker_url, command))
        await until(lambda: exists(connection, command))


async def sent(broker_url: str, command: ImportCoupons) -> bool:
    """Publish over a new connection: RabbitMQ 3.10 may close one that publishes while the queue is deleted."""
    try:
        async with open_sender(broker_url) as sender:
            await sender.send("import", command.body())
    except BrokerUnavailable:
        return False
    return True


async def test_publishing_without_queues_is_an_error(broker_url: str) -> None:
    """No command is dropped silently: the error asks to start a worker."""
    async with open_sender(broker_url) as sender:
        with pytest.raises(BrokerUnavailable, match="start a worker"):
            await sender.send("import", b"{}")


# --- lost cancellations ----------------------------------------------------------------------------------------------


class Ignored:
    """A call that does not notice that it is cancelled, as `asyncio.wait_for` of Python 3.11 sometimes does."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def __call__(self, *_: object) -> None:
        self.begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@pytest.mark.parametrize("replaced", [False, True])
async def test_an_intake_ends_although_a_cancellation_is_lost_while_it_connects(
    pool: Pool, broker_url: str, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """The library returns normally, or it raises another error than the cancellation."""
    waits = Ignored()

    async def declares(channel: AbstractChannel) -> object:
        declared = await declare(channel)
        await waits()
        if replaced:
            raise ChannelInvalidStateError
        return declared

    monkeypatch.setattr(topology, "declare", declares)
    task = start_intake(pool, broker_url)
    await until(waits.begun.is_set)
    await cancel(task, within=LIMIT_SECONDS)


async def test_an_intake_ends_although_a_cancellation_is_lost_while_it_handles_a_command(
    pool: Pool, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intake handles no further message."""
    handles = Ignored()
    monkeypatch.setattr(Intake, "_handle_command", handles)
    async with consuming(pool, broker_url) as sender:
        await sender.send("import", b"{}")
        await until(handles.begun.is_set)


async def test_an_intake_ends_although_a_cancellation_is_lost_while_it_checks_its_consumers(
    pool: Pool, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intake does not check them again."""
    checks = Ignored()
    monkeypatch.setattr(Intake, "_check_consumers", checks)
    monkeypatch.setattr(intake, "WATCH_SECONDS", 0.1)
    async with consuming(pool, broker_url):
        await until(checks.begun.is_set)
