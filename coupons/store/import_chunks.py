"""One chunk of an import: its lines are staged piece by piece, then taken into their list or group in one transaction.

What was taken, why the other lines were not, the counters of the list and the position of the import are committed
together. A worker that dies anywhere leaves whole chunks behind; the next one goes on after them.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import UUID

from coupons.database import TRANSIENT_ERRORS, Connection, affected
from coupons.files.codes import CheckedCodes
from coupons.files.recipient_reader import CheckedRecipients
from coupons.files.rejections import Rejected
from coupons.states import ImportMode, TargetKind
from coupons.store import imports
from coupons.store.imports import Job, Position, Taken, Target, as_rejected
from coupons.store.queries import Queries

SQL = Queries("import_chunks.sql")
TAKE_SECONDS = 605  # the server's 600 come first, and say what it was
"""What the statements over a chunk may take; one of a million codes takes some five seconds."""
MERGE_FACTOR = 5
"""A list more than so many times larger than the chunk is not read whole: the codes are looked up one by one."""
LEAST_NOTED = 10_000
"""Lines of a chunk whose digest is worth a row."""
REMOVED_AT_ONCE = 20_000
LINES_A_ROW = 10_000
ANY_ID = 2**63 - 1
NO_IMPORT = UUID(int=0)
READ_AT_ONCE = 10_000


def _rejecting(lines: str) -> str:
    """Note these lines, a row of the table for each 10,000 of the file: $1 the import.

    They are not sorted: a row's lines are in the memory of whoever reads it.
    """
    return f"""
INSERT INTO import_rejection (import_id, first_line, lines, texts, reasons)
SELECT $1, min(line), array_agg(line), array_agg(text), array_agg(reason)
FROM ({lines.rstrip(";")}) rejected GROUP BY line / {LINES_A_ROW}
RETURNING cardinality(lines) AS rejected"""


_REJECT_NOT_TAKEN = f"""{_rejecting(SQL.not_taken)},
          cardinality(array_positions(reasons, 'reserved')) AS reserved,
          cardinality(array_positions(reasons, 'assigned')) AS assigned"""
_REJECT_ALL_KNOWN = _rejecting(SQL.all_known)
_REJECT_STAGED = _rejecting(SQL.staged_rejections)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an import would do: new lines, kept and removed ones, and how many are not taken for which reason."""

    added: int
    existing: int
    removed: int
    reasons: dict[str, int]
    kept_reserved: int = 0
    """Codes that a replacing import would have to leave."""


# --- staging ---------------------------------------------------------------------------------------------------------


async def begin(connection: Connection) -> None:
    """Nothing is staged."""
    await connection.execute(SQL.staging)


async def end(connection: Connection) -> None:
    """Codes do not lie about in sessions that are used again. A connection that is broken has none any more."""
    with suppress(*TRANSIENT_ERRORS):
        await begin(connection)


async def stage_codes(connection: Connection, checked: CheckedCodes) -> None:
    await connection.copy_records_to_table(
        "staged_code", records=zip(checked.lines, checked.codes, strict=True), columns=["line", "code"]
    )
    await _stage_rejected(connection, checked.rejected)


async def stage_recipients(connection: Connection, checked: CheckedRecipients) -> None:
    rows = zip(checked.lines, checked.keys, checked.addresses, checked.attributes, strict=True)
    columns = ["line", "address_key", "address", "attributes"]
    await connection.copy_records_to_table("staged_recipient", records=rows, columns=columns)
    await _stage_rejected(connection, checked.rejected)


async def _stage_rejected(connection: Connection, rejected: list[Rejected]) -> None:
    if rejected:
        rows = ((each.line, imports.stored(each), each.reason.value) for each in rejected)
        await connection.copy_records_to_table("staged_rejection", records=rows, columns=["line", "text", "reason"])


# --- taking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is staged: `lines` that may be taken, and besides `blank` ones. `digest` is that of the codes, in order."""

    lines: int
    blank: int
    digest: bytes


async def take(connection: Connection, job: Job, chunk: Chunk, *, position: Position, lease_seconds: float) -> None:
    """Take what is staged; `position` of the source is then done. Raises LeaseLost; nothing is written."""
    async with connection.transaction():
        await connection.execute(SQL.plan)
        await _one_at_a_time(connection, job.target)
        if job.target.kind is TargetKind.GROUP:
            taken = await _take_recipients(connection, job)
        else:
            taken = await _take_codes(connection, job, chunk)
            await connection.execute(SQL.move_counters, job.target.id, taken.added, taken.removed)
        await imports.progress(
            connection, job, taken, blank=chunk.blank, position=position, lease_seconds=lease_seconds
        )


async def _take_codes(connection: Connection, job: Job, chunk: Chunk) -> Taken:
    match job.mode:
        case ImportMode.ADD:
            return await _add(connection, job, chunk)
        case ImportMode.REPLACE:
            return await _replace(connection, job, chunk)
        case ImportMode.DELETE:
            return await _delete(connection, job, chunk)


