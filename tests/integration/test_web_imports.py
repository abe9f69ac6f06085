"""Imports in the console and in the HTTP API, on real services and with the import role of a worker."""

import asyncio
import re
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

import pytest
import uvicorn
from httpx import AsyncClient
from pydantic import SecretStr
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, open_pool
from coupons.files.codes import check_codes
from coupons.settings import Settings
from coupons.sources import PIECE_BYTES
from coupons.states import ImportMode
from coupons.store import imports, sendout_views, sendouts, uploads
from producers.web import actions, request_body
from producers.web.app import build
from tests.factories import (
    add_codes,
    add_group,
    add_list,
    add_recipients,
    claimed,
    prepare,
    save_message,
    start,
    take_codes,
)
from tests.waiting import until
from tests.web import SAME_ORIGIN, Queues, confirm, consume, errors, upload, web_client
from workers.importer import Importer
from workers.loops import NO_PAUSE, Signals
from workers.nudges import Nudges

LIMIT_SECONDS = 20.0
MIB = 1_048_576


@pytest.fixture
async def site(database_url: str, broker_url: str) -> AsyncIterator[AsyncClient]:
    async with web_client(database_url=database_url, broker_url=broker_url) as client:
        yield client


@pytest.fixture
async def queues(broker_url: str) -> Queues:
    queues = Queues(broker_url)
    await queues.declare()
    return queues


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


async def run_import(connection: Connection, pool: Pool, command: ImportCoupons) -> None:
    """Consume the command and run the import until it ends, as a worker does."""
    await consume(connection, command)
    signals = Signals(("import",))
    importer = Importer(
        pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(_env_file=None), owner="w"
    )
    assert await importer.step() == NO_PAUSE


async def only_command(queues: Queues) -> ImportCoupons:
    (command,) = await queues.take_commands()
    assert isinstance(command, ImportCoupons)
    return command


async def store_upload(connection: Connection, text: str) -> str:
    """Store an upload with this text, and return its source."""

    async def pieces() -> AsyncIterator[bytes]:
        yield text.encode()

    return f"upload:{(await uploads.store(connection, 'codes.txt', pieces(), max_bytes=MIB)).id}"


async def import_text(
    connection: Connection,
    pool: Pool,
    text: str,
    *,
    mode: ImportMode = ImportMode.ADD,
    to: str = "spring-10",
    group: str | None = None,
) -> UUID:
    """Import a file with this text, and return the id of the ended import."""
    target = {"group": group} if group else {"list": "spring-10"}
    command = ImportCoupons.model_validate(
        {
            **target,
            "mode": mode,
            "source": await store_upload(connection, text),
            "format": {"kind": "csv" if group else "txt"},
        }
    )
    await run_import(connection, pool, command)
    return command.id


async def running_import(connection: Connection) -> UUID:
    """Create an import of 5,000 lines, of which a worker has imported 2,000 in 2 seconds."""
    await add_list(connection, "spring-10")
    command = ImportCoupons(list="spring-10", source=await store_upload(connection, "\n".join(map(str, range(5_000)))))
    await imports.create(connection, command)
    job = await claimed(connection, command.id)
    await imports.set_total_bytes(connection, job, 5_000)
    await imports.log_event(connection, job.id, "claimed by w1")
    await take_codes(
        connection, job, check_codes(range(1, 2_001), [f"A{number}" for number in range(2_000)]), position=2_000
    )
    await connection.execute("UPDATE import_job SET claimed_at = progressed_at - interval '2 s'")
    return command.id


