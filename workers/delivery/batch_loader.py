"""Load a claimed batch: assign its codes, compile the message of its sendout, read the mails that are due."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import structlog

from coupons import failpoints
from coupons.addresses import AddressError
from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.errors import UserError
from coupons.settings import Settings
from coupons.store import deliveries, messages
from coupons.store.deliveries import Batch, Delivery
from workers.delivery.batch_sender import NOT_SENDING, BatchResult
from workers.delivery.renderer import Renderer
from workers.loops import RETRY_SECONDS

log = structlog.get_logger()
ASSIGN_PAUSE_SECONDS = 0.05
ASSIGN_TRIES = 100
LOCKED_CODES_SECONDS = 5.0
"""Delay before a batch is retried if its reserved codes stay locked for longer than a transaction normally takes."""
MAX_RENDERERS = 8


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    renderer: Renderer
    due: list[Delivery]


class BatchLoader:
    def __init__(self, *, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._cursors: dict[int, int] = {}
        self._renderers: dict[UUID, Renderer] = {}

    async def load(self, batch: Batch) -> LoadedBatch | BatchResult:
        """Return the batch's due mails, or why none can be sent now.

        While the database is unavailable, this is retried until the lease ends.
        """
        while True:
            try:
                return await self._load(batch)
            except TRANSIENT_ERRORS as error:
                log.warning("database unavailable, retrying", role="deliver", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def _load(self, batch: Batch) -> LoadedBatch | BatchResult:
        async with self._pool.acquire() as connection:
            due = await deliveries.read_due(connection, batch)
        if not_assigned := await self._assign_codes(batch):
            return not_assigned
        failpoints.hit("deliver.assigned")
        try:
            renderer = await self._renderer_for(batch.sendout_id)
        except AddressError as error:  # its text quotes the address
            return BatchResult(pause_reason=f"its message cannot be compiled: an address of the sender {error.reason}")
        except UserError as error:
            return BatchResult(pause_reason=f"its message cannot be compiled: {error}")
        async with self._pool.acquire() as connection:
            await deliveries.add_codes(connection, batch, due, renderer.lists)
        return LoadedBatch(renderer, due)

    async def _assign_codes(self, batch: Batch) -> BatchResult | None:
        """Assign codes as long as the sendout has reserved ones.

        Returns None when done, else why this is impossible now.
        """
        for _ in range(ASSIGN_TRIES):
            async with self._pool.acquire() as connection:
                try:
                    assigned = await deliveries.assign_codes(connection, batch, self._cursors)
                except deliveries.NotSending:
                    return NOT_SENDING
            self._cursors.update(assigned.cursors)
            if assigned.complete:
                return None
            await asyncio.sleep(ASSIGN_PAUSE_SECONDS)
        return BatchResult(LOCKED_CODES_SECONDS, waiting_reason="reserved codes are locked by another transaction")

    async def _renderer_for(self, sendout_id: UUID) -> Renderer:
        """Return the renderer, which is created once per sendout: a sendout's message and lists never change."""
        if sendout_id not in self._renderers:
            async with self._pool.acquire() as connection:
                message = await messages.get_for_sendout(connection, sendout_id)
                files = await messages.list_files(connection, message.id)
                lists = await deliveries.list_lists(connection, sendout_id)
            if len(self._renderers) >= MAX_RENDERERS:
                self._renderers.pop(next(iter(self._renderers)))
            self._renderers[sendout_id] = Renderer(sendout_id, message, files, lists, settings=self._settings)
        return self._renderers[sendout_id]
