"""A dry run reports what the import then does, in every mode, for lists and groups, and all numbers add up."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coupons import import_engine
from coupons.database import Connection, Pool
from coupons.files.format import FileFormat
from coupons.files.rejections import Reason, Rejected
from coupons.settings import Settings
from coupons.sources import Source, SourceLimits
from coupons.sources import source as sources
from coupons.states import FILE_MODES, DeliveryState, ImportMode, TargetKind
from coupons.store import deliveries, groups, imports, invariants
from coupons.store.deliveries import DeliveryResult
from coupons.store.import_chunks import ImportCounts
from coupons.store.imports import ImportStatus, Target
from tests.factories import LEASE_SECONDS, add_group, add_list, add_recipients, prepare, save_message, start
from tests.integration.test_imports import pool as pool  # noqa: PLC0414 - a fixture
from tests.integration.test_imports import run_worker, start_import

NUMBERS = count()
EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@dataclass(frozen=True, slots=True)
class Stock:
    """A list: of its codes, the first ones are sent or assigned, others are reserved, and the rest are available."""

    codes: int
    sent: int
    assigned: int
    reserved: int


STOCKS = st.builds(
    lambda *amounts: Stock(sum(amounts), *amounts[:3]),
    st.integers(0, 3), st.integers(0, 3), st.integers(0, 4), st.integers(0, 5),
)  # fmt: skip
LINES = st.lists(
    st.sampled_from([*(f"old {n}" for n in range(15)), "new 1", "new 2", "NEW 1", "", "www.example.org", "elsewhere"]),
    min_size=1, max_size=25,
).filter(any)  # fmt: skip


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file have several chunks, so that a repeated line is in another one."""
    monkeypatch.setattr(sources, "PIECE_BYTES", 60)
    monkeypatch.setattr(import_engine, "FIRST_CHUNK_PIECES", 1)
    monkeypatch.setattr(import_engine, "MAX_CHUNK_PIECES", 1)


@EXAMPLES
@given(stock=STOCKS, lines=LINES, mode=st.sampled_from(FILE_MODES))
async def test_a_dry_run_of_codes_is_what_the_import_does(
    connection: Connection, pool: Pool, stock: Stock, lines: Sequence[str], mode: ImportMode
) -> None:
    """Lines, codes that are not in the file, and kept codes are equal, for any states of codes and any repetitions."""
    name = f"list {next(NUMBERS)}"
    await _fill(connection, name, stock)
    await add_list(connection, f"{name} other", [f"{name} elsewhere"])
    text = "".join(f"{name} {line}\n" if line and "." not in line else f"{line}\n" for line in lines)
    target = await imports.get_list_target(connection, name)
    expected, total = await _dry_run(connection, target, text, mode)
    done = await run_worker(connection, pool, await start_import(connection, text, mode=mode, to=name))
    await _compare(connection, expected, total, done)
    assert (expected.kept_reserved, expected.kept_assigned) == (done.kept_reserved, done.kept_assigned)


@EXAMPLES
@given(known=st.integers(0, 8), lines=LINES, mode=st.sampled_from(FILE_MODES))
async def test_a_dry_run_of_recipients_is_what_the_import_does(
    connection: Connection, pool: Pool, known: int, lines: Sequence[str], mode: ImportMode
) -> None:
    """Lines and recipients that are not in the file are equal; a group may be missing or empty."""
    name = f"group {next(NUMBERS)}"
    if known:
        await add_recipients(connection, name, [(f"old{n}@example.org", {}) for n in range(known)])
    text = "email;town\n" + "".join(f"{line.replace(' ', '')}@example.org;Rom\n" if line else "\n" for line in lines)
    found = await groups.find(connection, name)
    target = Target(found.id if found else 0, name, TargetKind.GROUP)
    expected, total = await _dry_run(connection, target, text, mode)
    done = await run_worker(connection, pool, await start_import(connection, text, mode=mode, group=name))
    await _compare(connection, expected, total, done)
    assert (done.kept_reserved, done.kept_assigned) == (0, 0)


async def _fill(connection: Connection, name: str, stock: Stock) -> None:
    """Create a list, and a sendout to whose recipients its first codes are sent or assigned; others are reserved."""
    await add_list(connection, name, [f"{name} old {n}" for n in range(stock.codes)])
    recipients = stock.sent + stock.assigned + stock.reserved
    if not recipients:
        return
    await add_group(connection, name, recipients)
    await save_message(connection, name, name)
    sendout = await start(connection, name, name)
    await prepare(connection, batch_size=1)
    for number in range(stock.sent + stock.assigned):
        batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
        assert batch
        assert batch.sendout_id == sendout
        await deliveries.assign_codes(connection, batch)
        lists = await deliveries.list_lists(connection, sendout)
        (due,) = await deliveries.list_due(connection, batch, lists)
        if number < stock.sent:
            sent = [DeliveryResult.of(due, DeliveryState.SENT, "250")]
            await deliveries.record(
                connection, batch, flush=uuid4(), results=sent, in_flight=(), intents=(), lease_seconds=LEASE_SECONDS
            )
        await deliveries.release(connection, batch, not_within=3_600)
    await connection.execute("UPDATE sendout SET state = 'paused' WHERE id = $1", sendout)


