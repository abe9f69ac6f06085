"""The database itself rejects invalid states."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from yarl import URL

from coupons import migrate
from coupons.database import Connection, connect
from coupons.migrate import Migration, MigrationError
from tests.factories import add_group, add_list, prepare, save_message, start
from tests.locks import until_blocked
from tests.mutants.constraints import guards
from tests.services import database

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


async def describe_schema(connection: Connection) -> list[tuple[str, ...]]:
    rows = [tuple(map(str, row)) for row in await connection.fetch(DESCRIPTION)]
    return [row for row in rows if "schema_migration" not in row[1]]


async def test_schema_sql_matches_the_migrations(connection: Connection, empty_database_url: str) -> None:
    """A reader of schema.sql sees the schema that the migrations create."""
    async with connect(empty_database_url) as drawn:
        await drawn.execute(SCHEMA.read_text(encoding="utf-8"))
        assert await describe_schema(drawn) == await describe_schema(connection)


async def test_concurrent_migrations_are_applied_once(empty_database_url: str) -> None:
    """Two processes start at the same time. The second one waits and finds no migration left to apply."""
    async with connect(empty_database_url) as other:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock($1)", migrate.ADVISORY_LOCK)
            migrating = [asyncio.create_task(migrate.migrate(empty_database_url)) for _ in range(2)]
            await until_blocked(other, *migrating)
        applied = await asyncio.gather(*migrating)
    assert sorted(map(len, applied)) == [0, len(migrate.migrations())]


async def test_a_changed_migration_is_rejected(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration file that is already applied must never change."""
    first, *rest = migrate.migrations()
    changed = Migration(first.number, first.name, first.sql + "\nSELECT 1;")
    monkeypatch.setattr(migrate, "migrations", lambda: [changed, *rest])
    with pytest.raises(MigrationError, match=r"0001 .* was changed"):
        await migrate.migrate(database_url)


