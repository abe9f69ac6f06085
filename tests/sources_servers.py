"""Servers that files are fetched from: one that answers as it is told, however badly, and one that speaks S3."""

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
    """What comes of a request. `says` is the Content-Length, by default the true one, and none if negative."""

    body: bytes = b""
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    says: int | None = None
    chunked: bool = False
    then: str = "close"
    """`close`: the end, in good order; `cut`: the connection is reset; `hang`: nothing more comes."""

    def __bytes__(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status}", *self.headers]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.says is None or self.says >= 0:
            lines.append(f"Content-Length: {len(self.body) if self.says is None else self.says}")
        return "\r\n".join([*lines, "", ""]).encode() + (_chunks(self.body) if self.chunked else self.body)


def _chunks(body: bytes) -> bytes:
    parts = [body[start : start + 1_000] for start in range(0, len(body), 1_000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def redirect(location: str, status: str = "302 Found") -> Reply:
    return Reply(status=status, headers=(f"Location: {location}",))


@dataclass
class WebServer:
    """`replies` by path, without the query; a reply of plain bytes is sent as it is, and nothing more comes."""

    replies: Mapping[str, Reply | bytes]
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """The heads of the requests."""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has gone from a connection that hangs."""

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
        self.asked.append(head)
        reply = self.replies.get(head.split()[1].partition("?")[0], Reply(status="404 Not Found"))
        writer.write(bytes(reply))
        then = reply.then if isinstance(reply, Reply) else "hang"
        if then == "hang":
            self.hanging.set()
            with suppress(ConnectionError, ssl.SSLError):
                await reader.read()
            self.left.set()
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
    """The URL of an S3 server in memory, with a bucket of the name BUCKET."""
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
