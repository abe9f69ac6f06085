"""Imports into lists and groups: the jobs, what happened to them, and the lines that they did not take.

How a chunk of lines is taken stands in `chunks`; where files wait for their import, in `uploads`.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import asyncpg

from coupons.commands import MAX_COMMAND_BYTES, ImportCoupons
from coupons.database import Connection, Pool
from coupons.errors import Conflict, LeaseLost
from coupons.files.recipient_reader import EMAIL
from coupons.files.rejections import Reason, Rejected
from coupons.states import ImportMode, ImportState, TargetKind
from coupons.store import lists, uploads
from coupons.store.queries import Queries

SQL = Queries("imports.sql")
INLINE = "inline"
"""The only format of codes that came with a command, one JSON text a line: what a file never is, they may be."""
DROP_SECONDS = 600
"""For millions of lines that were not taken."""
REASONS = {reason.value: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class Target:
    """The list that gets codes, or the group that gets recipients."""

    id: int
    name: str
    kind: TargetKind


@dataclass(frozen=True, slots=True)
class Position:
    """How much of a source is done: bytes of its text with their sha256, and bytes of the source read for these."""

    text: int
    digest: bytes
    source: int


@dataclass(frozen=True, slots=True)
class Job:
    """An import under a lease; `position` bytes of its text, which have this digest, are committed."""

    id: UUID
    target: Target
    mode: ImportMode
    source: str
    format: dict[str, Any]
    position: int
    digest: bytes | None
    lines: int
    retries: int
    lease_token: UUID
    was_left: bool
    """By a worker that did not come to its end."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of some lines; `left_…` are codes that could not be removed."""

    added: int = 0
    existing: int = 0
    removed: int = 0
    rejected: int = 0
    kept_reserved: int = 0
    kept_assigned: int = 0

    def but(self, **changes: int) -> Self:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Import:
    """`lines` = `blank` + `added` + `existing` + `rejected` (+ `removed`, when codes are deleted).

    `existing` lines were there before: codes of a replaced list that stay in it, or recipients of a group, whose
    attributes are updated. Of `list` and `group` one is set. `read_bytes` of `total_bytes` are done; `per_second` are
    lines. `same_as` is the first import of the same text into the same list, finished `same_at`. `columns` are those of
    rejected lines, between the line number and the reason.
    """

    id: UUID
    list: str | None
    group: str | None
    mode: ImportMode
    source: str
    state: ImportState
    reason: str | None
    lines: int
    blank: int
    added: int
    removed: int
    existing: int
    rejected: int
    kept_reserved: int
    kept_assigned: int
    read_bytes: int
    total_bytes: int | None
    created_at: datetime
    finished_at: datetime | None
    same_at: datetime | None
    same_as: UUID | None
    per_second: float | None
    seconds_left: float | None
    columns: Sequence[str]

    @property
    def target(self) -> str:
        return self.list or self.group or ""


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    text: str


# --- the command -----------------------------------------------------------------------------------------------------


async def create(connection: Connection, command: ImportCoupons) -> None:
    """Note the import. Codes that came with the command are kept as an upload, so that there is one way in.

    Raises:
        Conflict: the list does not exist or is archived, the upload does not exist.
    """
    await check(connection, command)
    if command.group is not None:
        await connection.execute(SQL.ensure_group, command.group)
    source, format_ = command.source, command.format.model_dump(exclude_none=True)
    if command.codes is not None:
        source, format_ = await _keep_inline(connection, command.codes), {INLINE: True}
    arguments = (command.id, command.list, command.group, command.mode, source, format_)
    await connection.execute(SQL.keep_list, command.list)
    if await connection.fetchval(SQL.create, *arguments) is None:
        raise Conflict(f"there is no list {command.list}")


async def check(connection: Connection, command: ImportCoupons) -> None:
    """All that can be known to be wrong before anything is begun. Raises Conflict."""
    if command.list is not None:
        (target,) = await lists.get(connection, command.list)
        if target.archived_at:
            raise Conflict(f"list {target.name} is archived")
    if (upload_id := uploads.id_in(command.source or "")) and await uploads.find(connection, upload_id) is None:
        raise Conflict(f"there is no upload {upload_id}")


