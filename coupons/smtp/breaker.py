"""Whether a relay is in rotation: a circuit breaker with exponential back-off."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

FAILURES_IN_A_ROW = 5
"""After this many soft failures without a sent mail in between, the relay leaves the rotation for a while. Without this
limit, a relay that dies after each final dot, or answers 421 to each mail, would be handed thousands of mails per
second, each over a new connection.
"""


QUOTA_FACTOR = 60
"""The back-off is longer by this factor when the relay accepts no more mail. By default it begins with a minute and
doubles up to an hour: a daily quota ends once per day, and each attempt finds out whether it has ended.
"""


class Fault(Enum):
    """Why a relay is out of rotation."""

    CLOSED = "refuses connections"
    FAILING = "fails"
    SLOW = "is slow"
    QUOTA = "accepts no more mail"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why and since when a relay fails. The trouble ends when the relay accepts a mail."""

    fault: Fault
    reason: str
    since: datetime


class Breaker:
    """A failing relay is out of rotation (open) during the back-off; then one connection tries again (half-open)."""

    __slots__ = ("_failures", "_first_seconds", "_max_seconds", "backoff_seconds", "retry_at", "trouble")

    def __init__(self, *, first_seconds: float, max_seconds: float) -> None:
        """The back-off begins with `first_seconds` and doubles with each failure, up to `max_seconds`."""
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._failures = 0  # since the last sent mail
        self.backoff_seconds = 0.0
        self.retry_at: float | None = None
        """The time of the loop before which no connection is opened."""
        self.trouble: Trouble | None = None

    @property
    def is_open(self) -> bool:
        """Whether the relay is out of rotation."""
        return self.trouble is not None and self.retry_at is not None

    @property
    def is_half_open(self) -> bool:
        return self.trouble is not None and self.retry_at is None

    def record_sent(self) -> bool:
        """Record that the relay accepted a mail; return whether the relay was in trouble until now."""
        had_trouble, self.trouble = self.trouble is not None, None
        self._failures, self.backoff_seconds = 0, 0.0
        return had_trouble

    def record_failure(self) -> bool:
        """Count a soft failure of the relay; return whether the relay must leave the rotation."""
        self._failures += 1
        return self._failures >= FAILURES_IN_A_ROW or self.trouble is not None

    def trip(self, fault: Fault, reason: str) -> None:
        """Mark the relay as in trouble. If it is in trouble already, `since` stays as it is."""
        since = self.trouble.since if self.trouble is not None else datetime.now(UTC)
        self.trouble = Trouble(fault, reason, since)

    def back_off(self, now: float) -> bool:
        """Set `retry_at` and return True. If it is set already, return False: simultaneous failures count as one.

        The time has jitter, so that workers do not all retry at the same time.
        """
        if self.retry_at is not None:
            return False
        factor = QUOTA_FACTOR if self.trouble is not None and self.trouble.fault is Fault.QUOTA else 1
        first, most = factor * self._first_seconds, factor * self._max_seconds
        self.backoff_seconds = min(max(2 * self.backoff_seconds, first), most)
        self.retry_at = now + self.backoff_seconds * random.uniform(0.5, 1)  # noqa: S311 - not a secret
        return True

    def end_backoff(self) -> None:
        self.retry_at = None
