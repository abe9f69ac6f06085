"""Runs blocking calls in threads."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(call: Callable[[], T], *, interrupt: Callable[[], None] | None = None) -> T:
    """Run the call in a thread. If the task is cancelled, end the call with `interrupt` and wait until it has ended.

    `asyncio.to_thread` alone abandons the thread, which may then use a file descriptor that is already closed and
    reused for another file.
    """
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if interrupt:
            interrupt()
        await asyncio.gather(running, return_exceptions=True)
        raise
