"""Coupon lists: their settings and counters. Imports add and remove codes, deliveries assign them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import Shortage
from coupons.store import groups
from coupons.store.groups import OWN_ATTRIBUTES
from coupons.store.queries import Queries
from coupons.templates.alternative import PART, AlternativeText
from coupons.templates.hints import foreign_placeholders

SQL = Queries("lists.sql")
PREVIEW_SUFFIX = "_previewCoupon"
DELETE_SECONDS = 3_600
"""Time limit for deleting a list. A million codes, half of them sent, take 5.5 s. The list is archived, so no other
work waits for it."""


@dataclass(frozen=True, slots=True)
class CouponList:
    """`total` = `available` + `reserved` + `assigned` + `sent`: each code is counted once.

    Reserved codes are held for a sendout and not yet assigned to a recipient. In a `case_sensitive` list, codes that
    differ only in case are different codes.
    """

    id: int
    name: str
    description: str
    shortage: Shortage
    alternative_text: str
    preview_text: str
    case_sensitive: bool
    archived_at: datetime | None
    created_at: datetime
    total: int
    available: int
    reserved: int
    assigned: int
    sent: int

    @property
    def warnings(self) -> list[str]:
        """Placeholders of other systems in the alternative text, which are mailed as they are."""
        return foreign_placeholders({PART: self.alternative_text})


@dataclass(frozen=True, slots=True)
class DuplicateCounts:
    """The numbers of a list's codes that migration 0006 has removed, and of those that stay with their recipients."""

    list: str
    removed: int
    kept: int


@dataclass(frozen=True, slots=True)
class DuplicateCode:
    """A code that migration 0006 found a second time. `state` is its state before; `first_list` has the other code,
    unless a deleted list has sent it.

    A `removed` code is no longer in its list. Another code stays with its recipient, who may have got it already.
    """

    list: str
    code: str
    state: str
    removed: bool
    first_list: str | None


@dataclass(frozen=True, slots=True)
class Served:
    """A sendout under way that gets codes of an archived list."""

    id: UUID
    message: str
    state: str


def _coupon_list(row: asyncpg.Record) -> CouponList:
    return CouponList(**{**row, "shortage": Shortage(row["shortage"])})


async def create(
    connection: Connection,
    name: str,
    *,
    description: str,
    shortage: Shortage,
    alternative_text: str,
    preview_text: str | None,
    case_sensitive: bool = False,
    declared: Collection[str] = (),
) -> None:
    """Create an empty list. `declared` are attributes that no group has yet, but that recipients will have.

    Raises Conflict if the name is taken, a text is too long or missing, or the alternative text has an error.
    """
    _check_texts(name, description, alternative_text, preview_text)
    await _check_attributes(connection, name, alternative_text, declared)
    if shortage == Shortage.TEXT and not alternative_text:
        raise Conflict(f"list {name}: shortage text needs an alternative text")
    preview = preview_text or name + PREVIEW_SUFFIX
    arguments = (name, description, shortage, alternative_text, preview, case_sensitive)
    if await connection.fetchval(SQL.create, *arguments) is None:
        raise Conflict(f"list {name} already exists")


async def change(
    connection: Connection,
    name: str,
    *,
    description: str | None,
    shortage: Shortage | None,
    alternative_text: str | None,
    preview_text: str | None,
    declared: Collection[str] = (),
) -> None:
    """Change settings of a list. None keeps a setting. The name cannot change, because templates use it.

    `declared` is as for `create`. Raises Conflict if the list does not exist, a text is too long or missing, or the
    alternative text has an error.
    """
    _check_texts(name, description, alternative_text, preview_text)
    await _check_attributes(connection, name, alternative_text, declared)
    (found,) = await get(connection, name)
    text = found.alternative_text if alternative_text is None else alternative_text
    if (shortage or found.shortage) == Shortage.TEXT and not text:
        raise Conflict(f"list {name}: shortage text needs an alternative text")
    await connection.execute(SQL.change, name, description, shortage, alternative_text, preview_text)


def _check_texts(name: str, description: str | None, alternative_text: str | None, preview_text: str | None) -> None:
    """Check the texts. The limits of their lengths are in the reference manual, and the database enforces them too."""
    for what, text, most in (
        ("description", description, 200),
        ("alternative text", alternative_text, 500),
        ("preview text", preview_text, 200),
    ):
        if text and len(text) > most:
            raise Conflict(f"list {name}: the {what} has {len(text)} characters, the limit is {most}")
    if alternative_text and (problems := AlternativeText(alternative_text).problems):
        raise Conflict(f"list {name}: {'; '.join(problems)}")


async def _check_attributes(connection: Connection, name: str, text: str | None, declared: Collection[str]) -> None:
    """Check that recipients have, or will have, the attributes that an alternative text prints."""
    if text and (required := AlternativeText(text).required):
        await groups.check_known(connection, f"list {name}: {PART}", required, declared=declared)


async def list_all(connection: Connection, *, archived: bool) -> list[CouponList]:
    return [_coupon_list(row) for row in await connection.fetch(SQL.rows, None, archived)]


async def get(connection: Connection, *names: str) -> list[CouponList]:
    """The lists with these names, archived or not. Raises Conflict if one does not exist or is deleted."""
    found = [_coupon_list(row) for row in await connection.fetch(SQL.rows, names, True)]
    if missing := sorted(set(names) - {each.name for each in found}):
        raise Conflict(f"there is no list {', '.join(missing)}")
    return found


