"""Blocking calls beside the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], *, interrupt: Callable[[], None] | None = None) -> T:
    """What the call returns or raises; a caller that is cancelled waits for its end, which `interrupt` brings about.

    `asyncio.to_thread` alone leaves the thread behind, and whoever then closes the file closes it under its hands: the
    descriptor may by then be another file's.
    """
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if interrupt:
            interrupt()
        await asyncio.gather(running, return_exceptions=True)
        raise
