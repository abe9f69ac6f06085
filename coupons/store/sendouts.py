"""The life of a sendout: command, snapshot of its recipients, admission (reserving its codes), pause, cancel, finish.

schema.sql has a diagram of its states.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from coupons.admission import Granted, Need, Short, Unprintable, decide
from coupons.batching import paced_batch
from coupons.commands import ResumeSendout, StartSendout
from coupons.database import Connection, require_transaction
from coupons.errors import Conflict, LeaseLost, SendingBlocked
from coupons.states import SendoutState, Shortage
from coupons.store import groups, lists, messages, needs, restore_guard, sendout_views, waits
from coupons.store.earlier import Earlier, find_earlier, hash_joins
from coupons.store.needs import Snapshot
from coupons.store.queries import Queries
from coupons.store.waits import Obstacle, Unfinished

SQL = Queries("sendouts.sql")
SNAPSHOT_SECONDS = 3_600
"""The time limit of a snapshot, which copies all recipients in one statement. Tens of millions take minutes."""
AFTER_SECONDS = 3_600.0
"""The default of COUPONS_AFTER_SECONDS."""
NO_RECIPIENTS = "its group has no recipients"
ALL_MAILED = "each of its recipients already got the message"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed sendout that is to be prepared. `recipients` is None until its snapshot is taken.

    `group_name` is set if the group did not exist when the sendout was accepted.
    """

    id: UUID
    lease_token: UUID
    group_id: int | None
    group_name: str | None
    recipients: int | None
    skip_already_mailed: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A sendout that has just finished, or whose cancellation is complete."""

    id: UUID
    state: SendoutState
    refused: int
    uncertain: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A resume that waits for imports."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A sendout whose wait has ended, so that it can be prepared."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A sendout that was resumed after its wait."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A start or a resume that did not happen, because an import cannot finish or the resume is no longer possible."""

    reason: str


# --- the command -----------------------------------------------------------------------------------------------------


async def create(
    connection: Connection, command: StartSendout, *, batch_size: int, after_seconds: float = AFTER_SECONDS
) -> None:
    """Store the sendout. If the command contains recipients, they become its deliveries at once.

    The sendout waits for the unfinished imports of `after`, and for those into its group and lists.

    Raises:
        Conflict: for the reasons that `check` lists.
    """
    checked = await check(connection, command)
    with _raising_deleted(command):
        await connection.execute(
            SQL.create, command.id, checked.message.id, checked.group_id, command.start_at, command.per_hour,
            command.over_minutes, command.auto_resume, command.group if checked.group_id is None else None,
            command.first, command.skip_already_mailed,
        )  # fmt: skip
    if command.recipients is not None:
        leave_out = None
        if command.skip_already_mailed:
            leave_out = await find_earlier(connection, checked.message.name, None, given=len(command.recipients))
        snapshot = await needs.snapshot_given(
            connection, command.id, checked.message, command.recipients, leave_out=leave_out
        )
        await _complete_snapshot(connection, command.id, snapshot, batch_size, lease_token=None)
    if checked.imports:
        await waits.begin(connection, command.id, command, checked.imports, after_seconds=after_seconds)


