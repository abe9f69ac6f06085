"""A relay that dies at any moment of a mail, is killed, says 421, is away for long, or answers too late."""

import asyncio
import json
import time
from collections import Counter
from functools import partial
from uuid import UUID

import pytest

from coupons.database import pooled
from coupons.settings import Settings
from coupons.smtp import Limits, Relays, SmtpAddress, Timeouts
from tests.factories import SENDER
from tests.faults.busy_system import CONNECTIONS, QUICK_RELAY, WORKERS, make_due
from tests.faults.lab import END_SECONDS, LONG, Lab, size
from tests.faults.sink import DIARY, queued_as
from tests.waiting import eventually
from workers.delivery.deliverer import Deliverer
from workers.loops import Signals

LISTS = 3
HASTY = {"smtp_connections": CONNECTIONS, **QUICK_RELAY}
BEFORE_THE_DOT = ("MAIL", "RCPT", "DATA", "BUSY")
WITH_THE_DOT = ("BODY", "DOT", "QUEUED")
"""A mail and its dot are one write: if the relay dies in its middle, nobody can say how much of it was read."""
TOGETHER = (*BEFORE_THE_DOT, *WITH_THE_DOT)
ONE_BY_ONE = [(each,) for each in (*BEFORE_THE_DOT, *WITH_THE_DOT)]
SHARE = 0.04
"""Of 300 mails none of a kind comes with a chance of one in 200,000."""


@pytest.mark.parametrize("moments", [TOGETHER, *(ONE_BY_ONE if LONG else [])], ids=" ".join)
def test_relay_dies(lab: Lab, moments: tuple[str, ...]) -> None:
    """Before the dot nobody is uncertain; after it each is, keeps the codes, and is never mailed again."""
    misbehaves(lab, dict.fromkeys(moments, SHARE))
    with lab.fleet(WORKERS, **HASTY):
        sendout = lab.start_sendout(size(short=300, long=3_000), LISTS)
        ends(lab, sendout)
    came = misfortunes(lab)
    deaths = sum(came[moment] for moment in WITH_THE_DOT)
    verdict = lab.check(f"the relay dies: {', '.join(moments)}", rounds=came.total(), max_uncertain=deaths)
    assert came.keys() == set(moments)
    assert verdict.uncertain == deaths
    assert uncertain_and_mailed(lab) == came["QUEUED"]
    assert codes_of_uncertain(lab) == LISTS * deaths
    assert_replies_are_their_own(lab)


def test_relay_is_killed(lab: Lab) -> None:
    """And started again on its port: at work at once, at most one mail of each connection uncertain each time."""
    misbehaves(lab, {}, delay=0.05)
    rounds, recovered = size(short=2, long=30), 0.0
    with lab.fleet(WORKERS, **HASTY):
        sendout = lab.start_sendout(rounds * 100)
        for number in range(rounds):
            eventually(partial(are_mailed, lab, 50 * number + 50), "mails", within=END_SECONDS)
            lab.sink.kill()
            lab.sink.start(delay=0.05)
            recovered = max(recovered, lab.time_recovery())
        ends(lab, sendout)
    most = rounds * WORKERS * CONNECTIONS
    lab.check("the relay is killed -9", rounds=rounds, recovered=recovered, max_uncertain=most)
    assert_replies_are_their_own(lab)


def test_relay_is_away(lab: Lab) -> None:
    """From before the sendout, for long: no attempt is counted, people see why, and it goes on within a minute."""
    lab.sink.kill()
    with lab.fleet(WORKERS, **({} if LONG else QUICK_RELAY)):
        sendout = lab.start_sendout(size(short=100, long=2_000))
        eventually(lambda: waiting_for(lab, sendout), "a sendout that waits")
        time.sleep(size(short=2, long=150))
        assert attempts(lab) == {0}
        lab.sink.start()
        recovered = lab.time_recovery()
        lab.wait_finished(sendout)
    assert attempts(lab) == {1}
    lab.check("no relay for long", recovered=recovered)


