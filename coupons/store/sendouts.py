"""The life of a sendout: command, snapshot of its recipients, admission (reserving its codes), pause, cancel, finish.

schema.sql has a diagram of its states.
"""

import json
from dataclasses import dataclass
from uuid import UUID

from coupons.addresses import parse_address
from coupons.admission import Granted, Need, Short, decide
from coupons.batching import paced_batch
from coupons.commands import StartSendout
from coupons.database import Connection, affected, require_transaction
from coupons.errors import Conflict, LeaseLost, SendingBlocked
from coupons.states import SendoutState, Shortage
from coupons.store import groups, lists, messages, restore_guard, sendout_views
from coupons.store.queries import Queries

SQL = Queries("sendouts.sql")
SNAPSHOT_SECONDS = 3_600
"""The time limit of a snapshot, which copies all recipients in one statement. Tens of millions take minutes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed sendout that is to be prepared. `recipients` is None until its snapshot is taken."""

    id: UUID
    lease_token: UUID
    group_id: int | None
    recipients: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A sendout that has just finished, or whose cancellation is complete."""

    id: UUID
    state: SendoutState
    refused: int
    uncertain: int


# --- the command -----------------------------------------------------------------------------------------------------


async def create(connection: Connection, command: StartSendout, *, batch_size: int) -> None:
    """Store the sendout. If the command contains recipients, they become its deliveries at once.

    Raises:
        Conflict: for the reasons that `check` lists.
    """
    message, group = await check(connection, command)
    await connection.execute(
        SQL.create, command.id, message.id, group, command.start_at, command.per_hour, command.over_minutes,
        command.auto_resume,
    )  # fmt: skip
    if command.recipients is not None:
        addresses = [parse_address(each.email) for each in command.recipients]
        attributes = [json.dumps(each.attributes) for each in command.recipients]
        status = await connection.execute(
            SQL.snapshot_given, command.id, [a.key for a in addresses], [a.address for a in addresses], attributes
        )
        await _complete_snapshot(connection, command.id, affected(status), batch_size, lease_token=None)


async def check(connection: Connection, command: StartSendout) -> tuple[messages.Message, int | None]:
    """Check a command before anything is stored; return the message and the group's id.

    Raises:
        Conflict: the message or group does not exist, a list is archived or deleted, the group is empty, or its
            recipients lack an attribute.
    """
    message = await messages.get(connection, command.message)
    if message.deleted_lists:
        raise Conflict(f"list {', '.join(message.deleted_lists)} was deleted: save message {message.name} again")
    if archived := [each.name for each in await lists.get(connection, *message.lists) if each.archived_at]:
        raise Conflict(f"message {message.name}: list {', '.join(archived)} is archived")
    if command.group is None:
        _check_given(message, command)
        return message, None
    return message, await _check_group(connection, message, command.group)


def _check_given(message: messages.Message, command: StartSendout) -> None:
    for position, recipient in enumerate(command.recipients or (), start=1):
        if lacking := sorted(set(message.attributes) - recipient.attributes.keys()):
            raise Conflict(f"message {message.name}: recipient {position} has no {', '.join(lacking)}")


async def _check_group(connection: Connection, message: messages.Message, name: str) -> int:
    audience = await groups.get_audience(connection, name)
    if not audience.has_recipients:
        raise Conflict(f"group {name} has no recipients")
    if lacking := sorted(set(message.attributes) - set(audience.attributes)):
        raise Conflict(f"message {message.name}: recipients of group {name} have no {', '.join(lacking)}")
    return audience.id


# --- preparing -------------------------------------------------------------------------------------------------------


async def claim(connection: Connection, *, owner: str, lease_seconds: float) -> Claim | None:
    """Claim the oldest sendout that is queued or that a dead worker was preparing; return None if there is none."""
    row = await connection.fetchrow(SQL.claim, owner, lease_seconds)
    return Claim(**row) if row else None


async def count_lacking(connection: Connection, group_id: int, attributes: list[str]) -> int:
    """Return how many recipients of the group lack one of these attributes."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{SNAPSHOT_SECONDS}s'")
        count: int = await connection.fetchval(SQL.lacking, group_id, attributes, timeout=SNAPSHOT_SECONDS)
        return count


