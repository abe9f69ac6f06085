"""Migration 0006 finds codes that exist twice: it keeps one, reports the others, and deletes none silently."""

import asyncio
from collections.abc import AsyncIterator
from unittest import mock
from uuid import UUID

import pytest

from coupons import migrate
from coupons.database import Connection, connect
from coupons.migrate import UNIQUE_CODES, MigrationError
from coupons.store import deliveries, invariants, lists, lookup
from producers.cli.system import describe_duplicates
from tests.factories import LEASE_SECONDS
from tests.locks import until_blocked

FIRST, SECOND = UUID(int=1), UUID(int=2)
OLD_DATABASE = f"""
INSERT INTO restore_guard (number, cluster, timeline, database)
    SELECT 1, n.* FROM this_database() n WHERE NOT EXISTS (SELECT FROM restore_guard);
INSERT INTO coupon_list (name, preview_text) VALUES ('spring', 'x'), ('summer', 'x'), ('autumn', 'x');
INSERT INTO message (name, version, sender, subject, text) VALUES
    ('m', 1, 'a@b.de', 's', 't'), ('of autumn', 1, 'a@b.de', 's', 't');
INSERT INTO sendout (id, message_id, state, recipients, started_at)
    VALUES ('{FIRST}', 1, 'sending', 6, now()), ('{SECOND}', 1, 'sending', 7, now());
INSERT INTO delivery (sendout_id, number, address_key, address, state, was_uncertain)
SELECT id, number, number || '@x.org', number || '@x.org', replace(state, 'resent', 'pending'),
       state IN ('uncertain', 'resent')
FROM (VALUES
    ('{FIRST}'::uuid, 1, 'sent'), ('{FIRST}', 2, 'sent'), ('{FIRST}', 3, 'pending'), ('{FIRST}', 4, 'uncertain'),
    ('{FIRST}', 5, 'pending'), ('{FIRST}', 6, 'pending'),
    ('{SECOND}', 1, 'sent'), ('{SECOND}', 2, 'pending'), ('{SECOND}', 3, 'pending'), ('{SECOND}', 4, 'uncertain'),
    ('{SECOND}', 5, 'pending'), ('{SECOND}', 6, 'sent'), ('{SECOND}', 7, 'resent')) AS d (id, number, state);
INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, remaining, sent, uncertain, in_flight,
                            lease_token, lease_until)
    VALUES ('{FIRST}', 1, 1, 6, 3, 2, 1, '{{}}', NULL, NULL),
           ('{SECOND}', 1, 1, 7, 4, 2, 1, '{{5}}', gen_random_uuid(), now() - interval '1 h');
INSERT INTO coupon (list_id, code, import_id, sendout_id, delivery_number)
SELECT l.id, c.code, '{UUID(int=9)}', c.sendout_id, c.number
FROM (VALUES
    (1, 'spring', 'AVAIL-1', NULL::uuid, NULL::integer), (2, 'summer', 'avail-1', NULL, NULL),
    (3, 'spring', 'Same', NULL, NULL), (4, 'spring', 'SAME', NULL, NULL),
    (5, 'spring', U&'GR\\00DCN', NULL, NULL), (6, 'summer', U&'gru\\0308n', NULL, NULL),
    (7, 'spring', 'LATE-1', NULL, NULL), (8, 'summer', 'late-1', '{SECOND}', 6),
    (9, 'spring', 'BOTH-1', '{FIRST}', 1), (10, 'summer', 'both-1', '{SECOND}', 1),
    (11, 'spring', 'SENT-2', '{FIRST}', 2), (12, 'summer', 'sent-2', '{SECOND}', 2),
    (13, 'spring', 'PEND-3', '{FIRST}', 3), (14, 'summer', 'PEND-3', '{SECOND}', 3),
    (15, 'spring', 'UNC-4', '{FIRST}', 4), (16, 'summer', 'unc-4', '{SECOND}', 4),
    (17, 'spring', 'FLY-5', '{FIRST}', 5), (18, 'summer', 'fly-5', '{SECOND}', 5),
    (22, 'spring', 'AGAIN-6', '{FIRST}', 6), (23, 'summer', 'again-6', '{SECOND}', 7),
    (19, 'autumn', 'Both-1', NULL, NULL), (20, 'autumn', U&'STRA\\00DFE', NULL, NULL), (21, 'autumn', 'ONE', NULL, NULL)
) AS c (n, list, code, sendout_id, number) JOIN coupon_list l ON l.name = c.list ORDER BY n;
INSERT INTO coupon (list_id, code, import_id)
SELECT id, 'SPARE-' || n, '{UUID(int=9)}' FROM coupon_list, generate_series(1, %(spare)s) n WHERE name = 'summer';
INSERT INTO sendout_list (sendout_id, list_id, needed, assigned, sent)
SELECT c.sendout_id, c.list_id, count(*), count(*) FILTER (WHERE d.state <> 'sent'),
       count(*) FILTER (WHERE d.state = 'sent')
FROM coupon c JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number GROUP BY 1, 2;
UPDATE coupon_list l SET (total, available) = (
    SELECT count(*), count(*) FILTER (WHERE sendout_id IS NULL) FROM coupon WHERE list_id = l.id);
INSERT INTO message_list VALUES (2, 3);
INSERT INTO imported_chunk SELECT id, sha256('x'), '{UUID(int=9)}', removed FROM coupon_list;
INSERT INTO retired_code SELECT retired_code_hash(key, 'OLD-1') FROM retired_code_key;
"""
"""Two sendouts of two lists with all kinds of duplicates, in the schema before migration 0006."""


