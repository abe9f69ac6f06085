"""The health checks of every process, without a token: `/livez` (is it alive?) and `/readyz` (can it do its work?).

`/livez` returns `{"live": true}`. `/readyz` returns a boolean for each part: `{"database": true, "consumers": false}`.
If the process shows reasons, it adds `"reasons": {"consumers": "…"}` for the parts that are not ready. The status is
200 if all parts are ready, otherwise 503.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coupons import broker, migrate
from coupons.database import TRANSIENT_ERRORS, Pool
from coupons.errors import UserError

log = structlog.get_logger()
LIVE, READY = "/livez", "/readyz"
REASONS = "reasons"
PROBE_SECONDS = 5.0
"""A part that gives no result within this time is not ready. Kubernetes or Docker need a longer probe timeout."""
CACHE_SECONDS = 1.0
"""Minimum time between two probes of a part: requests need no token, so there may be many."""
NO_RESPONSE = "no response"

Fact = Callable[[], str | None]
"""Returns the reason why a part is not ready, as one line without an address; None if it is ready."""
Probe = Callable[[], Awaitable[str | None]]
"""Like `Fact`, for a part outside the process, which needs a request."""


class Health:
    def __init__(
        self,
        outside: Mapping[str, Probe],
        inside: Mapping[str, Fact],
        *,
        is_live: Callable[[], bool],
        shows_reasons: bool,
    ) -> None:
        """`shows_reasons` is for a process whose clients may also read its logs."""
        self._outside = {name: _CachedProbe(probe) for name, probe in outside.items()}
        self._inside = inside
        self._logged: dict[str, str] = {}
        self._is_live = is_live
        self._shows_reasons = shows_reasons

    def routes(self) -> list[Route]:
        return [Route(LIVE, self.live), Route(READY, self.ready)]

    async def live(self, _: Request) -> Response:
        live = self._is_live()
        return JSONResponse({"live": live}, 200 if live else 503)

    async def ready(self, _: Request) -> Response:
        reasons = await self._reasons()
        answer: dict[str, object] = {name: name not in reasons for name in (*self._outside, *self._inside)}
        if reasons and self._shows_reasons:
            answer[REASONS] = reasons
        return JSONResponse(answer, 503 if reasons else 200)

    async def _reasons(self) -> dict[str, str]:
        """The reason for each part that is not ready. A change is logged once, not with every request."""
        results = await asyncio.gather(*(probe.result() for probe in self._outside.values()))
        found = dict(zip(self._outside, results, strict=True)) | {name: fact() for name, fact in self._inside.items()}
        reasons = {name: reason for name, reason in found.items() if reason}
        if reasons != self._logged:
            log.warning("not ready", **reasons) if reasons else log.info("ready")
            self._logged = reasons
        return reasons


class _CachedProbe:
    """Runs one probe at a time for any number of requests. No request waits longer than PROBE_SECONDS for the probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._running: asyncio.Task[str | None] | None = None
        self._started_at = 0.0

    async def result(self) -> str | None:
        now = time.monotonic()
        if self._running is None or (self._running.done() and now > self._started_at + CACHE_SECONDS):
            self._running, self._started_at = asyncio.create_task(self._run()), now
        await asyncio.wait({self._running}, timeout=self._started_at + PROBE_SECONDS - now)
        return self._running.result() if self._running.done() else NO_RESPONSE

    async def _run(self) -> str | None:
        try:
            return await self._probe()
        except Exception as error:  # noqa: BLE001 - after any error the part is not ready, and the process responds
            return f"check failed ({type(error).__name__})"


async def check_database(pool: Pool) -> str | None:
    """The reason why the database cannot be used: it is unreachable or has another schema version. None if it works."""
    try:
        async with pool.acquire(timeout=PROBE_SECONDS) as connection:
            await migrate.check_current(connection)
    except UserError as error:
        return str(error)
    except TRANSIENT_ERRORS as error:
        return f"unreachable ({type(error).__name__})"
    return None


async def check_broker(url: str, connection_name: str) -> str | None:
    """`unreachable` if the broker accepts no connection; None if it does."""
    try:
        async with broker.connect(url, connection_name):
            return None
    except UserError:
        return "unreachable"
