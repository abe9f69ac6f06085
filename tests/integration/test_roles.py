"""The rights in docs/reference/roles.sql allow each process its work and nothing else. Each role here has a login."""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import asyncpg
import pytest
from aiormq.exceptions import ChannelAccessRefused

from coupons import topology
from coupons.commands import ImportCoupons, ResumeSendout
from coupons.database import Connection, connect, open_pool
from coupons.migrate import check_current
from coupons.permission_errors import denial
from coupons.settings import Settings
from coupons.sources import SourceLimits
from coupons.states import ImportMode
from coupons.store import import_chunks, needs, uploads
from coupons.store.queries import Queries
from producers.client import Publisher
from producers.web.import_review import Reviewer
from sandbox.rabbitmq import Broker
from tests.db_roles import ROLES_SQL, Logins, logins_to
from tests.factories import add_codes, add_group, add_list, prepare, save_message, start
from workers.loops import Signals
from workers.nudges import Nudges
from workers.sweeper import Sweeper

SQL = {
    name: Queries(f"{name}.sql")
    for name in (
        *(
            "import_chunks",
            "deliveries",
            "earlier",
            "send_check",
            "restore_guard",
            "groups",
            "imports",
            "inbox",
            "job_ids",
            "list_shapes",
            "import_schedules",
            "lists",
            "messages",
            "needs",
            "sendout_views",
            "undo",
            "lookup",
            "invariants",
        ),
        *("sendouts", "rate_limit", "retries", "schedules", "heartbeats", "uncertain", "uploads", "waits"),
    )
}
NOT_EXPLAINABLE = re.compile(r"(?:--.*\n)*(?:SET|CREATE TEMP TABLE|LOCK) ")
"""The beginning of statements that PostgreSQL cannot explain, after their comments."""
PART_OF_ANOTHER = {"import_chunks.lines_of_imported_chunk"}

