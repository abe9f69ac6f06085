"""What is said over one connection after it is open: mails in, bytes out; replies in, outcomes out. No I/O.

With PIPELINING (RFC 2920), the end of one mail and the beginning of the next go out together:

    client:  <mail 1> . MAIL RCPT DATA(2)               <mail 2> . MAIL RCPT DATA(3)
    relay:                                250 250 250 354                             250 250 250 354

DATA is always last in such a group, and a mail is only written after its own 354, with nothing left unread: so no mail
is ever read as commands, nor a command as mail. The 354 is also what proves that the replies are in step: it cannot be
taken for any other. What the relay says to the final dot is therefore believed only when the group behind that dot has
been answered too. Without PIPELINING the same is said one command at a time.
"""

import re
from collections import deque
from dataclasses import dataclass
from enum import Enum

from coupons.mail import Envelope
from coupons.smtp.outcomes import (
    PAST_DEADLINE,
    SHUTTING_DOWN,
    Outcome,
    OutOfStepError,
    Phase,
    Refused,
    Sent,
    is_pressure,
    is_setback,
    judged,
    lost,
)
from coupons.smtp.queue import Mail
from coupons.smtp.replies import ReplyReader, explained

CLOSING = b"421"  # RFC 5321 3.8: the relay closes the connection after it


@dataclass(frozen=True, slots=True)
class Offers:
    """What the relay has said it can do, in answer to EHLO."""

    pipelining: bool = False
    eight_bit: bool = False
    utf8: bool = False
    dsn: bool = False
    size: int = 0
    """Octets of the largest mail that it takes; 0: it does not say."""


class Aside(Enum):
    """What is said besides a mail."""

    RSET = "RSET"
    LONE_DOT = "a lone dot"
    QUIT = "QUIT"


Awaited = Phase | Aside
"""What a reply answers."""


class Loss(Enum):
    """Why the dialogue ended before its time."""

    ENDED = "ended by the relay"
    TIMEOUT = "no answer in time"
    OUT_OF_STEP = "an answer that makes no sense"
    STOPPED = "stopped by us"


_COMMANDS = (Phase.MAIL, Phase.RCPT, Phase.DATA)
_WITH_DOT = (Phase.DOT, *_COMMANDS)
_OK, _GO_AHEAD = ord("2"), ord("3")
_ALL_WELL = re.compile(
    rb"(2[0-5]\d [^\r\n]{,400})\r\n2[0-5]\d [^\r\n]{,400}\r\n2[0-5]\d [^\r\n]{,400}\r\n3[0-5]\d [^\r\n]{,400}\r\n"
)
"""The replies to a mail's dot and the group behind it, when they come together. Read at once: 8 µs a mail become 3."""


