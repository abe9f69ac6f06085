"""A worker of the model: the real roles and a real database, with simulated relays."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, cast

import pytest

from coupons.database import TRANSIENT_ERRORS, Pool, open_pool
from coupons.errors import Conflict, LeaseLost
from coupons.settings import Settings
from coupons.smtp import Relays
from tests.faults.model_interaction_points import Fault, InteractionPoints, WatchedPool, log_step
from tests.faults.model_network import ModelRelays, Network
from workers.delivery.deliverer import Deliverer
from workers.importer import Importer
from workers.intake import Intake
from workers.loops import Signals
from workers.nudges import Nudges
from workers.preparer import Preparer
from workers.sweeper import Sweeper

CONNECTIONS = 6
LIMIT_SECONDS = 30
RETRY_SECONDS = 0.01
"""Delay of a retry after a lost connection."""
ROLES = ("import", "sendout", "deliver")


def shorten_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers retry at once. They need not wait, because the database is always available."""
    for name, module in sys.modules.items():
        if name.startswith("workers.") and hasattr(module, "RETRY_SECONDS"):
            monkeypatch.setattr(module, "RETRY_SECONDS", RETRY_SECONDS)


class Worker:
    """A simulated worker process. Its work finishes, freezes or dies."""

    def __init__(
        self, name: str, real_pool: Pool, network: Network, settings: Settings, background: asyncio.TaskGroup
    ) -> None:
        self.points = InteractionPoints(name, real_pool)
        self.relays = ModelRelays(network, self.points)
        pool, relays = cast("Pool", WatchedPool(real_pool, self.points)), cast("Relays", self.relays)
        signals = Signals(ROLES)
        nudges = Nudges(signals)
        self.intake = Intake(pool=pool, signals=signals, nudges=nudges, settings=settings, roles=ROLES)
        self.importer = Importer(pool=pool, signals=signals, nudges=nudges, settings=settings, owner=name)
        self.preparer = Preparer(pool=pool, nudges=nudges, settings=settings, owner=name)
        self.deliverer = Deliverer(
            pool=pool, relays=relays, signals=signals, settings=settings, owner=name, background=background
        )
        self.sweeper = Sweeper(pool=pool, nudges=nudges, settings=settings, owner=name)
        self._body: asyncio.Task[Any] | None = None
        self._had_connection_fault = False

    @classmethod
    @asynccontextmanager
    async def start(cls, name: str, database_url: str, network: Network, settings: Settings) -> AsyncIterator[Self]:
        async with open_pool(database_url, size=CONNECTIONS) as pool, asyncio.TaskGroup() as background:
            worker = cls(name, pool, network, settings, background)
            try:
                yield worker
            finally:
                if worker.is_frozen:
                    await worker.kill()

    @property
    def is_frozen(self) -> bool:
        return self._body is not None

    async def run(self, work: Coroutine[Any, Any, Any], fault: Fault | None = None) -> Any:
        """Run `work`; return its result, or its error if this is LeaseLost, Conflict or injected. Raises others."""
        assert self._body is None
        self._had_connection_fault = False
        self._body = asyncio.create_task(work)
        self._begin(self._body, fault)
        return await self._wait()

    async def resume(self, fault: Fault | None = None) -> Any:
        """Continue the frozen work. Its interaction points are numbered from 1 again."""
        assert self._body
        self._begin(self._body, fault)
        self.points.resume()
        return await self._wait()

    async def kill(self) -> None:
        self.points.kill()
        await self._wait()

    def _begin(self, body: "asyncio.Task[Any]", fault: Fault | None) -> None:
        self._had_connection_fault |= fault is not None and fault.kind in {"loses the connection", "loses the reply"}
        self.points.start(body, fault)

    async def _wait(self) -> Any:
        assert self._body
        frozen = asyncio.create_task(self.points.frozen.wait())
        ended, _ = await asyncio.wait({self._body, frozen}, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        frozen.cancel()
        assert ended, f"{self.points.name} does not finish"
        if not self._body.done():
            return None
        body, self._body = self._body, None
        if self.points.dead:
            await asyncio.wait({body})
            body.cancelled() or body.exception()
            return None
        return self._result(body)

    def _result(self, body: "asyncio.Task[Any]") -> Any:
        error = body.exception()
        if error is None:
            return body.result()
        if isinstance(error, (LeaseLost, Conflict)) or (
            self._had_connection_fault and isinstance(error, TRANSIENT_ERRORS)
        ):
            log_step(f"{self.points.name}: {type(error).__name__}: {error}")
            return error
        raise error