async def test_a_newer_database_is_rejected(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old program refuses to work with a schema that it does not know."""
    monkeypatch.setattr(migrate, "migrations", list)
    with pytest.raises(MigrationError, match="newer than this program"):
        await migrate.migrate(database_url)


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        ("SELECT 1/0", asyncpg.DivisionByZeroError),
        ("INSERT INTO schema_migration VALUES (9999, 'recorded', 'already')", asyncpg.UniqueViolationError),
    ],
    ids=["in its file", "when it is recorded"],
)
async def test_a_failed_migration_changes_nothing(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, fails: str, error: type[Exception]
) -> None:
    """Each file runs and is recorded in one transaction, which is rolled back if either fails."""
    broken = Migration(9999, "broken", f"CREATE TABLE half (); {fails};")
    known = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: [*known, broken])
    with pytest.raises(error):
        await migrate.migrate(database_url)
    assert await connection.fetchval("SELECT to_regclass('half')") is None


STOCK = """
INSERT INTO coupon_list (name, preview_text, case_sensitive) VALUES ('b', 'x', false), ('c', 'x', true);
INSERT INTO coupon (list_id, code, import_id, fold) VALUES (3, 'CASE', gen_random_uuid(), 'case');
INSERT INTO duplicate_code VALUES (9, 1, 'A', 'sent', 1, 1, false);
INSERT INTO retired_spelling VALUES (decode(repeat('ab', 32), 'hex'));
INSERT INTO retired_code VALUES (decode(repeat('ab', 32), 'hex'));
INSERT INTO command (id, type, digest) VALUES (gen_random_uuid(), 'import', '');
INSERT INTO message_file VALUES (1, 'x.pdf', 'application/pdf', false, '');
INSERT INTO upload (id, name) VALUES (gen_random_uuid(), 'codes.txt');
INSERT INTO upload_chunk SELECT id, 0, '' FROM upload;
INSERT INTO import_event (import_id, text) SELECT id, 'x' FROM import_job;
INSERT INTO import_rejection SELECT id, 1, '{1}', '{x}', '{duplicate}' FROM import_job;
INSERT INTO list_shapes VALUES (1, '[]');
INSERT INTO import_schedule (id, name, cron, zone, command, next_at)
VALUES (gen_random_uuid(), 'nightly', '0 3 * * *', 'UTC', '{}', now());
INSERT INTO import_run (schedule_id, due_at, reason) SELECT id, now(), 'x' FROM import_schedule;
INSERT INTO import_removal (import_id, texts) SELECT id, '{x}' FROM import_job;
INSERT INTO imported_chunk SELECT 1, decode(repeat('ab', 32), 'hex'), id, 0 FROM import_job WHERE list_id = 1;
INSERT INTO delivery_attempt SELECT id, 1, 1, 'deferred', '4' FROM sendout;
INSERT INTO rate_limit (name, next_mail_at) VALUES ('mail', now());
INSERT INTO worker (id, host, pid, roles, version, alive_until) SELECT id, 'mill', 1, '{}', '1', now() FROM sendout;
UPDATE delivery SET state = 'refused' WHERE number = 2;
UPDATE delivery SET state = 'deferred', was_uncertain = true, due_at = now(), deferred_since = now() WHERE number = 5;
INSERT INTO sendout_wait SELECT id, id, '', ARRAY[id], '{}', now() FROM sendout;
INSERT INTO dead_letter SELECT id, '', 'x' FROM command;
INSERT INTO sendout_speed SELECT id, ARRAY[now()], '{1}', '{1}' FROM sendout;
"""
"""Rows of the tables that are still empty after an admission, and deliveries in other states."""

NEW_ID = "gen_random_uuid()"
NEW_CODE = "INSERT INTO coupon (import_id, list_id, code, fold, variant) VALUES (gen_random_uuid(), {}, {}, {}, {})"
OF_THE_LIST = "UPDATE import_job SET {} WHERE list_id = 1"
ADDRESS = "UPDATE {} SET address = E'a@b.de\\nBcc: x@y.de' WHERE address = 'c1@example.org'"

FORBIDDEN = {
    # unique rows
    "command_pkey: a command's id twice": "INSERT INTO command SELECT * FROM command",
    "coupon_list_pkey: a list's id twice": "INSERT INTO coupon_list (id, name, preview_text) "
    "OVERRIDING SYSTEM VALUE VALUES (1, 'b', 'x')",
    "coupon_list_name: a list's name twice": "INSERT INTO coupon_list (name, preview_text) VALUES ('a', 'x')",
    "coupon_code: a code twice, in another list and spelling": "INSERT INTO coupon (list_id, code, import_id) "
    f"VALUES (2, 'a-000000000', {NEW_ID})",
    "coupon_owner: two codes of a list for one delivery": "UPDATE coupon "
    "SET sendout_id = (SELECT id FROM sendout), delivery_number = 1",
    "retired_code_pkey: a retired code twice": "INSERT INTO retired_code SELECT * FROM retired_code",
    "retired_spelling_pkey: a retired spelling twice": "INSERT INTO retired_spelling SELECT * FROM retired_spelling",
    "duplicate_code_pkey: a duplicate twice": "INSERT INTO duplicate_code SELECT * FROM duplicate_code",
    "retired_code_key_pkey: a second key": "INSERT INTO retired_code_key SELECT * FROM retired_code_key",
    "recipient_group_pkey: a group's id twice": "INSERT INTO recipient_group (id, name) "
    "OVERRIDING SYSTEM VALUE VALUES (1, 'h')",
    "recipient_group_name_key: a group's name twice": "INSERT INTO recipient_group (name) VALUES ('g')",
    "recipient_pkey: an address twice in a group": "INSERT INTO recipient SELECT * FROM recipient",
    "message_pkey: a message's id twice": "INSERT INTO message (id, name, version, sender, subject, text) "
    "OVERRIDING SYSTEM VALUE VALUES (1, 'n', 1, 'a@b.de', 's', 't')",
    "message_name_version_key: a second mail of a message's version": "INSERT INTO message "
    "(name, version, sender, subject, text) SELECT name, version, sender, subject, text FROM message",
    "message_list_pkey: a list twice in a message": "INSERT INTO message_list SELECT * FROM message_list",
    "message_file_pkey: a file's name twice": "INSERT INTO message_file SELECT * FROM message_file",
    "upload_pkey: an upload's id twice": "INSERT INTO upload SELECT * FROM upload",
    "upload_chunk_pkey: a piece of a file twice": "INSERT INTO upload_chunk SELECT * FROM upload_chunk",
    "import_job_pkey: an import's id twice": "INSERT INTO import_job SELECT * FROM import_job",
    "imported_chunk_pkey: an imported chunk twice": "INSERT INTO imported_chunk SELECT * FROM imported_chunk",
    "list_shapes_pkey: the shapes of a list twice": "INSERT INTO list_shapes SELECT * FROM list_shapes",
    "import_schedule_pkey: the id of a schedule twice": "INSERT INTO import_schedule (id, name, cron, zone, command) "
    "SELECT id, 'other', cron, zone, command FROM import_schedule",
    "import_schedule_name_key: the name of a schedule twice": "INSERT INTO import_schedule "
    f"(id, name, cron, zone, command) SELECT {NEW_ID}, name, cron, zone, command FROM import_schedule",
    "import_run_pkey: an occurrence runs twice": "INSERT INTO import_run SELECT * FROM import_run",
    "list_shapes_list_id_fkey: the shapes of no list": "UPDATE list_shapes SET list_id = 9",
    "import_run_schedule_id_fkey: a run of no schedule": f"UPDATE import_run SET schedule_id = {NEW_ID}",
    "list_shapes_shapes_check: shapes that are not an array": "UPDATE list_shapes SET shapes = '{}'",
    "import_schedule_name_check: a schedule with a capital in its name": "UPDATE import_schedule SET name = 'Nightly'",
    "import_schedule_cron_check: a schedule with a line break": "UPDATE import_schedule SET cron = E'* *\\n* * *'",
    "import_schedule_command_check: a command that is not an object": "UPDATE import_schedule SET command = '[]'",
    "paused_has_no_next: a paused schedule is due": "UPDATE import_schedule SET paused_at = now()",
    "import_run_missed_check: a negative number": "UPDATE import_run SET missed = -1",
    "run_has_a_result: a run without an import and a reason": "UPDATE import_run SET reason = NULL",
    "skipped_has_a_reason: a skipped run has an import": "UPDATE import_run "
    f"SET skipped = true, reason = NULL, import_id = {NEW_ID}",
    "import_event_pkey: an event twice": "INSERT INTO import_event OVERRIDING SYSTEM VALUE SELECT * FROM import_event",
    "import_rejection_pkey: a line explained twice": "INSERT INTO import_rejection SELECT * FROM import_rejection",
    "import_removal_pkey: a removal twice": "INSERT INTO import_removal (import_id, number, texts) "
    "OVERRIDING SYSTEM VALUE SELECT import_id, number, texts FROM import_removal",
    "sendout_pkey: a sendout's id twice": "INSERT INTO sendout SELECT * FROM sendout",
    "sendout_list_pkey: a sendout's list twice": "INSERT INTO sendout_list SELECT * FROM sendout_list",
    "delivery_batch_pkey: a batch twice": "INSERT INTO delivery_batch SELECT * FROM delivery_batch",
    "delivery_pkey: a delivery twice": "INSERT INTO delivery (sendout_id, number, address_key, address) "
    "SELECT sendout_id, number, 'x@y.de', 'x@y.de' FROM delivery",
    "one_mail_per_address: two mails to one address": "INSERT INTO delivery (sendout_id, number, address_key, address) "
    "SELECT sendout_id, 99, address_key, address FROM delivery WHERE number = 1",
    "delivery_attempt_pkey: an attempt twice": "INSERT INTO delivery_attempt SELECT * FROM delivery_attempt",
    "sendout_wait_pkey: a sendout that waits twice": "INSERT INTO sendout_wait SELECT * FROM sendout_wait",
    "dead_letter_pkey: a rejected command twice": "INSERT INTO dead_letter SELECT * FROM dead_letter",
    "rate_limit_pkey: a limit twice": "INSERT INTO rate_limit SELECT * FROM rate_limit",
    # references
    "message_list_message_id_fkey: a list of no message": "INSERT INTO message_list VALUES (9, 1)",
    "message_list_list_id_fkey: a message with an unknown list": "INSERT INTO message_list VALUES (1, 9)",
    "message_file_message_id_fkey: a file of no message": "UPDATE message_file SET message_id = 9",
    "upload_chunk_upload_id_fkey: a piece of no file": f"UPDATE upload_chunk SET upload_id = {NEW_ID}",
    "import_job_list_id_fkey: an import into no list": OF_THE_LIST.format("list_id = 9"),
    "import_job_group_id_fkey: an import into no group": "UPDATE import_job SET group_id = 9 WHERE group_id = 1",
    "unfinished_has_a_target: a group is deleted during an import": "UPDATE sendout SET group_id = NULL; "
    "UPDATE import_job SET state = 'queued', finished_at = NULL WHERE group_id = 1; DELETE FROM recipient_group",
    "imported_chunk_list_id_fkey: an imported chunk of no list": "UPDATE imported_chunk SET list_id = 9",
    "import_event_import_id_fkey: an event of no import": f"UPDATE import_event SET import_id = {NEW_ID}",
    "import_rejection_import_id_fkey: a line of no import": f"UPDATE import_rejection SET import_id = {NEW_ID}",
    "import_removal_import_id_fkey: a removal of no import": f"UPDATE import_removal SET import_id = {NEW_ID}",
    "sendout_message_id_fkey: a sendout of no message": "UPDATE sendout SET message_id = 9",
    "sendout_group_id_fkey: a sendout to no group": "UPDATE sendout SET group_id = 9",
    "message_exists: a sendout of a deleted message": "INSERT INTO message "
    "(name, version, sender, subject, text, deleted_at) VALUES ('d', 1, 'a@b.de', 's', 't', now()); "
    "UPDATE sendout SET message_id = (SELECT id FROM message WHERE name = 'd')",
    "message_is_sent: a message is deleted while it is sent": "UPDATE message SET deleted_at = now()",
    "sendout_list_sendout_id_fkey: a reservation for no sendout": f"UPDATE sendout_list SET sendout_id = {NEW_ID}",
    "sendout_list_list_id_fkey: a reservation of no list": "UPDATE sendout_list SET list_id = 9",
    "sendout_wait_sendout_id_fkey: a wait of no sendout": f"UPDATE sendout_wait SET sendout_id = {NEW_ID}",
    "dead_letter_command_id_fkey: a rejection of no command": f"UPDATE dead_letter SET command_id = {NEW_ID}",
    "sendout_speed_sendout_id_fkey: samples of no sendout": f"UPDATE sendout_speed SET sendout_id = {NEW_ID}",
    "sendout_speed_pkey: a sendout's samples twice": "INSERT INTO sendout_speed SELECT * FROM sendout_speed",
    "each_sample_is_whole: a time without a number": "UPDATE sendout_speed SET times = times || now()",
    "delivery_batch_sendout_id_fkey: a batch of no sendout": f"UPDATE delivery_batch SET sendout_id = {NEW_ID}",
    # codes and their lists
    "coupon_code_check: an empty code": f"INSERT INTO coupon (list_id, code, import_id) VALUES (1, '', {NEW_ID})",
    "coupon_code_check: a code of 201 characters": "INSERT INTO coupon (list_id, code, import_id) "
    f"VALUES (1, repeat('x', 201), {NEW_ID})",
    "whole_owner: half an owner": f"UPDATE coupon SET sendout_id = {NEW_ID} WHERE code = 'A-000000000'",
    "never_renamed: a renamed list": "UPDATE coupon_list SET name = 'b'",
    "coupon_list_name_check: a list name in capitals": "INSERT INTO coupon_list (name, preview_text) VALUES ('S', 'x')",
    "coupon_list_name_check: a list name that begins with a blank": "INSERT INTO coupon_list (name, preview_text) "
    "VALUES (' s', 'x')",
    "coupon_list_description_check: a long description": "UPDATE coupon_list SET description = repeat('x', 201)",
    "coupon_list_shortage_check: an unknown shortage setting": "UPDATE coupon_list SET shortage = 'wait'",
    "coupon_list_alternative_text_check: a long alternative text": "UPDATE coupon_list "
    "SET alternative_text = repeat('x', 501)",
    "coupon_list_preview_text_check: no preview text": "UPDATE coupon_list SET preview_text = ''",
    "text_needs_alternative: a text list without a text": "UPDATE coupon_list "
    "SET shortage = 'text', alternative_text = ''",
    "coupon_list_check: a negative number of codes": "UPDATE coupon_list SET available = -1",
    "coupon_list_check: more available codes than codes": "UPDATE coupon_list SET available = total + 1",
    "coupon_list_removed_check: a negative number of removed codes": "UPDATE coupon_list SET removed = -1",
    "deleted_is_empty: a deleted list with codes": "UPDATE coupon_list SET deleted_at = now(), archived_at = now()",
    "retired_code_hash_check: a retired code that is not a hash": "INSERT INTO retired_code VALUES ('A-000000000')",
    "retired_spelling_hash_check: a retired spelling that is not a hash": "INSERT INTO retired_spelling VALUES ('A')",
    "fold_of_code: an ASCII code with another fold": "UPDATE coupon SET fold = 'b' WHERE code = 'A-000000000'",
    "fold_of_code: another code without a fold": NEW_CODE.format(1, "'Ä'", "NULL", "''"),
    "fold_of_code: a fold in upper case": NEW_CODE.format(1, "'ÄB'", "'äB'", "''"),
    "variant_of_code: a variant without a fold": NEW_CODE.format(1, "'B'", "NULL", "'B'"),
    "variant_of_code: a variant that is another spelling": NEW_CODE.format(3, "'B'", "'b'", "'c'"),
    "variant_of_code: a code that was a duplicate and is available": "INSERT INTO coupon "
    "(id, list_id, code, import_id, fold, variant) "
    f"OVERRIDING SYSTEM VALUE VALUES (99, 1, 'B', {NEW_ID}, 'b', E'\\x0199')",
    "variant_has_a_code: a variant of a code in another list": NEW_CODE.format(
        3, "'a-000000000'", "'a-000000000'", "'a-000000000'"
    ),
    "variant_has_a_code: a variant of a code without a fold": "UPDATE coupon SET fold = NULL WHERE code = 'CASE'; "
    + NEW_CODE.format(3, "'Case'", "'case'", "'Case'"),
    "variant_has_a_code: the same code as a variant": NEW_CODE.format(3, "'CASE'", "'case'", "'CASE'"),
    "variant_has_a_code: a variant without a code": NEW_CODE.format(3, "'B'", "'b'", "'B'"),
    "variant_has_a_code: a variant in a list that ignores case": NEW_CODE.format(1, "'b'", "'b'", "''")
    + "; "
    + NEW_CODE.format(1, "'B'", "'b'", "'B'"),
    "variant_has_a_code: a variant that moves to another list": NEW_CODE.format(3, "'Case'", "'case'", "'Case'")
    + "; UPDATE coupon SET list_id = 1 WHERE code = 'Case'",
    "variant_replaces_code: coupon_code: a code of another list, while a variant of it exists": NEW_CODE.format(
        3, "'Case'", "'case'", "'Case'"
    )
    + "; DELETE FROM coupon WHERE code = 'CASE'; "
    + NEW_CODE.format(2, "'cASE'", "'case'", "''"),
    "case_never_changes: a list that becomes case-sensitive": "UPDATE coupon_list "
    "SET case_sensitive = true WHERE id = 1",
    "duplicate_code_list_id_fkey: a duplicate of a list that does not exist": "UPDATE duplicate_code SET list_id = 9",
    "duplicate_code_state_check: a duplicate in an unknown state": "UPDATE duplicate_code SET state = 'free'",
    "retired_code_key_key_check: a short key": "UPDATE retired_code_key SET key = 'short'",
    "retired_code_key_one_check: another second key": "INSERT INTO retired_code_key "
    "SELECT false, key FROM retired_code_key",
    # groups and messages
    "recipient_group_name_check: a group name in capitals": "UPDATE recipient_group SET name = 'G'",
    "recipient_address_key_check: a key that is not an address": "UPDATE recipient SET address_key = 'x' "
    "WHERE address_key = 'c1@example.org'",
    "recipient_address_check: a recipient's address with a line break": ADDRESS.format("recipient"),
    "recipient_address_check: a recipient's address with blanks outside quotes": "UPDATE recipient "
    "SET address = 'a b@b.de' WHERE address = 'c1@example.org'",
    "recipient_address_check: two recipients' addresses behind a quote": "UPDATE recipient "
    """SET address = '"a" x"@b.de, x@y.de' WHERE address = 'c1@example.org'""",
    "recipient_attributes_check: attributes that are not an object": "UPDATE recipient SET attributes = '[]'",
    "message_name_check: a message name in capitals": "UPDATE message SET name = 'M'",
    "message_version_check: a version before the first": "UPDATE message SET version = 0",
    "message_sender_check: a sender with a line break": "UPDATE message SET sender = E'a@b.de\\nBcc: x@y.de'",
    "message_reply_to_check: a reply-to with a line break": "UPDATE message SET reply_to = E'a@b.de\\nBcc: x@y.de'",
    "message_subject_check: a mail without a subject": "UPDATE message SET subject = ''",
    "message_check: a mail without text and HTML": "UPDATE message SET text = NULL, html = NULL",
    "message_headers_check: headers that are not an object": "UPDATE message SET headers = '[]'",
    "message_file_name_check: a file with a path": "UPDATE message_file SET name = '../x.pdf'",
    # commands and imports
    "command_type_check: an unknown command": "UPDATE command SET type = 'explode'",
    "import_job_mode_check: an unknown mode": OF_THE_LIST.format("mode = 'swap'"),
    "import_job_state_check: an import in an unknown state": OF_THE_LIST.format("state = 'done', finished_at = NULL"),
    "finished_at_when_ended: a running import with an end": OF_THE_LIST.format("state = 'running'"),
    "list_or_group: an import into a list and a group": OF_THE_LIST.format("group_id = 1"),
    "list_or_group: an import into a group without a name": "UPDATE import_job SET group_name = NULL "
    "WHERE group_id = 1",
    "lines_add_up: a line that is not counted": OF_THE_LIST.format("lines = lines + 1"),
    "import_job_blank_check: a negative number of blank lines": OF_THE_LIST.format("blank = -1, added = added + 1"),
    "import_job_added_check: a negative number of added lines": OF_THE_LIST.format(
        "added = -1, blank = blank + added + 1"
    ),
    "import_job_existing_check: a negative number of existing lines": OF_THE_LIST.format(
        "existing = -1, blank = blank + 1"
    ),
    "import_job_rejected_check: a negative number of rejected lines": OF_THE_LIST.format(
        "rejected = -1, blank = blank + 1"
    ),
    "import_job_removed_check: a negative number of removed codes": OF_THE_LIST.format("removed = -1"),
    "import_job_kept_reserved_check: a negative number": OF_THE_LIST.format("kept_reserved = -1"),
    "import_job_kept_assigned_check: a negative number": OF_THE_LIST.format("kept_assigned = -1"),
    "import_job_position_check: a negative position": OF_THE_LIST.format("position = -1"),
    "import_job_digest_check: an invalid digest": OF_THE_LIST.format("digest = 'x'"),
    "position_has_digest: a position without a digest": OF_THE_LIST.format("digest = NULL, position = 1"),
    "each_line_has_a_reason: a rejected line without a reason": "UPDATE import_rejection SET reasons = '{}'",
    "imported_chunk_digest_check: an imported chunk with an invalid digest": "UPDATE imported_chunk SET digest = 'x'",
    # sendouts
    "sendout_state_check: a sendout in an unknown state": "UPDATE sendout SET state = 'done'",
    "import_job_to_remove_check: a negative number": "UPDATE import_job SET mode = 'replace', to_remove = -1",
    "only_replace_removes: an import in mode add that removes": OF_THE_LIST.format("to_remove = 1"),
    "sendout_per_hour_check: a rate of zero": "UPDATE sendout SET per_hour = 0",
    "sendout_over_minutes_check: a spread over zero minutes": "UPDATE sendout SET over_minutes = 0, per_hour = 1",
    "sendout_first_part_check: an empty first part": "UPDATE sendout SET first_part = 0, first_mailed_at = now()",
    "sendout_already_mailed_check: fewer than none left out": (
        "UPDATE sendout SET skip_already_mailed = true, already_mailed = -1"
    ),
    "left_out_on_request: recipients left out unasked": "UPDATE sendout SET already_mailed = 1",
    "held_after_a_part: a rest without a first part": "UPDATE sendout SET rest_held = true",
    "part_holds_the_rest: a first part without a held rest": "UPDATE sendout SET first_part = 1",
    "spread_has_a_pace: a spread without a rate": "UPDATE sendout SET over_minutes = 60, per_hour = NULL",
    "sendout_recipients_check: a negative number of recipients": "UPDATE sendout SET state = 'failed', recipients = -1",
    "sending_has_recipients: sending without recipients": "UPDATE sendout SET recipients = 0",
    "sending_has_recipients: sending without a count": "UPDATE sendout SET recipients = NULL",
    "interrupted_never_started: an interrupted sendout with a start": "UPDATE sendout "
    "SET state = 'interrupted', started_at = now()",
    "waits_for_an_import: a wait for no import": "UPDATE sendout_wait SET after = '{}'",
    "sendout_list_shortage_check: another unknown shortage setting": "UPDATE sendout_list SET shortage = 'wait'",
    "sendout_list_lacking_check: fewer than none": "UPDATE sendout_list SET lacking = -1",
    "sendout_list_check: more missing than needed": "UPDATE sendout_list SET missing = needed + 1",
    "codes_within_need: more reserved than needed": "UPDATE sendout_list SET reserved = needed + 1",
    "codes_within_need: more assigned than needed": "UPDATE sendout_list SET assigned = needed - reserved + 1",
    "codes_within_need: more sent than needed": "UPDATE sendout_list SET sent = needed - reserved + 1",
    "sendout_list_reserved_check: a negative number of reserved codes": "UPDATE sendout_list SET reserved = -1",
    "sendout_list_assigned_check: a negative number of assigned codes": "UPDATE sendout_list SET assigned = -1",
    "sendout_list_sent_check: a negative number of sent codes": "UPDATE sendout_list SET sent = -1",
    # batches and deliveries
    "batch_adds_up: a delivery that is not counted": "UPDATE delivery_batch SET sent = sent + 1",
    "closed_when_none_remain: a closed batch with remaining mails": "UPDATE delivery_batch SET closed = true",
    "in_flight_is_remaining: more in flight than remaining": "UPDATE delivery_batch "
    f"SET lease_token = {NEW_ID}, in_flight = '{{1,2,3,4,5,6}}'",
    "in_flight_under_a_lease: mails in flight without a lease": "UPDATE delivery_batch SET in_flight = '{1}'",
    "delivery_batch_sent_check: a negative number": "UPDATE delivery_batch SET sent = -1, remaining = remaining + 1",
    "delivery_batch_refused_check: a negative number": "UPDATE delivery_batch "
    "SET refused = -1, remaining = remaining + 1",
    "delivery_batch_uncertain_check: a negative number": "UPDATE delivery_batch "
    "SET uncertain = -1, remaining = remaining + 1",
    "delivery_batch_cancelled_check: a negative number": "UPDATE delivery_batch "
    "SET cancelled = -1, remaining = remaining + 1",
    "delivery_batch_deferred_check: a negative number": "UPDATE delivery_batch SET deferred = -1",
    "deferred_is_remaining: more deferred than remaining": "UPDATE delivery_batch "
    "SET deferred = remaining + 1, next_attempt_at = now()",
    "deferred_has_a_time: deferred mails that are never due": "UPDATE delivery_batch SET deferred = 1",
    "delivery_number_check: a delivery before the first": "UPDATE delivery SET number = 0 WHERE number = 1",
    "delivery_address_check: a mail to an address with a line break": ADDRESS.format("delivery"),
    "delivery_state_check: an unknown state": "UPDATE delivery SET state = 'done' WHERE number = 1",
    "delivery_attempts_check: a negative number of attempts": "UPDATE delivery SET attempts = -1",
    "deferred_is_due: a deferred mail that is never due": "UPDATE delivery SET state = 'deferred' WHERE number = 1",
    "uncertain_keeps_its_code: a refused mail that was uncertain": "UPDATE delivery "
    "SET was_uncertain = true, state = 'refused'",
    "never_resent: a mail that must not be resent is pending": "UPDATE delivery "
    "SET never_resend = true WHERE number = 1",
    "address_is_final: another address of a pending mail": "UPDATE delivery SET address = 'x@y.de' WHERE number = 1",
    "address_is_final: another address of a mail that was uncertain": "UPDATE delivery SET address = 'x@y.de' "
    "WHERE number = 5",
    "delivery_attempt_attempt_check: an attempt before the first": "UPDATE delivery_attempt SET attempt = 0",
    "delivery_attempt_outcome_check: an attempt with a final state": "UPDATE delivery_attempt SET outcome = 'sent'",
    "restore_guard_number_check: an acceptance before the first": "UPDATE restore_guard SET number = 0",
    "worker_pkey: a worker's id twice": "INSERT INTO worker SELECT * FROM worker",
    "rate_limit_name_check: a second limit": "INSERT INTO rate_limit (name, next_mail_at) VALUES ('other', now())",
}
"""Statements that the database must reject, by the name of the guard and a description."""


@pytest.fixture(scope="module")
async def database_with_rows(postgres_url: str, template_database: str) -> AsyncIterator[Connection]:
    """Create one database for all cases, with a row in every table."""
    async with database(postgres_url, template_database) as url, connect(url) as connection:
        await add_list(connection, "a", 5)
        await add_group(connection, "g", 5)
        await save_message(connection, "m", "a")
        await start(connection, "m", "g")
        await prepare(connection)
        await connection.execute(STOCK)
        yield connection


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_the_database_rejects(database_with_rows: Connection, what: str) -> None:
    """The database itself rejects invalid states, whichever program writes them."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        async with database_with_rows.transaction():
            await database_with_rows.execute(FORBIDDEN[what])
    assert f"{refused.value.constraint_name or 'never_renamed'}: " in what


async def test_every_guard_of_the_database_has_a_case(connection: Connection) -> None:
    """Each constraint, trigger and unique index needs a case in the statements above."""
    names = {guard.name for guard in await guards(connection)}
    assert names == {what.partition(":")[0] for what in FORBIDDEN}


async def test_a_database_that_is_not_utf_8_is_rejected(connection: Connection, database_url: str) -> None:
    """SQL_ASCII would accept names with umlauts and truncate them."""
    await connection.execute("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with pytest.raises(MigrationError, match="SQL_ASCII"):
            await migrate.migrate(str(URL(database_url).with_path("/ascii")))
    finally:
        await connection.execute("DROP DATABASE ascii WITH (FORCE)")
