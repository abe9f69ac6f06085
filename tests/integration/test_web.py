"""The console and the HTTP API, on a real database and a real broker."""

import asyncio
import base64
import os
import random
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient, Headers, Response
from pydantic import SecretStr

from coupons.commands import MAX_COMMAND_BYTES, Command, Format, ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.database import Connection
from coupons.http_server import CannotListen
from coupons.settings import Settings
from coupons.sources import PIECE_BYTES
from coupons.states import DeliveryState
from coupons.store import deliveries, imports, lists, sendout_views, sendouts, uploads
from coupons.store.deliveries import Batch, Delivery, DeliveryResult
from producers.durations import format_deferred
from producers.web.server import serve
from sandbox.process import free_ports
from sandbox.services import Services
from tests.factories import LEASE_SECONDS, add_codes, add_group, add_list, add_samples, prepare, save_message, start
from tests.services import execute
from tests.web import SAME_ORIGIN, Queues, consume, errors, upload, web_client

TOKEN = "correct-horse"
LIMIT_SECONDS = 20.0
LONG_AGO = datetime(2020, 2, 29, 9, tzinfo=UTC)

OpenSite = Callable[..., AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture
def open_site(database_url: str, broker_url: str) -> OpenSite:
    """Return a function that opens the site with settings of the test's own."""
    return partial(web_client, database_url=database_url, broker_url=broker_url)


@pytest.fixture
async def site(open_site: OpenSite) -> AsyncIterator[AsyncClient]:
    async with open_site() as client:
        yield client


@pytest.fixture
async def queues(broker_url: str) -> Queues:
    queues = Queues(broker_url)
    await queues.declare()
    return queues


async def interrupted_sendout(connection: Connection) -> UUID:
    """Create an interrupted sendout to 10 recipients of a list with 6 codes."""
    await add_list(connection, "spring-10", 6)
    await add_group(connection, "customers", 10)
    await save_message(connection, "spring-voucher", "spring-10")
    sendout_id = await start(connection, "spring-voucher", "customers")
    await prepare(connection)
    return sendout_id


async def post(site: AsyncClient, command: Command | bytes, **headers: str) -> Response:
    body = command if isinstance(command, bytes) else command.body()
    return await site.post("/api/commands", content=body, headers={"Content-Type": "application/json"} | headers)


# --- the API: commands -----------------------------------------------------------------------------------------------


async def test_a_command_is_published_unchanged(site: AsyncClient, queues: Queues, connection: Connection) -> None:
    """The response is 202 with the URL of the command's import or sendout. The queue has the same command."""
    sendout_id = await interrupted_sendout(connection)
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
    assert await queues.take_commands() == commands


async def test_a_sendout_that_waits_for_imports_shows_them(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """A sendout is accepted before its imports and its group have arrived. 409 if one of the imports has failed."""
    await add_list(connection, "spring-10")
    await save_message(connection, "spring-voucher", "spring-10")
    arrived, missing = ImportCoupons(list="spring-10", codes=("A1", "B2")), uuid4()
    command = StartSendout(message="spring-voucher", group="new", after=(arrived.id, missing))
    await consume(connection, arrived)
    assert (await post(site, command)).status_code == 202
    assert await queues.take_commands() == [command]
    await consume(connection, command)
    shown = (await site.get(f"/api/sendouts/{command.id}")).json()["sendout"]
    assert (shown["state"], shown["is_waiting"], shown["group"]) == ("queued", True, "new")
    assert shown["wait"]["imports"] == [
        {"id": str(arrived.id), "target": "spring-10", "percent": None},
        {"id": str(missing), "target": None, "percent": None},
    ]
    await imports.cancel(connection, arrived.id)
    rejected = await post(site, command.model_copy(update={"id": uuid4()}))
    assert rejected.status_code == 409
    assert errors(rejected) == f"after: import {arrived.id} into spring-10 was cancelled"


async def test_an_invalid_command_is_rejected_with_all_its_errors(site: AsyncClient, queues: Queues) -> None:
    """The response is 422 with all reasons and none of the values, and nothing is published."""
    response = await post(site, b'{"type":"import","mode":"shuffle","codes":["SECRET"],"source":"ftp://x"}')
    assert response.status_code == 422
    assert [reason.partition(":")[0] for reason in response.json()["errors"]] == ["id", "mode", "source"]
    assert "SECRET" not in response.text
    assert (await post(site, b"\xff")).status_code == 422
    assert not await queues.take_commands()


async def test_a_command_that_cannot_be_done_is_not_published(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """The response is 409 with the same reason as on the command line."""
    await add_list(connection, "spring-10", 6)
    reasons: dict[Command, str] = {
        ImportCoupons(list="autumn", codes=("A1",)): "there is no list autumn",
        ImportCoupons(list="spring-10", source=f"upload:{uuid4()}"): "there is no upload",
        StartSendout(message="hello", group="customers"): "there is no message hello",
        ResumeSendout(sendout=uuid4()): "there is no sendout",
        StartSendout(message="hello", group="customers", start_at=LONG_AGO): "the start 2020-02-29T09:00+00:00 is more",
    }
    for command, reason in reasons.items():
        response = await post(site, command)
        assert response.status_code == 409
        assert reason in errors(response)
    assert not await queues.take_commands()


async def test_a_repeated_command_gets_the_same_answer(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """A client that lost the response may repeat a resume even after the sendout was resumed."""
    sendout_id = await interrupted_sendout(connection)
    await add_codes(connection, "spring-10", ["A1", "B2", "C3", "D4"])
    command = ResumeSendout(sendout=sendout_id)
    first = await post(site, command)
    await consume(connection, command)
    again = await post(site, command)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert (await post(site, ResumeSendout(sendout=sendout_id))).status_code == 409
    assert await queues.take_commands() == [command, command]


async def test_a_command_that_is_too_large_is_rejected_while_it_is_read(site: AsyncClient, queues: Queues) -> None:
    """The response is 413 as soon as the limit is exceeded, with and without a Content-Length."""
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


async def test_a_command_needs_the_content_type_of_json(site: AsyncClient) -> None:
    """A page of another site can post text without permission, but JSON only after a preflight request."""
    response = await site.post("/api/commands", content=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415


async def test_without_a_broker_a_command_is_not_accepted(open_site: OpenSite, connection: Connection) -> None:
    """The response is 503, and the client can repeat the command with the same id."""
    await add_list(connection, "spring-10")
    async with open_site(broker_url=f"amqp://nobody:nothing@127.0.0.1:{free_ports(1)[0]}/") as site:
        response = await post(site, ImportCoupons(list="spring-10", codes=("A1",)))
    assert response.status_code == 503
    assert "nothing" not in response.text


async def test_without_queues_a_command_is_not_accepted(site: AsyncClient, connection: Connection) -> None:
    """The response is 503 until a worker has declared the queues, because the command would be lost without them."""
    await add_list(connection, "spring-10")
    response = await post(site, ImportCoupons(list="spring-10", codes=("A1",)))
    assert response.status_code == 503
    assert "does not exist yet: start a worker" in errors(response)


async def test_without_a_database_nothing_is_accepted(site: AsyncClient, database_url: str, postgres_url: str) -> None:
    """The response is 503 for commands and pages while the database accepts no connections."""
    name = database_url.rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await execute(postgres_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert (await post(site, ResumeSendout(sendout=uuid4()))).status_code == 503
    assert (await site.get("/")).status_code == 503
    assert (await site.get("/readyz")).json() == {"database": False, "broker": True}


# --- the API: queries ------------------------------------------------------------------------------------------------


async def test_the_api_returns_lists_sendouts_and_imports(site: AsyncClient, connection: Connection) -> None:
    """The fields are those of the command line's --json, and times are in ISO 8601."""
    sendout_id = await interrupted_sendout(connection)
    import_id = await add_codes(connection, "spring-10", ["A1", "A1", "", "http://example.org/"])
    (found,) = (await site.get("/api/lists")).json()
    assert (found["name"], found["available"], found["total"]) == ("spring-10", 7, 7)

    (row,) = (await site.get("/api/sendouts", params={"state": "interrupted"})).json()
    (short,) = row["lists"]
    assert (row["id"], short["needed"], short["missing"], short["available"]) == (str(sendout_id), 10, 3, 7)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row["created_at"])
    assert (await site.get("/api/sendouts", params={"state": "finished"})).json() == []
    assert (await site.get(f"/api/sendouts/{sendout_id}")).json() == {"sendout": row, "problems": []}

    job = (await site.get(f"/api/imports/{import_id}")).json()
    assert (job["state"], job["added"], job["rejected"], job["blank"]) == ("finished", 1, 2, 1)


async def test_the_api_reports_unknown_resources(site: AsyncClient) -> None:
    """An unknown id or path gets 404 and an unknown state 422, in the same format as all errors."""
    for path in ("sendouts", "imports"):
        assert "there is no" in errors(await site.get(f"/api/{path}/{uuid4()}"))
    assert (await site.get(f"/api/imports/{uuid4()}/rejections.csv")).status_code == 404
    response = await site.get("/api/sendouts", params={"state": "lost"})
    assert (response.status_code, "state: must be one of queued" in errors(response)) == (422, True)
    response = await site.get("/api/nothing")
    assert (response.status_code, errors(response)) == (404, "Not Found")


async def test_rejected_lines_can_be_downloaded_as_csv(site: AsyncClient, connection: Connection) -> None:
    """The CSV has line numbers and reasons. Programs and browsers have separate paths, as their credentials differ."""
    await add_list(connection, "spring-10")
    import_id = await add_codes(connection, "spring-10", ["A1", "A1", "1.2E+11"])
    for path in (f"/api/imports/{import_id}/rejections.csv", f"/imports/{import_id}/rejections.csv"):
        response = await site.get(path)
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert response.headers["content-disposition"] == f'attachment; filename="rejected-{import_id}.csv"'
        assert response.content.decode("utf-8-sig").splitlines() == [
            "line;code;reason",
            '2;"A1";"duplicate of an earlier line"',
            '3;"\'1.2E+11";"damaged by a spreadsheet: export the column as text"',
        ]


async def test_liveness_and_readiness_differ(open_site: OpenSite, site: AsyncClient, empty_database_url: str) -> None:
    """A live process is ready only if its broker is available and its database has the current schema."""
    ready = await site.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"database": True, "broker": True})
    unreachable = f"amqp://127.0.0.1:{free_ports(1)[0]}/"
    async with open_site(database_url=empty_database_url, broker_url=unreachable, token=TOKEN) as unready:
        response = await unready.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"database": False, "broker": False})
        assert (await unready.get("/livez")).status_code == 200


async def test_an_internal_error_reveals_nothing(site: AsyncClient, connection: Connection) -> None:
    """The response is 500 without the database's message, which may contain codes. The log has the place."""
    await connection.execute("ALTER TABLE coupon_list RENAME TO elsewhere")
    response = await site.get("/api/lists")
    await connection.execute("ALTER TABLE elsewhere RENAME TO coupon_list")
    assert response.status_code == 500
    assert errors(response) == "internal error; see the server log"


# --- the console -----------------------------------------------------------------------------------------------------


async def test_the_outbox_shows_the_missing_codes(site: AsyncClient, connection: Connection) -> None:
    """The filter Interrupted shows the list's needed, available and missing codes, and a button to resume."""
    sendout_id = await interrupted_sendout(connection)
    text = (await site.get("/", params={"state": "interrupted"})).text
    assert re.findall(r'<td class="n[^"]*">\s*(\d+)', text) == ["10", "6", "4"]
    assert f'action="/sendouts/{sendout_id}/resume"' in text
    assert "data-live" not in text
    assert "No finished sendouts." in (await site.get("/", params={"state": "finished"})).text
    assert (await site.get("/", params={"state": "lost"})).status_code == 422


async def test_a_resume_that_waits_for_an_import_is_shown_as_waiting(site: AsyncClient, connection: Connection) -> None:
    """The sendout's page names the import, and is updated until the resume is carried out."""
    sendout_id = await interrupted_sendout(connection)
    filling, command = ImportCoupons(list="spring-10", codes=("A1",)), ResumeSendout(sendout=sendout_id)
    await consume(connection, filling)
    await consume(connection, command)
    shown = (await site.get(f"/sendouts/{sendout_id}?command={command.id}")).text
    assert f"Resume requested, waiting for import {filling.id} into spring-10" in shown
    assert "Resume was processed" not in shown
    assert "data-live" in shown


async def test_repeated_clicks_on_resume_are_one_command(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """The form contains the command's id. The next page shows that a resume is requested, then that it is processed."""
    sendout_id = await interrupted_sendout(connection)
    form = {"command": str(uuid4())}
    responses = [await site.post(f"/sendouts/{sendout_id}/resume", data=form, headers=SAME_ORIGIN) for _ in range(2)]
    command, _ = commands = await queues.take_commands()
    assert commands == [ResumeSendout(id=UUID(form["command"]), sendout=sendout_id)] * 2
    assert {response.status_code for response in responses} == {303}
    requested = (await site.get(responses[0].headers["location"])).text
    assert "Resume requested" in requested
    assert "data-live" in requested
    await consume(connection, command)
    assert (
        "Resume was processed; the sendout is interrupted." in (await site.get(responses[0].headers["location"])).text
    )


async def test_a_sending_sendout_updates_without_javascript_too(site: AsyncClient, connection: Connection) -> None:
    """Until the sendout ends, a script updates its page; without JavaScript, <noscript> reloads it."""
    await interrupted_sendout(connection)
    await add_codes(connection, "spring-10", ["A1", "B2", "C3", "D4"])
    (sendout,) = await sendout_views.list_newest(connection)
    await consume(connection, ResumeSendout(sendout=sendout.id))
    for path in ("/", f"/sendouts/{sendout.id}"):
        text = (await site.get(path)).text
        assert '<progress class="sending" value="0" max="10"' in text
        assert "data-live" in text
        assert '<noscript><meta http-equiv="refresh"' in text


async def test_a_sendout_shows_its_problems_with_the_relays_replies(site: AsyncClient, connection: Connection) -> None:
    """The page lists refused and uncertain addresses, and escapes markup in a reply."""
    sendout_id = await sending_sendout(connection)
    batch = await claim_batch(connection)
    due = await due_deliveries(connection, batch)
    outcomes = [
        DeliveryResult.of(due[0], DeliveryState.REFUSED, "550 <script>alert(1)</script>"),
        DeliveryResult.of(due[1], DeliveryState.SENT, "250 ok"),
    ]
    await record(connection, batch, outcomes)
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert due[0].address in text
    assert due[1].address not in text
    assert "550 &lt;script&gt;alert(1)&lt;/script&gt;" in text
    (problem,) = (await site.get(f"/api/sendouts/{sendout_id}")).json()["problems"]
    assert (problem["state"], problem["reply"]) == ("refused", "550 <script>alert(1)</script>")


async def record(
    connection: Connection, batch: Batch, results: list[DeliveryResult], intents: tuple[int, ...] = ()
) -> None:
    assert await deliveries.record(
        connection,
        batch,
        flush=uuid4(),
        results=results,
        in_flight=(),
        intents=intents,
        lease_seconds=LEASE_SECONDS,
    )


async def test_deferred_mails_are_shown_apart(site: AsyncClient, connection: Connection) -> None:
    """Page and API show how many mails wait for another attempt, and when the next attempt is."""
    sendout_id = await sending_sendout(connection)
    batch = await claim_batch(connection)
    due = await due_deliveries(connection, batch)
    deferred = [DeliveryResult.of(each, DeliveryState.DEFERRED, "450", due_in=3_600) for each in due[:2]]
    await record(connection, batch, deferred)
    found = (await site.get(f"/api/sendouts/{sendout_id}")).json()["sendout"]
    next_at = datetime.fromisoformat(found["next_attempt_at"])
    assert next_at - datetime.now(UTC) == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=30))
    assert (found["deferred"], found["remaining"], found["per_second"], found["seconds_left"]) == (2, 10, None, None)
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert f"<span>{format_deferred(2, next_at)}</span>" in text
    assert "Retry deferred mails now" in text


