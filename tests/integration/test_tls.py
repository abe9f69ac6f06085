"""PostgreSQL and RabbitMQ over TLS: the certificate and its host name are verified as the URL requires."""

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
"""The length of PostgreSQL's SSLRequest; the server's reply `S` accepts it."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Return the certificate of the authority that signed the servers' certificates for the name localhost."""
    file = tmp_path / "authority.pem"
    file.write_text(KEY_AND_CERTIFICATE)
    return file


@asynccontextmanager
async def behind_tls(url: str, *, on_request: bool) -> AsyncIterator[str]:
    """Put the service behind TLS and yield its new URL. With `on_request`, TLS starts after an SSLRequest."""
    service = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            if on_request:
                await reader.readexactly(SSL_REQUEST)
                writer.write(b"S")
                await writer.start_tls(server_tls())
            inner_reader, inner_writer = await asyncio.open_connection(service.hostname, service.port)
            await asyncio.gather(forward(reader, inner_writer), forward(inner_reader, writer))

    server = await asyncio.start_server(serve, "localhost", 0, ssl=None if on_request else server_tls())
    port = server.sockets[0].getsockname()[1]
    credentials = service.netloc.rpartition("@")[0]
    try:
        yield service._replace(netloc=f"{credentials}@localhost:{port}").geturl()
    finally:
        server.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_the_certificate_of_the_database_is_verified(database_url: str, authority: Path) -> None:
    """`sslmode=verify-full` accepts only a certificate of the given authority for the given name."""
    async with behind_tls(database_url, on_request=True) as url:
        full = f"{url}?sslmode=verify-full"
        async with database.connect(f"{full}&sslrootcert={authority}") as connection:
            assert await connection.fetchval("SELECT 1") == 1
        other_name = full.replace("@localhost:", "@127.0.0.1:")
        for wrong in (f"{full}&sslrootcert=system", f"{other_name}&sslrootcert={authority}"):
            with pytest.raises(DatabaseUnavailable) as caught:
                async with database.connect(wrong):
                    pass
            assert str(urlsplit(url).password) not in str(caught.value)


async def test_a_database_without_tls_is_rejected_if_tls_is_required(database_url: str, authority: Path) -> None:
    """No password is sent in cleartext to a server without TLS."""
    with pytest.raises(DatabaseUnavailable):
        async with database.connect(f"{database_url}?sslmode=verify-full&sslrootcert={authority}"):
            pass


async def test_the_certificate_of_the_broker_is_verified(broker_url: str, authority: Path) -> None:
    """`amqps:` accepts a certificate signed by its `cafile`, or without one, by one of the system's authorities."""
    async with behind_tls(broker_url, on_request=False) as url:
        secured = url.replace("amqp://", "amqps://")
        async with broker.connect(f"{secured}?cafile={authority}", "coupons test") as connection:
            assert not connection.is_closed
        other_name = secured.replace("@localhost:", "@127.0.0.1:")
        for wrong in (secured, f"{other_name}?cafile={authority}"):
            with pytest.raises(BrokerUnavailable) as caught:
                async with broker.connect(wrong, "coupons test"):
                    pass
            assert str(urlsplit(url).password) not in str(caught.value)
