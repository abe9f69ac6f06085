"""A worker's health checks on a separate port, open from before the worker connects until its work has ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import structlog
import uvicorn
from starlette.applications import Starlette

from coupons.database import Pool
from coupons.health import PROBE_SECONDS, Health, Probe, check_database
from coupons.http_server import bound_socket, server_config
from coupons.settings import Settings
from coupons.store import restore_guard
from workers.intake import Intake
from workers.loops import Signals

log = structlog.get_logger()
NOT_CONNECTED = "not connected yet"


class WorkerHealth:
    """The state of this worker's parts. Each part is registered when it starts."""

    def __init__(self, signals: Signals, roles: Sequence[str]) -> None:
        self._signals = signals
        self._sends = "deliver" in roles
        self._pool: Pool | None = None
        self._intake: Intake | None = None
        self._loops: Sequence[asyncio.Task[None]] = ()

    def set_pool(self, pool: Pool) -> None:
        """Register the pool: the database is reachable and its schema is current."""
        self._pool = pool

    def set_loops(self, intake: Intake, loops: Sequence["asyncio.Task[None]"]) -> None:
        self._intake, self._loops = intake, loops

    def checks(self) -> Health:
        """Return the checks of `/livez` and `/readyz`. Only a worker with the role deliver checks the restore guard."""
        outside: dict[str, Probe] = {"database": self._database}
        if self._sends:
            outside["restore_guard"] = self._restore_guard
        inside = {"consumers": self._consumers, "accepting": self._accepting}
        return Health(outside, inside, is_live=self.is_live, shows_reasons=True)

    def is_live(self) -> bool:
        """Whether every loop is still running, or the worker is shutting down."""
        return self._signals.stopping or not any(loop.done() for loop in self._loops)

    async def _database(self) -> str | None:
        return NOT_CONNECTED if self._pool is None else await check_database(self._pool)

    async def _restore_guard(self) -> str | None:
        if self._pool is None:
            return NOT_CONNECTED
        async with self._pool.acquire(timeout=PROBE_SECONDS) as connection:
            return await restore_guard.refusal(connection)

    def _consumers(self) -> str | None:
        if self._intake is None:
            return "no consumer registered yet"
        missing = self._intake.unconsumed
        return f"no consumer on {', '.join(missing)}" if missing else None

    def _accepting(self) -> str | None:
        return "shutting down" if self._signals.stopping else None


@contextlib.asynccontextmanager
async def serve_health(settings: Settings, health: WorkerHealth) -> AsyncIterator[None]:
    """Serve health checks while the block runs, if a health port is set.

    Raises:
        CannotListen: the address cannot be used; the block has not begun.
    """
    if not settings.health_port:
        yield
        return
    host, port = settings.health_host, settings.health_port
    app = Starlette(routes=health.checks().routes())
    server = _Server(server_config(app, drain_seconds=1))
    with bound_socket(host, port, setting="COUPONS_HEALTH_PORT") as listener:
        listener.listen()
        log.info("serving health checks", host=host, port=port)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals. The worker handles them and waits for its in-flight mails before it stops this server."""
        yield