async def test_a_sending_sendout_shows_its_rate(site: AsyncClient, connection: Connection) -> None:
    """The page shows mails in flight, rate, time left, the reason for waiting and the start time."""
    sendout_id = await sending_sendout(connection)
    batch = await claim_batch(connection)
    due = await due_deliveries(connection, batch)
    await record(
        connection, batch, [DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due[:4]], intents=(5, 6, 7)
    )
    await add_samples(connection, sendout_id)
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert "<b>3</b> in flight" in text
    assert "<span>1,800 mails/h</span>" in text
    assert "<span>12 s left</span>" in text
    await sendouts.set_waiting_reason(connection, sendout_id, "relay mx:25 refuses connections since 12:00 UTC")
    await connection.execute("UPDATE sendout SET per_hour = 3600, start_at = '2031-01-01 00:00Z'")
    text = (await site.get(f"/sendouts/{sendout_id}")).text
    assert "Waiting: relay mx:25 refuses connections since 12:00 UTC" in text
    assert "<dd>3,600 mails per hour</dd>" in text
    await sendouts.set_waiting_reason(connection, sendout_id, None)
    for path in ("/", f"/sendouts/{sendout_id}"):
        assert 'Starts on <time datetime="2031-01-01T00:00:00+00:00">' in (await site.get(path)).text


