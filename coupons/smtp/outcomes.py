"""The outcomes of a mail, and the rules for them: `interpret` for a reply, `outcome_of_loss` for a lost connection.

`explanation` is one line of text: the relay's reply to this mail, or what went wrong. A reply may contain the
recipient's address or a part of the mail, so its text is stored with the delivery only: `reply_codes` is what logs and
reasons show. What went wrong is described without any text of the relay.
"""

import re
from dataclasses import dataclass
from enum import Enum

from coupons.smtp.replies import OutOfStepError, reply_codes


class Phase(Enum):
    """The step that a mail has reached. In phase DOT its body is written, so the relay may have accepted it."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "the final dot"


@dataclass(frozen=True, slots=True)
class Sent:
    """The relay accepted the mail."""

    explanation: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The relay will never accept this mail for this recipient. Its code returns to the list."""

    explanation: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """The mail is tried again later, with the same code. The relay answered 4xx, or the connection was lost before the
    mail was written.
    """

    explanation: str


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The mail was written, but no final reply came. The relay may have accepted it."""

    explanation: str


@dataclass(frozen=True, slots=True)
class SenderRefused:
    """The relay refuses the sender and not the recipient, so it would refuse the next mail as well.

    At RCPT this is a guess: a policy reply (`550 5.7.1`) may concern the sender or this one recipient.
    """

    explanation: str
    phase: Phase = Phase.MAIL


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

Outcome = Sent | Refused | Deferred | Uncertain | SenderRefused | Unreachable


_OUR_FAULT = re.compile(r"5\d\d 5\.7\.|50[0234] |53[0458] ")  # policy (RFC 3463 3.8); wrong command; authentication
_OF_THE_RELAY = re.compile(r"4\d\d 4\.[3457]\.")  # system, network, protocol, policy


def interpret(phase: Phase, reply: str) -> Outcome | None:
    """Return the outcome that a reply (`550 5.1.1 no such mailbox`) means; None: continue. Raises OutOfStepError."""
    match phase, reply[:1]:
        case (Phase.MAIL | Phase.RCPT, "2") | (Phase.DATA, "3"):
            return None
        case Phase.DOT, "2":
            return Sent(reply)
        case _, "4":
            return Deferred(reply)
        case Phase.MAIL, "5":
            return SenderRefused(reply, phase)
        case Phase.RCPT | Phase.DATA, "5" if _OUR_FAULT.match(reply):
            return SenderRefused(reply, phase)
        case _, "5":
            return Refused(reply)
    raise OutOfStepError(f"{phase.value} was answered with {reply_codes(reply)}")


def is_soft_failure(phase: Phase, reply: str) -> bool:
    """Return whether the relay itself fails: a 4xx reply, unless it concerns one recipient (greylisting, quota)."""
    return reply.startswith("421" if phase is Phase.RCPT else "4")


def is_backpressure(phase: Phase, reply: str) -> bool:
    """Return whether the relay asks for less: a 4xx reply that concerns the relay and not one mailbox (RFC 3463 3)."""
    return is_soft_failure(phase, reply) or (phase is Phase.RCPT and _OF_THE_RELAY.match(reply) is not None)


def outcome_of_loss(phase: Phase, reason: str) -> Outcome:
    """Return the outcome of a mail whose connection is lost, times out or gets out of step in this phase."""
    match phase:
        case Phase.MAIL:
            return Unreachable(reason)
        case Phase.RCPT | Phase.DATA:
            return Deferred(reason)
        case Phase.DOT:
            return Uncertain(reason)
