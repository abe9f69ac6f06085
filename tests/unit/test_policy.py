"""The policy decides what each outcome means for a delivery."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
)
from coupons.store.deliveries import Delivery, DeliveryResult
from workers.delivery import policy as module
from workers.delivery.evidence import (
    CERTAIN_IN_A_ROW,
    FIRST_SUSPECTS,
    GRACE_SECONDS,
    MAILS_IN_A_ROW,
    SUSPECTS_IN_A_ROW,
    SendoutEvidence,
)
from workers.delivery.policy import JITTER, HoldOff, Pause, Policy, Postpone, retry_delay

SENT = Sent("250 ok")
NOT_THE_SENDER = Refused("550 5.7.1 relaying denied", Subject.SENDER_OR_RECIPIENT)
NOT_THE_MESSAGE = Refused("554 5.7.1 not verified", Subject.MESSAGE, Phase.DOT)
NO_MAILBOX = Refused("550 5.1.1 unknown", Subject.RECIPIENT)
SENDER_AT_RCPT = Refused("550 5.1.8 bad sender", Subject.SENDER, Phase.RCPT)
DAY = 86_400.0
UNTRIED = Delivery(1, "ada@example.org", {}, 0)
TRIED_ONCE = Delivery(1, "ada@example.org", {}, 1, deferred_for=60.0)
ONCE_UNCERTAIN = Delivery(1, "ada@example.org", {}, 1, was_uncertain=True)


class Clock:
    """The time that the policy sees."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def policy(*, retry_seconds: float = DAY, names_relay: bool = False) -> Policy:
    return Policy(SendoutEvidence(), retry_seconds=retry_seconds, names_relay=names_relay)


def mail(number: int, domain: str = "example.org", *, attempts: int = 0, deferred_for: float | None = None) -> Delivery:
    return Delivery(number, f"c{number}@{domain}", {}, attempts, deferred_for=deferred_for)


def in_domains(count: int) -> list[Delivery]:
    return [mail(number, f"d{number}.example") for number in range(count)]


def again(delivery: Delivery, seconds: float = 60.0) -> Delivery:
    """Return the delivery as it is at its next attempt, `seconds` after it was first deferred."""
    return replace(delivery, attempts=delivery.attempts + 1, deferred_for=(delivery.deferred_for or 0) + seconds)


def resumed(delivery: Delivery, *, attempts: int = 1) -> Delivery:
    """Return a deferred delivery as it is just after a resume."""
    return replace(delivery, attempts=delivery.attempts + attempts, deferred_for=0.0, was_resumed=True)


def states(decides: Policy, deliveries: list[Delivery], outcome: Outcome) -> list[str]:
    """Return `pause` or the state that each delivery gets."""
    return [state_of(decides.verdict(each, outcome)) for each in deliveries]


def state_of(verdict: object) -> str:
    match verdict:
        case Pause(_, result):
            assert result.state == "deferred"
            return "pause"
        case DeliveryResult(state=state):
            return str(state)
    raise AssertionError(verdict)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (SENT, "sent"),
        (NO_MAILBOX, "refused"),
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


@pytest.mark.parametrize("subject", [Subject.SENDER, Subject.ACCOUNT])
@pytest.mark.parametrize("phase", list(Phase))
def test_a_relay_that_refuses_our_sender_pauses_the_sendout(subject: Subject, phase: Phase) -> None:
    """The reason has the codes of the reply. The whole reply is stored with the mail, which is deferred."""
    verdict = policy().verdict(UNTRIED, Refused("550 5.1.8 shop@example.org: no", subject, phase))
    assert isinstance(verdict, Pause)
    assert verdict.reason == f"the relay refuses {subject.value}: 550 5.1.8"
    assert (verdict.result.state, verdict.result.reply) == ("deferred", "550 5.1.8 shop@example.org: no")


