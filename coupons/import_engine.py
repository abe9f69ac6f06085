"""The import engine: reads the text of a source in pieces, checks their lines and imports them in chunks.

A piece is 1 MiB of the text. A chunk is one or more pieces whose lines are imported in one transaction. Imports into
lists and groups work the same way. After a crash, the next worker reads the source from the beginning. The same text
gives the same pieces and chunks, and the worker skips the chunks up to the committed position.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

from coupons import failpoints
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.files.code_reader import CodeReader
from coupons.files.code_shapes import SAMPLE_CODES, Profile, shapes_of
from coupons.files.codes import CheckedCodes
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.inline_reader import InlineReader, RemovedRecipientReader
from coupons.files.recipient_reader import EMAIL, CheckedRecipients, RecipientReader
from coupons.files.rejections import CODE, Rejected, describe, parse_reason
from coupons.import_progress import ImportProgress
from coupons.sources import Source, SourceError, SourceLimits, Text
from coupons.states import ImportMode, TargetKind
from coupons.store import groups, import_chunks, imports, list_shapes
from coupons.store.import_chunks import ImportCounts
from coupons.store.imports import LeasedImport, Position, Target

FIRST_CHUNK_PIECES, MAX_CHUNK_PIECES = 16, 64
"""Chunks end after 16, 32, 64, 128, 192 … pieces of the text. With large chunks, each page of a large list's index is
written less often. The boundaries depend on the text alone, so that a chunk is recognized when it is imported again."""
LOCKING_CHUNK_PIECES = 1
"""The chunk size of an import that removes or takes over available codes: sendouts wait for its locks."""

_REMOVING_MODES = (ImportMode.REPLACE, ImportMode.DELETE)

Reader = CodeReader | RecipientReader | InlineReader | RemovedRecipientReader
Checked = CheckedCodes | CheckedRecipients


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """What an import would do. `lines` is `blank` plus all lines in `counts`.

    `rejected` yields the rejected lines by line number, once. `columns` are their columns between line number and
    reason. `read_as` describes how the file was read; `notices` list what was assumed, skipped, cut or left out.
    """

    lines: int
    blank: int
    counts: ImportCounts
    columns: Sequence[str]
    rejected: AsyncIterator[Rejected]
    read_as: str
    notices: Sequence[str]


def check_report(report: DryRunReport, mode: ImportMode, *, confirmed: bool, allow_empty: bool) -> None:
    """Check that an import in mode replace or delete may begin. Raises Conflict.

    An operator confirms that more than half of the lines are rejected, and allows that nothing remains, separately: the
    first may be a file with many known errors, the second is hardly ever meant.
    """
    lines = report.lines - report.blank
    reasons: dict[str, int] = {}
    for stored, rejected in report.counts.reasons.items():
        reason = describe(*parse_reason(stored))
        reasons[reason] = reasons.get(reason, 0) + rejected
    why = imports.in_words(reasons)
    if mode == ImportMode.REPLACE and not allow_empty and report.counts.added + report.counts.existing == 0:
        raise Conflict(
            f"none of the {lines:,} lines would be accepted{why}, and {report.counts.removed:,} others would be removed"
            f": {imports.NOTHING_CHANGED}; --allow-empty (allow_empty) permits it"
        )
    if mode in _REMOVING_MODES and not confirmed and is_mostly_rejected(report):
        raise Conflict(
            f"{report.counts.rejected:,} of {lines:,} lines would be rejected, more than half{why}"
            f": {imports.NOTHING_CHANGED}; fix the file, or confirm with --yes (confirmed)"
        )


def is_mostly_rejected(report: DryRunReport) -> bool:
    """Whether more than half of the lines would be rejected."""
    return 2 * report.counts.rejected > report.lines - report.blank


def needs_dry_run(job: LeasedImport) -> bool:
    """Whether the import must be run dry before it begins, because no operator has seen what it replaces or deletes.

    An import that has committed lines was run dry before.
    """
    return job.mode in _REMOVING_MODES and not job.confirmed and job.position == 0


async def check_import(
    connection: Connection, job: LeasedImport, source: Source, limits: SourceLimits, *,
    max_lines: int, progress: ImportProgress,
) -> list[bytes]:  # fmt: skip
    """Run the import dry, and check that it may begin. Returns the digests of the text up to the end of each piece.

    `progress` can be published at any time: it counts the bytes that are read.

    Raises FileError, SourceError, SourceUnavailable, Conflict.
    """
    await imports.set_total_bytes(connection, job, source.size)
    reading = _Reading(job.target, job.format, max_lines)
    confirmed = job.confirmed
    progress.received = lambda: reading.received
    try:
        async with _dry_run(
            connection, reading, job.target, source, limits, mode=job.mode, confirmed=confirmed
        ) as report:
            check_report(report, job.mode, confirmed=confirmed, allow_empty=job.allow_empty)
    finally:
        progress.received = int  # the import reads the source again
    return reading.digests


async def run_import(
    connections: tuple[Connection, Connection], job: LeasedImport, source: Source, limits: SourceLimits, *,
    max_lines: int, lease_seconds: float, stopping: Callable[[], bool], progress: ImportProgress,
    checked: Sequence[bytes] | None = None,
) -> bool:  # fmt: skip
    """Import the lines of the source. Returns False if the process had to stop before the end.

    `progress` can be published at any time. `checked` has the digests of the text that was run dry: nothing is changed
    because of another text.

    Raises:
        FileError, SourceError, Conflict: the import has failed. Its committed chunks stay.
        SourceUnavailable: the source can be retried later.
        LeaseLost: another worker has claimed the import, or it was cancelled.
    """
    await imports.set_total_bytes(connections[0], job, source.size)
    if job.mode == ImportMode.UNDO:
        await imports.check_removed(connections[0], job)
    reading = _Reading(job.target, job.format, max_lines)
    if job.position and _can_be_wrong(job.target, job.mode):
        reading.suspicions = list_shapes.suspicions_of(await imports.get_notices(connections[0], job))
    text = reading.open(source, limits)
    progress.received = lambda: text.received
    async with _ChunkPipeline(connections, job, lease_seconds, progress) as pipeline:
        async for piece in _iter_pieces(text, source):
            lines = reading.read(piece, text)
            _check_text(checked, reading, piece, source)
            if _is_committed(job, reading, piece, source):
                progress.skip(text.source_bytes)
                continue
            await _record_format(pipeline.idle, job, reading, text)
            await pipeline.stage(lines)
            progress.stage(text.source_bytes)
            failpoints.hit("import.staged")
            if piece.is_last or _ends_chunk(job.target, job.mode, reading.pieces):
                shapes = await _check_list(pipeline.idle, job, reading)
                await pipeline.import_staged(reading.position_in(text), shapes)
            if stopping() and not piece.is_last:
                return False
    if reading.position < job.position:
        raise _source_changed(source)
    await imports.set_notices(connections[0], job, reading.read_as, reading.notices)
    match job.mode:
        case ImportMode.REPLACE:
            return await _remove_missing(connections[0], job, reading, lease_seconds, stopping)
        case ImportMode.UNDO:
            return await _take_back(connections[0], job, lease_seconds, stopping)
    return True


@asynccontextmanager
async def dry_run(
    connection: Connection, target: Target, source: Source, limits: SourceLimits, *,
    mode: ImportMode, file_format: FileFormat, max_lines: int, confirmed: bool = False,
) -> AsyncIterator[DryRunReport]:  # fmt: skip
    """Report what an import of the source would do. It uses the reader, checks and searches of an import.

    Only temporary staging tables are written.

    Raises FileError, SourceError, SourceUnavailable, Conflict.
    """
    reading = _Reading(target, asdict(file_format), max_lines)
    async with _dry_run(connection, reading, target, source, limits, mode=mode, confirmed=confirmed) as report:
        yield report


@asynccontextmanager
async def _dry_run(
    connection: Connection, reading: "_Reading", target: Target, source: Source, limits: SourceLimits, *,
    mode: ImportMode, confirmed: bool,
) -> AsyncIterator[DryRunReport]:  # fmt: skip
    valid = blank = last = 0
    await import_chunks.prepare_staging(connection)
    try:
        text = reading.open(source, limits)
        async for piece in _iter_pieces(text, source):
            for lines in reading.read(piece, text):
                await _stage(connection, target, lines)
                valid, blank = valid + len(lines.lines), blank + lines.blank
                last = lines.lines[-1] if lines.lines else last
            if _ends_chunk(target, mode, reading.pieces):
                await import_chunks.start_chunk(connection, last + 1)
        if _can_be_wrong(target, mode):
            shapes = shapes_of(reading.first_codes)
            await _check_shapes(connection, target, reading, shapes, confirmed=confirmed, is_dry_run=True)
        async with import_chunks.dry_run(connection, target, mode, lines=valid) as (counts, rejected):
            yield DryRunReport(
                reading.lines, blank, counts, reading.columns, rejected, reading.read_as, reading.notices
            )
    finally:
        await import_chunks.discard_staging(connection)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    data: bytes
    is_last: bool


async def _iter_pieces(text: Text, source: Source) -> AsyncIterator[_Piece]:
    """The pieces of the text, with a mark on the last piece. Raises FileError if the text is empty."""
    held: bytes | None = None
    async for data in text:
        if held is not None:
            yield _Piece(held, is_last=False)
        held = data
    if held is None:
        raise FileError(f"{source.name} is empty")
    yield _Piece(held, is_last=True)


class _Reading:
    """The progress of reading a text, and its reader, which is created once the name of the text is known."""

    def __init__(self, target: Target, file_format: dict[str, Any], max_lines: int) -> None:
        self.reader: Reader | None = None
        self.pieces = self.position = self.lines = 0
        self.format_recorded = self.list_checked = False
        self.first_codes: list[str] = []
        self.suspicions: Sequence[str] = ()
        self.digests: list[bytes] = []
        self._target = target
        self._format = file_format
        self._max_lines = max_lines
        self._digest = hashlib.sha256()
        self._text: Text | None = None

    def open(self, source: Source, limits: SourceLimits) -> Text:
        self._text = Text(source, limits, sheet=self._format.get("sheet"))
        return self._text

    def read(self, piece: _Piece, text: Text) -> list[Checked]:
        """The checked lines of the next piece. The last piece also ends the last line, which may lack a line end."""
        if self.reader is None:
            self.reader = _reader_for(self._target, self._format, text)
        self.pieces += 1
        self.position += len(piece.data)
        self._digest.update(piece.data)
        self.digests.append(self.digest)
        read = [self.reader.feed(piece.data)]
        if piece.is_last:
            read.append(self.reader.finish())
        self.lines += sum(len(each.lines) + len(each.rejected) + each.blank for each in read)
        for each in read:
            if isinstance(each, CheckedCodes):
                self.first_codes += each.codes[: SAMPLE_CODES - len(self.first_codes)]
        if self.lines > self._max_lines:
            raise Conflict(f"{text.name} exceeds the limit of {self._max_lines} lines (COUPONS_IMPORT_MAX_LINES)")
        return read

    @property
    def columns(self) -> Sequence[str]:
        """The columns of a rejected line, which are known after the first line."""
        return (EMAIL, *self.reader.attributes) if isinstance(self.reader, RecipientReader) else CODE

    @property
    def read_as(self) -> str:
        return self._text.describe(self.reader.description) if self.reader and self._text else ""

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know: about the shape of the codes, about a spreadsheet, and about the rows."""
        of_text = self._text.notices if self._text else ()
        return [*self.suspicions, *of_text, *(self.reader.notices if self.reader else ())]

    @property
    def received(self) -> int:
        """The number of source bytes that were received."""
        return self._text.received if self._text else 0

    @property
    def digest(self) -> bytes:
        return self._digest.digest()

    def position_in(self, text: Text) -> Position:
        return Position(self.position, self.digest, text.source_bytes)


