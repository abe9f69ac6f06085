"""Imports into lists and groups: jobs, their events and their rejected lines.

`import_chunks` imports a chunk of lines; `uploads` stores files until they are imported.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import ValidationError

from coupons.commands import MAX_COMMAND_BYTES, Format, ImportCoupons, InvalidCommand, reasons_of
from coupons.database import Connection, Pool
from coupons.errors import Conflict, LeaseLost
from coupons.files.recipient_reader import EMAIL
from coupons.files.rejections import Reason, Rejected, describe, parse_reason
from coupons.import_progress import NOTHING_READ, Published
from coupons.paging import UnknownCursor
from coupons.states import ImportMode, ImportPhase, ImportState, TargetKind
from coupons.store import groups, inbox, lists, undo, uploads
from coupons.store.heartbeats import STALLED_SECONDS, describe_stall
from coupons.store.queries import Queries
from coupons.store.undo import Undone

SQL = Queries("imports.sql")
IMPORTS_SHOWN = 20
INLINE = "inline"
"""The format of codes from a command: one JSON string per line, because a code may contain any character."""
NOTHING_CHANGED = "nothing was changed"
REASONS_SHOWN = 4
REMOVED = "removed"
"""The value of INLINE for codes or recipients that another import removed. It is true for codes of a command."""
DELETE_TIMEOUT_SECONDS = 600
"""Long enough to delete millions of rejected lines."""


@dataclass(frozen=True, slots=True)
class Target:
    """The list to import codes into, or the group to import recipients into."""

    id: int
    name: str
    kind: TargetKind
    case_sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Progress in a source.

    `text` is the number of imported bytes of its text, `digest` their SHA-256, `source` the number of source bytes that
    were read for them.
    """

    text: int
    digest: bytes
    source: int


@dataclass(frozen=True, slots=True)
class LeasedImport:
    """An import under a lease. The first `position` bytes of its text, with this `digest`, are committed."""

    id: UUID
    target: Target
    mode: ImportMode
    source: str
    format: dict[str, Any]
    position: int
    digest: bytes | None
    lines: int
    retries: int
    checked: Sequence[bytes] | None
    """The digests of the text that was run dry, up to the end of each piece."""
    lease_token: UUID
    confirmed: bool
    allow_empty: bool
    is_resumed: bool
    """Whether an earlier worker started the import and did not finish it."""


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """The numbers of lines with each result. `kept_…` count codes that could not be removed."""

    added: int = 0
    existing: int = 0
    removed: int = 0
    rejected: int = 0
    kept_reserved: int = 0
    kept_assigned: int = 0