async def test_a_button_pauses_and_cancels_a_sendout(site: AsyncClient, connection: Connection) -> None:
    """The button acts at once. The page updates until no mail is in flight, and a second pause is a conflict."""
    sendout_id = await sending_sendout(connection)
    batch = await claim_batch(connection)
    await record(connection, batch, [], intents=(1, 2))
    path = f"/sendouts/{sendout_id}"
    assert f'action="{path}/pause"' in (await site.get("/")).text
    assert (await site.post(f"{path}/pause")).status_code == 403
    response = await site.post(f"{path}/pause", headers=SAME_ORIGIN)
    assert (response.status_code, response.headers["location"]) == (303, path)
    text = (await site.get(path)).text
    assert "paused by an operator" in text
    assert "<b>2</b> in flight" in text
    assert "data-live" in text
    assert f'action="{path}/pause"' not in text
    assert (await site.post(f"{path}/pause", headers=SAME_ORIGIN)).status_code == 409
    assert f'action="{path}/cancel"' in text
    assert (await site.post(f"{path}/cancel", headers=SAME_ORIGIN)).status_code == 303
    text = (await site.get(path)).text
    assert '<span class="badge cancelled">' in text
    assert f'action="{path}/cancel"' not in text


async def test_a_button_resolves_uncertain_mails(site: AsyncClient, connection: Connection) -> None:
    """The button is shown while mails are uncertain. It resends them or counts them as sent, and does nothing else."""
    sendout_id = await sendout_with_uncertain_mails(connection)
    path = f"/sendouts/{sendout_id}"
    assert f'action="{path}/uncertain"' in (await site.get(path)).text
    assert (await site.post(f"{path}/uncertain", data={"resolution": "forget"}, headers=SAME_ORIGIN)).status_code == 422
    assert (await site.post(f"{path}/uncertain", data={"resolution": "accept"}, headers=SAME_ORIGIN)).status_code == 303
    found = await sendout_views.get(connection, sendout_id)
    assert (found.sent, found.uncertain) == (10, 0)
    assert f'action="{path}/uncertain"' not in (await site.get(path)).text


