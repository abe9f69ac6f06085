"""Publishing to RabbitMQ so that nothing is lost in silence: mandatory, persistent, confirmed, with a time limit."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity, DeliveryError, PublishError

from coupons.errors import UserError
from coupons.topology import EXCHANGE

CONNECT_SECONDS = 10
PUBLISH_SECONDS = 10
CLOSE_SECONDS = 3
"""What a broker gets to say goodbye: a silent one would be waited for as long as its heartbeats are."""
HEARTBEAT_SECONDS = 10
"""RabbitMQ gives up a silent client after twice as long, aiormq a silent broker after 33 to 38 s."""

for _library in ("aio_pika", "aiormq"):  # else a command line shows what they say, with the address of the broker
    logging.getLogger(_library).addHandler(logging.NullHandler())


class BrokerUnavailable(UserError):
    """RabbitMQ cannot be reached or does not take what is published. A publish that timed out may still land."""


class Sender:
    """A channel for publishing; not for use after an error."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    async def send(self, routing_key: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish and wait for the broker's confirmation.

        The AMQP message id is fresh for each attempt: two pending publishes of one id would swap their results.

        Raises:
            BrokerUnavailable: not confirmed; it is not known to be lost.
        """
        message = Message(
            body,
            headers=dict(headers or {}),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=uuid4().hex,
        )
        try:
            with strays_told():
                exchange = await self._channel.get_exchange(EXCHANGE, ensure=False)
                await exchange.publish(message, routing_key, mandatory=True, timeout=PUBLISH_SECONDS)
        except BrokerUnavailable:
            raise
        except (PublishError, ChannelNotFoundEntity) as error:
            raise BrokerUnavailable(
                f"broker: no queue takes this {routing_key} yet: start a worker, which declares them (coupons worker)"
            ) from error
        except DeliveryError as error:
            raise BrokerUnavailable(f"broker: it refused the {routing_key}; its queue may be full") from error
        except TimeoutError as error:
            raise BrokerUnavailable(
                f"broker: the {routing_key} was not confirmed within {PUBLISH_SECONDS} s"
            ) from error
        except Exception as error:  # aiormq ends a publish under way with a bare Exception when its connection goes
            raise BrokerUnavailable(f"broker: {_described(error)}") from error


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """A plain connection, called `name` in RabbitMQ's listings; who needs it for long begins anew when it ends.

    Raises:
        BrokerUnavailable: one line, without the password.
    """
    try:
        with strays_told():
            connection = await aio_pika.connect(
                url, timeout=CONNECT_SECONDS, heartbeat=HEARTBEAT_SECONDS, client_properties={"connection_name": name}
            )
    except (*CONNECTION_EXCEPTIONS, TimeoutError, ValueError) as error:
        raise BrokerUnavailable(f"broker {urlsplit(url).hostname}: {_described(error)}") from error
    try:
        with strays_told():
            yield connection
    finally:
        with suppress(Exception):  # of one that is gone already, why it went
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Sender]:
    """A connection of its own for publishing: a memory alarm blocks publishers, and must not block consumers."""
    async with connected(url, "coupons publisher") as connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except TimeoutError as error:
            raise BrokerUnavailable(f"broker: no channel was opened within {CONNECT_SECONDS} s") from error
        yield Sender(channel)


@contextmanager
def strays_told() -> Iterator[None]:
    """Whoever waits on a connection that aiormq gives up is cancelled by it, and a task that is cancelled ends unseen.

    Raises:
        BrokerUnavailable: instead.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable("broker: it was silent for too long") from error


def _described(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
