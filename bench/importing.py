"""Benchmarks of imports: a million codes or recipients, compared with COPY; the same codes again; ten million codes;
a spreadsheet of a million rows.

The part `rule` shows what imports cost because a code exists once in all lists.
"""

import asyncio
import base64
import json
import random
import statistics
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Literal
from uuid import UUID

from bench.rig import Rig, compare, descendants, open_rig, resident_mib, time_command
from coupons.commands import Format, ImportCoupons
from coupons.store import imports
from sandbox.services import Services
from tests.factories import add_list

PARTS = ("codes", "rule", "large", "recipients", "xlsx")
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
COUPON_BEFORE = f"""
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (LIKE coupon INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING IDENTITY);
ALTER TABLE bare DROP fold, DROP variant, ADD PRIMARY KEY (list_id, code);
CREATE UNIQUE INDEX ON bare (list_id, sendout_id, delivery_number) WHERE sendout_id IS NOT NULL;
CREATE INDEX ON bare (list_id, id) WHERE sendout_id IS NULL;
{BARE_COUPON.splitlines()[-1]}"""
"""The table of codes before a code existed once in all lists (docs/decisions/0013)."""
BARE_RECIPIENT = """
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (LIKE recipient INCLUDING ALL);
ALTER TABLE bare ALTER group_id SET DEFAULT 1, ALTER import_id SET DEFAULT '3d1cbb6c-6c1f-4c0e-9a30-7b4c2c1f3a55'"""


async def measure(services: Services, folder: Path, parts: list[str]) -> AsyncIterator[dict[str, float]]:
    """Yield the figures of each part. Every part starts with an empty table of coupons or recipients."""
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    async with open_rig(services, folder) as shop:
        with shop.workers("smtp://127.0.0.1:9", settings={"COUPONS_IMPORT_FOLDER": str(sources)}) as [worker]:
            if "codes" in parts:
                yield await codes_and_copy(shop, write_codes(sources / "codes.txt", CODES))
            if "rule" in parts:
                async for figures in cost_of_the_rule(shop, sources):
                    yield figures
            if "large" in parts:
                yield await ten_million_codes(shop, sources, worker)
            if "recipients" in parts:
                yield await recipients_and_copy(shop, sources)
            if "xlsx" in parts:
                yield await million_rows_of_a_spreadsheet(shop, sources, worker)


# --- codes ---------------------------------------------------------------------------------------------------------


async def codes_and_copy(shop: Rig, file: Path) -> dict[str, float]:
    """Import a file, then the same file again.

    The first import is compared with COPY into a table with the same indexes and constraints.
    """
    again: list[float] = []
    repeated: list[float] = []

    async def ours() -> float:
        name = await add_empty_list(shop)
        first = await time_import(shop, file, list_name=name)
        second = await time_import(shop, file, list_name=name)
        again.append(first / second)
        repeated.append(CODES / second)
        return CODES / first

    async def copy() -> float:
        return CODES / await time_copy(shop, file, BARE_COUPON, ["code"])

    base, own, ratio = await compare(ROUNDS, copy, ours)
    return {
        "copy_codes_per_s": base,
        "import_codes_per_s": own,
        "import_vs_copy": ratio,
        "reimport_codes_per_s": statistics.median(repeated),
        "reimport_vs_first": statistics.median(again),
    }


async def cost_of_the_rule(shop: Rig, sources: Path) -> AsyncIterator[dict[str, float]]:
    """Import files in the cases in which the rule that a code exists once could cost most.

    Each import is compared with COPY of a million codes into the table before that rule, whose key was the list and the
    code. The same command with an older version gives the speed before the rule.
    """
    file = write_codes(sources / "codes.txt", CODES)
    half, umlauts = write_variants(file, sources)

    async def copy() -> float:
        return CODES / await time_copy(shop, file, COUPON_BEFORE, ["code"])

    async def new() -> float:
        return CODES / await time_import(shop, file, list_name=await add_empty_list(shop))

    async def half_known() -> float:
        name = await add_empty_list(shop)
        await time_import(shop, half, list_name=name)
        await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
        return CODES / await time_import(shop, file, list_name=name)

    async def with_umlauts() -> float:
        return CODES / await time_import(shop, umlauts, list_name=await add_empty_list(shop))

    async def case_sensitive() -> float:
        return CODES / await time_import(shop, file, list_name=await add_empty_list(shop, case_sensitive=True))

    for case in (new, half_known, with_umlauts, case_sensitive):
        _, own, ratio = await compare(ROUNDS, copy, case)
        yield {f"rule_{case.__name__}_codes_per_s": own, f"rule_{case.__name__}_vs_copy_before": ratio}


