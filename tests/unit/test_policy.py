"""What an outcome means for a delivery."""

from uuid import UUID

import pytest

from coupons.smtp import Deferred, Outcome, Phase, Refused, SenderRefused, Sent, Uncertain, Unreachable
from coupons.store.deliveries import Conclusion, Delivery
from workers.delivery.denials import MOST, Denials
from workers.delivery.policy import JITTER, Pause, Policy, StandStill, retry_in

SENDOUT = UUID(int=1)
DENIED = SenderRefused("550 5.7.1 relaying denied", Phase.RCPT)
FRESH = Delivery(1, "ada@example.org", {}, 0)
TRIED = Delivery(1, "ada@example.org", {}, 1)
UNSURE = Delivery(1, "ada@example.org", {}, 1, was_uncertain=True)


def policy() -> Policy:
    return Policy(Denials(), SENDOUT, give_up_seconds=86_400)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Sent("250 ok"), "sent"),
        (Refused("550 5.1.1 unknown"), "refused"),
        (Deferred("451 4.7.1 later"), "deferred"),
        (Uncertain("the connection was lost"), "uncertain"),
    ],
)
def test_an_outcome_concludes_a_delivery(outcome: Outcome, state: str) -> None:
    """With the relay's words."""
    verdict = policy().verdict(FRESH, outcome)
    assert isinstance(verdict, Conclusion)
    assert (verdict.outcome, verdict.reply) == (state, outcome.explanation)


def test_a_deferred_mail_is_due_again_in_about_a_minute() -> None:
    """Spread, so that what was deferred together does not come back together."""
    waits = {
        verdict.due_in for _ in range(20) if isinstance(verdict := policy().verdict(FRESH, Deferred("4")), Conclusion)
    }
    assert len(waits) == 20
    assert all(wait and 60 * (1 - JITTER) <= wait <= 60 * (1 + JITTER) for wait in waits)


def test_a_mail_that_was_not_handed_over_is_as_before() -> None:
    """No attempt is counted."""
    assert policy().verdict(FRESH, Unreachable("no route")) == StandStill("no route")


def test_a_relay_that_refuses_our_sender_pauses_the_sendout() -> None:
    """At MAIL it can be nobody but us."""
    assert policy().verdict(FRESH, SenderRefused("530 5.7.0 authenticate", Phase.MAIL)) == Pause(
        "the relay refuses the sender: 530 5.7.0 authenticate"
    )


def test_one_recipient_that_a_policy_refuses_does_not_stop_the_others() -> None:
    """It is asked again later, and refused if it is the only one."""
    decides = policy()
    first = decides.verdict(FRESH, DENIED)
    assert isinstance(first, Conclusion)
    assert first.outcome == "deferred"
    decides.verdict(FRESH, Sent("250 ok"))
    second = decides.verdict(TRIED, DENIED)
    assert isinstance(second, Conclusion)
    assert second.outcome == "refused"


def test_several_recipients_in_a_row_that_a_policy_refuses_pause_the_sendout() -> None:
    """Then it is us; resumed, it is counted anew."""
    decides = policy()
    for _ in range(2):
        verdicts = [decides.verdict(FRESH, DENIED) for _ in range(MOST)]
        assert [isinstance(each, Pause) for each in verdicts] == [False] * (MOST - 1) + [True]


@pytest.mark.parametrize("outcome", [Refused("550 5.1.1 unknown"), Deferred("451 later")])
def test_codes_of_a_mail_that_may_have_arrived_stay(outcome: Outcome) -> None:
    """Whatever becomes of the next attempt, refused or given up: they are nobody else's."""
    verdict = Policy(Denials(), SENDOUT, give_up_seconds=1).verdict(UNSURE, outcome)
    assert isinstance(verdict, Conclusion)
    assert verdict.outcome == "uncertain"
    assert outcome.explanation in verdict.reply


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 60), (1, 120), (2, 240), (5, 1_920), (6, 3_600), (5_000, 3_600)])
def test_waits_double_up_to_an_hour(attempts: int, seconds: float) -> None:
    """However often it was tried."""
    assert retry_in(attempts, 0, 1e9) == seconds


def test_a_delivery_is_given_up_when_it_gets_too_old() -> None:
    """The next attempt would be later than what is allowed since the first."""
    assert retry_in(0, 0, 60) == 60
    assert retry_in(3, 600, 1_080) == 480
    assert retry_in(3, 601, 1_080) is None
