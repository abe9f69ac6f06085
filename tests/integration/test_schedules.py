"""A scheduled sendout is shown as such; its start and its pace can be changed, and no mail leaves against a change."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient

from coupons.commands import StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.migrate import migrations
from coupons.schedule import Reschedule
from coupons.states import DeliveryState, SendoutState
from coupons.store import deliveries, restore_guard, schedules, sendout_views, sendouts
from coupons.store.deliveries import Batch, Delivery, DeliveryResult
from coupons.store.schedules import PastStart
from coupons.store.sendout_views import Sendout
from tests.factories import LEASE_SECONDS, add_group, add_list, prepare, save_message
from tests.locks import until_blocked
from tests.web import SAME_ORIGIN, errors, web_client

LATER = timedelta(hours=2)
(CANCELLED_BEFORE_THE_START,) = (each for each in migrations() if "cancelled_before_the_start" in each.name)


@pytest.fixture
async def site(database_url: str, broker_url: str) -> AsyncIterator[AsyncClient]:
    async with web_client(database_url=database_url, broker_url=broker_url) as client:
        yield client


async def now(connection: Connection) -> datetime:
    at: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return at


async def scheduled(
    connection: Connection, *, per_hour: int | None = None, codes: int = 100, start_in: timedelta | None = LATER
) -> UUID:
    """Create a prepared sendout to 100 recipients, in batches of 40 mails, which starts in two hours."""
    await add_list(connection, "a", codes)
    await add_group(connection, "g", 100)
    await save_message(connection, "m", "a")
    start_at = await now(connection) + start_in if start_in else None
    command = StartSendout(id=uuid4(), message="m", group="g", start_at=start_at, per_hour=per_hour)
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=40)
    await prepare(connection, batch_size=40)
    return command.id


async def view(connection: Connection, sendout_id: UUID) -> Sendout:
    return await sendout_views.get(connection, sendout_id)


async def claim(connection: Connection) -> Batch | None:
    return await deliveries.claim(connection, owner="test", lease_seconds=LEASE_SECONDS)


async def claimed(connection: Connection) -> Batch:
    batch = await claim(connection)
    assert batch
    return batch


async def load(connection: Connection, batch: Batch) -> list[Delivery]:
    """Return the batch's due mails with their codes."""
    await deliveries.assign_codes(connection, batch)
    return await deliveries.list_due(connection, batch, await deliveries.list_lists(connection, batch.sendout_id))


async def may_send(connection: Connection, batch: Batch, *numbers: int) -> bool:
    """Whether the worker may hand over these mails now."""
    return await deliveries.record(
        connection, batch, flush=uuid4(), results=[], in_flight=[], intents=numbers, lease_seconds=LEASE_SECONDS
    )


async def deliver(
    connection: Connection, batch: Batch, *, deferred: tuple[int, ...] = (), due_in: float = 3_600
) -> list[int]:
    """Send the batch's due mails, and release it; return their numbers."""
    due = await load(connection, batch)
    results = [
        DeliveryResult.of(each, DeliveryState.DEFERRED, "450", due_in=due_in)
        if each.number in deferred
        else DeliveryResult.of(each, DeliveryState.SENT, "250")
        for each in due
    ]
    await deliveries.record(
        connection, batch, flush=uuid4(), results=results, in_flight=[], intents=[], lease_seconds=LEASE_SECONDS
    )
    await deliveries.release(connection, batch)
    return [each.number for each in due]


async def next_in(connection: Connection, sendout_id: UUID) -> float:
    """Return the seconds until the sendout's next batch may be claimed."""
    seconds: float = await connection.fetchval(
        "SELECT extract(epoch FROM next_batch_at - clock_timestamp())::float8 FROM sendout WHERE id = $1", sendout_id
    )
    return seconds


# --- the state -------------------------------------------------------------------------------------------------------


