"""Groups of recipients, one row an address."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from coupons.database import Connection
from coupons.errors import Refused
from coupons.recipients import Recipient
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
class Added:
    """What became of one chunk: new recipients, known ones (their attributes updated), and repeated lines."""

    added: int
    known: int
    duplicates: list[tuple[int, str]]


async def all_of(connection: Connection) -> list[Group]:
    return [Group(**row) for row in await connection.fetch(SQL.rows, None)]


async def named(connection: Connection, name: str) -> Group:
    """Raises Refused if there is none."""
    row = await connection.fetchrow(SQL.rows, [name])
    if row is None:
        raise Refused(f"there is no group {name}")
    return Group(**row)


async def known_attributes(connection: Connection) -> list[str]:
    """Every attribute that recipients of some group have."""
    return [row["name"] for row in await connection.fetch(SQL.known_attributes)]


async def add(
    connection: Connection, name: str, attributes: Iterable[str], recipients: Sequence[tuple[int, Recipient]]
) -> Added:
    """Add one chunk of (line, recipient) to the group, making it if need be. Runs inside the caller's transaction."""
    group = await connection.fetchrow(SQL.ensure, name, [])
    assert group is not None  # noqa: S101 - ON CONFLICT DO UPDATE returns the row either way
    await connection.execute(SQL.extend, group["id"], list(attributes))
    await connection.execute(SQL.staging)
    rows = ((line, each.key, each.address, json.dumps(each.attributes)) for line, each in recipients)
    await connection.copy_records_to_table(
        "staged_recipient", records=rows, columns=["line", "address_key", "address", "attributes"]
    )
    duplicates = [(row["line"], row["address"]) for row in await connection.fetch(SQL.duplicates)]
    counted = await connection.fetchrow(SQL.add, group["id"])
    assert counted is not None  # noqa: S101 - an aggregate always has a row
    return Added(counted["added"], counted["known"], duplicates)