@dataclass(frozen=True, slots=True)
class ImportStatus:
    """The state and the counters of an import into a `list` or a `group`; the other one is None.

    `lines` = `blank` + `added` + `existing` + `rejected` (+ `removed` in mode delete). `existing` counts codes of a
    replaced list that stay in the list, or known recipients of a group, whose attributes are updated. `read_bytes` of
    `total_bytes` have been read. `done_bytes` of them are done: a byte counts half when it is read and half when it is
    imported. `phase` is reading and then, in mode replace, removing: `removed` of about `to_remove` codes or recipients
    that the file does not have are removed. `per_second` is the number of lines, or removed ones, per second. `same_as`
    is the first import of the same text into the same target; it finished at `same_at`. `columns` are the columns of
    rejected lines between line number and reason. `read_as` describes how the file was read; `notices` list what was
    assumed, skipped, cut or left out. `undone_by` is the last import that has undone this one. An undo takes back
    `removed` of `to_take_back` and restores `added` of `to_restore` codes or recipients.
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
    phase: ImportPhase | None
    read_bytes: int
    done_bytes: int
    total_bytes: int | None
    to_remove: int | None
    created_at: datetime
    finished_at: datetime | None
    stalled: bool
    same_at: datetime | None
    same_as: UUID | None
    per_second: float | None
    seconds_left: float | None
    columns: Sequence[str]
    read_as: str | None
    notices: Sequence[str]
    undone_by: UUID | None
    to_take_back: int | None
    to_restore: int | None

    @property
    def is_complete(self) -> bool:
        """Whether the import has done everything. Not if lines are rejected, or something of an undo is left."""
        return not self.rejected and self.removed >= (self.to_take_back or 0) and self.added >= (self.to_restore or 0)

    @property
    def has_changed(self) -> bool:
        """Whether the import has changed its list or group."""
        return self.added + self.existing + self.removed > 0

    @property
    def target(self) -> str:
        return self.list or self.group or ""

    @property
    def undone(self) -> UUID | None:
        """The import that this one undoes."""
        return undo.parse_source(self.source)

    @property
    def stall(self) -> str | None:
        """Why the import is stalled and what to do, as text."""
        return describe_stall("import") if self.stalled else None


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    text: str


# --- creating --------------------------------------------------------------------------------------------------------


async def create(connection: Connection, command: ImportCoupons) -> None:
    """Create the import. The codes of a command are stored as an upload, so that every import reads a source.

    Raises:
        Conflict: the list does not exist or is archived, or the upload does not exist.
    """
    await check_command(connection, command)
    if command.group is not None:
        await connection.execute(SQL.ensure_group, command.group)
    source, format_ = command.source, command.format.model_dump(exclude_defaults=True)
    if command.mode == ImportMode.UNDO:
        format_ = {INLINE: REMOVED}
    if command.codes is not None:
        source, format_ = await _store_inline_codes(connection, command.codes), {INLINE: True}
    arguments = (
        command.id, command.list, command.group, command.mode, source, format_, command.confirmed, command.allow_empty,
    )  # fmt: skip
    await connection.execute(SQL.lock_list, command.list)
    if await connection.fetchval(SQL.create, *arguments) is None:
        raise Conflict(f"there is no list {command.list}")


async def check_command(connection: Connection, command: ImportCoupons) -> None:
    """Detect errors of a command before its import is created. Raises Conflict."""
    if command.list is not None:
        await get_list_target(connection, command.list)
    if command.source and (undone := undo.parse_source(command.source)):
        await undo.check(connection, undone, list_name=command.list, group_name=command.group)
    if (upload_id := uploads.parse_source(command.source or "")) and await uploads.find(connection, upload_id) is None:
        raise Conflict(f"there is no upload {upload_id}")


async def get_list_target(connection: Connection, name: str) -> Target:
    """Return the list as a target. Raises Conflict if it does not exist or is archived."""
    (found,) = await lists.get(connection, name)
    lists.check_not_archived([found])
    return Target(found.id, found.name, TargetKind.LIST, found.case_sensitive)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a retry changes: fields of the format, and what an operator has confirmed.

    With `reset`, the format has only these fields, and everything else is detected.
    """

    format: Mapping[str, Any]
    confirmed: bool = False
    allow_empty: bool = False
    reset: bool = False


async def retry_command(connection: Connection, import_id: UUID, changes: Changes, *, new_id: UUID) -> ImportCoupons:
    """The command that repeats a failed import with the changed options, from the same upload or source.

    The format stays, except for the changes. A permission of the failed import does not stay, because it was given for
    other numbers. A repeated command is returned unchecked, because its import may have deleted the upload.

    Raises:
        Conflict: the import does not exist, has not failed, its list is deleted, or its upload is deleted.
        InvalidCommand: the changed format is invalid.
    """
    row = await connection.fetchrow(SQL.failed, import_id)
    if row is None:
        found = await get(connection, import_id)
        raise Conflict(f"import {import_id} is {found.state}: only a failed import can be retried")
    if reason := _why_never_retried(row):
        raise Conflict(reason)
    try:
        command = ImportCoupons(
            id=new_id, list=row["list"], group=row["group"], mode=row["mode"], source=row["source"],
            format=Format.model_validate({**({} if changes.reset else row["format"]), **changes.format}),
            confirmed=changes.confirmed, allow_empty=changes.allow_empty,
        )  # fmt: skip
    except ValidationError as error:
        raise InvalidCommand(reasons_of(error)) from None
    if not await inbox.is_repeated(connection, command) and (reason := await _why_not_retried(connection, row)):
        raise Conflict(reason)
    return command


async def can_be_retried(connection: Connection, import_id: UUID) -> bool:
    """Whether this is a failed import with something to read again: an upload that is kept and not empty, or a URL."""
    row = await connection.fetchrow(SQL.failed, import_id)
    return row is not None and row["total_bytes"] != 0 and await _why_not_retried(connection, row) is None


