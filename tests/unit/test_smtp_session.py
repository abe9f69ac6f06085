import random
import re
import sys
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.mail import Envelope
from coupons.smtp import Deferred, Outcome, Refused, SenderRefused, Sent, Uncertain, Unreachable
from coupons.smtp.outcomes import PAST_DEADLINE, SHUTTING_DOWN, OutOfStepError
from coupons.smtp.queue import MOST_RETURNS, Mail, Waiting
from coupons.smtp.session import Dialogue, Loss, Offers
from tests.smtp_client import mail_to

COMMAND = re.compile(rb"(MAIL FROM:<shop@example\.org>|RCPT TO:<m(\d+)@example\.org>|DATA|RSET)\r\n")
BODY = re.compile(rb"Subject: Hello\r\n\r\nm(\d+)\r\n\.\r\n")
LIES = ("none", "cut before", "cut after", "twice", "silent", "discard", "421")


class ModelRelay:
    """A relay that speaks SMTP as it should, refuses at random, and misbehaves once, at its nth word.

    It fails the test when a command is no command, or a mail not the one that was announced.
    """

    def __init__(self, chance: random.Random, lie: str, at: int) -> None:
        self.chance, self.lie, self.at = chance, lie, at
        self.read, self.said = b"", b""
        self.began = self.in_mail = self.dead = False
        self.recipient: int | None = None
        self.accepted: list[int] = []

    def hear(self, data: bytes) -> None:
        self.read += data
        end = b".\r\n" if self.in_mail else b"\r\n"
        while end in self.read and not self.dead:
            self._mail() if self.in_mail else self._command()
            end = b".\r\n" if self.in_mail else b"\r\n"

    def _mail(self) -> None:
        self.in_mail = False
        if self.recipient is None:
            assert self.read.startswith(b".\r\n"), "a mail to nobody"
            self.read, self.began = self.read[3:], False
            self._say(b"554 nobody")
            return
        found = BODY.match(self.read)
        assert found, self.read
        assert int(found[1]) == self.recipient
        self.read = self.read[found.end() :]
        code = self._code(b"250")
        if code == b"250":
            self.accepted.append(self.recipient)
        self.began, self.recipient = False, None
        self._say(code)

    def _command(self) -> None:
        found = COMMAND.match(self.read)
        assert found, self.read
        self.read = self.read[found.end() :]
        match found[1][:4]:
            case b"MAIL":
                code = b"503" if self.began else self._code(b"250")
                self.began = self.began or code == b"250"
            case b"RCPT":
                code = self._code(b"250") if self.began else b"503"
                self.recipient = int(found[2]) if code == b"250" else None
            case b"DATA" if not self.began or (self.recipient is None and self.chance.random() < 0.7):
                code = b"503"
            case b"DATA":
                code = self._code(b"354")
                self.in_mail = code == b"354"
            case _:
                code, self.began, self.recipient = b"250", False, None
        self._say(code)

    def _code(self, good: bytes) -> bytes:
        if self.lie == "421" and self.at == 1:
            return b"421"
        return self.chance.choice([good] * 6 + [b"450", b"550"])

    def _say(self, code: bytes) -> None:
        self.at -= 1
        lie = self.lie if self.at == 0 else "none"
        line = code + b" said\r\n"
        if lie not in ("cut before", "silent"):
            self.said += line * (2 if lie == "twice" else 1)
        if lie.startswith("cut") or code == b"421":
            self.dead = True
        if lie == "discard" and not self.in_mail:
            self.read = b""


def converse(dialogue: Dialogue, relay: ModelRelay, mails: deque[Mail], chance: random.Random) -> Loss | None:
    """Until all mails are settled (None) or the connection is over."""
    while True:
        while dialogue.wants_mail and mails:
            dialogue.begin(mails.popleft())
        relay.hear(dialogue.output())
        if relay.said:
            cut = chance.randint(1, len(relay.said))
            said, relay.said = relay.said[:cut], relay.said[cut:]
            try:
                dialogue.receive(said)
            except OutOfStepError:
                return Loss.OUT_OF_STEP
            if dialogue.farewell is not None:
                return Loss.ENDED
        elif relay.dead:
            return Loss.ENDED
        elif not dialogue.is_quiet:
            return Loss.TIMEOUT
        elif not mails:
            return None


