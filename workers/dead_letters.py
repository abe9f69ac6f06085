"""Put rejected commands into the dead queue, with the reason as a header."""

import structlog

from coupons import failpoints, topology
from coupons.broker import BrokerUnavailable, Sender
from coupons.database import Connection
from coupons.store import waits

log = structlog.get_logger()
MAX_REASON_CHARS = 2_000
"""The reason is sent in a header, which must fit into a frame of 128 KiB. A 1 MiB command can have longer errors."""


async def dead_letter(sender: Sender, body: bytes, reason: str) -> None:
    """Publish the command to the dead queue. Raises BrokerUnavailable."""
    await sender.send(topology.DEAD, body, {topology.REASON: reason[:MAX_REASON_CHARS]})


async def publish_dead_letters(connection: Connection, sender: Sender | None) -> bool:
    """Publish the commands that were rejected while they waited. Return False if the broker is unavailable for that.

    Workers that do this at the same time publish different commands. A command is in the queue twice only if a worker
    dies after it has published the command, or if the broker's confirmation does not arrive.
    """
    if not await waits.has_dead_letters(connection):
        return True
    if sender is None:
        return False
    try:
        while await _publish_one(connection, sender):
            pass
    except BrokerUnavailable as error:
        log.warning("broker unavailable, rejected commands are published later", reason=str(error))
        return False
    return True


async def _publish_one(connection: Connection, sender: Sender) -> bool:
    """Publish one command; return False if there is none. Raises BrokerUnavailable: the command is kept."""
    async with connection.transaction():
        letter = await waits.take_dead_letter(connection)
        if letter is None:
            return False
        await dead_letter(sender, letter.body, letter.reason)
        failpoints.hit("wait.dead_lettered")
        return True