async def old_database(url: str, *, spare: int) -> None:
    before = [each for each in migrate.migrations() if each.number < UNIQUE_CODES]
    with mock.patch.object(migrate, "migrations", return_value=before):
        await migrate.migrate(url)
    async with connect(url) as connection:
        await connection.execute(OLD_DATABASE % {"spare": spare})


@pytest.fixture
async def upgraded(empty_database_url: str) -> AsyncIterator[Connection]:
    """Create and migrate an old database, and check all invariants at the end."""
    await old_database(empty_database_url, spare=5)
    await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        yield connection
        assert [each for each in await invariants.check(connection) if not each.ok] == []


async def codes_of(connection: Connection, name: str) -> set[str]:
    query = "SELECT code FROM coupon JOIN coupon_list l ON l.id = list_id WHERE l.name = $1"
    return {row["code"] for row in await connection.fetch(query, name)}


async def test_the_sent_the_assigned_or_the_older_code_is_kept(upgraded: Connection) -> None:
    """Available and unsent duplicates leave their lists. Two recipients who may both have a code keep it."""
    assert await codes_of(upgraded, "spring") == {
        "AVAIL-1", "Same", "GRÜN", "BOTH-1", "SENT-2", "PEND-3", "UNC-4"
    }  # fmt: skip
    assert await codes_of(upgraded, "summer") == {
        "late-1",
        "both-1",
        "unc-4",
        "fly-5",
        "again-6",
        *(f"SPARE-{n}" for n in range(1, 6)),
    }
    assert await codes_of(upgraded, "autumn") == {"STRAßE", "ONE"}


async def test_every_duplicate_is_reported(upgraded: Connection) -> None:
    """The report has the code, its state before, and the list of the code that counts."""
    found = await lists.list_duplicates(upgraded, None)
    assert {(each.list, each.code): (each.state, each.removed, each.first_list) for each in found} == {
        ("summer", "avail-1"): ("available", True, "spring"),
        ("spring", "SAME"): ("available", True, "spring"),
        ("spring", "LATE-1"): ("available", True, "summer"),
        ("summer", "both-1"): ("sent", False, "spring"),
        ("autumn", "Both-1"): ("available", True, "spring"),
        ("summer", "sent-2"): ("assigned", True, "spring"),
        ("summer", "PEND-3"): ("assigned", True, "spring"),
        ("summer", "unc-4"): ("uncertain", False, "spring"),
        ("spring", "FLY-5"): ("assigned", True, "summer"),
        ("spring", "AGAIN-6"): ("assigned", True, "summer"),
        ("summer", "gru\u0308n"): ("available", True, "spring"),
    }  # fmt: skip
    assert len(await lists.list_duplicates(upgraded, "spring")) == 4
    command = "`coupons list duplicates"
    assert [describe_duplicates(each) for each in await lists.count_duplicates(upgraded)] == [
        f"list autumn: 1 duplicate code removed: see {command} autumn`",
        f"list spring: 4 duplicate codes removed: see {command} spring`",
        f"list summer: 4 duplicate codes removed, 2 kept by recipients who may have got them: see {command} summer`",
    ]