def connections(chance: random.Random, lies: list[tuple[str, int]], accepted: list[int]) -> Iterator[ModelRelay]:
    for lie, at in lies:
        relay = ModelRelay(chance, lie, at)
        yield relay
        accepted += relay.accepted
    while True:
        relay = ModelRelay(chance, "none", 0)
        yield relay
        accepted += relay.accepted


@settings(deadline=None)  # a machine may be busy
@given(
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.sampled_from(LIES), st.integers(1, 25)), max_size=4),
    st.integers(1, 12),
    st.booleans(),
)
def test_no_misbehaviour_makes_one_mails_reply_anothers(
    chance: random.Random, lies: list[tuple[str, int]], count: int, pipelining: bool
) -> None:
    """Each mail has one outcome; what is called sent was accepted, and what is called refused or deferred was not."""
    settled: list[tuple[Mail, Outcome]] = []
    accepted: list[int] = []
    mails = deque(Mail(mail_to(f"m{number}"), lambda _: None, owner=number) for number in range(count))
    relays = connections(chance, lies, accepted)
    while mails:
        dialogue = Dialogue(Offers(), pipelining=pipelining)
        loss = converse(dialogue, next(relays), mails, chance)
        if loss is not None:
            pipelining = pipelining and not dialogue.blames_pipelining(loss)
            dialogue.end(loss, "a reason")
        settled += dialogue.settled
        mails.extendleft(dialogue.returned)
    next(relays)
    outcomes = {mail.owner: outcome for mail, outcome in settled}
    assert len(settled) == len(outcomes) == count
    assert len(set(accepted)) == len(accepted)
    for number, outcome in outcomes.items():
        match outcome:
            case Sent():
                assert number in accepted
            case Refused() | Deferred() | SenderRefused() | Unreachable():
                assert number not in accepted


OK, GO = b"250 ok\r\n", b"354 go\r\n"


def dialogue_with(*names: str) -> Dialogue:
    """Pipelined, the first mail written and the second one begun."""
    dialogue = Dialogue(Offers(), pipelining=True)
    dialogue.begin(Mail(mail_to(names[0]), lambda _: None))
    dialogue.receive(OK + OK + GO)
    for name in names[1:]:
        dialogue.begin(Mail(mail_to(name), lambda _: None))
    return dialogue


def test_verdict_is_believed_when_the_next_group_is_answered() -> None:
    """Only its 354 proves that no reply was too many or too few."""
    dialogue = dialogue_with("a", "b")
    dialogue.receive(OK + OK + OK)
    assert dialogue.settled == []
    dialogue.receive(GO)
    assert [outcome for _, outcome in dialogue.settled] == [Sent("250 ok")]


@pytest.mark.parametrize("verdict", [b"250 ok\r\n", b"451 4.3.0 no\r\n", b"554 no\r\n"])
@pytest.mark.parametrize("proof", [b"354 go\r\n", b"rubbish\r\n"])
def test_verdict_is_uncertain_when_the_dialogue_falls_out_of_step(verdict: bytes, proof: bytes) -> None:
    """It may have been about anything; the mail begun behind it is nobody's loss."""
    dialogue = dialogue_with("a", "b")
    with pytest.raises(OutOfStepError):
        dialogue.receive(verdict + proof)
    assert dialogue.blames_pipelining(Loss.OUT_OF_STEP)
    dialogue.end(Loss.OUT_OF_STEP, "out of step")
    assert [outcome for _, outcome in dialogue.settled] == [Uncertain("out of step")]
    assert [mail.envelope.rcpt_to for mail in dialogue.returned] == ["b@example.org"]


@pytest.mark.parametrize("loss", [Loss.ENDED, Loss.TIMEOUT])
def test_verdict_stays_when_the_connection_dies_behind_it(loss: Loss) -> None:
    """It was answered in order."""
    dialogue = dialogue_with("a", "b")
    dialogue.receive(OK)
    dialogue.end(loss, "a reason")
    assert [outcome for _, outcome in dialogue.settled] == [Sent("250 ok")]
    assert len(dialogue.returned) == 1


def test_mail_whose_sender_is_refused_is_not_ended_with_a_dot() -> None:
    """With its recipient taken, an empty mail would go out."""
    dialogue = Dialogue(Offers(), pipelining=True)
    dialogue.begin(Mail(mail_to("a"), lambda _: None))
    dialogue.output()
    with pytest.raises(OutOfStepError):
        dialogue.receive(b"550 no\r\n" + OK + GO)
    assert [outcome for _, outcome in dialogue.settled] == [SenderRefused("550 no")]
    assert dialogue.output() == b""


