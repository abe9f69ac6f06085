"""The lazy timer, which limits the time of a connection's steps."""

import asyncio

from coupons.smtp.lazy_timer import LazyTimer

STEP = 0.05


async def fired_after(*deadlines: float, cancelled: bool = False) -> float | None:
    """Set these deadlines one after the other; return the seconds until the timer fires, or None if it does not."""
    loop = asyncio.get_running_loop()
    fired: asyncio.Future[float] = loop.create_future()
    start = loop.time()
    timer = LazyTimer(lambda: fired.set_result(loop.time() - start))
    for deadline in deadlines:
        timer.set(start + deadline)
    if cancelled:
        timer.cancel()
    try:
        return await asyncio.wait_for(fired, 10 * STEP)
    except TimeoutError:
        return None


async def test_it_fires_at_its_deadline() -> None:
    """The timer does not fire before its deadline."""
    fired = await fired_after(STEP)
    assert fired is not None
    assert fired >= STEP


async def test_a_later_deadline_replaces_an_earlier_one() -> None:
    """The callback does not run at the first deadline."""
    fired = await fired_after(STEP, 3 * STEP)
    assert fired is not None
    assert fired >= 3 * STEP


async def test_an_earlier_deadline_replaces_a_later_one() -> None:
    """The callback does not wait for the first deadline."""
    fired = await fired_after(100 * STEP, STEP)
    assert fired is not None
    assert fired >= STEP


async def test_a_cancelled_timer_does_not_fire() -> None:
    """A closed connection has no time limits, so its timer is cancelled."""
    assert await fired_after(STEP, cancelled=True) is None
