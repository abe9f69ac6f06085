"""Sending survives a relay that dies at any moment of a mail, is killed, replies 421, is down or replies too late."""

import asyncio
import json
import time
from collections import Counter
from functools import partial
from uuid import UUID

import pytest

from coupons.commands import ResumeSendout
from coupons.database import open_pool
from coupons.settings import Settings
from coupons.smtp import Limits, Relays, SmtpAddress, Timeouts
from tests.factories import SENDER
from tests.faults.busy_system import CONNECTIONS, QUICK_RELAY, WORKERS, make_due
from tests.faults.lab import END_SECONDS, LONG, Lab, size
from tests.faults.model_oracle import MAX_REFUSED
from tests.faults.sink import FAULT_LOG, queued_as
from tests.waiting import eventually
from workers.delivery.deliverer import Deliverer
from workers.loops import Signals

LISTS = 3
FAST_RETRY = {"smtp_connections": CONNECTIONS, **QUICK_RELAY}
BEFORE_THE_DOT = ("MAIL", "RCPT", "DATA", "BUSY")
WITH_THE_DOT = ("BODY", "DOT", "QUEUED")
"""A mail and its final dot are one write. If the relay dies in the middle, it is unknown how much it has read."""
TOGETHER = (*BEFORE_THE_DOT, *WITH_THE_DOT)
ONE_BY_ONE = [(each,) for each in (*BEFORE_THE_DOT, *WITH_THE_DOT)]
SHARE = 0.04
"""The probability of each fault. With 300 mails, the probability that some fault never happens is 1 in 200,000."""


@pytest.mark.parametrize("moments", [TOGETHER, *(ONE_BY_ONE if LONG else [])], ids=" ".join)
def test_a_dying_relay_loses_and_duplicates_no_mail(lab: Lab, moments: tuple[str, ...]) -> None:
    """A mail becomes uncertain only if the relay dies after its final dot may have been sent.

    An uncertain mail keeps its codes and is never sent again.
    """
    restart_sink(lab, dict.fromkeys(moments, SHARE))
    with lab.fleet(WORKERS, **FAST_RETRY):
        sendout = lab.start_sendout(size(short=300, long=3_000), LISTS)
        wait_for_end(lab, sendout)
    faults = fault_counts(lab)
    deaths = sum(faults[moment] for moment in WITH_THE_DOT)
    verdict = lab.check(f"the relay dies: {', '.join(moments)}", rounds=faults.total(), max_uncertain=deaths)
    assert faults.keys() == set(moments)
    assert verdict.uncertain == deaths
    assert uncertain_and_mailed(lab) == faults["QUEUED"]
    assert codes_of_uncertain(lab) == LISTS * deaths
    assert_replies_are_their_own(lab)


def test_a_restarted_relay_gets_mails_again(lab: Lab) -> None:
    """A restarted relay gets mails again soon, and each kill leaves at most one mail per connection uncertain."""
    restart_sink(lab, {}, delay=0.05)
    rounds, recovered = size(short=2, long=30), 0.0
    with lab.fleet(WORKERS, **FAST_RETRY):
        sendout = lab.start_sendout(rounds * 100)
        for number in range(rounds):
            eventually(partial(are_mailed, lab, 50 * number + 50), "mails to arrive", within=END_SECONDS)
            lab.sink.kill()
            lab.sink.start(delay=0.05)
            recovered = max(recovered, lab.time_recovery())
        wait_for_end(lab, sendout)
    most = rounds * WORKERS * CONNECTIONS
    lab.check("the relay is killed -9", rounds=rounds, recovered=recovered, max_uncertain=most)
    assert_replies_are_their_own(lab)


def test_sending_starts_soon_after_a_long_outage(lab: Lab) -> None:
    """While no relay is up, the sendout has a reason for waiting and no mail counts an attempt.

    Sending starts within a minute after the relay.
    """
    lab.sink.kill()
    with lab.fleet(WORKERS, **({} if LONG else QUICK_RELAY)):
        sendout = lab.start_sendout(size(short=100, long=2_000))
        eventually(lambda: waiting_for(lab, sendout), "the sendout to wait")
        time.sleep(size(short=2, long=150))
        assert attempts(lab) == {0}
        lab.sink.start()
        recovered = lab.time_recovery()
        lab.wait_finished(sendout)
    assert attempts(lab) == {1}
    lab.check("no relay for long", recovered=recovered)


def test_a_reply_after_its_timeout_is_not_mispaired(lab: Lab) -> None:
    """A late reply is never paired with another mail: a mail is sent only after its own reply, else it is uncertain."""
    restart_sink(lab, {"LATE": 0.05}, late=1.0)
    with lab.worker("sendout"):
        sendout = lab.start_sendout(size(short=150, long=3_000))
        lab.becomes("sending", sendout)
    asyncio.run(deliver_impatiently(lab, sendout))
    faults = fault_counts(lab)["LATE"]
    assert faults
    lab.check("replies after their timeout", rounds=faults, max_uncertain=faults)
    assert_replies_are_their_own(lab)


