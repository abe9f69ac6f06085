"""Undo and retry of imports in the console and the HTTP API, and the notices of an import."""

import re
from uuid import UUID, uuid4

from httpx import AsyncClient

from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool
from coupons.states import ImportMode
from coupons.store import imports
from tests.factories import add_list
from tests.integration.test_web_imports import (
    import_text,
    numbers,
    only_command,
    run_import,
    store_upload,
)
from tests.integration.test_web_imports import pool as pool  # noqa: PLC0414 - a fixture
from tests.integration.test_web_imports import queues as queues  # noqa: PLC0414 - a fixture
from tests.integration.test_web_imports import site as site  # noqa: PLC0414 - a fixture
from tests.web import SAME_ORIGIN, Queues, errors, upload


async def fail_by_encoding(connection: Connection, pool: Pool) -> UUID:
    """Let an import into a new list fail, because its file is not in UTF-8."""
    await add_list(connection, "spring-10")
    source = await store_upload(connection, "BAER1\nBAER2")
    await connection.execute("UPDATE upload_chunk SET data = $1", "BÄR-1\nBÄR-2".encode("cp1252"))
    command = ImportCoupons(list="spring-10", source=source, format=Format(kind="txt"))
    await run_import(connection, pool, command)
    return command.id


def command_id(text: str) -> str:
    """Return the id of the command that the page's form publishes."""
    (found,) = re.findall(r'name="command" value="([^"]+)"', text)
    return str(found)


