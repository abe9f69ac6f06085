"""Undo and retry of imports in the console and the HTTP API, and the notices of an import."""

import html
import re
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient

from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool
from coupons.states import ImportMode
from coupons.store import imports
from producers.web import import_review
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
from tests.web import SAME_ORIGIN, Queues, confirm, errors, upload


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
    assert (response.status_code, "has changed nothing" in errors(response)) == (409, True)
    assert (await site.post(f"/api/imports/{done}/undo")).status_code == response.status_code  # without a body
    assert (await site.post(f"/api/imports/{done}/undo", content=b"{}")).status_code == 415
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
    """The form shows the options of the failed import, and the likeliest encoding."""
    failed = await fail_by_encoding(connection, pool)
    text = (await site.get(f"/imports/{failed}")).text
    assert 'action="/imports/' + str(failed) + '/retry"' in text
    assert '<option value="cp1252" selected>' in text
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
    form = {"command": command_id(text), "encoding": "utf-8"}
    review = await site.post(f"/imports/{refused}/retry", data=form, headers=SAME_ORIGIN)
    assert numbers(review.text) == {"To be added": "1", "To be removed": "3", "Rejected": "2"}
    await confirm(site, review)
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
        "mode": "add", "encoding": "cp1252", "separator": "tab", "header": "no", "column": "2", "sheet": "Codes",
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


async def test_a_replacement_is_published_after_its_numbers_were_shown(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The first form stores the file and publishes nothing. A second click publishes the same command."""
    await add_list(connection, "spring-10", 3)
    review = await upload(site, b"NEW-1\nwww.x.de\n", fields={"mode": "replace"})
    assert numbers(review.text) == {"To be added": "1", "To be removed": "3", "Rejected": "1"}
    assert "Replace: remove 3 codes, add 1</button>" in review.text
    assert "looks like a URL" in review.text
    assert not await queues.take_commands()
    responses = [await confirm(site, review) for _ in range(2)]
    first, second = await queues.take_commands()
    assert first == second
    assert isinstance(first, ImportCoupons)
    assert (first.mode, first.confirmed, first.allow_empty) == (ImportMode.REPLACE, True, False)
    assert {each.headers["location"] for each in responses} == {f"/imports/{first.id}?requested"}
    await run_import(connection, pool, first)
    found = await imports.get(connection, first.id)
    assert (found.state, found.added, found.removed) == ("finished", 1, 3)


async def test_codes_are_deleted_after_their_number_was_shown(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The button names the number of codes in the file that are available."""
    await add_list(connection, "spring-10", ["SPR-1", "SPR-2"])
    review = await upload(site, b"SPR-1\nSPR-7\n", fields={"mode": "delete"})
    assert "Delete 1 code</button>" in review.text
    await confirm(site, review)
    command = await only_command(queues)
    await run_import(connection, pool, command)
    assert (await imports.get(connection, command.id)).removed == 1


async def test_a_replacement_by_nothing_needs_its_own_permission(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The page has a box that must be checked; without it the worker refuses the import."""
    await add_list(connection, "spring-10", 3)
    review = await upload(site, b"www.x.de\n", fields={"mode": "replace"})
    assert 'name="allow_empty" value="yes" required' in review.text
    await confirm(site, review)
    refused = await only_command(queues)
    assert not refused.allow_empty
    await confirm(site, review, allow_empty="yes")
    assert (await only_command(queues)).allow_empty


async def test_unknown_numbers_are_left_to_the_worker(
    site: AsyncClient, queues: Queues, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the dry run takes too long, the command is not confirmed, and the worker checks the file."""
    monkeypatch.setattr(import_review, "DRY_RUN_SECONDS", 0)
    await add_list(connection, "spring-10", 3)
    review = await upload(site, b"NEW-1\n", fields={"mode": "replace"})
    assert "The numbers are not known: counting takes longer than" in review.text
    assert 'type="checkbox" name="confirmed"' in review.text
    (command,) = re.findall(r'name="command" value="([^"]+)"', review.text)
    await site.post("/imports/confirm", data={"command": html.unescape(command)}, headers=SAME_ORIGIN)
    assert not (await only_command(queues)).confirmed


async def test_a_replacement_by_an_unreadable_file_fails_on_its_page(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The command is published without a confirmation. The page has the form of the retry, which is reviewed."""
    await add_list(connection, "spring-10", 3)
    response = await upload(site, "GRÜN-1\nGRÜN-2\n".encode("cp1252"), fields={"mode": "replace"})
    command = await only_command(queues)
    assert (response.status_code, command.confirmed) == (303, False)
    await run_import(connection, pool, command)
    text = (await site.get(f"/imports/{command.id}")).text
    assert '<option value="cp1252" selected>' in text
    form = {"command": command_id(text), "encoding": "cp1252"}
    review = await site.post(f"/imports/{command.id}/retry", data=form, headers=SAME_ORIGIN)
    assert "Replace: remove 3 codes, add 2" in review.text


async def test_only_an_import_that_was_reviewed_can_be_confirmed(site: AsyncClient, queues: Queues) -> None:
    """Another command is refused, and so is a form without a command."""
    for command in ("", "{}", '{"type": "import", "list": "a", "codes": ["A1"]}'):
        response = await site.post("/imports/confirm", data={"command": command}, headers=SAME_ORIGIN)
        assert response.status_code == 422
    assert not await queues.take_commands()


async def test_a_retry_sends_exactly_what_its_form_shows(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """Options of the failed import are shown; those that the user removes are detected again."""
    await add_list(connection, "spring-10")
    source = await store_upload(connection, "Code;Used\nA1;No\n")
    options = Format(
        separator="#", header=True, column="Gutschein", where=("Used=No",), skip_lines=1, allow_lookalikes=True
    )
    failed = ImportCoupons(list="spring-10", source=source, format=options)
    await run_import(connection, pool, failed)
    text = (await site.get(f"/imports/{failed.id}")).text
    for shown in (
        '<option value="#" selected>', '<option value="yes" selected>', 'value="Gutschein"', "Used=No</textarea>",
        'placeholder="0" value="1"', 'name="allow_lookalikes" value="yes" checked', '<option value="utf-8" selected>',
    ):  # fmt: skip
        assert shown in text
    form = {"command": command_id(text), "encoding": "utf-8", "separator": "", "header": "", "column": "", "where": ""}
    await site.post(f"/imports/{failed.id}/retry", data=form, headers=SAME_ORIGIN)
    assert (await only_command(queues)).format == Format()


async def test_a_file_that_another_retry_has_imported_is_not_retried(
    site: AsyncClient, queues: Queues, connection: Connection, pool: Pool
) -> None:
    """The page has the reason instead of the form."""
    failed = await fail_by_encoding(connection, pool)
    await site.post(f"/api/imports/{failed}/retry", json={"format": {"encoding": "cp1252"}})
    await run_import(connection, pool, await only_command(queues))
    text = (await site.get(f"/imports/{failed}")).text
    assert "/retry" not in text
    assert "No retry: the file of import" in text
