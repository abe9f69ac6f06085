"""A code exists once in the whole system, in any list and any spelling."""

import asyncio
import random
from collections.abc import AsyncIterator
from unicodedata import normalize
from uuid import UUID, uuid4

import asyncpg
import pytest

from coupons.commands import ImportCoupons
from coupons.database import TRANSIENT_ERRORS, Connection, connect
from coupons.files.codes import check_codes, fold
from coupons.files.rejections import rejections_csv
from coupons.states import FILE_MODES, DeliveryState, ImportMode, TargetKind
from coupons.store import deliveries, import_chunks, imports, invariants, lists, lookup
from coupons.store.deliveries import DeliveryResult
from coupons.store.imports import LeasedImport, Target
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
from tests.locks import lock_rows, until_blocked

SPELLINGS = {
    "upper and lower case": ("SPR-A1B2", "spr-a1b2"),
    "mixed case": ("Spring-Ab", "sPRING-aB"),
    "composed and decomposed": (normalize("NFC", "CAFÉ-ÄÖ1"), normalize("NFD", "CAFÉ-ÄÖ1")),
    "composed in upper case and decomposed in lower case": (normalize("NFC", "CAFÉ-1"), normalize("NFD", "café-1")),
    "an umlaut in both cases": ("GRÜN-1", "grün-1"),
    "a letter whose upper case has two letters": ("STRAẞE-1", "strasse-1"),
    "two forms of sigma": ("ΛΟΓΟΣ-1", "λογος-1"),
    "a symbol that is an ASCII letter": ("\N{KELVIN SIGN}-1", "k-1"),
}
CODES = [f"CODE-{number:04}" for number in range(300)]


async def new_job(connection: Connection, name: str, mode: ImportMode = ImportMode.ADD) -> LeasedImport:
    command = ImportCoupons(list=name, mode=mode, codes=("X",))
    await imports.create(connection, command)
    return await claimed(connection, command.id)


async def import_codes(
    connection: Connection, name: str, *codes: str, mode: ImportMode = ImportMode.ADD
) -> list[tuple[str, str]]:
    """Import a file with these codes; return the rejected codes with their reasons."""
    job = await new_job(connection, name, mode)
    await take_codes(connection, job, check_codes(range(1, len(codes) + 1), codes), position=1)
    if mode == ImportMode.REPLACE:
        async for _ in import_chunks.remove_missing(connection, job, lease_seconds=LEASE_SECONDS):
            pass
    await imports.finish(connection, job)
    return await rejected_by(connection, job.id)


async def rejected_by(connection: Connection, import_id: UUID) -> list[tuple[str, str]]:
    return [(each.value, each.sentence) async for each in imports.iter_rejections(connection, import_id)]


async def codes_of(connection: Connection, name: str) -> list[str]:
    (found,) = await lists.get(connection, name)
    rows = await connection.fetch('SELECT code FROM coupon WHERE list_id = $1 ORDER BY code COLLATE "C"', found.id)
    assert len(rows) == found.total
    return [row["code"] for row in rows]


async def send_first(connection: Connection, name: str) -> None:
    """Send the first code of the list to a recipient."""
    await add_group(connection, f"g-{name}", 1)
    await save_message(connection, f"m-{name}", name)
    sendout_id = await start(connection, f"m-{name}", f"g-{name}")
    await prepare(connection)
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    due = await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, sendout_id))
    results = [DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due]
    assert await deliveries.record(
        connection, batch, flush=uuid4(), results=results, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
    )


# --- lists that ignore case ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), SPELLINGS.values(), ids=SPELLINGS)
async def test_a_code_is_accepted_in_one_spelling_only(connection: Connection, first: str, second: str) -> None:
    """Another spelling is rejected in the same file, and already in the list or in another list later."""
    await add_list(connection, "spring-10")
    await add_list(connection, "summer")
    assert fold(first) == fold(second)
    differ = normalize("NFC", first) != normalize("NFC", second)
    reason = "differs from line 1 only in case" if differ else "duplicate of an earlier line"
    assert await import_codes(connection, "spring-10", first, second) == [(second, reason)]
    assert await import_codes(connection, "spring-10", second) == [(second, "already in the list")]
    assert await import_codes(connection, "summer", second, first) == [
        (second, "already in list spring-10"),
        (first, "already in list spring-10"),
    ]
    assert await codes_of(connection, "spring-10") == [first]
    assert await codes_of(connection, "summer") == []


