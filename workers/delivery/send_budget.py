"""Decides how many mails a batch may hand over now, by its share of the in-flight window and the common rate limit."""

import time
from dataclasses import replace

from workers.delivery.in_flight_window import Share
from workers.delivery.rate_limit import RateLimit, Slot
from workers.loops import Signals

ROOM_SECONDS = 1.0
"""A batch without room asks again after this time, even if no other batch has freed room."""


class SendBudget:
    def __init__(self, share: Share, rate_limit: RateLimit | None, signals: Signals) -> None:
        self._share = share
        self._rate_limit = rate_limit
        self._signals = signals
        self._slot = Slot(0, 0.0)

    async def acquire(self, wanted: int) -> int:
        """Take up to `wanted` mails from the budget and return how many.

        The caller refunds mails that it does not hand over.
        """
        room = self._share.room(wanted)
        if self._rate_limit is None or not room:
            return room
        if self._slot.is_used_up:
            self._slot = await self._rate_limit.book(room)
            room = self._share.room(wanted)  # other batches may have taken some in the meantime
        granted = min(room, self._slot.available)
        self._slot = replace(self._slot, mails=self._slot.mails - granted)
        return granted

    def refund(self, mails: int) -> None:
        """Return acquired mails that were not handed over to the booked slot."""
        if self._rate_limit is not None:
            self._slot = replace(self._slot, mails=self._slot.mails + mails)

    def release(self, mails: int) -> None:
        """Free the room of mails whose outcomes are recorded."""
        self._share.release(mails)

    async def wait(self) -> None:
        """Wait until the budget may grant mails: the booked slot begins, or another batch has freed room."""
        if (seconds := self._slot.at - time.monotonic()) > 0:
            await self._signals.sleep(seconds)
        else:
            await self._share.wait_for_room(ROOM_SECONDS)