class Dialogue:
    """At most two mails are in it: one whose final dot was written, and one that was begun behind it.

    Whoever drives it writes `output()` after each call, reports what is in `settled`, and queues again what is in
    `returned`: mails that nothing was at stake for.
    """

    def __init__(self, offers: Offers, *, pipelining: bool) -> None:
        self.settled: list[tuple[Mail, Outcome]] = []
        self.returned: list[Mail] = []
        self.awaited: deque[Awaited] = deque()
        self.farewell: str | None = None
        """Why the connection is of no use any more, most often a reply."""
        self.fresh = True
        """Whether no MAIL was answered yet."""
        self.pressed = False
        """Whether the relay has asked for less; whoever reads it may take it back, and so the next two."""
        self.sent = False
        """Whether the relay has taken a mail."""
        self.setback: str | None = None
        """What went wrong with a mail for the relay's sake; when both are set, this came later."""
        self.pipelining = pipelining
        self._offers = offers
        self._options = f"{' BODY=8BITMIME' if offers.eight_bit else ''}{' RET=HDRS' if offers.dsn else ''}"
        self._replies = ReplyReader()
        self._out: list[bytes] = []
        self._unsaid: deque[tuple[Awaited, bytes]] = deque()
        self._reset_due = False  # the relay holds the beginning of a mail that did not come to its end
        self._now = 0.0
        self._begun: Mail | None = None
        self._wire = b""
        self._phase = Phase.MAIL  # of the mail that is begun: what has no answer yet
        self._refusal: Outcome | None = None
        self._taken = False  # its recipient was
        self._dotted: Mail | None = None
        self._verdict: Outcome | None = None  # on the mail whose dot was written, not yet believed

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is expected of the relay."""
        return not self.awaited

    @property
    def in_flight(self) -> list[Mail]:
        """Those that it has begun with, and that have no outcome yet: two at most."""
        return [mail for mail in (self._dotted, self._begun) if mail is not None]

    @property
    def wants_mail(self) -> bool:
        if self._begun is not None or self.farewell is not None:
            return False
        return not self.awaited or (self.pipelining and len(self.awaited) == 1 and self.awaited[0] is Phase.DOT)

    def begin(self, mail: Mail) -> None:
        """Say that a mail comes. Raises ValueError, with nothing said: an address that would break the commands."""
        envelope = mail.envelope
        wire = envelope.wire(eight_bit=self._offers.eight_bit)
        if (unfit := self._unfit(envelope, wire)) is not None:
            self.settled.append((mail, unfit))
            return
        commands = self._commands(envelope)
        self._begun, self._wire, self._phase, self._refusal = mail, wire, Phase.MAIL, None
        if self._reset_due:
            self._say(Aside.RSET, b"RSET\r\n")
            self._reset_due = False
        if self.pipelining:
            self._out.append(commands)
            self.awaited.extend(_COMMANDS)
        else:
            self._unsaid.extend(zip(_COMMANDS, commands.splitlines(keepends=True), strict=True))
            self._say_next()

    def receive(self, data: bytes, now: float = 0.0) -> bool:
        """Take the relay's words; whether a reply was among them. `now` is the loop's time.

        Raises OutOfStepError: then only `end` may follow.
        """
        self._now = now
        if (
            len(self.awaited) == len(_WITH_DOT)
            and self.awaited[0] is Phase.DOT
            and not self._replies.amid
            and (found := _ALL_WELL.fullmatch(data))
        ):
            self._take_all_well(found[1])
            return True
        replies = self._replies.read(data)
        last = len(replies) - 1
        for number, reply in enumerate(replies):
            self._take(reply, more=number < last or self._replies.amid)
            if self.farewell is not None:
                break
        if not self.awaited:
            if self._replies.amid:
                raise OutOfStepError("the relay began to say something that nobody asked for")
            self._believe()
        return bool(replies)

    def output(self) -> bytes:
        """What is to be written now."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def quit(self) -> None:
        """Take leave; only when it is quiet."""
        self._say(Aside.QUIT, b"QUIT\r\n")

    def end(self, loss: Loss, reason: str) -> None:
        """The connection is lost or given up: settle or return what is in it."""
        if self._dotted is not None:
            believed = None if self._is_doubtful(loss) else self._verdict
            self._settle_dotted(self._dotted, believed or self._lost(Phase.DOT, reason))
        begun, self._begun = self._begun, None
        if begun is not None:
            self._end_begun(begun, loss, reason)
        self.awaited.clear()

    def _is_doubtful(self, loss: Loss) -> bool:
        """Whether replies may belong to other commands: a group that is answered in part, and no more, lacks one."""
        return loss is Loss.OUT_OF_STEP or (loss is Loss.TIMEOUT and self._phase is not Phase.MAIL)

    def _end_begun(self, mail: Mail, loss: Loss, reason: str) -> None:
        """It was not written. What the relay said of it counts, unless that may have been about something else."""
        never_mind = self.pipelining and loss in (Loss.OUT_OF_STEP, Loss.TIMEOUT)
        if loss is Loss.STOPPED:
            self.settled.append((mail, SHUTTING_DOWN))
        elif never_mind or (self._phase is Phase.MAIL and self._refusal is None):
            self.returned.append(mail)
        else:
            self.settled.append((mail, self._refusal or self._lost(self._phase, reason)))

    def _lost(self, phase: Phase, reason: str) -> Outcome:
        self.setback = reason
        return lost(phase, reason)

    def blames_pipelining(self, loss: Loss) -> bool:
        """Whether the relay may have lost commands, or its count, because they came together; ask before `end`."""
        if not self.pipelining:
            return False
        if loss is Loss.TIMEOUT:  # some of what was written at once was answered, and then no more
            return self._begun is not None and (self._phase is not Phase.MAIL or self._verdict is not None)
        return loss is Loss.OUT_OF_STEP and (self._begun is not None or self._dotted is not None)

    def _unfit(self, envelope: Envelope, wire: bytes) -> Outcome | None:
        if envelope.utf8 and not self._offers.utf8:
            return Refused("the address needs SMTPUTF8, and the relay does not offer SMTPUTF8")
        size = self._offers.size
        if size and len(wire) > size and (octets := _octets(wire)) > size:
            return Refused(f"the mail has {octets} octets, and the relay takes {size}")
        return None

    def _commands(self, envelope: Envelope) -> bytes:
        mail_from, rcpt_to = envelope.mail_from, envelope.rcpt_to
        if not (mail_from.isprintable() and rcpt_to.isprintable()):
            raise ValueError("an address contains a prohibited control character")
        options = self._options + " SMTPUTF8" if envelope.utf8 else self._options
        commands = f"MAIL FROM:<{mail_from}>{options}\r\nRCPT TO:<{rcpt_to}>\r\nDATA\r\n"
        return commands.encode("utf-8" if envelope.utf8 else "ascii")

    def _say(self, what: Awaited, words: bytes) -> None:
        if self.pipelining or not self.awaited:
            self._out.append(words)
            self.awaited.append(what)
        else:
            self._unsaid.append((what, words))

    def _say_next(self) -> None:
        if self._unsaid and not self.awaited:
            self._say(*self._unsaid.popleft())

    def _take_all_well(self, reply: bytes) -> None:
        self._verdict = self._judged(Phase.DOT, reply)
        self.awaited.clear()
        self._answered(go_ahead=True, more=False)

    def _take(self, reply: bytes, *, more: bool) -> None:
        if not self.awaited:
            if not reply.startswith(CLOSING):
                raise OutOfStepError(f"nobody asked, and the relay said {explained(reply)}")
            self._part(reply)
            return
        match self.awaited[0]:
            case Phase.MAIL | Phase.RCPT | Phase.DATA as phase:
                self._take_about_begun(phase, reply, more=more)
            case Phase.DOT:
                self._verdict = self._judged(Phase.DOT, reply)
                self.awaited.popleft()
            case aside:
                self._take_aside(aside, reply)
        if reply.startswith(CLOSING):
            self._part(reply)

    def _part(self, reply: bytes) -> None:
        self.farewell = explained(reply)
        self.pressed = True

    def _take_about_begun(self, phase: Phase, reply: bytes, *, more: bool) -> None:
        go_on = reply[0] == (_GO_AHEAD if phase is Phase.DATA else _OK)
        if not go_on:
            if phase is Phase.MAIL and not self.fresh and reply.startswith(CLOSING):
                return  # as good as no answer: the connection was used enough
            refusal = self._judged(phase, reply)
            self._refusal = self._refusal or refusal
        self.fresh = False
        self.awaited.popleft()
        match phase:
            case Phase.MAIL:
                self._reset_due = go_on
                self._phase = Phase.RCPT
            case Phase.RCPT:
                self._phase, self._taken = Phase.DATA, go_on
            case _:
                self._answered(go_ahead=go_on, more=more)
                return
        if not self.pipelining:
            self._step()

    def _judged(self, phase: Phase, reply: bytes) -> Outcome | None:
        text = explained(reply)
        outcome = judged(phase, text)
        self.pressed = self.pressed or is_pressure(phase, text)
        if self._refusal is None and is_setback(phase, text):
            self.setback = text
        return outcome

    def _step(self) -> None:
        """In lock-step, the first refusal is the last word."""
        if self._refusal is None:
            self._say_next()
        else:
            self._unsaid.clear()
            self._settle_begun(self._refusal)

    def _answered(self, *, go_ahead: bool, more: bool) -> None:
        """The whole group was, in step."""
        self._believe()
        if go_ahead and more:
            raise OutOfStepError("the relay said more than to go ahead")
        if self._refusal is not None:
            self._settle_begun(self._refusal)
            if go_ahead and self._taken:
                raise OutOfStepError("the relay refused the sender, and would take the mail")
            if go_ahead:  # RFC 2920 3.1: a mail to nobody, ended at once
                self._out.append(b".\r\n")
                self.awaited.append(Aside.LONE_DOT)
                self._reset_due = False
        elif self._begun is not None:
            self._hand_over(self._begun)

    def _hand_over(self, mail: Mail) -> None:
        if self._now > mail.deadline:  # and the relay waits for it: the only way out is to close the connection
            self.farewell = PAST_DEADLINE.explanation
            self._settle_begun(PAST_DEADLINE)
            return
        self._out.append(self._wire)
        self.awaited.append(Phase.DOT)
        self._dotted, self._begun, self._wire = mail, None, b""
        self._reset_due = False

    def _take_aside(self, aside: Aside, reply: bytes) -> None:
        if reply[0] == _GO_AHEAD:
            raise OutOfStepError(f"{aside.value} was answered with {explained(reply)}")
        self.awaited.popleft()
        if aside is Aside.QUIT or (aside is Aside.RSET and reply[0] != _OK):
            self.farewell = explained(reply)
        elif aside is Aside.RSET:
            self._say_next()

    def _settle_begun(self, outcome: Outcome) -> None:
        if self._begun is not None:
            self.settled.append((self._begun, outcome))
            self._begun, self._wire = None, b""

    def _believe(self) -> None:
        if self._dotted is not None and self._verdict is not None:
            self._settle_dotted(self._dotted, self._verdict)

    def _settle_dotted(self, mail: Mail, outcome: Outcome) -> None:
        self.settled.append((mail, outcome))
        self.sent = self.sent or isinstance(outcome, Sent)
        self._dotted = self._verdict = None


def _octets(wire: bytes) -> int:
    """Of the mail itself, without the dots that SMTP adds."""
    return len(wire) - 3 - (wire.count(b"\r\n.") - 1) - wire.startswith(b".")
