"""The outcomes of a mail. coupons/smtp/rules.py decides which one a reply means.

`explanation` is one line of text: the relay's reply to this mail, or what went wrong. A reply may contain the
recipient's address or a part of the mail, so its text is stored with the delivery only: `reply_codes` is what logs and
reasons show. What went wrong is described without any text of the relay.
"""

from dataclasses import dataclass, field
from enum import Enum


class Phase(Enum):
    """The step that a mail has reached. In phase DOT its body is written, so the relay may have accepted it."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "the final dot"


class Subject(Enum):
    """What a reply is about. The value completes the sentence "the relay refuses …"."""

    RECIPIENT = "the recipients"
    SENDER = "the sender"
    ACCOUNT = "our account"
    SENDER_OR_RECIPIENT = "the sender or the recipients"
    MESSAGE = "the message"
    QUOTA = "more mail"
    RELAY = "all mail"


@dataclass(frozen=True, slots=True)
class Sent:
    """The relay accepted the mail."""

    explanation: str
    relay: str = field(default="", compare=False)
    """Host and port of the relay that gave this outcome."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The relay answered 5xx. `subject` tells whether it would refuse the next mail as well."""

    explanation: str
    subject: Subject = Subject.RECIPIENT
    phase: Phase = field(default=Phase.RCPT, compare=False)
    relay: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Deferred:
    """The mail is tried again later, with the same code. The relay answered 4xx, or the connection was lost before the
    mail was written.
    """

    explanation: str
    subject: Subject = field(default=Subject.RELAY, compare=False)
    relay: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class OverQuota:
    """The relay accepts no more mail for now. `Relay` decides what becomes of the mail, so this is never reported."""

    explanation: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The mail was written, but no final reply came. The relay may have accepted it."""

    explanation: str


class UnreachableCause(Enum):
    """Why a mail was not sent."""

    RELAY = "no relay could be used"
    DEADLINE = "its deadline passed"
    CANCELLED = "its owner cancelled it"
    SHUTDOWN = "the process is shutting down"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The mail was not handed to a relay, for the reason in `cause`. This does not count as an attempt.

    `explanation` has no text of a relay, because the sendout shows it while it waits.
    """

    explanation: str
    cause: UnreachableCause = UnreachableCause.RELAY


PAST_DEADLINE = Unreachable("not sent before its deadline", UnreachableCause.DEADLINE)
SHUTTING_DOWN = Unreachable("shutting down", UnreachableCause.SHUTDOWN)
CANCELLED = Unreachable("cancelled", UnreachableCause.CANCELLED)

Outcome = Sent | Refused | Deferred | Uncertain | Unreachable
