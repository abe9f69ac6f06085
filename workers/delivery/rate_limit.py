"""The rate limit that all workers share: a number of mails per hour, booked in the database."""

import time
from dataclasses import dataclass

import structlog

from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.store import rate_limit
from workers.loops import RETRY_SECONDS

log = structlog.get_logger()

MAX_SLOT_SECONDS = 1.0
"""A worker books at most the mails of this time at once."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A number of mails that may leave, not before `at` (of `time.monotonic`)."""

    mails: int
    at: float

    @property
    def available(self) -> int:
        """The mails that may leave now."""
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
        """Book the next free slot of all workers, for at most `mails`. No worker polls: a slot says when it comes.

        While the database is unavailable the slot is empty, and comes after a retry interval.
        """
        booked = max(1, min(mails, int(self._per_second * MAX_SLOT_SECONDS)))
        try:
            async with self._pool.acquire() as connection:
                seconds = await rate_limit.book(connection, seconds=booked / self._per_second)
        except TRANSIENT_ERRORS as error:
            log.warning("database unavailable, retrying", role="deliver", error=type(error).__name__)
            return Slot(0, time.monotonic() + RETRY_SECONDS)
        return Slot(booked, time.monotonic() + seconds)