async def _keep_inline(connection: Connection, codes: Iterable[str]) -> str:
    async def piece() -> AsyncIterator[bytes]:
        yield "".join(f"{json.dumps(code)}\n" for code in codes).encode()

    return f"upload:{(await uploads.keep(connection, 'inline', piece(), max_bytes=6 * MAX_COMMAND_BYTES)).id}"


# --- the work --------------------------------------------------------------------------------------------------------


async def claim(
    connection: Connection, *, owner: str, lease_seconds: float, import_id: UUID | None = None
) -> Job | None:
    """Claim the oldest import that waits or was left by a dead worker; or only this one, if it is free."""
    row = await connection.fetchrow(SQL.claim, owner, lease_seconds, import_id)
    if row is None:
        return None
    columns = {**row, "mode": ImportMode(row["mode"])}
    list_id, group_id = columns.pop("list_id"), columns.pop("group_id")
    list_name, group_name = columns.pop("list"), columns.pop("group")
    columns.pop("read_bytes")
    if list_id is None:
        return Job(**columns, target=Target(group_id, group_name, TargetKind.GROUP))
    return Job(**columns, target=Target(list_id, list_name, TargetKind.LIST))


async def seconds_until_due(connection: Connection) -> float | None:
    """Until an import whose source was interrupted is to be tried again; None if there is none."""
    seconds: float | None = await connection.fetchval(SQL.next_due)
    return seconds


async def opened(connection: Connection, job: Job, total_bytes: int | None) -> None:
    """The size of its source, as far as it is known, before it is read."""
    await connection.execute(SQL.opened, job.id, job.lease_token, total_bytes)


async def keep_columns(connection: Connection, job: Job, columns: Sequence[str]) -> None:
    """What the rows of a group's file hold, before the first of them that is not taken is stored."""
    await connection.execute(SQL.keep_columns, job.id, job.lease_token, columns)


async def check_held(connection: Connection, job: Job) -> None:
    """Raises LeaseLost: somebody else has the import, or a person has cancelled it."""
    if not await connection.fetchval(SQL.is_held, job.id, job.lease_token):
        raise LeaseLost(f"import {job.id}")


async def progress(
    connection: Connection,
    job: Job,
    taken: Taken,
    *,
    blank: int = 0,
    position: Position | None = None,
    lease_seconds: float,
) -> None:
    """Count what was taken, in the transaction that takes it. Raises LeaseLost."""
    done = (position.text, position.digest, position.source) if position else (None, None, None)
    counts = (
        blank,
        taken.added,
        taken.removed,
        taken.existing,
        taken.rejected,
        taken.kept_reserved,
        taken.kept_assigned,
    )
    if await connection.fetchval(SQL.progress, job.id, job.lease_token, *counts, *done, lease_seconds) is None:
        raise LeaseLost(f"import {job.id}")


async def note_left(connection: Connection, job: Job, *, reserved: int, assigned: int) -> None:
    await connection.execute(SQL.note_left, job.id, job.lease_token, reserved, assigned)


async def finish(connection: Connection, job: Job) -> None:
    """Raises LeaseLost."""
    await _end(connection, job, ImportState.FINISHED, None)


async def fail(connection: Connection, job: Job, reason: str) -> None:
    """End an import whose source cannot be read on; whole chunks stay. Raises LeaseLost."""
    await _end(connection, job, ImportState.FAILED, reason)


async def _end(connection: Connection, job: Job, state: ImportState, reason: str | None) -> None:
    async with connection.transaction():
        if await connection.fetchval(SQL.end, job.id, job.lease_token, state, reason) is None:
            raise LeaseLost(f"import {job.id}")
        await note(connection, job.id, f"{state}: {reason}" if reason else state)
        await _drop_upload(connection, job.source)


async def _drop_upload(connection: Connection, source: str) -> None:
    if upload_id := uploads.id_in(source):
        await uploads.drop(connection, upload_id)


async def hand_back(connection: Connection, job: Job) -> None:
    if await connection.fetchval(SQL.hand_back, job.id, job.lease_token):
        await note(connection, job.id, "handed back: its worker stops")


async def interrupted(connection: Connection, job: Job) -> int:
    """How often it was, since its last chunk, with this time. Raises LeaseLost."""
    times: int | None = await connection.fetchval(SQL.interrupted, job.id, job.lease_token)
    if times is None:
        raise LeaseLost(f"import {job.id}")
    return times


