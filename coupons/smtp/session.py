"""An SMTP session after EHLO. It turns mails into bytes, and replies into outcomes. It does no I/O.

With PIPELINING (RFC 2920), the end of one mail and the beginning of the next are written together:

    client:  <mail 1> . MAIL RCPT DATA(2)               <mail 2> . MAIL RCPT DATA(3)
    relay:                                250 250 250 354                             250 250 250 354

DATA is always last in such a group of commands, and a mail is written only after its own 354, when no unread reply
follows. So the relay never reads a mail as commands, nor a command as part of a mail.

"In step" means that client and relay agree which reply belongs to which command. No other command is answered with 354,
so a 354 in the right place shows that they are in step. Therefore the verdict on a mail (the reply to its final dot) is
confirmed only when the group after that dot is answered too. Without PIPELINING, the same commands are sent one at a
time.
"""

import re

from coupons.smtp.commands import GROUP, Awaited, Capabilities, Commands, Control, group_for, refusal_of
from coupons.smtp.outcomes import (
    PAST_DEADLINE,
    SHUTTING_DOWN,
    Outcome,
    OverQuota,
    Phase,
    Refused,
    Sent,
)
from coupons.smtp.progress import NO_PROGRESS, Close, CloseCause, Progress
from coupons.smtp.queue import Mail
from coupons.smtp.replies import OutOfStepError, ReplyReader, reply_codes, reply_text
from coupons.smtp.rules import interpret, is_backpressure, is_soft_failure, outcome_of_loss, subject_of

CLOSING = b"421"  # RFC 5321 3.8: the relay closes the connection after it

_DOT_AND_GROUP = 1 + len(GROUP)
_OK, _GO_AHEAD = ord("2"), ord("3")
_ALL_ACCEPTED = re.compile(
    rb"(2[0-5]\d [^\r\n]{,400})\r\n2[0-5]\d [^\r\n]{,400}\r\n2[0-5]\d [^\r\n]{,400}\r\n3[0-5]\d [^\r\n]{,400}\r\n"
)
"""The usual replies to a final dot and the group after it, arriving together. One match takes 3 µs instead of 8."""


class _Begun:
    """A mail whose commands are written, but whose body is not."""

    __slots__ = ("mail", "phase", "recipient_accepted", "refusal", "wire")

    def __init__(self, mail: Mail, wire: bytes) -> None:
        self.mail = mail
        self.wire = wire
        self.phase = Phase.MAIL
        """The first command of this mail that has no reply yet."""
        self.refusal: Outcome | OverQuota | None = None
        self.recipient_accepted = False


class _Findings:
    """The findings from the replies that are being read, until they are reported as `Progress`."""

    __slots__ = ("backpressure", "close_reason", "over_quota", "settled", "soft_failure")

    def __init__(self) -> None:
        self.settled: list[tuple[Mail, Outcome]] = []
        self.over_quota: list[tuple[Mail, OverQuota]] = []
        self.backpressure = False
        self.soft_failure: str | None = None
        self.close_reason: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.settled or self.over_quota or self.backpressure or self.soft_failure)


