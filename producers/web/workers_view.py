"""The workers, and the commands that no worker takes, for the console and the API."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from coupons.database import Connection, Pool
from coupons.store import heartbeats
from coupons.store.heartbeats import Worker, describe_uncovered
from producers.pending import PendingCommands, list_pending
from producers.web import ACQUIRE_SECONDS

CACHE_SECONDS = 5.0
"""How long the broker's answer is used: many pages may be open, and each asks every second."""


@dataclass(frozen=True, slots=True)
class Workers:
    workers: Sequence[Worker]
    uncovered_roles: Sequence[str]
    """The roles that no live worker has."""
    pending: Sequence[PendingCommands]
    """The commands that wait for a worker with one of these roles, or in a queue without a consumer."""

    @property
    def warning(self) -> str | None:
        return describe_uncovered(self.uncovered_roles) if self.uncovered_roles else None


class WorkersView:
    def __init__(self, *, pool: Pool, broker_url: str) -> None:
        self._pool = pool
        self._broker_url = broker_url
        self._pending: Sequence[PendingCommands] = ()
        self._asked_for: Sequence[str] = ()
        self._ask_at = 0.0

    async def look(self) -> Workers:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await self.read(connection)

    async def read(self, connection: Connection) -> Workers:
        workers = await heartbeats.list_workers(connection)
        uncovered = heartbeats.uncovered_roles(workers)
        return Workers(workers, uncovered, await self._list_pending(uncovered))

    async def _list_pending(self, roles: Sequence[str]) -> Sequence[PendingCommands]:
        """Ask the broker, but not for each request."""
        if roles != self._asked_for or time.monotonic() >= self._ask_at:
            self._asked_for, self._ask_at = roles, time.monotonic() + CACHE_SECONDS
            self._pending = await list_pending(self._broker_url, roles)
        return self._pending
