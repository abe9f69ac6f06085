"""Take commands out of RabbitMQ: note each in one transaction, acknowledge it, wake the role that does the work.

The work itself never holds a message: RabbitMQ closes a channel whose message stays unacknowledged for 30 minutes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue

from coupons import failpoints, topology
from coupons.admission import Granted, Short
from coupons.broker import BrokerUnavailable, Sender, connected, publishing, strays_told
from coupons.commands import Command, ImportCoupons, InvalidCommand, ResumeSendout, StartSendout, decode
from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.store import imports, inbox, sendouts
from workers.loops import RETRY_SECONDS, Signals, happens, place
from workers.nudges import Nudges

log = structlog.get_logger()
PREFETCH = 4
DECLARE_SECONDS = 10
WATCH_SECONDS = 10.0
"""The broker is asked so often whether it knows of consumers, and gets as long to answer."""
MAX_REASON_CHARS = 2_000
"""A header has to fit into one frame of 128 KiB; a command of 1 MiB can have more errors than that."""
QUEUES_OF = {"import": ("import",), "sendout": ("sendout", "resume"), "deliver": (topology.NUDGE,)}
"""The queues that each role consumes."""


class Intake:
    def __init__(
        self, *, pool: Pool, signals: Signals, nudges: Nudges, settings: Settings, roles: tuple[str, ...]
    ) -> None:
        self._pool = pool
        self._signals = signals
        self._nudges = nudges
        self._settings = settings
        self._keys = [key for role in roles for key in QUEUES_OF[role]]
        self._unconsumed = {topology.queue_name(key) for key in self._keys}

    @property
    def unconsumed(self) -> list[str]:
        """The queues of its roles on which the broker has not confirmed a consumer of this worker, or not any more."""
        return sorted(self._unconsumed)

    async def run(self) -> None:
        """Consume until cancelled. A broker that goes away is waited for, and never takes the other roles with it.

        A cancellation may get lost, in a connection that is being opened, or a channel that closes just then: what says
        for certain that it is time to end are the signals.
        """
        while not self._signals.stopping:
            try:
                await self._consume()
            except Exception as error:  # noqa: BLE001 - aiormq ends calls under way with a bare Exception
                if not self._signals.stopping:
                    log.warning("no broker, trying again", reason=_cause(error))
            await self._signals.sleep(RETRY_SECONDS)

    async def _consume(self) -> None:
        url = self._settings.broker_url.get_secret_value()
        async with connected(url, "coupons worker") as connection, publishing(url) as sender:
            async with asyncio.timeout(DECLARE_SECONDS):
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=PREFETCH)
                _, queues = await topology.declare(channel)
                cancelled = await _cancelled_by_broker(channel)
            self._nudges.through(sender)
            log.info("taking commands", queues=self._keys)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._watch(connection, cancelled))
                    group.create_task(self._leave())
                    for key in self._keys:
                        take = self._nudged if key == topology.NUDGE else self._take
                        group.create_task(self._consume_queue(queues[key], take, sender))
            finally:
                self._nudges.through(None)

    async def _consume_queue(
        self, queue: AbstractQueue, take: Callable[[AbstractIncomingMessage, Sender], Awaitable[None]], sender: Sender
    ) -> None:
        """An iterator and not a callback: aio-pika cancels callbacks in the middle of their work."""
        with strays_told():
            async with queue.iterator() as messages:
                with self._consuming(queue.name):
                    async for message in messages:
                        await take(message, sender)
        raise BrokerUnavailable(f"the connection of queue {queue.name} was closed")

    @contextmanager
    def _consuming(self, queue: str) -> Iterator[None]:
        self._unconsumed.discard(queue)
        try:
            yield
        finally:
            self._unconsumed.add(queue)

    async def _leave(self) -> None:
        await self._signals.stopped()
        raise BrokerUnavailable("the worker stops")

    async def _watch(self, connection: AbstractConnection, cancelled: asyncio.Event) -> None:
        """Until there is no consumer any more, whoever says so: then everything is begun anew."""
        with strays_told():
            while not await happens(cancelled, WATCH_SECONDS):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._check_consumers(connection)
        raise BrokerUnavailable("a queue was deleted")

    async def _check_consumers(self, connection: AbstractConnection) -> None:
        """On a channel of its own: asking for a queue that is gone closes it."""
        async with connection.channel() as channel:
            for key in self._keys:
                queue = await channel.declare_queue(topology.queue_name(key), passive=True)
                if not queue.declaration_result.consumer_count:
                    raise BrokerUnavailable(f"nobody consumes queue {queue.name}, as the broker says")

    async def _nudged(self, message: AbstractIncomingMessage, _: Sender) -> None:
        self._signals.wake("deliver")
        await message.ack()

    async def _take(self, message: AbstractIncomingMessage, sender: Sender) -> None:
        failpoints.hit("intake.received")
        try:
            self._settings.require_activated()
            await self._note(decode(message.body))
        except (InvalidCommand, Conflict) as error:
            await _reject(message, sender, str(error))
        except Exception as error:  # noqa: BLE001 - a command that meets a defect must not come back for ever
            log.error("internal error", queue=message.routing_key, error=type(error).__name__, at=place(error))  # noqa: TRY400 - its text may hold codes
            await _reject(message, sender, f"could not be carried out: {type(error).__name__}")
        failpoints.hit("intake.committed")
        await message.ack()
        failpoints.hit("intake.acknowledged")

    async def _note(self, command: Command) -> None:
        """Once, whatever becomes of the database meanwhile: the message is kept until it has been noted."""
        while True:
            try:
                outcome = await self._note_once(command)
            except Conflict as refused:
                await self._note_refusal(command, str(refused))
                raise
            except TRANSIENT_ERRORS as error:
                log.warning("database trouble, trying again", command=str(command.id), error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._wake(command, outcome)
                return

    async def _note_refusal(self, command: Command, reason: str) -> None:
        async with self._pool.acquire() as connection:
            await inbox.reject(connection, command, reason)

    async def _note_once(self, command: Command) -> Granted | Short | None:
        async with self._pool.acquire() as connection, connection.transaction():
            if not await inbox.accept(connection, command):
                log.info("command known already", command=str(command.id), type=command.type)
                return None
            outcome = await carry_out(connection, command, batch_size=self._settings.effective_batch_size)
        log.info("command accepted", command=str(command.id), type=command.type)
        return outcome

    async def _wake(self, command: Command, outcome: Granted | Short | None) -> None:
        match command, outcome:
            case ImportCoupons(), _:
                self._signals.wake("import")
            case StartSendout(), _:
                self._signals.wake("sendout")
            case ResumeSendout(), Short():
                log.warning("sendout still interrupted", sendout=str(command.sendout), reason=str(outcome))
            case ResumeSendout(), _:
                await self._nudges.deliver()


def _cause(error: BaseException) -> str:
    """The first of the errors that a group of tasks ended with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, BrokerUnavailable) else type(error).__name__


async def _reject(message: AbstractIncomingMessage, sender: Sender, reason: str) -> None:
    """Keep what was published, with the reason, in the dead queue."""
    log.warning("command rejected", queue=message.routing_key, reason=reason[:MAX_REASON_CHARS])
    await sender.send(topology.DEAD, message.body, {topology.REASON: reason[:MAX_REASON_CHARS]})


async def _cancelled_by_broker(channel: AbstractChannel) -> asyncio.Event:
    """Set when the broker ends a consumer, because its queue was deleted: aio-pika's iterators wait on for ever."""
    cancelled = asyncio.Event()
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
    return cancelled


async def carry_out(connection: Connection, command: Command, *, batch_size: int) -> Granted | Short | None:
    """What a command does at once, inside the transaction that notes it. Raises Conflict, and nothing was changed."""
    match command:
        case ImportCoupons():
            await imports.create(connection, command)
        case StartSendout():
            await sendouts.create(connection, command, batch_size=batch_size)
        case ResumeSendout():
            return await sendouts.resume(connection, command.sendout)
    return None
