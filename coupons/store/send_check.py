"""What a sendout would do, computed without writing: `send --check`, the question before `send`, and the API.

All figures come from one snapshot: a read-only transaction with REPEATABLE READ. PostgreSQL itself then refuses every
write, so no row, sequence, row lock or temporary table is used, and no WAL is written. The needs are evaluated by the
same code as when a sendout is prepared (coupons/store/needs.py), from a stream of COPY, so memory does not grow with
the audience.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from coupons.addresses import Address
from coupons.admission import Need, Short, decide
from coupons.batching import paced_seconds
from coupons.commands import Recipient, StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import SendoutState, Shortage
from coupons.store import lists, needs, restore_guard, schedules, sendouts, waits
from coupons.store.earlier import NEVER, Earlier, find_earlier, find_holding, hash_joins
from coupons.store.messages import Message
from coupons.store.queries import Queries
from coupons.store.sendouts import Checked
from coupons.store.waits import AwaitedImport

SQL = Queries("send_check.sql")
CHECK_SECONDS = 600
"""The time limit of each statement of a check. A million recipients take 2 seconds if the message is sent for
the first time, and 5 to 12 if it had a sendout to all of them."""
WARNING_SECONDS = 10
"""The time limit for counting the recipients of a warning, which must not hold up a sendout."""


@dataclass(frozen=True, slots=True)
class Lacked:
    """An attribute that the message needs, and how many recipients lack it."""

    name: str
    recipients: int


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom the sendout mails. Several spellings of an address are one recipient."""

    group: str | None
    recipients: int
    lacking: int
    """Recipients who lack an attribute that the message needs: with one of them, the sendout fails."""
    lacked: tuple[Lacked, ...]
    """The attributes that they lack. A recipient who lacks two is counted for both."""
    with_empty: int
    """Recipients with an empty value of such an attribute: their mails print nothing in its place."""
    already_mailed: int
    """Recipients who got the message in another sendout. They are left out with `skip_already_mailed`."""
    left_out: int
    code_holders: int
    """Recipients who hold a code of the message's lists, from any sendout."""