async def test_the_api_pauses_cancels_and_resolves(site: AsyncClient, connection: Connection) -> None:
    """Responses show the new state. A conflict gets 409, an unknown sendout 404, an invalid body 422."""
    sendout_id = await sendout_with_uncertain_mails(connection)
    path = f"/api/sendouts/{sendout_id}"
    mails = (await site.get(f"{path}/uncertain")).json()
    assert [(mail["number"], mail["reply"]) for mail in mails] == [(1, "lost"), (2, "lost")]
    assert (await site.post(f"{path}/pause")).status_code == 409
    for body, status in (b'{"resolution":"forget"}', 422), (b"[]", 422), (b"\xff", 422), (b"x" * 2_000, 413):
        response = await site.post(f"{path}/uncertain", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
    assert (await site.post(f"{path}/uncertain", json={"resolution": "resend"})).json() == {"mails": 2}
    assert (await site.get(f"{path}/uncertain")).json() == []
    paused = (await site.post(f"{path}/pause")).json()
    assert (paused["state"], paused["in_flight"], paused["remaining"]) == ("paused", 0, 2)
    assert (await site.post(f"{path}/cancel")).json()["state"] == "cancelled"
    unknown = f"/api/sendouts/{uuid4()}"
    for response in (
        await site.post(f"{unknown}/pause"),
        await site.post(f"{unknown}/cancel"),
        await site.get(f"{unknown}/uncertain"),
        await site.post(f"{unknown}/uncertain", json={"resolution": "accept"}),
    ):
        assert response.status_code == 404


async def test_a_button_retries_refused_mails(site: AsyncClient, connection: Connection) -> None:
    """The page warns with the numbers of mails and codes. Without enough codes the response is 409 with the numbers."""
    sendout_id = await sendout_with_problems(connection, DeliveryState.REFUSED)
    path = f"/sendouts/{sendout_id}"
    outbox, text = [" ".join((await site.get(page)).text.split()) for page in ("/", path)]
    for each in (outbox, text):
        assert '<p class="why warning">Finished with 2 refused mails.</p>' in each
    assert "Retry 2 refused mails" in text
    assert "List spring-10 has 2 available." in text
    assert "Retry deferred mails" not in text
    assert (await site.post(f"{path}/retry", data={"mails": "refused"})).status_code == 403
    assert (await site.post(f"{path}/retry", data={"mails": "all"}, headers=SAME_ORIGIN)).status_code == 422
    response = await site.post(f"{path}/retry", data={"mails": "refused"}, headers=SAME_ORIGIN)
    assert (response.status_code, response.headers["location"]) == (303, path)
    found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.refused, found.remaining, found.lists[0].reserved) == ("sending", 0, 2, 2)
    assert f'action="{path}/retry"' not in (await site.get(path)).text


