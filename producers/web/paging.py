"""Which page of a long listing a request asks for, and the URL of the next one."""

from urllib.parse import urlencode
from uuid import UUID

from starlette.requests import Request

from coupons.paging import MAX_PAGE_SIZE, PAGE_SIZE
from producers.web.errors import InvalidRequest

MAX_NUMBER = 2**31 - 1


def parse_limit(request: Request, default: int = PAGE_SIZE) -> int:
    """Return the size of the page from `?limit=`. Raises InvalidRequest."""
    return _parse_number(request, "limit", 1, MAX_PAGE_SIZE, default)


def parse_after(request: Request) -> int:
    """Return the number after which the page begins, from `?after=`. Raises InvalidRequest."""
    return _parse_number(request, "after", 0, MAX_NUMBER, 0)


def parse_before(request: Request) -> UUID | None:
    """Return the id of the sendout or import before which the page begins, from `?before=`. Raises InvalidRequest."""
    text = request.query_params.get("before")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidRequest("before: must be a UUID") from None


def next_url(request: Request, path: str | None = None, **cursor: object) -> str:
    """Return the URL of the next page: that of this request with another cursor."""
    query = {**request.query_params, **cursor}
    return f"{path or request.url.path}?{urlencode({name: str(value) for name, value in query.items()})}"


def link_to(url: str | None) -> dict[str, str]:
    """Return the header that leads to the next page (RFC 8288); no header if this page is the last one."""
    return {"Link": f'<{url}>; rel="next"'} if url else {}


def _parse_number(request: Request, name: str, least: int, most: int, default: int) -> int:
    text = request.query_params.get(name)
    if not text:
        return default
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    raise InvalidRequest(f"{name}: must be an integer from {least:,} to {most:,}")
