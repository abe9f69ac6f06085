"""Groups of recipients: their attributes and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.store.queries import Queries

SQL = Queries("groups.sql")


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


async def known_attributes(connection: Connection) -> list[str]:
    """The attributes of all groups."""
    return [row["name"] for row in await connection.fetch(SQL.known_attributes)]


async def extend(connection: Connection, group_id: int, attributes: Sequence[str]) -> None:
    """Add attributes that the group's recipients may have."""
    await connection.execute(SQL.extend, group_id, attributes)
