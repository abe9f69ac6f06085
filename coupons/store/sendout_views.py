"""Sendouts as the Outbox page shows them, with the numbers of their deliveries and codes."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.paging import PAGE_SIZE, UnknownCursor
from coupons.states import STALLED, STOPPED_STATES, DeliveryState, SendoutState, Shortage, StateFilter
from coupons.store import waits
from coupons.store.heartbeats import STALLED_SECONDS, describe_stall
from coupons.store.queries import Queries
from coupons.store.waits import Wait

SQL = Queries("sendout_views.sql")
_UNFINISHED = "unfinished"
_ALL = 1_000_000
RESUMED_STATES = (SendoutState.INTERRUPTED, SendoutState.PAUSED)
"""The states in which a sendout can be resumed."""
RETRIED_STATES = (SendoutState.SCHEDULED, SendoutState.SENDING, SendoutState.PAUSED, SendoutState.FINISHED)
"""The states in which refused and deferred mails of a sendout can be retried."""


@dataclass(frozen=True, slots=True)
class SendoutList:
    """A sendout's codes of one list.

    Each code is reserved, assigned or sent. The list has `available` more codes now.
    """

    name: str
    deleted: bool
    """If True, an existing list with the same name is a different list."""
    shortage: Shortage
    needed: int
    reserved: int
    assigned: int
    sent: int
    missing: int
    available: int


@dataclass(frozen=True, slots=True)
class Problem:
    number: int
    address: str
    state: DeliveryState
    attempts: int
    reply: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Sendout:
    id: UUID
    message: str
    message_version: int
    group: str | None
    state: SendoutState
    reason: str | None
    waiting_reason: str | None
    is_waiting: bool
    """The sendout waits for imports before it is prepared or resumed."""
    wait: Wait | None
    """The imports that it waits for. None if all have ended, until a worker notices it."""
    not_resumed: str | None
    """Why the last requested resume was rejected while it waited for imports."""
    recipients: int | None
    created_at: datetime
    start_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    per_hour: float | None
    auto_resume: bool
    first: int | None
    """The number of recipients that are mailed before the sendout pauses."""
    rest_held: bool
    """The other recipients are not mailed before a resume."""
    is_first_mailed: bool
    """The sendout is paused because these recipients were mailed; a resume mails the others."""
    skip_already_mailed: bool
    already_mailed: int
    """Recipients that were left out because they got the message in another sendout."""
    needed_role: str | None
    """The worker role that the next step needs; None if it needs no worker now."""
    stalled: bool
    """Nothing has moved for a lease, and no worker with the needed role shows life."""
    resumable: bool
    """The sendout is interrupted, and its lists now have enough codes.

    Only the worker that resumes it decides finally.
    """
    remaining: int
    in_flight: int
    """Mails that are handed over and have no outcome yet."""
    leased_batches: int
    """If this is 0, no more mails of a paused sendout can be handed over."""
    sent: int
    refused: int
    uncertain: int
    cancelled: int
    per_second: float | None
    """Mails per second that got an outcome, averaged over the last minute; None if no mail was sent in it."""
    lists: tuple[SendoutList, ...]

    @property
    def ended(self) -> bool:
        """Whether the state can change only if an operator acts."""
        resumes = self.is_waiting or (self.resumable and self.auto_resume)
        return self.finished_at is not None or (self.state in RESUMED_STATES and not resumes)

    @property
    def may_send(self) -> bool:
        """Whether mails may still be sent. False although a cancelled or failed sendout still cancels deliveries."""
        return self.finished_at is None and self.state not in STOPPED_STATES

    @property
    def has_problems(self) -> bool:
        """Whether the sendout has finished, and some of its mails were refused or are uncertain."""
        return self.state == SendoutState.FINISHED and self.refused + self.uncertain > 0

    @property
    def retryable(self) -> bool:
        """Whether its refused and deferred mails can be retried."""
        return self.state in RETRIED_STATES

    @property
    def stall(self) -> str | None:
        """Why the sendout is stalled and what to do, as text."""
        return describe_stall(self.needed_role) if self.stalled and self.needed_role else None

    @property
    def waiting(self) -> str | None:
        """The imports that the sendout waits for, as text."""
        if not self.is_waiting:
            return None
        waiting = str(self.wait) if self.wait else "waiting for a worker"
        return f"resume requested, {waiting}" if self.state in RESUMED_STATES else waiting

    @property
    def handed_over(self) -> int:
        """The number of mails that the relay has accepted or may have accepted, or that are in flight."""
        return self.sent + self.uncertain + self.in_flight

    @property
    def seconds_left(self) -> float | None:
        return self.remaining / self.per_second if self.per_second else None


@dataclass(frozen=True, slots=True)
class Resumable:
    """An interrupted sendout whose lists now have enough codes."""

    id: UUID
    message: str
    auto_resume: bool


def check_resumable(sendout: Sendout) -> None:
    """Raise Conflict if `sendouts.resume` would reject the sendout because of its state."""
    if sendout.state not in RESUMED_STATES:
        raise Conflict(not_resumable(sendout.id, sendout.state))


def not_resumable(sendout_id: UUID, state: SendoutState) -> str:
    refusal = f"sendout {sendout_id} is {state}: only an interrupted or paused sendout can be resumed"
    return f"{refusal}; start it with `coupons reschedule --now`" if state == SendoutState.SCHEDULED else refusal


async def list_newest(
    connection: Connection, *, state: StateFilter | None = None, limit: int = PAGE_SIZE, before: UUID | None = None
) -> list[Sendout]:
    """Return the newest sendouts, optionally only those in one state, stalled ones, or older ones than another sendout.

    Raises UnknownCursor if that sendout does not exist.
    """
    created_at = await connection.fetchval(SQL.created_at, before) if before else None
    if before and created_at is None:
        raise UnknownCursor(f"before: there is no sendout {before}")
    if state == STALLED:  # only unfinished ones are looked at: a filter in the query would add up the batches of all
        unfinished = await _rows(connection, None, _UNFINISHED, _ALL, before=(created_at, before))
        return [each for each in unfinished if each.stalled][:limit]
    return await _rows(connection, None, state, limit, before=(created_at, before))


async def get(connection: Connection, sendout_id: UUID) -> Sendout:
    """Return the sendout with this id. Raises Conflict if it does not exist."""
    found = await find(connection, sendout_id)
    if found is None:
        raise Conflict(f"there is no sendout {sendout_id}")
    return found


async def find(connection: Connection, sendout_id: UUID) -> Sendout | None:
    return next(iter(await _rows(connection, sendout_id, None, 1)), None)


async def list_resumable(connection: Connection, list_name: str) -> list[Resumable]:
    """Return the interrupted sendouts that need this list and could be resumed now, oldest first.

    Each sendout is checked alone. Resuming one of them may leave too few codes for the next.
    """
    return [Resumable(**row) for row in await connection.fetch(SQL.resumable, list_name, False, None)]


async def list_auto_resumable(connection: Connection) -> list[Resumable]:
    """Return the interrupted sendouts that have auto-resume and could be resumed now, oldest first."""
    return [Resumable(**row) for row in await connection.fetch(SQL.resumable, None, True, None)]


async def list_problems(
    connection: Connection, sendout_id: UUID, *, limit: int = PAGE_SIZE, after: int = 0
) -> list[Problem]:
    """Return the first refused, uncertain and deferred deliveries after this number, with the relay's replies."""
    rows = await connection.fetch(SQL.problems, sendout_id, limit, after)
    return [Problem(**{**row, "state": DeliveryState(row["state"])}) for row in rows]


async def _rows(
    connection: Connection,
    sendout_id: UUID | None,
    state: str | None,
    limit: int,
    *,
    before: tuple[datetime | None, UUID | None] = (None, None),
) -> list[Sendout]:
    # Before the states: a sendout that resumes between the two statements must not look interrupted and short of codes.
    resumable = {row["id"] for row in await connection.fetch(SQL.resumable, None, False, sendout_id)}
    rows = await connection.fetch(SQL.rows, sendout_id, state, limit, STALLED_SECONDS, *before)
    of_sendout: dict[UUID, list[SendoutList]] = {row["id"]: [] for row in rows}
    wait_of = await waits.list_for(connection, [row["id"] for row in rows if row["is_waiting"]])
    for row in await connection.fetch(SQL.list_rows, list(of_sendout)):
        columns = {**row, "shortage": Shortage(row["shortage"])}
        of_sendout[columns.pop("sendout_id")].append(SendoutList(**columns))
    return [
        Sendout(
            **{**row, "state": SendoutState(row["state"])},
            resumable=row["state"] == SendoutState.INTERRUPTED and row["id"] in resumable,
            wait=wait_of.get(row["id"]),
            lists=tuple(of_sendout[row["id"]]),
        )
        for row in rows
    ]
