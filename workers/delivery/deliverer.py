"""The deliver role: claim a batch, bind its codes, hand its mails over, hand it back."""

import asyncio
from uuid import UUID

import structlog

from coupons import failpoints
from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import UserError
from coupons.lease import kept
from coupons.settings import Settings
from coupons.smtp import Outage, Relays
from coupons.store import deliveries, messages, restore_guard, sendouts
from coupons.store.deliveries import Batch, Delivery
from workers.delivery.batch_sender import Ending, Handover, pause
from workers.delivery.denials import Denials
from workers.delivery.rate_limit import Throttle
from workers.delivery.renderer import Writer
from workers.delivery.window import Window
from workers.loops import AT_ONCE, RETRY_SECONDS, Signals, attempt

log = structlog.get_logger()
BIND_PAUSE_SECONDS = 0.05
BIND_TRIES = 100
UNBOUND_SECONDS = 5.0
"""A promised code that is locked elsewhere comes free within a transaction's time; if it does not, look later."""
ACCEPTED_SECONDS = 5.0
"""While nothing may be sent from these data, it is looked so often whether somebody has accepted them."""
WRITERS_KEPT = 8


class Deliverer:
    def __init__(
        self,
        *,
        pool: Pool,
        relays: Relays,
        signals: Signals,
        settings: Settings,
        owner: str,
        lingering: asyncio.TaskGroup,
    ) -> None:
        """In `lingering`, batches that only wait for silent connections come to their ends.

        There are seldom more than those that were in hand when the connections fell silent, as later mails go over
        others; each holds a silent mail, so there are never more than the window has mails.
        """
        self._pool = pool
        self._relays = relays
        self._throttle = Throttle(pool=pool, per_hour=settings.mails_per_hour) if settings.mails_per_hour else None
        self._denials = Denials()
        self._window = Window(settings.max_in_flight, least=2 * settings.smtp_connections)
        self._signals = signals
        self._settings = settings
        self._owner = owner
        self._lingering = lingering
        self._cursors: dict[int, int] = {}
        self._writers: dict[UUID, Writer] = {}
        self._refusal: str | None = None

    async def step(self) -> float | None:
        """Deliver one batch, but for what may take long to be answered; otherwise when there may be one."""
        outage = self._relays.outage
        async with self._pool.acquire() as connection:
            batch = await deliveries.claim(
                connection,
                owner=self._owner,
                lease_seconds=self._settings.lease_seconds,
                only_cancelled=outage is not None,
            )
            if batch is None:
                return await self._wait(connection, outage)
        failpoints.reached("deliver.claimed")
        only_silence = asyncio.Event()
        work = asyncio.create_task(self._work_on(batch, only_silence))
        work.add_done_callback(lambda _: only_silence.set())
        try:
            await only_silence.wait()
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        if work.done():
            work.result()
        else:  # its answers may be minutes away, and other batches need not wait for them
            self._lingering.create_task(attempt("deliver", lambda: work))
        return AT_ONCE

    async def _work_on(self, batch: Batch, only_silence: asyncio.Event) -> None:
        async with kept(
            lambda: self._renew(batch),
            every=self._settings.heartbeat_seconds,
            expires_after=self._settings.lease_seconds,
        ):
            ending = await self._deliver(batch, only_silence)
        await self._hand_back(batch, ending)

    async def _wait(self, connection: Connection, outage: Outage | None) -> float | None:
        """Nothing is claimed to be mailed and no attempt is counted; people see why nothing moves."""
        if await self._is_refused(connection):
            return ACCEPTED_SECONDS
        if outage is None:
            return await deliveries.next_due(connection)
        log.warning("no relay can be used", reason=outage.reason)
        await sendouts.wait_all(connection, outage.reason)
        return outage.retry_seconds

    async def _is_refused(self, connection: Connection) -> bool:
        """Whether the database's data went back in time; said once."""
        refusal = await restore_guard.refusal(connection)
        known, self._refusal = self._refusal, refusal
        if refusal and refusal != known:
            log.warning("the database's epoch is not accepted", reason=refusal)
        if refusal:
            await sendouts.wait_all(connection, refusal)
        return refusal is not None

    async def _renew(self, batch: Batch) -> None:
        async with self._pool.acquire() as connection:
            await deliveries.renew(connection, batch, lease_seconds=self._settings.lease_seconds)

    async def _deliver(self, batch: Batch, only_silence: asyncio.Event) -> Ending:
        if batch.sendout_state == "cancelled":
            async with self._pool.acquire() as connection:
                await deliveries.close(connection, batch)
            failpoints.reached("deliver.closed")
            return Ending()
        prepared = await self._prepared(batch)
        if isinstance(prepared, Ending):
            return prepared
        writer, due = prepared
        handover = Handover(
            pool=self._pool,
            relays=self._relays,
            throttle=self._throttle,
            denials=self._denials,
            window=self._window,
            batch=batch,
            writer=writer,
            signals=self._signals,
            settings=self._settings,
            only_silence=only_silence,
        )
        return await handover.run(due)

    async def _prepared(self, batch: Batch) -> Ending | tuple[Writer, list[Delivery]]:
        """The mails to be written, or why there are none; tried again as long as the lease lasts."""
        while True:
            try:
                return await self._prepare(batch)
            except TRANSIENT_ERRORS as error:
                log.warning("database trouble, trying again", role="deliver", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def _prepare(self, batch: Batch) -> Ending | tuple[Writer, list[Delivery]]:
        if unbound := await self._bind(batch):
            return unbound
        failpoints.reached("deliver.bound")
        try:
            writer = await self._writer_of(batch.sendout_id)
        except UserError as error:
            return Ending(pause_for=f"its message cannot be compiled: {error}")
        async with self._pool.acquire() as connection:
            return writer, await deliveries.due(connection, batch, writer.lists)

    async def _bind(self, batch: Batch) -> Ending | None:
        """None once every mail has its codes, as far as the promise goes."""
        for _ in range(BIND_TRIES):
            async with self._pool.acquire() as connection:
                try:
                    if await deliveries.bind(connection, batch, self._cursors):
                        return None
                except deliveries.NotSending:
                    return Ending()
            await asyncio.sleep(BIND_PAUSE_SECONDS)
        return Ending(not_within=UNBOUND_SECONDS, waiting="promised codes are locked by another transaction")

    async def _writer_of(self, sendout_id: UUID) -> Writer:
        """Compiled once for each sendout; a sendout's message and lists never change while it sends."""
        if sendout_id not in self._writers:
            async with self._pool.acquire() as connection:
                message = await messages.of_sendout(connection, sendout_id)
                files = await messages.files_of(connection, message.id)
                lists = await deliveries.lists_of(connection, sendout_id)
            if len(self._writers) >= WRITERS_KEPT:
                self._writers.pop(next(iter(self._writers)))
            self._writers[sendout_id] = Writer(message, files, lists, settings=self._settings)
        return self._writers[sendout_id]

    async def _hand_back(self, batch: Batch, ending: Ending) -> None:
        if ending.pause_for:
            await pause(self._pool, batch.sendout_id, ending.pause_for)
        async with self._pool.acquire() as connection:
            failpoints.reached("deliver.delivered")
            await deliveries.release(connection, batch, not_within=ending.not_within)
            failpoints.reached("deliver.released")
            await sendouts.wait(connection, batch.sendout_id, ending.waiting)
            if await sendouts.settle(connection, batch.sendout_id):
                log.info("sendout finished", sendout=str(batch.sendout_id))
