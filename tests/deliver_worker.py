"""Run a worker that delivers, in the test's own process, and change its sendouts as an operator does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from coupons import smtp
from coupons.database import Connection, Pool
from coupons.settings import Settings
from coupons.smtp import Relays, SmtpAddress
from coupons.store import sendout_views, sendouts
from coupons.store.sendout_views import Sendout
from tests.factories import add_group, add_list, prepare, save_message, start
from tests.waiting import until
from workers.delivery.deliverer import Deliverer
from workers.loops import Signals, work

CONNECTIONS, BATCH = 3, 100


async def begin(connection: Connection, recipients: int) -> UUID:
    """Create a sendout that prints a code of list `a` in each mail."""
    await add_list(connection, "a", recipients)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g", batch_size=BATCH)
    await prepare(connection, batch_size=BATCH)
    return sendout_id


@asynccontextmanager
async def delivering(pool: Pool, *urls: str) -> AsyncIterator[None]:
    """Run a worker with these relays until the block ends."""
    signals = Signals(("deliver",))
    settings = Settings(lease_seconds=20, heartbeat_seconds=5, smtp_connections=CONNECTIONS)
    async with (
        Relays(
            SmtpAddress.parse_all(" ".join(urls)),
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


async def resume_if_paused(connection: Connection, sendout_id: UUID) -> None:
    if await connection.fetchval("SELECT state = 'paused' FROM sendout WHERE id = $1", sendout_id):
        await resume(connection, sendout_id)
    else:
        await make_due(connection)


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
