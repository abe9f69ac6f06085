"""Who may ask: the first thing that each request meets, and the headers that each answer carries.

Without a token the server listens on loopback only. What threatens it there are other sites in the same browser: they
may post to it (so a post must come from its own pages) or give it a name of theirs (so it answers to no name but
localhost).
"""

import hmac
import re
from base64 import b64decode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.web.errors import told

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""For probes: they hold no token, and are told nothing but yes or no."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, a browser sends `Origin: null` to our own forms
}

# An address written as one cannot be pointed elsewhere by a name server, a name can.
_is_loopback = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE).fullmatch


class Guard:
    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, _with_headers(scope, send))

    def _refusal(self, request: Request) -> Response | None:
        if request.scope["path"] in OPEN_PATHS:
            return None
        if self._token and not self._knows_token(request):
            return told(request, 401, ["the token is needed (COUPONS_WEB_TOKEN)"], _challenge(request))
        if not self._token and not _is_loopback(request.headers.get("host", "")):
            return told(request, 421, ["without COUPONS_WEB_TOKEN, this answers only to localhost"])
        if request.method not in READING and not _is_from_here(request):
            return told(request, 403, ["refused: this does not come from one of our own pages"])
        return None

    def _knows_token(self, request: Request) -> bool:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        given = ""
        if _is_api(request) and scheme.lower() == "bearer":
            given = credentials.strip()
        elif not _is_api(request) and scheme.lower() == "basic":
            given = _password(credentials)
        return hmac.compare_digest(given.encode(), self._token)


def _is_api(request: Request) -> bool:
    path: str = request.scope["path"]  # not request.url, which is made of the Host that the client sends
    return path.startswith("/api/")


def _challenge(request: Request) -> dict[str, str]:
    scheme = "Bearer" if _is_api(request) else "Basic"
    return {"WWW-Authenticate": f'{scheme} realm="Coupon Manager", charset="UTF-8"'}


def _password(credentials: str) -> str:
    """Of `user:password` in Base64 (RFC 7617); the user's name may be anything."""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:  # neither Base64 nor UTF-8
        return ""


def _is_from_here(request: Request) -> bool:
    """Whether one of our own pages sent it; for the API also whether it is no browser, which would say its origin."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    if origin is not None:
        return origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    return _is_api(request)


def _with_headers(scope: Scope, send: Send) -> Send:
    # A new version's style must show at once; what the console says must not stay on the disk of a shared computer.
    caching = "no-cache" if scope["path"].startswith("/static/") else "no-store"

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update({**HEADERS, "Cache-Control": caching})
        await send(message)

    return send_with_headers
