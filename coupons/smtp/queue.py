"""Mails that wait for a connection, and the outcomes that wait to be reported."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coupons.mail import Envelope
from coupons.smtp.outcomes import CANCELLED, PAST_DEADLINE, SHUTTING_DOWN, Deferred, Outcome, Unreachable

MAX_RETURNS = 10
"""The relay may die before it answers MAIL. A mail that was returned more often than this for that reason is deferred,
because it is probably the cause.
"""


@dataclass(slots=True, eq=False)
class Mail:
    envelope: Envelope
    report: Callable[[Outcome], None] = field(repr=False)
    owner: object = None
    deadline: float = math.inf
    """The time of the loop after which the mail is never sent."""
    returns: int = 0


class MailQueue:
    """One queue for all connections to all relays. `flush_reports` reports each outcome once, in order.

    A report may submit another mail. That mail is queued, and its outcome is reported after the present report returns.
    """

    def __init__(self) -> None:
        self._mails: deque[Mail] = deque()
        self._settled: deque[tuple[Mail, Outcome]] = deque()
        self._is_reporting = False
        self.closed = False
        self.unexpected_error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, mail: Mail) -> None:
        if self.closed:
            self.settle(mail, SHUTTING_DOWN)
        else:
            self._mails.append(mail)

    def next(self, now: float) -> Mail | None:
        """Return the first mail whose deadline has not passed at the loop's time `now`; settle the mails before it."""
        while self._mails:
            mail = self._mails.popleft()
            if now <= mail.deadline:
                return mail
            self.settle(mail, PAST_DEADLINE)
        return None

    def put_back(self, mail: Mail, reason: str, *, suspect: bool, relay: str = "") -> None:
        """Put an unsent mail at the front of the queue. `suspect`: the mail may have broken its connection."""
        mail.returns += suspect
        if self.closed:
            self.settle(mail, SHUTTING_DOWN)
        elif mail.returns > MAX_RETURNS:
            self.settle(mail, Deferred(reason, relay=relay))
        else:
            self._mails.appendleft(mail)

    def cancel_all(self, outcome: Unreachable) -> None:
        while self._mails:
            self.settle(self._mails.popleft(), outcome)

    def cancel_for(self, owner: object) -> None:
        mails, self._mails = self._mails, deque()
        for mail in mails:
            if mail.owner is owner:
                self.settle(mail, CANCELLED)
            else:
                self._mails.append(mail)

    def close(self) -> None:
        self.closed = True
        self.cancel_all(SHUTTING_DOWN)

    def settle(self, mail: Mail, outcome: Outcome) -> None:
        self._settled.append((mail, outcome))

    def settle_all(self, settled: Iterable[tuple[Mail, Outcome]]) -> None:
        self._settled.extend(settled)

    def flush_reports(self) -> None:
        """Report the settled mails. An error in a report is stored and does not affect the other mails."""
        if self._is_reporting:
            return
        self._is_reporting = True
        try:
            while self._settled:
                mail, outcome = self._settled.popleft()
                try:
                    mail.report(outcome)
                except Exception as error:  # noqa: BLE001 - raised when the relays are closed
                    self.unexpected_error = error
        finally:
            self._is_reporting = False