def test_a_sender_that_one_relay_refuses_is_shown_with_its_relay() -> None:
    """With several relays, the operator has to know which one to fix."""
    refused = Refused("550 5.1.8 no", Subject.SENDER, Phase.MAIL, "b.example:587")
    verdict = policy(names_relay=True).verdict(UNTRIED, refused)
    assert isinstance(verdict, Pause)
    assert verdict.reason == "the relay refuses the sender: 550 5.1.8 (b.example:587)"


def test_each_attempt_with_a_refused_sender_pauses_the_sendout() -> None:
    """A reply to MAIL cannot be caused by a recipient, so a later attempt means the same as the first one."""
    assert states(policy(), [TRIED_ONCE], Refused("550 no", Subject.SENDER, Phase.MAIL)) == ["pause"]


def test_one_recipient_for_whom_the_sender_is_refused_pauses_once() -> None:
    """If the same recipient is refused again after the resume, only this recipient is refused."""
    decides = policy()
    assert states(decides, [mail(1), resumed(mail(1))], SENDER_AT_RCPT) == ["pause", "deferred"]
    decides.verdict(mail(2), SENT)
    assert states(decides, [again(again(mail(1)))], SENDER_AT_RCPT) == ["refused"]


@pytest.mark.parametrize("outcome", [NOT_THE_SENDER, NOT_THE_MESSAGE])
def test_a_suspect_is_refused_at_its_second_attempt_if_others_were_accepted(outcome: Outcome) -> None:
    """It is deferred first, because the refusal may concern all mails."""
    decides = policy()
    assert states(decides, [UNTRIED], outcome) == ["deferred"]
    decides.verdict(mail(2), SENT)
    assert states(decides, [TRIED_ONCE], outcome) == ["refused"]


@pytest.mark.parametrize("outcome", [NOT_THE_SENDER, NOT_THE_MESSAGE])
def test_the_last_mail_of_a_sendout_is_cleared_by_mails_shortly_before_it(outcome: Outcome, clock: Clock) -> None:
    """No later mail can clear it. A mail that was accepted long before it clears nothing."""
    for seconds, state in (GRACE_SECONDS - 1, "refused"), (GRACE_SECONDS + 1, "deferred"):
        decides = policy()
        decides.verdict(mail(2), SENT)
        clock.now += seconds + 60
        assert states(decides, [TRIED_ONCE], outcome) == [state]


@pytest.mark.parametrize("outcome", [NOT_THE_SENDER, NOT_THE_MESSAGE])
def test_the_only_recipient_is_refused_at_the_third_attempt_and_pauses_nothing(outcome: Outcome, clock: Clock) -> None:
    """No other mail can show whether the recipient is the reason."""
    decides, delivery = policy(), UNTRIED
    found = []
    for _ in range(3):
        found += states(decides, [delivery], outcome)
        clock.now += 60
        delivery = again(delivery)
    assert found == ["deferred", "deferred", "refused"]


def test_a_relay_that_refuses_the_message_of_each_mail_refuses_no_delivery() -> None:
    """The sendout is paused after a few mails, which stay deferred."""
    decides = policy()
    assert states(decides, [mail(number) for number in range(3)], NOT_THE_MESSAGE) == ["deferred", "deferred", "pause"]


def test_a_relay_that_begins_to_refuse_all_messages_refuses_no_delivery() -> None:
    """After accepted mails, more suspects in a row are needed."""
    decides = policy()
    decides.verdict(mail(0), SENT)
    found = states(decides, [mail(number) for number in range(1, 11)], NOT_THE_MESSAGE)
    assert found == ["deferred"] * (SUSPECTS_IN_A_ROW - 1) + ["pause"]


def test_half_of_the_first_hundred_mails_pause_the_sendout() -> None:
    """The relay accepts each second mail, so there are never two suspects in a row."""
    decides, found = policy(), []
    for number in range(0, 110, 2):
        decides.verdict(mail(number), SENT)
        found += states(decides, [mail(number + 1)], NOT_THE_MESSAGE)
        if found[-1] == "pause":
            break
    assert len(found) == 50


