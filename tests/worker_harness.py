"""Run workers in the test's own process. A test can shorten their limits and read their state."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from starlette.requests import Request

from coupons.broker import open_sender
from coupons.commands import ImportCoupons
from coupons.database import Connection, Pool, connect, open_pool
from coupons.health import Health
from coupons.settings import Settings
from coupons.smtp import Relays
from coupons.store import deliveries, messages
from coupons.store.deliveries import Batch, Delivery
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message, start
from tests.waiting import until
from workers.delivery.batch_sender import BatchSender
from workers.delivery.evidence import SendoutEvidence
from workers.delivery.in_flight import InFlight
from workers.delivery.in_flight_window import InFlightWindow
from workers.delivery.policy import Policy
from workers.delivery.rate_limit import RateLimit
from workers.delivery.recorder import Recorder
from workers.delivery.renderer import Renderer
from workers.delivery.send_budget import SendBudget
from workers.health import WorkerHealth
from workers.importer import Importer
from workers.intake import Intake
from workers.loops import Signals, work
from workers.nudges import Nudges

ROLE = "import"
LIST = "spring-10"
LIMIT_SECONDS = 60.0
"""After any fault has ended, a worker recovers within this time, without an operator."""


@dataclass(frozen=True, slots=True)
class ImportWorker:
    """A worker with the role import, and the direct URLs of its services."""

    health: Health
    database_url: str
    broker_url: str

    async def ready(self) -> dict[str, Any]:
        """Return the response of `/readyz`."""
        response = await self.health.ready(Request({"type": "http"}))
        answer: dict[str, Any] = json.loads(bytes(response.body))
        assert (response.status_code == 200) == all(ok for part, ok in answer.items() if part != "reasons")
        return answer

    async def is_ready(self) -> bool:
        return all((await self.ready()).values())

    async def publish(self) -> ImportCoupons:
        command = ImportCoupons(list=LIST, codes=(f"SPRING-{time.monotonic_ns()}",))
        async with open_sender(self.broker_url) as sender:
            await sender.send(ROLE, command.body())
        return command

    async def time_command(self) -> float:
        """Publish a command; return the seconds until the worker has finished it."""
        started = time.monotonic()
        command = await self.publish()
        async with connect(self.database_url) as connection:
            await until(lambda: is_done(connection, command), within=LIMIT_SECONDS)
        return time.monotonic() - started


async def is_done(connection: Connection, command: ImportCoupons) -> bool:
    return bool(await connection.fetchval("SELECT finished_at FROM import_job WHERE id = $1", command.id))


@asynccontextmanager
async def run_import_worker(
    database_url: str, broker_url: str, *, database_proxy: str = "", broker_proxy: str = ""
) -> AsyncIterator[ImportWorker]:
    """Yield a worker that is ready. It uses the URLs of the proxies if they are given, else the direct URLs."""
    async with connect(database_url) as connection:
        await add_list(connection, LIST)
    signals = Signals((ROLE,))
    settings = Settings(_env_file=None, broker_url=SecretStr(broker_proxy or broker_url), sweep_seconds=1)
    worker_health = WorkerHealth(signals, (ROLE,))
    async with open_pool(database_proxy or database_url, size=8) as pool:
        nudges = Nudges(signals)
        intake = Intake(pool=pool, signals=signals, nudges=nudges, settings=settings, roles=(ROLE,))
        importer = Importer(pool=pool, signals=signals, nudges=nudges, settings=settings, owner="test")
        worker_health.set_pool(pool)
        async with asyncio.TaskGroup() as group:
            consuming = group.create_task(intake.run())
            working = group.create_task(work(ROLE, importer.step, signals, sweep_seconds=settings.sweep_seconds))
            worker_health.set_loops(intake, [consuming, working])
            worker = ImportWorker(worker_health.checks(), database_url, broker_url)
            try:
                await until(worker.is_ready, within=LIMIT_SECONDS)
                yield worker
                assert worker_health.is_live()
            finally:
                signals.stop()
                consuming.cancel()


@contextmanager
def batch_sender(
    pool: Pool,
    batch: Batch,
    renderer: Renderer,
    relays: Relays,
    *,
    window: int,
    lease_seconds: float = 45,
    mails_per_hour: int = 0,
) -> Iterator[BatchSender]:
    """Yield a sender for this batch, with an in-flight window of at least `window` and at most 100 mails."""
    signals = Signals(("deliver",))
    rate_limit = RateLimit(pool=pool, per_hour=mails_per_hour) if mails_per_hour else None
    in_flight = InFlight()
    with InFlightWindow(100, least=window, stalled_owners=relays.stalled_owners).share(in_flight) as share:
        yield BatchSender(
            in_flight=in_flight,
            budget=SendBudget(share, rate_limit, signals),
            recorder=Recorder(pool, batch, lease_seconds=lease_seconds),
            renderer=renderer,
            policy=Policy(SendoutEvidence(), retry_seconds=86_400),
            relays=relays,
            signals=signals,
            on_only_stalled=lambda: None,
        )


async def prepare_batch(connection: Connection, recipients: int) -> tuple[Batch, Renderer, list[Delivery]]:
    """Create a sendout of one batch and claim it; return the batch, its renderer and its mails, all with a code."""
    await add_list(connection, "a", recipients)
    await add_group(connection, "g", recipients)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)
    return await load_batch(connection)


async def load_batch(connection: Connection) -> tuple[Batch, Renderer, list[Delivery]]:
    """Claim a batch and assign its codes; return the batch, its renderer and its mails that are due."""
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    lists = await deliveries.list_lists(connection, batch.sendout_id)
    message = await messages.get_for_sendout(connection, batch.sendout_id)
    renderer = Renderer(batch.sendout_id, message, [], lists, settings=Settings())
    return batch, renderer, await deliveries.list_due(connection, batch, lists)
