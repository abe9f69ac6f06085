"""Chunks of an import: the lines of a chunk are staged, then imported into their list or group in one transaction.

The transaction writes accepted and rejected lines, the counters of the list and the position of the import. So a crash
leaves only whole chunks behind, and the next worker continues after the last of them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from coupons.database import TRANSIENT_ERRORS, Connection, affected
from coupons.files.code_shapes import Profile
from coupons.files.codes import CheckedCodes, fold_all, fold_codes, spellings
from coupons.files.recipient_reader import CheckedRecipients
from coupons.files.rejections import Reason, Rejected
from coupons.states import ImportMode, TargetKind
from coupons.store import imports, list_shapes
from coupons.store.imports import ChunkCounts, LeasedImport, Position, Target, rejection_from_text
from coupons.store.queries import Queries
from coupons.store.undo import Undone

SQL = Queries("import_chunks.sql")
CHUNK_TIMEOUT_SECONDS = 605  # more than the server's own limit of 600 s, whose error is more precise
"""Time limit of one statement over a chunk. A chunk of a million codes takes about five seconds."""
MERGE_FACTOR = 5
"""If all lists have at most this many times as many codes as the chunk, the index is read whole. Otherwise each code of
the chunk is looked up."""
MIN_RECORDED_LINES = 10_000
"""The digest of a chunk is recorded only if the chunk has at least this many lines."""
MOST_LOOKUPS = 4
"""How often the codes of a chunk are looked up, because other imports add them at the same moment."""
REMOVE_BATCH_SIZE = 20_000
LINES_PER_ROW = 10_000
NO_IMPORT = UUID(int=0)
PREFETCH_ROWS = 10_000


def _insert_rejections(select: str) -> str:
    """The statement that stores the selected lines as rejected by import $1: one row for each 10,000 lines of the file.

    The lines of a row are not sorted: a reader sorts them in memory.
    """
    return f"""
INSERT INTO import_rejection (import_id, first_line, lines, texts, reasons)
SELECT $1, min(line), array_agg(line), array_agg(text), array_agg(reason)
FROM ({select.rstrip(";")}) rejected GROUP BY line / {LINES_PER_ROW}
RETURNING cardinality(lines) AS rejected"""


_INSERT_REJECTED_LINES = f"""{_insert_rejections(SQL.rejected_lines)},
          cardinality(array_positions(reasons, 'reserved')) AS reserved,
          cardinality(array_positions(reasons, 'assigned')) AS assigned"""
_INSERT_LINES_OF_IMPORTED_CHUNK = _insert_rejections(SQL.lines_of_imported_chunk)
_INSERT_STAGED_REJECTIONS = _insert_rejections(SQL.staged_rejections)


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """The result of a dry run: the numbers of new and existing lines, and of rejected lines by reason.

    In mode delete, `removed` is a number of lines; in mode replace, of codes or recipients that the file does not have.
    """

    added: int
    existing: int
    removed: int
    reasons: dict[str, int]
    kept_reserved: int = 0
    """Codes that could not be removed, because they are reserved for sendouts."""
    kept_assigned: int = 0
    """Codes that could not be removed, because they are assigned to recipients."""

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())


class ConcurrentChange(asyncpg.SerializationError):
    """Other imports change codes of the chunk at the same moment. The chunk is imported again later."""


# --- staging ---------------------------------------------------------------------------------------------------------


async def prepare_staging(connection: Connection) -> None:
    """Create or empty the staging tables of this connection."""
    await connection.execute(SQL.prepare_staging)


async def discard_staging(connection: Connection) -> None:
    """Empty the staging tables, so that no codes stay in a pooled session. A broken connection has lost its tables."""
    with suppress(*TRANSIENT_ERRORS):
        await prepare_staging(connection)


async def stage_codes(connection: Connection, checked: CheckedCodes, *, case_sensitive: bool = False) -> None:
    """Stage checked lines. A code of a case-sensitive list is stored with its fold, even if it is ASCII."""
    columns: tuple[Sequence[object], ...] = (checked.lines, checked.codes)
    if case_sensitive:
        columns = (*columns, fold_all(checked.codes))
    elif not all(map(str.isascii, checked.codes)):
        columns = (*columns, fold_codes(checked.codes))
    await connection.copy_records_to_table(
        "staged_code", records=zip(*columns, strict=True), columns=["line", "code", "fold"][: len(columns)]
    )
    await _stage_rejected(connection, checked.rejected)


async def stage_recipients(connection: Connection, checked: CheckedRecipients) -> None:
    rows = zip(checked.lines, checked.keys, checked.addresses, checked.attributes, strict=True)
    columns = ["line", "address_key", "address", "attributes"]
    await connection.copy_records_to_table("staged_recipient", records=rows, columns=columns)
    await _stage_rejected(connection, checked.rejected)


async def start_chunk(connection: Connection, line: int) -> None:
    """Record for a dry run that a chunk of the import would start at this line."""
    await connection.execute(SQL.start_chunk, line)


async def _stage_rejected(connection: Connection, rejected: list[Rejected]) -> None:
    if rejected:
        rows = ((each.line, imports.rejection_to_text(each), each.stored_reason) for each in rejected)
        await connection.copy_records_to_table("staged_rejection", records=rows, columns=["line", "text", "reason"])


# --- query plans -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _chunk_transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction whose statements run with the planner settings and the time limit for chunks."""
    async with connection.transaction():
        await connection.execute(SQL.hash_plan)
        yield


