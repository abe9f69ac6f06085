"""`https:` sources: files on allowed hosts."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, HTTPSConnection, responses
from time import monotonic
from typing import Self
from urllib.parse import quote, unquote, urljoin, urlsplit

from coupons.sources.limits import SourceLimits
from coupons.sources.network import connect
from coupons.sources.source import Source, SourceError, SourceUnavailable, file_name
from coupons.sources.threads import run_in_thread

READ_SECONDS = 60
OPEN_SECONDS = 120
"""Time limit from the name lookup to the last header, including redirects. READ_SECONDS does not limit this time: a
host may send single bytes."""
MAX_REDIRECTS = 5
GATHER_BYTES = 262_144
GATHER_SECONDS = 1
"""Data are gathered for this time: TLS delivers 16 KiB at a time, and each call in a thread costs 0.1 ms."""

_HTTPS_PORT = 443
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRYABLE = frozenset({408, 425, 429, *range(500, 600)})
_SAFE_IN_URLS = "/%:@!$&'()*+,;=~?"


@asynccontextmanager
async def open_url(url: str, limits: SourceLimits) -> AsyncIterator[Source]:
    """The file at an `https:` URL. Leaving the context closes the connection and aborts pending reads.

    Raises:
        SourceError: the URL, an address of its host, a redirect, the certificate or the response is not acceptable.
        SourceUnavailable: the network or the host fails.
    """
    page = Page.parse(url, limits)
    exchange = await _follow_redirects(page, limits)
    try:
        yield Source(page.name, exchange.response.length, exchange.pieces(), page.host)
    finally:
        await exchange.close()


@dataclass(frozen=True, slots=True)
class Page:
    """An allowed URL. `name` is the file name, `target` is the path and query of the request."""

    url: str
    name: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, url: str, limits: SourceLimits, *, redirected: Self | None = None) -> Self:
        """Parse a URL. Raises SourceError unless it is an https URL of an allowed host, without a password.

        After a redirect, errors show the name of the first URL: the server chose the name of the second one.
        """
        try:
            url = urljoin(redirected.url, url) if redirected else url
            split = urlsplit(url)
            host, port = (split.hostname or "").rstrip("."), split.port or _HTTPS_PORT
        except ValueError:
            raise SourceError("the source is not a valid URL: malformed host or port") from None
        name = redirected.name if redirected else file_name(unquote(split.path), host)
        if split.scheme != "https":
            raise SourceError(f"{name}: the host redirects to a URL that is not https")
        if "@" in split.netloc:
            raise SourceError(f"{name}: a source URL must not contain a user or password")
        listed = f"[{host}]" if ":" in host else host
        if f"{listed}:{port}" not in limits.hosts and (port != _HTTPS_PORT or listed not in limits.hosts):
            raise SourceError(f"{name}: {listed}:{port} is not an allowed host (COUPONS_IMPORT_HOSTS)")
        query = f"?{quote(split.query, safe=_SAFE_IN_URLS)}" if split.query else ""
        return cls(url, name, host, port, quote(split.path or "/", safe=_SAFE_IN_URLS) + query)


class _Exchange:
    """One request and its response, over its own connection."""

    response: HTTPResponse

    def __init__(self, page: Page, connection: ssl.SSLSocket) -> None:
        self._page = page
        self._connection = connection
        self._closed = False

    async def request(self) -> None:
        await run_in_thread(self._request, interrupt=self._interrupt)

    def _request(self) -> None:
        self._connection.do_handshake()
        connection = HTTPSConnection(self._page.host, self._page.port, context=self._connection.context)
        connection.auto_open = 0  # never reconnect: a new connection would resolve the name again
        connection.sock = self._connection
        headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "coupon-manager"}
        connection.request("GET", self._page.target, headers=headers)
        self.response = connection.getresponse()

    async def pieces(self) -> AsyncIterator[bytes]:
        with _translate_network_errors(self._page):
            while piece := await run_in_thread(self._read, interrupt=self._interrupt):
                yield piece
        if self.response.length or self._closed:
            raise SourceUnavailable(f"{self._page.name}: {self._page.host} unreachable or connection lost")

    def _read(self) -> bytes:
        """Up to GATHER_BYTES, gathered for GATHER_SECONDS. Returns b"" at the end."""
        until = monotonic() + GATHER_SECONDS
        gathered = bytearray(self.response.read1(GATHER_BYTES))  # also after `until`, because b"" means the end
        while 0 < len(gathered) < GATHER_BYTES and monotonic() < until:
            if not (part := self.response.read1(GATHER_BYTES - len(gathered))):
                break
            gathered += part
        return bytes(gathered)

    async def close(self) -> None:
        self._interrupt()
        await run_in_thread(self._close)

    def _interrupt(self) -> None:
        """End a read in another thread immediately. SSLSocket's own shutdown() is not designed for this."""
        self._closed = True
        with suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def _close(self) -> None:
        if hasattr(self, "response"):
            self.response.close()
        self._connection.close()


async def _follow_redirects(page: Page, limits: SourceLimits) -> _Exchange:
    """The exchange that returns the file, after at most MAX_REDIRECTS redirects."""
    first = page
    with _translate_network_errors(first):
        async with asyncio.timeout(OPEN_SECONDS):
            for _ in range(1 + MAX_REDIRECTS):
                with _translate_network_errors(page):
                    exchange = await _exchange(page, limits)
                if exchange.response.status == _OK:
                    return exchange
                await exchange.close()
                page = _next_page(page, exchange.response, limits)
    raise SourceError(f"{first.name}: more than {MAX_REDIRECTS} redirects")


async def _exchange(page: Page, limits: SourceLimits) -> _Exchange:
    context = await run_in_thread(ssl.create_default_context)
    plain = await connect(page.host, page.port, private=limits.private_hosts)
    plain.settimeout(READ_SECONDS)
    # An end without a TLS close_notify is an error: a body of unknown length may be truncated. Some versions of Python,
    # such as Debian's 3.11.2, let OpenSSL 3 ignore such an end by default; OpenSSL 1.1 has no such option.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    secured = context.wrap_socket(
        plain, server_hostname=page.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    exchange = _Exchange(page, secured)
    try:
        await exchange.request()
    except BaseException:
        await exchange.close()
        raise
    return exchange


def _next_page(page: Page, response: HTTPResponse, limits: SourceLimits) -> Page:
    """The target of a redirect. Raises SourceError or SourceUnavailable for any other response."""
    status, location = response.status, response.headers["Location"]
    if status in _REDIRECTS and location:
        return Page.parse(location, limits, redirected=page)
    reason = f"{page.name}: {page.host} responded with {status} {responses.get(status, '')}".rstrip()
    raise SourceUnavailable(reason) if status in _RETRYABLE else SourceError(reason)


@contextmanager
def _translate_network_errors(page: Page) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SourceUnavailable(f"{page.name}: {page.host} timed out") from error
    except ssl.SSLCertVerificationError as error:
        raise SourceError(
            f"{page.name}: certificate verification failed for {page.host}: {error.verify_message}"
        ) from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a host such as a..b, or a closed file
        raise SourceUnavailable(f"{page.name}: {page.host} unreachable or connection lost") from error
