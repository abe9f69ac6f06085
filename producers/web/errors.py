"""What goes wrong while a request is answered, and what the other side is told about it."""

import traceback

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
from coupons.permission_errors import denial
from producers.web.templating import page

log = structlog.get_logger()


class InvalidRequest(UserError):
    """The request itself makes no sense."""


class NotFound(UserError):
    """There is no such thing, or not yet: a sendout or import is there once a worker has noted its command."""


class TooLarge(UserError):
    """A body is longer than is taken; the rest of it was not read."""


class UnsupportedType(UserError):
    """A body of another type than is taken."""


def told(request: Request, status: int, reasons: list[str], headers: dict[str, str] | None = None) -> Response:
    """`{"errors": […]}` for programs, a page for people."""
    if request.scope["path"].startswith("/api/"):
        return JSONResponse({"errors": reasons}, status, headers)
    return page("error.html", status=status, headers=headers, reasons=reasons)


def _as(status: int) -> ExceptionHandler:
    async def tell(request: Request, error: Exception) -> Response:
        return told(request, status, [str(error)])

    return tell


async def _invalid_command(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidCommand)  # noqa: S101 - so it is registered
    return told(request, 422, error.reasons)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - so it is registered
    return told(request, error.status_code, [str(error.detail)], dict(error.headers or {}))


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # the client has left: nobody reads it


async def _unavailable(request: Request, error: Exception) -> Response:
    """What passes: the same request may be made again, commands with the same id."""
    reason = str(error) if isinstance(error, UserError) else "the database does not answer; try again in a moment"
    log.warning("unavailable", reason=reason, error=type(error).__name__)
    return told(request, 503, [reason], {"Retry-After": "2"})


async def _denied(request: Request, error: Exception) -> Response:
    assert isinstance(error, InsufficientPrivilegeError)  # noqa: S101 - so it is registered
    return told(request, 403, [denial(error)])


async def _defect(request: Request, error: Exception) -> Response:
    frames = reversed(traceback.extract_tb(error.__traceback__)[-4:])
    at = " < ".join(f"{frame.name}:{frame.lineno}" for frame in frames)
    log.error("defect", error=type(error).__name__, at=at)  # not its text: that may hold codes
    return told(request, 500, ["this is a defect of the Coupon Manager; its log says where"])


HANDLERS: dict[type[Exception], ExceptionHandler] = {
    InvalidCommand: _invalid_command,
    InvalidRequest: _as(422),
    NotFound: _as(404),
    UnsupportedType: _as(415),
    TooLarge: _as(413),
    BrokerUnavailable: _unavailable,
    DatabaseUnavailable: _unavailable,
    **dict.fromkeys(TRANSIENT_ERRORS, _unavailable),
    InsufficientPrivilegeError: _denied,
    UserError: _as(409),  # Refused above all
    HTTPException: _http,
    ClientDisconnect: _gone,
    Exception: _defect,
}
"""By the most special class that an error has."""