async def test_a_code_that_another_list_has_sent_is_already_sent(connection: Connection) -> None:
    """The reason of a sent code is the same in its own list and in another one."""
    await add_list(connection, "spring-10", ["SPR-1", "SPR-2"])
    await add_list(connection, "summer")
    await send_first(connection, "spring-10")
    assert await import_codes(connection, "summer", "spr-1", "SPR-2") == [
        ("spr-1", "already sent"),
        ("SPR-2", "already in list spring-10"),
    ]


async def test_the_csv_of_rejected_lines_names_the_other_list(connection: Connection) -> None:
    """The reason is stored with the list's name, so the line is explained even after the list is gone."""
    await add_list(connection, "spring-10", ["A"])
    await add_list(connection, "summer")
    job = await new_job(connection, "summer")
    await take_codes(connection, job, check_codes([1, 2], ["a", "B"]), position=1)
    await imports.finish(connection, job)
    rejected = [each async for each in imports.iter_rejections(connection, job.id)]
    assert list(rejections_csv(rejected))[1] == '1;"a";"already in list spring-10"\r\n'
    assert await imports.count_reasons(connection, job.id) == {"already in list spring-10": 1}


async def test_replace_and_delete_compare_spellings(connection: Connection) -> None:
    """A code of the file keeps or removes the list's code in its own spelling, and no code of another list."""
    await add_list(connection, "a", ["ONE", "TWO", "GRÜN"])
    await add_list(connection, "b", ["Elsewhere"])
    assert await import_codes(connection, "a", "one", "grün", "ELSEWHERE", mode=ImportMode.REPLACE) == [
        ("ELSEWHERE", "already in list b")
    ]
    assert await codes_of(connection, "a") == ["GRÜN", "ONE"]
    assert await import_codes(connection, "a", "One", "GRÜN", "elsewhere", "one", mode=ImportMode.DELETE) == [
        ("elsewhere", "not in the list"),
        ("one", "not in the list"),
    ]
    assert (await codes_of(connection, "a"), await codes_of(connection, "b")) == ([], ["Elsewhere"])


async def test_a_removed_code_can_be_added_to_another_list(connection: Connection) -> None:
    """A code that was removed unsent, or whose list was deleted unsent, is free again."""
    await add_list(connection, "a", ["ONE", "TWO"])
    await add_list(connection, "b")
    await import_codes(connection, "a", "one", mode=ImportMode.DELETE)
    await lists.archive(connection, "a")
    await lists.delete(connection, "a")
    assert await import_codes(connection, "b", "One", "Two") == []


