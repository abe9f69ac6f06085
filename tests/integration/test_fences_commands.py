"""The fences of an incoming command, one test each."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from coupons import broker
from coupons.broker import open_sender
from coupons.commands import ImportCoupons
from coupons.database import Connection, Pool, open_pool
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.store import inbox
from coupons.topology import declare, queue_name
from tests.factories import add_list
from tests.locks import until_blocked
from tests.waiting import cancel
from workers.intake import Intake
from workers.loops import Signals
from workers.main import ROLES
from workers.nudges import Nudges


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


async def accept(connection: Connection, command: ImportCoupons) -> bool:
    async with connection.transaction():
        return await inbox.accept(connection, command)


async def test_a_command_is_accepted_once(connection: Connection) -> None:
    """A second delivery of the command changes nothing and is not an error."""
    command = ImportCoupons(list="a", codes=("X",))
    assert [await accept(connection, command) for _ in range(2)] == [True, False]


async def test_an_id_belongs_to_one_command(connection: Connection) -> None:
    """Another command with the same id is rejected."""
    command = ImportCoupons(list="a", codes=("X",))
    await accept(connection, command)
    with pytest.raises(Conflict, match="belongs to another command"):
        await accept(connection, command.model_copy(update={"codes": ("Y",)}))


async def test_a_rejection_is_kept(connection: Connection) -> None:
    """A rejected command is rejected again when it is repeated, and a waiting client gets the reason."""
    command = ImportCoupons(list="a", codes=("X",))
    for _ in range(2):
        await inbox.reject(connection, command, "there is no list a")
    with pytest.raises(Conflict, match="there is no list a"):
        await accept(connection, command)
    with pytest.raises(Conflict, match="there is no list a"):
        await inbox.is_known(connection, command.id)


async def test_an_uncommitted_command_is_redelivered(
    connection: Connection, other: Connection, pool: Pool, broker_url: str
) -> None:
    """A worker that dies before its commit leaves the command in the queue."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", codes=("X",))
    async with broker.connect(broker_url, "test") as looking, open_sender(broker_url) as sender:
        await declare(channel := await looking.channel())
        await sender.send("import", command.body())
        async with other.transaction():
            await inbox.accept(other, command)  # the worker below waits for the end of this transaction
            signals = Signals(ROLES)
            settings = Settings(broker_url=SecretStr(broker_url))
            intake = Intake(pool=pool, signals=signals, nudges=Nudges(signals), settings=settings, roles=("import",))
            taking = asyncio.create_task(intake.run())
            await until_blocked(other, taking)
            await cancel(taking)
        queue = await channel.declare_queue(queue_name("import"), passive=True)
        again = await queue.get(timeout=5, fail=False)
        assert again
        assert again.body == command.body()
        assert again.redelivered
