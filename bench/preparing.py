"""Benchmark of preparing a sendout: which lists each recipient needs, when conditions on attributes decide it."""

import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from coupons.commands import StartSendout
from coupons.database import Connection, connect
from coupons.migrate import migrate
from coupons.store import messages, sendouts
from coupons.templates.rendering import Parts
from sandbox.services import Services
from tests.factories import SENDER, add_list

PARTS = ("needs",)
ROUNDS = 7
RECIPIENTS = 300_000
MINUTES = 30 * 60
BATCH_SIZE = 1_000
TEXTS = {
    "without": '{{ coupon("gold") }} {{ coupon("basic") }}',
    "few": '{% if city == "City 3" %}{{ coupon("gold") }}{% else %}{{ coupon("basic") }}{% endif %}',
    "all": '{% if customer > "K-150000" %}{{ coupon("gold") }}{% else %}{{ coupon("basic") }}{% endif %}',
}
"""The texts of three messages: without a condition, with ten different values, with a different value per recipient."""
ADD_RECIPIENTS = f"""
WITH audience AS (
    INSERT INTO recipient_group (name, attributes) VALUES ('g', '{{first_name,last_name,city,country,customer}}')
    RETURNING id
)
INSERT INTO recipient (group_id, address_key, address, attributes)
SELECT audience.id, address, address, jsonb_build_object(
    'first_name', 'Zoë ' || n % 997, 'last_name', 'Müller-' || n % 9973, 'city', 'City ' || n % 10, 'country', 'DE',
    'customer', 'K-' || n)
FROM audience, generate_series(1, {RECIPIENTS}) n, LATERAL (
    SELECT 'customer.' || left(md5(n::text), 10) || '.' || n || '@example.org' AS address
) a"""


async def measure(services: Services, _folder: Path, _parts: list[str]) -> AsyncIterator[dict[str, float]]:
    """Yield the microseconds per recipient that a snapshot takes, and those that conditions add.

    The three messages are measured by turns, in another order each time.
    """
    await migrate(services.database_url)
    async with connect(services.database_url) as connection:
        await add_audience(connection)
        taken: dict[str, list[float]] = {name: [] for name in TEXTS}
        for number in range(ROUNDS + 1):
            names = [*TEXTS][number % len(TEXTS) :] + [*TEXTS][: number % len(TEXTS)]
            round_taken = {name: await time_snapshot(connection, name) for name in names}
            if number:  # the first round has cold caches
                for name, microseconds in round_taken.items():
                    taken[name].append(microseconds)
    yield (
        {f"snapshot_{name}_us": statistics.median(values) for name, values in taken.items()}
        | {
            f"needs_{name}_us": statistics.median(a - b for a, b in zip(taken[name], taken["without"], strict=True))
            for name in ("few", "all")
        }
        | {
            f"needs_{name}_ratio": statistics.median(a / b for a, b in zip(taken[name], taken["without"], strict=True))
            for name in ("few", "all")
        }
    )


async def add_audience(connection: Connection) -> None:
    for name in ("gold", "basic"):
        await add_list(connection, name)
    await connection.execute("SET statement_timeout = 0")
    await connection.execute(ADD_RECIPIENTS, timeout=MINUTES)
    await connection.execute("VACUUM ANALYZE recipient", timeout=MINUTES)
    for name, text in TEXTS.items():
        parts = Parts(subject="Your voucher", text=text, html=None)
        await messages.save(connection, name, parts, sender=SENDER, reply_to=None, declared=())


async def time_snapshot(connection: Connection, message: str) -> float:
    """The microseconds per recipient of a sendout's snapshot, which includes its needs."""
    await connection.execute("TRUNCATE delivery, delivery_batch, sendout_list, sendout CASCADE")
    await connection.execute("CHECKPOINT", timeout=MINUTES)
    async with connection.transaction():
        command = StartSendout(id=uuid4(), message=message, group="g")
        await sendouts.create(connection, command, batch_size=BATCH_SIZE)
    claim = await sendouts.claim(connection, owner="bench", lease_seconds=MINUTES)
    if claim is None:
        raise RuntimeError("no sendout to prepare")
    begun = time.perf_counter()
    await sendouts.take_snapshot(connection, claim, batch_size=BATCH_SIZE)
    return (time.perf_counter() - begun) / RECIPIENTS * 1e6
