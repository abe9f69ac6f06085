"""Imports into coupon lists: uploads, jobs, and the set-based statement that takes one chunk of codes.

A chunk is one transaction: its codes, the lines that were not taken, the list's counters and the job's position. A
worker that dies anywhere leaves whole chunks behind; the next one goes on after them.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from coupons.codes import Checked, Reason, Rejected
from coupons.commands import ImportCoupons
from coupons.database import Connection
from coupons.errors import LeaseLost, Refused
from coupons.store import lists
from coupons.store.queries import Queries

SQL = Queries("imports.sql")
CHUNK_BYTES = 1_048_576
REMOVED_AT_ONCE = 20_000
UPLOAD_DAYS = 7

REASONS = {reason.value: reason for reason in Reason}

Mode = Literal["add", "replace", "delete"]


@dataclass(frozen=True, slots=True)
class Job:
    """An import under a lease; `bytes` of its source are committed."""

    id: UUID
    list_id: int
    list: str
    mode: Mode
    source: str
    format: dict[str, Any]
    bytes: int
    lease_token: UUID


@dataclass(frozen=True, slots=True)
class Upload:
    id: UUID
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Import:
    """`lines` = `blank` + `added` + `kept` + `rejected` (+ `removed`, when codes are deleted)."""

    id: UUID
    list: str
    mode: Mode
    source: str
    state: str
    reason: str | None
    lines: int
    blank: int
    added: int
    removed: int
    kept: int
    rejected: int
    bytes: int
    total_bytes: int | None
    created_at: datetime
    finished_at: datetime | None


# --- uploads -------------------------------------------------------------------------------------------------------


async def upload(connection: Connection, name: str, pieces: AsyncIterable[bytes]) -> Upload:
    """Store a file so that any worker can read it; each piece is committed, the upload counts once it is whole."""
    upload_id, size, number = uuid4(), 0, 0
    await connection.execute(SQL.begin_upload, upload_id, name)
    async for piece in pieces:
        await connection.execute(SQL.add_chunk, upload_id, number, piece)
        size, number = size + len(piece), number + 1
    await connection.execute(SQL.complete_upload, upload_id, size)
    return Upload(upload_id, name, size)


async def find_upload(connection: Connection, upload_id: UUID) -> Upload | None:
    """A whole upload."""
    row = await connection.fetchrow(SQL.upload, upload_id)
    return Upload(**row) if row else None


async def pieces_of(connection: Connection, upload_id: UUID) -> AsyncIterator[bytes]:
    """Its bytes, piece by piece as they were stored."""
    number = 0
    while (data := await connection.fetchval(SQL.chunk, upload_id, number)) is not None:
        yield data
        number += 1


async def drop_upload(connection: Connection, upload_id: UUID) -> None:
    await connection.execute(SQL.drop_upload, upload_id)


async def drop_stale_uploads(connection: Connection) -> None:
    await connection.execute(SQL.drop_stale_uploads, UPLOAD_DAYS * 86_400.0)


# --- the command ---------------------------------------------------------------------------------------------------


async def create(connection: Connection, command: ImportCoupons) -> None:
    """Note the import. Codes that came with the command are kept as an upload, so that there is one way in.

    Raises:
        Refused: the list does not exist or is archived, the upload does not exist.
    """
    await check(connection, command)
    source, format_ = command.source, command.format.model_dump(exclude_none=True)
    if command.codes is not None:
        source, format_ = await _keep_inline(connection, command.codes), {"kind": "txt"}
    if await connection.fetchval(SQL.create, command.id, command.list, command.mode, source, format_) is None:
        raise Refused(f"there is no list {command.list}")


async def check(connection: Connection, command: ImportCoupons) -> None:
    """All that can be known to be wrong before anything is begun. Raises Refused."""
    (target,) = await lists.named(connection, command.list)
    if target.archived_at:
        raise Refused(f"list {target.name} is archived")
    if (upload_id := upload_in(command.source or "")) and await find_upload(connection, upload_id) is None:
        raise Refused(f"there is no upload {upload_id}")


def upload_in(source: str) -> UUID | None:
    """The id in `upload:<id>`; None for other sources. Raises Refused if it is no id."""
    scheme, _, rest = source.partition(":")
    if scheme != "upload":
        return None
    try:
        return UUID(rest)
    except ValueError:
        raise Refused("an upload's source is upload:<id>") from None


async def _keep_inline(connection: Connection, codes: Iterable[str]) -> str:
    async def piece() -> AsyncIterator[bytes]:
        # A line break inside a code would make two of it: shown as a control character, it is refused as one.
        yield "\n".join(code.strip().replace("\n", "\x00").replace("\r", "\x00") for code in codes).encode()

    return f"upload:{(await upload(connection, 'inline', piece())).id}"


# --- the work ------------------------------------------------------------------------------------------------------


async def claim(connection: Connection, *, owner: str, lease_seconds: float) -> Job | None:
    """The oldest import that waits, or was left by a worker that died."""
    row = await connection.fetchrow(SQL.claim, owner, lease_seconds)
    return Job(**row) if row else None


async def set_size(connection: Connection, job: Job, total_bytes: int) -> None:
    await connection.execute(SQL.set_size, job.id, job.lease_token, total_bytes)


async def apply(connection: Connection, job: Job, checked: Checked, *, position: int, lease_seconds: float) -> None:
    """Take one chunk of checked lines; `position` bytes of the source are then done. Raises LeaseLost."""
    async with connection.transaction():
        await _hold(connection, job)
        await connection.execute(SQL.one_at_a_time, job.list_id)
        await connection.execute(SQL.staging)
        await connection.copy_records_to_table(
            "staged_code", records=zip(checked.lines, checked.codes, strict=True), columns=["line", "code"]
        )
        taken = await _take_staged(connection, job)
        await _reject(connection, job, checked.rejected)
        await connection.execute(SQL.move_counters, job.list_id, taken["added"] - taken["removed"])
        await connection.execute(
            SQL.progress, job.id, job.lease_token, position, checked.blank, taken["added"], taken["removed"],
            taken["kept"], taken["rejected"] + len(checked.rejected), lease_seconds,
        )  # fmt: skip


async def _take_staged(connection: Connection, job: Job) -> Any:
    if job.mode == "delete":
        available = await connection.fetchval(SQL.lock_list, job.list_id)
        return await connection.fetchrow(SQL.delete, job.list_id, job.id, available)
    return await connection.fetchrow(SQL.add, job.list_id, job.id, job.mode == "replace")


async def _reject(connection: Connection, job: Job, rejected: list[Rejected]) -> None:
    if rejected:
        columns = zip(*((each.line, each.value, each.reason.value) for each in rejected), strict=True)
        await connection.execute(SQL.reject, job.id, *(list(column) for column in columns))


async def remove_replaced(connection: Connection, job: Job, *, lease_seconds: float) -> int:
    """Remove some free codes that a replacing import did not bring; returns how many, 0 when there are no more.

    Codes promised to a sendout stay. Raises LeaseLost.
    """
    async with connection.transaction():
        await _hold(connection, job)
        await connection.execute(SQL.one_at_a_time, job.list_id)
        available = await connection.fetchval(SQL.lock_list, job.list_id)
        at_most = min(available, REMOVED_AT_ONCE)
        removed: int = await connection.fetchval(SQL.remove_replaced, job.list_id, job.id, at_most)
        await connection.execute(SQL.move_counters, job.list_id, -removed)
        await connection.execute(SQL.progress, job.id, job.lease_token, job.bytes, 0, 0, removed, 0, 0, lease_seconds)
        return removed


async def finish(connection: Connection, job: Job) -> None:
    """Raises LeaseLost."""
    await _end(connection, job, "finished", None)


async def fail(connection: Connection, job: Job, reason: str) -> None:
    """End an import whose source cannot be read on; whole chunks stay. Raises LeaseLost."""
    await _end(connection, job, "failed", reason)


async def _end(connection: Connection, job: Job, state: str, reason: str | None) -> None:
    async with connection.transaction():
        if await connection.fetchval(SQL.end, job.id, job.lease_token, state, reason) is None:
            raise LeaseLost(f"import {job.id}")
        if upload_id := upload_in(job.source):
            await drop_upload(connection, upload_id)


async def hand_back(connection: Connection, job: Job) -> None:
    await connection.execute(SQL.hand_back, job.id, job.lease_token)


async def renew(connection: Connection, job: Job, *, lease_seconds: float) -> None:
    """Keep the import for longer. Raises LeaseLost."""
    if await connection.fetchval(SQL.renew, job.id, job.lease_token, lease_seconds) is None:
        raise LeaseLost(f"import {job.id}")


async def _hold(connection: Connection, job: Job) -> None:
    if await connection.fetchval(SQL.hold, job.id, job.lease_token) is None:
        raise LeaseLost(f"import {job.id}")


# --- looking -------------------------------------------------------------------------------------------------------


async def find(connection: Connection, import_id: UUID) -> Import | None:
    row = await connection.fetchrow(SQL.rows, import_id, None, 1)
    return Import(**row) if row else None


async def of_list(connection: Connection, list_name: str, *, limit: int = 20) -> list[Import]:
    return [Import(**row) for row in await connection.fetch(SQL.rows, None, list_name, limit)]


async def rejections(connection: Connection, import_id: UUID, *, limit: int | None = None) -> list[Rejected]:
    """The lines that were not taken, by line: all of them, or the first."""
    rows = await connection.fetch(SQL.rejections, import_id, limit)
    return [Rejected(row["line"], row["value"], REASONS[row["reason"]]) for row in rows]


async def judge(connection: Connection, list_id: int, checked: Checked) -> list[Rejected]:
    """Which of the codes the list would not take, with nothing written."""
    rows = await connection.fetch(SQL.judge, list_id, checked.lines, checked.codes)
    return [Rejected(row["line"], row["code"], REASONS[row["reason"]]) for row in rows]