async def test_the_outbox_counts_refused_and_uncertain_mails(site: AsyncClient, connection: Connection) -> None:
    """A finished sendout with both kinds of problems has both numbers."""
    await sendout_with_problems(connection, DeliveryState.REFUSED, DeliveryState.UNCERTAIN)
    outbox = " ".join((await site.get("/")).text.split())
    assert '<p class="why warning">Finished with 1 refused and 1 uncertain mails.</p>' in outbox


async def test_a_form_corrects_an_address(site: AsyncClient, connection: Connection) -> None:
    """Only this mail is retried. An invalid address is reported without its text."""
    sendout_id = await sendout_with_problems(connection, DeliveryState.REFUSED)
    path, old = f"/sendouts/{sendout_id}", "c0@example.org"
    assert 'name="new"' in (await site.get(path)).text
    wrong = await site.post(f"{path}/retry", data={"old": old, "new": "secret@"}, headers=SAME_ORIGIN)
    assert (wrong.status_code, "new: " in wrong.text, "secret" in wrong.text) == (422, True, False)
    right = {"old": old, "new": "ada@example.org"}
    assert (await site.post(f"{path}/retry", data=right, headers=SAME_ORIGIN)).status_code == 303
    pending = "SELECT address FROM delivery WHERE state = 'pending'"
    assert [row["address"] for row in await connection.fetch(pending)] == ["ada@example.org"]


async def test_deferred_mails_are_retried_now(site: AsyncClient, connection: Connection) -> None:
    """The button is shown while the sendout has deferred mails."""
    sendout_id = await sendout_with_problems(connection, DeliveryState.DEFERRED)
    path = f"/sendouts/{sendout_id}"
    assert "Retry deferred mails" in (await site.get(path)).text
    assert (await site.post(f"{path}/retry", data={"mails": "deferred"}, headers=SAME_ORIGIN)).status_code == 303
    assert await connection.fetchval("SELECT count(*) FROM delivery WHERE state = 'deferred'") == 0


