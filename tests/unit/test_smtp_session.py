import random
import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.mail import Envelope
from coupons.smtp import Deferred, Outcome, Refused, Sent, Subject, Uncertain, Unreachable
from coupons.smtp.commands import Capabilities
from coupons.smtp.outcomes import PAST_DEADLINE, SHUTTING_DOWN
from coupons.smtp.progress import Close, CloseCause, Progress
from coupons.smtp.queue import MAX_RETURNS, Mail, MailQueue
from coupons.smtp.session import Session
from tests.smtp_client import mail_to

COMMAND = re.compile(rb"(MAIL FROM:<shop@example\.org>|RCPT TO:<m(\d+)@example\.org>|DATA|RSET)\r\n")
BODY = re.compile(rb"Subject: Hello\r\n\r\nm(\d+)\r\n\.\r\n")
LIES = ("none", "cut before", "cut after", "twice", "silent", "discard", "421")


class ModelRelay:
    """A relay that refuses at random, and misbehaves only once, at its nth reply.

    It fails the test if a command is invalid, or a mail is not the announced one.
    """

    def __init__(self, chance: random.Random, lie: str, at: int) -> None:
        self.chance, self.lie, self.at = chance, lie, at
        self.read, self.output = b"", b""
        self.began = self.in_mail = self.dead = False
        self.recipient: int | None = None
        self.accepted: list[int] = []

    def receive(self, data: bytes) -> None:
        self.read += data
        end = b".\r\n" if self.in_mail else b"\r\n"
        while end in self.read and not self.dead:
            self._mail() if self.in_mail else self._command()
            end = b".\r\n" if self.in_mail else b"\r\n"

    def _mail(self) -> None:
        self.in_mail = False
        if self.recipient is None:
            assert self.read.startswith(b".\r\n"), "a mail without recipients"
            self.read, self.began = self.read[3:], False
            self._reply(b"554 no recipient")
            return
        found = BODY.match(self.read)
        assert found, self.read
        assert int(found[1]) == self.recipient
        self.read = self.read[found.end() :]
        code = self._code(b"250")
        if code == b"250":
            self.accepted.append(self.recipient)
        self.began, self.recipient = False, None
        self._reply(code)

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
        self._reply(code)

    def _code(self, good: bytes) -> bytes:
        if self.lie == "421" and self.at == 1:
            return b"421"
        return self.chance.choice([good] * 6 + [b"450", b"550"])

    def _reply(self, code: bytes) -> None:
        self.at -= 1
        lie = self.lie if self.at == 0 else "none"
        line = code + b" said\r\n"
        if lie not in ("cut before", "silent"):
            self.output += line * (2 if lie == "twice" else 1)
        if lie.startswith("cut") or code == b"421":
            self.dead = True
        if lie == "discard" and not self.in_mail:
            self.read = b""


@dataclass
class Conversation:
    """The reports of a session, and its end; None: all mails are settled."""

    settled: list[tuple[Mail, Outcome]] = field(default_factory=list)
    returned: list[Mail] = field(default_factory=list)
    close: Close | None = None

    def add(self, progress: Progress | None) -> bool:
        """Whether the session has ended."""
        if progress is not None:
            self.settled += progress.settled
            self.returned += progress.returned
            self.close = progress.close
        return self.close is not None


def converse(session: Session, relay: ModelRelay, mails: deque[Mail], chance: random.Random) -> Conversation:
    """Until all mails are settled or the connection is over."""
    found = Conversation()
    while True:
        while session.can_accept and mails:
            assert session.begin(mails.popleft()) is None
        relay.receive(session.output())
        if relay.output:
            cut = chance.randint(1, len(relay.output))
            piece, relay.output = relay.output[:cut], relay.output[cut:]
            if found.add(session.receive(piece)):
                return found
        elif relay.dead:
            found.add(session.end(CloseCause.ENDED, "a reason"))
            return found
        elif not session.is_quiet:
            found.add(session.end(CloseCause.TIMEOUT, "a reason"))
            return found
        elif not mails:
            return found


def connections(chance: random.Random, lies: list[tuple[str, int]], accepted: list[int]) -> Iterator[ModelRelay]:
    for lie, at in lies:
        relay = ModelRelay(chance, lie, at)
        yield relay
        accepted += relay.accepted
    while True:
        relay = ModelRelay(chance, "none", 0)
        yield relay
        accepted += relay.accepted