async def copy(connection: Connection, name: str, new_name: str) -> None:
    """Create a list with the same settings. Codes are not copied: a code belongs to one list."""
    await get(connection, name)
    if await connection.fetchval(SQL.copy, name, new_name, PREVIEW_SUFFIX) is None:
        raise Conflict(f"list {new_name} already exists")


async def archive(connection: Connection, name: str) -> list[Served]:
    """Archive a list; return the sendouts under way that it still serves.

    An archived list serves the sendouts that were accepted before: they get its codes, also when they are resumed and
    when their refused mails are retried. New sendouts and imports are refused.
    """
    await get(connection, name)
    list_id = await connection.fetchval(SQL.archive, name)
    if list_id is None:
        raise Conflict(f"list {name} is already archived")
    return [Served(**row) for row in await connection.fetch(SQL.under_way, list_id)]


async def restore(connection: Connection, name: str) -> None:
    await get(connection, name)
    if await connection.fetchval(SQL.restore, name) is None:
        raise Conflict(f"list {name} is not archived")


async def delete(connection: Connection, name: str) -> int:
    """Delete an archived list with its codes; returns how many of them were sent.

    The hashes of sent codes are kept, so that imports reject these codes. If a message refers to the list, its row
    stays, with the counters of its sendouts. Its name can be used for another list.

    Raises:
        Conflict: the list is not archived, an unfinished sendout needs it, an import is filling it, or it has codes in
            uncertain mails, which could only be resent with these codes.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{DELETE_SECONDS}s'")
        await connection.execute(f"SET LOCAL lock_timeout = '{DELETE_SECONDS}s'")  # waits for the chunks of imports
        await connection.execute(SQL.no_imports)
        row = await connection.fetchrow(SQL.lock, name)
        if row is None:
            raise Conflict(f"there is no list {name}")
        if row["archived_at"] is None:
            raise Conflict(f"list {name} is in use: archive it first")
        is_named = await _check_unused(connection, row["id"], name)
        spent: int = await connection.fetchval(SQL.remember, row["id"], timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_coupons, row["id"], timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_duplicates, row["id"], timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_rejections, row["id"], timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_removals, row["id"], timeout=DELETE_SECONDS)
        await connection.execute(SQL.delete_uploads, row["id"], timeout=DELETE_SECONDS)
        await connection.execute(SQL.bury if is_named else SQL.delete, row["id"])
        return spent


async def _check_unused(connection: Connection, list_id: int, name: str) -> bool:
    """Whether a message refers to the list. Raises Conflict if a sendout or an import needs the list."""
    users = await connection.fetchrow(SQL.users, list_id)
    assert users is not None  # noqa: S101 - a SELECT without FROM always has a row
    if sendout := users["unfinished"]:
        raise Conflict(f"list {name} is needed by sendout {sendout}, which is not finished")
    if sendout := users["uncertain"]:
        raise Conflict(f"list {name} has codes in uncertain mails of sendout {sendout}: resolve them first")
    if users["is_filled"]:
        raise Conflict(f"list {name} is being filled by an import")
    is_named: bool = users["is_named"]
    return is_named


async def count_duplicates(connection: Connection, name: str | None = None) -> list[DuplicateCounts]:
    """The numbers of duplicates that migration 0006 has found, for the list, or for each list that has some."""
    return [DuplicateCounts(**row) for row in await connection.fetch(SQL.count_duplicates, name)]


async def list_duplicates(connection: Connection, name: str | None, *, limit: int | None = None) -> list[DuplicateCode]:
    """The first duplicates that migration 0006 has found in the list, or in all lists."""
    return [DuplicateCode(**row) for row in await connection.fetch(SQL.list_duplicates, name, limit)]


def check_not_archived(found: Iterable[CouponList], *, owner: str = "") -> None:
    """Raise Conflict if one of the lists, which the `owner` needs, is archived."""
    if archived := [each.name for each in found if each.archived_at]:
        remedy = " and ".join(f"`coupons list restore {name}`" for name in archived)
        raise Conflict(f"{owner}list {', '.join(archived)} is archived: run {remedy}")


def check_usable(rows: Iterable[asyncpg.Record]) -> None:
    """Raise Conflict if one of these locked lists of a sendout is deleted. An archived list serves it until it ends."""
    if deleted := [row["name"] for row in rows if row["deleted_at"]]:
        raise Conflict("; ".join(f"list {name} is deleted" for name in deleted))


async def alternative_attributes(connection: Connection, message_id: int) -> frozenset[str]:
    """Return the attributes that recipients need for the alternative texts of a message's lists."""
    rows = await connection.fetch(SQL.alternative_texts, message_id)
    return frozenset().union(*(required_by(row["alternative_text"]) for row in rows))


def required_by(alternative_text: str) -> tuple[str, ...]:
    """Return the attributes that a recipient needs for this text, sorted; the address is no attribute."""
    return tuple(sorted(AlternativeText(alternative_text).required - OWN_ATTRIBUTES))


async def take(connection: Connection, amounts: Mapping[int, int]) -> None:
    """Subtract the amounts from the available codes of the lists with these ids. The caller has locked the lists."""
    await connection.execute(SQL.take, list(amounts), list(amounts.values()))
