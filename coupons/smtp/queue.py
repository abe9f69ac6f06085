"""Mails that wait for a connection, and the reports about those that had one."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coupons.mail import Envelope
from coupons.smtp.outcomes import Deferred, Outcome, Unreachable

TOO_LATE = "too late"
MOST_RETURNS = 10
"""A mail that comes back so often, each time with its connection dead before MAIL was answered, is the cause."""


@dataclass(slots=True, eq=False)
class Mail:
    envelope: Envelope
    report: Callable[[Outcome], None] = field(repr=False)
    of: object = None
    until: float = math.inf
    """The loop's time after which it may not be handed over any more."""
    returns: int = 0


class Waiting:
    """One queue for all connections to all relays. What is concluded is reported by `tell`, once, in order.

    A report may hand over the next mail: that is queued, and reported after it, never in the middle of things.
    """

    def __init__(self) -> None:
        self._mails: deque[Mail] = deque()
        self._concluded: deque[tuple[Mail, Outcome]] = deque()
        self._telling = False
        self.closed_for: str | None = None
        self.surprise: BaseException | None = None

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, mail: Mail) -> None:
        if self.closed_for is None:
            self._mails.append(mail)
        else:
            self.conclude(mail, Unreachable(self.closed_for))

    def next(self, now: float) -> Mail | None:
        """The first mail that may still be handed over at this time of the loop; those before it are concluded."""
        while self._mails:
            mail = self._mails.popleft()
            if now <= mail.until:
                return mail
            self.conclude(mail, Unreachable(TOO_LATE))
        return None

    def take_back(self, mail: Mail, reason: str, *, suspect: bool) -> None:
        """A mail that nothing was at stake for is the next one again. `suspect`: it may have broken the connection."""
        mail.returns += suspect
        if self.closed_for is not None:
            self.conclude(mail, Unreachable(self.closed_for))
        elif mail.returns > MOST_RETURNS:
            self.conclude(mail, Deferred(reason))
        else:
            self._mails.appendleft(mail)

    def give_up(self, reason: str) -> None:
        """Conclude all that waits as unreachable."""
        while self._mails:
            self.conclude(self._mails.popleft(), Unreachable(reason))

    def withdraw(self, of: object, reason: str) -> None:
        mails, self._mails = self._mails, deque()
        for mail in mails:
            if mail.of is of:
                self.conclude(mail, Unreachable(reason))
            else:
                self._mails.append(mail)

    def close(self, reason: str) -> None:
        self.closed_for = reason
        self.give_up(reason)

    def conclude(self, mail: Mail, outcome: Outcome) -> None:
        self._concluded.append((mail, outcome))

    def conclude_all(self, settled: Iterable[tuple[Mail, Outcome]]) -> None:
        self._concluded.extend(settled)

    def tell(self) -> None:
        """Report what is concluded. A defect in a report is kept, and costs the other mails nothing."""
        if self._telling:
            return
        self._telling = True
        try:
            while self._concluded:
                mail, outcome = self._concluded.popleft()
                try:
                    mail.report(outcome)
                except Exception as error:  # noqa: BLE001 - it is raised when the relays are left
                    self.surprise = error
        finally:
            self._telling = False
