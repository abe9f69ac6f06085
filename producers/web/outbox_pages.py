"""The console's Outbox. Pages are whole without JavaScript; with it, progress is fetched every second."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coupons.commands import ResumeSendout
from coupons.database import Connection, Pool
from coupons.errors import Conflict
from coupons.store import inbox, restore_guard, sendout_views
from coupons.store.sendout_views import RESUMABLE, Sendout
from producers.web import ACQUIRE_SECONDS
from producers.web.actions import Desk, location_of
from producers.web.api import STATES, resolution_in, status_in
from producers.web.errors import InvalidRequest
from producers.web.lookups import sendout_of
from producers.web.request_body import fields_of
from producers.web.templating import page


class Pages:
    def __init__(self, *, pool: Pool, desk: Desk) -> None:
        self._pool = pool
        self._desk = desk

    def routes(self) -> list[Route]:
        return [
            Route("/", self.outbox),
            Route("/sendouts/{id:uuid}", self.sendout),
            Route("/sendouts/{id:uuid}/resume", self.resume, methods=["POST"]),
            Route("/sendouts/{id:uuid}/pause", self.pause, methods=["POST"]),
            Route("/sendouts/{id:uuid}/cancel", self.cancel, methods=["POST"]),
            Route("/sendouts/{id:uuid}/uncertain", self.resolve, methods=["POST"]),
        ]

    async def outbox(self, request: Request) -> Response:
        status = status_in(request)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await sendout_views.newest(connection, state=status)
            refusal = await restore_guard.refusal(connection)
        live = not all(sendout.ended for sendout in found)
        return page("outbox.html", live=live, sendouts=found, chosen=status, states=STATES, refusal=refusal)

    async def sendout(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await sendout_of(connection, sendout_id)
            problems = await sendout_views.problems(connection, sendout_id)
            resuming = await _resuming(connection, found, request.query_params.get("command", ""))
        live = resuming == "requested" or not found.ended or found.in_flight > 0
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


def _see(sendout: Sendout) -> Response:
    return RedirectResponse(f"/sendouts/{sendout.id}", 303)


async def _resuming(connection: Connection, sendout: Sendout, command: str) -> str:
    """What became of the resume command that the page was asked with: requested, in vain, or nothing to be said."""
    command_id = _uuid(command)
    if command_id is None or sendout.state not in RESUMABLE:
        return ""
    try:
        return "in vain" if await inbox.is_known(connection, command_id) else "requested"
    except Conflict:
        return "in vain"


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
