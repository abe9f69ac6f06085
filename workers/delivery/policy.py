"""The whole failure policy of sending: decides what each outcome of a mail means for its delivery."""

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
    reply_codes,
)
from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult

FIRST_RETRY_SECONDS = 60.0
MAX_RETRY_SECONDS = 3_600.0
JITTER = 0.2
"""Retry delays vary by this fraction, so that mails that were deferred together are not retried together."""
REJECTIONS_IN_A_ROW = 3
"""After this many policy rejections in a row, the relay is assumed to reject the sender and not single recipients."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The relay rejects the sender, so an operator has to act.

    The mail was not accepted; its delivery stays as it was.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class HoldOff:
    """The mail was not handed over; its delivery stays as it was. The next mail would fail in the same way."""

    reason: str


@dataclass(frozen=True, slots=True)
class Postpone:
    """The mail was not handed over; its delivery stays as it was. The relay is not the reason."""


class RejectionStreaks:
    """Counts, for each sendout, the recipients in a row that the relay rejected for policy reasons (`550 5.7.1` at
    RCPT).
    """

    def __init__(self) -> None:
        self._in_a_row: Counter[UUID] = Counter()

    def add(self, sendout_id: UUID) -> bool:
        """Count one more rejection. If the sender must be the reason, reset the count and return True."""
        self._in_a_row[sendout_id] += 1
        if self._in_a_row[sendout_id] < REJECTIONS_IN_A_ROW:
            return False
        self.reset(sendout_id)
        return True

    def reset(self, sendout_id: UUID) -> None:
        """Reset the count: the relay has accepted a mail, or rejected one because of its recipient."""
        self._in_a_row.pop(sendout_id, None)


@dataclass(frozen=True, slots=True)
class Policy:
    """The failure policy for the mails of one sendout."""

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
                return Pause(f"the relay refuses the sender: {reply_codes(reply)}")
            case Unreachable(reason, UnreachableCause.RELAY):
                return HoldOff(reason)
            case Unreachable():
                return Postpone()

    def _sender_or_recipient(self, delivery: Delivery, reply: str) -> DeliveryResult:
        """Return the result of a policy rejection, whose reason may be the sender or the recipient.

        At the first attempt either may be the reason, so the mail is deferred. At a later attempt it is the recipient,
        because the relay has accepted other mails in between.
        """
        return refused(delivery, reply) if delivery.attempts else self._later(delivery, reply)

    def _later(self, delivery: Delivery, reply: str) -> DeliveryResult:
        due_in = retry_in(delivery.attempts, delivery.deferred_for or 0, self.retry_seconds)
        if due_in is None:
            return refused(delivery, f"given up after {delivery.attempts + 1} attempts: {reply}")
        due_in *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        return DeliveryResult.of(delivery, DeliveryState.DEFERRED, reply, due_in=due_in)


def refused(delivery: Delivery, reply: str, *, attempted: bool = True) -> DeliveryResult:
    """Return a result whose codes return to their lists.

    If an earlier mail may have arrived, the result is uncertain.
    """
    if delivery.was_uncertain:
        reply = f"an earlier mail may have arrived; this one: {reply}"
        return DeliveryResult.of(delivery, DeliveryState.UNCERTAIN, reply, attempted=attempted)
    return DeliveryResult.of(delivery, DeliveryState.REFUSED, reply, attempted=attempted)


def retry_in(attempts: int, deferred_for: float, give_up_after: float) -> float | None:
    """Return the seconds until the next attempt, which double with each of the `attempts` so far, or None to give up.

    `deferred_for` is the number of seconds since the delivery was first deferred.
    """
    wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 16), MAX_RETRY_SECONDS)
    return wait if deferred_for + wait <= give_up_after else None
