"""What an outcome means for a delivery: the whole failure policy of sending."""

import random
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from coupons.smtp import (
    Deferred,
    Outcome,
    Phase,
    Refused,
    SenderRefused,
    Sent,
    Uncertain,
    Unreachable,
    UnreachableCause,
)
from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult

FIRST_RETRY_SECONDS = 60.0
MAX_RETRY_SECONDS = 3_600.0
JITTER = 0.2
"""Retry delays vary by this part, so that mails that were deferred together do not come back together."""
REJECTIONS_IN_A_ROW = 3
"""After this many policy rejections in a row, the relay rejects the sender and not single recipients."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The sender is at fault: an operator has to act. The mail was not accepted, its delivery is as before."""

    reason: str


@dataclass(frozen=True, slots=True)
class HoldOff:
    """The mail was not handed over, its delivery is as before. Now the next mail would fail in the same way."""

    reason: str


@dataclass(frozen=True, slots=True)
class Postpone:
    """The mail was not handed over, its delivery is as before. This says nothing about the relay."""


class RejectionStreaks:
    """For each sendout, the number of recipients in a row that were rejected for a policy (`550 5.7.1` at RCPT)."""

    def __init__(self) -> None:
        self._in_a_row: Counter[UUID] = Counter()

    def add(self, sendout_id: UUID) -> bool:
        """Count one more rejection. Returns True, and starts again at zero, if the sender must be the reason."""
        self._in_a_row[sendout_id] += 1
        if self._in_a_row[sendout_id] < REJECTIONS_IN_A_ROW:
            return False
        self.reset(sendout_id)
        return True

    def reset(self, sendout_id: UUID) -> None:
        """The relay has accepted a mail, or rejected one because of its recipient."""
        self._in_a_row.pop(sendout_id, None)


@dataclass(frozen=True, slots=True)
class Policy:
    """For the mails of one sendout."""

    streaks: RejectionStreaks
    sendout_id: UUID
    retry_seconds: float
    """A deferred delivery is given up after this time."""

    def verdict(self, delivery: Delivery, outcome: Outcome) -> DeliveryResult | Pause | HoldOff | Postpone:  # noqa: PLR0911 - one case per outcome
        match outcome:
            case Sent(reply):
                self.streaks.reset(self.sendout_id)
                return DeliveryResult.of(delivery, DeliveryState.SENT, reply)
            case Refused(reply):
                self.streaks.reset(self.sendout_id)
                return refused(delivery, reply)
            case Deferred(reply):
                return self._later(delivery, reply)
            case Uncertain(reason):
                return DeliveryResult.of(delivery, DeliveryState.UNCERTAIN, reason)
            case SenderRefused(reply, Phase.RCPT) if not self.streaks.add(self.sendout_id):
                return self._sender_or_recipient(delivery, reply)
            case SenderRefused(reply):
                return Pause(f"the relay refuses the sender: {reply}")
            case Unreachable(reason, UnreachableCause.RELAY):
                return HoldOff(reason)
            case Unreachable():
                return Postpone()

    def _sender_or_recipient(self, delivery: Delivery, reply: str) -> DeliveryResult:
        """At the first attempt either may be the reason. At a later one, with other mails accepted in between, it is
        the recipient.
        """
        return refused(delivery, reply) if delivery.attempts else self._later(delivery, reply)

    def _later(self, delivery: Delivery, reply: str) -> DeliveryResult:
        due_in = retry_in(delivery.attempts, delivery.deferred_for or 0, self.retry_seconds)
        if due_in is None:
            return refused(delivery, f"given up after {delivery.attempts + 1} attempts: {reply}")
        due_in *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        return DeliveryResult.of(delivery, DeliveryState.DEFERRED, reply, due_in=due_in)


def refused(delivery: Delivery, reply: str, *, attempted: bool = True) -> DeliveryResult:
    """The codes return to their lists, unless an earlier mail may have arrived: then the delivery stays uncertain."""
    if delivery.was_uncertain:
        reply = f"an earlier mail may have arrived; this one: {reply}"
        return DeliveryResult.of(delivery, DeliveryState.UNCERTAIN, reply, attempted=attempted)
    return DeliveryResult.of(delivery, DeliveryState.REFUSED, reply, attempted=attempted)


def retry_in(attempts: int, deferred_for: float, give_up_after: float) -> float | None:
    """Seconds until the next attempt after `attempts` earlier ones, doubling each time; None to give up.

    `deferred_for`: seconds since the delivery was first deferred.
    """
    wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 16), MAX_RETRY_SECONDS)
    return wait if deferred_for + wait <= give_up_after else None
