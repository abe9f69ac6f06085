"""The rate limit in mails per hour that all workers share. Workers book time slots in the database."""

import time
from dataclasses import dataclass

import structlog

from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.store import rate_limit
from workers.loops import RETRY_SECONDS

log = structlog.get_logger()

MAX_SLOT_SECONDS = 1.0
"""A worker books at most as many mails at once as the rate limit allows in this time."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A number of mails that may be sent from `at` on (a time of `time.monotonic`)."""

    mails: int
    at: float

    @property
    def available(self) -> int:
        """The number of mails that may be sent now."""
        return self.mails if self._has_come else 0

    @property
    def is_used_up(self) -> bool:
        return self._has_come and not self.mails

    @property
    def _has_come(self) -> bool:
        return self.at <= time.monotonic()


class RateLimit:
    def __init__(self, *, pool: Pool, per_hour: int) -> None:
        self._pool = pool
        self._per_second = per_hour / 3_600

    async def book(self, mails: int) -> Slot:
        """Book the next free slot, for at most `mails` mails. A slot has its time, so no worker has to poll.

        If the database is unavailable, the returned slot is empty and begins after the retry interval.
        """
        booked = max(1, min(mails, int(self._per_second * MAX_SLOT_SECONDS)))
        try:
            async with self._pool.acquire() as connection:
                seconds = await rate_limit.book(connection, seconds=booked / self._per_second)
        except TRANSIENT_ERRORS as error:
            log.warning("database unavailable, retrying", role="deliver", error=type(error).__name__)
            return Slot(0, time.monotonic() + RETRY_SECONDS)
        return Slot(booked, time.monotonic() + seconds)
