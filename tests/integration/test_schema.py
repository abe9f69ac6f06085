"""The database itself refuses what must not be."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import asyncpg
import pytest
from yarl import URL

from coupons import migrate
from coupons.database import Connection, connected
from coupons.migrate import Migration, MigrationError
from tests.stock import add_group, add_list, prepare, save_message, start

SCHEMA = Path(__file__).parents[2] / "schema.sql"

DESCRIPTION = """
SELECT 'column' AS kind, table_name || '.' || column_name AS name,
       concat_ws(' ', data_type, is_nullable, column_default, is_identity) AS definition
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'options', relname, array_to_string(reloptions, ',') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
ORDER BY 1, 2, 3
"""


async def described(connection: Connection) -> list[tuple[str, ...]]:
    rows = [tuple(map(str, row)) for row in await connection.fetch(DESCRIPTION)]
    return [row for row in rows if "schema_migration" not in row[1]]


async def test_schema_sql_is_what_the_migrations_make(connection: Connection, empty_database_url: str) -> None:
    """Who reads schema.sql reads the whole truth."""
    async with connected(empty_database_url) as drawn:
        await drawn.execute(SCHEMA.read_text(encoding="utf-8"))
        assert await described(drawn) == await described(connection)


async def test_migrations_are_applied_once_even_by_two_at_once(empty_database_url: str) -> None:
    """Whoever comes second finds nothing left to do."""
    applied = await asyncio.gather(*(migrate.migrate(empty_database_url) for _ in range(2)))
    assert sorted(map(len, applied)) == [0, len(migrate.migrations())]


async def test_a_changed_migration_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was applied is history."""
    first, *rest = migrate.migrations()
    changed = Migration(first.number, first.name, first.sql + "\nSELECT 1;")
    monkeypatch.setattr(migrate, "migrations", lambda: [changed, *rest])
    with pytest.raises(MigrationError, match=r"0001 .* was changed"):
        await migrate.migrate(database_url)


async def test_a_newer_database_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old program does not work on what it does not know."""
    monkeypatch.setattr(migrate, "migrations", list)
    with pytest.raises(MigrationError, match="newer than this program"):
        await migrate.migrate(database_url)


async def test_a_migration_that_fails_leaves_nothing(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is a transaction."""
    broken = Migration(9999, "broken", "CREATE TABLE half (); SELECT 1/0;")
    known = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: [*known, broken])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(database_url)
    assert await connection.fetchval("SELECT to_regclass('half')") is None


FORBIDDEN = {
    "a code twice in a list": "INSERT INTO coupon (list_id, code, import_id) "
    "VALUES (1, 'A-000000000', gen_random_uuid())",
    "an empty code": "INSERT INTO coupon (list_id, code, import_id) VALUES (1, '', gen_random_uuid())",
    "a code of 201 characters": "INSERT INTO coupon (list_id, code, import_id) "
    "VALUES (1, repeat('x', 201), gen_random_uuid())",
    "half an owner": "UPDATE coupon SET sendout_id = gen_random_uuid() WHERE code = 'A-000000000'",
    "two codes of a list for one delivery": "UPDATE coupon "
    "SET sendout_id = (SELECT id FROM sendout), delivery_number = 1",
    "a renamed list": "UPDATE coupon_list SET name = 'b'",
    "a list name in capitals": "INSERT INTO coupon_list (name, preview_text) VALUES ('Spring', 'x')",
    "a text list without a text": "UPDATE coupon_list SET shortage = 'text', alternative_text = ''",
    "fewer than no codes": "UPDATE coupon_list SET available = -1",
    "more available than there are": "UPDATE coupon_list SET available = total + 1",
    "a promise beyond the need": "UPDATE sendout_list SET promised = needed + 1",
    "more bound than promised": "UPDATE sendout_list SET bound = promised + 1",
    "more sent than bound": "UPDATE sendout_list SET sent = bound + 1",
    "an outcome that is not counted": "UPDATE delivery_batch SET sent = sent + 1",
    "a closed batch with open mails": "UPDATE delivery_batch SET closed = true",
    "more in hand than open": "UPDATE delivery_batch SET lease_token = gen_random_uuid(), in_hand = '{1,2,3,4,5,6}'",
    "mails in nobody's hand": "UPDATE delivery_batch SET in_hand = '{1}'",
    "a pace of nothing": "UPDATE sendout SET per_hour = 0",
    "a spread without a pace": "UPDATE sendout SET over_minutes = 60, per_hour = NULL",
    "an attempt without an answer": "INSERT INTO delivery_attempt (sendout_id, number, attempt, outcome) "
    "VALUES (gen_random_uuid(), 1, 1, 'deferred')",
    "a second limit": "INSERT INTO throttle (name, next_at) VALUES ('other', now())",
    "a file with a path": "INSERT INTO message_file (message_id, name, content_type, inline, content) "
    "VALUES (1, '../x.pdf', 'application/pdf', false, '')",
    "a code taken back from somebody who may have it": "UPDATE delivery SET was_uncertain = true, state = 'refused'",
    "two mails to one address": "INSERT INTO delivery (sendout_id, number, address_key, address) "
    "SELECT sendout_id, 99, address_key, address FROM delivery WHERE number = 1",
    "an address with a line break": "UPDATE delivery SET address = E'a@b.de\\nBcc: x@y.de' WHERE number = 1",
    "an unknown state": "UPDATE delivery SET state = 'done' WHERE number = 1",
    "a deferred mail that is never due": "UPDATE delivery SET state = 'deferred' WHERE number = 1",
    "an interrupted sendout that has begun": "UPDATE sendout SET state = 'interrupted', started_at = now()",
    "a line that is not explained": "UPDATE import_job SET lines = lines + 1",
    "a second mail of a message's version": "INSERT INTO message (name, version, sender, subject, text) "
    "SELECT name, version, sender, subject, text FROM message",
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_the_database_refuses(connection: Connection, what: str) -> None:
    """What must not be cannot be written, whatever program tries."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 5)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)
    refused: Awaitable[str] = connection.execute(FORBIDDEN[what])
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await refused


async def test_a_database_that_is_not_utf_8_is_refused(connection: Connection, database_url: str) -> None:
    """Names have umlauts; SQL_ASCII would take them and cut them."""
    await connection.execute("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with pytest.raises(MigrationError, match="SQL_ASCII"):
            await migrate.migrate(str(URL(database_url).with_path("/ascii")))
    finally:
        await connection.execute("DROP DATABASE ascii WITH (FORCE)")
