"""The rhythm of every role: do work while there is some, then wait for a nudge or for the next sweep."""

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable

import structlog

from coupons.database import TRANSIENT_ERRORS
from coupons.errors import LeaseLost

log = structlog.get_logger()
RETRY_SECONDS = 2.0
"""Pause after the database could not be reached; nothing is lost meanwhile, the work stays where it is."""


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it is set within so many seconds; waits until then."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


class Signals:
    """What the parts of a worker process tell each other: there is work for a role; it is time to stop."""

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
        """Until there may be work for the role, but not longer than so many seconds."""
        event = self._work[role]
        if await happens(event, seconds) and not self.stopping:
            event.clear()

    async def stopped(self) -> None:
        """Until it is time to stop."""
        await self._stop.wait()

    async def sleep(self, seconds: float) -> None:
        """So long, or until it is time to stop."""
        await happens(self._stop, seconds)


Step = Callable[[], Awaitable[float | None]]
"""Does a piece of work; returns AT_ONCE, or the seconds until there is work that nobody will announce, if known."""
AT_ONCE = 0.0
LEAST_PAUSE_SECONDS = 0.1
"""Work that is due and yet cannot be had, because somebody else is just looking at it, is not asked for faster."""


async def work(role: str, step: Step, signals: Signals, *, sweep_seconds: float) -> None:
    """Repeat `step` until the process is to stop."""
    while not signals.stopping:
        pause = await attempt(role, step)
        if pause != AT_ONCE and not signals.stopping:
            sweep = sweep_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - workers should not sweep in step
            await signals.wait(role, sweep if pause is None else min(max(pause, LEAST_PAUSE_SECONDS), sweep))


async def attempt(role: str, step: Step) -> float | None:
    """What the step returns; after an error, which is told and ends nothing, AT_ONCE."""
    try:
        return await step()
    except LeaseLost as lost:
        log.warning("lease lost", role=role, work=str(lost))
        return AT_ONCE
    except TRANSIENT_ERRORS as error:
        log.warning("database trouble, trying again", role=role, error=type(error).__name__)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # A library gave up what it waited for, and nobody asked this role to end, which it would do unseen.
        log.warning("given up by a library, trying again", role=role, at=place(error))
    except Exception as error:  # noqa: BLE001 - a defect met by one piece of work must not stop the others
        log.error("internal error", role=role, error=type(error).__name__, at=place(error))  # noqa: TRY400 - its text may hold codes
    await asyncio.sleep(RETRY_SECONDS)
    return AT_ONCE


def place(error: BaseException) -> str:
    """Where an error comes from, without its text."""
    return " < ".join(
        f"{frame.name}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__)[-4:])
    )
