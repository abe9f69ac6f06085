"""A worker's signs of life: a row in the database, renewed until the worker has ended."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from coupons import __version__
from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.settings import Settings
from coupons.store import heartbeats
from coupons.store.heartbeats import Identity
from workers.loops import attempt

LEAVE_SECONDS = 5
"""A worker whose database is away ends without deleting its row, which then expires."""


@asynccontextmanager
async def signs_of_life(pool: Pool, settings: Settings, roles: Sequence[str]) -> AsyncIterator[None]:
    """Show signs of life while the block runs, also while the worker drains its in-flight mails.

    They come from the worker's event loop, so a blocked worker shows none.
    """
    worker = Identity(uuid4(), socket.gethostname(), os.getpid(), roles, __version__)

    async def enter() -> None:
        async with pool.acquire() as connection:
            await heartbeats.enter(connection, worker, lease_seconds=settings.lease_seconds)

    await attempt("heartbeat", enter)
    beating = asyncio.create_task(_beat(pool, worker, settings))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with suppress(*TRANSIENT_ERRORS):
            async with asyncio.timeout(LEAVE_SECONDS), pool.acquire() as connection:
                await heartbeats.leave(connection, worker)


async def _beat(pool: Pool, worker: Identity, settings: Settings) -> None:
    async def beat() -> None:
        async with pool.acquire() as connection:
            await heartbeats.beat(connection, worker, lease_seconds=settings.lease_seconds)

    while True:
        await asyncio.sleep(settings.heartbeat_seconds)
        await attempt("heartbeat", beat)
