"""One open connection to a relay: an SMTP session over a transport.

Everything happens in callbacks, without a task, a future or a timer per mail. When replies arrive, the connection first
writes the next mail and then reports the outcomes.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from coupons.foreign_errors import describe
from coupons.smtp.commands import Awaited, Control
from coupons.smtp.connect import Opened
from coupons.smtp.lazy_timer import LazyTimer
from coupons.smtp.outcomes import OverQuota, Phase, Refused
from coupons.smtp.progress import NO_PROGRESS, CloseCause, Progress
from coupons.smtp.queue import Mail, MailQueue
from coupons.smtp.session import Session

QUIT_SECONDS = 5
STALLED_SECONDS = 30
"""A connection whose reply is missing for this long is stalled: it keeps waiting, and another one may be opened."""
UNWRITABLE = "internal error: this mail cannot be written"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each step may take.

    Only the final reply gets as long as RFC 5321 4.5.3.2 advises, because without it the mail is uncertain.
    """

    connect_seconds: float = 30
    command_seconds: float = 60
    dot_seconds: float = 600


class ConnectionEvents(Protocol):
    """The callbacks that a relay provides to its connections."""

    name: str

    def next_mail(self, connection: "Connection", now: float) -> Mail | None:
        """Return the next mail to send, or None if there is none or the connection may not send it."""

    def on_progress(self, connection: "Connection", progress: Progress, now: float) -> None:
        """Replies arrived; the connection has not asked for its next mail yet."""

    def on_over_quota(self, connection: "Connection", mail: Mail, reply: OverQuota) -> None:
        """The relay did not accept this mail because it accepts no more for now."""

    def on_mail_answered(self, now: float, seconds: float) -> None:
        """A mail got its outcome, `seconds` after the previous mail on this connection."""

    def on_idle(self, connection: "Connection") -> None: ...

    def on_room(self, connection: "Connection") -> None:
        """The queue is empty. The connection waits for the final reply to a mail, and can begin the next mail."""

    def on_idle_timeout(self, connection: "Connection") -> None: ...

    def on_stalled(self, connection: "Connection") -> None: ...

    def on_recovered(self, connection: "Connection") -> None:
        """A stalled connection received a reply."""

    def on_closed(self, connection: "Connection", progress: Progress) -> None: ...


