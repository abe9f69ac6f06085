"""The policy decides what each outcome means for a delivery."""

from uuid import UUID

import pytest

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
from coupons.store.deliveries import Delivery, DeliveryResult
from workers.delivery.policy import (
    JITTER,
    REJECTIONS_IN_A_ROW,
    HoldOff,
    Pause,
    Policy,
    Postpone,
    RejectionStreaks,
    retry_in,
)

SENDOUT = UUID(int=1)
POLICY_REJECTION = SenderRefused("550 5.7.1 relaying denied", Phase.RCPT)
UNTRIED = Delivery(1, "ada@example.org", {}, 0)
TRIED_ONCE = Delivery(1, "ada@example.org", {}, 1)
ONCE_UNCERTAIN = Delivery(1, "ada@example.org", {}, 1, was_uncertain=True)


def policy(*, retry_seconds: float = 86_400) -> Policy:
    return Policy(RejectionStreaks(), SENDOUT, retry_seconds=retry_seconds)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Sent("250 ok"), "sent"),
        (Refused("550 5.1.1 unknown"), "refused"),
        (Deferred("451 4.7.1 later"), "deferred"),
        (Uncertain("the connection was lost"), "uncertain"),
    ],
)
def test_an_outcome_gives_a_delivery_its_state(outcome: Outcome, state: str) -> None:
    """The relay's reply is stored with the state."""
    verdict = policy().verdict(UNTRIED, outcome)
    assert isinstance(verdict, DeliveryResult)
    assert (verdict.state, verdict.reply) == (state, outcome.explanation)


def test_a_deferred_mail_is_due_again_in_about_a_minute() -> None:
    """The delay varies, so that mails that were deferred together are not retried together."""
    waits = {
        verdict.due_in
        for _ in range(20)
        if isinstance(verdict := policy().verdict(UNTRIED, Deferred("4")), DeliveryResult)
    }
    assert len(waits) == 20
    assert all(wait and 60 * (1 - JITTER) <= wait <= 60 * (1 + JITTER) for wait in waits)


def test_an_unreachable_relay_makes_the_batch_hold_off() -> None:
    """The delivery stays as it was, and no attempt is counted."""
    assert policy().verdict(UNTRIED, Unreachable("no route")) == HoldOff("no route")


@pytest.mark.parametrize("cause", [cause for cause in UnreachableCause if cause is not UnreachableCause.RELAY])
def test_a_mail_that_was_taken_back_says_nothing_about_the_relay(cause: UnreachableCause) -> None:
    """The mail is postponed, and the batch continues."""
    assert policy().verdict(UNTRIED, Unreachable("any text", cause)) == Postpone()


def test_a_relay_that_refuses_our_sender_pauses_the_sendout() -> None:
    """A rejection at MAIL cannot be caused by a recipient."""
    assert policy().verdict(UNTRIED, SenderRefused("530 5.7.0 authenticate", Phase.MAIL)) == Pause(
        "the relay refuses the sender: 530 5.7.0"
    )


def test_one_policy_rejection_does_not_stop_other_recipients() -> None:
    """The recipient is tried once more, and refused if the relay rejects only this recipient again."""
    decides = policy()
    first = decides.verdict(UNTRIED, POLICY_REJECTION)
    assert isinstance(first, DeliveryResult)
    assert first.state == "deferred"
    decides.verdict(UNTRIED, Sent("250 ok"))
    second = decides.verdict(TRIED_ONCE, POLICY_REJECTION)
    assert isinstance(second, DeliveryResult)
    assert second.state == "refused"


def test_several_policy_rejections_in_a_row_pause_the_sendout() -> None:
    """Several rejections in a row are caused by the sender. After a resume, the count starts at zero."""
    decides = policy()
    for _ in range(2):
        verdicts = [decides.verdict(UNTRIED, POLICY_REJECTION) for _ in range(REJECTIONS_IN_A_ROW)]
        assert [isinstance(each, Pause) for each in verdicts] == [False] * (REJECTIONS_IN_A_ROW - 1) + [True]


@pytest.mark.parametrize("outcome", [Refused("550 5.1.1 unknown"), Deferred("451 later")])
def test_a_mail_that_may_have_arrived_keeps_its_codes(outcome: Outcome) -> None:
    """The delivery stays uncertain, even if the next attempt is refused or given up."""
    verdict = policy(retry_seconds=1).verdict(ONCE_UNCERTAIN, outcome)
    assert isinstance(verdict, DeliveryResult)
    assert verdict.state == "uncertain"
    assert outcome.explanation in verdict.reply


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 60), (1, 120), (2, 240), (5, 1_920), (6, 3_600), (5_000, 3_600)])
def test_retry_delays_double_up_to_an_hour(attempts: int, seconds: float) -> None:
    """The delay stays at one hour for any number of attempts."""
    assert retry_in(attempts, 0, 1e9) == seconds


def test_a_delivery_is_given_up_when_it_gets_too_old() -> None:
    """No attempt is made later than the limit after the first deferral."""
    assert retry_in(0, 0, 60) == 60
    assert retry_in(3, 600, 1_080) == 480
    assert retry_in(3, 601, 1_080) is None