def test_policy_rejections_in_several_domains_pause_the_sendout() -> None:
    """Rejections by one company are one piece of evidence."""
    assert states(policy(), in_domains(FIRST_SUSPECTS), NOT_THE_SENDER) == ["deferred", "deferred", "pause"]


@pytest.mark.parametrize("accepted_before", [True, False])
def test_one_company_that_rejects_us_pauses_nothing(accepted_before: bool, clock: Clock) -> None:
    """Each of its recipients is refused at the second attempt, although they are refused one after the other."""
    decides = policy()
    company = [mail(number, "company.example") for number in range(57)]
    if accepted_before:
        decides.verdict(mail(100), SENT)
    assert states(decides, company, NOT_THE_SENDER) == ["deferred"] * 57
    decides.verdict(mail(101), SENT)
    clock.now += 60
    assert states(decides, [again(each) for each in company], NOT_THE_SENDER) == ["refused"] * 57


def test_an_audience_of_one_domain_is_not_used_up() -> None:
    """If a hundred mails in a row are refused, their common domain is not the reason."""
    decides = policy()
    decides.verdict(mail(1_000), SENT)
    found = states(decides, [mail(number) for number in range(MAILS_IN_A_ROW)], NOT_THE_SENDER)
    assert found == ["deferred"] * (MAILS_IN_A_ROW - 1) + ["pause"]


def test_a_small_audience_of_one_domain_is_not_used_up(clock: Clock) -> None:
    """If no mail was accepted in the minute before the second attempts, these count one by one."""
    decides = policy()
    audience = [mail(number) for number in range(5)]
    assert states(decides, audience, NOT_THE_SENDER) == ["deferred"] * 5
    clock.now += 60
    assert "pause" in states(decides, [again(each) for each in audience][:FIRST_SUSPECTS], NOT_THE_SENDER)


@pytest.mark.parametrize("outcome", [NOT_THE_SENDER, NOT_THE_MESSAGE])
def test_the_same_recipients_do_not_pause_the_sendout_again(outcome: Outcome, clock: Clock) -> None:
    """After a resume, the sendout continues with the others, although they are tried later."""
    decides, audience = policy(), in_domains(FIRST_SUSPECTS)
    assert states(decides, audience, outcome)[-1] == "pause"
    clock.now += 60
    found = states(decides, [resumed(each) for each in audience], outcome)
    assert found == ["refused" if outcome is NOT_THE_SENDER else "deferred"] * FIRST_SUSPECTS
    decides.verdict(mail(100), SENT)
    clock.now += 60
    found = states(decides, [again(resumed(each)) for each in audience], outcome)
    assert found == ["refused"] * FIRST_SUSPECTS


def test_a_refusal_after_a_resume_is_final_if_it_may_concern_the_recipient() -> None:
    """The operator has seen it. No accepted mail is necessary, because there may be no other recipient."""
    decides, audience = policy(), in_domains(FIRST_SUSPECTS)
    assert states(decides, audience, NOT_THE_SENDER) == ["deferred", "deferred", "pause"]
    assert states(decides, [resumed(each) for each in audience], NOT_THE_SENDER) == ["refused"] * FIRST_SUSPECTS


@pytest.mark.parametrize("outcome", [NOT_THE_MESSAGE, SENDER_AT_RCPT])
def test_no_resume_before_the_fix_refuses_a_mail_for_the_sender_or_the_message(outcome: Outcome) -> None:
    """After each resume, the sendout pauses again at the third refusal of a mail or a later one."""
    decides, audience = policy(), in_domains(FIRST_SUSPECTS)
    assert "pause" in states(decides, audience, outcome)
    audience = [resumed(each) for each in audience]
    assert states(decides, audience, outcome) == ["deferred"] * FIRST_SUSPECTS
    for _ in range(5):
        audience = [again(each) for each in audience]
        assert states(decides, audience, outcome) == ["pause"] * FIRST_SUSPECTS