def test_reply_comes_after_its_timeout(lab: Lab) -> None:
    """It is never taken for another mail's: a mail is called sent for its own reply, or uncertain."""
    misbehaves(lab, {"LATE": 0.05}, late=1.0)
    with lab.worker("sendout"):
        sendout = lab.start_sendout(size(short=150, long=3_000))
        lab.becomes("sending", sendout)
    asyncio.run(deliver_impatiently(lab, sendout))
    came = misfortunes(lab)["LATE"]
    assert came
    lab.check("replies after their timeout", rounds=came, max_uncertain=came)
    assert_replies_are_their_own(lab)


def misbehaves(lab: Lab, odds: dict[str, float], **options: object) -> None:
    lab.sink.kill()
    lab.sink.start(odds=json.dumps(odds), **options)


def misfortunes(lab: Lab) -> Counter[str]:
    """How many of each there were."""
    return Counter(lab.sink.ledger.with_suffix(DIARY).read_text().split())


def are_mailed(lab: Lab, least: int) -> bool:
    return make_due(lab) and lab.mail_count() >= least


def ends(lab: Lab, sendout: UUID) -> None:
    eventually(lambda: make_due(lab) and lab.state(sendout) == "finished", "its end", within=END_SECONDS)


def uncertain_and_mailed(lab: Lab) -> int:
    mailed = {mail.rcpt_to[0] for mail in lab.ledger()}
    rows = lab.rows("SELECT address FROM delivery WHERE state = 'uncertain'")
    return sum(row["address"] in mailed for row in rows)


def codes_of_uncertain(lab: Lab) -> int:
    (found,) = lab.rows(
        "SELECT count(*) FROM coupon c JOIN delivery d ON (d.sendout_id, d.number) = (c.sendout_id, c.delivery_number)"
        " WHERE d.state = 'uncertain'"
    )
    return int(found["count"])


def waiting_for(lab: Lab, sendout: UUID) -> str | None:
    """What people are told of why it does not move."""
    (found,) = lab.rows("SELECT waiting FROM sendout WHERE id = $1", sendout)
    return None if found["waiting_reason"] is None else str(found["waiting_reason"])


def attempts(lab: Lab) -> set[int]:
    """How often each mail was tried."""
    return {row["attempts"] for row in lab.rows("SELECT DISTINCT attempts FROM delivery")}


def assert_replies_are_their_own(lab: Lab) -> None:
    """A mail that is called sent is called so for what the relay said of that very mail."""
    sent = lab.rows("SELECT address, reply FROM delivery WHERE state = 'sent'")
    assert sent
    assert [row for row in sent if not row["reply"].endswith(f"queued as {queued_as(row['address'])}")] == []


async def deliver_impatiently(lab: Lab, sendout: UUID) -> None:
    """What a worker does, but it waits for the relay for less than its replies are late."""
    settings = Settings(default_from=SENDER, lease_seconds=20)
    limits = Limits(connections=CONNECTIONS, backoff_seconds=0.05, max_backoff_seconds=0.2)
    timeouts = Timeouts(command_seconds=0.3, dot_seconds=0.4)
    addresses = SmtpAddress.parse_all(lab.direct.smtp_url)
    async with (
        pooled(lab.direct.database_url, size=4) as pool,
        Relays(addresses, limits=limits, timeouts=timeouts) as relays,
        asyncio.TaskGroup() as group,
    ):
        signals = Signals(("deliver",))
        deliverer = Deliverer(
            pool=pool, relays=relays, signals=signals, settings=settings, owner="test", background=group
        )
        async with asyncio.timeout(END_SECONDS):
            while await pool.fetchval("SELECT state FROM sendout WHERE id = $1", sendout) != "finished":
                await asyncio.to_thread(make_due, lab)
                await deliverer.step()
