"""The start times and paces of sendouts, and their changes while a sendout is scheduled or paused."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict, UserError
from coupons.schedule import Reschedule
from coupons.states import SendoutState
from coupons.store import sendouts
from coupons.store.queries import Queries

SQL = Queries("schedules.sql")
LATE_START = timedelta(minutes=5)
"""How far in the past a requested start may be: the time to send a form, and clocks that differ."""
RESCHEDULED_STATES = (SendoutState.SCHEDULED, SendoutState.PAUSED)
_LATER = "wait until it is prepared"
_ENDED = "start another one with `coupons send`"
_REMEDIES = {
    SendoutState.QUEUED: _LATER,
    SendoutState.PREPARING: _LATER,
    SendoutState.INTERRUPTED: "import the missing codes and resume it first",
    SendoutState.SENDING: "pause it first (coupons pause)",
    SendoutState.FINISHED: _ENDED,
    SendoutState.CANCELLED: _ENDED,
    SendoutState.FAILED: _ENDED,
}
"""What to do before a sendout in this state can be rescheduled."""
_START_NOW = "use --now (in JSON: now: true; in the console: Start now)"


class PastStart(UserError):
    """The requested start is too far in the past."""


@dataclass(frozen=True, slots=True)
class _Locked:
    """A sendout that is locked until the transaction ends. `remaining` mails are neither sent nor given up."""

    state: SendoutState
    remaining: int


async def check_start(
    connection: Connection, start_at: datetime | None, *, remedy: str = "use --now (in JSON: no start_at)"
) -> None:
    """Refuse a start that is too far in the past by the database's clock. Raises PastStart.

    Only publishers check this, before they publish. A worker accepts any start, because a command may have waited in
    its queue until its start was past.
    """
    if start_at is not None and await connection.fetchval(SQL.is_past, start_at, LATE_START):
        raise PastStart(
            f"the start {start_at.isoformat(timespec='minutes')} is more than {LATE_START // timedelta(minutes=1)} "
            f"minutes in the past: to start now, {remedy}"
        )


async def reschedule(connection: Connection, sendout_id: UUID, change: Reschedule) -> None:
    """Change the start or the pace of a scheduled or paused sendout.

    A start now also resumes a paused sendout; otherwise it stays paused. A worker that claimed a batch before the
    change hands over no more of its mails (docs/decisions/0017).

    Raises:
        PastStart: the start is too far in the past.
        Conflict: the sendout is in another state or does not exist.
    """
    async with connection.transaction():
        await check_start(connection, change.start_at, remedy=_START_NOW)
        locked = await _lock(connection, sendout_id)
        if change.start_at or change.now:
            await connection.execute(SQL.set_start, sendout_id, change.start_at)
        if change.changes_pace:
            per_hour = change.pace(locked.remaining)
            await connection.execute(SQL.set_pace, sendout_id, per_hour, change.over_minutes)
        if change.now and locked.state == SendoutState.PAUSED:
            await sendouts.resume(connection, sendout_id)


async def _lock(connection: Connection, sendout_id: UUID) -> _Locked:
    await connection.execute(SQL.lock, sendout_id)
    row = await connection.fetchrow(SQL.locked, sendout_id)
    if row is None:
        raise Conflict(f"there is no sendout {sendout_id}")
    state = SendoutState(row["state"])
    if state not in RESCHEDULED_STATES:
        raise Conflict(
            f"sendout {sendout_id} is {state}: only a scheduled or paused sendout can be rescheduled; "
            f"{_REMEDIES[state]}"
        )
    return _Locked(state, row["remaining"])