async def _dry_run(connection: Connection, target: Target, text: str, mode: ImportMode) -> tuple[ImportCounts, int]:
    async def pieces() -> AsyncIterator[bytes]:
        yield text.encode()

    async with import_engine.dry_run(
        connection, target, Source("file", None, pieces()), SourceLimits.from_settings(Settings()),
        mode=mode, file_format=FileFormat(kind="csv" if target.kind is TargetKind.GROUP else "txt"), max_lines=1_000,
    ) as report:  # fmt: skip
        counts = report.counts
        lines = report.blank + counts.added + counts.existing + counts.rejected
        assert report.lines == lines + (counts.removed if mode == ImportMode.DELETE else 0)
        return counts, report.lines


def _without_lines(reasons: Mapping[str, int]) -> Counter[str]:
    """The counts of stored reasons. Those of codes that differ in case name another line, which a count leaves out."""
    counted = Counter[str]()
    for stored, lines in reasons.items():
        counted["case" if stored.startswith("case:") else stored] += lines
    return +counted


async def _compare(connection: Connection, expected: ImportCounts, lines: int, done: ImportStatus) -> None:
    assert done.state == "finished"
    reasons = Counter[str]()
    async for each in imports.iter_rejections(connection, done.id):
        reasons[each.stored_reason] += 1
    assert _without_lines(expected.reasons) == _without_lines(reasons)
    assert (lines, expected.added, expected.existing, expected.removed, expected.rejected) == (
        done.lines, done.added, done.existing, done.removed, done.rejected,
    )  # fmt: skip
    assert not [each.name for each in await invariants.check(connection) if not each.ok]


async def _rejected(connection: Connection, name: str, text: str, mode: ImportMode) -> list[Rejected]:
    """The rejected lines of a dry run."""

    async def pieces() -> AsyncIterator[bytes]:
        for place in range(0, len(text), sources.PIECE_BYTES):
            yield text[place : place + sources.PIECE_BYTES].encode()

    async with import_engine.dry_run(
        connection, await imports.get_list_target(connection, name), Source("file", None, pieces()),
        SourceLimits.from_settings(Settings()), mode=mode, file_format=FileFormat(), max_lines=10_000,
    ) as report:  # fmt: skip
        return [each async for each in report.rejected]


async def test_duplicates_that_differ_in_case_name_the_first_line(connection: Connection, pool: Pool) -> None:
    """In a list that is not case-sensitive, the first spelling of a code is accepted; a case-sensitive list has all."""
    text = "abcd-1234\nABCD-1234\nabcd-1234\nAbcd-1234\n"
    await add_list(connection, "any-case")
    await add_list(connection, "own-case", case_sensitive=True)
    import_id = await start_import(connection, text, to="any-case")
    dry = await _rejected(connection, "any-case", text, ImportMode.ADD)
    done = await run_worker(connection, pool, import_id)
    assert [(each.line, each.sentence) for each in dry] == [
        (2, "differs from line 1 only in case"),
        (3, "duplicate of an earlier line"),
        (4, "differs from line 1 only in case"),
    ]
    assert [each async for each in imports.iter_rejections(connection, import_id)] == dry
    assert await imports.count_reasons(connection, import_id) == {
        Reason.CASE.sentence: 2, Reason.DUPLICATE.sentence: 1
    }  # fmt: skip
    assert (done.added, done.rejected) == (1, 3)
    text = text.replace("4", "5")
    own = await run_worker(connection, pool, await start_import(connection, text, to="own-case"))
    assert (own.added, own.rejected) == (3, 1)


@pytest.mark.parametrize("mode", [ImportMode.ADD, ImportMode.REPLACE])
async def test_case_is_compared_within_a_chunk_in_both(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, mode: ImportMode
) -> None:
    """The dry run and the import give each line the same reason, although an import does not know earlier chunks."""
    name = f"chunks-{mode}"
    monkeypatch.setattr(sources, "PIECE_BYTES", 2_000)
    lines = [f"{'c' if number % 7 else 'C'}ode-{number % 600:04}" for number in range(1_500)]
    text = "\n".join(lines)
    await add_list(connection, name)
    dry = await _rejected(connection, name, text, mode)
    import_id = await start_import(connection, text, mode=mode, to=name)
    await run_worker(connection, pool, import_id)
    assert [each async for each in imports.iter_rejections(connection, import_id)] == dry
    assert {each.reason for each in dry} == {Reason.DUPLICATE}
    lines = [f"new-{number:04}" for number in range(1_500)]
    text = "\n".join([*lines[:300], *map(str.upper, lines[250:300]), *lines[300:], *map(str.upper, lines[:20])])
    dry = await _rejected(connection, name, text, mode)
    import_id = await start_import(connection, text, mode=mode, to=name)
    await run_worker(connection, pool, import_id)
    assert [each async for each in imports.iter_rejections(connection, import_id)] == dry
    assert {each.reason for each in dry} == {Reason.CASE, Reason.DUPLICATE}