async def test_the_api_retries_mails(site: AsyncClient, connection: Connection) -> None:
    """The response has the numbers of mails and codes. A conflict gets 409, an unknown sendout 404, a bad body 422."""
    sendout_id = await sendout_with_problems(connection, DeliveryState.REFUSED)
    path = f"/api/sendouts/{sendout_id}/retry"
    pair = {"old": "c0@example.org", "new": "secret"}
    bad: dict[str, object] = {
        "mails": "refused", "refused": "yes", "addresses": [pair], "new": "x", "deferred": None
    }  # fmt: skip
    for name, value in bad.items():
        response = await site.post(path, json={name: value})
        assert response.status_code == 422
        assert name in errors(response)
        assert "secret" not in response.text
    assert (await site.post(path, content=b"[", headers={"Content-Type": "application/json"})).status_code == 422
    assert (await site.post(f"/api/sendouts/{uuid4()}/retry", json={})).status_code == 404
    pair["new"] = "Ada@example.org"
    codes = {"name": "spring-10", "shortage": "pause", "needed": 1, "available": 2, "missing": 0}
    one = {
        "sendout": str(sendout_id),
        "state": "finished",
        "refused": 1,
        "deferred": 0,
        "corrected": 1,
        "lists": [codes],
    }
    assert (await site.post(path, json={"addresses": [pair]})).json() == one
    await connection.execute("UPDATE coupon_list SET available = 0, total = total - 1")
    response = await site.post(path, json={})
    assert response.status_code == 409
    assert "list spring-10: 1 needed, 0 available, 1 missing" in errors(response)
    await connection.execute("UPDATE coupon_list SET available = 1, total = total + 1")
    assert (await site.post(path, json={})).json()["refused"] == 1
    assert (await site.post(path, json={})).json()["refused"] == 0


async def claim_batch(connection: Connection) -> Batch:
    """Claim a batch, and assign its codes."""
    batch = await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)
    assert batch
    await deliveries.assign_codes(connection, batch)
    return batch


async def due_deliveries(connection: Connection, batch: Batch) -> list[Delivery]:
    return await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id))


async def sendout_with_uncertain_mails(connection: Connection) -> UUID:
    return await sendout_with_problems(connection, DeliveryState.UNCERTAIN)


async def sendout_with_problems(connection: Connection, *states: DeliveryState) -> UUID:
    """Create a sendout of 10 mails, of which 2 are in these states; it is finished if no mail is deferred."""
    sendout_id = await sending_sendout(connection)
    batch = await claim_batch(connection)
    due = await due_deliveries(connection, batch)
    pairs = zip(due[:2], (states[0], states[-1]), strict=True)
    results = [DeliveryResult.of(each, state, "lost", due_in=3_600) for each, state in pairs]
    await record(
        connection, batch, [*results, *(DeliveryResult.of(each, DeliveryState.SENT, "250") for each in due[2:])]
    )
    await deliveries.release(connection, batch)
    assert bool(await sendouts.settle(connection, sendout_id)) == (DeliveryState.DEFERRED not in states)
    return sendout_id


async def sending_sendout(connection: Connection) -> UUID:
    sendout_id = await interrupted_sendout(connection)
    await add_codes(connection, "spring-10", ["A1", "B2", "C3", "D4"])
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    return sendout_id


async def test_an_import_form_stores_its_file_and_publishes_a_command(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """The file is stored unchanged in several pieces. The next page waits for a worker, then shows the import."""
    await add_list(connection, "spring-10")
    content = random.Random(7).randbytes(2_500_000) + b"\r\n--"
    fields = {"mode": "replace", "encoding": "cp1252", "separator": "tab", "column": "2"}
    response = await upload(site, content, fields=fields)
    (command,) = await queues.take_commands()
    assert isinstance(command, ImportCoupons)
    assert command.format == Format(encoding="cp1252", separator="\t", column=2)
    assert (command.list, command.mode) == ("spring-10", "replace")
    upload_id = uploads.parse_source(command.source or "")
    assert upload_id
    kept = await uploads.find(connection, upload_id)
    assert kept
    pieces = [piece async for piece in uploads.iter_pieces(connection, kept)]
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces[:-1]] == [PIECE_BYTES] * 2

    assert (response.status_code, response.headers["location"]) == (303, f"/imports/{command.id}?requested")
    assert "a worker will start it" in (await site.get(response.headers["location"])).text
    assert (await site.get(f"/imports/{command.id}")).status_code == 404
    await consume(connection, command)
    text = (await site.get(f"/imports/{command.id}")).text
    assert '<span class="badge queued">' in text
    assert "data-live" in text


async def test_a_form_may_arrive_in_any_chunks(site: AsyncClient, queues: Queues, connection: Connection) -> None:
    """The form can arrive one byte at a time, with an umlaut in the file name and part of a boundary in the file."""
    await add_list(connection, "spring-10")
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="mode"\r\n\r\nadd\r\n'
        b"--cut\r\nContent-Type: text/csv\r\n"
        b'Content-Disposition: form-data; name="file"; filename="Fr\xc3\xbchling.csv"\r\n'
        b"\r\nA1\r\n--cu\r\nB2\r\n--cut--\r\n"
    )

    async def single_bytes() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    headers = {"Content-Type": "multipart/form-data; boundary=cut"} | SAME_ORIGIN
    response = await site.post("/lists/spring-10/imports", content=single_bytes(), headers=headers)
    assert response.status_code == 303
    assert await connection.fetchval("SELECT name FROM upload") == "Frühling.csv"
    assert await connection.fetchval("SELECT data FROM upload_chunk") == b"A1\r\n--cu\r\nB2"