async def _add(connection: Connection, job: Job, chunk: Chunk) -> Taken:
    """Most chunks are new from end to end, or known: only of the others is looked up which of their codes are which."""
    if await connection.fetchval(SQL.is_known, job.target.id, chunk.digest, job.id):
        return await _reject(connection, _REJECT_ALL_KNOWN, Taken(), job.id, job.target.id)
    taken = await _add_line_by_line(connection, job, chunk)
    if chunk.lines >= LEAST_NOTED:
        await connection.execute(SQL.note_chunk, job.target.id, chunk.digest, job.id)
    return taken


async def _add_line_by_line(connection: Connection, job: Job, chunk: Chunk) -> Taken:
    if await connection.fetchval(SQL.looks_new, job.target.id):
        before = await connection.fetchval(SQL.last_id)
        added = await _affected(connection, SQL.add_new, job.target.id, job.id)
        if added == chunk.lines:
            return await _reject(connection, _REJECT_STAGED, Taken(added=added), job.id)
        await _note_known(connection, job.target.id, job.id, chunk.lines, before=before)
    else:
        await _note_known(connection, job.target.id, job.id, chunk.lines)
        added = await _affected(connection, SQL.add, job.target.id, job.id)
    await _execute(connection, SQL.repeated)
    return await _reject(connection, _REJECT_NOT_TAKEN, Taken(added=added), job.id, job.mode)


async def _replace(connection: Connection, job: Job, chunk: Chunk) -> Taken:
    await _note_known(connection, job.target.id, job.id, chunk.lines)
    kept = await _affected(connection, SQL.take_over, job.target.id, job.id)
    added = await _affected(connection, SQL.add, job.target.id, job.id)
    await _execute(connection, SQL.repeated)
    return await _reject(connection, _REJECT_NOT_TAKEN, Taken(added=added, existing=kept), job.id, job.mode)


async def _delete(connection: Connection, job: Job, chunk: Chunk) -> Taken:
    await _note_known(connection, job.target.id, job.id, chunk.lines)
    available = await connection.fetchval(SQL.lock_list, job.target.id)
    removed = await _affected(connection, SQL.delete, job.target.id, available)
    await _execute(connection, SQL.repeated)
    return await _reject(connection, _REJECT_NOT_TAKEN, Taken(removed=removed), job.id, job.mode)


async def _note_known(
    connection: Connection, list_id: int, import_id: UUID, lines: int, *, before: int = ANY_ID
) -> None:
    """Note which codes of the chunk the list had `before` this import brought more, or a deleted list has sent.

    In the way that is faster for the sizes of list and chunk.
    """
    if total := await connection.fetchval(SQL.list_total, list_id):
        search = SQL.known_by_merge if total <= MERGE_FACTOR * lines else SQL.known_by_probe
        await connection.execute(SQL.plan_merge)
        await _execute(connection, search, list_id, import_id, before)
        await connection.execute(SQL.plan)
    await _execute(connection, SQL.spent)


async def _take_recipients(connection: Connection, job: Job) -> Taken:
    if job.mode == ImportMode.DELETE:
        counted = await connection.fetchrow(SQL.delete_recipients, job.target.id, timeout=TAKE_SECONDS)
    else:
        counted = await connection.fetchrow(SQL.add_recipients, job.target.id, job.id, timeout=TAKE_SECONDS)
    return await _reject(connection, _REJECT_STAGED, Taken(**dict(counted or {})), job.id)


async def _reject(connection: Connection, statement: str, taken: Taken, *arguments: object) -> Taken:
    rows = await connection.fetch(statement, *arguments, timeout=TAKE_SECONDS)
    return taken.but(
        rejected=sum(row["rejected"] for row in rows),
        kept_reserved=sum(row.get("reserved", 0) for row in rows),
        kept_assigned=sum(row.get("assigned", 0) for row in rows),
    )


async def _one_at_a_time(connection: Connection, target: Target) -> None:
    await connection.execute(
        SQL.one_at_a_time, "recipient_group" if target.kind is TargetKind.GROUP else "coupon_list", target.id
    )


async def _affected(connection: Connection, statement: str, *arguments: object) -> int:
    return affected(await _execute(connection, statement, *arguments))


async def _execute(connection: Connection, statement: str, *arguments: object) -> str:
    return await connection.execute(statement, *arguments, timeout=TAKE_SECONDS)


# --- what a replacing import did not bring ---------------------------------------------------------------------------


