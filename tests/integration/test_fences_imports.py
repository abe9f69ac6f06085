"""Each fence of an import, by itself: who has it, what it may take and remove, which files it reads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, connect, open_pool
from coupons.errors import Conflict, LeaseLost
from coupons.files.codes import check_codes
from coupons.settings import Settings
from coupons.sources import text as texts
from coupons.states import ImportMode
from coupons.store import import_chunks, imports, lists, uploads
from coupons.store.imports import Job
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
from tests.locks import AT_ONCE_SECONDS, locked, until_blocked
from workers.importer import Importer
from workers.loops import Signals
from workers.nudges import Nudges

OVER = "UPDATE import_job SET lease_until = now() - interval '1 s' WHERE finished_at IS NULL"
CODES = [f"A-{number:09}" for number in range(5)]


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


async def uploaded(connection: Connection, data: bytes, upload_id: UUID | None = None) -> UUID:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return (await uploads.keep(connection, "codes.txt", pieces(), max_bytes=1_000, upload_id=upload_id)).id


async def noted(connection: Connection, *, mode: ImportMode = ImportMode.ADD, data: bytes = b"X\n") -> UUID:
    """An import into list a that waits for a worker."""
    upload_id = await uploaded(connection, data)
    command = ImportCoupons(list="a", mode=mode, source=f"upload:{upload_id}", format=Format(kind="txt"))
    await imports.create(connection, command)
    return command.id


async def claim(connection: Connection) -> Job | None:
    return await imports.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def held(connection: Connection, *, mode: ImportMode = ImportMode.ADD) -> Job:
    return await claimed(connection, await noted(connection, mode=mode))


async def take(connection: Connection, job: Job, codes: list[str]) -> None:
    await take_codes(connection, job, check_codes(range(1, len(codes) + 1), codes), position=1)


async def codes_of(connection: Connection) -> list[str]:
    return [row["code"] for row in await connection.fetch("SELECT code FROM coupon ORDER BY code")]


# --- whose an import is ----------------------------------------------------------------------------------------------


async def test_an_import_that_is_just_being_claimed_is_passed_by(connection: Connection, other: Connection) -> None:
    """Nobody gets it, and nobody waits for it."""
    await add_list(connection, "a")
    await noted(connection)
    async with other.transaction():
        assert await claim(other)
        async with asyncio.timeout(AT_ONCE_SECONDS):
            assert await claim(connection) is None


async def test_whoever_lost_an_import_changes_nothing_of_it(connection: Connection, other: Connection) -> None:
    """Neither how far it is nor what it waits for nor how it ends: these are the other worker's."""
    await add_list(connection, "a")
    lost = await held(connection)
    await connection.execute(OVER)
    assert await claim(other)
    row = "SELECT to_jsonb(import_job) FROM import_job WHERE id = $1"
    before = await connection.fetchval(row, lost.id)
    await imports.opened(connection, lost, 99)
    await imports.keep_columns(connection, lost, ["email"])
    await imports.note_left(connection, lost, reserved=9, assigned=9)
    await imports.postpone(connection, lost, "by a test", seconds=60)
    await imports.hand_back(connection, lost)
    with pytest.raises(LeaseLost):
        await imports.check_held(connection, lost)
    with pytest.raises(LeaseLost):
        await imports.renew(connection, lost, lease_seconds=LEASE_SECONDS)
    with pytest.raises(LeaseLost):
        await imports.interrupted(connection, lost)
    with pytest.raises(LeaseLost):
        await imports.finish(connection, lost)
    assert await connection.fetchval(row, lost.id) == before


async def test_whoever_lost_an_import_takes_nothing_for_it(connection: Connection, other: Connection) -> None:
    """Its chunk is undone as a whole: the list is as the other worker has to find it."""
    await add_list(connection, "a")
    lost = await held(connection)
    await connection.execute(OVER)
    assert await claim(other)
    with pytest.raises(LeaseLost):
        await take(connection, lost, CODES)
    assert await codes_of(connection) == []


async def test_a_lease_that_is_over_is_lost_before_anybody_takes_it(connection: Connection) -> None:
    """Its worker was told when it had to stop."""
    await add_list(connection, "a")
    job = await held(connection)
    await connection.execute(OVER)
    with pytest.raises(LeaseLost):
        await imports.check_held(connection, job)
    with pytest.raises(LeaseLost):
        await imports.renew(connection, job, lease_seconds=LEASE_SECONDS)


