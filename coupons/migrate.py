"""Apply migrations: numbered files, each in its own transaction, under one advisory lock."""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from coupons.database import Connection, connect
from coupons.errors import UserError
from coupons.files.codes import fold, spellings

MIGRATION_SECONDS = 24 * 3_600
ROWS_AT_ONCE = 10_000
UNIQUE_CODES = 6
ADVISORY_LOCK = 0x636F75706F6E73  # "coupons"; roles.sql takes the same lock, and a test compares the numbers
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class MigrationError(UserError):
    """The database and the migration files do not match."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    def __str__(self) -> str:
        return f"migration {self.number:04} ({self.name})"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in files("coupons").joinpath("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.number)


async def migrate(database_url: str) -> list[Migration]:
    """Apply and return the missing migrations. A second process waits for the first.

    Raises:
        MigrationError: the database is not in UTF-8, a file was changed after it was applied, the database is newer
            than this program, or a migration refuses the data.
    """
    async with connect(database_url) as connection:
        # Another process may migrate for a long time.
        await connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
        await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK, timeout=MIGRATION_SECONDS)
        if (encoding := await connection.fetchval("SHOW server_encoding")) != "UTF8":
            raise MigrationError(f"the database is in {encoding}: create it with ENCODING 'UTF8'")
        await connection.execute(_TABLE)
        missing = _missing(await _applied(connection))
        for migration in missing:
            await _apply(connection, migration)
        return missing


async def pending(connection: Connection) -> list[Migration]:
    """The missing migrations, which `migrate` would apply. Raises MigrationError as `migrate` does."""
    exists = await connection.fetchval("SELECT to_regclass('schema_migration') IS NOT NULL")
    return _missing(await _applied(connection) if exists else {})


async def check_current(connection: Connection) -> None:
    """Check the database's version. Raises MigrationError if a migration is missing or the database is newer."""
    if missing := await pending(connection):
        raise MigrationError(
            f"the database lacks {len(missing)} migration{'s' * (len(missing) != 1)}: run `coupons migrate`"
        )


async def _applied(connection: Connection) -> dict[int, str]:
    return {
        row["number"]: row["sha256"] for row in await connection.fetch("SELECT number, sha256 FROM schema_migration")
    }


def _missing(applied: dict[int, str]) -> list[Migration]:
    known = migrations()
    for migration in known:
        if applied.get(migration.number, migration.sha256) != migration.sha256:
            raise MigrationError(f"{migration} was changed after it was applied")
    if newer := applied.keys() - {migration.number for migration in known}:
        raise MigrationError(f"the database is newer than this program: it has migration {max(newer):04}")
    return [migration for migration in known if migration.number not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    async with connection.transaction():
        try:
            if prepare := _PREPARATIONS.get(migration.number):
                await prepare(connection)
            await connection.execute(migration.sql, timeout=MIGRATION_SECONDS)
        except asyncpg.RaiseError as error:
            raise MigrationError(f"{migration}: {error}") from error
        except asyncpg.IntegrityConstraintViolationError as error:
            raise MigrationError(
                f"{migration}: the data violate {error.constraint_name}. Nothing is changed. Stop all processes of the "
                "version before, and migrate again"
            ) from error
        await connection.execute(
            "INSERT INTO schema_migration (number, name, sha256) VALUES ($1, $2, $3)",
            migration.number, migration.name, migration.sha256,
        )  # fmt: skip


async def _prepare_unique_codes(connection: Connection) -> None:
    """Lock the tables of migration 0006, and compute what PostgreSQL 15 cannot: folds, and cases in any locale.

    The tables are locked first, in the order in which workers lock them: a worker of the version before may still run,
    and add a code that has no fold.
    """
    await connection.execute("LOCK TABLE delivery_batch, sendout, delivery, coupon_list, sendout_list, coupon")
    await connection.execute(
        'CREATE TEMP TABLE folded_code (code text, fold text COLLATE "C") ON COMMIT DROP;'
        "CREATE TEMP TABLE spelled_code (code text, spelling text) ON COMMIT DROP"
    )
    query = "SELECT DISTINCT code FROM coupon WHERE octet_length(code) <> char_length(code)"
    async for codes in _iter_codes(connection, query):
        await connection.copy_records_to_table("folded_code", records=[(code, fold(code)) for code in codes])
    async for codes in _iter_codes(connection, "SELECT code FROM coupon WHERE EXISTS (SELECT FROM retired_code)"):
        spelled = [(code, spelling) for code in codes for spelling in spellings(code)]
        await connection.copy_records_to_table("spelled_code", records=spelled)


async def _iter_codes(connection: Connection, query: str) -> AsyncIterator[list[str]]:
    await connection.execute(f"DECLARE spelling CURSOR FOR {query}")
    while rows := await connection.fetch(f"FETCH {ROWS_AT_ONCE} FROM spelling", timeout=MIGRATION_SECONDS):
        yield [row["code"] for row in rows]
    await connection.execute("CLOSE spelling")  # an open cursor prevents ALTER TABLE


_PREPARATIONS: dict[int, Callable[[Connection], Awaitable[None]]] = {UNIQUE_CODES: _prepare_unique_codes}
"""What runs before the file of a migration, in its transaction."""