async def take_snapshot(connection: Connection, claim: Claim, *, batch_size: int) -> int:
    """Copy the group's recipients into deliveries, in batches; return the number of recipients.

    Raises:
        LeaseLost: nothing was written.
        Conflict: the group no longer has recipients.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{SNAPSHOT_SECONDS}s'")
        status = await connection.execute(SQL.snapshot_group, claim.id, claim.group_id, timeout=SNAPSHOT_SECONDS)
        recipients = affected(status)
        if not recipients:
            raise Conflict("its group has no recipients")
        await _complete_snapshot(connection, claim.id, recipients, batch_size, lease_token=claim.lease_token)
        return recipients


async def _complete_snapshot(
    connection: Connection, sendout_id: UUID, recipients: int, batch_size: int, *, lease_token: UUID | None
) -> None:
    pace: float | None = await connection.fetchval(SQL.pace, sendout_id, recipients)
    await connection.execute(SQL.batches, sendout_id, recipients, paced_batch(batch_size, pace))
    await connection.execute(SQL.needs, sendout_id, recipients)
    if await connection.fetchval(SQL.taken, sendout_id, recipients, lease_token) is None:
        raise LeaseLost(f"sendout {sendout_id}")


async def renew(connection: Connection, claim: Claim, *, lease_seconds: float) -> None:
    """Renew the sendout's lease. Raises LeaseLost."""
    if await connection.fetchval(SQL.renew, claim.id, claim.lease_token, lease_seconds) is None:
        raise LeaseLost(f"sendout {claim.id}")


async def fail(connection: Connection, claim: Claim, reason: str) -> None:
    """End a sendout that can never be sent. Raises LeaseLost."""
    if await connection.fetchval(SQL.fail, claim.id, claim.lease_token, reason) is None:
        raise LeaseLost(f"sendout {claim.id}")


# --- admission -------------------------------------------------------------------------------------------------------


async def admit(connection: Connection, claim: Claim) -> Granted | Short:
    """Reserve codes of all lists of the sendout or of none. The sendout is then sending or interrupted.

    Raises:
        LeaseLost: another worker has admitted the sendout, or it was cancelled.
        SendingBlocked: the restore guard does not accept the database.
        Conflict: a list has been archived or deleted.
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


async def resume(connection: Connection, sendout_id: UUID) -> Granted | Short | None:
    """Admit an interrupted sendout again, or unpause a paused one and return None. Must run in a transaction.

    Raises:
        Conflict: the sendout is in another state or does not exist.
    """
    require_transaction(connection)
    row = await connection.fetchrow(SQL.lock, sendout_id)
    state = SendoutState(row["state"]) if row else None
    match state:
        case SendoutState.INTERRUPTED:
            return await _reserve_again(connection, sendout_id)
        case SendoutState.PAUSED:
            await connection.execute(SQL.unpause, sendout_id)
            return None
        case None:
            raise Conflict(f"there is no sendout {sendout_id}")
        case _:
            raise Conflict(sendout_views.not_resumable(sendout_id, state))


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
            return isinstance(await _reserve_again(connection, sendout_id), Granted)
    except Conflict:  # a list was archived in the meantime
        return False


async def _reserve_again(connection: Connection, sendout_id: UUID) -> Granted | Short:
    if refusal := await restore_guard.refusal(connection):
        raise Conflict(refusal)
    return await _reserve(connection, sendout_id)


async def _reserve(connection: Connection, sendout_id: UUID) -> Granted | Short:
    rows = await connection.fetch(SQL.lock_lists, sendout_id)
    if unusable := [row for row in rows if row["archived_at"]]:
        words = (f"list {row['name']} is {'deleted' if row['deleted_at'] else 'archived'}" for row in unusable)
        raise Conflict("; ".join(words))
    needs = [
        Need(row["list_id"], row["name"], Shortage(row["shortage"]), row["needed"], row["available"]) for row in rows
    ]
    decision = decide(needs)
    match decision:
        case Short():
            await connection.execute(SQL.note_missing, sendout_id)
            await connection.execute(SQL.interrupt, sendout_id, str(decision))
        case Granted(amounts):
            await connection.execute(SQL.take, list(amounts), list(amounts.values()))
            await connection.execute(SQL.reserve, sendout_id, list(amounts), list(amounts.values()))
            await connection.execute(SQL.begin, sendout_id)
    return decision


# --- pause, cancel, finish -------------------------------------------------------------------------------------------


async def pause(connection: Connection, sendout_id: UUID, reason: str) -> None:
    """Stop sending; mails in flight still get their outcomes. Raises Conflict unless the sendout is sending."""
    if not await pause_if_sending(connection, sendout_id, reason):
        state = (await sendout_views.get(connection, sendout_id)).state
        raise Conflict(f"sendout {sendout_id} is {state}: only a sending sendout can be paused")


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
        await connection.fetch(SQL.lock_lists, sendout_id)
        await connection.execute(SQL.release_reserved, sendout_id)


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
