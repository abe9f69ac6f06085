"""Sendouts as the Outbox page shows them, with the numbers of their deliveries and codes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.paging import PAGE_SIZE, UnknownCursor
from coupons.sendout_speed import Pending, Sample, Speed, estimate, measure
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
SPEED_COLUMNS = (
    *("times", "outcomes", "first_outcomes", "last_at", "last_outcomes", "last_first_outcomes", "progressed_at"),
    *("resumed_at", "now", "next_batch_in", "pending", "unclaimed", "unclaimed_batches"),
    *("batch_seconds", "claimed_seconds"),
)
"""The columns that give the rate and the time left (coupons/sendout_speed.py)."""
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
    archived: bool
    """If True, the list must be restored before codes are imported."""
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
    deferred: int
    """Of the remaining mails, those that wait for another attempt."""
    next_attempt_at: datetime | None
    """When the first deferred mail is due; None if the sendout is not sending or no mail is deferred."""
    per_second: float | None
    """Mails per second: the rate limit if the workers keep it, else outcomes per second; None if it is unknown."""
    seconds_left: float | None
    """The time until each mail that is not deferred has an outcome; None if it is unknown."""
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
            **_without_speed({**row, "state": SendoutState(row["state"])}),
            resumable=row["state"] == SendoutState.INTERRUPTED and row["id"] in resumable,
            wait=wait_of.get(row["id"]),
            lists=tuple(of_sendout[row["id"]]),
        )
        for row in rows
    ]


def _without_speed(columns: dict[str, Any]) -> dict[str, Any]:
    """Replace SPEED_COLUMNS by the rate and the time left."""
    given = {name: columns.pop(name) for name in SPEED_COLUMNS}
    speed = _speed(columns, given) if columns["state"] == SendoutState.SENDING else Speed()
    return {**columns, "per_second": speed.per_second, "seconds_left": speed.seconds_left}


def _speed(columns: dict[str, Any], given: dict[str, Any]) -> Speed:
    pending = Pending(
        mails=given["pending"] or 0,
        unclaimed=given["unclaimed"] or 0,
        unclaimed_batches=given["unclaimed_batches"] or 0,
        claimed_batches=columns["leased_batches"],
        next_batch_in=given["next_batch_in"],
        batch_seconds=given["batch_seconds"],
        claimed_seconds=given["claimed_seconds"] or 0,
        deferred=columns["deferred"],
        deferred_share=min(columns["deferred"] / (given["last_first_outcomes"] or 1), 1),
    )
    times, outcomes, first = given["times"] or (), given["outcomes"] or (), given["first_outcomes"] or ()
    samples = [Sample(*each) for each in zip(times, outcomes, first, strict=True)]
    rate = None
    if samples and given["progressed_at"]:
        last = Sample(given["last_at"], given["last_outcomes"], given["last_first_outcomes"])
        since = max(filter(None, (columns["started_at"], given["resumed_at"])), default=samples[0].at)
        rate = measure(samples, last, since=since, now=given["now"], progressed_at=given["progressed_at"])
    return estimate(pending, rate, columns["per_hour"])
