"""Groups of recipients: their attributes and sizes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection, affected
from coupons.errors import Conflict
from coupons.store.queries import Queries
from coupons.templates.hints import suggestion

SQL = Queries("groups.sql")
OWN_ATTRIBUTES = frozenset({"email"})
"""Attributes that every recipient has."""
DELETE_SECONDS = 3_600
"""Time limit for deleting a group. No unfinished work uses it, so nothing waits for it."""


@dataclass(frozen=True, slots=True)
class Group:
    id: int
    name: str
    attributes: list[str]
    created_at: datetime
    recipients: int


@dataclass(frozen=True, slots=True)
class Audience:
    """The data of a group that a sendout needs. They are read without counting the group's recipients."""

    id: int
    attributes: list[str]
    has_recipients: bool


async def list_all(connection: Connection) -> list[Group]:
    return [Group(**row) for row in await connection.fetch(SQL.rows, None)]


async def find(connection: Connection, name: str) -> Group | None:
    row = await connection.fetchrow(SQL.rows, [name])
    return Group(**row) if row else None


async def get(connection: Connection, name: str) -> Group:
    """The group with this name. Raises Conflict if it does not exist."""
    found = await find(connection, name)
    if found is None:
        raise Conflict(f"there is no group {name}")
    return found


async def find_audience(connection: Connection, name: str) -> Audience | None:
    """The audience in the group with this name."""
    row = await connection.fetchrow(SQL.audience, name)
    return Audience(**row) if row else None


async def check_known(connection: Connection, owner: str, names: Collection[str], *, declared: Collection[str]) -> None:
    """Check the attributes that a message or an alternative text prints, whose `owner` the error names.

    Raises Conflict if an attribute is neither declared nor known from a group.
    """
    rows = await connection.fetch(SQL.known_attributes)
    known = {*(row["name"] for row in rows), *declared, *OWN_ATTRIBUTES}
    if unknown := sorted(set(names) - known):
        meant = "".join(f"; instead of {each} write {name}" for each in unknown if (name := suggestion(each)) in known)
        undefined = f"undefined name {', '.join(unknown)}"
        raise Conflict(f"{owner}: {undefined}; recipients have {', '.join(sorted(known))}{meant}")


async def extend(connection: Connection, group_id: int, attributes: Sequence[str]) -> None:
    """Add attributes that the group's recipients may have."""
    await connection.execute(SQL.extend, group_id, attributes)


async def delete(connection: Connection, name: str) -> int:
    """Delete a group with its recipients and the rejected lines of its imports; return the number of recipients.

    Sendouts and imports that have ended stay, with the group's name.

    The recipients are deleted before the group is locked, because a lock for minutes would hold up the commands that
    refer to the group. If such a command arrives in the meantime, nothing is deleted.

    Raises Conflict if the group does not exist, or an unfinished sendout or import uses it.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DELETE_SECONDS}s'")
        group_id = await connection.fetchval(SQL.id, name)
        if group_id is None:
            raise Conflict(f"there is no group {name}")
        await _check_unused(connection, group_id, name)
        deleted = affected(await connection.execute(SQL.delete_recipients, group_id, timeout=DELETE_SECONDS))
        await _check_unused(connection, group_id, name)  # before the lock: an import may wait for a recipient
        if await connection.fetchval(SQL.lock, group_id) is None:
            raise Conflict(f"there is no group {name}")
        await _check_unused(connection, group_id, name)
        await connection.execute(SQL.leave_sendouts, group_id, name)
        await connection.execute(SQL.delete_rejections, group_id, timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_removals, group_id, timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_uploads, group_id, timeout=DELETE_SECONDS)
        deleted += affected(await connection.execute(SQL.delete_late_recipients, group_id, timeout=DELETE_SECONDS))
        await connection.execute(SQL.delete, group_id)
        return deleted


async def _check_unused(connection: Connection, group_id: int, name: str) -> None:
    users = await connection.fetchrow(SQL.users, group_id, name)
    assert users is not None  # noqa: S101 - a SELECT without FROM always has a row
    if users["sendout"]:
        raise Conflict(f"group {name} is used by sendout {users['sendout']}, which is not finished")
    if users["import"]:
        raise Conflict(f"group {name} is being filled by import {users['import']}")


async def lock_of_import(connection: Connection, import_id: UUID) -> None:
    """Lock the group that an import fills, if it fills one, before the import ends without success."""
    await connection.execute(SQL.lock_of_import, import_id)


async def delete_if_unused(connection: Connection, import_id: UUID) -> None:
    """Delete the group of an import that has failed or was cancelled, if only such imports have ever used it.

    `lock_of_import` has locked it in the same transaction.
    """
    await connection.execute(SQL.delete_if_unused, import_id)
