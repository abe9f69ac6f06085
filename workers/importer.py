"""The import role: claims an import, runs it with the import engine and records its result."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import structlog

from coupons import failpoints, import_engine
from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import Conflict, LeaseLost
from coupons.files.decoding import FileError
from coupons.foreign_errors import error_location
from coupons.import_progress import ImportProgress
from coupons.lease import renewed_lease
from coupons.settings import Settings
from coupons.sources import Source, SourceError, SourceLimits, SourceUnavailable, open_source
from coupons.states import ImportMode
from coupons.store import imports, undo, uploads
from coupons.store.imports import LeasedImport
from workers.auto_resume import auto_resume
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges

log = structlog.get_logger()
MAX_RETRIES = 8
"""Maximum retries of an import after its last chunk, for errors of its source, statement timeouts, internal errors."""
FIRST_RETRY_SECONDS = 5.0
"""The delay before the first retry. It doubles each time; all delays together are about twenty minutes."""
PROGRESS_SECONDS = 1.0
"""The interval at which a worker publishes the progress of an import; this also renews the lease."""
DATABASE_RETRY_SECONDS = 10.0
"""The delay after a database error. The number of these retries is unlimited: the import is not their cause."""


class Importer:
    def __init__(self, *, pool: Pool, signals: Signals, nudges: Nudges, settings: Settings, owner: str) -> None:
        self._pool = pool
        self._signals = signals
        self._nudges = nudges
        self._settings = settings
        self._limits = SourceLimits.from_settings(settings)
        self._owner = owner

    async def step(self) -> float | None:
        """Run one import. If none is due, return the seconds until a postponed import is due; None if there is none."""
        lease_seconds = self._settings.lease_seconds
        async with self._pool.acquire() as connection:
            job = await imports.claim(connection, owner=self._owner, lease_seconds=lease_seconds)
            if job is None:
                return await imports.seconds_until_due(connection)
            resuming = f", resuming after line {job.lines}" if job.is_resumed else ""
            await imports.log_event(connection, job.id, f"claimed by {self._owner}{resuming}")
        failpoints.hit("import.claimed")
        progress, heartbeat_seconds = ImportProgress(), self._settings.heartbeat_seconds
        async with renewed_lease(
            lambda: self._renew(job, progress),
            every=min(PROGRESS_SECONDS, heartbeat_seconds), patience=heartbeat_seconds, expires_after=lease_seconds,
        ):  # fmt: skip
            await self._import(job, progress)
        self._signals.wake("sendout")  # it may have waited for this import
        async with self._pool.acquire() as connection:
            await auto_resume(connection, self._nudges)
        return NO_PAUSE

    async def _renew(self, job: LeasedImport, progress: ImportProgress) -> None:
        """Renew the lease and publish the progress. Recording the import's result gives up the lease."""
        try:
            async with self._pool.acquire() as connection:
                await imports.renew(connection, job, progress.published, lease_seconds=self._settings.lease_seconds)
        except LeaseLost:
            if not progress.has_ended:  # otherwise the statement may have waited until the result was recorded
                raise

    async def _import(self, job: LeasedImport, progress: ImportProgress) -> None:
        """Run the import and record its result. After an error its committed chunks stay."""
        async with self._pool.acquire() as connection, self._pool.acquire() as other:
            try:
                complete = await self._run((connection, other), job, progress)
                await self._end(connection, job, complete=complete)
            except LeaseLost:
                raise
            except SourceUnavailable as error:
                await self._retry(job, str(error))
            except (FileError, SourceError, Conflict) as error:
                await self._fail(connection, job, str(error))
            except asyncpg.QueryCanceledError:  # limited retries: this import's statement may time out each time
                await self._retry(job, "database: a statement timed out")
            except TRANSIENT_ERRORS as error:
                await self._postpone(job, f"database: {type(error).__name__}", seconds=DATABASE_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - the import must not be retried forever and block others
                log.error("internal error", job=str(job.id), error=type(error).__name__, at=error_location(error))  # noqa: TRY400 - may contain codes
                await self._retry(job, f"internal error: {type(error).__name__}")

    async def _run(
        self, connections: tuple[Connection, Connection], job: LeasedImport, progress: ImportProgress
    ) -> bool:
        try:
            checked = job.checked if job.position else None
            if import_engine.needs_dry_run(job):
                checked = await self._check(connections[0], job, progress)
            limits, max_lines = self._limits_of(job)
            async with open_import_source(self._pool, job, limits) as source:
                return await import_engine.run_import(
                    connections, job, source, limits, checked=checked,
                    max_lines=max_lines,
                    lease_seconds=self._settings.lease_seconds,
                    stopping=lambda: self._signals.stopping,
                    progress=progress,
                )  # fmt: skip
        finally:
            progress.has_ended = True

    def _limits_of(self, job: LeasedImport) -> tuple[SourceLimits, int]:
        """The limits and the maximum lines of the import. What an import removed may be larger than any file."""
        if job.mode == ImportMode.UNDO:
            return replace(self._limits, max_bytes=sys.maxsize), sys.maxsize
        return self._limits, self._settings.import_max_lines

    async def _check(self, connection: Connection, job: LeasedImport, progress: ImportProgress) -> list[bytes]:
        """Run the import dry, and store and return the digests of its text. Raises Conflict if it must not begin."""
        await imports.log_event(connection, job.id, "checking the numbers before anything is changed")
        async with open_import_source(self._pool, job, self._limits) as source:
            digests = await import_engine.check_import(
                connection, job, source, self._limits,
                max_lines=self._settings.import_max_lines, progress=progress,
            )  # fmt: skip
        await imports.set_checked(connection, job, digests)
        return digests

    async def _end(self, connection: Connection, job: LeasedImport, *, complete: bool) -> None:
        if not complete:
            await imports.release(connection, job)
            return
        failpoints.hit("import.complete")
        await imports.finish(connection, job)
        failpoints.hit("import.finished")
        log.info("import finished", job=str(job.id), into=job.target.name)

    async def _fail(self, connection: Connection, job: LeasedImport, reason: str) -> None:
        await imports.fail(connection, job, reason)
        log.warning("import failed", job=str(job.id))  # the reason may quote the file

    async def _retry(self, job: LeasedImport, reason: str) -> None:
        """Retry the import later, or fail it after MAX_RETRIES. The import's own connection may have failed."""
        async with self._pool.acquire() as connection:
            retries = await imports.count_retry(connection, job)
            if retries > MAX_RETRIES:
                await self._fail(connection, job, f"{reason} ({retries} times)")
                return
        await self._postpone(job, reason, seconds=FIRST_RETRY_SECONDS * 2.0 ** (retries - 1))

    async def _postpone(self, job: LeasedImport, reason: str, *, seconds: float) -> None:
        async with self._pool.acquire() as connection:
            await imports.postpone(connection, job, reason, seconds=seconds)
        log.warning("import postponed", job=str(job.id), seconds=seconds)


@asynccontextmanager
async def open_import_source(pool: Pool, job: LeasedImport, limits: SourceLimits) -> AsyncIterator[Source]:
    """The source of the import. Raises Conflict, SourceError, SourceUnavailable."""
    if undone := undo.parse_source(job.source):
        yield Source(f"import {undone}", None, undo.iter_text(pool, undone, job.target.kind, job.id))
        return
    if upload_id := uploads.parse_source(job.source):
        upload = await uploads.find(pool, upload_id)
        if upload is None:
            raise Conflict(f"there is no upload {upload_id}")
        yield Source(upload.name, upload.size_bytes, uploads.iter_pieces(pool, upload))
        return
    async with open_source(job.source, limits) as source:
        yield source