def check_outcomes(
    relays: Iterator[ModelRelay], accepted: list[int], count: int, chance: random.Random, *, pipelining: bool
) -> None:
    """Send mails over one connection after another. Their outcomes must agree with the mails that were `accepted`."""
    settled: list[tuple[Mail, Outcome]] = []
    mails = deque(Mail(mail_to(f"m{number}"), lambda _: None, owner=number) for number in range(count))
    while mails:
        session = Session(Capabilities(), pipelining=pipelining)
        found = converse(session, next(relays), mails, chance)
        pipelining = pipelining and not (found.close and found.close.blames_pipelining)
        settled += found.settled
        mails.extendleft(found.returned)
    next(relays)
    outcomes = {mail.owner: outcome for mail, outcome in settled}
    assert len(settled) == len(outcomes) == count
    assert len(set(accepted)) == len(accepted)
    for number, outcome in outcomes.items():
        match outcome:
            case Sent():
                assert number in accepted
            case Refused() | Deferred() | Unreachable():
                assert number not in accepted
            case Uncertain():
                pass


@settings(deadline=None)  # a machine may be busy
@given(
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.sampled_from(LIES), st.integers(1, 25)), max_size=4),
    st.integers(1, 12),
    st.booleans(),
)
def test_no_misbehaviour_pairs_a_reply_with_another_mail(
    chance: random.Random, lies: list[tuple[str, int]], count: int, pipelining: bool
) -> None:
    """Each mail has one outcome. Sent mails were accepted by the relay; refused and deferred mails were not."""
    accepted: list[int] = []
    check_outcomes(connections(chance, lies, accepted), accepted, count, chance, pipelining=pipelining)


OK, GO = b"250 ok\r\n", b"354 go\r\n"


def session_with(*names: str) -> Session:
    """Pipelined, the first mail written and the second one begun."""
    session = Session(Capabilities(), pipelining=True)
    session.begin(Mail(mail_to(names[0]), lambda _: None))
    session.receive(OK + OK + GO)
    for name in names[1:]:
        session.begin(Mail(mail_to(name), lambda _: None))
    return session


def progress_of(session: Session, data: bytes, now: float = 0.0) -> Progress:
    progress = session.receive(data, now)
    assert progress is not None
    return progress


def outcomes_in(progress: Progress) -> list[Outcome]:
    return [outcome for _, outcome in progress.settled]


def cause_in(progress: Progress) -> CloseCause:
    assert progress.close is not None
    return progress.close.cause


def test_a_verdict_is_confirmed_when_the_next_group_is_answered() -> None:
    """Only the 354 of the next group shows that no reply was missing or superfluous."""
    session = session_with("a", "b")
    assert outcomes_in(progress_of(session, OK + OK + OK)) == []
    assert outcomes_in(progress_of(session, GO)) == [Sent("250 ok")]


@pytest.mark.parametrize("verdict", [b"250 ok\r\n", b"451 4.3.0 no\r\n", b"554 no\r\n"])
@pytest.mark.parametrize("proof", [b"354 go\r\n", b"rubbish\r\n"])
def test_a_verdict_is_uncertain_when_the_session_falls_out_of_step(verdict: bytes, proof: bytes) -> None:
    """The verdict may belong to another command, so the mail is uncertain; the mail begun after it is returned."""
    progress = progress_of(session_with("a", "b"), verdict + proof)
    assert cause_in(progress) is CloseCause.OUT_OF_STEP
    assert progress.close is not None
    assert progress.close.blames_pipelining
    assert outcomes_in(progress) == [Uncertain(progress.close.reason)]
    assert [mail.envelope.rcpt_to for mail in progress.returned] == ["b@example.org"]


@pytest.mark.parametrize("cause", [CloseCause.ENDED, CloseCause.TIMEOUT])
def test_a_verdict_stays_when_the_connection_dies_after_it(cause: CloseCause) -> None:
    """The replies came in order, so the verdict counts."""
    session = session_with("a", "b")
    assert outcomes_in(progress_of(session, OK)) == []
    progress = session.end(cause, "a reason")
    assert outcomes_in(progress) == [Sent("250 ok")]
    assert len(progress.returned) == 1