def _reader_for(target: Target, file_format: dict[str, Any], text: Text) -> Reader:
    if origin := file_format.get(imports.INLINE):
        if target.kind is TargetKind.GROUP:
            return RemovedRecipientReader()
        return InlineReader("removed codes" if origin == imports.REMOVED else "codes of the command")
    reader = RecipientReader if target.kind is TargetKind.GROUP else CodeReader
    return reader(text.format_for(FileFormat(**file_format)), text.name)


def _is_committed(job: LeasedImport, reading: _Reading, piece: _Piece, source: Source) -> bool:
    """Whether an earlier worker has committed the piece just read. Raises SourceError if the text has changed."""
    is_divided = reading.position - len(piece.data) < job.position < reading.position
    if is_divided or (reading.position == job.position and reading.digest != job.digest):
        raise _source_changed(source)
    return reading.position <= job.position


def _check_text(checked: Sequence[bytes] | None, reading: _Reading, piece: _Piece, source: Source) -> None:
    """Check that the piece just read is that of the dry run, if there was one. Raises SourceError."""
    if checked is None:
        return
    is_same = reading.pieces <= len(checked) and checked[reading.pieces - 1] == reading.digest
    if not is_same or piece.is_last != (reading.pieces == len(checked)):
        raise _source_changed(source)