async def test_an_invalid_import_form_stores_nothing(
    open_site: OpenSite, connection: Connection, queues: Queues
) -> None:
    """A form without a file, for an unknown list or encoding, of another type, cut off or too large is rejected."""
    await add_list(connection, "spring-10")
    cut_off = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nA1\r\n'
    as_form = {"Content-Type": "multipart/form-data; boundary=cut"} | SAME_ORIGIN
    async with open_site(import_max_bytes=100_000) as site:
        assert (await upload(site, b"", name="")).status_code == 422
        assert (await upload(site, b"A1", to="/lists/autumn/imports")).status_code == 404
        assert "unknown encoding" in (await upload(site, b"A1", fields={"encoding": "klingon"})).text
        assert (
            await site.post("/lists/spring-10/imports", data={"mode": "add"}, headers=SAME_ORIGIN)
        ).status_code == 422
        assert (await site.post("/lists/spring-10/imports", content=cut_off, headers=as_form)).status_code == 422
        assert (await upload(site, b"A1\n" * 50_000)).status_code == 413
        assert (await upload(site, b"A1", fields={"column": "x" * 90_000})).status_code == 413
    assert await connection.fetchval("SELECT count(*) FROM upload WHERE size_bytes IS NOT NULL") == 0
    assert not await queues.take_commands()


async def test_lists_show_their_numbers_and_imports(site: AsyncClient, connection: Connection) -> None:
    """Each list shows available, reserved, assigned, sent and total codes. Its own page also has imports and a form."""
    await sending_sendout(connection)
    row = re.sub(r"\s+", " ", (await site.get("/lists")).text)
    assert re.findall(r'<td class="n[^"]*">(\d+)</td>', row) == ["0", "10", "0", "0", "10"]
    text = (await site.get("/lists/spring-10")).text
    assert text.count('<span class="badge finished">') == 2
    assert 'enctype="multipart/form-data"' in text
    assert (await site.get("/lists/autumn")).status_code == 404


async def test_an_interrupted_sendout_of_an_archived_list_names_the_remedy(
    site: AsyncClient, connection: Connection
) -> None:
    """The sendout's page names the command that restores the list instead of the button that imports codes."""
    sendout_id = await interrupted_sendout(connection)
    assert "Import codes</a>" in (await site.get(f"/sendouts/{sendout_id}")).text
    await lists.archive(connection, "spring-10")
    page = (await site.get(f"/sendouts/{sendout_id}")).text
    assert "Import codes</a>" not in page
    assert "<code>coupons list restore spring-10</code>" in page
    assert (await site.get(f"/api/sendouts/{sendout_id}")).json()["sendout"]["lists"][0]["archived"] is True


async def test_an_archived_list_offers_no_import(site: AsyncClient, connection: Connection) -> None:
    """The page of an archived list exists, and shows that it is archived."""
    await add_list(connection, "old")
    await lists.archive(connection, "old")
    text = (await site.get("/lists/old")).text
    assert "This list is archived" in text
    assert "multipart/form-data" not in text


async def test_no_page_shows_a_code(site: AsyncClient, connection: Connection) -> None:
    """Codes are money, so neither the console nor the API shows any, except in rejected lines."""
    sendout_id = await sending_sendout(connection)
    await claim_batch(connection)
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


async def test_pages_have_no_inline_scripts_or_styles(site: AsyncClient, connection: Connection) -> None:
    """The content security policy forbids inline scripts and styles. All files that pages load exist."""
    sendout_id = await interrupted_sendout(connection)
    files: set[str] = set()
    for text in await every_page(site, connection, sendout_id):
        files |= _Inspector(text).files
    assert files == {"/static/console.css", "/static/refresh.js", "/static/ticket.svg"}
    for file in files:
        response = await site.get(file)
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")


class _Inspector(HTMLParser):
    """Collects the files that a page loads. It fails on inline scripts and styles, and on a field without a label."""

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


async def test_every_response_has_the_security_headers(site: AsyncClient) -> None:
    """Error responses have the security headers too."""
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


