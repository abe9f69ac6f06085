"""Authentication, cross-site protection and security headers, around the whole application.

Without a token the server listens on loopback only. Another site in the same browser can still send a POST request to
it, so such requests must come from our own pages. Another site can also let a DNS name of its own resolve to loopback
(DNS rebinding), so the server answers only requests to localhost.
"""

import hmac
import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.web.errors import error_response

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Health checks: they need no token, and their responses show only which parts are ready."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, a browser sends `Origin: null` with our own forms
}

# Numeric addresses are safe, because DNS rebinding needs a name.
_is_loopback = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE).fullmatch


class Guard:
    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._error(Request(scope)) or self._app
        await app(scope, receive, _with_headers(scope, send))

    def _error(self, request: Request) -> Response | None:
        if request.scope["path"] in OPEN_PATHS:
            return None
        if self._token and not self._has_token(request):
            return error_response(request, 401, ["authentication required (COUPONS_WEB_TOKEN)"], _challenge(request))
        if not self._token and not _is_loopback(request.headers.get("host", "")):
            return error_response(request, 421, ["without COUPONS_WEB_TOKEN, only requests to localhost are allowed"])
        if request.method not in SAFE_METHODS and not _is_same_origin(request):
            return error_response(request, 403, ["cross-site request blocked"])
        return _nul_error(request)

    def _has_token(self, request: Request) -> bool:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        given = ""
        if _is_api(request) and scheme.lower() == "bearer":
            given = credentials.strip()
        elif not _is_api(request) and scheme.lower() == "basic":
            given = _password(credentials)
        return hmac.compare_digest(given.encode(), self._token)


def _nul_error(request: Request) -> Response | None:
    """Return an error for a URL with a NUL character, which no text in PostgreSQL can contain."""
    if "\0" in request.scope["path"]:
        return error_response(request, 404, ["Not Found"])
    if b"\0" in unquote_to_bytes(request.scope["query_string"]):
        return error_response(request, 422, ["the query contains a NUL character"])
    return None


def _is_api(request: Request) -> bool:
    path: str = request.scope["path"]  # not request.url, which contains the client's Host header
    return path.startswith("/api/")


def _challenge(request: Request) -> dict[str, str]:
    scheme = "Bearer" if _is_api(request) else "Basic"
    return {"WWW-Authenticate": f'{scheme} realm="Coupon Manager", charset="UTF-8"'}


def _password(credentials: str) -> str:
    """Return the password from the Base64 of `user:password` (RFC 7617). Any user name is valid."""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:  # neither Base64 nor UTF-8
        return ""


def _is_same_origin(request: Request) -> bool:
    """Return whether the request comes from one of our pages, or from a program that uses the API.

    Browsers always send an origin with such requests; programs send none.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    if origin is not None:
        return origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    return _is_api(request)


def _with_headers(scope: Scope, send: Send) -> Send:
    # A new version's stylesheet must take effect at once, and pages must not stay on the disk of a shared computer.
    caching = "no-cache" if scope["path"].startswith("/static/") else "no-store"

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update({**HEADERS, "Cache-Control": caching})
        await send(message)

    return send_with_headers
