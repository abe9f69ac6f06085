"""Files on their way to a worker, in pieces in the database, so that no shared disk is needed."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import Conflict
from coupons.store.queries import Queries

SQL = Queries("uploads.sql")
STALE_DAYS = 7
DROP_SECONDS = 600
"""For gigabytes that nobody imported."""


@dataclass(frozen=True, slots=True)
class Upload:
    id: UUID
    name: str
    size_bytes: int


async def keep(
    connection: Connection, name: str, pieces: AsyncIterable[bytes], *, max_bytes: int, upload_id: UUID | None = None
) -> Upload:
    """Store a file; each piece is committed, the upload counts once it is whole. One of this id that is whole stays.

    Whatever ends it early, its pieces are gone again, or after STALE_DAYS if the database cannot be told.

    Raises:
        Conflict: it is larger than `max_bytes`.
    """
    upload_id = upload_id or uuid4()
    if whole := await find(connection, upload_id):
        return whole
    await drop(connection, upload_id)  # what was given up of it
    await connection.execute(SQL.begin, upload_id, name)
    try:
        size = await _keep_pieces(connection, upload_id, name, pieces, max_bytes)
    except BaseException:
        with suppress(*TRANSIENT_ERRORS):  # a connection that was in the middle of something may be of no use
            await drop(connection, upload_id)
        raise
    await connection.execute(SQL.complete, upload_id, size)
    return Upload(upload_id, name, size)


async def _keep_pieces(
    connection: Connection, upload_id: UUID, name: str, pieces: AsyncIterable[bytes], max_bytes: int
) -> int:
    size = number = 0
    async for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise Conflict(f"{name} has more than {max_bytes} bytes, that many are taken (COUPONS_IMPORT_MAX_BYTES)")
        await connection.execute(SQL.add_chunk, upload_id, number, piece)
        number += 1
    return size


async def find(connection: "Connection | Pool", upload_id: UUID) -> Upload | None:
    """A whole upload."""
    row = await connection.fetchrow(SQL.find, upload_id)
    return Upload(**row) if row else None


async def pieces_of(connection: "Connection | Pool", upload: Upload) -> AsyncIterator[bytes]:
    """Its bytes, piece by piece as they were stored. Raises Conflict if it was dropped meanwhile."""
    number = size = 0
    while (data := await connection.fetchval(SQL.chunk, upload.id, number)) is not None:
        yield data
        number, size = number + 1, size + len(data)
    if size != upload.size_bytes:
        raise Conflict(f"there is no upload {upload.id} any more")


async def drop(connection: Connection, upload_id: UUID) -> None:
    """Unless an import that has not ended names it."""
    await connection.execute(SQL.drop, upload_id)


async def drop_stale(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DROP_SECONDS}s'")
        await connection.execute(SQL.drop_stale, STALE_DAYS * 86_400.0, timeout=DROP_SECONDS)


def id_in(source: str) -> UUID | None:
    """The id in `upload:<id>`; None for other sources. Raises Conflict if it is no id."""
    scheme, _, rest = source.partition(":")
    if scheme != "upload":
        return None
    try:
        return UUID(rest)
    except ValueError:
        raise Conflict("an upload's source is upload:<id>") from None
