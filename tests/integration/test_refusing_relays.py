"""A relay that refuses all mails does not use up a sendout: a worker, a real database, a scripted relay."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from coupons.database import Connection, Pool, open_pool
from coupons.store import sendout_views, sendouts
from tests.deliver_worker import (
    CONNECTIONS,
    assigned_codes,
    becomes,
    begin,
    delivering,
    make_due,
    resume,
    resume_if_paused,
)
from tests.factories import add_list, add_recipients, prepare, save_message, start
from tests.smtp_server import PIPELINING, Act, Script, ScriptedServer, serving
from tests.waiting import until

RECIPIENTS = 300
TRANSMITTED = 3 + 2 * CONNECTIONS
"""Mails that get a refusal before all others are taken back: the suspects, and two mails on each connection."""


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=10) as pool:
        yield pool


async def begin_to(connection: Connection, recipients: list[tuple[str, dict[str, str]]]) -> UUID:
    await add_list(connection, "a", len(recipients))
    await add_recipients(connection, "g", recipients)
    await save_message(connection, "m", "a")
    sendout_id = await start(connection, "m", "g")
    await prepare(connection)
    return sendout_id


async def is_sent_with_the_same_codes(
    connection: Connection, server: ScriptedServer, sendout_id: UUID, before: dict[int, str]
) -> None:
    """Each recipient got one mail with one code. Codes that were assigned before the pause are still theirs."""
    found = await becomes(connection, "finished", sendout_id)
    assert (found.sent, found.refused, found.uncertain) == (found.recipients, 0, 0)
    after = await assigned_codes(connection)
    assert {number: after[number] for number in before} == before
    assert sorted(server.accepted) == sorted({*server.accepted})
    assert len(server.accepted) == found.recipients


REFUSALS: dict[str, Script] = {
    "unverified identity": {"DOT": "554 Message rejected: Email address is not verified.\r\n"},
    "DMARC": {"DOT": "550-5.7.26 This mail has been blocked because\r\n550 5.7.26 the sender is unauthenticated.\r\n"},
    "content filter": {"DOT": "550 5.7.1 message content rejected\r\n"},
    "size": {"DOT": "552 5.3.4 message too big\r\n"},
    "announced size": {"EHLO": "250-relay.example\r\n250-PIPELINING\r\n250 SIZE 10\r\n"},
    "size at MAIL": {"MAIL": "552 5.3.4 message size exceeds fixed limit\r\n"},
    "no DATA": {"DATA": "554 5.5.1 no\r\n"},
    "sender at MAIL": {"MAIL": "550 5.7.60 client does not have permissions to send as this sender\r\n"},
    "sender at RCPT": {"RCPT": "550 5.1.8 shop@example.org: sender address rejected: domain not found\r\n"},
    "account at RCPT": {"RCPT": "530 5.7.0 must issue a STARTTLS command first\r\n"},
}


@pytest.mark.parametrize(
    ("name", "way"), [*((name, PIPELINING) for name in REFUSALS), ("DMARC", {}), ("sender at MAIL", {})]
)
async def test_a_relay_that_refuses_all_mails_pauses_the_sendout(
    connection: Connection, pool: Pool, name: str, way: Script
) -> None:
    """No recipient is refused. After the fix and a resume, each of them gets one mail with the code assigned before."""
    sendout_id = await begin(connection, RECIPIENTS)
    codes = None
    async with serving({**way, **REFUSALS[name]}) as refusing:
        async with delivering(pool, refusing.url):
            found = await becomes(connection, "paused", sendout_id)
        assert (found.refused, found.uncertain, found.remaining) == (0, 0, RECIPIENTS)
        assert found.reason
        assert found.reason.startswith("the relay refuses ")
        assert "@" not in found.reason
        attempts = sum(line.startswith("MAIL") for lines in refusing.commands for line in lines)
        assert attempts <= TRANSMITTED
        codes = await assigned_codes(connection)
    async with serving(way) as fixed, delivering(pool, fixed.url):
        await resume(connection, sendout_id)
        await is_sent_with_the_same_codes(connection, fixed, sendout_id, codes)


async def test_the_pause_is_logged_and_shows_the_codes_and_the_mail_has_the_reply(
    connection: Connection, pool: Pool
) -> None:
    """The operator finds the whole reply with a deferred mail."""
    sendout_id = await begin(connection, RECIPIENTS)
    with capture_logs() as logs:
        async with serving({"DOT": "554 5.7.1 not verified\r\n"}) as refusing, delivering(pool, refusing.url):
            found = await becomes(connection, "paused", sendout_id)
    assert found.reason == "the relay refuses the message: 554 5.7.1"
    (entry,) = [each for each in logs if each["log_level"] == "error"]
    assert (entry["event"], entry["reason"]) == ("sendout paused", found.reason)
    replies = await connection.fetch("SELECT reply FROM delivery WHERE state = 'deferred'")
    assert len(replies) == 3  # the replies to other mails in flight are not recorded
    assert all(row["reply"].startswith("554 5.7.1 not verified") for row in replies)


async def test_a_resume_before_the_fix_pauses_again_and_loses_no_mail(connection: Connection, pool: Pool) -> None:
    """Mails whose message is refused keep their codes after the first resume."""
    sendout_id = await begin(connection, RECIPIENTS)
    async with serving({"DOT": "554 5.7.1 no\r\n"}) as refusing, delivering(pool, refusing.url):
        for _ in range(2):
            found = await becomes(connection, "paused", sendout_id)
            assert (found.refused, found.remaining) == (0, RECIPIENTS)
            await resume(connection, sendout_id)
    codes = await assigned_codes(connection)
    async with serving({}) as fixed, delivering(pool, fixed.url):
        await resume_if_paused(connection, sendout_id)
        await is_sent_with_the_same_codes(connection, fixed, sendout_id, codes)


async def test_refusals_after_the_resume_are_final_and_end_the_sendout(connection: Connection, pool: Pool) -> None:
    """The reply to RCPT may concern the recipients, and there are no others. Their codes return to the list."""
    recipients = [(f"c@d{number}.example", {"first_name": "Cy"}) for number in range(3)]
    sendout_id = await begin_to(connection, recipients)
    async with serving({"RCPT": "554 5.7.1 relaying denied\r\n"}) as refusing, delivering(pool, refusing.url):
        found = await becomes(connection, "paused", sendout_id)
        assert (found.refused, found.remaining) == (0, 3)
        await resume(connection, sendout_id)
        found = await becomes(connection, "finished", sendout_id)
    assert (found.sent, found.refused) == (0, 3)
    assert await connection.fetchval("SELECT available = 3 FROM coupon_list")


async def test_the_time_while_paused_does_not_count_as_deferred(connection: Connection, pool: Pool) -> None:
    """Mails that were deferred long before the resume are not given up at their next deferral."""
    sendout_id = await begin(connection, 3)
    async with serving({"RCPT": "450 4.7.1 later\r\n"}) as busy, delivering(pool, busy.url):
        await until(lambda: connection.fetchval("SELECT count(*) = 3 FROM delivery WHERE state = 'deferred'"))
        async with connection.transaction():
            await sendouts.pause(connection, sendout_id, "by an operator")
        await make_due(connection, seconds=3 * 86_400)
        await resume(connection, sendout_id)
        await until(lambda: connection.fetchval("SELECT count(*) = 3 FROM delivery WHERE attempts = 2"))
        found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.refused, found.remaining) == ("sending", 0, 3)


async def test_a_relay_that_begins_to_refuse_loses_no_mail(connection: Connection, pool: Pool) -> None:
    """It accepts some mails before, for example until its operator blocks the account."""
    sendout_id = await begin(connection, RECIPIENTS)
    blocked: Script = {"DOT": [*["250 ok\r\n"] * 20, "550 5.7.1 blocked\r\n"]}
    async with serving(*[blocked] * 3, {"DOT": "550 5.7.1 blocked\r\n"}) as refusing, delivering(pool, refusing.url):
        found = await becomes(connection, "paused", sendout_id)
    assert (found.refused, found.uncertain) == (0, 0)
    assert found.sent == len(refusing.accepted) > 0


async def test_single_refused_messages_are_refused_at_their_second_attempt(connection: Connection, pool: Pool) -> None:
    """The relay accepts the others, so nothing pauses. The codes return when the refusal is final."""
    sendout_id = await begin(connection, RECIPIENTS)
    spam: Script = {"DOT": Act("554 5.7.1 spam\r\n", only_for="5@example.org")}
    async with serving(spam) as server, delivering(pool, server.url):
        await until(lambda: connection.fetchval("SELECT count(*) = 30 FROM delivery WHERE state = 'deferred'"))
        await until(lambda: connection.fetchval("SELECT count(*) = 270 FROM delivery WHERE state = 'sent'"))
        assert await connection.fetchval("SELECT available = 0 FROM coupon_list")
        await make_due(connection, seconds=60)
        found = await becomes(connection, "finished", sendout_id)
    assert (found.sent, found.refused) == (270, 30)
    assert await connection.fetchval("SELECT available = 30 FROM coupon_list")


async def test_the_recipients_of_one_company_are_refused_without_a_pause(connection: Connection, pool: Pool) -> None:
    """57 recipients in a row get `550 5.7.1` at RCPT. At the second attempt, they are refused, one after the other."""
    company = [(f"b{number:02}@company.example", {"first_name": "Bo"}) for number in range(57)]
    others = [(f"c{number}@d{number}.example", {"first_name": "Cy"}) for number in range(60)]
    sendout_id = await begin_to(connection, company + others)
    refusing: Script = {"RCPT": Act("550 5.7.1 we do not want this\r\n", only_for="@company.example")}
    async with serving(refusing) as server, delivering(pool, server.url):
        await until(lambda: connection.fetchval("SELECT count(*) = 57 FROM delivery WHERE state = 'deferred'"))
        await until(lambda: connection.fetchval("SELECT count(*) = 60 FROM delivery WHERE state = 'sent'"))
        await make_due(connection, seconds=60)
        found = await becomes(connection, "finished", sendout_id)
    assert (found.sent, found.refused) == (60, 57)


async def test_a_relay_without_its_table_of_recipients_refuses_a_handful(connection: Connection, pool: Pool) -> None:
    """`550 5.1.1` seems to concern the recipient, so the first ones are refused. Then the sendout pauses."""
    recipients = [(f"c{number}@d{number}.example", {"first_name": "Cy"}) for number in range(RECIPIENTS)]
    sendout_id = await begin_to(connection, recipients)
    async with serving({"RCPT": "550 5.1.1 unknown\r\n"}) as refusing, delivering(pool, refusing.url):
        found = await becomes(connection, "paused", sendout_id)
    assert found.reason == "the relay refuses the recipients: 550 5.1.1"
    assert (found.refused, found.remaining) == (5, RECIPIENTS - 5)


@pytest.mark.parametrize(
    ("verb", "way"), [*((verb, PIPELINING) for verb in ("MAIL", "RCPT", "DATA", "DOT")), ("DOT", {})]
)
async def test_a_sendout_waits_for_the_end_of_a_quota(
    connection: Connection, pool: Pool, verb: str, way: Script
) -> None:
    """It shows the reason, no mail is refused, and it continues when the quota has ended."""
    sendout_id = await begin(connection, RECIPIENTS)
    over: Script = {**way, verb: "550 5.4.5 Daily user sending quota exceeded\r\n"}
    async with serving(*[over] * 4, way) as limited, delivering(pool, limited.url):
        waiting = "SELECT waiting_reason FROM sendout WHERE waiting_reason LIKE '% accepts no more mail %: 550 5.4.5'"
        await until(lambda: connection.fetchval(waiting))
        await until(lambda: connection.fetchval("SELECT count(*) > 200 FROM delivery WHERE state = 'sent'"))
        await make_due(connection)
        found = await becomes(connection, "finished", sendout_id)
    assert (found.sent, found.refused, found.uncertain) == (RECIPIENTS, 0, 0)
    assert len(limited.accepted) == len({*limited.accepted}) == RECIPIENTS
    attempts = await connection.fetchval("SELECT sum(attempts) FROM delivery")
    assert attempts <= RECIPIENTS + 4  # one per connection that found the quota exceeded


async def test_one_mail_with_the_reply_of_a_quota_does_not_stop_the_others(connection: Connection, pool: Pool) -> None:
    """The relay gives this reply for one recipient only. When the worker tries again, it tries with another mail."""
    sendout_id = await begin(connection, 30)
    one: Script = {"DOT": Act("550 5.4.5 quota\r\n", only_for="c1@example.org")}
    async with serving(one) as server, delivering(pool, server.url):
        await until(lambda: connection.fetchval("SELECT count(*) = 29 FROM delivery WHERE state = 'sent'"))
        found = await sendout_views.get(connection, sendout_id)
        assert (found.state, found.remaining) == ("sending", 1)


async def test_a_quota_of_one_domain_leaves_the_relay_in_rotation(connection: Connection, pool: Pool) -> None:
    """Its recipients wait. The others are sent over the same connections, without a delay."""
    company = "@company.example"
    domains = ["@d.example"] * 20 + [company, "@d.example", "@e.example"] * 30
    recipients = [(f"c{number:03}{domain}", {"first_name": "Cy"}) for number, domain in enumerate(domains)]
    await begin_to(connection, recipients)
    over: Script = {"RCPT": Act("550 5.4.5 quota\r\n", only_for=company)}
    async with serving(over) as server, delivering(pool, server.url):
        await until(lambda: connection.fetchval("SELECT count(*) = 30 FROM delivery WHERE state = 'deferred'"))
        await until(lambda: connection.fetchval("SELECT count(*) = 80 FROM delivery WHERE state = 'sent'"))
        assert len(server.commands) <= CONNECTIONS


async def test_a_quota_of_three_domains_is_that_of_the_relay(connection: Connection, pool: Pool) -> None:
    """It is suspended, although it has accepted mails before."""
    domains = ["d.example"] * 20 + [f"over{number}.example" for number in range(280)]
    recipients = [(f"c{number:03}@{domain}", {"first_name": "Cy"}) for number, domain in enumerate(domains)]
    sendout_id = await begin_to(connection, recipients)
    over: Script = {"RCPT": Act("550 5.4.5 quota\r\n", only_for="@over")}
    async with serving(over) as server, delivering(pool, server.url):
        waiting = "SELECT waiting_reason LIKE '% accepts no more mail %: 550 5.4.5' FROM sendout WHERE id = $1"
        await until(lambda: connection.fetchval(waiting, sendout_id))
        assert await connection.fetchval("SELECT sum(attempts) <= 40 FROM delivery")


async def test_the_mails_of_a_relay_over_its_quota_go_to_the_other_one(connection: Connection, pool: Pool) -> None:
    """The sendout does not wait."""
    sendout_id = await begin(connection, RECIPIENTS)
    async with serving({"DOT": "550 5.4.5 quota\r\n"}) as limited, serving({}) as other:
        async with delivering(pool, limited.url, other.url):
            await until(lambda: connection.fetchval("SELECT count(*) > 250 FROM delivery WHERE state = 'sent'"))
            await until(lambda: connection.fetchval("SELECT count(*) = 0 FROM delivery WHERE state = 'pending'"))
        found = await sendout_views.get(connection, sendout_id)
    assert (found.state, found.refused) == ("sending", 0)
    assert len(other.accepted) == found.sent


async def test_one_of_two_relays_that_refuses_all_mails_pauses_the_sendout(connection: Connection, pool: Pool) -> None:
    """The other relay accepts mails in between, which says nothing about this one. The reason names the relay."""
    sendout_id = await begin(connection, RECIPIENTS)
    slow: Script = {"DOT": Act("250 ok\r\n", 0.01)}
    async with (
        serving({"DOT": "554 5.7.1 no\r\n"}) as refusing,
        serving(slow) as other,
        delivering(pool, refusing.url, other.url),
    ):
        found = await becomes(connection, "paused", sendout_id)
    assert found.reason == f"the relay refuses the message: 554 5.7.1 (127.0.0.1:{refusing.port})"
    assert (found.refused, found.sent) == (0, len(other.accepted))


async def test_a_relay_that_defers_all_mails_pauses_the_sendout_after_a_day(connection: Connection, pool: Pool) -> None:
    """A worker does not give up one mail after the other."""
    sendout_id = await begin(connection, 30)
    async with serving({"RCPT": "450 4.7.1 later\r\n"}) as busy, delivering(pool, busy.url):
        await until(lambda: connection.fetchval("SELECT count(*) = 30 FROM delivery WHERE state = 'deferred'"))
        await make_due(connection, seconds=86_400)
        found = await becomes(connection, "paused", sendout_id)
    assert found.reason == "the relay refuses all mail: 450 4.7.1"
    assert found.refused == 2
    assert found.remaining == 28