async def test_a_sendout_is_scheduled_until_its_start(connection: Connection) -> None:
    """It is scheduled with its codes reserved and without a start; from its start time on it is sending."""
    sendout_id = await scheduled(connection)
    found = await view(connection, sendout_id)
    assert (found.state, found.started_at, found.lists[0].reserved) == ("scheduled", None, 100)
    assert not found.ended
    assert await claim(connection) is None
    await schedules.reschedule(connection, sendout_id, Reschedule(start_at=await now(connection)))
    found = await view(connection, sendout_id)
    assert (found.state, found.started_at is not None) == ("sending", True)
    assert await claim(connection)


async def test_the_filter_by_state_separates_scheduled_from_sending(connection: Connection) -> None:
    """A scheduled sendout is not listed as sending."""
    sendout_id = await scheduled(connection)
    of_state = {state: await sendout_views.list_newest(connection, state=state) for state in SendoutState}
    assert {state for state, found in of_state.items() if found} == {"scheduled"}
    await schedules.reschedule(connection, sendout_id, Reschedule(now=True))
    of_state = {state: await sendout_views.list_newest(connection, state=state) for state in SendoutState}
    assert {state for state, found in of_state.items() if found} == {"sending"}


async def test_other_states_with_a_later_start_keep_their_names(connection: Connection) -> None:
    """A sendout that is queued, preparing, interrupted, paused or cancelled before its start is not scheduled."""
    await scheduled(connection, codes=7)
    (found,) = await sendout_views.list_newest(connection)
    assert found.state == "interrupted"
    for state in ("queued", "preparing", "interrupted", "paused", "cancelled"):
        await connection.execute("UPDATE sendout SET state = $1", state)
        assert (await view(connection, found.id)).state == state
    await connection.execute("UPDATE sendout SET state = 'interrupted'")


async def test_a_sendout_cancelled_before_its_start_never_starts(connection: Connection) -> None:
    """It has no start, also once its start time has come. A migration removes the start that another one wrote."""
    sendout_id = await scheduled(connection)
    await sendouts.cancel(connection, sendout_id)
    assert await connection.fetchval("SELECT started_at FROM sendout") is None
    for started_at, finished_at in ((-1, -2), (1, None)):
        await connection.execute(
            "UPDATE sendout SET started_at = now() + $1 * interval '1 h', finished_at = now() + $2 * interval '1 h'",
            started_at,
            finished_at,
        )
        await connection.execute(CANCELLED_BEFORE_THE_START.sql)
        assert await connection.fetchval("SELECT started_at FROM sendout") is None


async def test_a_sendout_cancelled_after_its_first_mails_keeps_its_start(connection: Connection) -> None:
    """Its start was in the past, even if the rest was rescheduled."""
    sendout_id = await scheduled(connection, start_in=None)
    await claimed(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(start_at=await now(connection) + LATER))
    await sendouts.cancel(connection, sendout_id)
    assert (await view(connection, sendout_id)).started_at


async def test_a_sendout_that_has_started_is_scheduled_again_after_a_pause(connection: Connection) -> None:
    """Mails that were sent before stay counted, and the time of the first start stays known."""
    sendout_id = await scheduled(connection, start_in=None)
    await deliver(connection, await claimed(connection))
    started_at = (await view(connection, sendout_id)).started_at
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(start_at=await now(connection) + LATER))
    assert (await view(connection, sendout_id)).state == "paused"
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    found = await view(connection, sendout_id)
    assert (found.state, found.sent, found.started_at) == ("scheduled", 40, started_at)
    assert await claim(connection) is None


# --- rescheduling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("queued", "wait until it is prepared"),
        ("preparing", "wait until it is prepared"),
        ("interrupted", "import the missing codes and resume it first"),
        ("sending", "pause it first (coupons pause)"),
        ("finished", "start another one with `coupons send`"),
        ("cancelled", "start another one with `coupons send`"),
        ("failed", "start another one with `coupons send`"),
    ],
)
async def test_a_sendout_in_another_state_is_not_rescheduled(connection: Connection, state: str, remedy: str) -> None:
    """The message names the state and what to do first; nothing is changed."""
    sendout_id = await scheduled(connection, start_in=None)
    await connection.execute(
        "UPDATE sendout SET state = $1, started_at = CASE WHEN $1 <> 'interrupted' THEN started_at END", state
    )
    before = await connection.fetchrow("SELECT * FROM sendout")
    with pytest.raises(Conflict) as refused:
        await schedules.reschedule(connection, sendout_id, Reschedule(now=True, per_hour=5))
    assert str(refused.value) == (
        f"sendout {sendout_id} is {state}: only a scheduled or paused sendout can be rescheduled; {remedy}"
    )
    assert await connection.fetchrow("SELECT * FROM sendout") == before
    await connection.execute("UPDATE sendout SET state = 'sending', started_at = now()")


