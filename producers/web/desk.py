"""Where commands are handed in: what is known to be wrong is refused at once, everything else is published.

What a person decides about a running sendout is no command: it counts as soon as it is written.
"""

from uuid import UUID

import structlog

from coupons.commands import Command, ImportCoupons, ResumeSendout, StartSendout
from coupons.database import Connection, Pool
from coupons.store import imports, inbox, outbox, sendouts, uncertain
from coupons.store.outbox import Sendout
from coupons.store.uncertain import Resolution
from producers.client import Publisher
from producers.web import ACQUIRE_SECONDS
from producers.web.failures import NotFound

log = structlog.get_logger()


class Desk:
    def __init__(self, *, pool: Pool, broker_url: str) -> None:
        self._pool = pool
        self._broker_url = broker_url

    async def submit(self, command: Command) -> None:
        """Publish the command, over a connection of its own: 4 ms, and none that broke while nobody looked.

        Raises:
            Refused: it cannot be done; nothing was published.
            BrokerUnavailable: it may have been published all the same; submit it again.
        """
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            if not await inbox.is_repeated(connection, command):  # the same again answers the same
                await _check(connection, command)
        async with Publisher.connect(self._broker_url) as publisher:
            await publisher.publish(command)
        log.info("command published", command=str(command.id), type=command.type)

    async def pause(self, sendout_id: UUID) -> Sendout:
        """Returns it as it is then; what is `in_hand` is still being sent. Raises NotFound, Refused."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            await sendouts.pause(connection, sendout_id, "paused by a person")
            log.info("sendout paused by a person", sendout=str(sendout_id))
            return await outbox.named(connection, sendout_id)

    async def cancel(self, sendout_id: UUID) -> Sendout:
        """As `pause`, for good."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            await sendouts.cancel(connection, sendout_id)
            log.info("sendout cancelled by a person", sendout=str(sendout_id))
            return await outbox.named(connection, sendout_id)

    async def resolve(self, sendout_id: UUID, how: Resolution) -> int:
        """Send all uncertain mails again, or count them as sent; returns how many. Raises NotFound, Refused."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            mails = await uncertain.resolve(connection, sendout_id, how)
        log.info("uncertain mails resolved by a person", sendout=str(sendout_id), how=how, mails=mails)
        return mails


async def sendout_of(connection: Connection, sendout_id: UUID) -> Sendout:
    """Raises NotFound."""
    found = await outbox.find(connection, sendout_id)
    if found is None:
        raise NotFound(f"there is no sendout {sendout_id}")
    return found


async def _check(connection: Connection, command: Command) -> None:
    match command:
        case ImportCoupons():
            await imports.check(connection, command)
        case StartSendout():
            await sendouts.check(connection, command)
        case ResumeSendout():
            outbox.check_resumable(await outbox.named(connection, command.sendout))


def location_of(command: Command) -> str:
    """The path of what the command is about, in the console and, behind `/api`, in the API."""
    match command:
        case ImportCoupons():
            return f"/imports/{command.id}"
        case StartSendout():
            return f"/sendouts/{command.id}"
        case ResumeSendout():
            return f"/sendouts/{command.sendout}"
