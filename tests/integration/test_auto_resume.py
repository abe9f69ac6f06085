"""Interrupted sendouts whose lists now have enough codes are shown as resumable, and resumed with auto-resume."""

import asyncio
import hashlib
import json
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import pytest

from coupons.admission import Granted, Short
from coupons.commands import StartSendout
from coupons.database import Connection, connect
from coupons.states import Shortage
from coupons.store import lists, sendout_views, sendouts
from producers.web.templating import page
from producers.web.workers_view import Workers
from tests.factories import add_codes, add_group, add_list, prepare, save_message
from tests.locks import lock_rows, until_blocked


async def start_interrupted(connection: Connection, *of_lists: str, resumes: bool = True) -> UUID:
    """Start a sendout to ten recipients that lacks codes of these lists."""
    return await start_sendout(connection, *of_lists, resumes=resumes, as_decided=Short)


async def start_sendout(
    connection: Connection, *of_lists: str, resumes: bool = True, as_decided: type[Granted | Short] = Granted
) -> UUID:
    message = "-".join(of_lists)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM message WHERE name = $1)", message):
        await save_message(connection, message, *of_lists)
    command = StartSendout(id=uuid4(), message=message, group="g", auto_resume=resumes)
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=1_000)
    assert isinstance(await prepare(connection), as_decided)
    return command.id


async def add_stock(connection: Connection, *, shortage: Shortage = Shortage.PAUSE, **codes: int) -> None:
    for name, amount in codes.items():
        await add_list(connection, name, amount, shortage=shortage)
    await add_group(connection, "g", 10)


async def add_more(connection: Connection, name: str, amount: int) -> None:
    await add_codes(connection, name, [f"{uuid4()}" for _ in range(amount)])


async def state_of(connection: Connection, sendout_id: UUID) -> str:
    return (await sendout_views.get(connection, sendout_id)).state


async def row_versions(connection: Connection) -> list[object]:
    """Return the row versions of sendouts and lists, which change with each write."""
    query = """SELECT xmin::text FROM sendout UNION ALL SELECT xmin::text FROM sendout_list
               UNION ALL SELECT xmin::text FROM coupon_list"""
    return [row["xmin"] for row in await connection.fetch(query)]


# --- resumable ---


async def test_a_sendout_is_resumable_when_every_list_has_enough(connection: Connection) -> None:
    """A sendout is not resumable if one of two lists is short, even by a single code."""
    await add_stock(connection, a=5, b=5)
    sendout_id = await start_interrupted(connection, "a", "b")
    await add_more(connection, "a", 5)
    await add_more(connection, "b", 4)
    assert not (await sendout_views.get(connection, sendout_id)).resumable
    assert await sendout_views.list_resumable(connection, "a") == []
    await add_more(connection, "b", 1)
    found = await sendout_views.get(connection, sendout_id)
    assert found.resumable
    assert found.auto_resume
    assert not found.ended


async def test_an_import_reports_resumable_sendouts(connection: Connection) -> None:
    """The report has the sendouts that need this list, the oldest first, with those that an operator must resume."""
    await add_stock(connection, a=0, b=0)
    await add_more(connection, "b", 9)
    by_hand, by_itself = (
        await start_interrupted(connection, "a", resumes=False),
        await start_interrupted(connection, "a"),
    )
    await start_interrupted(connection, "b")
    await start_interrupted(connection, "a", "b")
    await add_more(connection, "a", 10)
    covered = await sendout_views.list_resumable(connection, "a")
    assert [(each.id, each.message, each.auto_resume) for each in covered] == [
        (by_hand, "a", False),
        (by_itself, "a", True),
    ]
    assert await sendout_views.list_resumable(connection, "b") == []
    assert (await sendout_views.get(connection, by_hand)).ended


async def test_a_list_that_no_longer_pauses_makes_sendouts_resumable(connection: Connection) -> None:
    """The list's present shortage setting decides, as it does when a sendout is resumed."""
    await add_stock(connection, a=3)
    sendout_id = await start_interrupted(connection, "a")
    await lists.change(
        connection, "a", description=None, shortage=Shortage.TEXT, alternative_text="Sorry.", preview_text=None
    )
    assert (await sendout_views.get(connection, sendout_id)).resumable
    assert await sendouts.auto_resume(connection) == [sendout_id]


