"""Query plans of an import's chunk: each planner setting has its effect, and only on its own statements."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from asyncpg.connection import LoggedQuery

from coupons.commands import ImportCoupons
from coupons.database import Connection
from coupons.files.codes import check_codes
from coupons.states import FILE_MODES, ImportMode, TargetKind
from coupons.store import import_chunks, imports, lists
from coupons.store.import_chunks import SQL
from coupons.store.imports import Target
from tests.factories import add_codes, add_list, claimed, take_codes

NEW = [f"NEW-{number:05}" for number in range(5_000)]
OLD = [f"OLD-{number:05}" for number in range(5_000)]
NO_IMPORT = UUID(int=0)


@pytest.fixture
async def list_id(connection: Connection) -> AsyncIterator[int]:
    """Create a list that was filled after the last ANALYZE, and a staged chunk of old and new codes."""
    await add_list(connection, "other", 5_000)
    await connection.execute("ANALYZE coupon")
    await add_list(connection, "a")
    await add_codes(connection, "a", OLD)
    await import_chunks.prepare_staging(connection)
    codes = [*OLD[::2], *NEW]
    await import_chunks.stage_codes(connection, check_codes(range(1, len(codes) + 1), codes))
    (found,) = await lists.get(connection, "a")
    yield found.id
    await import_chunks.discard_staging(connection)


async def plan(connection: Connection, settings: str, statement: str, *arguments: object) -> list[str]:
    """Return the node types of a statement's plan under these settings, with the index of each index scan."""
    async with connection.transaction():
        await connection.execute(settings)
        [row] = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *arguments))
    return list(nodes(row["Plan"]))


def nodes(node: dict[str, Any]) -> Iterator[str]:
    yield f"{node['Node Type']} {node.get('Index Name', '')}".strip()
    for each in node.get("Plans", []):
        yield from nodes(each)


@pytest.mark.parametrize("statement", ["add", "rejected_lines", "lines_of_imported_chunk"])
async def test_lines_are_joined_by_hash(connection: Connection, list_id: int, statement: str) -> None:
    """The planner expects one row of a list without statistics; a nested loop could scan the chunk for each code."""
    await connection.execute(SQL.find_existing_by_merge)
    arguments = {
        "add": (list_id, NO_IMPORT),
        "rejected_lines": (NO_IMPORT, "add", list_id),
        "lines_of_imported_chunk": (NO_IMPORT, list_id),
    }[statement]
    query = (
        getattr(import_chunks, "_INSERT_LINES_OF_IMPORTED_CHUNK", "")
        if "chunk" in statement
        else getattr(SQL, statement)
    )
    found = await plan(connection, SQL.hash_plan, query, *arguments)
    assert "Hash Join" in found
    assert "Nested Loop" not in found


@pytest.mark.usefixtures("list_id")
async def test_few_codes_are_read_along_their_index(connection: Connection) -> None:
    """The merge join needs neither a sort of all codes nor a hash table of them."""
    found = await plan(connection, SQL.merge_plan, SQL.find_existing_by_merge)
    assert "Merge Join" in found
    assert "Index Scan coupon_code" in found
    assert "Hash Join" not in found


@pytest.mark.usefixtures("list_id")
async def test_many_codes_are_probed_once_per_code(connection: Connection) -> None:
    """Disabled nested loops do not prevent this plan: a subquery with OFFSET 0 has no other join."""
    found = await plan(connection, SQL.merge_plan, SQL.find_existing_by_probe)
    assert "Nested Loop" in found
    assert "Index Scan coupon_code" in found


@pytest.mark.parametrize("statement", ["take_over", "delete", "remove_codes"])
async def test_codes_are_changed_by_their_ctid(connection: Connection, list_id: int, statement: str) -> None:
    """With statistics, a join with the codes to change would read the whole table for each chunk."""
    arguments = {
        "take_over": (list_id, NO_IMPORT),
        "delete": (list_id, 10, NO_IMPORT),
        "remove_codes": (list_id, [1, 2, 3], 10, NO_IMPORT),
    }[statement]
    await connection.execute("ANALYZE coupon")
    found = await plan(connection, SQL.hash_plan, getattr(SQL, statement), *arguments)
    assert "Tid Scan" in found
    assert not any(node == "Seq Scan" for node in found[found.index("Tid Scan") + 1 :] if "coupon" in node)


