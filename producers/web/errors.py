"""Errors of requests and their responses."""

import structlog
from asyncpg import InsufficientPrivilegeError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from coupons.broker import BrokerUnavailable
from coupons.commands import InvalidCommand
from coupons.database import TRANSIENT_ERRORS, DatabaseUnavailable
from coupons.errors import UserError
from coupons.foreign_errors import error_location
from coupons.paging import UnknownCursor
from coupons.permission_errors import denial
from producers.web.templating import page

log = structlog.get_logger()


class InvalidRequest(UserError):
    """The request is malformed."""


class NotFound(UserError):
    """The resource does not exist, or not yet: sendouts and imports exist once a worker has recorded their command."""


class TooLarge(UserError):
    """The body exceeds its limit; the rest of it was not read."""


class UnsupportedType(UserError):
    """The endpoint does not accept the content type of the body."""


def error_response(
    request: Request, status: int, reasons: list[str], headers: dict[str, str] | None = None
) -> Response:
    """Return `{"errors": […]}` to clients of the API, and a page to users of the console."""
    if request.scope["path"].startswith("/api/"):
        return JSONResponse({"errors": reasons}, status, headers)
    return page("error.html", status=status, headers=headers, reasons=reasons)


def _with_status(status: int) -> ExceptionHandler:
    async def handle(request: Request, error: Exception) -> Response:
        return error_response(request, status, [str(error)])

    return handle


async def _invalid_command(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidCommand)  # noqa: S101 - HANDLERS registers it for this class
    return error_response(request, 422, error.reasons)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - HANDLERS registers it for this class
    return error_response(request, error.status_code, [str(error.detail)], dict(error.headers or {}))


async def _client_disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # Starlette needs a response, although no client reads it


async def _unavailable(request: Request, error: Exception) -> Response:
    """Respond to a transient error with 503: the client may repeat the request, a command with the same id."""
    reason = str(error) if isinstance(error, UserError) else "the database is unavailable; please retry"
    log.warning("service unavailable", reason=reason, error=type(error).__name__)
    return error_response(request, 503, [reason], {"Retry-After": "2"})


async def _permission_denied(request: Request, error: Exception) -> Response:
    assert isinstance(error, InsufficientPrivilegeError)  # noqa: S101 - HANDLERS registers it for this class
    return error_response(request, 403, [denial(error)])


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("internal error", error=type(error).__name__, at=error_location(error))  # its text may contain codes
    return error_response(request, 500, ["internal error; see the server log"])


HANDLERS: dict[type[Exception], ExceptionHandler] = {
    InvalidCommand: _invalid_command,
    InvalidRequest: _with_status(422),
    UnknownCursor: _with_status(404),
    NotFound: _with_status(404),
    UnsupportedType: _with_status(415),
    TooLarge: _with_status(413),
    BrokerUnavailable: _unavailable,
    DatabaseUnavailable: _unavailable,
    **dict.fromkeys(TRANSIENT_ERRORS, _unavailable),
    InsufficientPrivilegeError: _permission_denied,
    UserError: _with_status(409),  # mostly Conflict
    HTTPException: _http_error,
    ClientDisconnect: _client_disconnected,
    Exception: _internal_error,
}
"""Starlette picks the handler of the most specific class."""
