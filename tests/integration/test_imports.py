"""Imports: every line has a result, chunks are atomic, and a repeated import changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import DiskFullError, QueryCanceledError

from coupons import import_engine
from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, open_pool
from coupons.errors import Conflict, LeaseLost
from coupons.files import decoding
from coupons.files.code_reader import CodeReader
from coupons.files.codes import check_codes
from coupons.files.format import FileFormat
from coupons.files.rejections import Reason, Rejected, streamed_rejections_csv
from coupons.settings import Settings
from coupons.sources import Source, SourceLimits
from coupons.sources import source as sources
from coupons.states import FILE_MODES, DeliveryState, ImportMode, TargetKind
from coupons.store import deliveries, groups, import_chunks, imports, lists, lookup, uploads
from coupons.store.deliveries import DeliveryResult
from coupons.store.imports import ImportStatus, LeasedImport, Target
from tests.factories import (
    LEASE_SECONDS,
    add_codes,
    add_group,
    add_list,
    add_recipients,
    claimed,
    prepare,
    save_message,
    start,
    take_codes,
)
from workers.importer import MAX_RETRIES, Importer
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges

GROUP_CSV = Format(kind="csv")


class Killed(BaseException):
    """The sudden death of a worker."""


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=12) as pool:
        yield pool


def worker(pool: Pool, **settings: Any) -> Importer:
    signals = Signals(("import",))
    known = Settings(lease_seconds=2, heartbeat_seconds=1, **settings)
    return Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=known, owner="test")


async def start_import(
    connection: Connection,
    text: str | bytes,
    *,
    mode: ImportMode = ImportMode.ADD,
    to: str = "a",
    group: str | None = None,
    is_reviewed: bool = True,
) -> UUID:
    """Upload a file, and create an import of it into a list or a group. `is_reviewed`: any result is confirmed."""
    data = text.encode() if isinstance(text, str) else text

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    upload = await uploads.store(connection, "codes.txt", pieces(), max_bytes=10_000_000)
    command = ImportCoupons(
        list=None if group else to, group=group, mode=mode, source=f"upload:{upload.id}",
        format=GROUP_CSV if group else Format(kind="txt"), confirmed=is_reviewed, allow_empty=is_reviewed,
    )  # fmt: skip
    await imports.create(connection, command)
    return command.id


async def kill_at(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, import_id: UUID, place: str, *, hit: int = 1
) -> None:
    """Run the import until a worker dies when it hits the failpoint for this time, and let its lease expire."""
    hits = 0

    def kill(name: str) -> None:
        nonlocal hits
        hits += name == place
        if name == place and hits == hit:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("coupons.failpoints.hit", kill)
        with pytest.raises((Killed, BaseExceptionGroup)):
            await run_worker(connection, pool, import_id)
    await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s' WHERE id = $1", import_id)


async def run_worker(connection: Connection, pool: Pool, import_id: UUID) -> ImportStatus:
    """Let a worker run the import, and return its status."""
    assert await worker(pool).step() == NO_PAUSE
    return await status_of(connection, import_id)


async def status_of(connection: Connection, import_id: UUID) -> ImportStatus:
    found = await imports.find(connection, import_id)
    assert found
    return found


async def reasons(connection: Connection, import_id: UUID) -> list[tuple[int, Reason]]:
    return [(each.line, each.reason) async for each in imports.iter_rejections(connection, import_id)]


async def codes_of(connection: Connection, name: str = "a") -> list[str]:
    (found,) = await lists.get(connection, name)
    rows = await connection.fetch("SELECT code FROM coupon WHERE list_id = $1 ORDER BY code", found.id)
    assert len(rows) == found.total
    return [row["code"] for row in rows]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce chunks to 250 bytes of text."""
    monkeypatch.setattr(sources, "PIECE_BYTES", 250)
    monkeypatch.setattr(decoding, "HEAD_BYTES", 100)
    monkeypatch.setattr(import_engine, "FIRST_CHUNK_PIECES", 1)
    monkeypatch.setattr(import_engine, "MAX_CHUNK_PIECES", 1)


# --- every line ------------------------------------------------------------------------------------------------------


async def test_every_line_is_accepted_or_rejected_with_a_reason(connection: Connection, pool: Pool) -> None:
    """Added, blank and rejected lines add up; each rejected line has its number and reason."""
    await add_list(connection, "a")
    await add_codes(connection, "a", ["OLD"])
    import_id = await start_import(connection, "NEW\n\nOLD\nNEW\nhttps://shop.example/x\n1,2E+11\nNEXT")
    found = await run_worker(connection, pool, import_id)
    assert (found.state, found.lines, found.added, found.blank, found.rejected) == ("finished", 7, 2, 1, 4)
    assert await reasons(connection, import_id) == [
        (3, Reason.IN_LIST), (4, Reason.DUPLICATE), (5, Reason.URL), (6, Reason.EXCEL),
    ]  # fmt: skip
    (a,) = await lists.get(connection, "a")
    assert (a.total, a.available) == (3, 3)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("search", ["merge", "probe"])