async def test_a_cancelled_import_stops_at_its_next_piece(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pieces it has until its first chunk is taken."""
    await add_list(connection, "a")
    import_id = await noted(connection, data="".join(f"CODE-{number:04}\n" for number in range(100)).encode())
    stage, staged = import_chunks.stage_codes, 0

    async def cancels(*arguments: Any) -> None:
        nonlocal staged
        staged += 1
        await stage(*arguments)
        await imports.cancel(connection, import_id)

    monkeypatch.setattr(texts, "PIECE_BYTES", 250)
    monkeypatch.setattr(import_chunks, "stage_codes", cancels)
    signals = Signals(("import",))
    importer = Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(), owner="test")
    with pytest.raises(LeaseLost):
        await importer.step()
    assert staged == 1


# --- what is taken ---------------------------------------------------------------------------------------------------


async def test_chunks_of_one_list_are_taken_one_at_a_time(connection: Connection, other: Connection) -> None:
    """Should two workers be at one list, the second waits, and then finds the codes known."""
    await add_list(connection, "a")
    first = await held(connection)
    await connection.execute("UPDATE import_job SET created_at = now() + interval '1 h'")
    second = await held(other)
    async with connection.transaction():
        await take(connection, first, CODES)
        taking = asyncio.create_task(take(other, second, ["NEW", *CODES]))
        await until_blocked(connection)
        waits = "SELECT locktype FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        assert await connection.fetchval(waits) == "advisory"
    await taking
    assert await codes_of(connection) == [*CODES, "NEW"]


async def test_no_code_is_taken_while_a_list_goes(connection: Connection, other: Connection) -> None:
    """What the list has sent is known before any other list takes it."""
    await add_list(connection, "a")
    await add_list(connection, "going")
    await add_codes(connection, "going", ["SPENT"])
    await connection.execute("UPDATE coupon SET sendout_id = gen_random_uuid(), delivery_number = 1")
    await lists.archive(connection, "going")
    job = await held(connection)
    async with other.transaction():
        assert await lists.delete(other, "going") == 1
        taking = asyncio.create_task(take(connection, job, ["SPENT", "NEW"]))
        await until_blocked(other)
    await taking
    assert await codes_of(connection) == ["NEW"]


async def test_an_import_that_comes_too_late_for_its_list_is_refused(connection: Connection, other: Connection) -> None:
    """The list is just being deleted: the import waits, and then there is none of this name."""
    await add_list(connection, "a")
    await save_message(connection, "m", "a")
    async with other.transaction():
        await lists.archive(other, "a")
        await lists.delete(other, "a")
        noting = asyncio.create_task(noted(connection))
        await until_blocked(other)
    with pytest.raises(Conflict, match="there is no list a"):
        await noting


# --- what is removed -------------------------------------------------------------------------------------------------


async def test_codes_that_are_just_being_promised_are_not_removed(connection: Connection, other: Connection) -> None:
    """An import that deletes waits for the promise, and leaves as many as were promised."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 3)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    job = await held(connection, mode=ImportMode.DELETE)
    async with other.transaction():
        await prepare(other)
        taking = asyncio.create_task(take(connection, job, CODES))
        await until_blocked(other)
    await taking
    (found,) = await lists.get(connection, "a")
    assert (found.total, found.available, found.reserved) == (3, 0, 3)


@pytest.mark.parametrize("mode", ["delete", "replace"])
async def test_codes_that_are_locked_elsewhere_are_not_waited_for(
    connection: Connection, other: Connection, mode: ImportMode
) -> None:
    """Whoever binds them may want the list next, which the import holds: it leaves them."""
    await add_list(connection, "a", 5)
    job = await held(connection, mode=mode)
    async with locked(other, f"coupon WHERE code = '{CODES[2]}'"), asyncio.timeout(AT_ONCE_SECONDS):
        if mode == "delete":
            await take(connection, job, CODES)
        else:
            async for _ in import_chunks.remove_replaced(connection, job, lease_seconds=LEASE_SECONDS):
                pass
    assert await codes_of(connection) == [CODES[2]]


# --- files -----------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_not_whole_is_not_imported(connection: Connection) -> None:
    """Whoever sent it was cut off: half a file is no file."""
    await add_list(connection, "a")
    upload_id = await uploaded(connection, b"A\n")
    await connection.execute("UPDATE upload SET size_bytes = NULL")
    with pytest.raises(Conflict, match="there is no upload"):
        await imports.create(connection, ImportCoupons(list="a", source=f"upload:{upload_id}"))


async def test_an_old_upload_that_an_import_waits_for_stays(connection: Connection) -> None:
    """One that no import names goes."""
    await add_list(connection, "a")
    await noted(connection)
    await uploaded(connection, b"NOBODY-S\n")
    await connection.execute("UPDATE upload SET created_at = now() - interval '1 year'")
    await uploads.drop_stale(connection)
    assert await connection.fetchval("SELECT 'upload:' || id FROM upload") == await connection.fetchval(
        "SELECT source FROM import_job"
    )


async def test_a_file_belongs_to_its_id(connection: Connection) -> None:
    """Sent again under the same id, it is what it was, whatever comes now."""
    upload_id = uuid4()
    for data in (b"FIRST\n", b"SECOND\n"):
        assert await uploaded(connection, data, upload_id) == upload_id
    found = await uploads.find(connection, upload_id)
    assert found
    assert b"".join([piece async for piece in uploads.pieces_of(connection, found)]) == b"FIRST\n"
