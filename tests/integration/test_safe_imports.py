"""Imports that replace or delete are run dry first, and a failed import can be retried from its upload."""

from uuid import UUID, uuid4

import pytest

from coupons import import_engine
from coupons.commands import Format, InvalidCommand
from coupons.database import Connection, Pool
from coupons.errors import Conflict, LeaseLost
from coupons.import_progress import ImportProgress
from coupons.settings import Settings
from coupons.sources import SourceLimits
from coupons.states import ImportMode
from coupons.store import groups, imports, inbox, lists, uploads
from coupons.store.imports import Changes
from tests.factories import add_codes, add_group, add_list, claimed
from tests.integration.test_imports import codes_of, kill_at, run_worker, start_import
from tests.integration.test_imports import pool as pool  # noqa: PLC0414 - a fixture
from tests.integration.test_imports import small_chunks as small_chunks  # noqa: PLC0414 - a fixture
from workers.importer import open_import_source

BAD = "www.example.org/{}\n"
FIVE = ["A-000000000", "A-000000001", "A-000000002", "A-000000003", "A-000000004"]


async def run_safely(
    connection: Connection, pool: Pool, text: str, mode: ImportMode, *, group: str | None = None
) -> imports.ImportStatus:
    """Import a text whose numbers no operator has seen."""
    return await run_worker(
        connection, pool, await start_import(connection, text, mode=mode, group=group, is_reviewed=False)
    )


# --- the dry run of the worker ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("mode", [ImportMode.REPLACE, ImportMode.DELETE])
async def test_nothing_changes_if_more_than_half_of_the_lines_are_rejected(
    connection: Connection, pool: Pool, mode: ImportMode
) -> None:
    """Also the lines before the rejected ones change nothing, whatever chunk they are in."""
    await add_list(connection, "a", FIVE)
    kept = "".join(f"{code}\n" for code in [*FIVE, "NEW-1"][: 6 if mode == ImportMode.REPLACE else 5])
    good = kept.count("\n")
    found = await run_safely(connection, pool, kept + "".join(BAD.format(n) for n in range(good + 1)), mode)
    assert found.state == "failed"
    assert f"{good + 1} of {2 * good + 1} lines would be rejected, more than half (" in (found.reason or "")
    assert await codes_of(connection) == FIVE
    (a,) = await lists.get(connection, "a")
    assert (a.total, a.available, found.lines) == (5, 5, 0)


@pytest.mark.parametrize("mode", [ImportMode.REPLACE, ImportMode.DELETE])
async def test_half_of_the_lines_may_be_rejected(connection: Connection, pool: Pool, mode: ImportMode) -> None:
    """Blank lines do not count."""
    await add_list(connection, "a", FIVE)
    found = await run_safely(connection, pool, f"{FIVE[0]}\n\n\n{BAD}", mode)
    assert (found.state, found.rejected, found.blank) == ("finished", 1, 2)


async def test_added_codes_need_no_review(connection: Connection, pool: Pool) -> None:
    """An import that only adds is never refused, because it removes nothing."""
    await add_list(connection, "a")
    found = await run_safely(connection, pool, BAD, ImportMode.ADD)
    assert (found.state, found.rejected) == ("finished", 1)


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_a_replacement_that_leaves_nothing_of_its_file_changes_nothing(
    connection: Connection, pool: Pool, is_confirmed: bool
) -> None:
    """A confirmation of rejected lines does not allow it."""
    await add_list(connection, "a", FIVE)
    await add_list(connection, "b", ["B-1", "B-2"])
    import_id = await start_import(connection, "B-1\nB-2\n", mode=ImportMode.REPLACE, is_reviewed=False)
    await connection.execute("UPDATE import_job SET confirmed = $1 WHERE id = $2", is_confirmed, import_id)
    found = await run_worker(connection, pool, import_id)
    assert found.state == "failed"
    assert "nothing was changed; --allow-empty" in (found.reason or "")
    assert await codes_of(connection) == FIVE


async def test_an_empty_replacement_can_be_allowed(connection: Connection, pool: Pool) -> None:
    """With `allow_empty` and a confirmation, the list loses all its available codes."""
    await add_list(connection, "a", FIVE)
    found = await run_worker(connection, pool, await start_import(connection, BAD, mode=ImportMode.REPLACE))
    assert (found.state, found.removed) == ("finished", 5)