@asynccontextmanager
async def _merge_plan(connection: Connection) -> AsyncIterator[None]:
    """The planner settings for statements that read along the index of codes. Afterwards those of chunks apply."""
    await connection.execute(SQL.merge_plan)
    yield
    await connection.execute(SQL.hash_plan)  # an error aborts the transaction, and with it these settings


@asynccontextmanager
async def _long_transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction with the time limit for statements that read a whole list or group."""
    async with connection.transaction():
        await connection.execute(SQL.long_timeout)
        yield


# --- importing a chunk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """The numbers of staged lines to import and of blank lines, and the digest of the codes, in order.

    The first chunk also has the `shapes` of the file's codes.
    """

    lines: int
    blank: int
    digest: bytes
    shapes: Profile | None = None
    """The shapes of the file's codes, with the first chunk of an import."""


async def import_chunk(
    connection: Connection, job: LeasedImport, chunk: Chunk, *, position: Position, lease_seconds: float
) -> None:
    """Import the staged lines and advance the import to `position`. Raises LeaseLost without writing anything."""
    async with _chunk_transaction(connection):
        await _lock_target(connection, job.target)
        if job.target.kind is TargetKind.GROUP:
            counts = await _import_recipients(connection, job)
        else:
            counts = await _import_codes(connection, job, chunk)
            await connection.execute(SQL.update_counters, job.target.id, counts.added, counts.removed)
            is_replaced = job.mode == ImportMode.REPLACE and chunk.shapes is not None
            is_extended = job.mode == ImportMode.ADD and chunk.shapes and counts.added
            if is_replaced or is_extended or counts.removed or job.mode == ImportMode.UNDO:
                await list_shapes.record(connection, job.target.id, job.mode, chunk.shapes or ())
        await imports.record_progress(
            connection, job, counts, blank=chunk.blank, position=position, lease_seconds=lease_seconds
        )


async def _import_codes(connection: Connection, job: LeasedImport, chunk: Chunk) -> ChunkCounts:
    match job.mode:
        case ImportMode.ADD | ImportMode.UNDO:
            return await _add(connection, job, chunk)
        case ImportMode.REPLACE:
            return await _replace(connection, job, chunk)
        case ImportMode.DELETE:
            return await _delete(connection, job, chunk)


