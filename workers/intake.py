"""Consume commands from RabbitMQ: commit each one in a transaction, acknowledge it, wake the role that does the work.

A message is acknowledged before the work begins, because RabbitMQ closes a channel whose message stays unacknowledged
for 30 minutes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue

from coupons import broker, failpoints, topology
from coupons.admission import Granted, Short
from coupons.broker import BrokerUnavailable, Sender, cancellation_as_unavailable, check_cancelled, open_sender
from coupons.commands import Command, ImportCoupons, InvalidCommand, ResumeSendout, StartSendout, decode
from coupons.database import TRANSIENT_ERRORS, Connection, Pool
from coupons.errors import Conflict
from coupons.foreign_errors import error_location, first_error
from coupons.settings import Settings
from coupons.store import activation, imports, inbox, sendouts
from coupons.store.activation import NotActivated
from coupons.store.sendouts import AFTER_SECONDS, Waiting
from workers.dead_letters import MAX_REASON_CHARS, dead_letter
from workers.loops import RETRY_SECONDS, Signals, wait_until_set
from workers.nudges import Nudges

log = structlog.get_logger()
PREFETCH = 4
DECLARE_SECONDS = 10
WATCH_SECONDS = 10.0
"""The interval at which the broker is asked for its consumers, and the timeout for its answer."""
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
        """The queues of this worker's roles on which the broker has not confirmed a consumer."""
        return sorted(self._unconsumed)

    async def run(self) -> None:
        """Consume until cancelled. While the broker is unavailable, retry; this never stops the other roles.

        The loop also ends when `signals` reports that the process is stopping.
        """
        while not self._signals.stopping:
            try:
                with cancellation_as_unavailable():
                    # In a task of its own: in Python 3.11, a TaskGroup that fails leaves its task marked as cancelled.
                    await asyncio.create_task(self._consume())
            except Exception as error:  # noqa: BLE001 - aiormq ends pending calls with a bare Exception
                check_cancelled(error)
                if not self._signals.stopping:
                    log.warning("broker unavailable, retrying", reason=_first_cause(error))
            await self._signals.sleep(RETRY_SECONDS)

    async def _consume(self) -> None:
        url = self._settings.broker_url.get_secret_value()
        async with broker.connect(url, "coupons worker") as connection, open_sender(url) as sender:
            async with asyncio.timeout(DECLARE_SECONDS):
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=PREFETCH)
                _, queues = await topology.declare(channel)
                cancelled = await _cancelled_by_broker(channel)
            check_cancelled()
            self._nudges.use(sender)
            log.info("consuming commands", queues=self._keys)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._watch(connection, cancelled))
                    group.create_task(self._stop_with_the_worker())
                    for key in self._keys:
                        handle = self._handle_nudge if key == topology.NUDGE else self._handle_command
                        group.create_task(self._consume_queue(queues[key], handle, sender))
            finally:
                self._nudges.use(None)

    async def _consume_queue(
        self, queue: AbstractQueue, handle: Callable[[AbstractIncomingMessage, Sender], Awaitable[None]], sender: Sender
    ) -> None:
        """Handle a queue's messages in an iterator, because aio-pika cancels callbacks in the middle of their work."""
        with cancellation_as_unavailable():
            async with queue.iterator() as messages:
                with self._consuming(queue.name):
                    async for message in messages:
                        await handle(message, sender)
                        check_cancelled()
        raise BrokerUnavailable(f"the connection of queue {queue.name} was closed")

    @contextmanager
    def _consuming(self, queue: str) -> Iterator[None]:
        self._unconsumed.discard(queue)
        try:
            yield
        finally:
            self._unconsumed.add(queue)

    async def _stop_with_the_worker(self) -> None:
        await self._signals.wait_for_stop()
        raise BrokerUnavailable("the worker is shutting down")

    async def _watch(self, connection: AbstractConnection, cancelled: asyncio.Event) -> None:
        """Raise BrokerUnavailable once a consumer is missing. `run` then connects and consumes again."""
        with cancellation_as_unavailable():
            while not await wait_until_set(cancelled, WATCH_SECONDS):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._check_consumers(connection)
                check_cancelled()
        raise BrokerUnavailable("a queue was deleted")

    async def _check_consumers(self, connection: AbstractConnection) -> None:
        """Check on a separate channel, because asking for a deleted queue closes the channel."""
        async with connection.channel() as channel:
            for key in self._keys:
                queue = await channel.declare_queue(topology.queue_name(key), passive=True)
                if not queue.declaration_result.consumer_count:
                    raise BrokerUnavailable(f"the broker has no consumer on queue {queue.name}")

    async def _handle_nudge(self, message: AbstractIncomingMessage, _: Sender) -> None:
        self._signals.wake("deliver")
        await message.ack()

    async def _handle_command(self, message: AbstractIncomingMessage, sender: Sender) -> None:
        failpoints.hit("intake.received")
        try:
            await self._commit(decode(message.body))
        except (InvalidCommand, Conflict) as error:
            await _reject(message, sender, str(error))
        except Exception as error:  # noqa: BLE001 - a command that causes an internal error must not come back forever
            log.error("internal error", queue=message.routing_key, error=type(error).__name__, at=error_location(error))  # noqa: TRY400 - its text may hold codes
            await _reject(message, sender, f"internal error ({type(error).__name__}); see the log of the worker")
        failpoints.hit("intake.committed")
        await message.ack()
        failpoints.hit("intake.acknowledged")

    async def _commit(self, command: Command) -> None:
        """Commit the command once. While the database is unavailable, retry; the message stays unacknowledged."""
        while True:
            try:
                outcome = await self._commit_once(command)
            except NotActivated:  # not recorded: the command may be repeated once the Coupon Manager is activated
                raise
            except Conflict as conflict:
                await self._record_rejection(command, str(conflict))
                raise
            except TRANSIENT_ERRORS as error:
                log.warning("database unavailable, retrying", command=str(command.id), error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._wake(command, outcome)
                return

    async def _record_rejection(self, command: Command, reason: str) -> None:
        async with self._pool.acquire() as connection:
            await inbox.reject(connection, command, reason)

    async def _commit_once(self, command: Command) -> Granted | Short | Waiting | None:
        async with self._pool.acquire() as connection, connection.transaction():
            if not await inbox.accept(connection, command):
                log.info("duplicate command ignored", command=str(command.id), type=command.type)
                return None
            await activation.check_command(connection, command, activated=self._settings.activated)
            outcome = await apply_command(
                connection, command,
                batch_size=self._settings.effective_batch_size,
                after_seconds=self._settings.after_seconds,
            )  # fmt: skip
        log.info("command accepted", command=str(command.id), type=command.type)
        return outcome

    async def _wake(self, command: Command, outcome: Granted | Short | Waiting | None) -> None:
        match command, outcome:
            case ImportCoupons(), _:
                self._signals.wake("import")
            case StartSendout(), _:
                self._signals.wake("sendout")
            case ResumeSendout(), Waiting():
                self._signals.wake("sendout")  # the imports may have ended since
            case ResumeSendout(), Short():
                log.warning("sendout still interrupted", sendout=str(command.sendout), reason=str(outcome))
            case ResumeSendout(), _:
                await self._nudges.deliver()


def _first_cause(error: BaseException) -> str:
    """Return the first error of a task group: the text of a BrokerUnavailable, the type of any other error."""
    error = first_error(error)
    return str(error) if isinstance(error, BrokerUnavailable) else type(error).__name__


async def _reject(message: AbstractIncomingMessage, sender: Sender, reason: str) -> None:
    """Put the message in the dead queue, with the reason as a header."""
    log.warning("command rejected", queue=message.routing_key, reason=reason[:MAX_REASON_CHARS])
    await dead_letter(sender, message.body, reason)


async def _cancelled_by_broker(channel: AbstractChannel) -> asyncio.Event:
    """Return an event that is set when the broker cancels a consumer because its queue was deleted.

    Without the event, aio-pika's iterators would wait forever.
    """
    cancelled = asyncio.Event()
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
    return cancelled


async def apply_command(
    connection: Connection, command: Command, *, batch_size: int, after_seconds: float = AFTER_SECONDS
) -> Granted | Short | Waiting | None:
    """Apply a command inside the transaction that commits it. Raises Conflict, with nothing changed."""
    match command:
        case ImportCoupons():
            await imports.create(connection, command)
        case StartSendout():
            await sendouts.create(connection, command, batch_size=batch_size, after_seconds=after_seconds)
        case ResumeSendout():
            return await sendouts.request_resume(connection, command, after_seconds=after_seconds)
    return None