async def remove_replaced(connection: Connection, job: Job, *, lease_seconds: float) -> AsyncIterator[int]:
    """Remove what is free and was not brought, 20,000 a transaction; yields how many each has removed.

    Codes that sendouts were promised stay, and are counted at the end. Raises LeaseLost.
    """
    last: int | str | None = "" if job.target.kind is TargetKind.GROUP else 0
    while last is not None:
        async with connection.transaction():
            await connection.execute(SQL.patience)
            await _one_at_a_time(connection, job.target)
            if job.target.kind is TargetKind.GROUP:
                row = await connection.fetchrow(
                    SQL.remove_recipients, job.target.id, job.id, last, REMOVED_AT_ONCE, timeout=TAKE_SECONDS
                )
                removed, last = (row["removed"], row["last"]) if row else (0, None)
            else:
                removed, last = await _remove_codes(connection, job, last)
            await imports.progress(connection, job, Taken(removed=removed), lease_seconds=lease_seconds)
        yield removed
    if job.target.kind is TargetKind.LIST:
        async with connection.transaction():
            await connection.execute(SQL.patience)
            left = await connection.fetchrow(SQL.left, job.target.id, job.id, timeout=TAKE_SECONDS)
            await imports.note_left(
                connection, job, reserved=left["reserved"], assigned=left["assigned"]
            ) if left else None


async def _remove_codes(connection: Connection, job: Job, after: object) -> tuple[int, int | None]:
    """How many were removed, and the last one that was looked at. They are found before the list is locked."""
    ids = await connection.fetchval(SQL.replaced, job.target.id, job.id, after, REMOVED_AT_ONCE, timeout=TAKE_SECONDS)
    available = await connection.fetchval(SQL.lock_list, job.target.id)
    removed = await _affected(connection, SQL.remove_replaced, job.target.id, ids, available)
    await connection.execute(SQL.move_counters, job.target.id, 0, removed)
    return removed, ids[-1] if ids and available else None


# --- a dry run -------------------------------------------------------------------------------------------------------


async def judge(connection: Connection, target: Target, mode: ImportMode, *, lines: int) -> Verdict:
    """What would become of all that is staged, `lines` that may be taken. Runs in the caller's transaction."""
    await connection.execute(SQL.plan)
    if target.kind is TargetKind.GROUP:
        return await _judge_recipients(connection, target, mode)
    await _note_known(connection, target.id, NO_IMPORT, lines)
    await _execute(connection, SQL.repeated)
    kept = await _affected(connection, SQL.judge_take_over) if mode == ImportMode.REPLACE else 0
    removed = await _affected(connection, SQL.judge_delete, target.id) if mode == ImportMode.DELETE else 0
    reasons = await _counted(connection, mode)
    invalid = sum((await _counted_staged(connection)).values())
    added = lines - (sum(reasons.values()) - invalid) - kept - removed
    verdict = Verdict(added, kept, removed, reasons)
    return await _with_replaced(connection, target, verdict) if mode == ImportMode.REPLACE else verdict


async def _with_replaced(connection: Connection, target: Target, verdict: Verdict) -> Verdict:
    """With what would go because the file does not bring it."""
    row = await connection.fetchrow(
        SQL.judge_replaced, target.id, verdict.existing, verdict.added, timeout=TAKE_SECONDS
    )
    return replace(verdict, removed=row["removed"], kept_reserved=row["reserved"]) if row else verdict


async def _judge_recipients(connection: Connection, target: Target, mode: ImportMode) -> Verdict:
    row = await connection.fetchrow(SQL.judge_recipients, target.id, mode, timeout=TAKE_SECONDS)
    added, known = (row["added"], row["existing"]) if row else (0, 0)
    reasons = await _counted_staged(connection)
    match mode:
        case ImportMode.DELETE:
            return Verdict(0, 0, known, reasons)
        case ImportMode.REPLACE:
            total = await connection.fetchval(SQL.group_size, target.id)
            return Verdict(added, known, total - known, reasons)
        case ImportMode.ADD:
            return Verdict(added, known, 0, reasons)


async def _counted(connection: Connection, mode: ImportMode) -> dict[str, int]:
    counted = f"SELECT reason, count(*) AS lines FROM ({SQL.not_taken.rstrip(';')}) judged GROUP BY reason"
    rows = await connection.fetch(counted, NO_IMPORT, mode, timeout=TAKE_SECONDS)
    return {row["reason"]: row["lines"] for row in rows}


async def _counted_staged(connection: Connection) -> dict[str, int]:
    return {row["reason"]: row["lines"] for row in await connection.fetch(SQL.count_staged_rejections)}


async def judged(connection: Connection, target: Target, mode: ImportMode) -> AsyncIterator[Rejected]:
    """The lines that would not be taken, after `judge` and in its transaction, by line."""
    statement, arguments = (
        (SQL.staged_rejections, ()) if target.kind is TargetKind.GROUP else (SQL.not_taken, (NO_IMPORT, mode))
    )
    lines = connection.cursor(
        f"{statement.rstrip(';')} ORDER BY line", *arguments, prefetch=READ_AT_ONCE, timeout=TAKE_SECONDS
    )
    async for row in lines:
        yield as_rejected(row["line"], row["text"], row["reason"], is_row=target.kind is TargetKind.GROUP)