async def test_an_unknown_sendout_is_not_rescheduled(connection: Connection) -> None:
    """The message has its id."""
    with pytest.raises(Conflict, match="there is no sendout"):
        await schedules.reschedule(connection, uuid4(), Reschedule(now=True))


async def test_a_start_in_the_past_changes_nothing(connection: Connection) -> None:
    """A new start more than five minutes in the past is refused, as when a sendout is started."""
    sendout_id = await scheduled(connection)
    past = await now(connection) - timedelta(minutes=6)
    with pytest.raises(PastStart, match=r"use --now \(in JSON: now: true; in the console: Start now"):
        await schedules.reschedule(connection, sendout_id, Reschedule(start_at=past))
    assert (await view(connection, sendout_id)).state == "scheduled"


async def test_a_start_now_resumes_a_paused_sendout(connection: Connection) -> None:
    """Without `now`, a paused sendout stays paused."""
    sendout_id = await scheduled(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(per_hour=60))
    assert ((await view(connection, sendout_id)).state, await claim(connection)) == ("paused", None)
    await schedules.reschedule(connection, sendout_id, Reschedule(now=True))
    found = await view(connection, sendout_id)
    assert (found.state, found.start_at, found.per_hour) == ("sending", None, 60)
    assert found.started_at is not None
    assert await claim(connection)


async def test_a_duration_spreads_the_mails_that_remain(connection: Connection) -> None:
    """After 40 of 100 mails, an hour for the rest is 60 mails per hour."""
    sendout_id = await scheduled(connection, start_in=None)
    await deliver(connection, await claimed(connection))
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(over_minutes=60))
    assert (await view(connection, sendout_id)).per_hour == 60
    await schedules.reschedule(connection, sendout_id, Reschedule(no_limit=True))
    assert (await view(connection, sendout_id)).per_hour is None


async def test_a_new_pace_limits_batches_that_exist(connection: Connection) -> None:
    """A sendout that was cut into batches of 40 mails keeps a pace of one mail per minute or second."""
    sendout_id = await scheduled(connection)
    await schedules.reschedule(connection, sendout_id, Reschedule(now=True, per_hour=60))
    assert await deliver(connection, await claimed(connection)) == [1]
    assert await next_in(connection, sendout_id) == pytest.approx(60, abs=2)
    assert await claim(connection) is None
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(now=True, per_hour=3_600))
    assert await next_in(connection, sendout_id) == pytest.approx(1, abs=0.5)
    await connection.execute("UPDATE sendout SET next_batch_at = now()")
    assert await deliver(connection, await claimed(connection)) == [*range(2, 12)]


async def test_mails_already_sent_are_paid_for_at_the_new_pace(connection: Connection) -> None:
    """Ten mails at one per second, then one per minute: the next mail waits for ten minutes, also after a start now."""
    sendout_id = await scheduled(connection, start_in=None, per_hour=3_600)
    assert len(await deliver(connection, await claimed(connection))) == 10
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(per_hour=60))
    assert await next_in(connection, sendout_id) == pytest.approx(600, abs=30)
    await schedules.reschedule(connection, sendout_id, Reschedule(now=True))
    assert await next_in(connection, sendout_id) == pytest.approx(600, abs=30)
    assert await claim(connection) is None
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(no_limit=True))
    assert await next_in(connection, sendout_id) <= 0


