"""Postgres and RabbitMQ over TLS, as their URLs ask for it: verified, by name, or not at all."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coupons import broker, database
from coupons.broker import BrokerUnavailable
from coupons.database import DatabaseUnavailable
from tests.smtp_server import KEY_AND_CERTIFICATE, server_tls

SSL_REQUEST = 8
"""Octets with which a client asks a Postgres server for TLS; `S` is yes."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate of whoever signed the servers', for their name localhost."""
    file = tmp_path / "authority.pem"
    file.write_text(KEY_AND_CERTIFICATE)
    return file


@asynccontextmanager
async def behind_tls(url: str, *, asked: bool) -> AsyncIterator[str]:
    """The URL with another port, where the service speaks TLS; a client that is `asked` says first that it wants to."""
    service = urlsplit(url)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            if asked:
                await reader.readexactly(SSL_REQUEST)
                writer.write(b"S")
                await writer.start_tls(server_tls())
            inner_reader, inner_writer = await asyncio.open_connection(service.hostname, service.port)
            await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer))

    server = await asyncio.start_server(speak, "localhost", 0, ssl=None if asked else server_tls())
    port = server.sockets[0].getsockname()[1]
    credentials = service.netloc.rpartition("@")[0]
    try:
        yield service._replace(netloc=f"{credentials}@localhost:{port}").geturl()
    finally:
        server.close()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_database_is_verified_as_its_url_says(database_url: str, authority: Path) -> None:
    """`sslmode=verify-full` takes the server that its authority vouches for, by that name, and no other."""
    async with behind_tls(database_url, asked=True) as url:
        full = f"{url}?sslmode=verify-full"
        async with database.connected(f"{full}&sslrootcert={authority}") as connection:
            assert await connection.fetchval("SELECT 1") == 1
        other_name = full.replace("@localhost:", "@127.0.0.1:")
        for wrong in (f"{full}&sslrootcert=system", f"{other_name}&sslrootcert={authority}"):
            with pytest.raises(DatabaseUnavailable) as caught:
                async with database.connected(wrong):
                    pass
            assert str(urlsplit(url).password) not in str(caught.value)


async def test_database_without_tls_is_refused_where_it_is_asked_for(database_url: str, authority: Path) -> None:
    """A server that offers none is not talked to in clear."""
    with pytest.raises(DatabaseUnavailable):
        async with database.connected(f"{database_url}?sslmode=verify-full&sslrootcert={authority}"):
            pass


async def test_broker_is_verified(broker_url: str, authority: Path) -> None:
    """`amqps:` takes the broker that its `cafile` vouches for; without one the system's authorities have to."""
    async with behind_tls(broker_url, asked=False) as url:
        secured = url.replace("amqp://", "amqps://")
        async with broker.connect(f"{secured}?cafile={authority}", "coupons test") as connection:
            assert not connection.is_closed
        other_name = secured.replace("@localhost:", "@127.0.0.1:")
        for wrong in (secured, f"{other_name}?cafile={authority}"):
            with pytest.raises(BrokerUnavailable) as caught:
                async with broker.connect(wrong, "coupons test"):
                    pass
            assert str(urlsplit(url).password) not in str(caught.value)
