"""One open connection to a relay: the dialogue on a transport.

Everything happens in callbacks, without a task, a future or a timer for each mail: when replies come, the next mail is
taken and written at once, and only then is reported what the replies were about.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupons.smtp.connect import Opened
from coupons.smtp.outcomes import OutOfStepError, Phase, Refused
from coupons.smtp.queue import Mail, Waiting
from coupons.smtp.replies import one_line
from coupons.smtp.session import Aside, Dialogue, Loss

if TYPE_CHECKING:
    from coupons.smtp.relay import Relay

QUIT_SECONDS = 5
SILENT_SECONDS = 30
"""A connection that has not been answered for so long goes on waiting, and another one may be opened in its stead."""
UNWRITABLE = "this mail cannot be written: a defect"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a step may take. Less than RFC 5321 4.5.3.2 advises, but for the last, where patience saves mails."""

    connect_seconds: float = 30
    command_seconds: float = 60
    dot_seconds: float = 600


class Connection(asyncio.Protocol):
    """It belongs to a relay, which gives it mails and is told how it fares; outcomes go to `waiting`."""

    def __init__(
        self, opened: Opened, *, relay: "Relay", waiting: Waiting, timeouts: Timeouts, pipelining: bool
    ) -> None:
        self.mails = 0
        self.leaving = self.silent = False
        self.dialogue = Dialogue(opened.offers, pipelining=opened.offers.pipelining and pipelining)
        self._relay = relay
        self._waiting = waiting
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = opened.transport
        self._since = self._loop.time()  # of the last progress
        self._mail_since = self._since  # of the last mail's end, or the first one's beginning
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        opened.transport.set_protocol(self)

    # --- what the relay asks for

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def work(self, now: float) -> None:
        """Take mails and write them, as many as may be in flight."""
        dialogue, self._since = self.dialogue, now
        if dialogue.is_quiet:
            self._mail_since = now
        while dialogue.wants_mail and (mail := self._relay.next_mail(self, now)) is not None:
            self._begin(mail)
        self._write()
        if dialogue.settled:
            self._settle()

    def leave(self) -> None:
        """Take no more mails; take leave when the last one is answered, and don't wait long for an answer."""
        self.leaving = True
        if self.dialogue.is_quiet and self._transport is not None:
            self._since = self._loop.time()
            self.dialogue.quit()
            self._write()

    def stop(self, reason: str) -> None:
        """At once."""
        self._lose(Loss.STOPPED, reason)

    # --- what the transport tells

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        now = self._loop.time()
        try:
            if not self.dialogue.receive(data, now):
                return
        except OutOfStepError as error:
            self._lose(Loss.OUT_OF_STEP, str(error))
        else:
            self._go_on(now)
        self._waiting.tell()

    def eof_received(self) -> None:
        self._lose(Loss.ENDED, "the relay closed the connection")
        self._waiting.tell()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(Loss.ENDED, f"the connection was lost: {exc}" if exc else "the connection was lost")
        self._waiting.tell()

    # --- how it is done

    def _go_on(self, now: float) -> None:
        dialogue, before = self.dialogue, self._mail_since
        if self.silent:
            self.silent = False
            self._relay.heard(self)
        if dialogue.pressed:
            dialogue.pressed = False
            self._relay.pressed(now)
        if dialogue.farewell is not None:
            self._lose(Loss.ENDED, dialogue.farewell)
            return
        self._tell_relay()
        answered = bool(dialogue.settled)
        self.work(now)
        if answered and not self.leaving:
            self._mail_since = now
            self._relay.progressed(now, now - before)
        if dialogue.is_quiet and self._transport is not None:
            self._rest()

    def _tell_relay(self) -> None:
        """Before the next mail is taken: it may be one too many."""
        dialogue = self.dialogue
        if dialogue.sent:
            dialogue.sent = False
            self._relay.sent(self)
        if dialogue.setback is not None:
            setback, dialogue.setback = dialogue.setback, None
            self._relay.failed(self, setback)

    def _rest(self) -> None:
        if self.leaving:
            self.leave()
        else:
            self._relay.rested(self)

    def _begin(self, mail: Mail) -> None:
        try:
            self.dialogue.begin(mail)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one mail, the next ones go on
            self._waiting.surprise = error
            self._waiting.conclude(mail, Refused(UNWRITABLE))
        else:
            self.mails += 1

    def _write(self) -> None:
        if self._transport is None:
            return
        if self._transport.is_closing():  # it knows, and `connection_lost` is on its way
            self._lose(Loss.ENDED, "the connection was lost")
            return
        if out := self.dialogue.output():
            self._transport.write(out)
        self._expect()

    def _settle(self) -> None:
        settled, self.dialogue.settled = self.dialogue.settled, []
        self._waiting.conclude_all(settled)

    def _lose(self, loss: Loss, reason: str) -> None:
        """Close at once: if it was closed in order, what is left of a mail would still be sent."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        reason = one_line(reason)
        blames_pipelining = self.dialogue.blames_pipelining(loss)
        self.dialogue.end(loss, reason)
        self._settle()
        for mail in self.dialogue.returned:
            self._waiting.take_back(mail, reason, suspect=self.dialogue.farewell is None)
        self._relay.lost(self, loss, reason, blames_pipelining=blames_pipelining)

    # --- time limits: one timer a connection, set anew only when it fires too early or would fire too late

    def _expect(self) -> None:
        patience = self._patience()
        self._deadline = self._since + (min(patience, SILENT_SECONDS) if self._may_fall_silent else patience)
        if self._timer is None or self._timer_at > self._deadline:
            self._wake()

    @property
    def _may_fall_silent(self) -> bool:
        return not (self.silent or self.dialogue.is_quiet)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(self._deadline, self._look_at_time), self._deadline

    def _patience(self) -> float:
        awaited = self.dialogue.awaited
        if not awaited:
            return self._relay.idle_seconds
        match awaited[0]:
            case Phase.DOT:
                return self._timeouts.dot_seconds
            case Aside.QUIT:
                return QUIT_SECONDS
            case _:
                return self._timeouts.command_seconds

    def _look_at_time(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            self._wake()
        elif self.dialogue.is_quiet:
            self._relay.tired(self)
        elif self._may_fall_silent and self._deadline < self._since + self._patience():
            self.silent = True
            self._expect()
            self._relay.silenced(self)
            self._waiting.tell()
        else:
            self._lose(Loss.TIMEOUT, f"no answer to {self.dialogue.awaited[0].value} in time")
            self._waiting.tell()