async def test_the_reason_of_a_repeated_line_does_not_depend_on_chunks(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    """A code of the list is rejected as "in list"; a code of the file is a duplicate from its second line on."""
    monkeypatch.setattr(import_chunks, "MERGE_FACTOR", 1_000 if search == "merge" else 0)
    await add_list(connection, "a")
    await add_codes(connection, "a", ["OLD-0001"])
    block = ["OLD-0001", "NEW-0001", *(f"CODE-{number:04}" for number in range(30))]
    more = [f"MORE-{number:04}" for number in range(34)]
    lines = [
        "OLD-0001",
        "NEW-0001",
        "NEW-0001",
        "OLD-0001",
        *block[2:],
        *block,
        *more,
        "OLD-0001",
        "LAST-0001",
        "MORE-0033",
        "LAST-0001",
    ]
    assert lines[100] == "OLD-0001"  # a line of the sample by which an import decides whether a chunk is new
    import_id = await start_import(connection, "\n".join(lines))
    found = await run_worker(connection, pool, import_id)
    assert (found.added, found.rejected) == (31 + 34 + 1, 66 - 31 + 3)
    rejected = await reasons(connection, import_id)
    assert [line for line, reason in rejected if reason is Reason.IN_LIST] == [1, 4, 35, 101]
    assert [line for line, reason in rejected if reason is Reason.DUPLICATE] == [3, *range(36, 67), 103, 104]


async def test_a_sent_code_has_another_reason_than_an_existing_one(connection: Connection, pool: Pool) -> None:
    """A sent code is never accepted again, and its reason says so."""
    await add_list(connection, "a", 2)
    await send_one(connection, "a")
    import_id = await start_import(connection, "A-000000000\nA-000000001\nA-000000002\n")
    assert (await run_worker(connection, pool, import_id)).added == 1
    assert await reasons(connection, import_id) == [(1, Reason.SENT), (2, Reason.IN_LIST)]


async def test_an_imported_chunk_gives_the_same_result_as_a_lookup(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk's recorded digest counts only until a code is removed or sent. Then each code is looked up again."""
    monkeypatch.setattr(import_chunks, "MIN_RECORDED_LINES", 1)
    await add_list(connection, "a")
    text = "A-1\nA-2\nA-1\nhttps://example.org\nA-3\n"
    known = [(1, Reason.IN_LIST), (2, Reason.IN_LIST), (3, Reason.IN_LIST), (4, Reason.URL), (5, Reason.IN_LIST)]
    await run_worker(connection, pool, await start_import(connection, text))
    for _ in range(2):
        again = await start_import(connection, text)
        assert (await run_worker(connection, pool, again)).added == 0
        assert await reasons(connection, again) == known
    await run_worker(connection, pool, await start_import(connection, "A-2\n", mode=ImportMode.DELETE))
    after_removal = await start_import(connection, text)
    assert (await run_worker(connection, pool, after_removal)).added == 1
    assert await reasons(connection, after_removal) == [known[0], *known[2:]]
    await send_one(connection, "a")
    after_sending = await start_import(connection, text)
    await run_worker(connection, pool, after_sending)
    assert [reason for _, reason in await reasons(connection, after_sending)].count(Reason.SENT) == 2
    assert await codes_of(connection) == ["A-1", "A-2", "A-3"]


@pytest.mark.usefixtures("small_chunks")
async def test_a_chunk_repeated_in_one_file_is_a_duplicate(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk's digest is already recorded, but the list did not have the codes before this import."""
    monkeypatch.setattr(import_chunks, "MIN_RECORDED_LINES", 1)
    await add_list(connection, "a")
    chunk = "".join(f"CODE-{number:04}\n" for number in range(25))
    assert len(chunk) == 250
    import_id = await start_import(connection, 2 * chunk)
    assert (await run_worker(connection, pool, import_id)).added == 25
    assert await reasons(connection, import_id) == [(line, Reason.DUPLICATE) for line in range(26, 51)]


async def send_one(connection: Connection, name: str) -> None:
    """Send the first code of the list to a recipient."""
    await add_group(connection, "g", 1)
    await save_message(connection, "m", name)
    await start(connection, "m", "g")
    await prepare(connection)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    of_lists = await deliveries.list_lists(connection, batch.sendout_id)
    outcomes = [
        DeliveryResult.of(each, DeliveryState.SENT, "250")
        for each in await deliveries.list_due(connection, batch, of_lists)
    ]
    assert await deliveries.record(
        connection, batch, flush=uuid4(), results=outcomes, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
    )


async def test_codes_sent_by_a_deleted_list_are_rejected(connection: Connection, pool: Pool) -> None:
    """Codes that a deleted list has sent are recognized in any list and any spelling by their hashes."""
    await add_list(connection, "a")
    await connection.execute("INSERT INTO retired_code SELECT retired_code_hash(key, 'spent') FROM retired_code_key")
    import_id = await start_import(connection, "NEW\nSPENT\nSpent\n")
    assert (await run_worker(connection, pool, import_id)).added == 1
    assert await reasons(connection, import_id) == [(2, Reason.SENT), (3, Reason.SENT)]
    assert await codes_of(connection) == ["NEW"]


async def test_codes_retired_by_an_older_version_are_rejected(connection: Connection, pool: Pool) -> None:
    """Their hashes are of one spelling. It is recognized in any database locale, unless it has a mixture of cases."""
    await add_list(connection, "a")
    await connection.execute(
        "INSERT INTO retired_spelling SELECT retired_code_hash(key, code) FROM retired_code_key, "
        "unnest(ARRAY['UPPER-1', 'lower-1', 'Title-One', 'miXed-1', U&'GRU\\0308N-1', 'oTher-1']) AS code"
    )
    import_id = await start_import(connection, "upper-1\nLower-1\nTITLE-ONE\nmiXed-1\nGrün-1\nother-1\n")
    assert (await run_worker(connection, pool, import_id)).added == 1
    assert await reasons(connection, import_id) == [(line, Reason.SENT) for line in range(1, 6)]
    assert [each.state for each in await lookup.list_owners(connection, "grün-1")] == ["sent"]


# --- modes -----------------------------------------------------------------------------------------------------------


async def test_replacing_keeps_reserved_and_assigned_codes(connection: Connection, pool: Pool) -> None:
    """New codes are added, existing ones kept, available ones removed. Codes that could not be removed are counted."""
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 4)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)  # 4 of the 10 are reserved
    import_id = await start_import(
        connection, "A-000000009\nNEW-1\nNEW-2\nNEW-1\nA-000000009\n", mode=ImportMode.REPLACE
    )
    found = await run_worker(connection, pool, import_id)
    assert (found.added, found.existing, found.removed, found.rejected) == (2, 1, 8, 2)
    assert await reasons(connection, import_id) == [(4, Reason.DUPLICATE), (5, Reason.DUPLICATE)]
    assert (found.kept_reserved, found.kept_assigned) == (1, 0)
    (a,) = await lists.get(connection, "a")
    assert (a.total, a.available, a.reserved) == (4, 0, 4)


async def test_deleting_removes_only_available_codes(connection: Connection, pool: Pool) -> None:
    """A code that is missing or reserved for a sendout is rejected with that reason."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 3)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)
    import_id = await start_import(
        connection, "".join(f"A-{number:09}\n" for number in range(5)) + "NOWHERE\n", mode=ImportMode.DELETE
    )
    found = await run_worker(connection, pool, import_id)
    assert (found.removed, found.rejected, found.kept_reserved) == (2, 4, 3)
    assert await reasons(connection, import_id) == [
        (3, Reason.RESERVED), (4, Reason.RESERVED), (5, Reason.RESERVED), (6, Reason.NOT_IN_LIST),
    ]  # fmt: skip


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("mode", [ImportMode.REPLACE, ImportMode.DELETE])
async def test_a_dry_run_reports_the_same_as_the_import(connection: Connection, pool: Pool, mode: ImportMode) -> None:
    """A dry run and an import have the same counts and rejected lines in every mode, also with reserved codes."""
    await add_list(connection, "a", 60)
    await add_group(connection, "g", 50)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)
    codes = [f"A-{number:09}" for number in range(60, 20, -1)]
    (a,) = await lists.get(connection, "a")

    async def pieces() -> AsyncIterator[bytes]:
        yield "\n".join(codes).encode()

    source, limits = Source("codes.txt", None, pieces()), SourceLimits.from_settings(Settings())
    async with import_engine.dry_run(
        connection, Target(a.id, "a", TargetKind.LIST), source, limits,
        mode=mode, file_format=FileFormat(kind="txt"), max_lines=1_000,
    ) as report:  # fmt: skip
        lines = [(each.line, each.reason) async for each in report.rejected]
        counts = report.counts
    import_id = await start_import(connection, "\n".join(codes), mode=mode)
    found = await run_worker(connection, pool, import_id)
    assert lines == await reasons(connection, import_id)
    assert (counts.added, counts.existing, counts.removed) == (found.added, found.existing, found.removed)
    if mode == "replace":
        assert counts.kept_reserved == found.kept_reserved > 0


async def test_codes_of_a_command_are_not_parsed_as_a_file(connection: Connection, pool: Pool) -> None:
    """A line break, byte order mark or file signature in a code does not affect the other codes of the command."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", codes=("%PDF-1.4", "\ufeffABC", "A\n\nB", "\0" * 9, "x" * 70_000, " OK ", ""))
    await imports.create(connection, command)
    found = await run_worker(connection, pool, command.id)
    assert (found.state, found.lines, found.added, found.blank) == ("finished", 7, 2, 1)
    assert await codes_of(connection) == ["%PDF-1.4", "OK"]
    assert [line for line, _ in await reasons(connection, command.id)] == [2, 3, 4, 5]