class Connection(asyncio.Protocol):
    """Asks its relay for mails and reports events to the relay. The outcomes of mails go to the queue."""

    def __init__(
        self,
        opened: Opened,
        *,
        relay: ConnectionEvents,
        queue: MailQueue,
        timeouts: Timeouts,
        idle_seconds: float,
        pipelining: bool,
    ) -> None:
        self.mails = 0
        self.is_retiring = self.is_stalled = False
        self.session = Session(
            opened.capabilities, pipelining=opened.capabilities.pipelining and pipelining, relay=relay.name
        )
        self._relay = relay
        self._queue = queue
        self._timeouts = timeouts
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = opened.transport
        self._since = self._loop.time()  # the time of the last progress
        self._mail_since = self._since  # when the last mail ended or the first one began
        self._timer = LazyTimer(self._on_timeout)
        opened.transport.set_protocol(self)

    # --- called by the relay

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def work(self, now: float) -> None:
        """Begin as many mails as the session can hold now."""
        self._since = now
        if self.session.is_quiet:
            self._mail_since = now
        self.work_ahead(now)

    def work_ahead(self, now: float) -> None:
        """Begin mails without replies. The time limit of the awaited reply stays."""
        while self.session.can_accept and (mail := self._relay.next_mail(self, now)) is not None:
            self._begin(mail)
        self._write()
        if self.session.can_accept and not self.session.is_quiet:
            self._relay.on_room(self)

    def retire(self) -> None:
        """Accept no more mails. After the last reply, send QUIT and wait at most QUIT_SECONDS for its reply."""
        self.is_retiring = True
        if self.session.is_quiet and self._transport is not None:
            self._since = self._loop.time()
            self.session.quit()
            self._write()

    def abort(self, reason: str) -> None:
        self._close(CloseCause.STOPPED, reason)

    # --- called by the transport

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        now = self._loop.time()
        if (progress := self.session.receive(data, now)) is None:
            return
        if self.is_stalled:
            self.is_stalled = False
            self._relay.on_recovered(self)
        if progress.close is None:
            self._advance(progress, now)
        else:
            self._finish(progress)
        self._queue.flush_reports()

    def eof_received(self) -> None:
        self._close(CloseCause.ENDED, "the relay closed the connection")
        self._queue.flush_reports()

    def connection_lost(self, exc: Exception | None) -> None:
        self._close(CloseCause.ENDED, f"the connection was lost: {describe(exc)}" if exc else "the connection was lost")
        self._queue.flush_reports()

    # --- mails

    def _advance(self, progress: Progress, now: float) -> None:
        before = self._mail_since
        if progress is not NO_PROGRESS:
            self._queue.settle_all(progress.settled)
            self._relay.on_progress(self, progress, now)
            self._report_over_quota(progress)
        self.work(now)
        if progress.settled and not self.is_retiring:
            self._mail_since = now
            self._relay.on_mail_answered(now, now - before)
        if self.session.is_quiet and self._transport is not None:
            self._rest()

    def _begin(self, mail: Mail) -> None:
        try:
            outcome = self.session.begin(mail)
        except Exception as error:  # noqa: BLE001 - an error in one mail must not affect the next ones
            self._queue.unexpected_error = error
            self._queue.settle(mail, Refused(UNWRITABLE))
            return
        self.mails += 1
        if outcome is not None:
            self._queue.settle(mail, outcome)

    def _write(self) -> None:
        if self._transport is None:
            return
        if self._transport.is_closing():  # the transport will call `connection_lost`
            self._close(CloseCause.ENDED, "the connection was lost")
            return
        if out := self.session.output():
            self._transport.write(out)
        self._set_deadline()

    def _rest(self) -> None:
        if self.is_retiring:
            self.retire()
        else:
            self._relay.on_idle(self)

    # --- the end

    def _close(self, cause: CloseCause, reason: str) -> None:
        if self._transport is not None:
            self._finish(self.session.end(cause, reason))

    def _finish(self, progress: Progress) -> None:
        """Abort the transport, because an orderly close would still send the rest of a mail. Then settle the mails."""
        transport, self._transport = self._transport, None
        if transport is None or progress.close is None:
            return
        transport.abort()
        self._timer.cancel()
        self._queue.settle_all(progress.settled)
        for mail in progress.returned:
            self._queue.put_back(mail, progress.close.reason, suspect=progress.close.abrupt, relay=self._relay.name)
        self._relay.on_closed(self, progress)
        self._report_over_quota(progress)

    def _report_over_quota(self, progress: Progress) -> None:
        for mail, reply in progress.over_quota:
            self._relay.on_over_quota(self, mail, reply)

    # --- time limits

    def _set_deadline(self) -> None:
        awaited = self.session.awaited
        patience = self._patience(awaited)
        may_stall = awaited is not None and not self.is_stalled
        self._timer.set(self._since + (min(patience, STALLED_SECONDS) if may_stall else patience))

    def _patience(self, awaited: Awaited | None) -> float:
        match awaited:
            case Phase.DOT:
                return self._timeouts.dot_seconds
            case None:
                return self._idle_seconds
            case Control.QUIT:
                return QUIT_SECONDS
            case _:
                return self._timeouts.command_seconds

    def _on_timeout(self) -> None:
        if (awaited := self.session.awaited) is None:
            self._relay.on_idle_timeout(self)
        elif not self.is_stalled and self._timer.deadline < self._since + self._patience(awaited):
            self.is_stalled = True
            self._set_deadline()
            self._relay.on_stalled(self)
            self._queue.flush_reports()
        else:
            self._close(CloseCause.TIMEOUT, f"no reply to {awaited.value} in time")
            self._queue.flush_reports()
