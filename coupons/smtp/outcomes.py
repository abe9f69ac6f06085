"""What became of a mail, and the policy that decides it: `judged` for a reply, `lost` for none.

`explanation` is one line for a person: the relay's reply, or what went wrong. A reply may quote the address.
"""

import re
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """How far a mail has come: what was said last. From DOT on, the relay may have it."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "the final dot"


@dataclass(frozen=True, slots=True)
class Sent:
    """The relay took the mail."""

    explanation: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The relay will never take this mail for this recipient: the code goes back."""

    explanation: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not now: a 4xx, or the connection was lost with the mail begun but not handed over. Due again, same code."""

    explanation: str


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The mail was handed over and never answered for: it may have been sent."""

    explanation: str


@dataclass(frozen=True, slots=True)
class SenderRefused:
    """The relay refuses us, not the recipient: the next mail would fare no better.

    Said at RCPT it is a guess: a policy (`550 5.7.1`) may be about us or about this one recipient.
    """

    explanation: str
    phase: Phase = Phase.MAIL


class UnreachableCause(Enum):
    """Why a mail was not handed over."""

    RELAY = "no relay could be used"
    DEADLINE = "its deadline passed"
    CANCELLED = "its owner cancelled it"
    SHUTDOWN = "the process is shutting down"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The mail was not handed over: nothing was sent, and no attempt counts."""

    explanation: str
    cause: UnreachableCause = UnreachableCause.RELAY


PAST_DEADLINE = Unreachable("not sent before its deadline", UnreachableCause.DEADLINE)
SHUTTING_DOWN = Unreachable("shutting down", UnreachableCause.SHUTDOWN)
CANCELLED = Unreachable("cancelled", UnreachableCause.CANCELLED)

Outcome = Sent | Refused | Deferred | Uncertain | SenderRefused | Unreachable


class OutOfStepError(Exception):
    """The reply is no answer to what was said. From here on no reply can be trusted."""


_OUR_FAULT = re.compile(r"5\d\d 5\.7\.|50[0234] |53[0458] ")  # policy (RFC 3463 3.8); wrong command; authentication
_OF_THE_RELAY = re.compile(r"4\d\d 4\.[3457]\.")  # system, network, protocol, policy


def judged(phase: Phase, reply: str) -> Outcome | None:
    """What the reply (`550 5.1.1 no such mailbox`) means for the mail; None: go on. Raises OutOfStepError."""
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
    raise OutOfStepError(f"{phase.value} was answered with {reply}")


def is_setback(phase: Phase, reply: str) -> bool:
    """Whether the relay itself cannot: a temporary failure, but for those of one recipient (greylisting, a quota)."""
    return reply.startswith("421" if phase is Phase.RCPT else "4")


def is_pressure(phase: Phase, reply: str) -> bool:
    """Whether the relay asks for less: a temporary failure of its own, not of one mailbox (RFC 3463 3)."""
    return is_setback(phase, reply) or (phase is Phase.RCPT and _OF_THE_RELAY.match(reply) is not None)


def lost(phase: Phase, reason: str) -> Outcome:
    """What it means for the mail that the connection was lost, timed out or fell out of step in this phase."""
    match phase:
        case Phase.MAIL:
            return Unreachable(reason)
        case Phase.RCPT | Phase.DATA:
            return Deferred(reason)
        case Phase.DOT:
            return Uncertain(reason)
