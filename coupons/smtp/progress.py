"""What a session reports after it has read replies, and when it ends.

`Progress` is a tuple because one is created per mail: a frozen dataclass with as many fields takes three times as long.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from coupons.smtp.outcomes import Outcome, OverQuota, Sent
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
    """Has no text of the relay, as `Progress.soft_failure`."""
    unused: bool
    """Whether no MAIL command was answered on this connection."""
    abrupt: bool
    """Whether the connection ended without a reply that announced it, so that a returned mail may be the cause."""
    blames_pipelining: bool
    """Whether pipelining may be the cause: the relay lost a command, or sent too many or too few replies."""


class Progress(NamedTuple):
    """The meaning of the replies since the previous progress."""

    settled: Sequence[tuple[Mail, Outcome]]
    """Mails with their outcomes, in order."""
    returned: Sequence[Mail] = ()
    """Mails to queue again: no attempt was made to send them."""
    over_quota: Sequence[tuple[Mail, OverQuota]] = ()
    """Mails that the relay did not accept because it accepts no more for now, with its replies."""
    backpressure: bool = False
    """Whether the relay asks for less."""
    soft_failure: str | None = None
    """Why the relay itself failed to accept a mail. This happened after the mails in `settled` were sent."""
    close: Close | None = None

    @property
    def has_sent(self) -> bool:
        for _, outcome in self.settled:  # noqa: SIM110 - once per mail, and `any` takes four times as long
            if type(outcome) is Sent:
                return True
        return False


NO_PROGRESS = Progress(())
