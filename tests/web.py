"""The console and the HTTP API as a test opens them, and what it does with them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr

from coupons import topology
from coupons.commands import Command, decode
from coupons.database import Connection, pooled
from coupons.settings import Settings
from coupons.store import inbox
from producers.web.app import build
from workers.intake import carry_out

OURS = {"Sec-Fetch-Site": "same-origin"}
"""What a browser says of a form on our own pages."""


@asynccontextmanager
async def opened(
    *, database_url: str, broker_url: str, token: str = "", import_max_bytes: int = 10**9
) -> AsyncIterator[AsyncClient]:
    """A client of a site with these settings."""
    settings = Settings(
        _env_file=None,
        broker_url=SecretStr(broker_url),
        web_token=SecretStr(token),
        import_max_bytes=import_max_bytes,
    )
    async with pooled(database_url, size=4) as pool:
        transport = ASGITransport(build(settings=settings, pool=pool), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            yield client


class Queues:
    """The queues that workers declare, with nobody taking commands out of them but the test."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def declare(self) -> None:
        connection = await aio_pika.connect(self._url)
        async with connection, connection.channel() as channel:
            await topology.declare(channel)

    async def commands(self) -> list[Command]:
        """Take out all that was published."""
        connection = await aio_pika.connect(self._url)
        async with connection, connection.channel() as channel:
            found = []
            for key in topology.COMMANDS:
                queue = await channel.get_queue(topology.queue_name(key))
                while message := await queue.get(no_ack=True, fail=False):
                    assert message.routing_key == key
                    found.append(decode(message.body))
            return found


async def note(connection: Connection, command: Command) -> None:
    """What a worker does with a command first."""
    async with connection.transaction():
        assert await inbox.accept(connection, command)
        await carry_out(connection, command, batch_size=1_000)


def errors(response: Response) -> str:
    reasons: list[str] = response.json()["errors"]
    return "; ".join(reasons)


async def upload(
    site: AsyncClient,
    content: bytes,
    *,
    to: str = "/lists/spring-10/imports",
    name: str = "codes.txt",
    fields: dict[str, str] | None = None,
) -> Response:
    data = {"mode": "add"} | (fields or {})
    return await site.post(to, data=data, files={"file": (name, content)}, headers=OURS)