async def test_a_retry_does_not_wait_for_a_batch_with_a_slow_pace(connection: Connection) -> None:
    """A deferred mail of another batch that has become due is sent before the rest of a batch that is half sent."""
    sendout_id = await scheduled(connection, start_in=None)
    await deliver(connection, await claimed(connection), deferred=(7,))
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(now=True, per_hour=60))
    second = await claimed(connection)
    await connection.execute(  # the deferred mail becomes due while the second batch is sent
        "UPDATE delivery SET due_at = now() WHERE number = 7; UPDATE delivery_batch SET due_at = now() WHERE number = 1"
    )
    assert await deliver(connection, second) == [41]
    await connection.execute("UPDATE sendout SET next_batch_at = now()")
    assert await deliver(connection, await claimed(connection)) == [7]
    await connection.execute("UPDATE sendout SET next_batch_at = now()")
    assert await deliver(connection, await claimed(connection)) == [42]


# --- workers that were faster ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["later", "slower", "faster"])
async def test_a_worker_with_a_claimed_batch_obeys_the_change(connection: Connection, change: str) -> None:
    """Paused, rescheduled and resumed in one moment: a worker that noticed nothing hands over no more mails."""
    sendout_id = await scheduled(connection, start_in=None, per_hour=36_000)
    batch = await claimed(connection)
    await load(connection, batch)
    assert await may_send(connection, batch, 1, 2)
    await sendouts.pause(connection, sendout_id, "by a test")
    changes = {
        "later": Reschedule(start_at=await now(connection) + LATER),
        "slower": Reschedule(per_hour=60),
        "faster": Reschedule(no_limit=True),
    }
    await schedules.reschedule(connection, sendout_id, changes[change])
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    assert not await may_send(connection, batch, 1, 2, 3, 4)
    assert (await view(connection, sendout_id)).state == ("scheduled" if change == "later" else "sending")


async def test_no_code_is_assigned_before_the_start(connection: Connection) -> None:
    """A worker that claimed a batch just before the change gets no codes for it."""
    sendout_id = await scheduled(connection, start_in=None)
    batch = await claimed(connection)
    await sendouts.pause(connection, sendout_id, "by a test")
    await schedules.reschedule(connection, sendout_id, Reschedule(start_at=await now(connection) + LATER))
    async with connection.transaction():
        await sendouts.resume(connection, sendout_id)
    with pytest.raises(deliveries.NotSending):
        await deliveries.assign_codes(connection, batch)


async def test_a_start_that_comes_while_the_change_waits_refuses_the_change(
    connection: Connection, other: Connection
) -> None:
    """The state is compared when the sendout is locked, not when the change was requested."""
    sendout_id = await scheduled(connection, start_in=timedelta(seconds=1))
    async with other.transaction():
        await other.execute("SELECT FROM sendout FOR UPDATE")
        changing = asyncio.create_task(schedules.reschedule(connection, sendout_id, Reschedule(per_hour=60)))
        await until_blocked(other, changing)
        await other.execute("SELECT pg_sleep_until(start_at) FROM sendout")
    with pytest.raises(Conflict, match="is sending: only a scheduled or paused sendout"):
        await changing


async def test_two_changes_follow_one_another(connection: Connection, other: Connection) -> None:
    """The second of two concurrent changes sees the first: a sendout that was started now is no longer scheduled."""
    sendout_id = await scheduled(connection)
    async with other.transaction():
        await schedules.reschedule(other, sendout_id, Reschedule(now=True))
        changing = asyncio.create_task(
            schedules.reschedule(connection, sendout_id, Reschedule(start_at=await now(other) + LATER))
        )
        await until_blocked(other, changing)
    with pytest.raises(Conflict, match="is sending"):
        await changing


# --- API and console -------------------------------------------------------------------------------------------------