async def test_only_an_interrupted_sendout_is_resumable(connection: Connection) -> None:
    """A sending sendout and a cancelled one are not resumable."""
    await add_stock(connection, a=30)
    sending = await start_sendout(connection, "a")
    cancelled = await start_sendout(connection, "a")
    await sendouts.cancel(connection, cancelled)
    assert [each.resumable for each in await sendout_views.list_newest(connection)] == [False, False]
    assert await sendouts.auto_resume(connection) == []
    assert await state_of(connection, sending) == "sending"


class ResumesAfter:
    """Answers queries, and resumes sendouts on another connection after a number of them."""

    def __init__(self, connection: Connection, other: Connection, queries: int) -> None:
        self._connection = connection
        self._other = other
        self._left = queries

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        rows = await self._connection.fetch(query, *arguments)
        self._left -= 1
        if self._left == 0:
            assert await sendouts.auto_resume(self._other)
        return rows


@pytest.mark.parametrize("queries", [1, 2])
async def test_a_sendout_that_is_just_being_resumed_has_not_ended(
    connection: Connection, other: Connection, queries: int
) -> None:
    """Its state and whether it is resumable are read in two queries; a follower must not stop between them."""
    await add_stock(connection, a=0)
    sendout_id = await start_interrupted(connection, "a")
    await add_more(connection, "a", 10)
    found = await sendout_views.get(cast("Connection", ResumesAfter(connection, other, queries)), sendout_id)
    assert not found.ended
    assert found.resumable == (found.state == "interrupted")


async def test_the_console_shows_resumable_sendouts(connection: Connection) -> None:
    """The console shows next to the button whether an operator has to resume the sendout."""
    await add_stock(connection, a=0)
    await start_interrupted(connection, "a", resumes=False)
    assert "Import the missing codes, then resume the sendout." in await outbox_text(connection)
    await add_more(connection, "a", 10)
    shown = await outbox_text(connection)
    assert "resumable</span>" in shown
    assert "the sendout can be resumed." in shown
    await connection.execute("UPDATE sendout SET auto_resume = true")
    assert "the sendout will resume automatically in a moment." in await outbox_text(connection)


async def outbox_text(connection: Connection) -> str:
    """Return the text of the Outbox, with single blanks between words."""
    found = await sendout_views.list_newest(connection)
    shown = page(
        "outbox.html", live=False, refusal=None, sendouts=found, chosen=None, states=[], workers=Workers([], [], [])
    )
    return " ".join(bytes(shown.body).decode().split())


# --- auto-resume ---


async def test_only_sendouts_with_auto_resume_are_resumed(connection: Connection) -> None:
    """Sendouts without auto-resume wait for an operator, however old they are."""
    await add_stock(connection, a=0)
    by_hand, by_itself = (
        await start_interrupted(connection, "a", resumes=False),
        await start_interrupted(connection, "a"),
    )
    await add_more(connection, "a", 20)
    assert await sendouts.auto_resume(connection) == [by_itself]
    assert await state_of(connection, by_hand) == "interrupted"
    assert await state_of(connection, by_itself) == "sending"


async def test_the_oldest_sendout_resumes_first(connection: Connection) -> None:
    """With codes for one of two sendouts, the older one gets all of them. The younger one reserves none."""
    await add_stock(connection, a=0, b=0)
    older, younger = await start_interrupted(connection, "a", "b"), await start_interrupted(connection, "a", "b")
    await add_more(connection, "a", 19)
    await add_more(connection, "b", 30)
    assert await sendouts.auto_resume(connection) == [older]
    left = await sendout_views.get(connection, younger)
    assert (left.state, left.reason) == ("interrupted", "list a: 10 needed, 9 available, 1 missing")
    assert [(each.reserved, each.missing) for each in left.lists] == [(0, 1), (0, 0)]