async def _add(connection: Connection, job: LeasedImport, chunk: Chunk) -> ChunkCounts:
    """Add the codes of a chunk. Most chunks are entirely new or were imported before; only others look up each code."""
    if await connection.fetchval(SQL.is_imported_chunk, job.target.id, chunk.digest, job.id):
        await _set_variants(connection, job.target)
        return await _reject(connection, _INSERT_LINES_OF_IMPORTED_CHUNK, ChunkCounts(), job.id, job.target.id)
    added = await _insert(connection, SQL.add_new, job) if await connection.fetchval(SQL.looks_new) else None
    if added is None:
        added = await _add_missing(connection, job, chunk)
    counts = await _reject_others(connection, job, chunk, ChunkCounts(added=added))
    if chunk.lines >= MIN_RECORDED_LINES:
        await connection.execute(SQL.record_chunk, job.target.id, chunk.digest, job.id)
    return counts


async def _replace(connection: Connection, job: LeasedImport, chunk: Chunk) -> ChunkCounts:
    """Add the missing codes of a chunk, and keep the others.

    Codes are added first: an import that waits for another one's new codes holds no code that the other waits for.
    """
    added = await _add_missing(connection, job, chunk)
    existing = await _affected(connection, SQL.take_over, job.target.id, job.id)
    return await _reject_others(connection, job, chunk, ChunkCounts(added=added, existing=existing))


async def _add_missing(connection: Connection, job: LeasedImport, chunk: Chunk) -> int:
    """Look up the codes of the chunk, and add those that no list has. Returns the number of added codes.

    Another import may add one of them to another list after the lookup. Then no code is added, and all are looked up
    again. So an import that waits has added codes only in the order of the index: imports cannot deadlock.

    Raises ConcurrentChange if that happens at each lookup.
    """
    for _ in range(MOST_LOOKUPS):
        existing = await _look_up(connection, job.target, chunk.lines)
        added = await _insert(connection, SQL.add, job)
        if added is None:
            continue
        if job.target.case_sensitive:
            added += await _affected(connection, SQL.add_variants, job.target.id, job.id)
        if existing + added < chunk.lines:
            await _execute(connection, SQL.find_repeated)
        return added
    raise ConcurrentChange(f"other imports have added codes of the chunk after each of {MOST_LOOKUPS} lookups")


async def _insert(connection: Connection, statement: str, job: LeasedImport) -> int | None:
    """Insert codes; return their number. Returns None, and inserts no code, if a list has one of them."""
    inserted: int | None = await connection.fetchval(
        SQL.insert_or_conflict, statement, job.target.id, job.id, timeout=CHUNK_TIMEOUT_SECONDS
    )
    return inserted


async def _delete(connection: Connection, job: LeasedImport, chunk: Chunk) -> ChunkCounts:
    await _look_up(connection, job.target, chunk.lines)
    if job.target.case_sensitive:
        await _execute(connection, SQL.lock_variants)
    available = await connection.fetchval(SQL.lock_list, job.target.id)
    removed = await _affected(connection, SQL.delete, job.target.id, available, job.id)
    await _execute(connection, SQL.find_repeated)
    return await _reject_others(connection, job, chunk, ChunkCounts(removed=removed))


async def _look_up(connection: Connection, target: Target, lines: int) -> int:
    """Find the codes of the chunk that any list has, and the retired ones; return their number."""
    await connection.execute(SQL.forget_existing)
    return await _set_variants(connection, target) + await _find_existing(connection, lines)


async def _set_variants(connection: Connection, target: Target) -> int:
    """Set the variants of the chunk's codes. Returns the number of codes that were found in other lists."""
    if not target.case_sensitive:
        return 0
    found: int = await connection.fetchval(SQL.set_variants, target.id, timeout=CHUNK_TIMEOUT_SECONDS)
    return found


async def _find_existing(connection: Connection, lines: int) -> int:
    """Find the codes that were not found yet. MERGE_FACTOR decides how they are searched."""
    found = 0
    if total := await connection.fetchval(SQL.count_codes):
        search = SQL.find_existing_by_merge if total <= MERGE_FACTOR * lines else SQL.find_existing_by_probe
        async with _merge_plan(connection):
            found = await _affected(connection, search)
    if await connection.fetchval(SQL.needs_spellings):
        await _stage_spellings(connection)
    return found + await _affected(connection, SQL.find_retired)