@contextmanager
def _raising_deleted(command: StartSendout) -> Iterator[None]:
    """Raise Conflict if the message or the group was deleted after it was checked. The deletion is waited for."""
    try:
        yield
    except asyncpg.ForeignKeyViolationError as error:
        is_group = error.constraint_name == "sendout_group_id_fkey"
        raise Conflict(
            f"there is no {f'group {command.group}' if is_group else f'message {command.message}'}"
        ) from None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a command refers to. `group_id` is None if recipients were given, or if the group does not exist yet."""

    message: messages.Message
    group_id: int | None
    imports: Unfinished


async def check(connection: Connection, command: StartSendout) -> Checked:
    """Check a command before anything is stored.

    While imports that it waits for may change the group, the group is checked later, when the sendout is prepared.

    Raises:
        Conflict: the message or group does not exist, the message can never be sent, a list is archived or deleted, the
            group is empty, its recipients lack an attribute, or an id in `after` does not belong to an import.
    """
    message = await _with_all_attributes(connection, await messages.get(connection, command.message))
    if message.deleted_lists:
        raise Conflict(f"list {', '.join(message.deleted_lists)} was deleted: save message {message.name} again")
    messages.require_sendable(message)
    lists.check_not_archived(await lists.get(connection, *message.lists), owner=f"message {message.name}: ")
    audience = await groups.find_audience(connection, command.group) if command.group is not None else None
    group_id = audience.id if audience else None
    imports = await waits.find_unfinished(connection, command.after, message_id=message.id, group_id=group_id)
    if command.group is None:
        _check_given(message, command)
    elif not imports.group_changes:
        _check_group(message, command.group, audience)
    return Checked(message, group_id, imports)


class LackingAttributes(Conflict):
    """A recipient of a command lacks attributes that the message needs."""

    def __init__(self, message: str, position: int, attributes: list[str]) -> None:
        super().__init__(f"message {message}: recipient {position} has no {', '.join(attributes)}")
        self.attributes = attributes


async def _with_all_attributes(connection: Connection, message: messages.Message) -> messages.Message:
    """Return the message with the attributes that the alternative texts of its lists print, too."""
    more = await lists.alternative_attributes(connection, message.id)
    return replace(message, attributes=sorted({*message.attributes, *more})) if more else message


def _check_given(message: messages.Message, command: StartSendout) -> None:
    for position, recipient in enumerate(command.recipients or (), start=1):
        if lacking := sorted(set(message.attributes) - recipient.attributes.keys()):
            raise LackingAttributes(message.name, position, lacking)


def _check_group(message: messages.Message, name: str, audience: groups.Audience | None) -> None:
    if audience is None:
        raise Conflict(f"there is no group {name}")
    if not audience.has_recipients:
        raise Conflict(f"group {name} has no recipients")
    if lacking := sorted(set(message.attributes) - set(audience.attributes)):
        raise Conflict(f"message {message.name}: recipients of group {name} have no {', '.join(lacking)}")


# --- preparing -------------------------------------------------------------------------------------------------------


async def claim(connection: Connection, *, owner: str, lease_seconds: float) -> Claim | None:
    """Claim the oldest sendout that is queued or that a dead worker was preparing; return None if there is none."""
    row = await connection.fetchrow(SQL.claim, owner, lease_seconds)
    return Claim(**row) if row else None


async def check_recipients(connection: Connection, claim: Claim) -> None:
    """Check the group before its snapshot. Raises Conflict if it does not exist or recipients lack an attribute."""
    message = await _with_all_attributes(connection, await messages.get_for_sendout(connection, claim.id))
    if claim.group_id is None:
        raise Conflict(f"there is no group {claim.group_name}" if claim.group_name else NO_RECIPIENTS)
    leave_out = await _leave_out(connection, claim, message)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{SNAPSHOT_SECONDS}s'")
        lacking = await _count_lacking(connection, claim, message.attributes, leave_out)
    if lacking:
        raise Conflict(describe_lacking(lacking, message.attributes))


async def _count_lacking(
    connection: Connection, claim: Claim, attributes: Sequence[str], leave_out: Earlier | None
) -> int:
    lacking: int = await connection.fetchval(SQL.lacking, claim.group_id, attributes, timeout=SNAPSHOT_SECONDS)
    if lacking and leave_out:
        async with hash_joins(connection):
            lacking = await connection.fetchval(
                SQL.lacking_unmailed, claim.group_id, attributes, *leave_out.arguments, timeout=SNAPSHOT_SECONDS
            )
    return lacking


def describe_lacking(recipients: int, attributes: Sequence[str]) -> str:
    who = "1 recipient lacks" if recipients == 1 else f"{recipients} recipients lack"
    return f"{who} {'one of ' if len(attributes) > 1 else ''}{', '.join(attributes)}"


async def take_snapshot(connection: Connection, claim: Claim, *, batch_size: int) -> int:
    """Copy the group's recipients into deliveries, in batches; return the number of recipients.

    Raises:
        LeaseLost: nothing was written.
        Conflict: the group no longer has recipients, or the message can no longer be compiled.
    """
    message = await messages.get_for_sendout(connection, claim.id)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{SNAPSHOT_SECONDS}s'")
        leave_out = await _leave_out(connection, claim, message)
        snapshot = await needs.snapshot_group(
            connection, claim.id, message, claim.group_id, leave_out=leave_out, seconds=SNAPSHOT_SECONDS
        )
        await _complete_snapshot(connection, claim.id, snapshot, batch_size, lease_token=claim.lease_token)
        return snapshot.recipients


async def _leave_out(connection: Connection, claim: Claim, message: messages.Message) -> Earlier | None:
    """Return the sendouts whose recipients are left out; None if no recipient is."""
    return await find_earlier(connection, message.name, claim.group_id) if claim.skip_already_mailed else None


async def _complete_snapshot(
    connection: Connection, sendout_id: UUID, snapshot: Snapshot, batch_size: int, *, lease_token: UUID | None
) -> None:
    recipients = snapshot.recipients
    if not recipients:
        raise Conflict(describe_no_recipients(snapshot.already_mailed))
    pace: float | None = await connection.fetchval(SQL.pace, sendout_id, recipients)
    await connection.execute(SQL.batches, sendout_id, recipients, paced_batch(batch_size, pace))
    if await connection.fetchval(SQL.taken, sendout_id, recipients, lease_token, snapshot.already_mailed) is None:
        raise LeaseLost(f"sendout {sendout_id}")


def describe_no_recipients(already_mailed: int) -> str:
    return ALL_MAILED if already_mailed else NO_RECIPIENTS


async def renew(connection: Connection, claim: Claim, *, lease_seconds: float) -> None:
    """Renew the sendout's lease. Raises LeaseLost."""
    if await connection.fetchval(SQL.renew, claim.id, claim.lease_token, lease_seconds) is None:
        raise LeaseLost(f"sendout {claim.id}")


