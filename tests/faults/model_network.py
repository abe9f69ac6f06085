"""The network of the model: simulated relays with scripted fates, and a record of all mails that arrived."""

import asyncio
import email
import email.policy
import re
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from coupons.mail import Envelope
from coupons.smtp import (
    Deferred,
    Outage,
    Outcome,
    Phase,
    Refused,
    Sent,
    Subject,
    Uncertain,
    Unreachable,
    UnreachableCause,
)
from coupons.smtp.outcomes import OverQuota
from coupons.smtp.rules import interpret
from tests.faults.model_codes import composed
from tests.faults.model_interaction_points import InteractionPoints, ProcessDied
from tests.faults.model_messages import FIRST_LINE

MESSAGE_ID = re.compile(r"<([0-9a-f]{32})\.(\d+)@")
SHOWN = re.compile(r"(?P<list>\w+)=(?:(?P<code>\w+)|none is left)")
"""A line of the model's mails: the name of a list with its code or with the alternative text."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a mail, and the outcome that the worker gets."""

    answer: Outcome
    arrives: bool = False
    queued: bool = False
    """Whether the mail waits for a free connection. Until a relay replies, it can be cancelled or pass its deadline."""


REFUSALS = {
    "the message": (Phase.DOT, "554 5.7.26 unauthenticated mail to <ada@example.org>"),
    "the sender": (Phase.RCPT, "550 5.1.8 <shop@example.org>: bad sender"),
    "more mail": (Phase.RCPT, "550 5.4.5 <ada@example.org>: daily limit"),
}
"""The replies of a relay that refuses every mail, by what it refuses. As real relays do, they quote an address."""


def refusal_of_all(what: str) -> Fate:
    outcome = interpret(*REFUSALS[what])
    if isinstance(outcome, OverQuota):  # what a relay reports after this reply
        return Fate(Deferred(outcome.explanation, Subject.QUOTA))
    assert isinstance(outcome, Refused)
    return Fate(outcome)


