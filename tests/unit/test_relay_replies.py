"""The table of replies: each row, as a scripted relay says it, and as the documentation shows it."""

from pathlib import Path

import pytest

from coupons.smtp import Deferred, Outcome, Phase, Refused, Subject
from coupons.smtp.rules import RULES, Rule, subject_of
from tests.smtp_client import outcome_of
from tests.smtp_server import PIPELINING, Script

PAGE = Path(__file__).parents[2] / "docs/reference/relay-replies.md"
COMMANDS = {Phase.MAIL: "MAIL", Phase.RCPT: "RCPT", Phase.DATA: "DATA", Phase.DOT: "DOT"}
M, R, T, D = Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT
BOTH_WAYS = pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])

REPLIES: tuple[tuple[tuple[Phase, str], ...], ...] = (
    ((R, "450 4.1.8 Sender address rejected: Domain not found"), (M, "450 4.1.8 Domain not found")),
    (
        (R, "452 4.2.2 The email account that you tried to reach is over quota"),
        (R, "450 4.2.1 The user you are trying to contact is receiving mail too quickly"),
        (R, "450 4.1.1 unverified address"),
        (D, "452 4.2.2 mailbox full"),
    ),
    (
        (M, "421 4.7.0 Try again later, closing connection"),
        (M, "451 4.3.0 Mail server temporarily rejected message"),
        (R, "451 4.7.1 greylisted"),
        (R, "450 busy"),
        (R, "452 4.5.3 Too many recipients"),
        (T, "454 Throttling failure: Daily message quota exceeded"),
        (D, "421 4.7.28 unusual rate of unsolicited mail"),
        (D, "452 4.3.1 Insufficient system storage"),
    ),
    (
        (M, "550 5.4.5 Daily sending quota exceeded"),
        (R, "550 5.1.90 daily limit for message recipients reached"),
        (R, "552 5.5.3 too many recipients"),
        (R, "550 5.7.232 trial tenant has exceeded its daily limit"),
        (T, "550 5.7.233 tenant exceeded its daily limit"),
        (D, "550 5.4.5 Daily user sending limit exceeded"),
        (D, "550 5.7.28 unusual rate of mail"),
        (D, "554 5.3.1 mail system full"),
        (D, "550 5.3.2 system not accepting network messages"),
    ),
    (
        (M, "530 5.7.0 Authentication Required"),
        (M, "530 Authentication required"),
        (R, "530 5.7.1 Client was not authenticated"),
        (R, "535 authentication failed"),
        (T, "534 5.7.9 use an app password"),
        (D, "538 5.7.11 encryption required"),
    ),
    (
        (M, "550 5.7.8 authentication credentials invalid"),
        (R, "550 5.7.9 mechanism too weak"),
        (R, "550 5.7.57 client not authenticated to send mail"),
        (D, "550 5.7.705 tenant has exceeded threshold"),
        (D, "550 5.7.708 traffic not accepted from this IP"),
        (D, "550 5.7.750 client blocked from sending from unregistered domains"),
    ),
    (
        (M, "553 5.1.7 bad sender address syntax"),
        (R, "550 5.1.8 Access denied, bad outbound sender"),
        (R, "550 5.1.7 sender address rejected"),
        (R, "550 5.7.60 client does not have permissions to send as this sender"),
        (D, "554 5.2.252 SendAsDenied"),
    ),
    ((M, "552 message size exceeds fixed limit"), (M, "552 5.3.4 message size exceeds fixed limit")),
    ((M, "550 5.3.4 message too big"), (M, "550 5.2.3 message exceeds the limit")),
    ((M, "550 5.6.7 non-ASCII addresses not permitted"),),
    (
        (M, "550 5.7.1 sender refused"),
        (M, "550 no"),
        (M, "553 5.7.1 not owned by user"),
        (M, "503 5.5.1 nested MAIL command"),
        (M, "554 5.7.1 blocked using a list"),
        (M, "500 what?"),
    ),
    (
        (R, "550 5.1.1 The email account that you tried to reach does not exist"),
        (R, "550 5.1.10 recipient not found"),
        (R, "550 5.1.2 domain not found"),
        (R, "501 5.1.3 bad recipient address syntax"),
        (R, "550 5.1.6 mailbox has moved"),
        (R, "550 5.2.1 mailbox disabled"),
        (R, "552 5.2.2 mailbox full"),
        (R, "550 5.4.1 recipient address rejected: access denied"),
        (R, "556 5.1.10 domain does not accept mail"),
        (R, "553 5.6.7 non-ASCII addresses not permitted"),
        (R, "550 5.7.703 blocked by the tenant's list"),
        (T, "550 5.1.1 no such mailbox"),
        (D, "550 5.1.10 recipient not found"),
        (D, "554 5.2.2 mailbox full"),
    ),
    ((R, "552 exceeded storage allocation"), (R, "556 domain does not accept mail")),
    (
        (R, "550 relay not permitted"),
        (R, "550 5.7.1 relaying denied"),
        (R, "554 5.7.1 relay access denied"),
        (R, "551 user not local"),
        (R, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
        (R, "554 no"),
        (R, "550 5.0.0 no"),
        (R, "550 5.1.0 address rejected"),
        (R, "504 5.5.2 need fully-qualified address"),
        (R, "550 5.7.509 sending domain does not pass DMARC"),
    ),
    (
        (T, "554 5.5.1 no valid recipients"),
        (T, "550 5.7.1 refused"),
        (D, "554 Message rejected: Email address is not verified"),
        (D, "554 5.7.1 spam"),
        (D, "550 5.7.26 unauthenticated mail"),
        (D, "550 5.7.0 local policy violation"),
        (D, "552 5.3.4 message too big"),
        (D, "552 5.2.3 message exceeds the size limit"),
        (D, "550 no"),
        (D, "551 no"),
        (D, "552 no"),
        (D, "553 no"),
        (D, "554 5.6.0 bad content"),
    ),
)
"""Replies of real relays for each row of the table, in its order."""
EXAMPLES = [(number, phase, reply) for number, replies in enumerate(REPLIES) for phase, reply in replies]


def test_each_row_has_replies() -> None:
    """The test below covers the whole table."""
    assert len(REPLIES) == len(RULES)
    assert all(REPLIES)


@BOTH_WAYS
@pytest.mark.parametrize(("number", "phase", "reply"), EXAMPLES)
async def test_the_row_decides_what_a_reply_is_about(number: int, phase: Phase, reply: str, way: Script) -> None:
    """A scripted relay gives the reply; the outcome has the subject of this row, the command and the relay's name."""
    outcome = await outcome_of({**way, COMMANDS[phase]: f"{reply}\r\n"})
    assert subject_in(outcome) is RULES[number].subject
    assert outcome.explanation.startswith(reply)
    assert isinstance(outcome, Refused | Deferred)
    assert outcome.relay.startswith("127.0.0.1:")
    if isinstance(outcome, Refused):
        assert outcome.phase is phase
    first = next(rule for rule in RULES if matches(rule, phase, reply))
    assert first is RULES[number]


def subject_in(outcome: Outcome) -> Subject | None:
    return outcome.subject if isinstance(outcome, Refused | Deferred) else None


def matches(rule: Rule, phase: Phase, reply: str) -> bool:
    code, second, *_ = f"{reply} -".split(" ")
    return rule.matches(phase, code, second[2:] if second.startswith(f"{code[0]}.") else "")


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("kind", ["4", "5"])
def test_the_table_decides_about_each_reply(phase: Phase, kind: str) -> None:
    """For each code and enhanced code, one row matches. An enhanced code of another class is ignored (RFC 2034 4)."""
    for code in range(60):
        for subject in range(10):
            for detail in 0, 1, 2, 8, 26, 999:
                reply = f"{kind}{code:02} {kind}.{subject}.{detail} no"
                assert isinstance(subject_of(phase, reply), Subject)
        assert subject_of(phase, f"{kind}{code:02} 2.1.8 no") is subject_of(phase, f"{kind}{code:02} no")


def test_the_documented_table_is_the_one_in_use() -> None:
    """docs/reference/relay-replies.md has one line per row, in the same order."""
    table = PAGE.read_text().partition("| Reply to |")[2].partition("\n\n")[0].splitlines()[2:]
    assert table == [line_for(rule) for rule in RULES]


def line_for(rule: Rule) -> str:
    phases = "each command" if len(rule.phases) == len(Phase) else ", ".join(each.value for each in rule.phases)
    codes = ", ".join(rule.codes) or f"{rule.kind}xx"
    enhanced = ", ".join(f"{rule.kind}.{each}" if each else "none" for each in rule.enhanced) or "any"
    return f"| {phases} | {codes} | {enhanced} | {rule.subject.value} | {rule.example} |"
