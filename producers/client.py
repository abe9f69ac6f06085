"""The Python client.

async with Publisher.connect("amqp://…") as publisher:
    await publisher.publish(StartSendout(message="spring-voucher", group="customers"))
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coupons.broker import Sender, open_sender
from coupons.commands import Command


class Publisher:
    """Publishes commands. Publishing a command again is harmless: its id is an idempotency key."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    @staticmethod
    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator["Publisher"]:
        """Connect to the broker. Raises BrokerUnavailable."""
        async with open_sender(url) as sender:
            yield Publisher(sender)

    async def publish(self, command: Command) -> None:
        """Return once the broker has stored the command.

        Raises:
            BrokerUnavailable: the command may still have been stored; publish it again with the same id.
        """
        await self._sender.send(command.type, command.body())
