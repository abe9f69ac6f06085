"""Hand the mails of one batch over, with the intent committed before each and the outcomes soon after.

What is between intent and recorded outcome is uncertain if the worker is killed: a window of mails, no more. One
transaction records the outcomes that came in and the intent for as many new mails; the next one starts when half of
what is in hand has an outcome, so that the relay never waits for the database.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

import structlog

from coupons import failpoints
from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.errors import LeaseLost
from coupons.mail import Envelope
from coupons.settings import Settings
from coupons.smtp import Outcome, Relays, Unreachable, UnreachableCause
from coupons.store import deliveries, sendouts
from coupons.store.deliveries import Batch, Conclusion, Delivery
from coupons.templates.rendering import RenderError
from workers.delivery.denials import Denials
from workers.delivery.policy import Pause, Policy, StandStill, refused
from workers.delivery.rate_limit import Booking, Throttle
from workers.delivery.renderer import Writer
from workers.delivery.window import Share, Window
from workers.loops import RETRY_SECONDS, Signals, happens

log = structlog.get_logger()
FLUSH_SECONDS = 0.1
"""An outcome waits at most so long to be recorded with others."""
WRITE_SECONDS = 0.1
"""Writing mails keeps everything else waiting, heartbeats too; a single one that gets too long takes 0.06 s."""
LOOK_SECONDS, PATIENT_LOOK_SECONDS = 1.0, 5.0
"""Without any outcome, it is looked so often whether the sendout was paused; the second one if only silence is left."""
UNREACHABLE_SECONDS = 15.0
"""Mails that came back although relays can be used are tried again after, and any while others wait in silence."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work on a batch ended: to go on not before so many seconds, waiting for something, or to be paused."""

    not_within: float = 0
    waiting: str | None = None
    pause_for: str | None = None


Written = dict[int, tuple[Delivery, Envelope]]


async def pause(pool: Pool, sendout_id: UUID, reason: str) -> None:
    """If it is sending; until a person resumes it."""
    async with pool.acquire() as connection:
        if await sendouts.pause_if_sending(connection, sendout_id, reason):
            log.error("sendout paused", sendout=str(sendout_id), reason=reason)


