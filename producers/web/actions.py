"""Actions of the console and the API: store files, publish commands, pause, reschedule, cancel, resolve and retry.

A command is checked before it is published, and rejected if it is known to be invalid. Pausing, rescheduling,
cancelling, resolving and retrying are not commands: they are written to the database and take effect immediately.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID

import structlog
from starlette.exceptions import HTTPException

from coupons.commands import Command, ImportCoupons, ResumeSendout, StartSendout
from coupons.database import Connection, Pool
from coupons.recurring import RecurringImport
from coupons.schedule import Reschedule
from coupons.sources import SourceError, SourceLimits, check_allowed, rechunk
from coupons.store import (
    activation,
    groups,
    import_schedules,
    imports,
    inbox,
    messages,
    retries,
    schedules,
    send_check,
    sendout_views,
    sendouts,
    uncertain,
    uploads,
    waits,
)
from coupons.store.import_schedules import ImportSchedule
from coupons.store.imports import Changes, ImportStatus
from coupons.store.retries import Choice, Retry
from coupons.store.send_check import SendCheck
from coupons.store.sendout_views import Sendout
from coupons.store.uncertain import Resolution
from coupons.store.uploads import Upload
from producers.client import Publisher
from producers.web import ACQUIRE_SECONDS
from producers.web.errors import InvalidRequest
from producers.web.lookups import get_group, get_import, get_message, get_schedule, get_sendout

log = structlog.get_logger()
ScheduleChange = Literal["pause", "resume", "run"]
CHANGES: dict[ScheduleChange, Callable[[Connection, str], Awaitable[ImportSchedule]]] = {
    "pause": import_schedules.pause,
    "resume": import_schedules.resume,
    "run": import_schedules.run_now,
}
MAX_CONCURRENT_UPLOADS = 3
"""An upload holds a database connection until its client is done; the other connections are left for pages."""
UPLOAD_WAIT_SECONDS = 10
"""How long an upload waits for another one to finish; while it waits, little of its body is received."""


class Actions:
    def __init__(
        self, *, pool: Pool, broker_url: str, import_max_bytes: int, activated: bool = True,
        limits: SourceLimits | None = None,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._broker_url = broker_url
        self._activated = activated
        self._limits = limits
        self._import_max_bytes = import_max_bytes
        self._uploads = asyncio.Semaphore(MAX_CONCURRENT_UPLOADS)

    async def store_upload(self, name: str, content: AsyncIterable[bytes]) -> Upload:
        """Store a file as it arrives, to be the source of an import command. After an error nothing of the file stays.

        Raises:
            Conflict: the file is too large.
            HTTPException: 503, no other upload finished within UPLOAD_WAIT_SECONDS.
        """
        async with self._upload_slot(), self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            upload = await uploads.store(connection, name, rechunk(content), max_bytes=self._import_max_bytes)
        log.info("upload stored", upload=str(upload.id), size_bytes=upload.size_bytes)
        return upload

    @asynccontextmanager
    async def _upload_slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(UPLOAD_WAIT_SECONDS):
                await self._uploads.acquire()
        except TimeoutError:
            reason = f"{MAX_CONCURRENT_UPLOADS} files are already being uploaded; please retry later"
            raise HTTPException(503, reason, {"Retry-After": f"{UPLOAD_WAIT_SECONDS}"}) from None
        try:
            yield
        finally:
            self._uploads.release()

    async def submit(self, command: Command) -> None:
        """Publish the command over a new connection, which takes 4 ms. A kept connection might have broken while idle.

        Raises:
            Conflict: the command cannot be done; it was not published.
            BrokerUnavailable: the command may have been published all the same; submit it again.
        """
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            if not await inbox.is_repeated(connection, command):  # a repeated command gets the same answer
                await activation.check_command(connection, command, activated=self._activated)
                await _check(connection, command)
        async with Publisher.connect(self._broker_url) as publisher:
            await publisher.publish(command)
        log.info("command published", command=str(command.id), type=command.type)

    async def retry_import(self, import_id: UUID, changes: Changes, *, new_id: UUID) -> ImportCoupons:
        """Publish an import that repeats a failed one with these changes, and return its command.

        Raises NotFound, Conflict, InvalidCommand, BrokerUnavailable.
        """
        command = await self.retry_command(import_id, changes, new_id=new_id)
        await self.submit(command)
        return command

    async def retry_command(self, import_id: UUID, changes: Changes, *, new_id: UUID) -> ImportCoupons:
        """Return the command that repeats a failed import with these changes.

        Raises NotFound, Conflict, InvalidCommand.
        """
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_import(connection, import_id)
            return await imports.retry_command(connection, import_id, changes, new_id=new_id)

    async def undo_import(self, import_id: UUID, *, new_id: UUID) -> ImportCoupons:
        """Publish an import that undoes another one, and return its command.

        Raises NotFound, Conflict, BrokerUnavailable.
        """
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_import(connection, import_id)
            command = await imports.undo_command(connection, import_id, new_id=new_id)
        await self.submit(command)
        return command

    async def check_sendout(self, command: StartSendout) -> SendCheck:
        """Return what the sendout would do; nothing is written. Raises Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await activation.check_command(connection, command, activated=self._activated)
            return await send_check.check_sendout(connection, command)

    async def pause(self, sendout_id: UUID) -> Sendout:
        """Pause the sendout and return it; its mails `in_flight` are still being sent. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            await sendouts.pause(connection, sendout_id, "paused by an operator")
            log.info("sendout paused by an operator", sendout=str(sendout_id))
            return await sendout_views.get(connection, sendout_id)

    async def reschedule(self, sendout_id: UUID, change: Reschedule) -> Sendout:
        """Change the start or the pace of the sendout and return it. Raises NotFound, PastStart, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            await schedules.reschedule(connection, sendout_id, change)
            log.info("sendout rescheduled by an operator", sendout=str(sendout_id))
            return await sendout_views.get(connection, sendout_id)

    async def cancel(self, sendout_id: UUID) -> Sendout:
        """Cancel the sendout and return it; its mails `in_flight` are still being sent. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            await sendouts.cancel(connection, sendout_id)
            log.info("sendout cancelled by an operator", sendout=str(sendout_id))
            return await sendout_views.get(connection, sendout_id)

    async def resolve_uncertain(self, sendout_id: UUID, resolution: Resolution) -> int:
        """Resend all uncertain mails, or count them as sent, and return their number. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            mails = await uncertain.resolve(connection, sendout_id, resolution)
        log.info("uncertain mails resolved by an operator", sendout=str(sendout_id), resolution=resolution, mails=mails)
        return mails

    async def retry(self, sendout_id: UUID, choice: Choice) -> Retry:
        """Retry these mails of the sendout, and return how many they are. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_sendout(connection, sendout_id)
            done = await retries.retry(connection, sendout_id, choice)
        log.info(
            "mails retried by an operator",
            sendout=str(sendout_id), refused=done.refused, deferred=done.deferred, corrected=done.corrected,
        )  # fmt: skip
        return done

    async def cancel_import(self, import_id: UUID) -> ImportStatus:
        """Cancel the import and return it; lines that it has committed stay. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_import(connection, import_id)
            await imports.cancel(connection, import_id)
            log.info("import cancelled by an operator", job=str(import_id))
            return await get_import(connection, import_id)

    async def put_schedule(self, name: str, request: RecurringImport) -> ImportSchedule:
        """Create or replace a recurring import. Raises Conflict, and InvalidRequest if its source is not allowed."""
        try:
            if self._limits:
                check_allowed(request.command.source or "", self._limits)
        except SourceError as error:
            raise InvalidRequest(f"source: {error}") from None
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await activation.check_command(connection, request.command, activated=self._activated)
            found = await import_schedules.put(connection, name, request)
        log.info("recurring import changed by an operator", schedule=name)
        return found

    async def change_schedule(self, name: str, change: ScheduleChange) -> ImportSchedule:
        """Pause, resume or run a recurring import. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_schedule(connection, name)
            found = await CHANGES[change](connection, name)
        log.info("recurring import changed by an operator", schedule=name, change=change)
        return found

    async def delete_schedule(self, name: str) -> None:
        """Delete a recurring import; what it has imported stays. Raises NotFound."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            await get_schedule(connection, name)
            await import_schedules.delete(connection, name)
        log.info("recurring import deleted by an operator", schedule=name)

    async def delete_group(self, name: str) -> None:
        """Delete the group with its recipients. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            group = await get_group(connection, name)
            recipients = await groups.delete(connection, group.name)
        log.info("group deleted by an operator", group=group.name, recipients=recipients)

    async def delete_message(self, name: str) -> None:
        """Delete the message with all its versions. Raises NotFound, Conflict."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            message = await get_message(connection, name)
            activation.check_message(message.name, message.lists, activated=self._activated)
            versions = await messages.delete(connection, message.name)
        log.info("message deleted by an operator", message=message.name, versions=versions)


async def _check(connection: Connection, command: Command) -> None:
    match command:
        case ImportCoupons():
            await imports.check_command(connection, command)
        case StartSendout():
            await send_check.check_command(connection, command)
        case ResumeSendout():
            sendout_views.check_resumable(await sendout_views.get(connection, command.sendout))
            await waits.check_after(connection, command.after)


def location_of(command: Command) -> str:
    """Return the path of the command's import or sendout in the console; the API adds the prefix `/api`."""
    match command:
        case ImportCoupons():
            return f"/imports/{command.id}"
        case StartSendout():
            return f"/sendouts/{command.id}"
        case ResumeSendout():
            return f"/sendouts/{command.sendout}"
