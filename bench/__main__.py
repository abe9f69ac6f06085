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
from uuid import uuid4

from bench import blaster
from coupons.codes import Checked
from coupons.commands import Format, ImportCoupons, StartSendout
from coupons.database import Connection, connected
from coupons.migrate import migrate
from coupons.recipients import Recipient
from coupons.store import deliveries, groups, imports, lists, messages, sendouts
from coupons.templates import Parts
from producers.client import Publisher
from producers.demo.process import running, wait_until
from producers.demo.services import Services, private_services, private_sink

RESULTS = Path(__file__).with_name("results.json")
COUPONS = Path(sys.executable).with_name("coupons")
CODES = 200_000
RECIPIENTS = 50_000
BATCH = 1_000
POLL_SECONDS = 0.02
HTML = "<p>Hello {{ first_name }},</p>" + "<p>the days are getting longer, and there is a lot to plant.</p>" * 25
TEXT = "Hello {{ first_name }},\n\n" + "the days are getting longer, and there is a lot to plant.\n" * 3


async def measure(services: Services, folder: Path) -> dict[str, float]:
    """Name → figure, in the order in which they are measured."""
    await migrate(services.database_url)
    results: dict[str, float] = {}
    with private_sink(folder / "discarded.jsonl", "--discard") as sink:
        results["sink_mails_per_s"] = await blaster.mails_per_s(sink.url, mails=100_000)
        async with connected(services.database_url) as connection:
            results["reservations_per_s"] = await reservations_per_s(connection)
            environment = {**services.environment(), "COUPONS_SMTP_URL": sink.url, "COUPONS_LOG_LEVEL": "warning"}
            with worker(environment, folder / "worker.log"):
                await prepare(connection)
                results["import_codes_per_s"] = await import_codes_per_s(connection, services)
                results["end_to_end_mails_per_s"] = await end_to_end_mails_per_s(connection, services)
    results["end_to_end_vs_sink"] = results["end_to_end_mails_per_s"] / results["sink_mails_per_s"]
    return results


async def reservations_per_s(connection: Connection) -> float:
    """Codes bound to recipients, by batches, in one process: what two SQL statements a batch can do."""
    await lists.create(connection, "reserved", description="", shortage="pause", alternative_text="", preview_text=None)
    await add_codes(connection, "reserved", CODES // 2)
    await add_group(connection, "reserved", CODES // 2)
    await save_message(connection, "reserved")
    sendout_id = uuid4()
    async with connection.transaction():
        command = StartSendout(id=sendout_id, message="reserved", group="reserved")
        await sendouts.create(connection, command, batch_size=BATCH)
    claim = await sendouts.claim(connection, owner="bench", lease_seconds=600)
    assert claim
    await sendouts.snapshot(connection, claim, batch_size=BATCH)
    await sendouts.admit(connection, claim)
    cursors: dict[int, int] = {}
    begun = time.perf_counter()
    while batch := await deliveries.claim(connection, owner="bench", lease_seconds=600):
        assert await deliveries.bind(connection, batch, cursors)
    seconds = time.perf_counter() - begun
    await sendouts.cancel(connection, sendout_id)
    return CODES / 2 / seconds


async def prepare(connection: Connection) -> None:
    await lists.create(connection, "bench", description="", shortage="pause", alternative_text="", preview_text=None)
    await add_group(connection, "bench", RECIPIENTS)
    await save_message(connection, "bench")


async def import_codes_per_s(connection: Connection, services: Services) -> float:
    """From the published command to the last committed chunk, each line checked."""

    async def file() -> AsyncIterator[bytes]:
        text = "".join(f"IMPORT-{number:09}\n" for number in range(CODES)).encode()
        for start in range(0, len(text), imports.CHUNK_BYTES):
            yield text[start : start + imports.CHUNK_BYTES]

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
        sendout = await sendouts.find(connection, command.id)
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


async def add_codes(connection: Connection, name: str, count: int) -> None:
    (target,) = await lists.named(connection, name)
    command = ImportCoupons(list=name, codes=("FIRST",))
    await imports.create(connection, command)
    job = await imports.claim(connection, owner="bench", lease_seconds=600)
    assert job
    assert job.list_id == target.id
    codes = [f"{name.upper()}-{number:09}" for number in range(count)]
    for start in range(0, count, 50_000):
        chunk = codes[start : start + 50_000]
        checked = Checked(list(range(start, start + len(chunk))), chunk, [], 0)
        await imports.apply(connection, job, checked, position=start + 1, lease_seconds=600)
    await imports.finish(connection, job)


async def add_group(connection: Connection, name: str, count: int) -> None:
    for start in range(0, count, 50_000):
        rows = [
            (number, Recipient(f"c{number}@example.org", f"c{number}@example.org", {"first_name": f"Zoë {number}"}))
            for number in range(start, min(start + 50_000, count))
        ]
        async with connection.transaction():
            await groups.add(connection, name, ["first_name"], rows)


async def save_message(connection: Connection, name: str) -> None:
    code = f'{{{{ coupon("{name}") }}}}'
    parts = Parts(subject="Your voucher, {{ first_name }}", text=f"{TEXT}{code}\n", html=f"{HTML}<b>{code}</b>\n")
    await messages.save(
        connection, name, parts, sender="Garden Shop <shop@example.org>", reply_to=None, declared=["first_name"]
    )


@contextmanager
def worker(environment: dict[str, str], log: Path) -> Iterator[None]:
    log.unlink(missing_ok=True)
    environment["COUPONS_LOG_LEVEL"] = "info"
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
