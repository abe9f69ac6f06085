"""A client of the console and the HTTP API, the queues behind them, and helpers for both."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr

from coupons import topology
from coupons.commands import Command, decode
from coupons.database import Connection, open_pool
from coupons.settings import Settings
from coupons.store import inbox
from producers.web.app import build
from workers.intake import apply_command

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
"""The header that a browser sends with a form of the console's own pages."""


@asynccontextmanager
async def web_client(
    *, database_url: str, broker_url: str, token: str = "", import_max_bytes: int = 10**9, activated: bool = True
) -> AsyncIterator[AsyncClient]:
    """Yield a client of the application with these settings."""
    settings = Settings(
        _env_file=None,
        broker_url=SecretStr(broker_url),
        web_token=SecretStr(token),
        import_max_bytes=import_max_bytes,
        activated=activated,
    )
    async with open_pool(database_url, size=4) as pool:
        transport = ASGITransport(build(settings=settings, pool=pool), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            yield client


class Queues:
    """The queues that workers declare. Only the test consumes their commands."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def declare(self) -> None:
        connection = await aio_pika.connect(self._url)
        async with connection, connection.channel() as channel:
            await topology.declare(channel)

    async def take_commands(self) -> list[Command]:
        """Remove and return all published commands."""
        connection = await aio_pika.connect(self._url)
        async with connection, connection.channel() as channel:
            commands = []
            for key in topology.COMMANDS:
                queue = await channel.get_queue(topology.queue_name(key))
                while message := await queue.get(no_ack=True, fail=False):
                    assert message.routing_key == key
                    commands.append(decode(message.body))
            return commands


async def consume(connection: Connection, command: Command) -> None:
    """Accept and carry out the command, as a worker does."""
    async with connection.transaction():
        assert await inbox.accept(connection, command)
        await apply_command(connection, command, batch_size=1_000)


def errors(response: Response) -> str:
    reasons: list[str] = response.json()["errors"]
    return "; ".join(reasons)


async def confirm(site: AsyncClient, response: Response, **fields: str) -> Response:
    """Confirm the numbers of a page that reviews an import."""
    assert response.status_code == 200, response.text
    (command,) = re.findall(r'name="command" value="([^"]+)"', response.text)
    data = {"command": html.unescape(command), "confirmed": "yes", **fields}
    return await site.post("/imports/confirm", data=data, headers=SAME_ORIGIN)


async def upload(
    site: AsyncClient,
    content: bytes,
    *,
    to: str = "/lists/spring-10/imports",
    name: str = "codes.txt",
    fields: dict[str, str] | None = None,
) -> Response:
    data = {"mode": "add"} | (fields or {})
    return await site.post(to, data=data, files={"file": (name, content)}, headers=SAME_ORIGIN)