async def test_a_program_undoes_an_import(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The response is that of a command; the undo is an import that the API shows with its numbers."""
    await add_list(connection, "spring-10", 3)
    done = await import_text(connection, pool, "NEW-1\nNEW-2\n")
    new_id = str(uuid4())
    for _ in range(2):
        response = await site.post(f"/api/imports/{done}/undo", json={"id": new_id})
        assert (response.status_code, response.json()) == (202, {"id": new_id, "location": f"/api/imports/{new_id}"})
    first, second = await queues.take_commands()
    assert first == second
    assert isinstance(first, ImportCoupons)
    await run_import(connection, pool, first)
    found = (await site.get(f"/api/imports/{new_id}")).json()
    assert [found[name] for name in ("mode", "list", "state", "added", "removed")] == [
        "undo", "spring-10", "finished", 0, 2
    ]  # fmt: skip
    assert found["notices"] == ["took back 2 of 2 codes that the import added"]


async def test_an_undo_that_is_not_possible_is_refused(site: AsyncClient, connection: Connection, pool: Pool) -> None:
    """The response has the reason, and nothing is published."""
    await add_list(connection, "spring-10")
    done = await import_text(connection, pool, "www.example.org\n")
    response = await site.post(f"/api/imports/{done}/undo", json={})
    assert (response.status_code, "has added and removed nothing" in errors(response)) == (409, True)
    assert (await site.post(f"/api/imports/{uuid4()}/undo", json={})).status_code == 404
    assert (await site.post(f"/api/imports/{done}/undo", json={"id": "7"})).status_code == 422
    assert (await site.post(f"/api/imports/{done}/undo", json={"all": True})).status_code == 422


async def test_a_button_undoes_an_import(site: AsyncClient, queues: Queues, connection: Connection, pool: Pool) -> None:
    """The page of the import has the numbers; a second click publishes the same command."""
    await add_list(connection, "spring-10", 3)
    done = await import_text(connection, pool, "NEW-1\nNEW-2\n", mode=ImportMode.REPLACE)
    text = re.sub(r"\s+", " ", (await site.get(f"/imports/{done}")).text)
    assert "Takes back at most <b>2</b> codes that it added, if still available." in text
    assert "Restores at most <b>3</b> codes that it removed. What" in text
    form = {"command": command_id(text)}
    for _ in range(2):
        response = await site.post(f"/imports/{done}/undo", data=form, headers=SAME_ORIGIN)
        assert response.headers["location"] == f"/imports/{form['command']}?requested"
    first, second = await queues.take_commands()
    assert first == second
    assert isinstance(first, ImportCoupons)
    await run_import(connection, pool, first)
    text = re.sub(r"\s+", " ", (await site.get(f"/imports/{first.id}")).text)
    assert numbers(text) == {"Restored": "3", "Taken back": "2", "Rejected": "0"}
    assert f'undo of <a href="/imports/{done}">' in text
    assert "<li>restored 3 of 3 codes that the import removed</li>" in text


async def test_a_program_retries_a_failed_import(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The new import reads the same upload in another encoding."""
    failed = await fail_by_encoding(connection, pool)
    response = await site.post(f"/api/imports/{failed}/retry", json={"format": {"encoding": "cp1252"}})
    assert response.status_code == 202
    command = await only_command(queues)
    assert command.format == Format(kind="txt", encoding="cp1252")
    await run_import(connection, pool, command)
    assert (await imports.get(connection, command.id)).added == 2
    again = await site.post(f"/api/imports/{failed}/retry", json={})
    assert (again.status_code, f"was imported by import {command.id}" in errors(again)) == (409, True)
    assert f"/imports/{failed}/retry" not in (await site.get(f"/imports/{failed}")).text
    for body in ({"format": {"encoding": "klingon"}}, {"format": {"codec": "x"}}, {"list": "other"}):
        assert (await site.post(f"/api/imports/{failed}/retry", json=body)).status_code == 422


async def test_a_failed_import_is_tried_again_from_its_page(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """Blank fields of the form keep the options of the failed import."""
    failed = await fail_by_encoding(connection, pool)
    text = (await site.get(f"/imports/{failed}")).text
    assert 'action="/imports/' + str(failed) + '/retry"' in text
    form = {"command": command_id(text), "encoding": "cp1252", "separator": "", "column": "", "skip_lines": ""}
    response = await site.post(f"/imports/{failed}/retry", data=form, headers=SAME_ORIGIN)
    assert response.headers["location"] == f"/imports/{form['command']}?requested"
    command = await only_command(queues)
    assert (str(command.id), command.format) == (form["command"], Format(kind="txt", encoding="cp1252"))
    await run_import(connection, pool, command)
    page = (await site.get(f"/imports/{command.id}")).text
    assert "/retry" not in page
    assert "Read as txt" in page


async def test_a_refused_replacement_is_confirmed_from_its_page(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The page of the failed import has the numbers, and a form that confirms them without another upload."""
    await add_list(connection, "spring-10", 3)
    refused = await import_text(connection, pool, "NEW-1\nwww.x.de\nwww.y.de\n", mode=ImportMode.REPLACE)
    text = (await site.get(f"/imports/{refused}")).text
    assert "2 of 3 lines would be rejected" in text
    form = {"command": command_id(text), "confirmed": "yes"}
    await site.post(f"/imports/{refused}/retry", data=form, headers=SAME_ORIGIN)
    command = await only_command(queues)
    assert (command.mode, command.confirmed, command.allow_empty) == (ImportMode.REPLACE, True, False)
    await run_import(connection, pool, command)
    found = await imports.get(connection, command.id)
    assert (found.state, found.added, found.removed) == ("finished", 1, 3)


async def test_the_form_has_every_option_of_the_format(
    site: AsyncClient, queues: Queues, connection: Connection
) -> None:
    """Each field of the form becomes a field of the command."""
    await add_list(connection, "spring-10")
    fields = {
        "mode": "replace", "encoding": "cp1252", "separator": "tab", "header": "no", "column": "2", "sheet": "Codes",
        "skip_lines": "3", "where": "Used=No\nState!=gone\n", "allow_lookalikes": "yes", "force_encoding": "yes",
        "confirmed": "yes", "allow_empty": "yes",
    }  # fmt: skip
    assert (await upload(site, b"A1\n", fields=fields)).status_code == 303
    command = await only_command(queues)
    assert command.format == Format(
        encoding="cp1252", separator="\t", header=False, column=2, sheet="Codes", skip_lines=3,
        where=("Used=No", "State!=gone"), allow_lookalikes=True, force_encoding=True,
    )  # fmt: skip
    assert (command.confirmed, command.allow_empty) == (True, True)
    people = {"group": "customers", "mode": "add", "columns": "Name, Prénom=first_name"}
    assert (await upload(site, b"email\n", to="/groups/imports", fields=people)).status_code == 303
    assert (await only_command(queues)).format == Format(columns=("Name", "Prénom=first_name"))
