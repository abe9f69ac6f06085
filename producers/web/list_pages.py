"""The console's pages about lists, groups and imports. They work without JavaScript, as the Outbox does."""

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

from asyncpg import InsufficientPrivilegeError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coupons.commands import ImportCoupons, decode
from coupons.database import Connection, Pool
from coupons.errors import Conflict, UserError
from coupons.files.rejections import Rejected
from coupons.import_engine import is_mostly_rejected
from coupons.paging import cut
from coupons.permission_errors import denial
from coupons.states import ImportState
from coupons.store import groups, import_schedules, imports, lists, sendout_views
from coupons.store.imports import Changes, ImportStatus
from coupons.store.lists import DuplicateCode
from producers.web import ACQUIRE_SECONDS
from producers.web.actions import CHANGES, Actions, location_of
from producers.web.errors import InvalidRequest, NotFound
from producers.web.import_request import parse_form, parse_format, parse_id
from producers.web.import_review import Reviewer, is_nothing_left, needs_review
from producers.web.lookups import get_group, get_list, get_schedule
from producers.web.paging import next_url, parse_before
from producers.web.request_body import FileForm, read_form
from producers.web.templating import page
from producers.web.workers_view import WorkersView

REJECTED_LINES_SHOWN = DUPLICATES_SHOWN = 20
MAX_COMMAND_FORM_BYTES = 64_000
"""Limits the form that confirms a command: a URL-encoded command with the fields of the first form."""


