"""Every row of a long listing is reachable, page by page, while new rows arrive, and no page reads the history."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient

from coupons.commands import ImportCoupons
from coupons.database import Connection
from coupons.paging import PAGE_SIZE, UnknownCursor
from coupons.states import SendoutState
from coupons.store import imports, lookup, sendout_views
from coupons.store.sendout_views import SQL
from tests.factories import add_group, add_list, prepare, save_message, start
from tests.web import web_client

ADDRESS = "c0@example.org"


@pytest.fixture
async def site(database_url: str, broker_url: str) -> AsyncIterator[AsyncClient]:
    async with web_client(database_url=database_url, broker_url=broker_url) as client:
        yield client


async def add_sendouts(connection: Connection, count: int) -> list[UUID]:
    """Create queued sendouts of message m to group g, all at the same moment; return their ids, newest first."""
    await connection.execute(
        "INSERT INTO sendout (id, message_id, group_id, created_at) SELECT gen_random_uuid(), m.id, g.id, '2026-01-01' "
        "FROM message m, recipient_group g, generate_series(1, $1::integer)",
        count,
    )
    rows = await connection.fetch("SELECT id FROM sendout ORDER BY created_at DESC, id DESC")
    return [row["id"] for row in rows]


@pytest.fixture
async def sendouts(connection: Connection) -> list[UUID]:
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    return await add_sendouts(connection, 2 * PAGE_SIZE + 5)


@pytest.fixture
async def problems(connection: Connection) -> UUID:
    """A sendout in three batches, of which each second mail of the first and the last batch is refused."""
    await add_group(connection, "g", 600)
    await save_message(connection, "m")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection, batch_size=200)
    await connection.execute(
        "UPDATE delivery SET state = 'refused', reply = '550 5.1.1' "
        "WHERE number % 2 = 0 AND number NOT BETWEEN 201 AND 400"
    )
    await connection.execute("UPDATE delivery_batch SET refused = 100, remaining = 100 WHERE number <> 2")
    return sendout_id


REFUSED = [*range(2, 201, 2), *range(402, 601, 2)]


async def follow(site: AsyncClient, url: str | None) -> list[Any]:
    """Return the rows of this page of the API and of all further pages."""
    rows: list[Any] = []
    while url:
        response = await site.get(url)
        rows += response.json()
        link = re.fullmatch(r'<(.*)>; rel="next"', response.headers.get("Link", ""))
        url = link and link[1]
    return rows


async def test_all_sendouts_are_reachable_while_others_arrive(connection: Connection, sendouts: list[UUID]) -> None:
    """A page begins after the last sendout of the page before. New sendouts move none of them to another page."""
    shown: list[UUID] = []
    before = None
    while page := await sendout_views.list_newest(connection, limit=50, before=before):
        shown += [each.id for each in page]
        before = page[-1].id
        await start(connection, "m", "g")
    assert shown == sendouts
    with pytest.raises(UnknownCursor, match="there is no sendout"):
        await sendout_views.list_newest(connection, before=uuid4())


async def test_the_api_leads_to_all_sendouts(site: AsyncClient, connection: Connection, sendouts: list[UUID]) -> None:
    """The header `Link` leads to the next page, with the same filter. Wrong parameters are refused with a reason."""
    assert [each["id"] for each in await follow(site, "/api/sendouts")] == [str(each) for each in sendouts]
    queued = await follow(site, "/api/sendouts?state=queued&limit=80")
    assert [each["id"] for each in queued] == [str(each) for each in sendouts]
    assert await follow(site, "/api/sendouts?state=paused") == []
    assert len((await site.get("/api/sendouts?limit=3")).json()) == 3
    for query in ("limit=0", "limit=x", f"limit={'9' * 5_000}", "before=x", "limit=-1", "limit=10001"):
        assert (await site.get(f"/api/sendouts?{query}")).status_code == 422, query
    assert (await site.get(f"/api/sendouts?before={uuid4()}")).status_code == 404


async def test_the_console_leads_to_all_sendouts(site: AsyncClient, sendouts: list[UUID]) -> None:
    """Each page of the Outbox has a link to older sendouts, except the last one."""
    shown: list[str] = []
    url: str | None = "/?state=queued"
    while url:
        page = (await site.get(url)).text
        shown += re.findall(r'<h2><a href="/sendouts/([0-9a-f-]+)">', page)
        link = re.search(r'rel="next" href="([^"]*)"', page)
        url = link and unescape(link[1])
    assert shown == [str(each) for each in sendouts]


async def test_all_problems_are_reachable(site: AsyncClient, connection: Connection, problems: UUID) -> None:
    """The problems of a sendout are read in pages: by the store, the API and the console."""
    pages = [await sendout_views.list_problems(connection, problems, limit=150, after=after) for after in (0, 500, 600)]
    assert [each.number for each in pages[0]] == REFUSED[:150]
    assert [each.number for each in pages[1]] == REFUSED[150:]
    assert pages[2] == []
    first = await site.get(f"/api/sendouts/{problems}")
    assert [each["number"] for each in first.json()["problems"]] == REFUSED[:100]
    link = re.fullmatch(r'<(.*)>; rel="next"', first.headers["Link"])
    assert link
    assert [each["number"] for each in await follow(site, link[1])] == REFUSED[100:]
    assert [each["number"] for each in await follow(site, f"/api/sendouts/{problems}/problems")] == REFUSED
    assert (await site.get(f"/api/sendouts/{problems}/problems?after=-1")).status_code == 422
    page = (await site.get(f"/sendouts/{problems}")).text
    url = re.search(r'rel="next" href="([^"]*)"', page)
    assert url
    second = (await site.get(unescape(url[1]))).text
    assert (page.count("550 5.1.1"), second.count("550 5.1.1"), 'rel="next"' in second) == (100, 100, False)


async def test_all_imports_are_reachable(site: AsyncClient, connection: Connection) -> None:
    """The imports into a list or a group are read in pages, also if they were created at the same moment."""
    await add_list(connection, "a")
    async with connection.transaction():
        for number in range(2 * imports.IMPORTS_SHOWN + 1):
            await imports.create(connection, ImportCoupons(list="a", codes=(f"A{number}",)))
    shown = [each["id"] for each in await follow(site, "/api/lists/a/imports?limit=15")]
    assert len({*shown}) == len(shown) == 2 * imports.IMPORTS_SHOWN + 1
    pages = []
    url: str | None = "/lists/a"
    while url:
        page = (await site.get(url)).text
        pages.append(re.findall(r'href="/imports/([0-9a-f-]+)"', page))
        link = re.search(r'rel="next" href="([^"]*)"', page)
        url = link and unescape(link[1])
    assert [len(each) for each in pages] == [20, 20, 1]
    assert [each for page in pages for each in page] == shown
    assert (await site.get(f"/api/lists/a/imports?before={uuid4()}")).status_code == 404


async def test_all_mails_to_an_address_are_reachable(connection: Connection) -> None:
    """`who --email` reads the mails to an address in pages, and only these mails."""
    await add_group(connection, "g", 2)
    await save_message(connection, "m")
    expected = []
    for _ in range(5):
        expected.append(await start(connection, "m", "g"))
        await prepare(connection)
    shown: list[UUID] = []
    before = None
    while page := await lookup.list_mails(connection, ADDRESS, limit=2, before=before):
        shown += [each.sendout for each in page]
        before = page[-1].sendout
    assert shown == expected[::-1]
    await connection.execute("ANALYZE delivery, sendout")
    read = await rows_read(connection, lookup.SQL.by_address, "nobody@example.org", 10, None, None)
    assert read.get("sendout", 0) == 0


async def rows_read(connection: Connection, statement: str, *arguments: object) -> dict[str, int]:
    """Return the number of rows that a statement reads of each table."""
    [row] = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments))
    read: dict[str, int] = {}
    for node in nodes(row["Plan"]):
        if table := node.get("Relation Name"):
            rows = (
                node["Actual Rows"]
                + node.get("Rows Removed by Filter", 0)
                + node.get("Rows Removed by Index Recheck", 0)
            )
            read[table] = read.get(table, 0) + round(rows * node["Actual Loops"])
    return read


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for each in node.get("Plans", []):
        yield from nodes(each)


async def test_a_page_of_the_outbox_does_not_read_the_history(connection: Connection, sendouts: list[UUID]) -> None:
    """Of 20,000 older sendouts, a page reads as many as it shows: newest, in the middle, and of a rare state."""
    await connection.execute(
        "INSERT INTO sendout (id, message_id, state, recipients, created_at, finished_at) "
        "SELECT gen_random_uuid(), 1, 'finished', 1, '2025-01-01'::timestamptz + n * interval '1 minute', now() "
        "FROM generate_series(1, 20000) n"
    )
    await connection.execute("ANALYZE sendout")
    [middle] = await connection.fetch("SELECT created_at, id FROM sendout ORDER BY created_at, id OFFSET 10000 LIMIT 1")
    for arguments in (
        (None, None, 100, 45.0, None, None),
        (None, None, 100, 45.0, middle["created_at"], middle["id"]),
        (None, "finished", 100, 45.0, middle["created_at"], middle["id"]),
        (None, SendoutState.INTERRUPTED.value, 100, 45.0, None, None),
        (None, SendoutState.SCHEDULED.value, 100, 45.0, None, None),
    ):
        read = await rows_read(connection, SQL.rows, *arguments)
        assert read.get("sendout", 0) <= 210, arguments
    await connection.execute("DELETE FROM sendout WHERE recipients = 1")


async def test_a_page_of_problems_reads_only_batches_with_problems(connection: Connection, problems: UUID) -> None:
    """A batch without problems is not read, and no batch before the page."""
    await connection.execute("ANALYZE delivery, delivery_batch")
    assert (await rows_read(connection, SQL.problems, problems, 500, 0))["delivery"] <= 400
    assert (await rows_read(connection, SQL.problems, problems, 50, 500))["delivery"] <= 100