def _why_never_retried(failed: asyncpg.Record) -> str | None:
    """Why a failed import has nothing that can be read again, or no list, or None."""
    if undone := undo.parse_source(failed["source"]):
        return f"import {failed['id']} is an undo: repeat it with `coupons import undo {undone}`"
    if INLINE in failed["format"]:
        return f"import {failed['id']} has no file that can be read again: publish a new command"
    if failed["is_gone"]:
        return f"the list of import {failed['id']} is deleted"
    return None


async def _why_not_retried(connection: Connection, failed: asyncpg.Record) -> str | None:
    """Why the file of a failed import cannot be read again, or None."""
    if reason := _why_never_retried(failed):
        return reason
    upload_id = uploads.parse_source(failed["source"])
    if upload_id is None or await uploads.find(connection, upload_id):
        return None
    if imported := await connection.fetchval(SQL.finished_of_source, failed["id"]):
        return f"the file of import {failed['id']} was imported by import {imported}"
    return (
        f"the file of import {failed['id']} is deleted: it is kept for {uploads.KEPT_HOURS} h after a failure; "
        "import the file again"
    )


async def undo_command(connection: Connection, import_id: UUID, *, new_id: UUID) -> ImportCoupons:
    """The command that undoes an import. Raises Conflict if the import does not exist."""
    found = await get(connection, import_id)
    return ImportCoupons(
        id=new_id, list=found.list, group=found.group, mode=ImportMode.UNDO, source=f"{undo.SCHEME}{import_id}"
    )


async def _store_inline_codes(connection: Connection, codes: Iterable[str]) -> str:
    async def piece() -> AsyncIterator[bytes]:
        yield "".join(f"{json.dumps(code)}\n" for code in codes).encode()

    return f"upload:{(await uploads.store(connection, 'inline', piece(), max_bytes=6 * MAX_COMMAND_BYTES)).id}"


# --- working ---------------------------------------------------------------------------------------------------------


async def claim(
    connection: Connection, *, owner: str, lease_seconds: float, import_id: UUID | None = None
) -> LeasedImport | None:
    """Claim the oldest import that waits or was left by a dead worker. With `import_id`, claim only that import.

    Returns None if there is no such import.
    """
    row = await connection.fetchrow(SQL.claim, owner, lease_seconds, import_id)
    if row is None:
        return None
    columns = {**row, "mode": ImportMode(row["mode"])}
    list_id, group_id = columns.pop("list_id"), columns.pop("group_id")
    list_name, group_name = columns.pop("list"), columns.pop("group")
    case_sensitive = columns.pop("case_sensitive")
    columns.pop("read_bytes")
    if list_id is None:
        return LeasedImport(**columns, target=Target(group_id, group_name, TargetKind.GROUP))
    return LeasedImport(**columns, target=Target(list_id, list_name, TargetKind.LIST, case_sensitive))


async def seconds_until_due(connection: Connection) -> float | None:
    """The time until the next postponed import is due. None if no import is postponed."""
    seconds: float | None = await connection.fetchval(SQL.seconds_until_due)
    return seconds


async def set_total_bytes(connection: Connection, job: LeasedImport, total_bytes: int | None) -> None:
    """Store the size of the source, if known, before it is read."""
    await connection.execute(SQL.set_total_bytes, job.id, job.lease_token, total_bytes)


async def set_columns(connection: Connection, job: LeasedImport, columns: Sequence[str]) -> None:
    """Store the column names of a group's file. Call this before its first rejected row is stored."""
    await connection.execute(SQL.set_columns, job.id, job.lease_token, columns)


async def set_columns_of_group(connection: Connection, job: LeasedImport) -> None:
    """Let the columns of rejected recipients be those of the group."""
    await connection.execute(SQL.set_columns_of_group, job.id, job.lease_token)


async def set_notices(connection: Connection, job: LeasedImport, read_as: str, notices: Sequence[str]) -> None:
    """Store how the import reads its file, and what it assumed, skipped, cut or left out so far."""
    await connection.execute(SQL.set_notices, job.id, job.lease_token, read_as, notices)


async def get_notices(connection: Connection, job: LeasedImport) -> list[str]:
    """The notices that were stored so far."""
    notices: list[str] = await connection.fetchval(SQL.get_notices, job.id)
    return notices


async def set_checked(connection: Connection, job: LeasedImport, digests: Sequence[bytes]) -> None:
    """Store the digests of the text that was run dry, so that a worker after a crash knows them. Raises LeaseLost."""
    if await connection.fetchval(SQL.set_checked, job.id, job.lease_token, digests) is None:
        raise LeaseLost(f"import {job.id}")


