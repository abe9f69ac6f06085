"""The states and choices that the database stores as text. schema.sql contains their diagrams."""

from enum import StrEnum
from typing import Literal


class SendoutState(StrEnum):
    """The states of a sendout. `finished`, `cancelled` and `failed` are final.

    The database does not store `scheduled`: a sendout that is stored as sending is scheduled until its start time
    (docs/decisions/0017).
    """

    QUEUED = "queued"
    PREPARING = "preparing"
    INTERRUPTED = "interrupted"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


STALLED: Literal["stalled"] = "stalled"
"""Not a state, but a mark of a sendout in any state: its next step needs a worker, and no worker shows life."""

StateFilter = SendoutState | Literal["stalled"]
"""What lists of sendouts can be filtered by."""

STATE_FILTERS: tuple[StateFilter, ...] = (*SendoutState, STALLED)


def parse_filter(text: str) -> StateFilter:
    """Return the filter of this name. Raises ValueError."""
    return STALLED if text == STALLED else SendoutState(text)


STOPPED_STATES = frozenset({SendoutState.CANCELLED, SendoutState.FAILED})
"""The states in which a sendout sends no mail, and workers cancel its remaining deliveries."""


class DeliveryState(StrEnum):
    """The states of a delivery. `pending` and `deferred` mails remain to be sent."""

    PENDING = "pending"
    DEFERRED = "deferred"
    SENT = "sent"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"


class ImportState(StrEnum):
    """The states of an import. `finished`, `failed` and `cancelled` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ImportPhase(StrEnum):
    """What a running import does."""

    READING = "reading"
    """It reads its file and imports the lines."""
    REMOVING = "removing"
    """In mode replace: it removes the codes or recipients that the file does not have."""


class ImportMode(StrEnum):
    """What an import does with the codes or recipients of its file."""

    ADD = "add"
    REPLACE = "replace"
    DELETE = "delete"
    UNDO = "undo"
    """Not of a file: it takes back what another import added, and restores what that import removed."""


FILE_MODES = (ImportMode.ADD, ImportMode.REPLACE, ImportMode.DELETE)


class TargetKind(StrEnum):
    """The kind of an import's target: a coupon list or a group."""

    LIST = "list"
    GROUP = "group"


class Shortage(StrEnum):
    """What happens if a list has too few codes: the sendout is interrupted, or mails print the alternative text."""

    PAUSE = "pause"
    TEXT = "text"
