"""The whole failure policy of sending: decides what each outcome of a mail means for its delivery.

coupons/smtp/rules.py tells what a reply is about. `Evidence` tells what the same relay replied to others.
"""

import random
import time
from dataclasses import dataclass

from coupons.smtp import (
    Deferred,
    Outcome,
    Phase,
    Refused,
    Sent,
    Subject,
    Uncertain,
    Unreachable,
    UnreachableCause,
    reply_codes,
)
from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult
from workers.delivery.evidence import Evidence, SendoutEvidence

FIRST_RETRY_SECONDS = 60.0
MAX_RETRY_SECONDS = 3_600.0
JITTER = 0.2
"""Retry delays vary by this fraction, so that mails that were deferred together are not retried together."""
SUSPECT_ATTEMPTS = 3
"""A suspect is refused after this many attempts if too few others are refused to pause the sendout."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The relay refuses all mails of the sendout, so an operator has to act.

    This mail is deferred until the resume, and its whole reply is stored with it.
    """

    reason: str
    result: DeliveryResult


@dataclass(frozen=True, slots=True)
class HoldOff:
    """The mail was not handed over; its delivery stays as it was. The next mail would fail in the same way."""

    reason: str


@dataclass(frozen=True, slots=True)
class Postpone:
    """The mail was not handed over; its delivery stays as it was. The relay is not the reason."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The failure policy for the mails of one sendout."""

    evidence: SendoutEvidence
    retry_seconds: float
    """A deferred delivery is given up after this time."""
    names_relay: bool = False
    """Whether a reason contains the relay's name, because there are several."""

    def verdict(self, delivery: Delivery, outcome: Outcome) -> DeliveryResult | Pause | HoldOff | Postpone:
        match outcome:
            case Sent(reply, relay):
                self.evidence.about(relay).accept(time.monotonic())
                return DeliveryResult.of(delivery, DeliveryState.SENT, reply)
            case Refused():
                return self._refusal(delivery, outcome)
            case Deferred():
                return self._deferral(delivery, outcome)
            case Uncertain(reason):
                return DeliveryResult.of(delivery, DeliveryState.UNCERTAIN, reason)
            case Unreachable(reason, UnreachableCause.RELAY):
                return HoldOff(reason)
            case Unreachable():
                return Postpone()

    def _refusal(self, delivery: Delivery, refusal: Refused) -> DeliveryResult | Pause:
        evidence = self.evidence.about(refusal.relay)
        match refusal.subject:
            case Subject.SENDER | Subject.ACCOUNT if refusal.phase is Phase.MAIL or not delivery.attempts:
                return self._pause(delivery, refusal)
            case Subject.RECIPIENT if not evidence.is_alarming:
                evidence.refuse(domain_of(delivery))
                return refused(delivery, refusal.explanation)
        return self._suspect(delivery, refusal, evidence)

    def _suspect(self, delivery: Delivery, refusal: Refused, evidence: Evidence) -> DeliveryResult | Pause:
        """Defer a mail whose refusal may concern all mails, until the replies to others show whether it does."""
        if self._concerns_only(delivery, evidence):
            return refused(delivery, refusal.explanation)
        counts_once_per_domain = refusal.subject is not Subject.MESSAGE and not delivery.attempts
        evidence.refuse(domain_of(delivery) if counts_once_per_domain else delivery.number)
        if evidence.shows_that_all_are_refused or (evidence.is_unresolved and self._is_too_old(delivery)):
            return self._pause(delivery, refusal)
        if delivery.attempts + 1 >= SUSPECT_ATTEMPTS and not evidence.is_unresolved:
            return refused(delivery, refusal.explanation)
        return later(delivery, refusal.explanation)

    def _deferral(self, delivery: Delivery, deferral: Deferred) -> DeliveryResult | Pause:
        """Defer the mail, or give it up if it was deferred for too long.

        If the relay has accepted no other mail in that time, the sendout is paused instead. The end of a quota is
        always waited for.
        """
        if not self._is_too_old(delivery):
            return later(delivery, deferral.explanation)
        evidence = self.evidence.about(deferral.relay)
        if deferral.subject is not Subject.RECIPIENT and not self._concerns_only(delivery, evidence):
            if deferral.subject is Subject.QUOTA:
                return later(delivery, deferral.explanation)
            evidence.refuse(delivery.number)
            if evidence.shows_that_all_are_refused or evidence.is_unresolved:
                return self._pause(delivery, deferral)
        return refused(delivery, f"given up after {delivery.attempts + 1} attempts: {deferral.explanation}")

    def _is_too_old(self, delivery: Delivery) -> bool:
        return (delivery.deferred_for or 0) + retry_delay(delivery.attempts) > self.retry_seconds

    def _pause(self, delivery: Delivery, outcome: Refused | Deferred) -> Pause:
        self.evidence.about(outcome.relay).pause(time.monotonic())
        at = f" ({outcome.relay})" if self.names_relay else ""
        reason = f"the relay refuses {outcome.subject.value}: {reply_codes(outcome.explanation)}{at}"
        return Pause(reason, DeliveryResult.of(delivery, DeliveryState.DEFERRED, outcome.explanation, due_in=0))

    def _concerns_only(self, delivery: Delivery, evidence: Evidence) -> bool:
        """Return whether this is a later attempt, and the relay has accepted another mail since the first one."""
        return delivery.attempts > 0 and evidence.has_accepted_since(delivery.deferred_for or 0, time.monotonic())


def refused(delivery: Delivery, reply: str, *, attempted: bool = True) -> DeliveryResult:
    """Return a result whose codes return to their lists.

    If an earlier mail may have arrived, the result is uncertain.
    """
    if delivery.was_uncertain:
        reply = f"an earlier mail may have arrived; this one: {reply}"
        return DeliveryResult.of(delivery, DeliveryState.UNCERTAIN, reply, attempted=attempted)
    return DeliveryResult.of(delivery, DeliveryState.REFUSED, reply, attempted=attempted)


def later(delivery: Delivery, reply: str) -> DeliveryResult:
    """Return a result with which the mail is tried again later, with the same codes."""
    due_in = retry_delay(delivery.attempts) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return DeliveryResult.of(delivery, DeliveryState.DEFERRED, reply, due_in=due_in)


def domain_of(delivery: Delivery) -> str:
    return delivery.address.rpartition("@")[2].lower()


def retry_delay(attempts: int) -> float:
    """Return the seconds until the next attempt, which double with each of the `attempts` so far."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 16), MAX_RETRY_SECONDS)
