"""What a session reports after replies, and when it ends.

Tuples, because one is made per mail: a frozen dataclass of as many fields takes three times as long.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from coupons.smtp.outcomes import Outcome, Sent
from coupons.smtp.queue import Mail


class CloseCause(Enum):
    """Why a session ended."""

    ENDED = "ended by the relay"
    TIMEOUT = "no reply in time"
    OUT_OF_STEP = "a reply that makes no sense"
    STOPPED = "stopped by us"


class Close(NamedTuple):
    """The end of a session: the connection must be closed."""

    cause: CloseCause
    reason: str
    unused: bool
    """No MAIL was answered on this connection."""
    abrupt: bool
    """No reply announced the end: a mail that comes back may have caused it."""
    blames_pipelining: bool
    """The relay may have lost commands, or miscounted its replies, because they were pipelined."""


class Progress(NamedTuple):
    """What the replies since the last progress mean."""

    settled: Sequence[tuple[Mail, Outcome]]
    """Mails with their outcomes, in order."""
    returned: Sequence[Mail] = ()
    """Mails to queue again: no attempt was made to send them."""
    backpressure: bool = False
    """The relay asks for less."""
    soft_failure: str | None = None
    """Why the relay itself failed to accept a mail; later than the mails sent in `settled`."""
    close: Close | None = None

    @property
    def has_sent(self) -> bool:
        for _, outcome in self.settled:  # noqa: SIM110 - once per mail, and `any` takes four times as long
            if type(outcome) is Sent:
                return True
        return False


NO_PROGRESS = Progress(())
