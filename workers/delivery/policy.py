"""The whole failure policy of sending: decides what each outcome of a mail means for its delivery.

coupons/smtp/rules.py tells what a reply is about. `Evidence` tells what the same relay replied to others.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from coupons.addresses import domain_of
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
LAST_ATTEMPT = 3
"""A suspect is refused at this attempt if neither accepted nor refused mails show the reason."""


class Decision(Enum):
    """What a refusal means for its mail."""

    REFUSE = "the mail is refused, and its codes return to their lists"
    DEFER = "the mail is tried again later, with the same codes"
    PAUSE = "the mail is deferred, and the sendout pauses"


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
        found = Refusal(delivery, refusal, self.evidence.about(refusal.relay), time.monotonic())
        found.count()
        match found.decision:
            case Decision.REFUSE:
                return refused(delivery, refusal.explanation)
            case Decision.DEFER:
                return later(delivery, refusal.explanation)
            case Decision.PAUSE:
                return self._pause(delivery, refusal)

    def _deferral(self, delivery: Delivery, deferral: Deferred) -> DeliveryResult | Pause:
        """Defer the mail, or give it up if it was deferred for too long.

        If the relay has accepted no other mail in that time, the sendout is paused instead. The end of a quota is
        always waited for.
        """
        if not self._is_too_old(delivery):
            return later(delivery, deferral.explanation)
        evidence = self.evidence.about(deferral.relay)
        accepts_others = evidence.has_accepted_since(delivery.deferred_for or 0, time.monotonic())
        if deferral.subject is not Subject.RECIPIENT and not accepts_others:
            if deferral.subject is Subject.QUOTA:
                return later(delivery, deferral.explanation)
            evidence.refuse(delivery.number)
            if evidence.shows_that_all_are_refused or evidence.has_paused:
                return self._pause(delivery, deferral)
        return refused(delivery, f"given up after {delivery.attempts + 1} attempts: {deferral.explanation}")

    def _is_too_old(self, delivery: Delivery) -> bool:
        return (delivery.deferred_for or 0) + retry_delay(delivery.attempts) > self.retry_seconds

    def _pause(self, delivery: Delivery, outcome: Refused | Deferred) -> Pause:
        self.evidence.about(outcome.relay).pause(time.monotonic())
        at = f" ({outcome.relay})" if self.names_relay else ""
        reason = f"the relay refuses {outcome.subject.value}: {reply_codes(outcome.explanation)}{at}"
        return Pause(reason, DeliveryResult.of(delivery, DeliveryState.DEFERRED, outcome.explanation, due_in=0))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A mail that was refused, and the evidence about its relay."""

    delivery: Delivery
    outcome: Refused
    evidence: Evidence
    now: float

    @property
    def is_first(self) -> bool:
        return self.delivery.attempts == 0

    @property
    def is_third(self) -> bool:
        return self.delivery.attempts + 1 >= LAST_ATTEMPT

    @property
    def follows_a_pause(self) -> bool:
        """Whether the sendout was paused. Another worker may have paused it, which shows only in resumed mails."""
        return self.evidence.has_paused or self.delivery.was_resumed

    @property
    def accepts_others(self) -> bool:
        """Whether the relay has accepted another mail since this one was deferred."""
        return self.evidence.has_accepted_since(self.delivery.deferred_for or 0, self.now)

    def count(self) -> None:
        """Count the refusal as evidence.

        Only first attempts count, and recipients of one domain count as one suspect, except if the message is refused.
        Until the relay accepts a mail or pauses the sendout, later attempts count as well, each as one suspect, if they
        may concern all mails: otherwise a small audience of one domain would have too few suspects.
        """
        subject = self.outcome.subject
        if self.is_first:
            suspect = self.delivery.number if subject is Subject.MESSAGE else domain_of(self.delivery.address)
            self.evidence.refuse(suspect, seems_certain=subject is Subject.RECIPIENT)
        elif self.evidence.is_new and subject is not Subject.RECIPIENT and not self.delivery.was_resumed:
            self.evidence.refuse(self.delivery.number)

    @property
    def decision(self) -> Decision:
        """Decide what the refusal means, after it was counted."""
        return next(then for subjects, holds, then in DECISIONS if self.outcome.subject in subjects and holds(self))


ANY = frozenset(Subject)
US = frozenset({Subject.SENDER, Subject.ACCOUNT})
ALL_MAILS = US | {Subject.MESSAGE}
RECIPIENT = frozenset({Subject.RECIPIENT})
SENDER_OR_RECIPIENT = frozenset({Subject.SENDER_OR_RECIPIENT})

DECISIONS: tuple[tuple[frozenset[Subject], Callable[[Refusal], bool], Decision], ...] = (
    # what it is about, what else holds, what it means
    (US, lambda it: it.outcome.phase is Phase.MAIL, Decision.PAUSE),
    (US, lambda it: it.is_first and it.evidence.is_new, Decision.PAUSE),
    (RECIPIENT, lambda it: not (it.is_first and it.evidence.is_alarming), Decision.REFUSE),
    (ANY, lambda it: not it.is_first and it.accepts_others, Decision.REFUSE),
    (SENDER_OR_RECIPIENT, lambda it: it.delivery.was_resumed, Decision.REFUSE),
    (ANY, lambda it: it.evidence.shows_that_all_are_refused, Decision.PAUSE),
    (ALL_MAILS, lambda it: it.is_third and it.follows_a_pause, Decision.PAUSE),
    (ANY, lambda it: it.is_third, Decision.REFUSE),
    (ANY, lambda _: True, Decision.DEFER),
)
"""The first row that matches counts. docs/reference/relay-replies.md has the same table."""


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


def retry_delay(attempts: int) -> float:
    """Return the seconds until the next attempt, which double with each of the `attempts` so far."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 16), MAX_RETRY_SECONDS)
