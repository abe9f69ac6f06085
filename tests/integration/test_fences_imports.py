"""The fences of an import, one test each: leases, imported and removed codes, uploads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, connect, open_pool
from coupons.errors import Conflict, LeaseLost
from coupons.files.codes import check_codes
from coupons.import_progress import ImportProgress, Published
from coupons.settings import Settings
from coupons.sources import source as sources
from coupons.states import ImportMode
from coupons.store import groups, import_chunks, imports, lists, uploads
from coupons.store.imports import LeasedImport
from tests.factories import (
    LEASE_SECONDS,
    add_codes,
    add_group,
    add_list,
    claimed,
    prepare,
    save_message,
    start,
    take_codes,
)
from tests.locks import lock_rows, until_blocked, without_waiting
from workers.importer import Importer
from workers.loops import Signals
from workers.nudges import Nudges

EXPIRE_LEASE = "UPDATE import_job SET lease_until = now() - interval '1 s' WHERE finished_at IS NULL"
CODES = [f"A-{number:09}" for number in range(5)]


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


async def upload(connection: Connection, data: bytes, upload_id: UUID | None = None) -> UUID:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return (await uploads.store(connection, "codes.txt", pieces(), max_bytes=1_000, upload_id=upload_id)).id


async def start_import(connection: Connection, *, mode: ImportMode = ImportMode.ADD, data: bytes = b"X\n") -> UUID:
    """Create an import into list a that waits for a worker."""
    upload_id = await upload(connection, data)
    command = ImportCoupons(list="a", mode=mode, source=f"upload:{upload_id}", format=Format(kind="txt"))
    await imports.create(connection, command)
    return command.id


async def claim_next(connection: Connection) -> LeasedImport | None:
    return await imports.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def claim_new(connection: Connection, *, mode: ImportMode = ImportMode.ADD) -> LeasedImport:
    return await claimed(connection, await start_import(connection, mode=mode))


async def import_lines(connection: Connection, job: LeasedImport, codes: list[str]) -> None:
    await take_codes(connection, job, check_codes(range(1, len(codes) + 1), codes), position=1)


async def codes_of(connection: Connection) -> list[str]:
    return [row["code"] for row in await connection.fetch("SELECT code FROM coupon ORDER BY code")]


# --- leases ----------------------------------------------------------------------------------------------------------


async def test_an_import_that_is_being_claimed_is_skipped(connection: Connection, other: Connection) -> None:
    """A second worker neither claims the import nor waits for it."""
    await add_list(connection, "a")
    await start_import(connection)
    async with other.transaction():
        assert await claim_next(other)
        assert await without_waiting(other, connection, claim_next(connection)) is None


async def test_a_worker_without_the_lease_cannot_change_an_import(connection: Connection, other: Connection) -> None:
    """The old worker cannot change the progress, the delay or the end of the import of another worker."""
    await add_list(connection, "a")
    lost = await claim_new(connection)
    await connection.execute(EXPIRE_LEASE)
    assert await claim_next(other)
    row = "SELECT to_jsonb(import_job) FROM import_job WHERE id = $1"
    before = await connection.fetchval(row, lost.id)
    await imports.set_total_bytes(connection, lost, 99)
    await imports.set_columns(connection, lost, ["email"])
    await imports.record_kept(connection, lost, reserved=9, assigned=9)
    await imports.postpone(connection, lost, "by a test", seconds=60)
    await imports.release(connection, lost)
    with pytest.raises(LeaseLost):
        await imports.check_lease(connection, lost)
    with pytest.raises(LeaseLost):
        await imports.renew(connection, lost, lease_seconds=LEASE_SECONDS)
    with pytest.raises(LeaseLost):
        await imports.count_retry(connection, lost)
    with pytest.raises(LeaseLost):
        await imports.finish(connection, lost)
    assert await connection.fetchval(row, lost.id) == before


async def test_a_worker_without_the_lease_cannot_import_a_chunk(connection: Connection, other: Connection) -> None:
    """The transaction is rolled back, so that the list is unchanged for the new worker."""
    await add_list(connection, "a")
    lost = await claim_new(connection)
    await connection.execute(EXPIRE_LEASE)
    assert await claim_next(other)
    with pytest.raises(LeaseLost):
        await import_lines(connection, lost, CODES)
    assert await codes_of(connection) == []


async def test_a_worker_without_the_lease_cannot_replace_attributes(connection: Connection) -> None:
    """Another import may have added attributes in the meantime."""
    command = ImportCoupons(group="g", mode=ImportMode.REPLACE, source="file:g.csv", format=Format(kind="csv"))
    await imports.create(connection, command)
    lost = await claimed(connection, command.id)
    await groups.extend(connection, lost.target.id, ["town"])
    await connection.execute(EXPIRE_LEASE)
    with pytest.raises(LeaseLost):
        await import_chunks.replace_attributes(connection, lost, [], lease_seconds=LEASE_SECONDS)
    assert (await groups.get(connection, "g")).attributes == ["town"]


async def test_recording_the_result_of_an_import_is_no_lost_lease(connection: Connection, pool: Pool) -> None:
    """A renewal may wait until the result is recorded. Then the lease is given up, not lost to another worker."""
    await add_list(connection, "a")
    job = await claim_new(connection)
    signals = Signals(("import",))
    importer = Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(), owner="test")
    progress = ImportProgress()
    await imports.finish(connection, job)
    with pytest.raises(LeaseLost):
        await importer._renew(job, progress)
    progress.has_ended = True
    await importer._renew(job, progress)


async def test_a_worker_publishes_the_progress_with_its_lease(connection: Connection) -> None:
    """The bytes that are read and done are shown before a chunk is committed, and never decrease."""
    await add_list(connection, "a")
    job = await claim_new(connection)
    for published in (Published(300, 150), Published(200, 100)):
        await imports.renew(connection, job, published, lease_seconds=LEASE_SECONDS)
        found = await imports.get(connection, job.id)
        assert (found.read_bytes, found.done_bytes, found.phase, found.lines) == (300, 150, "reading", 0)
    assert await connection.fetchval("SELECT position FROM import_job WHERE id = $1", job.id) == 0


async def test_an_expired_lease_is_lost_even_if_unclaimed(connection: Connection) -> None:
    """The worker stops even if no other worker has claimed the import, because it knows when its lease expires."""
    await add_list(connection, "a")
    job = await claim_new(connection)
    await connection.execute(EXPIRE_LEASE)
    with pytest.raises(LeaseLost):
        await imports.check_lease(connection, job)
    with pytest.raises(LeaseLost):
        await imports.renew(connection, job, lease_seconds=LEASE_SECONDS)


async def test_a_cancelled_import_stops_at_its_next_piece(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import stops at the next piece of its text, even within its first chunk."""
    await add_list(connection, "a")
    import_id = await start_import(connection, data="".join(f"CODE-{number:04}\n" for number in range(100)).encode())
    stage, staged = import_chunks.stage_codes, 0

    async def cancel_after_staging(*arguments: Any, **options: Any) -> None:
        nonlocal staged
        staged += 1
        await stage(*arguments, **options)
        await imports.cancel(connection, import_id)

    monkeypatch.setattr(sources, "PIECE_BYTES", 250)
    monkeypatch.setattr(import_chunks, "stage_codes", cancel_after_staging)
    signals = Signals(("import",))
    importer = Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(), owner="test")
    with pytest.raises(LeaseLost):
        await importer.step()
    assert staged == 1


