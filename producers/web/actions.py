"""Where files and commands are handed in: what is known to be wrong is refused at once, every other command published.

What a person decides about a running sendout or import is no command: it counts as soon as it is written.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from starlette.exceptions import HTTPException

from coupons.commands import Command, ImportCoupons, ResumeSendout, StartSendout
from coupons.database import Connection, Pool
from coupons.store import imports, inbox, sendout_views, sendouts, uncertain, uploads
from coupons.store.imports import Import
from coupons.store.sendout_views import Sendout
from coupons.store.uncertain import Resolution
from coupons.store.uploads import Upload
from producers.client import Publisher
from producers.web import ACQUIRE_SECONDS
from producers.web.lookups import import_of, sendout_of
from producers.web.request_body import cut

log = structlog.get_logger()
UPLOADS_AT_ONCE = 3
"""Each holds a connection to the database for as long as its client takes; pages must still get one."""
TURN_SECONDS = 10
"""How long a file waits for its turn, its client having sent little of it yet."""


class Desk:
    def __init__(self, *, pool: Pool, broker_url: str, import_max_bytes: int) -> None:
        self._pool = pool
        self._broker_url = broker_url
        self._import_max_bytes = import_max_bytes
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def keep(self, name: str, content: AsyncIterable[bytes]) -> Upload:
        """Store a file, piece by piece as it comes in, for the import that is going to name it.

        However it ends badly, what was stored is gone again.

        Raises:
            Refused: it is too large.
            HTTPException: 503, others have been uploading for TURN_SECONDS.
        """
        async with self._turn(), self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            kept = await uploads.keep(connection, name, cut(content), max_bytes=self._import_max_bytes)
        log.info("file kept", upload=str(kept.id), bytes=kept.bytes)
        return kept

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._uploads.acquire()
        except TimeoutError:
            reason = f"{UPLOADS_AT_ONCE} files are being uploaded already; try again in a moment"
            raise HTTPException(503, reason, {"Retry-After": f"{TURN_SECONDS}"}) from None
        try:
            yield
        finally:
            self._uploads.release()

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
        """Returns it as it is then; what is `in_flight` is still being sent. Raises NotFound, Refused."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            await sendouts.pause(connection, sendout_id, "paused by a person")
            log.info("sendout paused by a person", sendout=str(sendout_id))
            return await sendout_views.named(connection, sendout_id)

    async def cancel(self, sendout_id: UUID) -> Sendout:
        """As `pause`, for good."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            await sendouts.cancel(connection, sendout_id)
            log.info("sendout cancelled by a person", sendout=str(sendout_id))
            return await sendout_views.named(connection, sendout_id)

    async def resolve(self, sendout_id: UUID, how: Resolution) -> int:
        """Send all uncertain mails again, or count them as sent; returns how many. Raises NotFound, Refused."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await sendout_of(connection, sendout_id)
            mails = await uncertain.resolve(connection, sendout_id, how)
        log.info("uncertain mails resolved by a person", sendout=str(sendout_id), how=how, mails=mails)
        return mails

    async def cancel_import(self, import_id: UUID) -> Import:
        """End it now; what it has committed stays. Returns it as it is then. Raises NotFound, Refused."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await import_of(connection, import_id)
            await imports.cancel(connection, import_id)
            log.info("import cancelled by a person", job=str(import_id))
            return await import_of(connection, import_id)


async def _check(connection: Connection, command: Command) -> None:
    match command:
        case ImportCoupons():
            await imports.check(connection, command)
        case StartSendout():
            await sendouts.check(connection, command)
        case ResumeSendout():
            sendout_views.check_resumable(await sendout_views.named(connection, command.sendout))


def location_of(command: Command) -> str:
    """The path of what the command is about, in the console and, behind `/api`, in the API."""
    match command:
        case ImportCoupons():
            return f"/imports/{command.id}"
        case StartSendout():
            return f"/sendouts/{command.id}"
        case ResumeSendout():
            return f"/sendouts/{command.sendout}"
