"""The fences between the intent to send a mail and its sending, one test each, with a real database and relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from coupons.database import Connection, Pool, open_pool
from coupons.errors import LeaseLost
from coupons.mail import Envelope
from coupons.smtp import Limits, Relays, SmtpAddress
from coupons.store import deliveries, sendout_views, sendouts
from coupons.store.deliveries import Delivery
from sandbox.services import Sink, private_sink
from tests.locks import lock_rows, until_blocked
from tests.waiting import cancel, until
from tests.worker_harness import batch_sender, prepare_batch
from workers.delivery import recorder
from workers.delivery.batch_sender import BatchResult, BatchSender

RECIPIENTS = 60
WINDOW = 50
SLOW = ("--delay", "0.05")
OTHER = "other@example.org"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


@dataclass(frozen=True, slots=True)
class Work:
    """A batch that is ready to be sent, and a relay with an open connection."""

    sendout_id: UUID
    sender: BatchSender
    due: list[Delivery]
    relays: Relays
    sink: Sink
    other_mail: Envelope
    """A mail that does not belong to the batch."""

    def run(self) -> "asyncio.Task[BatchResult | None]":
        return asyncio.create_task(self.sender.run(self.due))

    def arrived(self) -> set[int]:
        """Return the numbers of the deliveries whose mails have arrived."""
        numbers = {delivery.address: delivery.number for delivery in self.due}
        return {numbers[mail.rcpt_to[0]] for mail in self.sink.mails() if mail.rcpt_to[0] != OTHER}

    async def first_arrives(self) -> None:
        """Wait until the first mail has arrived."""
        await until(self.arrived, "the first mail")


@asynccontextmanager
async def ready(
    connection: Connection, pool: Pool, folder: Path, *sink: str, lease_seconds: float = 45
) -> AsyncIterator[Work]:
    batch, renderer, due = await prepare_batch(connection, RECIPIENTS)
    with private_sink(folder / "mails.jsonl", *sink) as receiving:
        async with Relays(SmtpAddress.parse_all(receiving.url), limits=Limits(connections=1)) as relays:
            other_mail = renderer.render(Delivery(999, OTHER, {"first_name": "Zoë"}, 0, codes={1: "OTHER"})).envelope
            await relays.send(other_mail)
            with batch_sender(pool, batch, renderer, relays, window=WINDOW, lease_seconds=lease_seconds) as sender:
                yield Work(batch.sendout_id, sender, due, relays, receiving, other_mail)


async def test_no_mail_leaves_before_its_intent_is_committed(
    connection: Connection, other: Connection, pool: Pool, tmp_path: Path
) -> None:
    """While the database is slow, no mail leaves. If the intent cannot be committed, no mail is sent at all."""
    async with ready(connection, pool, tmp_path) as work:
        async with lock_rows(other, "delivery_batch"):
            running = work.run()
            await until_blocked(other, running)
            await other.execute("UPDATE delivery_batch SET lease_token = gen_random_uuid()")
        with pytest.raises(LeaseLost):
            await running
    assert work.arrived() == set()


async def test_a_sendout_that_was_paused_before_its_first_mail_sends_none(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """The flush of the first intents reports that their mails must not be sent."""
    async with ready(connection, pool, tmp_path) as work:
        await sendouts.pause(connection, work.sendout_id, "by a test")
        await work.run()
    assert work.arrived() == set()


async def test_a_worker_that_lost_its_lease_takes_back_queued_mails(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """After the lease is lost, only mails that were being transmitted arrive before a mail submitted later."""
    async with ready(connection, pool, tmp_path, *SLOW) as work:
        running = work.run()
        await work.first_arrives()
        await connection.execute("UPDATE delivery_batch SET lease_token = gen_random_uuid()")
        with pytest.raises(LeaseLost):
            await running
        arrived = len(work.arrived())
        await work.relays.send(work.other_mail)
        assert len(work.arrived()) <= arrived + 2


async def test_a_pause_takes_back_queued_mails(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """Fewer than half of the submitted mails arrive after the pause."""
    async with ready(connection, pool, tmp_path, *SLOW) as work:
        running = work.run()
        await work.first_arrives()
        await sendouts.pause(connection, work.sendout_id, "by a test")
        await running
        assert len(work.arrived()) < WINDOW / 2
    assert (await sendout_views.get(connection, work.sendout_id)).sent == len(work.arrived())


async def test_no_mail_leaves_after_the_lease(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """Mails that wait for a slow relay until the lease ends are taken back, and can be sent under another lease."""
    async with ready(connection, pool, tmp_path, *SLOW, lease_seconds=1) as work:
        await work.run()
    found = await sendout_views.get(connection, work.sendout_id)
    assert found.remaining > 0
    assert (found.sent, found.in_flight) == (len(work.arrived()), 0)


async def test_outcomes_are_recorded_once_although_the_commit_was_not_confirmed(
    connection: Connection, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush is repeated with the same id until its commit is confirmed, here at the second attempt."""
    record, is_lost = deliveries.record, cycle((True, False))

    async def without_confirmation(*arguments: Any, **named: Any) -> bool:
        may_send = await record(*arguments, **named)
        if next(is_lost):
            raise ConnectionResetError
        return may_send

    monkeypatch.setattr(deliveries, "record", without_confirmation)
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0)
    async with ready(connection, pool, tmp_path) as work:
        await work.run()
    found = await sendout_views.get(connection, work.sendout_id)
    assert (found.sent, found.remaining, found.uncertain) == (RECIPIENTS, 0, 0)


async def test_a_dead_worker_leaves_every_unrecorded_mail_in_flight(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """Every mail that arrived is recorded or in flight in the database, even several flushes after its handover."""
    async with ready(connection, pool, tmp_path, *SLOW) as work:
        running = work.run()
        await until(lambda: connection.fetchval("SELECT sum(sent) > 0 FROM delivery_batch"), "the first flush")
        await cancel(running)
    recorded = await connection.fetchval("SELECT array_agg(number) FROM delivery WHERE state = 'sent'")
    in_flight = await connection.fetchval("SELECT in_flight FROM delivery_batch")
    assert work.arrived() <= {*recorded, *in_flight}
    assert work.arrived() > {*recorded}
