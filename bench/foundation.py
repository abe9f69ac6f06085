"""The steps of a sendout one by one: the sink's own limit, codes bound, codes imported, and all of them together."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import blaster
from bench.rig import Rig, rig, seconds_until
from coupons.commands import Format, ImportCoupons
from coupons.database import Connection
from coupons.store import deliveries, imports, sendouts
from producers.demo.services import Services, private_sink
from tests.stock import LEASE_SECONDS, add_group, add_list, prepare, save_message, start

RESERVED = 100_000
CODES = 200_000
RECIPIENTS = 50_000
MAILS = 100_000


async def measure(services: Services, folder: Path) -> dict[str, float]:
    """Name → figure, in the order in which they are measured."""
    results: dict[str, float] = {}
    with private_sink(folder / "discarded.jsonl", "--discard") as sink:
        results["sink_mails_per_s"] = await blaster.mails_per_s(sink.url, mails=MAILS)
        async with rig(services, folder) as shop:
            results["reservations_per_s"] = await reservations_per_s(shop.connection)
            with shop.workers(sink.url):
                results["import_codes_per_s"] = await import_codes_per_s(shop)
                results["end_to_end_mails_per_s"] = await shop.end_to_end(RECIPIENTS)
    results["end_to_end_vs_sink"] = results["end_to_end_mails_per_s"] / results["sink_mails_per_s"]
    return results


async def reservations_per_s(connection: Connection) -> float:
    """Codes bound to recipients, by batches, in one process: what two statements a batch can do."""
    await add_list(connection, "reserved", RESERVED)
    await add_group(connection, "reserved", RESERVED)
    await save_message(connection, "reserved", "reserved")
    sendout_id = await start(connection, "reserved", "reserved")
    await prepare(connection)
    cursors: dict[int, int] = {}
    begun = time.perf_counter()
    while batch := await deliveries.claim(connection, owner="bench", lease_seconds=LEASE_SECONDS):
        assert await deliveries.bind(connection, batch, cursors)
    seconds = time.perf_counter() - begun
    await sendouts.cancel(connection, sendout_id)
    return RESERVED / seconds


async def import_codes_per_s(shop: Rig) -> float:
    """From the published command to the last committed chunk, each line checked."""

    async def file() -> AsyncIterator[bytes]:
        text = "".join(f"IMPORT-{number:09}\n" for number in range(CODES)).encode()
        for begin in range(0, len(text), imports.CHUNK_BYTES):
            yield text[begin : begin + imports.CHUNK_BYTES]

    await add_list(shop.connection, "imported")
    upload = await imports.upload(shop.connection, "codes.txt", file())
    command = ImportCoupons(list="imported", source=f"upload:{upload.id}", format=Format(kind="txt"))

    async def finished() -> bool:
        job = await imports.find(shop.connection, command.id)
        return job is not None and job.state == "finished"

    return CODES / await seconds_until(shop.services, command, finished)
