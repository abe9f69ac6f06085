"""Undoing imports: a new import takes back what an earlier one added, and restores what it removed.

The new import has the mode undo and the source `import:<id>`. Its text is what the earlier import removed. It adds this
again, then it removes what the earlier import added. docs/decisions/0024 has the reasons.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from coupons.database import Connection, Pool, affected
from coupons.errors import Conflict
from coupons.states import TargetKind
from coupons.store.queries import Queries

SQL = Queries("undo.sql")
SCHEME = "import:"
KEPT_DAYS = 7
KEPT_SECONDS = KEPT_DAYS * 86_400.0
MARGIN_SECONDS = 3_600.0
"""How much longer removed codes are kept than undo is allowed: a worker accepts an undo a moment before the limit."""
DELETE_BATCH_ROWS = 100
"""Rows of up to 20,000 codes that one transaction of the sweep deletes."""
COUNT_TIMEOUT_SECONDS = 600
CHANGED_SINCE = "removed since, or updated by a later import (undo that first)"


@dataclass(frozen=True, slots=True)
class Undone:
    """The import that is undone. The codes that it added have ids above `first_id`, and mostly not above `last_id`.

    `added` and `removed` are the numbers that earlier undos have left. `earlier` is the last of them that has finished.
    It has restored what it could, so nothing is left to restore.

    A later import that kept codes or recipients has put its id into them. `keepers` are such imports that were undone
    as well: what they kept belongs to this import again, if its ids are not above `last_id`.
    """

    id: UUID
    first_id: int
    added: int
    existing: int
    removed: int
    earlier: UUID | None
    keepers: Sequence[UUID]
    last_id: int


@dataclass(frozen=True, slots=True)
class NotTakenBack:
    """The numbers of codes that an undo could not take back."""

    reserved: int
    assigned: int
    sent: int


def parse_source(source: str) -> UUID | None:
    """The id in `import:<id>`. None for another kind of source."""
    return UUID(source.removeprefix(SCHEME)) if source.startswith(SCHEME) else None


async def check(connection: Connection, import_id: UUID, *, list_name: str | None, group_name: str | None) -> None:
    """Check that the import into this list or group can be undone now. Raises Conflict."""
    row = await _fetch(connection, import_id)
    if row["is_gone"]:
        raise Conflict(f"the list or group of import {import_id} is deleted")
    if (row["list"], row["group"]) != (list_name, group_name):
        raise Conflict(f"import {import_id} is into {row['list'] or row['group']}, not {list_name or group_name}")
    if not row["has_ended"]:
        raise Conflict(f"import {import_id} is {row['state']}: wait for its end, or cancel it, before undoing it")
    if not row["has_changed"]:
        raise Conflict(f"import {import_id} has changed nothing")
    if row["unfinished"]:
        raise Conflict(f"import {row['unfinished']} undoes import {import_id} already: wait for its end")
    if row["earlier"] and not row["added"]:
        raise Conflict(f"import {import_id} was undone by import {row['earlier']}: nothing is left to undo")
    if row["first_id"] is None:
        raise Conflict(f"import {import_id} is from an earlier version, which cannot undo it")
    if row["removed"] and not row["is_kept"]:
        raise Conflict(f"import {import_id} ended more than {KEPT_DAYS} days ago: what it removed is deleted")


async def get(connection: "Connection | Pool", import_id: UUID, undo_id: UUID | None = None) -> Undone:
    """The import, for the undo `undo_id` that was accepted, or for the next undo. Raises Conflict if there is none."""
    row = await _fetch(connection, import_id, undo_id)
    keepers = await connection.fetchrow(SQL.keepers, import_id, timeout=COUNT_TIMEOUT_SECONDS)
    fields = {name: row[name] for name in ("id", "first_id", "added", "existing", "removed", "earlier")}
    return Undone(**fields, **dict(keepers or {}))


async def _fetch(connection: "Connection | Pool", import_id: UUID, undo_id: UUID | None = None) -> asyncpg.Record:
    row = await connection.fetchrow(SQL.undone, import_id, KEPT_SECONDS, undo_id)
    if row is None:
        raise Conflict(f"there is no import {import_id}")
    return row


async def iter_text(
    connection: "Connection | Pool", import_id: UUID, kind: TargetKind, undo_id: UUID
) -> AsyncIterator[bytes]:
    """What the import removed, as the text of its undo: one code as JSON per line, or one recipient.

    The text begins with a blank line, because no text of an import is empty. If an earlier undo has finished, nothing
    follows: what was restored then and removed since must not come back.
    """
    yield b"\n"
    if not (await get(connection, import_id, undo_id)).removed:
        return
    number = 0
    while row := await connection.fetchrow(SQL.next_removal, import_id, number):
        texts = map(json.dumps, row["texts"]) if kind is TargetKind.LIST else row["texts"]
        yield "".join(f"{text}\n" for text in texts).encode()
        number = row["number"]


async def count_not_taken_back(connection: Connection, list_id: int, undone: Undone) -> NotTakenBack:
    arguments = list_id, undone.id, undone.first_id, undone.keepers, undone.last_id
    row = await connection.fetchrow(SQL.not_taken_back, *arguments, timeout=COUNT_TIMEOUT_SECONDS)
    return NotTakenBack(**dict(row or {}))


def notices_of_list(undone: Undone, left: NotTakenBack, *, restored: int, taken_back: int) -> list[str]:
    """The notices of an undo of codes: their numbers, and why some remain. Rejected lines name those not restored."""
    gone = max(0, undone.added - taken_back - left.reserved - left.assigned - left.sent)
    reasons = {
        "reserved for sendouts": left.reserved,
        "assigned to recipients": left.assigned,
        "already sent": left.sent,
        "removed since, or kept by a later replacement (undo that first)": gone,
    }
    return [
        *_summary(undone, "code", restored=restored, taken_back=taken_back),
        *(
            [f"returned to the import before: {_count(undone.existing, 'code')} that the import kept"]
            if undone.existing
            else ()
        ),
        *(f"not undone: {number:,} {why}" for why, number in reasons.items() if number),
    ]


def notices_of_group(undone: Undone, *, restored: int, taken_back: int) -> list[str]:
    """What an undo did with recipients, and what it could not take back and why."""
    changed = max(0, undone.added - taken_back)
    keeps = "keeps its" if undone.existing == 1 else "keep their"
    updated = _count(undone.existing, "updated recipient")
    return [
        *_summary(undone, "recipient", restored=restored, taken_back=taken_back),
        *([f"not undone: {changed:,} {CHANGED_SINCE}"] if changed else ()),
        *([f"{updated} {keeps} present attributes"] if undone.existing else ()),
    ]


def _summary(undone: Undone, noun: str, *, restored: int, taken_back: int) -> Iterator[str]:
    if undone.earlier:
        yield f"import {undone.earlier} undid the import before, so nothing is restored again"
    if undone.added:
        left = ", and that are left" if undone.earlier else ""
        yield f"took back {taken_back:,} of {_count(undone.added, noun)} that the import added{left}"
    if undone.removed:
        yield f"restored {restored:,} of {_count(undone.removed, noun)} that the import removed"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


async def delete_old(connection: Connection) -> None:
    """Delete what imports removed more than KEPT_DAYS ago, in batches."""
    deleted = DELETE_BATCH_ROWS
    while deleted == DELETE_BATCH_ROWS:
        deleted = affected(await connection.execute(SQL.delete_old, KEPT_SECONDS + MARGIN_SECONDS, DELETE_BATCH_ROWS))
