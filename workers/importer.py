"""The import role: claim an import, open its source, let the engine take it in, say how it ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from coupons import failpoints, import_engine
from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import Conflict, LeaseLost
from coupons.files.decoding import FileError
from coupons.lease import renewed_lease
from coupons.settings import Settings
from coupons.sources import Source, SourceError, SourceLimits, SourceUnavailable, open_source
from coupons.store import imports, uploads
from coupons.store.imports import Job
from workers.auto_resume import auto_resume
from workers.loops import NO_PAUSE, Signals, error_location
from workers.nudges import Nudges

log = structlog.get_logger()
MOST_INTERRUPTIONS = 8
"""Of one import, since its last chunk: by its source, a statement that takes too long, or a defect."""
FIRST_PAUSE_SECONDS = 5.0
"""Before it is tried again; then doubling: twenty minutes in all."""
TROUBLE_SECONDS = 10.0
"""Before it is tried again after the database failed, however often: that is not the import's fault."""


class Importer:
    def __init__(self, *, pool: Pool, signals: Signals, nudges: Nudges, settings: Settings, owner: str) -> None:
        self._pool = pool
        self._signals = signals
        self._nudges = nudges
        self._settings = settings
        self._limits = SourceLimits.from_settings(settings)
        self._owner = owner

    async def step(self) -> float | None:
        """Do one import; if none waits, the seconds until one is due, or None."""
        lease_seconds = self._settings.lease_seconds
        async with self._pool.acquire() as connection:
            job = await imports.claim(connection, owner=self._owner, lease_seconds=lease_seconds)
            if job is None:
                return await imports.seconds_until_due(connection)
            went_on = f" and goes on after {job.lines} lines" if job.was_left else ""
            await imports.note(connection, job.id, f"taken by {self._owner}{went_on}")
        failpoints.hit("import.claimed")
        async with renewed_lease(
            lambda: self._renew(job), every=self._settings.heartbeat_seconds, expires_after=lease_seconds
        ):
            await self._import(job)
        async with self._pool.acquire() as connection:
            await auto_resume(connection, self._nudges)
        return NO_PAUSE

    async def _renew(self, job: Job) -> None:
        async with self._pool.acquire() as connection:
            await imports.renew(connection, job, lease_seconds=self._settings.lease_seconds)

    async def _import(self, job: Job) -> None:
        """What cannot be read ends the import; the chunks before it stay, and their lines are accounted for."""
        async with self._pool.acquire() as connection, self._pool.acquire() as other:
            try:
                whole = await self._carry_out((connection, other), job)
                await self._ended(connection, job, whole=whole)
            except LeaseLost:
                raise
            except SourceUnavailable as error:
                await self._interrupted(job, str(error))
            except (FileError, SourceError, Conflict) as error:
                await self._failed(connection, job, str(error))
            except asyncpg.QueryCanceledError:  # perhaps its own: of so many lines that it always takes too long
                await self._interrupted(job, "database trouble, a statement took too long")
            except TRANSIENT_ERRORS as error:
                await self._put_off(job, f"database trouble, {type(error).__name__}", seconds=TROUBLE_SECONDS)
            except Exception as error:  # noqa: BLE001 - it would be tried for ever, and the list's other imports wait
                log.error("internal error", job=str(job.id), error=type(error).__name__, at=error_location(error))  # noqa: TRY400 - may hold codes
                await self._interrupted(job, f"a defect, {type(error).__name__}")

    async def _carry_out(self, connections: tuple[Connection, Connection], job: Job) -> bool:
        async with opened(self._pool, job, self._limits) as source:
            return await import_engine.carry_out(
                connections, job, source, self._limits,
                max_lines=self._settings.import_max_lines,
                lease_seconds=self._settings.lease_seconds,
                stopping=lambda: self._signals.stopping,
            )  # fmt: skip

    async def _ended(self, connection: Connection, job: Job, *, whole: bool) -> None:
        if not whole:
            await imports.hand_back(connection, job)
            return
        failpoints.hit("import.complete")
        await imports.finish(connection, job)
        failpoints.hit("import.finished")
        log.info("import finished", job=str(job.id), into=job.target.name)

    async def _failed(self, connection: Connection, job: Job, reason: str) -> None:
        await imports.fail(connection, job, reason)
        log.warning("import failed", job=str(job.id))  # the reason may quote the file

    async def _interrupted(self, job: Job, reason: str) -> None:
        """Over a connection of its own: another one may be what has failed."""
        async with self._pool.acquire() as connection:
            times = await imports.interrupted(connection, job)
            if times > MOST_INTERRUPTIONS:
                await self._failed(connection, job, f"{reason} ({times} times)")
                return
        await self._put_off(job, reason, seconds=FIRST_PAUSE_SECONDS * 2.0 ** (times - 1))

    async def _put_off(self, job: Job, reason: str, *, seconds: float) -> None:
        async with self._pool.acquire() as connection:
            await imports.postpone(connection, job, reason, seconds=seconds)
        log.warning("import interrupted, to be tried again", job=str(job.id), seconds=seconds)


@asynccontextmanager
async def opened(pool: Pool, job: Job, limits: SourceLimits) -> AsyncIterator[Source]:
    """The import's source. Raises Conflict, SourceError, SourceUnavailable."""
    if upload_id := uploads.id_in(job.source):
        upload = await uploads.find(pool, upload_id)
        if upload is None:
            raise Conflict(f"there is no upload {upload_id}")
        yield Source(upload.name, upload.size_bytes, uploads.pieces_of(pool, upload))
        return
    async with open_source(job.source, limits) as source:
        yield source