ADMISSION = """
sendouts.lock sendouts.lock_lists sendouts.lacking_alternative lists.take sendouts.reserve sendouts.note_missing
sendouts.begin
sendouts.interrupt
sendout_views.resumable
waits.exists waits.remove
"""
FOR_A_DRY_RUN = """
    import_chunks.set_variants import_chunks.find_existing_by_merge import_chunks.find_existing_by_probe
    import_chunks.find_retired import_chunks.find_repeated import_chunks.forget_existing
    import_chunks.rejected_lines
    import_chunks.dry_run_take_over import_chunks.dry_run_delete import_chunks.dry_run_replace
"""
FOR_THE_CONSOLE = """
imports.failed undo.undone
restore_guard.accepted restore_guard.state inbox.known lists.rows lists.take groups.rows groups.audience messages.rows
sendout_views.* schedules.* heartbeats.rows uncertain.* retries.* waits.unfinished waits.imports waits.rows waits.remove
import_schedules.put import_schedules.clock import_schedules.rows import_schedules.runs import_schedules.results
import_schedules.set_paused import_schedules.run_now import_schedules.delete import_schedules.lock
import_schedules.record_paused
lookup.troubled lookup.answers imports.rows imports.list_events imports.count_reasons imports.cancel imports.log_event
earlier.of_message earlier.holding earlier.has_recipients send_check.* needs.list_ids needs.mailed
sendouts.returning_codes
lists.count_duplicates uploads.begin uploads.add_chunk uploads.complete uploads.find uploads.delete
groups.lock_of_import groups.delete_if_unused job_ids.find
sendouts.pause sendouts.lock sendouts.unpause sendouts.cancel sendouts.lock_lists sendouts.release_reserved
"""
WORK = {
    "importer": f"""
        heartbeats.* inbox.* lists.rows groups.extend groups.lock_of_import groups.delete_if_unused
        uploads.* import_chunks.* list_shapes.* undo.* {ADMISSION}
        import_schedules.due_zones import_schedules.claim import_schedules.is_running import_schedules.advance
        import_schedules.has_run
        import_schedules.record_run import_schedules.delete_old_runs import_schedules.seconds_until_due
        imports.lock_list imports.create imports.ensure_group imports.claim imports.seconds_until_due
        imports.holds_lease imports.set_total_bytes imports.set_columns imports.set_columns_of_group imports.set_notices
        imports.get_notices
        imports.record_progress imports.record_kept imports.end imports.release
        imports.count_retry imports.postpone imports.delete_old_rejections imports.renew
        imports.log_event
        """,
    "preparer": f"""
        heartbeats.* inbox.* groups.audience messages.rows lists.rows waits.* {ADMISSION}
        sendouts.set_not_resumed
        sendouts.create sendouts.claim sendouts.lacking sendouts.lacking_unmailed sendouts.pace sendouts.batches needs.*
        sendouts.taken sendouts.fail sendouts.unpause sendouts.renew earlier.of_message earlier.has_recipients
        """,
    "sender": """
        heartbeats.* restore_guard.accepted restore_guard.state deliveries.* uncertain.* rate_limit.book messages.rows
        messages.files
        sendouts.set_waiting_reason_of_all sendouts.set_waiting_reason sendouts.pause sendouts.pause_after_first
        sendouts.unfinished
        sendouts.lock sendouts.done sendouts.lock_lists sendouts.release_reserved sendouts.finish
        """,
    "web": FOR_THE_CONSOLE,
    "operator": f"""
        {FOR_THE_CONSOLE} groups.* messages.*
        lists.create lists.change lists.copy lists.archive lists.restore
        import_chunks.count_staged_rejections import_chunks.staged_rejections import_chunks.group_size
        import_chunks.dry_run_recipients list_shapes.of_list list_shapes.others list_shapes.codes
        """,
    "auditor": "invariants.*",
    "web and codes": f"""
        {FOR_THE_CONSOLE} lookup.* imports.next_rejections lists.list_duplicates {FOR_A_DRY_RUN} uploads.chunk
        import_chunks.count_staged_rejections import_chunks.staged_rejections import_chunks.group_size
        import_chunks.dry_run_recipients list_shapes.of_list list_shapes.others list_shapes.codes
        """,
    "operator and codes": f"lookup.* imports.next_rejections {FOR_A_DRY_RUN}",
}
"""The statements that each process runs: `module.name`, or `module.*` for all of a module."""


def iter_statements(work: str) -> Iterator[tuple[str, str]]:
    for wanted in work.split():
        module, _, name = wanted.partition(".")
        found = [(f"{module}.{each}", sql) for each, sql in SQL[module] if name in ("*", each)]
        assert found, wanted
        yield from found
        if wanted == "import_chunks.*":
            yield "insert_rejected_lines", import_chunks._INSERT_REJECTED_LINES
            yield "insert_lines_of_imported_chunk", import_chunks._INSERT_LINES_OF_IMPORTED_CHUNK
        if wanted in ("import_chunks.*", "import_chunks.add_recipients"):
            yield "insert_staged_rejections", import_chunks._INSERT_STAGED_REJECTIONS


@pytest.fixture
async def logins(database_url: str) -> AsyncIterator[Logins]:
    async with logins_to(database_url) as logins:
        yield logins


async def login(logins: Logins, roles: str) -> str:
    """Return the URL of a login with these roles; `web and codes` is one login with two roles."""
    return await logins.of(*(f"coupons_{role}" for role in roles.split(" and ")))


async def explain(connection: Connection, sql: str) -> None:
    """Let PostgreSQL plan a statement, which checks all its rights even if it would find no rows."""
    parameters = max([0, *map(int, re.findall(r"\$(\d+)", sql))])
    given = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE tried AS {sql}")
    try:
        await connection.execute(f"EXPLAIN EXECUTE tried{given}")
    finally:
        await connection.execute("DEALLOCATE tried")


async def list_denied(connection: Connection, work: str) -> list[str]:
    """Return the statements of a process that lack a right, with PostgreSQL's message."""
    missing = []
    for name, sql in iter_statements(work):
        if NOT_EXPLAINABLE.match(sql) or name in PART_OF_ANOTHER:
            continue
        try:
            await explain(connection, sql)
        except asyncpg.InsufficientPrivilegeError as error:
            missing.append(f"{name}: {error}")
    return missing


