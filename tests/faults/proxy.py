"""A proxy that simulates a failing network: it forwards a port on 127.0.0.1 to a service, with faults chosen by a test.

    with FaultProxy(url) as proxy:   # `proxy.url` is the service's URL with the proxy's port
        proxy.stall(TO_SERVER)       # a black hole: no byte arrives, and neither end gets an error
        proxy.heal()                 # the stalled bytes arrive

The proxy runs in its own thread. Methods may be called from any thread and take effect before they return.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit

PIECE_BYTES = 65_536
CALL_SECONDS = 5
Direction = Literal["to server", "to client"]
TO_SERVER: Direction = "to server"
TO_CLIENT: Direction = "to client"
BOTH: tuple[Direction, ...] = (TO_SERVER, TO_CLIENT)


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    forgotten: bool = False
    loses_reply: bool = False
    left: dict[Direction, int] = field(default_factory=dict)
    """The number of bytes in each direction after which the link is cut."""

    def cut(self) -> None:
        """Reset the connection at both ends."""
        for writer in (self.client, self.server):
            writer.transport.abort()


class FaultProxy:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._service = parts.hostname or "", parts.port or 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: set[_Link] = set()
        self._open: dict[Direction, asyncio.Event] = {each: asyncio.Event() for each in BOTH}
        self._refusing = False
        self._delay = 0.0
        self._loses_reply_to: bytes | None = None
        self._odds: dict[bytes, float] = {}
        self._random = random.Random(7)
        self.replies_lost = self.cuts = 0
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(CALL_SECONDS)
        port = self._server.sockets[0].getsockname()[1]
        credentials, at, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl()
        self.heal()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CALL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)

    # --- faults ---

    def stall(self, *directions: Direction) -> None:
        """Stall all bytes (a black hole), by default in both directions, on old and new connections, until `heal`."""

        def shut() -> None:
            for each in directions or BOTH:
                self._open[each].clear()

        self._do(shut)

    def forget(self) -> None:
        """Make existing connections half-open: neither end ever receives anything again. New connections work."""

        def forget() -> None:
            for link in self._links:
                link.forgotten = True

        self._do(forget)

    def cut(self) -> None:
        """Reset all existing connections."""
        self._do(self._cut)

    def cut_after(self, octets: int, direction: Direction) -> None:
        """Reset each existing connection after this many more bytes."""

        def limit() -> None:
            for link in self._links:
                link.left[direction] = octets

        self._do(limit)

    def refuse(self) -> None:
        """Reset all existing connections, and each new one, until `heal`."""

        def refuse() -> None:
            self._refusing = True
            self._cut()

        self._do(refuse)

    def delay(self, seconds: float) -> None:
        """Delay all bytes, until `heal`."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def lose_reply(self, to: bytes = b"") -> None:
        """Forward the next request that contains `to`, then reset the connection instead of forwarding the reply."""
        self._do(lambda: setattr(self, "_loses_reply_to", to))

    def lose_replies(self, odds: Mapping[bytes, float]) -> None:
        """Lose replies at random, until `heal`. `odds` maps bytes to the share of the requests that contain them."""
        self._do(lambda: setattr(self, "_odds", dict(odds)))

    def heal(self) -> None:
        """End all faults. Stalled bytes arrive, because TCP sends them again."""

        def end_faults() -> None:
            self._refusing, self._delay, self._loses_reply_to, self._odds = False, 0.0, None, {}
            for each in self._open.values():
                each.set()

        self._do(end_faults)

    @property
    def connections(self) -> int:
        return len(self._links)

    # --- in the thread of the proxy ---

    def _do(self, what: Callable[[], object]) -> None:
        async def call() -> None:
            what()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(CALL_SECONDS)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._on_connect, "127.0.0.1", 0, backlog=1_024)

    async def _end(self) -> None:
        self._server.close()
        self._cut()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.wait([*passing, asyncio.create_task(asyncio.sleep(0))])

    def _cut(self) -> None:
        for link in self._links:
            link.cut()

    async def _on_connect(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._refusing:
            to_client.transport.abort()
            return
        await self._open[TO_SERVER].wait()
        try:
            from_server, to_server = await asyncio.open_connection(*self._service)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link(to_client, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._forward(link, TO_SERVER, from_client, to_server),
                self._forward(link, TO_CLIENT, from_server, to_client),
            )
        finally:
            self._links.discard(link)
            link.cut()

    async def _forward(
        self, link: _Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open[direction].wait()
                if not link.forgotten and not self._is_cut(link, direction, data):
                    writer.write(data)
                    await writer.drain()
            await self._open[direction].wait()
            if not link.forgotten:
                writer.write_eof()
                return
        if link.forgotten:
            await asyncio.Event().wait()

    def _draws_lost_reply(self, request: bytes) -> bool:
        if self._loses_reply_to is not None and self._loses_reply_to in request:
            self._loses_reply_to = None
            return True
        return any(words in request and self._random.random() < share for words, share in self._odds.items())

    def _is_cut(self, link: _Link, direction: Direction, data: bytes) -> bool:
        """Cut the link if its limit is reached within these bytes; return whether it was cut.

        The bytes before the limit are still forwarded.
        """
        if direction == TO_SERVER and self._draws_lost_reply(data):
            link.loses_reply = True
        elif direction == TO_CLIENT and link.loses_reply:
            self.replies_lost += 1
            link.cut()
            return True
        if (left := link.left.get(direction)) is None:
            return False
        link.left[direction] = left - len(data)
        if left >= len(data):
            return False
        writer = link.server if direction == TO_SERVER else link.client
        writer.write(data[:left])
        self.cuts += 1
        link.cut()
        return True
