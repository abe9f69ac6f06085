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

    If a worker dies after it has published a command, another one publishes it again: it is then in the queue twice.
    """
    letters = await waits.list_dead_letters(connection)
    if sender is None:
        return not letters
    try:
        for letter in letters:
            await dead_letter(sender, letter.body, letter.reason)
            failpoints.hit("wait.dead_lettered")
            await waits.remove_dead_letter(connection, letter.command_id)
    except BrokerUnavailable as error:
        log.warning("broker unavailable, rejected commands are published later", reason=str(error))
        return False
    return True
