"""A relay that refuses all mails does not use up a sendout: a worker, a real database, a scripted relay."""

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
from coupons.store.sendout_views import Sendout
from tests.factories import add_group, add_list, prepare, save_message, start
from tests.smtp_server import PIPELINING, Script, ScriptedServer, serving
from tests.waiting import until
from workers.delivery.deliverer import Deliverer
from workers.loops import Signals, work

RECIPIENTS, BATCH, CONNECTIONS = 300, 100, 3
HANDFUL = 5
"""Refusals that seem to concern their recipients are recorded this many times before they count as suspicious."""
TRANSMITTED = 3 + 2 * CONNECTIONS
"""Mails that get a refusal before all others are taken back: the suspects, and two mails on each connection."""
UNTIL_FIXED = pytest.mark.parametrize("fix", ["resume", "resume before the fix"])


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=10) as pool:
        yield pool


async def begin(connection: Connection, recipients: int = RECIPIENTS) -> UUID:
    await add_list(connection, "a", recipients)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g", batch_size=BATCH)
    await prepare(connection, batch_size=BATCH)
    return sendout_id


@asynccontextmanager
async def delivering(pool: Pool, *servers: ScriptedServer) -> AsyncIterator[None]:
    """Run a worker until the block ends."""
    signals = Signals(("deliver",))
    settings = Settings(lease_seconds=20, heartbeat_seconds=5, smtp_connections=CONNECTIONS)
    urls = " ".join(f"smtp://127.0.0.1:{server.port}" for server in servers)
    async with (
        Relays(
            SmtpAddress.parse_all(urls),
            limits=smtp.Limits(connections=CONNECTIONS, backoff_seconds=0.01, max_backoff_seconds=0.02),
        ) as relays,
        asyncio.TaskGroup() as group,
    ):
        deliverer = Deliverer(
            pool=pool, relays=relays, signals=signals, settings=settings, owner="test", background=group
        )
        group.create_task(work("deliver", deliverer.step, signals, sweep_seconds=0.1))
        try:
            yield
        finally:
            signals.stop()


async def becomes(connection: Connection, state: str, sendout_id: UUID) -> Sendout:
    query = """
        SELECT state = $2 AND NOT EXISTS (
            SELECT FROM delivery_batch WHERE sendout_id = $1 AND lease_token IS NOT NULL
        ) FROM sendout WHERE id = $1
    """
    await until(lambda: connection.fetchval(query, sendout_id, state), f"the state {state}")
    return await sendout_views.get(connection, sendout_id)


async def resume(connection: Connection, sendout_id: UUID) -> None:
    """Resume the sendout; deferred mails are due now."""
    await make_due(connection)
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)


async def make_due(connection: Connection, *, seconds: float = 0) -> None:
    """Make deferred mails due now, as if they were deferred `seconds` earlier."""
    await connection.execute(
        "UPDATE delivery SET due_at = now(), deferred_since = deferred_since - make_interval(secs => $1) "
        "WHERE state = 'deferred'",
        seconds,
    )
    await connection.execute("UPDATE delivery_batch SET due_at = now() WHERE NOT closed")


async def assigned_codes(connection: Connection) -> dict[int, str]:
    rows = await connection.fetch("SELECT delivery_number, code FROM coupon WHERE sendout_id IS NOT NULL")
    return {row["delivery_number"]: row["code"] for row in rows}


def printed_codes(server: ScriptedServer, codes: set[str]) -> list[str]:
    return [code for mail in server.mails for code in codes if code.encode() in mail]


async def is_sent_with_the_same_codes(
    connection: Connection, server: ScriptedServer, sendout_id: UUID, before: dict[int, str]
) -> None:
    """Each recipient got one mail with one code. Codes that were assigned before the pause are still theirs."""
    found = await becomes(connection, "finished", sendout_id)
    assert (found.sent, found.refused, found.uncertain) == (found.recipients, 0, 0)
    after = await assigned_codes(connection)
    assert {number: after[number] for number in before} == before
    assert sorted(server.accepted) == sorted({*server.accepted})
    assert len(server.accepted) == found.recipients


REFUSALS = {
    "unverified identity": {"DOT": "554 Message rejected: Email address is not verified.\r\n"},
    "DMARC": {"DOT": "550-5.7.26 This mail has been blocked because\r\n550 5.7.26 the sender is unauthenticated.\r\n"},
    "content filter": {"DOT": "550 5.7.1 message content rejected\r\n"},
    "size": {"DOT": "552 5.3.4 message too big\r\n"},
    "announced size": {"EHLO": "250-relay.example\r\n250-PIPELINING\r\n250 SIZE 10\r\n"},
    "size at MAIL": {"MAIL": "552 5.3.4 message size exceeds fixed limit\r\n"},
    "no DATA": {"DATA": "554 5.5.1 no\r\n"},
    "sender at MAIL": {"MAIL": "550 5.7.60 client does not have permissions to send as this sender\r\n"},
    "sender at RCPT": {"RCPT": "550 5.1.8 shop@example.org: sender address rejected: domain not found\r\n"},
    "account at RCPT": {"RCPT": "530 5.7.0 must issue a STARTTLS command first\r\n"},
}


@pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_relay_that_refuses_all_mails_pauses_the_sendout(
    connection: Connection, pool: Pool, name: str, way: Script
) -> None:
    """No recipient is refused. After the fix and a resume, each of them gets one mail with the code assigned before."""
    sendout_id = await begin(connection)
    codes = None
    async with serving({**way, **REFUSALS[name]}) as refusing:
        async with delivering(pool, refusing):
            found = await becomes(connection, "paused", sendout_id)
        assert (found.refused, found.uncertain, found.remaining) == (0, 0, RECIPIENTS)
        assert found.reason
        assert found.reason.startswith("the relay refuses ")
        assert "@" not in found.reason
        attempts = sum(line.startswith("MAIL") for lines in refusing.commands for line in lines)
        assert attempts <= TRANSMITTED
        codes = await assigned_codes(connection)
    async with serving(way) as fixed, delivering(pool, fixed):
        await resume(connection, sendout_id)
        await is_sent_with_the_same_codes(connection, fixed, sendout_id, codes)