def cells(text: str) -> list[str]:
    return [re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", text, re.DOTALL)]


def numbers(text: str) -> dict[str, str]:
    """Return the counts that a page shows in large figures."""
    return dict(re.findall(r"<dt>([^<]+)</dt><dd[^>]*>([^<]+)</dd>", text))


# --- a program imports a large file ----------------------------------------------------------------------------------


async def test_a_program_uploads_a_file_and_publishes_its_import(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The response is 201 with the source for the command. Later the API has the import, its log and its list."""
    await add_list(connection, "spring-10")
    content = b"".join(b"CODE-%09d\n" % number for number in range(200_000))
    with capture_logs() as logs:
        response = await site.post("/api/uploads", params={"name": "../spring.txt"}, content=content)
        kept = response.json()
        assert (response.status_code, kept["size_bytes"], kept["source"]) == (201, len(content), f"upload:{kept['id']}")
        command = {"type": "import", "id": str(uuid4()), "list": "spring-10", "source": kept["source"]}
        assert (await site.post("/api/commands", json=command)).status_code == 202
    assert "CODE-" not in str(logs)
    assert await connection.fetchval("SELECT name FROM upload") == "spring.txt"
    sizes = await connection.fetch("SELECT length(data) AS bytes FROM upload_chunk ORDER BY number")
    assert [row["bytes"] for row in sizes] == [PIECE_BYTES, PIECE_BYTES, len(content) - 2 * PIECE_BYTES]
    await run_import(connection, pool, await only_command(queues))

    job = (await site.get(f"/api/imports/{command['id']}")).json()
    assert (job["state"], job["added"], job["list"], job["group"]) == ("finished", 200_000, "spring-10", None)
    log = (await site.get(f"/api/imports/{command['id']}/events")).json()
    assert [event["text"] for event in log] == [
        "claimed by w",
        "reading spring.txt as txt, utf-8, first code COD•-•••••••••",
        "finished",
    ]
    assert (await site.get("/api/lists/spring-10/imports")).json() == [job]


async def test_the_duplicates_of_a_list_are_shown(site: AsyncClient, connection: Connection) -> None:
    """The list's page shows the first codes that an upgrade has found twice; the API returns them."""
    await add_list(connection, "spring-10", ["SPR-1"])
    await add_list(connection, "summer", ["SUM-1"])
    assert "Duplicate codes" not in (await site.get("/lists/summer")).text
    assert (await site.get("/api/lists/summer/duplicates")).json() == []
    await connection.execute(
        "INSERT INTO duplicate_code SELECT n, l.id, 'spr-' || n, 'available', 1, f.id, true "
        "FROM coupon_list l, coupon_list f, generate_series(101, 130) n "
        "WHERE l.name = 'summer' AND f.name = 'spring-10'"
    )
    found = (await site.get("/api/lists/summer/duplicates")).json()
    assert len(found) == 30
    assert found[0] == {
        "list": "summer", "code": "spr-101", "state": "available", "removed": True, "first_list": "spring-10"
    }  # fmt: skip
    text = (await site.get("/lists/summer")).text
    assert "30 removed from this list" in text
    assert ("spr-120" in text, "spr-121" in text) == (True, False)
    assert "coupons list duplicates summer" in text
    assert (await site.get("/api/lists/autumn/duplicates")).status_code == 404


async def test_the_api_returns_groups_and_their_imports(site: AsyncClient, connection: Connection) -> None:
    """A group has a number of recipients and attributes. An unknown group, list or import gets 404."""
    import_id = await add_recipients(connection, "customers", [("ada@example.org", {"first_name": "Ada"})])
    (group,) = (await site.get("/api/groups")).json()
    assert (group["name"], group["recipients"], group["attributes"]) == ("customers", 1, ["first_name"])
    (job,) = (await site.get("/api/groups/customers/imports")).json()
    assert (job["id"], job["group"], job["list"], job["added"]) == (str(import_id), "customers", None, 1)
    for path in ("groups/nobody/imports", "lists/autumn/imports", f"imports/{uuid4()}/events"):
        response = await site.get(f"/api/{path}")
        assert (response.status_code, "there is no" in errors(response)) == (404, True)


async def test_a_large_upload_is_never_in_memory(site: AsyncClient, connection: Connection) -> None:
    """64 MiB pass through a buffer of a few MiB, both as a body and as the file of a form."""
    await add_list(connection, "spring-10")

    async def body() -> AsyncIterator[bytes]:
        yield b'--cut\r\nContent-Disposition: form-data; name="mode"\r\n\r\nadd\r\n--cut\r\n'
        yield b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(1_024):
            yield b"x" * 65_535 + b"\n"
        yield b"\r\n--cut--\r\n"

    as_form = {"Content-Type": "multipart/form-data; boundary=cut"} | SAME_ORIGIN
    tracemalloc.start()
    try:
        kept = await site.post("/api/uploads", content=body())
        await site.post("/lists/spring-10/imports", content=body(), headers=as_form)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.json()["size_bytes"] > 64 * MIB
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE size_bytes >= $1", 64 * MIB) == 2
    assert peak < 12 * MIB


async def test_every_upload_has_the_same_limit(database_url: str, broker_url: str, connection: Connection) -> None:
    """A file of exactly COUPONS_IMPORT_MAX_BYTES is accepted and one more byte is not, with and without a length."""
    await add_list(connection, "spring-10")
    queues = Queues(broker_url)
    await queues.declare()

    async def undeclared(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    async def are_rejected(client: AsyncClient, size: int) -> list[bool]:
        responses = [
            await client.post("/api/uploads", content=b"x" * size),
            await client.post("/api/uploads", content=undeclared(size)),
            await upload(client, b"x" * size),
            await upload(client, b"x" * size, to="/groups/imports", fields={"group": "customers"}),
        ]
        return [response.status_code in {409, 413} for response in responses]

    async with web_client(database_url=database_url, broker_url=broker_url, import_max_bytes=1_000) as client:
        assert await are_rejected(client, 1_000) == [False] * 4
        assert await are_rejected(client, 1_001) == [True] * 4
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE size_bytes IS NOT NULL") == 4
    assert await connection.fetchval("SELECT max(size_bytes) FROM upload") == 1_000


async def test_uploads_and_cancellations_need_the_same_permission_as_other_posts(
    database_url: str, broker_url: str, connection: Connection
) -> None:
    """A page of another site gets 403, and a request without the token gets 401."""
    import_id = await running_import(connection)
    paths = ("/api/uploads", f"/api/imports/{import_id}/cancel")
    async with web_client(database_url=database_url, broker_url=broker_url) as site:
        for path in paths:
            assert (await site.post(path, headers={"Origin": "http://evil.example"})).status_code == 403
        for path in ("/groups/imports", f"/imports/{import_id}/cancel"):
            assert (await site.post(path)).status_code == 403
    async with web_client(database_url=database_url, broker_url=broker_url, token="correct-horse") as site:
        for path in paths:
            assert (await site.post(path)).status_code == 401
        assert (await site.post(paths[0], headers={"Authorization": "Bearer correct-horse"})).status_code == 201
    found = await imports.find(connection, import_id)
    assert found
    assert found.state == "running"


# --- stalled clients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/uploads", "/lists/spring-10/imports", "/api/commands"])
async def test_a_stalled_client_is_disconnected(
    path: str, site_port: int, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets 408, its connection is closed, and nothing of its file is kept."""
    monkeypatch.setattr(request_body, "IDLE_SECONDS", 0.2)
    await add_list(connection, "spring-10")
    async with stalling(site_port, path) as reader:
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert b"no data received for" in answer
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0


async def test_stalled_uploads_do_not_block_others_forever(
    site_port: int, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another upload gets 503 with Retry-After. Once a stalled client is disconnected, the upload is accepted."""
    monkeypatch.setattr(actions, "UPLOAD_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(request_body, "IDLE_SECONDS", 2)
    async with AsyncExitStack() as stack, AsyncClient(base_url=f"http://127.0.0.1:{site_port}") as client:
        stalled = [
            await stack.enter_async_context(stalling(site_port, "/api/uploads"))
            for _ in range(actions.MAX_CONCURRENT_UPLOADS)
        ]
        await wait_for_uploads(connection, actions.MAX_CONCURRENT_UPLOADS)
        refused = await client.post("/api/uploads", content=b"A1\n")
        assert (refused.status_code, "already being uploaded" in errors(refused)) == (503, True)
        assert float(refused.headers["retry-after"]) > 0
        assert (await stalled[0].readline()).startswith(b"HTTP/1.1 408")
        assert (await client.post("/api/uploads", content=b"A1\n")).status_code == 201
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE size_bytes IS NOT NULL") == 1


@pytest.fixture
async def site_port(database_url: str, broker_url: str) -> AsyncIterator[int]:
    """Run a real server, and yield its port."""
    async with open_pool(database_url, size=6) as pool:
        settings = Settings(_env_file=None, broker_url=SecretStr(broker_url))
        async with serve(build(settings=settings, pool=pool)) as port:
            yield port


@asynccontextmanager
async def stalling(port: int, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Send the beginning of a body and then nothing; yield the response stream."""
    form = "multipart/form-data; boundary=cut" if path.endswith("imports") else "application/json"
    mode = '--cut\r\nContent-Disposition: form-data; name="mode"\r\n\r\nadd\r\n'
    file = '--cut\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    beginning = f"{mode}{file}SPRING-1\n" if path.endswith("imports") else "SPRING-1\n"
    head = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Sec-Fetch-Site: same-origin",
        f"Content-Type: {form}",
        "Content-Length: 1000",
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join((*head, "", beginning)).encode())
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield reader
    finally:
        writer.close()


async def wait_for_uploads(connection: Connection, count: int) -> None:
    """Wait until `count` uploads have begun."""
    await until(lambda: connection.fetchval("SELECT count(*) >= $1 FROM upload", count), f"{count} uploads")


# --- a running import ------------------------------------------------------------------------------------------------


async def test_a_removal_shows_its_own_progress(site: AsyncClient, connection: Connection) -> None:
    """In the phase removing, the page and the API count the removed codes, not the lines of the file."""
    import_id = await running_import(connection)
    await connection.execute(
        "UPDATE import_job SET mode = 'replace', to_remove = 500, removed = 100, claimed_lines = 0, first_id = NULL,"
        " claimed_at = progressed_at - interval '2 s'"
    )
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<progress class="running" value="100" max="500" aria-label="Removal progress"' in text
    assert "removing: <b>100</b> of 500 codes not in the file" in text
    assert "<span>50 removed/s</span>" in text
    assert "<span>8 s left</span>" in text
    found = (await site.get(f"/api/imports/{import_id}")).json()
    assert (found["phase"], found["removed"], found["to_remove"], found["seconds_left"]) == ("removing", 100, 500, 8)


async def test_a_running_import_shows_its_progress(site: AsyncClient, connection: Connection) -> None:
    """The page shows bytes, lines, rate, time left and log, and updates with and without JavaScript."""
    import_id = await running_import(connection)
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<progress class="running" value="2000" max="5000"' in text
    assert "<b>2,000</b> lines" in text
    assert "<span>2.0 kB of 5.0 kB</span>" in text
    assert "<span>1,000 lines/s</span>" in text
    assert "<span>3 s left</span>" in text
    assert "claimed by w1" in text
    assert "data-live" in text
    assert '<noscript><meta http-equiv="refresh"' in text
    text = (await site.get("/lists/spring-10")).text
    assert '<progress class="running" value="2000" max="5000"' in text
    assert "3 s left" in text
    assert "data-live" in text


async def test_a_source_of_unknown_size_has_an_empty_progress_bar(site: AsyncClient, connection: Connection) -> None:
    """A full bar next to the bytes read would mean that the import is almost done."""
    import_id = await running_import(connection)
    await connection.execute("UPDATE import_job SET total_bytes = NULL")
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<progress class="running" value="0" max="1"' in text
    assert "<span>2.0 kB</span>" in text
    assert '<progress class="running" value="0" max="1"' in (await site.get("/lists/spring-10")).text


async def test_a_button_cancels_an_import(site: AsyncClient, connection: Connection) -> None:
    """The import ends at once and keeps the imported codes. The file is deleted. A second click is a conflict."""
    import_id = await running_import(connection)
    path = f"/imports/{import_id}/cancel"
    assert f'action="{path}"' in (await site.get(f"/imports/{import_id}")).text
    response = await site.post(path, headers=SAME_ORIGIN)
    assert (response.status_code, response.headers["location"]) == (303, f"/imports/{import_id}")
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<span class="badge cancelled">' in text
    assert "cancelled by an operator" in text
    assert numbers(text)["Added"] == "2,000"
    assert "data-live" not in text
    assert f'action="{path}"' not in text
    assert (await site.post(path, headers=SAME_ORIGIN)).status_code == 409
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0


async def test_the_api_cancels_an_import(site: AsyncClient, connection: Connection) -> None:
    """The response shows the new state. An ended import gets 409, an unknown one 404."""
    import_id = await running_import(connection)
    job = (await site.post(f"/api/imports/{import_id}/cancel")).json()
    assert (job["id"], job["state"], job["added"]) == (str(import_id), "cancelled", 2_000)
    response = await site.post(f"/api/imports/{import_id}/cancel")
    assert (response.status_code, "is already cancelled" in errors(response)) == (409, True)
    assert (await site.post(f"/api/imports/{uuid4()}/cancel")).status_code == 404


# --- an ended import -------------------------------------------------------------------------------------------------


async def test_an_import_explains_its_rejected_lines(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """The page shows the number of rejected lines per reason, the first twenty lines, and a link to all of them."""
    await add_list(connection, "spring-10")
    bad = "\n".join(f"http://example.org/{number}" for number in range(30))
    import_id = await import_text(connection, pool, f"A1\n\nB2\nA1\n{bad}\n<b>1,2E+11</b>\n")
    text = (await site.get(f"/imports/{import_id}")).text
    assert numbers(text) == {"Added": "3", "Blank lines": "1", "Rejected": "31"}
    found = cells(text)
    assert found[:2] == ["30", "1"]
    assert "duplicate of an earlier line" in text
    assert found[2:5] == ["4", "A1", "duplicate of an earlier line"]
    assert found[5:8] == ["5", "http://example.org/0", "looks like a URL"]
    assert "http://example.org/18" in found
    assert "http://example.org/19" not in found
    assert "The first 20 of 31 lines." in text
    assert f'href="/imports/{import_id}/rejections.csv" download' in text


async def test_an_import_reports_codes_that_it_could_not_remove(
    site: AsyncClient, connection: Connection, pool: Pool
) -> None:
    """Reserved codes are not removed. Here a sendout has reserved ten codes, and the new file has only one of them."""
    await add_list(connection, "spring-10", 12)
    await add_group(connection, "customers", 10)
    await save_message(connection, "spring-voucher", "spring-10")
    await start(connection, "spring-voucher", "customers")
    await prepare(connection)
    import_id = await import_text(connection, pool, "NEW", mode=ImportMode.REPLACE)
    text = re.sub(r"\s+", " ", (await site.get(f"/imports/{import_id}")).text)
    assert "Not removed: <b>9</b> reserved for sendouts." in text
    assert numbers(text) == {"Added": "1", "Removed, not in the file": "3", "Rejected": "0"}


async def test_a_repeated_file_is_recognized(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """The page links to the first import, and shows that the file has no new codes."""
    await add_list(connection, "spring-10")
    first = await import_text(connection, pool, "A1\nB2\n")
    again = await import_text(connection, pool, "A1\nB2\n")
    text = re.sub(r"\s+", " ", (await site.get(f"/imports/{again}")).text)
    assert f'The same file was already imported on <a href="/imports/{first}"><time' in text
    assert "</time></a>: 0 new." in text
    assert "The same file" not in (await site.get(f"/imports/{first}")).text


async def test_resumable_sendouts_are_resumed_from_the_imports_page(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The page offers a sendout that now has enough codes, but not one that still lacks codes."""
    await add_list(connection, "spring-10", 6)
    await save_message(connection, "spring-voucher", "spring-10")
    for group, recipients in (("customers", 10), ("newsletter", 1_000)):
        await add_group(connection, group, recipients)
        await start(connection, "spring-voucher", group)
        await prepare(connection)
    import_id = await import_text(connection, pool, "A1\nB2\nC3\nD4")
    text = (await site.get(f"/imports/{import_id}")).text
    short, covered = await sendout_views.list_newest(connection)
    assert f'action="/sendouts/{covered.id}/resume"' in text
    assert str(short.id) not in text
    command = re.search(r'name="command" value="([^"]+)"', text)
    assert command
    response = await site.post(f"/sendouts/{covered.id}/resume", data={"command": command[1]}, headers=SAME_ORIGIN)
    assert response.status_code == 303
    (published,) = await queues.take_commands()
    assert published.id == UUID(command[1])
    async with connection.transaction():
        await sendouts.resume(connection, covered.id)
    assert "/resume" not in (await site.get(f"/imports/{import_id}")).text


async def test_a_failed_import_shows_its_reason(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """The import's page shows the reason once, and not in its log again."""
    await add_list(connection, "spring-10")
    import_id = await import_text(connection, pool, "\n\n")
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<p class="why">codes.txt is empty</p>' in text
    assert text.count("codes.txt is empty") == 1


# --- the file of rejected lines --------------------------------------------------------------------------------------


async def test_the_file_has_all_rejected_lines_in_order(site: AsyncClient, connection: Connection) -> None:
    """The order is the same if the lines are read from the database in several blocks."""
    await add_list(connection, "spring-10")
    import_id = await add_codes(connection, "spring-10", [f"http://example.org/{number}" for number in range(25_000)])
    text = (await site.get(f"/imports/{import_id}/rejections.csv")).content.decode("utf-8-sig")
    header, *lines = text.splitlines()
    assert header == "line;code;reason"
    assert lines == [f'{number + 1};"http://example.org/{number}";"looks like a URL"' for number in range(25_000)]


async def test_the_file_of_rejected_recipients_can_be_imported(
    site: AsyncClient, connection: Connection, pool: Pool
) -> None:
    """The file's column is named email, which an import into a group recognizes."""
    import_id = await import_text(connection, pool, "email\nada@example.org\nnobody\n", group="customers")
    text = (await site.get(f"/api/imports/{import_id}/rejections.csv")).content.decode("utf-8-sig")
    assert text.splitlines() == ["line;email;reason", '3;"nobody";"the address has no ""@"""']


async def test_a_slow_client_holds_no_database_connection(
    database_url: str, broker_url: str, connection: Connection
) -> None:
    """While a client reads nothing, others get responses from a pool of one connection. Later it gets all lines."""
    await add_list(connection, "spring-10")
    filler = "x" * 470
    import_id = await add_codes(connection, "spring-10", [f"http://{filler}{number}" for number in range(40_000)])
    async with open_pool(database_url, size=1) as pool:
        app = build(settings=Settings(_env_file=None), pool=pool)
        async with serve(app) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
            request = (
                f"GET /imports/{import_id}/rejections.csv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            writer.write(request.encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    assert (await client.get("/api/lists")).status_code == 200
                    assert (await reader.read()).count(b"longer than") == 40_000
            finally:
                writer.close()


@asynccontextmanager
async def serve(app: ASGIApp) -> AsyncIterator[int]:
    """Run a real server, which applies backpressure, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choice", "header"), [("yes", True), ("no", False), ("", None)])
async def test_the_form_sets_the_file_format(
    choice: str, header: bool | None, site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """The form has header row, separator, encoding and column. The import detects each option that is left blank."""
    await add_list(connection, "spring-10")
    assert 'name="header"' in (await site.get("/lists/spring-10")).text
    await upload(site, b"A1", fields={"header": choice, "separator": "", "column": "Code", "encoding": "cp1250"})
    assert (await only_command(queues)).format == Format(encoding="cp1250", column="Code", header=header)


async def test_a_group_is_imported_in_the_console(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The first file creates the group. Its page has its number of recipients, attributes, imports and a form."""
    assert "No groups yet." in (await site.get("/groups")).text
    content = b"E-Mail;First name\nada@example.org;Ada\nbob@example.org;Bob\nnobody;No\n"
    response = await upload(site, content, to="/groups/imports", name="people.csv", fields={"group": " Customers"})
    command = await only_command(queues)
    assert (command.group, command.list, command.mode) == ("customers", None, "add")
    assert response.headers["location"] == f"/imports/{command.id}?requested"
    await run_import(connection, pool, command)

    text = (await site.get(response.headers["location"])).text
    assert '<a href="/groups/customers">customers</a>' in text
    assert numbers(text) == {"Added": "2", "Rejected": "1"}
    assert cells(text)[1:4] == ["4", "nobody", "the address has no &#34;@&#34;"]
    text = (await site.get("/groups")).text
    assert re.findall(r'<td class="n[^"]*">(\d+)</td>', text) == ["2"]
    text = (await site.get("/groups/customers")).text
    assert numbers(text) == {"Recipients": "2"}
    assert "<code>first_name</code>" in text
    assert '<span class="badge finished">' in text
    assert '<input type="hidden" name="group" value="customers">' in text


async def test_the_form_of_a_group_adds_replaces_and_deletes(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The form has the same modes as the form of a list."""
    await add_group(connection, "customers", 3)
    for mode, address, left in ("add", "ada@x.org", 4), ("delete", "c0@example.org", 3), ("replace", "ada@x.org", 1):
        fields = {"group": "customers", "mode": mode}
        response = await upload(site, f"email\n{address}\n".encode(), to="/groups/imports", fields=fields)
        if mode != "add":
            await confirm(site, response)
        await run_import(connection, pool, await only_command(queues))
        assert numbers((await site.get("/groups/customers")).text) == {"Recipients": str(left)}


async def test_an_invalid_group_name_is_rejected_before_the_file_is_stored(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """An invalid or missing name gets 422. The page of an unknown group gets 404."""
    for fields in ({"group": "a/b"}, {"group": ""}, {}):
        assert (await upload(site, b"email\n", to="/groups/imports", fields=fields)).status_code == 422
    assert (await site.get("/groups/nobody")).status_code == 404
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0
    assert not await queues.take_commands()
