"""Recurring imports: their schedules, and the runs of each.

A run creates an import command and applies it in the transaction that advances the schedule. The command's id is
derived from the schedule and the time of the occurrence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

import asyncpg

from coupons import failpoints
from coupons.commands import InvalidCommand
from coupons.cron import MAX_COUNTED, Cron, InvalidCron, is_zone
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.recurring import RecurringImport, command_of
from coupons.states import ImportMode, ImportState
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
    """A recurring import into a `list` or a `group`. `next_at` is None while it is paused.

    `run_at` is the time when an operator asked for one more run that has not begun. `failure` is the line about its
    last run, if that failed and it has not been changed or paused since. It is `overdue` if no worker has run it for
    five minutes.
    """

    name: str
    cron: str
    zone: str
    list: str | None
    group: str | None
    mode: str
    source: str
    format: dict[str, Any]
    confirmed: bool
    allow_empty: bool
    next_at: datetime | None
    run_at: datetime | None
    paused_at: datetime | None
    created_at: datetime
    last_run: Run | None
    failure: str | None
    overdue: bool

    @property
    def target(self) -> str:
        return f"list {self.list}" if self.list else f"group {self.group}"

    @property
    def options(self) -> str:
        """The options of its imports that are not the default: `mode replace, confirmed, encoding cp1252`."""
        words = [f"mode {self.mode}"] if self.mode != ImportMode.ADD else []
        words += ["confirmed"] if self.confirmed else []
        words += ["allow_empty"] if self.allow_empty else []
        return ", ".join([*words, *(f"{name} {_in_words(value)}" for name, value in self.format.items())])


# --- changing --------------------------------------------------------------------------------------------------------


async def put(connection: Connection, name: str, request: RecurringImport) -> ImportSchedule:
    """Create or change the schedule. Raises Conflict if the list does not exist."""
    await imports.check_command(connection, request.command)
    cron = request.cron
    next_at = cron.after(await connection.fetchval(SQL.clock))
    await connection.execute(SQL.put, uuid4(), name, cron.expression, cron.zone, request.fields(), next_at)
    return await get(connection, name)


async def lock(connection: Connection, name: str) -> dict[str, Any] | None:
    """Lock the schedule until the transaction ends, and return the fields of its request. None if it does not exist."""
    row = await connection.fetchrow(SQL.lock, name)
    return {"cron": row["cron"], "zone": row["zone"], **row["command"]} if row else None


async def pause(connection: Connection, name: str) -> ImportSchedule:
    """Pause the schedule. An occurrence that is due, and that no worker has begun, is recorded as skipped."""
    async with connection.transaction():
        row = await connection.fetchrow(SQL.lock, name)
        if row is None:
            raise _unknown(name)
        due_at, missed, _ = _occurrence(row)
        if due_at:
            await connection.execute(SQL.record_paused, row["id"], due_at, "it was paused before it ran", missed)
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
    """Let a worker run the schedule once more now. Its next occurrence stays, and a paused one stays paused."""
    if await connection.fetchval(SQL.run_now, name) is None:
        raise _unknown(name)
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
        command["source"].partition("?")[0], command.get("format", {}), command.get("confirmed", False),
        command.get("allow_empty", False), row["next_at"], row["run_at"], row["paused_at"], row["created_at"], last,
        last.result if last and last.failed and row["ran_as_it_is"] and not row["paused_at"] else None,
        bool(row["overdue"]),
    )  # fmt: skip


def _in_words(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(repr, value))
    return repr(value) if value in ("", " ", "\t", ",", ";") else str(value)


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

    If occurrences were missed, only the last of them runs. If the previous import is not finished, the occurrence is
    skipped. A schedule in a time zone that this machine does not know is left to other workers.
    """
    zones = [row["zone"] for row in await connection.fetch(SQL.due_zones)]
    async with connection.transaction():
        row = await connection.fetchrow(SQL.claim, [zone for zone in zones if is_zone(zone)])
        if row is None:
            return None
        due_at, missed, following = _occurrence(row)
        advanced = await connection.fetchval(SQL.advance, row["id"], row["next_at"], row["run_at"], following)
        if due_at is None or advanced is None:
            return None
        if not await connection.fetchval(SQL.has_run, row["id"], due_at):
            outcome = await _run_occurrence(connection, row, due_at, activated=activated)
            await connection.execute(SQL.record_run, row["id"], due_at, *outcome, missed)
            await connection.execute(SQL.delete_old_runs, row["id"], RUNS_KEPT)
        failpoints.hit("schedule.created")
    failpoints.hit("schedule.committed")
    name: str = row["name"]
    return name


def _occurrence(row: asyncpg.Record) -> tuple[datetime | None, int, datetime | None]:
    """The occurrence that is due, the number of those that were missed, and the next one.

    None is due if an operator has asked for no run either. A run for an operator leaves the next occurrence.
    """
    if row["next_at"] is None or row["next_at"] > row["now"]:
        return row["run_at"], 0, row["next_at"]
    try:
        cron = Cron(row["cron"], row["zone"])
    except InvalidCron:  # a version or a machine that knows neither
        return row["next_at"], 0, None
    due_at, missed = cron.last_until(row["next_at"], row["now"])
    return due_at, min(missed, MAX_COUNTED), cron.after(row["now"])


async def _run_occurrence(
    connection: Connection, schedule: asyncpg.Record, due_at: datetime, *, activated: bool
) -> tuple[UUID | None, str | None, bool]:
    """Create the import of an occurrence. Returns its id, or why there is none and whether it is skipped."""
    if await connection.fetchval(SQL.is_running, schedule["id"]):
        return None, "the previous import is not finished", True
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
    return None if seconds is None else max(0.0, seconds)
