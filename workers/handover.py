"""Hand the mails of one batch over, with the intent committed before each and the outcomes soon after.

At most `window` mails of a worker are between intent and recorded outcome; that many are uncertain if it is killed.
One transaction records the outcomes that came in and the intent for as many new mails; the next one starts when half
of what is in hand has an outcome, so that the relay never waits for the database.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import structlog

from coupons.database import TROUBLE, Pool
from coupons.mail import Envelope
from coupons.settings import Settings
from coupons.smtp import Deferred, Outcome, Refused, Relay, SenderRefused, Sent, Uncertain, Unreachable
from coupons.store import deliveries
from coupons.store.deliveries import Batch, Conclusion, Delivery
from coupons.templates import RenderError
from workers.loops import RETRY_SECONDS, Signals
from workers.writer import Writer

log = structlog.get_logger()
FLUSH_SECONDS = 0.1
"""An outcome waits at most so long to be recorded with others."""
FIRST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 3_600.0
UNREACHABLE_SECONDS = 15.0
"""A relay that cannot be reached is tried again after; no delivery's attempt is counted."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work on a batch ended: to go on not before so many seconds, waiting for something, or to be paused."""

    not_within: float = 0
    waiting: str | None = None
    pause_for: str | None = None


class Handover:
    def __init__(
        self, *, pool: Pool, relay: Relay, batch: Batch, writer: Writer, signals: Signals, settings: Settings
    ) -> None:
        self._pool = pool
        self._relay = relay
        self._batch = batch
        self._writer = writer
        self._signals = signals
        self._lease_seconds = settings.lease_seconds
        self._give_up_seconds = settings.give_up_hours * 3_600
        self._window = max(1, settings.window // settings.batches)
        self._in_hand = 0
        self._concluded: list[Conclusion] = []
        self._enough = asyncio.Event()
        self._ending = Ending()

    async def run(self, due: Sequence[Delivery]) -> Ending:
        """Until every mail has an outcome, or there is a reason to stop; raises LeaseLost."""
        waiting = deque(due)
        while waiting or self._in_hand:
            written, unwritable = self._write_next(waiting)
            await self._flush(written, unwritable, waiting)
            await self._outcomes()
            if self._signals.stopping or self._ending != Ending():
                waiting.clear()
        return self._ending

    def _write_next(self, waiting: deque[Delivery]) -> tuple[dict[int, tuple[Delivery, Envelope]], list[Conclusion]]:
        """As many mails as the window has room for; what cannot be written is refused with the reason."""
        written: dict[int, tuple[Delivery, Envelope]] = {}
        unwritable: list[Conclusion] = []
        room = self._window - self._in_hand + len(self._concluded)
        while waiting and len(written) < room:
            delivery = waiting.popleft()
            try:
                written[delivery.number] = (delivery, self._writer.write(self._batch.sendout_id, delivery))
            except RenderError as error:
                unwritable.append(Conclusion(delivery, "refused", str(error)))
        return written, unwritable

    async def _flush(
        self,
        written: dict[int, tuple[Delivery, Envelope]],
        unwritable: list[Conclusion],
        waiting: deque[Delivery],
    ) -> None:
        concluded, self._concluded = self._concluded, []
        if not (concluded or unwritable or written):
            return
        permitted = await self._record(concluded, unwritable, list(written))
        self._in_hand += len(permitted) - len(concluded)
        for number in permitted:
            delivery, envelope = written[number]
            if self._signals.stopping:  # since the flush began
                self._report(delivery, Unreachable("the worker stops"))
            else:
                self._relay.hand_over(envelope, partial(self._report, delivery))
        if len(permitted) < len(written):  # paused, cancelled, or decided elsewhere
            waiting.clear()

    async def _record(self, concluded: list[Conclusion], unwritable: list[Conclusion], intents: list[int]) -> set[int]:
        """Try again while the lease lasts: outcomes that are not recorded would be uncertain."""
        flush = uuid4()
        while True:
            try:
                async with self._pool.acquire() as connection:
                    return await deliveries.record(
                        connection,
                        self._batch,
                        flush=flush,
                        conclusions=concluded,
                        unwritable=unwritable,
                        intents=intents,
                        lease_seconds=self._lease_seconds,
                    )
            except TROUBLE as error:
                log.warning("database trouble, outcomes wait", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        self._concluded.append(self._conclude(delivery, outcome))
        if 2 * len(self._concluded) >= self._in_hand:
            self._enough.set()

    def _conclude(self, delivery: Delivery, outcome: Outcome) -> Conclusion:  # noqa: PLR0911 - one case an outcome
        """The whole failure policy of sending."""
        match outcome:
            case Sent(reply):
                return Conclusion(delivery, "sent", reply)
            case Refused(reply):
                return Conclusion(delivery, "refused", reply)
            case Deferred(reply):
                if (due_in := retry_in(delivery.attempts, self._give_up_seconds)) is not None:
                    return Conclusion(delivery, "deferred", reply, due_in)
                return Conclusion(delivery, "refused", f"given up after {delivery.attempts + 1} attempts: {reply}")
            case Uncertain(reason):
                return Conclusion(delivery, "uncertain", reason)
            case SenderRefused(reply):
                self._ending = Ending(pause_for=f"the relay refuses the sender: {reply}")
                return Conclusion(delivery, "pending", reply)
            case Unreachable(reason):
                if not self._signals.stopping and self._ending == Ending():
                    self._ending = Ending(not_within=UNREACHABLE_SECONDS, waiting=f"relay: {reason}")
                return Conclusion(delivery, "pending", reason)

    async def _outcomes(self) -> None:
        """Until half of what is in hand has an outcome, or some have waited long enough for the others."""
        while self._in_hand:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._enough.wait()
            except TimeoutError:
                pass
            self._enough.clear()
            if self._concluded:
                return


def retry_in(attempts: int, give_up_seconds: float) -> float | None:
    """Seconds until the next attempt after `attempts` earlier ones were deferred, doubling; None to give up."""
    waits = [min(FIRST_RETRY_SECONDS * 2**n, LONGEST_RETRY_SECONDS) for n in range(attempts + 1)]
    return waits[-1] if sum(waits) <= give_up_seconds else None