# --- rights of each process ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", WORK)
async def test_a_process_may_run_all_its_statements(logins: Logins, roles: str) -> None:
    """The process's role may run every statement of the process, including the check of the schema's version."""
    async with connect(await login(logins, roles)) as connection:
        await check_current(connection)
        if "import_chunks" in WORK[roles]:
            await connection.execute(import_chunks.SQL.prepare_staging)
        if "needs.*" in WORK[roles]:
            await connection.execute(needs.SQL.create_audience)
        assert await list_denied(connection, WORK[roles]) == []


@pytest.mark.parametrize("roles", [each for each in WORK if "and" not in each])
async def test_a_role_has_no_unused_right(logins: Logins, connection: Connection, roles: str) -> None:
    """If any right on a table or column is revoked, a statement of the process fails."""
    role = f"coupons_{roles}"
    rights = [tuple(row) for row in await connection.fetch(RIGHTS, role)]
    assert rights
    needless = []
    async with connect(await login(logins, roles)) as own:
        if "import_chunks" in WORK[roles]:
            await own.execute(import_chunks.SQL.prepare_staging)
        if "needs.*" in WORK[roles]:
            await own.execute(needs.SQL.create_audience)
        for kind, table, column, right in rights:
            if {(table, right), (f"{table}.{column}", right)} & RIGHTS_WITHOUT_STATEMENT:
                continue
            on = f"{right} ({column}) ON {kind} {table}" if column else f"{right} ON {kind} {table}"
            await connection.execute(f"REVOKE {on} FROM {role}")
            needless += [] if await list_denied(own, WORK[roles]) else [on]
            await connection.execute(f"GRANT {on} TO {role}")
    assert needless == []


RIGHTS_WITHOUT_STATEMENT = {
    ("schema_migration", "SELECT"),  # read by coupons/migrate.py
    ("restore_guard", "SELECT"),  # read within database_accepted()
    ("coupon_id_seq", "USAGE"),  # checked when `nextval` runs, not when it is planned
    ("coupon.variant", "UPDATE"),  # written by the trigger variant_replaces_code
    ("recipient.address", "SELECT"),  # read by COPY, for conditions on an address
}

RIGHTS = """
SELECT 'TABLE', c.relname, a.attname, p.privilege_type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid CROSS JOIN LATERAL aclexplode(a.attacl) p
WHERE c.relnamespace = 'public'::regnamespace AND p.grantee = to_regrole($1)
UNION ALL
SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname, NULL, p.privilege_type
FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) p
WHERE c.relnamespace = 'public'::regnamespace AND p.grantee = to_regrole($1)
ORDER BY 1, 2, 3, 4
"""


async def test_each_role_sweeps_within_its_rights(logins: Logins, connection: Connection) -> None:
    """A process sweeps only for its own roles. With work for each role, the right process does all of it."""
    await add_stale_work(connection)
    settings = Settings(_env_file=None, uncertain_policy="accept")
    for role, login_role in (("import", "importer"), ("deliver", "sender"), ("sendout", "preparer")):
        async with open_pool(await login(logins, login_role), size=2) as pool:
            nudges = Nudges(Signals((role,)))
            await Sweeper(pool=pool, nudges=nudges, settings=settings, owner="test", roles=(role,)).step()
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0
    assert await connection.fetchval("SELECT count(*) FROM delivery WHERE state = 'sent'") == 1
    states = await connection.fetch("SELECT state FROM sendout ORDER BY created_at")
    assert [row["state"] for row in states] == ["finished", "sending"]