def _source_changed(source: Source) -> SourceError:
    return SourceError(f"{source.name} has changed during the import: import it again")


# --- importing -------------------------------------------------------------------------------------------------------


class _ChunkPipeline:
    """Imports chunks one after another: while one connection imports a chunk, the other stages the next chunk.

    Leaving the context waits until a running import of a chunk ends. It cancels that import instead if the task was
    cancelled, as it is after a lost lease.
    """

    def __init__(
        self,
        connections: tuple[Connection, Connection],
        job: LeasedImport,
        lease_seconds: float,
        progress: ImportProgress,
    ) -> None:
        self.idle, self._busy = connections
        self._job = job
        self._lease_seconds = lease_seconds
        self._progress = progress
        self._importing: asyncio.Task[None] | None = None
        self._lines = self._blank = 0
        self._digest = hashlib.sha256()

    async def __aenter__(self) -> Self:
        await import_chunks.prepare_staging(self.idle)
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if self._importing and error and issubclass(error, asyncio.CancelledError):
                self._importing.cancel()
                await asyncio.gather(self._importing, return_exceptions=True)
            else:
                await self._wait_for_import()  # an error of the import takes precedence over `error`
        finally:
            for connection in (self.idle, self._busy):
                await import_chunks.discard_staging(connection)

    async def stage(self, read: list[Checked]) -> None:
        await imports.check_lease(self.idle, self._job)
        for lines in read:
            await _stage(self.idle, self._job.target, lines)
            self._lines, self._blank = self._lines + len(lines.lines), self._blank + lines.blank
            if isinstance(lines, CheckedCodes):
                self._digest.update("\n".join((*lines.codes, "")).encode())

    async def import_staged(self, position: Position, shapes: Profile | None) -> None:
        """Wait until the previous chunk is imported, then start to import the staged lines."""
        await self._wait_for_import()
        chunk = import_chunks.Chunk(self._lines, self._blank, self._digest.digest(), shapes)
        self._importing = asyncio.create_task(self._import(self.idle, chunk, position))
        self.idle, self._busy = self._busy, self.idle
        self._lines = self._blank = 0
        self._digest = hashlib.sha256()
        await import_chunks.prepare_staging(self.idle)

    async def _import(self, connection: Connection, chunk: import_chunks.Chunk, position: Position) -> None:
        self._progress.begin_chunk(position.source, chunk.lines)
        await import_chunks.import_chunk(
            connection, self._job, chunk, position=position, lease_seconds=self._lease_seconds
        )
        self._progress.commit_chunk()

    async def _wait_for_import(self) -> None:
        if self._importing:
            await self._importing
            failpoints.hit("import.committed")


