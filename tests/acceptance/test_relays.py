"""Slow, unreachable and dying relays: sendouts wait and show the reason, or use another relay."""

import re
import time
from typing import Any

from sandbox.services import private_sink
from tests.acceptance.gateway import Gate
from tests.acceptance.mails import assert_own_codes, received
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

QUICK: dict[str, Any] = {"smtp_backoff_seconds": 0.2, "smtp_max_backoff_seconds": 0.5, "sweep_seconds": 1}
ACTS_SECONDS = 2.0
START_SECONDS = 1.0
"""Time that the command itself needs to start."""


def test_a_pause_acts_within_two_seconds_and_reports_the_sent_mails(slow_shop: Shop) -> None:
    """Even a slow relay does not delay a pause. It reports as many mails as the sink accepted, and no mail follows."""
    shop, customers = slow_shop, addresses(200)
    with shop.worker():
        shop.has("spring-voucher", "customers", customers, {"spring-10": codes("SPRING", 200)})
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.mails_come(20)
        assert re.search(r"\(\d+ in flight\)\n", shop.coupons("show", sendout).out)
        started = time.monotonic()
        printed = shop.coupons("pause", sendout).out
        assert time.monotonic() - started < ACTS_SECONDS + START_SECONDS
        found = re.search(r"is paused: (\d+) of 200 mails already handed to the relay\n", printed)
        assert found, printed
        assert len(shop.mails()) == int(found[1])
        states = shop.deliveries(sendout)
        assert sorted({*states.values()}) == ["pending", "sent"]
        printed = shop.coupons("cancel", sendout).out
        assert f"is cancelled: {found[1]} of 200 mails already handed to the relay" in printed
    assert len(shop.mails()) == int(found[1])


def test_a_sendout_waits_for_a_relay_and_shows_the_reason(shop: Shop) -> None:
    """`show` and `outbox` have the reason, no attempt is counted, and all mails are sent once the relay is up."""
    gate = Gate(shop.services.smtp_url)
    with shop.worker(smtp_url=gate.url, **QUICK):
        shop.has("spring-voucher", "customers", addresses(50), {"spring-10": codes("SPRING", 50)})
        sendout = shop.begin_sending("spring-voucher", "customers")
        waiting = "SELECT FROM sendout WHERE waiting_reason IS NOT NULL"
        eventually(lambda: shop.rows(waiting), "the sendout to wait")
        reason = r"waiting: relay 127\.0\.0\.1:\d+ refuses connections since \d\d:\d\d"
        for command in ("outbox",), ("show", sendout):
            assert re.search(reason, shop.coupons(*command).out)
        assert shop.rows("SELECT DISTINCT state, attempts FROM delivery") == [{"state": "pending", "attempts": 0}]
        with gate.opened():
            shop.becomes("finished", sendout)
    assert shop.rows("SELECT DISTINCT state, attempts FROM delivery") == [{"state": "sent", "attempts": 1}]
    assert shop.rows(waiting) == []
    assert_own_codes(shop.mails(), addresses(50), codes("SPRING", 50))


def test_mails_of_an_unreachable_relay_go_to_the_other_one(slow_shop: Shop) -> None:
    """When one of two relays becomes unreachable, each recipient gets one mail from the other relay or is uncertain."""
    shop, customers = slow_shop, addresses(40)
    with private_sink(shop.services.ledger.with_name("other.jsonl"), "--delay", "0.3") as other:
        gate = Gate(other.url)
        with shop.worker(smtp_url=f"{shop.services.smtp_url} {gate.url}", **QUICK):
            shop.has("spring-voucher", "customers", customers, {"spring-10": codes("SPRING", 40)})
            with gate.opened():
                sendout = shop.begin_sending("spring-voucher", "customers")
                eventually(other.mails, "mails through the relay that dies")
            gate.cut()
            shop.becomes("finished", sendout)
        mails = shop.mails() + [received(mail) for mail in other.mails()]
    states = shop.deliveries(sendout)
    assert {*states.values()} <= {"sent", "uncertain"}
    assert len([state for state in states.values() if state == "uncertain"]) <= 10
    assert {address for address, state in states.items() if state == "sent"} <= {mail.recipient for mail in mails}
    assert_own_codes(mails, {mail.recipient for mail in mails}, codes("SPRING", 40))
