"""Renew a lease while the leased work runs, and stop the work when the lease is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from coupons.database import TRANSIENT_ERRORS
from coupons.errors import LeaseLost, WorkStopped


@asynccontextmanager
async def renewed_lease(
    renew: Callable[[], Awaitable[None]], *, every: float, expires_after: float, patience: float | None = None
) -> AsyncIterator[None]:
    """Call `renew` at each interval while the block runs. Cancel the block if the lease is not renewed in time.

    A renewal may take `patience` seconds, by default as long as the interval; then another one is tried.

    Raises:
        LeaseLost: `renew` raised it, or the database was unavailable until the lease expired.
    """
    body = asyncio.current_task()
    assert body is not None  # noqa: S101 - an async context manager runs in a task
    running = True

    def stop(heart: asyncio.Task[None]) -> None:
        if running and not heart.cancelled():  # after the block has ended, its caller must not be cancelled
            body.cancel("lease lost")

    heart = asyncio.create_task(_beat(renew, every, expires_after, patience or every))
    heart.add_done_callback(stop)
    try:
        yield
    except asyncio.CancelledError:
        if heart.done() and not heart.cancelled():
            body.uncancel()
            raise LeaseLost(_reason(heart.exception())) from heart.exception()
        raise
    finally:
        running = False
        heart.cancel()


def _reason(error: BaseException | None) -> str:
    return str(error) if isinstance(error, WorkStopped) else f"not renewed in time: {type(error).__name__}"


async def _beat(renew: Callable[[], Awaitable[None]], every: float, expires_after: float, patience: float) -> None:
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(every)
        asked = time.monotonic()
        try:
            # After a renewal that hangs, there is time for another one before the lease expires.
            async with asyncio.timeout(min(patience, renewed + expires_after - asked)):
                await renew()
            renewed = asked
        except TRANSIENT_ERRORS:
            if time.monotonic() + every > renewed + expires_after:
                raise