async def fail(connection: Connection, claim: Claim, reason: str) -> None:
    """End a sendout that can never be sent; workers then cancel its deliveries. Raises LeaseLost."""
    if await connection.fetchval(SQL.fail, claim.id, claim.lease_token, reason) is None:
        raise LeaseLost(f"sendout {claim.id}")


# --- admission -------------------------------------------------------------------------------------------------------


async def admit(connection: Connection, claim: Claim) -> Granted | Short:
    """Reserve codes of all lists of the sendout or of none. The sendout is then sending or interrupted.

    Raises:
        LeaseLost: another worker has admitted the sendout, or it was cancelled.
        SendingBlocked: the restore guard does not accept the database.
        Conflict: a list has been deleted.
    """
    async with connection.transaction():
        row = await connection.fetchrow(SQL.lock, claim.id)
        if row is None or row["lease_token"] != claim.lease_token or row["state"] != SendoutState.PREPARING:
            raise LeaseLost(f"sendout {claim.id}")
        if row["recipients"] is None:
            raise LeaseLost(f"sendout {claim.id}: its snapshot was taken in a database that was restored since")
        if refusal := await restore_guard.refusal(connection):
            raise SendingBlocked(f"sendout {claim.id}: {refusal}")
        return await _reserve(connection, claim.id)


async def request_resume(
    connection: Connection, command: ResumeSendout, *, after_seconds: float = AFTER_SECONDS
) -> Granted | Short | Waiting | None:
    """Resume the sendout as `resume` does, or let it wait for imports first. Must run in a transaction.

    An interrupted sendout waits for imports into its group and lists. A paused one has its codes, so it waits only for
    the imports in `after`. An earlier resume command that still waits is replaced.

    Raises:
        Conflict: the sendout is in another state or does not exist, or an id in `after` does not belong to an import.
    """
    require_transaction(connection)
    row = await _lock_resumable(connection, command.sendout)
    is_paused = row["state"] == SendoutState.PAUSED
    imports = await waits.find_unfinished(
        connection,
        command.after,
        message_id=None if is_paused else row["message_id"],
        group_id=None if is_paused else row["group_id"],
    )
    if not imports:
        return await resume(connection, command.sendout)
    await waits.begin(connection, command.sendout, command, imports, after_seconds=after_seconds)
    await connection.execute(SQL.set_not_resumed, command.sendout, None)
    return Waiting()


async def resume(connection: Connection, sendout_id: UUID) -> Granted | Short | None:
    """Admit an interrupted sendout again, or unpause a paused one and return None. Must run in a transaction.

    Raises:
        Conflict: the sendout is in another state or does not exist.
    """
    require_transaction(connection)
    row = await _lock_resumable(connection, sendout_id)
    await waits.remove(connection, sendout_id)
    if row["state"] == SendoutState.INTERRUPTED:
        return await _reserve_again(connection, sendout_id)
    await connection.execute(SQL.unpause, sendout_id)
    return None


async def _lock_resumable(connection: Connection, sendout_id: UUID) -> asyncpg.Record:
    row = await connection.fetchrow(SQL.lock, sendout_id)
    if row is None:
        raise Conflict(f"there is no sendout {sendout_id}")
    if row["state"] not in sendout_views.RESUMED_STATES:
        raise Conflict(sendout_views.not_resumable(sendout_id, SendoutState(row["state"])))
    return row