async def test_a_smaller_younger_sendout_does_not_wait_for_an_older_one(connection: Connection) -> None:
    """A sendout that needs more codes than available does not hold back others."""
    await add_stock(connection, a=0, b=0)
    older, younger = await start_interrupted(connection, "a", "b"), await start_interrupted(connection, "b")
    await add_more(connection, "b", 10)
    assert await sendouts.auto_resume(connection) == [younger]
    assert await state_of(connection, older) == "interrupted"


async def test_checking_a_short_sendout_writes_nothing(connection: Connection) -> None:
    """Workers check short sendouts every few seconds, and change no row as long as codes are missing."""
    await add_stock(connection, a=9)
    await start_interrupted(connection, "a")
    before = await row_versions(connection)
    for _ in range(3):
        assert await sendouts.auto_resume(connection) == []
    assert await row_versions(connection) == before


async def test_released_codes_make_sendouts_resumable(connection: Connection) -> None:
    """Codes become available not only by imports: a cancelled sendout releases its codes too."""
    await add_stock(connection, a=10)
    first = await start_sendout(connection, "a")
    second = await start_interrupted(connection, "a")
    await sendouts.cancel(connection, first)
    assert await sendouts.auto_resume(connection) == [second]


async def test_an_archived_list_resumes_its_sendouts(connection: Connection) -> None:
    """A sendout that was accepted before its list was archived is under way: it is resumed once there are codes."""
    await add_stock(connection, a=0, b=0)
    archived, other = await start_interrupted(connection, "a"), await start_interrupted(connection, "b")
    await add_more(connection, "a", 10)
    await add_more(connection, "b", 10)
    await lists.archive(connection, "a")
    assert (await sendout_views.get(connection, archived)).resumable
    assert await sendouts.auto_resume(connection) == [archived, other]


async def resume_at_once(other: Connection, database_url: str, workers: int) -> list[UUID]:
    """Let this number of workers find the same interrupted sendouts before one of them resumes any."""

    async def worker() -> list[UUID]:
        async with connect(database_url) as own:
            return await sendouts.auto_resume(own)

    async with lock_rows(other, "sendout"):
        working = [asyncio.create_task(worker()) for _ in range(workers)]
        await until_blocked(other, *working)
    return [sendout_id for resumed in await asyncio.gather(*working) for sendout_id in resumed]


async def test_a_sendout_that_two_workers_find_is_resumed_once(
    connection: Connection, other: Connection, database_url: str
) -> None:
    """The second worker waits for the first one, then finds the sendout sending, although codes are left."""
    await add_stock(connection, a=0)
    sendout_id = await start_interrupted(connection, "a")
    await add_more(connection, "a", 25)
    assert await resume_at_once(other, database_url, workers=2) == [sendout_id]
    (found,) = await lists.get(connection, "a")
    assert (found.available, found.reserved) == (15, 10)


async def test_concurrent_workers_resume_each_sendout_once(
    connection: Connection, other: Connection, database_url: str
) -> None:
    """With codes for four of six sendouts, four workers resume the four oldest ones, each once."""
    await add_stock(connection, a=0)
    waiting = [await start_interrupted(connection, "a") for _ in range(6)]
    await add_more(connection, "a", 45)
    assert sorted(await resume_at_once(other, database_url, workers=4)) == sorted(waiting[:4])
    (found,) = await lists.get(connection, "a")
    assert (found.available, found.reserved) == (5, 40)


@pytest.mark.parametrize("resumes", [False, True])
async def test_the_auto_resume_option_is_stored(connection: Connection, resumes: bool) -> None:
    """The sendout stores the auto-resume option of its command."""
    await add_stock(connection, a=10)
    sendout_id = await start_sendout(connection, "a", resumes=resumes)
    assert (await sendout_views.get(connection, sendout_id)).auto_resume is resumes


def test_a_command_without_the_option_keeps_its_digest() -> None:
    """An older command that a newer program publishes again has the same digest and is recognized."""
    content = {"type": "sendout", "message": "m", "group": "g", "recipients": None}
    before = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    assert StartSendout(message="m", group="g").digest() == before
    assert StartSendout(message="m", group="g", auto_resume=True).digest() != before