@dataclass(frozen=True, slots=True)
class NeededList:
    """The codes of one list that the sendout needs, that the list has, and that are missing."""

    name: str
    shortage: Shortage
    needed: int
    available: int
    missing: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """When mails are sent. Without a pace, the end depends on the relay and is None. With `first`, it is a pause."""

    starts_at: datetime
    per_hour: float | None
    ends_at: datetime | None
    first: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state that the sendout gets: sending, scheduled, interrupted or failed, for this reason.

    While it waits for imports, it stays queued.
    """

    state: SendoutState
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SendCheck:
    """The figures of a sendout as they are now."""

    message: str
    message_version: int
    sender: str
    audience: Audience
    lists: tuple[NeededList, ...]
    schedule: Schedule
    imports: tuple[AwaitedImport, ...]
    """Unfinished imports: the sendout waits for them, and they may change the figures."""
    blocked: str | None
    """Why workers send no mail now."""
    outcome: Outcome


async def check_command(connection: Connection, command: StartSendout) -> Checked:
    """Check a command before it is published, as a publisher. Raises Conflict, PastStart."""
    await schedules.check_start(connection, command.start_at)
    checked = await sendouts.check(connection, command)
    await waits.check_after(connection, command.after)
    return checked


@dataclass(frozen=True, slots=True)
class _Plan:
    """A command, what it refers to, and its recipients by address key unless it mails a group."""

    command: StartSendout
    checked: Checked
    earlier: Earlier
    given: Mapping[str, tuple[Address, Recipient]]

    @property
    def message(self) -> Message:
        return self.checked.message

    @property
    def leave_out(self) -> Earlier | None:
        """The sendouts whose recipients are left out."""
        return self.earlier if self.command.skip_already_mailed else None


async def check_sendout(connection: Connection, command: StartSendout) -> SendCheck:
    """Return what the sendout would do. Raises Conflict, PastStart for a command that would be rejected."""
    async with _reading(connection):
        checked = await check_command(connection, command)
        given = needs.unique_recipients(command.recipients or ())
        earlier = await find_earlier(connection, checked.message.name, checked.group_id, given=len(given))
        plan = _Plan(command, checked, earlier, given)
        audience = await _count_audience(connection, plan)
        needed, failure = await _count_needs(connection, plan, audience)
        per_list = await _list_needs(connection, plan.message, needed)
        return SendCheck(
            message=plan.message.name,
            message_version=plan.message.version,
            sender=plan.message.sender,
            audience=audience,
            lists=tuple(NeededList(e.name, e.shortage, e.needed, e.available, e.missing) for e in per_list),
            schedule=(schedule := await _schedule(connection, command, audience.recipients)),
            imports=await waits.describe(connection, checked.imports),
            blocked=await restore_guard.refusal(connection),
            outcome=_outcome(plan, audience, per_list, schedule, failure),
        )


async def count_already_mailed(
    connection: Connection, command: StartSendout, checked: Checked, *, seconds: float = WARNING_SECONDS
) -> int | None:
    """Return how many recipients got the message in another sendout; None if counting them takes too long.

    Without an earlier sendout, nothing is read.
    """
    given = list(needs.unique_recipients(command.recipients or ()))
    earlier = await find_earlier(connection, checked.message.name, checked.group_id, given=len(given))
    if not earlier:
        return 0
    with suppress(asyncpg.QueryCanceledError):
        async with _reading(connection, seconds), hash_joins(connection):
            mailed: int = await connection.fetchval(
                SQL.count_mailed, checked.group_id, given, *earlier.arguments, timeout=CHECK_SECONDS
            )
            return mailed
    return None


@asynccontextmanager
async def _reading(connection: Connection, seconds: float = CHECK_SECONDS) -> AsyncIterator[None]:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"SET LOCAL statement_timeout = {round(seconds * 1000)}")
        yield


async def _count_audience(connection: Connection, plan: _Plan) -> Audience:
    holding = await find_holding(connection, plan.message.id, plan.checked.group_id, given=len(plan.given))
    list_ids = [each.id for each in await lists.get(connection, *plan.message.lists)]
    async with hash_joins(connection):
        row = await connection.fetchrow(
            SQL.count,
            plan.checked.group_id,
            list(plan.given),
            [json.dumps(recipient.attributes) for _, recipient in plan.given.values()],
            plan.message.attributes,
            *plan.earlier.arguments,
            plan.command.skip_already_mailed,
            list_ids,
            holding.probed,
            holding.hashed,
            timeout=CHECK_SECONDS,
        )
    assert row is not None  # noqa: S101 - an aggregate always has a row
    left_out = row["already_mailed"] if plan.command.skip_already_mailed else 0
    lacked = await _list_lacked(connection, plan) if row["lacking"] else ()
    return Audience(group=plan.command.group, left_out=left_out, lacked=lacked, **row)


async def _list_lacked(connection: Connection, plan: _Plan) -> tuple[Lacked, ...]:
    """Return the attributes that recipients of the group lack. A command whose recipients lack one is rejected."""
    leave_out = (plan.leave_out or NEVER).arguments
    async with hash_joins(connection):
        rows = await connection.fetch(
            SQL.lacked, plan.checked.group_id, plan.message.attributes, *leave_out, timeout=CHECK_SECONDS
        )
    return tuple(Lacked(**row) for row in rows)


async def _count_needs(connection: Connection, plan: _Plan, audience: Audience) -> tuple[Mapping[int, int], str | None]:
    """Return how many recipients need each list. If the sendout would fail for its needs, return the reason, too."""
    try:
        if plan.command.recipients is None:
            return await needs.count_of_group(
                connection, plan.message, plan.checked.group_id, audience.recipients, plan.leave_out,
                seconds=CHECK_SECONDS,
            ), None  # fmt: skip
        mailed = await needs.list_mailed(connection, list(plan.given), plan.leave_out)
        mails = [each for key, each in plan.given.items() if key not in mailed]
        return await needs.count_of_given(connection, plan.message, mails), None
    except Conflict as conflict:
        return {}, str(conflict)


async def _list_needs(connection: Connection, message: Message, needed: Mapping[int, int]) -> list[Need]:
    """Return the needs in the order in which an admission locks the lists."""
    found = sorted(await lists.get(connection, *message.lists), key=lambda each: each.id)
    return [Need(each.id, each.name, each.shortage, needed.get(each.id, 0), each.available) for each in found]


async def _schedule(connection: Connection, command: StartSendout, recipients: int) -> Schedule:
    starts_at: datetime = await connection.fetchval(SQL.starts_at, command.start_at)
    per_hour = command.per_hour or (recipients * 60 / command.over_minutes if command.over_minutes else None)
    first = command.first if command.first and command.first < recipients else None
    ends_at = starts_at + timedelta(seconds=paced_seconds(first or recipients, per_hour)) if per_hour else None
    return Schedule(starts_at, per_hour, ends_at, first)


def _outcome(plan: _Plan, audience: Audience, per_list: list[Need], schedule: Schedule, failure: str | None) -> Outcome:
    """Return what preparing decides, for the same reasons and in the same order."""
    if plan.checked.imports:
        return Outcome(SendoutState.QUEUED, "it waits for imports, which may change these numbers")
    if audience.lacking:
        return Outcome(SendoutState.FAILED, sendouts.describe_lacking(audience.lacking, plan.message.attributes))
    if failure:
        return Outcome(SendoutState.FAILED, failure)
    if not audience.recipients:
        return Outcome(SendoutState.FAILED, sendouts.describe_no_recipients(audience.left_out))
    decision = decide(per_list)
    if isinstance(decision, Short):
        return Outcome(SendoutState.INTERRUPTED, str(decision))
    is_later = schedule.starts_at == plan.command.start_at
    return Outcome(SendoutState.SCHEDULED if is_later else SendoutState.SENDING)
