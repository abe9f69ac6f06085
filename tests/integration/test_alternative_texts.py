"""Alternative texts of lists print attributes: they are checked when they are saved, and recipients need them."""

from collections.abc import Sequence

import pytest

from coupons.admission import Short
from coupons.commands import Recipient, StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import Shortage
from coupons.store import lists, messages, sendout_views, sendouts
from coupons.templates.alternative import AlternativeText
from coupons.templates.rendering import RenderError
from tests.factories import add_list, add_recipients, prepare, resume, save_message, start

NAMED = "Sorry, {{ last_name }}"
OPTIONAL = 'Sorry, {{ last_name | default("friend") }}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sorry, {{ Last Name }}", "alternative text, line 1: expected token .*; write {{ last_name }}"),
        ("{% for x in y %}{% endfor %}", '"for" is not supported'),
        ('{{ coupon("b") }}', r"cannot use coupon\(…\)"),
        ('{% if has_coupon("b") %}x{% endif %}', r"cannot use coupon\(…\)"),
        ("{{ 1 + 'a' }}", "not supported|always fails"),
        ("Sorry {#", "end of comment"),
        ("x" * 501, "501 characters"),
        ("Sorry {{ nope }}", "list (old|new): alternative text: undefined name nope; recipients have email"),
    ],
)
async def test_an_alternative_text_is_checked_when_it_is_saved(connection: Connection, text: str, reason: str) -> None:
    """A new list and a changed one are refused with the line and the reason. Nothing is stored."""
    with pytest.raises(Conflict, match=reason):
        await add_list(connection, "new", shortage=Shortage.TEXT, alternative_text=text)
    await add_list(connection, "old", shortage=Shortage.TEXT, alternative_text=OPTIONAL)
    with pytest.raises(Conflict, match=reason):
        await change_text(connection, "old", text)
    assert [each.alternative_text for each in await lists.list_all(connection, archived=True)] == [OPTIONAL]


async def test_an_alternative_text_prints_attributes_of_groups_or_declared_ones(connection: Connection) -> None:
    """An attribute that no group has is refused with the known ones, unless it is declared, as for a message."""
    await add_recipients(connection, "g", [("ada@example.org", {"city": "Rome"})])
    with pytest.raises(Conflict, match=r"undefined name City; recipients have .*; instead of City write city"):
        await add_list(connection, "a", shortage=Shortage.TEXT, alternative_text="Sorry, {{ City }}")
    await add_list(connection, "a", shortage=Shortage.TEXT, alternative_text="Sorry, {{ city }} {{ email }}")
    new = "Sorry, {{ soon }}"
    with pytest.raises(Conflict, match=r"undefined name soon; recipients have city, email$"):
        await change_text(connection, "a", new)
    await change_text(connection, "a", new, declared=["soon"])
    await save_message(connection, "m", "a")
    message = await messages.get(connection, "m")
    assert await messages.list_alternative_attributes(connection, message) == ["soon"]
    assert "soon" not in message.attributes


async def change_text(connection: Connection, name: str, text: str, declared: Sequence[str] = ()) -> None:
    await lists.change(
        connection, name, description=None, shortage=None, alternative_text=text, preview_text=None, declared=declared
    )


async def test_recipients_need_the_attributes_of_an_alternative_text(connection: Connection) -> None:
    """A sendout to a group or to recipients without them is refused; one of whom some lack them fails when prepared."""
    await add_list(connection, "a", 5, shortage=Shortage.TEXT, alternative_text=NAMED, declared=["last_name"])
    await save_message(connection, "m", "a")
    await add_recipients(connection, "none", [("ada@example.org", {"first_name": "Ada"})])
    with pytest.raises(Conflict, match="message m: recipients of group none have no last_name"):
        await start(connection, "m", "none")
    given = (Recipient(email="ada@example.org", attributes={"first_name": "Ada"}),)
    async with connection.transaction():
        with pytest.raises(Conflict, match="message m: recipient 1 has no last_name"):
            await sendouts.create(connection, StartSendout(message="m", recipients=given), batch_size=10)
    full = {"first_name": "Ada", "last_name": "Lovelace"}
    await add_recipients(connection, "some", [("ada@example.org", full), ("bob@example.org", {"first_name": "Bob"})])
    await start(connection, "m", "some")
    claim = await sendouts.claim(connection, owner="test", lease_seconds=60)
    assert claim
    with pytest.raises(Conflict, match="1 recipient lacks one of first_name, last_name"):
        await sendouts.check_recipients(connection, claim)
    await sendouts.fail(connection, claim, "x")
    await lists.change(
        connection, "a", description=None, shortage=Shortage.PAUSE, alternative_text=None, preview_text=None
    )
    await start(connection, "m", "none")
    await prepare(connection)


