"""Is it us that a relay refuses, or one recipient? A policy (`550 5.7.1`) said to a recipient leaves that open."""

from collections import Counter
from uuid import UUID

MOST = 3
"""So many recipients in a row: it is us."""


class Denials:
    """Of each sendout, how many recipients in a row were refused for a policy."""

    def __init__(self) -> None:
        self._in_a_row: Counter[UUID] = Counter()

    def note(self, sendout_id: UUID) -> bool:
        """One more; whether it must be us. Then it is counted anew."""
        self._in_a_row[sendout_id] += 1
        if self._in_a_row[sendout_id] < MOST:
            return False
        self.clear(sendout_id)
        return True

    def clear(self, sendout_id: UUID) -> None:
        """The relay has taken a mail, or has refused one for the recipient's sake."""
        self._in_a_row.pop(sendout_id, None)
