"""`/livez` and `/readyz` of every process, without a token: is it alive, and can it do its work?

Live: `{"live": true}`. Ready: a boolean for each part, `{"database": true, "consumers": false}`, and, if the process
shows reasons, `"reasons": {"consumers": "…"}` for the parts that are not ready. The status is 200 if all are, else 503.
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
"""A part that gives no result within this time is not ready. Probes of Kubernetes or Docker have to wait longer."""
CACHE_SECONDS = 1.0
"""Requests need no token, so no part is probed more often than this."""
NO_RESPONSE = "no response"

Fact = Callable[[], str | None]
"""Why a part is not ready, in one line without an address; None if it is."""
Probe = Callable[[], Awaitable[str | None]]
"""The same for a part outside the process, which has to be asked."""


class Health:
    def __init__(
        self,
        outside: Mapping[str, Probe],
        inside: Mapping[str, Fact],
        *,
        is_live: Callable[[], bool],
        shows_reasons: bool,
    ) -> None:
        """Show reasons only if requests come from people who may also read the logs."""
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
        """Why each part that is not ready is not. A change is logged once, not with every request."""
        results = await asyncio.gather(*(probe.result() for probe in self._outside.values()))
        found = dict(zip(self._outside, results, strict=True)) | {name: fact() for name, fact in self._inside.items()}
        reasons = {name: reason for name, reason in found.items() if reason}
        if reasons != self._logged:
            log.warning("not ready", **reasons) if reasons else log.info("ready")
            self._logged = reasons
        return reasons


class _CachedProbe:
    """Runs one probe at a time for any number of requests. None of them waits longer than PROBE_SECONDS for it."""

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
        except Exception as error:  # noqa: BLE001 - whatever it is, the part is not ready, and the process answers
            return f"check failed ({type(error).__name__})"


async def check_database(pool: Pool) -> str | None:
    """Why the database cannot be used: it is unreachable, or its schema is not this program's."""
    try:
        async with pool.acquire(timeout=PROBE_SECONDS) as connection:
            await migrate.check_current(connection)
    except UserError as error:
        return str(error)
    except TRANSIENT_ERRORS as error:
        return f"unreachable ({type(error).__name__})"
    return None


async def check_broker(url: str, connection_name: str) -> str | None:
    """Why the broker cannot be used: it accepts no connection."""
    try:
        async with broker.connect(url, connection_name):
            return None
    except UserError:
        return "unreachable"
