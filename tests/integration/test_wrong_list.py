"""The guard against imports into the wrong list: the worker checks the shapes of codes before the first chunk."""

import asyncio
import random
import string
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, open_pool
from coupons.settings import Settings
from coupons.states import ImportMode, ImportState
from coupons.store import imports, lists, uploads
from coupons.store.imports import ImportStatus
from tests.factories import add_list
from workers.importer import Importer
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=8) as pool:
        yield pool


def codes(prefix: str, count: int = 60, *, seed: int = 1) -> list[str]:
    rng = random.Random(f"{prefix} {seed}")
    return [prefix + "".join(rng.choices(string.ascii_uppercase + string.digits, k=8)) for _ in range(count)]


async def run(
    connection: Connection, pool: Pool, into: str, given: Sequence[str], *,
    mode: ImportMode = ImportMode.ADD, confirmed: bool = False,
) -> ImportStatus:  # fmt: skip
    """Import the codes as a file, as a worker does."""
    import_id = await create(connection, into, given, mode=mode, confirmed=confirmed)
    signals = Signals(("import",))
    worker = Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(), owner="test")
    assert await worker.step() == NO_PAUSE
    return await imports.get(connection, import_id)


async def create(connection: Connection, into: str, given: Sequence[str], *, mode: ImportMode, confirmed: bool) -> UUID:
    async def pieces() -> AsyncIterator[bytes]:
        yield "\n".join(given).encode()

    upload = await uploads.store(connection, "codes.txt", pieces(), max_bytes=1_000_000)
    command = ImportCoupons(
        list=into, mode=mode, source=f"upload:{upload.id}", format=Format(kind="txt"), confirmed=confirmed
    )
    async with connection.transaction():
        await imports.create(connection, command)
    return command.id


async def available(connection: Connection, name: str) -> int:
    (found,) = await lists.get(connection, name)
    return found.available


@pytest.fixture
async def two_lists(connection: Connection, pool: Pool) -> None:
    for name, prefix in (("gift-50", "GIFT50-"), ("spring-10", "SPRING-")):
        await add_list(connection, name)
        await run(connection, pool, name, codes(prefix))


@pytest.mark.usefixtures("two_lists")
@pytest.mark.parametrize("mode", [ImportMode.ADD, ImportMode.REPLACE])
async def test_codes_that_look_like_another_list_are_refused(
    connection: Connection, pool: Pool, mode: ImportMode
) -> None:
    """The import fails with a sentence that names both lists, and changes nothing."""
    job = await run(connection, pool, "spring-10", codes("GIFT50-", seed=2), mode=mode)
    assert job.state == ImportState.FAILED
    assert job.reason == (
        "these codes look like gift-50, not spring-10 (spring-10 has 60 codes): "
        "nothing was changed; confirm with --yes (confirmed)"
    )
    assert await available(connection, "spring-10") == 60


@pytest.mark.usefixtures("two_lists")
async def test_a_confirmed_import_is_not_refused(connection: Connection, pool: Pool) -> None:
    """An operator has decided. The report says what was suspicious, and the list has both shapes from then on."""
    job = await run(connection, pool, "spring-10", codes("GIFT50-", seed=2), confirmed=True)
    assert (job.state, job.added) == (ImportState.FINISHED, 60)
    assert "these codes look like gift-50, not spring-10 (spring-10 has 60 codes); confirmed" in job.notices
    again = await run(connection, pool, "spring-10", codes("GIFT50-", seed=3))
    assert again.state == ImportState.FINISHED


@pytest.mark.usefixtures("two_lists")
@pytest.mark.parametrize(
    "given", [codes("SPRING-", seed=2), codes("SUMMER-"), codes("GIFT50-", 9, seed=2)],
    ids=["the same shape", "another season", "few codes"],
)  # fmt: skip
async def test_codes_of_the_list_are_imported(connection: Connection, pool: Pool, given: list[str]) -> None:
    """Codes that look like their list, or differ only in what a batch shares, or are few, need no confirmation."""
    job = await run(connection, pool, "spring-10", given)
    assert (job.state, job.added) == (ImportState.FINISHED, len(given))


async def test_codes_unlike_those_of_a_tight_list_are_refused(connection: Connection, pool: Pool) -> None:
    """No other list is needed: all 120 codes of the list have one shape, and no code of the file has it."""
    await add_list(connection, "spring-10")
    await run(connection, pool, "spring-10", codes("SPRING-", 120))
    job = await run(connection, pool, "spring-10", [str(10**15 + 7 * number) for number in range(60)])
    assert (job.reason or "").startswith(
        "these codes do not look like the 120 codes of spring-10 (16 characters instead of 15): nothing was changed"
    )


