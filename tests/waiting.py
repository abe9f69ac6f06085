"""Wait with a limit: `eventually` polls a fact and blocks, `until` is awaited, `cancel` ends a task.

Tests wait for facts, never for time.
"""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_SECONDS = 30.0
"""The default limit. A fact usually holds within a tenth of this time."""
PROCESS_POLL_SECONDS = 0.05
"""The interval of `eventually`, which asks other processes."""
POLL_SECONDS = 0.01
"""The interval of `until`, which mostly asks the test's own process or one database connection."""

T = TypeVar("T")


def eventually(
    fact: Callable[[], T | None],
    what: str,
    *,
    within: float = LIMIT_SECONDS,
    every: float = PROCESS_POLL_SECONDS,
    seen: Callable[[], object] | None = None,
) -> T:
    """Call `fact` until it returns a true value, and return that value.

    Raises AssertionError after `within` seconds. The message names `what` was expected and shows the last state:
    the value of `seen`, or by default the last value of `fact`.
    """
    deadline = time.monotonic() + within
    while not (found := fact()):
        if time.monotonic() >= deadline:
            raise AssertionError(_expired(what, within, seen() if seen else found))
        time.sleep(every)
    return found


async def until(
    fact: Callable[[], object],
    what: str = "the condition",
    *,
    within: float = LIMIT_SECONDS,
    every: float = POLL_SECONDS,
    seen: Callable[[], object] | None = None,
) -> None:
    """Wait like `eventually` without blocking the event loop; `fact` and `seen` may be coroutine functions.

    The limit also ends a call of `fact` that does not return.
    """
    limit = asyncio.timeout(within)
    found: object = None
    try:
        async with limit:
            while not (found := await _value(fact)):  # noqa: ASYNC110 - mostly the fact is in another process
                await asyncio.sleep(every)
    except TimeoutError:
        if not limit.expired():  # raised by the fact itself
            raise
        raise AssertionError(_expired(what, within, await _value(seen) if seen else found)) from None


async def cancel(task: asyncio.Task[object], *, within: float = LIMIT_SECONDS) -> None:
    """Cancel the task and wait until it ends, with any result. Raises AssertionError if it still runs after `within`.

    Awaiting a cancelled task has no limit, and a library may lose the cancellation.
    """
    task.cancel()
    _, running = await asyncio.wait([task], timeout=within)
    if running:
        raise AssertionError(_expired("a cancelled task to end", within, task.get_stack()))


async def _value(fact: Callable[[], object]) -> object:
    value = fact()
    return await value if inspect.isawaitable(value) else value


def _expired(what: str, within: float, last: object) -> str:
    return f"waited {within:g} s for {what}; last state: {last!r}"