@pytest.mark.parametrize("outcome", [NOT_THE_MESSAGE, SENDER_AT_RCPT])
def test_another_worker_refuses_no_mail_after_a_resume(outcome: Outcome) -> None:
    """It has no evidence, for example because it was restarted, but it knows which mails were deferred before."""
    audience = [resumed(each) for each in in_domains(FIRST_SUSPECTS)]
    assert states(policy(), [again(each) for each in audience], outcome) == ["pause"] * FIRST_SUSPECTS


@pytest.mark.parametrize("outcome", [NOT_THE_SENDER, NOT_THE_MESSAGE, SENDER_AT_RCPT])
def test_a_resume_before_the_fix_pauses_after_ten_new_suspects(outcome: Outcome) -> None:
    """It costs at most the mails that were refused before, and these only if the recipients may be the reason."""
    decides, audience = policy(), in_domains(500)
    first = states(decides, audience, outcome)[:3].index("pause") + 1
    decides, found = policy(), []
    states(decides, audience[:first], outcome)
    for delivery in [resumed(each) for each in audience[:first]] + audience[first:]:
        found += states(decides, [delivery], outcome)
        if found[-1] == "pause":
            break
    assert len(found) == first + SUSPECTS_IN_A_ROW
    assert found.count("refused") == (first if outcome is NOT_THE_SENDER else 0)


@dataclass
class Sendout:
    """A sendout whose relay refuses every mail, with an operator who resumes it and fixes nothing."""

    waiting: list[Delivery]
    decides: Policy = field(default_factory=policy)
    refused: list[Delivery] = field(default_factory=list)

    def send(self, outcomes: dict[int, Refused], clock: Clock) -> None:
        """Try all mails again and again until the sendout pauses or ends."""
        while self.waiting:
            rest = []
            for index, delivery in enumerate(self.waiting):
                state = state_of(self.decides.verdict(delivery, outcomes[delivery.number]))
                if state == "refused":
                    self.refused.append(delivery)
                else:
                    rest.append(again(delivery))
                if state == "pause":
                    self.waiting = rest + self.waiting[index + 1 :]
                    return
            self.waiting = rest
            clock.now += 60

    def resume(self) -> None:
        self.waiting = [resumed(each, attempts=0) if each.attempts else each for each in self.waiting]


THE_RECIPIENT = [NO_MAILBOX, NOT_THE_SENDER]
NOT_THE_RECIPIENT = [NOT_THE_MESSAGE, SENDER_AT_RCPT]
OUTCOMES = THE_RECIPIENT + NOT_THE_RECIPIENT
DOMAINS = st.lists(st.integers(0, 200), min_size=1, max_size=60)


def refused_counts(domains: list[int], kinds: list[Refused], resumes: int) -> tuple[list[int], bool]:
    """Return how many mails were refused before the first resume and after each, and whether the sendout has ended."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        sendout = Sendout([mail(number, f"d{domain}.example") for number, domain in enumerate(domains)])
        outcomes = {number: kinds[number % len(kinds)] for number in range(len(domains))}
        sendout.send(outcomes, clock)
        counts = [len(sendout.refused)]
        for _ in range(resumes):
            sendout.resume()
            sendout.send(outcomes, clock)
            counts.append(len(sendout.refused))
    return counts, not sendout.waiting


@given(domains=DOMAINS, kinds=st.lists(st.sampled_from(THE_RECIPIENT), min_size=1))
def test_a_sendout_ends_if_each_recipient_may_be_refused_for_a_reason_of_its_own(
    domains: list[int], kinds: list[Refused]
) -> None:
    """Before the first resume, only a few mails are refused. After each further resume, some are, and at last all."""
    counts, has_ended = refused_counts(domains, kinds, resumes=2 * len(domains))
    assert has_ended
    assert counts[-1] == len(domains)


@given(domains=DOMAINS, kinds=st.lists(st.sampled_from(NOT_THE_RECIPIENT), min_size=1))
def test_no_number_of_resumes_uses_up_a_sendout(domains: list[int], kinds: list[Refused]) -> None:
    """The sendout stays paused until its sender or message is accepted."""
    counts, _ = refused_counts(domains, kinds, resumes=5)
    assert len(set(counts)) == 1


@given(count=st.integers(FIRST_SUSPECTS, 200), domains=st.integers(1, 200), outcome=st.sampled_from(OUTCOMES))
def test_a_relay_that_refuses_everything_refuses_no_mail_before_the_first_resume(
    count: int, domains: int, outcome: Refused
) -> None:
    """Except unknown recipients: a few of them are certain, and their second refusal is final."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        sendout = Sendout([mail(number, f"d{number % domains}.example") for number in range(count)])
        sendout.send(dict.fromkeys(range(count), outcome), clock)
    if outcome is not NO_MAILBOX:
        assert not sendout.refused
    elif min(count, domains) >= CERTAIN_IN_A_ROW + FIRST_SUSPECTS:
        assert len(sendout.refused) == CERTAIN_IN_A_ROW


