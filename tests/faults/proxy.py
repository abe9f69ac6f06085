"""A network that fails: a port of 127.0.0.1 that leads to a service, and does to the bytes what a test says.

    with FaultProxy(url) as proxy:   # `proxy.url` is the service's, with the proxy's port in it
        proxy.stall(TO_SERVER)       # a black hole: nothing arrives, nobody is told
        proxy.heal()                 # what TCP held back arrives

It runs in a thread of its own; each method may be called from any thread and has happened when it returns.
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
    """Bytes until it is cut."""

    def cut(self) -> None:
        """Both ends get a reset."""
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

    # --- what goes wrong ---

    def stall(self, *directions: Direction) -> None:
        """A black hole, by default in both directions: nothing passes, new connections neither, until `heal`."""

        def shut() -> None:
            for each in directions or BOTH:
                self._open[each].clear()

        self._do(shut)

    def forget(self) -> None:
        """Half-open: of the connections that there are neither end hears anything ever again. New ones pass."""

        def forget() -> None:
            for link in self._links:
                link.forgotten = True

        self._do(forget)

    def cut(self) -> None:
        """Reset the connections that there are."""
        self._do(self._cut)

    def cut_after(self, octets: int, direction: Direction) -> None:
        """Reset each of the connections that there are after so many more bytes."""

        def limit() -> None:
            for link in self._links:
                link.left[direction] = octets

        self._do(limit)

    def refuse(self) -> None:
        """Reset all connections, and new ones at once, until `heal`."""

        def refuse() -> None:
            self._refusing = True
            self._cut()

        self._do(refuse)

    def delay(self, seconds: float) -> None:
        """Every piece comes later by so much, until `heal`."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def lose_reply(self, to: bytes = b"") -> None:
        """The next request with `to` in it arrives; its answer does not, the connection is reset instead."""
        self._do(lambda: setattr(self, "_loses_reply_to", to))

    def lose_replies(self, odds: Mapping[bytes, float]) -> None:
        """The same by chance, again and again, until `heal`: of each request with such bytes in it so many."""
        self._do(lambda: setattr(self, "_odds", dict(odds)))

    def heal(self) -> None:
        """From now on everything passes; what was stalled arrives, as TCP sends it again."""

        def pass_on() -> None:
            self._refusing, self._delay, self._loses_reply_to, self._odds = False, 0.0, None, {}
            for each in self._open.values():
                each.set()

        self._do(pass_on)

    @property
    def connections(self) -> int:
        return len(self._links)

    # --- in its own thread ---

    def _do(self, what: Callable[[], object]) -> None:
        async def call() -> None:
            what()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(CALL_SECONDS)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1_024)

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

    async def _connected(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
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
                self._pass_on(link, TO_SERVER, from_client, to_server),
                self._pass_on(link, TO_CLIENT, from_server, to_client),
            )
        finally:
            self._links.discard(link)
            link.cut()

    async def _pass_on(
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

    def _shall_lose_reply(self, request: bytes) -> bool:
        if self._loses_reply_to is not None and self._loses_reply_to in request:
            self._loses_reply_to = None
            return True
        return any(words in request and self._random.random() < share for words, share in self._odds.items())

    def _is_cut(self, link: _Link, direction: Direction, data: bytes) -> bool:
        """Whether the connection ends with this piece, of which a part may still have passed."""
        if direction == TO_SERVER and self._shall_lose_reply(data):
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
