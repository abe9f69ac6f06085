"""Imports in the console and in the HTTP API, on real services and with the worker's own import role."""

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
from coupons.database import Connection, Pool, pooled
from coupons.files.codes import check_codes
from coupons.settings import Settings
from coupons.sources import PIECE_BYTES
from coupons.store import imports, sendout_views, sendouts, uploads
from coupons.store.imports import Mode
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
from tests.web import OURS, Queues, errors, note, opened, upload
from workers.importer import Importer
from workers.loops import AT_ONCE, Signals
from workers.nudges import Nudges

LIMIT_SECONDS = 20.0
MIB = 1_048_576


@pytest.fixture
async def site(database_url: str, broker_url: str) -> AsyncIterator[AsyncClient]:
    async with opened(database_url=database_url, broker_url=broker_url) as client:
        yield client


@pytest.fixture
async def queues(broker_url: str) -> Queues:
    found = Queues(broker_url)
    await found.declare()
    return found


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with pooled(database_url, size=4) as pool:
        yield pool


async def work(connection: Connection, pool: Pool, command: ImportCoupons) -> None:
    """What a worker does with the command, to its end."""
    await note(connection, command)
    signals = Signals(("import",))
    importer = Importer(
        pool=pool, signals=signals, nudges=Nudges(signals), settings=Settings(_env_file=None), owner="w"
    )
    assert await importer.step() == AT_ONCE


async def commanded(queues: Queues) -> ImportCoupons:
    (command,) = await queues.commands()
    assert isinstance(command, ImportCoupons)
    return command


async def keep(connection: Connection, text: str) -> str:
    """A file on its way to a worker; returns its source."""

    async def pieces() -> AsyncIterator[bytes]:
        yield text.encode()

    return f"upload:{(await uploads.keep(connection, 'codes.txt', pieces(), max_bytes=MIB)).id}"


async def imported(
    connection: Connection,
    pool: Pool,
    text: str,
    *,
    mode: Mode = "add",
    to: str = "spring-10",
    group: str | None = None,
) -> UUID:
    """An import of a file of this text that has ended."""
    target = {"group": group} if group else {"list": "spring-10"}
    command = ImportCoupons.model_validate(
        {**target, "mode": mode, "source": await keep(connection, text), "format": {"kind": "csv" if group else "txt"}}
    )
    await work(connection, pool, command)
    return command.id


async def running(connection: Connection) -> UUID:
    """An import of 5,000 lines in which a worker has done 2,000, in two seconds."""
    await add_list(connection, "spring-10")
    command = ImportCoupons(list="spring-10", source=await keep(connection, "\n".join(map(str, range(5_000)))))
    await imports.create(connection, command)
    job = await claimed(connection, command.id)
    await imports.opened(connection, job, 5_000)
    await imports.note(connection, job.id, "taken by w1")
    await take_codes(
        connection, job, check_codes(range(1, 2_001), [f"A{number}" for number in range(2_000)]), position=2_000
    )
    await connection.execute("UPDATE import_job SET claimed_at = progressed_at - interval '2 s'")
    return command.id


