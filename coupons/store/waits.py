"""Waits of sendouts for imports, so that commands act in the order that their publisher means (docs/decisions/0014).

A sendout waits before it is prepared, and an interrupted or paused one before it is resumed. `sendouts.end_wait`
decides what happens when a wait ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

import asyncpg

from coupons.commands import ResumeSendout, StartSendout
from coupons.database import Connection, require_transaction
from coupons.errors import Conflict
from coupons.states import ImportState
from coupons.store.queries import Queries

SQL = Queries("waits.sql")
IMPORTS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class AwaitedImport:
    """An import that a sendout waits for. `target` is its list or group, None if the import has not arrived yet."""

    id: UUID
    target: str | None
    percent: int | None

    def __str__(self) -> str:
        if self.target is None:
            return f"import {self.id}, which has not arrived yet"
        percent = "" if self.percent is None else f", {self.percent} %"
        return f"import {self.id} into {self.target}{percent}"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """An import of `after` that can no longer finish, or that has not arrived before the limit."""

    problem: str
    is_late: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """The first imports that a sendout waits for, and the number of all of them.

    With an obstacle, the sendout can never go on.
    """

    imports: tuple[AwaitedImport, ...]
    total: int
    obstacle: Obstacle | None

    @property
    def has_ended(self) -> bool:
        return self.total == 0 or self.obstacle is not None

    def __str__(self) -> str:
        if self.has_ended:
            return "waiting for a worker"
        more = self.total - len(self.imports)
        others = f"; and for {more} more {'import' if more == 1 else 'imports'}" if more else ""
        return f"waiting for {'; '.join(map(str, self.imports))}{others}"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The imports that a command must wait for: those of its `after`, and those that were accepted before it."""

    after: tuple[UUID, ...]
    accepted: tuple[UUID, ...]
    group_changes: bool
    """Imports may still add recipients to the group, so that it cannot be checked yet."""

    def __bool__(self) -> bool:
        return bool(self.after or self.accepted)


# --- accepting -------------------------------------------------------------------------------------------------------


async def find_unfinished(
    connection: Connection, after: Sequence[UUID], *, message_id: int | None, group_id: int | None
) -> Unfinished:
    """Return the unfinished imports of `after`, and those into the message's lists and into the group.

    Raises:
        Conflict: an id in `after` belongs to another command.
    """
    named = await connection.fetch(SQL.imports, after)
    if wrong := next((row for row in named if row["command_type"] not in (None, "import")), None):
        raise Conflict(f"after: {_problem(wrong)}")
    rows = await connection.fetch(SQL.unfinished, message_id, group_id)
    return Unfinished(
        after=(ids := tuple(row["id"] for row in named)),
        accepted=tuple(row["id"] for row in rows if row["id"] not in ids),
        group_changes=bool(ids) or any(row["is_into_group"] for row in rows),
    )


async def describe(connection: Connection, imports: Unfinished) -> tuple[AwaitedImport, ...]:
    """Return these imports with their targets, as far as they have not finished."""
    rows = await connection.fetch(SQL.imports, [*imports.after, *imports.accepted])
    return tuple(AwaitedImport(row["id"], row["target"], row["percent"]) for row in rows)


async def check_after(connection: Connection, after: Sequence[UUID]) -> None:
    """Check before a command is published whether its imports can finish. Raises Conflict."""
    for row in await connection.fetch(SQL.imports, after):
        if problem := _problem(row):
            raise Conflict(f"after: {problem}")


async def begin(
    connection: Connection,
    sendout_id: UUID,
    command: StartSendout | ResumeSendout,
    imports: Unfinished,
    *,
    after_seconds: float,
) -> None:
    """Let the sendout wait. The wait of an earlier resume command ends."""
    await connection.execute(
        SQL.begin, sendout_id, command.id, command.body(), imports.after, imports.accepted, after_seconds
    )


# --- waiting ---------------------------------------------------------------------------------------------------------


async def exists(connection: Connection, sendout_id: UUID) -> bool:
    waits: bool = await connection.fetchval(SQL.exists, sendout_id)
    return waits


async def find(connection: Connection, sendout_id: UUID) -> Wait | None:
    """Return what the sendout waits for; None if it does not wait."""
    return (await list_for(connection, [sendout_id])).get(sendout_id)


async def list_for(connection: Connection, sendout_ids: Sequence[UUID]) -> dict[UUID, Wait]:
    """Return what each of these sendouts waits for."""
    return _waits(await connection.fetch(SQL.rows, sendout_ids, IMPORTS_SHOWN))


async def may_end(connection: Connection) -> bool:
    """Return whether a sendout waits, and the restore guard does not block sending."""
    may: bool = await connection.fetchval(SQL.may_end)
    return may


async def list_ended(connection: Connection) -> list[UUID]:
    """Return the sendouts whose wait has ended, the longest wait first."""
    return [row["sendout_id"] for row in await connection.fetch(SQL.ended)]


async def remove(connection: Connection, sendout_id: UUID) -> None:
    """End the wait of a sendout, if it waits."""
    await connection.execute(SQL.remove, sendout_id)


# --- rejecting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected command that a worker has to publish to the dead queue."""

    command_id: UUID
    body: bytes
    reason: str


async def reject(connection: Connection, sendout_id: UUID, reason: str) -> None:
    """Reject the command that waits. A waiting client sees the reason, and a worker dead-letters the command."""
    await connection.execute(SQL.reject, sendout_id, reason)


async def has_dead_letters(connection: Connection) -> bool:
    """Return whether rejected commands are not in the dead queue yet."""
    has: bool = await connection.fetchval(SQL.has_dead_letters)
    return has


async def take_dead_letter(connection: Connection) -> DeadLetter | None:
    """Remove a rejected command and return it. Return None if there is none that no other worker is publishing.

    The caller must publish it in the same transaction. Until the transaction ends, other workers skip this command.
    """
    require_transaction(connection)
    row = await connection.fetchrow(SQL.take_dead_letter)
    return DeadLetter(**row) if row else None


def _waits(rows: Sequence[asyncpg.Record]) -> dict[UUID, Wait]:
    return {sendout_id: _wait(list(group)) for sendout_id, group in groupby(rows, lambda row: row["sendout_id"])}


def _wait(rows: Sequence[asyncpg.Record]) -> Wait:
    imports = [row for row in rows if row["id"] is not None]
    return Wait(
        imports=tuple(AwaitedImport(row["id"], row["target"], row["percent"]) for row in imports),
        total=rows[0]["total"] or 0,
        obstacle=next((Obstacle(problem, row["is_late"]) for row in imports if (problem := _problem(row))), None),
    )


def _problem(row: asyncpg.Record) -> str | None:
    """Return why the import cannot finish; None if it may. The text does not quote the reason of a failed import, which
    may contain values of its file.
    """
    id_, kind, state, target = row["id"], row["command_type"], row["state"], row["target"]
    problems = {
        f"{id_} is the id of a {kind} command, not of an import": kind not in (None, "import"),
        f"import {id_} was rejected: {row['rejection_reason']}": row["rejection_reason"] is not None,
        f"import {id_} into {target} failed": state == ImportState.FAILED,
        f"import {id_} into {target} was cancelled": state == ImportState.CANCELLED,
        f"import {id_} was deleted with its list": state is None and kind is not None,
        f"import {id_} did not arrive in time (COUPONS_AFTER_SECONDS)": row["is_late"],
    }
    return next((problem for problem, holds in problems.items() if holds), None)