async def test_a_replaced_group_has_the_attributes_of_the_file(connection: Connection, pool: Pool) -> None:
    """A recipient keeps no attribute that the file does not have, and the group has only the file's attributes."""
    first = "email,first_name,town\na@x.org,Ada,Rom\nb@x.org,Bob,Ulm\n"
    await run_worker(connection, pool, await start_import(connection, first, group="g"))
    second = await start_import(
        connection, "email,first_name,phone\nA@x.org,Ava,1\nc@x.org,Cleo,2\n", group="g", mode=ImportMode.REPLACE
    )
    found = await run_worker(connection, pool, second)
    assert (found.added, found.existing, found.removed, found.lines) == (1, 1, 1, 2)
    rows = await connection.fetch("SELECT attributes::text FROM recipient ORDER BY address_key")
    assert [json.loads(row["attributes"]) for row in rows] == [
        {"first_name": "Ava", "phone": "1"}, {"first_name": "Cleo", "phone": "2"},
    ]  # fmt: skip
    assert (await groups.get(connection, "g")).attributes == ["first_name", "phone"]


async def test_a_group_gets_new_recipients_and_new_attributes(connection: Connection, pool: Pool) -> None:
    """The first line of an address counts. An existing recipient gets the new attributes and keeps the others."""
    first = await start_import(connection, "email,first_name,town\na@x.org,Ada,Rom\nb@x.org,Bob,Ulm\n", group="g")
    assert (await run_worker(connection, pool, first)).added == 2
    second = await start_import(
        connection, "E-Mail;First Name\nA@x.org;Ava\nc@x.org;Cleo\nC@X.org;Clio\nd@;Dan\n", group="g"
    )
    found = await run_worker(connection, pool, second)
    assert (found.added, found.existing, found.rejected, found.lines) == (1, 1, 2, 4)
    assert await reasons(connection, second) == [(4, Reason.DUPLICATE), (5, Reason.BAD_ADDRESS)]
    assert await connection.fetchval("SELECT attributes FROM recipient WHERE address_key = 'a@x.org'") == {
        "first_name": "Ava", "town": "Rom",
    }  # fmt: skip