async def end_wait(connection: Connection, sendout_id: UUID) -> Queued | Resumed | Short | Rejected | None:
    """Continue the sendout if each import that it waits for has ended; return None if it still waits or does not wait.

    If an import of `after` cannot finish, a queued sendout fails. An interrupted or paused sendout stays as it is, and
    only its resume is rejected, because it may have sent mails and can be resumed later (docs/decisions/0014).
    """
    async with connection.transaction():
        row = await connection.fetchrow(SQL.lock, sendout_id)
        wait = await waits.find(connection, sendout_id)
        if row is None or wait is None or not wait.has_ended:
            return None
        is_resume = row["state"] in sendout_views.RESUMED_STATES
        if (obstacle := wait.obstacle) and is_resume:
            return await _reject_resume(connection, sendout_id, obstacle.problem)
        if obstacle:
            return await _fail_waiting(connection, sendout_id, obstacle)
        if is_resume:
            return await _resume_after_wait(connection, sendout_id)
        await waits.remove(connection, sendout_id)
        return Queued()


async def _fail_waiting(connection: Connection, sendout_id: UUID, obstacle: Obstacle) -> Rejected:
    """Fail a queued sendout. If the import has not arrived, the command is rejected as well."""
    await connection.execute(SQL.fail, sendout_id, None, obstacle.problem)
    if obstacle.is_late:
        await waits.reject(connection, sendout_id, obstacle.problem)
    else:
        await waits.remove(connection, sendout_id)
    return Rejected(obstacle.problem)


async def _resume_after_wait(connection: Connection, sendout_id: UUID) -> Resumed | Short | Rejected:
    try:
        async with connection.transaction():
            decision = await resume(connection, sendout_id)
    except Conflict as conflict:  # a list was deleted in the meantime
        return await _reject_resume(connection, sendout_id, str(conflict))
    return decision if isinstance(decision, Short) else Resumed()


async def _reject_resume(connection: Connection, sendout_id: UUID, reason: str) -> Rejected:
    await waits.reject(connection, sendout_id, reason)
    await connection.execute(SQL.set_not_resumed, sendout_id, reason)
    return Rejected(reason)


async def auto_resume(connection: Connection) -> list[UUID]:
    """Resume the interrupted sendouts that have auto-resume and whose lists now have enough codes; return their ids.

    The oldest sendout is first. Each one is resumed in a separate transaction and gets codes of all its lists or of
    none. A resumable sendout does not wait for an older one that still lacks codes, because one large sendout would
    hold back all others. If the earlier ones leave too few codes for a sendout, it stays interrupted, with new numbers
    of missing codes.
    """
    resumable = [each.id for each in await sendout_views.list_auto_resumable(connection)]
    return [sendout_id for sendout_id in resumable if await _resume_interrupted(connection, sendout_id)]


async def _resume_interrupted(connection: Connection, sendout_id: UUID) -> bool:
    """Resume the sendout and return True. Return False if it lacks codes, was cancelled or was already resumed."""
    try:
        async with connection.transaction():
            row = await connection.fetchrow(SQL.lock, sendout_id)
            if row is None or row["state"] != SendoutState.INTERRUPTED:
                return False
            if await waits.exists(connection, sendout_id):  # a resume was requested in the meantime
                return False
            return isinstance(await _reserve_again(connection, sendout_id), Granted)
    except Conflict:  # a list was deleted in the meantime
        return False


async def _reserve_again(connection: Connection, sendout_id: UUID) -> Granted | Short:
    if refusal := await restore_guard.refusal(connection):
        raise Conflict(refusal)
    return await _reserve(connection, sendout_id)


async def _reserve(connection: Connection, sendout_id: UUID) -> Granted | Short:
    rows = await connection.fetch(SQL.lock_lists, sendout_id)
    lists.check_usable(rows)
    needs = [
        Need(row["list_id"], row["name"], Shortage(row["shortage"]), row["needed"], row["available"]) for row in rows
    ]
    decision = decide(needs)
    unprintable = await _list_unprintable(connection, sendout_id, rows) if isinstance(decision, Granted) else ()
    if unprintable:
        decision = Short(unprintable)
    match decision:
        case Short():
            lacking = {each.list_id: each.recipients for each in unprintable}
            await connection.execute(SQL.note_missing, sendout_id, list(lacking), list(lacking.values()))
            await connection.execute(SQL.interrupt, sendout_id, str(decision))
        case Granted(amounts):
            await lists.take(connection, amounts)
            await connection.execute(SQL.reserve, sendout_id, list(amounts), list(amounts.values()))
            await connection.execute(SQL.begin, sendout_id)
    return decision


