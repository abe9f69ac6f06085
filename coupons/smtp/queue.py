"""Mails that wait for a connection, and the reports about those that had one."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coupons.mail import Envelope
from coupons.smtp.outcomes import CANCELLED, PAST_DEADLINE, SHUTTING_DOWN, Deferred, Outcome, Unreachable

MOST_RETURNS = 10
"""A mail that comes back so often, each time with its connection dead before MAIL was answered, is the cause."""


@dataclass(slots=True, eq=False)
class Mail:
    envelope: Envelope
    report: Callable[[Outcome], None] = field(repr=False)
    owner: object = None
    deadline: float = math.inf
    """A time of the loop; the mail is never sent after it."""
    returns: int = 0


class Waiting:
    """One queue for all connections to all relays. What is concluded is reported by `tell`, once, in order.

    A report may hand over the next mail: that is queued, and reported after it, never in the middle of things.
    """

    def __init__(self) -> None:
        self._mails: deque[Mail] = deque()
        self._concluded: deque[tuple[Mail, Outcome]] = deque()
        self._telling = False
        self.closed = False
        self.surprise: BaseException | None = None

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, mail: Mail) -> None:
        if self.closed:
            self.conclude(mail, SHUTTING_DOWN)
        else:
            self._mails.append(mail)

    def next(self, now: float) -> Mail | None:
        """The first mail that may still be handed over at this time of the loop; those before it are concluded."""
        while self._mails:
            mail = self._mails.popleft()
            if now <= mail.deadline:
                return mail
            self.conclude(mail, PAST_DEADLINE)
        return None

    def take_back(self, mail: Mail, reason: str, *, suspect: bool) -> None:
        """A mail that nothing was at stake for is the next one again. `suspect`: it may have broken the connection."""
        mail.returns += suspect
        if self.closed:
            self.conclude(mail, SHUTTING_DOWN)
        elif mail.returns > MOST_RETURNS:
            self.conclude(mail, Deferred(reason))
        else:
            self._mails.appendleft(mail)

    def give_up(self, outcome: Unreachable) -> None:
        """Conclude every waiting mail."""
        while self._mails:
            self.conclude(self._mails.popleft(), outcome)

    def cancel_for(self, owner: object) -> None:
        mails, self._mails = self._mails, deque()
        for mail in mails:
            if mail.owner is owner:
                self.conclude(mail, CANCELLED)
            else:
                self._mails.append(mail)

    def close(self) -> None:
        self.closed = True
        self.give_up(SHUTTING_DOWN)

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
