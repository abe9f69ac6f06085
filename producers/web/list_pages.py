"""The console's lists, groups and the imports into them. As in the Outbox, pages are whole without JavaScript."""

import json
from uuid import UUID, uuid4

from asyncpg import InsufficientPrivilegeError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coupons.commands import ImportCoupons, decode
from coupons.database import Connection, Pool
from coupons.files.rejections import Rejected
from coupons.permission_errors import denial
from coupons.store import groups, imports, lists, sendout_views
from coupons.store.imports import Import
from producers.web import ACQUIRE_SECONDS
from producers.web.actions import Desk, location_of
from producers.web.errors import NotFound
from producers.web.lookups import group_of, list_of
from producers.web.request_body import FileForm
from producers.web.templating import page

REJECTED_SHOWN = 20
_SAID_OF_HEADER = {"yes": True, "no": False}


class StockPages:
    def __init__(self, *, pool: Pool, desk: Desk, import_max_bytes: int) -> None:
        self._pool = pool
        self._desk = desk
        self._import_max_bytes = import_max_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/lists", self.all_lists),
            Route("/lists/{name}", self.one_list),
            Route("/lists/{name}/imports", self.import_codes, methods=["POST"]),
            Route("/groups", self.all_groups),
            Route("/groups/imports", self.import_recipients, methods=["POST"]),
            Route("/groups/{name}", self.one_group),
            Route("/imports/{id:uuid}", self.import_job),
            Route("/imports/{id:uuid}/cancel", self.cancel_import, methods=["POST"]),
        ]

    # --- lists -----------------------------------------------------------------------------------------------------

    async def all_lists(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await lists.all_of(connection, archived=False)
        return page("lists.html", live=False, lists=found)

    async def one_list(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await list_of(connection, request.path_params["name"])
            jobs = await imports.of_list(connection, found.name)
        return page("list.html", live=_are_running(jobs), list=found, imports=jobs)

    async def import_codes(self, request: Request) -> Response:
        form = FileForm(request, most_bytes=self._import_max_bytes)
        asked = _command(await form.read_fields(), list=request.path_params["name"])
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await list_of(connection, request.path_params["name"])
        return await self._import(asked, form)

    # --- groups ----------------------------------------------------------------------------------------------------

    async def all_groups(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await groups.all_of(connection)
        return page("groups.html", live=False, groups=found)

    async def one_group(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await group_of(connection, request.path_params["name"])
            jobs = await imports.of_group(connection, found.name)
        return page("group.html", live=_are_running(jobs), group=found, imports=jobs)

    async def import_recipients(self, request: Request) -> Response:
        """The form names the group, which is made if need be."""
        form = FileForm(request, most_bytes=self._import_max_bytes)
        fields = await form.read_fields()
        return await self._import(_command(fields, group=fields.get("group", "")), form)

    # --- imports ---------------------------------------------------------------------------------------------------

    async def _import(self, asked: ImportCoupons, form: FileForm) -> Response:
        """Keep the file, then publish the command that imports it."""
        kept = await self._desk.keep(form.file_name, form.content())
        command = asked.model_copy(update={"source": f"upload:{kept.id}"})
        await self._desk.submit(command)
        return RedirectResponse(f"{location_of(command)}?requested", 303)

    async def import_job(self, request: Request) -> Response:
        """Right after its form, an import is `requested` and not there yet."""
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            job = await imports.find(connection, import_id)
            if job is not None:
                return await _import_page(connection, job)
        if "requested" not in request.query_params:
            raise NotFound(f"there is no import {import_id}")
        return page("import.html", live=True, job=None)

    async def cancel_import(self, request: Request) -> Response:
        job = await self._desk.cancel_import(request.path_params["id"])
        return RedirectResponse(f"/imports/{job.id}", 303)


def _are_running(jobs: list[Import]) -> bool:
    return any(job.finished_at is None for job in jobs)


async def _import_page(connection: Connection, job: Import) -> Response:
    """Why lines were not taken is counted once it has ended: too much work for every second."""
    ended = job.finished_at is not None
    rejected, hidden = await _rejected(connection, job)
    return page(
        "import.html",
        live=not ended,
        job=job,
        events=await imports.events(connection, job.id),
        rejected=rejected,
        hidden=hidden,
        reasons=await imports.reason_counts(connection, job.id) if ended else {},
        covered=await sendout_views.covered_by(connection, job.list) if job.list and ended else [],
    )


async def _rejected(connection: Connection, job: Import) -> tuple[list[Rejected], str]:
    """The first ones, or why this console may not show them."""
    try:
        return await imports.first_rejections(connection, job.id, REJECTED_SHOWN), ""
    except InsufficientPrivilegeError as error:
        return [], denial(error)


def _command(fields: dict[str, str], **target: str) -> ImportCoupons:
    """The command that the form asks for, its source still to come. Raises InvalidCommand with all reasons."""
    column = fields.get("column", "")
    said = {
        "separator": "\t" if fields.get("separator") == "tab" else fields.get("separator") or None,
        "encoding": fields.get("encoding") or None,
        "column": (int(column) if column.isdecimal() else column) or None,
        "header": _SAID_OF_HEADER.get(fields.get("header", "")),
    }
    content = {
        "type": "import",
        "id": str(uuid4()),
        **target,
        "mode": fields.get("mode"),
        "source": "upload:",
        "format": {name: value for name, value in said.items() if value is not None},
    }
    command = decode(json.dumps(content).encode())
    assert isinstance(command, ImportCoupons)  # noqa: S101 - its type says so
    return command
