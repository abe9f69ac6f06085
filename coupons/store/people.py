"""Who got which code: the two questions of a service desk."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("people.sql")
MAILS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to an address, sent or not; `codes` by list name."""

    sendout: UUID
    created_at: datetime
    message: str
    number: int
    address: str
    state: str
    attempts: int
    reply: str | None
    changed_at: datetime | None
    codes: dict[str, str]


@dataclass(frozen=True, slots=True)
class CodeOwner:
    """A code in a list; without a sendout it is free."""

    list: str
    sendout: UUID | None
    message: str | None
    address: str | None
    state: str | None
    changed_at: datetime | None


async def mails_to(connection: Connection, address_key: str) -> list[Mail]:
    """By the normalised address (`coupons.addresses`), newest first."""
    return [Mail(**row) for row in await connection.fetch(SQL.by_address, address_key, MAILS_SHOWN)]


async def owners_of(connection: Connection, code: str) -> list[CodeOwner]:
    return [CodeOwner(**row) for row in await connection.fetch(SQL.by_code, code)]