async def add_stale_work(connection: Connection) -> None:
    """Add an unused upload, a dead worker's mail in flight and a resumable sendout."""
    await connection.execute("INSERT INTO upload VALUES (gen_random_uuid(), 'old', 1, now() - interval '8 days')")
    await add_list(connection, "spring-10", 2)
    await add_group(connection, "one", 1)
    await add_group(connection, "three", 3)
    await save_message(connection, "voucher", "spring-10")
    first = await start(connection, "voucher", "one")
    await prepare(connection)
    await connection.execute(
        """
        UPDATE delivery_batch SET in_flight = '{1}', lease_token = gen_random_uuid(),
            lease_until = now() - interval '1 h'
        WHERE sendout_id = $1
        """,
        first,
    )
    await connection.execute(
        """
        WITH assigned AS (UPDATE sendout_list SET reserved = 0, assigned = 1 WHERE sendout_id = $1)
        UPDATE coupon SET sendout_id = $1, delivery_number = 1
        WHERE ctid = (SELECT min(ctid) FROM coupon)
        """,
        first,
    )
    second = await start(connection, "voucher", "three")
    await prepare(connection)
    await connection.execute("UPDATE sendout SET auto_resume = true WHERE id = $1", second)
    await add_codes(connection, "spring-10", ["A-1", "A-2", "A-3"])


# --- rights of the owner only ----------------------------------------------------------------------------------------

OWNER_ONLY = [
    "CREATE TABLE mine ()",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION database_accepted() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE SCHEMA mine",
    "CREATE INDEX ON coupon (code)",
    "CREATE TRIGGER mine AFTER UPDATE ON coupon_list EXECUTE FUNCTION refuse_rename()",
    "ALTER TABLE coupon ADD COLUMN mine integer",
    "ALTER TABLE coupon DROP CONSTRAINT fold_of_code",
    "ALTER TABLE coupon_list DROP CONSTRAINT coupon_list_check",
    "ALTER TABLE coupon_list DISABLE TRIGGER never_renamed",
    "ALTER TABLE coupon OWNER TO CURRENT_USER",
    "ALTER DATABASE {database} SET lock_timeout = 1",
    "DROP INDEX coupon_code",
    "DROP INDEX coupon_owner",
    "DROP TRIGGER never_renamed ON coupon_list",
    "DROP TABLE rate_limit",
    "TRUNCATE rate_limit",
    "SET session_replication_role = replica",
    "INSERT INTO schema_migration VALUES (9999, 'mine', '')",
    "DELETE FROM schema_migration",
    "UPDATE restore_guard SET ended_at = now()",
    "DELETE FROM restore_guard",
    "INSERT INTO restore_guard (number, cluster, timeline, database) SELECT 1, n.* FROM this_database() n",
    "INSERT INTO retired_code VALUES (sha256('A'))",
    "DELETE FROM retired_code",
    "INSERT INTO retired_spelling VALUES (sha256('A'))",
    "DELETE FROM duplicate_code",
    "DELETE FROM sendout",
    "DELETE FROM delivery",
    "UPDATE coupon SET code = 'MINE'",
    "UPDATE coupon SET list_id = 1",
    "UPDATE message SET text = ''",
    "UPDATE coupon_list SET name = 'mine'",
    "UPDATE command SET digest = ''",
    "GRANT coupons_codes TO CURRENT_USER",
    "CREATE ROLE mine",
    "SET ROLE {owner}",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT lo_import('/etc/hostname')",
]

