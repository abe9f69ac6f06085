"""How many mails of a worker may be between intent and recorded outcome."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from workers.loops import happens

SECONDS = 1.0
_MEASURED_SECONDS = 0.1
_WEIGHT = 0.3  # of the newest measurement


class Window:
    """As many as the relays take in a second, and never more than `most`.

    So a pause acts within two seconds however slow a relay is, and a worker that is killed leaves few uncertain. The
    batches that a worker delivers at the same time share it; while one is claimed and bound, the others have it all.
    """

    def __init__(self, most: int, *, least: int) -> None:
        """`least`: enough for every connection to have a mail under way and one behind it."""
        self._most = most
        self._least = least
        self._shares = 0
        self._in_hand = 0
        self._freed = asyncio.Event()
        self._per_second = 0.0
        self._outcomes = 0
        self._since = time.monotonic()

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """A batch's part, for as long as the block runs."""
        share = Share(self)
        self._shares += 1
        try:
            yield share
        finally:
            self._shares -= 1
            share.give_back(share.taken)

    @property
    def size(self) -> int:
        return min(self._most, max(self._least, int(self._per_second * SECONDS)))

    @property
    def free(self) -> int:
        return self.size - self._in_hand

    @property
    def part(self) -> int:
        """What each of those that share it may have."""
        return max(1, self.size // max(1, self._shares))

    def note(self, outcomes: int) -> None:
        """So many more have come in."""
        self._outcomes += outcomes
        elapsed = time.monotonic() - self._since
        if elapsed >= _MEASURED_SECONDS:
            self._per_second += _WEIGHT * (self._outcomes / elapsed - self._per_second)
            self._outcomes, self._since = 0, time.monotonic()

    def move(self, mails: int) -> None:
        """So many more in hand; or fewer, of which those who wait for room are told."""
        self._in_hand += mails
        if mails < 0:
            self._freed.set()

    async def wait(self, seconds: float) -> None:
        """Until somebody has freed some room, but no longer than so many seconds."""
        self._freed.clear()
        await happens(self._freed, seconds)


class Share:
    def __init__(self, window: Window) -> None:
        self.taken = 0
        self._window = window

    def room(self, *, freed: int) -> int:
        """For how many mails there is room once so many of the batch's own are out of hand."""
        return max(0, freed + min(self._window.part - self.taken, self._window.free))

    def take(self, mails: int) -> None:
        self.taken += mails
        self._window.move(mails)

    def give_back(self, mails: int) -> None:
        self.taken -= mails
        self._window.move(-mails)
