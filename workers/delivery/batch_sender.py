"""Hand over the mails of one batch to the relays.

The intent to send a mail (a note that the mail may leave) is committed before the mail is handed over, and its outcome
is committed soon after. If the worker is killed, the mails with an intent and without a recorded outcome are uncertain.
Their number is limited by the in-flight window.

A flush is one transaction that records the new outcomes and the intents of the next mails. The next flush begins when
half of the mails in flight have their outcomes, so that the relay never waits for the database.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from coupons import failpoints
from coupons.database import TRANSIENT_ERRORS
from coupons.errors import WorkStopped
from coupons.smtp import Outcome, Refused, Relays, Unreachable, UnreachableCause
from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult
from coupons.templates.rendering import RenderError
from workers.delivery.backlog import Backlog
from workers.delivery.in_flight import InFlight
from workers.delivery.policy import HoldOff, Pause, Policy, Postpone, refused
from workers.delivery.recorder import Recorder
from workers.delivery.renderer import Mail, Renderer
from workers.delivery.send_budget import SendBudget
from workers.loops import Signals, wait_until_set

FLUSH_SECONDS = 0.1
"""The longest time that an outcome waits to be recorded together with others."""
RENDER_SECONDS = 0.1
"""Mails are rendered for at most this time at once, because rendering blocks everything else, also heartbeats. A mail
that exceeds the size limit takes 0.06 s.
"""
LOOK_SECONDS, PATIENT_LOOK_SECONDS = 1.0, 5.0
"""The time between two flushes if no outcomes come in; a flush notices that the sendout was paused. The longer time
applies while only stalled mails are left.
"""
UNREACHABLE_SECONDS = 15.0
"""Delay before postponed mails are retried, when the batch is claimed again or while its other mails are stalled."""
STOPPING = Unreachable("the worker is shutting down", UnreachableCause.SHUTDOWN)
PAUSING = Unreachable("the sendout is being paused", UnreachableCause.CANCELLED)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Why a batch is released before each of its mails has an outcome. Without a reason, its sendout is not sending."""

    retry_after_seconds: float = 0
    waiting_reason: str | None = None
    """The reason that the sendout shows while it makes no progress."""
    pause_reason: str | None = None
    """If set, the sendout is paused for this reason."""


NOT_SENDING = BatchResult()


