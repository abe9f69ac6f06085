"""The undo of an import takes back what it added, restores what it removed, and counts what it cannot undo."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from coupons.commands import InvalidCommand, decode
from coupons.database import Connection, Pool
from coupons.errors import Conflict
from coupons.files.rejections import Reason
from coupons.states import ImportMode
from coupons.store import groups, import_chunks, imports, invariants, lists, sendouts, undo
from coupons.store.imports import ImportStatus
from tests.factories import add_codes, add_group, add_list, prepare, save_message, start
from tests.integration.test_imports import codes_of, kill_at, reasons, run_worker, send_one, start_import, worker
from tests.integration.test_imports import pool as pool  # noqa: PLC0414 - a fixture
from tests.integration.test_imports import small_chunks as small_chunks  # noqa: PLC0414 - a fixture

MODES = [ImportMode.ADD, ImportMode.REPLACE, ImportMode.DELETE]


async def import_text(
    connection: Connection, pool: Pool, text: str, mode: ImportMode = ImportMode.ADD, *, group: str | None = None
) -> UUID:
    import_id = await start_import(connection, text, mode=mode, group=group)
    assert (await run_worker(connection, pool, import_id)).state == "finished"
    return import_id


async def start_undo(connection: Connection, import_id: UUID) -> UUID:
    command = await imports.undo_command(connection, import_id, new_id=uuid4())
    await imports.create(connection, command)
    return command.id


async def undo_import(connection: Connection, pool: Pool, import_id: UUID) -> ImportStatus:
    """Undo the import, and check that all counters are exact."""
    found = await run_worker(connection, pool, await start_undo(connection, import_id))
    assert found.state == "finished", found.reason
    assert all(each.ok for each in await invariants.check(connection))
    return found


def numbered(prefix: str, count: int) -> str:
    return "".join(f"{prefix}-{number:09}\n" for number in range(count))


async def available(connection: Connection, name: str = "a") -> int:
    (found,) = await lists.get(connection, name)
    return found.available


async def people(connection: Connection) -> dict[str, dict[str, str]]:
    return {row["address"]: row["attributes"] for row in await connection.fetch("SELECT * FROM recipient")}


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("mode", MODES)
async def test_an_undo_restores_the_list(connection: Connection, pool: Pool, mode: ImportMode) -> None:
    """The codes are those of before, and an undo of the undo brings back those of the import."""
    await add_list(connection, "a", 100)
    before = await codes_of(connection)
    lines = [f"A-{number:09}" for number in range(50)] + ["NEW-1", "NEW-2"]
    done = await import_text(connection, pool, "\n".join(lines), mode)
    after = await codes_of(connection)
    undone = await undo_import(connection, pool, done)
    assert await codes_of(connection) == before
    expected = {ImportMode.ADD: (0, 2), ImportMode.REPLACE: (50, 2), ImportMode.DELETE: (50, 0)}[mode]
    assert (undone.added, undone.removed, undone.rejected) == (*expected, 0)
    again = await undo_import(connection, pool, undone.id)
    assert (again.added, again.removed) == expected[::-1]
    assert await codes_of(connection) == after


async def test_codes_that_are_not_available_are_not_taken_back(connection: Connection, pool: Pool) -> None:
    """The report counts reserved, assigned, sent and removed codes; an undo can be repeated for the others."""
    await add_list(connection, "a")
    done = await import_text(connection, pool, "\n".join(f"A-{number:09}" for number in range(10)))
    await send_one(connection, "a")
    await import_text(connection, pool, "A-000000008\nA-000000009", ImportMode.DELETE)
    await add_group(connection, "h", 3)
    await save_message(connection, "n", "a")
    sendout = await start(connection, "n", "h")
    await prepare(connection)
    found = await undo_import(connection, pool, done)
    assert (found.removed, found.kept_reserved, found.kept_assigned) == (4, 3, 1)
    assert found.notices == [
        "took back 4 of 10 codes that the import added",
        "not undone: 3 reserved for sendouts",
        "not undone: 1 already sent",
        "not undone: 2 removed since, or kept by a later replacement (undo that first)",
    ]
    await sendouts.cancel(connection, sendout)
    assert (await run_worker(connection, pool, await start_undo(connection, done))).removed == 3


async def test_codes_that_another_list_has_are_not_restored(connection: Connection, pool: Pool) -> None:
    """They are rejected lines of the undo, each with its reason."""
    await add_list(connection, "a", ["A-1", "A-2", "A-3"])
    done = await import_text(connection, pool, "A-1\nA-2\nA-3", ImportMode.DELETE)
    await add_list(connection, "b", ["a-1"])
    await add_codes(connection, "a", ["A-2"])
    found = await undo_import(connection, pool, done)
    assert (found.added, found.rejected) == (1, 2)
    assert await reasons(connection, found.id) == [(1, Reason.OTHER_LIST), (2, Reason.IN_LIST)]
    assert found.notices == ["restored 1 of 3 codes that the import removed"]


async def test_codes_that_a_replacement_kept_stay(connection: Connection, pool: Pool) -> None:
    """A replacement owns the codes that it kept, so the undo of the earlier import leaves them, and so does its own."""
    await add_list(connection, "a")
    first = await import_text(connection, pool, "A-1\nA-2\n")
    second = await import_text(connection, pool, "A-2\nA-3\n", ImportMode.REPLACE)
    found = await undo_import(connection, pool, first)
    assert (found.removed, await codes_of(connection)) == (0, ["A-2", "A-3"])
    found = await undo_import(connection, pool, second)
    assert (found.added, found.removed, await codes_of(connection)) == (1, 1, ["A-1", "A-2"])


async def test_what_a_repeated_replacement_kept_can_be_taken_back(connection: Connection, pool: Pool) -> None:
    """The undo of an import that only kept codes gives them back to the import before, which can be undone then."""
    await add_list(connection, "a", ["GOOD-1", "GOOD-2"])
    first, second, third = [await import_text(connection, pool, "BAD-1\nBAD-2\n", ImportMode.REPLACE) for _ in range(3)]
    found = await undo_import(connection, pool, third)
    assert found.notices == ["returned to the import before: 2 codes that the import kept"]
    found = await undo_import(connection, pool, first)  # before the second
    assert (found.added, found.removed, found.is_complete) == (2, 0, False)
    assert "not undone: 2 removed since, or kept by a later replacement (undo that first)" in found.notices
    await undo_import(connection, pool, second)
    assert (await undo_import(connection, pool, first)).removed == 2
    assert await codes_of(connection) == ["GOOD-1", "GOOD-2"]


async def test_an_undo_takes_back_no_codes_of_an_import_that_is_not_undone(connection: Connection, pool: Pool) -> None:
    """A replacement whose undo was undone keeps its codes. Codes of another import stay as well."""
    await add_list(connection, "a")
    first = await import_text(connection, pool, "A-1\nA-2\n")
    later = await import_text(connection, pool, "A-3\n")
    replaced = await import_text(connection, pool, "A-1\nA-2\nA-3\nA-4\n", ImportMode.REPLACE)
    undone = await undo_import(connection, pool, replaced)
    undone = await undo_import(connection, pool, undone.id)
    assert (await undo_import(connection, pool, first)).removed == 0
    await undo_import(connection, pool, undone.id)
    assert (await undo_import(connection, pool, first)).removed == 2
    assert await codes_of(connection) == ["A-3"]
    assert (await undo_import(connection, pool, later)).removed == 1


async def test_an_undo_keeps_spellings(connection: Connection, pool: Pool) -> None:
    """Codes of a case-sensitive list come back as they were, in their old order."""
    await add_list(connection, "a", ["b", "B", "ä", 'C"1', "C\\2"], case_sensitive=True)
    before = await connection.fetch("SELECT code, fold FROM coupon ORDER BY id")
    done = await import_text(connection, pool, "NEW-1", ImportMode.REPLACE)
    await undo_import(connection, pool, done)
    assert await connection.fetch("SELECT code, fold FROM coupon ORDER BY id") == before


async def test_the_list_forgets_the_shape_of_codes_that_are_taken_back(connection: Connection, pool: Pool) -> None:
    """Otherwise the same wrong file would not be noticed the next time."""
    await add_list(connection, "a", 100)
    done = await import_text(connection, pool, "\n".join(f"{number:08}-X" for number in range(60)))
    await undo_import(connection, pool, done)
    again = await start_import(connection, "\n".join(f"{number:08}-X" for number in range(60)), is_reviewed=False)
    found = await run_worker(connection, pool, again)
    assert (found.state, "do not look like the 100 codes of a" in (found.reason or "")) == ("failed", True)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("place", ["import.committed", "import.removing", "import.complete"])
async def test_a_killed_undo_is_continued(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Each code is restored once and taken back once, whatever the worker did when it died."""
    monkeypatch.setattr(import_chunks, "REMOVE_BATCH_SIZE", 10)
    await add_list(connection, "a", 100)
    before = await codes_of(connection)
    done = await import_text(connection, pool, "\n".join(f"NEW-{n:06}" for n in range(60)), ImportMode.REPLACE)
    import_id = await start_undo(connection, done)
    hit = 1 if place == "import.complete" else 2
    await kill_at(connection, pool, monkeypatch, import_id, place, hit=hit)
    found = await run_worker(connection, pool, import_id)
    assert (found.state, found.added, found.removed) == ("finished", 100, 60)
    assert await codes_of(connection) == before
    assert all(each.ok for each in await invariants.check(connection))