async def _stage_spellings(connection: Connection) -> None:
    """Stage the spellings of each code of the chunk. PostgreSQL's upper() depends on the database's locale."""
    codes = await connection.cursor(SQL.staged_codes, timeout=CHUNK_TIMEOUT_SECONDS)
    while rows := await codes.fetch(PREFETCH_ROWS):
        spelled = [(row["key"], spelling) for row in rows for spelling in spellings(row["code"])]
        await connection.copy_records_to_table("staged_spelling", records=spelled)


async def _import_recipients(connection: Connection, job: LeasedImport) -> ChunkCounts:
    arguments: tuple[object, ...] = job.target.id, job.id
    match job.mode:
        case ImportMode.DELETE:
            statement = SQL.delete_recipients
        case ImportMode.UNDO:
            await _execute(connection, SQL.extend_with_staged, job.target.id)
            statement = SQL.restore_recipients
        case _:
            statement, arguments = SQL.add_recipients, (*arguments, job.mode == ImportMode.REPLACE)
    counted = await connection.fetchrow(statement, *arguments, timeout=CHUNK_TIMEOUT_SECONDS)
    return await _reject(connection, _INSERT_STAGED_REJECTIONS, ChunkCounts(**dict(counted or {})), job.id)


async def _reject(connection: Connection, statement: str, counts: ChunkCounts, *arguments: object) -> ChunkCounts:
    rows = await connection.fetch(statement, *arguments, timeout=CHUNK_TIMEOUT_SECONDS)
    return replace(
        counts,
        rejected=sum(row["rejected"] for row in rows),
        kept_reserved=sum(row.get("reserved", 0) for row in rows),
        kept_assigned=sum(row.get("assigned", 0) for row in rows),
    )


async def _reject_others(connection: Connection, job: LeasedImport, chunk: Chunk, counts: ChunkCounts) -> ChunkCounts:
    """Reject the lines that were not accepted. Raises ConcurrentChange if a line has no result: no line is lost."""
    if counts.added == chunk.lines:
        return await _reject(connection, _INSERT_STAGED_REJECTIONS, counts, job.id)
    counts = await _reject(connection, _INSERT_REJECTED_LINES, counts, job.id, job.mode, job.target.id)
    results = counts.added + counts.existing + counts.removed + counts.rejected
    lines = chunk.lines + sum((await _count_staged_rejections(connection)).values())
    if results != lines:
        raise ConcurrentChange(f"a chunk of {lines} lines has {results} results, so it is not committed")
    return counts


async def _lock_target(connection: Connection, target: Target) -> None:
    table = "recipient_group" if target.kind is TargetKind.GROUP else "coupon_list"
    await connection.execute(SQL.lock_target, table, target.id)


async def _affected(connection: Connection, statement: str, *arguments: object) -> int:
    return affected(await _execute(connection, statement, *arguments))


async def _execute(connection: Connection, statement: str, *arguments: object) -> str:
    return await connection.execute(statement, *arguments, timeout=CHUNK_TIMEOUT_SECONDS)


# --- codes and recipients missing from a file that replaces ----------------------------------------------------------


async def remove_missing(connection: Connection, job: LeasedImport, *, lease_seconds: float) -> AsyncIterator[int]:
    """Remove available codes, or recipients, that the file does not contain. Yields the number after each transaction.

    Reserved codes stay and are counted at the end. Raises LeaseLost.
    """
    is_group = job.target.kind is TargetKind.GROUP
    search = _Search(SQL.remove_recipients, job.id, "") if is_group else _Search(SQL.find_missing, job.id, 0)
    async for removed in _remove(connection, job, search, lease_seconds=lease_seconds):
        yield removed
    if not is_group:
        async with _long_transaction(connection):
            kept = await connection.fetchrow(SQL.count_kept, job.target.id, job.id, timeout=CHUNK_TIMEOUT_SECONDS)
            await imports.record_kept(connection, job, **dict(kept or {}))


