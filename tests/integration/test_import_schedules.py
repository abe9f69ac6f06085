"""Recurring imports: each occurrence runs at most once, whatever number of workers is running."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from coupons import failpoints
from coupons.database import Connection, Pool, open_pool
from coupons.errors import Conflict
from coupons.recurring import parse
from coupons.settings import Settings
from coupons.store import import_schedules, imports, lists
from coupons.store.import_schedules import RUNS_KEPT, Run
from tests.factories import add_list
from workers.importer import Importer
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges
from workers.sweeper import Sweeper

EVERY_HOUR = "0 * * * *"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=12) as pool:
        yield pool


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "codes.txt"
    file.write_text("A-1\nA-2\n")
    return file


async def schedule(connection: Connection, file: Path, name: str = "nightly", **fields: Any) -> None:
    """Create a recurring import into list a, which is due at the next full hour."""
    request = parse({"cron": EVERY_HOUR, "list": "a", "source": file.as_uri(), **fields})
    await import_schedules.put(connection, name, request)


async def become_due(connection: Connection, *, hours: int = 1) -> None:
    """Let the given number of hours pass for all schedules: the last due occurrence was at this full hour."""
    await connection.execute(
        "UPDATE import_schedule SET next_at = date_trunc('hour', now()) - make_interval(hours => $1)", hours - 1
    )


async def run_due(connection: Connection) -> str | None:
    return await import_schedules.run_due(connection, activated=True)


async def do_imports(pool: Pool, file: Path) -> None:
    signals = Signals(("import",))
    known = Settings(import_folder=file.parent)
    importer = Importer(pool=pool, signals=signals, nudges=Nudges(signals), settings=known, owner="test")
    while await importer.step() == NO_PAUSE:
        pass


async def runs(connection: Connection) -> list[Run]:
    return await import_schedules.list_runs(connection, "nightly", limit=1_000)


async def import_ids(connection: Connection) -> list[UUID]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM import_job ORDER BY created_at")]


async def test_a_due_schedule_creates_its_import_once(connection: Connection, pool: Pool, file: Path) -> None:
    """The next occurrence is later, the import has the numbers of the file, and the run shows them."""
    await add_list(connection, "a")
    await schedule(connection, file)
    assert await run_due(connection) is None
    await become_due(connection)
    assert await run_due(connection) == "nightly"
    assert await run_due(connection) is None
    await do_imports(pool, file)
    (run,) = await runs(connection)
    assert [run.import_id] == await import_ids(connection)
    assert (run.result, run.failed, run.missed) == ("finished: 2 lines, 2 added", False, 0)
    (found,) = await import_schedules.list_all(connection)
    assert found.last_run == run
    assert await connection.fetchval("SELECT next_at > now() FROM import_schedule")


async def test_the_command_of_an_occurrence_is_in_the_inbox(connection: Connection, file: Path) -> None:
    """Its id is derived from the schedule and the occurrence, so a second command of the occurrence is a duplicate."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    await run_due(connection)
    assert await connection.fetchval("SELECT array_agg(id) FROM command") == await import_ids(connection)


async def test_an_occurrence_runs_once_with_many_workers(connection: Connection, pool: Pool, file: Path) -> None:
    """Eight sweeps of three due schedules at the same time create three imports."""
    await add_list(connection, "a")
    for name in ("nightly", "b", "c"):
        await schedule(connection, file, name)
    for _ in range(5):
        await become_due(connection)
        await connection.execute("DELETE FROM import_run; DELETE FROM import_job; DELETE FROM command")
        signals = Signals(("import",))
        sweepers = [
            Sweeper(pool=pool, nudges=Nudges(signals), settings=Settings(), owner=str(each), roles=("import",))
            for each in range(8)
        ]
        await asyncio.gather(*(sweeper.step() for sweeper in sweepers))
        assert len(await import_ids(connection)) == 3


async def test_a_schedule_that_another_worker_runs_is_skipped(
    connection: Connection, other: Connection, file: Path
) -> None:
    """A worker does not wait for it: it runs the next schedule that is due."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await schedule(connection, file, "later")
    await become_due(connection)
    await connection.execute("UPDATE import_schedule SET next_at = next_at + interval '1 second' WHERE name = 'later'")
    await connection.execute("SET lock_timeout = '5s'")
    async with other.transaction():
        await other.execute("SELECT FROM import_schedule WHERE name = 'nightly' FOR UPDATE")
        assert await run_due(connection) == "later"
    await connection.execute("RESET lock_timeout")


async def test_a_schedule_is_advanced_only_from_the_occurrence_that_runs(connection: Connection, file: Path) -> None:
    """A second worker that has read the same occurrence advances nothing, and so runs nothing."""
    await add_list(connection, "a")
    await schedule(connection, file)
    row = await connection.fetchrow("SELECT id, next_at FROM import_schedule")
    assert row
    after = row["next_at"] + timedelta(hours=1)
    for advanced in (row["id"], None):
        done = await connection.fetchval(import_schedules.SQL.advance, row["id"], row["next_at"], None, after)
        assert done == advanced


@pytest.mark.parametrize(("failpoint", "created"), [("schedule.created", 0), ("schedule.committed", 1)])
async def test_a_crash_neither_loses_nor_repeats_an_occurrence(
    connection: Connection, file: Path, failpoint: str, created: int
) -> None:
    """A worker that dies before the commit leaves the occurrence to the next one; after it, the import exists."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    failpoints.arm(f"{failpoint}=fail")
    try:
        with pytest.raises(failpoints.Failed):
            await run_due(connection)
    finally:
        failpoints.arm("")
    assert len(await import_ids(connection)) == created
    await run_due(connection)
    assert len(await import_ids(connection)) == len(await runs(connection)) == 1


