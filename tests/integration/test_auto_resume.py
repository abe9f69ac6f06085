"""Interrupted sendouts that their lists could cover now: shown, and resumed by themselves where they were told to."""

import asyncio
import hashlib
import json
from uuid import UUID, uuid4

import pytest

from coupons.admission import Granted, Short
from coupons.commands import StartSendout
from coupons.database import Connection, connect
from coupons.states import Shortage
from coupons.store import lists, sendout_views, sendouts
from producers.web.templating import page
from tests.factories import add_codes, add_group, add_list, prepare, save_message


async def interrupted(connection: Connection, *of_lists: str, resumes: bool = True) -> UUID:
    """Ten recipients, and a list with too few codes among these."""
    return await begun(connection, *of_lists, resumes=resumes, as_decided=Short)


async def begun(
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


async def stocked(connection: Connection, *, shortage: Shortage = Shortage.PAUSE, **codes: int) -> None:
    for name, amount in codes.items():
        await add_list(connection, name, amount, shortage=shortage)
    await add_group(connection, "g", 10)


async def more(connection: Connection, name: str, amount: int) -> None:
    await add_codes(connection, name, [f"{uuid4()}" for _ in range(amount)])


async def state_of(connection: Connection, sendout_id: UUID) -> str:
    return (await sendout_views.get(connection, sendout_id)).state


async def versions(connection: Connection) -> list[object]:
    """What changes with each write to a sendout, a list, or what one needs of the other."""
    query = """SELECT xmin::text FROM sendout UNION ALL SELECT xmin::text FROM sendout_list
               UNION ALL SELECT xmin::text FROM coupon_list"""
    return [row["xmin"] for row in await connection.fetch(query)]


# --- shown ---


async def test_a_sendout_is_covered_once_every_list_has_enough(connection: Connection) -> None:
    """One list of two is not enough; one code too few is not, either."""
    await stocked(connection, a=5, b=5)
    sendout_id = await interrupted(connection, "a", "b")
    await more(connection, "a", 5)
    await more(connection, "b", 4)
    assert not (await sendout_views.get(connection, sendout_id)).resumable
    assert await sendout_views.list_resumable(connection, "a") == []
    await more(connection, "b", 1)
    found = await sendout_views.get(connection, sendout_id)
    assert found.resumable
    assert found.auto_resume
    assert not found.ended


async def test_whoever_fills_a_list_is_told_whom_it_covers(connection: Connection) -> None:
    """Sendouts that need this list, the oldest first, those too that a person resumes."""
    await stocked(connection, a=0, b=0)
    await more(connection, "b", 9)
    by_hand, by_itself = await interrupted(connection, "a", resumes=False), await interrupted(connection, "a")
    await interrupted(connection, "b")
    await interrupted(connection, "a", "b")
    await more(connection, "a", 10)
    covered = await sendout_views.list_resumable(connection, "a")
    assert [(each.id, each.message, each.auto_resume) for each in covered] == [
        (by_hand, "a", False),
        (by_itself, "a", True),
    ]
    assert await sendout_views.list_resumable(connection, "b") == []
    assert (await sendout_views.get(connection, by_hand)).ended


async def test_a_list_that_does_not_pause_any_more_covers(connection: Connection) -> None:
    """What the list says of shortage now counts, as it does for a resume."""
    await stocked(connection, a=3)
    sendout_id = await interrupted(connection, "a")
    await lists.change(
        connection, "a", description=None, shortage=Shortage.TEXT, alternative_text="Sorry.", preview_text=None
    )
    assert (await sendout_views.get(connection, sendout_id)).resumable
    assert await sendouts.auto_resume(connection) == [sendout_id]


async def test_only_an_interrupted_sendout_is_covered(connection: Connection) -> None:
    """One that sends, or was cancelled, has no use for it."""
    await stocked(connection, a=30)
    sending = await begun(connection, "a")
    cancelled = await begun(connection, "a")
    await sendouts.cancel(connection, cancelled)
    assert [each.resumable for each in await sendout_views.list_newest(connection)] == [False, False]
    assert await sendouts.auto_resume(connection) == []
    assert await state_of(connection, sending) == "sending"


async def test_the_console_shows_it_beside_the_button(connection: Connection) -> None:
    """And whether somebody has to click it."""
    await stocked(connection, a=0)
    await interrupted(connection, "a", resumes=False)
    assert "Import the missing codes, then resume the sendout." in await console(connection)
    await more(connection, "a", 10)
    shown = await console(connection)
    assert "resumable</span>" in shown
    assert "the sendout can be resumed." in shown
    await connection.execute("UPDATE sendout SET auto_resume = true")
    assert "the sendout will resume automatically in a moment." in await console(connection)


async def console(connection: Connection) -> str:
    """The Outbox, every space one."""
    found = await sendout_views.list_newest(connection)
    body = bytes(page("outbox.html", live=False, refusal=None, sendouts=found, chosen=None, states=[]).body).decode()
    return " ".join(body.split())


# --- resumed by itself ---


async def test_it_resumes_by_itself_only_where_it_was_told_to(connection: Connection) -> None:
    """The others wait for a person, however old they are."""
    await stocked(connection, a=0)
    by_hand, by_itself = await interrupted(connection, "a", resumes=False), await interrupted(connection, "a")
    await more(connection, "a", 20)
    assert await sendouts.auto_resume(connection) == [by_itself]
    assert await state_of(connection, by_hand) == "interrupted"
    assert await state_of(connection, by_itself) == "sending"


async def test_the_oldest_resumes_first_and_all_or_nothing(connection: Connection) -> None:
    """Codes for one of two: the older one gets all of them, the younger one holds nothing and says what is missing."""
    await stocked(connection, a=0, b=0)
    older, younger = await interrupted(connection, "a", "b"), await interrupted(connection, "a", "b")
    await more(connection, "a", 19)
    await more(connection, "b", 30)
    assert await sendouts.auto_resume(connection) == [older]
    left = await sendout_views.get(connection, younger)
    assert (left.state, left.reason) == ("interrupted", "list a: 10 needed, 9 available, 1 missing")
    assert [(each.reserved, each.missing) for each in left.lists] == [(0, 1), (0, 0)]


async def test_a_younger_one_does_not_wait_for_an_older_one(connection: Connection) -> None:
    """One that needs more than there is does not hold back what could go."""
    await stocked(connection, a=0, b=0)
    older, younger = await interrupted(connection, "a", "b"), await interrupted(connection, "b")
    await more(connection, "b", 10)
    assert await sendouts.auto_resume(connection) == [younger]
    assert await state_of(connection, older) == "interrupted"


async def test_whoever_is_still_short_is_not_written_to(connection: Connection) -> None:
    """Every worker looks every few seconds, for as long as codes are missing: no row changes meanwhile."""
    await stocked(connection, a=9)
    await interrupted(connection, "a")
    before = await versions(connection)
    for _ in range(3):
        assert await sendouts.auto_resume(connection) == []
    assert await versions(connection) == before


async def test_codes_that_come_back_cover_too(connection: Connection) -> None:
    """Not only imports: a cancelled sendout returns what it was promised."""
    await stocked(connection, a=10)
    first = await begun(connection, "a")
    second = await interrupted(connection, "a")
    await sendouts.cancel(connection, first)
    assert await sendouts.auto_resume(connection) == [second]


async def test_an_archived_list_resumes_nobody(connection: Connection) -> None:
    """Nor does it stop the others. Archiving is refused while a sendout needs the list; this one was faster."""
    await stocked(connection, a=0, b=0)
    archived, other = await interrupted(connection, "a"), await interrupted(connection, "b")
    await more(connection, "a", 10)
    await more(connection, "b", 10)
    await connection.execute("UPDATE coupon_list SET archived_at = now() WHERE name = 'a'")
    assert not (await sendout_views.get(connection, archived)).resumable
    assert await sendout_views.list_resumable(connection, "a") == []
    assert await sendouts.auto_resume(connection) == [other]
    assert await state_of(connection, archived) == "interrupted"


async def test_workers_that_look_at_once_promise_once(connection: Connection, database_url: str) -> None:
    """Four workers, six sendouts, codes for four of them: the four oldest go, each once."""
    await stocked(connection, a=0)
    waiting = [await interrupted(connection, "a") for _ in range(6)]
    await more(connection, "a", 45)

    async def worker() -> list[UUID]:
        async with connect(database_url) as own:
            return await sendouts.auto_resume(own)

    resumed = await asyncio.gather(*(worker() for _ in range(4)))
    assert sorted(each for some in resumed for each in some) == sorted(waiting[:4])
    (found,) = await lists.get(connection, "a")
    assert (found.available, found.reserved) == (5, 40)


@pytest.mark.parametrize("resumes", [False, True])
async def test_the_option_is_kept(connection: Connection, resumes: bool) -> None:
    """As the command said it."""
    await stocked(connection, a=10)
    sendout_id = await begun(connection, "a", resumes=resumes)
    assert (await sendout_views.get(connection, sendout_id)).auto_resume is resumes


def test_a_command_without_the_option_is_what_it_always_was() -> None:
    """Published again by a newer program, it is still known as the same."""
    content = {"type": "sendout", "message": "m", "group": "g", "recipients": None}
    before = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    assert StartSendout(message="m", group="g").digest() == before
    assert StartSendout(message="m", group="g", auto_resume=True).digest() != before
