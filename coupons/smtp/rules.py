"""What a relay's reply means. One table decides by the command that it answers, its code and its enhanced code.

The codes are those of RFC 5321 4.2 and RFC 3463. docs/reference/relay-replies.md shows the table; a test compares both.
What happens to others decides in workers/delivery/policy.py, which knows them.
"""

from dataclasses import dataclass

from coupons.smtp.outcomes import (
    Deferred,
    Outcome,
    OverQuota,
    Phase,
    Refused,
    Sent,
    Subject,
    Uncertain,
    Unreachable,
)
from coupons.smtp.replies import OutOfStepError, reply_codes

MAIL, RCPT, DATA, DOT = Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT
EACH = (MAIL, RCPT, DATA, DOT)
NO_ENHANCED_CODE = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table. An empty tuple of codes matches every code."""

    phases: tuple[Phase, ...]
    kind: str
    """The first digit of the code: 4 is temporary, 5 is permanent."""
    codes: tuple[str, ...]
    enhanced: tuple[str, ...]
    """Enhanced codes without their class, which repeats `kind`; `2.*` means each code that begins with `2.`."""
    subject: Subject
    example: str

    def matches(self, phase: Phase, code: str, enhanced: str) -> bool:
        if phase not in self.phases or code[0] != self.kind or (self.codes and code not in self.codes):
            return False
        return not self.enhanced or enhanced in self.enhanced or f"{enhanced.partition('.')[0]}.*" in self.enhanced


RULES = (
    Rule(EACH, "4", (), ("1.7", "1.8"), Subject.SENDER, "the sender's domain cannot be looked up"),
    Rule((RCPT, DATA, DOT), "4", (), ("1.*", "2.*"), Subject.RECIPIENT, "mailbox full or busy"),
    Rule(EACH, "4", (), (), Subject.RELAY, "greylisting, rate limit, disk full, shutting down"),
    Rule(
        EACH, "5", (), ("1.90", "3.1", "3.2", "4.5", "5.3", "7.28", "7.232", "7.233"),
        Subject.QUOTA, "daily quota, rate limit, system full",
    ),
    Rule(EACH, "5", ("530", "534", "535", "538"), (), Subject.ACCOUNT, "authentication required or failed"),
    Rule(
        EACH, "5", (), ("7.8", "7.9", "7.10", "7.11", "7.57", "7.705", "7.708", "7.750"),
        Subject.ACCOUNT, "authentication failed, account blocked",
    ),
    Rule(EACH, "5", (), ("1.7", "1.8", "2.252", "7.60"), Subject.SENDER, "sender address or domain refused"),
    Rule((MAIL,), "5", ("552",), (), Subject.MESSAGE, "mail larger than the relay's limit"),
    Rule((MAIL,), "5", (), ("2.3", "3.4"), Subject.MESSAGE, "mail larger than the relay's limit"),
    Rule((MAIL,), "5", (), ("6.7",), Subject.RECIPIENT, "address needs SMTPUTF8"),
    Rule((MAIL,), "5", (), (), Subject.SENDER, "sender refused, wrong command"),
    Rule(
        (RCPT, DATA, DOT), "5", (),
        ("1.1", "1.2", "1.3", "1.4", "1.6", "1.10", "2.0", "2.1", "2.2", "2.4", "4.1", "4.4", "4.6", "6.7", "7.703"),
        Subject.RECIPIENT, "unknown mailbox, bad address, mailbox full, no route",
    ),
    Rule((RCPT,), "5", ("552", "556"), (NO_ENHANCED_CODE,), Subject.RECIPIENT, "mailbox full, domain without mail"),
    Rule((RCPT,), "5", (), (), Subject.SENDER_OR_RECIPIENT, "relaying denied, policy, blocklist"),
    Rule((DATA, DOT), "5", (), (), Subject.MESSAGE, "unverified identity, DMARC, size, content filter"),
)  # fmt: skip
"""The first row that matches counts. The last rows match every reply that the others do not."""


def subject_of(phase: Phase, reply: str) -> Subject:
    """Return what a 4xx or 5xx reply is about."""
    code, _, enhanced = reply_codes(reply).partition(" ")
    return next(rule.subject for rule in RULES if rule.matches(phase, code, enhanced[2:]))


def interpret(phase: Phase, reply: str, relay: str = "") -> Outcome | OverQuota | None:
    """Return the outcome that a reply (`550 5.1.1 no such mailbox`) means; None: continue. Raises OutOfStepError."""
    match phase, reply[:1]:
        case (Phase.MAIL | Phase.RCPT, "2") | (Phase.DATA, "3"):
            return None
        case Phase.DOT, "2":
            return Sent(reply, relay)
        case _, "4":
            return Deferred(reply, subject_of(phase, reply), relay)
        case _, "5":
            subject = subject_of(phase, reply)
            return OverQuota(reply, phase) if subject is Subject.QUOTA else Refused(reply, subject, phase, relay)
    raise OutOfStepError(f"{phase.value} was answered with {reply_codes(reply)}")


def is_soft_failure(phase: Phase, reply: str) -> bool:
    """Return whether the relay itself fails: a 4xx reply, unless it concerns one recipient (greylisting, quota)."""
    return reply.startswith("421" if phase is Phase.RCPT else "4")


def is_backpressure(phase: Phase, reply: str) -> bool:
    """Return whether the relay asks for less: a 4xx reply that concerns the relay and not one mailbox (RFC 3463 3)."""
    if is_soft_failure(phase, reply):
        return True
    return phase is Phase.RCPT and reply_codes(reply)[4:7] in ("4.3", "4.4", "4.5", "4.7")


def outcome_of_loss(phase: Phase, reason: str, relay: str = "") -> Outcome:
    """Return the outcome of a mail whose connection is lost, times out or gets out of step in this phase."""
    match phase:
        case Phase.MAIL:
            return Unreachable(reason)
        case Phase.RCPT | Phase.DATA:
            return Deferred(reason, Subject.RELAY, relay)
        case Phase.DOT:
            return Uncertain(reason)