async def test_recipients_are_as_safe_as_codes(connection: Connection, pool: Pool) -> None:
    """A group that is replaced by a file of errors keeps its recipients."""
    await add_group(connection, "g", 3)
    text = "email,first_name\nnew@example.org,Neo\nc0@,Ada\nnobody,Bob\n"
    found = await run_safely(connection, pool, text, ImportMode.REPLACE, group="g")
    assert found.state == "failed"
    assert "2 of 3 lines would be rejected" in (found.reason or "")
    assert await connection.fetchval("SELECT count(*) FROM recipient WHERE address LIKE 'c_@%'") == 3
    assert await connection.fetchval("SELECT count(*) FROM recipient") == 3


async def test_the_dry_run_and_the_check_have_the_same_numbers(connection: Connection, pool: Pool) -> None:
    """A confirmed import of the same file rejects as many lines as the check has counted."""
    await add_list(connection, "a", FIVE)
    await add_list(connection, "b", ["B-1"])
    text = f"B-1\n{FIVE[1]}\n{FIVE[1].lower()}\n{BAD}NEW\n"
    refused = await run_safely(connection, pool, text, ImportMode.REPLACE)
    assert "3 of 5 lines" in (refused.reason or "")
    done = await run_worker(connection, pool, await start_import(connection, text, mode=ImportMode.REPLACE))
    assert (done.rejected, done.lines, done.removed) == (3, 5, 4)


async def run_changed(connection: Connection, pool: Pool, import_id: UUID, text: str) -> imports.ImportStatus:
    """Run an import whose text changes after its dry run."""
    check = import_engine.check_import

    async def check_and_change(*arguments: object, **named: object) -> list[bytes]:
        digests = await check(*arguments, **named)  # type: ignore[arg-type]
        await change_upload(connection, text)
        return digests

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_engine, "check_import", check_and_change)
        return await run_worker(connection, pool, import_id)


async def change_upload(connection: Connection, text: str) -> None:
    await connection.execute("UPDATE upload_chunk SET data = $1", text.encode())
    await connection.execute("UPDATE upload SET size_bytes = $1", len(text))


@pytest.mark.parametrize("mode", [ImportMode.REPLACE, ImportMode.DELETE])
@pytest.mark.parametrize("changed", ["NEW-2\n", "A-000000000\nA-000000001\n"])
async def test_another_text_than_that_of_the_dry_run_changes_nothing(
    connection: Connection, pool: Pool, mode: ImportMode, changed: str
) -> None:
    """A source may change between the dry run and the import."""
    await add_list(connection, "a", FIVE)
    import_id = await start_import(connection, "A-000000000\n", mode=mode, is_reviewed=False)
    found = await run_changed(connection, pool, import_id, changed)
    assert (found.state, found.added, found.removed) == ("failed", 0, 0)
    assert "has changed" in (found.reason or "")
    assert await codes_of(connection) == FIVE


@pytest.mark.usefixtures("small_chunks")
async def test_a_text_that_ends_earlier_is_another_text(connection: Connection, pool: Pool) -> None:
    """Its last line may be the beginning of a line of the text that was run dry, and another code."""
    text = "".join(f"A-{number:09}\n" for number in range(30))
    await add_list(connection, "a", [*text.split(), "A-00000002"])
    import_id = await start_import(connection, text, mode=ImportMode.DELETE, is_reviewed=False)
    found = await run_changed(connection, pool, import_id, text[:250])
    assert (found.state, found.removed) == ("failed", 0)


