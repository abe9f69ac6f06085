"""The limit that all workers share: so many mails an hour, whoever sends them."""

import time
from dataclasses import dataclass

import structlog

from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.store import rate_limit
from workers.loops import RETRY_SECONDS

log = structlog.get_logger()

BOOKED_SECONDS = 1.0
"""A worker books at most so many seconds' mails at once."""


@dataclass(frozen=True, slots=True)
class Booking:
    """So many mails may leave, not before `at` (of `time.monotonic`)."""

    mails: int
    at: float


class Throttle:
    def __init__(self, *, pool: Pool, per_hour: int) -> None:
        self._pool = pool
        self._per_second = per_hour / 3_600

    async def book(self, mails: int) -> Booking:
        """The next turns that nobody has booked: nobody polls, and who waits knows for how long.

        While the database is away these are no turns, after a while.
        """
        booked = max(1, min(mails, int(self._per_second * BOOKED_SECONDS)))
        try:
            async with self._pool.acquire() as connection:
                seconds = await rate_limit.book(connection, seconds=booked / self._per_second)
        except TRANSIENT_ERRORS as error:
            log.warning("database trouble, no turn was booked", error=type(error).__name__)
            return Booking(0, time.monotonic() + RETRY_SECONDS)
        return Booking(booked, time.monotonic() + seconds)