async def check_lease(connection: Connection, job: LeasedImport) -> None:
    """Check the lease. Raises LeaseLost if another worker has claimed the import or it was cancelled."""
    if not await connection.fetchval(SQL.holds_lease, job.id, job.lease_token):
        raise LeaseLost(f"import {job.id}")


async def record_progress(
    connection: Connection,
    job: LeasedImport,
    counts: ChunkCounts,
    *,
    blank: int = 0,
    position: Position | None = None,
    lease_seconds: float,
) -> None:
    """Count the lines of a chunk, in the transaction that imports it. Raises LeaseLost."""
    done = (position.text, position.digest, position.source) if position else (None, None, None)
    counted = {"blank": blank, **asdict(counts)}
    if await connection.fetchval(SQL.record_progress, job.id, job.lease_token, counted, *done, lease_seconds) is None:
        raise LeaseLost(f"import {job.id}")


async def record_kept(connection: Connection, job: LeasedImport, *, reserved: int = 0, assigned: int = 0) -> None:
    """Store how many codes an import in mode replace could not remove."""
    await connection.execute(SQL.record_kept, job.id, job.lease_token, reserved, assigned)


async def begin_removing(connection: Connection, job: LeasedImport) -> None:
    """Begin the phase in which an import in mode replace removes what the file does not have.

    Raises:
        LeaseLost: another worker has claimed the import.
        Conflict: no line was accepted, so nothing of the file would remain, and the command does not allow this.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DELETE_TIMEOUT_SECONDS}s'")
        begun = await connection.fetchval(SQL.begin_removing, job.id, job.lease_token, timeout=DELETE_TIMEOUT_SECONDS)
    if begun is None:
        await check_lease(connection, job)
        why = in_words(await count_reasons(connection, job.id))
        raise Conflict(f"no line was accepted{why}: {NOTHING_CHANGED}; --allow-empty (allow_empty) permits it")


async def begin_taking_back(connection: Connection, job: LeasedImport, undone: Undone) -> None:
    """Begin the phase in which an undo removes what the undone import added. Raises LeaseLost."""
    arguments = job.id, job.lease_token, undone.id, undone.first_id, undone.keepers, undone.last_id
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DELETE_TIMEOUT_SECONDS}s'")
        begun = await connection.fetchval(undo.SQL.begin_taking_back, *arguments, timeout=DELETE_TIMEOUT_SECONDS)
    if begun is None:
        raise LeaseLost(f"import {job.id}")


async def get_undone(connection: Connection, job: LeasedImport) -> Undone:
    """The import that an undo takes back."""
    undone = undo.parse_source(job.source)
    assert undone  # noqa: S101 - a command in mode undo has such a source
    return await undo.get(connection, undone, job.id)


async def check_removed(connection: Connection, job: LeasedImport) -> None:
    """Check, before an undo changes anything, that all of what it restores is kept. Raises Conflict."""
    undone = await get_undone(connection, job)
    kept = await connection.fetchval(undo.SQL.count_kept, undone.id, timeout=undo.COUNT_TIMEOUT_SECONDS)
    if kept < undone.removed:
        raise Conflict(
            f"a part of what import {undone.id} removed is deleted: {kept:,} of {undone.removed:,} left; "
            f"{NOTHING_CHANGED}"
        )


async def record_undo(connection: Connection, job: LeasedImport, undone: Undone) -> None:
    """Store what an undo did, and what it could not take back and why."""
    done = await get(connection, job.id)
    if job.target.kind is TargetKind.GROUP:
        notices = undo.notices_of_group(undone, restored=done.added, taken_back=done.removed)
    else:
        left = await undo.count_not_taken_back(connection, job.target.id, undone)
        await record_kept(connection, job, reserved=left.reserved, assigned=left.assigned + left.sent)
        notices = undo.notices_of_list(undone, left, restored=done.added, taken_back=done.removed)
    await set_notices(connection, job, "", notices)


async def finish(connection: Connection, job: LeasedImport) -> None:
    """End an import that is complete. Raises LeaseLost."""
    await _end(connection, job, ImportState.FINISHED, None)


async def fail(connection: Connection, job: LeasedImport, reason: str) -> None:
    """End an import with an error; its committed chunks stay, and its upload is kept for a retry. Raises LeaseLost."""
    await _end(connection, job, ImportState.FAILED, reason)


async def _end(connection: Connection, job: LeasedImport, state: ImportState, reason: str | None) -> None:
    async with connection.transaction():
        if state is ImportState.FAILED:
            await groups.lock_of_import(connection, job.id)
        if await connection.fetchval(SQL.end, job.id, job.lease_token, state, reason) is None:
            raise LeaseLost(f"import {job.id}")
        await log_event(connection, job.id, f"{state}: {reason}" if reason else state)
        if state is ImportState.FAILED:
            await _keep_upload(connection, job)
            await groups.delete_if_unused(connection, job.id)
        else:
            await _delete_upload(connection, job.source)


async def _delete_upload(connection: Connection, source: str) -> None:
    if upload_id := uploads.parse_source(source):
        await uploads.delete(connection, upload_id)


async def _keep_upload(connection: Connection, job: LeasedImport) -> None:
    """Keep the upload of a failed import for a retry. The codes of a command are deleted: no retry can use them."""
    if INLINE in job.format:
        await _delete_upload(connection, job.source)
    elif upload_id := uploads.parse_source(job.source):
        await uploads.keep(connection, upload_id)


async def release(connection: Connection, job: LeasedImport) -> None:
    """Release the lease at the shutdown of a worker, so that the next worker can claim the import."""
    if await connection.fetchval(SQL.release, job.id, job.lease_token):
        await log_event(connection, job.id, "released: worker shutting down")


async def count_retry(connection: Connection, job: LeasedImport) -> int:
    """Count a retry. Returns the number of retries since the last chunk, including this one. Raises LeaseLost."""
    retries: int | None = await connection.fetchval(SQL.count_retry, job.id, job.lease_token)
    if retries is None:
        raise LeaseLost(f"import {job.id}")
    return retries


async def postpone(connection: Connection, job: LeasedImport, reason: str, *, seconds: float) -> None:
    """Release the import and retry it after `seconds`."""
    await connection.execute(SQL.postpone, job.id, job.lease_token, seconds)
    await log_event(connection, job.id, f"retrying in {seconds:.0f} s: {reason}")


async def renew(
    connection: Connection, job: LeasedImport, published: Published = NOTHING_READ, *, lease_seconds: float
) -> None:
    """Extend the lease and publish the progress. Raises LeaseLost."""
    arguments = job.id, job.lease_token, lease_seconds, published.read, published.done
    if await connection.fetchval(SQL.renew, *arguments) is None:
        raise LeaseLost(f"import {job.id}")


async def cancel(connection: Connection, import_id: UUID) -> None:
    """End an import now. Its committed chunks stay. Raises Conflict if the import has ended or does not exist."""
    async with connection.transaction():
        await groups.lock_of_import(connection, import_id)
        source = await connection.fetchval(SQL.cancel, import_id)
        if source is None:
            found = await get(connection, import_id)
            raise Conflict(f"import {import_id} is already {found.state}")
        await log_event(connection, import_id, "cancelled by an operator")
        if upload_id := uploads.parse_source(source):
            await uploads.delete_unless_kept(connection, upload_id)
        await groups.delete_if_unused(connection, import_id)


async def delete_old_rejections(connection: Connection, *, days: int) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DELETE_TIMEOUT_SECONDS}s'")
        await connection.execute(SQL.delete_old_rejections, days * 86_400.0, timeout=DELETE_TIMEOUT_SECONDS)


async def log_event(connection: Connection, import_id: UUID, text: str) -> None:
    """Add an event to the log of the import. The text never contains a code or an address."""
    await connection.execute(SQL.log_event, import_id, text)


# --- reading ---------------------------------------------------------------------------------------------------------


def _status(row: asyncpg.Record) -> ImportStatus:
    phase = ImportPhase(row["phase"]) if row["phase"] else None
    return ImportStatus(**{**row, "mode": ImportMode(row["mode"]), "state": ImportState(row["state"]), "phase": phase})


async def find(connection: Connection, import_id: UUID) -> ImportStatus | None:
    row = await connection.fetchrow(SQL.rows, import_id, None, None, 1, STALLED_SECONDS, None, None)
    return _status(row) if row else None


async def get(connection: Connection, import_id: UUID) -> ImportStatus:
    """The import with this id. Raises Conflict if it does not exist."""
    found = await find(connection, import_id)
    if found is None:
        raise Conflict(f"there is no import {import_id}")
    return found


async def list_for_list(
    connection: Connection, list_name: str, *, limit: int = IMPORTS_SHOWN, before: UUID | None = None
) -> list[ImportStatus]:
    """The newest imports into the list, optionally before another import. Raises UnknownCursor."""
    return await _list_newest(connection, list_name, None, limit, before)


async def list_for_group(
    connection: Connection, group_name: str, *, limit: int = IMPORTS_SHOWN, before: UUID | None = None
) -> list[ImportStatus]:
    """The newest imports into the group, optionally before another import. Raises UnknownCursor."""
    return await _list_newest(connection, None, group_name, limit, before)


async def _list_newest(
    connection: Connection, list_name: str | None, group_name: str | None, limit: int, before: UUID | None
) -> list[ImportStatus]:
    created_at = await connection.fetchval(SQL.created_at, before) if before else None
    if before and created_at is None:
        raise UnknownCursor(f"before: there is no import {before}")
    rows = await connection.fetch(SQL.rows, None, list_name, group_name, limit, STALLED_SECONDS, created_at, before)
    return [_status(row) for row in rows]


async def list_events(connection: Connection, import_id: UUID) -> list[Event]:
    """The log of an import, oldest event first."""
    return [Event(**row) for row in await connection.fetch(SQL.list_events, import_id)]


async def iter_rejections(connection: "Connection | Pool", import_id: UUID) -> AsyncIterator[Rejected]:
    """The rejected lines, by line number. At most ten thousand of them are in memory at a time.

    With a pool, a connection is held only while lines are fetched, not while they are processed.
    """
    if not await connection.fetchval(SQL.has_rejections, import_id):
        return
    after = 0
    while row := await connection.fetchrow(SQL.next_rejections, import_id, after):
        for line, text, reason in sorted(zip(row["lines"], row["texts"], row["reasons"], strict=True)):
            yield rejection_from_text(line, text, reason, is_row=row["are_rows"])
        after = row["first_line"]


async def count_reasons(connection: Connection, import_id: UUID) -> dict[str, int]:
    """The number of rejected lines for each reason in words, the most frequent reason first."""
    rows = await connection.fetch(SQL.count_reasons, import_id)
    return {describe(*parse_reason(row["reason"])): row["lines"] for row in rows}


def in_words(reasons: Mapping[str, int], most: int = REASONS_SHOWN) -> str:
    """The most frequent reasons with their numbers, such as ` (3 already sent, 1 looks like a URL)`; none: no text."""
    shown = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))[:most]
    parts = [f"{lines:,} {reason}" for reason, lines in shown]
    others = sum(reasons.values()) - sum(lines for _, lines in shown)
    return f" ({', '.join((*parts, f'{others:,} others') if others else parts)})" if parts else ""


async def list_first_rejections(connection: Connection, import_id: UUID, limit: int) -> list[Rejected]:
    found: list[Rejected] = []
    async for each in iter_rejections(connection, import_id):
        found.append(each)
        if len(found) == limit:
            break
    return found


def rejection_to_text(rejected: Rejected) -> str:
    """The stored text of a rejected line.

    For a recipient, it is the whole row as a JSON object, with the cells that belong to no column under an empty name.
    For a code, it is the code; with cells that belong to no column, it is a JSON array.
    """
    if rejected.row is not None:
        extra = {"": rejected.extra} if rejected.extra else {}
        return json.dumps({**rejected.row, **extra}, ensure_ascii=False)
    return json.dumps([rejected.value, *rejected.extra], ensure_ascii=False) if rejected.extra else rejected.value


def rejection_from_text(line: int, text: str, reason: str, *, is_row: bool) -> Rejected:
    """The rejected line for a text from `rejection_to_text`."""
    parsed, detail = parse_reason(reason)
    if is_row:
        row = json.loads(text)
        extra = tuple(row.pop("", ()))
        return Rejected(line, row[EMAIL], parsed, row, detail, extra)
    value, *cells = _cells_of(text) if parsed is Reason.COLUMNS else (text,)
    return Rejected(line, value, parsed, None, detail, tuple(cells))


def _cells_of(text: str) -> list[str]:
    """The cells of a rejected row. Until version 0.9, they were stored as one text."""
    try:
        cells = json.loads(text) if text.startswith("[") else [text]
    except ValueError:
        return [text]
    return cells if isinstance(cells, list) and cells and all(isinstance(each, str) for each in cells) else [text]
