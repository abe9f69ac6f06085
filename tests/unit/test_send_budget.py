"""The in-flight window and the rate limit together decide how many mails may be handed over."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from workers.delivery.in_flight import InFlight
from workers.delivery.in_flight_window import InFlightWindow, Share
from workers.delivery.rate_limit import RateLimit, Slot
from workers.delivery.send_budget import SendBudget
from workers.loops import Signals

SIZE = 20


class Slots:
    """A rate limit that grants these slots, one after the other."""

    def __init__(self, *slots: Slot) -> None:
        self.asked: list[int] = []
        self._slots = deque(slots)

    async def book(self, mails: int) -> Slot:
        self.asked.append(mails)
        return self._slots.popleft()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed by the test."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@contextmanager
def budget(slots: Slots | None, in_flight: InFlight | None = None) -> Iterator[SendBudget]:
    with InFlightWindow(SIZE, least=SIZE).share(in_flight or InFlight()) as share:
        yield budget_of(share, slots)


def budget_of(share: Share, slots: Slots | None) -> SendBudget:
    return SendBudget(share, cast("RateLimit | None", slots), Signals(("deliver",)))


async def test_without_a_rate_limit_the_window_decides() -> None:
    """A batch gets as many mails as it wants, up to the room in the window."""
    with budget(None) as sends:
        assert [await sends.acquire(wanted) for wanted in (7, 100)] == [7, SIZE]


async def test_a_slot_is_used_up_before_the_next_is_booked(now: list[float]) -> None:
    """Mails that were acquired and not handed over are returned to the slot."""
    slots = Slots(Slot(5, now[0]), Slot(5, now[0]))
    with budget(slots) as sends:
        assert await sends.acquire(3) == 3
        sends.refund(1)
        assert await sends.acquire(10) == 3
        assert await sends.acquire(10) == 5
    assert slots.asked == [3, 10]


async def test_no_mail_leaves_before_its_slot(now: list[float]) -> None:
    """While a slot has not begun, no other slot is booked."""
    slots = Slots(Slot(5, now[0] + 2))
    with budget(slots) as sends:
        assert await sends.acquire(5) == 0
        now[0] += 1
        assert await sends.acquire(5) == 0
        now[0] += 1
        assert await sends.acquire(5) == 5
    assert slots.asked == [5]


async def test_a_booking_that_failed_is_retried(now: list[float]) -> None:
    """While the database is unavailable, a booking returns an empty slot, which must not stop the batch forever."""
    slots = Slots(Slot(0, now[0] + 2), Slot(5, now[0] + 2))
    with budget(slots) as sends:
        assert await sends.acquire(5) == 0
        now[0] += 2
        assert await sends.acquire(5) == 5


async def test_no_slot_is_booked_without_room_in_the_window(now: list[float]) -> None:
    """A booked slot that waits for room would delay the other workers."""
    mails = InFlight()
    mails.begin_flush(range(SIZE))
    mails.commit(may_send=True)
    slots = Slots()
    with budget(slots, mails) as sends:
        assert await sends.acquire(5) == 0
    assert slots.asked == []


async def test_a_batch_without_room_waits_for_another_one() -> None:
    """The batch continues as soon as the other batch has recorded outcomes."""
    window, busy = InFlightWindow(SIZE, least=SIZE), InFlight()
    busy.begin_flush(range(SIZE))
    busy.commit(may_send=True)
    with window.share(busy) as share, window.share(InFlight()) as waiting:
        waits = asyncio.create_task(budget_of(waiting, None).wait())
        await asyncio.sleep(0)
        assert not waits.done()
        for number in range(SIZE):
            busy.settle(number, None)
        busy.begin_flush([])
        busy.commit(may_send=True)
        budget_of(share, None).release(SIZE)
        async with asyncio.timeout(0.5):
            await waits
