"""Recurring imports: their schedules, and the runs of each.

A run creates an import command and applies it in the transaction that advances the schedule. The command's id is
derived from the schedule and the time of the occurrence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4, uuid5

import asyncpg

from coupons import failpoints
from coupons.commands import InvalidCommand
from coupons.cron import MAX_COUNTED, Cron, InvalidCron
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.recurring import RecurringImport, command_of
from coupons.states import ImportState
from coupons.store import activation, imports, inbox
from coupons.store.queries import Queries

SQL = Queries("import_schedules.sql")
RUNS_SHOWN = 20
RUNS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Run:
    """An occurrence of a schedule, with its import, or with the reason why it has none.

    A run is `failed` if it created no import, or if its import failed or was cancelled. `missed` is the number of
    earlier occurrences while no worker was running. `result` is one line about the outcome.
    """

    due_at: datetime
    import_id: UUID | None
    missed: int
    skipped: bool
    failed: bool
    result: str


@dataclass(frozen=True, slots=True)
class ImportSchedule:
    """A recurring import into a `list` or a `group`. `next_at` is None while it is paused."""

    name: str
    cron: str
    zone: str
    list: str | None
    group: str | None
    mode: str
    source: str
    next_at: datetime | None
    paused_at: datetime | None
    created_at: datetime
    last_run: Run | None

    @property
    def target(self) -> str:
        return f"list {self.list}" if self.list else f"group {self.group}"

    @property
    def failure(self) -> str | None:
        """The line about its last run, if that failed."""
        return self.last_run.result if self.last_run and self.last_run.failed else None


# --- changing --------------------------------------------------------------------------------------------------------


async def put(connection: Connection, name: str, request: RecurringImport) -> ImportSchedule:
    """Create or change the schedule. Raises Conflict if the list does not exist."""
    await imports.check_command(connection, request.command)
    cron = request.cron
    next_at = cron.after(await connection.fetchval(SQL.clock))
    await connection.execute(SQL.put, uuid4(), name, cron.expression, cron.zone, request.fields(), next_at)
    return await get(connection, name)


async def pause(connection: Connection, name: str) -> ImportSchedule:
    await get(connection, name)
    await connection.execute(SQL.set_paused, name, None)
    return await get(connection, name)


async def resume(connection: Connection, name: str) -> ImportSchedule:
    """Resume the schedule. Occurrences while it was paused are left out."""
    found = await get(connection, name)
    if found.paused_at:
        following = Cron(found.cron, found.zone).after(await connection.fetchval(SQL.clock))
        await connection.execute(SQL.set_paused, name, following)
    return await get(connection, name)


async def run_now(connection: Connection, name: str) -> ImportSchedule:
    """Let a worker run the schedule now; its next occurrence stays. Raises Conflict if it is paused."""
    await get(connection, name)
    if await connection.fetchval(SQL.run_now, name) is None:
        raise Conflict(f"recurring import {name} is paused: resume it first")
    return await get(connection, name)


async def delete(connection: Connection, name: str) -> None:
    if await connection.fetchval(SQL.delete, name) is None:
        raise _unknown(name)


# --- reading ---------------------------------------------------------------------------------------------------------


async def list_all(connection: Connection) -> list[ImportSchedule]:
    return await _list(connection, None)


async def find(connection: Connection, name: str) -> ImportSchedule | None:
    found = await _list(connection, name)
    return found[0] if found else None


async def get(connection: Connection, name: str) -> ImportSchedule:
    """The schedule with this name. Raises Conflict if it does not exist."""
    found = await find(connection, name)
    if found is None:
        raise _unknown(name)
    return found


async def list_runs(connection: Connection, name: str, *, limit: int = RUNS_SHOWN) -> list[Run]:
    """The newest runs of the schedule."""
    return await _runs(connection, await connection.fetch(SQL.runs, name, limit))


def _unknown(name: str) -> Conflict:
    return Conflict(f"there is no recurring import {name}")


async def _list(connection: Connection, name: str | None) -> list[ImportSchedule]:
    rows = await connection.fetch(SQL.rows, name)
    ran = [row for row in rows if row["due_at"]]
    last = dict(zip((row["name"] for row in ran), await _runs(connection, ran), strict=True))
    return [_schedule(row, last.get(row["name"])) for row in rows]


def _schedule(row: asyncpg.Record, last: Run | None) -> ImportSchedule:
    command = row["command"]
    return ImportSchedule(
        row["name"], row["cron"], row["zone"], command.get("list"), command.get("group"), command.get("mode", "add"),
        command["source"].partition("?")[0], row["next_at"], row["paused_at"], row["created_at"], last,
    )  # fmt: skip


async def _runs(connection: Connection, rows: Iterable[asyncpg.Record]) -> list[Run]:
    rows = list(rows)
    found = await connection.fetch(SQL.results, [row["import_id"] for row in rows if row["import_id"]])
    results = {each["id"]: each for each in found}
    return [_run(row, results.get(row["import_id"])) for row in rows]


def _run(row: asyncpg.Record, job: asyncpg.Record | None) -> Run:
    failed = row["reason"] is not None and not row["skipped"]
    if job is not None:
        failed = job["state"] in (ImportState.FAILED, ImportState.CANCELLED)
    return Run(row["due_at"], row["import_id"], row["missed"], row["skipped"], failed, _describe(row, job))


def _describe(row: asyncpg.Record, job: asyncpg.Record | None) -> str:
    missed = row["missed"]
    number = f"{missed:,}" if missed < MAX_COUNTED else f"{MAX_COUNTED:,} or more"
    late = f"; {number} earlier {'run was' if missed == 1 else 'runs were'} missed" if missed else ""
    if row["reason"]:
        return f"{'skipped' if row['skipped'] else 'failed'}: {row['reason']}{late}"
    if job is None:
        return f"its import was deleted{late}"
    reason = f": {job['reason']}" if job["reason"] else ""
    return f"{job['state']}{reason}{_numbers(job)}{late}"


def _numbers(job: asyncpg.Record) -> str:
    if not job["lines"]:
        return ""
    words = {"added": "added", "existing": "unchanged", "removed": "removed", "rejected": "rejected"}
    shown = [f"{job[name]:,} {word}" for name, word in words.items() if job[name] or name == "added"]
    return f": {job['lines']:,} line{'' if job['lines'] == 1 else 's'}, {', '.join(shown)}"


# --- running ---------------------------------------------------------------------------------------------------------


async def run_due(connection: Connection, *, activated: bool) -> str | None:
    """Run one schedule that is due, in one transaction; return its name. None if no schedule is due.

    If occurrences were missed, only the last of them runs. If the import of the run before is not finished, the
    occurrence is skipped.
    """
    async with connection.transaction():
        row = await connection.fetchrow(SQL.claim)
        if row is None:
            return None
        due_at, missed, following = _occurrence(row)
        if await connection.fetchval(SQL.advance, row["id"], row["next_at"], following) is None:
            return None
        if not await connection.fetchval(SQL.has_run, row["id"], due_at):
            outcome = await _run_occurrence(connection, row, due_at, activated=activated)
            await connection.execute(SQL.record_run, row["id"], due_at, *outcome, missed)
            await connection.execute(SQL.delete_old_runs, row["id"], RUNS_KEPT)
        failpoints.hit("schedule.created")
    failpoints.hit("schedule.committed")
    name: str = row["name"]
    return name


def _occurrence(row: asyncpg.Record) -> tuple[datetime, int, datetime | None]:
    """The occurrence that runs now, the number of those that were missed, and the next one.

    If this machine does not know the time zone any more, there is no next one.
    """
    try:
        cron = Cron(row["cron"], row["zone"])
    except InvalidCron:
        return row["next_at"], 0, None
    due_at, missed = cron.last_until(row["next_at"], row["now"])
    return due_at, min(missed, MAX_COUNTED), cron.after(row["now"])


async def _run_occurrence(
    connection: Connection, schedule: asyncpg.Record, due_at: datetime, *, activated: bool
) -> tuple[UUID | None, str | None, bool]:
    """Create the import of an occurrence. Returns its id, or why there is none and whether it is skipped."""
    if await connection.fetchval(SQL.is_running, schedule["id"]):
        return None, "the import of the run before is not finished", True
    try:
        Cron(schedule["cron"], schedule["zone"])
        command = command_of(schedule["command"], uuid5(schedule["id"], due_at.isoformat()))
        async with connection.transaction():
            await activation.check_command(connection, command, activated=activated)
            if await inbox.accept(connection, command):
                await imports.create(connection, command)
    except (Conflict, InvalidCommand, InvalidCron) as error:
        return None, str(error), False
    return command.id, None, False


async def seconds_until_due(connection: Connection) -> float | None:
    """The time until the next occurrence of any schedule. None if there is none."""
    seconds: float | None = await connection.fetchval(SQL.seconds_until_due)
    return seconds