FATES = {
    "sent": Fate(Sent("250 2.0.0 taken"), arrives=True),
    "sent after it was queued": Fate(Sent("250 2.0.0 taken"), arrives=True, queued=True),
    "refused": Fate(Refused("550 5.1.1 <ada@example.org>: unknown")),
    "deferred": Fate(Deferred("451 4.2.0 <ada@example.org>: later")),
    "accepted, reply lost": Fate(Uncertain("the connection was lost"), arrives=True),
    "lost after the final dot": Fate(Uncertain("the connection was lost")),
    "sender refused": Fate(Refused("550 5.7.1 <shop@example.org>: not you", Subject.SENDER, Phase.MAIL)),
    "sender or recipient refused": Fate(Refused("550 5.7.1 <ada@example.org>: policy", Subject.SENDER_OR_RECIPIENT)),
    "message refused": Fate(Refused("554 5.7.1 <ada@example.org>: spam", Subject.MESSAGE, Phase.DOT)),
    "unreachable": Fate(Unreachable("connection refused")),
}


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that reached its recipient.

    `lists` are those that it prints a code or the alternative text of; `codes` are pairs of list and code, in NFC.
    """

    message_id: str
    sendout_id: UUID
    delivery: int
    recipient: str
    lists: tuple[str, ...]
    codes: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[UUID, int]:
        return self.sendout_id, self.delivery

    @classmethod
    def read(cls, envelope: Envelope) -> "Mail":
        """Parse a mail with the standard library, as its recipient does."""
        read = email.message_from_bytes(envelope.data, policy=email.policy.default)
        message_id = str(read["Message-ID"])
        ids = MESSAGE_ID.match(message_id)
        assert ids, "a mail without a Message-ID of ours"
        first, *lines = read.get_content().splitlines()
        shown = [found for line in lines if (found := SHOWN.fullmatch(composed(line)))]
        assert (first, len(shown)) == (FIRST_LINE, len(lines)), "a mail with an unexpected line"
        lists = tuple(each["list"] for each in shown)
        codes = tuple((each["list"], each["code"]) for each in shown if each["code"])
        return cls(message_id, UUID(ids[1]), int(ids[2]), envelope.rcpt_to, lists, codes)


@dataclass(slots=True)
class Network:
    """All mails that arrived, and the last time when the clock was advanced by more than a lease."""

    lease_seconds: float
    in_flight: Callable[[], Awaitable[Collection[tuple[UUID, int]]]]
    """Reads the mails in flight from the database."""
    ledger: list[Mail] = field(default_factory=list)
    without_intent: list[str] = field(default_factory=list)
    """Mails that were handed over without a committed intent. If the worker died, they would leave no trace."""
    advanced_at: float = float("-inf")
    refuses: str | None = None
    """What the relay refuses of every mail; None while each mail has its own fate."""

    def advance_time(self) -> None:
        self.advanced_at = asyncio.get_running_loop().time()

    async def check_intents(self, handed_over: Sequence[Envelope]) -> None:
        in_flight = await self.in_flight()
        mails = [Mail.read(envelope) for envelope in handed_over]
        self.without_intent += [f"handed over without intent: {mail}" for mail in mails if mail.key not in in_flight]

    def is_past(self, until: float | None) -> bool:
        """Whether the deadline has passed: it was set before the clock was advanced by more than a lease."""
        return until is not None and until - self.lease_seconds < self.advanced_at


@dataclass(slots=True)
class _Submitted:
    envelope: Envelope
    report: Callable[[Outcome], None]
    owner: object
    deadline: float | None
    fate: Fate
    outcome: Outcome | None = None
    """The outcome, from when it is decided until it is reported."""


class ModelRelays:
    """One worker's `Relays`. Each submitted mail gets the next fate; after the last fate, all mails are sent.

    As with the real `Relays`, each mail is reported once and never during `submit`. Queued mails can be cancelled, and
    no mail is begun after its deadline.
    """

    def __init__(self, network: Network, points: InteractionPoints) -> None:
        self.outage: Outage | None = None
        self.count = 1
        self._network = network
        self._points = points
        self._fates: deque[Fate] = deque()
        self._unanswered: list[_Submitted] = []
        self._answering: asyncio.Task[None] | None = None

    def set_fates(self, fates: Sequence[str], *, outage: bool = False) -> None:
        """Set the fates of the next mails, and whether no relay is usable (an outage)."""
        self._fates = deque(FATES[each] for each in fates)
        self.outage = Outage("no relay answers", datetime.now(UTC), 1.0) if outage else None

    def submit(
        self,
        envelope: Envelope,
        report: Callable[[Outcome], None],
        owner: object = None,
        deadline: float | None = None,
    ) -> None:
        self._points.submit(envelope.rcpt_to)
        mail = _Submitted(envelope, report, owner, deadline, self._next_fate())
        self._unanswered.append(mail)
        if not mail.fate.queued:
            self._begin(mail)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())

    def _next_fate(self) -> Fate:
        if self._network.refuses:
            return refusal_of_all(self._network.refuses)
        return self._fates.popleft() if self._fates else FATES["sent"]

    def cancel_for(self, owner: object) -> None:
        for mail in self._unanswered:
            if mail.owner is owner and mail.outcome is None:
                mail.outcome = Unreachable("cancelled", UnreachableCause.CANCELLED)

    def stalled_owners(self) -> list[object]:
        """Return no owners: these relays never stall."""
        return []

    def cancel_queued(self) -> None:
        """Do nothing: workers of the model never shut down."""

    async def _answer(self) -> None:
        if self._points.dead:
            return
        await self._network.check_intents(
            [mail.envelope for mail in self._unanswered if not self._is_past_deadline(mail)]
        )
        with suppress(ProcessDied):
            await self._points.reach("the relay replies")
            self._report()

    def _report(self) -> None:
        for mail in self._unanswered:
            if mail.outcome is None:
                self._begin(mail)
        answered, self._unanswered = self._unanswered, []
        for mail in answered:
            assert mail.outcome
            mail.report(mail.outcome)

    def _is_past_deadline(self, mail: _Submitted) -> bool:
        return self._network.is_past(mail.deadline)

    def _begin(self, mail: _Submitted) -> None:
        if self._is_past_deadline(mail):
            mail.outcome = Unreachable("not sent before its deadline", UnreachableCause.DEADLINE)
            return
        mail.outcome = mail.fate.answer
        if mail.fate.arrives:
            self._network.ledger.append(Mail.read(mail.envelope))
