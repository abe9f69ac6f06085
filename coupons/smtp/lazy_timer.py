"""A timer whose deadline can be moved once per mail at almost no cost."""

import asyncio
from collections.abc import Callable


class LazyTimer:
    """Calls `callback` at its deadline. Moving the deadline later only stores it: the loop's timer is set again when it
    fires.
    """

    __slots__ = ("_callback", "_fires_at", "_handle", "_loop", "deadline")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = 0.0  # uvloop rounds `TimerHandle.when()` to milliseconds
        self.deadline = 0.0

    def set(self, deadline: float) -> None:
        """Move the deadline, which is a time of the loop."""
        self.deadline = deadline
        if self._handle is None or self._fires_at > deadline:
            self._schedule()

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        self.cancel()
        self._handle = self._loop.call_at(self.deadline, self._fire)
        self._fires_at = self.deadline

    def _fire(self) -> None:
        self._handle = None
        if self._loop.time() < self.deadline:
            self._schedule()
        else:
            self._callback()