async def test_missed_occurrences_run_once(connection: Connection, pool: Pool, file: Path) -> None:
    """After five hours without a worker, the last of five occurrences runs, and the run says what was missed."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection, hours=5)
    await run_due(connection)
    await do_imports(pool, file)
    (run,) = await runs(connection)
    assert (run.missed, run.result) == (4, "finished: 2 lines, 2 added; 4 earlier runs were missed")
    assert run.due_at == await connection.fetchval("SELECT date_trunc('hour', now())")


async def test_an_occurrence_is_skipped_while_the_last_import_runs(
    connection: Connection, pool: Pool, file: Path
) -> None:
    """It is not queued behind it: the run says why there is no import, and the next one runs again."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    await run_due(connection)
    await import_schedules.run_now(connection, "nightly")
    await run_due(connection)
    assert len(await import_ids(connection)) == 1
    skipped, _ = await runs(connection)
    assert skipped.result == "skipped: the previous import is not finished"
    assert (skipped.skipped, skipped.failed, skipped.import_id) == (True, False, None)
    await do_imports(pool, file)
    await import_schedules.run_now(connection, "nightly")
    await run_due(connection)
    assert len(await import_ids(connection)) == 2


async def test_an_occurrence_that_cannot_begin_is_visible(connection: Connection, file: Path) -> None:
    """The list was archived. Nothing of the command stays, and the schedule goes on."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await lists.archive(connection, "a")
    await become_due(connection)
    await run_due(connection)
    (run,) = await runs(connection)
    assert run.failed
    assert run.result.startswith("failed: list a is archived")
    assert await connection.fetchval("SELECT count(*) FROM command") == 0
    (found,) = await import_schedules.list_all(connection)
    assert found.failure == run.result
    assert found.next_at


async def test_a_failed_import_is_a_failed_run(connection: Connection, pool: Pool, file: Path) -> None:
    """The reason of the import is shown with the schedule."""
    await add_list(connection, "a")
    await schedule(connection, file)
    empty = file.with_name("empty.txt")
    empty.touch()
    await schedule(connection, empty)
    await become_due(connection)
    await run_due(connection)
    await do_imports(pool, file)
    found = await import_schedules.get(connection, "nightly")
    assert found.failure == "failed: empty.txt is empty"


async def test_occurrences_are_refused_while_not_activated(connection: Connection, file: Path) -> None:
    """Codes are not imported where the Coupon Manager is not activated."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    await import_schedules.run_due(connection, activated=False)
    assert "not activated" in (await runs(connection))[0].result


async def test_an_occurrence_that_has_run_is_not_repeated_when_the_clock_goes_back(
    connection: Connection, file: Path
) -> None:
    """A changed schedule may have an occurrence before the last one again."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    await run_due(connection)
    await connection.execute("UPDATE import_job SET state = 'cancelled', finished_at = now()")
    await become_due(connection)
    assert await run_due(connection) == "nightly"
    assert len(await import_ids(connection)) == len(await runs(connection)) == 1


async def test_a_paused_schedule_does_not_run(connection: Connection, file: Path) -> None:
    """After it is resumed, occurrences from before are left out."""
    await add_list(connection, "a")
    await schedule(connection, file)
    paused = await import_schedules.pause(connection, "nightly")
    assert (paused.next_at, bool(paused.paused_at)) == (None, True)
    await schedule(connection, file)  # changing it does not resume it
    assert (await import_schedules.get(connection, "nightly")).next_at is None
    resumed = await import_schedules.resume(connection, "nightly")
    assert resumed.next_at
    assert resumed.paused_at is None
    assert await run_due(connection) is None


async def test_a_paused_schedule_runs_now(connection: Connection, file: Path) -> None:
    """It runs once, and stays paused."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await import_schedules.pause(connection, "nightly")
    assert (await import_schedules.run_now(connection, "nightly")).run_at
    assert await run_due(connection) == "nightly"
    found = await import_schedules.get(connection, "nightly")
    assert (found.next_at, found.run_at, bool(found.paused_at)) == (None, None, True)
    assert len(await import_ids(connection)) == 1
    assert await run_due(connection) is None


async def test_a_change_leaves_a_due_occurrence(connection: Connection, file: Path) -> None:
    """No worker has run it yet: it runs with the new definition."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    await schedule(connection, file, cron="30 * * * *")
    assert await run_due(connection) == "nightly"
    assert len(await import_ids(connection)) == 1


async def test_an_occurrence_that_is_due_when_it_is_paused_is_recorded(connection: Connection, file: Path) -> None:
    """Its run says why there is no import. Pausing again records nothing."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection, hours=3)
    for _ in range(2):
        await import_schedules.pause(connection, "nightly")
    (run,) = await runs(connection)
    assert (run.skipped, run.failed, run.missed) == (True, False, 2)
    assert run.result == "skipped: it was paused before it ran; 2 earlier runs were missed"


