"""The worker process: creates all parts of a worker, runs their loops and handles signals."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence

import structlog
import uvloop

from coupons import database, failpoints, logs, migrate
from coupons.database import DatabaseUnavailable, Pool
from coupons.mail import check_settings
from coupons.settings import Settings
from coupons.smtp import Limits, Relays, SmtpAddress, Timeouts
from workers.delivery.deliverer import Deliverer
from workers.health import WorkerHealth, serve_health
from workers.heartbeat import signs_of_life
from workers.importer import Importer
from workers.intake import Intake
from workers.loops import RETRY_SECONDS, Signals, work
from workers.nudges import Nudges
from workers.preparer import Preparer
from workers.sweeper import Sweeper

log = structlog.get_logger()
ROLES = ("import", "sendout", "deliver")
SWEEP = "sweep"
FORCED = 1
"""Exit code of a worker that did not wait for its work."""
CONCURRENT_IMPORTS = 2
"""Two imports run at the same time, so that a small import does not wait for a large one."""
CONNECTIONS = 15
"""PostgreSQL connections per process, in addition to two per batch: one for its work, one for its heartbeat."""


def run(settings: Settings, roles: Sequence[str]) -> None:
    """Run until SIGTERM or SIGINT, which shuts down gracefully. A second signal exits immediately.

    Raises:
        UserError: the worker cannot start, for example because of a wrong setting. No work has begun.
    """
    logs.configure(settings)
    check_settings(bounce_to=settings.bounce_address, unsubscribe_url=settings.unsubscribe_url)
    uvloop.run(_run(settings, tuple(roles) or ROLES))


async def _run(settings: Settings, roles: tuple[str, ...]) -> None:
    owner = f"{socket.gethostname()}:{os.getpid()}"
    addresses = SmtpAddress.parse_all(settings.smtp_url.get_secret_value())
    signals = Signals((*roles, SWEEP))
    health = WorkerHealth(signals, roles)
    async with (
        serve_health(settings, health),
        _database(settings) as pool,
        signs_of_life(pool, settings, roles),
        _relays(settings, addresses) as relays,
    ):
        health.set_pool(pool)
        nudges = Nudges(signals)
        intake = Intake(pool=pool, signals=signals, nudges=nudges, settings=settings, roles=roles)
        if failpoints.armed():
            log.warning("failpoints armed", failpoints=failpoints.armed())
        log.info("worker started", roles=roles, owner=owner)
        async with asyncio.TaskGroup() as group:
            deliverer = Deliverer(
                pool=pool, relays=relays, signals=signals, settings=settings, owner=owner, background=group
            )
            steps = {
                "import": [Importer(pool=pool, signals=signals, nudges=nudges, settings=settings, owner=owner).step]
                * CONCURRENT_IMPORTS,
                "sendout": [Preparer(pool=pool, nudges=nudges, settings=settings, owner=owner).step],
                "deliver": [deliverer.step] * settings.concurrent_batches,
            }
            consuming = group.create_task(intake.run())
            _handle_signals(signals, relays, consuming)
            loops = [(role, step) for role in roles for step in steps[role]] + [
                (SWEEP, Sweeper(pool=pool, nudges=nudges, settings=settings, owner=owner, roles=roles).step)
            ]
            working = [
                group.create_task(work(role, step, signals, sweep_seconds=settings.sweep_seconds))
                for role, step in loops
            ]
            health.set_loops(intake, [consuming, *working])
    log.info("worker stopped", owner=owner)


def _relays(settings: Settings, addresses: Sequence[SmtpAddress]) -> Relays:
    limits = Limits(
        connections=settings.smtp_connections,
        mails_per_connection=settings.smtp_mails_per_connection,
        idle_seconds=settings.smtp_idle_seconds,
        backoff_seconds=settings.smtp_backoff_seconds,
        max_backoff_seconds=settings.smtp_max_backoff_seconds,
    )
    return Relays(
        addresses,
        limits=limits,
        local_hostname=settings.smtp_ehlo_hostname or None,
        timeouts=Timeouts(dot_seconds=settings.smtp_final_reply_timeout_seconds),
    )


def _handle_signals(signals: Signals, relays: Relays, consuming: "asyncio.Task[None]") -> None:
    """On the first signal, stop consuming, release queued mails and finish the rest. On the second, exit at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if signals.stopping:
            log.warning("forced shutdown: in-flight mails are uncertain")
            os._exit(FORCED)
        log.info("shutting down: waiting for in-flight mails")
        signals.stop()
        consuming.cancel()
        relays.cancel_queued()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


@contextlib.asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Pool]:
    """Wait until the database is reachable, check that its schema is current, and open a pool."""
    while True:
        try:
            async with database.open_pool(
                settings.database_url.get_secret_value(), size=CONNECTIONS + 2 * settings.concurrent_batches
            ) as pool:
                async with pool.acquire() as connection:
                    await migrate.check_current(connection)
                yield pool
                return
        except DatabaseUnavailable as error:
            log.warning("database unavailable, retrying", reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)