@pytest.mark.usefixtures("small_chunks")
async def test_a_group_can_be_replaced_and_reduced(connection: Connection, pool: Pool) -> None:
    """An import may remove any recipient, because no mail depends on a group."""
    await add_group(connection, "g", 50)
    replacing = await start_import(
        connection,
        "email\n" + "".join(f"c{n}@example.org\n" for n in range(40, 60)),
        group="g",
        mode=ImportMode.REPLACE,
    )
    found = await run_worker(connection, pool, replacing)
    assert (found.added, found.existing, found.removed) == (10, 10, 40)
    deleting = await start_import(
        connection, "email\nc41@example.org\nnobody@example.org\nc41@example.org\n", group="g", mode=ImportMode.DELETE
    )
    found = await run_worker(connection, pool, deleting)
    assert (found.removed, found.rejected) == (1, 2)
    assert await connection.fetchval("SELECT count(*) FROM recipient") == 19


# --- crashes, order, cancellation ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("step", ["import", "after import", "remove", "finish"])
@pytest.mark.parametrize("mode", FILE_MODES)
@pytest.mark.parametrize("into", ["list", "group"])
async def test_an_import_resumes_after_its_worker_died(  # noqa: PLR0917 - pytest passes by name
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, into: str, mode: ImportMode, step: str
) -> None:
    """The worker dies before and after each chunk and at each final step. The result is as without a crash."""
    survivor, victim = [await twin(connection, into, name, mode) for name in ("a", "b")]
    whole = await run_worker(connection, pool, survivor)
    death = 0
    while (found := await status_of(connection, victim)).finished_at is None:
        with monkeypatch.context() as patch:
            die_at(patch, step, death)
            with suppress(Killed):
                await worker(pool).step()
        await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s' WHERE finished_at IS NULL")
        death += 1
    assert death > 1 or (step == "remove" and (into, mode) != ("list", "replace"))
    for name in (
        "state",
        "lines",
        "blank",
        "added",
        "removed",
        "existing",
        "rejected",
        "kept_reserved",
        "kept_assigned",
    ):
        assert getattr(found, name) == getattr(whole, name), name
    assert await reasons(connection, victim) == await reasons(connection, survivor)
    assert await contents(connection, into, "a") == await contents(connection, into, "b")


def die_at(patch: pytest.MonkeyPatch, step: str, number: int) -> None:
    """Kill the worker at this step: in its first run at the first such step, in its second run at the second, etc."""
    steps = {
        "import": (import_chunks, "import_chunk"),
        "after import": (import_chunks, "import_chunk"),
        "remove": (import_chunks, "_remove_codes"),
        "finish": (imports, "finish"),
    }
    module, name = steps[step]
    plain, met = getattr(module, name), 0

    async def dies(*arguments: Any, **named: Any) -> Any:
        nonlocal met
        met += 1
        if met > number and (step != "finish" or number == 0):
            if step == "after import":
                await plain(*arguments, **named)
            raise Killed
        return await plain(*arguments, **named)

    patch.setattr(module, name, dies)


