"""What the console shows before an import is published: the numbers of a dry run, and the likeliest encoding."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from asyncpg import InsufficientPrivilegeError

from coupons import import_engine
from coupons.commands import ImportCoupons
from coupons.database import Connection, Pool
from coupons.errors import Conflict, UserError
from coupons.files.decoding import Lines, WrongEncoding
from coupons.files.rejections import describe, parse_reason
from coupons.import_engine import DryRunReport
from coupons.sources import Source, SourceLimits, Text
from coupons.states import ImportMode, TargetKind
from coupons.store import groups, imports, uploads
from coupons.store.imports import Target
from producers.web import ACQUIRE_SECONDS

DRY_RUN_SECONDS = 30
MAX_DRY_RUNS = 2
"""A dry run holds two database connections; the others are left for pages."""
_MOST_PIECES = 8
"""The number of MiB in which bytes of another encoding are looked for."""


@dataclass(frozen=True, slots=True)
class Review:
    """What an import would do: its report, or the reason why the numbers are unknown."""

    report: DryRunReport | None
    unknown: str = ""

    @property
    def reasons(self) -> dict[str, int]:
        """The numbers of rejected lines by reason, in words."""
        found = self.report.counts.reasons if self.report else {}
        return {describe(*parse_reason(reason)): lines for reason, lines in sorted(found.items())}


class Reviewer:
    """Runs imports dry with the limits of the worker."""

    def __init__(self, *, pool: Pool, limits: SourceLimits, max_lines: int) -> None:
        self._pool = pool
        self._limits = limits
        self._max_lines = max_lines
        self._dry_runs = asyncio.Semaphore(MAX_DRY_RUNS)

    async def review(self, command: ImportCoupons) -> Review:
        """Return what the import of an upload would do. Raises UserError if the file cannot be imported."""
        upload_id = uploads.parse_source(command.source or "")
        if upload_id is None:
            return Review(None, "only workers read this source")
        try:
            async with asyncio.timeout(DRY_RUN_SECONDS), self._dry_runs:
                return Review(await self._run_dry(command, await self._open(upload_id)))
        except TimeoutError:
            return Review(None, f"counting takes longer than {DRY_RUN_SECONDS} s")
        except InsufficientPrivilegeError:
            return Review(None, "this console may not read files and codes")

    async def _run_dry(self, command: ImportCoupons, source: Source) -> DryRunReport:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection, import_engine.dry_run(
            connection, await _target(connection, command), source, self._limits,
            mode=command.mode, file_format=command.format.as_file_format(), max_lines=self._max_lines,
        ) as report:  # fmt: skip
            return report

    async def find_likeliest_encoding(self, command: ImportCoupons) -> str | None:
        """Return the likeliest encoding of an upload that is not in the encoding of the command, or else None."""
        upload_id = uploads.parse_source(command.source or "")
        if upload_id is None:
            return None
        file_format = command.format.as_file_format()
        try:
            text = Text(await self._open(upload_id), self._limits, sheet=file_format.sheet)
            lines: Lines | None = None
            pieces = 0
            async for piece in text:
                lines = lines or Lines(
                    text.format_for(file_format).encoding,
                    text.name,
                    is_forced=file_format.force_encoding,
                    is_secret=True,
                )
                lines.feed(piece)
                pieces += 1
                if pieces == _MOST_PIECES:
                    return None
            if lines:
                lines.feed(b"", final=True)
        except WrongEncoding as error:
            return error.likeliest
        except (UserError, InsufficientPrivilegeError):
            return None
        return None

    async def _open(self, upload_id: UUID) -> Source:
        upload = await uploads.find(self._pool, upload_id)
        if upload is None:
            raise Conflict(f"there is no upload {upload_id}")
        return Source(upload.name, upload.size_bytes, uploads.iter_pieces(self._pool, upload))


def needs_review(command: ImportCoupons) -> bool:
    """Return whether an operator sees the numbers before the command is published."""
    return command.mode in (ImportMode.REPLACE, ImportMode.DELETE)


def is_nothing_left(command: ImportCoupons, report: DryRunReport) -> bool:
    """Return whether a replacement would leave nothing of the file."""
    return command.mode == ImportMode.REPLACE and report.counts.added + report.counts.existing == 0


async def _target(connection: Connection, command: ImportCoupons) -> Target:
    """Return the list or group. A group that does not exist yet is empty."""
    if command.list is not None:
        return await imports.get_list_target(connection, command.list)
    known = await groups.find(connection, command.group or "")
    return Target(known.id if known else 0, command.group or "", TargetKind.GROUP)
