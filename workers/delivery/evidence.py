"""Evidence: does a relay refuse single mails of a sendout, or all of them?

A refusal that may concern all mails is a *suspect* until this is known. Its delivery is deferred and keeps its codes.
A mail that the same relay accepts later shows that the suspect itself was the reason. Suspects in a row, without an
accepted mail in between, show that it was not. docs/decisions/0016 has the numbers.
"""

from math import inf
from uuid import UUID

FIRST_SUSPECTS = 3
"""This many suspects in a row are enough at first: the relay has neither accepted a mail nor paused the sendout."""
SUSPECTS_IN_A_ROW = 10
"""Later, this many are needed: if 5 % of the mails are refused for good reasons, 3 in a row occur every 8,000 mails,
and 10 in a row never.
"""
MAILS_IN_A_ROW = 100
"""Suspects of one domain count as one, but this many mails in a row are enough whatever their domains."""
FIRST_MAILS, MOST_SUSPECTS = 100, 50
"""This many suspects among the first mails are enough, although the relay accepts some mails in between."""
CERTAIN_IN_A_ROW = 5
"""After this many refusals in a row, one that seems to concern its recipient is a suspect too."""
GRACE_SECONDS = 60.0
"""A mail that was accepted this long before the suspect's first attempt counts as accepted after it. Otherwise the last
mails of a sendout would have no later mail that clears them.
"""
MAX_SENDOUTS = 100
"""A worker keeps the evidence of this many sendouts."""


class Evidence:
    """The evidence about one relay and one sendout. A suspect is a domain, or the number of a delivery."""

    __slots__ = (
        "_accepted_at",
        "_first_mails",
        "_first_suspects",
        "_mails_in_a_row",
        "_paused_at",
        "_suspects_in_a_row",
        "has_paused",
    )

    def __init__(self) -> None:
        self._accepted_at = self._paused_at = -inf
        self._mails_in_a_row = 0
        self._suspects_in_a_row: set[str | int] = set()
        self._first_mails = 0
        self._first_suspects: set[str | int] = set()
        self.has_paused = False
        """Whether the relay has paused the sendout and accepted no mail since."""

    def accept(self, now: float) -> None:
        """Note that the relay accepted a mail."""
        self._accepted_at = now
        self.has_paused = False
        if self._mails_in_a_row:
            self._mails_in_a_row = 0
            self._suspects_in_a_row.clear()
        if self._first_mails < FIRST_MAILS:
            self._first_mails += 1

    def refuse(self, suspect: str | int, *, seems_certain: bool = False) -> None:
        """Note that the relay refused a mail. `seems_certain`: the reply is about its recipient."""
        self._mails_in_a_row += 1
        is_early = self._first_mails < FIRST_MAILS
        self._first_mails += is_early
        if seems_certain and not self.is_alarming:
            return
        self._suspects_in_a_row.add(suspect)
        if is_early:
            self._first_suspects.add(suspect)

    def pause(self, now: float) -> None:
        """Note that the sendout is paused because of this relay."""
        self.has_paused = True
        self._paused_at = now
        self._mails_in_a_row = 0
        self._suspects_in_a_row.clear()
        self._first_mails = FIRST_MAILS
        self._first_suspects.clear()

    @property
    def is_new(self) -> bool:
        """Whether the relay has neither accepted a mail nor paused the sendout."""
        return self._accepted_at == self._paused_at == -inf

    @property
    def shows_that_all_are_refused(self) -> bool:
        return (
            len(self._suspects_in_a_row) >= (FIRST_SUSPECTS if self.is_new else SUSPECTS_IN_A_ROW)
            or self._mails_in_a_row >= MAILS_IN_A_ROW
            or len(self._first_suspects) >= MOST_SUSPECTS
        )

    @property
    def is_alarming(self) -> bool:
        """Whether the last refusal is a suspect even if it seems to concern its recipient."""
        return self.has_paused or self._mails_in_a_row > CERTAIN_IN_A_ROW

    def has_accepted_since(self, seconds_ago: float, now: float) -> bool:
        """Return whether the relay has accepted a mail since then, and since the last pause."""
        return self._accepted_at > max(self._paused_at, now - seconds_ago - GRACE_SECONDS)


class SendoutEvidence:
    """The evidence about one sendout, for each relay."""

    __slots__ = ("_relays",)

    def __init__(self) -> None:
        self._relays: dict[str, Evidence] = {}

    def about(self, relay: str) -> Evidence:
        found = self._relays.get(relay)
        if found is None:
            found = self._relays[relay] = Evidence()
        return found


class WorkerEvidence:
    """The evidence about the sendouts that a worker sent last."""

    def __init__(self) -> None:
        self._sendouts: dict[UUID, SendoutEvidence] = {}

    def about(self, sendout_id: UUID) -> SendoutEvidence:
        found = self._sendouts.pop(sendout_id, None) or SendoutEvidence()
        self._sendouts[sendout_id] = found
        if len(self._sendouts) > MAX_SENDOUTS:
            del self._sendouts[next(iter(self._sendouts))]
        return found
