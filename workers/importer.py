"""The import role: read a source in pieces, check its lines, commit them chunk by chunk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from coupons.codes import Checked
from coupons.database import Connection, Pool
from coupons.errors import Refused
from coupons.reading import CodeReader, FileError, FileFormat
from coupons.settings import Settings
from coupons.store import imports
from coupons.store.imports import CHUNK_BYTES, Job
from workers.lease import kept
from workers.loops import AT_ONCE, Signals

log = structlog.get_logger()


class Importer:
    def __init__(self, *, pool: Pool, signals: Signals, settings: Settings, owner: str) -> None:
        self._pool = pool
        self._signals = signals
        self._settings = settings
        self._owner = owner

    async def step(self) -> float | None:
        """Do one import; None if none waits."""
        lease_seconds = self._settings.lease_seconds
        async with self._pool.acquire() as connection:
            job = await imports.claim(connection, owner=self._owner, lease_seconds=lease_seconds)
        if job is None:
            return None
        async with kept(lambda: self._renew(job), every=self._settings.heartbeat_seconds, expires_after=lease_seconds):
            await self._import(job)
        return AT_ONCE

    async def _renew(self, job: Job) -> None:
        async with self._pool.acquire() as connection:
            await imports.renew(connection, job, lease_seconds=self._settings.lease_seconds)

    async def _import(self, job: Job) -> None:
        """What cannot be read ends the import; the chunks before it stay, and their lines are accounted for."""
        async with self._pool.acquire() as connection:
            try:
                whole = await self._take_codes(connection, job)
                if whole and job.mode == "replace":
                    whole = await self._remove_replaced(connection, job)
            except (FileError, Refused) as error:
                await imports.fail(connection, job, str(error))
                log.warning("import failed", job=str(job.id))  # the reason may quote the file
                return
            if whole:
                await imports.finish(connection, job)
                log.info("import finished", job=str(job.id), list=job.list)
            else:
                await imports.hand_back(connection, job)

    async def _take_codes(self, connection: Connection, job: Job) -> bool:
        """Commit every piece that is not committed yet; False if the process is to stop before the end.

        The reader is fed from the start even when an import goes on: the same pieces give the same chunks.
        """
        name, pieces = await self._open(connection, job)
        reader = CodeReader(FileFormat(**job.format), name)
        position, chunk = 0, Checked([], [], [], 0)
        async for piece in pieces:
            await self._apply(connection, job, chunk, position)
            if self._signals.stopping:
                return False
            position, chunk = position + len(piece), reader.feed(piece)
        # The reader's rest belongs to the last piece: a chunk of its own would be taken twice after a crash.
        await self._apply(connection, job, joined(chunk, reader.finish()), position)
        return True

    async def _apply(self, connection: Connection, job: Job, chunk: Checked, position: int) -> None:
        if position > job.bytes:
            await imports.apply(connection, job, chunk, position=position, lease_seconds=self._settings.lease_seconds)

    async def _remove_replaced(self, connection: Connection, job: Job) -> bool:
        while await imports.remove_replaced(connection, job, lease_seconds=self._settings.lease_seconds):
            if self._signals.stopping:
                return False
        return True

    async def _open(self, connection: Connection, job: Job) -> tuple[str, AsyncIterator[bytes]]:
        """The source's name and pieces. Raises Refused if it may not or cannot be read."""
        if upload_id := imports.upload_in(job.source):
            upload = await imports.find_upload(connection, upload_id)
            if upload is None:
                raise Refused(f"there is no upload {upload_id}")
            await imports.set_size(connection, job, upload.bytes)
            return upload.name, imports.pieces_of(connection, upload_id)
        path = confined(job.source, self._settings.import_folder)
        size = path.stat().st_size
        if size > self._settings.import_max_bytes:
            raise Refused(f"{path.name} has {size} bytes, at most {self._settings.import_max_bytes} are taken")
        await imports.set_size(connection, job, size)
        return path.name, _pieces_of(path)


def joined(first: Checked, second: Checked) -> Checked:
    return Checked(
        first.lines + second.lines,
        first.codes + second.codes,
        first.rejected + second.rejected,
        first.blank + second.blank,
    )


def confined(source: str, folder: Path | None) -> Path:
    """The file that a `file:` source names, if it lies in the folder for them.

    Raises:
        Refused: another kind of source, no such folder, a path that leads out of it, or no such file.
    """
    url = urlsplit(source)
    if url.scheme != "file":
        raise Refused(f"sources of {url.scheme}: are not offered; use an upload or file:")
    if folder is None:
        raise Refused("file: sources are off: COUPONS_IMPORT_FOLDER is not set")
    path = Path(unquote(url.path)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise Refused(f"{path} is not in {folder}")
    if not path.is_file():
        raise Refused(f"{path} is not a file")
    return path


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    """Raises FileError: trouble with a file is not trouble with the database, and does not pass by itself."""
    try:
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield piece
    except OSError as error:
        raise FileError(f"{path.name}: {error.strerror}") from error