async def twin(connection: Connection, into: str, name: str, mode: ImportMode) -> UUID:
    """Create an import of several chunks with new, existing, repeated, blank and invalid lines."""
    numbers = [*range(20, 90), 30, 85, 20]
    if into == "list":
        await add_list(connection, name)
        await add_codes(connection, name, [f"{name}-CODE-{number:04}" for number in range(40)])
        lines = [f"{name}-CODE-{number:04}" for number in numbers]
        return await start_import(connection, "\n".join([*lines, "", "x" * 201]), mode=mode, to=name)
    await add_recipients(connection, name, [(f"c{number:04}@x.org", {"first_name": "Ada"}) for number in range(40)])
    rows = [f"c{number:04}@x.org;Zoë" for number in numbers]
    return await start_import(
        connection, "\n".join(["email;first_name", *rows, "", "nobody;Eve"]), mode=mode, group=name
    )


async def contents(connection: Connection, into: str, name: str) -> list[Any]:
    if into == "list":
        return [code.removeprefix(f"{name}-") for code in await codes_of(connection, name)]
    query = "SELECT address, r.attributes FROM recipient r JOIN recipient_group g ON g.id = group_id WHERE name = $1"
    return [tuple(row) for row in await connection.fetch(f"{query} ORDER BY address_key", name)]


