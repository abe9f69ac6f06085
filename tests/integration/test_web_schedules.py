"""Recurring imports in the HTTP API and on the page of the lists."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import AsyncClient

from coupons.database import Connection
from coupons.store import import_schedules
from tests.factories import add_list
from tests.web import SAME_ORIGIN, errors, web_client

PATH = "/api/import-schedules/nightly"
BODY = {
    "cron": "0 3 * * *",
    "zone": "Europe/Berlin",
    "list": "a",
    "source": "https://shop.example.org/a.csv?token=secret",
}


@pytest.fixture
async def site(database_url: str, broker_url: str) -> AsyncIterator[AsyncClient]:
    async with web_client(database_url=database_url, broker_url=broker_url) as client:
        yield client


async def put(site: AsyncClient, **changed: Any) -> Any:
    return await site.put(PATH, json={**BODY, **changed})


async def test_a_recurring_import_is_created_changed_and_deleted(connection: Connection, site: AsyncClient) -> None:
    """PUT is idempotent. The query of a source, which may hold a token, is not shown."""
    await add_list(connection, "a")
    created = await put(site)
    assert created.status_code == 200
    shown = created.json()
    assert (shown["name"], shown["cron"], shown["zone"], shown["list"]) == (
        "nightly",
        "0 3 * * *",
        "Europe/Berlin",
        "a",
    )
    assert shown["source"] == "https://shop.example.org/a.csv"
    assert (await put(site)).json() == shown
    assert (await put(site, cron="@daily")).json()["cron"] == "@daily"
    assert [each["name"] for each in (await site.get("/api/import-schedules")).json()] == ["nightly"]
    assert (await site.get(PATH)).json()["runs"] == []
    assert (await site.delete(PATH)).status_code == 204
    assert (await site.delete(PATH)).status_code == (await site.get(PATH)).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({**BODY, "cron": "0 3 * *"}, 422, "cron: a cron expression has five fields"),
        ({**BODY, "zone": "Atlantis"}, 422, "zone: unknown time zone"),
        ({**BODY, "source": "upload:1"}, 422, "source: must begin with one of https:"),
        ({**BODY, "colour": "red"}, 422, "colour: unknown field"),
        ({**BODY, "list": "b"}, 409, "there is no list b"),
        ([], 422, "not a JSON object"),
    ],
)
async def test_invalid_requests_are_refused(
    connection: Connection, site: AsyncClient, body: Any, status: int, reason: str
) -> None:
    """Nothing is stored."""
    await add_list(connection, "a")
    response = await site.put(PATH, json=body)
    assert response.status_code == status
    assert reason in str(errors(response))
    assert not await import_schedules.list_all(connection)


async def test_an_invalid_name_is_refused(site: AsyncClient) -> None:
    """The rules are those of other names."""
    response = await site.put("/api/import-schedules/n%C3%A4chtlich", json=BODY)
    assert response.status_code == 422
    assert "a name consists of" in str(errors(response))


async def test_a_recurring_import_is_paused_resumed_and_run(connection: Connection, site: AsyncClient) -> None:
    """A paused one has no next time, and can be run. Another action does not exist."""
    await add_list(connection, "a")
    await put(site)
    assert (await site.post(f"{PATH}/pause")).json()["next_at"] is None
    assert (await site.post(f"{PATH}/run")).json()["run_at"]
    assert (await site.post(f"{PATH}/resume")).json()["next_at"]
    unknown = await site.post(f"{PATH}/stop")
    assert unknown.status_code == 404
    assert "there is no stop: use one of pause, resume, run" in str(errors(unknown))
    assert await import_schedules.run_due(connection, activated=True) == "nightly"
    (run,) = (await site.get(PATH)).json()["runs"]
    assert run["result"] == "queued"


async def test_the_page_of_the_lists_shows_failures(connection: Connection, site: AsyncClient) -> None:
    """It has the last result, and buttons to pause, resume and run."""
    await add_list(connection, "a")
    assert "Recurring imports" not in (await site.get("/lists")).text
    await put(site)
    await connection.execute(
        "INSERT INTO import_run (schedule_id, due_at, reason) SELECT id, now(), 'no such file' FROM import_schedule"
    )
    page = (await site.get("/lists")).text
    assert "failed: no such file" in page
    assert "token=secret" not in page
    pressed = await site.post("/import-schedules/nightly/pause", headers=SAME_ORIGIN)
    assert (pressed.status_code, pressed.headers["location"]) == (303, "/import-schedules/nightly")
    assert "Resume" in (await site.get("/lists")).text
    assert (await site.post("/import-schedules/nightly/stop", headers=SAME_ORIGIN)).status_code == 404


async def test_the_page_of_a_recurring_import_shows_its_runs(connection: Connection, site: AsyncClient) -> None:
    """The newest is the first. A reason names the fields of the console."""
    await add_list(connection, "a")
    await put(site)
    await connection.execute(
        "INSERT INTO import_run (schedule_id, due_at, reason) SELECT id, now() - n * interval '1 day', "
        "'run ' || n || ': use --encoding' FROM import_schedule, generate_series(1, 2) n"
    )
    page = (await site.get("/import-schedules/nightly")).text
    assert "use the field “Encoding”" in page
    assert page.index("run 1") < page.index("run 2")
    assert (await site.get("/import-schedules/weekly")).status_code == 404


async def test_the_page_of_the_groups_shows_their_recurring_imports(connection: Connection, site: AsyncClient) -> None:
    """Those of lists are not shown."""
    await add_list(connection, "a")
    await put(site)
    assert "Recurring imports" not in (await site.get("/groups")).text
    await site.put("/api/import-schedules/weekly", json={**BODY, "list": None, "group": "people"})
    page = (await site.get("/groups")).text
    assert ("weekly" in page, "nightly" in page) == (True, False)
