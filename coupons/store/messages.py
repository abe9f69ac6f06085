"""Messages. A version never changes: saving a message creates its next version."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.mail import File, compile_email
from coupons.store import groups, lists
from coupons.store.groups import OWN_ATTRIBUTES
from coupons.store.lists import CouponList
from coupons.store.queries import Queries
from coupons.templates.hints import foreign_placeholders
from coupons.templates.rendering import Parts, Template, TemplateError, check_sendable

SQL = Queries("messages.sql")


@dataclass(frozen=True, slots=True)
class Message:
    """A version of a message.

    `headers` are additional headers of its mails. `files` contains names; `list_files` returns the content.
    `deleted_lists` are those of `lists` that were deleted after the version was saved. With a deleted list, the message
    cannot be sent until it is saved again, even if there is a new list with the same name.
    """

    id: int
    name: str
    version: int
    sender: str
    reply_to: str | None
    subject: str
    text: str | None
    html: str | None
    attributes: list[str]
    headers: dict[str, str]
    created_at: datetime
    lists: list[str]
    deleted_lists: list[str]
    files: list[str]

    @property
    def parts(self) -> Parts:
        return Parts(subject=self.subject, text=self.text, html=self.html)

    @property
    def warnings(self) -> list[str]:
        """What is probably a mistake: placeholders of other systems, which are mailed as they are."""
        return foreign_placeholders(self.parts.by_name())


async def save(
    connection: Connection,
    name: str,
    parts: Parts,
    *,
    sender: str,
    reply_to: str | None,
    declared: Collection[str],
    headers: Mapping[str, str] = {},
    files: Sequence[File] = (),
) -> Message:
    """Save a message's next version.

    `declared` are attributes that no group has yet, but that recipients will have.

    Raises:
        TemplateError: a part does not compile, or can never be sent.
        AddressError: sender or reply_to is not a mailbox.
        EmailError: a header or a file is not allowed.
        Conflict: the message refers to a list that does not exist or is archived, or to an unknown attribute.
    """
    template = Template(parts)
    check_sendable(template.parts)
    compile_email(template=template, sender=sender, reply_to=reply_to, headers=headers, files=files)
    names = template.names
    async with connection.transaction():
        await connection.execute(SQL.lock_name, name)
        found = await lists.get(connection, *names.lists)
        lists.check_not_archived(found, owner=f"message {name}: ")
        await groups.check_known(connection, f"message {name}", names.required, declared=declared)
        row = await connection.fetchrow(
            SQL.save,
            name,
            sender,
            reply_to,
            parts.subject,
            parts.text,
            parts.html,
            sorted(names.required - OWN_ATTRIBUTES),
            dict(headers),
        )
        assert row is not None  # noqa: S101 - an INSERT of an aggregate always has a row
        await _name_lists(connection, name, row["id"], found)
        rows = [(row["id"], each.name, each.content_type, each.inline, each.content) for each in files]
        await connection.executemany(SQL.add_file, rows)
        return await get(connection, name)


async def _name_lists(connection: Connection, name: str, message_id: int, found: Sequence[CouponList]) -> None:
    """Store the lists of a version. Raises Conflict if one was deleted since it was read: a deletion is waited for."""
    ids = [each.id for each in found]
    try:
        await connection.execute(SQL.name_lists, message_id, ids)
    except asyncpg.ForeignKeyViolationError:
        raise Conflict(f"message {name}: a list was deleted at the same moment; please retry") from None
    if deleted := await connection.fetchval(SQL.first_deleted, message_id):
        raise Conflict(f"message {name}: list {deleted} was deleted at the same moment; please retry")


def require_sendable(message: Message) -> None:
    """Raise Conflict if a version, which an earlier program may have saved, can never be sent."""
    try:
        check_sendable(message.parts)
    except TemplateError as error:
        raise Conflict(f"message {message.name}: {error.problems[0]}; save the message again") from error


async def list_all(connection: Connection) -> list[Message]:
    return [Message(**row) for row in await connection.fetch(SQL.rows, None, None)]


async def get(connection: Connection, name: str) -> Message:
    """The newest version of a message. Raises Conflict if the message does not exist."""
    row = await connection.fetchrow(SQL.rows, [name], None)
    if row is None:
        raise Conflict(f"there is no message {name}")
    return Message(**row)


async def list_alternative_attributes(connection: Connection, message: Message) -> list[str]:
    """The attributes that recipients need for the alternative texts of the message's lists, besides its own."""
    of_lists = await lists.alternative_attributes(connection, message.id)
    return sorted(of_lists - OWN_ATTRIBUTES - {*message.attributes})


async def get_for_sendout(connection: Connection, sendout_id: UUID) -> Message:
    row = await connection.fetchrow(SQL.rows, None, sendout_id)
    if row is None:
        raise Conflict(f"there is no sendout {sendout_id}")
    return Message(**row)


async def list_files(connection: Connection, message_id: int) -> list[File]:
    """The attachments and inline images of a message's version, sorted by name, with their bytes."""
    return [File(**row) for row in await connection.fetch(SQL.files, message_id)]


async def delete(connection: Connection, name: str) -> int:
    """Delete a message, and return the number of its versions.

    Versions that sendouts have mailed stay in the database, for the outbox and for retries, but cannot be sent again.

    Raises Conflict if the message does not exist, or an unfinished sendout needs it.
    """
    async with connection.transaction():
        await connection.execute(SQL.lock_name, name)
        versions = [row["id"] for row in await connection.fetch(SQL.lock_versions, name)]
        if not versions:
            raise Conflict(f"there is no message {name}")
        if sendout := await connection.fetchval(SQL.user, versions):
            raise Conflict(f"message {name} is needed by sendout {sendout}, which is not finished")
        mailed = [row["message_id"] for row in await connection.fetch(SQL.mailed, versions)]
        unused = sorted(set(versions) - set(mailed))
        await connection.execute(SQL.delete_files, unused)
        await connection.execute(SQL.delete_lists, unused)
        await connection.execute(SQL.delete, unused)
        await connection.execute(SQL.bury, mailed)
        return len(versions)
