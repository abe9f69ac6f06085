"""`make bench`: measures on real services on this machine and writes bench/results.json, figure by figure.

Absolute figures are this machine's; compare them with the sink's own limit of the same run.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import blaster
from coupons.commands import Format, ImportCoupons, StartSendout
from coupons.database import Connection, connected
from coupons.migrate import migrate
from coupons.store import deliveries, imports, outbox, sendouts
from producers.client import Publisher
from producers.demo.process import running, wait_until
from producers.demo.services import Services, private_services, private_sink
from tests.stock import LEASE_SECONDS, add_group, add_list, prepare, save_message, start

RESULTS = Path(__file__).with_name("results.json")
COUPONS = Path(sys.executable).with_name("coupons")
RESERVED = 100_000
CODES = 200_000
RECIPIENTS = 50_000
POLL_SECONDS = 0.02
HTML = "<p>Hello {{ first_name }},</p>" + "<p>the days are getting longer, and there is a lot to plant.</p>" * 25


async def measure(services: Services, folder: Path) -> dict[str, float]:
    """Name → figure, in the order in which they are measured."""
    await migrate(services.database_url)
    results: dict[str, float] = {}
    with private_sink(folder / "discarded.jsonl", "--discard") as sink:
        results["sink_mails_per_s"] = await blaster.mails_per_s(sink.url, mails=100_000)
        async with connected(services.database_url) as connection:
            results["reservations_per_s"] = await reservations_per_s(connection)
            environment = {**services.environment(), "COUPONS_SMTP_URL": sink.url}
            with worker(environment, folder / "worker.log"):
                await add_list(connection, "bench")
                await add_group(connection, "bench", RECIPIENTS)
                await save_message(connection, "bench", "bench", html=HTML)
                results["import_codes_per_s"] = await import_codes_per_s(connection, services)
                results["end_to_end_mails_per_s"] = await end_to_end_mails_per_s(connection, services)
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


async def import_codes_per_s(connection: Connection, services: Services) -> float:
    """From the published command to the last committed chunk, each line checked."""

    async def file() -> AsyncIterator[bytes]:
        text = "".join(f"IMPORT-{number:09}\n" for number in range(CODES)).encode()
        for begin in range(0, len(text), imports.CHUNK_BYTES):
            yield text[begin : begin + imports.CHUNK_BYTES]

    upload = await imports.upload(connection, "codes.txt", file())
    command = ImportCoupons(list="bench", source=f"upload:{upload.id}", format=Format(kind="txt"))

    async def finished() -> bool:
        job = await imports.find(connection, command.id)
        return job is not None and job.state == "finished"

    return CODES / await seconds_until(services, command, finished)


async def end_to_end_mails_per_s(connection: Connection, services: Services) -> float:
    """From the published command to the last committed outcome: snapshot, admission, binding, intents included."""
    command = StartSendout(message="bench", group="bench")

    async def finished() -> bool:
        sendout = await outbox.find(connection, command.id)
        return sendout is not None and sendout.state == "finished" and sendout.sent == RECIPIENTS

    return RECIPIENTS / await seconds_until(services, command, finished)


async def seconds_until(
    services: Services, command: ImportCoupons | StartSendout, fact: Callable[[], Awaitable[bool]]
) -> float:
    async with Publisher.connect(services.broker_url) as publisher:
        begun = time.perf_counter()
        await publisher.publish(command)
        while not await fact():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(POLL_SECONDS)
        return time.perf_counter() - begun


@contextmanager
def worker(environment: dict[str, str], log: Path) -> Iterator[None]:
    log.unlink(missing_ok=True)
    with running([COUPONS, "worker"], log=log, environment=environment) as process:
        wait_until(
            lambda: "taking commands" in log.read_text(encoding="utf-8"),
            process, name="The worker", log=log, limit_seconds=30,
        )  # fmt: skip
        yield


def main() -> None:
    folder = Path(".bench")
    with private_services(folder, say=lambda line: print(line, file=sys.stderr)) as services:
        results = asyncio.run(measure(services, folder.absolute()))
    rounded = {name: round(figure, 3 if figure < 100 else None) for name, figure in results.items()}
    for name, figure in rounded.items():
        print(f"{name:28} {figure:>12,}")
    RESULTS.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
