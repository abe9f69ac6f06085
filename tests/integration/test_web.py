"""The console and the HTTP API, on a real database and a real broker."""

import asyncio
import base64
import os
import random
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient, Headers, Response
from pydantic import SecretStr

from coupons.commands import MAX_COMMAND_BYTES, Command, Format, ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.database import Connection
from coupons.settings import Settings
from coupons.sources import PIECE_BYTES
from coupons.store import deliveries, lists, sendout_views, sendouts, uploads
from coupons.store.deliveries import Batch, Conclusion, Delivery
from producers.web.server import CannotListen, serve
from sandbox.process import free_ports
from sandbox.services import Services
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, prepare, save_message, start
from tests.services import execute
from tests.web import OURS, Queues, errors, note, opened, upload

TOKEN = "correct-horse"
LIMIT_SECONDS = 20.0

OpenSite = Callable[..., AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture
def open_site(database_url: str, broker_url: str) -> OpenSite:
    """Open the site with other settings than by default."""
    return partial(opened, database_url=database_url, broker_url=broker_url)


@pytest.fixture
async def site(open_site: OpenSite) -> AsyncIterator[AsyncClient]:
    async with open_site() as client:
        yield client


@pytest.fixture
async def queues(broker_url: str) -> Queues:
    found = Queues(broker_url)
    await found.declare()
    return found


async def interrupted(connection: Connection) -> UUID:
    """A sendout to 10 recipients on a list of 6 codes."""
    await add_list(connection, "spring-10", 6)
    await add_group(connection, "customers", 10)
    await save_message(connection, "spring-voucher", "spring-10")
    sendout_id = await start(connection, "spring-voucher", "customers")
    await prepare(connection)
    return sendout_id


async def post(site: AsyncClient, command: Command | bytes, **headers: str) -> Response:
    body = command if isinstance(command, bytes) else command.body()
    return await site.post("/api/commands", content=body, headers={"Content-Type": "application/json"} | headers)


# --- the API: commands ---------------------------------------------------------------------------------------------


async def test_a_command_is_published_as_it_came(site: AsyncClient, queues: Queues, connection: Connection) -> None:
    """202, where to look for what it begins, and in the queue the same command, of all three types."""
    sendout_id = await interrupted(connection)
    commands: list[Command] = [
        ImportCoupons(list="spring-10", codes=("A1", "B2")),
        StartSendout(
            message="spring-voucher", recipients=(Recipient(email="ada@example.org", attributes={"first_name": "Ada"}),)
        ),
        ResumeSendout(sendout=sendout_id),
    ]
    locations = [f"/api/imports/{commands[0].id}", f"/api/sendouts/{commands[1].id}", f"/api/sendouts/{sendout_id}"]
    for command, location in zip(commands, locations, strict=True):
        response = await post(site, command)
        assert response.status_code == 202
        assert response.json() == {"id": str(command.id), "location": location}
        assert response.headers["location"] == location
    assert await queues.commands() == commands


async def test_an_invalid_command_is_answered_with_all_its_errors(site: AsyncClient, queues: Queues) -> None:
    """422, every reason at once, none of the values, and nothing published."""
    response = await post(site, b'{"type":"import","mode":"shuffle","codes":["SECRET"],"source":"ftp://x"}')
    assert response.status_code == 422
    assert [reason.partition(":")[0] for reason in response.json()["errors"]] == ["id", "mode", "source"]
    assert "SECRET" not in response.text
    assert (await post(site, b"\xff")).status_code == 422
    assert not await queues.commands()


async def test_what_cannot_be_done_is_refused_before_it_is_published(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """409 with the reason that the command line would give."""
    await add_list(connection, "spring-10", 6)
    refused: dict[Command, str] = {
        ImportCoupons(list="autumn", codes=("A1",)): "there is no list autumn",
        ImportCoupons(list="spring-10", source=f"upload:{uuid4()}"): "there is no upload",
        StartSendout(message="hello", group="customers"): "there is no message hello",
        ResumeSendout(sendout=uuid4()): "there is no sendout",
    }
    for command, reason in refused.items():
        response = await post(site, command)
        assert response.status_code == 409
        assert reason in errors(response)
    assert not await queues.commands()


async def test_the_same_command_again_is_answered_the_same(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """A client that lost the answer may repeat: its sendout has been resumed meanwhile, and that is no error."""
    sendout_id = await interrupted(connection)
    await add_codes(connection, "spring-10", ["A1", "B2", "C3", "D4"])
    command = ResumeSendout(sendout=sendout_id)
    first = await post(site, command)
    await note(connection, command)
    again = await post(site, command)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert (await post(site, ResumeSendout(sendout=sendout_id))).status_code == 409
    assert await queues.commands() == [command, command]


async def test_too_large_a_command_is_refused_while_it_is_read(site: AsyncClient, queues: Queues) -> None:
    """413 as soon as the limit is passed, whether or not the client says how much is to come."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += MAX_COMMAND_BYTES // 4
            yield b" " * (MAX_COMMAND_BYTES // 4)

    response = await site.post("/api/commands", content=endless(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert sent <= MAX_COMMAND_BYTES * 2
    assert (await post(site, b" " * (MAX_COMMAND_BYTES + 1))).status_code == 413


async def test_a_command_must_say_that_it_is_json(site: AsyncClient) -> None:
    """A page of another site can post text, but no JSON without asking us first."""
    response = await site.post("/api/commands", content=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415


async def test_without_a_broker_a_command_is_not_taken(open_site: OpenSite, connection: Connection) -> None:
    """503: the client repeats the command, which has an id for that."""
    await add_list(connection, "spring-10")
    async with open_site(broker_url=f"amqp://nobody:nothing@127.0.0.1:{free_ports(1)[0]}/") as site:
        response = await post(site, ImportCoupons(list="spring-10", codes=("A1",)))
    assert response.status_code == 503
    assert "nothing" not in response.text


async def test_before_any_worker_has_run_a_command_is_not_taken(site: AsyncClient, connection: Connection) -> None:
    """503 and not a success: there is no queue that would keep it."""
    await add_list(connection, "spring-10")
    response = await post(site, ImportCoupons(list="spring-10", codes=("A1",)))
    assert response.status_code == 503
    assert "no queue takes" in errors(response)


async def test_without_a_database_nothing_is_promised(site: AsyncClient, database_url: str, postgres_url: str) -> None:
    """503 for commands and for pages while the database takes no connections."""
    name = database_url.rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await execute(postgres_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert (await post(site, ResumeSendout(sendout=uuid4()))).status_code == 503
    assert (await site.get("/")).status_code == 503
    assert (await site.get("/readyz")).json() == {"database": False, "broker": True}


# --- the API: looking ----------------------------------------------------------------------------------------------


async def test_the_api_shows_lists_sendouts_and_imports(site: AsyncClient, connection: Connection) -> None:
    """The same fields as the command line's --json, times in ISO 8601."""
    sendout_id = await interrupted(connection)
    import_id = await add_codes(connection, "spring-10", ["A1", "A1", "", "http://example.org/"])
    (found,) = (await site.get("/api/lists")).json()
    assert (found["name"], found["available"], found["total"]) == ("spring-10", 7, 7)

    (row,) = (await site.get("/api/sendouts", params={"status": "interrupted"})).json()
    (short,) = row["lists"]
    assert (row["id"], short["needed"], short["missing"], short["available"]) == (str(sendout_id), 10, 3, 7)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row["created_at"])
    assert (await site.get("/api/sendouts", params={"status": "finished"})).json() == []
    assert (await site.get(f"/api/sendouts/{sendout_id}")).json() == {"sendout": row, "problems": []}

    job = (await site.get(f"/api/imports/{import_id}")).json()
    assert (job["state"], job["added"], job["rejected"], job["blank"]) == ("finished", 1, 2, 1)


async def test_the_api_names_what_is_not_there(site: AsyncClient) -> None:
    """404 for an unknown id, 422 for an unknown status, in the same shape as every error."""
    for path in ("sendouts", "imports"):
        assert "there is no" in errors(await site.get(f"/api/{path}/{uuid4()}"))
    assert (await site.get(f"/api/imports/{uuid4()}/rejections.csv")).status_code == 404
    response = await site.get("/api/sendouts", params={"status": "lost"})
    assert (response.status_code, "status is one of queued" in errors(response)) == (422, True)
    response = await site.get("/api/nothing")
    assert (response.status_code, errors(response)) == (404, "Not Found")


async def test_rejected_lines_are_a_csv_file_to_mend(site: AsyncClient, connection: Connection) -> None:
    """With their line and reason, for programs and for browsers, which hold different credentials."""
    await add_list(connection, "spring-10")
    import_id = await add_codes(connection, "spring-10", ["A1", "A1", "1.2E+11"])
    for path in (f"/api/imports/{import_id}/rejections.csv", f"/imports/{import_id}/rejections.csv"):
        response = await site.get(path)
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert response.headers["content-disposition"] == f'attachment; filename="rejected-{import_id}.csv"'
        assert response.content.decode("utf-8-sig").splitlines() == [
            "line;code;reason",
            '2;"A1";"duplicate of an earlier line"',
            '3;"1.2E+11";"damaged by a spreadsheet: export the column as text"',
        ]


async def test_health_is_told_apart(open_site: OpenSite, site: AsyncClient, empty_database_url: str) -> None:
    """Alive is the process; ready are also its broker, and its database with this program's schema."""
    ready = await site.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"database": True, "broker": True})
    unreachable = f"amqp://127.0.0.1:{free_ports(1)[0]}/"
    async with open_site(database_url=empty_database_url, broker_url=unreachable, token=TOKEN) as unready:
        response = await unready.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"database": False, "broker": False})
        assert (await unready.get("/livez")).status_code == 200


