"""Uploaded files. The database stores them in pieces until a worker imports them, so no shared disk is needed."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import Conflict
from coupons.store.queries import Queries

SQL = Queries("uploads.sql")
STALE_DAYS = 7
KEPT_HOURS = 24
DELETE_TIMEOUT_SECONDS = 600
"""Long enough to delete gigabytes of abandoned uploads."""


@dataclass(frozen=True, slots=True)
class Upload:
    id: UUID
    name: str
    size_bytes: int


async def store(
    connection: Connection, name: str, pieces: AsyncIterable[bytes], *, max_bytes: int, upload_id: UUID | None = None
) -> Upload:
    """Store a file. Each piece is committed; the upload exists once it is complete.

    If a complete upload with this id exists, it is returned unchanged. After an error, the stored pieces are deleted;
    if the database is unavailable, they are deleted after STALE_DAYS.

    Raises Conflict if the file is larger than `max_bytes`.
    """
    upload_id = upload_id or uuid4()
    if complete := await find(connection, upload_id):
        return complete
    await delete(connection, upload_id)  # pieces of an aborted upload
    await connection.execute(SQL.begin, upload_id, name)
    try:
        size = await _store_pieces(connection, upload_id, name, pieces, max_bytes)
    except BaseException:
        with suppress(*TRANSIENT_ERRORS):  # the connection may be unusable after the error
            await delete(connection, upload_id)
        raise
    await connection.execute(SQL.complete, upload_id, size)
    return Upload(upload_id, name, size)


async def _store_pieces(
    connection: Connection, upload_id: UUID, name: str, pieces: AsyncIterable[bytes], max_bytes: int
) -> int:
    size = number = 0
    async for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise Conflict(f"{name} exceeds the limit of {max_bytes} bytes (COUPONS_IMPORT_MAX_BYTES)")
        await connection.execute(SQL.add_chunk, upload_id, number, piece)
        number += 1
    return size


async def find(connection: "Connection | Pool", upload_id: UUID) -> Upload | None:
    """The complete upload with this id, or None."""
    row = await connection.fetchrow(SQL.find, upload_id)
    return Upload(**row) if row else None


async def iter_pieces(connection: "Connection | Pool", upload: Upload) -> AsyncIterator[bytes]:
    """The pieces of an upload, as they were stored. Raises Conflict if the upload is deleted in the meantime."""
    number = size = 0
    while (data := await connection.fetchval(SQL.chunk, upload.id, number)) is not None:
        yield data
        number, size = number + 1, size + len(data)
    if size != upload.size_bytes:
        raise Conflict(f"upload {upload.id} no longer exists")


async def delete(connection: Connection, upload_id: UUID) -> None:
    """Delete an upload, unless an unfinished import needs it."""
    await connection.execute(SQL.delete, upload_id)


async def delete_unless_kept(connection: Connection, upload_id: UUID) -> None:
    """Delete an upload, unless an unfinished import needs it, or it is kept because another import of it has failed."""
    await connection.execute(SQL.delete_unless_kept, upload_id)


async def keep(connection: Connection, upload_id: UUID) -> None:
    """Keep the upload of a failed import for KEPT_HOURS, so that the import can be retried with another format."""
    await connection.execute(SQL.keep, upload_id, KEPT_HOURS * 3_600.0)


async def delete_stale(connection: Connection) -> None:
    """Delete old and expired uploads without an unfinished import."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DELETE_TIMEOUT_SECONDS}s'")
        await connection.execute(SQL.delete_stale, STALE_DAYS * 86_400.0, timeout=DELETE_TIMEOUT_SECONDS)


def parse_source(source: str) -> UUID | None:
    """The id in `upload:<id>`. None for another kind of source. Raises Conflict if the id is not a UUID."""
    scheme, _, rest = source.partition(":")
    if scheme != "upload":
        return None
    try:
        return UUID(rest)
    except ValueError:
        raise Conflict("invalid source: an upload source has the form upload:<id>, where the id is a UUID") from None
