"""`/livez` and `/readyz` of every process, without a token: is it alive, and can it do what it is there for?

Live: `{"live": true}`. Ready: a boolean for each part, `{"database": true, "consumers": false}`, and, where a process
tells them, `"reasons": {"consumers": "…"}` of those that are not. 200 if all is well, else 503.
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
LOOK_SECONDS = 5.0
"""A part that says nothing for so long is not ready. A probe of Kubernetes or Docker has to wait longer than this."""
REMEMBERED_SECONDS = 1.0
"""Anybody may ask; no part is looked at more often than this."""
SILENT = "does not answer"

Fact = Callable[[], str | None]
"""What keeps a part from being ready, in one line without an address; None if nothing does."""
Probe = Callable[[], Awaitable[str | None]]
"""The same of what is outside the process, and has to be asked."""


class Health:
    def __init__(
        self,
        outside: Mapping[str, Probe],
        inside: Mapping[str, Fact],
        *,
        is_live: Callable[[], bool],
        tells_reasons: bool,
    ) -> None:
        """Reasons are for those who may read the logs too."""
        self._outside = {name: _Look(probe) for name, probe in outside.items()}
        self._inside = inside
        self._told: dict[str, str] = {}
        self._is_live = is_live
        self._tells_reasons = tells_reasons

    def routes(self) -> list[Route]:
        return [Route(LIVE, self.live), Route(READY, self.ready)]

    async def live(self, _: Request) -> Response:
        live = self._is_live()
        return JSONResponse({"live": live}, 200 if live else 503)

    async def ready(self, _: Request) -> Response:
        reasons = await self._reasons()
        answer: dict[str, object] = {name: name not in reasons for name in (*self._outside, *self._inside)}
        if reasons and self._tells_reasons:
            answer[REASONS] = reasons
        return JSONResponse(answer, 503 if reasons else 200)

    async def _reasons(self) -> dict[str, str]:
        """Of what is not ready; a change is logged once, and not each look."""
        looked = await asyncio.gather(*(look.take() for look in self._outside.values()))
        found = dict(zip(self._outside, looked, strict=True)) | {name: fact() for name, fact in self._inside.items()}
        reasons = {name: reason for name, reason in found.items() if reason}
        if reasons != self._told:
            log.warning("not ready", **reasons) if reasons else log.info("ready")
            self._told = reasons
        return reasons


class _Look:
    """One at a time, however many ask; one that hangs is waited for no longer than LOOK_SECONDS by each."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._looking: asyncio.Task[str | None] | None = None
        self._begun_at = 0.0

    async def take(self) -> str | None:
        now = time.monotonic()
        if self._looking is None or (self._looking.done() and now > self._begun_at + REMEMBERED_SECONDS):
            self._looking, self._begun_at = asyncio.create_task(self._ask()), now
        await asyncio.wait({self._looking}, timeout=self._begun_at + LOOK_SECONDS - now)
        return self._looking.result() if self._looking.done() else SILENT

    async def _ask(self) -> str | None:
        try:
            return await self._probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, the part is not ready, and the process answers
            return f"cannot be looked at ({type(error).__name__})"


async def database_reason(pool: Pool) -> str | None:
    """It cannot be reached, or its schema is not this program's."""
    try:
        async with pool.acquire(timeout=LOOK_SECONDS) as connection:
            await migrate.check_current(connection)
    except UserError as error:
        return str(error)
    except TRANSIENT_ERRORS as error:
        return f"cannot be reached ({type(error).__name__})"
    return None


async def broker_reason(url: str, name: str) -> str | None:
    """It takes no connections."""
    try:
        async with broker.connected(url, name):
            return None
    except UserError:
        return "cannot be reached"
