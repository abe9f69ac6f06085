"""One relay: how many connections it gets, and whether it gets any."""

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from coupons.smtp.address import SmtpAddress, SmtpAddressError
from coupons.smtp.connect import OpeningError, open_connection
from coupons.smtp.connection import Connection, Timeouts
from coupons.smtp.queue import Mail, Waiting
from coupons.smtp.session import Loss

ADJUST_SECONDS = 1
"""The number of connections is halved, and grows by one, at most so often."""
FAILURES_IN_A_ROW = 5
"""So many mails that failed for the relay's sake, none sent between, and it is left out for a while: one that dies
after each dot, or says 421 to each mail, would otherwise be handed thousands in a second, over as many connections.
"""
SLOW_SECONDS = 1.0
SLOW_FACTOR = 10
"""A relay that needs more seconds for a mail, and so many times those of the fastest one, is left out for a while."""
_SMOOTHING = 0.2  # the weight of the newest mail


@dataclass(frozen=True, slots=True)
class Limits:
    """`connections` are those of this process to all relays; `mails_per_connection`: 0 for no limit.

    A relay in trouble is tried again after `backoff_seconds`, which double up to the longest.
    """

    connections: int = 10
    mails_per_connection: int = 1_000
    idle_seconds: float = 30
    backoff_seconds: float = 1
    longest_backoff_seconds: float = 60


