"""Adapts to a relay: how many connections it accepts, and how many seconds it needs per mail."""

from collections.abc import Iterable

ADJUST_SECONDS = 1
"""The number of connections is halved at most once in this time, and grows by one at most once in this time."""
SLOW_SECONDS = 1.0
SLOW_FACTOR = 10
"""A relay is slow if a mail takes longer than SLOW_SECONDS and more than SLOW_FACTOR times as long as on the fastest
relay.
"""
_SMOOTHING = 0.2  # the weight of the newest mail


class Congestion:
    """The number of connections to a relay: it grows by one while mails are answered and is halved on backpressure."""

    __slots__ = ("_allowed", "_grown_at", "_halved_at", "limit", "share")

    def __init__(self, share: int) -> None:
        """`share`: the number of connections while the relay has no congestion."""
        self.share = share
        self.limit = share
        """The number of connections that may be open now."""
        self._allowed: float = share
        self._halved_at = self._grown_at = 0.0

    def halve(self, now: float) -> None:
        """Halve the number of connections, because the relay asks for less."""
        if now - self._halved_at >= ADJUST_SECONDS:
            self._halved_at = self._grown_at = now
            self._allow(max(1, self._allowed / 2))

    def cap(self, connections: int, now: float) -> None:
        """Limit the number to `connections`, because the relay refused another one."""
        self._allow(max(1, min(self._allowed, connections)))
        self._grown_at = now

    def grow(self, now: float) -> bool:
        """Record that a mail was answered; return whether one more connection is allowed than before."""
        if self._allowed >= self.share or now - self._grown_at < ADJUST_SECONDS:
            return False
        self._grown_at = now
        self._allow(min(self.share, self._allowed + 1))
        return True

    def _allow(self, connections: float) -> None:
        self._allowed, self.limit = connections, int(connections)


class Pace:
    """The smoothed average of the seconds that a relay needs per mail; 0 while it is not known."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def record(self, seconds: float) -> bool:
        """Add the time of one mail; return whether the relay may be slow."""
        self.seconds += (seconds - self.seconds) * _SMOOTHING
        return self.seconds > SLOW_SECONDS

    def reset(self) -> None:
        self.seconds = 0.0

    def is_much_slower_than(self, others: Iterable["Pace"]) -> bool:
        """Return whether this relay takes more than SLOW_FACTOR times as long as the fastest of the others."""
        known = [other.seconds for other in others if other.seconds]
        return bool(known) and self.seconds > SLOW_FACTOR * min(known)
