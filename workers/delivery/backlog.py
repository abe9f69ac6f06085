"""The mails of one batch that are not in flight and have no outcome yet."""

import time
from collections import deque
from collections.abc import Iterable

from coupons.store.deliveries import Delivery


class Backlog:
    """Mails that wait to be handed over, and postponed mails, which are retried after some time."""

    def __init__(self) -> None:
        self.waiting: deque[Delivery] = deque()
        self._postponed: list[Delivery] = []
        self._postponed_at = 0.0
        self._is_closed = False

    @property
    def has_postponed(self) -> bool:
        """Whether any mail will be retried."""
        return bool(self._postponed) and not self._is_closed

    def postpone(self, deliveries: Iterable[Delivery]) -> None:
        if postponed := [*deliveries]:
            self._postponed.extend(postponed)
            self._postponed_at = time.monotonic()

    def postpone_waiting(self) -> None:
        self.postpone(self.waiting)
        self.waiting.clear()

    def retry_postponed(self, *, after_seconds: float) -> bool:
        """If no mail was postponed in the last `after_seconds`, move the postponed mails to `waiting`, return True."""
        if self._is_closed or not self._postponed or time.monotonic() < self._postponed_at + after_seconds:
            return False
        self.waiting.extend(self._postponed)
        self._postponed.clear()
        return True

    def close(self) -> None:
        """Postpone all waiting mails for good: no mail of this batch is handed over any more."""
        self.postpone_waiting()
        self._is_closed = True