@pytest.mark.usefixtures("small_chunks")
async def test_the_text_of_the_dry_run_is_known_after_a_crash(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker changes nothing because of a text whose end is another one."""
    await add_list(connection, "a", 200)
    text = "".join(f"A-{number:09}\n" for number in range(200))
    import_id = await start_import(connection, text, mode=ImportMode.REPLACE, is_reviewed=False)
    await kill_at(connection, pool, monkeypatch, import_id, "import.committed", hit=2)
    position = await connection.fetchval("SELECT position FROM import_job")
    changed = text[:position] + "".join(BAD.format(number) for number in range(500))
    assert position > 0
    await change_upload(connection, changed)
    found = await run_worker(connection, pool, import_id)
    assert (found.state, found.removed, found.rejected) == ("failed", 0, 0)
    assert await connection.fetchval("SELECT count(*) FROM coupon") == 200


async def test_a_dry_run_shows_what_it_has_read(connection: Connection, pool: Pool) -> None:
    """The bytes and their total are known while the worker checks a large file, and count again for the import."""
    await add_list(connection, "a", FIVE)
    import_id = await start_import(connection, "A-000000000\n", mode=ImportMode.REPLACE, is_reviewed=False)
    job, progress = await claimed(connection, import_id), ImportProgress()
    seen: list[int] = []

    def see(*_: object, **__: object) -> None:
        seen.append(progress.published.read)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_engine, "check_report", see)
        limits = SourceLimits.from_settings(Settings())
        async with open_import_source(pool, job, limits) as source:
            await import_engine.check_import(connection, job, source, limits, max_lines=9, progress=progress)
    found = await imports.get(connection, import_id)
    assert (seen, found.total_bytes, progress.published.read) == ([12], 12, 0)


async def test_a_removal_needs_the_lease(connection: Connection) -> None:
    """A worker that has lost the lease of a replacement does not begin to remove codes."""
    await add_list(connection, "a", FIVE)
    job = await claimed(connection, await start_import(connection, "NEW-1\n", mode=ImportMode.REPLACE))
    await connection.execute("UPDATE import_job SET lease_token = gen_random_uuid()")
    with pytest.raises(LeaseLost):
        await imports.set_checked(connection, job, [])
    with pytest.raises(LeaseLost):
        await imports.begin_removing(connection, job)


# --- retries of failed imports ---------------------------------------------------------------------------------------


async def fail(connection: Connection, pool: Pool, text: bytes = "BÄR-1\nBÄR-2\n".encode("cp1252")) -> UUID:
    """Let an import fail because of its encoding."""
    import_id = await start_import(connection, text)
    assert (await run_worker(connection, pool, import_id)).state == "failed"
    return import_id


async def test_a_failed_import_is_retried_from_its_upload(connection: Connection, pool: Pool) -> None:
    """The new import has the changed format and the old target; it deletes the upload when it finishes."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    command = await imports.retry_command(connection, failed, Changes({"encoding": "cp1252"}), new_id=uuid4())
    assert (command.list, command.format.encoding, command.format.kind) == ("a", "cp1252", "txt")
    await imports.create(connection, command)
    found = await run_worker(connection, pool, command.id)
    assert (found.state, found.added) == ("finished", 2)
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0
    with pytest.raises(Conflict, match=f"was imported by import {command.id}"):
        await imports.retry_command(connection, failed, Changes({}), new_id=uuid4())
    with pytest.raises(Conflict, match="is finished: only a failed import"):
        await imports.retry_command(connection, command.id, Changes({}), new_id=uuid4())


async def test_a_failed_upload_is_kept_for_a_day(connection: Connection, pool: Pool) -> None:
    """The sweep deletes it then, unless a retry is unfinished."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    await uploads.delete_stale(connection)
    assert await connection.fetchval("SELECT expires_at - now() > interval '23 hours' FROM upload")
    await connection.execute("UPDATE upload SET expires_at = now() - interval '1 second'")
    command = await imports.retry_command(connection, failed, Changes({}), new_id=uuid4())
    await imports.create(connection, command)
    await uploads.delete_stale(connection)
    assert await connection.fetchval("SELECT count(*) FROM upload") == 1
    await imports.cancel(connection, command.id)
    await uploads.delete_stale(connection)
    assert await connection.fetchval("SELECT count(*) FROM upload_chunk") == 0


async def test_a_cancelled_retry_keeps_the_file(connection: Connection, pool: Pool) -> None:
    """The failed import can be retried again."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    for _ in range(2):
        command = await imports.retry_command(connection, failed, Changes({"encoding": "cp1252"}), new_id=uuid4())
        await imports.create(connection, command)
        await imports.cancel(connection, command.id)
    assert await imports.can_be_retried(connection, failed)


async def test_a_repeated_retry_is_the_same_import(connection: Connection, pool: Pool) -> None:
    """Also after the first one has imported the file, which deletes it."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    changes = Changes({"encoding": "cp1252"})
    command = await imports.retry_command(connection, failed, changes, new_id=uuid4())
    async with connection.transaction():
        assert await inbox.accept(connection, command)
        await imports.create(connection, command)
    assert (await run_worker(connection, pool, command.id)).state == "finished"
    assert await imports.retry_command(connection, failed, changes, new_id=command.id) == command


async def test_a_retry_needs_its_permissions_and_its_list(connection: Connection, pool: Pool) -> None:
    """A permission was given for other numbers. A new list with the same name is another list."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    await connection.execute("UPDATE import_job SET confirmed = true, allow_empty = true")
    command = await imports.retry_command(connection, failed, Changes({}), new_id=uuid4())
    assert (command.confirmed, command.allow_empty) == (False, False)
    await connection.execute("UPDATE coupon_list SET deleted_at = now(), archived_at = now()")
    with pytest.raises(Conflict, match=f"the list of import {failed} is deleted"):
        await imports.retry_command(connection, failed, Changes({}), new_id=uuid4())
    assert not await imports.can_be_retried(connection, failed)


async def test_a_retry_keeps_the_mode_and_can_confirm(connection: Connection, pool: Pool) -> None:
    """An import that was refused because of its numbers is retried with a confirmation, without another upload."""
    await add_list(connection, "a", FIVE)
    refused = await run_safely(connection, pool, f"NEW-1\n{BAD}{BAD}", ImportMode.REPLACE)
    assert refused.state == "failed"
    command = await imports.retry_command(connection, refused.id, Changes({}, confirmed=True), new_id=uuid4())
    await imports.create(connection, command)
    found = await run_worker(connection, pool, command.id)
    assert (found.state, found.added, found.removed, found.rejected) == ("finished", 1, 5, 2)


async def test_a_retry_can_drop_the_format(connection: Connection, pool: Pool) -> None:
    """Then everything that it does not set is detected again."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    changes = Changes({"encoding": "cp1252"}, reset=True)
    command = await imports.retry_command(connection, failed, changes, new_id=uuid4())
    assert command.format == Format(encoding="cp1252")


async def test_an_impossible_retry_has_one_clear_reason(connection: Connection, pool: Pool) -> None:
    """The changed format is checked with the fields that stay."""
    await add_list(connection, "a")
    failed = await fail(connection, pool)
    with pytest.raises(InvalidCommand, match="a txt file has no columns"):
        await imports.retry_command(connection, failed, Changes({"column": 2}), new_id=uuid4())
    with pytest.raises(Conflict, match="there is no import"):
        await imports.retry_command(connection, uuid4(), Changes({}), new_id=uuid4())
    source = f"import:{failed}"
    await connection.execute("UPDATE import_job SET mode = 'undo', source = $2 WHERE id = $1", failed, source)
    with pytest.raises(Conflict, match=f"is an undo: repeat it with `coupons import undo {failed}`"):
        await imports.retry_command(connection, failed, Changes({}), new_id=uuid4())
    inline = await add_codes(connection, "a", ["X-1"])
    await connection.execute("UPDATE import_job SET state = 'failed' WHERE id = $1", inline)
    with pytest.raises(Conflict, match="has no file that can be read again"):
        await imports.retry_command(connection, inline, Changes({}), new_id=uuid4())


@pytest.mark.parametrize("kind", ["list", "group"])
async def test_a_kept_upload_is_deleted_with_its_target(connection: Connection, pool: Pool, kind: str) -> None:
    """It has codes or addresses, and a retry of the failed import would have no list, or create the group again."""
    await add_list(connection, "a")
    await add_group(connection, "g", 1)
    bad = "email\nä@x.org\n".encode("cp1252")
    failed = await start_import(connection, bad, group="g" if kind == "group" else None)
    assert (await run_worker(connection, pool, failed)).state == "failed"
    assert await connection.fetchval("SELECT count(*) FROM upload") == 1
    if kind == "group":
        await groups.delete(connection, "g")
    else:
        await lists.archive(connection, "a")
        await lists.delete(connection, "a")
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0
