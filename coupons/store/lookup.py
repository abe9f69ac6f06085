"""Look up mails, codes and the relays' replies for the service desk."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection
from coupons.files.codes import fold, spellings
from coupons.paging import PAGE_SIZE, UnknownCursor
from coupons.store.queries import Queries

SQL = Queries("lookup.sql")
DELIVERIES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one attempt, with the relay's reply."""

    number: int
    address: str
    attempt: int
    outcome: str
    reply: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to an address, sent or not. `codes` maps list names to codes. `answers` has all attempts, oldest first.

    The mail's codes of `deleted_lists` are no longer known.
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
    """A code, in its own spelling, and the recipient that it is assigned to. If `sendout` is None, it is not assigned.

    If `list` is None, the code was sent from a list that has been deleted, and nothing else is known about it.
    """

    list: str | None
    code: str | None
    sendout: UUID | None
    message: str | None
    address: str | None
    state: str | None
    changed_at: datetime | None


async def list_mails(
    connection: Connection, address_key: str, *, limit: int = PAGE_SIZE, before: UUID | None = None
) -> list[Mail]:
    """Return the mails to the normalized address (`coupons.addresses`), newest first, optionally before a sendout.

    Raises UnknownCursor if that sendout does not exist.
    """
    created_at = await connection.fetchval(SQL.created_at, before) if before else None
    if before and created_at is None:
        raise UnknownCursor(f"before: there is no sendout {before}")
    rows = await connection.fetch(SQL.by_address, address_key, limit, created_at, before)
    return [Mail(**row, answers=await _answers(connection, row["sendout"], [row["number"]])) for row in rows]


async def iter_replies(connection: Connection, sendout_id: UUID) -> AsyncIterator[Answer]:
    """Iterate over all replies for those mails of a sendout that were not accepted at the first attempt.

    The order is by number and attempt.
    """
    after = 0
    while rows := await connection.fetch(SQL.troubled, sendout_id, after, DELIVERIES_AT_ONCE):
        for answer in await _answers(connection, sendout_id, [row["number"] for row in rows]):
            yield answer
        after = rows[-1]["number"]


async def _answers(connection: Connection, sendout_id: UUID, numbers: list[int]) -> tuple[Answer, ...]:
    return tuple([Answer(**row) for row in await connection.fetch(SQL.answers, sendout_id, numbers)])


async def list_owners(connection: Connection, code: str) -> list[CodeOwner]:
    """Return the codes that equal this one in Unicode NFC and ignoring case. Only a case-sensitive list has several."""
    return [CodeOwner(**row) for row in await connection.fetch(SQL.by_code, fold(code), [*spellings(code)])]
