"""`/livez`: the process answers. `/readyz`: it can do what it is there for. Both answer without a token."""

import asyncio
import time
from dataclasses import asdict, dataclass

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coupons import broker, migrate
from coupons.database import TROUBLE, Pool
from coupons.errors import Told
from producers.web import ACQUIRE_SECONDS

log = structlog.get_logger()
REMEMBERED_SECONDS = 1.0
"""Anybody may ask; the broker is not asked more often than this."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Database: reachable, and its schema is this program's. Broker: takes connections."""

    database: bool
    broker: bool


class Health:
    def __init__(self, *, pool: Pool, broker_url: str) -> None:
        self._pool = pool
        self._broker_url = broker_url
        self._looking = asyncio.Lock()
        self._seen: tuple[float, Ready] | None = None

    def routes(self) -> list[Route]:
        return [Route("/livez", self.live), Route("/readyz", self.ready)]

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        async with self._looking:
            if self._seen is None or time.monotonic() - self._seen[0] > REMEMBERED_SECONDS:
                self._seen = time.monotonic(), Ready(database=await self._database(), broker=await self._broker())
            ready = self._seen[1]
        return JSONResponse(asdict(ready), 200 if ready.database and ready.broker else 503)

    async def _database(self) -> bool:
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                await migrate.check_current(connection)
        except (Told, *TROUBLE) as error:
            log.warning("not ready: database", error=type(error).__name__)
            return False
        return True

    async def _broker(self) -> bool:
        try:
            async with broker.connected(self._broker_url, "coupons web"):
                return True
        except Told as error:
            log.warning("not ready: broker", reason=str(error))
            return False
