"""Who got which code, and what did the relay say: the questions of a service desk."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("lookup.sql")
MAILS_SHOWN = 100
DELIVERIES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt to mail somebody, in the relay's words."""

    number: int
    address: str
    attempt: int
    outcome: str
    reply: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to an address, sent or not; `codes` by list name, `answers` from the first attempt to the last.

    Which codes it had of its sendout's `deleted_lists` is not known any more.
    """

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
    deleted_lists: list[str]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class CodeOwner:
    """A code in a list; without a sendout it is free.

    Without a list: such a code was sent, of a list that was deleted since, and nothing else is known of it.
    """

    list: str | None
    sendout: UUID | None
    message: str | None
    address: str | None
    state: str | None
    changed_at: datetime | None


async def list_mails(connection: Connection, address_key: str) -> list[Mail]:
    """By the normalised address (`coupons.addresses`), newest first."""
    rows = await connection.fetch(SQL.by_address, address_key, MAILS_SHOWN)
    return [Mail(**row, answers=await _answers(connection, row["sendout"], [row["number"]])) for row in rows]


async def iter_replies(connection: Connection, sendout_id: UUID) -> AsyncIterator[Answer]:
    """All answers to each mail of a sendout that was not simply taken at its first attempt, by number and attempt."""
    after = 0
    while rows := await connection.fetch(SQL.troubled, sendout_id, after, DELIVERIES_AT_ONCE):
        for answer in await _answers(connection, sendout_id, [row["number"] for row in rows]):
            yield answer
        after = rows[-1]["number"]


async def _answers(connection: Connection, sendout_id: UUID, numbers: list[int]) -> tuple[Answer, ...]:
    return tuple([Answer(**row) for row in await connection.fetch(SQL.answers, sendout_id, numbers)])


async def list_owners(connection: Connection, code: str) -> list[CodeOwner]:
    return [CodeOwner(**row) for row in await connection.fetch(SQL.by_code, code)]