@pytest.mark.parametrize("count", [1, 6, 200])
def test_a_retry_of_unknown_recipients_pauses_nothing(count: int) -> None:
    """The second refusal of a recipient is final, whatever the relay replies to others."""
    retried = [mail(number, f"d{number}.example", attempts=1) for number in range(count)]
    assert states(policy(), retried, NO_MAILBOX) == ["refused"] * count


def test_a_small_sendout_to_unknown_recipients_ends_without_a_pause() -> None:
    """Those that are suspects are refused at the second attempt."""
    decides, audience = policy(), in_domains(CERTAIN_IN_A_ROW + FIRST_SUSPECTS - 1)
    assert states(decides, audience, NO_MAILBOX) == ["refused"] * 5 + ["deferred"] * 2
    assert states(decides, [again(each) for each in audience[5:]], NO_MAILBOX) == ["refused"] * 2


@pytest.mark.parametrize("outcome", [SENDER_AT_RCPT, Refused("530 5.7.0 no", Subject.ACCOUNT, Phase.RCPT)])
def test_one_company_that_refuses_our_sender_pauses_nothing(outcome: Refused, clock: Clock) -> None:
    """The relay accepts other mails in between, so the reply to RCPT concerns the recipients of this company."""
    decides = policy()
    company = [mail(number, "company.example") for number in range(19)]
    for delivery in company:
        decides.verdict(mail(100 + delivery.number, f"d{delivery.number}.example"), SENT)
        assert states(decides, [delivery], outcome) == ["deferred"]
    clock.now += 60
    assert states(decides, [again(each) for each in company], outcome) == ["refused"] * 19


def test_one_company_that_refuses_our_sender_first_pauses_once(clock: Clock) -> None:
    """Before the relay has accepted a mail, the reply is about the sender. After the resume, the others are sent."""
    decides = policy()
    company = [mail(number, "company.example") for number in range(19)]
    assert states(decides, company[:1], SENDER_AT_RCPT) == ["pause"]
    clock.now += 60
    assert states(decides, [resumed(company[0]), *company[1:]], SENDER_AT_RCPT) == ["deferred"] * 19
    decides.verdict(mail(100), SENT)
    clock.now += 60
    assert states(decides, [again(each) for each in company], SENDER_AT_RCPT) == ["refused"] * 19


def test_refusals_that_seem_to_concern_recipients_become_suspects() -> None:
    """A relay without its table of recipients answers 5.1.1 to each: a few are refused, then the sendout pauses."""
    decides, audience = policy(), in_domains(100)
    assert states(decides, audience[:8], NO_MAILBOX) == ["refused"] * 5 + ["deferred"] * 2 + ["pause"]
    assert states(decides, [resumed(each) for each in audience[5:8]], NO_MAILBOX) == ["refused"] * 3
    assert states(decides, audience[8:18], NO_MAILBOX) == ["deferred"] * 9 + ["pause"]


