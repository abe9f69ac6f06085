"""The imports that each start and resume must wait for, as the model sees them (O10).

The model reads them before it delivers a command. It does not read the rows in which the workers keep their waits.
"""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from coupons.commands import ResumeSendout, StartSendout
from coupons.database import Connection
from tests.faults.model_messages import Message

UNFINISHED = """
SELECT j.id FROM import_job j
LEFT JOIN coupon_list l ON l.id = j.list_id
LEFT JOIN recipient_group g ON g.id = j.group_id
WHERE j.finished_at IS NULL AND (l.name = ANY ($1::text[]) OR g.name = $2)
"""
SENDOUT = """
SELECT s.state, m.name AS message, g.name AS group_name
FROM sendout s JOIN message m ON m.id = s.message_id LEFT JOIN recipient_group g ON g.id = s.group_id
WHERE s.id = $1
"""
ACCEPTED = "SELECT id FROM command WHERE id = ANY ($1::uuid[]) AND rejection_reason IS NULL ORDER BY received_at DESC"
STATE = "SELECT state FROM sendout WHERE id = $1"
NOT_ENDED = "SELECT id FROM import_job WHERE id = ANY ($1::uuid[]) AND finished_at IS NULL"
FINISHED = "SELECT id FROM import_job WHERE id = ANY ($1::uuid[]) AND state = 'finished'"
STOPPED = frozenset({"failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Expectation:
    """Before the command has an effect, each import in `after` must be finished and each in `accepted` have ended."""

    command: UUID
    states: frozenset[str]
    """The states in which the sendout may be until then."""
    after: frozenset[UUID]
    accepted: frozenset[UUID]

    async def list_unmet(self, connection: Connection) -> list[str]:
        running = await connection.fetch(NOT_ENDED, self.accepted)
        finished = {row["id"] for row in await connection.fetch(FINISHED, self.after)}
        unmet = [f"import {row['id']}, which was accepted earlier, has not ended" for row in running]
        return unmet + [f"import {each} of `after` is not finished" for each in sorted(self.after - finished)]


class Order:
    """The expectations that are not met yet, for each sendout."""

    def __init__(self) -> None:
        self._expected: dict[UUID, list[Expectation]] = {}

    async def expect(self, connection: Connection, command: StartSendout | ResumeSendout, *, at_once: bool) -> None:
        """Note what a command must wait for that is delivered now. A redelivery changes nothing.

        If the command may be committed later than `at_once`, its sendout may be paused then; a paused sendout has its
        codes and waits only for `after`.
        """
        sendout = command.id if isinstance(command, StartSendout) else command.sendout
        states = {"queued"} if isinstance(command, StartSendout) else {"interrupted", "paused"}
        known = self._expected.setdefault(sendout, [])
        if command.id in {each.command for each in known}:
            return
        accepted = await _accepted_before(connection, command) if at_once else set()
        known.append(Expectation(command.id, STOPPED | states, frozenset(command.after), frozenset(accepted)))

    async def list_violations(self, connection: Connection) -> list[str]:
        """Describe each command that had an effect too early."""
        found = []
        for sendout in [*self._expected]:
            latest = await self._latest(connection, sendout)
            unmet = await latest.list_unmet(connection) if latest else []
            state = await connection.fetchval(STATE, sendout)
            if latest and state not in latest.states:
                found += [f"O10: sendout {sendout} is {state}, but {each}" for each in unmet]
            if latest and not unmet:
                del self._expected[sendout]
        return found

    async def _latest(self, connection: Connection, sendout: UUID) -> Expectation | None:
        """The expectation of the command that was accepted last; a resume replaces one that still waits."""
        by_command = {each.command: each for each in self._expected[sendout]}
        rows = await connection.fetch(ACCEPTED, [*by_command])
        return by_command[rows[0]["id"]] if rows else None


async def _accepted_before(connection: Connection, command: StartSendout | ResumeSendout) -> set[UUID]:
    """The unfinished imports into the lists and the group that the command is about."""
    if isinstance(command, StartSendout):
        return await _unfinished(connection, Message.named(command.message).lists, command.group)
    row = await connection.fetchrow(SENDOUT, command.sendout)
    if row is None or row["state"] != "interrupted":
        return set()
    return await _unfinished(connection, Message.named(row["message"]).lists, row["group_name"])


async def _unfinished(connection: Connection, lists: Collection[str], group: str | None) -> set[UUID]:
    return {row["id"] for row in await connection.fetch(UNFINISHED, lists, group)}