class ListPages:
    def __init__(
        self, *, pool: Pool, actions: Actions, workers: WorkersView, reviewer: Reviewer, import_max_bytes: int
    ) -> None:
        self._pool = pool
        self._actions = actions
        self._workers = workers
        self._reviewer = reviewer
        self._import_max_bytes = import_max_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/lists", self.show_lists),
            Route("/lists/{name}", self.show_list),
            Route("/lists/{name}/imports", self.import_codes, methods=["POST"]),
            Route("/import-schedules/{name}", self.show_schedule),
            Route("/import-schedules/{name}/{change}", self.change_schedule, methods=["POST"]),
            Route("/groups", self.show_groups),
            Route("/groups/imports", self.import_recipients, methods=["POST"]),
            Route("/groups/{name}", self.show_group),
            Route("/groups/{name}/delete", self.delete_group, methods=["POST"]),
            Route("/imports/confirm", self.confirm_import, methods=["POST"]),
            Route("/imports/{id:uuid}", self.show_import),
            Route("/imports/{id:uuid}/cancel", self.cancel_import, methods=["POST"]),
            Route("/imports/{id:uuid}/retry", self.retry_import, methods=["POST"]),
            Route("/imports/{id:uuid}/undo", self.undo_import, methods=["POST"]),
        ]

    # --- lists -----------------------------------------------------------------------------------------------------

    async def show_lists(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await lists.list_all(connection, archived=False)
            schedules = await import_schedules.list_all(connection)
        return page("lists.html", live=False, lists=found, schedules=schedules)

    async def show_list(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_list(connection, request.path_params["name"])
            jobs, more = await _imports(request, partial(imports.list_for_list, connection, found.name))
            counts = await lists.count_duplicates(connection, found.name)
            duplicates, hidden = await _first_duplicates(connection, found.name) if counts else ([], "")
        return page(
            "list.html",
            live=_any_running(jobs),
            list=found,
            imports=jobs,
            more=more,
            counts=counts[0] if counts else None,
            duplicates=duplicates,
            hidden=hidden,
        )

    async def import_codes(self, request: Request) -> Response:
        form = FileForm(request, max_bytes=self._import_max_bytes)
        command = _import_command(await form.read_fields(), list=request.path_params["name"])
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_list(connection, request.path_params["name"])
        return await self._import(command, form)

    async def show_schedule(self, request: Request) -> Response:
        """Show a recurring import and its last runs."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_schedule(connection, request.path_params["name"])
            runs = await import_schedules.list_runs(connection, found.name)
        return page("schedule.html", live=False, schedule=found, runs=runs)

    async def change_schedule(self, request: Request) -> Response:
        """Pause, resume or run a recurring import."""
        change = request.path_params["change"]
        if change not in CHANGES:
            raise NotFound(f"there is no action {change}")
        await self._actions.change_schedule(request.path_params["name"], change)
        return RedirectResponse(f"/import-schedules/{quote(request.path_params['name'])}", 303)

    # --- groups ----------------------------------------------------------------------------------------------------

    async def show_groups(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await groups.list_all(connection)
            schedules = [each for each in await import_schedules.list_all(connection) if each.group]
        return page("groups.html", live=False, groups=found, schedules=schedules)

    async def show_group(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_group(connection, request.path_params["name"])
            jobs, more = await _imports(request, partial(imports.list_for_group, connection, found.name))
        return page("group.html", live=_any_running(jobs), group=found, imports=jobs, more=more)

    async def delete_group(self, request: Request) -> Response:
        await self._actions.delete_group(request.path_params["name"])
        return RedirectResponse("/groups", 303)

    async def import_recipients(self, request: Request) -> Response:
        """Import recipients into the group that the form contains; the group is created if missing."""
        form = FileForm(request, max_bytes=self._import_max_bytes)
        fields = await form.read_fields()
        return await self._import(_import_command(fields, group=fields.get("group", "")), form)

    # --- imports ---------------------------------------------------------------------------------------------------

    async def _import(self, command: ImportCoupons, form: FileForm) -> Response:
        """Store the form's file, which is the source of the command."""
        upload = await self._actions.store_upload(form.file_name, form.content())
        return await self._review(command.model_copy(update={"source": f"upload:{upload.id}"}))

    async def _review(self, command: ImportCoupons) -> Response:
        """Publish the command, or show what it would replace or delete.

        If the file cannot be read, its import is published without a confirmation. It fails, and its page has the
        reason and the form of the retry.
        """
        if not needs_review(command):
            return await self._publish(command)
        try:
            review = await self._reviewer.review(command)
        except UserError:
            return await self._publish(command.model_copy(update={"confirmed": False}))
        return page(
            "review.html",
            live=False,
            command=command.model_copy(update={"confirmed": False}),
            review=review,
            is_nothing_left=review.report is not None and is_nothing_left(command, review.report),
            is_mostly_rejected=review.report is not None and is_mostly_rejected(review.report),
        )

    async def confirm_import(self, request: Request) -> Response:
        """Publish a command whose numbers were shown. A second click publishes the same command."""
        fields = await read_form(request, max_bytes=MAX_COMMAND_FORM_BYTES)
        command = decode(fields.get("command", "").encode())
        if not isinstance(command, ImportCoupons) or not needs_review(command):
            raise InvalidRequest("command: must replace or delete codes or recipients")
        confirmation = {name: name in fields for name in ("confirmed", "allow_empty")}
        return await self._publish(command.model_copy(update=confirmation))

    async def _publish(self, command: ImportCoupons) -> Response:
        await self._actions.submit(command)
        return RedirectResponse(f"{location_of(command)}?requested", 303)

    async def show_import(self, request: Request) -> Response:
        """Show the import. With `?requested` it may not exist yet, because no worker has recorded its command."""
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            job = await imports.find(connection, import_id)
            values = await _values_of(connection, job) if job else {}
        if job is not None:
            retry = values["retry"]
            encoding = await self._reviewer.find_likeliest_encoding(retry) if retry else None
            return page("import.html", live=job.finished_at is None, job=job, encoding=encoding, **values)
        if "requested" not in request.query_params:
            raise NotFound(f"there is no import {import_id}")
        return page("import.html", live=True, job=None, workers=await self._workers.look())

    async def cancel_import(self, request: Request) -> Response:
        job = await self._actions.cancel_import(request.path_params["id"])
        return RedirectResponse(f"/imports/{job.id}", 303)

    async def retry_import(self, request: Request) -> Response:
        """Repeat a failed import with the options of the form. A second click publishes the same command."""
        new_id, changes = parse_form(await read_form(request))
        command = await self._actions.retry_command(request.path_params["id"], changes, new_id=new_id)
        return await self._review(command.model_copy(update={"allow_empty": changes.allow_empty}))

    async def undo_import(self, request: Request) -> Response:
        """Undo an import. A second click publishes the same command."""
        new_id = parse_id(await read_form(request))
        command = await self._actions.undo_import(request.path_params["id"], new_id=new_id)
        return RedirectResponse(f"{location_of(command)}?requested", 303)


async def _imports(
    request: Request, list_newest: Callable[..., Awaitable[list[ImportStatus]]]
) -> tuple[Sequence[ImportStatus], str | None]:
    """Return the imports that the page shows, and the URL of the page with older ones."""
    rows = await list_newest(limit=imports.IMPORTS_SHOWN + 1, before=parse_before(request))
    jobs, last = cut(rows, imports.IMPORTS_SHOWN)
    return jobs, next_url(request, before=last.id) if last else None


def _any_running(jobs: Sequence[ImportStatus]) -> bool:
    return any(job.finished_at is None for job in jobs)


async def _values_of(connection: Connection, job: ImportStatus) -> dict[str, Any]:
    """Return what the page of the import shows besides its numbers.

    Rejected lines are counted by reason only at the end: once per second would be too slow.
    """
    ended = job.finished_at is not None
    rejected, hidden = await _first_rejected(connection, job)
    retry, not_retried = await _retry_of(connection, job)
    return {
        "events": await imports.list_events(connection, job.id),
        "rejected": rejected,
        "hidden": hidden,
        "reasons": await imports.count_reasons(connection, job.id) if ended else {},
        "resumable": await sendout_views.list_resumable(connection, job.list) if job.list and ended else [],
        "retry": retry,
        "not_retried": not_retried,
    }


async def _retry_of(connection: Connection, job: ImportStatus) -> tuple[ImportCoupons | None, str]:
    """Return the command that would repeat a failed import unchanged, or the reason why it cannot be repeated."""
    if job.state != ImportState.FAILED or job.undone:
        return None, ""
    try:
        command = await imports.retry_command(connection, job.id, Changes({}), new_id=uuid4())
    except Conflict as error:
        return None, str(error)
    return (command if await imports.can_be_retried(connection, job.id) else None), ""


async def _first_rejected(connection: Connection, job: ImportStatus) -> tuple[list[Rejected], str]:
    """Return the first rejected lines, or the reason why this database role may not read them."""
    try:
        return await imports.list_first_rejections(connection, job.id, REJECTED_LINES_SHOWN), ""
    except InsufficientPrivilegeError as error:
        return [], denial(error)


async def _first_duplicates(connection: Connection, name: str) -> tuple[list[DuplicateCode], str]:
    """Return the first duplicates of the list, or the reason why this database role may not read them."""
    try:
        return await lists.list_duplicates(connection, name, limit=DUPLICATES_SHOWN), ""
    except InsufficientPrivilegeError as error:
        return [], denial(error)


def _import_command(fields: dict[str, str], **target: str) -> ImportCoupons:
    """Return the command of an import form, without its source. Raises InvalidCommand with all reasons."""
    content = {
        "type": "import",
        "id": str(uuid4()),
        **target,
        "mode": fields.get("mode"),
        "source": "upload:",
        "format": parse_format(fields),
        "confirmed": "confirmed" in fields,
        "allow_empty": "allow_empty" in fields,
    }
    command = decode(json.dumps(content).encode())
    assert isinstance(command, ImportCoupons)  # noqa: S101 - its type is import
    return command
