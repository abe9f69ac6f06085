"""The console's Outbox. Its pages work without JavaScript; with JavaScript they are updated every second."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coupons.commands import ResumeSendout
from coupons.database import Connection, Pool
from coupons.errors import Conflict
from coupons.paging import PAGE_SIZE, cut
from coupons.states import STATE_FILTERS
from coupons.store import inbox, restore_guard, sendout_views
from coupons.store.sendout_views import RESUMED_STATES, Sendout
from producers.web import ACQUIRE_SECONDS, schedule_request
from producers.web.actions import Actions, location_of
from producers.web.api import parse_resolution, state_filter
from producers.web.errors import InvalidRequest
from producers.web.lookups import get_sendout
from producers.web.paging import next_url, parse_after, parse_before
from producers.web.request_body import read_form
from producers.web.retry_request import parse_form
from producers.web.templating import page
from producers.web.workers_view import WorkersView


class OutboxPages:
    def __init__(self, *, pool: Pool, actions: Actions, workers: WorkersView) -> None:
        self._pool = pool
        self._actions = actions
        self._workers = workers

    def routes(self) -> list[Route]:
        return [
            Route("/", self.show_outbox),
            Route("/sendouts/{id:uuid}", self.show_sendout),
            Route("/sendouts/{id:uuid}/resume", self.resume, methods=["POST"]),
            Route("/sendouts/{id:uuid}/pause", self.pause, methods=["POST"]),
            Route("/sendouts/{id:uuid}/reschedule", self.reschedule, methods=["POST"]),
            Route("/sendouts/{id:uuid}/cancel", self.cancel, methods=["POST"]),
            Route("/sendouts/{id:uuid}/uncertain", self.resolve_uncertain, methods=["POST"]),
            Route("/sendouts/{id:uuid}/retry", self.retry, methods=["POST"]),
        ]

    async def show_outbox(self, request: Request) -> Response:
        state = state_filter(request)
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            rows = await sendout_views.list_newest(
                connection, state=state, limit=PAGE_SIZE + 1, before=parse_before(request)
            )
            refusal = await restore_guard.refusal(connection)
        workers = await self._workers.look()
        found, last = cut(rows, PAGE_SIZE)
        live = not all(sendout.ended for sendout in found)
        more = next_url(request, before=last.id) if last else None
        return page(
            "outbox.html",
            live=live,
            more=more,
            sendouts=found,
            chosen=state,
            states=STATE_FILTERS,
            refusal=refusal,
            workers=workers,
        )

    async def show_sendout(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await get_sendout(connection, sendout_id)
            rows = await sendout_views.list_problems(
                connection, sendout_id, limit=PAGE_SIZE + 1, after=parse_after(request)
            )
            resume = await _resume_progress(connection, found, request.query_params.get("command", ""))
        workers = await self._workers.look() if resume == "requested" else None
        problems, last = cut(rows, PAGE_SIZE)
        more = f"{next_url(request, after=last.number)}#problems" if last else None
        live = resume == "requested" or not found.ended or found.in_flight > 0
        return page(
            "sendout.html", live=live, more=more, sendout=found, problems=problems, resume=resume, workers=workers
        )

    async def resume(self, request: Request) -> Response:
        """Publish a resume command. Its id is in the form, so a second click publishes the same command."""
        command_id = _parse_uuid((await read_form(request)).get("command", ""))
        if command_id is None:
            raise InvalidRequest("command: must be a UUID")
        command = ResumeSendout(id=command_id, sendout=request.path_params["id"])
        await self._actions.submit(command)
        return RedirectResponse(f"{location_of(command)}?command={command.id}", 303)

    async def pause(self, request: Request) -> Response:
        return _redirect_to(await self._actions.pause(request.path_params["id"]))

    async def reschedule(self, request: Request) -> Response:
        change = schedule_request.parse_form(await read_form(request))
        return _redirect_to(await self._actions.reschedule(request.path_params["id"], change))

    async def cancel(self, request: Request) -> Response:
        return _redirect_to(await self._actions.cancel(request.path_params["id"]))

    async def resolve_uncertain(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        await self._actions.resolve_uncertain(sendout_id, parse_resolution(await read_form(request)))
        return RedirectResponse(f"/sendouts/{sendout_id}", 303)

    async def retry(self, request: Request) -> Response:
        sendout_id: UUID = request.path_params["id"]
        await self._actions.retry(sendout_id, parse_form(await read_form(request)))
        return RedirectResponse(f"/sendouts/{sendout_id}", 303)


def _redirect_to(sendout: Sendout) -> Response:
    return RedirectResponse(f"/sendouts/{sendout.id}", 303)


async def _resume_progress(connection: Connection, sendout: Sendout, command: str) -> str:
    """Return "requested" or "processed" for the resume command; "" without one, while the resume waits for imports, and
    once the sendout is resumed.
    """
    command_id = _parse_uuid(command)
    if command_id is None or sendout.is_waiting or sendout.state not in RESUMED_STATES:
        return ""
    try:
        return "processed" if await inbox.is_known(connection, command_id) else "requested"
    except Conflict:
        return "processed"


def _parse_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