class BatchSender:
    """Sends the mails of one batch, from the worker's claim to its last outcome."""

    def __init__(
        self,
        *,
        in_flight: InFlight,
        budget: SendBudget,
        recorder: Recorder,
        renderer: Renderer,
        policy: Policy,
        relays: Relays,
        signals: Signals,
        on_only_stalled: Callable[[], None],
    ) -> None:
        """`on_only_stalled` is called when only mails on stalled connections are left; replies may take minutes."""
        self._in_flight = in_flight
        self._budget = budget
        self._recorder = recorder
        self._renderer = renderer
        self._policy = policy
        self._relays = relays
        self._signals = signals
        self._on_only_stalled = on_only_stalled
        self._backlog = Backlog()
        self._half_settled = asyncio.Event()
        self._result: BatchResult | None = None
        self._is_pausing = False
        """The relay refuses all mails. No more are handed over, and none in flight is refused for it."""

    async def run(self, due: Sequence[Delivery]) -> BatchResult | None:
        """Send until every mail has an outcome, and return None, or return the reason to stop earlier.

        Raises WorkStopped.
        """
        self._backlog.waiting.extend(due)
        try:
            await self._send()
        except (WorkStopped, asyncio.CancelledError):
            self._stop_sending()  # no more mails may leave; another worker recovers the mails in flight
            raise
        except Exception:  # an internal error: the mails in flight still get their outcomes
            self._stop_sending()
            self._backlog.close()
            await self._send()
            raise
        return self._result

    async def _send(self) -> None:
        while self._backlog.waiting or self._in_flight.needs_flush:
            may_send = await self._flush(await self._render_next())
            await self._pause_sendout()
            self._postpone_unless(may_send=may_send)
            self._report_only_stalled()
            if not self._retry_postponed(may_send=may_send):
                await self._wait_for_progress()

    # --- render and hand over -----------------------------------------------------------------------------------------

    async def _render_next(self) -> list[Mail]:
        """Render as many mails as the budget and RENDER_SECONDS allow. A mail that cannot be rendered is refused."""
        granted = await self._budget.acquire(len(self._backlog.waiting))
        mails: list[Mail] = []
        end = time.monotonic() + RENDER_SECONDS
        while self._backlog.waiting and len(mails) < granted and time.monotonic() < end:
            delivery = self._backlog.waiting.popleft()
            try:
                mails.append(self._renderer.render(delivery))
            except RenderError as error:
                self._in_flight.add_result(refused(delivery, str(error), attempted=False))
        self._budget.refund(granted - len(mails))
        return mails

    async def _flush(self, mails: Sequence[Mail]) -> bool:
        """Record outcomes and the intents of these mails, then hand the mails over; return False if they must not be
        sent.
        """
        if not (self._in_flight.needs_flush or mails):
            return True
        deadline = asyncio.get_running_loop().time() + self._recorder.lease_seconds  # the flush renews the lease
        flush = self._in_flight.begin_flush(
            [mail.delivery.number for mail in mails],
            [(mail.delivery.number, mail.unused) for mail in mails if mail.unused],
        )
        try:
            if flush.results:
                failpoints.hit("deliver.settled")
            may_send = await self._recorder.record(flush)
            failpoints.hit("deliver.recorded" if flush.results else "deliver.intended")
        except BaseException:
            self._in_flight.rollback()
            raise
        self._in_flight.commit(may_send=may_send)
        self._budget.release(len(flush.settled))
        if may_send:
            self._hand_over(mails, deadline)
        else:
            self._backlog.postpone(mail.delivery for mail in mails)
            self._stop_sending()
        if any(result.state == DeliveryState.SENT for result in flush.results):
            await self._recorder.clear_waiting_reason()
        return may_send

    def _hand_over(self, mails: Iterable[Mail], deadline: float) -> None:
        """Hand mails to the relays. A mail that is still queued when the lease ends comes back as not sent."""
        for mail in mails:
            delivery = mail.sent_delivery
            if self._signals.stopping:  # the worker began to stop during the flush
                self._settle(delivery, STOPPING)
            elif self._is_pausing:
                self._settle(delivery, PAUSING)
            else:
                report = partial(self._settle, delivery)
                self._relays.submit(mail.envelope, report, owner=self._in_flight, deadline=deadline)
        failpoints.hit("deliver.handed_over")

    def _stop_sending(self) -> None:
        self._result = self._result or NOT_SENDING
        self._relays.cancel_for(self._in_flight)

    # --- settle -------------------------------------------------------------------------------------------------------

    def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Apply the policy to the outcome of a mail in flight."""
        result = None
        match self._verdict(delivery, outcome):
            case DeliveryResult() as conclusion:
                result = conclusion
            case Pause(reason, conclusion):
                result = conclusion
                self._begin_pause(reason)
            case HoldOff(reason):
                self._backlog.postpone([delivery])
                self._hold_off(reason)
            case Postpone():
                self._backlog.postpone([delivery])
        self._in_flight.settle(delivery.number, result)
        if self._in_flight.is_half_settled:
            self._half_settled.set()

    def _verdict(self, delivery: Delivery, outcome: Outcome) -> DeliveryResult | Pause | HoldOff | Postpone:
        if self._is_pausing and isinstance(outcome, Refused):
            return Postpone()
        return self._policy.verdict(delivery, outcome)

    def _begin_pause(self, reason: str) -> None:
        """Take back all mails that are not being transmitted."""
        self._is_pausing = True
        self._result = BatchResult(pause_reason=reason)
        self._backlog.postpone_waiting()
        self._relays.cancel_for(self._in_flight)

    async def _pause_sendout(self) -> None:
        """Pause the sendout at once, so that other workers stop too, and an operator sees the reason even if replies to
        mails in flight take minutes.
        """
        if self._result is not None and self._result.pause_reason:
            with suppress(*TRANSIENT_ERRORS):  # tried again with the next flush, and when the batch is released
                await self._recorder.pause_sendout(self._result.pause_reason)
                self._result = NOT_SENDING

    def _hold_off(self, reason: str) -> None:
        """Hand over no more mails for now.

        In an outage the result has no retry delay: no batch is claimed before a relay is tried again.
        """
        if self._result is not None and self._result.pause_reason:
            return
        if outage := self._relays.outage:
            self._result = BatchResult(waiting_reason=outage.reason)
        elif self._result is None and not self._signals.stopping:
            self._result = BatchResult(retry_after_seconds=UNREACHABLE_SECONDS, waiting_reason=reason)

    # --- postpone and retry -------------------------------------------------------------------------------------------

    def _postpone_unless(self, *, may_send: bool) -> None:
        if not may_send or self._signals.stopping or self._result is not None:
            self._backlog.postpone_waiting()

    def _report_only_stalled(self) -> None:
        """If only stalled mails are left, let other batches begin: their replies may take minutes."""
        if self._is_only_stalled:
            self._on_only_stalled()

    def _retry_postponed(self, *, may_send: bool) -> bool:
        """Retry postponed mails while only stalled mails are in flight, whose replies may take minutes."""
        if not self._is_only_stalled or not may_send or self._signals.stopping or self._relays.outage:
            return False
        if self._result is not None and self._result.pause_reason:
            return False
        if not self._backlog.retry_postponed(after_seconds=UNREACHABLE_SECONDS):
            return False
        self._result, self._is_pausing = None, False
        return True

    @property
    def _is_only_stalled(self) -> bool:
        """Whether all mails in flight are on stalled connections and no mail waits to be handed over."""
        if self._backlog.waiting or self._in_flight.is_empty:
            return False
        return self._relays.stalled_owners().count(self._in_flight) == len(self._in_flight)

    # --- wait ---------------------------------------------------------------------------------------------------------

    async def _wait_for_progress(self) -> None:
        if not self._in_flight.is_empty:
            is_patient = self._is_only_stalled and not self._backlog.has_postponed
            await self._wait_for_outcomes(PATIENT_LOOK_SECONDS if is_patient else LOOK_SECONDS)
        elif self._backlog.waiting:
            await self._budget.wait()

    async def _wait_for_outcomes(self, at_most_seconds: float) -> None:
        """Wait until half of the mails in flight have outcomes, one has waited long enough, or a flush is due."""
        end = time.monotonic() + at_most_seconds
        while not self._in_flight.is_half_settled:
            self._half_settled.clear()
            await wait_until_set(self._half_settled, FLUSH_SECONDS)
            if self._in_flight.settled or time.monotonic() > end:
                return
