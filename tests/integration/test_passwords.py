"""Passwords with special characters at a real PostgreSQL and a real RabbitMQ, and what a wrong one prints."""

import secrets
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from coupons.broker import BrokerUnavailable, open_sender
from coupons.database import DatabaseUnavailable, connect, open_pool
from coupons.settings import Settings
from sandbox.rabbitmq import Broker

PASSWORD = "s3/cr#e?t@:%[]!$&'()*+,;= é"
AS_IT_IS = "s3cr@:%[]!$&'()*+,;= é"
"""A password that works in a URL without percent-encoding."""

ASCII, ASCII_AS_IT_IS = PASSWORD.replace("é", "e"), AS_IT_IS.replace("é", "e")
"""In a container, rabbitmqctl reads its arguments in the container's locale, which is not UTF-8."""


def with_login(url: str, name: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


@pytest.fixture
async def database_login(database_url: str) -> AsyncIterator[str]:
    name = f"coupons_test_{secrets.token_hex(6)}"
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    await owner.execute(f"DROP ROLE {name}")
    await owner.close()


@pytest.fixture
def broker_login(broker: Broker, broker_url: str) -> Iterator[str]:
    if not broker.control:
        pytest.skip("users are made with rabbitmqctl, and the broker at COUPONS_TEST_BROKER_URL has none here")
    name = f"coupons-test-{secrets.token_hex(4)}"
    broker.rabbitmqctl("add_user", name, ASCII)
    broker.rabbitmqctl("set_permissions", "-p", urlsplit(broker_url).path.removeprefix("/"), name, ".*", ".*", ".*")
    yield name
    broker.rabbitmqctl("delete_user", name)


@pytest.mark.parametrize(("password", "written"), [(PASSWORD, quote(PASSWORD, safe="")), (AS_IT_IS, AS_IT_IS)])
async def test_the_database_accepts_a_password_of_special_characters(
    password: str, written: str, database_url: str, database_login: str
) -> None:
    """The settings give asyncpg the password that the server has, for one connection and for a pool."""
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"ALTER ROLE {database_login} PASSWORD '{password.replace(chr(39), chr(39) * 2)}'")
    await owner.close()
    settings = Settings(_env_file=None, database_url=with_login(database_url, database_login, written))
    url = settings.database_url.get_secret_value()
    async with connect(url) as connection, open_pool(url, size=1) as pool:
        assert await connection.fetchval("SELECT current_user") == database_login
        assert await pool.fetchval("SELECT current_user") == database_login


async def test_the_broker_accepts_a_password_of_special_characters(
    broker: Broker, broker_url: str, broker_login: str
) -> None:
    """Encoded, every character works. Those that cannot end the password work as they are."""
    async with open_sender(with_login(broker_url, broker_login, quote(ASCII, safe=""))):
        pass
    broker.rabbitmqctl("change_password", broker_login, ASCII_AS_IT_IS)
    async with open_sender(with_login(broker_url, broker_login, ASCII_AS_IT_IS)):
        pass


async def test_a_wrong_password_of_the_database_is_not_shown(database_url: str, database_login: str) -> None:
    """The error has the name of the user, and nothing else of the URL."""
    wrong = with_login(database_url, database_login, quote(PASSWORD, safe=""))
    with pytest.raises(DatabaseUnavailable) as caught:
        async with connect(wrong):
            pass
    assert str(caught.value) == f'database: password authentication failed for user "{database_login}"'


async def test_a_wrong_password_of_the_broker_is_not_shown(broker_url: str, broker_login: str) -> None:
    """The error has the broker's host and port, and nothing else of the URL."""
    wrong = with_login(broker_url, broker_login, "wrong")
    with pytest.raises(BrokerUnavailable) as caught:
        async with open_sender(wrong):
            pass
    address = urlsplit(broker_url).netloc.rpartition("@")[2]
    assert str(caught.value) == f"broker {address}: the broker rejected the user name or password"


async def test_a_missing_virtual_host_is_reported_in_our_words(broker_url: str) -> None:
    """The broker's own text quotes the virtual host, which may be a part of a misplaced password."""
    with pytest.raises(BrokerUnavailable) as caught:
        async with open_sender(urlsplit(broker_url)._replace(path="/s3cret").geturl()):
            pass
    assert str(caught.value).endswith(
        ": connection not accepted; check the virtual host, which is the path of COUPONS_BROKER_URL"
    )


@pytest.mark.parametrize(
    ("scheme", "options", "reason"),
    [
        ("amqp", "", "connection refused"),
        ("amqps", "?cafile=/nowhere", "a certificate file in COUPONS_BROKER_URL does not exist"),
    ],
)
async def test_a_broker_that_is_not_there_is_reported_in_our_words(scheme: str, options: str, reason: str) -> None:
    """The error has the operating system's reason, or blames the URL's options."""
    with pytest.raises(BrokerUnavailable) as caught:
        async with open_sender(f"{scheme}://user:s3cret@127.0.0.1:1/{options}"):
            pass
    assert str(caught.value) == f"broker 127.0.0.1:1: {reason}"


@pytest.mark.parametrize(
    ("options", "reason"),
    [("", "connection refused"), ("?sslmode=s3cret", "COUPONS_DATABASE_URL is not a valid URL")],
)
async def test_a_database_that_is_not_there_is_reported_in_our_words(options: str, reason: str) -> None:
    """The error has the operating system's reason, or blames the URL."""
    with pytest.raises(DatabaseUnavailable) as caught:
        async with connect(f"postgresql://user:s3cret@127.0.0.1:1/{options}"):
            pass
    assert str(caught.value) == f"database: {reason}"