async def take_back(
    connection: Connection, job: LeasedImport, undone: Undone, *, lease_seconds: float
) -> AsyncIterator[int]:
    """Remove available codes that the undone import added, or recipients that are still as it added them.

    Yields the number after each transaction. Raises LeaseLost.
    """
    is_group = job.target.kind is TargetKind.GROUP
    search = (
        _Search(SQL.take_back_recipients, undone.id, "", (undone.keepers,))
        if is_group
        else _Search(SQL.find_added, undone.id, undone.first_id, (undone.keepers, undone.last_id))
    )
    async for removed in _remove(connection, job, search, lease_seconds=lease_seconds):
        yield removed


@dataclass(frozen=True, slots=True)
class _Search:
    """What to remove: the statement finds it by the import, behind a code's id or an address."""

    statement: str
    import_id: UUID
    after: int | str
    others: tuple[object, ...] = ()
    """Further arguments of the statement."""


async def _remove(
    connection: Connection, job: LeasedImport, search: _Search, *, lease_seconds: float
) -> AsyncIterator[int]:
    last: int | str | None = search.after
    while last is not None:
        async with _long_transaction(connection):
            await _lock_target(connection, job.target)
            if job.target.kind is TargetKind.GROUP:
                removed, last = await _remove_recipients(connection, job, search, last)
            else:
                removed, last = await _remove_codes(connection, job, search, last)
            await imports.record_progress(connection, job, ChunkCounts(removed=removed), lease_seconds=lease_seconds)
        yield removed


async def replace_attributes(
    connection: Connection, job: LeasedImport, attributes: Sequence[str], *, lease_seconds: float
) -> None:
    """Let the group have only these attributes, now that all its recipients are in the file. Raises LeaseLost.

    The group is locked before the import, as by a cancellation: in the other order the two would wait for each other.
    """
    async with connection.transaction():
        await connection.execute(SQL.replace_attributes, job.target.id, attributes)
        await imports.record_progress(connection, job, ChunkCounts(), lease_seconds=lease_seconds)


async def _remove_recipients(
    connection: Connection, job: LeasedImport, search: _Search, after: object
) -> tuple[int, str | None]:
    """Remove a batch. Returns the number of removed recipients, and the last address that was considered."""
    arguments = job.target.id, search.import_id, after, REMOVE_BATCH_SIZE, job.id, *search.others
    row = await connection.fetchrow(search.statement, *arguments, timeout=CHUNK_TIMEOUT_SECONDS)
    return (row["removed"], row["last"]) if row else (0, None)


async def _remove_codes(
    connection: Connection, job: LeasedImport, search: _Search, after: object
) -> tuple[int, int | None]:
    """Remove a batch. Returns the number of removed codes, and the id of the last code that was considered.

    The codes are found before the list is locked.
    """
    arguments = job.target.id, search.import_id, after, REMOVE_BATCH_SIZE, *search.others
    ids = await connection.fetchval(search.statement, *arguments, timeout=CHUNK_TIMEOUT_SECONDS)
    if job.target.case_sensitive:
        await _execute(connection, SQL.lock_variants_of, job.target.id, ids)
    available = await connection.fetchval(SQL.lock_list, job.target.id)
    removed: int = await connection.fetchval(
        SQL.remove_codes, job.target.id, ids, available, job.id, timeout=CHUNK_TIMEOUT_SECONDS
    )
    await connection.execute(SQL.update_counters, job.target.id, 0, removed)
    if removed and job.mode == ImportMode.UNDO:
        await list_shapes.record(connection, job.target.id, job.mode, ())
    return removed, ids[-1] if ids and available else None