async def test_the_api_reschedules_a_sendout(site: AsyncClient, connection: Connection) -> None:
    """The response is the sendout with its new start and pace; the filter `scheduled` finds it."""
    sendout_id = await scheduled(connection)
    url = f"/api/sendouts/{sendout_id}/reschedule"
    body = {"start_at": "2090-03-01T09:00+01:00", "per_hour": 50}
    changed = (await site.post(url, json=body)).json()
    assert (changed["state"], changed["start_at"], changed["per_hour"]) == ("scheduled", "2090-03-01T08:00:00Z", 50)
    (listed,) = (await site.get("/api/sendouts?state=scheduled")).json()
    assert listed["id"] == str(sendout_id)
    assert (await site.get("/api/sendouts?state=sending")).json() == []
    started = (await site.post(url, json={"now": True, "no_limit": True})).json()
    assert (started["state"], started["per_hour"]) == ("sending", None)
    again = await site.post(url, json={"now": True})
    assert (again.status_code, "pause it first" in errors(again)) == (409, True)
    assert (await site.post(f"/api/sendouts/{uuid4()}/reschedule", json={"now": True})).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "at least one of start_at"),
        ({"now": True, "start_at": "2090-01-01T00:00Z"}, 422, "start_at and now cannot be combined"),
        ({"per_hour": 5, "no_limit": True}, 422, "cannot be combined"),
        ({"start_at": "2090-01-01T00:00"}, 422, "start_at: must be a date and time with a time zone"),
        ({"per_hour": 0}, 422, "per_hour: must be at least 1"),
        ({"over_minutes": 10**9}, 422, "over_minutes: must be at most"),
        ({"later": True}, 422, "later: unknown field"),
        ({"start_at": "2020-01-01T00:00Z"}, 409, "more than 5 minutes in the past"),
    ],
)
async def test_the_api_refuses_an_invalid_change(
    site: AsyncClient, connection: Connection, body: dict[str, object], status: int, words: str
) -> None:
    """The response names the field; nothing is changed."""
    sendout_id = await scheduled(connection)
    before = await connection.fetchrow("SELECT * FROM sendout")
    response = await site.post(f"/api/sendouts/{sendout_id}/reschedule", json=body)
    assert (response.status_code, words in errors(response)) == (status, True), errors(response)
    assert await connection.fetchrow("SELECT * FROM sendout") == before


async def test_the_page_of_a_sendout_reschedules_it(
    site: AsyncClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows that it is scheduled, its start with the zone, and forms for the start and the pace."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    sendout_id = await scheduled(connection)
    page = f"/sendouts/{sendout_id}"

    async def change(**fields: str) -> str:
        response = await site.post(f"{page}/reschedule", data=fields, headers=SAME_ORIGIN)
        return (await site.get(page)).text if response.status_code == 303 else response.text

    text = await change(start_at="2090-07-01T09:00")
    assert '<span class="badge scheduled">scheduled</span>' in text
    assert "1 Jul 2090, 09:00 CEST" in text
    assert "Start time (CE" in text
    assert "<dd>50 mails per hour</dd>" in await change(pace="per_hour", amount="50")
    assert "<dd>100 mails per hour</dd>" in await change(pace="over", amount="1h")
    assert "mails per hour</dd>" not in await change(pace="none")
    assert "start_at: 2090-03-26T02:30 does not exist in Europe/Berlin" in await change(start_at="2090-03-26T02:30")
    assert "&#39;many&#39; is not a number of mails from 1 to" in await change(pace="per_hour", amount="many")
    assert "&#39;xx&#39; is not a duration: write 90m, 4h, 1h30m or 2d" in await change(pace="over", amount="xx")
    assert "give a start time or a pace" in await change(pace="fast", amount="1")
    assert '<span class="badge scheduled">' in (await site.get("/?state=scheduled")).text
    assert '<span class="badge sending">' in await change(start="now")
    assert "reschedule" not in (await site.get(page)).text


async def test_a_restored_scheduled_sendout_may_have_been_sent(connection: Connection) -> None:
    """It may have been started now after the backup. So it is reported, and `--uncertain` pauses it."""
    sendout_id = await scheduled(connection)
    await connection.execute("UPDATE restore_guard SET cluster = cluster + 1")
    (reported,) = (await restore_guard.since(connection)).sendouts
    assert (reported.id, reported.state, reported.remaining) == (sendout_id, "scheduled", 100)
    assert await restore_guard.accept(connection, uncertain=True) == 0
    found = await view(connection, sendout_id)
    assert (found.state, found.lists[0].reserved) == ("paused", 100)
    assert found.reason
    assert "may have been rescheduled" in found.reason
