"""Keep a lease while the work under it runs; stop the work when the lease is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from coupons.database import TRANSIENT_ERRORS
from coupons.errors import LeaseLost


@asynccontextmanager
async def renewed_lease(
    renew: Callable[[], Awaitable[None]], *, every: float, expires_after: float
) -> AsyncIterator[None]:
    """Call `renew` every so many seconds while the block runs; cancel the block if that fails until it expires.

    Raises:
        LeaseLost: `renew` said so, or the database could not be asked for so long that others have taken over.
    """
    body = asyncio.current_task()
    assert body is not None  # noqa: S101 - an async context manager runs in a task
    running = True

    def stop(heart: asyncio.Task[None]) -> None:
        if running and not heart.cancelled():  # a block that has just ended must not be cancelled in what follows it
            body.cancel("lease lost")

    heart = asyncio.create_task(_beat(renew, every, expires_after))
    heart.add_done_callback(stop)
    try:
        yield
    except asyncio.CancelledError:
        if heart.done() and not heart.cancelled():
            body.uncancel()
            raise LeaseLost(str(heart.exception())) from heart.exception()
        raise
    finally:
        running = False
        heart.cancel()


async def _beat(renew: Callable[[], Awaitable[None]], every: float, expires_after: float) -> None:
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(every)
        asked = time.monotonic()
        try:
            async with asyncio.timeout(min(every, renewed + expires_after - asked)):  # one that hangs is not the last
                await renew()
            renewed = asked
        except TRANSIENT_ERRORS:
            if time.monotonic() + every > renewed + expires_after:
                raise