def test_unknown_recipients_among_others_are_refused_at_once() -> None:
    """A list with many old addresses neither pauses nor waits."""
    decides = policy()
    for number in range(0, 1_000, 5):
        decides.verdict(mail(number), SENT)
        assert states(decides, [mail(number + each) for each in range(1, 5)], NO_MAILBOX) == ["refused"] * 4


def test_each_relay_has_its_own_evidence() -> None:
    """One relay refuses each message, and the other one accepts all. No mail is refused."""
    decides = policy(names_relay=True)
    found = []
    for number in range(3):
        decides.verdict(mail(number), Sent("250 ok", "a:25"))
        found.append(decides.verdict(mail(number + 10), replace(NOT_THE_MESSAGE, relay="b:25")))
    assert [state_of(each) for each in found] == ["deferred", "deferred", "pause"]
    assert isinstance(found[-1], Pause)
    assert found[-1].reason == "the relay refuses the message: 554 5.7.1 (b:25)"


@pytest.mark.parametrize("outcome", [NO_MAILBOX, Deferred("451 later", Subject.RECIPIENT)])
def test_a_mail_that_may_have_arrived_keeps_its_codes(outcome: Outcome) -> None:
    """The delivery stays uncertain, even if the next attempt is refused or given up."""
    verdict = policy(retry_seconds=1).verdict(ONCE_UNCERTAIN, outcome)
    assert isinstance(verdict, DeliveryResult)
    assert verdict.state == "uncertain"
    assert outcome.explanation in verdict.reply


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 60), (1, 120), (2, 240), (5, 1_920), (6, 3_600), (5_000, 3_600)])
def test_retry_delays_double_up_to_an_hour(attempts: int, seconds: float) -> None:
    """The delay stays at one hour for any number of attempts."""
    assert retry_delay(attempts) == seconds


@pytest.mark.parametrize(("deferred_for", "state"), [(600, "deferred"), (601, "refused")])
def test_a_delivery_is_given_up_when_it_gets_too_old(deferred_for: float, state: str) -> None:
    """No attempt is made later than the limit after the first deferral."""
    old = mail(1, attempts=3, deferred_for=deferred_for)
    assert states(policy(retry_seconds=1_080), [old], Deferred("452 4.2.2 full", Subject.RECIPIENT)) == [state]


def test_a_relay_that_defers_all_mails_does_not_use_up_the_sendout() -> None:
    """Instead of giving up one mail after the other, the sendout pauses."""
    decides = policy()
    old = [mail(number, attempts=30, deferred_for=DAY) for number in range(3)]
    verdicts = [decides.verdict(each, Deferred("451 4.3.0 disk full")) for each in old]
    assert state_of(verdicts[-1]) == "pause"
    assert isinstance(verdicts[-1], Pause)
    assert verdicts[-1].reason == "the relay refuses all mail: 451 4.3.0"


def test_no_mail_is_given_up_until_the_relay_accepts_another() -> None:
    """The sendout pauses again after each resume, so that no mail is lost."""
    decides, busy = policy(), Deferred("451 4.3.0 disk full")
    assert states(decides, in_domains(3), NOT_THE_MESSAGE)[-1] == "pause"
    old = mail(7, attempts=30, deferred_for=DAY)
    assert states(decides, [old, old], busy) == ["pause", "pause"]
    decides.verdict(mail(8), SENT)
    assert states(decides, [old], busy) == ["refused"]


def test_a_mail_is_given_up_if_others_were_accepted() -> None:
    """Only this mail is deferred again and again."""
    decides = policy()
    decides.verdict(mail(2), SENT)
    old = mail(1, attempts=30, deferred_for=DAY)
    assert states(decides, [old], Deferred("451 4.7.1 greylisted")) == ["refused"]


def test_the_end_of_a_quota_is_waited_for() -> None:
    """However long it takes, no mail is given up for it."""
    old = [mail(number, attempts=50, deferred_for=30 * DAY) for number in range(50)]
    assert {*states(policy(), old, Deferred("550 5.4.5 quota", Subject.QUOTA))} == {"deferred"}