def cells(text: str) -> list[str]:
    return [re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", text, re.DOTALL)]


def numbers(text: str) -> dict[str, str]:
    """What a page shows in large figures."""
    return dict(re.findall(r"<dt>([^<]+)</dt><dd[^>]*>([^<]+)</dd>", text))


# --- a program imports a large file --------------------------------------------------------------------------------


async def test_a_program_uploads_a_file_then_commands_its_import(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """201 with the source that the command names; the import, its log and its list's imports can be asked for."""
    await add_list(connection, "spring-10")
    content = b"".join(b"CODE-%09d\n" % number for number in range(200_000))
    with capture_logs() as logs:
        response = await site.post("/api/uploads", params={"name": "../spring.txt"}, content=content)
        kept = response.json()
        assert (response.status_code, kept["bytes"], kept["source"]) == (201, len(content), f"upload:{kept['id']}")
        command = {"type": "import", "id": str(uuid4()), "list": "spring-10", "source": kept["source"]}
        assert (await site.post("/api/commands", json=command)).status_code == 202
    assert "CODE-" not in str(logs)
    assert await connection.fetchval("SELECT name FROM upload") == "spring.txt"
    sizes = await connection.fetch("SELECT length(data) AS bytes FROM upload_chunk ORDER BY number")
    assert [row["bytes"] for row in sizes] == [PIECE_BYTES, PIECE_BYTES, len(content) - 2 * PIECE_BYTES]
    await work(connection, pool, await commanded(queues))

    job = (await site.get(f"/api/imports/{command['id']}")).json()
    assert (job["state"], job["added"], job["list"], job["group"]) == ("finished", 200_000, "spring-10", None)
    log = (await site.get(f"/api/imports/{command['id']}/events")).json()
    assert [event["text"] for event in log] == ["taken by w", "reads spring.txt as txt, utf-8", "finished"]
    assert (await site.get("/api/lists/spring-10/imports")).json() == [job]


async def test_groups_and_their_imports_can_be_asked_for(site: AsyncClient, connection: Connection) -> None:
    """With how many recipients they have, and which attributes; what is not there is 404."""
    import_id = await add_recipients(connection, "customers", [("ada@example.org", {"first_name": "Ada"})])
    (group,) = (await site.get("/api/groups")).json()
    assert (group["name"], group["recipients"], group["attributes"]) == ("customers", 1, ["first_name"])
    (job,) = (await site.get("/api/groups/customers/imports")).json()
    assert (job["id"], job["group"], job["list"], job["added"]) == (str(import_id), "customers", None, 1)
    for path in ("groups/nobody/imports", "lists/autumn/imports", f"imports/{uuid4()}/events"):
        response = await site.get(f"/api/{path}")
        assert (response.status_code, "there is no" in errors(response)) == (404, True)


async def test_a_large_upload_is_never_in_memory(site: AsyncClient, connection: Connection) -> None:
    """64 MiB pass through a few pieces, as a body and as a form's file."""
    await add_list(connection, "spring-10")

    async def body() -> AsyncIterator[bytes]:
        yield b'--cut\r\nContent-Disposition: form-data; name="mode"\r\n\r\nadd\r\n--cut\r\n'
        yield b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(1_024):
            yield b"x" * 65_535 + b"\n"
        yield b"\r\n--cut--\r\n"

    as_form = {"Content-Type": "multipart/form-data; boundary=cut"} | OURS
    tracemalloc.start()
    try:
        kept = await site.post("/api/uploads", content=body())
        await site.post("/lists/spring-10/imports", content=body(), headers=as_form)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.json()["bytes"] > 64 * MIB
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE bytes >= $1", 64 * MIB) == 2
    assert peak < 12 * MIB


async def test_every_upload_has_the_same_limit(database_url: str, broker_url: str, connection: Connection) -> None:
    """A file of exactly COUPONS_IMPORT_MAX_BYTES is taken, one byte more is not, whether or not its length is said."""
    await add_list(connection, "spring-10")
    queues = Queues(broker_url)
    await queues.declare()

    async def undeclared(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    async def refused(client: AsyncClient, size: int) -> list[bool]:
        responses = [
            await client.post("/api/uploads", content=b"x" * size),
            await client.post("/api/uploads", content=undeclared(size)),
            await upload(client, b"x" * size),
            await upload(client, b"x" * size, to="/groups/imports", fields={"group": "customers"}),
        ]
        return [response.status_code in {409, 413} for response in responses]

    async with opened(database_url=database_url, broker_url=broker_url, import_max_bytes=1_000) as client:
        assert await refused(client, 1_000) == [False] * 4
        assert await refused(client, 1_001) == [True] * 4
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE bytes IS NOT NULL") == 4
    assert await connection.fetchval("SELECT max(bytes) FROM upload") == 1_000


async def test_uploads_and_cancels_are_taken_as_other_posts_are(
    database_url: str, broker_url: str, connection: Connection
) -> None:
    """Not from another site's page, and with a token not from anybody without it."""
    import_id = await running(connection)
    paths = ("/api/uploads", f"/api/imports/{import_id}/cancel")
    async with opened(database_url=database_url, broker_url=broker_url) as site:
        for path in paths:
            assert (await site.post(path, headers={"Origin": "http://evil.example"})).status_code == 403
        for path in ("/groups/imports", f"/imports/{import_id}/cancel"):
            assert (await site.post(path)).status_code == 403
    async with opened(database_url=database_url, broker_url=broker_url, token="correct-horse") as site:
        for path in paths:
            assert (await site.post(path)).status_code == 401
        assert (await site.post(paths[0], headers={"Authorization": "Bearer correct-horse"})).status_code == 201
    found = await imports.find(connection, import_id)
    assert found
    assert found.state == "running"


# --- clients that stop, and others that wait ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/uploads", "/lists/spring-10/imports", "/api/commands"])
async def test_a_client_that_sends_no_more_is_sent_away(
    path: str, site_port: int, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408, and the connection is closed; nothing of its file stays."""
    monkeypatch.setattr(request_body, "IDLE_SECONDS", 0.2)
    await add_list(connection, "spring-10")
    async with stalling(site_port, path) as reader:
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert b"nothing has come for" in answer
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0


async def test_uploads_that_stall_do_not_stop_others_for_ever(
    site_port: int, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is 503 with the time after which to try again, and is taken once a stalled one was sent away."""
    monkeypatch.setattr(actions, "TURN_SECONDS", 0.2)
    monkeypatch.setattr(request_body, "IDLE_SECONDS", 2)
    async with AsyncExitStack() as stack, AsyncClient(base_url=f"http://127.0.0.1:{site_port}") as client:
        stalled = [
            await stack.enter_async_context(stalling(site_port, "/api/uploads")) for _ in range(actions.UPLOADS_AT_ONCE)
        ]
        await uploading(connection, actions.UPLOADS_AT_ONCE)
        refused = await client.post("/api/uploads", content=b"A1\n")
        assert (refused.status_code, "uploaded already" in errors(refused)) == (503, True)
        assert float(refused.headers["retry-after"]) > 0
        assert (await stalled[0].readline()).startswith(b"HTTP/1.1 408")
        assert (await client.post("/api/uploads", content=b"A1\n")).status_code == 201
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE bytes IS NOT NULL") == 1


@pytest.fixture
async def site_port(database_url: str, broker_url: str) -> AsyncIterator[int]:
    """The site behind a real server."""
    async with pooled(database_url, size=6) as pool:
        settings = Settings(_env_file=None, broker_url=SecretStr(broker_url))
        async with served(build(settings=settings, pool=pool)) as port:
            yield port


@asynccontextmanager
async def stalling(port: int, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A client that has sent the beginning of a body, and nothing more; yields what it is answered."""
    form = "multipart/form-data; boundary=cut" if path.endswith("imports") else "application/json"
    mode = '--cut\r\nContent-Disposition: form-data; name="mode"\r\n\r\nadd\r\n'
    file = '--cut\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    begun = f"{mode}{file}SPRING-1\n" if path.endswith("imports") else "SPRING-1\n"
    head = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Sec-Fetch-Site: same-origin",
        f"Content-Type: {form}",
        "Content-Length: 1000",
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join((*head, "", begun)).encode())
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield reader
    finally:
        writer.close()


async def uploading(connection: Connection, count: int) -> None:
    """Wait until so many files are on their way."""
    await until(lambda: connection.fetchval("SELECT count(*) >= $1 FROM upload", count), f"{count} uploads")


# --- an import while it runs ---------------------------------------------------------------------------------------


async def test_a_running_import_shows_how_far_it_is(site: AsyncClient, connection: Connection) -> None:
    """By bytes and lines, with its rate, the time left and its log, followed with and without JavaScript."""
    import_id = await running(connection)
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<progress class="running" value="2000" max="5000"' in text
    assert "<b>2,000</b> lines" in text
    assert "<span>2.0 kB of 5.0 kB</span>" in text
    assert "<span>1,000 lines/s</span>" in text
    assert "<span>3 s left</span>" in text
    assert "taken by w1" in text
    assert "data-live" in text
    assert '<noscript><meta http-equiv="refresh"' in text
    text = (await site.get("/lists/spring-10")).text
    assert '<progress class="running" value="2000" max="5000"' in text
    assert "3 s left" in text
    assert "data-live" in text


async def test_a_source_that_does_not_say_its_size_has_an_empty_bar(site: AsyncClient, connection: Connection) -> None:
    """And what was read of it: nobody is told that it is nearly done."""
    import_id = await running(connection)
    await connection.execute("UPDATE import_job SET total_bytes = NULL")
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<progress class="running" value="0" max="1"' in text
    assert "<span>2.0 kB</span>" in text
    assert '<progress class="running" value="0" max="1"' in (await site.get("/lists/spring-10")).text


async def test_an_import_is_cancelled_by_a_button(site: AsyncClient, connection: Connection) -> None:
    """At once; what it has taken stays, its file goes, and a second time is refused."""
    import_id = await running(connection)
    path = f"/imports/{import_id}/cancel"
    assert f'action="{path}"' in (await site.get(f"/imports/{import_id}")).text
    response = await site.post(path, headers=OURS)
    assert (response.status_code, response.headers["location"]) == (303, f"/imports/{import_id}")
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<span class="badge cancelled">' in text
    assert "cancelled by a person" in text
    assert numbers(text)["Added"] == "2,000"
    assert "data-live" not in text
    assert f'action="{path}"' not in text
    assert (await site.post(path, headers=OURS)).status_code == 409
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0


async def test_the_api_cancels_an_import(site: AsyncClient, connection: Connection) -> None:
    """The answer is what it is then; one that has ended is 409, one that is not there 404."""
    import_id = await running(connection)
    job = (await site.post(f"/api/imports/{import_id}/cancel")).json()
    assert (job["id"], job["state"], job["added"]) == (str(import_id), "cancelled", 2_000)
    response = await site.post(f"/api/imports/{import_id}/cancel")
    assert (response.status_code, "is cancelled already" in errors(response)) == (409, True)
    assert (await site.post(f"/api/imports/{uuid4()}/cancel")).status_code == 404


# --- an import that has ended --------------------------------------------------------------------------------------


async def test_an_import_explains_the_lines_that_it_did_not_take(
    site: AsyncClient, connection: Connection, pool: Pool
) -> None:
    """How many for which reason, the first twenty of them, and all of them as a file."""
    await add_list(connection, "spring-10")
    bad = "\n".join(f"http://example.org/{number}" for number in range(30))
    import_id = await imported(connection, pool, f"A1\n\nB2\nA1\n{bad}\n<b>1,2E+11</b>\n")
    text = (await site.get(f"/imports/{import_id}")).text
    assert numbers(text) == {"Added": "3", "Blank lines": "1", "Not taken": "31"}
    found = cells(text)
    assert found[:2] == ["30", "1"]
    assert "duplicate of an earlier line" in text
    assert found[2:5] == ["4", "A1", "duplicate of an earlier line"]
    assert found[5:8] == ["5", "http://example.org/0", "looks like a URL"]
    assert "http://example.org/18" in found
    assert "http://example.org/19" not in found
    assert "The first 20" in text
    assert f'href="/imports/{import_id}/rejections.csv" download' in text


async def test_an_import_says_what_it_had_to_leave(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """Codes that a sendout was promised are not removed: of its ten, the file has brought one."""
    await add_list(connection, "spring-10", 12)
    await add_group(connection, "customers", 10)
    await save_message(connection, "spring-voucher", "spring-10")
    await start(connection, "spring-voucher", "customers")
    await prepare(connection)
    import_id = await imported(connection, pool, "NEW", mode="replace")
    text = re.sub(r"\s+", " ", (await site.get(f"/imports/{import_id}")).text)
    assert "Not removed: <b>9</b> promised to sendouts." in text
    assert numbers(text) == {"Added": "1", "Removed": "3", "Not taken": "0"}


async def test_the_same_file_again_says_so(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """When it was imported first, with the way there, and that nothing of it is new."""
    await add_list(connection, "spring-10")
    first = await imported(connection, pool, "A1\nB2\n")
    again = await imported(connection, pool, "A1\nB2\n")
    text = re.sub(r"\s+", " ", (await site.get(f"/imports/{again}")).text)
    assert f'The same file was imported on <a href="/imports/{first}"><time' in text
    assert "</time></a>: 0 new." in text
    assert "The same file" not in (await site.get(f"/imports/{first}")).text


async def test_sendouts_that_an_import_covers_are_resumed_from_its_page(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """Those that have enough codes now, not the one that is still short."""
    await add_list(connection, "spring-10", 6)
    await save_message(connection, "spring-voucher", "spring-10")
    for group, recipients in (("customers", 10), ("everybody", 1_000)):
        await add_group(connection, group, recipients)
        await start(connection, "spring-voucher", group)
        await prepare(connection)
    import_id = await imported(connection, pool, "A1\nB2\nC3\nD4")
    text = (await site.get(f"/imports/{import_id}")).text
    short, covered = await sendout_views.newest(connection)
    assert f'action="/sendouts/{covered.id}/resume"' in text
    assert str(short.id) not in text
    command = re.search(r'name="command" value="([^"]+)"', text)
    assert command
    response = await site.post(f"/sendouts/{covered.id}/resume", data={"command": command[1]}, headers=OURS)
    assert response.status_code == 303
    (published,) = await queues.commands()
    assert published.id == UUID(command[1])
    async with connection.transaction():
        await sendouts.resume(connection, covered.id)
    assert "/resume" not in (await site.get(f"/imports/{import_id}")).text


async def test_an_import_that_fails_says_why(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """In the words of the one who read it, on its page and in its log."""
    await add_list(connection, "spring-10")
    import_id = await imported(connection, pool, "\n\n")
    text = (await site.get(f"/imports/{import_id}")).text
    assert '<p class="why">codes.txt is empty</p>' in text
    assert "failed: codes.txt is empty" in text


# --- rejected lines as a file --------------------------------------------------------------------------------------


async def test_rejected_lines_come_whole_and_in_order(site: AsyncClient, connection: Connection) -> None:
    """However many rows of the database they take."""
    await add_list(connection, "spring-10")
    import_id = await add_codes(connection, "spring-10", [f"http://example.org/{number}" for number in range(25_000)])
    text = (await site.get(f"/imports/{import_id}/rejections.csv")).content.decode("utf-8-sig")
    header, *lines = text.splitlines()
    assert header == "line;code;reason"
    assert lines == [f'{number + 1};"http://example.org/{number}";"looks like a URL"' for number in range(25_000)]


async def test_rejected_recipients_come_under_a_header_that_can_be_imported(
    site: AsyncClient, connection: Connection, pool: Pool
) -> None:
    """Their column is called email, as the import of a group wants it."""
    import_id = await imported(connection, pool, "email\nada@example.org\nnobody\n", group="customers")
    text = (await site.get(f"/api/imports/{import_id}/rejections.csv")).content.decode("utf-8-sig")
    assert text.splitlines() == ["line;email;reason", '3;"nobody";"not exactly one e-mail address"']


async def test_a_slow_reader_holds_no_connection_to_the_database(
    database_url: str, broker_url: str, connection: Connection
) -> None:
    """Others are answered while it reads nothing, of a pool of one connection; then it still gets every line."""
    await add_list(connection, "spring-10")
    filler = "x" * 470
    import_id = await add_codes(connection, "spring-10", [f"http://{filler}{number}" for number in range(40_000)])
    async with pooled(database_url, size=1) as pool:
        app = build(settings=Settings(_env_file=None), pool=pool)
        async with served(app) as port, AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
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
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """A real server, which waits for a client that does not read; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


# --- forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "header"), [("yes", True), ("no", False), ("", None)])
async def test_the_form_says_how_the_file_is_to_be_read(
    said: str, header: bool | None, site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """Whether the first line is a header, beside separator, encoding and column; what is not said stays open."""
    await add_list(connection, "spring-10")
    assert 'name="header"' in (await site.get("/lists/spring-10")).text
    await upload(site, b"A1", fields={"header": said, "separator": "", "column": "Code", "encoding": "cp1250"})
    assert (await commanded(queues)).format == Format(encoding="cp1250", column="Code", header=header)


async def test_a_group_is_imported_without_a_command_line(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The first file makes it; its page then has its recipients in numbers, their attributes, imports and a form."""
    assert "No groups yet." in (await site.get("/groups")).text
    content = b"E-Mail;First name\nada@example.org;Ada\nbob@example.org;Bob\nnobody;No\n"
    response = await upload(site, content, to="/groups/imports", name="people.csv", fields={"group": " Customers"})
    command = await commanded(queues)
    assert (command.group, command.list, command.mode) == ("customers", None, "add")
    assert response.headers["location"] == f"/imports/{command.id}?requested"
    await work(connection, pool, command)

    text = (await site.get(response.headers["location"])).text
    assert '<a href="/groups/customers">customers</a>' in text
    assert numbers(text) == {"Added": "2", "Not taken": "1"}
    assert cells(text)[1:4] == ["4", "nobody", "not exactly one e-mail address"]
    text = (await site.get("/groups")).text
    assert re.findall(r'<td class="n[^"]*">(\d+)</td>', text) == ["2"]
    text = (await site.get("/groups/customers")).text
    assert numbers(text) == {"Recipients": "2"}
    assert "<code>first_name</code>" in text
    assert '<span class="badge finished">' in text
    assert '<input type="hidden" name="group" value="customers">' in text


async def test_a_groups_form_adds_replaces_and_deletes(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """As a list's does."""
    await add_group(connection, "customers", 3)
    for mode, address, left in ("add", "ada@x.org", 4), ("delete", "c0@example.org", 3), ("replace", "ada@x.org", 1):
        fields = {"group": "customers", "mode": mode}
        await upload(site, f"email\n{address}\n".encode(), to="/groups/imports", fields=fields)
        await work(connection, pool, await commanded(queues))
        assert numbers((await site.get("/groups/customers")).text) == {"Recipients": str(left)}


async def test_a_group_that_cannot_be_is_refused_before_its_file_is_kept(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """Its name is no name, or nobody said one; a page of a group that is not there is 404."""
    for fields in ({"group": "a/b"}, {"group": ""}, {}):
        assert (await upload(site, b"email\n", to="/groups/imports", fields=fields)).status_code == 422
    assert (await site.get("/groups/nobody")).status_code == 404
    assert await connection.fetchval("SELECT count(*) FROM upload") == 0
    assert not await queues.commands()
