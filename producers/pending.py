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


async def list_pending(broker_url: str, uncovered_roles: Sequence[str]) -> list[PendingCommands]:
    """Return the commands in queues without a consumer, and those of the roles that no live worker has.

    The broker knows at once that a worker died, while its last sign of life counts for 45 s. A worker that stands
    still keeps its consumers, but shows no life. An unavailable broker answers nothing: `coupons doctor` and `/readyz`
    report it.
    """
    try:
        async with asyncio.timeout(ASK_SECONDS), broker.connect(broker_url, "coupons pending") as connection:
            found = []
            for role, key in [(role, key) for role, keys in QUEUES_OF.items() for key in keys]:
                async with connection.channel() as channel:  # asking for a queue that does not exist closes the channel
                    queue = await channel.declare_queue(queue_name(key), passive=True)
                    if role in uncovered_roles or not queue.declaration_result.consumer_count:
                        found.append(PendingCommands(queue.name, queue.declaration_result.message_count or 0))
            return [each for each in found if each.commands]
    except (UserError, TimeoutError, ChannelClosed):
        return []