async def test_a_chunk_with_codes_of_another_list_is_looked_up_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list does not have all codes of the chunk, so the chunk is not recorded as imported."""
    monkeypatch.setattr(import_chunks, "MIN_RECORDED_LINES", 1)
    monkeypatch.setattr("tests.factories.secrets.token_bytes", lambda size: b"1" * size)  # the digest of each chunk
    await add_list(connection, "a", ["ONE"])
    await add_list(connection, "b")
    assert len(await import_codes(connection, "b", "ONE", "TWO")) == 1
    await lists.archive(connection, "a")
    await lists.delete(connection, "a")
    assert await import_codes(connection, "b", "ONE", "TWO") == [("TWO", "already in the list")]
    assert await codes_of(connection, "b") == ["ONE", "TWO"]


@pytest.mark.parametrize("code", ["SPR-1", "spr-1", "sPr-1"])
async def test_a_code_is_found_in_any_spelling(connection: Connection, code: str) -> None:
    """The answer has the spelling that was imported and is printed in mails."""
    await add_list(connection, "a", ["Spr-1"])
    (found,) = await lookup.list_owners(connection, code)
    assert (found.list, found.code, found.sendout) == ("a", "Spr-1", None)


# --- case-sensitive lists --------------------------------------------------------------------------------------------


async def test_a_case_sensitive_list_has_codes_that_differ_in_case(connection: Connection) -> None:
    """Only the same case and NFC form is a duplicate, in the file and in the list."""
    await add_list(connection, "a", case_sensitive=True)
    composed, decomposed = normalize("NFC", "GRÜN"), normalize("NFD", "GRÜN")
    first = await import_codes(connection, "a", "abc", "ABC", "abc", composed, decomposed, "grün", "Solo")
    assert first == [("abc", "duplicate of an earlier line"), (decomposed, "duplicate of an earlier line")]
    second = await import_codes(connection, "a", "ABC", "Abc", "abc", decomposed, "solo", "SOLO")
    assert second == [
        ("ABC", "already in the list"), ("abc", "already in the list"), (decomposed, "already in the list")
    ]  # fmt: skip
    assert await codes_of(connection, "a") == ["ABC", "Abc", composed, "SOLO", "Solo", "abc", "grün", "solo"]


async def test_between_lists_the_stricter_rule_holds(connection: Connection) -> None:
    """No other list, case-sensitive or not, accepts any spelling of a case-sensitive list's code."""
    await add_list(connection, "exact", ["abc", "ABC"], case_sensitive=True)
    await add_list(connection, "exact-2", ["Xyz"], case_sensitive=True)
    await add_list(connection, "plain", ["Def"])
    rejected = [("Abc", "already in list exact"), ("abc", "already in list exact")]
    assert await import_codes(connection, "plain", "Abc", "abc") == rejected
    assert await import_codes(connection, "exact-2", "Abc", "abc") == rejected
    assert await import_codes(connection, "exact", "DEF", "def", "xyz", "XYZ", "new") == [
        ("DEF", "already in list plain"), ("def", "already in list plain"),
        ("xyz", "already in list exact-2"), ("XYZ", "already in list exact-2"),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["delete", "replace"])
async def test_a_removed_code_leaves_its_other_spellings(connection: Connection, mode: ImportMode) -> None:
    """Delete and replace compare exactly in a case-sensitive list. The codes that stay exclude other lists."""
    await add_list(connection, "exact", ["abc", "ABC", "Abc"], case_sensitive=True)
    await add_list(connection, "plain")
    if mode == "delete":
        assert await import_codes(connection, "exact", "abc", "aBC", mode=mode) == [("aBC", "not in the list")]
    else:
        assert await import_codes(connection, "exact", "ABC", "Abc", mode=mode) == []
    assert await codes_of(connection, "exact") == ["ABC", "Abc"]
    assert await import_codes(connection, "plain", "abc") == [("abc", "already in list exact")]
    assert await import_codes(connection, "exact", "abc", "ABC") == [("ABC", "already in the list")]
    assert await import_codes(connection, "exact", "abc", "ABC", "Abc", mode=ImportMode.DELETE) == []
    assert await import_codes(connection, "plain", "abc") == []


async def test_a_sent_code_of_a_deleted_case_sensitive_list_is_banned_in_all_spellings(connection: Connection) -> None:
    """The hash that remains is of the folded code, so that the stricter rule holds against every list."""
    await add_list(connection, "exact", ["abc", "ABC"], case_sensitive=True)
    await send_first(connection, "exact")
    await connection.execute("UPDATE sendout SET state = 'finished', finished_at = now()")
    await lists.archive(connection, "exact")
    await lists.delete(connection, "exact")
    await add_list(connection, "exact-2", case_sensitive=True)
    assert await import_codes(connection, "exact-2", "ABC", "Abc", "abd") == [
        ("ABC", "already sent"), ("Abc", "already sent")
    ]  # fmt: skip


async def test_all_spellings_of_a_case_sensitive_list_are_found(connection: Connection) -> None:
    """Several codes may answer to the spelling that a customer writes."""
    await add_list(connection, "exact", ["abc", "ABC"], case_sensitive=True)
    assert [each.code for each in await lookup.list_owners(connection, "Abc")] == ["ABC", "abc"]


async def test_a_copied_list_is_case_sensitive_too(connection: Connection) -> None:
    """The setting belongs to the list's settings, and never changes."""
    await add_list(connection, "exact", case_sensitive=True)
    await lists.copy(connection, "exact", "copied")
    assert [each.case_sensitive for each in await lists.list_all(connection, archived=False)] == [True, True]


