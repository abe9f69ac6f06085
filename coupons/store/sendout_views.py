"""The Outbox: sendouts as people look at them, with their deliveries and lists in numbers."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.store.lists import Shortage
from coupons.store.queries import Queries

SQL = Queries("sendout_views.sql")
PROBLEMS_SHOWN = 100
RESUMABLE = ("interrupted", "paused")


@dataclass(frozen=True, slots=True)
class SendoutList:
    """`available` is what the list has now; the rest is the sendout's own."""

    name: str
    deleted: bool
    """Another list of that name is not this one."""
    shortage: Shortage
    needed: int
    promised: int
    bound: int
    sent: int
    missing: int
    available: int


@dataclass(frozen=True, slots=True)
class Problem:
    number: int
    address: str
    state: str
    attempts: int
    reply: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Sendout:
    id: UUID
    message: str
    message_version: int
    group: str | None
    state: str
    reason: str | None
    waiting: str | None
    recipients: int | None
    created_at: datetime
    start_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    per_hour: float | None
    auto_resume: bool
    covered: bool
    """It is interrupted, and its lists have enough codes now. The worker that resumes it decides; this only advises."""
    open: int
    in_flight: int
    """Mails that are just being handed over: they have no outcome yet."""
    held: int
    """Batches that workers hold; with none, nothing more can be handed over of a sendout that is paused."""
    sent: int
    refused: int
    uncertain: int
    cancelled: int
    per_second: float | None
    """Mails with an outcome, over the last minute; None while nothing is sent."""
    lists: tuple[SendoutList, ...]

    @property
    def ended(self) -> bool:
        """Whether it stays as it is unless a person does something."""
        resumes = self.covered and self.auto_resume
        return self.finished_at is not None or (self.state in RESUMABLE and not resumes)

    @property
    def handed_over(self) -> int:
        """How many mails the relay has taken, may have taken, or is just being given."""
        return self.sent + self.uncertain + self.in_flight

    @property
    def seconds_left(self) -> float | None:
        return self.open / self.per_second if self.per_second else None


@dataclass(frozen=True, slots=True)
class Covered:
    """An interrupted sendout whose lists have enough codes now."""

    id: UUID
    message: str
    auto_resume: bool


def check_resumable(sendout: Sendout) -> None:
    """Raises Conflict as `resume` does."""
    if sendout.state not in RESUMABLE:
        raise Conflict(not_resumable(sendout.id, sendout.state))


def not_resumable(sendout_id: UUID, state: str) -> str:
    return f"sendout {sendout_id} is {state}: only interrupted or paused ones are resumed"


async def newest(connection: Connection, *, state: str | None = None, limit: int = 100) -> list[Sendout]:
    """The newest sendouts, optionally of one state."""
    return await _rows(connection, None, state, limit)


async def named(connection: Connection, sendout_id: UUID) -> Sendout:
    """Raises Conflict if there is none."""
    found = await find(connection, sendout_id)
    if found is None:
        raise Conflict(f"there is no sendout {sendout_id}")
    return found


async def find(connection: Connection, sendout_id: UUID) -> Sendout | None:
    return next(iter(await _rows(connection, sendout_id, None, 1)), None)


async def covered_by(connection: Connection, list_name: str) -> list[Covered]:
    """Interrupted sendouts that need this list and could be resumed now, oldest first.

    Each by itself: what one of them takes, the next may miss.
    """
    return [Covered(**row) for row in await connection.fetch(SQL.covered, list_name, False)]


async def resuming(connection: Connection) -> list[Covered]:
    """Interrupted sendouts that are to resume by themselves, and could now, oldest first."""
    return [Covered(**row) for row in await connection.fetch(SQL.covered, None, True)]


async def problems(connection: Connection, sendout_id: UUID) -> list[Problem]:
    """The first deliveries that are refused, uncertain or deferred, with the relay's words."""
    return [Problem(**row) for row in await connection.fetch(SQL.problems, sendout_id, PROBLEMS_SHOWN)]


async def _rows(connection: Connection, sendout_id: UUID | None, state: str | None, limit: int) -> list[Sendout]:
    rows = await connection.fetch(SQL.rows, sendout_id, state, limit)
    of_sendout: dict[UUID, list[SendoutList]] = {row["id"]: [] for row in rows}
    for row in await connection.fetch(SQL.list_rows, list(of_sendout)):
        columns = dict(row)
        of_sendout[columns.pop("sendout_id")].append(SendoutList(**columns))
    return [Sendout(**row, lists=tuple(of_sendout[row["id"]])) for row in rows]