BEYOND_CODES = [
    "SELECT code FROM coupon",
    "SELECT * FROM coupon",
    "SELECT c FROM coupon c",
    "SELECT count(*) FROM coupon WHERE code = 'GUESSED'",
    "SELECT list_id FROM coupon ORDER BY code",
    "COPY coupon TO STDOUT",
    "SELECT fold FROM coupon",
    "SELECT texts FROM import_rejection",
    "SELECT * FROM import_rejection",
    "SELECT key FROM retired_code_key",
    "SELECT hash FROM retired_code",
    "SELECT hash FROM retired_spelling",
    "SELECT code FROM duplicate_code",
    "SELECT data FROM upload_chunk",
]
BEYOND_STOCK = [
    "INSERT INTO coupon (list_id, code, import_id) VALUES (1, 'A', gen_random_uuid())",
    "DELETE FROM coupon",
]
BEYOND_OWNERSHIP = ["UPDATE coupon SET sendout_id = NULL", "UPDATE coupon SET delivery_number = 1"]
BEYOND_RECIPIENTS = ["UPDATE delivery SET address = 'mine@example.org'"]
BEYOND_MAIL = [
    *BEYOND_RECIPIENTS,
    "UPDATE delivery SET state = 'sent'",
    "UPDATE delivery_batch SET in_flight = '{{}}'",
    "INSERT INTO delivery_attempt VALUES (gen_random_uuid(), 1, 1, 'deferred', '')",
    "INSERT INTO rate_limit VALUES ('mail', now())",
]
BEYOND_AUDIENCE = [
    "SELECT address FROM recipient",
    "INSERT INTO delivery (sendout_id, number, address_key, address) VALUES (gen_random_uuid(), 1, 'a@b', 'a@b')",
    "INSERT INTO recipient VALUES (1, 'a@b.de', 'a@b.de', '{{}}')",
]
BEYOND_MESSAGES = ["INSERT INTO message_list VALUES (1, 1)", "INSERT INTO message_file VALUES (1, 'a', 'b', true, '')"]
DENIED = {
    "importer": [
        *BEYOND_OWNERSHIP, *BEYOND_MAIL, *BEYOND_MESSAGES, "SELECT address FROM delivery", "SELECT text FROM message",
        "INSERT INTO sendout (id, message_id) VALUES (gen_random_uuid(), 1)", "UPDATE coupon_list SET name = 'a'",
    ],
    "preparer": [
        *BEYOND_CODES, *BEYOND_STOCK, *BEYOND_OWNERSHIP, *BEYOND_MAIL, *BEYOND_MESSAGES, "SELECT list_id FROM coupon",
        "SELECT address FROM delivery", "SELECT content FROM message_file", "UPDATE coupon_list SET total = 1",
        "INSERT INTO recipient VALUES (1, 'a@b.de', 'a@b.de', '{{}}')",
    ],
    "sender": [
        *BEYOND_CODES[7:], *BEYOND_STOCK, *BEYOND_AUDIENCE, *BEYOND_MESSAGES, *BEYOND_RECIPIENTS,
        "UPDATE coupon SET import_id = NULL",
        "UPDATE coupon_list SET total = 1", "UPDATE delivery SET attributes = '{{}}'", "SELECT source FROM import_job",
        "INSERT INTO sendout (id, message_id) VALUES (gen_random_uuid(), 1)", "UPDATE sendout SET message_id = 1",
        "UPDATE sendout_list SET missing = 1", "CREATE TEMP TABLE mine ()",
    ],
    "web": [
        "DELETE FROM recipient", "DELETE FROM message", "UPDATE message SET deleted_at = now()",
        *BEYOND_CODES, *BEYOND_STOCK, *BEYOND_OWNERSHIP, *BEYOND_AUDIENCE[1:], *BEYOND_MESSAGES, *BEYOND_MAIL[4:],
        "SELECT content FROM message_file", "UPDATE coupon_list SET total = 1", "UPDATE delivery SET attempts = 0",
        "INSERT INTO command (id, type, digest) VALUES (gen_random_uuid(), 'import', '')", "CREATE TEMP TABLE mine ()",
    ],
    "web and codes": [*BEYOND_STOCK, *BEYOND_OWNERSHIP, *BEYOND_AUDIENCE[1:], "DELETE FROM import_rejection"],
    "operator": [
        *BEYOND_CODES, *BEYOND_STOCK, *BEYOND_OWNERSHIP, *BEYOND_MAIL[4:], *BEYOND_AUDIENCE[1:],
        "UPDATE coupon_list SET total = 1", "DELETE FROM coupon_list",
    ],
    "auditor": [
        *BEYOND_CODES[1:3], *BEYOND_CODES[7:9], *BEYOND_CODES[11:], *BEYOND_STOCK, *BEYOND_OWNERSHIP, *BEYOND_MAIL,
        *BEYOND_AUDIENCE,
        *BEYOND_MESSAGES, "SELECT address FROM delivery", "SELECT text FROM message", "CREATE TEMP TABLE mine ()",
        "UPDATE sendout SET state = 'finished'", "INSERT INTO upload VALUES (gen_random_uuid(), 'mine')",
    ],
    "codes": [
        *BEYOND_STOCK, *BEYOND_OWNERSHIP, *BEYOND_MAIL, *BEYOND_AUDIENCE, "SELECT id FROM sendout",
        "SELECT address FROM delivery",
    ],
}  # fmt: skip
"""Statements that each role is denied, besides those of the owner. `{{}}` is an empty object or array."""


