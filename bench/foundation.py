"""Benchmarks of a sendout: the limit of the sink, the assignment of codes alone, and all steps together."""

import time
from pathlib import Path

from bench import blaster
from bench.rig import open_rig
from coupons.database import Connection
from coupons.store import deliveries, sendouts
from sandbox.services import Services, private_sink
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message, start

RESERVED = 100_000
RECIPIENTS = 50_000
MAILS = 100_000


async def measure(services: Services, folder: Path) -> dict[str, float]:
    """Measure and return all figures of this module."""
    results: dict[str, float] = {}
    with private_sink(folder / "discarded.jsonl", "--discard") as sink:
        results["sink_mails_per_s"] = await blaster.mails_per_s(sink.url, mails=MAILS)
        async with open_rig(services, folder) as shop:
            results["reservations_per_s"] = await reservations_per_s(shop.connection)
            with shop.workers(sink.url):
                results["end_to_end_mails_per_s"] = await shop.end_to_end(RECIPIENTS)
    results["end_to_end_vs_sink"] = results["end_to_end_mails_per_s"] / results["sink_mails_per_s"]
    return results


async def reservations_per_s(connection: Connection) -> float:
    """Codes per second that one process assigns to recipients, with two statements per batch."""
    await add_list(connection, "reserved", RESERVED)
    await add_group(connection, "reserved", RESERVED)
    await save_message(connection, "reserved", "reserved")
    sendout_id = await start(connection, "reserved", "reserved")
    await prepare(connection)
    cursors: dict[int, int] = {}
    begun = time.perf_counter()
    while batch := await deliveries.claim(connection, owner="bench", lease_seconds=LEASE_SECONDS):
        assigned = await deliveries.assign_codes(connection, batch, cursors)
        assert assigned.complete
        cursors |= assigned.cursors
    seconds = time.perf_counter() - begun
    await sendouts.cancel(connection, sendout_id)
    return RESERVED / seconds
