"""A worker sends a batch under its lease and records the outcomes: with a real database and a real relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from coupons.database import Connection, Pool, open_pool
from coupons.errors import LeaseLost
from coupons.smtp import Limits, Relays, SmtpAddress
from coupons.store import deliveries, sendout_views, sendouts
from coupons.store.deliveries import Delivery
from sandbox.services import Sink, private_sink
from tests.factories import add_list, add_recipients, prepare, save_message, start
from tests.smtp_server import Act, serving
from tests.waiting import cancel, until
from tests.worker_harness import batch_sender, load_batch, prepare_batch
from workers.delivery.renderer import Mail, Renderer

RECIPIENTS, WINDOW = 100, 4
SLOW = ("--delay", "0.05")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=5) as pool:
        yield pool


@asynccontextmanager
async def sending(
    connection: Connection, pool: Pool, sink: Sink, *, mails_per_hour: int = 0
) -> AsyncIterator[tuple[UUID, "asyncio.Task[object]"]]:
    """Create a sendout of one batch, and start the task that sends it."""
    batch, renderer, due = await prepare_batch(connection, RECIPIENTS)
    async with Relays(SmtpAddress.parse_all(sink.url), limits=Limits(connections=2)) as relays:
        with batch_sender(pool, batch, renderer, relays, window=50, mails_per_hour=mails_per_hour) as sender:
            task: asyncio.Task[object] = asyncio.create_task(sender.run(due))
            try:
                yield batch.sendout_id, task
            finally:
                await cancel(task)


async def mails_arrive(sink: Sink, least: int) -> int:
    await until(lambda: len(sink.mails()) >= least, f"{least} mails")
    return len(sink.mails())


async def test_a_worker_that_lost_its_lease_hands_over_no_more_mails(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """The worker takes back queued mails. Only mails that are being transmitted still arrive."""
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with sending(connection, pool, sink) as (_, task):
            await mails_arrive(sink, 5)
            await connection.execute("UPDATE delivery_batch SET lease_token = gen_random_uuid()")
            with pytest.raises(LeaseLost):
                await task
            arrived = len(sink.mails())
        assert len(sink.mails()) <= arrived + 4  # on each of two connections one mail is sent, one is behind it


async def test_mails_to_all_forms_of_an_address_arrive(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """The database keeps each form of an address that RFC 5321 allows, and the relay gets it unchanged."""
    addresses = ['"Ada Lovelace"@example.org', '"a,b<c>"@example.org', '"a\\"b@c"@example.org', "ada@[192.0.2.1]"]
    await add_list(connection, "a", len(addresses))
    people: list[tuple[str, dict[str, str]]] = [(address, {"first_name": "Ada"}) for address in addresses]
    await add_recipients(connection, "g", people)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)
    batch, renderer, due = await load_batch(connection)
    with private_sink(tmp_path / "mails.jsonl") as sink:
        async with Relays(SmtpAddress.parse_all(sink.url)) as relays:
            with batch_sender(pool, batch, renderer, relays, window=50) as sender:
                await sender.run(due)
        assert sorted(mail.rcpt_to[0] for mail in sink.mails()) == sorted(addresses)


async def test_a_pause_takes_back_queued_mails(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """The pause acts within two seconds, and every mail that arrived is recorded."""
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with sending(connection, pool, sink) as (sendout_id, task):
            await mails_arrive(sink, 5)
            await sendouts.pause(connection, sendout_id, "by a test")
            async with asyncio.timeout(2):
                await task
        found = await sendout_views.get(connection, sendout_id)
        assert (found.sent, found.in_flight, found.uncertain) == (len(sink.mails()), 0, 0)
        assert found.sent < RECIPIENTS


async def test_a_relay_that_refuses_all_mails_gets_no_queued_mails(connection: Connection, pool: Pool) -> None:
    """After the third refusal, only the mail that is being transmitted follows, although 50 mails are in flight."""
    batch, renderer, due = await prepare_batch(connection, RECIPIENTS)
    async with serving({"DOT": Act("554 5.7.1 no\r\n", 0.02)}) as server:
        url = f"smtp://127.0.0.1:{server.port}"
        async with Relays(SmtpAddress.parse_all(url), limits=Limits(connections=1)) as relays:
            with batch_sender(pool, batch, renderer, relays, window=50) as sender:
                await sender.run(due)
        assert len(server.mails) <= 4


async def test_a_pause_during_a_flush_hands_over_no_more_mails(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the intents of the next mails are committed, the relay refuses enough mails to pause the sendout."""
    batch, renderer, due = await prepare_batch(connection, RECIPIENTS)
    record = deliveries.record

    async def records_after_the_replies(*arguments: Any, **named: Any) -> bool:
        if named["in_flight"]:
            await until(lambda: len(server.mails) == WINDOW)
            await asyncio.sleep(0.1)  # until the worker has read the last reply
        return await record(*arguments, **named)

    monkeypatch.setattr(deliveries, "record", records_after_the_replies)
    async with serving({"DOT": Act("554 5.7.1 no\r\n", 0.02)}) as server:
        url = f"smtp://127.0.0.1:{server.port}"
        async with Relays(SmtpAddress.parse_all(url), limits=Limits(connections=1)) as relays:
            with batch_sender(pool, batch, renderer, relays, window=WINDOW) as sender:
                await sender.run(due)
        assert len(server.mails) <= WINDOW
    found = await sendout_views.get(connection, batch.sendout_id)
    assert (found.state, found.refused, found.remaining) == ("paused", 0, RECIPIENTS)


async def test_a_lost_database_connection_costs_no_outcome_under_a_rate_limit(
    connection: Connection, pool: Pool, tmp_path: Path
) -> None:
    """The next slot is booked when the database is available again, and mails in flight get their real outcomes."""
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with sending(connection, pool, sink, mails_per_hour=3_600 * 200) as (sendout_id, task):
            await mails_arrive(sink, 5)
            await connection.execute("ALTER TABLE rate_limit RENAME TO away")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await connection.execute("ALTER TABLE away RENAME TO rate_limit")
            async with asyncio.timeout(30):
                await task
        found = await sendout_views.get(connection, sendout_id)
        assert (found.sent, found.uncertain) == (RECIPIENTS, 0)
        assert len(sink.mails()) == RECIPIENTS


async def test_an_internal_error_leaves_no_mail_without_its_outcome(
    connection: Connection, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while a mail is rendered ends the batch only after every mail in flight has its outcome."""
    render = Renderer.render

    def fails_at_60(self: Renderer, delivery: Delivery) -> Mail:
        if delivery.number == 60:
            raise ZeroDivisionError
        return render(self, delivery)

    monkeypatch.setattr(Renderer, "render", fails_at_60)
    with private_sink(tmp_path / "mails.jsonl", *SLOW) as sink:
        async with sending(connection, pool, sink) as (sendout_id, task):
            with pytest.raises(ZeroDivisionError):
                await task
        found = await sendout_views.get(connection, sendout_id)
        assert (found.sent, found.in_flight) == (len(sink.mails()), 0)
        assert found.sent > 0
