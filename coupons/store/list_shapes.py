"""The shapes of each list's codes, and the guard against imports into the wrong list (docs/decisions/0025).

The shapes of a list are one small row. An import extends it when its first chunk is committed. Most imports read only
the row of their own list; those of other lists are read if the file does not look like its list.
"""

from collections.abc import Iterable

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.files import code_shapes
from coupons.files.code_shapes import MIN_CODES, SAMPLE_CODES, Profile, Suspicion
from coupons.states import ImportMode
from coupons.store.queries import Queries

SQL = Queries("list_shapes.sql")
MAX_LISTS = 1_000
"""The number of other lists, the newest ones, that a file is compared with."""
LEARNED_AT_ONCE = 50
"""The number of lists whose shapes are learned for one import, from 500 codes each. Only lists that were filled before
migration 0022, or from which an import has deleted codes, have to be learned."""

_BEGINNING, _CONFIRMED = "these codes ", "; confirmed"


class WrongList(Conflict):
    """The codes of a file were probably meant for another list. Nothing was imported."""

    def __init__(self, suspicion: str) -> None:
        self.suspicion = suspicion
        super().__init__(f"{suspicion}: nothing was changed; confirm with --yes (confirmed)")

    def notice(self, *, confirmed: bool) -> str:
        """The line of a report: of a confirmed import, or of a dry run, which does not fail."""
        return f"{self.suspicion}{_CONFIRMED if confirmed else '; confirm with --yes (confirmed)'}"


def suspicions_of(notices: Iterable[str]) -> list[str]:
    """Those notices of an import that a worker stored about its suspicion, for the report of a resumed import."""
    return [each for each in notices if each.startswith(_BEGINNING) and each.endswith(_CONFIRMED)]


async def check(connection: Connection, list_id: int, file: Profile) -> None:
    """Raise WrongList if the codes of a file look like those of another list, or not like those of their list.

    Unknown shapes are computed from codes, and not stored.
    """
    if not file:
        return
    target = await _get(connection, list_id)
    if code_shapes.is_like(file, target):
        return
    rows = await connection.fetch(SQL.others, list_id, MIN_CODES, MAX_LISTS)
    known = {row["name"]: code_shapes.from_json(row["shapes"]) for row in rows if row["shapes"] is not None}
    unknown = [row for row in rows if row["shapes"] is None][:LEARNED_AT_ONCE]
    learned = {row["name"]: await _learn(connection, row["id"]) for row in unknown}
    if suspicion := code_shapes.find_suspicion(file, target, known | learned):
        found = await connection.fetchrow(SQL.codes, list_id)
        raise WrongList(_describe(suspicion, **dict(found or {})))


def _describe(suspicion: Suspicion, name: str, total: int) -> str:
    if suspicion.other is None:
        return f"{_BEGINNING}do not look like the {total:,} codes of {name} ({suspicion.difference})"
    return f"{_BEGINNING}look like {suspicion.other}, not {name} ({name} has {total:,} code{'' if total == 1 else 's'})"


async def store_unknown(connection: Connection, list_id: int) -> None:
    """Compute and store the shapes of a list that are not known yet, before an import extends them."""
    await connection.execute(SQL.learn, list_id, code_shapes.to_json(await _get(connection, list_id)))


async def record(connection: Connection, list_id: int, mode: ImportMode, file: Profile) -> None:
    """Extend the shapes of a list, in the transaction that changes its codes and locks the list.

    An import that deletes codes, or undoes another one, makes them unknown.
    """
    if mode in (ImportMode.DELETE, ImportMode.UNDO):
        await connection.execute(SQL.forget, list_id)
        return
    known = await _get(connection, list_id) if mode == ImportMode.ADD else ()
    await connection.execute(SQL.store, list_id, code_shapes.to_json(code_shapes.extend(known, file)))


async def _get(connection: Connection, list_id: int) -> Profile:
    shapes = await connection.fetchval(SQL.of_list, list_id)
    return await _learn(connection, list_id) if shapes is None else code_shapes.from_json(shapes)


async def _learn(connection: Connection, list_id: int) -> Profile:
    codes = await connection.fetch(SQL.sample, list_id, SAMPLE_CODES)
    return code_shapes.shapes_of([each["code"] for each in codes])