async def test_an_import_that_removes_a_code_does_not_deadlock_with_a_batch(
    connection: Connection, other: Connection
) -> None:
    """A batch locks a code before its list. So does an import that lets another spelling take the code's place."""
    await add_list(connection, "exact", ["abc", "ABC", "x"], case_sensitive=True)
    job = await new_job(connection, "exact", ImportMode.DELETE)
    async with lock_rows(other, "coupon WHERE code = 'ABC'"):
        importing = asyncio.create_task(take_codes(connection, job, check_codes([1], ["abc"]), position=1))
        await until_blocked(other, importing)
        await other.execute("SELECT FROM coupon_list FOR NO KEY UPDATE NOWAIT")
    await importing
    assert await codes_of(connection, "exact") == ["ABC", "x"]


async def test_a_replace_that_removes_a_code_does_not_deadlock_with_a_batch(
    connection: Connection, other: Connection
) -> None:
    """Codes that the file lacks are removed in the same order of locks."""
    await add_list(connection, "exact", ["abc", "ABC"], case_sensitive=True)
    job = await new_job(connection, "exact", ImportMode.REPLACE)
    await take_codes(connection, job, check_codes([1], ["ABC"]), position=1)

    async def remove() -> None:
        async for _ in import_chunks.remove_missing(connection, job, lease_seconds=LEASE_SECONDS):
            pass

    async with lock_rows(other, "coupon WHERE code = 'ABC'"):
        removing = asyncio.create_task(remove())
        await until_blocked(other, removing)
        await other.execute("SELECT FROM coupon_list FOR NO KEY UPDATE NOWAIT")
    await removing
    assert await codes_of(connection, "exact") == ["ABC"]


# --- dry runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", FILE_MODES)
@pytest.mark.parametrize("case_sensitive", [False, True])
async def test_a_dry_run_gives_the_same_reasons(connection: Connection, mode: ImportMode, case_sensitive: bool) -> None:
    """A dry run compares spellings and other lists as the import does."""
    await add_list(connection, "other", ["One", "Two"])
    await add_list(connection, "a", ["abc", "GRÜN"], case_sensitive=case_sensitive)
    codes = ["ONE", "one", "ABC", "Abc", "abc", "grün", "new", "NEW", "two"]
    (found,) = await lists.get(connection, "a")
    target = Target(found.id, "a", TargetKind.LIST, case_sensitive)
    await import_chunks.prepare_staging(connection)
    await import_chunks.stage_codes(connection, check_codes(range(1, len(codes) + 1), codes))
    async with import_chunks.dry_run(connection, target, mode, lines=len(codes)) as (counts, lines):
        expected = [(each.value, each.sentence) async for each in lines]
    await import_chunks.discard_staging(connection)
    job = await new_job(connection, "a", mode)
    await take_codes(connection, job, check_codes(range(1, len(codes) + 1), codes), position=1)
    assert await rejected_by(connection, job.id) == expected
    done = await imports.get(connection, job.id)
    assert (counts.added, counts.existing, sum(counts.reasons.values())) == (done.added, done.existing, done.rejected)
    assert expected


# --- several imports at once -----------------------------------------------------------------------------------------


