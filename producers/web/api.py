"""The HTTP API. It accepts the commands of the contract and returns the same JSON as the command line's `--json`."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from uuid import UUID

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from coupons.commands import MAX_COMMAND_BYTES, Command, StartSendout, decode
from coupons.database import Pool
from coupons.files.rejections import streamed_rejections_csv
from coupons.names import InvalidName, parse_name
from coupons.paging import PAGE_SIZE, cut
from coupons.recurring import parse as parse_recurring
from coupons.sources.source import file_name
from coupons.states import STATE_FILTERS, StateFilter, parse_filter
from coupons.store import groups, import_schedules, imports, lists, messages, sendout_views, uncertain
from coupons.store.uncertain import Resolution
from producers.web import ACQUIRE_SECONDS, import_request, schedule_request
from producers.web.actions import CHANGES, Actions, ScheduleChange, location_of
from producers.web.errors import InvalidRequest, NotFound, UnsupportedType
from producers.web.lookups import get_group, get_import, get_list, get_message, get_schedule, get_sendout
from producers.web.paging import link_to, next_url, parse_after, parse_before, parse_limit
from producers.web.request_body import read_all, read_limited
from producers.web.retry_request import parse_json
from producers.web.workers_view import WorkersView

LINES_PER_WRITE = 1_000
"""Lines of a CSV response are sent in blocks, because one write per line would take most of the time."""
MAX_DUPLICATES = 10_000
MAX_RESCHEDULE_BYTES = 1_000
MAX_RESOLUTION_BYTES = 1_000
MAX_SCHEDULE_BYTES = 100_000
MAX_RETRY_IMPORT_BYTES = 100_000
MAX_RETRY_BYTES = 1_000_000
"""Enough for several thousand corrected addresses."""


class Api:
    def __init__(self, *, pool: Pool, actions: Actions, workers: WorkersView, import_max_bytes: int) -> None:
        self._pool = pool
        self._actions = actions
        self._workers = workers
        self._import_max_bytes = import_max_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/commands", self.submit_command, methods=["POST"]),
            Route("/uploads", self.upload_file, methods=["POST"]),
            Route("/lists", self.show_lists),
            Route("/lists/{name}/imports", self.show_list_imports),
            Route("/lists/{name}/duplicates", self.show_duplicates),
            Route("/groups", self.show_groups),
            Route("/groups/{name}", self.show_group),
            Route("/groups/{name}", self.delete_group, methods=["DELETE"]),
            Route("/groups/{name}/imports", self.show_group_imports),
            Route("/messages", self.show_messages),
            Route("/messages/{name}", self.show_message),
            Route("/messages/{name}", self.delete_message, methods=["DELETE"]),
            Route("/sendouts", self.show_sendouts),
            Route("/sendouts/check", self.check_sendout, methods=["POST"]),
            Route("/sendouts/{id:uuid}", self.show_sendout),
            Route("/sendouts/{id:uuid}/problems", self.show_problems),
            Route("/sendouts/{id:uuid}/pause", self.pause, methods=["POST"]),
            Route("/sendouts/{id:uuid}/reschedule", self.reschedule, methods=["POST"]),
            Route("/sendouts/{id:uuid}/cancel", self.cancel, methods=["POST"]),
            Route("/sendouts/{id:uuid}/uncertain", self.show_uncertain),
            Route("/sendouts/{id:uuid}/uncertain", self.resolve_uncertain, methods=["POST"]),
            Route("/sendouts/{id:uuid}/retry", self.retry, methods=["POST"]),
            Route("/import-schedules", self.show_schedules),
            Route("/import-schedules/{name}", self.show_schedule),
            Route("/import-schedules/{name}", self.put_schedule, methods=["PUT"]),
            Route("/import-schedules/{name}", self.delete_schedule, methods=["DELETE"]),
            *(
                Route(f"/import-schedules/{{name}}/{change}", partial(self.change_schedule, change), methods=["POST"])
                for change in CHANGES
            ),
            Route("/import-schedules/{name}/{change}", self.refuse_change, methods=["POST"]),
            Route("/imports/{id:uuid}", self.show_import),
            Route("/workers", self.show_workers),
            Route("/imports/{id:uuid}/events", self.show_import_events),
            Route("/imports/{id:uuid}/cancel", self.cancel_import, methods=["POST"]),
            Route("/imports/{id:uuid}/retry", self.retry_import, methods=["POST"]),
            Route("/imports/{id:uuid}/undo", self.undo_import, methods=["POST"]),
            Route("/imports/{id:uuid}/rejections.csv", self.download_rejected_lines),
        ]

    async def submit_command(self, request: Request) -> Response:
        """Publish a command. The response is 202; the import or sendout is at `location` once a worker recorded it."""
        command = decode(await _read_json(request, MAX_COMMAND_BYTES))
        await self._actions.submit(command)
        return _accepted(command)

    async def upload_file(self, request: Request) -> Response:
        """Store the body under the name in `?name=`. The response is 201 with the `source` for an import command."""
        name = file_name(request.query_params.get("name", ""), default="upload")
        upload = await self._actions.store_upload(name, read_limited(request, self._import_max_bytes))
        return JSONResponse(
            {"id": str(upload.id), "source": f"upload:{upload.id}", "size_bytes": upload.size_bytes}, 201
        )

    # --- lists and groups ------------------------------------------------------------------------------------------

    async def show_lists(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await lists.list_all(connection, archived=False))

    async def show_list_imports(self, request: Request) -> Response:
        """Return the newest imports into the list. The header `Link` leads to older ones."""
        limit = parse_limit(request, imports.IMPORTS_SHOWN)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_list(connection, request.path_params["name"])
            rows = await imports.list_for_list(connection, found.name, limit=limit + 1, before=parse_before(request))
        jobs, last = cut(rows, limit)
        return _json(jobs, link_to(next_url(request, before=last.id) if last else None))

    async def show_duplicates(self, request: Request) -> Response:
        """Return the first codes of the list that an upgrade has found a second time."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_list(connection, request.path_params["name"])
            return _json(await lists.list_duplicates(connection, found.name, limit=MAX_DUPLICATES))

    async def show_groups(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await groups.list_all(connection))

    async def show_group(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await get_group(connection, request.path_params["name"]))

    async def delete_group(self, request: Request) -> Response:
        """Delete the group with its recipients. 409 while an unfinished sendout or import uses it."""
        await self._actions.delete_group(request.path_params["name"])
        return Response(status_code=204)

    async def show_group_imports(self, request: Request) -> Response:
        """Return the newest imports into the group. The header `Link` leads to older ones."""
        limit = parse_limit(request, imports.IMPORTS_SHOWN)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_group(connection, request.path_params["name"])
            rows = await imports.list_for_group(connection, found.name, limit=limit + 1, before=parse_before(request))
        jobs, last = cut(rows, limit)
        return _json(jobs, link_to(next_url(request, before=last.id) if last else None))

    # --- messages --------------------------------------------------------------------------------------------------

    async def show_messages(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await messages.list_all(connection))

    async def show_message(self, request: Request) -> Response:
        """Return the newest version of the message, and warnings about what is probably a mistake."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            message = await get_message(connection, request.path_params["name"])
            needed = await messages.list_alternative_attributes(connection, message)
        return _json({**asdict(message), "alternative_attributes": needed, "warnings": message.warnings})

    async def delete_message(self, request: Request) -> Response:
        """Delete the message with all its versions. 409 while an unfinished sendout needs it."""
        await self._actions.delete_message(request.path_params["name"])
        return Response(status_code=204)

    # --- sendouts --------------------------------------------------------------------------------------------------

    async def show_sendouts(self, request: Request) -> Response:
        """Return sendouts, newest first. The header `Link` leads to older ones."""
        limit = parse_limit(request)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            rows = await sendout_views.list_newest(
                connection, state=state_filter(request), limit=limit + 1, before=parse_before(request)
            )
        found, last = cut(rows, limit)
        return _json(found, link_to(next_url(request, before=last.id) if last else None))

    async def check_sendout(self, request: Request) -> Response:
        """Return what the sendout of a sendout command would do. Nothing is written or published."""
        command = decode(await _read_json(request, MAX_COMMAND_BYTES))
        if not isinstance(command, StartSendout):
            raise InvalidRequest("type: must be sendout")
        return _json(await self._actions.check_sendout(command))

    async def show_sendout(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            sendout = await get_sendout(connection, sendout_id)
            rows = await sendout_views.list_problems(connection, sendout_id, limit=PAGE_SIZE + 1)
        problems, last = cut(rows, PAGE_SIZE)
        path = f"{request.url.path}/problems"
        return _json(
            {"sendout": sendout, "problems": problems},
            link_to(next_url(request, path, after=last.number) if last else None),
        )

    async def show_problems(self, request: Request) -> Response:
        """Return the refused, uncertain and deferred mails. The header `Link` leads to further ones."""
        sendout_id: UUID = request.path_params["id"]
        limit = parse_limit(request)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            rows = await sendout_views.list_problems(
                connection, sendout_id, limit=limit + 1, after=parse_after(request)
            )
        problems, last = cut(rows, limit)
        return _json(problems, link_to(next_url(request, after=last.number) if last else None))

    async def pause(self, request: Request) -> Response:
        """Pause the sendout and return it; its mails `in_flight` are still being sent."""
        return _json(await self._actions.pause(request.path_params["id"]))

    async def reschedule(self, request: Request) -> Response:
        """Change the start or the pace of the sendout and return it."""
        change = schedule_request.parse_json(await _read_json(request, MAX_RESCHEDULE_BYTES))
        return _json(await self._actions.reschedule(request.path_params["id"], change))

    async def cancel(self, request: Request) -> Response:
        return _json(await self._actions.cancel(request.path_params["id"]))

    async def show_uncertain(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            return _json([each async for each in uncertain.iter_mails(connection, sendout_id)])

    async def resolve_uncertain(self, request: Request) -> Response:
        """`{"resolution": "resend"}` resends all uncertain mails, `{"resolution": "accept"}` counts them as sent."""
        try:
            body = from_json(await _read_json(request, MAX_RESOLUTION_BYTES))
        except ValueError:
            raise InvalidRequest("not valid UTF-8 JSON") from None
        return _json(
            {"mails": await self._actions.resolve_uncertain(request.path_params["id"], parse_resolution(body))}
        )

    async def retry(self, request: Request) -> Response:
        """Retry mails of the sendout, and return how many they are, with the codes that they needed."""
        choice = parse_json(await _read_json(request, MAX_RETRY_BYTES))
        return _json(await self._actions.retry(request.path_params["id"], choice))

    # --- workers -----------------------------------------------------------------------------------------------------

    async def show_workers(self, _: Request) -> Response:
        """Return the workers, the roles that no live worker has, and the commands that wait for such a worker."""
        return _json(await self._workers.look())

    # --- recurring imports -------------------------------------------------------------------------------------------

    async def show_schedules(self, _: Request) -> Response:
        """Return the recurring imports, each with its last run."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await import_schedules.list_all(connection))

    async def show_schedule(self, request: Request) -> Response:
        """Return the recurring import and its last runs."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_schedule(connection, request.path_params["name"])
            runs = await import_schedules.list_runs(connection, found.name, limit=parse_limit(request))
        return _json({"schedule": found, "runs": runs})

    async def put_schedule(self, request: Request) -> Response:
        """Create or replace the recurring import. The body has `cron`, `zone` and the fields of an import command."""
        try:
            body = from_json(await _read_json(request, MAX_SCHEDULE_BYTES))
        except ValueError:
            raise InvalidRequest("not valid UTF-8 JSON") from None
        if not isinstance(body, dict):
            raise InvalidRequest("not a JSON object")
        try:
            name = parse_name(request.path_params["name"])
        except InvalidName as error:
            raise InvalidRequest(str(error)) from None
        return _json(await self._actions.put_schedule(name, parse_recurring(body)))

    async def change_schedule(self, change: ScheduleChange, request: Request) -> Response:
        """Pause, resume or run the recurring import, and return it."""
        return _json(await self._actions.change_schedule(request.path_params["name"], change))

    async def refuse_change(self, request: Request) -> Response:
        """Raise NotFound, with the changes that exist."""
        raise NotFound(f"there is no {request.path_params['change']}: use one of {', '.join(CHANGES)}")

    async def delete_schedule(self, request: Request) -> Response:
        """Delete the recurring import; what it has imported stays."""
        await self._actions.delete_schedule(request.path_params["name"])
        return Response(status_code=204)

    # --- imports ---------------------------------------------------------------------------------------------------

    async def show_import(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await get_import(connection, request.path_params["id"]))

    async def show_import_events(self, request: Request) -> Response:
        """Return the log of the import, oldest event first."""
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_import(connection, import_id)
            return _json(await imports.list_events(connection, import_id))

    async def cancel_import(self, request: Request) -> Response:
        """Cancel the import and return it; lines that it has committed stay."""
        return _json(await self._actions.cancel_import(request.path_params["id"]))

    async def retry_import(self, request: Request) -> Response:
        """Repeat a failed import with the changed options of the body. The response is that of a command."""
        new_id, changes = import_request.parse_json(await _read_json(request, MAX_RETRY_IMPORT_BYTES))
        return _accepted(await self._actions.retry_import(request.path_params["id"], changes, new_id=new_id))

    async def undo_import(self, request: Request) -> Response:
        """Undo an import. The body may be empty or have the new import's id. The response is that of a command."""
        new_id = import_request.parse_json_id(await _read_optional_json(request, MAX_RETRY_IMPORT_BYTES))
        return _accepted(await self._actions.undo_import(request.path_params["id"], new_id=new_id))

    async def download_rejected_lines(self, request: Request) -> Response:
        """Return the rejected lines as CSV, to be fixed and imported again.

        A slow client may take hours and must not hold a database connection all the time. Therefore each block of lines
        acquires a connection from the pool.
        """
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            job = await get_import(connection, import_id)
            await imports.list_first_rejections(
                connection, import_id, 1
            )  # a missing permission is reported before the response starts
        lines = streamed_rejections_csv(imports.iter_rejections(self._pool, import_id), job.columns)
        headers = {"Content-Disposition": f'attachment; filename="rejected-{import_id}.csv"'}
        return StreamingResponse(_in_blocks(lines), media_type="text/csv", headers=headers)