async def test_shapes_of_lists_from_before_the_guard_are_learned(connection: Connection, pool: Pool) -> None:
    """Lists that were filled before the upgrade have no shapes: they are computed from a sample of their codes."""
    for name, prefix in (("gift-50", "GIFT50-"), ("spring-10", "SPRING-")):
        await add_list(connection, name, codes(prefix))
    assert not await connection.fetchval("SELECT count(*) FROM list_shapes")
    job = await run(connection, pool, "spring-10", codes("GIFT50-", seed=2))
    assert "look like gift-50, not spring-10" in (job.reason or "")


@pytest.mark.usefixtures("two_lists")
async def test_a_replaced_list_has_the_shapes_of_its_new_codes(connection: Connection, pool: Pool) -> None:
    """After a confirmed replacement, codes like the new ones belong to the list, and those like the old ones do not."""
    await run(connection, pool, "spring-10", codes("SPRING-", seed=2), mode=ImportMode.REPLACE)
    numbers = [str(10**15 + 7 * number) for number in range(200)]
    job = await run(connection, pool, "spring-10", numbers[:120], mode=ImportMode.REPLACE, confirmed=True)
    assert job.state == ImportState.FINISHED
    job = await run(connection, pool, "spring-10", numbers[120:])
    assert job.state == ImportState.FINISHED
    job = await run(connection, pool, "spring-10", codes("SPRING-", seed=3))
    assert "do not look like the 200 codes of spring-10" in (job.reason or "")


async def test_a_replacement_by_few_codes_leaves_no_shapes(connection: Connection, pool: Pool) -> None:
    """Eight codes have no shape, but those before them are gone: the next file gives the list its shape."""
    await add_list(connection, "a")
    await run(connection, pool, "a", codes("SPRING-", 120))
    numbers = [str(10**15 + 7 * number) for number in range(60)]
    await run(connection, pool, "a", numbers[:8], mode=ImportMode.REPLACE, confirmed=True)
    job = await run(connection, pool, "a", numbers[8:])
    assert (job.state, job.added) == (ImportState.FINISHED, 52)


@pytest.mark.usefixtures("two_lists")
async def test_a_resumed_import_has_its_suspicion(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies after the first chunk, whose shapes the list then has. The report of the import is the same."""
    given = codes("GIFT50-", seed=2)
    import_id = await create(connection, "spring-10", given, mode=ImportMode.ADD, confirmed=True)
    signals = Signals(("import",))
    worker = Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(), owner="test")

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(imports, "finish", die)
        with pytest.raises(asyncio.CancelledError):
            await worker.step()
    await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s', read_as = NULL")
    assert await worker.step() == NO_PAUSE
    job = await imports.get(connection, import_id)
    assert (job.state, job.added) == (ImportState.FINISHED, 60)
    assert job.notices[0] == "these codes look like gift-50, not spring-10 (spring-10 has 60 codes); confirmed"


@pytest.mark.usefixtures("two_lists")
async def test_deleted_codes_leave_no_shapes(connection: Connection, pool: Pool) -> None:
    """After an import in mode delete, the shapes are learned from the codes that are left."""
    wrong = codes("GIFT50-", seed=2)
    await run(connection, pool, "spring-10", wrong, confirmed=True)
    await run(connection, pool, "spring-10", wrong, mode=ImportMode.DELETE)
    job = await run(connection, pool, "spring-10", wrong)
    assert "look like gift-50, not spring-10" in (job.reason or "")


@pytest.mark.usefixtures("two_lists")
async def test_archived_lists_are_not_compared(connection: Connection, pool: Pool) -> None:
    """No import into an archived list is possible, so the file was not meant for it."""
    await lists.archive(connection, "gift-50")
    job = await run(connection, pool, "spring-10", codes("GIFT50-", seed=2))
    assert job.state == ImportState.FINISHED


async def test_codes_of_a_command_are_checked_as_well(connection: Connection, pool: Pool) -> None:
    """A command may hold the codes themselves."""
    for name, prefix in (("gift-50", "GIFT50-"), ("spring-10", "SPRING-")):
        await add_list(connection, name, codes(prefix))
    command = ImportCoupons(list="spring-10", codes=tuple(codes("GIFT50-", seed=2)))
    async with connection.transaction():
        await imports.create(connection, command)
    signals = Signals(("import",))
    await Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(), owner="test").step()
    assert "look like gift-50" in ((await imports.get(connection, command.id)).reason or "")
