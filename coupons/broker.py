"""Publish to RabbitMQ: messages are mandatory, persistent and confirmed in time, so that a loss is always noticed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import uuid4

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelNotFoundEntity,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)

from coupons.errors import UserError
from coupons.foreign_errors import describe
from coupons.service_url import parse_broker_url
from coupons.topology import EXCHANGE, queue_name

CONNECT_SECONDS = 10
PUBLISH_SECONDS = 10
CLOSE_SECONDS = 3
"""Time limit for closing a connection. Otherwise an unresponsive broker would delay it until the heartbeat timeout."""
HEARTBEAT_SECONDS = 10
"""Interval of heartbeats. RabbitMQ drops an unresponsive client after twice this time; aiormq drops an unresponsive
broker after 33 to 38 s."""

for _library in ("aio_pika", "aiormq"):  # otherwise commands would print their logs, with the broker's address
    logging.getLogger(_library).addHandler(logging.NullHandler())


class BrokerUnavailable(UserError):
    """RabbitMQ is unreachable or rejected a message. A message whose publish timed out may still be delivered."""


class Sender:
    """A channel for publishing. It cannot be used after an error."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    async def send(self, routing_key: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish and wait for the broker's confirmation.

        Each attempt has a new AMQP message id: two pending publishes with one id would swap their results.

        Raises:
            BrokerUnavailable: not confirmed. The message may still be delivered.
        """
        message = Message(
            body,
            headers=dict(headers or {}),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=uuid4().hex,
        )
        try:
            with cancellation_as_unavailable():
                exchange = await self._channel.get_exchange(EXCHANGE, ensure=False)
                await exchange.publish(message, routing_key, mandatory=True, timeout=PUBLISH_SECONDS)
        except BrokerUnavailable:
            raise
        except (PublishError, ChannelNotFoundEntity) as error:
            raise BrokerUnavailable(
                f"broker: queue {queue_name(routing_key)} does not exist yet: start a worker (coupons worker)"
            ) from error
        except DeliveryError as error:
            raise BrokerUnavailable(
                f"broker: the message was rejected; queue {queue_name(routing_key)} may be full"
            ) from error
        except TimeoutError as error:
            raise BrokerUnavailable(f"broker: no confirmation within {PUBLISH_SECONDS} s") from error
        except Exception as error:  # aiormq ends pending publishes with a bare Exception when its connection is lost
            raise BrokerUnavailable(f"broker: {_reason(error)}") from error


@asynccontextmanager
async def connect(url: str, connection_name: str) -> AsyncIterator[AbstractConnection]:
    """A plain connection, shown under its name in RabbitMQ's listings. It does not reconnect.

    Raises:
        BrokerUnavailable: one line, without the password.
        InvalidUrl: the same.
    """
    address = parse_broker_url(url)
    try:
        with cancellation_as_unavailable():
            connection = await aio_pika.connect(
                str(address),
                timeout=CONNECT_SECONDS,
                heartbeat=HEARTBEAT_SECONDS,
                client_properties={"connection_name": connection_name},
            )
    except (*CONNECTION_EXCEPTIONS, OSError, ValueError) as error:
        raise BrokerUnavailable(f"broker {address.hosts}: {_reason(error)}") from error
    try:
        with cancellation_as_unavailable():
            yield connection
    finally:
        with suppress(Exception):  # closing a lost connection raises why it was lost
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()


@asynccontextmanager
async def open_sender(url: str) -> AsyncIterator[Sender]:
    """A sender with a connection of its own: a memory alarm blocks publishers, and must not block consumers.

    Raises:
        BrokerUnavailable: one line, without the password.
    """
    async with connect(url, "coupons publisher") as connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except TimeoutError as error:
            raise BrokerUnavailable(f"broker: no channel was opened within {CONNECT_SECONDS} s") from error
        yield Sender(channel)


@contextmanager
def cancellation_as_unavailable() -> Iterator[None]:
    """Turn a cancellation by aiormq into an error.

    When aiormq gives up a connection, it cancels the tasks that wait for it. Such a task would end without a trace.

    Raises:
        BrokerUnavailable: aiormq cancelled the task.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        check_cancelled(error)
        raise BrokerUnavailable("broker: heartbeat timeout") from error


def check_cancelled(error: BaseException | None = None) -> None:
    """Raise CancelledError if the current task was cancelled, although a library may have lost the cancellation.

    When a task is cancelled while a channel is closing, aio-pika may raise another error instead. While aio-pika waits
    with a timeout, `asyncio.wait_for` of Python 3.11 may return normally. Each happens to 1 % of the tasks that are
    cancelled within 0.25 s after they begin to connect.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise asyncio.CancelledError from error


def _reason(error: BaseException) -> str:
    """Return why the broker is unavailable, without the broker's or the library's text."""
    match error:
        case ProbableAuthenticationError() | AuthenticationError():
            return "the broker rejected the user name or password"
        case InvalidFrameError():  # aiormq does not expect that the broker closes the connection instead of opening it
            return "connection not accepted; check the virtual host, which is the path of COUPONS_BROKER_URL"
        case ConnectionClosed():
            return f"the broker closed the connection ({type(error).__name__})"
        case FileNotFoundError():
            return "a certificate file in COUPONS_BROKER_URL does not exist"
        case ValueError():
            return "an option of COUPONS_BROKER_URL is invalid"
    return describe(error)
