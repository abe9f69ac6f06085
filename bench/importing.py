"""How fast importing is: beside COPY of the same file, once more, ten times as large, and with recipients."""

import base64
import json
import random
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

from bench.rig import Rig, neighbours, resident_mib, rig, seconds_until
from coupons.commands import Format, ImportCoupons
from coupons.store import imports
from sandbox.services import Services
from tests.factories import add_list

PARTS = ("codes", "large", "recipients")
ROUNDS = 3
CODES = RECIPIENTS = 1_000_000
MANY_CODES = 10_000_000
CODE_CHARS = 16
MINUTES = 30 * 60
ATTRIBUTES = ("first_name", "last_name", "city", "country", "customer")

BARE_COUPON = """
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (LIKE coupon INCLUDING ALL);
ALTER TABLE bare ALTER list_id SET DEFAULT 1, ALTER import_id SET DEFAULT '3d1cbb6c-6c1f-4c0e-9a30-7b4c2c1f3a55'"""
BARE_RECIPIENT = """
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (LIKE recipient INCLUDING ALL);
ALTER TABLE bare ALTER group_id SET DEFAULT 1, ALTER import_id SET DEFAULT '3d1cbb6c-6c1f-4c0e-9a30-7b4c2c1f3a55'"""


async def measure(services: Services, folder: Path, parts: list[str]) -> AsyncIterator[dict[str, float]]:
    """Name → figure, part by part. Every part begins with an empty table of coupons or recipients."""
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    async with rig(services, folder) as shop:
        with shop.workers("smtp://127.0.0.1:9", settings={"COUPONS_IMPORT_FOLDER": str(sources)}) as [worker]:
            if "codes" in parts:
                yield await beside_copy(shop, written_codes(sources / "codes.txt", CODES))
            if "large" in parts:
                yield await ten_times_as_many(shop, sources, worker)
            if "recipients" in parts:
                yield await recipients_beside_copy(shop, sources)


# --- codes ---------------------------------------------------------------------------------------------------------


async def beside_copy(shop: Rig, file: Path) -> dict[str, float]:
    """Every line checked, beside COPY into a table with the same indexes and constraints; then the same file again."""
    again: list[float] = []
    repeated: list[float] = []

    async def ours() -> float:
        name = await empty_list(shop)
        first = await seconds_of_import(shop, file, list_name=name)
        second = await seconds_of_import(shop, file, list_name=name)
        again.append(first / second)
        repeated.append(CODES / second)
        return CODES / first

    async def copied() -> float:
        return CODES / await seconds_of_copy(shop, file, BARE_COUPON, ["code"])

    base, own, ratio = await neighbours(ROUNDS, copied, ours)
    return {
        "copy_codes_per_s": base,
        "import_codes_per_s": own,
        "import_vs_copy": ratio,
        "reimport_codes_per_s": statistics.median(repeated),
        "reimport_vs_first": statistics.median(again),
    }


async def ten_times_as_many(shop: Rig, sources: Path, worker: int) -> dict[str, float]:
    """Between two imports of a million; the worker's memory is the most that it had in all of this."""
    few, many = written_codes(sources / "codes.txt", CODES), written_codes(sources / "many.txt", MANY_CODES)
    rates = []
    for file, codes in ((few, CODES), (many, MANY_CODES), (few, CODES)):
        rates.append(codes / await seconds_of_import(shop, file, list_name=await empty_list(shop)))
    many.unlink()
    return {
        "import_10m_codes_per_s": rates[1],
        "import_10m_vs_1m": rates[1] / ((rates[0] + rates[2]) / 2),
        "import_rss_mib": resident_mib(worker),
    }


# --- recipients ----------------------------------------------------------------------------------------------------


async def recipients_beside_copy(shop: Rig, sources: Path) -> dict[str, float]:
    """With five attributes; COPY gets the three columns of the table ready to be taken."""
    file, ready = written_recipients(sources / "people.csv", sources / "people.copy", RECIPIENTS)

    async def ours() -> float:
        await shop.connection.execute("TRUNCATE recipient")
        await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
        return RECIPIENTS / await seconds_of_import(shop, file, group="bench-people")

    async def copied() -> float:
        columns = ["address_key", "address", "attributes"]
        return RECIPIENTS / await seconds_of_copy(shop, ready, BARE_RECIPIENT, columns)

    base, own, ratio = await neighbours(ROUNDS, copied, ours)
    return {"copy_recipients_per_s": base, "import_recipients_per_s": own, "recipients_vs_copy": ratio}


# --- both ----------------------------------------------------------------------------------------------------------


async def seconds_of_import(shop: Rig, file: Path, *, list_name: str | None = None, group: str | None = None) -> float:
    """From the published command to the last committed chunk."""
    command = ImportCoupons(
        list=list_name, group=group, source=file.as_uri(), format=Format(kind="csv" if group else "txt")
    )

    async def finished() -> bool:
        return await has_finished(shop, command.id)

    return await seconds_until(shop.services, command, finished)


async def has_finished(shop: Rig, import_id: UUID) -> bool:
    job = await imports.find(shop.connection, import_id)
    if job and job.state == "failed":
        raise RuntimeError(f"the import failed: {job.reason}")
    return job is not None and job.state == "finished"


async def seconds_of_copy(shop: Rig, file: Path, table: str, columns: list[str]) -> float:
    await shop.connection.execute(table)
    await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
    begun = time.perf_counter()
    await shop.connection.copy_to_table("bare", source=file, columns=columns, timeout=MINUTES)
    return time.perf_counter() - begun


async def empty_list(shop: Rig) -> str:
    """A new list, and no coupons in any other."""
    name = f"import-{time.monotonic_ns()}"
    await shop.connection.execute("TRUNCATE coupon")
    await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
    await add_list(shop.connection, name)
    return name


def written_codes(file: Path, codes: int) -> Path:
    """Different random codes, as shops make them; in the order of the alphabet an index is filled faster."""
    if not file.exists():
        letters = base64.b32encode(random.Random(codes).randbytes(codes * CODE_CHARS * 5 // 8)).decode()
        begins = range(0, codes * CODE_CHARS, CODE_CHARS)
        file.write_text("".join(f"{letters[begin : begin + CODE_CHARS]}\n" for begin in begins), encoding="ascii")
    return file


def written_recipients(file: Path, ready: Path, recipients: int) -> tuple[Path, Path]:
    """The same recipients as a shop exports them, and as COPY takes them."""
    chance = random.Random(recipients)
    with file.open("w", encoding="utf-8") as rows, ready.open("w", encoding="utf-8") as lines:
        rows.write(";".join(("email", *ATTRIBUTES)) + "\n")
        for _ in range(recipients):
            key = chance.getrandbits(40)
            address = f"customer.{key:010x}@example.org"
            values = (f"Zoë {key % 997}", f"Müller-{key % 9973}", "Frankfurt am Main", "DE", f"K-{key:013}")
            rows.write(";".join((address, *values)) + "\n")
            attributes = json.dumps(dict(zip(ATTRIBUTES, values, strict=True)), ensure_ascii=False)
            lines.write(f"{address}\t{address}\t{attributes}\n")
    return file, ready
