"""`https:` sources: files of configured hosts."""

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

from coupons.sources.limits import Rules
from coupons.sources.network import connected
from coupons.sources.source import Source, SourceError, SourceInterrupted, file_name
from coupons.sources.threads import in_thread

READ_SECONDS = 60
OPEN_SECONDS = 120
"""From the name's look-up to the last header, redirects included: single bytes would keep READ_SECONDS at bay."""
MAX_REDIRECTS = 5
GATHER_BYTES = 262_144
GATHER_SECONDS = 1
"""What comes within is handed on together: TLS brings 16 KiB at a time, and each way into a thread costs 0.1 ms."""

_HTTPS_PORT = 443
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({408, 425, 429, *range(500, 600)})
_IN_URLS = "/%:@!$&'()*+,;=~?"


@asynccontextmanager
async def fetched(url: str, rules: Rules) -> AsyncIterator[Source]:
    """The file at an `https:` URL. Leaving the context closes its connection, and so ends whatever waits for it.

    Raises:
        SourceError: the URL, an address of its host, a redirect, the certificate or the answer is not what it must be.
        SourceInterrupted: the network's or the host's trouble.
    """
    page = Page.of(url, rules)
    exchange = await _answered(page, rules)
    try:
        yield Source(page.name, exchange.response.length, exchange.pieces())
    finally:
        await exchange.close()


@dataclass(frozen=True, slots=True)
class Page:
    """A URL that may be fetched. `name` is its file's, `target` what the host is asked for."""

    url: str
    name: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str, rules: Rules, *, base: str = "") -> Self:
        """Raises SourceError for what is no https URL, names a host that is not configured, or holds a password."""
        try:
            url = urljoin(base, url)
            split = urlsplit(url)
            host, port = (split.hostname or "").rstrip("."), split.port or _HTTPS_PORT
        except ValueError:
            raise SourceError("the source is not a URL: its host or port is malformed") from None
        name = file_name(unquote(split.path), host)
        if split.scheme != "https":
            raise SourceError(f"{name}: a source of https: that leads to {split.scheme}: is not taken")
        if "@" in split.netloc:
            raise SourceError(f"{name}: a source's URL may hold neither user nor password")
        listed = f"[{host}]" if ":" in host else host
        if f"{listed}:{port}" not in rules.hosts and (port != _HTTPS_PORT or listed not in rules.hosts):
            raise SourceError(
                f"{name}: {listed}:{port} is not among the hosts of https: sources (COUPONS_IMPORT_HOSTS)"
            )
        query = f"?{quote(split.query, safe=_IN_URLS)}" if split.query else ""
        return cls(url, name, host, port, quote(split.path or "/", safe=_IN_URLS) + query)


class _Exchange:
    """One request and what comes of it, over a connection of its own."""

    response: HTTPResponse

    def __init__(self, page: Page, connection: ssl.SSLSocket) -> None:
        self._page = page
        self._connection = connection
        self._left = False

    async def ask(self) -> None:
        await in_thread(self._ask, interrupt=self._interrupt)

    def _ask(self) -> None:
        self._connection.do_handshake()
        connection = HTTPSConnection(self._page.host, self._page.port, context=self._connection.context)
        connection.auto_open = 0  # never by itself: it would look the name up again
        connection.sock = self._connection
        headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "coupon-manager"}
        connection.request("GET", self._page.target, headers=headers)
        self.response = connection.getresponse()

    async def pieces(self) -> AsyncIterator[bytes]:
        with _told(self._page):
            while piece := await in_thread(self._read, interrupt=self._interrupt):
                yield piece
        if self.response.length or self._left:
            raise SourceInterrupted(f"{self._page.name}: {self._page.host} cannot be reached or broke off")

    def _read(self) -> bytes:
        """GATHER_BYTES, or what has come when GATHER_SECONDS are over; b"" at the end."""
        gathered, until = bytearray(), monotonic() + GATHER_SECONDS
        while len(gathered) < GATHER_BYTES and monotonic() < until:
            if not (part := self.response.read1(GATHER_BYTES - len(gathered))):
                break
            gathered += part
        return bytes(gathered)

    async def close(self) -> None:
        self._interrupt()
        await in_thread(self._close)

    def _interrupt(self) -> None:
        """Ends what waits in another thread at once; SSLSocket's own shutdown() is not made for that."""
        self._left = True
        with suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def _close(self) -> None:
        if hasattr(self, "response"):
            self.response.close()
        self._connection.close()


async def _answered(page: Page, rules: Rules) -> _Exchange:
    """The exchange that ends in a file, after at most MAX_REDIRECTS others."""
    first = page
    with _told(first):
        async with asyncio.timeout(OPEN_SECONDS):
            for _ in range(1 + MAX_REDIRECTS):
                with _told(page):
                    exchange = await _asked(page, rules)
                if exchange.response.status == _OK:
                    return exchange
                await exchange.close()
                page = _next_page(page, exchange.response, rules)
    raise SourceError(f"{first.name}: more than {MAX_REDIRECTS} redirects are not followed")


async def _asked(page: Page, rules: Rules) -> _Exchange:
    context = await in_thread(ssl.create_default_context)
    plain = await connected(page.host, page.port, private=rules.private_hosts)
    plain.settimeout(READ_SECONDS)
    # An end without TLS's own farewell is an error: a body of unknown length may have been cut short.
    secured = context.wrap_socket(
        plain, server_hostname=page.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    exchange = _Exchange(page, secured)
    try:
        await exchange.ask()
    except BaseException:
        await exchange.close()
        raise
    return exchange


def _next_page(page: Page, response: HTTPResponse, rules: Rules) -> Page:
    """Where a response that is no file leads."""
    status, location = response.status, response.headers["Location"]
    if status in _REDIRECTS and location:
        return Page.of(location, rules, base=page.url)
    answer = f"{page.name}: {page.host} answers {status} {responses.get(status, '')}".rstrip()
    raise SourceInterrupted(answer) if status in _LATER else SourceError(answer)


@contextmanager
def _told(page: Page) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SourceInterrupted(f"{page.name}: {page.host} takes too long") from error
    except ssl.SSLCertVerificationError as error:
        raise SourceError(
            f"{page.name}: the certificate of {page.host} does not hold: {error.verify_message}"
        ) from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a host such as a..b; a file just closed
        raise SourceInterrupted(f"{page.name}: {page.host} cannot be reached or broke off") from error
