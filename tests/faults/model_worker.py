"""A worker of the model: the real roles on a real database, with the model's relays."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, cast

import pytest

from coupons.database import TRANSIENT_ERRORS, Pool, pooled
from coupons.errors import Conflict, LeaseLost
from coupons.settings import Settings
from coupons.smtp import Relays
from tests.faults.model_interaction_points import Contacts, Fault, WatchedPool, tell
from tests.faults.model_network import Network, Wire
from workers.delivery.deliverer import Deliverer
from workers.importer import Importer
from workers.intake import Intake
from workers.loops import Signals
from workers.nudges import Nudges
from workers.preparer import Preparer
from workers.sweeper import Sweeper

CONNECTIONS = 6
LIMIT_SECONDS = 30
SHORTLY = 0.01
"""Seconds until a worker of the model tries again what a lost connection has kept it from."""
ROLES = ("import", "sendout", "deliver")


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker waits for a database that is there."""
    for name, module in sys.modules.items():
        if name.startswith("workers.") and hasattr(module, "RETRY_SECONDS"):
            monkeypatch.setattr(module, "RETRY_SECONDS", SHORTLY)


class Worker:
    """One process: what it works on comes to its end, stands still, or dies."""

    def __init__(
        self, name: str, real_pool: Pool, network: Network, settings: Settings, background: asyncio.TaskGroup
    ) -> None:
        self.contacts = Contacts(name, real_pool)
        self.wire = Wire(network, self.contacts)
        pool, relays = cast("Pool", WatchedPool(real_pool, self.contacts)), cast("Relays", self.wire)
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
        self._had_trouble = False

    @classmethod
    @asynccontextmanager
    async def started(cls, name: str, database_url: str, network: Network, settings: Settings) -> AsyncIterator[Self]:
        async with pooled(database_url, size=CONNECTIONS) as pool, asyncio.TaskGroup() as background:
            worker = cls(name, pool, network, settings, background)
            try:
                yield worker
            finally:
                if worker.stands_still:
                    await worker.is_killed()

    @property
    def stands_still(self) -> bool:
        return self._body is not None

    async def does(self, work: Coroutine[Any, Any, Any], fault: Fault | None = None) -> Any:
        """What came of it: its result, LeaseLost, Conflict or a trouble that was to come. Raises what is a defect."""
        assert self._body is None
        self._had_trouble = False
        self._body = asyncio.create_task(work)
        self._begin(self._body, fault)
        return await self._goes_on()

    async def goes_on(self, fault: Fault | None = None) -> Any:
        """With what it stood still in; its contacts are counted anew."""
        assert self._body
        self._begin(self._body, fault)
        self.contacts.go_on()
        return await self._goes_on()

    async def is_killed(self) -> None:
        self.contacts.die()
        await self._goes_on()

    def _begin(self, body: "asyncio.Task[Any]", fault: Fault | None) -> None:
        self._had_trouble |= fault is not None and fault.what in {"is cut off", "hears no answer"}
        self.contacts.begin(body, fault)

    async def _goes_on(self) -> Any:
        assert self._body
        standing = asyncio.create_task(self.contacts.stood_still.wait())
        ended, _ = await asyncio.wait(
            {self._body, standing}, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        standing.cancel()
        assert ended, f"{self.contacts.name} comes to no end"
        if not self._body.done():
            return None
        body, self._body = self._body, None
        if self.contacts.dead:
            await asyncio.wait({body})
            body.cancelled() or body.exception()
            return None
        return self._came_of(body)

    def _came_of(self, body: "asyncio.Task[Any]") -> Any:
        error = body.exception()
        if error is None:
            return body.result()
        if isinstance(error, (LeaseLost, Conflict)) or (self._had_trouble and isinstance(error, TRANSIENT_ERRORS)):
            tell(f"{self.contacts.name}: {type(error).__name__}: {error}")
            return error
        raise error