def test_mail_is_not_written_while_there_is_more_to_read() -> None:
    """Whatever came behind 354 would be taken for the reply to the dot."""
    dialogue = Dialogue(Offers(), pipelining=True)
    dialogue.begin(Mail(mail_to("a"), lambda _: None))
    dialogue.output()
    with pytest.raises(OutOfStepError):
        dialogue.receive(OK + OK + GO + b"25")
    dialogue.end(Loss.OUT_OF_STEP, "a reason")
    assert dialogue.output() == b""
    assert len(dialogue.returned) == 1


def test_verdict_is_uncertain_when_a_reply_is_missing_behind_it() -> None:
    """A group answered in part lacks a reply: perhaps the one to the dot, and all others stand one place too far up."""
    dialogue = dialogue_with("a", "b")
    dialogue.receive(OK + OK)
    dialogue.end(Loss.TIMEOUT, "a reason")
    assert [outcome for _, outcome in dialogue.settled] == [Uncertain("a reason")]
    assert len(dialogue.returned) == 1


def test_nothing_is_believed_behind_421() -> None:
    """What a closing relay still says to the rest of a group is about no mail."""
    dialogue = dialogue_with("a", "b")
    dialogue.receive(OK + b"421 closing\r\n503 no MAIL\r\n503 no RCPT\r\n")
    assert dialogue.farewell == "421 closing"
    dialogue.end(Loss.ENDED, "421 closing")
    assert [outcome for _, outcome in dialogue.settled] == [Sent("250 ok")]
    assert len(dialogue.returned) == 1


def test_replies_that_come_together_may_follow_the_beginning_of_one() -> None:
    """What is read at once is read as it is piece by piece."""
    dialogue = dialogue_with("a", "b")
    dialogue.receive(b"250-first\r\n")
    dialogue.receive(b"250 last\r\n" + OK + OK + GO)
    assert [outcome for _, outcome in dialogue.settled] == [Sent("250 first last")]


def test_mail_that_breaks_one_connection_after_the_other_is_deferred() -> None:
    """It does not go round for ever; that connections end with 421 is not held against it."""
    waiting, outcomes = Waiting(), list[Outcome]()
    mail = Mail(mail_to("a"), outcomes.append)
    for suspect in [False, *[True] * MOST_RETURNS]:
        waiting.take_back(mail, "cut", suspect=suspect)
        assert waiting.next(0) is mail
    waiting.take_back(mail, "cut", suspect=True)
    waiting.tell()
    assert outcomes == [Deferred("cut")]


def test_mail_that_is_written_is_not_kept() -> None:
    """A mail with attachments has megabytes, and a connection may rest for long."""
    wire = b"Subject: Hello\r\n\r\n.\r\n" * 2
    references = sys.getrefcount(wire)
    dialogue = Dialogue(Offers(), pipelining=True)
    dialogue.begin(Mail(Envelope("shop@example.org", "a@example.org", lambda _: wire), lambda _: None))
    dialogue.receive(OK + OK + GO)
    assert dialogue.output().endswith(wire)
    assert sys.getrefcount(wire) == references


def test_mail_is_not_written_after_its_time() -> None:
    """What was written before it has its verdict; the relay waits for a mail, so nothing more can be said to it."""
    dialogue = dialogue_with("a")
    dialogue.begin(Mail(mail_to("b"), lambda _: None, deadline=5.0))
    dialogue.output()
    dialogue.receive(OK + OK + OK + GO, now=5.1)
    assert [outcome for _, outcome in dialogue.settled] == [Sent("250 ok"), PAST_DEADLINE]
    assert dialogue.farewell == PAST_DEADLINE.explanation
    assert not dialogue.wants_mail
    assert dialogue.output() == b""


def test_stop_tells_what_was_at_stake() -> None:
    """What is written is uncertain; what is only begun was not sent."""
    dialogue = dialogue_with("a", "b")
    dialogue.end(Loss.STOPPED, "shutting down")
    assert [outcome for _, outcome in dialogue.settled] == [Uncertain("shutting down"), SHUTTING_DOWN]
    assert dialogue.returned == []
