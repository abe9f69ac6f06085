"""A pool of connections to one relay."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiosmtplib import SMTP

from coupons.mail import Envelope
from coupons.smtp.address import SmtpAddress, SmtpAddressError, Tls
from coupons.smtp.connection import Connection, Timeouts
from coupons.smtp.outcomes import Outcome, Unreachable

COOL_OFF_SECONDS = 30  # before a relay that has refused one more connection is asked for more again
SHUTTING_DOWN = "shutting down"


@dataclass(frozen=True, slots=True)
class _Handover:
    envelope: Envelope
    report: Callable[[Outcome], None]


class Relay:
    """Connections that are opened as mails come, and closed when there are none.

    Every mail that is handed over is reported exactly once, whatever happens.
    """

    def __init__(
        self,
        address: SmtpAddress,
        *,
        connections: int = 10,
        local_hostname: str | None = None,
        mails_per_connection: int = 1_000,
        idle_seconds: float = 30,
        closing_seconds: float = 10,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 a frozen value
    ) -> None:
        """`local_hostname`: said in EHLO, by default this machine's. `mails_per_connection`: 0 for no limit.

        `closing_seconds` are given to mails in flight when the relay is left.

        Raises SmtpAddressError: its certificates cannot be read, or the hostname cannot be said.
        """
        if local_hostname and not re.fullmatch(r"[!-~]+", local_hostname):
            raise SmtpAddressError("the name said in EHLO must be ASCII letters and digits without blanks")
        self._address = address
        self._tls_context = address.tls_context()
        self._most_connections = connections
        self._local_hostname = local_hostname
        self._mails_per_connection = mails_per_connection
        self._idle_seconds = idle_seconds
        self._closing_seconds = closing_seconds
        self._timeouts = timeouts
        self._waiting: deque[_Handover] = deque()
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, asyncio.TimerHandle] = {}  # the last one to rest is the first to work again
        self._tasks: set[asyncio.Task[None]] = set()
        self._cool_until = 0.0
        self._closing = False
        self._surprise: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hand back what is waiting, give what is in flight a moment, then interrupt it."""
        self._closing = True
        self.hand_back()
        for connection in list(self._idle):
            self._retire(connection)
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._closing_seconds)
        finally:
            for task in self._tasks:
                task.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._surprise is not None and error is None:
            raise self._surprise

    async def send(self, envelope: Envelope) -> Outcome:
        """What became of this one mail."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.hand_over(envelope, lambda outcome: None if done.done() else done.set_result(outcome))
        return await done

    async def reach(self) -> Unreachable | None:
        """Whether a connection can be opened now, up to and including authentication; what keeps it from that."""
        connection = Connection(self._new_client, self._timeouts, most_mails=1)
        unreachable = await connection.reach()
        await connection.quit()
        return unreachable

    def hand_back(self) -> None:
        """Report every mail that no connection has begun with as `Unreachable`."""
        self._give_back(Unreachable(SHUTTING_DOWN))

    def hand_over(self, envelope: Envelope, report: Callable[[Outcome], None]) -> None:
        """Have the mail sent as soon as a connection is free; `report` is called with what became of it."""
        if self._closing:
            report(Unreachable(SHUTTING_DOWN))
            return
        self._waiting.append(_Handover(envelope, report))
        self._start()

    def _start(self) -> None:
        """Put one more connection to work, if there is one."""
        if self._idle:
            connection, timer = self._idle.popitem()
            timer.cancel()
        elif self._may_open():
            connection = Connection(self._new_client, self._timeouts, most_mails=self._mails_per_connection)
            self._connections.add(connection)
        else:
            return
        self._run(self._work(connection))

    def _may_open(self) -> bool:
        if len(self._connections) >= self._most_connections:
            return False
        return not self._connections or asyncio.get_running_loop().time() >= self._cool_until

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._surprise = task.exception()
        if self._waiting:
            self._start()

    async def _work(self, connection: Connection) -> None:
        """Send what is waiting, until nothing is or the relay is out of reach."""
        try:
            while self._waiting and connection in self._connections:
                await self._send_next(connection)
        finally:
            if connection.is_open and not self._closing:
                self._rest(connection)
            else:
                self._retire(connection)

    async def _send_next(self, connection: Connection) -> None:
        handover = self._waiting.popleft()
        try:
            outcome = await connection.send(handover.envelope)
        except BaseException as error:
            reason = SHUTTING_DOWN if isinstance(error, asyncio.CancelledError) else "a defect of our own"
            handover.report(connection.interrupted(reason))
            raise
        if isinstance(outcome, Unreachable):
            self._out_of_reach(connection, handover, outcome)
        else:
            handover.report(outcome)

    def _out_of_reach(self, connection: Connection, handover: _Handover, outcome: Unreachable) -> None:
        """A relay may serve fewer connections than we want. Only when the last one fails, it is out of reach."""
        self._connections.discard(connection)
        if self._connections and not self._closing:
            self._cool_until = asyncio.get_running_loop().time() + COOL_OFF_SECONDS
            self._waiting.appendleft(handover)
        else:
            handover.report(outcome)
            self._give_back(outcome)

    def _give_back(self, outcome: Unreachable) -> None:
        while self._waiting:
            self._waiting.popleft().report(outcome)

    def _rest(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.call_later(self._idle_seconds, self._retire, connection)

    def _retire(self, connection: Connection) -> None:
        if timer := self._idle.pop(connection, None):
            timer.cancel()
        self._connections.discard(connection)
        if connection.is_open:
            self._run(connection.quit())

    def _new_client(self) -> SMTP:
        return SMTP(
            hostname=self._address.host,
            port=self._address.port,
            username=self._address.username,
            password=self._address.password,
            local_hostname=self._local_hostname or None,
            timeout=self._timeouts.connect_seconds,
            use_tls=self._address.tls is Tls.IMPLICIT,
            start_tls=self._address.tls is Tls.STARTTLS,  # never None, which means: if the server likes
            tls_context=self._tls_context,
        )