@pytest.mark.parametrize("roles", DENIED)
async def test_a_login_is_denied_everything_else(logins: Logins, connection: Connection, roles: str) -> None:
    """PostgreSQL denies the statement for lack of a right, and the error message contains no value."""
    names = {
        "owner": await connection.fetchval("SELECT current_user"),
        "database": await connection.fetchval("SELECT current_database()"),
    }
    async with connect(await login(logins, roles)) as own:
        done = [each for each in OWNER_ONLY + DENIED[roles] if not await is_denied(own, each.format(**names))]
    assert done == []


async def is_denied(connection: Connection, statement: str) -> bool:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError as error:
        told = denial(error)
        assert "\n" not in told
        assert not re.search("GUESSED|MINE|mine@", told)
        return True
    return False


async def test_a_right_cannot_be_granted_to_others(logins: Logins, connection: Connection) -> None:
    """A login that can read codes cannot grant this right to others. PostgreSQL only warns."""
    before = await list_rights(connection)
    async with connect(await login(logins, "web and codes")) as own:
        await own.execute("GRANT SELECT ON coupon TO PUBLIC")
    assert await list_rights(connection) == before


async def test_statistics_do_not_expose_codes(logins: Logins, connection: Connection) -> None:
    """The statistics of ANALYZE are visible only to roles that can read the codes."""
    await add_list(connection, "spring-10", 100)
    await connection.execute("ANALYZE coupon")
    query = "SELECT count(*) FROM pg_stats WHERE tablename = 'coupon' AND attname = 'code'"
    assert await connection.fetchval(query) == 1
    for roles, count in (("web", 0), ("preparer", 0), ("web and codes", 1)):
        async with connect(await login(logins, roles)) as own:
            assert await own.fetchval(query) == count


@pytest.mark.parametrize(("roles", "removed"), [("web", None), ("web and codes", 3)])
async def test_only_a_console_that_may_read_codes_runs_an_upload_dry(
    logins: Logins, connection: Connection, roles: str, removed: int | None
) -> None:
    """Another one reports that the numbers are unknown, and the worker counts."""
    await add_list(connection, "spring-10", 3)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"NEW-1"

    upload = await uploads.store(connection, "codes.txt", pieces(), max_bytes=10)
    command = ImportCoupons(list="spring-10", mode=ImportMode.REPLACE, source=f"upload:{upload.id}")
    async with open_pool(await login(logins, roles), size=2) as pool:
        limits = SourceLimits.from_settings(Settings(_env_file=None))
        review = await Reviewer(pool=pool, limits=limits, max_lines=10).review(command)
    assert (review.report.counts.removed if review.report else None) == removed
    assert ("may not read" in review.unknown) == (removed is None)


async def test_other_logins_cannot_connect(logins: Logins) -> None:
    """A login without a role cannot even connect to the database."""
    stranger = await logins.of("pg_monitor")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(stranger)


# --- the file itself -----------------------------------------------------------------------------------------------


async def list_rights(connection: Connection) -> list[tuple[str, ...]]:
    rows = await connection.fetch(
        """
        SELECT oid::regclass::text, array(SELECT unnest(relacl)::text ORDER BY 1)::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT attrelid::regclass || '.' || attname, array(SELECT unnest(attacl)::text ORDER BY 1)::text
        FROM pg_attribute WHERE attacl IS NOT NULL AND attnum > 0
        UNION ALL SELECT nspname, array(SELECT unnest(nspacl)::text ORDER BY 1)::text
        FROM pg_namespace WHERE nspname = 'public'
        UNION ALL SELECT 'database', array(SELECT unnest(datacl)::text ORDER BY 1)::text
        FROM pg_database WHERE datname = current_database()
        ORDER BY 1
        """
    )
    return [tuple(row) for row in rows]


