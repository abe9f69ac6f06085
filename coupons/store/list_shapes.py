"""The shapes of each list's codes, and the guard against imports into the wrong list (docs/decisions/0025).

The shapes of a list are one small row. An import extends it when its first chunk is committed. Most imports read only the
row of their own list; those of other lists are read if the file does not look like its list.
"""

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.files import code_shapes
from coupons.files.code_shapes import MIN_CODES, SAMPLE_CODES, Profile
from coupons.states import ImportMode
from coupons.store.queries import Queries

SQL = Queries("list_shapes.sql")
MAX_LISTS = 1_000
"""The number of other lists, the newest ones, that a file is compared with. It takes 30 ms."""
LEARNED_AT_ONCE = 50
"""The number of lists whose shapes are learned for one import, from 500 codes each. Only lists that were filled before
migration 0022, or from which an import has deleted codes, have to be learned."""
REMEDY = 'to import them all the same, use --yes (in JSON: "confirmed": true)'


class WrongList(Conflict):
    """The codes of a file were probably meant for another list. Nothing was imported."""


async def check(connection: Connection, list_id: int, name: str, file: Profile, *, learn: bool = True) -> None:
    """Raise WrongList if the codes look like those of another list, or not like those of their list.

    `learn` computes unknown shapes, which needs the right to read codes.
    """
    if not file:
        return
    target = await _find(connection, list_id)
    if target is None and learn:
        await _learn(connection, list_id, 1)
        target = await _find(connection, list_id)
    if code_shapes.is_like(file, target or ()):
        return
    if learn:
        await _learn(connection, list_id, LEARNED_AT_ONCE)
    rows = await connection.fetch(SQL.of_others, list_id, MIN_CODES, MAX_LISTS)
    others = {row["name"]: code_shapes.from_json(row["shapes"]) for row in rows}
    suspicion = code_shapes.find_suspicion(file, target or (), others)
    if suspicion:
        total = await connection.fetchval("SELECT total FROM coupon_list WHERE id = $1", list_id)
        raise WrongList(_describe(suspicion.other, name, total))


def _describe(other: str | None, name: str, total: int) -> str:
    if other is None:
        return f"these codes do not look like the {total:,} codes of {name}: {REMEDY}"
    return f"these codes look like {other}, not {name} ({total:,} codes there): {REMEDY}"


async def record(connection: Connection, list_id: int, mode: ImportMode, file: Profile) -> None:
    """Extend the shapes of a list, in the transaction that has changed its codes and locks the list."""
    if mode == ImportMode.DELETE:
        await connection.execute(SQL.forget, list_id)
    elif file:
        known = await _find(connection, list_id) if mode == ImportMode.ADD else None
        await connection.execute(SQL.store, list_id, code_shapes.to_json(code_shapes.extend(known or (), file)))


async def _find(connection: Connection, list_id: int) -> Profile | None:
    shapes = await connection.fetchval(SQL.of_list, list_id)
    return None if shapes is None else code_shapes.from_json(shapes)


async def _learn(connection: Connection, list_id: int, limit: int) -> None:
    """Compute the shapes of lists from samples of their codes, that of the given list first."""
    for row in await connection.fetch(SQL.list_unknown, list_id, MIN_CODES, limit):
        codes = [each["code"] for each in await connection.fetch(SQL.sample, row["id"], SAMPLE_CODES)]
        await connection.execute(SQL.learn, row["id"], code_shapes.to_json(code_shapes.shapes_of(codes)))
