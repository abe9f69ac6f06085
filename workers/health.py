"""What this worker answers to probes: on a port of its own, from before it has a database until its work has ended."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence

import structlog
import uvicorn
from starlette.applications import Starlette

from coupons.database import Pool
from coupons.errors import UserError
from coupons.health import LOOK_SECONDS, Health, Probe, database_reason
from coupons.settings import Settings
from coupons.store import restore_guard
from workers.intake import Intake
from workers.loops import Signals

log = structlog.get_logger()
NO_DATABASE = "the database could not be reached yet"


class CannotAnswer(UserError):
    """The address of the health port is in use, or not ours."""


class Condition:
    """What is known of this worker's parts, as they come to be."""

    def __init__(self, signals: Signals, roles: Sequence[str]) -> None:
        self._signals = signals
        self._sends = "deliver" in roles
        self._pool: Pool | None = None
        self._intake: Intake | None = None
        self._loops: Sequence[asyncio.Task[None]] = ()

    def connected(self, pool: Pool) -> None:
        """The database was reached, and is up to date."""
        self._pool = pool

    def began(self, intake: Intake, loops: Sequence["asyncio.Task[None]"]) -> None:
        self._intake, self._loops = intake, loops

    def health(self) -> Health:
        """What it takes to be ready; who does not send needs no data to send from."""
        outside: dict[str, Probe] = {"database": self._database}
        if self._sends:
            outside["epoch"] = self._epoch
        inside = {"consumers": self._consumers, "accepting": self._accepting}
        return Health(outside, inside, is_live=self.is_live, tells_reasons=True)

    def is_live(self) -> bool:
        """No role's loop has ended before it was time to."""
        return self._signals.stopping or not any(loop.done() for loop in self._loops)

    async def _database(self) -> str | None:
        return NO_DATABASE if self._pool is None else await database_reason(self._pool)

    async def _epoch(self) -> str | None:
        if self._pool is None:
            return NO_DATABASE
        async with self._pool.acquire(timeout=LOOK_SECONDS) as connection:
            return await restore_guard.refusal(connection)

    def _consumers(self) -> str | None:
        if self._intake is None:
            return "none is registered yet"
        missing = self._intake.unconsumed
        return f"none is registered on {', '.join(missing)}" if missing else None

    def _accepting(self) -> str | None:
        return "it was asked to end, and finishes what it has in hand" if self._signals.stopping else None


@contextlib.asynccontextmanager
async def answering(settings: Settings, condition: Condition) -> AsyncIterator[None]:
    """Answer on the health port, if there is one, while the block runs.

    Raises:
        CannotAnswer: before anything is begun.
    """
    if not settings.health_port:
        yield
        return
    server = _Server(
        uvicorn.Config(
            Starlette(routes=condition.health().routes()),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    with _listening(settings.health_host, settings.health_port) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are the worker's, whose work in hand comes to its end first."""
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Bound here and not by uvicorn, which would end the process without a word."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CannotAnswer(f"cannot answer probes on {host}:{port}: {reason}") from error
    with listener:
        log.info("answering probes", host=host, port=port)
        yield listener