async def test_an_undo_races_a_sendout(connection: Connection, pool: Pool) -> None:
    """A code is either reserved or taken back; the counters are exact whoever is first."""
    await add_list(connection, "a")
    done = await import_text(connection, pool, "\n".join(f"A-{number:09}" for number in range(40)))
    await add_group(connection, "g", 30)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    import_id = await start_undo(connection, done)
    async with pool.acquire() as other:
        await asyncio.gather(prepare(other), run_worker(connection, pool, import_id))
    (a,) = await lists.get(connection, "a")
    found = await imports.get(connection, import_id)
    assert (a.reserved, found.removed, a.available) in [(30, 10, 0), (0, 40, 0)]
    assert all(each.ok for each in await invariants.check(connection))


async def test_the_progress_of_a_resumed_undo_counts_what_is_removed(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number to remove is that of the whole undo, also after a crash."""
    monkeypatch.setattr(import_chunks, "REMOVE_BATCH_SIZE", 10)
    await add_list(connection, "a")
    import_id = await start_undo(connection, await import_text(connection, pool, numbered("A", 30)))
    for removed in (10, 20):
        await kill_at(connection, pool, monkeypatch, import_id, "import.removing")
        found = await imports.get(connection, import_id)
        assert (found.removed, found.to_remove) == (removed, 30)


async def test_an_undo_has_no_limits_for_files(connection: Connection, pool: Pool) -> None:
    """What an import removed may be more than a file may have."""
    await add_list(connection, "a", 60)
    done = await import_text(connection, pool, "NEW-1\n", ImportMode.REPLACE)
    import_id = await start_undo(connection, done)
    await worker(pool, import_max_lines=10, import_max_bytes=100).step()
    found = await imports.get(connection, import_id)
    assert (found.state, found.added, found.removed) == ("finished", 60, 1)


@pytest.mark.usefixtures("small_chunks")
async def test_an_import_that_an_earlier_version_began_cannot_be_undone(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it added before the upgrade is not known."""
    await add_list(connection, "a")
    import_id = await start_import(connection, numbered("A", 100))
    await kill_at(connection, pool, monkeypatch, import_id, "import.committed")
    await connection.execute("UPDATE import_job SET first_id = NULL")
    assert (await run_worker(connection, pool, import_id)).state == "finished"
    with pytest.raises(Conflict, match="from an earlier version"):
        await start_undo(connection, import_id)


async def test_a_repeated_undo_takes_back_what_is_left_and_restores_nothing(connection: Connection, pool: Pool) -> None:
    """A later replacement has removed restored codes. They do not come back; the import names its undo."""
    await add_list(connection, "a", ["OLD-1", "OLD-2"])
    done = await import_text(connection, pool, "NEW-1\nNEW-2\n", ImportMode.REPLACE)
    await send_one(connection, "a")
    first = await undo_import(connection, pool, done)
    assert (first.removed, first.to_take_back, first.added, first.to_restore, first.is_complete) == (1, 2, 2, 2, False)
    await import_text(connection, pool, "OLD-2\n", ImportMode.REPLACE)
    again = await undo_import(connection, pool, done)
    assert (again.removed, again.to_take_back, again.added, again.to_restore) == (0, 1, 0, 0)
    assert (again.rejected, again.notices[0]) == (
        0,
        f"import {first.id} undid the import before, so nothing is restored again",
    )
    assert (await imports.get(connection, done)).undone_by == again.id


async def test_an_import_that_is_undone_or_being_undone_is_not_undone_again(connection: Connection, pool: Pool) -> None:
    """The reason names the undo."""
    await add_list(connection, "a", ["OLD-1"])
    done = await import_text(connection, pool, "NEW-1\n", ImportMode.REPLACE)
    undo_id = await start_undo(connection, done)
    with pytest.raises(Conflict, match=f"import {undo_id} undoes import {done} already"):
        await start_undo(connection, done)
    found = await run_worker(connection, pool, undo_id)
    assert (found.is_complete, found.read_as) == (True, None)
    with pytest.raises(Conflict, match=f"was undone by import {undo_id}: nothing is left to undo"):
        await start_undo(connection, done)


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_an_undo_restores_recipients(connection: Connection, pool: Pool, mode: ImportMode) -> None:
    """Added recipients leave the group, removed ones return with their attributes. Updated ones stay as they are."""
    await import_text(connection, pool, 'email,city\na@x.org,"Köln ""1"""\nb@x.org,Bonn\n', group="g")
    before = await people(connection)
    done = await import_text(connection, pool, "email,phone\nb@x.org,1\nc@x.org,2\n", mode, group="g")
    found = await undo_import(connection, pool, done)
    after = await people(connection)
    assert after.keys() == before.keys()
    assert after["a@x.org"] == before["a@x.org"]
    assert ("1 updated recipient keeps its present attributes" in found.notices) == (mode != ImportMode.DELETE)
    group = await groups.get(connection, "g")
    assert {name for each in after.values() for name in each} <= set(group.attributes)
    again = await undo_import(connection, pool, found.id)
    assert (again.added, again.removed) == (found.removed, found.added)


async def test_a_recipient_that_was_changed_since_is_not_taken_back(connection: Connection, pool: Pool) -> None:
    """A later import has updated or removed it."""
    done = await import_text(connection, pool, "email\na@x.org\nb@x.org\nc@x.org\n", group="g")
    await import_text(connection, pool, "email,city\nb@x.org,Bonn\n", group="g")
    await import_text(connection, pool, "email\nc@x.org\n", ImportMode.DELETE, group="g")
    found = await undo_import(connection, pool, done)
    assert found.notices == [
        "took back 1 of 3 recipients that the import added",
        "not undone: 2 removed since, or updated by a later import (undo that first)",
    ]  # fmt: skip
    assert list(await people(connection)) == ["b@x.org"]


async def test_recipients_of_a_file_that_was_imported_twice_can_be_taken_back(
    connection: Connection, pool: Pool
) -> None:
    """First the undo of the second import gives them back to the first one."""
    await import_text(connection, pool, "email\nold@x.org\n", group="g")
    first, second = [await import_text(connection, pool, "email\na@x.org\nold@x.org\n", group="g") for _ in range(2)]
    assert (await undo_import(connection, pool, first)).removed == 0
    assert (await undo_import(connection, pool, second)).removed == 0
    assert (await undo_import(connection, pool, first)).removed == 1
    assert list(await people(connection)) == ["old@x.org"]


@pytest.mark.parametrize("mode", [ImportMode.REPLACE, ImportMode.DELETE])
async def test_large_recipients_are_kept_in_rows_of_limited_size(
    connection: Connection, pool: Pool, mode: ImportMode
) -> None:
    """A transaction may remove more than a row can hold. An undo restores all of it."""
    await import_text(connection, pool, "email\nc@x.org\n", group="g")
    await connection.execute(
        "INSERT INTO recipient (group_id, address_key, address, attributes) "
        "SELECT group_id, n || '@x.org', n || '@x.org', jsonb_build_object('a', repeat('x', 90000)) "
        "FROM recipient, generate_series(1, 120) n"
    )
    lines = "c@x.org" if mode == ImportMode.REPLACE else "\n".join(f"{number}@x.org" for number in range(1, 121))
    done = await import_text(connection, pool, f"email\n{lines}\n", mode, group="g")
    sizes = await connection.fetch("SELECT length(array_to_string(texts, '')) AS size FROM import_removal")
    assert [row["size"] < 4.5e6 for row in sizes] == [True] * 3
    assert (await undo_import(connection, pool, done)).added == 120


async def test_a_recipient_that_is_in_the_group_again_is_not_overwritten(connection: Connection, pool: Pool) -> None:
    """It is a rejected row of the undo."""
    await import_text(connection, pool, "email,city\na@x.org,Bonn\nb@x.org,Bonn\n", group="g")
    done = await import_text(connection, pool, "email\na@x.org\nb@x.org\n", ImportMode.DELETE, group="g")
    await import_text(connection, pool, "email,city\nb@x.org,Berlin\n", group="g")
    found = await undo_import(connection, pool, done)
    assert (found.added, found.rejected, list(found.columns)) == (1, 1, ["email", "city"])
    assert await reasons(connection, found.id) == [(2, Reason.IN_LIST)]
    assert (await people(connection))["b@x.org"] == {"city": "Berlin"}


# --- what cannot be undone -------------------------------------------------------------------------------------------


async def test_what_cannot_be_undone_has_a_reason(connection: Connection, pool: Pool) -> None:
    """Nothing is changed, and no import is created."""
    await add_list(connection, "a", 3)
    await add_list(connection, "b")
    with pytest.raises(Conflict, match="there is no import"):
        await imports.undo_command(connection, uuid4(), new_id=uuid4())
    waiting = await start_import(connection, "A-1\n")
    with pytest.raises(Conflict, match="is queued: wait for its end, or cancel it"):
        await start_undo(connection, waiting)
    await imports.cancel(connection, waiting)
    with pytest.raises(Conflict, match="has changed nothing"):
        await start_undo(connection, waiting)
    done = await import_text(connection, pool, "A-000000000\n", ImportMode.DELETE)
    command = await imports.undo_command(connection, done, new_id=uuid4())
    with pytest.raises(Conflict, match="is into a, not b"):
        await imports.create(connection, command.model_copy(update={"list": "b"}))
    await connection.execute("UPDATE import_job SET finished_at = now() - interval '8 days' WHERE id = $1", done)
    with pytest.raises(Conflict, match="ended more than 7 days ago"):
        await start_undo(connection, done)
    await connection.execute("UPDATE import_job SET first_id = NULL, finished_at = now() WHERE id = $1", done)
    with pytest.raises(Conflict, match="from an earlier version"):
        await start_undo(connection, done)


async def test_an_import_of_a_deleted_group_cannot_be_undone(connection: Connection, pool: Pool) -> None:
    """A new group with the same name gets none of its recipients; those that it removed are deleted."""
    await import_text(connection, pool, "email\na@x.org\n", group="g")
    done = await import_text(connection, pool, "email\na@x.org\n", ImportMode.DELETE, group="g")
    assert await connection.fetchval("SELECT count(*) FROM import_removal") == 1
    await groups.delete(connection, "g")
    assert await connection.fetchval("SELECT count(*) FROM import_removal") == 0
    await import_text(connection, pool, "email\nb@x.org\n", group="g")
    with pytest.raises(Conflict, match="is deleted"):
        await start_undo(connection, done)


async def test_removed_codes_of_a_deleted_list_are_deleted(connection: Connection, pool: Pool) -> None:
    """They are codes, and nothing can restore them."""
    await add_list(connection, "a", 3)
    await save_message(connection, "m", "a")  # the list's row stays
    done = await import_text(connection, pool, "A-000000000\n", ImportMode.DELETE)
    await lists.archive(connection, "a")
    await lists.delete(connection, "a")
    assert await connection.fetchval("SELECT count(*) FROM import_removal") == 0
    await add_list(connection, "a")
    with pytest.raises(Conflict, match="is deleted"):
        await start_undo(connection, done)


async def test_removed_codes_are_deleted_after_a_week(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep deletes them in batches, unless an unfinished undo needs them."""
    monkeypatch.setattr(undo, "DELETE_BATCH_ROWS", 1)
    await add_list(connection, "a", 9)
    old = [await import_text(connection, pool, f"A-{number:09}\n", ImportMode.DELETE) for number in range(3)]
    recent = await import_text(connection, pool, "A-000000005\n", ImportMode.DELETE)
    needed = await start_undo(connection, old[2])
    await connection.execute(
        "UPDATE import_job SET finished_at = now() - interval '7 days 61 minutes' WHERE id = ANY ($1)", old
    )
    await undo.delete_old(connection)
    left = await connection.fetch("SELECT import_id FROM import_removal ORDER BY number")
    assert [row["import_id"] for row in left] == [old[2], recent]
    found = await run_worker(connection, pool, needed)
    assert (found.state, found.added) == ("finished", 1)


async def test_an_undo_fails_if_a_part_of_the_removed_codes_is_deleted(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes nothing, as if it could restore them; `coupons verify` finds the loss."""
    monkeypatch.setattr(import_chunks, "REMOVE_BATCH_SIZE", 2)
    await add_list(connection, "a", 3)
    done = await import_text(connection, pool, "NEW-1\n", ImportMode.REPLACE)
    import_id = await start_undo(connection, done)
    await connection.execute("DELETE FROM import_removal WHERE number = (SELECT max(number) FROM import_removal)")
    found = await run_worker(connection, pool, import_id)
    assert (found.state, found.added, found.removed) == ("failed", 0, 0)
    assert "2 of 3 left; nothing was changed" in (found.reason or "")
    assert await codes_of(connection) == ["NEW-1"]
    violations = {each.name: each.violations for each in await invariants.check(connection) if not each.ok}
    assert violations == {"removed_is_kept": [{"import": done, "removed": 3, "kept": 2}]}
    await connection.execute("UPDATE import_job SET removed = 2 WHERE id = $1", done)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": f"import:{UUID(int=1)}"}, "need each other"),
        ({"source": "https://shop.example/x", "mode": "undo"}, "need each other"),
        ({"codes": ["A"], "mode": "undo"}, "need each other"),
        ({"source": "import:7", "mode": "undo"}, "the id is a UUID"),
    ],
)
def test_an_undo_has_the_source_of_an_import(fields: dict[str, object], reason: str) -> None:
    """Other commands are invalid."""
    with pytest.raises(InvalidCommand, match=reason):
        decode(json.dumps({"type": "import", "id": str(UUID(int=2)), "list": "a", **fields}).encode())