def state_filter(request: Request) -> StateFilter | None:
    """The state to filter sendouts by, from `?state=`. Raises InvalidRequest."""
    state = request.query_params.get("state") or None
    try:
        return parse_filter(state) if state else None
    except ValueError:
        raise InvalidRequest(f"state: must be one of {', '.join(STATE_FILTERS)}") from None


def parse_resolution(fields: object) -> Resolution:
    """Return how to resolve uncertain mails. Raises InvalidRequest."""
    match fields:
        case {"resolution": "resend"}:
            return "resend"
        case {"resolution": "accept"}:
            return "accept"
    raise InvalidRequest("resolution: must be resend or accept")


async def _read_json(request: Request, most_bytes: int) -> bytes:
    """Return the body of a JSON request. Raises UnsupportedType, TooLarge."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedType("the Content-Type must be application/json")
    return await read_all(request, most_bytes)


async def _read_optional_json(request: Request, most_bytes: int) -> bytes:
    """Return the body of a JSON request, or an empty object if the request has no body. Raises as `_read_json`."""
    if "content-type" in request.headers:
        return await _read_json(request, most_bytes) or b"{}"
    if await read_all(request, most_bytes):
        raise UnsupportedType("the Content-Type must be application/json")
    return b"{}"


def _accepted(command: Command) -> Response:
    """The response to a published command: where its import or sendout is, once a worker has recorded it."""
    location = f"/api{location_of(command)}"
    return JSONResponse({"id": str(command.id), "location": location}, 202, {"Location": location})


def _json(value: object, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), headers=headers, media_type="application/json")


async def _in_blocks(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    block: list[str] = []
    async for line in lines:
        block.append(line)
        if len(block) == LINES_PER_WRITE:
            yield "".join(block)
            block.clear()
    yield "".join(block)
