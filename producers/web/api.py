"""The HTTP API: JSON in the shapes of the contract and of the command line's `--json`."""

from collections.abc import AsyncIterator
from uuid import UUID

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from coupons.commands import MAX_COMMAND_BYTES, decode
from coupons.database import Pool
from coupons.files.rejections import streamed_rejections_csv
from coupons.sources.source import file_name
from coupons.store import groups, imports, lists, sendout_views, uncertain
from coupons.store.uncertain import Resolution
from producers.web import ACQUIRE_SECONDS
from producers.web.actions import Desk, location_of
from producers.web.errors import InvalidRequest, UnsupportedType
from producers.web.lookups import group_of, import_of, list_of, sendout_of
from producers.web.request_body import limited, whole

STATES = ("queued", "preparing", "interrupted", "sending", "paused", "finished", "cancelled", "failed")
LINES_AT_ONCE = 1_000
MAX_DECISION_BYTES = 1_000


class Api:
    def __init__(self, *, pool: Pool, desk: Desk, import_max_bytes: int) -> None:
        self._pool = pool
        self._desk = desk
        self._import_max_bytes = import_max_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/commands", self.take_command, methods=["POST"]),
            Route("/uploads", self.take_file, methods=["POST"]),
            Route("/lists", self.all_lists),
            Route("/lists/{name}/imports", self.imports_of_list),
            Route("/groups", self.all_groups),
            Route("/groups/{name}/imports", self.imports_of_group),
            Route("/sendouts", self.outbox),
            Route("/sendouts/{id:uuid}", self.sendout),
            Route("/sendouts/{id:uuid}/pause", self.pause, methods=["POST"]),
            Route("/sendouts/{id:uuid}/cancel", self.cancel, methods=["POST"]),
            Route("/sendouts/{id:uuid}/uncertain", self.uncertain),
            Route("/sendouts/{id:uuid}/uncertain", self.resolve, methods=["POST"]),
            Route("/imports/{id:uuid}", self.import_job),
            Route("/imports/{id:uuid}/events", self.import_events),
            Route("/imports/{id:uuid}/cancel", self.cancel_import, methods=["POST"]),
            Route("/imports/{id:uuid}/rejections.csv", self.rejections),
        ]

    async def take_command(self, request: Request) -> Response:
        """202: published; what it is about is at `location` as soon as a worker has noted it."""
        command = decode(await _json_in(request, MAX_COMMAND_BYTES))
        await self._desk.submit(command)
        location = f"/api{location_of(command)}"
        return JSONResponse({"id": str(command.id), "location": location}, 202, {"Location": location})

    async def take_file(self, request: Request) -> Response:
        """201: the body is kept as a file called `name`; an import command says where it is by its `source`."""
        name = file_name(request.query_params.get("name", ""), default="upload")
        kept = await self._desk.keep(name, limited(request, self._import_max_bytes))
        return JSONResponse({"id": str(kept.id), "source": f"upload:{kept.id}", "bytes": kept.bytes}, 201)

    # --- lists and groups ------------------------------------------------------------------------------------------

    async def all_lists(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await lists.all_of(connection, archived=False))

    async def imports_of_list(self, request: Request) -> Response:
        """The newest ones."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await list_of(connection, request.path_params["name"])
            return _json(await imports.of_list(connection, found.name))

    async def all_groups(self, _: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await groups.all_of(connection))

    async def imports_of_group(self, request: Request) -> Response:
        """The newest ones."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await group_of(connection, request.path_params["name"])
            return _json(await imports.of_group(connection, found.name))

    # --- sendouts --------------------------------------------------------------------------------------------------

    async def outbox(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await sendout_views.newest(connection, state=status_in(request)))

    async def sendout(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            sendout = await sendout_of(connection, sendout_id)
            return _json({"sendout": sendout, "problems": await sendout_views.problems(connection, sendout_id)})

    async def pause(self, request: Request) -> Response:
        """The sendout as it is then; mails `in_flight` are still being sent."""
        return _json(await self._desk.pause(request.path_params["id"]))

    async def cancel(self, request: Request) -> Response:
        return _json(await self._desk.cancel(request.path_params["id"]))

    async def uncertain(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            return _json([each async for each in uncertain.listed(connection, sendout_id)])

    async def resolve(self, request: Request) -> Response:
        """`{"how": "resend"}` sends all uncertain mails again, `{"how": "accept"}` counts them as sent."""
        try:
            decision = from_json(await _json_in(request, MAX_DECISION_BYTES))
        except ValueError:
            raise InvalidRequest("not valid UTF-8 JSON") from None
        return _json({"mails": await self._desk.resolve(request.path_params["id"], resolution_in(decision))})

    # --- imports ---------------------------------------------------------------------------------------------------

    async def import_job(self, request: Request) -> Response:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return _json(await import_of(connection, request.path_params["id"]))

    async def import_events(self, request: Request) -> Response:
        """Its log, from the beginning."""
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await import_of(connection, import_id)
            return _json(await imports.events(connection, import_id))

    async def cancel_import(self, request: Request) -> Response:
        """The import as it is then; what it has committed stays."""
        return _json(await self._desk.cancel_import(request.path_params["id"]))

    async def rejections(self, request: Request) -> Response:
        """The lines that were not taken, to be mended and imported again.

        Read from the pool: a client may take hours over them and must not hold a connection for so long.
        """
        import_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            job = await import_of(connection, import_id)
            await imports.first_rejections(connection, import_id, 1)  # who may not see them is told before it begins
        lines = streamed_rejections_csv(imports.rejections(self._pool, import_id), job.columns)
        headers = {"Content-Disposition": f'attachment; filename="rejected-{import_id}.csv"'}
        return StreamingResponse(_in_pieces(lines), media_type="text/csv", headers=headers)


def status_in(request: Request) -> str | None:
    """The status to filter by. Raises InvalidRequest."""
    status = request.query_params.get("status") or None
    if status is not None and status not in STATES:
        raise InvalidRequest(f"status is one of {', '.join(STATES)}")
    return status


def resolution_in(decision: object) -> Resolution:
    """What is to become of uncertain mails. Raises InvalidRequest."""
    match decision:
        case {"how": "resend"}:
            return "resend"
        case {"how": "accept"}:
            return "accept"
    raise InvalidRequest("how is resend or accept")


async def _json_in(request: Request, most_bytes: int) -> bytes:
    """Raises UnsupportedType, TooLarge."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedType("the body must be application/json")
    return await whole(request, most_bytes)


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")


async def _in_pieces(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    held: list[str] = []
    async for line in lines:
        held.append(line)
        if len(held) == LINES_AT_ONCE:
            yield "".join(held)
            held.clear()
    yield "".join(held)