def test_a_mail_whose_sender_is_refused_is_not_ended_with_a_dot() -> None:
    """If the relay has accepted the recipient, a dot would send an empty mail."""
    session = Session(Capabilities(), pipelining=True)
    session.begin(Mail(mail_to("a"), lambda _: None))
    session.output()
    progress = progress_of(session, b"550 no\r\n" + OK + GO)
    assert cause_in(progress) is CloseCause.OUT_OF_STEP
    assert outcomes_in(progress) == [Refused("550 no", Subject.SENDER)]
    assert session.output() == b""


def test_a_mail_is_not_written_before_all_replies_are_read() -> None:
    """Bytes after the 354 would otherwise be read as the reply to the final dot."""
    session = Session(Capabilities(), pipelining=True)
    session.begin(Mail(mail_to("a"), lambda _: None))
    session.output()
    progress = progress_of(session, OK + OK + GO + b"25")
    assert cause_in(progress) is CloseCause.OUT_OF_STEP
    assert session.output() == b""
    assert len(progress.returned) == 1


def test_a_verdict_is_uncertain_when_a_later_reply_is_missing() -> None:
    """If the group is answered only in part, the missing reply may be the one to the dot, and all later replies are
    shifted.
    """
    session = session_with("a", "b")
    assert outcomes_in(progress_of(session, OK + OK)) == []
    progress = session.end(CloseCause.TIMEOUT, "a reason")
    assert outcomes_in(progress) == [Uncertain("a reason")]
    assert len(progress.returned) == 1


def test_replies_after_421_are_ignored() -> None:
    """The relay is closing the connection, so its replies to the rest of the group belong to no mail."""
    progress = progress_of(session_with("a", "b"), OK + b"421 closing\r\n503 no MAIL\r\n503 no RCPT\r\n")
    assert progress.close is not None
    assert (progress.close.cause, progress.close.reason) == (CloseCause.ENDED, "421")
    assert outcomes_in(progress) == [Sent("250 ok")]
    assert len(progress.returned) == 1


def test_the_usual_replies_may_complete_a_partial_one() -> None:
    """Replies that are read at once mean the same as replies that are read in chunks."""
    session = session_with("a", "b")
    assert session.receive(b"250-first\r\n") is None
    assert outcomes_in(progress_of(session, b"250 last\r\n" + OK + OK + GO)) == [Sent("250 first last")]


def test_a_mail_that_breaks_connection_after_connection_is_deferred() -> None:
    """The mail is not returned forever. Connections that end with 421 do not count."""
    queue, outcomes = MailQueue(), list[Outcome]()
    mail = Mail(mail_to("a"), outcomes.append)
    for suspect in [False, *[True] * MAX_RETURNS]:
        queue.put_back(mail, "cut", suspect=suspect)
        assert queue.next(0) is mail
    queue.put_back(mail, "cut", suspect=True)
    queue.flush_reports()
    assert outcomes == [Deferred("cut")]


def test_a_written_mail_is_not_kept_in_memory() -> None:
    """A mail with attachments has megabytes, and an idle connection must not keep it."""
    wire = b"Subject: Hello\r\n\r\n.\r\n" * 2
    references = sys.getrefcount(wire)
    session = Session(Capabilities(), pipelining=True)
    session.begin(Mail(Envelope("shop@example.org", "a@example.org", lambda _: wire), lambda _: None))
    session.receive(OK + OK + GO)
    assert session.output().endswith(wire)
    assert sys.getrefcount(wire) == references


def test_a_mail_is_not_written_after_its_deadline() -> None:
    """The mail before it gets its verdict. The relay expects a body, so the connection must be closed."""
    session = session_with("a")
    session.begin(Mail(mail_to("b"), lambda _: None, deadline=5.0))
    session.output()
    progress = progress_of(session, OK + OK + OK + GO, now=5.1)
    assert outcomes_in(progress) == [Sent("250 ok"), PAST_DEADLINE]
    assert progress.close is not None
    assert progress.close.reason == PAST_DEADLINE.explanation
    assert not session.can_accept
    assert session.output() == b""


def test_abort_settles_every_mail() -> None:
    """A written mail is uncertain; a mail that was only begun is not sent."""
    progress = session_with("a", "b").end(CloseCause.STOPPED, "shutting down")
    assert outcomes_in(progress) == [Uncertain("shutting down"), SHUTTING_DOWN]
    assert progress.returned == []