class Handover:
    def __init__(
        self,
        *,
        pool: Pool,
        relays: Relays,
        throttle: Throttle | None,
        denials: Denials,
        window: Window,
        batch: Batch,
        writer: Writer,
        signals: Signals,
        settings: Settings,
        only_silence: asyncio.Event,
    ) -> None:
        """`only_silence` is set once nothing is left but to wait for silent connections, which may take long."""
        self._pool = pool
        self._relays = relays
        self._throttle = throttle
        self._batch = batch
        self._writer = writer
        self._signals = signals
        self._lease_seconds = settings.lease_seconds
        self._policy = Policy(denials, batch.sendout_id, give_up_seconds=settings.retry_hours * 3_600)
        self._window = window
        self._only_silence = only_silence
        self._booking: Booking | None = None
        self._in_flight: set[int] = set()
        self._settled: set[int] = set()  # of these, what has an outcome
        self._concluded: list[Conclusion] = []  # to be recorded
        self._put_off: list[Delivery] = []  # not mailed, and not concluded either
        self._put_off_at = 0.0
        self._flushed_at = time.monotonic()
        self._enough = asyncio.Event()
        self._withdrawn = False
        self._moved = False
        self._ending = Ending()

    async def run(self, due: Sequence[Delivery]) -> Ending:
        """Until every mail has an outcome, or there is a reason to stop; raises LeaseLost."""
        with self._window.share() as share:
            try:
                await self._work(deque(due), share)
            except (LeaseLost, asyncio.CancelledError):
                self._withdraw()  # others decide about what is in hand; nothing more may leave
                raise
            except Exception:  # a defect: what is in hand is not its fault
                self._withdraw()
                await self._work(deque(), share, again=False)
                raise
        return self._ending

    async def _work(self, waiting: deque[Delivery], share: Share, *, again: bool = True) -> None:
        """`again`: what was put off may be tried once more, if there is time for that."""
        while waiting or self._in_flight or self._concluded:
            room = await self._room(share, len(waiting))
            written = self._write_next(waiting, room)
            self._use_turns(len(written))
            may_send = await self._flush(written, share)
            if not may_send or self._signals.stopping or self._ending != Ending():
                self._put_off_for_now(waiting)
                waiting.clear()
            if not waiting and self._is_silent:
                self._only_silence.set()
                share.leave()
                await self._pause_now()
                if again and may_send and (due := self._due_again(share)):
                    waiting.extend(due)
                    continue
            if self._in_flight:
                is_patient = not (waiting or self._put_off) and self._is_silent
                await self._outcomes(PATIENT_LOOK_SECONDS if is_patient else LOOK_SECONDS)
            elif waiting and not room:
                await self._turn()

    async def _room(self, share: Share, wanted: int) -> int:
        """For how many of the mails that are wanted the window and the limit of all workers have room now."""
        room = min(wanted, self._room_in_window(share))
        if self._throttle is None or not room:
            return room
        if self._booking is None:
            self._booking = await self._throttle.book(room)
            room = min(room, self._room_in_window(share))  # others may have taken some meanwhile
        if self._booking.at > time.monotonic():
            return 0
        return min(room, self._booking.mails)

    def _room_in_window(self, share: Share) -> int:
        silent = self._relays.stalled_owners()
        return share.room(freed=len(self._settled), silent=silent.count(self), all_silent=len(silent))

    @property
    def _is_silent(self) -> bool:
        """Whether silent connections hold all that is in hand."""
        return 0 < len(self._in_flight) == self._relays.stalled_owners().count(self)

    def _put_off_for_now(self, deliveries: Iterable[Delivery]) -> None:
        if put_off := [*deliveries]:
            self._put_off.extend(put_off)
            self._put_off_at = time.monotonic()

    def _due_again(self, share: Share) -> list[Delivery]:
        """What was put off need not wait for answers that may be minutes away."""
        if not self._put_off or time.monotonic() < self._put_off_at + UNREACHABLE_SECONDS:
            return []
        if self._signals.stopping or self._ending.pause_for or self._relays.outage:
            return []
        due, self._put_off = self._put_off, []
        self._ending, self._withdrawn = Ending(), False
        share.join()
        return due

    async def _pause_now(self) -> None:
        """Nor need people wait for them to be told, who may mend the cause and resume the sendout before they come."""
        if self._ending.pause_for:
            with suppress(*TRANSIENT_ERRORS):  # the next look tries again
                await pause(self._pool, self._batch.sendout_id, self._ending.pause_for)
                self._ending = Ending()

    def _use_turns(self, mails: int) -> None:
        """So many of those that were booked; the others stay."""
        if self._booking and mails:
            left = self._booking.mails - mails
            self._booking = replace(self._booking, mails=left) if left > 0 else None

    def _write_next(self, waiting: deque[Delivery], room: int) -> Written:
        """As many mails as there is room and time for; what cannot be written is refused with the reason."""
        written: Written = {}
        until = time.monotonic() + WRITE_SECONDS
        while waiting and len(written) < room and time.monotonic() < until:
            delivery = waiting.popleft()
            try:
                written[delivery.number] = (delivery, self._writer.write(self._batch.sendout_id, delivery))
            except RenderError as error:
                self._concluded.append(refused(delivery, str(error), attempted=False))
        return written

    async def _flush(self, written: Written, share: Share) -> bool:
        """Record what came in and the intent for what is written, then hand it over; False: nothing more may be."""
        if not (self._in_flight or self._concluded or written):
            return True
        until = asyncio.get_running_loop().time() + self._lease_seconds  # the flush renews the lease
        if self._concluded:
            failpoints.reached("deliver.outcomes")
        concluded, self._concluded = self._concluded, []
        settled, self._settled = self._settled, set()
        share.take(len(written))
        try:
            may_send = await self._record(concluded, self._in_flight - settled, list(written))
            failpoints.reached("deliver.recorded" if concluded else "deliver.intended")
        except BaseException:  # what is not recorded must not be taken for never handed over
            self._concluded, self._settled = concluded + self._concluded, settled | self._settled
            share.give_back(len(written))
            raise
        self._in_flight -= settled
        self._flushed_at = time.monotonic()
        self._window.note(len(settled))
        share.give_back(len(settled))
        if may_send:
            self._in_flight.update(written)
            self._hand_over(written, until)
        else:
            share.give_back(len(written))
            self._put_off_for_now(delivery for delivery, _ in written.values())
            self._withdraw()
        if any(each.outcome == "sent" for each in concluded):
            await self._moves()
        return may_send

    def _withdraw(self) -> None:
        self._withdrawn = True
        self._relays.cancel_for(self)

    async def _moves(self) -> None:
        """People need not be told any more why nothing does."""
        if self._batch.waiting and not self._moved:
            self._moved = True
            with suppress(*TRANSIENT_ERRORS):
                async with self._pool.acquire() as connection:
                    await sendouts.wait(connection, self._batch.sendout_id, None)

    def _hand_over(self, written: Written, until: float) -> None:
        """A mail that waits for a connection for longer than the lease lasts comes back."""
        for delivery, envelope in written.values():
            if self._signals.stopping:  # since the flush began
                self._report(delivery, Unreachable("the worker stops", UnreachableCause.SHUTDOWN))
            else:
                self._relays.submit(envelope, partial(self._report, delivery), owner=self, deadline=until)
        failpoints.reached("deliver.handed_over")

    async def _record(self, concluded: list[Conclusion], in_flight: set[int], intents: list[int]) -> bool:
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
                        in_flight=in_flight,
                        intents=intents,
                        lease_seconds=self._lease_seconds,
                    )
            except TRANSIENT_ERRORS as error:
                log.warning("database trouble, outcomes wait", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        match self._policy.verdict(delivery, outcome):
            case Conclusion() as conclusion:
                self._concluded.append(conclusion)
            case Pause(reason):
                self._put_off_for_now([delivery])
                self._ending = Ending(pause_for=reason)
            case StandStill(reason, cause):
                self._put_off_for_now([delivery])
                self._stand_still(reason, cause)
        self._settled.add(delivery.number)
        if self._has_enough:
            self._enough.set()

    def _stand_still(self, reason: str, cause: UnreachableCause) -> None:
        """Nothing is handed over for now; in an outage no batch is claimed before a relay is tried again."""
        if self._ending.pause_for:
            return
        if outage := self._relays.outage:
            self._ending = Ending(waiting=outage.reason)
        elif not (self._signals.stopping or self._withdrawn or cause is UnreachableCause.DEADLINE):
            self._ending = Ending(not_within=UNREACHABLE_SECONDS, waiting=reason)

    @property
    def _has_enough(self) -> bool:
        return 2 * len(self._settled) >= len(self._in_flight)

    async def _outcomes(self, look_seconds: float) -> None:
        """Until half of what is in hand has an outcome, some have waited long enough for the others, or it is time to
        look at the sendout.
        """
        while not self._has_enough:
            self._enough.clear()
            await happens(self._enough, FLUSH_SECONDS)
            if self._settled or time.monotonic() > self._flushed_at + look_seconds:
                return

    async def _turn(self) -> None:
        """Until there may be room: the turn that was booked has come, or another batch has less in hand."""
        seconds = self._booking.at - time.monotonic() if self._booking else 0
        if seconds > 0:
            await self._signals.sleep(seconds)
        else:
            await self._window.wait(LOOK_SECONDS)
