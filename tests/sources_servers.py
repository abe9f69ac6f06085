"""Servers for sources: a web server with scripted, possibly invalid responses, and an S3 server."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

BUCKET = "shop"


@dataclass(frozen=True, slots=True)
class Reply:
    """The response to a request. The Content-Length is correct by default, and omitted if it is negative."""

    body: bytes = b""
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    declared_length: int | None = None
    chunked: bool = False
    then: str = "close"
    """`close` ends the connection normally, `cut` resets it, and with `hang` no more data are sent."""

    def __bytes__(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status}", *self.headers]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.declared_length is None or self.declared_length >= 0:
            lines.append(f"Content-Length: {len(self.body) if self.declared_length is None else self.declared_length}")
        return "\r\n".join([*lines, "", ""]).encode() + (_chunks(self.body) if self.chunked else self.body)


def _chunks(body: bytes) -> bytes:
    parts = [body[start : start + 1_000] for start in range(0, len(body), 1_000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def redirect(location: str, status: str = "302 Found") -> Reply:
    return Reply(status=status, headers=(f"Location: {location}",))


@dataclass
class WebServer:
    """A web server. `replies` maps paths without the query to replies.

    A reply of plain bytes is sent unchanged, and the connection stays open.
    """

    replies: Mapping[str, Reply | bytes]
    port: int = 0
    requests: list[str] = field(default_factory=list)
    """The head of each request: its request line and headers."""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has closed a hanging connection."""

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        reply = self.replies.get(head.split()[1].partition("?")[0], Reply(status="404 Not Found"))
        writer.write(bytes(reply))
        then = reply.then if isinstance(reply, Reply) else "hang"
        if then == "hang":
            self.hanging.set()
            with suppress(ConnectionError, ssl.SSLError):
                await reader.read()
            self.disconnected.set()
        await writer.drain()
        if then == "cut":
            writer.transport.abort()


@asynccontextmanager
async def web_server(
    replies: Mapping[str, Reply | bytes], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebServer]:
    web = WebServer(replies)
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=tls, family=socket.AF_INET)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()


@contextmanager
def object_store() -> Iterator[str]:
    """Yield the URL of an in-memory S3 server with the bucket BUCKET."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        call(f"{url}/{BUCKET}", "PUT")
        yield url
    finally:
        server.stop()


def call(url: str, method: str, body: bytes = b"") -> None:
    with urlopen(Request(url, body, {"Content-Type": "application/octet-stream"}, method=method)):
        pass