@pytest.fixture
async def third(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


@pytest.mark.parametrize("mode", ["add", "replace"])
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("case_sensitive", [False, True])
async def test_a_code_that_another_import_adds_at_the_same_moment_is_rejected(
    connection: Connection, other: Connection, mode: ImportMode, is_new: bool, case_sensitive: bool
) -> None:
    """The import waits for the other one, then looks up its codes again and reports the right reasons."""
    await add_list(connection, "a")
    await add_list(connection, "b", [] if is_new else ["FIRST"], case_sensitive=case_sensitive)
    first, second = await new_job(connection, "a"), await new_job(connection, "b", mode)
    lines = check_codes(range(101, 105), ["FIRST", CODES[2].lower(), CODES[2], "LAST"])  # line 101 shows what is new
    async with other.transaction():
        await take_codes(other, first, check_codes(range(1, 4), CODES[:3]), position=1)
        importing = asyncio.create_task(take_codes(connection, second, lines, position=1))
        await until_blocked(other, importing)
    await importing
    assert await rejected_by(connection, second.id) == [
        *([] if is_new or mode == "replace" else [("FIRST", "already in the list")]),
        (CODES[2].lower(), "already in list a"),
        (CODES[2], "already in list a"),
    ]
    assert await codes_of(connection, "b") == ["FIRST", "LAST"]


async def import_while_a_list_loses_a_code(
    connection: Connection, other: Connection, third: Connection, *, case_sensitive: bool
) -> UUID:
    """Import four codes into list a. The first is in list b until the import has tried to add it, and then removed.

    The second code is added to list c at the same moment. Returns the id of the import.
    """
    await add_list(connection, "a", case_sensitive=case_sensitive)
    await add_list(connection, "b", ["A-1"])
    await add_list(connection, "c")
    job, addition = await new_job(connection, "a"), await new_job(connection, "c")
    deletion = await new_job(connection, "b", ImportMode.DELETE)
    async with other.transaction():
        await take_codes(other, addition, check_codes([1], ["B-1"]), position=1)
        lines = check_codes(range(1, 5), ["A-1", "B-1", "C-1", "a-1"])
        importing = asyncio.create_task(take_codes(connection, job, lines, position=1))
        await until_blocked(other, importing)
        await take_codes(third, deletion, check_codes([1], ["A-1"]), position=1)
    await importing
    return job.id


async def test_a_code_that_another_list_loses_at_the_same_moment_is_added(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """The import looks up the codes that it could not add, and then adds those that no list has any more."""
    import_id = await import_while_a_list_loses_a_code(connection, other, third, case_sensitive=False)
    assert await rejected_by(connection, import_id) == [
        ("B-1", "already in list c"), ("a-1", "differs from line 1 only in case")
    ]  # fmt: skip
    assert await codes_of(connection, "a") == ["A-1", "C-1"]


async def test_spellings_of_a_code_that_another_list_loses_are_added_together(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """The second lookup of an import into a case-sensitive list begins again, without the results of the first."""
    import_id = await import_while_a_list_loses_a_code(connection, other, third, case_sensitive=True)
    assert await rejected_by(connection, import_id) == [("B-1", "already in list c")]
    assert await codes_of(connection, "a") == ["A-1", "C-1", "a-1"]


async def test_spellings_of_a_code_that_is_removed_during_the_lookup_are_rejected_together(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import has seen the code in the other list when it set the variants, so no spelling is without a result."""
    await add_list(connection, "a", case_sensitive=True)
    await add_list(connection, "b", ["A-1"])
    deletion = await new_job(connection, "b", ImportMode.DELETE)
    find_existing = import_chunks._find_existing

    async def remove_first(session: Connection, lines: int) -> int:
        if session is connection:
            await take_codes(other, deletion, check_codes([1], ["A-1"]), position=1)
        return await find_existing(session, lines)

    monkeypatch.setattr(import_chunks, "_find_existing", remove_first)
    assert await import_codes(connection, "a", "A-1", "a-1", "C-1") == [
        ("A-1", "already in list b"), ("a-1", "already in list b")
    ]  # fmt: skip
    assert await codes_of(connection, "a") == ["C-1"]


@pytest.mark.parametrize("mode", ["add", "replace"])
async def test_an_import_that_looks_up_its_codes_again_holds_none_of_them(
    connection: Connection, other: Connection, third: Connection, monkeypatch: pytest.MonkeyPatch, mode: ImportMode
) -> None:
    """Another import may add them to its list in the meantime, without waiting. So the two imports cannot deadlock."""
    await add_list(connection, "a", ["OLD"])
    await add_list(connection, "b")
    await add_list(connection, "c")
    job, first, second = await new_job(connection, "a", mode), await new_job(connection, "b"), await new_job(other, "c")
    look_up, lookups = import_chunks._look_up, 0

    async def add_before_the_second(session: Connection, target: Target, lines: int) -> int:
        nonlocal lookups
        lookups += session is connection
        if session is connection and lookups == 2:
            await third.execute("SET lock_timeout = '5s'")
            await take_codes(third, second, check_codes([1], ["A-1"]), position=1)
        return await look_up(session, target, lines)

    monkeypatch.setattr(import_chunks, "_look_up", add_before_the_second)
    async with other.transaction():
        await take_codes(other, first, check_codes([1], ["M-1"]), position=1)
        lines = check_codes(range(101, 105), ["OLD", "A-1", "M-1", "Z-1"])
        importing = asyncio.create_task(take_codes(connection, job, lines, position=1))
        await until_blocked(other, importing)
    await importing
    assert await rejected_by(connection, job.id) == [
        *([] if mode == "replace" else [("OLD", "already in the list")]),
        ("A-1", "already in list c"),
        ("M-1", "already in list b"),
    ]
    assert await codes_of(connection, "a") == ["OLD", "Z-1"]


async def test_an_import_whose_codes_are_added_elsewhere_after_each_lookup_is_retried(
    connection: Connection, other: Connection, third: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker tries again later, as after other errors that pass. No line is lost."""
    monkeypatch.setattr(import_chunks, "MOST_LOOKUPS", 1)
    with pytest.raises(import_chunks.ConcurrentChange, match="after each of 1 lookups"):
        await import_while_a_list_loses_a_code(connection, other, third, case_sensitive=False)
    assert issubclass(import_chunks.ConcurrentChange, TRANSIENT_ERRORS)
    assert await codes_of(connection, "a") == []
    await connection.execute("UPDATE import_job SET lease_until = now() WHERE lease_owner IS NOT NULL")
    job = await imports.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert job
    assert job.target.name == "a"
    await take_codes(connection, job, check_codes(range(1, 5), ["A-1", "B-1", "C-1", "a-1"]), position=1)
    assert await codes_of(connection, "a") == ["A-1", "C-1"]


async def test_a_chunk_with_a_line_without_result_is_not_imported(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of the lookup could skip a line. Then the chunk is not committed."""
    await add_list(connection, "a", ["ONE"])

    async def insert_none(*_: object) -> int:
        return 0

    monkeypatch.setattr(import_chunks, "_insert", insert_none)
    with pytest.raises(import_chunks.ConcurrentChange, match="a chunk of 2 lines has 0 results"):
        await import_codes(connection, "a", "ONE", "TWO")
    assert await codes_of(connection, "a") == ["ONE"]


async def test_a_retired_spelling_bans_all_spellings_of_a_case_sensitive_list(connection: Connection) -> None:
    """If the first spelling of a code is retired, the others have a result too."""
    await add_list(connection, "exact", case_sensitive=True)
    await connection.execute("INSERT INTO retired_spelling SELECT retired_code_hash(key, 'aBc') FROM retired_code_key")
    assert await import_codes(connection, "exact", "aBc", "ABC", "other") == [
        ("aBc", "already sent"), ("ABC", "already sent")
    ]  # fmt: skip
    assert await codes_of(connection, "exact") == ["other"]


async def test_imports_of_the_same_codes_into_three_lists_do_not_deadlock(
    connection: Connection, other: Connection, third: Connection
) -> None:
    """Each code is in one list, and each line has a result, however the three imports interleave."""
    sessions = {"a": connection, "b": other, "c": third}
    for name in sessions:
        await add_list(connection, name, case_sensitive=name == "c")
    for turn in range(8):
        codes = [f"{turn}-{code}" for code in CODES]
        jobs = {name: await new_job(connection, name) for name in sessions}
        orders = {name: random.Random(f"{turn}{name}").sample(codes, len(codes)) for name in sessions}
        await asyncio.gather(
            *(
                take_codes(session, jobs[name], check_codes(range(1, len(codes) + 1), orders[name]), position=1)
                for name, session in sessions.items()
            )
        )
        done = [await imports.get(connection, job.id) for job in jobs.values()]
        assert sum(each.added for each in done) == len(codes)
        assert [each.added + each.rejected for each in done] == [len(codes)] * 3
        for job in jobs.values():
            await imports.finish(connection, job)
    kept = [code for name in sessions for code in await codes_of(connection, name)]
    assert len(set(kept)) == len(kept) == 8 * len(CODES)


async def test_the_database_orders_a_new_variant_and_the_removal_of_its_code(
    connection: Connection, other: Connection
) -> None:
    """A transaction that deletes a code waits for one that adds a variant of it. Then the variant takes its place."""
    await add_list(connection, "exact", ["abc"], case_sensitive=True)
    async with other.transaction():
        await other.execute(
            "INSERT INTO coupon (list_id, code, import_id, fold, variant) "
            "SELECT list_id, 'ABC', import_id, 'abc', 'ABC' FROM coupon"
        )
        deletion = asyncio.create_task(connection.execute("DELETE FROM coupon WHERE code = 'abc'"))
        await until_blocked(other, deletion)
    await deletion
    assert await connection.fetchval("SELECT variant FROM coupon WHERE code = 'ABC'") == ""
    assert await codes_of(connection, "exact") == ["ABC"]


async def test_a_variant_that_is_being_deleted_does_not_take_a_code_s_place(
    connection: Connection, other: Connection
) -> None:
    """The deletion of a code waits until it knows which of its variants stay."""
    await add_list(connection, "exact", ["abc", "ABC", "Abc"], case_sensitive=True)
    async with other.transaction():
        await other.execute("DELETE FROM coupon WHERE code = 'ABC'")
        deletion = asyncio.create_task(connection.execute("DELETE FROM coupon WHERE code = 'abc'"))
        await until_blocked(other, deletion)
    await deletion
    assert await connection.fetchval("SELECT variant FROM coupon WHERE code = 'Abc'") == ""
    await connection.execute("UPDATE coupon_list SET total = 1, available = 1")


# --- verify ----------------------------------------------------------------------------------------------------------


async def violations(connection: Connection) -> dict[str, list[dict[str, object]]]:
    return {each.name: each.violations for each in await invariants.check(connection) if not each.ok}


@pytest.mark.parametrize("case_sensitive", [False, True])
async def test_verify_finds_a_code_in_two_lists(connection: Connection, case_sensitive: bool) -> None:
    """The check does not depend on the unique index."""
    await add_list(connection, "a", ["ONE", "TWO"], case_sensitive=case_sensitive)
    await add_list(connection, "b", ["THREE"])
    await connection.execute("DROP INDEX coupon_code")
    await connection.execute("UPDATE coupon SET code = 'one', fold = NULL WHERE code = 'THREE'")
    found = await violations(connection)
    assert [row["list"] for row in found.pop("codes_exist_once")] == ["a", "b"]
    assert found == {}
    await connection.execute("UPDATE coupon SET code = 'THREE' WHERE code = 'one'")


async def test_verify_finds_a_code_twice_in_a_case_sensitive_list(connection: Connection) -> None:
    """Codes that differ in case are no violation there."""
    await add_list(connection, "a", ["one", "ONE", "two"], case_sensitive=True)
    assert await violations(connection) == {}
    await connection.execute("DROP INDEX coupon_code; DROP TRIGGER variant_has_a_code ON coupon")
    await connection.execute("UPDATE coupon SET code = 'one', fold = 'one', variant = 'one' WHERE code = 'ONE'")
    assert [*await violations(connection)] == ["codes_exist_once"]
    await connection.execute("UPDATE coupon SET code = 'ONE', variant = 'ONE' WHERE variant <> ''")


async def test_verify_finds_a_code_that_a_deleted_list_has_sent(connection: Connection) -> None:
    """Only the hash of the code is left of the deleted list."""
    await add_list(connection, "a", ["GRÜN", "BLAU"])
    await connection.execute("INSERT INTO retired_code SELECT retired_code_hash(key, 'grün') FROM retired_code_key")
    found = await violations(connection)
    assert {name: [row["codes"] for row in rows] for name, rows in found.items()} == {"retired_codes_are_gone": [1]}
    await connection.execute("DELETE FROM retired_code")


async def test_verify_finds_a_wrong_fold(connection: Connection) -> None:
    """Only this program can compute the fold of a code that is not ASCII, so the database cannot check it."""
    await add_list(connection, "a", ["GRÜN", "BLAU"])
    await connection.execute("UPDATE coupon SET fold = 'gruen' WHERE code = 'GRÜN'")
    found = await violations(connection)
    assert {name: [row["codes"] for row in rows] for name, rows in found.items()} == {"codes_are_folded": [1]}
    await connection.execute("UPDATE coupon SET fold = 'grün' WHERE code = 'GRÜN'")


async def test_the_index_rejects_a_spelling_in_another_list(connection: Connection) -> None:
    """Not even a defect of this program can store a code twice."""
    await add_list(connection, "a", ["GRÜN", "BLAU"])
    await add_codes(connection, "a", ["ROT"])
    await add_list(connection, "b")
    for code, folded in (("blau", None), ("grün", "grün"), ("ROT", "rot")):
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(
                "INSERT INTO coupon (list_id, code, import_id, fold) VALUES (2, $1, gen_random_uuid(), $2)",
                code,
                folded,
            )
