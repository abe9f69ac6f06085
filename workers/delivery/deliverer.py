"""The deliver role: claim a batch, assign its codes, send its mails, release it."""

import asyncio
from collections.abc import Callable

import structlog

from coupons import failpoints
from coupons.database import Connection, Pool
from coupons.lease import renewed_lease
from coupons.settings import Settings
from coupons.smtp import Outage, Relays
from coupons.states import STOPPED_STATES
from coupons.store import deliveries, restore_guard, sendouts
from coupons.store.deliveries import Batch
from workers.delivery.batch_loader import BatchLoader, LoadedBatch
from workers.delivery.batch_sender import BatchResult, BatchSender
from workers.delivery.evidence import WorkerEvidence
from workers.delivery.in_flight import InFlight
from workers.delivery.in_flight_window import InFlightWindow
from workers.delivery.policy import Policy
from workers.delivery.rate_limit import RateLimit
from workers.delivery.recorder import Recorder, pause_sendout
from workers.delivery.send_budget import SendBudget
from workers.loops import NO_PAUSE, Signals, attempt
from workers.sendout_end import log_end, log_first_part

log = structlog.get_logger()
GUARD_SECONDS = 5.0
"""The interval at which the restore guard is checked while it stops sending."""


class Deliverer:
    def __init__(
        self,
        *,
        pool: Pool,
        relays: Relays,
        signals: Signals,
        settings: Settings,
        owner: str,
        background: asyncio.TaskGroup,
    ) -> None:
        """A batch that only waits for stalled connections finishes in `background`.

        There are seldom more of these batches than were being sent when the connections stalled, because later mails
        use other connections. Each of them holds a stalled mail, so there are at most `max_in_flight`.
        """
        self._pool = pool
        self._relays = relays
        self._rate_limit = RateLimit(pool=pool, per_hour=settings.mails_per_hour) if settings.mails_per_hour else None
        self._evidence = WorkerEvidence()
        self._window = InFlightWindow(
            settings.max_in_flight, least=2 * settings.smtp_connections, stalled_owners=relays.stalled_owners
        )
        self._loader = BatchLoader(pool=pool, settings=settings)
        self._signals = signals
        self._settings = settings
        self._owner = owner
        self._background = background
        self._blocked_by: str | None = None

    async def step(self) -> float | None:
        """Deliver one batch, except its mails on stalled connections.

        If there is none, return the seconds until there may be.
        """
        outage = self._relays.outage
        async with self._pool.acquire() as connection:
            batch = await deliveries.claim(
                connection,
                owner=self._owner,
                lease_seconds=self._settings.lease_seconds,
                only_stopped=outage is not None,
            )
            if batch is None:
                return await self._next_step(connection, outage)
        failpoints.hit("deliver.claimed")
        await self._deliver_in_task(batch)
        return NO_PAUSE

    async def _next_step(self, connection: Connection, outage: Outage | None) -> float | None:
        """Return the seconds until there may be a batch, or None.

        If sending is impossible, show the reason in the sendouts.
        """
        if await self._is_blocked(connection):
            return GUARD_SECONDS
        if outage is None:
            return await deliveries.next_due(connection)
        log.warning("no relay available", reason=outage.reason)
        await sendouts.set_waiting_reason_of_all(connection, outage.reason)
        return outage.retry_seconds

    async def _is_blocked(self, connection: Connection) -> bool:
        """Whether the restore guard stops sending; the reason is logged once."""
        reason = await restore_guard.refusal(connection)
        known, self._blocked_by = self._blocked_by, reason
        if reason and reason != known:
            log.warning("sending blocked by the restore guard", reason=reason)
        if reason:
            await sendouts.set_waiting_reason_of_all(connection, reason)
        return reason is not None

    async def _deliver_in_task(self, batch: Batch) -> None:
        """Return when the batch is delivered or only waits for stalled mails. Then the role claims another batch."""
        only_stalled = asyncio.Event()
        work = asyncio.create_task(self._deliver(batch, only_stalled.set))
        work.add_done_callback(lambda _: only_stalled.set())
        try:
            await only_stalled.wait()
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        if work.done():
            work.result()
        else:
            self._background.create_task(attempt("deliver", lambda: work))

    async def _deliver(self, batch: Batch, on_only_stalled: Callable[[], None]) -> None:
        async with renewed_lease(
            lambda: self._renew(batch),
            every=self._settings.heartbeat_seconds,
            expires_after=self._settings.lease_seconds,
        ):
            result = await self._process(batch, on_only_stalled)
        await self._release(batch, result or BatchResult())

    async def _renew(self, batch: Batch) -> None:
        async with self._pool.acquire() as connection:
            await deliveries.renew(connection, batch, lease_seconds=self._settings.lease_seconds)

    async def _process(self, batch: Batch, on_only_stalled: Callable[[], None]) -> BatchResult | None:
        if batch.sendout_state in STOPPED_STATES:
            await self._close(batch)
            return None
        match await self._loader.load(batch):
            case LoadedBatch() as loaded:
                return await self._send(batch, loaded, on_only_stalled)
            case BatchResult() as result:
                return result

    async def _close(self, batch: Batch) -> None:
        async with self._pool.acquire() as connection:
            await deliveries.close(connection, batch)
        failpoints.hit("deliver.closed")

    async def _send(self, batch: Batch, loaded: LoadedBatch, on_only_stalled: Callable[[], None]) -> BatchResult | None:
        in_flight = InFlight()
        with self._window.share(in_flight) as share:
            sender = BatchSender(
                in_flight=in_flight,
                budget=SendBudget(share, self._rate_limit, self._signals),
                recorder=Recorder(self._pool, batch, lease_seconds=self._settings.lease_seconds),
                renderer=loaded.renderer,
                policy=Policy(
                    self._evidence.about(batch.sendout_id),
                    retry_seconds=self._settings.retry_hours * 3_600,
                    names_relay=self._relays.count > 1,
                ),
                relays=self._relays,
                signals=self._signals,
                on_only_stalled=on_only_stalled,
            )
            return await sender.run(loaded.due)

    async def _release(self, batch: Batch, result: BatchResult) -> None:
        if result.pause_reason:
            await pause_sendout(self._pool, batch.sendout_id, result.pause_reason)
        async with self._pool.acquire() as connection:
            failpoints.hit("deliver.delivered")
            await deliveries.release(connection, batch, not_within=result.retry_after_seconds)
            failpoints.hit("deliver.released")
            await sendouts.set_waiting_reason(connection, batch.sendout_id, result.waiting_reason)
            if batch.rest_held and await sendouts.pause_after_first(connection, batch.sendout_id):
                log_first_part(batch.sendout_id)
            if ended := await sendouts.settle(connection, batch.sendout_id):
                log_end(ended)
