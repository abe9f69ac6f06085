"""The loop of every role: do all work that is due, then wait for a nudge or for the next sweep."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from coupons.database import TRANSIENT_ERRORS
from coupons.errors import LeaseLost, SendingBlocked
from coupons.foreign_errors import error_location

log = structlog.get_logger()
RETRY_SECONDS = 2.0
"""Delay after a transient error. No work is lost in the meantime, because it is stored in the database."""


async def wait_until_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, but at most the given seconds; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class Signals:
    """Signals between the parts of a worker process: there is work for a role, or the process is stopping."""

    def __init__(self, roles: tuple[str, ...]) -> None:
        self._work = {role: asyncio.Event() for role in roles}
        self._stop = asyncio.Event()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def wake(self, role: str) -> None:
        if role in self._work:
            self._work[role].set()

    def stop(self) -> None:
        self._stop.set()
        for event in self._work.values():
            event.set()

    async def wait(self, role: str, seconds: float) -> None:
        """Wait until there may be work for the role, but at most the given seconds."""
        event = self._work[role]
        if await wait_until_set(event, seconds) and not self.stopping:
            event.clear()

    async def wait_for_stop(self) -> None:
        await self._stop.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake up when the process stops."""
        await wait_until_set(self._stop, seconds)


Step = Callable[[], Awaitable[float | None]]
"""Does one unit of work and returns the pause of the role: NO_PAUSE if there may be more work, the seconds until the
next work is due (no nudge announces it), or None if that time is not known.
"""
NO_PAUSE = 0.0
MIN_PAUSE_SECONDS = 0.1
"""The shortest pause. It limits how often a role asks for work that is due but locked by another worker."""


async def work(role: str, step: Step, signals: Signals, *, sweep_seconds: float) -> None:
    """Repeat `step` until the process stops."""
    while not signals.stopping:
        pause = await attempt(role, step)
        if pause != NO_PAUSE and not signals.stopping:
            sweep = sweep_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - workers should not sweep at the same time
            await signals.wait(role, sweep if pause is None else min(max(pause, MIN_PAUSE_SECONDS), sweep))


async def attempt(role: str, step: Step) -> float | None:
    """Run the step. An error is logged and does not end the loop, which repeats the step."""
    try:
        return await step()
    except LeaseLost as lost:
        log.warning("lease lost", role=role, work=str(lost))
        return NO_PAUSE
    except SendingBlocked as blocked:
        log.warning("sending blocked by the restore guard", role=role, work=str(blocked))
        return NO_PAUSE
    except TRANSIENT_ERRORS as error:
        log.warning("database unavailable, retrying", role=role, error=type(error).__name__)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # A library cancelled its own call. This task was not cancelled, but would end without any log event.
        log.warning("unexpected cancellation, retrying", role=role, at=error_location(error))
    except Exception as error:  # noqa: BLE001 - an error in one piece of work must not stop the others
        log.error("internal error", role=role, error=type(error).__name__, at=error_location(error))  # noqa: TRY400 - its text may hold codes
    await asyncio.sleep(RETRY_SECONDS)
    return NO_PAUSE