class Session:
    """Holds at most two mails: one whose final dot is written, and one begun after it.

    The caller writes `output()` after each call of another method, and closes the connection when a progress has
    `close`.
    """

    def __init__(self, capabilities: Capabilities, *, pipelining: bool, relay: str = "") -> None:
        """`relay` is the name that the outcomes bear."""
        self._capabilities = capabilities
        self._relay = relay
        self._commands = Commands(pipelining=pipelining)
        self._replies = ReplyReader()
        self._findings = _Findings()
        self._now = 0.0
        self._begun: _Begun | None = None
        self._written: Mail | None = None  # its final dot is written
        self._verdict: Outcome | OverQuota | None = None  # the outcome of the written mail, until it is confirmed
        self._reset_due = False  # MAIL was accepted: RSET is needed before another MAIL
        self._unused = True  # no MAIL was answered yet
        self._ended = False

    # --- what the connection asks

    @property
    def awaited(self) -> Awaited | None:
        """The command that the next reply answers, or None."""
        return self._commands.awaited[0] if self._commands.awaited else None

    @property
    def is_quiet(self) -> bool:
        """Whether no reply is awaited."""
        return not self._commands.awaited

    @property
    def in_flight(self) -> list[Mail]:
        """The mails that are begun and have no outcome yet."""
        begun = [self._begun.mail] if self._begun is not None else []
        return begun if self._written is None else [self._written, *begun]

    @property
    def can_accept(self) -> bool:
        if self._begun is not None or self._ended:
            return False
        awaited = self._commands.awaited
        return not awaited or (self._commands.pipelining and len(awaited) == 1 and awaited[0] is Phase.DOT)

    # --- what the connection does

    def begin(self, mail: Mail) -> Outcome | None:
        """Write the commands of a mail and return None, or return its outcome if the relay cannot accept it.

        Raises ValueError if an address has a control character; then nothing was written.
        """
        envelope = mail.envelope
        wire = envelope.wire(eight_bit=self._capabilities.eight_bit)
        if (refusal := refusal_of(envelope, wire, self._capabilities)) is not None:
            return Refused(refusal, subject_of(Phase.MAIL, refusal), Phase.MAIL, self._relay)
        group = group_for(envelope, self._capabilities)
        self._begun = _Begun(mail, wire)
        if self._reset_due:
            self._commands.send(Control.RSET, b"RSET\r\n")
            self._reset_due = False
        self._commands.send_group(group)
        return None

    def output(self) -> bytes:
        """Return the bytes to write to the connection now."""
        return self._commands.take_output()

    def receive(self, data: bytes, now: float = 0.0) -> Progress | None:
        """Read replies and return their meaning, or None if no reply is complete. `now` is the loop's time."""
        self._now = now
        try:
            if not self._read(data):
                return None
        except OutOfStepError as error:
            return self.end(CloseCause.OUT_OF_STEP, str(error))
        if self._findings.close_reason is not None:
            return self.end(CloseCause.ENDED, self._findings.close_reason)
        return self._take_progress()

    def quit(self) -> None:
        """Send QUIT. The session must be quiet."""
        self._commands.send(Control.QUIT, b"QUIT\r\n")

    def end(self, cause: CloseCause, reason: str) -> Progress:
        """End the session after its connection was lost or closed: settle its mails or return them to the queue.

        `reason` has no text of the relay: a reply may contain the address of another mail than those that it ends.
        """
        close = Close(
            cause,
            reason,
            unused=self._unused,
            abrupt=self._findings.close_reason is None,
            blames_pipelining=self._blames_pipelining(cause),
        )
        if self._written is not None:
            verdict = None if self._is_doubtful(cause) else self._verdict
            self._settle_written(self._written, verdict or self._outcome_of_loss(Phase.DOT, reason))
        returned = self._end_begun(cause, reason)
        self._commands.awaited.clear()
        self._ended = True
        return self._take_progress(returned, close)

    # --- how replies are read

    def _read(self, data: bytes) -> bool:
        """Read replies and return whether any is complete. Raises OutOfStepError."""
        if len(self._commands.awaited) == _DOT_AND_GROUP and self._read_all_accepted(data):
            return True
        replies = self._replies.read(data)
        last = len(replies) - 1
        for number, reply in enumerate(replies):
            self._read_reply(reply, more=number < last or self._replies.is_partial)
            if self._findings.close_reason is not None:
                break
        if not self._commands.awaited:
            if self._replies.is_partial:
                raise OutOfStepError("the relay began a reply to no command")
            self._confirm()
        return bool(replies)

    def _read_all_accepted(self, data: bytes) -> bool:
        """If these are the usual replies, settle the written mail as sent, write the begun one and return True."""
        awaited, written, begun = self._commands.awaited, self._written, self._begun
        if awaited[0] is not Phase.DOT or self._replies.is_partial:
            return False
        found = _ALL_ACCEPTED.fullmatch(data)
        if found is None or written is None or begun is None:
            return False
        awaited.clear()
        self._settle_written(written, Sent(reply_text(found[1]), self._relay))
        self._write_body(begun)
        return True

    def _read_reply(self, reply: bytes, *, more: bool) -> None:
        awaited = self._commands.awaited
        if not awaited:
            if not reply.startswith(CLOSING):
                raise OutOfStepError(f"the relay sent a reply to no command: {_codes(reply)}")
        elif (command := awaited[0]) is Phase.DOT:
            self._verdict = self._interpret(Phase.DOT, reply)
            awaited.popleft()
        elif isinstance(command, Control):
            self._read_reply_to_control(command, reply)
        elif self._begun is not None:
            self._read_reply_to_begun(self._begun, command, reply, more=more)
        if reply.startswith(CLOSING):
            self._findings.close_reason = _codes(reply)
            self._findings.backpressure = True

    def _read_reply_to_begun(self, begun: _Begun, phase: Phase, reply: bytes, *, more: bool) -> None:
        accepted = reply[0] == (_GO_AHEAD if phase is Phase.DATA else _OK)
        if not accepted:
            if phase is Phase.MAIL and not self._unused and reply.startswith(CLOSING):
                return  # normal on a connection that was used before; treated like a missing reply
            refusal = self._interpret(phase, reply)
            begun.refusal = begun.refusal or refusal
        self._unused = False
        self._commands.awaited.popleft()
        match phase:
            case Phase.MAIL:
                self._reset_due = accepted
                begun.phase = Phase.RCPT
            case Phase.RCPT:
                begun.phase = Phase.DATA
                begun.recipient_accepted = accepted
            case _:
                self._group_answered(go_ahead=accepted, more=more)
                return
        if not self._commands.pipelining:
            self._step(begun)

    def _read_reply_to_control(self, control: Control, reply: bytes) -> None:
        if reply[0] == _GO_AHEAD:
            raise OutOfStepError(f"{control.value} was answered with {_codes(reply)}")
        self._commands.awaited.popleft()
        if control is Control.QUIT or (control is Control.RSET and reply[0] != _OK):
            self._findings.close_reason = _codes(reply)
        elif control is Control.RSET:
            self._commands.send_pending()

    def _interpret(self, phase: Phase, reply: bytes) -> Outcome | OverQuota | None:
        text = reply_text(reply)
        outcome = interpret(phase, text, self._relay)
        if reply[0] > _GO_AHEAD:
            if is_backpressure(phase, text):
                self._findings.backpressure = True
            if is_soft_failure(phase, text) and (self._begun is None or self._begun.refusal is None):
                self._findings.soft_failure = reply_codes(text)
        return outcome

    def _step(self, begun: _Begun) -> None:
        """Without PIPELINING: send the next command, or settle the mail with its first refusal."""
        if begun.refusal is None:
            self._commands.send_pending()
        else:
            self._commands.drop_pending()
            self._settle_begun(begun, begun.refusal)

    def _group_answered(self, *, go_ahead: bool, more: bool) -> None:
        """MAIL, RCPT and DATA have their replies, so client and relay are in step. `more`: unread bytes follow."""
        self._confirm()
        if go_ahead and more:
            raise OutOfStepError("the relay sent more after 354")
        begun = self._begun
        if begun is None:
            return
        if begun.refusal is None:
            self._write_body(begun)
            return
        self._settle_begun(begun, begun.refusal)
        if go_ahead and begun.recipient_accepted:
            raise OutOfStepError("the relay refused the sender, but would accept the mail")
        if go_ahead:  # RFC 2920 3.1: the mail has no recipients and is ended at once
            self._commands.write(Control.LONE_DOT, b".\r\n")
            self._reset_due = False

    def _write_body(self, begun: _Begun) -> None:
        mail = begun.mail
        if self._now > mail.deadline:  # the relay expects the body, so only closing the connection avoids sending it
            self._findings.close_reason = PAST_DEADLINE.explanation
            self._settle_begun(begun, PAST_DEADLINE)
            return
        self._commands.write(Phase.DOT, begun.wire)
        self._written, self._begun = mail, None
        self._reset_due = False

    # --- how mails are settled

    def _confirm(self) -> None:
        """Settle the written mail with its verdict, because client and relay are in step."""
        if self._written is not None and self._verdict is not None:
            self._settle_written(self._written, self._verdict)

    def _settle_written(self, mail: Mail, outcome: Outcome | OverQuota) -> None:
        self._settle(mail, outcome)
        self._written = self._verdict = None

    def _settle_begun(self, begun: _Begun, outcome: Outcome | OverQuota) -> None:
        self._settle(begun.mail, outcome)
        self._begun = None

    def _settle(self, mail: Mail, outcome: Outcome | OverQuota) -> None:
        if isinstance(outcome, OverQuota):
            self._findings.over_quota.append((mail, outcome))
        else:
            self._findings.settled.append((mail, outcome))

    def _end_begun(self, cause: CloseCause, reason: str) -> list[Mail]:
        """Settle or return the begun mail, whose body was not written.

        A refusal counts, unless its reply may belong to another command.
        """
        begun = self._begun
        if begun is None:
            return []
        disregard = self._commands.pipelining and cause in (CloseCause.OUT_OF_STEP, CloseCause.TIMEOUT)
        if cause is CloseCause.STOPPED:
            self._settle_begun(begun, SHUTTING_DOWN)
        elif disregard or (begun.phase is Phase.MAIL and begun.refusal is None):
            self._begun = None
            return [begun.mail]
        else:
            self._settle_begun(begun, begun.refusal or self._outcome_of_loss(begun.phase, reason))
        return []

    def _outcome_of_loss(self, phase: Phase, reason: str) -> Outcome:
        self._findings.soft_failure = reason
        return outcome_of_loss(phase, reason, self._relay)

    def _is_doubtful(self, cause: CloseCause) -> bool:
        """Return whether replies may belong to other commands.

        If a group of commands timed out with only some of its replies, it is unknown which reply is missing.
        """
        if cause is CloseCause.TIMEOUT:
            return self._begun is not None and self._begun.phase is not Phase.MAIL
        return cause is CloseCause.OUT_OF_STEP

    def _blames_pipelining(self, cause: CloseCause) -> bool:
        if not self._commands.pipelining:
            return False
        if cause is CloseCause.TIMEOUT:  # only some of the commands that were written together have replies
            return self._begun is not None and (self._begun.phase is not Phase.MAIL or self._verdict is not None)
        return cause is CloseCause.OUT_OF_STEP and (self._begun is not None or self._written is not None)

    def _take_progress(self, returned: list[Mail] | tuple[()] = (), close: Close | None = None) -> Progress:
        found = self._findings
        if close is None and found.is_empty:
            return NO_PROGRESS
        self._findings = _Findings()
        return Progress(found.settled, returned, found.over_quota, found.backpressure, found.soft_failure, close)


def _codes(reply: bytes) -> str:
    return reply_codes(reply_text(reply))
