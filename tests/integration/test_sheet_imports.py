"""Imports of spreadsheets follow the rules of imports of CSV files, also after a crash."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from coupons import failpoints, import_engine
from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, open_pool
from coupons.files import decoding
from coupons.files.rejections import Reason
from coupons.settings import Settings
from coupons.sources import source as sources
from coupons.store import imports, lists, uploads
from coupons.store.imports import ImportStatus
from tests.factories import add_list
from tests.spreadsheets import Table, ods, xls, xlsx
from workers.importer import Importer
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges


class Killed(BaseException):
    """The sudden death of a worker."""


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=6) as pool:
        yield pool


def worker(pool: Pool) -> Importer:
    signals = Signals(("import",))
    known = Settings(lease_seconds=2, heartbeat_seconds=1)
    return Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=known, owner="test")


async def start_import(
    connection: Connection, content: bytes, file_format: Format | None = None, *, group: str | None = None
) -> UUID:
    async def pieces() -> AsyncIterator[bytes]:
        yield content

    upload = await uploads.store(connection, "codes.xlsx", pieces(), max_bytes=10_000_000)
    command = ImportCoupons(
        list=None if group else "a", group=group, source=f"upload:{upload.id}", format=file_format or Format()
    )
    await imports.create(connection, command)
    return command.id


async def status_of(connection: Connection, import_id: UUID) -> ImportStatus:
    found = await imports.find(connection, import_id)
    assert found
    return found


async def codes_of(connection: Connection) -> list[str]:
    (found,) = await lists.get(connection, "a")
    return [row["code"] for row in await connection.fetch("SELECT code FROM coupon WHERE list_id = $1", found.id)]


@pytest.mark.parametrize("write", [xlsx, xls, ods])
async def test_a_spreadsheet_is_imported_like_a_csv_file(connection: Connection, pool: Pool, write: type) -> None:
    """Rejected lines have the row numbers of the sheet, and the import says which sheet it has read."""
    await add_list(connection, "a")
    table: Table = [["code", "value"], ["00123", 5], [], ["A\nB", 5], [1234567890123456, 5], ["#N/A", 5], [4711, 5]]
    import_id = await start_import(connection, write({"Codes": table, "Notes": [["x"]]}))
    assert await worker(pool).step() == NO_PAUSE
    found = await status_of(connection, import_id)
    assert (found.state, found.reason, found.lines, found.added, found.blank) == ("finished", None, 6, 2, 1)
    assert sorted(await codes_of(connection)) == ["00123", "4711"]
    rejected = [(each.line, each.reason) async for each in imports.iter_rejections(connection, import_id)]
    assert rejected == [(4, Reason.CONTROL), (5, Reason.EXCEL), (6, Reason.EXCEL)]
    assert f"{write.__name__}, sheet 'Codes', column 1, with a header" in (found.read_as or "")
    assert found.notices[0].startswith("only sheet 'Codes' was read; the sheets are 1 'Codes', 2 'Notes'")


async def test_an_unknown_sheet_fails_the_import(connection: Connection, pool: Pool) -> None:
    """Nothing is imported, and the reason lists the sheets."""
    await add_list(connection, "a")
    import_id = await start_import(connection, xlsx({"Codes": [["A1"]]}), Format(sheet="Kodes"))
    assert await worker(pool).step() == NO_PAUSE
    found = await status_of(connection, import_id)
    assert (found.state, found.added) == ("failed", 0)
    assert found.reason == "codes.xlsx has no sheet 'Kodes': the sheets are 1 'Codes' (--sheet)"


async def test_an_import_of_a_spreadsheet_resumes_after_a_crash(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash in the middle, the next worker continues behind the last committed row, with the same result."""
    monkeypatch.setattr(sources, "PIECE_BYTES", 250)
    monkeypatch.setattr(decoding, "HEAD_BYTES", 100)
    monkeypatch.setattr(import_engine, "FIRST_CHUNK_PIECES", 1)
    monkeypatch.setattr(import_engine, "MAX_CHUNK_PIECES", 1)
    await add_list(connection, "a")
    table: Table = [["code"], *([f"CODE-{number:04}" if number % 10 else ""] for number in range(1_000))]
    import_id = await start_import(connection, xlsx({"Codes": table}))
    calls = 0

    def die(name: str) -> None:
        nonlocal calls
        calls += name == "import.committed"
        if calls == 20:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "hit", die)
        with pytest.raises((Killed, BaseExceptionGroup)):
            await worker(pool).step()
    interrupted = await status_of(connection, import_id)
    assert 0 < interrupted.lines < 1_000
    await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s' WHERE finished_at IS NULL")
    assert await worker(pool).step() == NO_PAUSE
    found = await status_of(connection, import_id)
    assert (found.state, found.lines, found.added, found.blank) == ("finished", 1_000, 900, 100)
    assert len(await codes_of(connection)) == 900


async def test_recipients_of_a_spreadsheet_are_not_lost_over_a_cell(connection: Connection, pool: Pool) -> None:
    """Line breaks in cells become blanks, an empty first column is left out, and a damaged number rejects its row."""
    table: Table = [
        [None, "E-Mail", "Straße", "Customer"], [None, "a@example.org", "Weg 1\n12345 Köln", "007"],
        [None, "b@example.org", None, 1234567890123456], [None, "c@example.org"],
    ]  # fmt: skip
    import_id = await start_import(connection, xlsx({"People": table}), group="people")
    assert await worker(pool).step() == NO_PAUSE
    found = await status_of(connection, import_id)
    assert (found.state, found.reason, found.added) == ("finished", None, 2)
    rejected = [(each.line, each.reason) async for each in imports.iter_rejections(connection, import_id)]
    assert rejected == [(3, Reason.EXCEL)]
    stored = await connection.fetchval("SELECT attributes FROM recipient WHERE address = 'a@example.org'")
    assert stored == {"strasse": "Weg 1 12345 Köln", "customer": "007"}