async def _list_unprintable(
    connection: Connection, sendout_id: UUID, rows: Sequence[asyncpg.Record]
) -> tuple[Unprintable, ...]:
    """Return the locked lists whose alternative text a recipient of the sendout cannot get.

    The text may have changed since the recipients were checked. The mails get the text of now, also when they are
    retried later.
    """
    found = []
    for row in rows:
        names = lists.required_by(row["alternative_text"]) if row["shortage"] == Shortage.TEXT else ()
        if names and (count := await _count_without(connection, sendout_id, row["list_id"], names)):
            found.append(Unprintable(row["list_id"], row["name"], names, count))
    return tuple(found)


async def _count_without(connection: Connection, sendout_id: UUID, list_id: int, names: Sequence[str]) -> int:
    await connection.execute(f"SET LOCAL statement_timeout = '{SNAPSHOT_SECONDS}s'")
    count: int = await connection.fetchval(
        SQL.lacking_alternative, sendout_id, list_id, names, timeout=SNAPSHOT_SECONDS
    )
    return count


# --- pause, cancel, finish -------------------------------------------------------------------------------------------


async def pause(connection: Connection, sendout_id: UUID, reason: str) -> None:
    """Stop sending; mails in flight still get their outcomes. Raises Conflict unless the sendout is sending."""
    if not await pause_if_sending(connection, sendout_id, reason):
        state = (await sendout_views.get(connection, sendout_id)).state
        raise Conflict(f"sendout {sendout_id} is {state}: only a sending or scheduled sendout can be paused")


async def pause_after_first(connection: Connection, sendout_id: UUID | None = None) -> list[UUID]:
    """Pause the sendout, or each sendout, whose first part was mailed and whose rest is held; return the paused ones.

    Deferred, refused and uncertain mails were tried, so the first part does not wait for them (docs/decisions/0018).
    """
    return [row["id"] for row in await connection.fetch(SQL.pause_after_first, sendout_id)]


async def pause_if_sending(connection: Connection, sendout_id: UUID, reason: str) -> bool:
    return await connection.fetchval(SQL.pause, sendout_id, reason) is not None


async def cancel(connection: Connection, sendout_id: UUID) -> None:
    """Cancel the sendout: no more mails are sent, and codes of unsent mails return to their lists.

    Raises Conflict if the sendout has ended, or if the restore guard blocks sending.
    """
    async with connection.transaction():
        sendout = await connection.fetchrow(SQL.lock, sendout_id)
        if sendout and sendout["recipients"] and (refusal := await restore_guard.refusal(connection)):
            raise Conflict(f"its codes may have been sent since the backup, so pause it instead; {refusal}")
        if await connection.fetchval(SQL.cancel, sendout_id) is None:
            state = (await sendout_views.get(connection, sendout_id)).state
            raise Conflict(f"sendout {sendout_id} is {state} already")
        await waits.remove(connection, sendout_id)
        await connection.fetch(SQL.lock_lists, sendout_id)
        await connection.execute(SQL.release_reserved, sendout_id)


async def count_returning_codes(connection: Connection, sendout_id: UUID) -> dict[str, int]:
    """Return how many codes of each list return to it if the sendout is cancelled now. Mails in flight keep theirs."""
    rows = await connection.fetch(SQL.returning_codes, sendout_id)
    return {row["name"]: row["codes"] for row in rows}


async def settle(connection: Connection, sendout_id: UUID) -> Ended | None:
    """Finish a sendout and release its reserved codes. Return None if one of its batches is still open."""
    async with connection.transaction():
        await connection.fetchrow(SQL.lock, sendout_id)  # waits for a concurrent resend or retry of its mails
        if await connection.fetchval(SQL.done, sendout_id) is None:
            return None
        await connection.fetch(SQL.lock_lists, sendout_id)
        await connection.execute(SQL.release_reserved, sendout_id)
        row = await connection.fetchrow(SQL.finish, sendout_id)
        return Ended(**{**row, "state": SendoutState(row["state"])}) if row else None


async def settle_all(connection: Connection) -> list[Ended]:
    """Finish every sendout whose worker died after closing its last batch."""
    unfinished = [row["id"] for row in await connection.fetch(SQL.unfinished)]
    return [ended for sendout_id in unfinished if (ended := await settle(connection, sendout_id))]


async def set_waiting_reason(connection: Connection, sendout_id: UUID, reason: str | None) -> None:
    """Store why a sending sendout makes no progress, or None once it makes progress again."""
    await connection.execute(SQL.set_waiting_reason, sendout_id, reason)


async def set_waiting_reason_of_all(connection: Connection, reason: str) -> None:
    """Store why no mail is sent now, in every sendout that could send now."""
    await connection.execute(SQL.set_waiting_reason_of_all, reason)