async def ten_million_codes(shop: Rig, sources: Path, worker: int) -> dict[str, float]:
    """Import ten million codes between two imports of a million. The memory is the worker's peak over all imports."""
    few, many = write_codes(sources / "codes.txt", CODES), write_codes(sources / "many.txt", MANY_CODES)
    rates = []
    for file, codes in ((few, CODES), (many, MANY_CODES), (few, CODES)):
        rates.append(codes / await time_import(shop, file, list_name=await add_empty_list(shop)))
    many.unlink()
    return {
        "import_10m_codes_per_s": rates[1],
        "import_10m_vs_1m": rates[1] / ((rates[0] + rates[2]) / 2),
        "import_rss_mib": resident_mib(worker),
    }


# --- recipients ----------------------------------------------------------------------------------------------------


async def recipients_and_copy(shop: Rig, sources: Path) -> dict[str, float]:
    """Import recipients with five attributes. COPY reads the three columns of the table, which are already encoded."""
    file, ready = write_recipients(sources / "people.csv", sources / "people.copy", RECIPIENTS)

    async def ours() -> float:
        await shop.connection.execute("TRUNCATE recipient")
        await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
        return RECIPIENTS / await time_import(shop, file, group="bench-people")

    async def copy() -> float:
        columns = ["address_key", "address", "attributes"]
        return RECIPIENTS / await time_copy(shop, ready, BARE_RECIPIENT, columns)

    base, own, ratio = await compare(ROUNDS, copy, ours)
    return {"copy_recipients_per_s": base, "import_recipients_per_s": own, "recipients_vs_copy": ratio}


# --- spreadsheets --------------------------------------------------------------------------------------------------


async def million_rows_of_a_spreadsheet(shop: Rig, sources: Path, worker: int) -> dict[str, float]:
    """Import a sheet with a million codes, a number and a text per row. Texts are shared, as Excel writes them.

    The memory is the peak of the worker, and of the process that reads the spreadsheet for it.
    """
    file = write_workbook(sources / "codes.xlsx", CODES)
    peaks: list[float] = [0.0]

    async def sample() -> None:
        while True:
            for child in descendants(worker):
                with suppress(FileNotFoundError, ProcessLookupError):
                    peaks.append(resident_mib(child))
            await asyncio.sleep(0.2)

    sampling = asyncio.create_task(sample())
    try:
        seconds = await time_import(shop, file, list_name=await add_empty_list(shop), kind=None)
    finally:
        sampling.cancel()
    return {
        "xlsx_rows_per_s": CODES / seconds,
        "xlsx_worker_rss_mib": resident_mib(worker),
        "xlsx_reader_rss_mib": max(peaks),
    }


