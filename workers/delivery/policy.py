"""What an outcome means for a delivery: the whole failure policy of sending."""

import random
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
from coupons.store.deliveries import Conclusion, Delivery
from workers.delivery.denials import Denials

FIRST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 3_600.0
JITTER = 0.2
"""Retries are spread by so much of their wait, so that what was deferred together does not come back together."""


@dataclass(frozen=True, slots=True)
class Pause:
    """It is us: a person has to do something. The mail was not taken and is as before."""

    reason: str


@dataclass(frozen=True, slots=True)
class StandStill:
    """The mail was not handed over and is as before; the next one would fare no better now."""

    reason: str
    cause: UnreachableCause = UnreachableCause.RELAY


@dataclass(frozen=True, slots=True)
class Policy:
    """For the mails of one sendout."""

    denials: Denials
    sendout_id: UUID
    give_up_seconds: float

    def verdict(self, delivery: Delivery, outcome: Outcome) -> Conclusion | Pause | StandStill:  # noqa: PLR0911 - one case an outcome
        match outcome:
            case Sent(reply):
                self.denials.clear(self.sendout_id)
                return Conclusion(delivery, "sent", reply)
            case Refused(reply):
                self.denials.clear(self.sendout_id)
                return refused(delivery, reply)
            case Deferred(reply):
                return self._later(delivery, reply)
            case Uncertain(reason):
                return Conclusion(delivery, "uncertain", reason)
            case SenderRefused(reply, Phase.RCPT) if not self.denials.note(self.sendout_id):
                return self._perhaps_denied(delivery, reply)
            case SenderRefused(reply):
                return Pause(f"the relay refuses the sender: {reply}")
            case Unreachable(reason, cause):
                return StandStill(reason, cause)

    def _perhaps_denied(self, delivery: Delivery, reply: str) -> Conclusion:
        """Us, or this recipient? Asked again later, when others were taken, it is the recipient."""
        return refused(delivery, reply) if delivery.attempts else self._later(delivery, reply)

    def _later(self, delivery: Delivery, reply: str) -> Conclusion:
        due_in = retry_in(delivery.attempts, delivery.deferred_for or 0, self.give_up_seconds)
        if due_in is None:
            return refused(delivery, f"given up after {delivery.attempts + 1} attempts: {reply}")
        return Conclusion(delivery, "deferred", reply, due_in * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - no secret


def refused(delivery: Delivery, reply: str, *, attempted: bool = True) -> Conclusion:
    """The codes go back to their lists, unless an earlier mail may have arrived: then this one changes nothing."""
    if delivery.was_uncertain:
        reply = f"an earlier mail may have arrived; this one: {reply}"
        return Conclusion(delivery, "uncertain", reply, attempted=attempted)
    return Conclusion(delivery, "refused", reply, attempted=attempted)


def retry_in(attempts: int, deferred_for: float, give_up_seconds: float) -> float | None:
    """Seconds until the next attempt after `attempts` earlier ones, doubling; None to give up.

    `deferred_for` seconds it has been tried in vain already.
    """
    wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 16), LONGEST_RETRY_SECONDS)
    return wait if deferred_for + wait <= give_up_seconds else None
