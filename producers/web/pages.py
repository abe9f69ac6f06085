"""The console: Outbox and lists. Pages are whole without JavaScript; with it, progress is fetched every second."""

import asyncio
import json
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coupons.commands import ImportCoupons, ResumeSendout, decode
from coupons.database import Connection, Pool
from coupons.errors import Refused
from coupons.settings import Settings
from coupons.store import imports, inbox, lists, outbox
from coupons.store.lists import CouponList
from coupons.store.outbox import RESUMABLE, Sendout
from producers.web import ACQUIRE_SECONDS
from producers.web.api import STATES, resolution_in, status_in
from producers.web.body import FileForm, fields_of
from producers.web.desk import Desk, location_of, sendout_of
from producers.web.failures import InvalidRequest, NotFound
from producers.web.html import page

UPLOADS_AT_ONCE = 3
"""Each holds a connection to the database for as long as the browser takes; pages must still get one."""


class Pages:
    def __init__(self, *, pool: Pool, desk: Desk, settings: Settings) -> None:
        self._pool = pool
        self._desk = desk
        self._import_max_bytes = settings.import_max_bytes
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.outbox),
            Route("/sendouts/{id:uuid}", self.sendout),
            Route("/sendouts/{id:uuid}/resume", self.resume, methods=["POST"]),
            Route("/sendouts/{id:uuid}/pause", self.pause, methods=["POST"]),
            Route("/sendouts/{id:uuid}/cancel", self.cancel, methods=["POST"]),
            Route("/sendouts/{id:uuid}/uncertain", self.resolve, methods=["POST"]),
            Route("/lists", self.all_lists),
            Route("/lists/{name}", self.one_list),
            Route("/lists/{name}/imports", self.start_import, methods=["POST"]),
            Route("/imports/{id:uuid}", self.import_job),
        ]

    # --- outbox ----------------------------------------------------------------------------------------------------

    async def outbox(self, request: Request) -> Response:
        status = status_in(request)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await outbox.newest(connection, state=status)
        live = not all(sendout.ended for sendout in found)
        return page("outbox.html", live=live, sendouts=found, chosen=status, states=STATES)

    async def sendout(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await sendout_of(connection, sendout_id)
            problems = await outbox.problems(connection, sendout_id)
            resuming = await _resuming(connection, found, request.query_params.get("command", ""))
        live = resuming == "requested" or not found.ended or found.in_hand > 0
        return page("sendout.html", live=live, sendout=found, problems=problems, resuming=resuming)

    async def resume(self, request: Request) -> Response:
        """The form brings the command's id, so that a second click is the same command."""
        command_id = _uuid((await fields_of(request)).get("command", ""))
        if command_id is None:
            raise InvalidRequest("the form has no command id")
        command = ResumeSendout(id=command_id, sendout=request.path_params["id"])
        await self._desk.submit(command)
        return RedirectResponse(f"{location_of(command)}?command={command.id}", 303)

    async def pause(self, request: Request) -> Response:
        return _see(await self._desk.pause(request.path_params["id"]))

    async def cancel(self, request: Request) -> Response:
        return _see(await self._desk.cancel(request.path_params["id"]))

    async def resolve(self, request: Request) -> Response:
        """Of the sendout's uncertain mails."""
        sendout_id: UUID = request.path_params["id"]
        await self._desk.resolve(sendout_id, resolution_in(await fields_of(request)))
        return RedirectResponse(f"/sendouts/{sendout_id}", 303)

    # --- lists -----------------------------------------------------------------------------------------------------

    async def all_lists(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await lists.all_of(connection, archived=False)
        return page("lists.html", live=False, lists=found)

    async def one_list(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await _list(connection, request)
            jobs = await imports.of_list(connection, found.name)
        live = any(job.finished_at is None for job in jobs)
        return page("list.html", live=live, list=found, imports=jobs)

    async def start_import(self, request: Request) -> Response:
        """Store the file piece by piece as it comes in, then publish the command that imports it."""
        form = FileForm(request, most_bytes=self._import_max_bytes)
        asked = _import_command(request.path_params["name"], await form.read_fields())
        async with self._uploads, self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await _list(connection, request)
            upload = await imports.upload(connection, form.file_name, form.pieces())
        command = asked.model_copy(update={"source": f"upload:{upload.id}"})
        await self._desk.submit(command)
        return RedirectResponse(f"{location_of(command)}?requested", 303)

    async def import_job(self, request: Request) -> Response:
        """Right after its form, an import is `requested` and not there yet."""
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await imports.find(connection, import_id)
        if found is None and "requested" not in request.query_params:
            raise NotFound(f"there is no import {import_id}")
        return page("import.html", live=found is None or found.finished_at is None, job=found)


def _see(sendout: Sendout) -> Response:
    return RedirectResponse(f"/sendouts/{sendout.id}", 303)


async def _resuming(connection: Connection, sendout: Sendout, command: str) -> str:
    """What became of the resume command that the page was asked with: requested, in vain, or nothing to be said."""
    command_id = _uuid(command)
    if command_id is None or sendout.state not in RESUMABLE:
        return ""
    try:
        return "in vain" if await inbox.is_known(connection, command_id) else "requested"
    except Refused:
        return "in vain"


async def _list(connection: Connection, request: Request) -> CouponList:
    try:
        (found,) = await lists.named(connection, request.path_params["name"])
    except Refused as error:
        raise NotFound(str(error)) from None
    return found


def _import_command(list_name: str, fields: dict[str, str]) -> ImportCoupons:
    """The command that the form asks for, its source still to come. Raises InvalidCommand with all reasons."""
    column = fields.get("column", "")
    said = {
        "separator": "\t" if fields.get("separator") == "tab" else fields.get("separator"),
        "encoding": fields.get("encoding"),
        "column": int(column) if column.isdecimal() else column,
    }
    content = {
        "type": "import",
        "id": str(uuid4()),
        "list": list_name,
        "mode": fields.get("mode"),
        "source": "upload:",
        "format": {name: value for name, value in said.items() if value},
    }
    command = decode(json.dumps(content).encode())
    assert isinstance(command, ImportCoupons)  # noqa: S101 - its type says so
    return command


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
