"""A mutant for each constraint, trigger and index. They are read from a migrated database, so that none is missed."""

from dataclasses import dataclass

from coupons.database import Connection
from tests.mutants.mutant import Mutant

MIGRATION = "coupons/migrations/9999_mutant.sql"
REFUSALS = "tests/integration/test_schema.py::test_the_database_rejects"

_GUARDS = """
SELECT conname::text AS name, pg_get_constraintdef(oid) AS definition,
       format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname) AS removal
FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid <> 'schema_migration'::regclass
UNION ALL
SELECT tgname, pg_get_triggerdef(oid), format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), format('DROP INDEX %s', indexrelid::regclass)
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
ORDER BY name
"""

FOR_SPEED = "only makes a query fast: the database accepts no other data without it"
EXEMPT = {
    "coupon_free": FOR_SPEED,
    "delivery_batch_due": FOR_SPEED,
    "delivery_batch_uncertain": FOR_SPEED,
    "duplicate_code_list": FOR_SPEED,
    "import_job_group": FOR_SPEED,
    "import_job_list": FOR_SPEED,
    "import_job_undo": FOR_SPEED,
    "import_job_unfinished": FOR_SPEED,
    "import_schedule_due": FOR_SPEED,
    "message_list_list": FOR_SPEED,
    "sendout_created": FOR_SPEED,
    "sendout_group": FOR_SPEED,
    "sendout_list_list": FOR_SPEED,
    "sendout_message": FOR_SPEED,
    "sendout_state": FOR_SPEED,
    "sendout_unfinished": FOR_SPEED,
    "coupon_list_total_check": "implied: coupon_list_check requires 0 ≤ available ≤ total",
    "delivery_batch_remaining_check": "implied: in_flight_is_remaining requires 0 ≤ cardinality(in_flight) ≤ remaining",
    "import_job_lines_check": "implied: lines_add_up makes lines a sum of non-negative numbers",
    "sendout_list_needed_check": "implied: codes_within_need requires 0 ≤ reserved + assigned + sent ≤ needed",
}
"""Objects whose removal no test can detect, each with the reason. They stay for speed, or because they state a rule."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A constraint, a trigger or an index, and the statement that removes it."""

    name: str
    definition: str
    removal: str


async def guards(connection: Connection) -> list[Guard]:
    """The guards of a migrated database that are not exempt."""
    found = [Guard(**row) for row in await connection.fetch(_GUARDS)]
    return [guard for guard in found if guard.name not in EXEMPT]


def removal_of(guard: Guard) -> Mutant:
    """A mutant that adds a migration that removes the guard. Names of its test cases begin with the guard's name."""
    why = " ".join(guard.definition.split())
    return Mutant(guard.name, MIGRATION, "", f"{guard.removal};\n", why, (REFUSALS, "-k", guard.name))
