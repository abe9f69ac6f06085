"""The in-flight window: it limits how many mails of a worker may have an intent to send and no recorded outcome."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from workers.delivery.in_flight import InFlight
from workers.loops import wait_until_set

WINDOW_SECONDS = 1.0
"""The window has room for as many mails as the relays accept in this time."""
_MEASURED_SECONDS = 0.1
_WEIGHT = 0.3  # of the newest measurement


class InFlightWindow:
    """Limits the mails in flight to what the relays accept in a second, and never allows more than `most`.

    So a pause takes effect within two seconds, however slow a relay is, and a killed worker leaves few mails uncertain.
    The batches that a worker delivers at the same time share the window. While a batch is being claimed or its codes
    are being assigned, the others have the whole window. Mails on stalled connections, whose replies may take minutes,
    count only towards `most`.
    """

    def __init__(self, most: int, *, least: int, stalled_owners: Callable[[], Sequence[object]] = tuple) -> None:
        """`least` lets every connection transmit one mail and have the next one ready.

        `stalled_owners` lists the `InFlight` of each mail on a stalled connection.
        """
        self._most = most
        self._least = least
        self._stalled_owners = stalled_owners
        self._shares: set[Share] = set()
        self._freed = asyncio.Event()
        self._per_second = 0.0
        self._outcomes = 0
        self._since = time.monotonic()

    @contextmanager
    def share(self, in_flight: InFlight) -> Iterator["Share"]:
        """Give a batch a share of the window while the block runs."""
        share = Share(self, in_flight)
        self._shares.add(share)
        try:
            yield share
        finally:
            self._shares.remove(share)
            self._freed.set()

    @property
    def size(self) -> int:
        return min(self._most, max(self._least, int(self._per_second * WINDOW_SECONDS)))

    @property
    def in_flight(self) -> int:
        return sum(len(share.in_flight) for share in self._shares)

    def room_for(self, share: "Share") -> int:
        """Return how many more mails this batch may have in flight; the number is negative if it has too many."""
        stalled = self._stalled_owners()
        part = self.size // max(1, sum(each.wants_room for each in self._shares))
        unused = max(1, part) - (len(share.in_flight) - stalled.count(share.in_flight))
        in_flight = self.in_flight
        return min(unused, self.size - in_flight + len(stalled), self._most - in_flight)

    def release(self, mails: int) -> None:
        """Release mails with recorded outcomes: measure the relays' speed and wake the batches that wait for room."""
        self._freed.set()
        self._outcomes += mails
        elapsed = time.monotonic() - self._since
        if elapsed >= _MEASURED_SECONDS:
            self._per_second += _WEIGHT * (self._outcomes / elapsed - self._per_second)
            self._outcomes, self._since = 0, time.monotonic()

    async def wait_for_room(self, seconds: float) -> None:
        """Wait until another batch has freed room, but at most the given seconds."""
        self._freed.clear()
        await wait_until_set(self._freed, seconds)


class Share:
    """The part of the window that one batch may use."""

    def __init__(self, window: InFlightWindow, in_flight: InFlight) -> None:
        self.in_flight = in_flight
        self.wants_room = True
        """A batch that has no mail to hand over leaves its part of the window to the others."""
        self._window = window

    def room(self, wanted: int) -> int:
        """Return how many of the `wanted` mails may be handed over with the next flush."""
        self.wants_room = wanted > 0
        return max(0, min(wanted, self.in_flight.settled + self._window.room_for(self)))

    def release(self, mails: int) -> None:
        self._window.release(mails)

    async def wait_for_room(self, seconds: float) -> None:
        if not self.room(1):
            await self._window.wait_for_room(seconds)
