"""The import engine: a source's text is read piece by piece, its lines are checked, and taken chunk by chunk.

Codes into lists and recipients into groups go the same way. An import that goes on after a crash reads its source from
the start: the same text gives the same pieces, and these the same chunks, of which those up to its position are not
taken again.
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
from coupons.files.codes import CheckedCodes
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.inline_reader import InlineReader
from coupons.files.recipient_reader import EMAIL, CheckedRecipients, RecipientReader
from coupons.files.rejections import CODE, Rejected
from coupons.sources import Source, SourceError, SourceLimits, Text
from coupons.states import ImportMode, TargetKind
from coupons.store import groups, import_chunks, imports
from coupons.store.import_chunks import Verdict
from coupons.store.imports import Job, Position, Target

FIRST_PIECES, MOST_PIECES = 16, 64
"""Of a chunk: it ends after 16, 32, 64, 128, 192 … pieces (1 MiB) of the text. The larger it is, the less often pages
of a large list's index are written; a text is always cut in the same places, so that its chunks are known again."""
LOCKING_PIECES = 1
"""Of one that removes or takes over free codes: sendouts wait for what it has locked."""


Reader = CodeReader | RecipientReader | InlineReader


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an import would do; `lines` = `blank` + all that the verdict counts.

    `rejected`, by line, is read once; between the line and the reason of each stand `columns`.
    """

    lines: int
    blank: int
    verdict: Verdict
    columns: Sequence[str]
    rejected: AsyncIterator[Rejected]


async def carry_out(
    connections: tuple[Connection, Connection], job: Job, source: Source, limits: SourceLimits, *,
    max_lines: int, lease_seconds: float, stopping: Callable[[], bool],
) -> bool:  # fmt: skip
    """Take the source's lines in; False if the process was to stop before their end.

    Raises:
        FileError, SourceError, Conflict: it cannot be read on; whole chunks stay.
        SourceUnavailable: not for now.
        LeaseLost: somebody else has the import, or a person has cancelled it.
    """
    await imports.opened(connections[0], job, source.size)
    reading = _Reading(job.target, job.format, max_lines)
    async with _Taking(connections, job, lease_seconds) as taking:
        async for piece, text in _pieces(source, limits):
            lines = reading.read(piece, text.name)
            if _is_taken(job, reading, piece, source):
                continue
            await _note_what_is_seen(taking.idle, job, reading, text)
            await taking.stage(lines)
            failpoints.hit("import.staged")
            if piece.is_last or _ends_chunk(job, reading.pieces):
                await taking.take(reading.reached(text))
            if stopping() and not piece.is_last:
                return False
    if reading.position < job.position:
        raise _changed(source)
    return await _remove_replaced(connections[0], job, lease_seconds, stopping)


@asynccontextmanager
async def judged(
    connection: Connection, target: Target, source: Source, limits: SourceLimits, *,
    mode: ImportMode, file_format: FileFormat, max_lines: int,
) -> AsyncIterator[Judgement]:  # fmt: skip
    """What an import of the source would do, with nothing written: the same reader, the same checks, the same lists.

    Raises FileError, SourceError, SourceUnavailable, Conflict.
    """
    reading = _Reading(target, asdict(file_format), max_lines)
    taken = blank = 0
    await import_chunks.begin(connection)
    try:
        async for piece, text in _pieces(source, limits):
            for lines in reading.read(piece, text.name):
                await _stage(connection, lines)
                taken, blank = taken + len(lines.lines), blank + lines.blank
        async with connection.transaction():
            verdict = await import_chunks.judge(connection, target, mode, lines=taken)
            rejected = import_chunks.judged(connection, target, mode)
            yield Judgement(reading.lines, blank, verdict, reading.columns, rejected)
    finally:
        await import_chunks.end(connection)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    data: bytes
    is_last: bool


async def _pieces(source: Source, limits: SourceLimits) -> AsyncIterator[tuple[_Piece, Text]]:
    """The pieces of the text; what is the last one is known of each. Raises FileError if there is none."""
    text = Text(source, limits)
    held: bytes | None = None
    async for data in text:
        if held is not None:
            yield _Piece(held, is_last=False), text
        held = data
    if held is None:
        raise FileError(f"{source.name} is empty")
    yield _Piece(held, is_last=True), text


class _Reading:
    """How far a text is read, and the reader of it, which is there once its name is known."""

    def __init__(self, target: Target, file_format: dict[str, Any], max_lines: int) -> None:
        self.reader: Reader | None = None
        self.pieces = self.position = self.lines = 0
        self.noted = False
        self._target = target
        self._format = file_format
        self._max_lines = max_lines
        self._digest = hashlib.sha256()

    def read(self, piece: _Piece, name: str) -> list[CheckedCodes | CheckedRecipients]:
        """The checked lines of one more piece; with the last one, those that were not complete before."""
        if self.reader is None:
            self.reader = _reader_of(self._target, self._format, name)
        self.pieces += 1
        self.position += len(piece.data)
        self._digest.update(piece.data)
        read = [self.reader.feed(piece.data)]
        if piece.is_last:
            read.append(self.reader.finish())
        self.lines += sum(len(each.lines) + len(each.rejected) + each.blank for each in read)
        if self.lines > self._max_lines:
            raise Conflict(
                f"{name} has more than {self._max_lines} lines, that many are taken (COUPONS_IMPORT_MAX_LINES)"
            )
        return read

    @property
    def columns(self) -> Sequence[str]:
        """What a line that is not taken is shown with; once the first one was seen."""
        return (EMAIL, *self.reader.attributes) if isinstance(self.reader, RecipientReader) else CODE

    @property
    def digest(self) -> bytes:
        return self._digest.digest()

    def reached(self, text: Text) -> Position:
        return Position(self.position, self.digest, text.source_bytes)


def _reader_of(target: Target, file_format: dict[str, Any], name: str) -> Reader:
    if file_format.get(imports.INLINE):
        return InlineReader()
    return (RecipientReader if target.kind is TargetKind.GROUP else CodeReader)(FileFormat(**file_format), name)


def _is_taken(job: Job, reading: _Reading, piece: _Piece, source: Source) -> bool:
    """Whether the piece that was just read is committed already. Raises SourceError: it is another text now."""
    steps_over = reading.position - len(piece.data) < job.position < reading.position
    if steps_over or (reading.position == job.position and reading.digest != job.digest):
        raise _changed(source)
    return reading.position <= job.position


def _changed(source: Source) -> SourceError:
    return SourceError(f"{source.name} was changed while it was imported: import it again")


# --- taking ----------------------------------------------------------------------------------------------------------


class _Taking:
    """Chunks, one after the other: while one connection takes what is staged, the next chunk is staged on the other.

    When the context is left, what was begun to be taken is taken; unless the import was cancelled or its lease is lost.
    """

    def __init__(self, connections: tuple[Connection, Connection], job: Job, lease_seconds: float) -> None:
        self.idle, self._busy = connections
        self._job = job
        self._lease_seconds = lease_seconds
        self._taking: asyncio.Task[None] | None = None
        self._lines = self._blank = 0
        self._digest = hashlib.sha256()

    async def __aenter__(self) -> Self:
        await import_chunks.begin(self.idle)
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if self._taking and error and issubclass(error, asyncio.CancelledError):
                self._taking.cancel()
                await asyncio.gather(self._taking, return_exceptions=True)
            else:
                await self._taken()  # what went wrong there comes first
        finally:
            for connection in (self.idle, self._busy):
                await import_chunks.end(connection)

    async def stage(self, read: list[CheckedCodes | CheckedRecipients]) -> None:
        await imports.check_held(self.idle, self._job)
        for lines in read:
            await _stage(self.idle, lines)
            self._lines, self._blank = self._lines + len(lines.lines), self._blank + lines.blank
            if isinstance(lines, CheckedCodes):
                self._digest.update("\n".join((*lines.codes, "")).encode())

    async def take(self, position: Position) -> None:
        """Begin to take what is staged, once the chunk before it is taken."""
        await self._taken()
        chunk = import_chunks.Chunk(self._lines, self._blank, self._digest.digest())
        take = import_chunks.take(self.idle, self._job, chunk, position=position, lease_seconds=self._lease_seconds)
        self._taking = asyncio.create_task(take)
        self.idle, self._busy = self._busy, self.idle
        self._lines = self._blank = 0
        self._digest = hashlib.sha256()
        await import_chunks.begin(self.idle)

    async def _taken(self) -> None:
        if self._taking:
            await self._taking
            failpoints.hit("import.committed")


async def _stage(connection: Connection, lines: CheckedCodes | CheckedRecipients) -> None:
    match lines:
        case CheckedCodes():
            await import_chunks.stage_codes(connection, lines)
        case CheckedRecipients():
            await import_chunks.stage_recipients(connection, lines)


def _ends_chunk(job: Job, pieces: int) -> bool:
    if job.target.kind is TargetKind.GROUP:
        return pieces % FIRST_PIECES == 0
    if job.mode != ImportMode.ADD:
        return pieces % LOCKING_PIECES == 0
    return pieces % MOST_PIECES == 0 or pieces in (FIRST_PIECES, 2 * FIRST_PIECES)


async def _note_what_is_seen(connection: Connection, job: Job, reading: _Reading, text: Text) -> None:
    """Once, with the first lines that are taken; before these, a group learns which attributes its recipients have."""
    if reading.noted or not reading.reader or not reading.reader.description:
        return
    reading.noted = True
    if isinstance(reading.reader, RecipientReader):
        await imports.keep_columns(connection, job, reading.columns)
        if job.mode != ImportMode.DELETE:
            await groups.extend(connection, job.target.id, reading.reader.attributes)
    await imports.note(connection, job.id, f"reads {text.name} as {reading.reader.description}")


async def _remove_replaced(
    connection: Connection, job: Job, lease_seconds: float, stopping: Callable[[], bool]
) -> bool:
    if job.mode == ImportMode.REPLACE:
        await imports.note(connection, job.id, "removes what the file did not bring")
        async for _ in import_chunks.remove_replaced(connection, job, lease_seconds=lease_seconds):
            failpoints.hit("import.removing")
            if stopping():
                return False
    return True