async def test_a_recipient_whose_code_was_removed_gets_another_one(upgraded: Connection) -> None:
    """The sendout has reserved an available code of the list, and the batch assigns it."""
    (summer,) = await lists.get(upgraded, "summer")
    assert (summer.total, summer.available, summer.reserved, summer.assigned, summer.sent) == (10, 3, 2, 3, 2)
    await upgraded.execute("UPDATE delivery_batch SET due_at = 'infinity' WHERE sendout_id = $1", FIRST)
    batch = await deliveries.claim(upgraded, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    assert batch.sendout_id == SECOND
    assert (await deliveries.assign_codes(upgraded, batch)).complete
    owners = await upgraded.fetch("SELECT delivery_number, code FROM coupon WHERE sendout_id = $1 ORDER BY 1", SECOND)
    assert [tuple(row) for row in owners] == [
        (1, "both-1"), (2, "SPARE-1"), (3, "SPARE-2"), (4, "unc-4"), (5, "fly-5"), (6, "late-1"), (7, "again-6")
    ]  # fmt: skip


async def test_both_recipients_of_a_duplicate_are_found(upgraded: Connection) -> None:
    """`who --code` shows everyone who may have the code."""
    found = await lookup.list_owners(upgraded, "Both-1")
    assert [(each.list, each.code, each.state) for each in found] == [
        ("spring", "BOTH-1", "sent"), ("summer", "both-1", "sent")
    ]  # fmt: skip


async def test_imported_chunks_of_lists_that_lost_codes_are_looked_up_again(upgraded: Connection) -> None:
    """All three lists have lost codes, so none still has every code of a chunk that was imported before."""
    query = "SELECT count(*) FROM imported_chunk k JOIN coupon_list l ON l.id = k.list_id AND l.removed = k.removed"
    assert await upgraded.fetchval(query) == 0


async def test_older_hashes_of_deleted_lists_still_count(upgraded: Connection) -> None:
    """They are of a code's own spelling and stay in a table of their own."""
    assert [each.state for each in await lookup.list_owners(upgraded, "OLD-1")] == ["sent"]


async def test_the_report_is_deleted_with_its_list(upgraded: Connection) -> None:
    """The report contains codes."""
    await lists.archive(upgraded, "autumn")
    await lists.delete(upgraded, "autumn")
    assert {each.list for each in await lists.list_duplicates(upgraded, None)} == {"spring", "summer"}


async def test_a_second_migration_changes_nothing(upgraded: Connection, empty_database_url: str) -> None:
    """The report of the first run stays as it is."""
    before = await lists.list_duplicates(upgraded, None)
    assert await migrate.migrate(empty_database_url) == []
    assert await lists.list_duplicates(upgraded, None) == before


@pytest.mark.parametrize(("is_archived", "needed"), [(False, r"\(2 more\)"), (True, r"\(2 more; archived\)")])
async def test_a_migration_that_would_leave_a_sendout_without_codes_is_refused(
    empty_database_url: str, is_archived: bool, needed: str
) -> None:
    """Nothing is changed. The error names the list, the number of codes and a remedy that works."""
    await old_database(empty_database_url, spare=0)
    async with connect(empty_database_url) as connection:
        if is_archived:
            await connection.execute("UPDATE coupon_list SET archived_at = now() WHERE name = 'summer'")
        with pytest.raises(
            MigrationError, match=rf"migration 0006 .* need more codes: summer {needed}.* `coupons list restore NAME`"
        ):
            await migrate.migrate(empty_database_url)
        assert await connection.fetchval("SELECT to_regclass('duplicate_code') IS NULL")
        assert await connection.fetchval("SELECT count(*) FROM coupon") == 23
        await connection.execute("UPDATE coupon_list SET archived_at = NULL")
        await connection.execute(
            "INSERT INTO coupon (list_id, code, import_id) VALUES (2, 'N-1', $1), (2, 'N-2', $1)", FIRST
        )
        await connection.execute("UPDATE coupon_list SET total = total + 2, available = available + 2 WHERE id = 2")
    assert UNIQUE_CODES in {each.number for each in await migrate.migrate(empty_database_url)}


async def test_a_code_that_an_old_worker_adds_during_the_upgrade_is_folded(empty_database_url: str) -> None:
    """The migration locks the tables before it reads the codes, so it waits for the worker."""
    await old_database(empty_database_url, spare=5)
    async with connect(empty_database_url) as worker:
        async with worker.transaction():
            await worker.execute(
                "INSERT INTO coupon (list_id, code, import_id) VALUES (3, 'SPÄT-1', $1), (3, 'spät-1', $1)", FIRST
            )
            await worker.execute("UPDATE coupon_list SET total = total + 2, available = available + 2 WHERE id = 3")
            upgrade = asyncio.create_task(migrate.migrate(empty_database_url))
            await until_blocked(worker, upgrade)
        await upgrade
        assert await worker.fetchval("SELECT fold FROM coupon WHERE code = 'SPÄT-1'") == "spät-1"
        assert [each.name for each in await invariants.check(worker) if not each.ok] == []


async def test_data_that_violate_a_constraint_give_one_clear_line(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the constraint and contains no code. Nothing is changed."""
    await old_database(empty_database_url, spare=5)
    monkeypatch.setattr(migrate, "fold", str.upper)
    with pytest.raises(
        MigrationError, match=r"^migration 0006 \(unique_codes\): the data violate fold_of_code\. .*again$"
    ):
        await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        assert await connection.fetchval("SELECT to_regclass('duplicate_code') IS NULL")


async def test_a_kept_duplicate_takes_the_place_of_the_first_code(upgraded: Connection) -> None:
    """If the first code is deleted with its list, the index still keeps the code out of other lists."""
    changes = upgraded.transaction()
    await changes.start()
    for code, kept in (("BOTH-1", "both-1"), ("UNC-4", "unc-4")):
        await upgraded.execute("DELETE FROM coupon WHERE code = $1", code)
        assert await upgraded.fetchval("SELECT variant FROM coupon WHERE code = $1", kept) == ""
    await changes.rollback()


async def test_a_code_that_a_deleted_list_has_sent_leaves_its_list(empty_database_url: str) -> None:
    """An older version kept it in other lists. A code that its recipient may have is kept and reported."""
    await old_database(empty_database_url, spare=5)
    async with connect(empty_database_url) as connection:
        await connection.execute(
            "INSERT INTO retired_code SELECT retired_code_hash(key, code) FROM retired_code_key, "
            "unnest(ARRAY['spare-1', 'LATE-1', U&'Gru\\0308n']) AS code"
        )
    await migrate.migrate(empty_database_url)
    async with connect(empty_database_url) as connection:
        found = await lists.list_duplicates(connection, None)
        assert {(each.list, each.code, each.state, each.removed) for each in found if each.first_list is None} == {
            ("summer", "SPARE-1", "available", True),
            ("summer", "late-1", "sent", False),
            ("spring", "LATE-1", "available", True),
            ("spring", "GRÜN", "available", True),
            ("summer", "gru\u0308n", "available", True),
        }
        assert "SPARE-1" not in await codes_of(connection, "summer")
        assert [each.name for each in await invariants.check(connection) if not each.ok] == []
        assert [each.state for each in await lookup.list_owners(connection, "Spare-1")] == ["sent"]
