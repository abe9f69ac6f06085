"""One relay: decides whether it gets mails and over how many connections."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coupons.addresses import domain_of
from coupons.smtp.address import SmtpAddress
from coupons.smtp.breaker import Breaker, Fault
from coupons.smtp.congestion import Congestion, Pace
from coupons.smtp.connect import ConnectError, Connector
from coupons.smtp.connection import Connection, Timeouts
from coupons.smtp.connection_set import ConnectionSet
from coupons.smtp.outcomes import Deferred, OverQuota, Phase, Subject
from coupons.smtp.progress import CloseCause, Progress
from coupons.smtp.queue import Mail, MailQueue
from coupons.smtp.replies import reply_codes

QUOTA_DOMAINS = 3
"""If recipients of this many domains are over a quota, with no accepted mail in between, the quota is the relay's."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`connections` is the number that this process opens to all relays. `mails_per_connection` is 0 for no limit.

    A failing relay is retried after `backoff_seconds`, doubled with each failure up to `max_backoff_seconds`.
    """

    connections: int = 10
    mails_per_connection: int = 1_000
    idle_seconds: float = 30
    backoff_seconds: float = 1
    max_backoff_seconds: float = 60


class Relay:
    """Opens connections when mails are queued, and closes idle ones.

    `Congestion` limits the number of connections to what the relay accepts. When no connection can be opened, or mail
    after mail fails, the `Breaker` takes the relay out of rotation; after the back-off, one connection tries again.
    """

    def __init__(
        self,
        address: SmtpAddress,
        *,
        share: int,
        queue: MailQueue,
        on_capacity: Callable[[], None],
        others_in_rotation: Callable[["Relay"], Sequence["Relay"]],
        limits: Limits,
        timeouts: Timeouts,
        local_hostname: str | None,
    ) -> None:
        """`on_capacity` is called when the relay may have room for queued mails.

        Raises SmtpAddressError if the certificates cannot be read or the hostname is invalid.
        """
        self.name = address.name
        self.pace = Pace()
        self.breaker = Breaker(first_seconds=limits.backoff_seconds, max_seconds=limits.max_backoff_seconds)
        self.congestion = Congestion(share)
        self.connections = ConnectionSet()
        self.not_pipelined: str | None = None
        """How the relay violated PIPELINING, which it offers. If set, no more commands are pipelined to this relay."""
        self._connector = Connector(address, local_hostname, timeouts.connect_seconds)
        self._limits = limits
        self._timeouts = timeouts
        self._queue = queue
        self._on_capacity = on_capacity
        self._others_in_rotation = others_in_rotation
        self._retry_timer: asyncio.TimerHandle | None = None
        self._over_quota: set[str] | None = None
        """The domains over their quota since the relay last accepted a mail; None: it has accepted none since it was
        suspended.
        """

    # --- called by the relays

    @property
    def is_out_of_rotation(self) -> bool:
        return self.breaker.is_open

    @property
    def retry_seconds(self) -> float:
        retry_at = self.breaker.retry_at
        return 0.0 if retry_at is None else max(0.0, retry_at - asyncio.get_running_loop().time())

    @property
    def load(self) -> float:
        """The connections in use, as a fraction of the relay's share."""
        return self.connections.in_use / self.congestion.share

    @property
    def may_open(self) -> bool:
        """Whether another connection may be opened.

        At most twice the share is open, because the stalled connections of a dead relay would accumulate.
        """
        if self.breaker.retry_at is not None:
            return False
        opening = len(self.connections.opening)
        open_or_opening = len(self.connections.active) + opening
        return self.connections.answering + opening < self._limit and open_or_opening < 2 * self.congestion.share

    def open(self) -> None:
        task = asyncio.create_task(self._connect())
        self.connections.add_opening(task)
        task.add_done_callback(self._on_connected)

    def work(self) -> None:
        """Let an idle connection send queued mails."""
        connection = self.connections.take_idle()
        connection.work(asyncio.get_running_loop().time())
        if connection.session.is_quiet and connection in self.connections:
            self.on_idle(connection)

    def work_ahead(self) -> bool:
        """Let a connection begin a mail while it waits for the final reply to the one before.

        Return whether it has begun one. Otherwise a slow relay would lose a round trip per mail.
        """
        while self._queue and (connection := self.connections.take_room()) is not None:
            begun = connection.mails
            connection.work_ahead(asyncio.get_running_loop().time())
            if connection.mails > begun:
                return True
        return False

    def retry_now(self) -> None:
        """End the back-off."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        self.breaker.end_backoff()

    async def check(self) -> None:
        """Open a connection and close it with QUIT. Raises ConnectError."""
        connection = await self._connect()
        self.connections.retire(connection)
        await self.connections.wait_removed(connection)

    def close(self) -> None:
        """Accept no more mails, and close each connection once it has no mails in flight."""
        for task in self.connections.opening:
            task.cancel()
        self.retry_now()
        self._retire_all()

    def abort(self, reason: str) -> None:
        """Close every connection now."""
        for connection in self.connections.all:
            connection.abort(reason)

    async def wait_closed(self) -> None:
        await self.connections.wait_empty()

    # --- called by its connections

    def next_mail(self, connection: Connection, now: float) -> Mail | None:
        if connection.is_retiring or self._is_surplus(connection):
            return None
        return self._queue.next(now)

    def on_progress(self, connection: Connection, progress: Progress, now: float) -> None:
        if progress.backpressure:
            self.congestion.halve(now)
        if progress.has_sent:
            self._on_sent(connection)
        if progress.soft_failure is not None:
            self._on_soft_failure(connection, progress.soft_failure)

    def on_over_quota(self, connection: Connection, mail: Mail, reply: OverQuota) -> None:
        """Defer the mail, and leave the rotation if the quota is that of the relay.

        After the back-off, another mail finds out whether the quota has ended: a reply that concerns only this mail
        cannot stop the others again and again. The other mails in flight return to the queue.
        """
        reason = reply_codes(reply.explanation)
        if connection.is_retiring:
            self._queue.put_back(mail, reason, suspect=False)
            self._on_capacity()
            return
        self._queue.settle(mail, Deferred(reply.explanation, Subject.QUOTA, self.name))
        if not self._is_quota_of_recipients(mail, reply):
            self._suspend(Fault.QUOTA, reason)

    def _is_quota_of_recipients(self, mail: Mail, reply: OverQuota) -> bool:
        """Return whether only recipients of this mail's domain are over their quota, as far as it is known.

        A reply to MAIL or to the mail itself cannot concern only them, and neither does one from a relay that accepts
        no other mail.
        """
        if reply.phase is not Phase.RCPT or self._over_quota is None:
            return False
        self._over_quota.add(domain_of(mail.envelope.rcpt_to))
        return len(self._over_quota) < QUOTA_DOMAINS

    def on_mail_answered(self, now: float, seconds: float) -> None:
        if self.pace.record(seconds) and self._is_slow():
            self._suspend(Fault.SLOW, f"{self.pace.seconds:.1f} seconds per mail")
        elif self.congestion.grow(now):
            self._on_capacity()

    def on_idle(self, connection: Connection) -> None:
        if self._is_surplus(connection) or self._queue.closed:
            self.connections.retire(connection)
            self._on_capacity()
        else:
            self.connections.add_idle(connection)

    def on_room(self, connection: Connection) -> None:
        if not self._is_surplus(connection):
            self.connections.add_room(connection)

    def on_idle_timeout(self, connection: Connection) -> None:
        self.connections.retire(connection)

    def on_stalled(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.add_stalled(connection)
            self._on_capacity()

    def on_recovered(self, connection: Connection) -> None:
        self.connections.remove_stalled(connection)

    def on_closed(self, connection: Connection, progress: Progress) -> None:
        close = progress.close
        if close is None:
            return
        self.connections.remove(connection)
        if progress.backpressure:
            self.congestion.halve(asyncio.get_running_loop().time())
        if progress.has_sent:
            self._on_sent(connection)
        if close.blames_pipelining:
            self._stop_pipelining(close.reason)
        elif connection.is_retiring or close.cause is CloseCause.STOPPED:
            pass
        elif close.unused and connection.mails:
            self._connect_failed(close.reason)
        elif close.cause is CloseCause.TIMEOUT and self._others_in_rotation(self):
            self._suspend(Fault.SLOW, close.reason)
        elif progress.soft_failure is not None:
            self._on_soft_failure(connection, progress.soft_failure)
        self._on_capacity()

    # --- how connections are opened

    async def _connect(self) -> Connection:
        """Open a connection. Raises ConnectError.

        `Connection` replaces the transport's protocol before the event loop reads again.
        """
        return Connection(
            await self._connector.connect(),
            relay=self,
            queue=self._queue,
            timeouts=self._timeouts,
            idle_seconds=self._limits.idle_seconds,
            pipelining=self.not_pipelined is None,
        )

    def _on_connected(self, task: asyncio.Task[Connection]) -> None:
        self.connections.remove_opening(task)
        if task.cancelled():
            return
        match task.exception():
            case None if task.result().is_open:
                self.connections.add_idle(task.result())
                self.work()
            case None:
                self._connect_failed("the relay closed the connection at once")
            case ConnectError() as error:
                self._connect_failed(str(error))
            case error:
                self._queue.unexpected_error = error
                self._connect_failed("internal error")
        self._on_capacity()
        self._queue.flush_reports()

    def _connect_failed(self, reason: str) -> None:
        """A connection was refused, or lost before its first mail. The relay accepts no more than are open now."""
        now = asyncio.get_running_loop().time()
        self.congestion.cap(self.connections.answering + len(self.connections.opening), now)
        self._back_off(now)
        if self.connections.is_rest_stalled:
            self.breaker.trip(Fault.CLOSED, reason)

    # --- how many connections it gets

    @property
    def _limit(self) -> int:
        """The number of connections that may send mails."""
        if self.breaker.trouble is None:
            return self.congestion.limit
        return 1 if self.breaker.is_half_open else 0

    def _is_surplus(self, connection: Connection) -> bool:
        return self.connections.answering > self._limit or 0 < self._limits.mails_per_connection <= connection.mails

    def _is_slow(self) -> bool:
        return self.pace.is_much_slower_than(other.pace for other in self._others_in_rotation(self))

    def _stop_pipelining(self, reason: str) -> None:
        self.not_pipelined = self.not_pipelined or reason
        self._retire_all()

    def _retire_all(self) -> None:
        for connection in list(self.connections.active):
            self.connections.retire(connection)

    # --- whether it is in rotation

    def _on_sent(self, connection: Connection) -> None:
        """Record a sent mail, except on a retiring connection: its mail may be older than the relay's trouble."""
        if connection.is_retiring:
            return
        if self._over_quota is None or self._over_quota:
            self._over_quota = set()
        if self.breaker.record_sent():
            self._on_capacity()

    def _on_soft_failure(self, connection: Connection, reason: str) -> None:
        if not connection.is_retiring and self.breaker.record_failure():
            self._suspend(Fault.FAILING, reason)

    def _suspend(self, fault: Fault, reason: str) -> None:
        """Take the relay out of rotation."""
        self._over_quota = None
        self.pace.reset()
        self.breaker.trip(fault, reason)
        self._back_off(asyncio.get_running_loop().time())
        self._retire_all()
        self._on_capacity()

    def _back_off(self, now: float) -> None:
        if not self._queue.closed and self.breaker.back_off(now):
            self._retry_timer = asyncio.get_running_loop().call_later(self.retry_seconds, self._on_retry)

    def _on_retry(self) -> None:
        self.retry_now()
        self._on_capacity()
        self._queue.flush_reports()
