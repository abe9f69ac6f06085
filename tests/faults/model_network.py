"""The network of the model: relays that do with each mail what a test says, and the truth about who got which."""

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
    SenderRefused,
    Sent,
    Uncertain,
    Unreachable,
    UnreachableCause,
)
from tests.faults.model_interaction_points import Contacts, Dead

MESSAGE_ID = re.compile(r"<([0-9a-f]{32})\.(\d+)@")
SHOWN = re.compile(r"(?P<list>\w+)=(?:(?P<code>C\d+)|none is left)")
"""How the model's messages show a code, or a text for it: each list in a line of its own."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What the network does with a mail, and what the worker hears of it."""

    answer: Outcome
    arrives: bool = False
    waits: bool = False
    """For a free connection: until the relays answer, it may be withdrawn, or be too late."""


FATES = {
    "sent": Fate(Sent("250 2.0.0 taken"), arrives=True),
    "sent, after it waited": Fate(Sent("250 2.0.0 taken"), arrives=True, waits=True),
    "refused": Fate(Refused("550 5.1.1 unknown")),
    "deferred": Fate(Deferred("451 4.2.0 later")),
    "taken, the answer lost": Fate(Uncertain("the connection was lost"), arrives=True),
    "lost after the dot": Fate(Uncertain("the connection was lost")),
    "sender refused": Fate(SenderRefused("550 5.7.1 not you", Phase.MAIL)),
    "denied at RCPT": Fate(SenderRefused("550 5.7.1 policy", Phase.RCPT)),
    "unreachable": Fate(Unreachable("connection refused")),
}


@dataclass(frozen=True, slots=True)
class Mail:
    """One that has reached its recipient. `codes` by the name of their list."""

    message_id: str
    sendout_id: UUID
    delivery: int
    recipient: str
    codes: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[UUID, int]:
        return self.sendout_id, self.delivery

    @classmethod
    def read(cls, envelope: Envelope) -> "Mail":
        """As its recipient does, with the standard library's parser."""
        read = email.message_from_bytes(envelope.data, policy=email.policy.default)
        message_id = str(read["Message-ID"])
        ids = MESSAGE_ID.match(message_id)
        assert ids, "a mail without our Message-ID"
        shown = [SHOWN.fullmatch(line) for line in read.get_content().splitlines()]
        assert all(shown), "a mail that is not the message's"
        codes = tuple((each["list"], each["code"]) for each in shown if each and each["code"])
        return cls(message_id, UUID(ids[1]), int(ids[2]), envelope.rcpt_to, codes)


@dataclass(slots=True)
class Network:
    """What all relays have really delivered, and when the time has last gone on by more than a lease."""

    lease_seconds: float
    in_flight: Callable[[], Awaitable[Collection[tuple[UUID, int]]]]
    """What the database says just now that workers have in hand."""
    ledger: list[Mail] = field(default_factory=list)
    unintended: list[str] = field(default_factory=list)
    """Mails that were handed over without that: nobody would know of them if their worker died."""
    went_on_at: float = float("-inf")

    def time_goes_on(self) -> None:
        self.went_on_at = asyncio.get_running_loop().time()

    async def look(self, handed_over: Sequence[Envelope]) -> None:
        in_flight = await self.in_flight()
        mails = [Mail.read(envelope) for envelope in handed_over]
        self.unintended += [f"handed over without intent: {mail}" for mail in mails if mail.key not in in_flight]

    def is_too_late(self, until: float | None) -> bool:
        """A limit that was set before the time went on by a lease is over."""
        return until is not None and until - self.lease_seconds < self.went_on_at


@dataclass(slots=True)
class _HandedOver:
    envelope: Envelope
    report: Callable[[Outcome], None]
    owner: object
    deadline: float | None
    fate: Fate
    outcome: Outcome | None = None
    """Decided already, not told yet."""


class Wire:
    """One worker's `Relays`: a mail that is handed over meets the next of the fates; later ones are sent.

    As the real ones do: each mail is reported once, never while it is handed over; what waits can be withdrawn; after
    its deadline no mail is begun.
    """

    def __init__(self, network: Network, contacts: Contacts) -> None:
        self.outage: Outage | None = None
        self._network = network
        self._contacts = contacts
        self._fates: deque[Fate] = deque()
        self._unanswered: list[_HandedOver] = []
        self._answering: asyncio.Task[None] | None = None

    def meets(self, fates: Sequence[str], *, outage: bool = False) -> None:
        """From now on."""
        self._fates = deque(FATES[each] for each in fates)
        self.outage = Outage("no relay answers", datetime.now(UTC), 1.0) if outage else None

    def submit(
        self,
        envelope: Envelope,
        report: Callable[[Outcome], None],
        owner: object = None,
        deadline: float | None = None,
    ) -> None:
        self._contacts.hands_over(envelope.rcpt_to)
        fate = self._fates.popleft() if self._fates else FATES["sent"]
        mail = _HandedOver(envelope, report, owner, deadline, fate)
        self._unanswered.append(mail)
        if not fate.waits:
            self._begin(mail)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())

    def cancel_for(self, owner: object) -> None:
        for mail in self._unanswered:
            if mail.owner is owner and mail.outcome is None:
                mail.outcome = Unreachable("cancelled", UnreachableCause.CANCELLED)

    def stalled_owners(self) -> list[object]:
        """Its relays answer, or their connections are lost: no work is left behind that a death had to end."""
        return []

    def cancel_queued(self) -> None:
        """Workers of the model are never told to stop."""

    async def _answer(self) -> None:
        if self._contacts.dead:
            return
        await self._network.look([mail.envelope for mail in self._unanswered if not self._is_too_late(mail)])
        with suppress(Dead):
            await self._contacts.passes("the relay answers")
            self._tell()

    def _tell(self) -> None:
        for mail in self._unanswered:
            if mail.outcome is None:
                self._begin(mail)
        answered, self._unanswered = self._unanswered, []
        for mail in answered:
            assert mail.outcome
            mail.report(mail.outcome)

    def _is_too_late(self, mail: _HandedOver) -> bool:
        return self._network.is_too_late(mail.deadline)

    def _begin(self, mail: _HandedOver) -> None:
        if self._is_too_late(mail):
            mail.outcome = Unreachable("not sent before its deadline", UnreachableCause.DEADLINE)
            return
        mail.outcome = mail.fate.answer
        if mail.fate.arrives:
            self._network.ledger.append(Mail.read(mail.envelope))