REFUSALS = ("MESSAGE", "SENDER", "QUOTA")
"""What a relay refuses that refuses all mails: after the final dot, or at RCPT, where the reply is not about RCPT."""


@pytest.mark.parametrize("what", REFUSALS)
def test_a_relay_that_refuses_all_mails_does_not_use_up_the_sendout(lab: Lab, what: str) -> None:
    """The sendout pauses, or waits for the end of the quota. A resume while the relay refuses all mails loses nothing.

    A worker that has handed over only one or two mails may refuse them. Later, each recipient gets a mail: most of them
    after a resume, and the refused ones after a retry.
    """
    restart_sink(lab, {what: 1})
    with lab.fleet(WORKERS, **{**FAST_RETRY, "smtp_backoff_seconds": 0.02}):
        sendout = lab.start_sendout(size(short=60, long=3_000), LISTS)
        for _ in range(size(short=2, long=5)):
            eventually(
                lambda: is_held_up(lab, sendout, what), "the sendout to be held up", seen=lambda: lab.state(sendout)
            )
            resume_if_paused(lab, sendout)
        eventually(
            lambda: is_held_up(lab, sendout, what) and are_none_in_flight(lab), "the last replies to be recorded"
        )
        assert lab.mail_count() == 0
        restart_sink(lab, {})
        wait_for_end(lab, sendout)
        refused = [*lab.deliveries(sendout).values()].count("refused")
        assert refused <= WORKERS * MAX_REFUSED
        if refused:
            lab.coupons("retry", sendout, "--refused", "--yes")
            wait_for_end(lab, sendout)
    assert {*lab.deliveries(sendout).values()} == {"sent"}
    lab.check(f"the relay refuses all mails: {what}", rounds=fault_counts(lab)[what])


def is_held_up(lab: Lab, sendout: UUID, what: str) -> bool:
    make_due(lab)
    return bool(waiting_for(lab, sendout)) if what == "QUOTA" else lab.state(sendout) == "paused"


def are_none_in_flight(lab: Lab) -> bool:
    return not lab.rows("SELECT FROM delivery_batch WHERE in_flight <> '{}'")


def restart_sink(lab: Lab, odds: dict[str, float], **options: object) -> None:
    lab.sink.kill()
    lab.sink.start(odds=json.dumps(odds), **options)


def fault_counts(lab: Lab) -> Counter[str]:
    """How often each fault has happened so far."""
    return Counter(lab.sink.ledger.with_suffix(FAULT_LOG).read_text().split())


def are_mailed(lab: Lab, least: int) -> bool:
    return make_due(lab) and lab.mail_count() >= least


def wait_for_end(lab: Lab, sendout: UUID) -> None:
    def has_finished() -> bool:
        resume_if_paused(lab, sendout)
        return make_due(lab) and lab.state(sendout) == "finished"

    eventually(has_finished, "the sendout to finish", within=END_SECONDS, seen=lambda: lab.state(sendout))


def resume_if_paused(lab: Lab, sendout: UUID) -> None:
    if lab.state(sendout) == "paused":
        command = ResumeSendout(sendout=sendout)
        lab.publish(command)
        eventually(lambda: lab.is_recorded(command), "the resume command to be recorded")


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
    """The reason why the sendout waits."""
    (found,) = lab.rows("SELECT waiting_reason FROM sendout WHERE id = $1", sendout)
    return None if found["waiting_reason"] is None else str(found["waiting_reason"])


def attempts(lab: Lab) -> set[int]:
    """The distinct numbers of attempts that mails have."""
    return {row["attempts"] for row in lab.rows("SELECT DISTINCT attempts FROM delivery")}


def assert_replies_are_their_own(lab: Lab) -> None:
    """Check that each sent mail has the relay's reply to this mail and not to another."""
    sent = lab.rows("SELECT address, reply FROM delivery WHERE state = 'sent'")
    assert sent
    assert [row for row in sent if not row["reply"].endswith(f"queued as {queued_as(row['address'])}")] == []


async def deliver_impatiently(lab: Lab, sendout: UUID) -> None:
    """Send as a worker does, with timeouts that are shorter than the delay of the late replies."""
    settings = Settings(default_from=SENDER, lease_seconds=20)
    limits = Limits(connections=CONNECTIONS, backoff_seconds=0.05, max_backoff_seconds=0.2)
    timeouts = Timeouts(command_seconds=0.3, dot_seconds=0.4)
    addresses = SmtpAddress.parse_all(lab.direct.smtp_url)
    async with (
        open_pool(lab.direct.database_url, size=4) as pool,
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