@pytest.mark.usefixtures("small_chunks")
async def test_a_changed_file_fails_the_import(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lines that are already committed stay, and no line of the changed file is added."""
    await add_list(connection, "a")
    file = tmp_path / "codes.txt"
    file.write_text("".join(f"OLD-{number:04}\n" for number in range(1_000)))
    command = ImportCoupons(list="a", source=file.as_uri())
    await imports.create(connection, command)
    importer, import_chunk = worker(pool, import_folder=tmp_path), import_chunks.import_chunk

    async def imports_one(*arguments: Any, **named: Any) -> None:
        await import_chunk(*arguments, **named)
        if await codes_of(connection):
            importer._signals.stop()

    monkeypatch.setattr(import_chunks, "import_chunk", imports_one)
    assert await importer.step() == NO_PAUSE
    assert (await status_of(connection, command.id)).lines < 1_000
    file.write_text("".join(f"NEW-{number:04}\n" for number in range(1_000)))
    assert await worker(pool, import_folder=tmp_path).step() == NO_PAUSE
    found = await status_of(connection, command.id)
    assert found.state == "failed"
    assert "has changed during the import" in (found.reason or "")
    assert {code[:3] for code in await codes_of(connection)} == {"OLD"}


@pytest.mark.usefixtures("small_chunks")
async def test_a_file_changed_after_its_last_chunk_fails_the_import(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The worker dies between the last chunk and the end, and the next worker finds another file."""
    await add_list(connection, "a")
    file = tmp_path / "codes.txt"
    file.write_text("".join(f"OLD-{number:04}\n" for number in range(60)))
    command = ImportCoupons(list="a", source=file.as_uri())
    await imports.create(connection, command)

    async def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(imports, "finish", dies)
        await worker(pool, import_folder=tmp_path).step()
    await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s'")
    file.write_text("".join(f"NEW-{number:04}\n" for number in range(1_000)))
    assert await worker(pool, import_folder=tmp_path).step() == NO_PAUSE
    found = await status_of(connection, command.id)
    assert (found.state, found.added) == ("failed", 60)
    assert "has changed during the import" in (found.reason or "")


async def test_an_upload_is_kept_until_its_last_import_has_finished(connection: Connection, pool: Pool) -> None:
    """Two lists import the same upload, and the first import to finish does not delete it."""
    await add_list(connection, "a")
    await add_list(connection, "b")
    await start_import(connection, "A\nB\nC\n")
    source = await connection.fetchval("SELECT source FROM import_job")
    second = ImportCoupons(list="b", source=source, format=Format(kind="txt"))
    await imports.create(connection, second)
    for _ in range(2):
        assert await worker(pool).step() == NO_PAUSE
    assert await codes_of(connection, "a") == ["A", "B", "C"]
    assert (await status_of(connection, second.id)).rejected == 3
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0


async def test_a_deleted_upload_is_not_a_short_file(connection: Connection) -> None:
    """Reading a deleted upload raises an error, at the beginning and in the middle."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"A\n"
        yield b"B\n"

    upload = await uploads.store(connection, "codes.txt", pieces(), max_bytes=100)
    reading = uploads.iter_pieces(connection, upload)
    assert await anext(reading) == b"A\n"
    await connection.execute("DELETE FROM upload")
    with pytest.raises(Conflict, match="no longer exists"):
        await anext(reading)


async def test_a_leased_group_import_is_not_claimed_again(connection: Connection, pool: Pool) -> None:
    """After the lease has expired, a second worker imports the whole file, and the first one loses its lease."""
    import_id = await start_import(connection, "email\nada@example.org\n", group="g")
    first = await imports.claim(connection, owner="first", lease_seconds=60)
    assert first
    assert await worker(pool).step() is None
    await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s'")
    assert await worker(pool).step() == NO_PAUSE
    job = await status_of(connection, import_id)
    assert (job.state, job.added) == ("finished", 1)
    with pytest.raises(LeaseLost):
        await imports.renew(connection, first, lease_seconds=60)


async def test_a_full_database_does_not_end_an_import(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import waits for space in the database, and then continues automatically."""
    await add_list(connection, "a")
    import_id = await start_import(connection, "A-1\n")

    async def fails(*_: object, **__: object) -> None:
        raise DiskFullError

    with monkeypatch.context() as patch:
        patch.setattr(import_chunks, "import_chunk", fails)
        for _ in range(MAX_RETRIES + 2):
            await connection.execute("UPDATE import_job SET due_at = now()")
            assert await worker(pool).step() == NO_PAUSE
    await connection.execute("UPDATE import_job SET due_at = now()")
    assert (await run_worker(connection, pool, import_id)).added == 1


async def test_a_source_is_shown_without_its_secrets(connection: Connection) -> None:
    """The signature in a query, and a password that an earlier version accepted, are not in the import's status."""
    await add_list(connection, "a")
    import_id = await start_import(connection, "A-1\n")
    await connection.execute(
        "UPDATE import_job SET source = 'https://user:s3cret@shop.example/a.csv?X-Amz-Signature=1'"
    )
    assert (await imports.get(connection, import_id)).source == "https://…@shop.example/a.csv?…"


async def test_repeated_statement_timeouts_end_the_import(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each retry comes later and its log entry has only the kind of error. Then the import fails, the next runs."""
    await add_list(connection, "a")
    import_id = await start_import(connection, "SECRET-1\n")
    later = await start_import(connection, "A-1\n")

    async def fails(*_: object, **__: object) -> None:
        raise QueryCanceledError("SECRET-1")

    with monkeypatch.context() as patch:
        patch.setattr(import_chunks, "import_chunk", fails)
        for _ in range(MAX_RETRIES + 1):
            assert (await status_of(connection, import_id)).finished_at is None
            await connection.execute("UPDATE import_job SET due_at = now() + interval '1 h' WHERE id = $1", later)
            await connection.execute("UPDATE import_job SET due_at = now() WHERE id = $1", import_id)
            assert await worker(pool).step() == NO_PAUSE
    found = await status_of(connection, import_id)
    assert (found.state, found.reason) == ("failed", "database: a statement timed out (9 times)")
    assert not any("SECRET" in event.text for event in await imports.list_events(connection, import_id))
    await connection.execute("UPDATE import_job SET due_at = now()")
    assert (await run_worker(connection, pool, later)).added == 1


async def test_two_chunks_of_the_same_codes_in_different_orders_do_not_deadlock(
    connection: Connection, pool: Pool
) -> None:
    """If two workers import into one list, each code is added once, and no worker waits forever."""
    await add_list(connection, "a")
    codes = [f"CODE-{number:05}" for number in range(20_000)]
    first = await claimed(connection, await start_import(connection, "X\n"))
    await connection.execute("UPDATE import_job SET created_at = now() + interval '1 h'")
    second = await claimed(connection, await start_import(connection, "X\n"))

    async def take(job: LeasedImport, order: list[str]) -> None:
        async with pool.acquire() as own:
            await take_codes(own, job, check_codes(range(1, len(order) + 1), order), position=1)

    await asyncio.gather(take(first, codes), take(second, codes[::-1]))
    assert await codes_of(connection) == codes
    counts = [await status_of(connection, job.id) for job in (first, second)]
    assert sorted((each.added, each.rejected) for each in counts) == [(0, 20_000), (20_000, 0)]


async def test_a_chunk_is_imported_once_and_only_under_the_lease(connection: Connection) -> None:
    """Nothing is written for a repeated position, an expired lease or another worker's lease (compare-and-set)."""
    await add_list(connection, "a")
    job = await claimed(connection, await start_import(connection, "X\n"))
    await take_codes(connection, job, check_codes([1], ["A"]), position=10)
    for change in ("position = 10", "lease_until = now() - interval '1 s'", "lease_token = gen_random_uuid()"):
        await connection.execute(f"UPDATE import_job SET {change}")
        with pytest.raises(LeaseLost):
            await take_codes(connection, job, check_codes([2], ["B"]), position=10 if "position" in change else 20)
    assert await codes_of(connection) == ["A"]


async def test_imports_into_one_list_run_one_after_another(connection: Connection, pool: Pool) -> None:
    """Two concurrent imports that replace a list would remove each other's codes."""
    await add_list(connection, "a")
    first = await start_import(connection, "A1\nA2\n", mode=ImportMode.REPLACE)
    second = await start_import(connection, "B1\nB2\n", mode=ImportMode.REPLACE)
    held = await imports.claim(connection, owner="test", lease_seconds=60)
    assert held
    assert held.id == first
    assert await worker(pool).step() is None
    await imports.release(connection, held)
    assert await worker(pool).step() == NO_PAUSE
    found = await run_worker(connection, pool, second)
    assert (found.added, found.removed) == (2, 2)
    assert await codes_of(connection) == ["B1", "B2"]


@pytest.mark.usefixtures("small_chunks")
async def test_concurrent_imports_in_different_orders_add_each_code_once(connection: Connection, pool: Pool) -> None:
    """Several workers import the same codes into two lists without a deadlock, and every line has a result."""
    for name in ("a", "b"):
        await add_list(connection, name)
    codes = [f"CODE-{number:04}" for number in range(200)]
    orders = (codes, codes[::-1], codes[100:] + codes[:100])
    jobs = [await start_import(connection, "\n".join(order), to=name) for order in orders for name in ("a", "b")]

    looking = asyncio.Lock()  # the four workers share one connection

    async def work_on() -> None:
        while True:
            async with looking:
                ended = [(await status_of(connection, job)).finished_at is not None for job in jobs]
            if all(ended):
                return
            with suppress(LeaseLost):  # on a busy machine: another worker continues the import
                await worker(pool).step()

    await asyncio.gather(*(work_on() for _ in range(4)))
    assert sorted([*await codes_of(connection, "a"), *await codes_of(connection, "b")]) == codes
    counts = [await status_of(connection, job) for job in jobs]
    assert [each.added + each.rejected for each in counts] == [200] * 6
    assert sum(each.added for each in counts) == 200


async def test_a_repeated_file_is_recognized(connection: Connection, pool: Pool) -> None:
    """A file is recognized by its content, whatever its name and compression."""
    await add_list(connection, "a")
    first = await run_worker(connection, pool, await start_import(connection, "A1\nA2\n"))
    again = await run_worker(connection, pool, await start_import(connection, "A1\nA2\n"))
    assert (again.added, again.same_as, again.same_at) == (0, first.id, first.finished_at)
    assert first.same_as is None
    assert (await run_worker(connection, pool, await start_import(connection, "A1\nA3\n"))).same_as is None


@pytest.mark.usefixtures("small_chunks")
async def test_a_cancelled_import_keeps_its_chunks_and_stops(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker stops at the next piece of text, and committed chunks stay in the list."""
    await add_list(connection, "a")
    import_id = await start_import(connection, "".join(f"CODE-{number:04}\n" for number in range(1_000)))
    import_chunk = import_chunks.import_chunk

    async def imports_one(*arguments: Any, **named: Any) -> None:
        await import_chunk(*arguments, **named)
        if await codes_of(connection):
            await imports.cancel(connection, import_id)

    monkeypatch.setattr(import_chunks, "import_chunk", imports_one)
    with pytest.raises(LeaseLost):
        await worker(pool).step()
    found = await status_of(connection, import_id)
    assert found.state == "cancelled"
    assert 0 < found.added < 1_000
    assert len(await codes_of(connection)) == found.added
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0
    with pytest.raises(Conflict, match="already cancelled"):
        await imports.cancel(connection, import_id)


# --- sources that cannot be read -------------------------------------------------------------------------------------


async def test_an_unreadable_file_fails_the_import(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """An unreadable file is not retried, unlike an error of the database."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", source=(tmp_path / "gone.txt").as_uri())
    await imports.create(connection, command)
    assert await worker(pool, import_folder=tmp_path).step() == NO_PAUSE
    assert (await status_of(connection, command.id)).state == "failed"


async def test_an_unreachable_source_is_retried(connection: Connection, pool: Pool) -> None:
    """The retries have growing delays. In the meantime the log of the import shows the reason."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", source="https://127.0.0.1:9/codes.txt")
    await imports.create(connection, command)
    importer = worker(pool, import_hosts="127.0.0.1:9", import_private_hosts=True)
    assert await importer.step() == NO_PAUSE
    assert (await status_of(connection, command.id)).state == "running"
    pause = await importer.step()
    assert pause is not None
    assert 0 < pause <= 5
    assert "retrying in 5 s" in (await imports.list_events(connection, command.id))[-1].text


async def test_a_file_that_is_not_text_fails_the_import(connection: Connection, pool: Pool) -> None:
    """The import fails with a reason of one line, and no code is added."""
    await add_list(connection, "a")
    import_id = await start_import(connection, b"\x89PNG\r\n\x1a\n" + bytes(100))
    found = await run_worker(connection, pool, import_id)
    assert (found.state, found.added) == ("failed", 0)
    assert "picture" in (found.reason or "")


async def test_an_empty_file_fails_the_import(connection: Connection, pool: Pool) -> None:
    """An empty file is treated as a mistake: a list that it replaces would lose all its codes."""
    await add_list(connection, "a", 3)
    found = await run_worker(connection, pool, await start_import(connection, "", mode=ImportMode.REPLACE))
    assert (found.state, found.removed) == ("failed", 0)


async def test_a_file_with_too_many_lines_fails_the_import(connection: Connection, pool: Pool) -> None:
    """A setting limits the number of lines."""
    await add_list(connection, "a")
    import_id = await start_import(connection, "A\nB\nC\n")
    assert await worker(pool, import_max_lines=2).step() == NO_PAUSE
    assert "COUPONS_IMPORT_MAX_LINES" in ((await status_of(connection, import_id)).reason or "")


async def test_an_upload_is_deleted_with_its_import(connection: Connection, pool: Pool) -> None:
    """The upload is deleted when its import ends, so that codes are not stored twice."""
    await add_list(connection, "a")
    await start_import(connection, "A\n")
    await worker(pool).step()
    assert await connection.fetchval("SELECT count(*) FROM upload_chunk") == 0


async def test_an_upload_that_is_too_large_is_deleted(connection: Connection) -> None:
    """An upload that exceeds the limit is deleted before a worker reads it."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"A" * 60
        yield b"B" * 60

    with pytest.raises(Conflict, match="COUPONS_IMPORT_MAX_BYTES"):
        await uploads.store(connection, "codes.txt", pieces(), max_bytes=100)
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0


# --- rejected rows of a group ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("mode", FILE_MODES)
async def test_a_dry_run_and_the_import_reject_the_same_rows(
    connection: Connection, pool: Pool, mode: ImportMode
) -> None:
    """The dry run and the import report all cells of a rejected row, in every mode and for any size of chunks."""
    people = [f"{name};p{name}@example.org;=1" for name in range(40)]
    invalid = ["Zoë;nobody;", "\0;P1@example.org;'x", ";a", '\u200c;p1@example.org;"4;""2"']
    text = "\n".join(["Name;E-Mail;Größe", *people, *invalid])
    await add_group(connection, "g", 3)
    group = await groups.find(connection, "g")
    assert group

    async def pieces() -> AsyncIterator[bytes]:
        yield text.encode()

    async with import_engine.dry_run(
        connection, Target(group.id, "g", TargetKind.GROUP), Source("people.csv", None, pieces()),
        SourceLimits.from_settings(Settings()),
        mode=mode, file_format=FileFormat(kind="csv"), max_lines=1_000,
    ) as report:  # fmt: skip
        expected = [line async for line in streamed_rejections_csv(report.rejected, report.columns)]
    import_id = await start_import(connection, text, mode=mode, group="g")
    found = await run_worker(connection, pool, import_id)
    kept = [
        line async for line in streamed_rejections_csv(imports.iter_rejections(connection, import_id), found.columns)
    ]
    assert kept == expected
    assert kept[0] == "\ufeffline;email;name;groesse;reason\r\n"
    assert '42;"nobody";"Zoë";"";"the address has no ""@"""\r\n' in kept
    assert '43;"P1@example.org";"<U+FFFD>";"<U+0027>x";"contains a control or invisible character"\r\n' in kept
    assert kept[-1].startswith('45;"p1@example.org";"<U+200C>";"\'4;""2";')


async def test_rejected_rows_of_earlier_versions_can_be_read(connection: Connection) -> None:
    """Earlier versions stored only the address of a rejected row."""
    await add_group(connection, "g", 1)
    import_id = await connection.fetchval("SELECT id FROM import_job")
    await connection.execute(
        "INSERT INTO import_rejection VALUES ($1, 2, '{2}', ARRAY['{\"nobody'], '{bad_address}')", import_id
    )
    assert (await status_of(connection, import_id)).columns == ["email"]
    assert [each async for each in imports.iter_rejections(connection, import_id)] == [
        Rejected(2, '{"nobody', Reason.BAD_ADDRESS)
    ]


# --- how the file was read --------------------------------------------------------------------------------------------


async def test_an_import_stores_how_it_read_its_file(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import has the reader's description and the notices at the end of the text, as the dry run does."""
    monkeypatch.setattr(CodeReader, "notices", property(lambda reader: [f"{reader.description}: noticed"]))
    await add_list(connection, "a")
    found = await run_worker(connection, pool, await start_import(connection, "A-1\nA-2\n"))
    assert found.read_as
    assert found.read_as.startswith("txt, utf-8")
    assert found.notices == [f"{found.read_as}: noticed"]

    async def pieces() -> AsyncIterator[bytes]:
        yield b"A-1\nA-2\n"

    target = await imports.get_list_target(connection, "a")
    source = Source("codes.txt", None, pieces())
    async with import_engine.dry_run(
        connection, target, source, SourceLimits.from_settings(Settings()),
        mode=ImportMode.ADD, file_format=FileFormat(kind="txt"), max_lines=100,
    ) as report:  # fmt: skip
        assert (report.read_as, list(report.notices)) == (found.read_as, found.notices)