async def _stage(connection: Connection, target: Target, lines: Checked) -> None:
    match lines:
        case CheckedCodes():
            await import_chunks.stage_codes(connection, lines, case_sensitive=target.case_sensitive)
        case CheckedRecipients():
            await import_chunks.stage_recipients(connection, lines)


def _ends_chunk(target: Target, mode: ImportMode, pieces: int) -> bool:
    if target.kind is TargetKind.GROUP:
        return pieces % FIRST_CHUNK_PIECES == 0
    if mode in _REMOVING_MODES:
        return pieces % LOCKING_CHUNK_PIECES == 0
    return pieces % MAX_CHUNK_PIECES == 0 or pieces in (FIRST_CHUNK_PIECES, 2 * FIRST_CHUNK_PIECES)


async def _record_format(connection: Connection, job: LeasedImport, reading: _Reading, text: Text) -> None:
    """Store the format and add new attributes to the group, once, before the first lines are imported."""
    if reading.format_recorded or not reading.reader or not reading.reader.description:
        return
    reading.format_recorded = True
    if isinstance(reading.reader, RecipientReader):
        await imports.set_columns(connection, job, reading.columns)
        if job.mode != ImportMode.DELETE:
            await groups.extend(connection, job.target.id, reading.reader.attributes)
    if isinstance(reading.reader, RemovedRecipientReader):
        await imports.set_columns_of_group(connection, job)
    await imports.set_notices(connection, job, reading.read_as, reading.notices)
    await imports.log_event(connection, job.id, f"reading {text.name} as {reading.read_as}")