def write_workbook(file: Path, rows: int) -> Path:
    """Write a workbook as XML: a library takes half a minute, and 2 GB of memory for shared texts."""
    if file.exists():
        return file
    letters = base64.b32encode(random.Random(rows).randbytes(rows * CODE_CHARS * 5 // 8)).decode()
    texts = [
        "code",
        "value",
        "shop",
        "Berlin",
        *(letters[n : n + CODE_CHARS] for n in range(0, len(letters), CODE_CHARS)),
    ]
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    related = "".join(
        f'<Relationship Id="r{number}" Type="{relations}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate({"worksheet": "sheet.xml", "sharedStrings": "texts.xml"}.items())
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(
            "_rels/.rels",
            f'<Relationships><Relationship Id="r" Type="{relations}/officeDocument" Target="xl/workbook.xml"/>'
            "</Relationships>",
        )
        archive.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{related}</Relationships>")
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets><sheet name="A" r:id="r0"/></sheets></workbook>',
        )
        with archive.open("xl/texts.xml", "w") as part:
            part.write(f'<sst xmlns="{main}">'.encode())
            for first in range(0, len(texts), 10_000):
                part.write("".join(f"<si><t>{text}</t></si>" for text in texts[first : first + 10_000]).encode())
            part.write(b"</sst>")
        with archive.open("xl/sheet.xml", "w") as part:
            part.write(f'<worksheet xmlns="{main}"><sheetData>'.encode())
            part.write(
                b'<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="s"><v>2</v></c></row>'
            )
            for first in range(2, rows + 2, 10_000):
                part.write(
                    "".join(
                        f'<row r="{row}"><c r="A{row}" t="s"><v>{row + 2}</v></c><c r="B{row}"><v>{row % 50}</v></c>'
                        f'<c r="C{row}" t="s"><v>3</v></c></row>'
                        for row in range(first, min(first + 10_000, rows + 2))
                    ).encode()
                )
            part.write(b"</sheetData></worksheet>")
    return file


# --- both ----------------------------------------------------------------------------------------------------------


async def time_import(
    shop: Rig,
    file: Path,
    *,
    list_name: str | None = None,
    group: str | None = None,
    kind: Literal["txt"] | None = "txt",
) -> float:
    """Import a file; return the seconds from publishing the command to the last committed chunk."""
    command = ImportCoupons(
        list=list_name, group=group, source=file.as_uri(), format=Format(kind="csv" if group else kind)
    )

    async def finished() -> bool:
        return await has_finished(shop, command.id)

    return await time_command(shop.services, command, finished)


async def has_finished(shop: Rig, import_id: UUID) -> bool:
    job = await imports.find(shop.connection, import_id)
    if job and job.state == "failed":
        raise RuntimeError(f"the import failed: {job.reason}")
    return job is not None and job.state == "finished"


async def time_copy(shop: Rig, file: Path, table: str, columns: list[str]) -> float:
    await shop.connection.execute(table)
    await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
    begun = time.perf_counter()
    await shop.connection.copy_to_table("bare", source=file, columns=columns, timeout=MINUTES)
    return time.perf_counter() - begun


async def add_empty_list(shop: Rig, *, case_sensitive: bool = False) -> str:
    """Delete all codes of all lists, because a code exists once. Add a list and return its name."""
    name = f"import-{time.monotonic_ns()}"
    await shop.connection.execute("TRUNCATE coupon; UPDATE coupon_list SET total = 0, available = 0")
    await shop.connection.execute("CHECKPOINT", timeout=MINUTES)
    await add_list(shop.connection, name, case_sensitive=case_sensitive)
    return name


def write_codes(file: Path, codes: int) -> Path:
    """Write distinct random codes in random order: sorted codes would fill an index faster."""
    if not file.exists():
        letters = base64.b32encode(random.Random(codes).randbytes(codes * CODE_CHARS * 5 // 8)).decode()
        begins = range(0, codes * CODE_CHARS, CODE_CHARS)
        file.write_text("".join(f"{letters[begin : begin + CODE_CHARS]}\n" for begin in begins), encoding="ascii")
    return file


def write_variants(file: Path, sources: Path) -> tuple[Path, Path]:
    """Write every second code of the file, and its codes with an umlaut at the end."""
    lines = file.read_text(encoding="ascii").splitlines()
    half, umlauts = sources / "half.txt", sources / "umlauts.txt"
    half.write_text("".join(f"{line}\n" for line in lines[::2]), encoding="ascii")
    umlauts.write_text("".join(f"{line[:-1]}Ü\n" for line in lines), encoding="utf-8")
    return half, umlauts


def write_recipients(file: Path, ready: Path, recipients: int) -> tuple[Path, Path]:
    """Write the same recipients as a CSV export and as the input of COPY."""
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
