"""Commands that wait in a queue although no worker can take them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aio_pika.exceptions import ChannelClosed

from coupons import broker
from coupons.errors import UserError
from coupons.topology import queue_name

QUEUES_OF = {"import": ("import",), "sendout": ("sendout", "resume"), "deliver": ()}
"""The routing keys of the commands that each role takes."""
ASK_SECONDS = 2


@dataclass(frozen=True, slots=True)
class PendingCommands:
    queue: str
    commands: int

    def __str__(self) -> str:
        waiting = "1 command waits" if self.commands == 1 else f"{self.commands:,} commands wait"
        return f"{waiting} in {self.queue}, and no worker takes {'it' if self.commands == 1 else 'them'}"


async def list_pending(broker_url: str, roles: Sequence[str]) -> list[PendingCommands]:
    """Return the waiting commands of these roles, which no live worker has. Asks the broker only if there is a role.

    An unavailable broker answers nothing: `coupons doctor` and `/readyz` report it.
    """
    keys = [key for role in roles for key in QUEUES_OF[role]]
    if not keys:
        return []
    try:
        async with asyncio.timeout(ASK_SECONDS), broker.connect(broker_url, "coupons pending") as connection:
            found = []
            for key in keys:
                async with connection.channel() as channel:  # asking for a queue that does not exist closes the channel
                    queue = await channel.declare_queue(queue_name(key), passive=True)
                    found.append(PendingCommands(queue.name, queue.declaration_result.message_count or 0))
            return [each for each in found if each.commands]
    except (UserError, TimeoutError, ChannelClosed):
        return []