async def test_a_defect_says_nothing_of_itself(site: AsyncClient, connection: Connection) -> None:
    """500 and no word of the database's, which may quote codes; `log` says where."""
    await connection.execute("ALTER TABLE coupon_list RENAME TO elsewhere")
    response = await site.get("/api/lists")
    await connection.execute("ALTER TABLE elsewhere RENAME TO coupon_list")
    assert response.status_code == 500
    assert errors(response) == "this is a defect of the Coupon Manager; its log says where"


# --- the console ---------------------------------------------------------------------------------------------------


async def test_the_outbox_shows_the_shortage_in_numbers(site: AsyncClient, connection: Connection) -> None:
    """Status filter Interrupted: needed, available and missing of the list, and a button to resume."""
    sendout_id = await interrupted(connection)
    text = (await site.get("/", params={"status": "interrupted"})).text
    assert re.findall(r'<td class="n[^"]*">\s*(\d+)', text) == ["10", "6", "4"]
    assert f'action="/sendouts/{sendout_id}/resume"' in text
    assert "data-live" not in text
    assert "No sendout is finished." in (await site.get("/", params={"status": "finished"})).text
    assert (await site.get("/", params={"status": "lost"})).status_code == 422


async def test_resume_is_one_command_however_often_it_is_clicked(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """The form brings the command's id; the page that follows says that it is requested, then what it came to."""
    sendout_id = await interrupted(connection)
    form = {"command": str(uuid4())}
    responses = [await site.post(f"/sendouts/{sendout_id}/resume", data=form, headers=OURS) for _ in range(2)]
    command, _ = commands = await queues.commands()
    assert commands == [ResumeSendout(id=UUID(form["command"]), sendout=sendout_id)] * 2
    assert {response.status_code for response in responses} == {303}
    requested = (await site.get(responses[0].headers["location"])).text
    assert "Resume is requested" in requested
    assert "data-live" in requested
    await note(connection, command)
    assert "interrupted still" in (await site.get(responses[0].headers["location"])).text


async def test_a_sendout_that_sends_is_followed_without_javascript_too(
    site: AsyncClient, connection: Connection
) -> None:
    """While it is not ended, the script finds it live, and <noscript> reloads the page; a finished one stands still."""
    await interrupted(connection)
    await add_codes(connection, "spring-10", ["A1", "B2", "C3", "D4"])
    (sendout,) = await sendout_views.newest(connection)
    await note(connection, ResumeSendout(sendout=sendout.id))
    for path in ("/", f"/sendouts/{sendout.id}"):
        text = (await site.get(path)).text
        assert '<progress class="sending" value="0" max="10"' in text
        assert "data-live" in text
        assert '<noscript><meta http-equiv="refresh"' in text


async def test_a_sendout_shows_its_problems_in_the_relays_words(site: AsyncClient, connection: Connection) -> None:
    """Addresses that were refused or are uncertain, with markup in the reply as harmless as any other text."""
    sendout_id = await sending(connection)
    batch = await claimed(connection)
    due = await due_of(connection, batch)
    outcomes = [Conclusion(due[0], "refused", "550 <script>alert(1)</script>"), Conclusion(due[1], "sent", "250 ok")]
    await record(connection, batch, outcomes)
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert due[0].address in text
    assert due[1].address not in text
    assert "550 &lt;script&gt;alert(1)&lt;/script&gt;" in text
    (problem,) = (await site.get(f"/api/sendouts/{sendout_id}")).json()["problems"]
    assert (problem["state"], problem["reply"]) == ("refused", "550 <script>alert(1)</script>")


async def record(
    connection: Connection, batch: Batch, conclusions: list[Conclusion], intents: tuple[int, ...] = ()
) -> None:
    assert await deliveries.record(
        connection,
        batch,
        flush=uuid4(),
        conclusions=conclusions,
        in_flight=(),
        intents=intents,
        lease_seconds=LEASE_SECONDS,
    )


async def test_a_sendout_that_sends_shows_how_fast(site: AsyncClient, connection: Connection) -> None:
    """Mails in hand, rate and time left, from the batches' own counters; what it waits for, and until when."""
    sendout_id = await sending(connection)
    batch = await claimed(connection)
    due = await due_of(connection, batch)
    await record(connection, batch, [Conclusion(each, "sent", "250") for each in due[:4]], intents=(5, 6, 7))
    await connection.execute("UPDATE delivery_batch SET claimed_at = now() - interval '2 s', flushed_at = now()")
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert "<b>3</b> in hand" in text
    assert "<span>2 mails/s</span>" in text
    assert "<span>3 s left</span>" in text
    await sendouts.wait(connection, sendout_id, "relay mx:25 refuses connections since 12:00 UTC")
    await connection.execute("UPDATE sendout SET per_hour = 3600, start_at = '2031-01-01 00:00Z'")
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert "Waiting: relay mx:25 refuses connections since 12:00 UTC" in text
    assert "<dd>3,600</dd>" in text
    await sendouts.wait(connection, sendout_id, None)
    for path in ("/", f"/sendouts/{sendout_id}"):
        assert 'Nobody is mailed before <time datetime="2031-01-01T00:00:00+00:00">' in (await site.get(path)).text


async def test_a_sendout_is_paused_and_cancelled_by_a_button(site: AsyncClient, connection: Connection) -> None:
    """At once, by a post of our own page; the page follows until nothing is in hand. A second time is refused."""
    sendout_id = await sending(connection)
    batch = await claimed(connection)
    await record(connection, batch, [], intents=(1, 2))
    path = f"/sendouts/{sendout_id}"
    assert f'action="{path}/pause"' in (await site.get("/")).text
    assert (await site.post(f"{path}/pause")).status_code == 403
    response = await site.post(f"{path}/pause", headers=OURS)
    assert (response.status_code, response.headers["location"]) == (303, path)
    text = (await site.get(path)).text
    assert "paused by a person" in text
    assert "<b>2</b> in hand" in text
    assert "data-live" in text
    assert f'action="{path}/pause"' not in text
    assert (await site.post(f"{path}/pause", headers=OURS)).status_code == 409
    assert f'action="{path}/cancel"' in text
    assert (await site.post(f"{path}/cancel", headers=OURS)).status_code == 303
    text = (await site.get(path)).text
    assert '<span class="badge cancelled">' in text
    assert f'action="{path}/cancel"' not in text


async def test_uncertain_mails_are_decided_about_by_a_button(site: AsyncClient, connection: Connection) -> None:
    """Shown while there are any; sent again or counted as sent, nothing else."""
    sendout_id = await with_uncertain(connection)
    path = f"/sendouts/{sendout_id}"
    assert f'action="{path}/uncertain"' in (await site.get(path)).text
    assert (await site.post(f"{path}/uncertain", data={"how": "forget"}, headers=OURS)).status_code == 422
    assert (await site.post(f"{path}/uncertain", data={"how": "accept"}, headers=OURS)).status_code == 303
    found = await sendout_views.named(connection, sendout_id)
    assert (found.sent, found.uncertain) == (10, 0)
    assert f'action="{path}/uncertain"' not in (await site.get(path)).text


async def test_the_api_pauses_cancels_and_resolves(site: AsyncClient, connection: Connection) -> None:
    """Each answer is what it is then; what cannot be done is 409, what is not there 404, what makes no sense 422."""
    sendout_id = await with_uncertain(connection)
    path = f"/api/sendouts/{sendout_id}"
    mails = (await site.get(f"{path}/uncertain")).json()
    assert [(mail["number"], mail["reply"]) for mail in mails] == [(1, "lost"), (2, "lost")]
    assert (await site.post(f"{path}/pause")).status_code == 409
    for body, status in (b'{"how":"forget"}', 422), (b"[]", 422), (b"\xff", 422), (b"x" * 2_000, 413):
        response = await site.post(f"{path}/uncertain", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
    assert (await site.post(f"{path}/uncertain", json={"how": "resend"})).json() == {"mails": 2}
    assert (await site.get(f"{path}/uncertain")).json() == []
    paused = (await site.post(f"{path}/pause")).json()
    assert (paused["state"], paused["in_flight"], paused["open"]) == ("paused", 0, 2)
    assert (await site.post(f"{path}/cancel")).json()["state"] == "cancelled"
    nobody = f"/api/sendouts/{uuid4()}"
    for response in (
        await site.post(f"{nobody}/pause"),
        await site.post(f"{nobody}/cancel"),
        await site.get(f"{nobody}/uncertain"),
        await site.post(f"{nobody}/uncertain", json={"how": "accept"}),
    ):
        assert response.status_code == 404


async def claimed(connection: Connection) -> Batch:
    """A batch with its codes bound."""
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.bind(connection, batch, {})
    return batch


async def due_of(connection: Connection, batch: Batch) -> list[Delivery]:
    return await deliveries.due(connection, batch, await deliveries.lists_of(connection, batch.sendout_id))


async def with_uncertain(connection: Connection) -> UUID:
    """A finished sendout of 10, two of them uncertain."""
    sendout_id = await sending(connection)
    batch = await claimed(connection)
    due = await due_of(connection, batch)
    lost = [Conclusion(each, "uncertain", "lost") for each in due[:2]]
    await record(connection, batch, [*lost, *(Conclusion(each, "sent", "250") for each in due[2:])])
    await deliveries.release(connection, batch)
    assert await sendouts.settle(connection, sendout_id)
    return sendout_id


async def sending(connection: Connection) -> UUID:
    sendout_id = await interrupted(connection)
    await add_codes(connection, "spring-10", ["A1", "B2", "C3", "D4"])
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    return sendout_id


async def test_a_file_is_stored_and_its_import_commanded(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """Piece by piece, byte for byte; the page that follows waits for a worker, then shows what became of the lines."""
    await add_list(connection, "spring-10")
    content = random.Random(7).randbytes(2_500_000) + b"\r\n--"
    fields = {"mode": "replace", "encoding": "cp1252", "separator": "tab", "column": "2"}
    response = await upload(site, content, fields=fields)
    (command,) = await queues.commands()
    assert isinstance(command, ImportCoupons)
    assert command.format == Format(encoding="cp1252", separator="\t", column=2)
    assert (command.list, command.mode) == ("spring-10", "replace")
    upload_id = uploads.id_in(command.source or "")
    assert upload_id
    kept = await uploads.find(connection, upload_id)
    assert kept
    pieces = [piece async for piece in uploads.pieces_of(connection, kept)]
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces[:-1]] == [PIECE_BYTES] * 2

    assert (response.status_code, response.headers["location"]) == (303, f"/imports/{command.id}?requested")
    assert "a worker takes it" in (await site.get(response.headers["location"])).text
    assert (await site.get(f"/imports/{command.id}")).status_code == 404
    await note(connection, command)
    text = (await site.get(f"/imports/{command.id}")).text
    assert '<span class="badge queued">' in text
    assert "data-live" in text


async def test_a_form_is_read_however_the_network_cuts_it(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """A byte at a time, names with umlauts, a boundary's beginning inside the file."""
    await add_list(connection, "spring-10")
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="mode"\r\n\r\nadd\r\n'
        b"--cut\r\nContent-Type: text/csv\r\n"
        b'Content-Disposition: form-data; name="file"; filename="Fr\xc3\xbchling.csv"\r\n'
        b"\r\nA1\r\n--cu\r\nB2\r\n--cut--\r\n"
    )

    async def dripping() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    headers = {"Content-Type": "multipart/form-data; boundary=cut"} | OURS
    response = await site.post("/lists/spring-10/imports", content=dripping(), headers=headers)
    assert response.status_code == 303
    assert await connection.fetchval("SELECT name FROM upload") == "Frühling.csv"
    assert await connection.fetchval("SELECT data FROM upload_chunk") == b"A1\r\n--cu\r\nB2"


async def test_a_form_that_cannot_be_an_import_stores_nothing(
    open_site: OpenSite, connection: Connection, queues: Queues
) -> None:
    """No file, no such list, no such encoding, no form at all, one that is cut off, or one that is too large."""
    await add_list(connection, "spring-10")
    cut_off = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nA1\r\n'
    as_form = {"Content-Type": "multipart/form-data; boundary=cut"} | OURS
    async with open_site(import_max_bytes=100_000) as site:
        assert (await upload(site, b"", name="")).status_code == 422
        assert (await upload(site, b"A1", to="/lists/autumn/imports")).status_code == 404
        assert "unknown encoding" in (await upload(site, b"A1", fields={"encoding": "klingon"})).text
        assert (await site.post("/lists/spring-10/imports", data={"mode": "add"}, headers=OURS)).status_code == 422
        assert (await site.post("/lists/spring-10/imports", content=cut_off, headers=as_form)).status_code == 422
        assert (await upload(site, b"A1\n" * 50_000)).status_code == 413
        assert (await upload(site, b"A1", fields={"column": "x" * 90_000})).status_code == 413
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE bytes IS NOT NULL") == 0
    assert not await queues.commands()


async def test_lists_show_their_numbers_and_imports(site: AsyncClient, connection: Connection) -> None:
    """What is available, promised, bound and sent; on a list's own page also its settings and last imports."""
    await sending(connection)
    row = re.sub(r"\s+", " ", (await site.get("/lists")).text)
    assert re.findall(r'<td class="n[^"]*">(\d+)</td>', row) == ["0", "10", "0", "0", "10"]
    text = (await site.get("/lists/spring-10")).text
    assert text.count('<span class="badge finished">') == 2
    assert 'enctype="multipart/form-data"' in text
    assert (await site.get("/lists/autumn")).status_code == 404


async def test_an_archived_list_offers_no_import(site: AsyncClient, connection: Connection) -> None:
    """Its page is still there, and says so."""
    await add_list(connection, "old")
    await lists.archive(connection, "old")
    text = (await site.get("/lists/old")).text
    assert "This list is archived" in text
    assert "multipart/form-data" not in text


async def test_no_page_shows_a_code(site: AsyncClient, connection: Connection) -> None:
    """Free, bound or sent, in the console or the API: codes are money. Only lines that were not taken are shown."""
    sendout_id = await sending(connection)
    await claimed(connection)
    codes = [row["code"] for row in await connection.fetch("SELECT code FROM coupon WHERE code LIKE 'SPRING%'")]
    assert codes
    for text in await every_page(site, connection, sendout_id):
        assert not [code for code in codes if code in text]


async def every_page(site: AsyncClient, connection: Connection, sendout_id: UUID) -> list[str]:
    import_id = await connection.fetchval("SELECT id FROM import_job LIMIT 1")
    paths = [
        "/", f"/sendouts/{sendout_id}", "/lists", "/lists/spring-10", "/groups", "/groups/customers",
        f"/imports/{import_id}",
        f"/imports/{uuid4()}?requested", "/nothing",
    ]  # fmt: skip
    apis = [
        "/lists", "/lists/spring-10/imports", "/groups", "/groups/customers/imports", "/sendouts",
        f"/sendouts/{sendout_id}", f"/imports/{import_id}", f"/imports/{import_id}/events",
    ]  # fmt: skip
    return [(await site.get(path)).text for path in [*paths, *(f"/api{path}" for path in apis)]]


async def test_pages_bring_no_script_and_no_style_of_their_own(site: AsyncClient, connection: Connection) -> None:
    """The policy forbids what stands inline, so nothing does; every file that pages name is there."""
    sendout_id = await interrupted(connection)
    files: set[str] = set()
    for text in await every_page(site, connection, sendout_id):
        files |= _Inspector(text).files
    assert files == {"/static/console.css", "/static/refresh.js", "/static/ticket.svg"}
    for file in files:
        response = await site.get(file)
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")


class _Inspector(HTMLParser):
    """Which files a page names. Fails on what its policy would not let run, and on a field without a label."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: set[str] = set()
        self._open: list[str] = []
        if text.startswith("<!doctype"):
            self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        given = dict(attrs)
        assert tag != "style"
        assert not [name for name in given if name == "style" or name.startswith("on")]
        assert tag != "script" or given.get("src")
        assert tag not in {"select", "input"} or given.get("type") == "hidden" or "label" in self._open
        if tag in {"script", "img", "link"}:
            self.files.add(given.get("src") or given.get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass


async def test_every_answer_carries_the_headers_that_protect_it(site: AsyncClient) -> None:
    """Errors and refusals, too."""
    for path, host in (
        ("/", "localhost"),
        ("/nothing", "localhost"),
        ("/api/nothing", "localhost"),
        ("/", "evil.example"),
    ):
        headers = (await site.get(path, headers={"Host": host})).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


# --- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8080"}, 403),
        ({"Origin": "http://localhost:8080"}, 303),
        ({"Origin": "http://localhost:9090"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
async def test_a_form_is_taken_from_our_own_pages_only(
    headers: dict[str, str], status: int, site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """Another site in the same browser can post to us, but not without its browser saying so."""
    sendout_id = await interrupted(connection)
    response = await site.post(f"/sendouts/{sendout_id}/resume", data={"command": str(uuid4())}, headers=headers)
    assert response.status_code == status
    assert len(await queues.commands()) == (status == 303)


async def test_the_api_takes_no_command_from_another_sites_page(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """A program says no origin; a browser does, and it must be ours."""
    await add_list(connection, "spring-10")
    command = ImportCoupons(list="spring-10", codes=("A1",))
    assert (await post(site, command, Origin="http://evil.example")).status_code == 403
    assert (await post(site, command, **{"Sec-Fetch-Site": "cross-site"})).status_code == 403
    assert (await post(site, command)).status_code == 202


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8080", 200), ("127.0.0.1:8080", 200), ("[::1]:8080", 200),
        ("evil.example", 421), ("localhost.evil.example:8080", 421), ("127.0.0.1.evil.example", 421),
        ("localhost:8080@evil.example", 421), ("10.0.0.1", 421), ("", 421),
    ],
)  # fmt: skip
async def test_without_a_token_it_answers_to_localhost_only(host: str, status: int, site: AsyncClient) -> None:
    """A name of somebody else's that points to this machine would make their pages ours (DNS rebinding)."""
    assert (await site.get("/", headers={"Host": host})).status_code == status


async def test_with_a_token_nobody_gets_in_without(open_site: OpenSite) -> None:
    """Bearer for programs, Basic with any name for people; each is told what is wanted."""
    basic = {"Authorization": f"Basic {base64.b64encode(f'ada:{TOKEN}'.encode()).decode()}"}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    wrong = {"Authorization": f"Basic {base64.b64encode(b'ada:guess').decode()}"}
    broken = Headers({"Authorization": "Basic ÿ%"}, encoding="latin-1")
    async with open_site(token=TOKEN) as site:
        for path, scheme in (("/", "Basic"), ("/static/console.css", "Basic"), ("/api/lists", "Bearer")):
            for headers in ({}, wrong, broken, {"Authorization": "Bearer "}):
                response = await site.get(path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"].startswith(scheme)
        assert (await site.get("/", headers=basic | {"Host": "coupons.example.org"})).status_code == 200
        assert (await site.get("/api/lists", headers=bearer)).status_code == 200
        assert (await site.get("/", headers=bearer)).status_code == 401
        assert (await site.get("/api/lists", headers=basic)).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_it_does_not_listen_to_others_without_a_token(host: str, database_url: str) -> None:
    """Refused before anything is served."""
    settings = Settings(_env_file=None, database_url=SecretStr(database_url), web_host=host, web_port=0)
    with pytest.raises(CannotListen, match="without COUPONS_WEB_TOKEN"):
        await serve(settings)


# --- the process ---------------------------------------------------------------------------------------------------


async def test_coupons_web_serves_until_it_is_asked_to_end(services: Services, tmp_path: Path) -> None:
    """It says where, answers there, and exits 0 on SIGTERM; a second one on its port says why it cannot."""
    web = await coupons_web(services, tmp_path, port=0)
    try:
        assert web.stderr
        async with asyncio.timeout(LIMIT_SECONDS):
            line = (await web.stderr.readline()).decode()
        url = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert url, line
        async with AsyncClient(base_url=url[0]) as client:
            assert (await client.get("/readyz")).json() == {"database": True, "broker": True}
            assert "No sendouts yet." in (await client.get("/")).text
        second = await coupons_web(services, tmp_path, port=int(url[1]))
        _, said = await second.communicate()
        assert said.decode() == f"coupons: cannot listen on 127.0.0.1:{url[1]}: Address already in use\n"
        assert second.returncode == 1
        web.terminate()
        assert await web.wait() == 0
    finally:
        if web.returncode is None:
            web.kill()


async def coupons_web(services: Services, folder: Path, *, port: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("coupons"),
        "web",
        cwd=folder,
        env=os.environ | services.environment() | {"COUPONS_WEB_PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
