"""The commands that workers have received. Their ids make them idempotent: a repeated command changes nothing."""

from uuid import UUID

from coupons.commands import Command
from coupons.database import Connection, require_transaction
from coupons.errors import Conflict
from coupons.store.queries import Queries

SQL = Queries("inbox.sql")


async def accept(connection: Connection, command: Command) -> bool:
    """Store the command and return whether it is new. Must run in the transaction that carries out the command.

    If two workers received the same command, the second worker waits here until the first one commits.

    Raises:
        Conflict: for the reasons that `is_repeated` lists.
    """
    require_transaction(connection)
    is_new = await connection.fetchval(SQL.accept, command.id, command.type, command.digest()) is not None
    return is_new or not await is_repeated(connection, command)


async def is_repeated(connection: Connection, command: Command, *variants: Command) -> bool:
    """Return whether this command, or a variant of it with the same id, was accepted before.

    Raises:
        Conflict: the id belongs to a command with other content, or this command was rejected before.
    """
    known = await connection.fetchrow(SQL.known, command.id)
    if known is None:
        return False
    if (known["type"], known["digest"]) not in [(each.type, each.digest()) for each in (command, *variants)]:
        raise Conflict(f"id {command.id} belongs to another command")
    if known["rejection_reason"]:
        raise Conflict(known["rejection_reason"])
    return True


async def reject(connection: Connection, command: Command, reason: str) -> None:
    """Store why the command is rejected. A waiting client sees the reason, and a repeated command is rejected too."""
    await connection.execute(SQL.reject, command.id, command.type, command.digest(), reason)


async def is_known(connection: Connection, command_id: UUID) -> bool:
    """Return whether a worker has received the command with this id. Raises Conflict if it was rejected."""
    known = await connection.fetchrow(SQL.known, command_id)
    if known and known["rejection_reason"]:
        raise Conflict(known["rejection_reason"])
    return known is not None