class Kind(Enum):
    """What a relay does that is left out."""

    CLOSED = "refuses connections"
    FAILING = "fails"
    SLOW = "is slow"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a relay is left out. It ends with the first mail that is sent."""

    kind: Kind
    reason: str
    since: datetime


class Relay:
    """Connections that are opened as mails come, and closed when there are none.

    Their number follows what the relay takes (additive increase, multiplicative decrease). When none is left and none
    can be opened, or mail after mail fails, the relay is out until its back-off has passed; then one connection tries.
    """

    def __init__(
        self,
        address: SmtpAddress,
        *,
        share: int,
        waiting: Waiting,
        changed: Callable[[], None],
        others: Callable[["Relay"], Sequence["Relay"]],
        limits: Limits,
        timeouts: Timeouts,
        local_hostname: str | None,
    ) -> None:
        """`changed` is called when there may be room for waiting mails; `others` tells which other relays can be used.

        Raises SmtpAddressError: its certificates cannot be read, or the hostname cannot be said.
        """
        if local_hostname and not re.fullmatch(r"[!-~]+", local_hostname):
            raise SmtpAddressError("the name said in EHLO must be ASCII letters and digits without blanks")
        self.name = address.name
        self.share = share
        self.pace = 0.0
        """Seconds for a mail, smoothed; 0: not known."""
        self.trouble: Trouble | None = None
        self.not_pipelined: str | None = None
        """Why nothing is pipelined to this relay any more, although it offers to take that."""
        self.idle_seconds = limits.idle_seconds
        self._address = address
        self._tls_context = address.tls_context()
        self._local_hostname = local_hostname or None
        self._waiting = waiting
        self._changed = changed
        self._others = others
        self._limits = limits
        self._timeouts = timeouts
        self._allowed: float = share
        self._halved_at = self._grown_at = 0.0
        self._failures = 0  # since a mail was sent
        self._backoff = 0.0
        self._blocked: asyncio.TimerHandle | None = None  # no connection is opened before it fires
        self._opening: set[asyncio.Task[Connection]] = set()
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the last one to rest is the first to work again
        self._silent: set[Connection] = set()  # of these connections, those that wait for an answer in vain
        self._leaving: set[Connection] = set()
        self._departed = asyncio.Event()

    # --- what the relays ask for

    @property
    def is_out(self) -> bool:
        return self.trouble is not None and self._blocked is not None

    @property
    def retry_seconds(self) -> float:
        return max(0.0, self._blocked.when() - asyncio.get_running_loop().time()) if self._blocked else 0.0

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def opening(self) -> int:
        return len(self._opening)

    @property
    def load(self) -> float:
        """The part of its share that is in use."""
        return (self._heard + len(self._opening) - len(self._idle)) / self.share

    @property
    def silent(self) -> list[Mail]:
        """What its silent connections hold, also those that take no more mails."""
        silent = [connection for connection in (*self._silent, *self._leaving) if connection.silent]
        return [mail for connection in silent for mail in connection.dialogue.in_flight]

    @property
    def may_open(self) -> bool:
        """Never more than twice its share: a relay that is silent for long would collect them."""
        opening = len(self._opening)
        has_room = self._heard + opening < self._most and len(self._connections) + opening < 2 * self.share
        return self._blocked is None and has_room

    def work(self) -> None:
        """Put an idle connection to work."""
        connection, _ = self._idle.popitem()
        connection.work(asyncio.get_running_loop().time())
        if connection.dialogue.is_quiet and connection in self._connections:
            self.rested(connection)

    def open(self) -> None:
        task = asyncio.create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opened)

    async def check(self) -> None:
        """Open a connection and take leave. Raises OpeningError."""
        connection = await self._connect()
        self._leaving.add(connection)
        connection.leave()
        while connection in self._leaving:
            self._departed.clear()
            await self._departed.wait()

    def try_again(self) -> None:
        """The back-off has passed, or there is nobody better any more."""
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None

    def leave(self) -> None:
        """Take no more mails, and close each connection when it has nothing in flight."""
        for task in self._opening:
            task.cancel()
        self.try_again()  # there is nothing to wait for
        for connection in list(self._connections):
            self._part_with(connection)

    def stop(self, reason: str) -> None:
        for connection in [*self._connections, *self._leaving]:
            connection.stop(reason)

    async def gone(self) -> None:
        """Wait until there is no connection left."""
        while self._opening or self._connections or self._leaving:
            self._departed.clear()
            await self._departed.wait()

    # --- what its connections tell

    def next_mail(self, connection: Connection, now: float) -> Mail | None:
        if connection.leaving or self._is_enough(connection):
            return None
        return self._waiting.next(now)

    def rested(self, connection: Connection) -> None:
        if self._is_enough(connection) or self._waiting.closed:
            self._part_with(connection)
            self._changed()
        else:
            self._idle[connection] = None

    def tired(self, connection: Connection) -> None:
        self._part_with(connection)

    def silenced(self, connection: Connection) -> None:
        if connection in self._connections:
            self._silent.add(connection)
            self._changed()

    def heard(self, connection: Connection) -> None:
        self._silent.discard(connection)

    def sent(self, connection: Connection) -> None:
        """A mail was. What was in flight when the relay was left out does not say how it is now."""
        if connection.leaving:
            return
        self._failures, self._backoff = 0, 0.0
        if self.trouble is not None:
            self.trouble = None
            self._changed()

    def failed(self, connection: Connection, reason: str) -> None:
        """A mail did, for the relay's sake."""
        if connection.leaving:
            return
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW or self.trouble is not None:
            self._leave_out(Kind.FAILING, reason)

    def progressed(self, now: float, seconds: float) -> None:
        self.pace += (seconds - self.pace) * _SMOOTHING
        if self._is_slow():
            self._leave_out(Kind.SLOW, f"{self.pace:.1f} seconds for a mail")
        elif self._allowed < self.share and now - self._grown_at >= ADJUST_SECONDS:
            self._grown_at = now
            self._allowed = min(self.share, self._allowed + 1)
            self._changed()

    def pressed(self, now: float) -> None:
        if now - self._halved_at >= ADJUST_SECONDS:
            self._halved_at = self._grown_at = now
            self._allowed = max(1, self._allowed / 2)

    def lost(self, connection: Connection, loss: Loss, reason: str, *, blames_pipelining: bool) -> None:
        self._idle.pop(connection, None)
        self._connections.discard(connection)
        self._silent.discard(connection)
        self._leaving.discard(connection)
        self._departed.set()
        if connection.dialogue.sent:
            self.sent(connection)
        if blames_pipelining:
            self._pipeline_no_more(reason)
        elif connection.leaving or loss is Loss.STOPPED:
            pass
        elif connection.dialogue.fresh and connection.mails:
            self._opened_in_vain(reason)
        elif loss is Loss.TIMEOUT and self._others(self):
            self._leave_out(Kind.SLOW, reason)
        elif (setback := connection.dialogue.setback) is not None:
            self.failed(connection, setback)
        self._changed()

    # --- how it is done

    @property
    def _heard(self) -> int:
        """Its connections that are no silent ones."""
        return len(self._connections) - len(self._silent)

    @property
    def _most(self) -> int:
        """How many connections may take mails."""
        if self.trouble is None:
            return int(self._allowed)
        return 0 if self.is_out else 1

    def _is_enough(self, connection: Connection) -> bool:
        return self._heard > self._most or 0 < self._limits.mails_per_connection <= connection.mails

    async def _connect(self) -> Connection:
        """The connection takes over before the loop can read any more. Raises OpeningError."""
        opened = await open_connection(
            self._address,
            tls_context=self._tls_context,
            local_hostname=self._local_hostname,
            seconds=self._timeouts.connect_seconds,
        )
        pipelining = self.not_pipelined is None
        return Connection(opened, relay=self, waiting=self._waiting, timeouts=self._timeouts, pipelining=pipelining)

    def _opened(self, task: asyncio.Task[Connection]) -> None:
        self._opening.discard(task)
        self._departed.set()
        if task.cancelled():
            return
        match task.exception():
            case None if task.result().is_open:
                self._connections.add(task.result())
                self._idle[task.result()] = None
                self.work()
            case None:
                self._opened_in_vain("the relay closed the connection at once")
            case OpeningError() as error:
                self._opened_in_vain(str(error))
            case error:
                self._waiting.surprise = error
                self._opened_in_vain("a defect of our own")
        self._changed()
        self._waiting.tell()

    def _is_slow(self) -> bool:
        paces = [other.pace for other in self._others(self) if other.pace] if self.pace > SLOW_SECONDS else []
        return bool(paces) and self.pace > SLOW_FACTOR * min(paces)

    def _pipeline_no_more(self, reason: str) -> None:
        self.not_pipelined = self.not_pipelined or reason
        for connection in list(self._connections):
            self._part_with(connection)

    def _part_with(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._connections.discard(connection)
        self._silent.discard(connection)
        self._leaving.add(connection)
        connection.leave()

    def _opened_in_vain(self, reason: str) -> None:
        """A connection could not be opened, or was of no use. As many as there are is what the relay serves."""
        left = self._heard + len(self._opening)
        self._allowed = max(1, min(self._allowed, left))
        self._grown_at = asyncio.get_running_loop().time()
        self._back_off()
        if not left and all(each.silent for each in self._leaving):
            self._note(Kind.CLOSED, reason)

    def _leave_out(self, kind: Kind, reason: str) -> None:
        self.pace = 0.0
        self._note(kind, reason)
        self._back_off()
        for connection in list(self._connections):
            self._part_with(connection)
        self._changed()

    def _note(self, kind: Kind, reason: str) -> None:
        """Trouble that goes on is the same one."""
        self.trouble = Trouble(kind, reason, self.trouble.since if self.trouble else datetime.now(UTC))

    def _back_off(self) -> None:
        """With jitter, lest all workers ask at once. Connections that fail together count as one failure."""
        if self._blocked is None and not self._waiting.closed:
            doubled = max(2 * self._backoff, self._limits.backoff_seconds)
            self._backoff = min(doubled, self._limits.longest_backoff_seconds)
            seconds = self._backoff * random.uniform(0.5, 1)  # noqa: S311 - no secret
            self._blocked = asyncio.get_running_loop().call_later(seconds, self._unblock)

    def _unblock(self) -> None:
        self.try_again()
        self._changed()
        self._waiting.tell()