# --- authentication and cross-site protection ------------------------------------------------------------------------


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
async def test_forms_are_accepted_only_from_our_own_pages(
    headers: dict[str, str], status: int, site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """Another site in the same browser can post to the console, but the browser adds a header that reveals it."""
    sendout_id = await interrupted_sendout(connection)
    response = await site.post(f"/sendouts/{sendout_id}/resume", data={"command": str(uuid4())}, headers=headers)
    assert response.status_code == status
    assert len(await queues.take_commands()) == (status == 303)


async def test_the_api_rejects_commands_from_pages_of_other_sites(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """A program sends no origin. A browser sends one, and it must be the console's."""
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
async def test_without_a_token_only_requests_to_localhost_are_allowed(
    host: str, status: int, site: AsyncClient
) -> None:
    """A hostile site whose name resolves to this machine does not share the console's origin (DNS rebinding)."""
    assert (await site.get("/", headers={"Host": host})).status_code == status


async def test_with_a_token_every_request_needs_it(open_site: OpenSite) -> None:
    """The token is the Bearer token in the API and the Basic password of any user in the console. A 401 says which."""
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
async def test_without_a_token_the_console_listens_on_loopback_only(host: str, database_url: str) -> None:
    """Any other address is an error before a request is served."""
    settings = Settings(_env_file=None, database_url=SecretStr(database_url), web_host=host, web_port=0)
    with pytest.raises(CannotListen, match="without COUPONS_WEB_TOKEN"):
        await serve(settings)


# --- the process -----------------------------------------------------------------------------------------------------


async def test_coupons_web_serves_until_sigterm(services: Services, tmp_path: Path) -> None:
    """`coupons web` logs its URL and exits 0 on SIGTERM. A second process reports that the port is in use."""
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
        async with asyncio.timeout(LIMIT_SECONDS):
            _, stderr = await second.communicate()
        assert (
            stderr.decode()
            == f"coupons: cannot listen on 127.0.0.1:{url[1]} (COUPONS_WEB_PORT): Address already in use\n"
        )
        assert second.returncode == 1
        web.terminate()
        async with asyncio.timeout(LIMIT_SECONDS):
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


async def test_groups_and_messages_are_shown_and_deleted(site: AsyncClient, connection: Connection) -> None:
    """The API deletes groups and messages, the console groups. 409 while a sendout uses them, 404 afterwards."""
    sendout_id = await interrupted_sendout(connection)
    (message,) = (await site.get("/api/messages")).json()
    assert (
        message | {"alternative_attributes": [], "warnings": []}
        == (await site.get("/api/messages/spring-voucher")).json()
    )
    assert (message["version"], message["lists"]) == (1, ["spring-10"])
    assert (await site.get("/api/groups/customers")).json()["recipients"] == 10
    for path in ("/api/groups/customers", "/api/messages/spring-voucher"):
        refused = await site.delete(path)
        assert (refused.status_code, str(sendout_id) in errors(refused)) == (409, True)
    page = (await site.get("/groups/customers")).text
    assert 'action="/groups/customers/delete"' in page
    assert (await site.post("/groups/customers/delete", headers=SAME_ORIGIN)).status_code == 409
    await sendouts.cancel(connection, sendout_id)
    await connection.execute("UPDATE delivery_batch SET remaining = 0, cancelled = 10, closed = true")
    await connection.execute("UPDATE delivery SET state = 'cancelled'")
    await sendouts.settle_all(connection)
    assert (await site.post("/groups/customers/delete", headers=SAME_ORIGIN)).headers["location"] == "/groups"
    assert (await site.delete("/api/messages/spring-voucher")).status_code == 204
    for path in ("/api/groups/customers", "/api/messages/spring-voucher"):
        assert (await site.get(path)).status_code == 404
        assert (await site.delete(path)).status_code == 404
    assert (await site.get(f"/api/sendouts/{sendout_id}")).json()["sendout"]["group"] == "customers"


async def test_a_message_with_coupons_is_not_deleted_without_activation(
    open_site: OpenSite, connection: Connection
) -> None:
    """The API refuses the deletion, as it refuses other coupon commands."""
    await add_list(connection, "spring-10")
    await save_message(connection, "spring-voucher", "spring-10")
    async with open_site(activated=False) as site:
        refused = await site.delete("/api/messages/spring-voucher")
        assert refused.status_code == 409
        assert "message spring-voucher prints coupons of spring-10: the Coupon Manager is not activated" in refused.text
        assert (await site.get("/api/messages/spring-voucher")).status_code == 200


async def test_a_sendout_is_checked_before_it_starts(site: AsyncClient, queues: Queues, connection: Connection) -> None:
    """The response has the figures of `coupons send --check`. Nothing is published, and another command is refused."""
    await add_list(connection, "spring-10", 6)
    await add_group(connection, "customers", 10)
    await save_message(connection, "spring-voucher", "spring-10")
    json = {"Content-Type": "application/json"}
    command = StartSendout(message="spring-voucher", group="customers", per_hour=60, first=4)
    response = await site.post("/api/sendouts/check", content=command.body(), headers=json)
    assert response.status_code == 200
    found = response.json()
    assert found["audience"]["recipients"] == 10
    assert found["lists"] == [{"name": "spring-10", "shortage": "pause", "needed": 10, "available": 6, "missing": 4}]
    assert (found["schedule"]["first"], found["schedule"]["per_hour"]) == (4, 60)
    assert found["outcome"]["state"] == "interrupted"
    assert await sendout_views.list_newest(connection) == []
    wrong = ResumeSendout(sendout=uuid4()).body()
    assert (await site.post("/api/sendouts/check", content=wrong, headers=json)).status_code == 422
    unknown = StartSendout(message="none", group="customers").body()
    assert (await site.post("/api/sendouts/check", content=unknown, headers=json)).status_code == 409