@pytest.mark.parametrize(("statement", "arguments"), [("take_over", (NO_IMPORT,)), ("delete", (10, NO_IMPORT))])
async def test_changed_codes_are_matched_by_hash(
    connection: Connection, list_id: int, statement: str, arguments: tuple[object, ...]
) -> None:
    """The planner expects one changed code; a nested loop would scan the existing codes for each of many."""
    found = await plan(connection, SQL.hash_plan, getattr(SQL, statement), list_id, *arguments)
    assert "Hash Join" in found


@pytest.mark.parametrize(("statement", "arguments"), [("take_over", (NO_IMPORT,)), ("delete", (10, NO_IMPORT))])
@pytest.mark.parametrize("statistics", ["none", "new"])
async def test_codes_to_change_are_found_by_the_index_of_codes(
    connection: Connection, list_id: int, statement: str, arguments: tuple[object, ...], statistics: str
) -> None:
    """The index of available codes would be read from the beginning for each code: 10 minutes for 60,000 codes."""
    if statistics == "none":
        # As after the migration: the indexes were created on an empty table.
        await connection.execute("DELETE FROM pg_statistic WHERE starelid = 'coupon'::regclass")
        await connection.execute("UPDATE pg_class SET reltuples = 0 WHERE relname IN ('coupon_code', 'coupon_free')")
    else:
        await connection.execute("ANALYZE coupon")
    found = await plan(connection, SQL.hash_plan, getattr(SQL, statement), list_id, *arguments)
    assert [node for node in found if node.startswith("Index")] == ["Index Scan coupon_code"]


@contextmanager
def logged(connection: Connection) -> Iterator[list[str]]:
    queries: list[str] = []

    def log(query: LoggedQuery) -> None:
        queries.append(query.query)

    with connection.query_logger(log):
        yield queries


@pytest.mark.parametrize("mode", FILE_MODES)
@pytest.mark.parametrize("factor", [0, 1_000])
async def test_only_the_search_for_existing_codes_has_the_merge_plan(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, mode: ImportMode, factor: int
) -> None:
    """Every other statement of a chunk runs under the settings of the hash plan."""
    monkeypatch.setattr(import_chunks, "MERGE_FACTOR", factor)
    await add_list(connection, "a")
    await add_codes(connection, "a", OLD[:200])
    command = ImportCoupons(list="a", mode=mode, codes=("X",))
    await imports.create(connection, command)
    job = await claimed(connection, command.id)
    with logged(connection) as queries:
        await take_codes(connection, job, check_codes(range(1, 301), [*OLD[100:300], *NEW[:100]]), position=1)
    begin = queries.index(SQL.hash_plan)
    merged = [
        query
        for index, query in enumerate(queries[begin:], begin)
        if [each for each in queries[begin : index + 1] if each in {SQL.hash_plan, SQL.merge_plan}][-1]
        == SQL.merge_plan
    ]
    assert merged == [SQL.merge_plan, SQL.find_existing_by_merge if factor else SQL.find_existing_by_probe]


async def test_a_dry_run_has_the_plans_of_an_import(connection: Connection, list_id: int) -> None:
    """The search of a dry run uses the merge plan too, and the planner settings end with the transaction."""
    (found,) = await lists.get(connection, "a")
    target = Target(found.id, "a", TargetKind.LIST)
    with logged(connection) as queries:
        async with import_chunks.dry_run(connection, target, ImportMode.ADD, lines=len(NEW) + len(OLD) // 2) as (
            counts,
            rejected,
        ):
            assert counts.added == len(NEW)
            assert len([each async for each in rejected]) == len(OLD) // 2
    begin = queries.index(SQL.merge_plan)
    assert queries[begin + 2] == SQL.hash_plan
    assert await connection.fetchval("SHOW enable_nestloop") == "on"