# --- importing -------------------------------------------------------------------------------------------------------


async def test_chunks_of_one_list_are_imported_one_at_a_time(connection: Connection, other: Connection) -> None:
    """If two workers import into one list, the second one waits, and then finds the codes of the first one."""
    await add_list(connection, "a")
    first = await claim_new(connection)
    await connection.execute("UPDATE import_job SET created_at = now() + interval '1 h'")
    second = await claim_new(other)
    async with connection.transaction():
        await import_lines(connection, first, CODES)
        importing = asyncio.create_task(import_lines(other, second, ["NEW", *CODES]))
        await until_blocked(connection, importing)
        waits = "SELECT locktype FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        assert await connection.fetchval(waits) == "advisory"
    await importing
    assert await codes_of(connection) == [*CODES, "NEW"]


@pytest.mark.parametrize("lines", [["Z", "M", "A"], ["Z", "M", "A", "a"]], ids=["new", "looked up"])
async def test_codes_are_added_in_one_order(
    connection: Connection, other: Connection, third: Connection, lines: list[str]
) -> None:
    """An import that waits for a code of another import has not added a later code, so two imports never deadlock."""
    for name in ("a", "b"):
        await add_list(connection, name)
    job = await claim_new(connection)
    adding = third.transaction()
    await adding.start()
    await third.execute("INSERT INTO coupon (list_id, code, import_id) VALUES (1, 'M', $1)", job.id)
    importing = asyncio.create_task(import_lines(connection, job, lines))
    await until_blocked(third, importing)
    await without_waiting(third, other, add_codes(other, "b", ["Z"]))
    await adding.rollback()
    await importing
    assert await codes_of(connection) == ["A", "M", "Z"]