async def postpone(connection: Connection, job: Job, reason: str, *, seconds: float) -> None:
    """Try again later."""
    await connection.execute(SQL.postpone, job.id, job.lease_token, seconds)
    await note(connection, job.id, f"to be tried again in {seconds:.0f} s: {reason}")


async def renew(connection: Connection, job: Job, *, lease_seconds: float) -> None:
    """Keep the import for longer. Raises LeaseLost."""
    if await connection.fetchval(SQL.renew, job.id, job.lease_token, lease_seconds) is None:
        raise LeaseLost(f"import {job.id}")


async def cancel(connection: Connection, import_id: UUID) -> None:
    """End an import now; its committed chunks stay. Raises Conflict if it has ended, or there is none."""
    async with connection.transaction():
        source = await connection.fetchval(SQL.cancel, import_id)
        if source is None:
            found = await named(connection, import_id)
            raise Conflict(f"import {import_id} is {found.state} already")
        await note(connection, import_id, "cancelled by an operator")
        await _drop_upload(connection, source)


async def drop_old_rejections(connection: Connection, *, days: int) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DROP_SECONDS}s'")
        await connection.execute(SQL.drop_old_rejections, days * 86_400.0, timeout=DROP_SECONDS)


async def note(connection: Connection, import_id: UUID, text: str) -> None:
    """Put what happened into the import's log; never a code or an address."""
    await connection.execute(SQL.note, import_id, text)


# --- looking ---------------------------------------------------------------------------------------------------------


def _import(row: asyncpg.Record) -> Import:
    return Import(**{**row, "mode": ImportMode(row["mode"]), "state": ImportState(row["state"])})


async def find(connection: Connection, import_id: UUID) -> Import | None:
    row = await connection.fetchrow(SQL.rows, import_id, None, None, 1)
    return _import(row) if row else None


async def named(connection: Connection, import_id: UUID) -> Import:
    """Raises Conflict if there is none."""
    found = await find(connection, import_id)
    if found is None:
        raise Conflict(f"there is no import {import_id}")
    return found


async def of_list(connection: Connection, list_name: str, *, limit: int = 20) -> list[Import]:
    return [_import(row) for row in await connection.fetch(SQL.rows, None, list_name, None, limit)]


async def of_group(connection: Connection, group_name: str, *, limit: int = 20) -> list[Import]:
    return [_import(row) for row in await connection.fetch(SQL.rows, None, None, group_name, limit)]


async def events(connection: Connection, import_id: UUID) -> list[Event]:
    """Its log, from the beginning."""
    return [Event(**row) for row in await connection.fetch(SQL.events, import_id)]


async def rejections(connection: "Connection | Pool", import_id: UUID) -> AsyncIterator[Rejected]:
    """The lines that were not taken, by line. Ten thousand of them are in memory at a time.

    Of a pool, a connection is held only while these are fetched, however long they take to be used.
    """
    if not await connection.fetchval(SQL.has_rejections, import_id):
        return
    after = 0
    while row := await connection.fetchrow(SQL.rejections, import_id, after):
        for line, text, reason in sorted(zip(row["lines"], row["texts"], row["reasons"], strict=True)):
            yield as_rejected(line, text, reason, is_row=row["are_rows"])
        after = row["first_line"]


async def reason_counts(connection: Connection, import_id: UUID) -> dict[Reason, int]:
    """How many lines were not taken for which reason, the most frequent one first."""
    return {REASONS[row["reason"]]: row["lines"] for row in await connection.fetch(SQL.reason_counts, import_id)}


async def first_rejections(connection: Connection, import_id: UUID, limit: int) -> list[Rejected]:
    found: list[Rejected] = []
    async for each in rejections(connection, import_id):
        found.append(each)
        if len(found) == limit:
            break
    return found


def stored(rejected: Rejected) -> str:
    """As which a line that was not taken is kept: the code, or the whole row of a recipient as a JSON object."""
    return rejected.value if rejected.row is None else json.dumps(dict(rejected.row), ensure_ascii=False)


def as_rejected(line: int, text: str, reason: str, *, is_row: bool) -> Rejected:
    """The line again that was stored so."""
    row = json.loads(text) if is_row else None
    return Rejected(line, row[EMAIL] if row else text, REASONS[reason], row)
