"""A worker hands mails over under its lease, and records what became of them: on a real database and a real relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from coupons.database import Connection, Pool, pooled
from coupons.errors import LeaseLost
from coupons.settings import Settings
from coupons.smtp import Limits, Relays, SmtpAddress
from coupons.store import deliveries, messages, sendout_views, sendouts
from sandbox.services import Sink, private_sink
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message, start
from tests.waiting import until
from workers.delivery.batch_sender import Handover
from workers.delivery.denials import Denials
from workers.delivery.rate_limit import Throttle
from workers.delivery.renderer import Writer
from workers.delivery.window import Window
from workers.loops import Signals

RECIPIENTS = 100
SLOW = ("--delay", "0.05")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with pooled(database_url, size=5) as pool:
        yield pool


@asynccontextmanager
async def handing_over(
    connection: Connection, pool: Pool, sink: Sink, *, per_hour: int = 0
) -> AsyncIterator[tuple[UUID, "asyncio.Task[object]"]]:
    """A sendout of one batch, and the task that hands it over."""
    settings = Settings(max_in_flight=100)
    await add_list(connection, "a", RECIPIENTS)
    await add_group(connection, "g", RECIPIENTS)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.bind(connection, batch, {})
    lists = await deliveries.lists_of(connection, sendout_id)
    message = await messages.of_sendout(connection, sendout_id)
    async with Relays(SmtpAddress.parse_all(sink.url), limits=Limits(connections=2)) as relays:
        handover = Handover(
            pool=pool,
            relays=relays,
            throttle=Throttle(pool=pool, per_hour=per_hour) if per_hour else None,
            denials=Denials(),
            window=Window(100, least=50),
            batch=batch,
            writer=Writer(message, [], lists, settings=settings),
            signals=Signals(("deliver",)),
            settings=settings,
            only_silence=asyncio.Event(),
        )
        due = await deliveries.due(connection, batch, lists)
        task: asyncio.Task[object] = asyncio.create_task(handover.run(due))
        try:
            yield sendout_id, task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def mails_came(sink: Sink, least: int) -> int:
    await until(lambda: len(sink.mails()) >= least, f"{least} mails")
    return len(sink.mails())


async def test_whoever_lost_the_lease_hands_nothing_more_over(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """Mails that wait for a connection are taken back; only those on the wire still arrive."""
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with handing_over(connection, pool, sink) as (_, task):
            await mails_came(sink, 5)
            await connection.execute("UPDATE delivery_batch SET lease_token = gen_random_uuid()")
            with pytest.raises(LeaseLost):
                await task
            had_come = len(sink.mails())
        assert len(sink.mails()) <= had_come + 4  # two connections, each with one under way and one behind it


async def test_a_pause_takes_back_what_is_not_on_the_wire(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """Within two seconds, and every mail that came is recorded."""
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with handing_over(connection, pool, sink) as (sendout_id, task):
            await mails_came(sink, 5)
            await sendouts.pause(connection, sendout_id, "by a test")
            async with asyncio.timeout(2):
                await task
        found = await sendout_views.named(connection, sendout_id)
        assert (found.sent, found.in_flight, found.uncertain) == (len(sink.mails()), 0, 0)
        assert found.sent < RECIPIENTS


async def test_a_database_that_goes_away_while_turns_are_booked_costs_no_outcome(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """The next turn is booked when it is back; what was in hand is recorded as what it became."""
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with handing_over(connection, pool, sink, per_hour=3_600 * 200) as (sendout_id, task):
            await mails_came(sink, 5)
            await connection.execute("ALTER TABLE throttle RENAME TO away")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await connection.execute("ALTER TABLE away RENAME TO throttle")
            async with asyncio.timeout(30):
                await task
        found = await sendout_views.named(connection, sendout_id)
        assert (found.sent, found.uncertain) == (RECIPIENTS, 0)
        assert len(sink.mails()) == RECIPIENTS


async def test_a_mail_that_cannot_be_written_costs_the_others_nothing(
    connection: Connection, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect ends the work on the batch, but not before all that is in hand has its outcome."""
    write = Writer.write

    def fails_at_60(self: Writer, sendout_id: UUID, delivery: deliveries.Delivery) -> object:
        if delivery.number == 60:
            raise ZeroDivisionError
        return write(self, sendout_id, delivery)

    monkeypatch.setattr(Writer, "write", fails_at_60)
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with handing_over(connection, pool, sink) as (sendout_id, task):
            with pytest.raises(ZeroDivisionError):
                await task
        found = await sendout_views.named(connection, sendout_id)
        assert (found.sent, found.in_flight) == (len(sink.mails()), 0)
        assert found.sent > 0
