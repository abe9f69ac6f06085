"""Write one batch's progress to the database: its flushes, and the reasons that the sendout shows."""

import asyncio
import time
from contextlib import suppress
from uuid import UUID, uuid4

import structlog

from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.sendout_speed import SAMPLE_SECONDS, SMALL_SENDOUT
from coupons.store import deliveries, sendouts
from coupons.store.deliveries import Batch
from workers.delivery.in_flight import Flush
from workers.loops import RETRY_SECONDS

log = structlog.get_logger()


class Recorder:
    def __init__(self, pool: Pool, batch: Batch, *, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._pool = pool
        self._batch = batch
        self._shows_waiting_reason = batch.waiting_reason is not None
        self._is_sampled = batch.recipients > SMALL_SENDOUT
        self._sampled_at = -SAMPLE_SECONDS

    async def record(self, flush: Flush) -> bool:
        """Commit a flush, which also renews the lease. Return whether the mails of its intents may be handed over.

        The flush is retried until the lease ends, because mails whose outcomes are not recorded become uncertain.

        Raises:
            WorkStopped: nothing was written, and no more mails may be handed over.
        """
        may_send = await self._record(flush)
        await self._sample_speed()
        return may_send

    async def _record(self, flush: Flush) -> bool:
        flush_id = uuid4()
        while True:
            try:
                async with self._pool.acquire() as connection:
                    return await deliveries.record(
                        connection,
                        self._batch,
                        flush=flush_id,
                        results=flush.results,
                        in_flight=flush.in_flight,
                        intents=flush.intents,
                        unused=flush.unused,
                        lease_seconds=self.lease_seconds,
                    )
            except TRANSIENT_ERRORS as error:
                log.warning("database unavailable, retrying", role="deliver", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def _sample_speed(self) -> None:
        """Store how many outcomes the sendout has, every few seconds. The rate may lack a sample."""
        if self._is_sampled and time.monotonic() >= self._sampled_at + SAMPLE_SECONDS:
            self._sampled_at = time.monotonic()
            with suppress(*TRANSIENT_ERRORS):
                async with self._pool.acquire() as connection:
                    await deliveries.sample(connection, self._batch)

    async def clear_waiting_reason(self) -> None:
        """Remove the reason why the sendout made no progress, because it makes progress now."""
        if self._shows_waiting_reason:
            self._shows_waiting_reason = False
            with suppress(*TRANSIENT_ERRORS):
                async with self._pool.acquire() as connection:
                    await sendouts.set_waiting_reason(connection, self._batch.sendout_id, None)

    async def pause_sendout(self, reason: str) -> None:
        await pause_sendout(self._pool, self._batch.sendout_id, reason)


async def pause_sendout(pool: Pool, sendout_id: UUID, reason: str) -> None:
    """If the sendout is sending, pause it until an operator resumes it."""
    async with pool.acquire() as connection:
        if await sendouts.pause_if_sending(connection, sendout_id, reason):
            log.error("sendout paused", sendout=str(sendout_id), reason=reason)