async def test_a_changed_text_needs_the_attributes_of_the_recipients(connection: Connection) -> None:
    """A sendout stays interrupted while the new text prints what its recipients lack; another text ends this."""
    await add_list(connection, "a", 1)
    await save_message(connection, "m", "a")
    await add_recipients(connection, "g", [(f"{name}@example.org", {"first_name": name}) for name in ("ada", "bob")])
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Short)
    await connection.execute("UPDATE sendout SET auto_resume = true")
    await use_text(connection, NAMED)
    assert (await sendout_views.get(connection, sendout_id)).resumable
    assert await sendouts.auto_resume(connection) == []
    found = await sendout_views.get(connection, sendout_id)
    lacks = "list a: 2 recipients lack an attribute that the alternative text prints (last_name): change the text"
    assert (found.state, found.reason, found.resumable, found.ended) == ("interrupted", lacks, False, True)
    assert str(await resume(connection, sendout_id)) == lacks
    await use_text(connection, OPTIONAL)
    assert (await sendout_views.get(connection, sendout_id)).resumable
    assert await sendouts.auto_resume(connection) == [sendout_id]
    assert await connection.fetchval("SELECT (reserved, missing, lacking) = (1, 1, 0) FROM sendout_list")


async def test_only_mails_that_need_the_list_need_the_attributes_of_its_text(connection: Connection) -> None:
    """A mail without a coupon of the list prints no alternative text."""
    await add_list(connection, "a", 1)
    await save_message(connection, "m", "a")
    await add_recipients(connection, "g", [(f"{name}@example.org", {"first_name": name}) for name in ("ada", "bob")])
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    await connection.execute("UPDATE delivery SET lists = '{}' WHERE number = 1")
    await connection.execute("UPDATE sendout_list SET needed = 1, missing = 0")
    await use_text(connection, NAMED)
    assert "1 recipient lacks" in str(await resume(connection, sendout_id))


async def use_text(connection: Connection, text: str) -> None:
    await lists.change(
        connection,
        "a",
        description=None,
        shortage=Shortage.TEXT,
        alternative_text=text,
        preview_text=None,
        declared=["last_name"],
    )


def test_an_alternative_text_is_rendered_for_each_recipient() -> None:
    """Values are not escaped here, because the message's HTML part does it. A missing one is named without a value."""
    text = AlternativeText("Sorry, {{ last_name }}{% if vip is defined %} ({{ vip }}){% endif %} & co.")
    assert text.required == {"last_name"}
    assert text.render({"last_name": "O'Neil <x>", "other": "y"}) == "Sorry, O'Neil <x> & co."
    assert text.render({"last_name": "A", "vip": "gold"}) == "Sorry, A (gold) & co."
    with pytest.raises(RenderError, match="the recipient lacks last_name, which the alternative text prints"):
        text.render({"vip": "gold"})
    assert AlternativeText(OPTIONAL).render({}) == "Sorry, friend"


def test_a_text_from_before_is_printed_as_it_is() -> None:
    """A stored text that is not a template, such as one with a brace, is no reason to fail."""
    assert AlternativeText("Ask for {% discount").render({"a": "b"}) == "Ask for {% discount"
    assert AlternativeText("plain").render({}) == "plain"