async def test_no_code_is_imported_while_a_list_is_deleted(connection: Connection, other: Connection) -> None:
    """The deletion records the list's sent codes as retired before another list can import them."""
    await add_list(connection, "a")
    await add_list(connection, "going")
    await add_codes(connection, "going", ["SPENT"])
    await connection.execute("UPDATE coupon SET sendout_id = gen_random_uuid(), delivery_number = 1")
    await lists.archive(connection, "going")
    job = await claim_new(connection)
    async with other.transaction():
        assert await lists.delete(other, "going") == 1
        importing = asyncio.create_task(import_lines(connection, job, ["SPENT", "NEW"]))
        await until_blocked(other, importing)
    await importing
    assert await codes_of(connection) == ["NEW"]


async def test_an_import_into_a_list_being_deleted_is_rejected(connection: Connection, other: Connection) -> None:
    """The import waits for the deletion, and then finds that the list no longer exists."""
    await add_list(connection, "a")
    await save_message(connection, "m", "a")
    async with other.transaction():
        await lists.archive(other, "a")
        await lists.delete(other, "a")
        starting = asyncio.create_task(start_import(connection))
        await until_blocked(other, starting)
    with pytest.raises(Conflict, match="there is no list a"):
        await starting


# --- removing --------------------------------------------------------------------------------------------------------


async def test_codes_that_are_being_reserved_are_not_removed(connection: Connection, other: Connection) -> None:
    """An import that deletes codes waits for the reservation, and leaves the reserved number of codes in the list."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 3)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    job = await claim_new(connection, mode=ImportMode.DELETE)
    async with other.transaction():
        await prepare(other)
        importing = asyncio.create_task(import_lines(connection, job, CODES))
        await until_blocked(other, importing)
    await importing
    (found,) = await lists.get(connection, "a")
    assert (found.total, found.available, found.reserved) == (3, 0, 3)


async def remove_missing(connection: Connection, job: LeasedImport) -> None:
    async for _ in import_chunks.remove_missing(connection, job, lease_seconds=LEASE_SECONDS):
        pass


@pytest.mark.parametrize("mode", ["delete", "replace"])
async def test_locked_codes_are_skipped(connection: Connection, other: Connection, mode: ImportMode) -> None:
    """An import does not wait for a locked code: the transaction that assigns it may wait for the import's list."""
    await add_list(connection, "a", 5)
    job = await claim_new(connection, mode=mode)
    async with lock_rows(other, f"coupon WHERE code = '{CODES[2]}'"):
        removing = import_lines(connection, job, CODES) if mode == "delete" else remove_missing(connection, job)
        await without_waiting(other, connection, removing)
    assert await codes_of(connection) == [CODES[2]]


# --- uploads ---------------------------------------------------------------------------------------------------------


async def test_an_incomplete_upload_is_not_imported(connection: Connection) -> None:
    """An upload is incomplete if the connection of its sender was lost."""
    await add_list(connection, "a")
    upload_id = await upload(connection, b"A\n")
    await connection.execute("UPDATE upload SET size_bytes = NULL")
    with pytest.raises(Conflict, match="there is no upload"):
        await imports.create(connection, ImportCoupons(list="a", source=f"upload:{upload_id}"))


async def test_an_old_upload_is_kept_while_an_import_needs_it(connection: Connection) -> None:
    """An old upload that no import needs is deleted."""
    await add_list(connection, "a")
    await start_import(connection)
    await upload(connection, b"UNUSED\n")
    await connection.execute("UPDATE upload SET created_at = now() - interval '1 year'")
    await uploads.delete_stale(connection)
    assert await connection.fetchval("SELECT 'upload:' || id FROM upload") == await connection.fetchval(
        "SELECT source FROM import_job"
    )


async def test_a_repeated_upload_id_keeps_the_first_file(connection: Connection) -> None:
    """The second file with the same upload id is ignored."""
    upload_id = uuid4()
    for data in (b"FIRST\n", b"SECOND\n"):
        assert await upload(connection, data, upload_id) == upload_id
    found = await uploads.find(connection, upload_id)
    assert found
    assert b"".join([piece async for piece in uploads.iter_pieces(connection, found)]) == b"FIRST\n"
