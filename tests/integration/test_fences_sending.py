"""Each fence between the intent and the mail, by itself, on a real database and a real relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from coupons.database import Connection, Pool, pooled
from coupons.errors import LeaseLost
from coupons.mail import Envelope
from coupons.settings import Settings
from coupons.smtp import Limits, Relays, SmtpAddress
from coupons.store import deliveries, messages, sendout_views, sendouts
from coupons.store.deliveries import Delivery
from sandbox.services import Sink, private_sink
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message, start
from tests.locks import locked, until_blocked
from tests.waiting import until
from workers.delivery import batch_sender
from workers.delivery.batch_sender import Ending, Handover
from workers.delivery.denials import Denials
from workers.delivery.renderer import Writer
from workers.delivery.window import Window
from workers.loops import Signals

RECIPIENTS = 60
WINDOW = 50
SLOW = ("--delay", "0.05")
APART = "apart@example.org"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with pooled(database_url, size=4) as pool:
        yield pool


@dataclass(frozen=True, slots=True)
class Work:
    """A batch that is ready to be handed over, to a relay with a connection that is open already."""

    sendout_id: UUID
    handover: Handover
    due: list[Delivery]
    relays: Relays
    sink: Sink
    apart: Envelope
    """A mail that is nobody's."""

    def run(self) -> "asyncio.Task[Ending]":
        return asyncio.create_task(self.handover.run(self.due))

    def mailed(self) -> set[int]:
        """The numbers of the deliveries whose mails have come."""
        numbers = {delivery.address: delivery.number for delivery in self.due}
        return {numbers[mail.rcpt_to[0]] for mail in self.sink.mails() if mail.rcpt_to[0] != APART}

    async def comes(self) -> None:
        """Until the first mail has come."""
        await until(self.mailed, "the first mail")


@asynccontextmanager
async def ready(
    connection: Connection, pool: Pool, folder: Path, *sink: str, lease_seconds: float = 45
) -> AsyncIterator[Work]:
    settings = Settings(max_in_flight=100, lease_seconds=lease_seconds, heartbeat_seconds=lease_seconds / 4)
    await add_list(connection, "a", RECIPIENTS)
    await add_group(connection, "g", RECIPIENTS)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.bind(connection, batch, {})
    lists = await deliveries.lists_of(connection, sendout_id)
    due = await deliveries.due(connection, batch, lists)
    writer = Writer(await messages.of_sendout(connection, sendout_id), [], lists, settings=settings)
    with private_sink(folder / "mails.jsonl", *sink) as receiving:
        async with Relays(SmtpAddress.parse_all(receiving.url), limits=Limits(connections=1)) as relays:
            apart = writer.write(sendout_id, Delivery(999, APART, {"first_name": "Zoë"}, 0, codes={1: "APART"}))
            await relays.send(apart)
            work = Handover(
                pool=pool,
                relays=relays,
                throttle=None,
                denials=Denials(),
                window=Window(100, least=WINDOW),
                batch=batch,
                writer=writer,
                signals=Signals(("deliver",)),
                settings=settings,
                only_silence=asyncio.Event(),
            )
            yield Work(sendout_id, work, due, relays, receiving, apart)


async def test_no_mail_leaves_before_its_intent_is_committed(
    connection: Connection, other: Connection, pool: Pool, tmp_path: Path
) -> None:
    """While the database dawdles the relay waits; where the intent cannot be written, nothing was mailed."""
    async with ready(connection, pool, tmp_path) as work:
        async with locked(other, "delivery_batch"):
            running = work.run()
            await until_blocked(other)
            await other.execute("UPDATE delivery_batch SET lease_token = gen_random_uuid()")
        with pytest.raises(LeaseLost):
            await running
    assert work.mailed() == set()


async def test_a_sendout_that_was_paused_before_its_first_mail_sends_none(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """The answer to the intent is no."""
    async with ready(connection, pool, tmp_path) as work:
        await sendouts.pause(connection, work.sendout_id, "by a test")
        await work.run()
    assert work.mailed() == set()


async def test_whoever_lost_the_lease_takes_back_what_waits(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """A mail that is handed over after that is the next one: only what was on the wire comes before it."""
    async with ready(connection, pool, tmp_path, *SLOW) as work:
        running = work.run()
        await work.comes()
        await connection.execute("UPDATE delivery_batch SET lease_token = gen_random_uuid()")
        with pytest.raises(LeaseLost):
            await running
        had_come = len(work.mailed())
        await work.relays.send(work.apart)
        assert len(work.mailed()) <= had_come + 2


async def test_a_pause_takes_back_what_waits(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """Of the window of mails that were handed over, the smaller part comes."""
    async with ready(connection, pool, tmp_path, *SLOW) as work:
        running = work.run()
        await work.comes()
        await sendouts.pause(connection, work.sendout_id, "by a test")
        await running
        assert len(work.mailed()) < WINDOW / 2
    assert (await sendout_views.named(connection, work.sendout_id)).sent == len(work.mailed())


async def test_no_mail_leaves_after_the_lease(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """What waits for a slow relay for longer comes back, and is tried again under another lease."""
    async with ready(connection, pool, tmp_path, *SLOW, lease_seconds=1) as work:
        await work.run()
    found = await sendout_views.named(connection, work.sendout_id)
    assert found.open > 0
    assert (found.sent, found.in_flight) == (len(work.mailed()), 0)


async def test_outcomes_whose_commit_got_no_answer_are_recorded_once(
    connection: Connection, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush is tried until it is answered, and is the same one each time: here, twice."""
    record, is_lost = deliveries.record, cycle((True, False))

    async def without_an_answer(*arguments: Any, **named: Any) -> bool:
        may_send = await record(*arguments, **named)
        if next(is_lost):
            raise ConnectionResetError
        return may_send

    monkeypatch.setattr(deliveries, "record", without_an_answer)
    monkeypatch.setattr(batch_sender, "RETRY_SECONDS", 0)
    async with ready(connection, pool, tmp_path) as work:
        await work.run()
    found = await sendout_views.named(connection, work.sendout_id)
    assert (found.sent, found.open, found.uncertain) == (RECIPIENTS, 0, 0)


async def test_a_worker_that_dies_leaves_all_that_is_in_hand(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """Every mail that came is recorded, or stands in its batch's hand: handed over lately or several flushes ago."""
    async with ready(connection, pool, tmp_path, *SLOW) as work:
        running = work.run()
        await until(lambda: connection.fetchval("SELECT sum(sent) > 0 FROM delivery_batch"), "the first flush")
        running.cancel()
        await asyncio.wait([running])
    known = "SELECT array_agg(number) FROM delivery WHERE state = 'sent'"
    recorded, in_flight = (
        await connection.fetchval(known),
        await connection.fetchval("SELECT in_flight FROM delivery_batch"),
    )
    assert work.mailed() <= {*recorded, *in_flight}
    assert work.mailed() > {*recorded}