# --- dry run ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def dry_run(
    connection: Connection, target: Target, mode: ImportMode, *, lines: int
) -> AsyncIterator[tuple[ImportCounts, AsyncIterator[Rejected]]]:
    """Yield what an import of the staged lines would do: its counts and its rejected lines.

    The rejected lines can be read only inside the block.
    """
    async with _chunk_transaction(connection):
        if target.kind is TargetKind.GROUP:
            counts = await _dry_run_recipients(connection, target, mode)
        else:
            counts = await _dry_run_codes(connection, target, mode, lines)
        yield counts, _iter_rejected(connection, target, mode)


async def _dry_run_codes(connection: Connection, target: Target, mode: ImportMode, lines: int) -> ImportCounts:
    await _look_up(connection, target, lines)
    await _execute(connection, SQL.find_repeated)
    existing = await _affected(connection, SQL.dry_run_take_over, target.id) if mode == ImportMode.REPLACE else 0
    removed = await _affected(connection, SQL.dry_run_delete, target.id) if mode == ImportMode.DELETE else 0
    reasons = await _count_rejected(connection, target, mode)
    invalid = sum((await _count_staged_rejections(connection)).values())
    added = lines - (sum(reasons.values()) - invalid) - existing - removed
    counts = ImportCounts(
        added, existing, removed, reasons, reasons.get(Reason.RESERVED, 0), reasons.get(Reason.ASSIGNED, 0)
    )
    return await _with_removed(connection, target, counts) if mode == ImportMode.REPLACE else counts


async def _with_removed(connection: Connection, target: Target, counts: ImportCounts) -> ImportCounts:
    """Complete the counts with the codes that would be removed because the file does not contain them."""
    row = await connection.fetchrow(
        SQL.dry_run_replace, target.id, counts.existing, counts.added, timeout=CHUNK_TIMEOUT_SECONDS
    )
    if row is None:
        return counts
    return replace(counts, removed=row["removed"], kept_reserved=row["reserved"], kept_assigned=row["assigned"])


async def _dry_run_recipients(connection: Connection, target: Target, mode: ImportMode) -> ImportCounts:
    row = await connection.fetchrow(SQL.dry_run_recipients, target.id, mode, timeout=CHUNK_TIMEOUT_SECONDS)
    added, existing = (row["added"], row["existing"]) if row else (0, 0)
    reasons = await _count_staged_rejections(connection)
    match mode:
        case ImportMode.DELETE:
            return ImportCounts(0, 0, existing, reasons)
        case ImportMode.REPLACE:
            total = await connection.fetchval(SQL.group_size, target.id)
            return ImportCounts(added, existing, total - existing, reasons)
        case _:
            return ImportCounts(added, existing, 0, reasons)


async def _count_rejected(connection: Connection, target: Target, mode: ImportMode) -> dict[str, int]:
    kind = "CASE WHEN reason LIKE 'case:%' THEN 'case' ELSE reason END"  # without the number of the other line
    count = f"SELECT {kind} AS reason, count(*) AS lines FROM ({SQL.rejected_lines.rstrip(';')}) rejected GROUP BY 1"
    rows = await connection.fetch(count, NO_IMPORT, mode, target.id, timeout=CHUNK_TIMEOUT_SECONDS)
    return {row["reason"]: row["lines"] for row in rows}


async def _count_staged_rejections(connection: Connection) -> dict[str, int]:
    return {row["reason"]: row["lines"] for row in await connection.fetch(SQL.count_staged_rejections)}


async def _iter_rejected(connection: Connection, target: Target, mode: ImportMode) -> AsyncIterator[Rejected]:
    """The lines that would be rejected, by line number."""
    is_group = target.kind is TargetKind.GROUP
    statement, arguments = (
        (SQL.staged_rejections, ()) if is_group else (SQL.rejected_lines, (NO_IMPORT, mode, target.id))
    )
    rows = connection.cursor(
        f"{statement.rstrip(';')} ORDER BY line", *arguments, prefetch=PREFETCH_ROWS, timeout=CHUNK_TIMEOUT_SECONDS
    )
    async for row in rows:
        yield rejection_from_text(row["line"], row["text"], row["reason"], is_row=is_group)