async def test_running_the_file_again_revokes_other_rights(logins: Logins, connection: Connection) -> None:
    """A second run of roles.sql changes nothing, revokes rights granted manually and opens a new table to no role."""
    before = await list_rights(connection)
    await connection.execute(ROLES_SQL)
    assert await list_rights(connection) == before
    await connection.execute("GRANT DELETE ON coupon TO coupons_sender; GRANT SELECT (code) ON coupon TO coupons_web")
    await connection.execute("GRANT CREATE ON SCHEMA public TO coupons_web")
    await connection.execute(ROLES_SQL)
    assert await list_rights(connection) == before
    await connection.execute("CREATE TABLE of_the_next_migration (id integer)")
    await connection.execute(ROLES_SQL)
    async with AsyncExitStack() as stack:
        for roles in DENIED:
            own = await stack.enter_async_context(connect(await login(logins, roles)))
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute("SELECT FROM of_the_next_migration")


async def test_the_file_runs_without_the_right_to_create_roles(logins: Logins, connection: Connection) -> None:
    """Once the roles exist, the tables' owner can run roles.sql without CREATEROLE and without being a superuser."""
    async with connect(await logins.of("coupons_auditor")) as plain:
        name = await plain.fetchval("SELECT current_user")
        database = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {database} OWNER TO {name}")
        await connection.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
        owned = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
        for row in owned:
            await connection.execute(f"ALTER TABLE {row['relname']} OWNER TO {name}")
        await plain.execute(ROLES_SQL)
        for row in owned:
            await connection.execute(f"ALTER TABLE {row['relname']} OWNER TO CURRENT_USER")
        await connection.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")


async def test_the_file_mentions_each_table(connection: Connection) -> None:
    """A new table needs a decision about its rights, so roles.sql must mention it."""
    tables = {row["relname"] for row in await connection.fetch(TABLES)}
    assert tables - set(re.findall(r"\w+", ROLES_SQL)) == set()


TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"


def test_the_file_contains_no_password() -> None:
    """Operators create the logins. The file shows three dots in place of a password."""
    assert re.findall(r"PASSWORD '([^']*)'", ROLES_SQL) == ["..."]
    assert "SECURITY DEFINER" not in ROLES_SQL


# --- at RabbitMQ ---------------------------------------------------------------------------------------------------


async def test_a_publisher_needs_only_the_write_permission(broker: Broker, broker_url: str) -> None:
    """The permission to write to the exchange is enough to publish. It permits no declaring, reading or deleting."""
    if not broker.control:
        pytest.skip("users are made with rabbitmqctl, and the broker at COUPONS_TEST_BROKER_URL has none here")
    url, name, password = urlsplit(broker_url), f"shop-{secrets.token_hex(4)}", secrets.token_hex(8)
    broker.rabbitmqctl("add_user", name, password)
    try:
        broker.rabbitmqctl("set_permissions", "-p", url.path.removeprefix("/"), name, "", "^coupons$", "")
        owner = await aio_pika.connect(broker_url)
        async with owner, owner.channel() as channel:
            await topology.declare(channel)
        own = url._replace(netloc=f"{name}:{password}@{url.netloc.rpartition('@')[2]}").geturl()
        async with Publisher.connect(own) as publisher:
            await publisher.publish(ResumeSendout(sendout=uuid4()))
        for forbidden in ("declare_queue", "get_queue"):
            connection = await aio_pika.connect(own)
            async with connection, connection.channel() as channel:
                with pytest.raises(ChannelAccessRefused):
                    queue = await getattr(channel, forbidden)("coupons.resume", **PASSIVE[forbidden])
                    await queue.get(fail=False)
    finally:
        broker.rabbitmqctl("delete_user", name)


PASSIVE = {"declare_queue": {}, "get_queue": {"ensure": False}}
