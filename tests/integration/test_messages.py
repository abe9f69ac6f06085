"""Headers and files of a message belong to one version of it."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest

from coupons.commands import Recipient, StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.mail import MAX_ENCODED, EmailError, File
from coupons.store import lists, messages, sendouts
from coupons.store.messages import Message
from coupons.templates.rendering import Parts
from tests.factories import add_list, save_message
from tests.locks import until_blocked, without_waiting

LOGO = File("logo.png", "image/png", bytes(range(256)), inline=True)
TERMS = File("Größe & Preis.pdf", "application/pdf", b"%PDF\x00\r\n.\r\n")


async def save(
    connection: Connection, *files: File, headers: dict[str, str] | None = None, html: str = '<img src="cid:logo.png">'
) -> Message:
    return await messages.save(
        connection,
        "hello",
        Parts(subject="Hello", text="Hello", html=html),
        sender="shop@example.org",
        reply_to=None,
        declared=(),
        headers=headers or {},
        files=files,
    )


async def test_files_are_stored_byte_for_byte(connection: Connection) -> None:
    """Files keep their content and types. A listing contains only their names."""
    saved = await save(connection, LOGO, TERMS)
    assert await messages.list_files(connection, saved.id) == [TERMS, LOGO]
    (listed,) = await messages.list_all(connection)
    assert listed == saved
    assert listed.files == ["Größe & Preis.pdf", "logo.png"]


async def test_headers_are_stored_with_the_message(connection: Connection) -> None:
    """A sendout mails the message with these headers."""
    headers = {"X-Campaign": "spring", "X-Shop": "Zoë"}
    await save(connection, html="", headers=headers)
    command = StartSendout(id=uuid4(), message="hello", recipients=(Recipient(email="ada@example.org"),))
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=1)
    assert (await messages.get_for_sendout(connection, command.id)).headers == headers


async def test_each_version_has_its_own_files(connection: Connection) -> None:
    """A sendout keeps the files of the version with which it started."""
    first = await save(connection, LOGO)
    second = await save(connection, TERMS, html="")
    assert await messages.list_files(connection, first.id) == [LOGO]
    assert await messages.list_files(connection, second.id) == [TERMS]
    assert second.version == 2


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "refers to no inline file"),
        ([LOGO, LOGO], "duplicate name"),
        ([LOGO, File("../passwd", "text/plain", b"")], "without folders"),
        ([File("logo.png", "text/html", b"", inline=True)], "only images"),
        ([LOGO, File("big.bin", "application/octet-stream", bytes(MAX_ENCODED))], "exceed the limit"),
    ],
)
async def test_unsuitable_files_are_rejected_when_saved(
    connection: Connection, files: Sequence[File], reason: str
) -> None:
    """The error has the reason, and nothing is saved."""
    with pytest.raises(EmailError, match=reason):
        await save(connection, *files)
    assert await messages.list_all(connection) == []


async def test_reserved_headers_cannot_be_set(connection: Connection) -> None:
    """A header cannot be set by its reserved name or by a line break in another header's value."""
    for headers in {"From": "x@example.org"}, {"X-A": "a\r\nBcc: x@example.org"}:
        with pytest.raises(EmailError, match="header"):
            await save(connection, html="", headers=headers)


async def test_a_message_that_is_saved_twice_at_the_same_moment_has_two_versions(
    connection: Connection, other: Connection
) -> None:
    """The second save waits for the first one. Neither fails, and each creates its own version."""
    async with connection.transaction():
        first = await save(connection, html="one")
        second = asyncio.create_task(save(other, html="two"))
        await until_blocked(connection, second)
    assert ((first.version, first.html), ((await second).version, (await second).html)) == ((1, "one"), (2, "two"))


async def test_messages_with_different_names_do_not_wait_for_each_other(
    connection: Connection, other: Connection
) -> None:
    """Saving a large message delays no other message."""
    async with connection.transaction():
        await save(connection, LOGO)
        await without_waiting(connection, other, save_message(other, "other"))


@pytest.mark.parametrize("named_by", ["no other message", "another message"])
async def test_a_message_is_not_saved_with_a_list_that_is_deleted_at_the_same_moment(
    connection: Connection, other: Connection, named_by: str
) -> None:
    """The save waits for the deletion and is refused, whether the row of the list stays or not."""
    await add_list(connection, "spring-10")
    await add_list(connection, "autumn")
    if named_by == "another message":
        await save_message(connection, "earlier", "spring-10")
    # A list that was not archived when the save began: the deletion locks its row, archives it and deletes it.
    async with connection.transaction():
        await connection.execute("SELECT FROM coupon_list WHERE name = 'spring-10' FOR UPDATE")
        saving = asyncio.create_task(save_message(other, "m", "spring-10", "autumn"))
        await until_blocked(connection, saving)
        await lists.archive(connection, "spring-10")
        await lists.delete(connection, "spring-10")
    with pytest.raises(Conflict, match="deleted at the same moment"):
        await saving
    assert [each.name for each in await messages.list_all(connection)] == ["earlier"] * (named_by == "another message")