async def _check_list(connection: Connection, job: LeasedImport, reading: _Reading) -> Profile | None:
    """Check, before the first chunk, that the codes were not meant for another list. Return their shapes, then None.

    Raises WrongList, unless the import is confirmed.
    """
    if reading.list_checked or job.position or not _can_be_wrong(job.target, job.mode):
        return None
    reading.list_checked = True
    shapes = shapes_of(reading.first_codes)
    if shapes:
        await list_shapes.store_unknown(connection, job.target.id)
        await _check_shapes(connection, job.target, reading, shapes, confirmed=job.confirmed)
        if reading.suspicions:  # after a crash, the list has the shapes of the first chunk
            await imports.set_notices(connection, job, reading.read_as, reading.notices)
    return shapes


async def _check_shapes(
    connection: Connection, target: Target, reading: _Reading, shapes: Profile, *, confirmed: bool,
    is_dry_run: bool = False,
) -> None:  # fmt: skip
    try:
        await list_shapes.check(connection, target.id, shapes)
    except list_shapes.WrongList as wrong:
        if not confirmed and not is_dry_run:
            raise
        reading.suspicions = (wrong.notice(confirmed=confirmed),)


def _can_be_wrong(target: Target, mode: ImportMode) -> bool:
    return target.kind is TargetKind.LIST and mode in (ImportMode.ADD, ImportMode.REPLACE)


async def _remove_missing(
    connection: Connection, job: LeasedImport, reading: _Reading, lease_seconds: float, stopping: Callable[[], bool]
) -> bool:
    """Remove the codes, or the recipients and attributes, that the file does not contain.

    Returns False if the process had to stop before the end.
    """
    is_group = job.target.kind is TargetKind.GROUP
    what = "recipients" if is_group else "codes"
    await imports.log_event(connection, job.id, f"removing {what} missing from the file")
    await imports.begin_removing(connection, job)
    async for _ in import_chunks.remove_missing(connection, job, lease_seconds=lease_seconds):
        failpoints.hit("import.removing")
        if stopping():
            return False
    if is_group:
        attributes = reading.columns[1:]
        await import_chunks.replace_attributes(connection, job, attributes, lease_seconds=lease_seconds)
    return True


async def _take_back(
    connection: Connection, job: LeasedImport, lease_seconds: float, stopping: Callable[[], bool]
) -> bool:
    """Remove what the undone import added, now that everything that it removed is restored.

    Returns False if the process had to stop before the end.
    """
    undone = await imports.get_undone(connection, job)
    await imports.log_event(connection, job.id, f"taking back what import {undone.id} added")
    await imports.begin_taking_back(connection, job, undone)
    async for _ in import_chunks.take_back(connection, job, undone, lease_seconds=lease_seconds):
        failpoints.hit("import.removing")
        if stopping():
            return False
    await imports.record_undo(connection, job, undone)
    return True
