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
    Mails on silent connections, whose answers may be long in coming, count towards `most` only.
    """

    def __init__(self, most: int, *, least: int) -> None:
        """`least`: enough for every connection to have a mail under way and one behind it."""
        self._most = most
        self._least = least
        self._shares: set[Share] = set()
        self._in_flight = 0
        self._freed = asyncio.Event()
        self._per_second = 0.0
        self._outcomes = 0
        self._since = time.monotonic()

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """A batch's part, for as long as the block runs."""
        share = Share(self)
        share.join()
        try:
            yield share
        finally:
            share.leave()
            share.give_back(share.taken)

    @property
    def size(self) -> int:
        return min(self._most, max(self._least, int(self._per_second * SECONDS)))

    @property
    def free(self) -> int:
        return self.size - self._in_flight

    @property
    def left(self) -> int:
        """How many more there may ever be in hand."""
        return self._most - self._in_flight

    @property
    def part(self) -> int:
        """What each of those that share it may have."""
        return max(1, self.size // max(1, len(self._shares)))

    def join(self, share: "Share") -> None:
        self._shares.add(share)

    def leave(self, share: "Share") -> None:
        self._shares.discard(share)

    def note(self, outcomes: int) -> None:
        """So many more have come in."""
        self._outcomes += outcomes
        elapsed = time.monotonic() - self._since
        if elapsed >= _MEASURED_SECONDS:
            self._per_second += _WEIGHT * (self._outcomes / elapsed - self._per_second)
            self._outcomes, self._since = 0, time.monotonic()

    def move(self, mails: int) -> None:
        """So many more in hand; or fewer, of which those who wait for room are told."""
        self._in_flight += mails
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

    def join(self) -> None:
        """It asks for room again: the others leave it its part."""
        self._window.join(self)

    def leave(self) -> None:
        """It asks for no more room: the others need not leave it any."""
        self._window.leave(self)

    def room(self, *, freed: int, silent: int = 0, all_silent: int = 0) -> int:
        """For how many mails there is room once so many of the batch's own are out of hand.

        `silent` of its own, and `all_silent` of all in hand, are on silent connections, and in nobody's way.
        """
        window = self._window
        part, free = window.part - (self.taken - silent), window.free + all_silent
        return max(0, freed + min(part, free, window.left))

    def take(self, mails: int) -> None:
        self.taken += mails
        self._window.move(mails)

    def give_back(self, mails: int) -> None:
        self.taken -= mails
        self._window.move(-mails)