async def test_a_failure_ends_with_a_change(connection: Connection, file: Path) -> None:
    """A definition that is put again is not changed. A paused schedule has no failure."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await connection.execute(
        "INSERT INTO import_run (schedule_id, due_at, reason) SELECT id, now(), 'x' FROM import_schedule"
    )
    await schedule(connection, file)
    assert (await import_schedules.get(connection, "nightly")).failure == "failed: x"
    assert (await import_schedules.pause(connection, "nightly")).failure is None
    assert (await import_schedules.resume(connection, "nightly")).failure == "failed: x"
    await schedule(connection, file, cron="@daily")
    assert (await import_schedules.get(connection, "nightly")).failure is None


async def test_the_options_of_a_schedule_are_shown(connection: Connection, file: Path) -> None:
    """Those that are not the default."""
    await add_list(connection, "a")
    await schedule(connection, file, mode="replace", confirmed=True, format={"column": 2, "separator": ";"})
    found = await import_schedules.get(connection, "nightly")
    assert found.options == "mode replace, confirmed, column 2, separator ';'"
    assert (found.format, found.confirmed, found.allow_empty) == ({"column": 2, "separator": ";"}, True, False)


async def test_a_schedule_runs_now_and_keeps_its_next_occurrence(connection: Connection, file: Path) -> None:
    """An operator does not wait for the next hour."""
    await add_list(connection, "a")
    await schedule(connection, file)
    before = await import_schedules.get(connection, "nightly")
    await import_schedules.run_now(connection, "nightly")
    assert await run_due(connection) == "nightly"
    assert (await import_schedules.get(connection, "nightly")).next_at == before.next_at
    assert len(await import_ids(connection)) == 1


async def test_old_runs_are_deleted(connection: Connection, file: Path) -> None:
    """The runs of a schedule do not grow with its history."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await connection.execute(
        "INSERT INTO import_run (schedule_id, due_at, reason) "
        "SELECT id, now() - make_interval(days => n), 'x' FROM import_schedule, generate_series(1, 150) n"
    )
    await become_due(connection)
    await run_due(connection)
    found = await runs(connection)
    assert len(found) == RUNS_KEPT
    assert found[0].import_id


async def test_a_schedule_in_an_unknown_zone_waits_for_another_worker(connection: Connection, file: Path) -> None:
    """Other schedules run, and no time is waited for. It is shown as overdue, and runs once a worker knows the zone."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await schedule(connection, file, "other")
    await become_due(connection)
    await connection.execute(
        "UPDATE import_schedule SET zone = 'Europe/Atlantis', next_at = next_at - interval '1 hour' "
        "WHERE name = 'nightly'"
    )
    assert [await run_due(connection), await run_due(connection)] == ["other", None]
    seconds = await import_schedules.seconds_until_due(connection)
    assert seconds
    assert seconds > 0
    found = await import_schedules.get(connection, "nightly")
    assert (bool(found.next_at), found.failure, found.overdue) == (True, None, True)
    await connection.execute("UPDATE import_schedule SET zone = 'Europe/Berlin' WHERE name = 'nightly'")
    assert await run_due(connection) == "nightly"


async def test_a_deleted_schedule_leaves_its_imports(connection: Connection, pool: Pool, file: Path) -> None:
    """Its runs are deleted, the codes stay; a new schedule of its name has no runs."""
    await add_list(connection, "a")
    await schedule(connection, file)
    await become_due(connection)
    await run_due(connection)
    await do_imports(pool, file)
    await import_schedules.delete(connection, "nightly")
    with suppress(Conflict):
        await import_schedules.delete(connection, "nightly")
    assert len(await import_ids(connection)) == 1
    await schedule(connection, file)
    assert not await runs(connection)


async def test_a_schedule_into_a_list_that_does_not_exist_is_refused(connection: Connection, file: Path) -> None:
    """A group is created by its first import; a list is not."""
    with pytest.raises(Conflict, match="there is no list a"):
        await schedule(connection, file)
    await schedule(connection, file, list=None, group="customers")


async def test_the_sweeper_wakes_at_the_next_occurrence(connection: Connection, pool: Pool, file: Path) -> None:
    """The step returns the seconds until the next one is due, and wakes the importer after it ran a schedule."""
    await add_list(connection, "a")
    signals = Signals(("import",))
    sweeper = Sweeper(pool=pool, nudges=Nudges(signals), settings=Settings(), owner="x", roles=("import",))
    assert await sweeper.step() is None
    await schedule(connection, file)
    seconds = await sweeper.step()
    assert seconds
    assert 0 < seconds <= 3_600
    await become_due(connection)
    await sweeper.step()
    await asyncio.wait_for(signals.wait("import", 60), 5)
    assert len(await imports.list_for_list(connection, "a")) == 1
