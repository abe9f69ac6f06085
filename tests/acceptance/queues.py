"""Publish commands to RabbitMQ without the command line, and read rejected commands."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity

from coupons.commands import Command
from producers.client import Publisher

LIMIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Dead:
    """A rejected command in the dead-letter queue."""

    reason: str
    body: bytes


def publish(url: str, *commands: Command) -> None:
    """Publish with the Python client, over one connection."""

    async def run() -> None:
        async with Publisher.connect(url) as publisher:
            for command in commands:
                await publisher.publish(command)

    asyncio.run(run())


def amqp_publish(url: str, command: Mapping[str, Any] | bytes, routing_key: str) -> None:
    """Publish with Debian's amqp-tools, which read a trailing "/" of the URL as the virtual host ""."""
    options = ["--url", url.rstrip("/"), "--exchange", "coupons", "--routing-key", routing_key, "--persistent"]
    subprocess.run(["amqp-publish", *options], input=body(command), check=True, timeout=LIMIT_SECONDS)


def body(command: Mapping[str, Any] | bytes) -> bytes:
    return command if isinstance(command, bytes) else json.dumps(command).encode()


def dead(url: str) -> list[Dead]:
    """Return the commands in the dead-letter queue, and leave them there."""

    async def look() -> list[Dead]:
        connection = await aio_pika.connect(url)
        async with connection, connection.channel() as channel:
            try:
                queue = await channel.get_queue("coupons.dead")
            except ChannelNotFoundEntity:  # a test has deleted it
                return []
            found = []
            while message := await queue.get(fail=False):
                found.append(Dead(str(message.headers["x-reason"]), message.body))
            return found

    return asyncio.run(look())


def delete(url: str, *queues: str) -> None:
    async def run() -> None:
        connection = await aio_pika.connect(url)
        async with connection, connection.channel() as channel:
            for queue in queues:
                await channel.queue_delete(queue)

    asyncio.run(run())
